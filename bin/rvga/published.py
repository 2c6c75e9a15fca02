"""LD-score regression as the published estimator uses it for people in common (method 5)."""

from __future__ import annotations

import numpy as np

ROUNDS = 2


def adjusted_ld_scores(R: np.ndarray, n: int) -> np.ndarray:
    """Return Σ_k r²_jk less what chance gives in ``n`` people, (m,), of correlations (m, m)."""
    raw = np.einsum("ij,ij->i", R, R, dtype=np.float64)
    return raw - (len(R) - raw) / (n - 2)


def cross_trait_intercepts(
    product: np.ndarray,
    ld_score: np.ndarray,
    n: tuple[np.ndarray | float, np.ndarray | float],
    h2: tuple[np.ndarray, float],
    d: float,
    group: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the intercepts of z_j z₂ on LD score, all of them and without each group.

    E[z_j z₂] = c_j + ρ_j √(n₁n₂) ℓ/d, by least squares with weights
    1/(ℓ [(h²_j n₁ℓ/d + 1)(h²₂ n₂ℓ/d + 1) + E[z_j z₂]²]), which take E[z_j z₂] from the mean product
    and no intercept in the first round, from the fit in the second. Scores are floored at 1;
    the left-out fits have the weights of the second round.

    Parameters
    ----------
    product : (m, c)
        z of each component times z of the trait.
    ld_score : (m,)
    n : two of (m,) or float
        People of the components' and of the trait's GWAS.
    h2 : (c,), float
        Heritabilities, which enter the weights within [0, 1].
    d : float
        Stands for the number of variants.
    group : (m,) int
        From 0, without gaps.

    Returns
    -------
    intercept : (c,)
    left_out : (g, c)

    Raises
    ------
    ValueError
        There is one group only, or LD scores do not differ, in all or without one group.
    """
    m, c = product.shape
    score = np.maximum(ld_score, 1.0)
    n_1, n_2 = (np.broadcast_to(np.asarray(one, dtype=float), (m,)) for one in n)
    root = np.sqrt(n_1 * n_2)
    x = np.stack([np.ones(m), score * root / root.mean()])
    slope_weight = root * score / d
    second = 1 + np.clip(h2[1], 0, 1) * n_2 * score / d
    groups = int(group.max()) + 1
    if groups < 2:
        raise ValueError(
            "all variants are in one group of LD blocks, and the jackknife of the LD-score "
            "regression leaves out one of at least two"
        )
    if not np.ptp(score) > 0:
        raise ValueError(
            f"the LD scores of all variants are {'at most 1' if score[0] <= 1 else 'equal'}, so "
            "that LD-score regression cannot tell intercept from slope"
        )
    intercept, left_out = np.empty(c), np.empty((groups, c))
    for j in range(c):
        y = product[:, j]
        own = (1 + np.clip(h2[0][j], 0, 1) * n_1 * score / d) * second
        rho, constant = d * y.mean() / (score * root).mean(), 0.0
        for _ in range(ROUNDS):
            w = 1 / (score * (own + (np.clip(rho, -1, 1) * slope_weight + constant) ** 2))
            normal = np.stack(
                [np.bincount(group, weights=w * a * b, minlength=groups) for a in x for b in x],
                axis=1,
            ).reshape(-1, 2, 2)
            right = np.stack(
                [np.bincount(group, weights=w * a * y, minlength=groups) for a in x], axis=1
            )
            constant, slope = _line(normal.sum(axis=0)[None], right.sum(axis=0)[None])[0]
            rho = slope * d / root.mean()
        intercept[j] = constant
        rest = normal.sum(axis=0) - normal, right.sum(axis=0) - right
        left_out[:, j] = _line(*rest)[:, 0]
    return intercept, left_out


def _line(normal: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return intercepts and slopes (g, 2) of normal equations (g, 2, 2), (g, 2)."""
    product = normal[:, 0, 0] * normal[:, 1, 1]
    # Cauchy-Schwarz: equal only where one of the two regressors is a multiple of the other.
    if not np.all(product - normal[:, 0, 1] ** 2 > 1e-12 * product):
        raise ValueError(
            "the LD scores differ within one group of LD blocks only, so that LD-score regression "
            "cannot tell intercept from slope without it"
        )
    return np.linalg.solve(normal, right[:, :, None])[:, :, 0]


def jackknife_estimate(whole: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Return G x - (G - 1) mean(x_g), the jackknife's own point estimate, (N,).

    Parameters
    ----------
    whole : (N,)
    left_out : (G, N)
    """
    groups = len(left_out)
    return groups * whole - (groups - 1) * left_out.mean(axis=0)
