"""Component GWAS: least squares of every component on every variant (method 2).

Arrays in, arrays out. A block of variants is centred and multiplied by blocks of people, so
that a product is single precision over a few thousand people only and sums are double.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numba
import numpy as np

from rvga.parallel import ordered_map

PEOPLE_PER_PRODUCT = 4096
# Share of the sum of squares that covariates must leave; below, the variant is collinear.
COLLINEAR_SHARE = 1e-6
# Below this share the single-precision projection is repeated in double precision.
_DOUBLE_SHARE = 0.1
MISSING = -9

ESTIMATED, ALL_MISSING, MONOMORPHIC, BELOW_COUNT, BELOW_FREQUENCY, COLLINEAR = range(6)
REASONS = {
    ALL_MISSING: "all_missing",
    MONOMORPHIC: "monomorphic",
    BELOW_COUNT: "below_minor_allele_count",
    BELOW_FREQUENCY: "below_minor_allele_frequency",
    COLLINEAR: "collinear",
}


@dataclass(frozen=True)
class NullModel:
    """Covariates factored and components without them, ready for products.

    Attributes
    ----------
    Q : (n, p) float64
        Orthonormal basis of the covariates and the intercept.
    residuals : (n, r) float64
        Residual components, each of unit length.
    right : (n, r + p) float32
        [residuals | Q] times sqrt(n), the right side of every product.
    """

    Q: np.ndarray
    residuals: np.ndarray
    right: np.ndarray

    @property
    def n(self) -> int:
        """Number of people."""
        return self.Q.shape[0]

    @property
    def p(self) -> int:
        """Number of covariates, the intercept included."""
        return self.Q.shape[1]

    @property
    def r(self) -> int:
        """Number of components."""
        return self.residuals.shape[1]

    @property
    def nu(self) -> int:
        """Degrees of freedom, n - p - 1."""
        return self.n - self.p - 1


def null_model(Q: np.ndarray, residual_ldrs: np.ndarray) -> NullModel:
    """Prepare the right side of the products.

    Parameters
    ----------
    Q : (n, p)
        Orthonormal basis of the covariates; its span holds the intercept.
    residual_ldrs : (n, r)
        P S.

    Raises
    ------
    ValueError
        Too few people, or a component without residual variance.
    """
    Q = np.asarray(Q, dtype=np.float64)
    S = np.asarray(residual_ldrs, dtype=np.float64)
    n, p = Q.shape
    if S.shape[0] != n:
        raise ValueError(f"Q has {n} rows, the residual components {S.shape[0]}")
    if n - p - 1 < 1:
        raise ValueError(f"{n} people are too few for {p} covariates and a variant")
    length = np.linalg.norm(S, axis=0)
    if not np.all(length > 0):
        raise ValueError(
            f"component {int(np.argmin(length)) + 1} does not vary once covariates are removed"
        )
    S = S / length
    right = np.concatenate([S, Q], axis=1) * np.sqrt(n)
    return NullModel(Q, S, np.ascontiguousarray(right, dtype=np.float32))


@dataclass(frozen=True)
class BlockResult:
    """What a block of m variants gives.

    Attributes
    ----------
    first, stop : int
        Place of the block.
    status : (m,) int8
        ``ESTIMATED``, or the key of :data:`REASONS`.
    a : (m,) float64
        g'Pg; NaN where nothing was estimated.
    z : (m, r) float64
        t statistics; NaN where nothing was estimated.
    frequency : (m,) float64
        Effect-allele frequency among the called; NaN where all are missing.
    missing_rate : (m,) float64
        Share of people without a call.
    """

    first: int
    stop: int
    status: np.ndarray
    a: np.ndarray
    z: np.ndarray
    frequency: np.ndarray
    missing_rate: np.ndarray


def associate(
    blocks: Iterable[tuple[int, int, np.ndarray]],
    null: NullModel,
    *,
    minor_allele_frequency: float = 0.0,
    minor_allele_count: float = 0.0,
    block_variants: int = 512,
    threads: int = 1,
) -> Iterator[BlockResult]:
    """Yield the results of blocks of genotypes, in order.

    Each block is computed by one thread, and its product always has ``block_variants`` rows, so
    that neither the number of threads nor the place of a chunk's end changes a bit. The caller
    limits BLAS to one thread.

    Parameters
    ----------
    blocks : iterable of (first, stop, raw)
        ``raw`` is (stop - first, n), int8 calls or float32 dosages, -9 missing.
    null : NullModel
        From :func:`null_model`, with the same people in the same order.
    minor_allele_frequency, minor_allele_count : float
        Variants below are not estimated.
    block_variants : int
        At least the largest block.
    threads : int
        Blocks computed at a time.
    """

    def one(block: tuple[int, int, np.ndarray]) -> BlockResult:
        return associate_block(
            block[2],
            null,
            first=block[0],
            minor_allele_frequency=minor_allele_frequency,
            minor_allele_count=minor_allele_count,
            block_variants=block_variants,
        )

    yield from ordered_map(one, blocks, threads)


def associate_block(
    raw: np.ndarray,
    null: NullModel,
    *,
    first: int = 0,
    minor_allele_frequency: float = 0.0,
    minor_allele_count: float = 0.0,
    block_variants: int = 512,
) -> BlockResult:
    """Return the least-squares results of one block; see :func:`associate`.

    With missing genotypes at the variant's mean, ``a = |g - mean|^2 - |Q'(g - mean)|^2`` and
    ``z = rho sqrt(nu / (1 - rho^2))`` with ``rho = g'PS_j / sqrt(a A_jj)``.
    """
    m, n = raw.shape
    if n != null.n:
        raise ValueError(f"the block has {n} people, the null model {null.n}")
    if m > block_variants:
        raise ValueError(f"the block has {m} variants, more than {block_variants}")
    mean, squares, called = _moments(raw)
    status = _screen(mean, squares, called, minor_allele_frequency, minor_allele_count)
    products = _products(raw, mean, null, block_variants)
    numerator, projection = products[:, : null.r], products[:, null.r :]
    a = squares - np.einsum("mp,mp->m", projection, projection)
    used = status == ESTIMATED
    for row in np.flatnonzero(used & (a < _DOUBLE_SHARE * squares)):
        g = raw[row].astype(np.float64)
        g = np.where(g == MISSING, 0.0, g - mean[row])
        # Twice, because one projection leaves rounding of the size of what was removed.
        residual = g - null.Q @ (null.Q.T @ g)
        residual -= null.Q @ (null.Q.T @ residual)
        a[row] = residual @ residual
        numerator[row] = residual @ null.residuals
    status[used & ~(a > COLLINEAR_SHARE * squares)] = COLLINEAR
    used = status == ESTIMATED
    a[~used] = np.nan
    rho = numerator / np.sqrt(a)[:, None]
    z = rho * np.sqrt(null.nu / np.maximum(1.0 - rho * rho, np.finfo(float).tiny))
    return BlockResult(
        first=first,
        stop=first + m,
        status=status,
        a=a,
        z=z,
        frequency=mean / 2.0,
        missing_rate=1.0 - called / n,
    )


def _screen(
    mean: np.ndarray,
    squares: np.ndarray,
    called: np.ndarray,
    minor_allele_frequency: float,
    minor_allele_count: float,
) -> np.ndarray:
    """Return the status that follows from the genotypes' counts alone, (m,)."""
    frequency = np.minimum(mean, 2.0 - mean) / 2.0
    count = frequency * 2.0 * called
    # A count is a sum of at most 2n dosages: rounding must not decide at the bound.
    status = np.full(len(mean), ESTIMATED, dtype=np.int8)
    status[frequency < minor_allele_frequency * (1 - 1e-9)] = BELOW_FREQUENCY
    status[count < minor_allele_count - 1e-6] = BELOW_COUNT
    status[~(squares > 1e-9 * called)] = MONOMORPHIC
    status[called == 0] = ALL_MISSING
    return status


