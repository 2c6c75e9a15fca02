"""What external component statistics say about a variant (method 2); arrays in, arrays out.

For one variant every component has the same ``a = g'Pg``. A program that reports the residual
variance *with* the variant gives ``a = A_jj / (nu SE² + beta²)``; one that reports it *without*
(a score test) gives ``a = A_jj / ((nu + 1) SE²)``. Where the components disagree, they were not
made with the same people, covariates and LDRs as A.
"""

from __future__ import annotations

import numpy as np

# Relative rounding of 1/a from a standard error of d digits is at most 10^(1 - d).
_ROUNDINGS = 4.0
_LEAST_TOLERANCE = 1e-3
# Standard deviations of chance that a variant's people, fewer than the sample, may differ by.
_DEVIATIONS = 6.0
# What the signs of components are compared by: their correlations in A above this, variants
# without effect, and no fewer of them.
_LEAST_CORRELATION = 0.2
_LARGEST_NULL_Z = 4.0
_LEAST_SIGN_VARIANTS = 1000


def inverse_a(
    beta: np.ndarray, standard_error: np.ndarray, diagonal: np.ndarray, nu: int, score: bool
) -> np.ndarray:
    """Return 1/a as each component has it, (m, r); NaN where it has none.

    Parameters
    ----------
    beta, standard_error : (m, r)
        Effects and standard errors.
    diagonal : (m, r)
        A_jj of the variant's chromosome.
    nu : int
        n - p - 1.
    score : bool
        The standard error's variance is that without the variant.
    """
    positive = standard_error > 0
    squared = np.where(positive, standard_error, np.nan) ** 2
    if score:
        return squared * (nu + 1) / diagonal
    return (squared + beta**2 / nu) * nu / diagonal


def mean_a(inverse: np.ndarray) -> np.ndarray:
    """Return a (m,): the reciprocal of the mean of 1/a over the components; NaN for none."""
    there = np.isfinite(inverse)
    number = there.sum(axis=1)
    total = np.where(there, inverse, 0.0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(number > 0, number / total, np.nan)


def t_statistics(
    beta: np.ndarray,
    standard_error: np.ndarray,
    a: np.ndarray,
    diagonal: np.ndarray,
    nu: int,
    score: bool,
) -> np.ndarray:
    """Return t statistics (m, r) with nu degrees of freedom, as least squares has them.

    A score test's ratio is not one: with rho = beta √(a / A_jj), t = rho √(nu / (1 - rho²)).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if not score:
            return np.where(standard_error > 0, beta / standard_error, np.nan)
        rho = beta * np.sqrt(a[:, None] / diagonal)
        return np.where(np.abs(rho) < 1, rho * np.sqrt(nu / (1.0 - rho**2)), np.nan)


def tolerance(digits: int) -> float:
    """Return how far 1/a of the components may lie apart, relative, for rounding alone.

    Parameters
    ----------
    digits : int
        Significant digits of the standard errors.
    """
    return max(_LEAST_TOLERANCE, _ROUNDINGS * 10.0 ** (1 - digits))


def disagreement(inverse: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Return the largest relative distance of a component's 1/a from the mean, (m,)."""
    distance = np.abs(inverse * a[:, None] - 1.0)
    return np.where(np.isfinite(distance), distance, 0.0).max(axis=1, initial=0.0)


def allowed_disagreement(base: float, n: int, n_variant: np.ndarray) -> np.ndarray:
    """Return the disagreement that is rounding, or people without a genotype, (m,).

    Leaving out k of n people at random changes a sum of squares by √(2k) / n, relative, in each
    component by itself.
    """
    left_out = np.maximum(n - np.where(np.isfinite(n_variant), n_variant, n), 0.0)
    return base + _DEVIATIONS * np.sqrt(2.0 * left_out) / np.maximum(n - left_out, 1.0)


def component_ratios(inverse: np.ndarray) -> np.ndarray:
    """Return, by component, the median over variants of its 1/a over the components' median, (r,).

    It is 1 but for rounding; what it is instead is the ratio of the component's residual
    variance in the other program to the one here.
    """
    usable = inverse[np.isfinite(inverse).any(axis=1)]
    if not len(usable):
        return np.ones(inverse.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = usable / np.nanmedian(usable, axis=1, keepdims=True)
    result = np.ones(inverse.shape[1])
    there = np.isfinite(ratio).any(axis=0)
    result[there] = np.nanmedian(ratio[:, there], axis=0)
    return result


def sign_agreement(z: np.ndarray, A: np.ndarray) -> np.ndarray:
    """Return how the components' z are correlated beside what A says, (r,).

    Over variants without effect corr(z_j, z_k) = A_jk / √(A_jj A_kk). The slope of the first on
    the second over a component's partners k is about 1, and -1 where the component's sign is
    turned. It is NaN where A has no correlation above 0.2 or the variants are too few.

    Parameters
    ----------
    z : (m, r)
        t statistics.
    A : (r, r)
        Residual cross-product.
    """
    scale = np.sqrt(np.diag(A))
    expected = A / np.outer(scale, scale)
    np.fill_diagonal(expected, 0.0)
    expected[np.abs(expected) <= _LEAST_CORRELATION] = 0.0
    weight = (expected**2).sum(axis=1)
    # A missing z is not below the bound either.
    null = z[(np.abs(z) < _LARGEST_NULL_Z).all(axis=1)]
    if len(null) < _LEAST_SIGN_VARIANTS or not weight.any():
        return np.full(len(A), np.nan)
    product = null.T @ null
    size = np.sqrt(np.diag(product))
    found = product / np.outer(size, size)
    with np.errstate(invalid="ignore"):
        return (expected * found).sum(axis=1) / np.where(weight > 0, weight, np.nan)


def frequency_from_a(a: np.ndarray, n: float) -> np.ndarray:
    """Return the minor allele frequency (m,) that a would have: 2 f (1 - f) n = a.

    It supposes Hardy-Weinberg proportions and covariates that explain little of the variant.
    """
    share = np.clip(2.0 * a / n, 0.0, 1.0)
    return (1.0 - np.sqrt(1.0 - share)) / 2.0
