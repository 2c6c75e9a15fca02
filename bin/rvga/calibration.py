"""Inflation of test statistics over the genome; arrays in, arrays out."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

# The median of this many variants is known to under one per cent.
LAMBDA_VARIANTS = 100_000


def lambda_variants(m: int) -> np.ndarray:
    """Return the variants, evenly spread over ``m``, that lambda_GC is found from."""
    return np.unique(np.linspace(0, m - 1, min(m, LAMBDA_VARIANTS)).astype(np.int64))


def lambda_gc(z: np.ndarray, nu: float) -> np.ndarray:
    """Return lambda_GC of every component, (r,): the median of z² over what chance gives.

    Parameters
    ----------
    z : (m, r)
        t statistics; NaN is missing.
    nu : float
        Their degrees of freedom. With t in place of normal deviates a small sample is not taken
        for an inflated one: the expected median is the square of t's third quartile.

    Returns
    -------
    (r,) float64
        NaN where a component has no statistic.
    """
    result = np.full(z.shape[1], np.nan)
    there = np.isfinite(z).any(axis=0)
    result[there] = np.nanmedian(np.square(z[:, there]), axis=0) / stdtrit(nu, 0.75) ** 2
    return result


def lambda_bound(m: int, allowed: float = 1.1, deviations: float = 4.0) -> float:
    """Return the lambda_GC beyond which a component is remarkable.

    The median of m independent χ²₁ has the standard deviation 1 / (2 f √m), f the density at the
    median: 2.33 / √m of the expected one. Linked variants vary more; hence four deviations, and
    a tenth of inflation that polygenic traits reach in samples of some ten thousand.
    """
    return allowed + deviations * 2.33 / np.sqrt(m)
