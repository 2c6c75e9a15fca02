"""Functional principal components of smoothed, centred images (method 1, steps 2 and 3).

Where the smaller of the two Gram matrices is small, its eigen-decomposition is exact. Else the
leading components are found by a randomized block Krylov method, which needs products of the
covariance matrix with blocks of vectors only, and says how exact they are: in single precision
first, which finds the space, then in double for as many vectors as there are components, whose
residuals and the space together correct them. Every sum is formed
over tiles of fixed size, one thread a tile, so the result does not depend on the number of
threads as long as the linear-algebra library itself is limited to one.

Eigenvalues are those of the covariance matrix with divisor n: the squared singular values of
the centred images over n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from rvga.errors import InputError

PANEL = 512
_TILE = 1024
# Rows of tall matrices that a thread multiplies at a time.
_ROW_TILE = 4096
_RANK_TOLERANCE = 1e-10
# Length that a column of length 1 has without its part in the space: below the first it counts as
# none, above the second the rest is orthogonal to the space to rounding.
_LEAST_NEW, _MOSTLY_NEW = 1e-2, 0.5
# Of a Cholesky factor of columns of length 1: beyond, two rounds do not make them orthogonal.
_LEAST_PIVOT = 1e-5
# Gram matrices of at most this side are decomposed exactly.
EXACT_SIDE = 6000
# Angle (radians, estimated) allowed between the subspace found and the true one, where the
# relative gap after it exceeds LEAST_GAP; where it does not, as if it were that gap.
ANGLE_TOLERANCE = 5e-7
LEAST_GAP = 1e-3
MOST_PASSES = 60
# The same for the space found in single precision, after the correction that is to follow: its
# rounding allows for little less, and corrections go on to ANGLE_TOLERANCE.
ROUGH_TOLERANCE = 1e-5
# Single precision finds no more where the angle, below this, hardly falls any longer.
_ROUGH_FLOOR = 1e-5
_STAGNANT = 0.7
# Corrections that may leave a larger angle than one before did.
_MOST_IN_VAIN = 2
# Relative error that products in single precision leave in a vector.
_ROUGH_ERROR = 1e-6
# Up to this size, a space is decomposed after every pass; a larger one, which takes time as
# well, after so many passes at most.
_LOOKED_AT = 1000
_MOST_UNSEEN = 4
# Angle of a space whose Ritz values tell how much variance its components hold.
_SETTLED = 0.05
PROBES = 32


@dataclass(frozen=True)
class Components:
    """Leading components and the numbers of the whole spectrum.

    Attributes
    ----------
    bases : (N, r)
        Orthonormal columns; in each, the entry largest in size is positive.
    eigenvalues : (k,)
        All eigenvalues that are not numerically zero, descending; divisor n.
    total_variance : float
        Their sum, from the trace.
    n_eff : float
        (sum of eigenvalues)^2 / sum of squared eigenvalues.
    n_eff_error : float
        Its standard error; 0 where the sum of squares is exact.
    residual : (r,)
        ``||C b - lambda b|| / lambda`` of each component, C the covariance matrix, as the last
        pass measured it (a correction may have followed, which makes it smaller); zeros where
        the decomposition is exact (to rounding).
    angle : float
        Estimate of the largest angle (radians) between the subspace found and the true one.
    passes : int
        Products with the covariance matrix; 0 where the decomposition is exact.
    converged : bool
        Whether the tolerance was reached.
    """

    bases: np.ndarray
    eigenvalues: np.ndarray
    total_variance: float
    n_eff: float
    n_eff_error: float = 0.0
    residual: np.ndarray | None = None
    angle: float = 0.0
    passes: int = 0
    converged: bool = True

    @property
    def share(self) -> float:
        """Share of the variance that the components hold."""
        return float(self.eigenvalues[: self.bases.shape[1]].sum() / self.total_variance)


def gram_bytes(n: int, N: int) -> int:
    """Return the memory (bytes) that the exact decomposition needs beside the images."""
    size = min(n, N)
    return 8 * (3 * size * size + PANEL * size)


def block_size(number: int) -> int:
    """Return how many vectors a pass multiplies, to find a number of components (0: unknown).

    Fewer need more passes over the images, more need more arithmetic.
    """
    return 128 if number == 0 else min(256, max(32, 16 * round(number / 20)))


def refined_size(r: int) -> int:
    """Return how many vectors of a rough space are refined to find r components.

    Those few beyond r separate components that lie close together at its end.
    """
    return 16 * -(-(r + 4) // 16)


def krylov_bytes(number: int, N: int) -> int:
    """Return the memory (bytes) that about 12 passes and their refinement take."""
    block = block_size(number)
    # The space and its Ritz vectors in single precision; blocks and refined vectors in double.
    return N * (8 * 12 * block + 8 * (2 * block + 3 * PROBES) + 48 * refined_size(number))


class ExactSpectrum:
    """The whole spectrum of centred images by the smaller Gram matrix.

    Parameters
    ----------
    gram_matrix : (k, k)
        ``Y Y' / n`` (``images`` given) or ``Y' Y / n`` of the smoothed, centred images Y.
    images : (n, N), optional
        Y, float32 or float64; may be a memory map, of which blocks are read.
    workers : int
        Threads.

    Raises
    ------
    InputError
        The images do not vary.
    """

    def __init__(self, gram_matrix: np.ndarray, images: np.ndarray | None, workers: int = 1):
        self._images, self._workers = images, workers
        self.total = float(np.trace(gram_matrix))
        if not self.total > 0.0:
            raise InputError("images: all images are equal inside the mask; check the images")
        self.n_eff = self.total**2 / float(np.einsum("ij,ij->", gram_matrix, gram_matrix))
        eigenvalues, self._vectors_of = _symmetric_eigen(gram_matrix)
        rank = int(np.count_nonzero(eigenvalues > _RANK_TOLERANCE * eigenvalues[0]))
        self.eigenvalues = eigenvalues[:rank]

    def components(self, r: int) -> Components:
        """Return the leading r components."""
        vectors = self._vectors_of(r)
        if self._images is not None:
            vectors = _bases_of_subjects(self._images, vectors, self._workers)
        return Components(
            bases=fix_signs(_orthonormal(vectors)),
            eigenvalues=self.eigenvalues,
            total_variance=self.total,
            n_eff=self.n_eff,
            residual=np.zeros(r),
        )


class TallProducts:
    """Products of matrices with many rows, by tiles of rows in several threads.

    Tiles have one size and sums over them one order, so that the threads do not matter.

    Parameters
    ----------
    workers : int
        Threads.
    """

    def __init__(self, workers: int = 1):
        self.workers = workers

    def _tiles(self, N: int, work: Callable[[slice], np.ndarray | None]) -> list:
        tiles = [slice(first, min(first + _ROW_TILE, N)) for first in range(0, N, _ROW_TILE)]
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(work, tiles))

    def cross(self, blocks: list[np.ndarray], other: np.ndarray) -> np.ndarray:
        """Return the blocks (N, k_i) side by side, transposed, times other (N, k), in double."""

        def part(rows: slice) -> np.ndarray:
            return np.vstack([block[rows].T @ other[rows] for block in blocks])

        total = np.zeros((sum(block.shape[1] for block in blocks), other.shape[1]))
        for found in self._tiles(len(other), part):
            total += found
        return total

    def add(self, out: np.ndarray, blocks: list[np.ndarray], factors: np.ndarray) -> None:
        """Add the blocks (N, k_i) side by side times factors (sum of k_i, k) to out (N, k)."""
        factors = factors.astype(out.dtype, copy=False)
        starts = np.cumsum([0] + [block.shape[1] for block in blocks])

        def part(rows: slice) -> None:
            for block, first, stop in zip(blocks, starts[:-1], starts[1:], strict=True):
                out[rows] += block[rows] @ factors[first:stop]

        self._tiles(len(out), part)

    def orthonormal(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return Q with orthonormal columns, and R of positive diagonal, of columns = QR.

        By Cholesky factors of the columns' products in double, twice, which are products of
        matrices only (Yamamoto et al. 2015, ETNA 44); by reflections where columns nearly depend
        on others. A column of zeros stays one.
        """
        Q, R = columns.astype(np.float64), np.eye(columns.shape[1])
        for _ in range(2):
            products = self.cross([Q], Q)
            size = np.sqrt(np.diag(products))
            some = size > 0.0
            if not some.all():
                result, factor = np.zeros_like(columns), np.zeros_like(products)
                if some.any():
                    found = self.orthonormal(columns[:, some])
                    result[:, some], factor[np.ix_(some, some)] = found
                return result, factor
            factor, info = linalg.lapack.dpotrf(products / np.outer(size, size), lower=0, clean=1)
            if info != 0 or np.diag(factor).min() < _LEAST_PIVOT:
                Q, R = np.linalg.qr(columns)
                signs = np.where(np.diag(R) < 0.0, -1.0, 1.0).astype(columns.dtype)
                return Q * signs, R * signs[:, None]
            inverse, _ = linalg.lapack.dtrtri(factor)
            turned = np.zeros_like(Q)
            self.add(turned, [Q], inverse / size[:, None])
            Q, R = turned, (factor * size) @ R
        return Q.astype(columns.dtype), R


