"""Functional principal components of smoothed, centred images (method 1, steps 2 and 3).

Where the smaller of the two Gram matrices is small, its eigen-decomposition is exact. Else the
leading components are found by a randomized block Krylov method, which needs products of the
covariance matrix with blocks of vectors only, and says how exact they are: in single precision
first, which finds the space, then in double from what that found. Every sum is formed
over tiles of fixed size, one thread a tile, so the result does not depend on the number of
threads as long as the linear-algebra library itself is limited to one.

Eigenvalues are those of the covariance matrix with divisor n: the squared singular values of
the centred images over n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg

from rvga.errors import InputError

PANEL = 512
_TILE = 1024
_RANK_TOLERANCE = 1e-10
# Gram matrices of at most this side are decomposed exactly.
EXACT_SIDE = 6000
# Angle (radians, estimated) allowed between the subspace found and the true one, where the
# relative gap after it exceeds LEAST_GAP; where it does not, as if it were that gap.
ANGLE_TOLERANCE = 5e-7
LEAST_GAP = 1e-3
MOST_PASSES = 60
# The same for the space found in single precision, which is refined in double.
ROUGH_TOLERANCE = 5e-7
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
        ``||C b - lambda b|| / lambda`` of each component, C the covariance matrix; zeros where
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


def start_size(r: int) -> int:
    """Return how many vectors of a rough space are refined to find r components.

    Those beyond r keep what is outside well apart from the r-th.
    """
    return r + max(16, r // 2)


def krylov_bytes(number: int, N: int) -> int:
    """Return the memory (bytes) that about 12 passes and their refinement take."""
    return 8 * N * (14 * block_size(number) + 3 * PROBES + 2 * number + 4 * start_size(number))


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
    rough : KrylovSpectrum, optional
        Of nearly the same matrix, cheaper to multiply with. Its leading Ritz vectors are the
        start, in place of a random one, and its sum of squared eigenvalues is kept.
    """

    def __init__(
        self,
        product: Callable[[np.ndarray], np.ndarray],
        N: int,
        total: float,
        *,
        block: int,
        seed: int,
        rough: KrylovSpectrum | None = None,
    ):
        if not total > 0.0:
            raise InputError("images: all images are equal inside the mask; check the images")
        self._product, self._N, self.total = product, N, total
        self._squares: tuple[float, float] | None = None
        self._probes, self._probed = np.zeros((N, 0)), None
        if rough is None:
            rng = np.random.default_rng(seed)
            self._next = np.linalg.qr(rng.normal(size=(N, block)))[0]
            self._probes = rng.normal(size=(N, PROBES))
        else:
            self._next = np.linalg.qr(rough.vectors(min(block, rough.size)))[0]
            self._squares = rough.sum_of_squares()
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
        if self._probed is None:
            both = self._product(np.hstack([Q, self._probes]))
            Z, self._probed = both[:, : self.block], both[:, self.block :].copy()
        else:
            Z = self._product(Q)
        self.passes += 1
        self._blocks.append(Q)
        K = self.size
        H = np.zeros((K + self.block, K + self.block))
        H[:K, :K] = self._H
        rest = np.array(Z)
        for _ in range(2):
            for place, earlier in enumerate(self._blocks):
                rows = slice(place * self.block, (place + 1) * self.block)
                share = earlier.T @ rest
                H[rows, K:] += share
                rest -= earlier @ share
        H[K:, :K] = H[:K, K:].T
        H[K:, K:] = 0.5 * (H[K:, K:] + H[K:, K:].T)
        self._H = H
        self._next, self._coupling = np.linalg.qr(rest)
        # Columns that vanish come out of QR as rounding, which need not be orthogonal.
        for earlier in self._blocks:
            self._next -= earlier @ (earlier.T @ self._next)
        self._next, turn = np.linalg.qr(self._next)
        self._coupling = turn @ self._coupling
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
        vectors = self.ritz()[2]
        result = np.zeros((self._N, r))
        for place, block in enumerate(self._blocks):
            result += block @ vectors[place * self.block : (place + 1) * self.block, :r]
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
        values, residual, vectors = self.ritz()
        if r >= len(values):
            return np.inf
        squared = np.cumsum(residual**2)
        least = LEAST_GAP * values[r - 1]
        gap = max(values[r - 1] - values[r], least)
        buffer = 1.0 + np.sqrt(squared[r - 1 : -1] - squared[r - 1]) / gap
        apart = np.maximum(values[:r, None] - values[None, r:], least)
        best = int(np.argmin(((residual[:r, None] / apart) ** 2).sum(axis=0) * buffer**2))
        leaving = (self._coupling @ vectors[-self.block :, :r]) / apart[:, best]
        return float(np.linalg.norm(leaving, 2) * buffer[best])

    def sum_of_squares(self) -> tuple[float, float]:
        """Return the unbiased estimate of the sum of squared eigenvalues and its error."""
        if self._squares is not None:
            return self._squares
        K, b = self.size, self.block
        inside = float((self._H**2).sum() + 2.0 * (self._coupling**2).sum())
        share = np.vstack([block.T @ self._probes for block in self._blocks])
        rest = self._probed - self._next @ (self._coupling @ share[K - b :])
        for _ in range(2):
            for block in self._blocks:
                rest -= block @ (block.T @ rest)
        outside = np.einsum("vk,vk->k", rest, rest)
        return inside + float(outside.mean()), float(outside.std(ddof=1) / np.sqrt(PROBES))

    def components(self, r: int) -> Components:
        """Return the leading r components."""
        values, residual, _ = self.ritz()
        bases = self.vectors(r)
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
    while True:
        if spectrum.passes:
            values = spectrum.ritz()[0]
            r = number or number_by_share(values, spectrum.total, share)
            if r > most or (r == 0 and len(values) > 2 * most):
                held = values[:most].sum() / spectrum.total
                raise InputError(
                    f"components: the first {most} hold {held:.1%} of the variance, and more than "
                    "that many are not found at this size; ask for fewer (components, "
                    "components_variance), or smooth more (bandwidth)"
                )
            stopping = spectrum.angle(r) if r else np.inf
            if progress is not None:
                told = f"{r} components, subspace error {stopping:.1e}" if r else "more needed"
                progress(f"pass {spectrum.passes}: space of {spectrum.size}, {told}")
            if r and (stopping <= tolerance or spectrum.passes >= MOST_PASSES):
                return spectrum.components(r)
        spectrum.step()


