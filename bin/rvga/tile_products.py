"""Products of genotypes with the null model in whole numbers, by a processor's matrix tiles.

Calls and the bytes of dosage codes are whole numbers of 8 bits as they are. The columns that they
are multiplied with are rounded to 24 bits and split into three signed digits of base 256. Products
of 8-bit numbers added up in 32 bits are exact, so that results depend on nothing but the data, and
processors with such tiles (AMX) do an order of magnitude more of them than of single-precision
products. A column is rounded to 6e-8 of its largest number, which is enough unless that is more
than about a hundred times its root mean square (:func:`rounding`).

With codes c, where a missing one counts ``MISSING_CALL`` or ``MISSING_DOSAGE``, and I which are
missing, ``(g - mean)'x = c'x - missing I'x - mean (1'x - I'x)``.
"""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass
from functools import cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, overload

from rvga.machine_code import compiled
from rvga.packed import (
    DOSAGE_ONE,
    MISSING_DOSAGE,
    Packed,
    bytes_of_calls,
    constant,
    load,
    prefetch,
    require_columns,
    store,
    width,
)

MISSING_CALL = 3
# The largest number whose three signed digits are within 8 bits.
LARGEST_WHOLE = 127 * (1 + (1 << 8) + (1 << 16))
DIGITS = 3
# A tile has 16 rows of 64 bytes; two tiles of genotypes meet two tiles of columns at a time.
_PEOPLE_PER_TILE = 64
TILE_BYTES = 1024
_ROWS, _COLUMNS = 32, 32
# Times 64 people whose bytes, of 32 rows and of 32 columns of digits, fit the first-level cache
# together; their other digits stay in the second while all rows of a block meet them.
_TILES_PER_PIECE = 8
_PEOPLE_PER_PIECE = _PEOPLE_PER_TILE * _TILES_PER_PIECE
_PAIR_BYTES = 2 * TILE_BYTES * _TILES_PER_PIECE
# Sums of products of a byte and a digit, each at most 255 x 128, over so many pieces stay below
# 2^31.
_PIECES_PER_SUM = 64
# Rows of whole numbers that are multiplied at a time.
_MOST_ROWS = 1024
# Linux: the system must be asked before a process uses tiles (arch_prctl(2)).
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18


