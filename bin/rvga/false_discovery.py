"""False-discovery rates of many tests; arrays in, arrays out."""

from __future__ import annotations

import numpy as np


def false_discovery_rate(neg_log_10_p: np.ndarray) -> np.ndarray:
    """Return the smallest rate at which each test is rejected (Benjamini and Hochberg 1995).

    Parameters
    ----------
    neg_log_10_p : (k,)
        -log10 p; NaN is no test.

    Returns
    -------
    (k,) float64
        In [0, 1]; NaN where there is no test.
    """
    log_p = -np.asarray(neg_log_10_p, dtype=float)
    rate = np.full(len(log_p), np.nan)
    tested = np.flatnonzero(np.isfinite(log_p))
    order = tested[np.argsort(log_p[tested], kind="stable")]
    number = len(order)
    stepped = log_p[order] + np.log10(number / np.arange(1, number + 1)) if number else log_p[order]
    lowest = np.minimum.accumulate(stepped[::-1])[::-1]
    rate[order] = 10.0 ** np.minimum(lowest, 0.0)
    return rate
