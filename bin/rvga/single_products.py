"""Products of genotypes with the null model in single precision, by BLAS.

Genotypes are expanded from their packed form a few hundred people at a time, in cache, centred,
and multiplied at once; sums of a few thousand people are in single precision, the rest in double.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from llvmlite import binding
from numba import types
from numba.extending import get_cython_function_address

from rvga.machine_code import compiled
from rvga.packed import Packed, centre_tile, require_columns, width

# People expanded at a time: 512 variants of them are 1 MiB.
_PEOPLE_PER_TILE = 512
# Products are added in single precision over so many tiles, 4096 people.
_TILES_PER_SUM = 8


@dataclass(frozen=True)
class SingleColumns:
    """Columns in single precision.

    Attributes
    ----------
    values : (width, c) float32
        0 beyond the last person.
    """

    values: np.ndarray

    @property
    def columns(self) -> int:
        """Number of columns."""
        return self.values.shape[1]


def single_columns(X: np.ndarray) -> SingleColumns:
    """Round columns (n, c) to single precision."""
    values = np.zeros((width(len(X)), X.shape[1]), dtype=np.float32)
    values[: len(X)] = X
    return SingleColumns(values)


class SingleSpace:
    """Memory of the products of one thread.

    Parameters
    ----------
    columns : int
        Columns of the null model.
    block_variants : int
        Rows of every product, at least the largest block: a product always has this shape, so
        that neither the number of threads nor the place of a chunk's end changes a bit.
    """

    def __init__(self, columns: int, block_variants: int):
        self.tile = np.zeros((block_variants, _PEOPLE_PER_TILE), dtype=np.float32)
        self.part = np.zeros((block_variants, columns), dtype=np.float32)
        # What BLAS is called with: 'N' (not transposed), sizes, and the factors 1 and beta.
        self.letter = np.array([ord("N")], dtype=np.uint8)
        self.sizes = np.array([columns, block_variants, 0, _PEOPLE_PER_TILE], dtype=np.int32)
        self.factors = np.array([1.0, 0.0], dtype=np.float32)


def single_space_bytes(columns: int, block_variants: int) -> int:
    """Return the bytes of a :class:`SingleSpace`."""
    return 4 * block_variants * (_PEOPLE_PER_TILE + columns)


def single_products(
    block: Packed,
    mean: np.ndarray,
    columns: SingleColumns,
    space: SingleSpace,
    out: np.ndarray,
) -> None:
    """Write (g - mean)'X, missing ones at the mean. The caller limits BLAS to one thread.

    Parameters
    ----------
    block : Packed
        Genotypes.
    mean : (m,) float64
        Mean of each variant, finite.
    out : (block_variants, c) float64
        Gets the products in its first rows.

    Raises
    ------
    ValueError
        The memory is for another number of columns.
    """
    require_columns(space.part.shape[1], columns.columns)
    _multiply(
        block.codes, mean.astype(np.float32), columns.values, space.tile, space.part, out,
        space.letter, space.sizes, space.factors,
    )  # fmt: skip


# Single-precision product of BLAS, called from compiled code so that a block is done without the
# interpreter: C = A B + beta C with matrices by columns, hence with the factors exchanged.
binding.add_symbol("rvga_sgemm", get_cython_function_address("scipy.linalg.cython_blas", "sgemm"))
_sgemm = types.ExternalFunction("rvga_sgemm", types.void(*[types.intp] * 13))


@compiled
def _multiply(codes, centre, right, tile, part, total, letters, sizes, factors):
    rows, columns = part.shape
    places, step = right.shape[0], tile.shape[1]
    letter, size, factor = letters.ctypes.data, sizes.ctypes.data, factors.ctypes.data
    total[:] = 0.0
    for start in range(0, places, step * _TILES_PER_SUM):
        stop = min(start + step * _TILES_PER_SUM, places)
        factors[1] = 0.0
        for low in range(start, stop, step):
            high = min(low + step, stop)
            centre_tile(codes, centre, low, high, tile)
            sizes[2] = high - low
            _sgemm(
                letter, letter, size, size + 4, size + 8, factor, right[low:].ctypes.data, size,
                tile.ctypes.data, size + 12, factor + 4, part.ctypes.data, size,
            )  # fmt: skip
            factors[1] = 1.0
        for row in range(rows):
            line, sums = part[row], total[row]
            for column in range(columns):
                sums[column] += line[column]
