"""All voxels of all variants, without keeping them: counts, extremes and hits (method 4).

The t statistic of a voxel grows with the partial correlation ρ of variant and voxel,
z = ρ √(ν / (1 − ρ²)). With A = K Kᵀ it is ρ = x · u_v, where x = K⁻¹β √a, whose squared length is
the omnibus test's R², and u_v = Kᵀb_v / √V_v, whose length is one. So one single-precision
product a tile, and one pass over it while it is in cache, find the largest |ρ| and what is beyond
the critical value. The rounding error is at most a known multiple of ‖x‖: whatever lies within it
of a decision is computed again in double precision, so that lead voxels, counts and hits are
those of double precision, whatever the tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rvga.machine_code import compiled
from rvga.reconstruction import voxel_variance

# A tile of 1 MiB stays in the second-level cache between the product and the pass.
TILE_VARIANTS = 512
TILE_VOXELS = 512
_NO_VARIANCE = 1e-20  # share of the largest voxel variance below which there is no signal
_NO_DIRECTION = 1e-13  # share of the largest eigenvalue of A below which there is no direction
_UNIT_ROUNDING = 2.0**-24


@dataclass(frozen=True)
class Scanner:
    """What a scan needs of a dataset, prepared once; see :func:`prepare`.

    Attributes
    ----------
    bases : (N, r) float64
    deviation : (c, N) float64
        √V_v, V_v = b_vᵀ A b_v, for each A; NaN where the voxel has no variance.
    whitening : (c, r, r) float64
        Matrix that takes effects times √a to x.
    rank : (c,) int64
        Directions of the components that have variance.
    unit : (c, r, N) float32
        u_v as columns, zero where the voxel has no variance.
    nu : float
        Degrees of freedom.
    critical_correlation : float
        Largest |ρ| that is not significant.
    """

    bases: np.ndarray
    deviation: np.ndarray
    whitening: np.ndarray
    rank: np.ndarray
    unit: np.ndarray
    nu: float
    critical_correlation: float


@dataclass(frozen=True)
class VoxelTotals:
    """By voxel: significant variants (N,) int64 and largest |z| (N,) float64."""

    n_significant_variants: np.ndarray
    largest_abs_z: np.ndarray


@dataclass(frozen=True)
class Hits:
    """Pairs beyond the critical value, by variant, then voxel: row, voxel (int64), t statistic."""

    row: np.ndarray
    voxel: np.ndarray
    z: np.ndarray


@dataclass(frozen=True)
class BlockResults:
    """Results of a block of variants.

    Attributes
    ----------
    n_significant_voxels, lead_voxel : (m,) int64
        Voxels beyond the critical value; voxel of the largest |z|, −1 where missing.
    z : (m,) float64
        t statistic at the lead voxel.
    r_squared : (m,) float64
        Share of the variant explained by all components, a βᵀA⁻¹β.
    hits : Hits or None
        Every pair beyond the critical value, when asked for.
    voxel_count, voxel_largest : (N,) int32 and float32
        Significant variants of the block and largest |ρ|, by voxel.
    """

    n_significant_voxels: np.ndarray
    lead_voxel: np.ndarray
    z: np.ndarray
    r_squared: np.ndarray
    hits: Hits | None
    voxel_count: np.ndarray
    voxel_largest: np.ndarray


def prepare(bases: np.ndarray, A: np.ndarray, nu: float, critical_t: float) -> Scanner:
    """Prepare a scan.

    Parameters
    ----------
    bases : (N, r)
        Functional bases.
    A : (c, r, r)
        Residual cross-products of the components.
    nu : float
        n − p − 1.
    critical_t : float
        |t| beyond which a voxel is significant.
    """
    bases = np.asarray(bases, dtype=np.float64)
    N, r = bases.shape
    variance = np.stack([voxel_variance(bases, one) for one in A])
    variance[variance <= _NO_VARIANCE * variance.max(initial=0.0)] = np.nan
    deviation = np.sqrt(variance)
    whitening = np.empty((len(A), r, r))
    rank = np.empty(len(A), dtype=np.int64)
    unit = np.empty((len(A), r, N), dtype=np.float32)
    for k, one in enumerate(A):
        values, vectors = np.linalg.eigh(one)
        kept = values > _NO_DIRECTION * values.max(initial=0.0)
        rank[k] = kept.sum()
        root = np.sqrt(np.where(kept, values, 0.0))
        inverse = np.divide(1.0, root, out=np.zeros(r), where=kept)
        whitening[k] = vectors * inverse
        unit[k] = np.nan_to_num(bases @ (vectors * root) / deviation[k][:, None], nan=0.0).T
    critical = critical_t / np.sqrt(nu + critical_t**2)
    return Scanner(bases, deviation, whitening, rank, unit, nu, critical)


def memory(N: int, r: int, c: int, block_variants: int, threads: int) -> float:
    """Return the bytes that a scan takes."""
    tile = TILE_VARIANTS * TILE_VOXELS * 4.0
    block = tile + 12.0 * N + block_variants * (r * 48.0 + 400)
    return N * r * (16 + 4 * c) + 16.0 * N * c + (2 * threads + 1) * block


def scan_block(
    scanner: Scanner, beta: np.ndarray, a: np.ndarray, A_index: np.ndarray, hits: bool = False
) -> BlockResults:
    """Scan a block of variants over every voxel.

    Parameters
    ----------
    scanner : Scanner
        See :func:`prepare`.
    beta : (m, r)
        Component effects; a row with NaN is missing.
    a : (m,)
        gᵀPg.
    A_index : (m,)
        Which A belongs to each variant.
    hits : bool
        Whether every pair beyond the critical value is kept.

    Notes
    -----
    The results of a variant do not depend on the block that it is in. Blocks may be scanned in
    several threads at once; the caller keeps BLAS to one thread.
    """
    m = len(a)
    N = len(scanner.bases)
    correlation = np.ascontiguousarray(beta * np.sqrt(a)[:, None])
    valid = np.isfinite(correlation).all(axis=1)
    count = np.zeros(m, dtype=np.int64)
    lead = np.full(m, -1, dtype=np.int64)
    rho = np.full(m, np.nan)
    r_squared = np.full(m, np.nan)
    voxel_count = np.zeros(N, dtype=np.int32)
    voxel_largest = np.zeros(N, dtype=np.float32)
    found: list[tuple[np.ndarray, ...]] = []
    for k in range(len(scanner.unit)):
        rows = np.flatnonzero(valid & (A_index == k))
        for first in range(0, len(rows), TILE_VARIANTS):
            some = rows[first : first + TILE_VARIANTS]
            results = _scan_rows(scanner, k, correlation[some], hits, voxel_count, voxel_largest)
            count[some], lead[some], rho[some], r_squared[some], pairs = results
            found += [(some[row], voxel, value) for row, voxel, value in pairs]
    return BlockResults(
        count,
        lead,
        _t_statistic(rho, scanner.nu),
        r_squared,
        _ordered(found, scanner.nu) if hits else None,
        voxel_count,
        voxel_largest,
    )


class Totals:
    """Totals by voxel over the blocks that were added."""

    def __init__(self, scanner: Scanner):
        self._scanner = scanner
        self._count = np.zeros(len(scanner.bases), dtype=np.int64)
        self._largest = np.zeros(len(scanner.bases), dtype=np.float32)

    def add(self, results: BlockResults) -> None:
        """Add the results of a block."""
        self._count += results.voxel_count
        np.maximum(self._largest, results.voxel_largest, out=self._largest)

    def of_voxels(self) -> VoxelTotals:
        """Return the totals so far; the largest |z| is NaN where there is no variance."""
        z = _t_statistic(self._largest.astype(np.float64), self._scanner.nu)
        z[np.isnan(self._scanner.deviation).all(axis=0)] = np.nan
        return VoxelTotals(self._count.copy(), z)


def _scan_rows(
    scanner: Scanner,
    k: int,
    correlation: np.ndarray,
    hits: bool,
    voxel_count: np.ndarray,
    voxel_largest: np.ndarray,
) -> tuple:
    """Scan at most TILE_VARIANTS rows of effects times √a that have the A of number k."""
    rows, r = correlation.shape
    N = len(scanner.bases)
    # Always as many rows: a product's last digit may depend on their number.
    x = np.zeros((TILE_VARIANTS, r))
    x[:rows] = correlation
    x = x @ scanner.whitening[k]
    r_squared = np.einsum("mr,mr->m", x[:rows], x[:rows])
    # Rounding of both factors and of r sums, in any order; u_v has length one.
    slack = (1.01 * (r + 4) * _UNIT_ROUNDING * np.sqrt(r_squared)).astype(np.float32)
    x = x.astype(np.float32)
    product = np.empty((TILE_VARIANTS, min(TILE_VOXELS, N)), dtype=np.float32)
    top = np.zeros(TILE_VARIANTS, dtype=np.float32)
    best = np.zeros(rows, dtype=np.float32)
    count = np.zeros(rows, dtype=np.int64)
    lead = np.full(rows, -1, dtype=np.int64)
    rho = np.zeros(rows)
    capacity = product.size if hits else 0
    pair_row = np.empty(capacity, dtype=np.int32)
    pair_voxel = np.empty(capacity, dtype=np.int32)
    pair_rho = np.empty(capacity)
    pairs = []
    for first in range(0, N, TILE_VOXELS):
        stop = min(first + TILE_VOXELS, N)
        tile = product if stop - first == product.shape[1] else product[:, : stop - first].copy()
        np.matmul(x, scanner.unit[k][:, first:stop], out=tile)
        _largest(tile.view(np.int32), rows, top.view(np.int32),
                 voxel_largest[first:stop].view(np.int32))  # fmt: skip
        used = _decide(
            tile, first, top, slack, best, lead, rho, count, voxel_count,
            scanner.critical_correlation, correlation, scanner.bases, scanner.deviation[k],
            pair_row, pair_voxel, pair_rho,
        )  # fmt: skip
        if used:
            pairs.append(tuple(part[:used].copy() for part in (pair_row, pair_voxel, pair_rho)))
    return count, lead, rho, r_squared, pairs


def _ordered(found: list[tuple[np.ndarray, ...]], nu: float) -> Hits:
    """Return the pairs of all tiles by variant, then voxel."""
    if not found:
        nothing = np.empty(0, dtype=np.int64)
        return Hits(nothing, nothing, np.empty(0))
    row, voxel, rho = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((voxel, row))
    return Hits(
        row[order].astype(np.int64), voxel[order].astype(np.int64), _t_statistic(rho[order], nu)
    )


def _t_statistic(rho: np.ndarray, nu: float) -> np.ndarray:
    """Return the t statistics of partial correlations."""
    return rho * np.sqrt(nu / np.maximum(1.0 - rho**2, np.finfo(float).tiny))


@compiled
def _largest(tile: np.ndarray, rows: int, top: np.ndarray, by_voxel: np.ndarray) -> None:
    """Write the largest size in each row, and raise the largest by column.

    The numbers are the bits of single-precision numbers: without the sign they are ordered as
    the sizes are, and comparing whole numbers is something that compilers can vectorise.
    """
    no_sign = np.int32(0x7FFFFFFF)
    for row in range(0, rows, 4):  # rows beyond the last are zero
        a, b, c, d = tile[row], tile[row + 1], tile[row + 2], tile[row + 3]
        top_a, top_b, top_c, top_d = np.int32(0), np.int32(0), np.int32(0), np.int32(0)
        for v in range(tile.shape[1]):
            size_a = np.int32(a[v] & no_sign)
            size_b = np.int32(b[v] & no_sign)
            size_c = np.int32(c[v] & no_sign)
            size_d = np.int32(d[v] & no_sign)
            top_a = max(top_a, size_a)
            top_b = max(top_b, size_b)
            top_c = max(top_c, size_c)
            top_d = max(top_d, size_d)
            of_four = max(max(size_a, size_b), max(size_c, size_d))
            by_voxel[v] = max(by_voxel[v], of_four)
        top[row], top[row + 1], top[row + 2], top[row + 3] = top_a, top_b, top_c, top_d


@compiled
def _decide(
    tile: np.ndarray,
    first: int,
    top: np.ndarray,
    slack: np.ndarray,
    best: np.ndarray,
    lead: np.ndarray,
    rho: np.ndarray,
    count: np.ndarray,
    voxel_count: np.ndarray,
    critical: float,
    correlation: np.ndarray,
    bases: np.ndarray,
    deviation: np.ndarray,
    pair_row: np.ndarray,
    pair_voxel: np.ndarray,
    pair_rho: np.ndarray,
) -> int:
    """Take over the lead voxels and the voxels beyond the critical value of a tile.

    ``best`` is the largest size in single precision so far, ``rho`` the lead's correlation in
    double precision. Returns the number of pairs that were written.
    """
    used = 0
    width = tile.shape[1]
    for row in range(len(slack)):
        values = tile[row]
        error = slack[row]
        # Any voxel that may be the largest in double precision is within two errors of the
        # largest in single precision; equal ones: the first voxel stays.
        if top[row] >= best[row] - 2 * error:
            best[row] = max(best[row], top[row])
            least = best[row] - 2 * error
            for v in range(width):
                if abs(values[v]) >= least and deviation[first + v] > 0.0:
                    exact = _exact(correlation[row], bases[first + v], deviation[first + v])
                    if lead[row] < 0 or abs(exact) > abs(rho[row]):
                        rho[row] = exact
                        lead[row] = first + v
        if top[row] > critical - error:
            for v in range(width):
                size = abs(values[v])
                if size > critical - error and deviation[first + v] > 0.0:
                    near = size <= critical + error
                    if near or len(pair_row) > 0:
                        exact = _exact(correlation[row], bases[first + v], deviation[first + v])
                        if near and not abs(exact) > critical:
                            continue
                        if len(pair_row) > 0:
                            pair_row[used] = row
                            pair_voxel[used] = first + v
                            pair_rho[used] = exact
                            used += 1
                    count[row] += 1
                    voxel_count[first + v] += 1
    return used


@compiled
def _exact(correlation: np.ndarray, basis: np.ndarray, deviation: float) -> float:
    """Return ρ in double precision."""
    total = 0.0
    for j in range(len(basis)):
        total += correlation[j] * basis[j]
    return total / deviation
