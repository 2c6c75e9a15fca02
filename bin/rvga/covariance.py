"""Products with the covariance matrix of smoothed images, without smoothing them (method 1).

Smoothing is linear: with Y = (X - 1 m') W', a product Y'YV is W (X - 1 m')'(X - 1 m') (W'V).
The sparse weights meet thin matrices only, and the raw images are read once a product. Images
come in blocks of rows; sums run over tiles of fixed size in fixed order, so that nothing depends
on the number of threads. Products within a tile are in single precision where that is asked for;
sums over tiles and blocks are in double always. Where the processor has matrix tiles, products
that need not be exact to rounding are of whole numbers instead (:mod:`rvga.digit_products`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from scipy import sparse

from rvga import digit_products, tile_products
from rvga.parallel import read_ahead

_TILE = 2048
_WEIGHT_PARTS = 16
_IMAGES_AT_ONCE = 32

Blocks = Callable[[], Iterable[np.ndarray]]


class SmoothedCovariance:
    """The covariance matrix C = Y'Y/n (N, N) of smoothed, centred images, as an operator.

    Parameters
    ----------
    blocks : callable
        Returns an iterator over the raw images in blocks (n_b, N), without missing values.
    mean : (N,)
        Their mean.
    n : int
        How many they are.
    weights : sparse (N, N) or None
        Smoothing weights W; None is no smoothing.
    workers : int
        Threads.
    """

    def __init__(
        self,
        blocks: Blocks,
        mean: np.ndarray,
        n: int,
        weights: sparse.csr_array | None,
        *,
        workers: int = 1,
    ):
        self._blocks, self._mean, self._n, self._workers = blocks, mean, n, workers
        self._weights = weights
        self._transposed = None if weights is None else sparse.csr_array(weights.T)
        # Of the images' digits, found by the first product that has them.
        self._units = np.zeros(n)
        N = len(mean)
        self._tiles = [slice(first, min(first + _TILE, N)) for first in range(0, N, _TILE)]

    def product(self, vectors: np.ndarray, dtype: type = np.float64) -> np.ndarray:
        """Return ``C V`` (N, k) in double; one pass over the images.

        With single precision as ``dtype``, images less their mean and products within a tile of
        voxels are rounded to it.
        """
        with ThreadPoolExecutor(self._workers) as pool:
            right = _multiply(pool, self._transposed, vectors).astype(dtype, copy=False)
            mean = self._mean.astype(dtype)
            total = np.zeros(right.shape)
            held = np.empty((len(self._tiles), 0, _TILE), dtype)
            for block in read_ahead(self._blocks(), 1):
                if len(block) > held.shape[1]:
                    held = np.empty((len(self._tiles), len(block), _TILE), dtype)

                # Each tile is centred into a place of its own that stays in cache for its product.
                def centred(number: int, block=block, held=held) -> np.ndarray:
                    tile = self._tiles[number]
                    return held[number, : len(block), : tile.stop - tile.start]

                def scored(number: int, block=block, centred=centred) -> np.ndarray:
                    tile, place = self._tiles[number], centred(number)
                    np.subtract(block[:, tile], mean[tile], out=place, dtype=dtype)
                    return place @ right[tile]

                scores = np.zeros((len(block), right.shape[1]))
                for part in pool.map(scored, range(len(self._tiles))):
                    scores += part
                scores = scores.astype(dtype, copy=False)

                def add(number: int, scores=scores, centred=centred) -> None:
                    total[self._tiles[number]] += centred(number).T @ scores

                list(pool.map(add, range(len(self._tiles))))
            return _multiply(pool, self._weights, total) / self._n

    def rough_product(self, vectors: np.ndarray) -> np.ndarray:
        """Return ``C V`` (N, k) with about the error of single precision, the fastest way."""
        if tile_products.available():
            return self._digit_product(vectors, digit_products.ROUGH)
        return self.product(vectors, np.float32)

    def close_product(self, vectors: np.ndarray) -> np.ndarray:
        """Return ``C V`` (N, k) to about 1e-9 of its size or better, the fastest way."""
        if tile_products.available():
            return self._digit_product(vectors, digit_products.CLOSE)
        return self.product(vectors)

    def _digit_product(self, vectors: np.ndarray, digits: tuple[int, int]) -> np.ndarray:
        with ThreadPoolExecutor(self._workers) as pool:
            right = _multiply(pool, self._transposed, vectors)
            product = None
            for block in read_ahead(self._blocks(), 1):
                product = product or digit_products.DigitCovariance(
                    right, self._mean, self._units, digits, len(block), pool, self._workers
                )
                product.add(block)
            return _multiply(pool, self._weights, product.total()) / self._n

    def trace(self) -> float:
        """Return tr(C), the variance of the smoothed images summed over voxels; one pass."""
        weights = None if self._weights is None else self._weights.astype(np.float32)
        total = 0.0

        def squares(rows: np.ndarray) -> float:
            rows = (rows - self._mean).astype(np.float32)
            if weights is None:
                return float(np.einsum("nv,nv->", rows, rows, dtype=np.float64))
            smoothed = weights @ np.ascontiguousarray(rows.T)
            return float(np.einsum("vn,vn->", smoothed, smoothed, dtype=np.float64))

        with ThreadPoolExecutor(self._workers) as pool:
            for block in read_ahead(self._blocks(), 1):
                starts = range(0, len(block), _IMAGES_AT_ONCE)
                pieces = [block[first : first + _IMAGES_AT_ONCE] for first in starts]
                for part in pool.map(squares, pieces):
                    total += part
        return total / self._n

    def matrix(self) -> np.ndarray:
        """Return C (N, N) itself, in double; one pass, for few voxels."""
        N = len(self._mean)
        total = np.zeros((N, N))
        pairs = [(a, b) for a in self._tiles for b in self._tiles if b.start <= a.start]
        with ThreadPoolExecutor(self._workers) as pool:
            for block in read_ahead(self._blocks(), 1):
                centred = block - self._mean

                def add(pair, centred=centred) -> None:
                    a, b = pair
                    total[a, b] += centred[:, a].T @ centred[:, b]

                list(pool.map(add, pairs))
            for a, b in pairs:
                total[b, a] = total[a, b].T
            if self._weights is not None:
                half = _multiply(pool, self._weights, total)
                total = _multiply(pool, self._weights, np.ascontiguousarray(half.T))
        return 0.5 * (total + total.T) / self._n


def _multiply(
    pool: ThreadPoolExecutor, weights: sparse.csr_array | None, dense: np.ndarray
) -> np.ndarray:
    """Return ``weights @ dense`` by parts of rows; None is the identity."""
    if weights is None:
        return dense
    bounds = np.linspace(0, weights.shape[0], _WEIGHT_PARTS + 1).astype(int)
    parts = [weights[a:b] for a, b in pairwise(bounds) if b > a]
    return np.vstack(list(pool.map(lambda part: part @ dense, parts)))
