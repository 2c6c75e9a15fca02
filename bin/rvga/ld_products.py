"""Products of a block's inverse factor and correlations, for any of its variants (method 5b).

They do not depend on a study except through the variants that it has: an LD reference holds them
for all variants of a block, and for a part of them they are brought down exactly.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from rvga import bands
from rvga.ld import LdBlock, share_off_diagonal, triangle_rows, unpack_lower

# Rows of a strip of a packed symmetric matrix.
STRIP = 64
# Classes of variants by their LD score within the block.
CLASS_EDGES = (1.5, 2.5, 4.0, 6.0, 9.0, 13.0, 20.0, 30.0, 50.0, 80.0, 120.0)
N_CLASSES = len(CLASS_EDGES) + 1
N_BANDS = len(bands.EDGES)


def class_of(ld_score: np.ndarray) -> np.ndarray:
    """Return the class of each variant by its LD score within the block, from 0."""
    return np.searchsorted(CLASS_EDGES, ld_score, side="right")


def packed_size(k: np.ndarray | int) -> np.ndarray:
    """Return how many numbers :func:`pack_strips` makes of (k, k); for whole arrays of k."""
    k = np.asarray(k, dtype=np.int64)
    whole, rest = k // STRIP, k % STRIP
    return STRIP * (whole * k - STRIP * (whole * (whole - 1) // 2)) + rest * rest


def strips(packed: np.ndarray, k: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (first row, one past the last, rows from the diagonal's square on) of a packed matrix.

    The strips are views. Their sum and its transpose are the matrix.
    """
    at = 0
    for first in range(0, k, STRIP):
        stop = min(first + STRIP, k)
        size = (stop - first) * (k - first)
        yield first, stop, packed[at : at + size].reshape(stop - first, k - first)
        at += size


def pack_strips(matrix: np.ndarray) -> np.ndarray:
    """Return a symmetric matrix (k, k) as strips of 64 rows, one after another, (packed_size,).

    A strip begins with the square on the diagonal, which is halved, so that the matrix is the sum
    of the strips and their transpose, and products with it need no unpacking.
    """
    k = len(matrix)
    packed = np.empty(int(packed_size(k)), dtype=matrix.dtype)
    for first, stop, strip in strips(packed, k):
        strip[...] = matrix[first:stop, first:]
        strip[:, : stop - first] *= 0.5
    return packed


def unpack_strips(packed: np.ndarray, k: int) -> np.ndarray:
    """Return the symmetric matrix (k, k) of :func:`pack_strips`."""
    matrix = np.zeros((k, k), dtype=packed.dtype)
    for first, stop, strip in strips(packed, k):
        matrix[first:stop, first:] = strip
    return matrix + matrix.T


def packed_diagonal(packed: np.ndarray, k: int) -> np.ndarray:
    """Return the diagonal (k,) of a packed matrix."""
    parts = [2 * np.diagonal(strip) for _, _, strip in strips(packed, k)]
    return np.concatenate(parts) if parts else np.zeros(0)


