"""Local-linear kernel smoothing of images and the choice of its bandwidth (method 1).

Arrays in, arrays out. Images are rows, voxels are columns: smoothed images are ``X @ W.T``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from rvga.errors import InputError
from rvga.surface import Surface

REACH = 4.0
MULTIPLES = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
PUBLISHED_FACTORS = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
LEAST_FREEDOM = 0.05
MOST_NEIGHBOURS = 500.0
# Wider windows have far more than MOST_NEIGHBOURS weights, and take long to find that out.
_LARGEST_WINDOW = 5 * MOST_NEIGHBOURS
# A bandwidth that is given may have more voxels in its window, up to what memory can hold.
MOST_IN_WINDOW = 5000.0
MOST_BYTES = 8 << 30
# Memory for each voxel in each window while the weights are put together; about half of the
# voxels in a window have a weight.
_BYTES_IN_WINDOW = 32
# Memory for each weight: the weights, and once more in parts or transposed.
_BYTES_A_WEIGHT = 36
# A bandwidth is judged by the neighbours of some voxels where they are this many times more, or
# in the window less, than the limit; else all are counted. A thousand voxels, few of them side by
# side, tell the mean to about 2 %.
_CERTAIN = 1.1
_SAMPLED_ENTRIES = 1 << 24
_SAMPLED_ROWS = 5
# Voxels of a regular grid lie exactly on the border of the window when 4h is a multiple of the
# spacing; this slack keeps rounding from deciding which of them count.
_SLACK = 1.0 + 1e-9
_PINV_TOLERANCE = 1e-8
_SAFE_RATIO = 1e-4
_BATCH_ENTRIES = 1 << 18
_SMALLEST_MULTIPLE = 0.1
# Voxels whose windows stand for all where windows may be very wide.
_SOURCES = 1000
_HALVINGS = 60
_BISECTIONS = 20
# Parts lie this many times the largest reach apart.
_APART = 1e6


@dataclass(frozen=True)
class Candidate:
    """One bandwidth that was looked at.

    ``neighbours`` is the mean number of voxels with a non-zero weight, ``trace_share`` is
    tr(W)/N; both are NaN where the window is too wide to be tried. Where some of the voxels tell
    that there are too many neighbours, their mean number is given, and ``trace_share`` is NaN.
    ``score`` is NaN where the bandwidth was skipped, and ``skipped`` says why.
    """

    bandwidth: float
    score: float
    neighbours: float
    trace_share: float
    skipped: str = ""


@dataclass(frozen=True)
class Choice:
    """The bandwidth chosen (0 is no smoothing) and all candidates, by bandwidth."""

    bandwidth: float
    candidates: list[Candidate]
    warnings: list[str] = field(default_factory=list)


class Cloud:
    """Points in straight space, perhaps in parts that know nothing of one another.

    Parameters
    ----------
    coordinates : (N, d)
        Places of the voxels, d = 1, 2 or 3.
    part : (N,), optional
        Part of each voxel; voxels of different parts are never neighbours.
    """

    def __init__(self, coordinates: np.ndarray, part: np.ndarray | None = None):
        self.coordinates = np.ascontiguousarray(coordinates, dtype=np.float64)
        self.d = self.coordinates.shape[1]
        self.N = len(self.coordinates)
        self.extent = float(np.ptp(self.coordinates, axis=0).max())
        # All of a part is within this, and no other part is.
        self._whole = 2.0 * max(self.extent, 1.0)
        points = self.coordinates
        if part is not None and len(np.unique(part)) > 1:
            # One more dimension, in which the parts are beyond every window.
            points = np.column_stack([points, _APART * self._whole * part])
        self._points = points
        self._tree = cKDTree(points)

    @property
    def nearest(self) -> np.ndarray:
        """Distance of each voxel to the nearest other one of its part; infinite without any."""
        return self._tree.query(self._points, k=2, distance_upper_bound=self._whole)[0][:, 1]

    def mean_window(self, reach: float) -> float:
        """Return the mean number of voxels within a reach per dimension, itself included."""
        reach = min(reach, self._whole)
        return float(self._tree.count_neighbors(self._tree, reach, p=np.inf)) / self.N

    def sampled_window(self, reach: float) -> float:
        """Return the mean number of voxels within a reach, from evenly spaced ones."""
        sources = np.unique(np.linspace(0, self.N - 1, min(self.N, _SOURCES)).astype(np.int64))
        sizes = self._tree.query_ball_point(
            self._points[sources], min(reach, self._whole), p=np.inf, return_length=True
        )
        return float(np.mean(sizes))

    def window_sizes(self, reach: float) -> np.ndarray:
        """Return the number of voxels (N,) within a reach per dimension, itself included."""
        reach = min(reach, self._whole)
        return self._tree.query_ball_point(self._points, reach, p=np.inf, return_length=True)

    def neighbours(
        self, first: int, stop: int, reach: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the voxels within a reach per dimension of some voxels, as a surface does.

        Numbers by voxel (stop - first,), the neighbours in order (k,), and their coordinates
        less the voxel's (k, d).
        """
        near = cKDTree(self._points[first:stop]).sparse_distance_matrix(
            self._tree, min(reach, self._whole), p=np.inf, output_type="ndarray"
        )
        # One number for a pair, because a plain sort is several times faster than one by two keys.
        row, column = np.divmod(np.sort(near["i"] * self.N + near["j"]), self.N)
        counts = np.bincount(row, minlength=stop - first)
        return counts, column, self.coordinates[column] - self.coordinates[first + row]


