"""Projection of images on bases, and of representations off covariates (method 1 and 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rvga.errors import InputError

_CONSTANT_TOLERANCE = 1e-13
_REDUNDANT_TOLERANCE = 1e-7
_OUTLIER_LEVEL = 0.05
_SUBJECTS_PER_COMPONENT = 10
_CONCENTRATIONS = 10
_TILE_ROWS = 128
_TILE_MULTIPLE = 16
_TILE_VALUES = 1 << 24
# A tile in double of so many voxels stays in a processor's cache.
_VOXELS_AT_ONCE = 2048


@dataclass(frozen=True)
class Scores:
    """Raw images projected on bases, and what the quality of their reconstruction needs.

    Attributes
    ----------
    ldrs : (n, r)
        ``S = X B``.
    image_sum, image_sum_of_squares : (n,)
        Sum over voxels of each raw image and of its squares.
    image_times_mean : (n,)
        Product of each raw image with the mean image, summed over voxels.
    """

    ldrs: np.ndarray
    image_sum: np.ndarray
    image_sum_of_squares: np.ndarray
    image_times_mean: np.ndarray

    def centred(self) -> Scores:
        """Return the scores of the images less their mean image, whose own scores are the mean."""
        squares_of_mean = self.image_times_mean.mean()
        return Scores(
            ldrs=self.ldrs - self.ldrs.mean(axis=0),
            image_sum=self.image_sum - self.image_sum.mean(),
            image_sum_of_squares=self.image_sum_of_squares
            - 2.0 * self.image_times_mean
            + squares_of_mean,
            image_times_mean=self.image_times_mean - squares_of_mean,
        )


def tile_rows(N: int) -> int:
    """Return how many images of N voxels are projected at a time; it depends on N alone."""
    fitting = _TILE_VALUES // N // _TILE_MULTIPLE * _TILE_MULTIPLE
    return min(_TILE_ROWS, max(_TILE_MULTIPLE, fitting))


class Projection:
    """Projection of raw images on bases, by which no image bears on the numbers of another.

    Libraries of linear algebra do the rows and columns at the edges of a product in another
    order of operations, so products are of tiles of one size, filled up with zeros: an image has
    the same scores, bit for bit, whichever images come with it.

    Parameters
    ----------
    bases : (N, r)
        Bases.
    present : (N,) bool
        Voxels that the images have.
    constant : (number absent,)
        The one value that stands for each of the others in everybody.
    mean : (number present,)
        Mean image of those that are projected.

    Attributes
    ----------
    rows : int
        Images a tile, :func:`tile_rows` of the voxels present.
    """

    def __init__(
        self, bases: np.ndarray, present: np.ndarray, constant: np.ndarray, mean: np.ndarray
    ):
        N, self._r = bases.shape
        n_present = int(present.sum())
        width = -(-(self._r + 1) // _TILE_MULTIPLE) * _TILE_MULTIPLE
        # The mean image goes with the bases as one more column.
        self._bases = np.zeros((n_present, width))
        self._bases[:, : self._r] = bases if n_present == N else bases[present]
        self._bases[:, self._r] = mean
        self._ldrs_of_constant = constant @ bases[~present].astype(np.float64)
        self._sum_of_constant = constant.sum()
        self._squares_of_constant = constant @ constant
        self.rows = tile_rows(n_present)

    def scores(self, images: np.ndarray) -> Scores:
        """Return the scores of at most ``rows`` raw images (n, number present), in double."""
        n, N = images.shape
        piece = np.zeros((self.rows, min(N, _VOXELS_AT_ONCE)))
        products = np.zeros((self.rows, self._bases.shape[1]))
        image_sum, squares = np.zeros(n), np.zeros(n)
        for first in range(0, N, _VOXELS_AT_ONCE):
            stop = min(first + _VOXELS_AT_ONCE, N)
            tile = piece[:, : stop - first]
            tile[:n] = images[:, first:stop]
            products += tile @ self._bases[first:stop]
            image_sum += tile[:n].sum(axis=1)
            squares += np.einsum("nv,nv->n", tile[:n], tile[:n])
        products = products[:n]
        return Scores(
            ldrs=products[:, : self._r] + self._ldrs_of_constant,
            image_sum=image_sum + self._sum_of_constant,
            image_sum_of_squares=squares + self._squares_of_constant,
            image_times_mean=products[:, self._r] + self._squares_of_constant,
        )


def quality_numbers(r: int) -> np.ndarray:
    """Return the numbers of components whose reconstruction is assessed: 1, 2, 5, 10, ..., r."""
    numbers = {r}
    decade = 1
    while decade <= r:
        numbers.update(step * decade for step in (1, 2, 5) if step * decade <= r)
        decade *= 10
    return np.array(sorted(numbers), dtype=np.int64)


def reconstruction_correlation(
    ldrs: np.ndarray,
    bases: np.ndarray,
    image_sum: np.ndarray,
    image_sum_of_squares: np.ndarray,
    numbers: Sequence[int],
) -> np.ndarray:
    """Return the correlation over voxels of each raw image with its reconstruction ``S B'``.

    Parameters
    ----------
    ldrs : (n, r)
        ``X B`` of the raw images.
    bases : (N, r)
        Bases; neither they nor the images are centred.
    image_sum, image_sum_of_squares : (n,)
        Sum over voxels of each raw image and of its squares.
    numbers : sequence of int
        Numbers q of leading components.

    Returns
    -------
    (len(numbers), n)
        Correlations; NaN where an image or its reconstruction does not vary.

    Notes
    -----
    With s = B'x, the products that a correlation needs follow from s alone: x'Bs = s's,
    (Bs)'(Bs) = s'(B'B)s and 1'Bs = (B'1)'s.
    """
    N = bases.shape[0]
    BB = bases.T @ bases
    column_sum = bases.sum(axis=0)
    image_variance = image_sum_of_squares - image_sum**2 / N
    result = np.full((len(numbers), len(ldrs)), np.nan)
    for row, q in enumerate(numbers):
        S = ldrs[:, :q]
        fitted_sum = S @ column_sum[:q]
        cross = np.einsum("nr,nr->n", S, S) - image_sum * fitted_sum / N
        squares = np.einsum("nr,nr->n", S @ BB[:q, :q], S)
        fitted_variance = squares - fitted_sum**2 / N
        varies = (image_variance > 1e-12 * image_sum_of_squares) & (
            fitted_variance > 1e-12 * squares
        )
        scale = np.sqrt(image_variance[varies] * fitted_variance[varies])
        result[row, varies] = cross[varies] / scale
    return result


def correlation_by_number(
    ldrs: np.ndarray, column_sum: np.ndarray, image_sum: np.ndarray, squares: np.ndarray, N: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return sums of the correlations of raw image and reconstruction for 1, 2, ..., r components.

    Sums and numbers of several blocks of images add up to those of all.

    Parameters
    ----------
    ldrs : (n, r)
        ``X B`` of the raw images, B orthonormal.
    column_sum : (r,)
        ``1'B``.
    image_sum, squares : (n,)
        Sum over voxels of each raw image and of its squares.
    N : int
        Voxels.

    Returns
    -------
    total : (r,)
        Sums over the images where the correlation is defined.
    defined : (r,) int
        How many images these are: neither the image nor its reconstruction is constant.
    """
    energy = np.cumsum(ldrs**2, axis=1)
    fitted_sum = np.cumsum(ldrs * column_sum, axis=1)
    image_variance = (squares - image_sum**2 / N)[:, None]
    fitted_variance = energy - fitted_sum**2 / N
    varies = (image_variance > 1e-12 * squares[:, None]) & (fitted_variance > 1e-12 * energy)
    cross = energy - image_sum[:, None] * fitted_sum / N
    scale = np.sqrt(np.where(varies, image_variance * fitted_variance, 1.0))
    return np.where(varies, cross / scale, 0.0).sum(axis=0), varies.sum(axis=0)


@dataclass(frozen=True)
class Distances:
    """How far subjects lie from the middle of the representations.

    Attributes
    ----------
    squared : (n,)
        Squared robust Mahalanobis distances, scaled so that their median is that of chi-squared.
    threshold : float
        Beyond it (chi-squared on r degrees of freedom, level 0.05 over all subjects) a subject
        is an outlier.
    """

    squared: np.ndarray
    threshold: float

    @property
    def outlying(self) -> np.ndarray:
        """Rows beyond the threshold, farthest first."""
        rows = np.flatnonzero(self.squared > self.threshold)
        return rows[np.argsort(-self.squared[rows], kind="stable")]


def robust_distances(ldrs: np.ndarray) -> Distances:
    """Return the robust Mahalanobis distances of representations (n, r) from their middle.

    Location and covariance are those of the half of the subjects that lie nearest, found by
    concentration steps from component-wise medians and median absolute deviations, then those
    of all within the 97.5 % point. With fewer than 10 subjects a component the covariance is
    taken as diagonal. Components without any spread do not count.
    """
    # Importing it takes longer than many a batch of images takes to be projected.
    from scipy import special

    n, _ = ldrs.shape
    centre = np.median(ldrs, axis=0)
    spread = 1.4826 * np.median(np.abs(ldrs - centre), axis=0)
    varies = spread > 1e-12 * np.abs(ldrs).max(initial=0.0)
    scores = (ldrs - centre)[:, varies] / spread[varies]
    r = scores.shape[1]
    if r == 0:
        return Distances(np.zeros(n), np.inf)
    middle, inner = 2.0 * special.gammaincinv(r / 2.0, [0.5, 0.975])
    squared = np.einsum("nr,nr->n", scores, scores)
    if n >= _SUBJECTS_PER_COMPONENT * r:
        half = (n + 1) // 2
        for _ in range(_CONCENTRATIONS):
            squared = _mahalanobis(scores, np.argsort(squared, kind="stable")[:half])
        squared *= middle / np.median(squared)
        squared = _mahalanobis(scores, np.flatnonzero(squared <= inner))
    if np.median(squared) > 0.0:
        squared = squared * (middle / np.median(squared))
    return Distances(squared, float(special.chdtri(r, _OUTLIER_LEVEL / n)))


def _mahalanobis(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return squared distances of all rows by the mean and covariance of some."""
    centre = scores[rows].mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(scores[rows].T).reshape(scores.shape[1], -1))
    keep = values > 1e-10 * values[-1]
    turned = (scores - centre) @ (vectors[:, keep] / np.sqrt(values[keep]))
    return np.einsum("nr,nr->n", turned, turned)


@dataclass(frozen=True)
class Factor:
    """Covariates factored once.

    Attributes
    ----------
    Q : (n, p)
        Orthonormal basis of the intercept (first column) and the covariates.
    used, redundant : list of str
        Names of the columns in use, and of those that follow from the ones before them.
    """

    Q: np.ndarray
    used: list[str]
    redundant: list[str]


def factor_covariates(columns: np.ndarray, names: Sequence[str], where: str) -> Factor:
    """Return an orthonormal basis of the intercept and the covariates (method 2: Q).

    Columns are centred and scaled first, so that units do not matter. A column that is a linear
    combination of the ones before it is left out and named.

    Parameters
    ----------
    columns : (n, q)
        Covariates of the sample, without intercept.
    names : sequence of str
        Their names.
    where : str
        Name of the table, for messages.

    Raises
    ------
    InputError
        A column is constant, or too few subjects remain for the covariates.
    """
    columns = np.asarray(columns, dtype=np.float64)
    n, q = columns.shape
    centred = columns - columns.mean(axis=0)
    norms = np.linalg.norm(centred, axis=0)
    largest = np.abs(columns).max(axis=0, initial=0.0)
    for name, norm, size in zip(names, norms, largest, strict=True):
        if norm <= _CONSTANT_TOLERANCE * np.sqrt(n) * size:
            raise InputError(
                f"{where}: covariate '{name}' is constant in the sample of {n} subjects; "
                "leave it out of covariate_columns"
            )
    if n < q + 3:
        raise InputError(
            f"{where}: {n} subjects are too few for {q} covariates and the intercept; at least "
            f"{q + 3} are needed: use fewer covariates or more subjects"
        )
    Q = np.empty((n, q + 1))
    Q[:, 0] = 1.0 / np.sqrt(n)
    p = 1
    used: list[str] = []
    redundant: list[str] = []
    for position, name in enumerate(names):
        column = centred[:, position] / norms[position]
        # Twice, because one pass leaves the rounding of a nearly redundant column.
        column = column - Q[:, :p] @ (Q[:, :p].T @ column)
        length = np.linalg.norm(column)
        if length < _REDUNDANT_TOLERANCE:
            redundant.append(name)
            continue
        column = column / length
        column = column - Q[:, :p] @ (Q[:, :p].T @ column)
        Q[:, p] = column / np.linalg.norm(column)
        p += 1
        used.append(name)
    return Factor(Q=Q[:, :p].copy(), used=used, redundant=redundant)


def residual_cross_product(ldrs: np.ndarray, Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``P S`` (n, r) and ``A = S'PS`` (r, r), with ``P = I - Q Q'`` never formed."""
    # Q holds the intercept, so that centring changes nothing but the rounding.
    centred = ldrs - ldrs.mean(axis=0)
    residual = centred - Q @ (Q.T @ centred)
    residual -= Q @ (Q.T @ residual)
    A = residual.T @ residual
    return residual, 0.5 * (A + A.T)
