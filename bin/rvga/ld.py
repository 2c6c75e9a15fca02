"""Linkage disequilibrium from two panels (method 5b); arrays in, arrays out.

Genotype blocks have a row a variant and a column a person.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SMALLEST_BLOCK = 200
LARGEST_BLOCK = 1000
BAND = 500
# People of panel 1 in each third that the traces between blocks are taken from, at most.
LARGEST_THIRD = 1000
_ABOVE = np.triu(np.ones((64, 64), dtype=bool), 1)


def split_halves(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split ``range(n)`` at random into two sorted halves; the first has ``n // 2`` members."""
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 :])


def split_panel(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split ``range(n)`` at random into the people of panel 1 and of panel 2, sorted.

    It is independent of :func:`split_halves` with the same seed.
    """
    order = np.random.default_rng([seed, n]).permutation(n)
    return np.sort(order[n // 2 :]), np.sort(order[: n // 2])


def allele_frequency(dosages: np.ndarray) -> np.ndarray:
    """Return effect-allele frequencies (m,) of dosages (m, n), missing calls (NaN) left out.

    A variant without any call has frequency NaN.
    """
    called = np.isfinite(dosages)
    number = called.sum(axis=1)
    total = np.where(called, dosages, 0.0).sum(axis=1, dtype=np.float64)
    return np.divide(total, 2.0 * number, out=np.full(len(dosages), np.nan), where=number > 0)


def standardise(dosages: np.ndarray) -> np.ndarray:
    """Return rows of mean 0 and variance 1 (float32, (m, n)); missing calls become 0.

    Missing calls (NaN) take the variant's mean before the variance is computed. A row
    without variance is 0 throughout.
    """
    called = np.isfinite(dosages)
    values = np.where(called, dosages, 0.0).astype(np.float64, copy=False)
    number = np.maximum(called.sum(axis=1, keepdims=True), 1)
    values -= values.sum(axis=1, keepdims=True) / number
    values *= called
    deviation = np.sqrt(np.mean(values * values, axis=1, keepdims=True))
    usable = deviation > 1e-6
    return np.divide(values, deviation, out=np.zeros_like(values), where=usable).astype(np.float32)


class BoundaryCost:
    """Sum of r² across each boundary between neighbours, from variants given in chunks.

    ``cost[i]`` is the sum, over pairs (j, k) with j < i <= k and k - j <= band, of r² less
    its expectation 1/n under no correlation. Cheap cuts are where few pairs across are
    correlated (the idea of LDetect, Berisa and Pickrell 2016).

    Parameters
    ----------
    band : int
        Farthest neighbour, in variants, that is looked at.
    """

    def __init__(self, band: int = BAND):
        self.band = band
        self._tail: np.ndarray | None = None
        self._left: list[np.ndarray] = []
        self._right: list[np.ndarray] = []

    def add(self, genotypes: np.ndarray) -> None:
        """Take the next variants: standardised rows (m, n)."""
        if len(genotypes) == 0:
            return
        n = genotypes.shape[1]
        tail = genotypes[:0] if self._tail is None else self._tail
        both = np.concatenate([tail, genotypes])
        r = (genotypes @ both.T) / np.float32(n)
        lag = (np.arange(len(genotypes)) + len(tail))[:, None] - np.arange(len(both))[None, :]
        r2 = np.where((lag > 0) & (lag <= self.band), r * r - np.float32(1.0 / n), 0.0)
        left = r2.sum(axis=0, dtype=np.float64)
        if len(tail):
            before = np.concatenate(self._left)
            before[-len(tail) :] += left[: len(tail)]
            self._left = [before]
        self._left.append(left[len(tail) :])
        self._right.append(r2.sum(axis=1, dtype=np.float64))
        self._tail = both[-self.band :]

    def result(self) -> np.ndarray:
        """Return the cost of a cut before each variant and after the last, (m + 1,)."""
        if not self._left:
            return np.zeros(1)
        difference = np.concatenate(self._left) - np.concatenate(self._right)
        return np.concatenate([[0.0], np.cumsum(difference)])


def choose_cuts(
    cost: np.ndarray, smallest: int = SMALLEST_BLOCK, largest: int = LARGEST_BLOCK
) -> np.ndarray:
    """Return block starts (b + 1,) that minimise the summed cost of the cuts.

    Dynamic programming over all partitions into blocks of ``smallest`` to ``largest``
    variants; fewer variants than ``largest`` are one block.

    Parameters
    ----------
    cost : (m + 1,)
        Cost of a cut before each variant, as from :class:`BoundaryCost`.
    smallest, largest : int
        Bounds of the block size; ``2 * smallest <= largest``.
    """
    if 2 * smallest > largest:
        raise ValueError(f"smallest block {smallest} is more than half the largest {largest}")
    m = len(cost) - 1
    if m <= largest:
        return np.array([0, m], dtype=np.int64) if m else np.zeros(1, dtype=np.int64)
    best = np.full(m + 1, np.inf)
    best[0] = 0.0
    previous = np.zeros(m + 1, dtype=np.int64)
    for end in range(smallest, m + 1):
        first = max(0, end - largest)
        window = best[first : end - smallest + 1]
        choice = int(np.argmin(window))
        best[end] = window[choice] + (cost[end] if end < m else 0.0)
        previous[end] = first + choice
    cuts = [m]
    while cuts[-1] > 0:
        cuts.append(int(previous[cuts[-1]]))
    return np.array(cuts[::-1], dtype=np.int64)


def inverse_factor(genotypes: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return M = U Λ^(-1/2) of a block's correlation matrix, leading eigenvalues only.

    Parameters
    ----------
    genotypes : (m, n)
        Standardised rows of one panel; the correlation matrix is G G' / n.
    share : float
        The fewest leading eigenvalues whose share of the trace reaches it are kept.

    Returns
    -------
    M : (m, k) float64
        Columns by descending eigenvalue, the entry largest in size positive.
    cumulated : (k,) float64
        Cumulated share of the trace, by column.
    """
    m, n = genotypes.shape
    G = genotypes.astype(np.float64)
    dual = n < m
    eigenvalues, vectors = np.linalg.eigh((G.T @ G if dual else G @ G.T) / n)
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    trace = float(np.einsum("ij,ij->", G, G)) / n
    positive = eigenvalues > 1e-6 * max(eigenvalues[0], 1e-12)
    cumulated = np.cumsum(eigenvalues[positive]) / trace
    rank = columns_for_share(cumulated, share)
    eigenvalues, vectors = eigenvalues[:rank], vectors[:, :rank]
    if dual:
        M = (G @ vectors) / (np.sqrt(n) * eigenvalues)
    else:
        M = vectors / np.sqrt(eigenvalues)
    largest = np.argmax(np.abs(M), axis=0)
    M *= np.where(M[largest, np.arange(rank)] < 0, -1.0, 1.0)
    return M, cumulated[:rank]


def columns_for_share(cumulated: np.ndarray, share: float) -> int:
    """Return the fewest leading columns whose cumulated share reaches ``share`` (at least 1)."""
    rank = int(np.searchsorted(cumulated, share - 1e-9)) + 1
    return min(rank, len(cumulated))


def accumulate_kinship(K: np.ndarray, G_a: np.ndarray, G_b: np.ndarray) -> None:
    """Add G_a' G_b of some variants to K (n_a, n_b), in place and in double precision.

    Parameters
    ----------
    K : (n_a, n_b) float64
    G_a, G_b : (m, n_a), (m, n_b)
        Standardised rows of the same variants in the two halves of panel 1.
    """
    K += G_a.T @ G_b


def split_thirds(n: int, seed: int, largest: int = LARGEST_THIRD) -> list[np.ndarray]:
    """Split ``range(n)`` at random into three sorted thirds of at most ``largest`` members."""
    order = np.random.default_rng(seed).permutation(n)
    size = min(n // 3, largest)
    return [np.sort(order[i * size : (i + 1) * size]) for i in range(3)]


class TracesBetweenBlocks:
    """How much of the error's traces lies between the blocks of a chromosome.

    With R from three independent thirds (1, 2, 3) of panel 1, tr(ΩR₁ΩR₂) and tr(ΩR₁ΩR₂R₃)
    are computed with R of the whole chromosome and with its diagonal blocks only, in the
    first Ω R Ω. Their ratios say by how much t₄ and s, which a reference holds within blocks,
    are too small. The three ways to choose the roles are averaged.

    Parameters
    ----------
    sizes : (int, int, int)
        People in the thirds.
    """

    def __init__(self, sizes: tuple[int, int, int]):
        self.sizes = sizes
        self._pairs = ((0, 1), (1, 2), (2, 0))
        self._K = [np.zeros((sizes[i], sizes[j])) for i, j in self._pairs]
        self._U = [np.zeros((sizes[i], sizes[j])) for i, j in self._pairs]
        self._within = np.zeros(2)

    def add_variants(self, thirds: list[np.ndarray]) -> None:
        """Add standardised genotypes (m, n_i) of some variants of the chromosome to K."""
        for K, (i, j) in zip(self._K, self._pairs, strict=True):
            K += thirds[i].T @ thirds[j]

    def block(self, M: np.ndarray, thirds: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
        """Return a block's G_i' Ω G_j and its own two traces; needs all of K."""
        projected = [M.T.astype(np.float32) @ G for G in thirds]
        U = [(projected[i].T @ projected[j]).astype(np.float64) for i, j in self._pairs]
        return U, self._traces(U)

    def add_block(self, U: list[np.ndarray], traces: np.ndarray) -> None:
        """Add what :meth:`block` returned; the order of the blocks decides the last digits."""
        for total, part in zip(self._U, U, strict=True):
            total += part
        self._within += traces

    def result(self) -> np.ndarray:
        """Return tr(ΩRΩR) and tr(ΩRΩR²) within blocks and whole: (4,) in this order."""
        whole = self._traces(self._U)
        return np.array([self._within[0], whole[0], self._within[1], whole[1]])

    def _traces(self, U: list[np.ndarray]) -> np.ndarray:
        n = self.sizes
        t_4 = [np.sum(U[p] ** 2) / (n[i] * n[j]) for p, (i, j) in enumerate(self._pairs)]
        # G_2' Ω G_0 · G_0' Ω G_1 is U[2] U[0], paired with K between 1 and 2, and so on.
        t_5 = [np.sum((U[p - 1] @ U[p]) * self._K[(p + 1) % 3].T) for p in range(3)]
        return np.array([np.mean(t_4), np.mean(t_5) / (n[0] * n[1] * n[2])])


def between_block_factors(traces: np.ndarray, largest: float = 3.0) -> tuple[float, float]:
    """Return the factors of t₄ and s for what lies between blocks, each in [1, largest].

    Parameters
    ----------
    traces : (c, 4)
        :meth:`TracesBetweenBlocks.result` of each chromosome.
    """
    total = np.asarray(traces).reshape(-1, 4).sum(axis=0)
    factors = []
    for within, whole in (total[:2], total[2:]):
        factors.append(float(np.clip(whole / within, 1.0, largest)) if within > 0 else 1.0)
    return factors[0], factors[1]


@dataclass(frozen=True)
class LdBlock:
    """One block of an LD reference (method 5b).

    Attributes
    ----------
    M : (m, k)
        Inverse factor from panel 2.
    share : (k,)
        Cumulated share of the trace, by column of M.
    R_a, R_b : (m, m)
        Correlation in the two halves of panel 1.
    T : (m, m)
        Block of R_a R_b over every variant of the chromosome, symmetrised.
    t_1_ratio : (k,), optional
        What diag(M'RM) gains, as a share, when all of panel 1 is standardised as one instead of
        half by half (:func:`trace_in_study`).
    """

    M: np.ndarray
    share: np.ndarray
    R_a: np.ndarray
    R_b: np.ndarray
    T: np.ndarray
    t_1_ratio: np.ndarray | None = None


def trace_in_study(
    diagonal: np.ndarray,
    t_1_ratio: np.ndarray | None,
    n_1: int,
    n: float | None,
    whole: np.ndarray | None = None,
    share: float = 1.0,
) -> np.ndarray:
    """Return diag(M'RM) as genotypes that n people standardise have it, (k,).

    A correlation in n people is too small by ρ(1 - ρ²)/2n on average, and Ω, near R⁻¹, sums such
    terms up: t₁ is linear in 1/n. Halves of n₁/2 people and all n₁ give the line.

    Parameters
    ----------
    diagonal : (k,)
        In the mean of the halves.
    t_1_ratio : (k,), optional
        Of :class:`LdBlock`; without it, or without n, the diagonal is returned as it is.
    n_1 : int
        People of panel 1.
    n : float, optional
        People of the study.
    whole : (k,), optional
        ``diagonal`` over every variant of the block, which the ratio is of, where some are missing.
    share : float
        :func:`share_off_diagonal` of those that are there.
    """
    if t_1_ratio is None or n is None:
        return diagonal
    gain = t_1_ratio.astype(np.float64) * (diagonal if whole is None else whole)
    return diagonal + share * (2 - n_1 / n) * gain


def share_off_diagonal(part: np.ndarray, whole: np.ndarray) -> float:
    """Return what some variants of a block keep of diag(M'RM) beside the diagonal of R.

    That diagonal is 1 however many people standardise, so that only the rest changes with them.
    The share is by least squares over the columns of M: in a single column, and in their sum,
    the rest can be near 0.

    Parameters
    ----------
    part, whole : (k,)
        diag(M'RM) less diag(M' diag(R) M), over the variants that are there and over all.
    """
    square = float(whole @ whole)
    return float(part @ whole) / square if square > 0 else 0.0


def make_block(
    G_a: np.ndarray,
    G_b: np.ndarray,
    G_2: np.ndarray,
    K: np.ndarray,
    share: float,
    G_1: np.ndarray | None = None,
) -> LdBlock:
    """Return one block from standardised genotypes (method 5b).

    Parameters
    ----------
    G_a, G_b, G_2 : (m, n_a), (m, n_b), (m, n_2)
        Standardised rows in the halves of panel 1 and in panel 2.
    K : (n_a, n_b)
        G_a' G_b over every variant of the chromosome.
    share : float
        Share of the trace that M keeps.
    G_1 : (m, n_a + n_b), optional
        Rows of all of panel 1 standardised as one; without them there is no ``t_1_ratio``.
    """
    n_a, n_b = K.shape
    M, cumulated = inverse_factor(G_2, share)
    T = (G_a @ (K.astype(np.float32) / np.float32(n_a))) @ (G_b.T / np.float32(n_b))
    T = (T + T.T) / 2
    R_a = (G_a @ G_a.T) / np.float32(n_a)
    R_b = (G_b @ G_b.T) / np.float32(n_b)
    assert M.shape[0] == R_a.shape[0] == T.shape[0]
    ratio = None
    if G_1 is not None:
        halves = sum(np.square(G.T.astype(np.float64) @ M).sum(axis=0) for G in (G_a, G_b))
        whole = np.square(G_1.T.astype(np.float64) @ M).sum(axis=0)
        ratio = (whole / halves - 1).astype(np.float32)
    return LdBlock(M.astype(np.float32), cumulated.astype(np.float32), R_a, R_b, T, ratio)


def pack_lower(matrix: np.ndarray) -> np.ndarray:
    """Return the lower triangle of a symmetric matrix, row by row, diagonal included.

    Examples
    --------
    >>> pack_lower(np.array([[1, 2], [2, 3]])).tolist()
    [1, 2, 3]
    """
    return matrix[np.tri(len(matrix), dtype=bool)]


def unpack_lower(packed: np.ndarray, size: int, out: np.ndarray | None = None) -> np.ndarray:
    """Return the symmetric matrix (size, size) of a packed lower triangle, in ``out`` if given.

    Examples
    --------
    >>> unpack_lower(np.array([1, 2, 3]), 2).tolist()
    [[1, 2], [2, 3]]
    """
    matrix = np.empty((size, size), dtype=packed.dtype) if out is None else out
    at = 0
    for i in range(size):
        matrix[i, : i + 1] = packed[at : at + i + 1]
        at += i + 1
    # By squares, which are small enough to be turned in the processor's cache.
    for first in range(0, size, 64):
        stop = min(first + 64, size)
        square = matrix[first:stop, first:stop]
        np.copyto(square, square.T.copy(), where=_ABOVE[: stop - first, : stop - first])
        matrix[first:stop, stop:] = matrix[stop:, first:stop].T
    return matrix


def triangle_rows(packed: np.ndarray, size: int, rows: np.ndarray) -> np.ndarray:
    """Return some rows (len(rows), size) of the matrix of a packed lower triangle."""
    low = np.minimum(rows[:, None], np.arange(size))
    high = np.maximum(rows[:, None], np.arange(size))
    return packed[high * (high + 1) // 2 + low]