class Joined:
    """Voxels of several spaces, each smoothed by itself.

    Parameters
    ----------
    members : sequence of (columns, space)
        The voxels of each space, ascending; together all voxels, once each.
    """

    def __init__(self, members: Sequence[tuple[np.ndarray, Cloud | Surface]]):
        self.members = [(np.asarray(columns), space) for columns, space in members]
        self.N = sum(len(columns) for columns, _ in self.members)
        self.d = max(space.d for _, space in self.members)
        self.extent = max(space.extent for _, space in self.members)

    @property
    def nearest(self) -> np.ndarray:
        """Distance of each voxel to the nearest other one of its space."""
        nearest = np.empty(self.N)
        for columns, space in self.members:
            nearest[columns] = space.nearest
        return nearest

    def mean_window(self, reach: float) -> float:
        """Return the mean number of voxels within a reach per dimension, itself included."""
        return sum(space.N * space.mean_window(reach) for _, space in self.members) / self.N


Space = Cloud | Surface | Joined


def as_space(voxels: np.ndarray | Space) -> Space:
    """Return coordinates (N, d) as the points of a straight space; a space as it is."""
    return Cloud(voxels) if isinstance(voxels, np.ndarray) else voxels


def median_nearest_distance(voxels: np.ndarray | Space) -> float:
    """Return the median distance of each voxel to the nearest other one.

    Voxels without any other within their part, and those at the place of another one, do not
    count; NaN where no voxel of any part has another.

    Raises
    ------
    InputError
        Every voxel that has others in its part is at the place of one of them.
    """
    nearest = as_space(voxels).nearest
    nearest = nearest[np.isfinite(nearest)]
    if not len(nearest):
        return float("nan")
    apart = nearest[nearest > 0.0]
    if not len(apart):
        raise InputError(
            "coordinates: every voxel has the same coordinates as another one, so that no "
            "bandwidth can be found; correct the coordinates, or give bandwidth none"
        )
    return float(np.median(apart))


def mean_window(voxels: np.ndarray | Space, bandwidth: float) -> float:
    """Return the mean number of voxels within 4h per dimension, the voxel itself included."""
    return as_space(voxels).mean_window(REACH * bandwidth * _SLACK)


def sampled_window(voxels: np.ndarray | Space, bandwidth: float) -> float:
    """Return what ``mean_window`` does, from some of the voxels: fast for every bandwidth."""
    space = as_space(voxels)
    reach = REACH * bandwidth * _SLACK
    return sum(member.N * window for member, window in _sampled_windows(space, reach)) / space.N