def quadratic_form(packed: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return q' H q, (c, c), of a packed H (k, k) and q (k, c)."""
    half = np.empty(q.shape)
    for first, stop, strip in strips(packed, len(q)):
        np.matmul(strip, q[first:], out=half[first:stop])
    product = q.T @ half
    return product + product.T


@dataclass(frozen=True)
class BlockProducts:
    """Products of M (m, k) with the correlations of a block, over all or some of its variants.

    D is 1 for a variant that is there, else 0.

    Attributes
    ----------
    H : (packed_size,) float64
        M'D R₁ D M in all of panel 1, by :func:`pack_strips`.
    difference : (packed_size,) float64 or None
        M'D (R_a - R_b) D M, likewise; None where it was not asked for.
    t_1, t_2 : (k,) float64
        Diagonals of M'D R₁ D M and M'D T D M.
    t_4 : float or None
        tr(H_a H_b) of the halves; None where :meth:`halves_trace` has to find it.
    band_t_4 : (N_BANDS, N_BANDS) float64 or None
        Sums of H_a[k, l] H_b[k, l] over pairs of bands of columns; None as ``t_4``.
    class_trace : (k, N_CLASSES) float64 or None
        Σ_j (R_a D M)_jk (R_b D M)_jk over the variants j of each class, there or not, by column:
        how much Ω weighs the effects of each class.
    kept_share : float
        :func:`rvga.ld.share_off_diagonal` of the variants that are there.
    """

    H: np.ndarray
    difference: np.ndarray | None
    t_1: np.ndarray
    t_2: np.ndarray
    t_4: float | None
    band_t_4: np.ndarray | None
    class_trace: np.ndarray | None
    kept_share: float = 1.0

    def halves_trace(
        self, share_a: float, weight: np.ndarray | None = None, band: np.ndarray | None = None
    ) -> float:
        """Return tr(C H_a C H_b), C = diag(weight), the identity without.

        Parameters
        ----------
        share_a : float
            Half a's share of the people of panel 1.
        weight : (k,), optional
        band : (k,), optional
            :func:`rvga.bands.band_of` the columns. Where ``difference`` was not read the weights
            are the same throughout each band, and 0 beyond the last.

        Raises
        ------
        ValueError
            ``difference`` is needed and was not read.
        """
        if weight is None and self.t_4 is not None:
            return self.t_4
        if self.difference is None:
            return self._of_bands(weight, band)
        c = np.ones((len(self.t_1), 1)) if weight is None else weight[:, None]
        return float(self._sums(share_a, c)[0, 0])

    def _of_bands(self, weight: np.ndarray, band: np.ndarray | None) -> float:
        c = np.zeros(N_BANDS + 1)
        if band is not None:
            c[band] = weight
            # The last is of columns beyond the last band.
            if c[-1] == 0 and np.array_equal(c[band], weight):
                return float(c[:-1] @ self.band_t_4 @ c[:-1])
        raise ValueError("weights that differ within a band need the difference of the halves")

    def _sums(self, share_a: float, weight: np.ndarray) -> np.ndarray:
        """Return W' (H_a ∘ H_b) W, (c, c), of weights (k, c)."""
        k = len(weight)
        half = np.empty(weight.shape)
        both = zip(strips(self.H, k), strips(self.difference, k), strict=True)
        for (first, stop, H), (_, _, F) in both:
            product = (H + (1 - share_a) * F) * (H - share_a * F)
            # The diagonal's square was halved in both, and is to be halved once.
            product[:, : stop - first] *= 2
            half[first:stop] = product @ weight[first:]
        total = weight.T @ half
        return total + total.T

    def with_traces(self, share_a: float, band: np.ndarray) -> BlockProducts:
        """Return the same with ``t_4`` and ``band_t_4``."""
        weight = np.column_stack([np.ones(len(band)), band[:, None] == np.arange(N_BANDS)])
        sums = self._sums(share_a, weight)
        return replace(self, t_4=float(sums[0, 0]), band_t_4=sums[1:, 1:])


def block_products(block: LdBlock, n_a: int, n_b: int) -> tuple[BlockProducts, np.ndarray]:
    """Return the products over all variants of a block, and their LD scores (m,).

    The LD score is the sum of the two halves' products of correlations within the block.
    """
    M = block.M.astype(np.float64)
    share_a = n_a / (n_a + n_b)
    RM_a = block.R_a.astype(np.float64) @ M
    RM_b = block.R_b.astype(np.float64) @ M
    H_a, H_b = M.T @ RM_a, M.T @ RM_b
    H_1, difference = share_a * H_a + (1 - share_a) * H_b, H_a - H_b
    ld_score = np.einsum("ij,ij->i", block.R_a, block.R_b, dtype=np.float64)
    RM_a *= RM_b
    packed = BlockProducts(
        pack_strips(H_1),
        pack_strips(difference),
        np.diag(H_1).copy(),
        np.einsum("ik,ik->k", block.T.astype(np.float64) @ M, M),
        None,
        None,
        _by_class(RM_a, class_of(ld_score)),
    )
    return packed.with_traces(share_a, bands.band_of(block.share)), ld_score


def _by_class(values: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return the sums of rows (m, k) by class, (k, N_CLASSES)."""
    out = np.zeros((values.shape[1], N_CLASSES))
    for c in np.unique(label):
        out[:, c] = values[label == c].sum(axis=0)
    return out


def products_of_part(
    whole: BlockProducts,
    M: np.ndarray,
    triangles: tuple[np.ndarray, np.ndarray, np.ndarray],
    kept: np.ndarray,
    ld_score: np.ndarray,
    n_a: int,
    n_b: int,
) -> BlockProducts:
    """Return the products over some variants of a block (method 5b, D M in place of M).

    Where fewer are missing than there, their rows of R and T are taken off those of all variants:
    with E the missing, M'DRDM = H - M_E'W - W'M_E, W = R_E M - R_EE M_E / 2. Otherwise the rows
    of the others are put together.

    Parameters
    ----------
    whole : BlockProducts
        Over all variants, with ``difference``.
    M : (m, k) float64
    triangles : three of (m (m + 1) / 2,)
        R_a, R_b and T as packed lower triangles.
    kept : (m,) bool
    ld_score : (m,)
        Of all variants, which the classes are by.
    n_a, n_b : int
    """
    m, k = M.shape
    share_a = n_a / (n_a + n_b)
    there, gone = np.flatnonzero(kept), np.flatnonzero(~kept)
    if len(there) == 0:
        zero = np.zeros(len(whole.H))
        none = np.zeros(k)
        return BlockProducts(zero, zero, none, none, None, None, np.zeros((k, N_CLASSES)), 0.0)
    few = gone if len(gone) <= len(there) else there
    R_a, R_b, T = (triangle_rows(one, m, few).astype(np.float64) for one in triangles)
    rows = np.concatenate([share_a * R_a + (1 - share_a) * R_b, R_a - R_b, T])
    M_few, own = M[few], rows[:, few]
    if few is there:
        products = np.split(own @ M_few, 3)
        H_1, difference = (M_few.T @ one for one in products[:2])
        H, F = pack_strips(H_1), pack_strips(difference)
        t_1, t_2 = np.diag(H_1).copy(), np.einsum("ek,ek->k", M_few, products[2])
    else:
        products = np.split(rows @ M - 0.5 * (own @ M_few), 3)
        H, F = (
            _less(stored, M_few.T @ one)
            for stored, one in zip((whole.H, whole.difference), products, strict=False)
        )
        t_1, t_2 = (
            stored - 2 * np.einsum("ek,ek->k", M_few, one)
            for stored, one in zip((whole.t_1, whole.t_2), products[::2], strict=True)
        )
    # What R's own diagonal adds, over all variants and over those that are there.
    place = np.cumsum(np.arange(1, m + 1)) - 1
    ones = share_a * triangles[0][place].astype(np.float64)
    ones += (1 - share_a) * triangles[1][place]
    square = M * M
    share = share_off_diagonal(t_1 - ones[there] @ square[there], whole.t_1 - ones @ square)
    by_class = _class_trace(whole, M, triangles, kept, ld_score)
    return BlockProducts(H, F, t_1, t_2, None, None, by_class, share)


def _less(packed: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Return the packed matrix less ``half`` + its transpose."""
    k, out = len(half), packed.copy()
    for first, stop, strip in strips(out, k):
        strip -= half[first:stop, first:]
        strip[:, stop - first :] -= half[stop:, first:stop].T
        square = half[first:stop, first:stop]
        strip[:, : stop - first] += 0.5 * (square - square.T)
    return out


_memory = threading.local()


def _two_matrices(m: int) -> np.ndarray:
    """Return memory (2, m, m) that this thread has for itself until it asks again."""
    held = getattr(_memory, "held", None)
    if held is None or len(held) < 2 * m * m:
        held = _memory.held = np.empty(2 * m * m)
    return held[: 2 * m * m].reshape(2, m, m)


def _class_trace(
    whole: BlockProducts,
    M: np.ndarray,
    triangles: tuple[np.ndarray, ...],
    kept: np.ndarray,
    ld_score: np.ndarray,
) -> np.ndarray:
    """Return ``class_trace`` of some variants: brought down, or from R D M where that is less."""
    m, k = M.shape
    label = class_of(ld_score)
    there, gone = np.flatnonzero(kept), np.flatnonzero(~kept)
    # Fresh memory of this size costs more time than to fill it.
    R_a, R_b = (
        unpack_lower(one, m, memory)
        for one, memory in zip(triangles, _two_matrices(m), strict=False)
    )
    classes = np.unique(label)
    if len(gone) * (4 * m + 2 * len(classes) * k) > 4 * len(there) * k:
        RM = R_a[:, there] @ M[there]
        RM *= R_b[:, there] @ M[there]
        return _by_class(RM, label)
    # It is the diagonal of M'D S D M with S = R_a 1_c R_b, of which symmetric rows are needed.
    out, M_E = whole.class_trace.copy(), M[gone]
    of_a, of_b = R_a[gone], R_b[gone]
    rows = np.empty((len(classes), len(gone), m))
    for place, c in enumerate(classes):
        at = np.flatnonzero(label == c)
        np.matmul(of_a[:, at], R_b[at], out=rows[place])
        rows[place] += of_b[:, at] @ R_a[at]
    flat = rows.reshape(-1, m)
    rest = flat @ M - 0.5 * (flat[:, gone] @ M_E)
    out[:, classes] -= np.einsum("ek,cek->kc", M_E, rest.reshape(len(classes), -1, k))
    return out


@dataclass(frozen=True)
class SeenBlock:
    """One block seen by a study: its scores through M, and the products over its variants.

    Attributes
    ----------
    q : (k, c)
        M'Dû.
    products : BlockProducts
    t_1 : (k,)
        Diagonal of M'D R D M in a study of n people (:func:`rvga.ld.trace_in_study`).
    share_a : float
        Half a's share of the people of panel 1.
    band : (k,) int
        :func:`rvga.bands.band_of` the columns.
    """

    q: np.ndarray
    products: BlockProducts
    t_1: np.ndarray
    share_a: float
    band: np.ndarray

    @property
    def t_2(self) -> np.ndarray:
        """Diagonal of M'D T D M, (k,)."""
        return self.products.t_2

    def quartic(self, cq: np.ndarray) -> np.ndarray:
        """Return cq' H₁ cq, (c, c)."""
        return quadratic_form(self.products.H, cq)

    def halves_trace(self, weight: np.ndarray | None = None) -> float:
        """Return :meth:`BlockProducts.halves_trace`."""
        return self.products.halves_trace(self.share_a, weight, self.band)


def project_scores(M: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return M'û, (k, c), of M (m, k) and scores (m, c), in rows."""
    return np.ascontiguousarray((scores.T @ M).T)