def refined_components(
    rough: KrylovSpectrum,
    product: Callable[[np.ndarray], np.ndarray],
    r: int,
    *,
    progress: Callable[[str], None] | None = None,
) -> Components:
    """Return r components of a matrix from the converged space of a rounded one.

    The passes over the images that find the space are cheap in single precision; one more in
    double tells how exact its leading vectors are, and turns them into the components. Where
    that does not reach :data:`ANGLE_TOLERANCE`, more follow.

    Parameters
    ----------
    rough : KrylovSpectrum
        Of the rounded matrix, as :func:`krylov_components` leaves it.
    product : callable
        The product with the matrix itself.
    r : int
        Components.
    progress : callable, optional
        Told of each pass.
    """
    spectrum = KrylovSpectrum(
        product, len(rough.vectors(1)), rough.total, block=start_size(r), seed=0, rough=rough
    )
    found = krylov_components(spectrum, number=r, most=r, progress=progress)
    return replace(found, passes=found.passes + rough.passes)


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
    Q, R = np.linalg.qr(bases)
    return Q * np.where(np.diag(R) < 0.0, -1.0, 1.0)


def column_panels(images: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, images.shape[1], PANEL):
        yield np.ascontiguousarray(images[:, first : first + PANEL].T, dtype=np.float64)


def _row_panels(images: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, images.shape[0], PANEL):
        yield images[first : first + PANEL]