def _sampled_windows(space: Space, reach: float) -> list[tuple[Space, float]]:
    """Return each member of a space, and the mean number of voxels in its window."""
    members = [member for _, member in space.members] if isinstance(space, Joined) else [space]
    windows = []
    for member in members:
        sampled = member.sampled_window if isinstance(member, Cloud) else member.mean_window
        windows.append((member, sampled(reach)))
    return windows


def largest_bandwidth(voxels: np.ndarray | Space, bandwidth: float, most: float) -> float:
    """Return the largest bandwidth, in three digits, with at most so many voxels in its window.

    Parameters
    ----------
    voxels : (N, d) array, or space
        Voxel coordinates; or a :class:`Cloud`, Surface or :class:`Joined`.
    bandwidth : float
        A bandwidth whose window has more.
    most : float
        Largest mean number of voxels within 4h per dimension, the voxel itself included.

    Returns
    -------
    float
        0 where even the narrowest windows have more, because voxels coincide.
    """
    space = as_space(voxels)
    high = bandwidth
    if space.extent < high and sampled_window(space, space.extent) > most:
        high = space.extent
    low = high
    for _ in range(_HALVINGS):
        low = 0.5 * low
        if sampled_window(space, low) <= most:
            break
        high = low
    else:
        return 0.0
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        if sampled_window(space, middle) <= most:
            low = middle
        else:
            high = middle
    digit = 10.0 ** (np.floor(np.log10(low)) - 2.0)
    return float(np.floor(low / digit) * digit)