@cache
def available() -> bool:
    """Return whether this machine has tiles for 8-bit products and lets this process use them."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return False
    # What the compiler may use: less than the processor has where its own variables say so.
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    if not {"+amx-tile", "+amx-int8", "+avx512bw"} <= set(features):
        return False
    library = ctypes.CDLL(None, use_errno=True)
    return library.syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0


@dataclass(frozen=True)
class WholeColumns:
    """Columns as digits, in the order in which tiles take them.

    Attributes
    ----------
    tiles : (pieces, column pairs, 8, 2, 1024) uint8
        Pieces of 512 people, pairs of 16 columns of digits, 64 people; a tile holds four people
        of a column side by side.
    unit : (c,) float64
        Value of one.
    total : (c,) float64
        Sums over people, in units.
    """

    tiles: np.ndarray
    unit: np.ndarray
    total: np.ndarray

    @property
    def columns(self) -> int:
        """Number of columns."""
        return len(self.unit)


def whole_columns(X: np.ndarray) -> WholeColumns:
    """Round columns to 24 bits of their largest number.

    Parameters
    ----------
    X : (n, c) float64
        Columns; one of zeros only is allowed.
    """
    n, c = X.shape
    largest = np.maximum(np.max(X, axis=0), -np.min(X, axis=0))
    unit = np.where(largest > 0, largest, 1.0) / LARGEST_WHOLE
    pairs = -(-DIGITS * c // _COLUMNS)
    shape = (-(-n // _PEOPLE_PER_PIECE), pairs, _TILES_PER_PIECE, 2, TILE_BYTES)
    tiles = aligned(int(np.prod(shape))).reshape(shape)
    total = np.zeros(c, dtype=np.int64)
    _split(X, 1.0 / unit, tiles, total)
    return WholeColumns(tiles, unit, total.astype(np.float64))


def rounding(X: np.ndarray) -> np.ndarray:
    """Return the standard deviation of what rounding adds to each column (c,), over its own size.

    Errors are uniform within half a unit, so this is ``unit / sqrt(12)`` over the root mean square
    of the column. A product with a variant's centred genotypes has that error times their length
    and the column's root mean square.

    Parameters
    ----------
    X : (n, c) float64
        Columns, none of zeros only.
    """
    largest = np.maximum(np.max(X, axis=0), -np.min(X, axis=0))
    size = np.sqrt(np.einsum("nc,nc->c", X, X) / len(X))
    return largest / (LARGEST_WHOLE * np.sqrt(12.0) * size)


def aligned(size: int) -> np.ndarray:
    """Return zeros (size,) uint8 that begin with a cache line, as a row of a tile should."""
    room = np.zeros(size + 63, dtype=np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size]


def tile_shape() -> np.ndarray:
    """Return what tells a processor that all its tiles have 16 rows of 64 bytes."""
    shape = np.zeros(64, dtype=np.uint8)
    shape[0] = 1
    shape[16:32] = np.full(8, 64, dtype="<u2").view(np.uint8)
    shape[48:56] = 16
    return shape


class TileSpace:
    """Memory of the products of one thread.

    Parameters
    ----------
    columns : int
        Columns of the null model.

    Raises
    ------
    RuntimeError
        Not :func:`available`: the products would end the process.
    """

    def __init__(self, columns: int):
        if not available():
            raise RuntimeError("this machine has no tiles for 8-bit products")
        padded = -(-DIGITS * columns // _COLUMNS) * _COLUMNS
        self.rows = aligned(_TILES_PER_PIECE * _ROWS * _PEOPLE_PER_TILE)
        self.part = aligned(4 * _MOST_ROWS * padded).view(np.int32).reshape(_MOST_ROWS, padded)
        self.sums = np.zeros((_MOST_ROWS, columns))
        self.shape = tile_shape()


def tile_space_bytes(columns: int) -> int:
    """Return the bytes of a :class:`TileSpace`."""
    return _MOST_ROWS * (4 * (DIGITS * columns + _COLUMNS) + 8 * columns) + (1 << 16)


def tile_products(
    block: Packed,
    mean: np.ndarray,
    called: np.ndarray,
    columns: WholeColumns,
    space: TileSpace,
    out: np.ndarray,
) -> None:
    """Write (g - mean)'X, missing ones at the mean.

    Parameters
    ----------
    block : Packed
        Genotypes.
    mean : (m,) float64
        Mean of each variant, finite.
    called : (m,) int64
        People with a genotype.
    out : (>= m, c) float64
        Gets the products of the columns as rounded.

    Raises
    ------
    ValueError
        The memory is for another number of columns.
    """
    require_columns(space.sums.shape[1], columns.columns)
    m = len(block)
    # Rows are found by their addresses.
    codes = np.ascontiguousarray(block.codes)
    parts = 1 if block.is_calls else 2
    rows = parts + (np.asarray(called) < block.n)
    first = 0
    while first < m:
        ends = np.cumsum(rows[first : first + _MOST_ROWS])
        stop = first + int(np.searchsorted(ends, _MOST_ROWS, side="right"))
        # Which variant a row is of, and which part: 0 calls or upper bytes, 1 lower bytes, 2 who
        # is missing.
        variant = np.repeat(np.arange(first, stop), rows[first:stop])
        part = np.arange(len(variant)) - np.repeat(
            np.r_[0, ends[: stop - first - 1]], rows[first:stop]
        )
        part[part == parts] = 2
        filled = -len(variant) % _ROWS
        variant = np.r_[variant, np.full(filled, first)]
        part = np.r_[part, np.zeros(filled, dtype=part.dtype)]
        _multiply(
            codes, variant, part, columns.tiles, width(block.n) // _PEOPLE_PER_TILE,
            space.rows, space.part, space.sums, space.shape,
        )  # fmt: skip
        _combine(
            block.is_calls, variant[: len(variant) - filled], part, mean, columns.unit,
            columns.total, space.sums, out,
        )  # fmt: skip
        first = stop


# ---- vectors and tiles -------------------------------------------------------------------------

_I1, _I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
_POINTER = _I8.as_pointer()


@intrinsic
def _bytes_of_dosages(typing, source, part, target):
    """Store the upper (0) or lower (1) bytes of 64 dosage codes, or who is missing (2)."""

    def generate(context, builder, signature, arguments):
        source, part, target = arguments
        narrow = ir.VectorType(_I8, 64)
        codes = load(builder, source, ir.VectorType(_I16, 64), 2)
        with builder.if_else(builder.icmp_signed("==", part, ir.Constant(part.type, 2))) as (
            absent,
            present,
        ):
            with absent:
                missing = builder.icmp_unsigned("==", codes, constant(codes.type, MISSING_DOSAGE))
                store(builder, builder.zext(missing, narrow), target, 64)
            with present:
                lower = builder.icmp_signed("==", part, ir.Constant(part.type, 1))
                upper = builder.lshr(codes, constant(codes.type, 8))
                chosen = builder.select(lower, codes, upper)
                store(builder, builder.trunc(chosen, narrow), target, 64)
        return context.get_dummy_value()

    return types.void(types.uintp, types.int64, types.uintp), generate


def tile_call(builder, name, *arguments):
    """Call a tile instruction; Python numbers are tiles."""
    values = [ir.Constant(_I8, x) if isinstance(x, int) else x for x in arguments]
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [value.type for value in values]),
        f"llvm.x86.{name}",
    )
    builder.call(function, values)


@intrinsic
def set_tiles(typing, shape):
    """Give the thread's tiles their shape."""

    def generate(context, builder, signature, arguments):
        tile_call(builder, "ldtilecfg", builder.inttoptr(arguments[0], _POINTER))
        return context.get_dummy_value()

    return types.void(types.uintp), generate


