"""Heritability and genetic correlation by moments (method 5b); arrays in, arrays out.

Scores û (m, c) have a row a variant and a column a phenotype; u_kj = β_kj √(a_k/n), so that
they are linear in the phenotypes and E[û'Ωû] = γ t₂/m + κ t₁ for any fixed weight Ω = M M'.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

from rvga.jackknife import jackknife_standard_error
from rvga.ld import columns_for_share, share_off_diagonal, trace_in_study
from rvga.ld_products import SeenBlock

# Shares of the trace of the published estimator's pair, "LD" and "inverse".
PUBLISHED_LD_SHARE = 0.98
PUBLISHED_INVERSE_SHARE = 0.95
# Columns of a matrix of correlations that are worked on at once.
_TILE = 2048


def component_scores(beta: np.ndarray, a: np.ndarray, n: float) -> np.ndarray:
    """Return û = β √(a/n), (m, r), from effects (m, r) and a = g'Pg (m,); method 5."""
    return beta * np.sqrt(a / n)[:, None]


def published_scores(z: np.ndarray, Sigma: np.ndarray, n: float) -> np.ndarray:
    """Return û = z √Σ_jj / √n, (m, r), the published form (method 5)."""
    return z * np.sqrt(np.diag(Sigma) / n)


def trait_scores(z: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return û = z / √(n + z²), (m,), of a trait of which only z is known (method 5)."""
    return z / np.sqrt(n + z * z)


@dataclass(frozen=True)
class BlockMoments:
    """What one block adds: û'Ωû (c, c), û'ΩRΩû (c, c) and the traces t₁, t₂, t₄."""

    quadratic: np.ndarray
    quartic: np.ndarray
    t_1: float
    t_2: float
    t_4: float

    def __add__(self, other: BlockMoments) -> BlockMoments:
        return BlockMoments(
            self.quadratic + other.quadratic,
            self.quartic + other.quartic,
            self.t_1 + other.t_1,
            self.t_2 + other.t_2,
            self.t_4 + other.t_4,
        )


@dataclass(frozen=True)
class BlockProjection:
    """One block seen through M, over the variants that have scores (method 5b).

    Attributes
    ----------
    q : (k, c)
        M'Dû.
    H_a, H_b, H_1 : (k, k)
        M'D R D M in the halves of panel 1 and in all of it.
    t_2 : (k,)
        Diagonal of M'D T D M, by column of M.
    RM_a, RM_b : (m_b, k)
        R D M in the halves, a row for every variant of the block.
    ld_score : (m_b,)
        Sum of the two halves' products of correlations with the variants of the block.
    used : int
        Variants that have scores.
    t_1 : (k,)
        Diagonal of M'D R D M in a study of n people (:func:`rvga.ld.trace_in_study`).
    """

    q: np.ndarray
    H_a: np.ndarray
    H_b: np.ndarray
    H_1: np.ndarray
    t_2: np.ndarray
    RM_a: np.ndarray
    RM_b: np.ndarray
    ld_score: np.ndarray
    used: int
    t_1: np.ndarray

    def quartic(self, cq: np.ndarray) -> np.ndarray:
        """Return cq' H₁ cq, (c, c)."""
        return cq.T @ self.H_1 @ cq

    def halves_trace(self, weight: np.ndarray | None = None) -> float:
        """Return tr(C H_a C H_b), C = diag(weight), the identity without."""
        c = np.ones(len(self.q)) if weight is None else weight
        return float(np.einsum("k,kl,l,kl->", c, self.H_a, c, self.H_b))


def project_block(
    M: np.ndarray,
    R_a: np.ndarray,
    R_b: np.ndarray,
    T: np.ndarray,
    scores: np.ndarray,
    n_a: int,
    n_b: int,
    t_1_ratio: np.ndarray | None = None,
    n: float | None = None,
) -> BlockProjection:
    """Return what both estimators need of one block.

    Parameters
    ----------
    M : (m_b, k)
    R_a, R_b, T : (m_b, m_b)
        As in :class:`rvga.ld.LdBlock`.
    scores : (m_b, c)
        û; a row with any NaN is a variant that is missing: it is a zero row of D M.
    n_a, n_b : int
        People in the halves of panel 1.
    t_1_ratio : (k,), optional
        As in :class:`rvga.ld.LdBlock`, of all variants.
    n : float, optional
        People of the study, which t₁ is for.
    """
    kept = np.flatnonzero(np.isfinite(scores).all(axis=1))
    M, scores = M.astype(np.float64), np.asarray(scores, dtype=np.float64)
    ld_score = np.einsum("ij,ij->i", R_a, R_b, dtype=np.float64)
    own, whole, thinned = T, None, len(kept) < len(scores)
    if thinned and t_1_ratio is not None and n is not None:
        R_1 = (n_a * R_a + n_b * R_b) / np.float32(n_a + n_b)
        whole = np.einsum("ij,ij->j", (R_1 @ M.astype(np.float32)).astype(np.float64), M)
        # What R's own diagonal adds, over all variants and over those that are there.
        ones = np.diag(R_1).astype(np.float64)
        diagonals = ones @ M**2, ones[kept] @ M[kept] ** 2
    if thinned:
        M, scores = M[kept], scores[kept]
        R_a, R_b, own = R_a[:, kept], R_b[:, kept], T[np.ix_(kept, kept)]
    RM_a, RM_b = R_a.astype(np.float64) @ M, R_b.astype(np.float64) @ M
    H_a, H_b = M.T @ RM_a[kept], M.T @ RM_b[kept]
    H_1 = (n_a * H_a + n_b * H_b) / (n_a + n_b)
    share = 1.0
    if whole is not None:
        share = share_off_diagonal(np.diag(H_1) - diagonals[1], whole - diagonals[0])
    return BlockProjection(
        q=M.T @ scores,
        H_a=H_a,
        H_b=H_b,
        H_1=H_1,
        t_2=np.einsum("ik,ik->k", own.astype(np.float64) @ M, M),
        RM_a=RM_a,
        RM_b=RM_b,
        ld_score=ld_score,
        used=len(kept),
        t_1=trace_in_study(np.diag(H_1), t_1_ratio, n_a + n_b, n, whole, share),
    )


def moments_of(
    block: BlockProjection | SeenBlock, weight: np.ndarray | None = None
) -> BlockMoments:
    """Return the sums of one block for Ω = M C M', C = diag(weight), the identity without.

    Parameters
    ----------
    block : BlockProjection or SeenBlock
    weight : (k,), optional
    """
    c = np.ones(len(block.q)) if weight is None else weight
    cq = block.q if weight is None else c[:, None] * block.q
    return BlockMoments(
        quadratic=block.q.T @ cq,
        quartic=block.quartic(cq),
        t_1=float(c @ block.t_1),
        t_2=float(c @ block.t_2),
        t_4=block.halves_trace(weight),
    )


def variant_weights(block: BlockProjection, weight: np.ndarray | None = None) -> np.ndarray:
    """Return how much the estimate weighs the effect of each variant: diag(R Ω R), (m_b,)."""
    c = np.ones(len(block.q)) if weight is None else weight
    return np.einsum("ik,k,ik->i", block.RM_a, c, block.RM_b)


def block_moments(
    M: np.ndarray,
    R_a: np.ndarray,
    R_b: np.ndarray,
    T: np.ndarray,
    scores: np.ndarray,
    n_a: int,
    n_b: int,
    t_1_ratio: np.ndarray | None = None,
    n: float | None = None,
) -> BlockMoments:
    """Return the sums of one block; arguments as of :func:`project_block` (method 5b)."""
    return moments_of(project_block(M, R_a, R_b, T, scores, n_a, n_b, t_1_ratio, n))


def published_block_moments(
    M: np.ndarray,
    cumulated: np.ndarray,
    R_a: np.ndarray,
    R_b: np.ndarray,
    scores: np.ndarray,
    n_a: int,
    n_b: int,
    ld_share: float = PUBLISHED_LD_SHARE,
    inverse_share: float = PUBLISHED_INVERSE_SHARE,
) -> BlockMoments:
    """Return û'MM'û and d_b = ‖L'M‖² of the published estimator (method 5).

    L is the factor U Λ^½ of panel 1, decomposed here from its correlation matrix; the rows of
    L and M of missing variants are dropped without decomposing again, as published. ``t_1``
    and ``t_4`` are d_b; ``t_2`` is 0, because the published estimator has no such factor.
    """
    R_1 = (n_a * R_a.astype(np.float64) + n_b * R_b.astype(np.float64)) / (n_a + n_b)
    eigenvalues, vectors = np.linalg.eigh(R_1)
    eigenvalues, vectors = np.maximum(eigenvalues[::-1], 0.0), vectors[:, ::-1]
    rank = columns_for_share(np.cumsum(eigenvalues) / eigenvalues.sum(), ld_share)
    L = vectors[:, :rank] * np.sqrt(eigenvalues[:rank])
    kept = np.isfinite(scores).all(axis=1)
    M = M[kept, : columns_for_share(cumulated, inverse_share)].astype(np.float64)
    q = M.T @ scores[kept]
    product = L[kept].T @ M
    d = float(np.einsum("ij,ij->", product, product))
    quadratic = q.T @ q
    return BlockMoments(quadratic, np.zeros_like(quadratic), d, 0.0, d)


@dataclass(frozen=True)
class Moments:
    """Genetic covariance of c phenotypes, and what the errors of its functions need.

    Attributes
    ----------
    Gamma : (c, c)
        Γ̂ = scale (û'Ωû - t₁ κ).
    kappa : (c, c)
        Covariance of the scores' noise per unit of R: Σ/n; 0 between separate samples. With
        offsets by chromosome the mean of A_c/n², weighted by t₁ of the chromosomes.
    s : (c, c)
        û'ΩRΩû - t₄ κ.
    scale, t_1, t_4 : float
        m/t₂ (1 as published), t₁ and t₄ (both d as published).
    inverse_n : (c, c)
        1/n of the sample that two phenotypes share; 0 between separate samples.
    Sigma : (c, c), optional
        Phenotypic covariance, which h² is relative to; κ n without.
    """

    Gamma: np.ndarray
    kappa: np.ndarray
    s: np.ndarray
    scale: float
    t_1: float
    t_4: float
    inverse_n: np.ndarray
    Sigma: np.ndarray | None = None

    @property
    def phenotypic(self) -> np.ndarray:
        """Phenotypic covariance (c, c) of phenotypes of one sample."""
        return self.kappa / self.inverse_n[0, 0] if self.Sigma is None else self.Sigma

    def project(self, rows: np.ndarray) -> Moments:
        """Return the moments of the phenotypes rows @ components, (k, c) rows.

        All components have to be of one sample (as those of a dataset are).
        """
        n_inverse = np.full((len(rows), len(rows)), self.inverse_n[0, 0])
        forms = (rows @ matrix @ rows.T for matrix in (self.Gamma, self.kappa, self.s))
        Sigma = None if self.Sigma is None else rows @ self.Sigma @ rows.T
        return Moments(*forms, self.scale, self.t_1, self.t_4, n_inverse, Sigma)

    def part(self, at: slice) -> Moments:
        """Return the moments of some of the phenotypes."""
        Sigma = None if self.Sigma is None else self.Sigma[at, at]
        return Moments(
            self.Gamma[at, at], self.kappa[at, at], self.s[at, at], self.scale, self.t_1, self.t_4,
            self.inverse_n[at, at], Sigma,
        )  # fmt: skip


def combine(
    total: BlockMoments,
    kappa: np.ndarray,
    inverse_n: np.ndarray,
    m: float,
    factors: tuple[float, float] = (1.0, 1.0),
    *,
    published: bool = False,
    quartic_kappa: np.ndarray | None = None,
    Sigma: np.ndarray | None = None,
) -> Moments:
    """Return Γ̂ and what its errors need from the sums over all blocks (methods 5, 5b).

    Parameters
    ----------
    total : BlockMoments
        Sum over blocks.
    kappa, inverse_n : (c, c)
        As in :class:`Moments`.
    m : float
        Number of variants that enter R, those without scores included.
    factors : (float, float)
        By how much t₄ and s are larger with what lies between blocks
        (:func:`rvga.ld.between_block_factors`); they enter the errors only.
    published : bool
        The published estimator: scale 1, s = Γ̂.
    quartic_kappa : (c, c), optional
        κ that û'ΩRΩû holds t₄ times, where that is not ``kappa``: with noise by chromosome, its
        mean weighted by t₄.
    Sigma : (c, c), optional
        As in :class:`Moments`.

    Raises
    ------
    ValueError
        t₂ is not positive: the reference is too small or too noisy.
    """
    if published:
        Gamma = total.quadratic - total.t_1 * kappa
        return Moments(Gamma, kappa, Gamma, 1.0, total.t_1, total.t_4, inverse_n, Sigma)
    if not total.t_2 > 0:
        raise ValueError(f"trace of Omega R^2 is {total.t_2:g}, not positive")
    scale = m / total.t_2
    Gamma = scale * (total.quadratic - total.t_1 * kappa)
    s = factors[1] * (
        total.quartic - total.t_4 * (kappa if quartic_kappa is None else quartic_kappa)
    )
    return Moments(Gamma, kappa, s, scale, total.t_1, factors[0] * total.t_4, inverse_n, Sigma)


def mean_noise(kappa: np.ndarray, row: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the mean of κ over blocks, weighted, (c, c).

    With the weights t₁ of the blocks, û'Ωû holds noise of t₁ times this mean.

    Parameters
    ----------
    kappa : (a, c, c)
        A_c/n² of each residual cross-product A_c.
    row : (b,) int
        Which of them the scores of each block have.
    weight : (b,)
    """
    by_row = np.bincount(row, weights=weight, minlength=len(kappa))
    if len(kappa) == 1 or not by_row.sum() > 0:
        return kappa.mean(axis=0)
    return np.tensordot(by_row / by_row.sum(), kappa, axes=1)


def left_out_noise(
    kappa: np.ndarray, row: np.ndarray, weight: np.ndarray, group: np.ndarray
) -> np.ndarray:
    """Return :func:`mean_noise` without each group of blocks, (g, c, c)."""
    groups = int(group.max()) + 1
    if len(kappa) == 1:
        return np.broadcast_to(kappa[0], (groups, *kappa[0].shape))
    return np.stack(
        [mean_noise(kappa, row, np.where(group == g, 0.0, weight)) for g in range(groups)]
    )


def covariance_of_estimates(x: Moments, first: tuple[int, int], second: tuple[int, int]) -> float:
    """Return Cov(γ̂_ab, γ̂_cd) given the effects (method 5b, generalised).

    scale² [t₄ (κ_ac κ_bd + κ_ad κ_bc) + κ_ac s_bd + κ_ad s_bc + κ_bc s_ad + κ_bd s_ac]
    + 2 (γ_ac γ_bd + γ_ad γ_bc) / n, the last because the sample's own genotypes vary too;
    of it only the phenotypes' shared samples count. It is the covariance for phenotypes on
    a fixed scale: dividing by the estimated variance turns + 4 h⁴/n of h² into - 2 h⁴/n.
    """
    (a, b), (c, d) = first, second
    k, s, g, v = x.kappa, x.s, x.Gamma, x.inverse_n
    noise = x.t_4 * (k[a, c] * k[b, d] + k[a, d] * k[b, c])
    noise += k[a, c] * s[b, d] + k[a, d] * s[b, c] + k[b, c] * s[a, d] + k[b, d] * s[a, c]
    genotypes = (v[a, c] + v[b, d]) * g[a, d] * g[b, c] + (v[a, d] + v[b, c]) * g[a, c] * g[b, d]
    return float(x.scale**2 * noise + genotypes)


def heritability(x: Moments, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return h² and its closed-form standard error for phenotypes rows @ components.

    h² = b'Γ̂b / b'Σb and SE² = scale² (2 t₄ k² + 4 s k) - 2 h⁴/n with s and k = b'κb per unit of
    variance, k = 1/n without offsets (method 5b; method 5 has the same form with scale 1,
    t₄ = d, s = h²).

    Parameters
    ----------
    x : Moments
        Of the components of one sample.
    rows : (N, c)

    Returns
    -------
    h2, standard_error : (N,)
        As estimated, whatever the range; NaN without variance or with a negative SE².
    """
    n = 1.0 / x.inverse_n[0, 0]
    variance = np.einsum("vr,vr->v", rows @ x.phenotypic, rows)
    noise = np.einsum("vr,vr->v", rows @ x.kappa, rows)
    genetic = np.einsum("vr,vr->v", rows @ x.Gamma, rows)
    signal = np.einsum("vr,vr->v", rows @ x.s, rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        positive = np.where(variance > 0, variance, np.nan)
        h2, s, k = genetic / positive, signal / positive, noise / positive
        square = x.scale**2 * (2 * x.t_4 * k**2 + 4 * s * k) - 2 * h2**2 / n
        return h2, np.sqrt(square)


def genetic_correlation(
    x: Moments, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return ρ and its standard error between two sets of phenotypes of one sample.

    The error is the delta method on the covariance of γ̂_uv, γ̂_uu and γ̂_vv
    (:func:`covariance_of_estimates`), written out for whole matrices.

    Parameters
    ----------
    rows, columns : (I, c), (J, c)
        Bases of the two sets.

    Returns
    -------
    rho, standard_error : (I, J)
        As estimated, whatever the range; NaN where a heritability is not positive.
    """

    unit_u, k_u, s_u = _unit_rows(x, rows)
    unit_v, k_v, s_v = _unit_rows(x, columns)
    rho, standard_error = np.empty((2, len(rows), len(columns)))
    left = unit_u @ x.Gamma, unit_u @ x.kappa, unit_u @ x.s
    # By tiles that stay in the processor's cache.
    for first in range(0, len(columns), _TILE):
        at = slice(first, first + _TILE)
        gamma, k_uv, s_uv = (half @ unit_v[at].T for half in left)
        square = _correlation_variance(
            gamma, (k_u[:, None], k_v[at], k_uv), (s_u[:, None], s_v[at], s_uv), x
        )
        rho[:, at] = gamma
        with np.errstate(invalid="ignore"):
            np.sqrt(square, out=standard_error[:, at])
    return rho, standard_error


def _unit_rows(x: Moments, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows of genetic variance 1, NaN where it is not positive, and their κ and s."""
    genetic = np.einsum("vr,vr->v", b @ x.Gamma, b)
    unit = b / np.sqrt(np.where(genetic > 0, genetic, np.nan))[:, None]
    return unit, *(np.einsum("vr,vr->v", unit @ a, unit) for a in (x.kappa, x.s))


def _correlation_variance(rho, kappa, s, x: Moments) -> np.ndarray:
    """Return Var(ρ̂) from κ and s divided by the roots of γ_uu and γ_vv (one sample).

    With w = t₄ κ² + 2 κ s of a pair and p the same of a phenotype with itself the noise is
    t₄ κ_uu κ_vv + κ_uu s_vv + κ_vv s_uu + (1 + ρ²) w_uv + ρ²/2 (p_uu + p_vv)
    - 2 ρ [(κ_uu + κ_vv)(t₄ κ_uv + s_uv) + (s_uu + s_vv) κ_uv].
    """
    (k_uu, k_vv, k_uv), (s_uu, s_vv, s_uv), t_4 = kappa, s, x.t_4
    p_u, p_v = t_4 * k_uu**2 + 2 * k_uu * s_uu, t_4 * k_vv**2 + 2 * k_vv * s_vv
    q = rho * rho
    outer = k_uu * (t_4 * k_vv + s_vv) + s_uu * k_vv
    common = t_4 * k_uv
    common += s_uv
    w = k_uv * (common + s_uv)
    common *= k_uu + k_vv
    common += (s_uu + s_vv) * k_uv
    common *= -2 * rho
    between = outer + w
    common += between
    common += q * (w + (p_u + p_v) / 2)
    common *= x.scale**2
    common += 2 * x.inverse_n[0, 0] * (1 - q) ** 2
    # It is 0 for a phenotype with itself, which rounding must not turn into a root of -1e-17.
    common[np.abs(common) < 1e-10 * x.scale**2 * np.abs(between)] = 0.0
    return common


def cross_trait_correlation(
    x: Moments, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Return ρ of phenotypes with a trait of another sample, without people in common.

    Parameters
    ----------
    x : Moments
        Of the components and, last, the trait; κ and 1/n are 0 between the two samples.
    rows : (N, c - 1)
        Bases of the phenotypes.

    Returns
    -------
    rho, standard_error : (N,)
        As estimated; NaN where a heritability is not positive.
    h2, h2_standard_error : float
        Of the trait, over the same variants.
    """
    own, trait = x.part(slice(None, -1)), x.part(slice(-1, None))
    h2, h2_error = heritability(trait, np.ones((1, 1)))
    g_u, g_t = np.einsum("vr,vr->v", rows @ own.Gamma, rows), float(x.Gamma[-1, -1])
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = rows / np.sqrt(np.where(g_u > 0, g_u, np.nan))[:, None]
        root = np.sqrt(g_t) if g_t > 0 else np.nan
        rho = unit @ x.Gamma[:-1, -1] / root
        s_ut = unit @ x.s[:-1, -1] / root
        k_uu = np.einsum("vr,vr->v", unit @ own.kappa, unit)
        s_uu = np.einsum("vr,vr->v", unit @ own.s, unit)
        k_tt, s_tt = float(x.kappa[-1, -1]) / root**2, float(x.s[-1, -1]) / root**2
        # The sampling of genotypes cancels in a ratio of two separate samples.
        noise = x.t_4 * k_uu * k_tt + k_uu * s_tt + k_tt * s_uu
        noise += rho**2 / 4 * (2 * x.t_4 * k_uu**2 + 4 * k_uu * s_uu)
        noise += rho**2 / 4 * (2 * x.t_4 * k_tt**2 + 4 * k_tt * s_tt)
        noise -= rho * (2 * k_uu * s_ut + 2 * k_tt * s_ut)
        standard_error = np.sqrt(x.scale**2 * noise)
    return rho, standard_error, float(h2[0]), float(h2_error[0])


def leave_one_out_Gamma(
    quadratic: np.ndarray, t_1: np.ndarray, t_2: np.ndarray, kappa: np.ndarray, m: float
) -> np.ndarray:
    """Return Γ̂ without each group of blocks, (g, c, c), for the jackknife.

    Parameters
    ----------
    quadratic : (g, c, c)
        û'Ωû by group.
    t_1, t_2 : (g,)
        Traces by group; all ``t_2`` zero is the published estimator, which has no scale.
    kappa : (c, c) or (g, c, c)
        Noise per unit of R; by group where it is estimated without each of them.
    m : float
        Variants that enter R; the same for every left-out group, because a left-out group is
        one that has no weight, not one that has no effects.
    """
    rest = quadratic.sum(axis=0) - quadratic
    rest_t_1 = t_1.sum() - t_1
    rest_t_2 = t_2.sum() - t_2
    scale = m / rest_t_2 if np.any(t_2) else np.ones(len(t_1))
    return scale[:, None, None] * (rest - rest_t_1[:, None, None] * kappa)


def blend_factor(weight: np.ndarray, share: np.ndarray) -> float:
    """Return the part of the jackknife's excess that belongs to the estimate's variance.

    f = 1 - (Σ w_c d_c)² / Σ w_c d_c²: 0 where the estimator weighs all classes of variants
    alike, so that it does not matter which of them have effects (method 5c).

    Parameters
    ----------
    weight : (c,)
        Mean weight d of the variants of each class.
    share : (c,)
        Each class's share w of the variants.
    """
    square = float(share @ weight**2)
    return float(np.clip(1 - float(share @ weight) ** 2 / square, 0.0, 1.0)) if square > 0 else 1.0


def variant_classes(
    ld_score: np.ndarray, frequency: np.ndarray, scores: int = 20, frequencies: int = 3
) -> np.ndarray:
    """Return classes of variants by quantiles of LD score and of minor allele frequency, (m,)."""

    def parts(values: np.ndarray, number: int) -> np.ndarray:
        edges = np.quantile(values, np.arange(1, number) / number)
        return np.searchsorted(edges, values, side="right")

    minor = np.minimum(frequency, 1 - frequency)
    return parts(ld_score, scores) * frequencies + parts(minor, frequencies)


def class_means(weight: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean weight of each class and its share of the variants."""
    number = np.bincount(label)
    used = number > 0
    total = np.bincount(label, weights=weight)
    return total[used] / number[used], number[used] / len(label)


def blended_error(closed_form: np.ndarray, jackknife: np.ndarray, factor: float) -> np.ndarray:
    """Return SE with SE² = SE_cf² + f (SE_jk² - SE_cf²)₊ (method 5c)."""
    return np.sqrt(closed_form**2 + factor * np.maximum(jackknife**2 - closed_form**2, 0.0))


def heritability_jackknife(Gammas: np.ndarray, Sigma: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the delete-one-group standard error of h², (N,), from Γ̂ without each group."""
    variance = np.einsum("vr,vr->v", rows @ Sigma, rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.stack([np.einsum("vr,vr->v", rows @ G, rows) / variance for G in Gammas])
    return jackknife_standard_error(values)


def genetic_correlation_jackknife(
    Gammas: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Return the delete-one-group standard error of ρ, (I, J); NaN where a γ̂ is not positive."""

    def one(G: np.ndarray) -> np.ndarray:
        g_u = np.einsum("vr,vr->v", rows @ G, rows)
        g_v = np.einsum("vr,vr->v", columns @ G, columns)
        scale = np.sqrt(np.where(g_u > 0, g_u, np.nan))[:, None] * np.sqrt(
            np.where(g_v > 0, g_v, np.nan)
        )
        return (rows @ G @ columns.T) / scale

    return jackknife_standard_error(np.stack([one(G) for G in Gammas]))


def cross_trait_ratio(Gamma: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return ρ of phenotypes rows @ components with a trait, (N,), from Γ̂ with the trait last.

    As estimated; NaN where a heritability is not positive.
    """
    g_u, g_t = np.einsum("vr,vr->v", rows @ Gamma[:-1, :-1], rows), Gamma[-1, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.sqrt(np.where(g_u > 0, g_u, np.nan)) * np.sqrt(g_t if g_t > 0 else np.nan)
        return (rows @ Gamma[:-1, -1]) / scale


def cross_trait_jackknife(Gammas: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the delete-one-group standard error of :func:`cross_trait_ratio`, (N,)."""
    error = np.empty(len(rows))
    for at, ratios in cross_trait_left_out(Gammas, rows):
        error[at] = jackknife_standard_error(ratios)
    return error


def cross_trait_left_out(
    Gammas: np.ndarray, rows: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield :func:`cross_trait_ratio` of each Γ̂, (g, k), for k phenotypes at a time.

    All of them at once would be a matrix of groups by phenotypes.
    """
    for first in range(0, len(rows), _TILE):
        at = slice(first, min(first + _TILE, len(rows)))
        yield at, np.stack([cross_trait_ratio(G, rows[at]) for G in Gammas])


def neg_log_10_p_normal(estimate: np.ndarray, error: np.ndarray, sides: int) -> np.ndarray:
    """Return -log10 p of a normal test of 0, from the tail function directly.

    Parameters
    ----------
    estimate, error : arrays of one shape
    sides : 1 or 2
        One-sided tests against values above 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.asarray(estimate) / np.where(np.asarray(error) > 0, error, np.nan)
    tail = log_ndtr(-np.abs(z)) + np.log(2.0) if sides == 2 else log_ndtr(-z)
    return -tail / np.log(10.0)


def heritability_reasons(h2: np.ndarray, standard_error: np.ndarray) -> np.ndarray:
    """Return why each h² is not shown, '' where it is (object array)."""
    reasons = np.full(np.shape(h2), "", dtype=object)
    for condition, reason in (
        (standard_error > 1, "standard error above 1"),
        (~np.isfinite(standard_error), "standard error not defined"),
        (h2 > 1, "heritability above 1"),
        (h2 < 0, "heritability below 0"),
        (~np.isfinite(h2), "no variance"),
    ):
        reasons[condition] = reason
    return reasons


def correlation_reasons(rho: np.ndarray, standard_error: np.ndarray) -> np.ndarray:
    """Return why each ρ is not shown, '' where it is (object array)."""
    reasons = np.full(np.shape(rho), "", dtype=object)
    # A correlation with itself may exceed 1 by rounding.
    for condition, reason in (
        (standard_error > 1, "standard error above 1"),
        (~np.isfinite(standard_error), "standard error not defined"),
        (np.abs(rho) > 1 + 1e-9, "correlation beyond 1"),
        (~np.isfinite(rho), "heritability not above 0"),
    ):
        reasons[condition] = reason
    return reasons


def correlation_in_range(rho: np.ndarray, standard_error: np.ndarray) -> np.ndarray:
    """Return where :func:`correlation_reasons` has none, for whole matrices (bool array)."""
    return (np.abs(rho) <= 1 + 1e-9) & (standard_error <= 1)


def region_bases(bases: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted labels other than 0 and the mean basis row of each.

    Parameters
    ----------
    bases : (N, r)
    labels : (N,) int
        0 is no region.

    Returns
    -------
    region : (k,) int
    rows : (k, r)
    """
    region = np.unique(labels[labels != 0])
    rows = np.stack([bases[labels == label].mean(axis=0) for label in region])
    return region, rows


def default_parcels(coordinates: np.ndarray, number: int = 24, rounds: int = 50) -> np.ndarray:
    """Return labels 1 … k of compact parcels by k-means of the coordinates, (N,).

    Deterministic: the first centre is the voxel nearest the middle, each next one the voxel
    farthest from all centres; parcels are numbered by their centre, last axis first.
    """
    points = np.asarray(coordinates, dtype=float)
    number = min(number, len(np.unique(points, axis=0)))
    centres = [points[np.argmin(((points - points.mean(axis=0)) ** 2).sum(axis=1))]]
    distance = ((points - centres[0]) ** 2).sum(axis=1)
    while len(centres) < number:
        centres.append(points[np.argmax(distance)])
        distance = np.minimum(distance, ((points - centres[-1]) ** 2).sum(axis=1))
    centre = np.stack(centres)
    label = np.full(len(points), -1)
    for _ in range(rounds):
        squares = ((points[:, None, :] - centre[None, :, :]) ** 2).sum(axis=2)
        nearest = np.argmin(squares, axis=1)
        if np.array_equal(nearest, label):
            break
        label = nearest
        for k in range(number):
            if np.any(label == k):
                centre[k] = points[label == k].mean(axis=0)
    used = np.unique(label)
    order = used[np.lexsort(centre[used].T)]
    rank = np.zeros(number, dtype=np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    return rank[label]