def sampled_neighbours(voxels: np.ndarray | Space, bandwidth: float) -> float:
    """Return the mean number of voxels with a non-zero weight, from some of the voxels.

    Exact with at most 1000 voxels. No more than a few rows of the weights are held at a time,
    so that it can be asked for any bandwidth.
    """
    space = as_space(voxels)
    reach = REACH * bandwidth * _SLACK
    total = 0.0
    for member, window in _sampled_windows(space, reach):
        window = max(window, 1.0)
        at_once = int(np.clip(_BATCH_ENTRIES / window, 1, _SAMPLED_ROWS))
        number = int(np.clip(_SAMPLED_ENTRIES / window, _SAMPLED_ROWS, _SOURCES))
        starts = np.arange(0, member.N, at_once)
        if number < member.N:
            places = np.linspace(0, len(starts) - 1, min(len(starts), -(-number // at_once)))
            starts = starts[np.unique(places.astype(np.int64))]
        found = rows = 0
        for first in starts.tolist():
            stop = min(first + at_once, member.N)
            found += len(_weights_of_rows(member, bandwidth, 1.0 / space.N, first, stop)[1])
            rows += stop - first
        total += member.N * found / rows
    return total / space.N


def most_in_window(N: int) -> float:
    """Return the largest mean number of voxels in the window of a bandwidth that is given.

    5000, or fewer where weights would take more than 8 GiB; but always what the search may
    choose, of which about half the window has a weight.
    """
    return max(2.0 * MOST_NEIGHBOURS, min(MOST_IN_WINDOW, MOST_BYTES / (_BYTES_IN_WINDOW * N)))


def weight_bytes(N: int, workers: int, window: float | None = None) -> int:
    """Return the memory (bytes) that weights take at most, roughly.

    ``window`` is the mean number of voxels in the window of a bandwidth that is given; without
    it the bandwidth is searched for, and weights are made where no more than ``_CERTAIN`` times
    500 neighbours are expected.
    """
    searched = _BYTES_A_WEIGHT * _CERTAIN * MOST_NEIGHBOURS
    entry = searched if window is None else _BYTES_IN_WINDOW * window
    return int(entry * N) + 120 * _BATCH_ENTRIES * workers


def smoothing_weights(
    voxels: np.ndarray | Space, bandwidth: float, *, workers: int = 1
) -> sparse.csr_array:
    """Return the local-linear Gaussian kernel weights W (N, N).

    Row v is ``e1' (T'KT)^-1 T'K`` with ``T = [1, c - c_v]`` over the voxels within 4h of v in
    every dimension, by the pseudo-inverse of ``K^1/2 T`` (relative tolerance 1e-8), so that
    flat sheets and lone voxels are handled. On a surface, c - c_v are coordinates in the
    tangent plane of v. Weights smaller than 1/N in size are dropped.

    Parameters
    ----------
    voxels : (N, d) array, or space
        Voxel coordinates, d = 1, 2 or 3; or a :class:`Cloud`, Surface or :class:`Joined`.
    bandwidth : float
        h, in the coordinates' units.
    workers : int
        Threads; the result does not depend on it.

    Returns
    -------
    scipy.sparse.csr_array
        (N, N), float64, column indices sorted.
    """
    space = as_space(voxels)
    members = space.members if isinstance(space, Joined) else [(None, space)]
    order, sizes, columns, values = [], [], [], []
    for place, member in members:
        bounds = _bounds_by_entries(member.window_sizes(REACH * bandwidth * _SLACK))
        with ThreadPoolExecutor(workers) as pool:
            parts = pool.map(
                lambda bound, member=member: _weights_of_rows(
                    member, bandwidth, 1.0 / space.N, *bound
                ),
                pairwise(bounds),
            )
            for size, column, value in parts:
                sizes.append(size)
                # Half the memory of what the search gives.
                columns.append((column if place is None else place[column]).astype(np.int32))
                values.append(value)
        order.append(np.arange(member.N) if place is None else place)
    starts = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
    column = np.concatenate(columns)
    del columns
    value = np.concatenate(values)
    del values
    W = sparse.csr_array((value, column, starts), shape=(space.N, space.N))
    if len(members) > 1:
        W = W[np.argsort(np.concatenate(order))]
    W.sort_indices()
    return W


def _weights_of_rows(
    space: Cloud | Surface, bandwidth: float, least: float, first: int, stop: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return numbers by row, columns and values of the weights of some rows."""
    counts, column, apart = space.neighbours(first, stop, REACH * bandwidth * _SLACK)
    n_rows, d = stop - first, space.d
    row = np.repeat(np.arange(n_rows), counts)
    slot = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)

    # Rows are padded to one width; padding has kernel 0 and changes nothing.
    width = max(int(counts.max()), d + 1)
    offset = np.zeros((n_rows, width, d))
    # Offsets in units of h leave the weights as they are and the columns of T comparable.
    offset[row, slot] = apart / bandwidth
    root = np.exp(-0.25 * np.einsum("vkd,vkd->vk", offset, offset))
    root[np.arange(width) >= counts[:, None]] = 0.0
    design = np.empty((n_rows, width, d + 1))
    design[:, :, 0] = root
    np.multiply(offset, root[:, :, None], out=design[:, :, 1:])

    weights = (root * _fitted_at_centre(design))[row, slot]

    large = np.abs(weights) >= least
    return np.bincount(row[large], minlength=n_rows), column[large], weights[large]


def _fitted_at_centre(design: np.ndarray) -> np.ndarray:
    """Return ``e1' pinv(D)`` (b, k) for each of the designs D = K^1/2 T (b, k, d + 1)."""
    values, vectors = np.linalg.eigh(design.transpose(0, 2, 1) @ design)
    safe = values[:, 0] > _SAFE_RATIO * values[:, -1]
    first = vectors[:, 0, :] / np.where(safe[:, None], values, 1.0)
    fitted = (design @ (vectors @ first[:, :, None]))[:, :, 0]
    # The normal equations square the condition: neighbourhoods that are nearly flat in some
    # direction go by the singular values of D itself.
    if not safe.all():
        Q, R = np.linalg.qr(design[~safe])
        U, s, Vt = np.linalg.svd(R)
        keep = s > _PINV_TOLERANCE * s[:, :1]
        inverse = np.where(keep, 1.0 / np.where(keep, s, 1.0), 0.0)
        left = U @ (inverse * Vt[:, :, 0])[:, :, None]
        fitted[~safe] = (Q @ left)[:, :, 0]
    return fitted


def _bounds_by_entries(counts: np.ndarray) -> np.ndarray:
    """Return bounds of consecutive rows such that a part has a limited number of entries."""
    bounds = [0]
    while bounds[-1] < len(counts):
        first = bounds[-1]
        widest = np.maximum.accumulate(counts[first : first + _BATCH_ENTRIES])
        entries = widest * np.arange(1, len(widest) + 1)
        bounds.append(first + max(1, int(np.searchsorted(entries, _BATCH_ENTRIES, side="right"))))
    return np.array(bounds)


def smooth(images: np.ndarray, weights: sparse.csr_array | None, *, workers: int = 1) -> np.ndarray:
    """Return the smoothed images ``X W'`` (n, N) in double; ``None`` is no smoothing."""
    columns = np.ascontiguousarray(images.T, dtype=np.float64)
    if weights is None:
        return columns.T
    parts = _row_parts(weights)
    with ThreadPoolExecutor(workers) as pool:
        return np.vstack(list(pool.map(lambda part: part @ columns, parts))).T


def gcv_score(
    images: Iterable[np.ndarray], weights: sparse.csr_array, *, workers: int = 1
) -> float:
    """Return the generalized cross-validation score of a smoother.

    ``||X - X W'||^2 / n / (1 - tr(W)/N)^2``, summed over blocks of images (n_b, N).
    """
    N = weights.shape[0]
    total, n = 0.0, 0
    for block in images:
        residual = block - smooth(block, weights, workers=workers)
        total += float(np.einsum("nv,nv->", residual, residual))
        n += len(block)
    freedom = 1.0 - weights.trace() / N
    if freedom <= 0.0:
        return float("nan")
    return total / n / freedom**2


def choose_bandwidth(
    voxels: np.ndarray | Space,
    images: Callable[[], Iterable[np.ndarray]],
    *,
    published: bool = False,
    workers: int = 1,
    progress: Callable[[Candidate], None] | None = None,
) -> Choice:
    """Choose the bandwidth with the least generalized cross-validation score.

    Candidates are multiples 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, ... of the median nearest-neighbour
    distance: first those up to 3, then further ones, up or down, while the winner is at an edge
    and within the extent of the image. One is skipped when ``1 - tr(W)/N < 0.05`` or when it has
    more than 500 neighbours (voxels with a non-zero weight) on average, or a window of more than
    2500 voxels; where some of the voxels tell that it has too many, no weights are made. If all
    are skipped, or no voxel has another in its part, there is no smoothing, with a warning.

    Parameters
    ----------
    voxels : (N, d) array, or space
        Voxel coordinates; or a :class:`Cloud`, Surface or :class:`Joined`.
    images : callable
        Returns an iterator over blocks of raw images (n_b, N); called once a candidate.
    published : bool
        Use the published grid, ``{0.5, 1, 2, 3, 5, 10} N^(-1/(4+d))``, which skips a bandwidth
        when its mean number of non-zero weights exceeds N/10, or what memory can hold.
    workers : int
        Threads; the result does not depend on it.
    progress : callable, optional
        Told of each candidate.

    Raises
    ------
    InputError
        No two neighbouring voxels have different coordinates.
    """
    space = as_space(voxels)
    looked_at: dict[float, Candidate] = {}

    def look(bandwidth: float) -> Candidate:
        if bandwidth not in looked_at:
            found = _assess(space, images, bandwidth, published, workers)
            looked_at[bandwidth] = found
            if progress is not None:
                progress(found)
        return looked_at[bandwidth]

    if published:
        for factor in PUBLISHED_FACTORS:
            look(factor * space.N ** (-1.0 / (4 + space.d)))
    else:
        unit = median_nearest_distance(space)
        extent = space.extent
        multiples = list(MULTIPLES)
        # Without neighbours there is no unit, and nothing to be smoothed.
        possible = bool(np.isfinite(unit))
        for multiple in multiples if possible else []:
            look(multiple * unit)
        while possible:
            best = _best(looked_at.values())
            if best is None:
                # Only a smaller window can help where all have too many neighbours.
                crowded = look(multiples[0] * unit).skipped.startswith("more than")
                if not crowded or multiples[0] * 0.75 < _SMALLEST_MULTIPLE:
                    break
                multiples.insert(0, _smaller(multiples[0]))
                look(multiples[0] * unit)
            elif best.bandwidth == multiples[-1] * unit and best.bandwidth < extent:
                multiples.append(_larger(multiples[-1]))
                look(multiples[-1] * unit)
            elif best.bandwidth == multiples[0] * unit and multiples[0] > _SMALLEST_MULTIPLE:
                multiples.insert(0, _smaller(multiples[0]))
                look(multiples[0] * unit)
            else:
                break

    candidates = [looked_at[bandwidth] for bandwidth in sorted(looked_at)]
    best = _best(candidates)
    if best is None:
        return Choice(
            0.0, candidates, ["no bandwidth could be assessed: the images are not smoothed"]
        )
    scored = [candidate.bandwidth for candidate in candidates if not candidate.skipped]
    warnings = []
    if best.bandwidth in (scored[0], scored[-1]):
        side = "smallest" if best.bandwidth == scored[0] else "largest"
        warnings.append(
            f"the chosen bandwidth ({best.bandwidth:.4g}) is the {side} that could be assessed"
        )
    return Choice(best.bandwidth, candidates, warnings)


def _assess(
    space: Space,
    images: Callable[[], Iterable[np.ndarray]],
    bandwidth: float,
    published: bool,
    workers: int,
) -> Candidate:
    nan = float("nan")
    N = space.N
    if not published and _window_exceeds(space, bandwidth, _LARGEST_WINDOW):
        reason = f"more than {_LARGEST_WINDOW:g} voxels within 4h on average"
        return Candidate(bandwidth, nan, nan, nan, reason)
    most = N / 10 if published else MOST_NEIGHBOURS
    expected = sampled_neighbours(space, bandwidth)
    if expected > _CERTAIN * most:
        reason = f"more than {most:g} neighbours on average"
        return Candidate(bandwidth, nan, expected, nan, reason)
    if expected > most_in_window(N):
        reason = f"more than {most_in_window(N):.0f} neighbours on average: memory"
        return Candidate(bandwidth, nan, expected, nan, reason)
    W = smoothing_weights(space, bandwidth, workers=workers)
    neighbours = W.nnz / N
    trace_share = float(W.trace()) / N
    least = np.finfo(float).eps if published else LEAST_FREEDOM
    if neighbours > most:
        reason = f"more than {most:g} neighbours on average"
        return Candidate(bandwidth, nan, neighbours, trace_share, reason)
    if 1.0 - trace_share < least:
        return Candidate(bandwidth, nan, neighbours, trace_share, "hardly any smoothing")
    score = gcv_score(images(), W, workers=workers)
    return Candidate(bandwidth, score, neighbours, trace_share)


def _window_exceeds(space: Space, bandwidth: float, most: float) -> bool:
    """Return whether the mean number of voxels in the window is larger than a limit."""
    window = sampled_window(space, bandwidth)
    if most / _CERTAIN <= window <= _CERTAIN * most:
        window = mean_window(space, bandwidth)
    return window > most


def _best(candidates: Iterable[Candidate]) -> Candidate | None:
    scored = [candidate for candidate in candidates if not candidate.skipped]
    return min(scored, key=lambda candidate: (candidate.score, candidate.bandwidth), default=None)


def _larger(multiple: float) -> float:
    """Return the next of 1, 1.5, 2, 3, 4, 6, 8, 12, ..."""
    return multiple * (1.5 if np.log2(multiple).is_integer() else 4.0 / 3.0)


def _smaller(multiple: float) -> float:
    """Return the one before of ..., 0.25, 0.375, 0.5, 0.75, 1."""
    return multiple * (0.75 if np.log2(multiple).is_integer() else 2.0 / 3.0)


def _row_parts(weights: sparse.csr_array, parts: int = 8) -> Sequence[sparse.csr_array]:
    """Split a sparse matrix by rows into a number of parts that is always the same."""
    bounds = np.linspace(0, weights.shape[0], parts + 1).astype(int)
    return [weights[a:b] for a, b in pairwise(bounds) if b > a]
