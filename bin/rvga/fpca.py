"""Functional principal components of smoothed, centred images (method 1, steps 2 and 3).

The eigen-decomposition is exact, by the smaller of the two Gram matrices. Every sum is formed
over tiles of fixed size, one thread a tile, so the result does not depend on the number of
threads as long as the linear-algebra library itself is limited to one.

Eigenvalues are those of the covariance matrix with divisor n: the squared singular values of
the centred images over n.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from rvga.errors import InputError

PANEL = 512
_TILE = 1024
_RANK_TOLERANCE = 1e-10


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
    """

    bases: np.ndarray
    eigenvalues: np.ndarray
    total_variance: float
    n_eff: float

    @property
    def share(self) -> float:
        """Share of the variance that the components hold."""
        return float(self.eigenvalues[: self.bases.shape[1]].sum() / self.total_variance)


def gram_bytes(n: int, N: int) -> int:
    """Return the memory (bytes) that :func:`principal_components` needs beside the images."""
    size = min(n, N)
    return 8 * (3 * size * size + PANEL * size)


def principal_components(
    images: np.ndarray, *, number: int = 0, share: float = 0.8, workers: int = 1
) -> Components:
    """Return functional principal components of centred images.

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
    panels = _column_panels(images) if by_subject else _row_panels(images)
    G = gram(panels, min(n, N), workers=workers) / n
    total = float(np.trace(G))
    if not total > 0.0:
        raise InputError("images: all images are equal inside the mask; check the images")
    n_eff = total**2 / float(np.einsum("ij,ij->", G, G))

    eigenvalues, vectors_of = _symmetric_eigen(G)
    del G
    rank = int(np.count_nonzero(eigenvalues > _RANK_TOLERANCE * eigenvalues[0]))
    eigenvalues = eigenvalues[:rank]
    r = number or _number_by_share(eigenvalues, total, share)
    if r > rank:
        raise InputError(
            f"components: {r} asked for, but {n} images of {N} voxels hold only {rank}; "
            "ask for fewer"
        )
    vectors = vectors_of(r)
    bases = _bases_of_subjects(images, vectors, workers) if by_subject else vectors
    return Components(
        bases=fix_signs(_orthonormal(bases)),
        eigenvalues=eigenvalues,
        total_variance=total,
        n_eff=n_eff,
    )


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


def _number_by_share(eigenvalues: np.ndarray, total: float, share: float) -> int:
    cumulated = np.cumsum(eigenvalues) / total
    # A share of 1 may lie beyond the last one by rounding.
    return min(int(np.searchsorted(cumulated, share)) + 1, len(eigenvalues))


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


def _column_panels(images: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, images.shape[1], PANEL):
        yield np.ascontiguousarray(images[:, first : first + PANEL].T, dtype=np.float64)


def _row_panels(images: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, images.shape[0], PANEL):
        yield images[first : first + PANEL]