class KrylovSpectrum:
    """Leading eigenpairs of a covariance matrix C (N, N) by products with it.

    Block Lanczos from a random start, every block made orthogonal to all before it; Ritz pairs of
    the whole space are the components. Independent random probes, multiplied once, give an
    unbiased estimate of the sum of squared eigenvalues: exact within the space, and with the
    probes' standard error outside of it.

    Parameters
    ----------
    product : callable
        ``(N, k) -> (N, k)``: C times a block of vectors, in double. One call is one pass over
        the images.
    N : int
        Voxels.
    total : float
        Trace of C.
    block : int
        Vectors a pass.
    seed : int
        Of start and probes.
    dtype : type
        Of the space: single precision serves where the product is of no better.
    workers : int
        Threads; the result does not depend on them.
    """

    def __init__(
        self,
        product: Callable[[np.ndarray], np.ndarray],
        N: int,
        total: float,
        *,
        block: int,
        seed: int,
        dtype: type = np.float64,
        workers: int = 1,
    ):
        if not total > 0.0:
            raise InputError("images: all images are equal inside the mask; check the images")
        self._product, self._N, self.total = product, N, total
        self.tall = TallProducts(workers)
        rng = np.random.default_rng(seed)
        self._next = np.linalg.qr(rng.normal(size=(N, block)).astype(dtype))[0]
        # Probes, and what their products have outside of the space.
        self._probes = rng.normal(size=(N, PROBES)).astype(dtype)
        self._probe_rest: np.ndarray | None = None
        self.block = self._next.shape[1]
        self._blocks: list[np.ndarray] = []
        self._H = np.zeros((0, 0))
        self._coupling = np.zeros((self.block, self.block))
        self._ritz: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self.passes = 0

    @property
    def size(self) -> int:
        """Vectors of the space so far."""
        return len(self._H)

    def step(self) -> None:
        """Make one more pass: the space grows by a block."""
        Q = self._next
        if self._probe_rest is None:
            both = self._product(np.hstack([Q, self._probes])).astype(Q.dtype, copy=False)
            Z, self._probe_rest = both[:, : self.block], both[:, self.block :].copy()
        else:
            Z = self._product(Q)
        self.passes += 1
        self._blocks.append(Q)
        K = self.size
        H = np.zeros((K + self.block, K + self.block))
        H[:K, :K] = self._H
        rest = np.array(Z, dtype=Q.dtype)
        for _ in range(2):
            share = self.tall.cross(self._blocks, rest)
            H[:, K:] += share
            self.tall.add(rest, self._blocks, -share)
        H[K:, :K] = H[:K, K:].T
        H[K:, K:] = 0.5 * (H[K:, K:] + H[K:, K:].T)
        self._H = H
        self._next, self._coupling = self.tall.orthonormal(rest)
        # Columns that depend on others come out of it as any, which lie in the space in part.
        for _ in range(2):
            share = self.tall.cross(self._blocks, self._next)
            self.tall.add(self._next, self._blocks, -share)
            left = np.linalg.norm(self._next, axis=0)
            # Hardly anything of these is new: the space is all there is in their directions.
            self._next[:, left < _LEAST_NEW] = 0.0
            self._next, turn = self.tall.orthonormal(self._next)
            self._coupling = turn @ self._coupling
            if left.min() > _MOSTLY_NEW:
                break
        for _ in range(2):
            share = self.tall.cross([Q], self._probe_rest)
            self.tall.add(self._probe_rest, [Q], -share)
        self._ritz = None

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return Ritz values, descending, the norms of their residuals, and their vectors.

        The vectors (K, K) are in terms of the space's basis.
        """
        if self._ritz is None:
            values, vectors = np.linalg.eigh(self._H)
            values, vectors = values[::-1], vectors[:, ::-1]
            residual = np.linalg.norm(self._coupling @ vectors[-self.block :], axis=0)
            self._ritz = values, residual, vectors
        return self._ritz

    def vectors(self, r: int) -> np.ndarray:
        """Return the leading r Ritz vectors (N, r)."""
        result = np.zeros((self._N, r), dtype=self._next.dtype)
        self.tall.add(result, self._blocks, self.ritz()[2][:, :r])
        return result

    def angle(self, r: int) -> float:
        """Return an estimate of the largest angle (radians) to the true leading r-subspace.

        The residuals of the first r are orthogonal to the whole space, so that they lead, to
        first order, only out of it: each over the distance of its own Ritz value to the
        eigenvalues that the space does not hold; the largest singular value of all is the angle.
        Through such directions they also meet the Ritz vectors r + 1 to q, to second order. The
        space is taken to hold the eigenvalues down to the q-th, for the q that gives least; where
        the q-th is not found well, its residual says so.
        """
        values, _, vectors = self.ritz()
        if r >= len(values):
            return np.inf
        _, buffer, apart = self._edge(r)
        leaving = (self._coupling @ vectors[-self.block :, :r]) / apart
        return float(np.linalg.norm(leaving, 2) * buffer)

    def _edge(self, r: int) -> tuple[int, float, np.ndarray]:
        """Return q of :meth:`angle`, the factor for r + 1 to q, and distances (r,) to the q-th."""
        values, residual, _ = self.ritz()
        squared = np.cumsum(residual**2)
        least = LEAST_GAP * values[r - 1]
        gap = max(values[r - 1] - values[r], least)
        buffer = 1.0 + np.sqrt(squared[r - 1 : -1] - squared[r - 1]) / gap
        apart = np.maximum(values[:r, None] - values[None, r:], least)
        best = int(np.argmin(((residual[:r, None] / apart) ** 2).sum(axis=0) * buffer**2))
        return r + best, float(buffer[best]), apart[:, best]

    def edge(self, r: int) -> float:
        """Return the largest eigenvalue that the space is taken not to hold (see ``angle``)."""
        values = self.ritz()[0]
        return float(max(values[self._edge(r)[0]], 0.0)) if r < len(values) else 0.0

    def outer_edge(self, r: int) -> float:
        """Return up to where eigenvalues that the space does not hold are thought to lie.

        The edge, but no less than their mean: Ritz values between clusters of eigenvalues, or
        below all, are not edges of anything.
        """
        values = self.ritz()[0]
        if r >= len(values):
            return 0.0
        # No eigenvalue out there exceeds the first after the components; a mean of rounding may.
        return max(self.edge(r), min(self.tail(), float(values[r])))

    def corrected_angle(self, r: int) -> float:
        """Return an estimate of the angle after :func:`refined_components` corrected it once.

        What leads out of the space is divided by the distance to half the outer edge, while the
        eigenvalues there are somewhere between zero and that edge.
        """
        angle = self.angle(r)
        if not np.isfinite(angle):
            return angle
        last, half = self.ritz()[0][r - 1], 0.5 * self.outer_edge(r)
        return angle * min(1.0, half / max(last - half, LEAST_GAP * last))

    def sum_of_squares(self) -> tuple[float, float]:
        """Return the unbiased estimate of the sum of squared eigenvalues and its error."""
        inside = float((self._H**2).sum() + 2.0 * (self._coupling**2).sum())
        outside = self._outside()
        return inside + float(outside.mean()), float(outside.std(ddof=1) / np.sqrt(PROBES))

    def _outside(self) -> np.ndarray:
        """Return unbiased estimates of the sum of squares outside of the space, one a probe."""
        # C times the part of a probe in the space leads out of it along the next block only.
        share = self._blocks[-1].T @ self._probes
        rest = (self._probe_rest - self._next @ (self._coupling @ share)).astype(np.float64)
        return np.einsum("vk,vk->k", rest, rest)

    def tail(self) -> float:
        """Return the mean of the eigenvalues outside of the space, weighted by themselves."""
        variance = self.total - float(np.trace(self._H))
        return float(self._outside().mean()) / variance if variance > 0.0 else 0.0

    def along_next(self, vectors: np.ndarray) -> np.ndarray:
        """Return the part of vectors (N, k) along the block that the space would grow by."""
        return self._next @ (self._next.T @ vectors)

    def components(self, r: int) -> Components:
        """Return the leading r components."""
        values, residual, _ = self.ritz()
        bases = self.vectors(r).astype(np.float64)
        squares, error = self.sum_of_squares()
        n_eff = self.total**2 / squares
        return Components(
            bases=fix_signs(_orthonormal(bases)),
            eigenvalues=values[:r],
            total_variance=self.total,
            n_eff=n_eff,
            n_eff_error=n_eff * error / squares,
            residual=residual[:r] / values[:r],
            angle=self.angle(r),
            passes=self.passes,
            converged=self.angle(r) <= ANGLE_TOLERANCE,
        )


def krylov_components(
    spectrum: KrylovSpectrum,
    *,
    number: int = 0,
    share: float = 0.8,
    most: int = 0,
    tolerance: float = ANGLE_TOLERANCE,
    to_be_corrected: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Components:
    """Return leading components to a tolerance of their angle, or after :data:`MOST_PASSES`.

    Parameters
    ----------
    spectrum : KrylovSpectrum
        May have made steps before.
    number : int
        Components; 0 is as many as hold ``share`` of the variance.
    share : float
        Share of the variance, in (0, 1].
    most : int
        Largest number of components that may be asked for.
    tolerance : float
        Angle (radians, estimated) to stop at.
    to_be_corrected : bool
        The tolerance is of the angle that :func:`refined_components` will leave.
    progress : callable, optional
        Told of each pass.

    Raises
    ------
    InputError
        More components than ``most`` are asked for, which is said before any pass, or needed.
    """
    if number > most:
        raise InputError(
            f"components: {number} asked for, but at most {most} can be found with this many "
            "images and voxels; ask for fewer"
        )
    earlier: tuple[int, float] | None = None
    look_at = 0
    while True:
        if spectrum.passes and spectrum.passes >= look_at:
            values = spectrum.ritz()[0]
            r = number or number_by_share(values, spectrum.total, share)
            # The leading Ritz values hold no more than the eigenvalues do: who needs more than
            # ``most`` of them while the space still grows may need fewer later.
            held = float(values[:most].sum()) / spectrum.total
            if (r == 0 or r > most) and _out_of_reach(spectrum, most, share):
                raise InputError(
                    f"components: the first {most} hold {held:.1%} of the variance, and more than "
                    "that many are not found at this size; ask for fewer (components, "
                    "components_variance), or smooth more (bandwidth)"
                )
            found = 0 < r <= most
            stopping = np.inf
            if found:
                stopping = spectrum.corrected_angle(r) if to_be_corrected else spectrum.angle(r)
            if progress is not None:
                told = f"{r} components, subspace error {stopping:.1e}" if found else "more needed"
                progress(f"pass {spectrum.passes}: space of {spectrum.size}, {told}")
            # Rounding keeps a space in single precision from getting any better.
            rounded = to_be_corrected and stopping < _ROUGH_FLOOR and earlier is not None
            if rounded and stopping > _STAGNANT * earlier[1]:
                return spectrum.components(r)
            if found and (stopping <= tolerance or spectrum.passes >= MOST_PASSES):
                return spectrum.components(r)
            if spectrum.size > _LOOKED_AT:
                look_at = spectrum.passes + _unseen(earlier, spectrum.passes, stopping, tolerance)
            earlier = spectrum.passes, stopping
        spectrum.step()


def _out_of_reach(spectrum: KrylovSpectrum, most: int, share: float) -> bool:
    """Return whether ``most`` components cannot hold a share of the variance.

    Ritz values approach eigenvalues from below, and lack what is of second order in the angle
    of the space that they belong to: nothing is said before that is small.
    """
    if spectrum.passes >= MOST_PASSES:
        return True
    if spectrum.angle(most) > _SETTLED:
        return False
    values, residual, _ = spectrum.ritz()
    gap = np.maximum(values[:most] - values[most], LEAST_GAP * values[:most])
    lacking = np.minimum(residual[:most] ** 2 / gap, residual[:most]).sum()
    return float(values[:most].sum() + lacking) < share * (1.0 - 1e-12) * spectrum.total


def _unseen(earlier: tuple[int, float] | None, now: int, angle: float, tolerance: float) -> int:
    """Return after how many passes the angle may reach the tolerance, as it fell so far."""
    if earlier is None or not 0.0 < angle < earlier[1] < np.inf:
        return 1
    fall = np.log(earlier[1] / angle) / (now - earlier[0])
    return int(np.clip(np.floor(np.log(angle / tolerance) / fall), 1, _MOST_UNSEEN))


def refined_components(
    rough: KrylovSpectrum,
    product: Callable[[np.ndarray], np.ndarray],
    r: int,
    *,
    progress: Callable[[str], None] | None = None,
) -> Components:
    """Return r components of a matrix from the space found for a rounded one.

    One pass in double gives Rayleigh quotients and residuals of the leading Ritz vectors. To
    first order, each lacks its residual over the distance of its eigenvalue to those elsewhere:
    known along the other Ritz vectors of the space; half the outer edge of the space along the
    block that it would have grown by; and elsewhere, where what is left of the residual leads, the
    mean of the eigenvalues outside (weighted by themselves), at most as much. Adding that leaves
    an angle which is estimated from how well these are known: eigenvalues out there may be as
    large as the outer edge. Where it exceeds :data:`ANGLE_TOLERANCE`, more passes follow, until
    two have brought nothing; the best is returned.

    Parameters
    ----------
    rough : KrylovSpectrum
        Of the rounded matrix, as :func:`krylov_components` leaves it.
    product : callable
        The product with the matrix itself, in double.
    r : int
        Components.
    progress : callable, optional
        Told of each pass.
    """
    values, coupling, _ = rough.ritz()
    size = min(refined_size(r), rough.size)
    ritz = rough.vectors(rough.size)
    tall = rough.tall
    V = tall.orthonormal(ritz[:, :size].astype(np.float64))[0]
    beyond = ritz[:, size:]
    edge, passes = rough.outer_edge(r), 0
    # More than half the edge would let the correction along smaller eigenvalues overshoot.
    tail = min(rough.tail(), 0.5 * edge)
    best, in_vain = (np.inf, V, values[:r], values[:r]), 0
    while True:
        W = product(V)
        passes += 1
        H = V.T @ W
        theta, turn = np.linalg.eigh(0.5 * (H + H.T))
        theta, turn = theta[::-1], turn[:, ::-1]
        V = V @ turn
        R = W @ turn
        R -= V * theta
        R -= V @ (V.T @ R)
        norms = np.linalg.norm(R, axis=0)
        lead, least = theta[:r], LEAST_GAP * theta[r - 1]
        # Corrections need no more digits than the residuals that they are made of.
        R = R[:, :r].astype(beyond.dtype)
        inside = tall.cross([beyond], R)
        tall.add(R, [beyond], -inside)
        grown = rough.along_next(R)
        R -= grown
        apart = np.maximum(lead - values[size:, None], least)
        near = np.maximum(lead - edge, least)
        half, mean = np.maximum(lead - 0.5 * edge, least), np.maximum(lead - tail, least)
        rest = norms[r:] if r < size else np.zeros(0)
        gap = max(lead[-1] - theta[r], least) if r < size else least
        mixing = float(np.sqrt((rest**2).sum())) / gap
        before = _joint_norm(inside / apart, (grown + R) / near) * (1.0 + mixing)
        # Rounding in X'(Xv) is that of numbers as large as X times Xv.
        rounding = _ROUGH_ERROR * np.sqrt(theta[0] * lead)
        doubt = np.minimum((coupling[size:, None] + rounding) / apart, 1.0)
        unknown = grown * (1.0 / near - 1.0 / half) + R * (1.0 / near - 1.0 / mean)
        after = _joint_norm(inside / apart * doubt, unknown) + before * mixing
        angle, last = before, passes + rough.passes >= MOST_PASSES
        if before > ANGLE_TOLERANCE:
            outside = (grown / half + R / mean).astype(R.dtype)
            change = outside.copy()
            tall.add(change, [beyond], inside / apart)
            lead = lead + (inside**2 / apart).sum(axis=0)
            lead += np.einsum("vk,vk->k", grown + R, outside, dtype=np.float64)
            V[:, :r] += change
            V = tall.orthonormal(V)[0]
            angle = after
        if progress is not None:
            progress(f"pass {passes + rough.passes}: in double, subspace error {angle:.1e}")
        in_vain = 0 if angle < best[0] else in_vain + 1
        if in_vain == 0:
            best = angle, V, lead, norms[:r] / lead
        if angle <= ANGLE_TOLERANCE or last or in_vain == _MOST_IN_VAIN:
            break
    angle, V, lead, residual = best
    squares, error = rough.sum_of_squares()
    n_eff = rough.total**2 / squares
    return Components(
        bases=fix_signs(_orthonormal(V[:, :r])),
        eigenvalues=lead,
        total_variance=rough.total,
        n_eff=n_eff,
        n_eff_error=n_eff * error / squares,
        residual=residual,
        angle=angle,
        passes=passes + rough.passes,
        converged=angle <= ANGLE_TOLERANCE,
    )


def _joint_norm(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest singular value of two matrices (any, r), one upon the other."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    return float(np.sqrt(max(np.linalg.eigvalsh(one.T @ one + other.T @ other)[-1], 0.0)))


def principal_components(
    images: np.ndarray, *, number: int = 0, share: float = 0.8, workers: int = 1
) -> Components:
    """Return functional principal components of centred images, exactly.

    Parameters
    ----------
    images : (n, N)
        Smoothed images less their mean, float32 or float64; may be a memory map, of which
        blocks are read.
    number : int
        Components to keep; 0 keeps as many as hold ``share`` of the variance.
    share : float
        Share of the total variance, in (0, 1].
    workers : int
        Threads.

    Raises
    ------
    InputError
        The images do not vary, or hold fewer components than asked for.
    """
    n, N = images.shape
    by_subject = n <= N
    panels = column_panels(images) if by_subject else _row_panels(images)
    G = gram(panels, min(n, N), workers=workers) / n
    spectrum = ExactSpectrum(G, images if by_subject else None, workers)
    r = number or number_by_share(spectrum.eigenvalues, spectrum.total, share)
    r = r or len(spectrum.eigenvalues)
    require_rank(r, len(spectrum.eigenvalues), n, N)
    return spectrum.components(r)


def require_rank(r: int, rank: int, n: int, N: int) -> None:
    """Refuse more components than there are.

    Raises
    ------
    InputError
        ``r`` exceeds ``rank``.
    """
    if r > rank:
        raise InputError(
            f"components: {r} asked for, but {n} images of {N} voxels hold only {rank}; "
            "ask for fewer"
        )


def extrapolated_n_eff(eigenvalues: np.ndarray, r: int, rank: int) -> float:
    """Return N_eff with the eigenvalues after r extrapolated log-linearly (as published).

    The line is that of least squares through the logarithms of the second half of the first r;
    at most ``rank`` eigenvalues are not zero. For comparison only; NaN with r < 4.
    """
    leading = np.asarray(eigenvalues[:r], dtype=np.float64)
    if len(leading) < 4 or leading[-1] <= 0.0:
        return float("nan")
    place = np.arange(len(leading) // 2, len(leading))
    slope, level = np.polyfit(place, np.log(leading[place]), 1)
    later = np.exp(level + slope * np.arange(len(leading), max(rank, len(leading))))
    whole = np.concatenate([leading, later])
    return float(whole.sum() ** 2 / (whole**2).sum())


def gram(panels: Iterable[np.ndarray], size: int, *, workers: int = 1) -> np.ndarray:
    """Return the symmetric sum of ``P' P`` over panels P (any, size), in double."""
    G = np.zeros((size, size))
    bounds = [(first, min(first + _TILE, size)) for first in range(0, size, _TILE)]
    tiles = [(i, j) for i in bounds for j in bounds if j <= i]

    with ThreadPoolExecutor(workers) as pool:
        for panel in panels:
            panel = np.asarray(panel, dtype=np.float64)

            def add(tile, panel=panel):
                (a, b), (c, d) = tile
                G[a:b, c:d] += panel[:, a:b].T @ panel[:, c:d]

            list(pool.map(add, tiles))
    for (a, b), (c, d) in tiles:
        if (a, b) == (c, d):
            block = G[a:b, a:b]
            block[...] = np.tril(block) + np.tril(block, -1).T
        else:
            G[c:d, a:b] = G[a:b, c:d].T
    return G


