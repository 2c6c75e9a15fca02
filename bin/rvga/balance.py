"""Weights of the bands that count the effects of all classes of variants alike; arrays only.

Ω = M C M' with one weight c for each band of each block. Weights of 1 come nearest the inverse of
R and lean on nothing, but give the smallest eigenvalues, which hold little but noise, as much to
say as the largest; those of a regression over the bands are precise, but count the effects of
variants in strong LD more than others. Between the two are weights of least predicted variance
for which every class of variants by LD score counts nearly alike (method 5d).
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from rvga import bands

# h² that the predicted variance is of, and the one that bias is reckoned at.
HERITABILITY = 0.2
LARGE_HERITABILITY = 0.4
# Share of the variants that a class has at least; smaller ones join the next.
LEAST_CLASS = 0.05


def merged_classes(size: np.ndarray, least: float = LEAST_CLASS) -> np.ndarray:
    """Return the merged class of each class, (C,), each with a least share of all variants.

    Parameters
    ----------
    size : (C,)
        Variants of each class, in the order of their LD scores.
    least : float

    Examples
    --------
    >>> merged_classes(np.array([1, 40, 50, 0, 9, 0])).tolist()
    [0, 0, 1, 2, 2, 2]
    """
    merged, at, collected = np.zeros(len(size), dtype=np.int64), 0, 0.0
    floor = least * np.sum(size)
    for i, number in enumerate(size):
        merged[i] = at
        collected += number
        if collected >= floor and np.sum(size[i + 1 :]) >= floor:
            at, collected = at + 1, 0.0
    return merged


def class_traces(
    class_trace: np.ndarray, t_2: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return t₂ of each column by merged class of the variant with the effect, and class sizes.

    A reference holds by class what lies within blocks. The rest of t₂, from variants of other
    blocks of the chromosome, is split by the classes' sizes.

    Parameters
    ----------
    class_trace : (y, C)
        As in :class:`rvga.ld_products.BlockProducts`.
    t_2 : (y,)
    size : (C,)
        Variants of each class.

    Returns
    -------
    traces : (y, D)
        Rows sum to ``t_2``.
    merged_size : (D,)
    """
    merged = merged_classes(size)
    within = np.zeros((len(t_2), merged.max() + 1))
    np.add.at(within.T, merged, class_trace.T)
    sizes = np.bincount(merged, weights=size)
    outside = t_2 - within.sum(axis=1)
    return within + np.outer(outside, sizes / sizes.sum()), sizes


def equations(share: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the band of a block that each column of M belongs to, numbered over all blocks, (y,).

    It is -1 for columns beyond the last band, of a reference with a larger share.

    Parameters
    ----------
    share : (y,)
        Cumulated share of the trace of each block's columns, block after block.
    start : (b + 1,) int
        First column of each block, then their number.
    """
    number = len(bands.EDGES)
    out = np.full(len(share), -1, dtype=np.int64)
    for i, (first, stop) in enumerate(pairwise(start)):
        band = bands.band_of(share[first:stop])
        out[first:stop] = np.where(band < 0, -1, i * number + band)
    return out


def precise_weights(
    equation: np.ndarray,
    t_1: np.ndarray,
    t_2: np.ndarray,
    m: float,
    n: float,
    heritability: float = HERITABILITY,
) -> np.ndarray:
    """Return the weights of least predicted variance, (y,): those of a band regression (5c).

    They count the effects of variants in strong LD more, which cancels in correlations.
    Arguments and result are as of :func:`balanced_weights`, ``m`` the number of variants.
    """
    x = _by_equation(equation, t_1, t_2, t_2[:, None], m, n, heritability)
    weight = np.divide(x.mean[:, 0], x.v, out=np.zeros_like(x.v), where=x.v > 0)
    return _by_column(weight, equation, t_2)


def balanced_weights(
    equation: np.ndarray,
    t_1: np.ndarray,
    t_2: np.ndarray,
    traces: np.ndarray,
    size: np.ndarray,
    n: float,
    heritability: float = HERITABILITY,
    large: float = LARGE_HERITABILITY,
) -> np.ndarray:
    """Return the weight of each column of M, (y,), equal within equations, Σ c t₂ = Σ t₂.

    With d_c the mean weight that Ω gives to the effects of class c, relative to all, and v the
    variance of a column's û'Ωû, c minimises Σ c² v + h⁴ Σ_c w_c (d_c - 1)²: the variance of h² and
    its squared bias if all effects were in one class, the mean over classes of share w_c.
    c is sought among Σ_c μ_c x_c/v, x_c the class's part of t₂, of which the solution without
    noise in the traces is one; means over an equation keep that noise out of the weights.

    Parameters
    ----------
    equation : (y,) int
        Band of a block that each column belongs to, from 0; columns of -1 have no weight.
    t_1, t_2 : (y,)
    traces, size : (y, D), (D,)
        As of :func:`class_traces`.
    n : float
        People of the study.
    heritability, large : float
        h² in v, and in the bias.

    Raises
    ------
    ValueError
        The traces are not positive: the reference is too small or too noisy.
    """
    m = float(size.sum())
    x = _by_equation(equation, t_1, t_2, traces, m, n, heritability)
    v = x.v[:, None]
    basis = np.divide(x.mean, v, out=np.zeros_like(x.mean), where=v > 0)
    total = x.sum.sum(axis=1) @ basis / m
    basis = basis[:, total > 0] / total[total > 0]
    if basis.shape[1] == 0:
        raise ValueError("no class of variants has a positive trace of Omega R^2")
    target = large * np.sqrt(size / m)
    bias = target[:, None] * ((x.sum.T @ basis) / size[:, None])
    quadratic = (basis * (x.number * x.v)[:, None]).T @ basis + bias.T @ bias
    ones = np.ones((1, basis.shape[1]))
    system = np.block([[quadratic, ones.T], [ones, np.zeros((1, 1))]])
    right = np.concatenate([bias.T @ target, [1.0]])
    mu = np.linalg.lstsq(system, right, rcond=None)[0][:-1]
    return _by_column(basis @ mu, equation, t_2)


class _Equations(NamedTuple):
    """Columns, v of a column, and other traces' sums and means (not below 0), by equation."""

    number: np.ndarray
    v: np.ndarray
    sum: np.ndarray
    mean: np.ndarray


def _by_equation(
    equation: np.ndarray,
    t_1: np.ndarray,
    t_2: np.ndarray,
    traces: np.ndarray,
    m: float,
    n: float,
    heritability: float,
) -> _Equations:
    inside = equation >= 0
    of = equation[inside]
    number = np.bincount(of).astype(np.float64)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(of, values[inside], minlength=len(number))

    each = np.maximum(number, 1.0)
    one, two = (np.maximum(total(t) / each, 0.0) for t in (t_1, t_2))
    sums = np.stack([total(values) for values in traces.T], axis=1)
    v = 2 * (one / n + heritability * two / m) ** 2
    return _Equations(number, v, sums, np.maximum(sums / each[:, None], 0.0))


def _by_column(weight: np.ndarray, equation: np.ndarray, t_2: np.ndarray) -> np.ndarray:
    """Return the weights of equations by column, with Σ c t₂ = Σ t₂."""
    found = np.where(equation >= 0, weight[np.maximum(equation, 0)], 0.0)
    total = float(found @ t_2)
    if not total > 0:
        raise ValueError(f"trace of Omega R^2 is {total:g}, not positive")
    return found * (t_2.sum() / total)
