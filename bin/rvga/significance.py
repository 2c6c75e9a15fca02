"""Tails of t, F and normal laws, and image-wide significance (methods 3 and 4b).

Every p is handled as its logarithm, so that nothing underflows however far out a statistic lies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from rvga.parallel import ordered_map

LN_10 = float(np.log(10.0))
_DIRECT_ABOVE = 1e-250  # below this p the incomplete beta function is evaluated by its logarithm
_DRAWS_PER_BATCH = 128
_NO_NORM = 1e-10  # a voxel with less than this share of the largest deviation has no signal
_GRID = np.unique(np.concatenate([np.arange(0.0, 12.0, 0.25), np.arange(12.0, 41.0, 2.0)]))


def neg_log_10_p_t(z: np.ndarray, nu: float) -> np.ndarray:
    """Return −log10 of the two-sided p of t statistics, by the log tail directly.

    Parameters
    ----------
    z : array
        t statistics, any shape; NaN gives NaN.
    nu : float
        Degrees of freedom, positive.

    Returns
    -------
    ndarray of float64
        −log10 I_x(ν/2, 1/2) with x = ν/(ν + z²).
    """
    z = np.abs(np.asarray(z, dtype=np.float64))
    squared = (np.minimum(z, 1e150 * np.sqrt(nu)) / np.sqrt(nu)) ** 2
    return 0.0 - _log_beta_tail(nu / 2.0, 0.5, squared) / LN_10


def neg_log_10_p_f(r_squared: np.ndarray, numerator_df: float, denominator_df: float) -> np.ndarray:
    """Return −log10 p of F = (R²/df₁) / ((1 − R²)/df₂), by the log tail; R² in [0, 1)."""
    r_squared = np.asarray(r_squared, dtype=np.float64)
    # A share of exactly 1 is a rounding of something just below it.
    remainder = np.maximum(1.0 - r_squared, np.finfo(float).tiny)
    odds = np.maximum(r_squared, 0.0) / remainder
    return 0.0 - _log_beta_tail(denominator_df / 2.0, numerator_df / 2.0, odds) / LN_10


def neg_log_10_p_normal(t: np.ndarray) -> np.ndarray:
    """Return −log10 of 2 Φ(−|t|)."""
    t = np.abs(np.asarray(t, dtype=np.float64))
    return -(special.log_ndtr(-t) + np.log(2.0)) / LN_10


def normal_from_neg_log_10_p(neg_log_10_p: np.ndarray) -> np.ndarray:
    """Return t ≥ 0 with −log10 of 2 Φ(−t) as given (the inverse of the two-sided tail)."""
    log_half = -np.asarray(neg_log_10_p, dtype=np.float64) * LN_10 - np.log(2.0)
    return np.maximum(-special.ndtri_exp(log_half), 0.0)


def t_to_normal(z: np.ndarray, nu: float) -> np.ndarray:
    """Return sign(z) Φ⁻¹(F_ν(|z|)): normal deviates with the tails of the t statistics."""
    z = np.asarray(z, dtype=np.float64)
    return np.copysign(normal_from_neg_log_10_p(neg_log_10_p_t(z, nu)), z)


def normal_to_t(t: float, nu: float) -> float:
    """Return the t statistic (ν degrees of freedom) with the two-sided p of a normal ``t`` ≥ 0."""
    # Here, because its import takes as long as all that a short task does.
    from scipy import optimize

    goal = float(neg_log_10_p_normal(t))
    if t <= 0:
        return 0.0

    def excess(log_z: float) -> float:
        return float(neg_log_10_p_t(np.exp(log_z), nu)) - goal

    low, high = np.log(t) - 1.0, np.log(t) + 1.0
    while excess(high) < 0:
        high += 5.0
    return float(np.exp(optimize.brentq(excess, low, high, xtol=1e-14, rtol=1e-14)))


def omnibus_neg_log_10_p(beta: np.ndarray, a: np.ndarray, A: np.ndarray, nu: float) -> np.ndarray:
    """Return −log10 p of the test that a variant has no effect on any component (method 4b).

    R² = a βᵀA⁻¹β; F = (ν − r + 1)/r · R²/(1 − R²) has (r, ν − r + 1) degrees of freedom.

    Parameters
    ----------
    beta : (m, r)
        Component effects; a row with NaN gives NaN.
    a : (m,)
        gᵀPg by variant.
    A : (r, r)
        Residual cross-product of the components.
    nu : float
        n − p − 1.

    Raises
    ------
    ValueError
        There are not more degrees of freedom than components.
    """
    r = beta.shape[1]
    if nu - r + 1 <= 0:
        raise ValueError(f"{r} components need more than {nu:g} degrees of freedom")
    whitened = np.linalg.solve(np.linalg.cholesky(A), beta.T)
    return neg_log_10_p_f(a * np.einsum("jm,jm->m", whitened, whitened), r, nu - r + 1)


@dataclass(frozen=True)
class Tail:
    """Image-wide −log10 p by threshold of the largest |z| (normal scale), method 4b.

    Attributes
    ----------
    threshold, neg_log_10_p, relative_error : (t,) arrays
        Ascending thresholds, image-wide −log10 p and its Monte-Carlo standard error over p.
    significance : str
        Rule of the critical value: ``image_wide`` or ``published``. The table is image-wide.
    significance_level : float
        Study-wide level.
    critical_z : float
        |z|, normal scale, beyond which a voxel is significant: one of the next two.
    critical_z_image_wide, critical_z_published : float
        Where the image-wide p is the level; where the p of one voxel is level / N_eff.
    n_eff : float
        Effective number of independent voxels.
    """

    threshold: np.ndarray
    neg_log_10_p: np.ndarray
    relative_error: np.ndarray
    significance: str
    significance_level: float
    critical_z: float
    critical_z_image_wide: float
    critical_z_published: float
    n_eff: float

    @classmethod
    def of(cls, stored: Any) -> Tail:
        """Return the tail in a stored table: ``stored[name]`` arrays and ``.attributes``."""
        return cls(
            *(stored[name][...] for name in ("threshold", "neg_log_10_p", "relative_error")),
            **{
                name: stored.attributes[name]
                for name in (
                    "significance",
                    "significance_level",
                    "critical_z",
                    "critical_z_image_wide",
                    "critical_z_published",
                    "n_eff",
                )
            },
        )

    @property
    def critical_relative_error(self) -> float:
        """Monte-Carlo standard error of the image-wide p over p, at the critical value."""
        return float(np.interp(self.critical_z, self.threshold, self.relative_error))


def image_wide_neg_log_10_p(abs_z_normal: np.ndarray, tail: Tail) -> np.ndarray:
    """Return the image-wide −log10 p of largest |z| (normal scale, see :func:`t_to_normal`).

    Between thresholds the factor p(t) / 2Φ(−t), which varies slowly, is interpolated; beyond the
    last threshold it is constant.
    """
    t = np.abs(np.asarray(abs_z_normal, dtype=np.float64))
    log_factor = _log_10_factor(tail.threshold, tail.neg_log_10_p)(t)
    return np.maximum(neg_log_10_p_normal(t) - log_factor, 0.0)


def published_critical_z(n_eff: float, significance_level: float) -> float:
    """Return |z| (normal scale) of the published rule: p of one voxel below level / N_eff."""
    return float(normal_from_neg_log_10_p(np.log10(n_eff) - np.log10(significance_level)))


def image_wide_tail(
    bases: np.ndarray,
    Sigma: np.ndarray,
    *,
    n_eff: float,
    significance: str = "image_wide",
    significance_level: float = 5e-8,
    draws: int = 20_000,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[..., Any] | None = None,
) -> Tail:
    """Tabulate the image-wide p of the largest |z| over the voxels under the null (method 4b).

    With z = U w, w ~ N(0, I_r), the p of a threshold t is
    N · 2Φ(−t) · E[1 / #{v′: |z_v′| > t}], v uniform and w drawn given z_v > t. A draw of (v, w)
    serves every threshold: w is shifted along u_v to the point where u_vᵀw is beyond t.

    Parameters
    ----------
    bases : (N, r)
        Functional bases; voxels without variance are left out.
    Sigma : (r, r)
        Residual covariance of the components.
    n_eff : float
        Effective number of independent voxels, kept with the table.
    significance : {"image_wide", "published"}
        Rule of the critical value.
    significance_level : float
        Study-wide level; the image-wide critical value is where the image-wide p equals it.
    draws : int
        Draws of (v, w).
    seed : int
        Seed of the draws.
    threads : int
        Batches of draws worked on at once. The result does not depend on it as long as the
        caller keeps BLAS to one thread.
    progress : callable, optional
        ``progress(batches, total, what)`` yields the batches.

    Raises
    ------
    ValueError
        No voxel has any variance, or there are fewer than two draws.
    """
    # Imported here: only one stage draws, and the compiler takes long to import.
    from rvga.exceedances import exceedances

    if draws < 2:
        raise ValueError("at least 2 draws are needed")
    U = _unit_rows(bases, Sigma)
    N, r = U.shape
    # The critical value lies between those of one test and of N tests (Bonferroni).
    grid = np.union1d(_GRID, normal_from_neg_log_10_p(np.log10(N) - np.log10(significance_level)))
    generator = np.random.default_rng(seed)
    rounds = -(-draws // N)
    # Each voxel is drawn equally often (up to one): less variance than with independent draws.
    voxel = np.concatenate([generator.permutation(N) for _ in range(rounds)])[:draws]
    log_tail = special.log_ndtr(-grid)
    firsts = range(0, draws, _DRAWS_PER_BATCH)
    seeds = np.random.SeedSequence(seed).spawn(len(firsts))

    def work(batch: int) -> np.ndarray:
        of_batch = voxel[firsts[batch] : firsts[batch] + _DRAWS_PER_BATCH]
        own = np.random.default_rng(seeds[batch])
        w = own.standard_normal((len(of_batch), r), dtype=np.float32)
        u = U[of_batch]
        w -= np.einsum("dr,dr->d", w, u)[:, None] * u
        # The same uniform for every threshold keeps the table smooth.
        uniform = own.random(len(of_batch))
        beyond = -special.ndtri_exp(np.log1p(-uniform)[:, None] + log_tail)
        counts = exceedances(
            (w @ U.T), (u @ U.T), of_batch, beyond.astype(np.float32), grid.astype(np.float32)
        )
        inverse = 1.0 / counts
        return np.stack([inverse.sum(0), (inverse**2).sum(0)])

    parts = ordered_map(work, range(len(firsts)), threads)
    if progress is not None:
        parts = progress(parts, len(firsts), "batch of draws")
    total = np.zeros((2, len(grid)))
    for part in parts:  # in order, so that the sum does not depend on the threads
        total += part
    mean = total[0] / draws
    variance = np.maximum(total[1] / draws - mean**2, 0.0) / (draws - 1)
    p = neg_log_10_p_normal(grid) - np.log10(N * mean)
    p = np.maximum.accumulate(np.maximum(p, 0.0))
    error = np.sqrt(variance) / mean
    factor = _log_10_factor(grid, p)
    goal = -np.log10(significance_level)
    from scipy import optimize

    image_wide = optimize.brentq(
        lambda t: float(neg_log_10_p_normal(t) - factor(t)) - goal, 0.0, 1e3, xtol=1e-12
    )
    critical = {
        "image_wide": float(image_wide),
        "published": published_critical_z(n_eff, significance_level),
    }
    return Tail(
        grid, p, error, significance, significance_level, critical[significance],
        critical["image_wide"], critical["published"], float(n_eff),
    )  # fmt: skip


def tail_memory(N: int, r: int, threads: int) -> float:
    """Return the bytes that :func:`image_wide_tail` takes."""
    return 4.0 * N * r * 3 + threads * _DRAWS_PER_BATCH * N * 4.0 * 2.5


def _log_10_factor(threshold: np.ndarray, neg_log_10_p: np.ndarray) -> Callable:
    """Return log10 of p(t) / 2Φ(−t) as a function of t, constant outside the table."""
    factor = neg_log_10_p_normal(threshold) - neg_log_10_p
    from scipy import interpolate

    curve = interpolate.PchipInterpolator(threshold, factor)
    low, high = threshold[0], threshold[-1]
    return lambda t: curve(np.clip(t, low, high))


def _unit_rows(bases: np.ndarray, Sigma: np.ndarray) -> np.ndarray:
    """Return the rows L'b_v over their norms, float32, without voxels that have no variance."""
    rows = np.asarray(bases, dtype=np.float64) @ np.linalg.cholesky(Sigma)
    norm = np.linalg.norm(rows, axis=1)
    kept = norm > _NO_NORM * norm.max(initial=0.0)
    if not kept.any():
        raise ValueError("no voxel has any variance")
    return np.ascontiguousarray(rows[kept] / norm[kept, None], dtype=np.float32)


def _log_beta_tail(a: float, b: float, odds: np.ndarray) -> np.ndarray:
    """Return log I_x(a, b), x = 1/(1 + odds), for any odds ≥ 0 without underflow."""
    odds = np.asarray(odds, dtype=np.float64)
    # x near 1 loses its distance from 1 to rounding, so the complement is taken there.
    p = np.where(
        odds < 1.0,
        special.betaincc(b, a, odds / (1.0 + odds)),
        special.betainc(a, b, 1.0 / (1.0 + odds)),
    )
    with np.errstate(divide="ignore"):
        result = np.atleast_1d(np.log(p))
    far = np.atleast_1d(p < _DIRECT_ABOVE)
    if far.any():
        y = np.atleast_1d(odds)[far]
        result[far] = (
            -a * np.log1p(y)
            + b * (np.log(y) - np.log1p(y))
            - np.log(a)
            - special.betaln(a, b)
            + np.log(_beta_fraction(a, b, 1.0 / (1.0 + y)))
        )
    return result.reshape(odds.shape)[()]


def _beta_fraction(a: float, b: float, x: np.ndarray) -> np.ndarray:
    """Return the continued fraction of I_x(a, b) a B(a, b) / (x^a (1 − x)^b), by Lentz's method.

    It converges fast where x < (a + 1)/(a + b + 2), which holds in the far tail.
    """
    tiny = 1e-300
    c = np.ones_like(x)
    d = 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / np.where(np.abs(d) < tiny, tiny, d)
    result = d.copy()
    for k in range(1, 10_000):
        even = k * (b - k) * x / ((a + 2 * k - 1) * (a + 2 * k))
        odd = -(a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1))
        for term in (even, odd):
            d = 1.0 + term * d
            d = 1.0 / np.where(np.abs(d) < tiny, tiny, d)
            c = 1.0 + term / c
            c = np.where(np.abs(c) < tiny, tiny, c)
            change = c * d
            result *= change
        if np.all(np.abs(change - 1.0) < 1e-13):
            return result
    raise ArithmeticError(f"the tail of the beta law did not converge (a = {a}, b = {b})")
