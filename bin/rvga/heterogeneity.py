"""Does heritability differ across the image? A test on Γ̂; arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

from rvga.heritability import Moments

LARGEST_NUMBER = 1000


@dataclass(frozen=True)
class Heterogeneity:
    """Test that h² is the same everywhere.

    Attributes
    ----------
    statistic : float
        Variance of ĥ² over the voxels used.
    expected : float
        Its mean if h² is the same everywhere: the sampling errors alone.
    p_value : float
    n_voxels : int
        Voxels used, evenly spaced.
    """

    statistic: float
    expected: float
    p_value: float
    n_voxels: int


def heterogeneity_test(x: Moments, rows: np.ndarray, number: int = LARGEST_NUMBER) -> Heterogeneity:
    """Test h²_v = h² for all voxels by the variance of ĥ² over them, given the effects.

    With unit-variance directions u_v = Σ^½ b_v / ‖·‖, ĥ²_v = u_v'Eu_v for the whitened
    E = Σ^-½ Γ̂ Σ^-½. If h² is the same everywhere, E = h²I + a symmetric Gaussian matrix whose
    law does not change under rotation, of variance 2τ² on and τ² off the diagonal,
    τ² = scale² (t₄/n² + 2s/n) - h⁴/n (method 5b). Then Cov(ĥ²_u, ĥ²_v) = 2τ² (u_u'u_v)², and the
    variance over voxels is a sum of χ²₁ weighted by the eigenvalues of that matrix after
    centring; its tail comes from a saddlepoint.

    Parameters
    ----------
    x : Moments
        Of the components of one sample.
    rows : (N, c)
        Bases; rows without variance are left out.
    number : int
        Most voxels that are used.

    Raises
    ------
    ValueError
        Fewer than two voxels have variance.
    """
    n = 1.0 / x.inverse_n[0, 0]
    Sigma = x.phenotypic
    variance = np.einsum("vr,vr->v", rows @ Sigma, rows)
    inside = np.flatnonzero(variance > 0)
    if len(inside) < 2:
        raise ValueError(f"{len(inside)} voxels have variance")
    take = inside[np.unique(np.linspace(0, len(inside) - 1, min(number, len(inside))).astype(int))]
    b, variance = rows[take], variance[take]
    h2 = np.einsum("vr,vr->v", b @ x.Gamma, b) / variance
    correlation = (b @ Sigma @ b.T) / np.sqrt(np.outer(variance, variance))
    rank = int(np.linalg.matrix_rank(Sigma))
    pooled = float(np.trace(np.linalg.pinv(Sigma) @ x.Gamma)) / rank
    signal = float(np.trace(np.linalg.pinv(Sigma) @ x.s)) / rank
    # 1/n, or less with offsets, which take off nearly the same share everywhere.
    noise = float(np.trace(np.linalg.pinv(Sigma) @ x.kappa)) / rank
    tau_2 = x.scale**2 * (x.t_4 * noise**2 + 2 * signal * noise) - pooled**2 / n
    tau_2 = max(tau_2, x.scale**2 * x.t_4 * noise**2 * 1e-3)
    C = 2 * tau_2 * correlation**2
    C -= C.mean(axis=0)
    C -= C.mean(axis=1, keepdims=True)
    weights = np.linalg.eigvalsh((C + C.T) / 2) / len(take)
    weights = weights[weights > 1e-9 * max(weights[-1], 1e-300)]
    statistic = float(np.var(h2))
    return Heterogeneity(
        statistic, float(weights.sum()), weighted_chi_square_tail(statistic, weights), len(take)
    )


def weighted_chi_square_tail(value: float, weights: np.ndarray) -> float:
    """Return P(Σ λ_i χ²₁ > value) by the saddlepoint approximation of Kuonen (1999).

    Its relative error is up to 7 per cent for one weight, 2 from three on, also far in the tail.

    Parameters
    ----------
    value : float
    weights : (k,)
        λ, all above 0.
    """
    from scipy import optimize

    if len(weights) == 0 or value <= 0:
        return 1.0
    lam, x = weights / weights.max(), value / float(weights.max())

    def slope(t: float) -> float:
        return float(np.sum(lam / (1 - 2 * lam * t))) - x

    # The slope grows from -x to infinity between minus infinity and 1/2.
    low = -1.0
    while slope(low) > 0:
        low *= 2
    high, gap = 0.25, 0.25
    while slope(high) < 0:
        gap /= 2
        high = 0.5 - gap
    t = float(optimize.brentq(slope, low, high, xtol=1e-15, rtol=1e-14))
    second = 2 * float(np.sum((lam / (1 - 2 * lam * t)) ** 2))
    w_2 = 2 * (t * x + 0.5 * float(np.sum(np.log1p(-2 * lam * t))))
    if w_2 < 1e-6:
        # At the mean the formula is 0/0; its limit has the skewness only.
        third = 8 * float(np.sum(lam**3))
        tail = 0.5 - third / (6 * np.sqrt(2 * np.pi) * (2 * float(np.sum(lam**2))) ** 1.5)
        return float(tail - (x - lam.sum()) / np.sqrt(2 * np.pi * second))
    w = np.sign(t) * np.sqrt(w_2)
    v = t * np.sqrt(second)
    return float(np.exp(log_ndtr(-(w + np.log(v / w) / w))))