def fix_signs(bases: np.ndarray) -> np.ndarray:
    """Return the columns with signs such that the entry largest in size is positive."""
    largest = np.argmax(np.abs(bases), axis=0)
    signs = np.sign(bases[largest, np.arange(bases.shape[1])])
    return bases * np.where(signs == 0.0, 1.0, signs)


def number_by_share(eigenvalues: np.ndarray, total: float, share: float) -> int:
    """Return the fewest leading eigenvalues that sum to a share of the total.

    0 where those given do not reach it; a share of 1 may lie beyond all by rounding.
    """
    cumulated = np.cumsum(eigenvalues) / total
    reached = int(np.searchsorted(cumulated, share * (1.0 - 1e-12)))
    return reached + 1 if reached < len(eigenvalues) else 0


def _symmetric_eigen(G: np.ndarray):
    """Return all eigenvalues, descending, and a function for the leading k eigenvectors.

    One reduction to tridiagonal form serves both, so that no vector is found in vain.
    """
    size = len(G)
    if size < 3:
        values, vectors = np.linalg.eigh(G)
        return values[::-1], lambda k: vectors[:, ::-1][:, :k]
    work, _ = linalg.lapack.dsytrd_lwork(size, lower=1)
    reduced, diagonal, off_diagonal, tau, info = linalg.lapack.dsytrd(
        np.asfortranarray(G), lower=1, lwork=int(work), overwrite_a=0
    )
    if info != 0:
        raise np.linalg.LinAlgError(f"reduction to tridiagonal form failed ({info})")
    values = linalg.eigh_tridiagonal(diagonal, off_diagonal, eigvals_only=True)[::-1]

    def vectors_of(k: int) -> np.ndarray:
        _, inner = linalg.eigh_tridiagonal(
            diagonal, off_diagonal, select="i", select_range=(size - k, size - 1)
        )
        inner = np.asfortranarray(inner[:, ::-1])
        reflectors = np.asfortranarray(reduced[1:, :-1])
        _, work, info = linalg.lapack.dormqr(
            "L", "N", reflectors, tau, inner[1:], lwork=-1, overwrite_c=0
        )
        rotated, _, info = linalg.lapack.dormqr(
            "L", "N", reflectors, tau, inner[1:], lwork=int(work[0]), overwrite_c=0
        )
        if info != 0:
            raise np.linalg.LinAlgError(f"back-transformation of eigenvectors failed ({info})")
        return np.vstack([inner[:1], rotated])

    return values, vectors_of


def _bases_of_subjects(images: np.ndarray, vectors: np.ndarray, workers: int) -> np.ndarray:
    """Return X'U with columns of length 1, from eigenvectors U (n, r) of the subjects' Gram."""
    N = images.shape[1]
    bases = np.zeros((N, vectors.shape[1]))
    bounds = [(first, min(first + PANEL, N)) for first in range(0, N, PANEL)]

    def fill(bound):
        a, b = bound
        bases[a:b] = np.asarray(images[:, a:b], dtype=np.float64).T @ vectors

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(fill, bounds))
    return bases / np.linalg.norm(bases, axis=0)


def _orthonormal(bases: np.ndarray) -> np.ndarray:
    """Return the columns made orthonormal to rounding, each keeping its direction."""
    return TallProducts().orthonormal(bases)[0]


def column_panels(images: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, images.shape[1], PANEL):
        yield np.ascontiguousarray(images[:, first : first + PANEL].T, dtype=np.float64)


def _row_panels(images: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, images.shape[0], PANEL):
        yield images[first : first + PANEL]