def _products(
    raw: np.ndarray, mean: np.ndarray, null: NullModel, block_variants: int
) -> np.ndarray:
    """Return (g - mean)' [residuals | Q], (m, r + p) in double precision."""
    m, n = raw.shape
    width = min(PEOPLE_PER_PRODUCT, n)
    centred = np.zeros((block_variants, width), dtype=np.float32)
    centre = np.nan_to_num(mean).astype(np.float32)
    total = np.zeros((block_variants, null.right.shape[1]))
    for low in range(0, n, width):
        high = min(low + width, n)
        piece = centred[:, : high - low]
        _centre(raw, centre, low, high, centred)
        total += piece @ null.right[low:high]
    return total[:m] / np.sqrt(n)


def _moments(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, sum of squares about it and number of the called, each (m,)."""
    mean = np.empty(len(raw))
    squares = np.empty(len(raw))
    called = np.empty(len(raw), dtype=np.int64)
    kernel = _moments_of_calls if raw.dtype == np.int8 else _moments_of_dosages
    kernel(raw, mean, squares, called)
    return mean, squares, called


@numba.njit(nogil=True)
def _moments_of_calls(raw, mean, squares, called):
    for row in range(raw.shape[0]):
        ones = np.int32(0)
        twos = np.int32(0)
        missing = np.int32(0)
        for person in range(raw.shape[1]):
            value = raw[row, person]
            ones += np.int32(value == 1)
            twos += np.int32(value == 2)
            missing += np.int32(value < 0)
        number = raw.shape[1] - missing
        called[row] = number
        if number == 0:
            mean[row] = np.nan
            squares[row] = 0.0
            continue
        average = (ones + 2.0 * twos) / number
        zeros = number - ones - twos
        mean[row] = average
        squares[row] = (
            zeros * average * average + ones * (1.0 - average) ** 2 + twos * (2.0 - average) ** 2
        )


# Sums may be taken in any order, so that the compiler can use vector instructions.
@numba.njit(nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _moments_of_dosages(raw, mean, squares, called):
    zero = np.float32(0.0)
    for row in range(raw.shape[0]):
        line = raw[row]
        total = 0.0
        total_of_squares = 0.0
        missing = np.int32(0)
        for person in range(line.shape[0]):
            value = line[person]
            unknown = value < zero
            dosage = np.float64(zero if unknown else value)
            total += dosage
            total_of_squares += dosage * dosage
            missing += np.int32(unknown)
        number = line.shape[0] - missing
        called[row] = number
        if number == 0:
            mean[row] = np.nan
            squares[row] = 0.0
            continue
        mean[row] = total / number
        # In double precision the difference loses nothing that matters, even for rare alleles.
        squares[row] = max(total_of_squares - total * total / number, 0.0)


@numba.njit(nogil=True)
def _centre(raw, centre, low, high, out):
    for row in range(raw.shape[0]):
        average = centre[row]
        for person in range(low, high):
            value = np.float32(raw[row, person])
            out[row, person - low] = (
                value - average if value >= np.float32(0.0) else np.float32(0.0)
            )
