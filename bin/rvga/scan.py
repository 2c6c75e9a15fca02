"""All voxels of all variants, without keeping them: counts and extremes (method 4).

The t statistic of a voxel grows with the partial correlation ρ of variant and voxel,
z = ρ √(ν / (1 − ρ²)), so that one single-precision product per tile and one pass over it find
the significant voxels and the largest one; the statistic of the largest is then computed again
in double precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from rvga.parallel import ordered_map
from rvga.reconstruction import voxel_variance

TILE_VARIANTS = 128
TILE_VOXELS = 2048
_NO_VARIANCE = 1e-20  # share of the largest voxel variance below which there is no signal


@dataclass(frozen=True)
class Scanner:
    """What a scan needs of a dataset, prepared once; see :func:`prepare`.

    Attributes
    ----------
    bases : (N, r) float64
    variance : (c, N) float64
        V_v = b_vᵀ A b_v for each A; NaN where the voxel has none.
    scaled : (c, r, N) float32
        b_v / √V_v as columns, zero where the voxel has no variance.
    nu : float
        Degrees of freedom.
    critical_correlation : float
        Largest |ρ| that is not significant.
    """

    bases: np.ndarray
    variance: np.ndarray
    scaled: np.ndarray
    nu: float
    critical_correlation: float


@dataclass(frozen=True)
class VoxelTotals:
    """By voxel: significant variants (N,) int64 and largest |z| (N,) float64."""

    n_significant_variants: np.ndarray
    largest_abs_z: np.ndarray


@dataclass(frozen=True)
class VariantResults:
    """By variant: significant voxels (int64), lead voxel (int64, −1 missing), its t statistic."""

    n_significant_voxels: np.ndarray
    lead_voxel: np.ndarray
    z: np.ndarray


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
    variance = np.stack([voxel_variance(bases, one) for one in A])
    variance[variance <= _NO_VARIANCE * variance.max(initial=0.0)] = np.nan
    scaled = np.empty((len(A), bases.shape[1], len(bases)), dtype=np.float32)
    for k, of_one in enumerate(variance):
        scaled[k] = np.nan_to_num(bases / np.sqrt(of_one)[:, None], nan=0.0).T
    return Scanner(bases, variance, scaled, nu, critical_t / np.sqrt(nu + critical_t**2))


def memory(N: int, r: int, c: int, block_variants: int, threads: int) -> float:
    """Return the bytes that a scan takes."""
    tile = TILE_VARIANTS * TILE_VOXELS * 4.0
    return N * r * (8 + 12 * c) + threads * (tile + 16.0 * N) + block_variants * (r * 40.0 + 400)


class Scan:
    """A scan in progress: blocks of variants in, results by variant out, totals by voxel kept."""

    def __init__(self, scanner: Scanner, threads: int):
        self._scanner = scanner
        self._threads = threads
        N = len(scanner.bases)
        self._count = np.zeros(N, dtype=np.int64)
        self._largest = np.zeros(N, dtype=np.float32)

    def add(self, beta: np.ndarray, a: np.ndarray, A_index: np.ndarray) -> VariantResults:
        """Scan a block of variants: beta (m, r), a (m,), A_index (m,); NaN is missing.

        The results of a variant depend neither on the block that it is in nor on the threads
        (as long as the caller keeps BLAS to one thread), because tiles have one size.
        """
        m = len(a)
        correlation = beta * np.sqrt(a)[:, None]
        valid = np.isfinite(correlation).all(axis=1)
        count = np.zeros(m, dtype=np.int64)
        lead = np.full(m, -1, dtype=np.int64)
        tasks = []
        for k in range(len(self._scanner.scaled)):
            rows = np.flatnonzero(valid & (A_index == k))
            tasks += [
                (k, rows[first : first + TILE_VARIANTS])
                for first in range(0, len(rows), TILE_VARIANTS)
            ]
        share = [tasks[worker :: self._threads] for worker in range(self._threads)]
        for results, counts, largest in ordered_map(
            lambda mine: self._tiles(correlation, mine), share, self._threads
        ):
            for rows, of_count, of_lead in results:
                count[rows] = of_count
                lead[rows] = of_lead
            self._count += counts
            np.maximum(self._largest, largest, out=self._largest)
        return VariantResults(count, lead, self._lead_z(correlation, lead, A_index))

    def totals(self) -> VoxelTotals:
        """Return the totals by voxel over the blocks so far; NaN where there is no variance."""
        rho = self._largest.astype(np.float64)
        z = rho * np.sqrt(self._scanner.nu / np.maximum(1.0 - rho**2, np.finfo(float).tiny))
        z[np.isnan(self._scanner.variance).all(axis=0)] = np.nan
        return VoxelTotals(self._count.copy(), z)

    def _tiles(self, correlation: np.ndarray, tasks: list) -> tuple:
        scanner = self._scanner
        N = len(scanner.bases)
        counts = np.zeros(N, dtype=np.int64)
        largest = np.zeros(N, dtype=np.float32)
        results = []
        padded = np.zeros((TILE_VARIANTS, correlation.shape[1]), dtype=np.float32)
        product = np.empty((TILE_VARIANTS, min(TILE_VOXELS, N)), dtype=np.float32)
        for k, rows in tasks:
            padded[: len(rows)] = correlation[rows]
            padded[len(rows) :] = 0.0
            of_count = np.zeros(len(rows), dtype=np.int64)
            of_lead = np.zeros(len(rows), dtype=np.int64)
            of_largest = np.full(len(rows), -1.0, dtype=np.float32)
            for first in range(0, N, TILE_VOXELS):
                stop = min(first + TILE_VOXELS, N)
                tile = product[:, : stop - first]
                tile = np.matmul(padded, scanner.scaled[k][:, first:stop], out=tile)
                _pass(
                    tile,
                    np.float32(scanner.critical_correlation),
                    first,
                    of_count,
                    of_lead,
                    of_largest,
                    counts,
                    largest,
                )
            results.append((rows, of_count, of_lead))
        return results, counts, largest

    def _lead_z(self, correlation: np.ndarray, lead: np.ndarray, A_index: np.ndarray) -> np.ndarray:
        """Return the t statistics at the lead voxels in double precision."""
        z = np.full(len(lead), np.nan)
        rows = np.flatnonzero(lead >= 0)
        scanner = self._scanner
        rho = np.einsum("mr,mr->m", correlation[rows], scanner.bases[lead[rows]])
        rho /= np.sqrt(scanner.variance[A_index[rows], lead[rows]])
        z[rows] = rho * np.sqrt(scanner.nu / np.maximum(1.0 - rho**2, np.finfo(float).tiny))
        return z


@numba.njit(nogil=True, cache=False)
def _pass(
    tile: np.ndarray,
    critical: float,
    first: int,
    of_count: np.ndarray,
    of_lead: np.ndarray,
    of_largest: np.ndarray,
    counts: np.ndarray,
    largest: np.ndarray,
) -> None:
    """Update the results of the tile's variants (rows) and voxels (columns) in place."""
    width = tile.shape[1]
    for row in range(len(of_count)):
        values = tile[row]
        top = np.float32(-1.0)
        number = np.int32(0)
        for v in range(width):
            size = abs(values[v])
            top = max(top, size)
            number += np.int32(size > critical)
            largest[first + v] = max(largest[first + v], size)
        if top > of_largest[row]:
            of_largest[row] = top
            for v in range(width):
                if abs(values[v]) == top:
                    of_lead[row] = first + v
                    break
        if number > 0:
            of_count[row] += number
            for v in range(width):
                if abs(values[v]) > critical:
                    counts[first + v] += 1