@intrinsic
def release_tiles(typing):
    """Give the thread's tiles back."""

    def generate(context, builder, signature, arguments):
        tile_call(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _multiply_tiles(typing, rows, columns, sums, stride, steps):
    """Add the products of 32 rows of bytes with 32 columns of digits to 32 x 32 sums.

    Parameters
    ----------
    rows, columns : addresses
        Two tiles a step.
    sums : address of int32
        The sums, rows ``stride`` bytes apart.
    steps : int
        Times 64 people.
    """

    def generate(context, builder, signature, arguments):
        rows, columns, sums, stride, steps = arguments
        line = ir.Constant(_I64, _PEOPLE_PER_TILE)
        lower = builder.mul(stride, ir.Constant(_I64, 16))
        places = [
            builder.inttoptr(
                builder.add(builder.add(sums, down), ir.Constant(_I64, right)), _POINTER
            )
            for down in (ir.Constant(_I64, 0), lower)
            for right in (0, _PEOPLE_PER_TILE)
        ]
        for tile, place in enumerate(places):
            tile_call(builder, "tileloadd64", tile, place, stride)
        with cgutils.for_range(builder, steps) as loop:
            offset = builder.mul(loop.index, ir.Constant(_I64, 2 * TILE_BYTES))
            for tile, base in ((4, rows), (6, columns)):
                for second in (0, 1):
                    at = builder.add(offset, ir.Constant(_I64, second * TILE_BYTES))
                    place = builder.inttoptr(builder.add(base, at), _POINTER)
                    tile_call(builder, "tileloadd64", tile + second, place, line)
            for tile in range(4):
                tile_call(builder, "tdpbusd", tile, 4 + tile // 2, 6 + tile % 2)
        for tile, place in enumerate(places):
            tile_call(builder, "tilestored64", tile, place, stride)
        return context.get_dummy_value()

    signature = types.void(types.uintp, types.uintp, types.uintp, types.int64, types.int64)
    return signature, generate


# ---- loops -------------------------------------------------------------------------------------


@compiled
def _split(X, inverse, tiles, total):
    n, c = X.shape
    for person in range(n):
        piece, rest = person // _PEOPLE_PER_PIECE, person % _PEOPLE_PER_PIECE
        step, at = rest // 64, rest % 64
        for column in range(c):
            value = np.int64(np.rint(X[person, column] * inverse[column]))
            total[column] += value
            for digit in range(3):
                place = digit * c + column
                low = ((value + 128) & 255) - 128
                value = (value - low) >> 8
                pair, side, lane = place // 32, place % 32 // 16, place % 16
                tiles[piece, pair, step, side, 64 * (at // 4) + 4 * lane + at % 4] = np.uint8(
                    low & 255
                )


@compiled
def _combine(is_calls, variant, part, mean, unit, total, sums, out):
    for row in range(variant.shape[0]):
        line = out[variant[row]]
        by, centre = sums[row], mean[variant[row]]
        if part[row] == 0:
            for column in range(line.shape[0]):
                scaled = by[column] if is_calls else by[column] / 64.0
                line[column] = (scaled - centre * total[column]) * unit[column]
        elif part[row] == 1:
            for column in range(line.shape[0]):
                line[column] += by[column] / 16384.0 * unit[column]
        else:
            factor = centre - (MISSING_CALL if is_calls else MISSING_DOSAGE / DOSAGE_ONE)
            for column in range(line.shape[0]):
                line[column] += factor * by[column] * unit[column]


@compiled
def _multiply(codes, variant, part, tiles, n_tiles, rows, products, sums, shape):
    many = variant.shape[0]
    columns = sums.shape[1]
    sums[:many] = 0.0
    target, source = rows.ctypes.data, tiles.ctypes.data
    stride = products.shape[1] * 4
    pieces, pairs = tiles.shape[0], tiles.shape[1]
    share = 64 * (pairs * _PAIR_BYTES // (64 * pairs * (many // _ROWS)))
    size = codes.itemsize * codes.shape[1]
    piece_bytes = _TILES_PER_PIECE * (16 if codes.itemsize == 4 else 128)
    set_tiles(types.uintp(shape.ctypes.data))
    for piece in range(pieces):
        if piece % _PIECES_PER_SUM == 0:
            products[:many] = 0
        steps = min(_TILES_PER_PIECE, n_tiles - piece * _TILES_PER_PIECE)
        begin = codes.ctypes.data + piece * piece_bytes
        coming = source + (piece + 1) * pairs * _PAIR_BYTES
        for group in range(0, many, _ROWS):
            for row in range(_ROWS):
                at = begin + variant[group + row] * size
                _bytes_of_codes(codes, at, part[group + row], steps, target + 64 * row)
            for pair in range(pairs):
                # Digits of the next people are asked for little by little.
                for byte in range(0, share if piece + 1 < pieces else 0, 64):
                    prefetch(types.uintp(coming + byte))
                coming += share
                _multiply_tiles(
                    types.uintp(target),
                    types.uintp(source + (piece * pairs + pair) * _PAIR_BYTES),
                    types.uintp(products.ctypes.data + group * stride + pair * 4 * _COLUMNS),
                    stride,
                    steps,
                )
        if (piece + 1) % _PIECES_PER_SUM == 0 or piece + 1 == pieces:
            for row in range(many):
                line, by = sums[row], products[row]
                for column in range(columns):
                    line[column] += (
                        np.float64(by[column])
                        + 256.0 * np.float64(by[columns + column])
                        + 65536.0 * np.float64(by[2 * columns + column])
                    )
    release_tiles()


def _bytes_of_codes(codes, source, part, steps, target):
    """Write one part of a variant's codes, 64 people a tile row; only compiled."""
    raise NotImplementedError


@overload(_bytes_of_codes)
def _bytes_of_codes_compiled(codes, source, part, steps, target):
    if codes.dtype == types.uint32:

        def calls(codes, source, part, steps, target):
            for step in range(steps):
                bytes_of_calls(
                    types.uintp(source + 16 * step), part == 2, types.uintp(target + 2048 * step)
                )

        return calls

    def dosages(codes, source, part, steps, target):
        for step in range(steps):
            _bytes_of_dosages(
                types.uintp(source + 128 * step), part, types.uintp(target + 2048 * step)
            )

    return dosages
