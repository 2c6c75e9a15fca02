"""The published estimator against the numbers that the published program (HEIG) gives.

HEIG 1c4fbe8 was run on the panels and statistics of :func:`study` (``--ld-matrix`` with
``--ld-regu 0.9,0.85`` and ``--heri-gc``); what it printed or wrote is below.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from heritability_study import correlated_dosages
from rvga import heritability as h
from rvga import ld, published
from rvga.jackknife import jackknife_standard_error

BLOCK, BLOCKS = 20, 10
H2 = [0.404856, 0.341615, 0.453113, 0.397973, 0.409444, 0.447563]
H2_ERROR = [0.0591285, 0.0563833, 0.0609641, 0.0588491, 0.0593122, 0.0607636]
# Without every tenth variant from the fourth on.
H2_THIN = [0.340356, 0.346822, 0.466534, 0.403393, 0.413933, 0.431219]
RHO_1 = [0.047216, 1.0, 0.0627302, 0.8848193, -0.854093, -0.3463866]
RHO_1_ERROR = [0.1340545, 0.0, 0.1304261, 0.0289451, 0.036206, 0.1178935]
H2_TRAIT = 0.4554
RHO_TRAIT = [-0.779497, -0.109912, -0.600758, 0.253218, -0.312467, -0.688122]
RHO_TRAIT_ERROR = [0.0952781, 0.122143, 0.100578, 0.114855, 0.112792, 0.0969325]
# With people in common: intercepts of the components, ρ of all blocks, its pseudo-values.
INTERCEPTS = [-1.3838686, -1.313713, 1.7992561]
RHO_OVERLAP = [-1.89515595, -0.7936669, -0.66879542, -0.10042865, -0.09957797, -1.07174907]
RHO_PSEUDO = [-1.86005747, -0.78549423, -0.67195021, -0.10410609, -0.09654326, -1.05390129]
RHO_PSEUDO_ERROR = [0.8721763, 0.86955221, 0.80137792, 0.78718378, 0.79585762, 0.80494503]


class Input:
    """Panels of 220 and 180 people, z of three components (500 people) and a trait (400)."""

    def __init__(self):
        sizes = np.cumsum([0, 220, 180, 500, 400])
        dosages = correlated_dosages(300, int(sizes[-1]), seed=31)
        parts = [dosages[:, i:j] for i, j in itertools.pairwise(sizes)]
        mean = [p.mean(axis=1) for p in parts]
        frequency = np.min([np.minimum(f, 2 - f) for f in mean], axis=0) / 2
        self.panel_1, self.panel_2, study, other = (p[frequency >= 0.05][:200] for p in parts)
        rng = np.random.default_rng(32)
        study, other = ld.standardise(study).astype(float), ld.standardise(other).astype(float)
        effects = rng.normal(size=(200, 3))
        genetic = study.T @ effects
        y = np.sqrt(0.5) * genetic / genetic.std(axis=0) + np.sqrt(0.5) * rng.normal(size=(500, 3))
        y = (y - y.mean(axis=0)) * [3.0, 2.0, 1.0]
        t = other.T @ (effects[:, 0] + 0.5 * effects[:, 1])
        t = np.sqrt(0.5) * t / t.std() + np.sqrt(0.5) * rng.normal(size=400)
        self.Sigma, self.n, self.n_trait = y.T @ y / 500, 500, 400
        self.z, self.z_trait = _z(study, y), _z(other, t)
        self.bases = np.linalg.qr(rng.normal(size=(6, 3)))[0]
        self.moments, self.ld_score = [], []


def _z(G: np.ndarray, values: np.ndarray) -> np.ndarray:
    n = len(values)
    c = G @ (values - values.mean(axis=0)) / n / values.std(axis=0)
    return c * np.sqrt((n - 2) / (1 - c * c))


@pytest.fixture(scope="module")
def given() -> Input:
    return Input()


def by_block(given: Input, scores: np.ndarray) -> list[h.BlockMoments]:
    parts = []
    for first in range(0, BLOCK * BLOCKS, BLOCK):
        at = slice(first, first + BLOCK)
        G_1, G_2 = (ld.standardise(p[at]).astype(float) for p in (given.panel_1, given.panel_2))
        R = G_1 @ G_1.T / G_1.shape[1]
        M, cumulated = ld.inverse_factor(G_2, 0.99)
        part = h.published_block_moments(
            M, cumulated, R, R, scores[at], 110, 110, ld_share=0.9, inverse_share=0.85
        )
        parts.append(part)
    return parts


def moments_of(given: Input, scores: np.ndarray, trait: bool) -> tuple[h.Moments, list]:
    parts = by_block(given, scores)
    total = sum(parts[1:], parts[0])
    c = 3 + trait
    kappa, inverse_n = np.zeros((2, c, c))
    kappa[:3, :3], inverse_n[:3, :3] = given.Sigma / given.n, 1 / given.n
    if trait:
        kappa[3, 3] = inverse_n[3, 3] = 1 / given.n_trait
    return h.combine(total, kappa, inverse_n, 200.0, published=True), parts


def both_scores(given: Input) -> np.ndarray:
    own = h.published_scores(given.z, given.Sigma, given.n)
    return np.column_stack([own, given.z_trait / np.sqrt(given.n_trait)])


def test_heritability_and_correlation_are_the_programs(given):
    x, _ = moments_of(given, h.published_scores(given.z, given.Sigma, given.n), False)
    h2, error = h.heritability(x, given.bases)
    np.testing.assert_allclose(h2, H2, rtol=2e-5)
    np.testing.assert_allclose(error, H2_ERROR, rtol=2e-5)
    rho, error = h.genetic_correlation(x, given.bases[1:2], given.bases)
    np.testing.assert_allclose(rho[0], RHO_1, rtol=2e-4)
    np.testing.assert_allclose(error[0], RHO_1_ERROR, rtol=2e-4, atol=1e-9)


def test_missing_variants_are_rows_dropped_as_the_program_does(given):
    scores = h.published_scores(given.z, given.Sigma, given.n)
    scores[np.arange(3, 200, 10)] = np.nan
    x, _ = moments_of(given, scores, False)
    np.testing.assert_allclose(h.heritability(x, given.bases)[0], H2_THIN, rtol=2e-5)


def test_correlation_with_a_trait_of_other_people_is_the_programs(given):
    x, _ = moments_of(given, both_scores(given), True)
    rho, error, h2, _ = h.cross_trait_correlation(x, given.bases)
    assert h2 == pytest.approx(H2_TRAIT, abs=6e-5)
    np.testing.assert_allclose(rho, RHO_TRAIT, rtol=5e-5)
    np.testing.assert_allclose(error, RHO_TRAIT_ERROR, rtol=5e-5)


def test_people_in_common_are_dealt_with_as_the_program_does(given):
    x, parts = moments_of(given, both_scores(given), True)
    group = np.repeat(np.arange(BLOCKS), BLOCK)
    score = np.concatenate(
        [
            published.adjusted_ld_scores(np.corrcoef(given.panel_1[k : k + BLOCK]), 220)
            for k in range(0, 200, BLOCK)
        ]
    )
    deviation = np.sqrt(np.diag(given.Sigma))
    intercept, left_out = published.cross_trait_intercepts(
        given.z * given.z_trait[:, None], score, (500.0, 400.0),
        (np.diag(x.Gamma)[:3] / deviation**2, x.Gamma[3, 3]), x.t_1, group,
    )  # fmt: skip
    np.testing.assert_allclose(intercept, INTERCEPTS, rtol=5e-4)
    scale = deviation / np.sqrt(500 * 400)
    quadratic, d = np.stack([p.quadratic for p in parts]), np.array([p.t_1 for p in parts])
    Gammas = h.leave_one_out_Gamma(quadratic, d, np.zeros(BLOCKS), x.kappa, 200.0)
    whole = x.Gamma.copy()
    whole[:3, 3] -= x.t_1 * intercept * scale
    Gammas[:, :3, 3] -= (d.sum() - d)[:, None] * left_out * scale
    rho = h.cross_trait_ratio(whole, given.bases)
    np.testing.assert_allclose(rho, RHO_OVERLAP, rtol=1e-3)
    each = np.stack([h.cross_trait_ratio(G, given.bases) for G in Gammas])
    # The program takes a group's sums with weights of one round off sums with those of the round
    # before; one set of weights throughout differs in the third digit.
    pseudo = published.jackknife_estimate(rho, each)
    np.testing.assert_allclose(pseudo, RHO_PSEUDO, atol=0.006)
    np.testing.assert_allclose(jackknife_standard_error(each), RHO_PSEUDO_ERROR, rtol=0.015)


@pytest.mark.parametrize(
    ("score", "group", "message"),
    [
        (np.linspace(1, 9, 60), np.zeros(60, dtype=int), "in one group of LD blocks"),
        (np.linspace(0, 1, 60), np.arange(60) % 3, "LD scores of all variants are at most 1"),
        (np.full(60, 3.0), np.arange(60) % 3, "LD scores of all variants are equal"),
        (np.where(np.arange(60) < 20, 5.0, 1.0) + (np.arange(60) < 9), np.arange(60) // 20,
         "differ within one group"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_fitted_is_named(score, group, message):
    y = np.random.default_rng(4).normal(size=(60, 2))
    with pytest.raises(ValueError, match=message):
        published.cross_trait_intercepts(
            y, score, (500.0, 400.0), (np.array([0.3, 0.4]), 0.3), 40.0, group
        )


def test_left_out_intercepts_equal_a_plain_fit_with_the_same_weights():
    """Two rounds of weights from all variants, then least squares without each group."""
    rng = np.random.default_rng(3)
    m, d, n = 90, 60.0, (rng.uniform(300, 500, 90), 400.0)
    y, score = rng.normal(size=(m, 1)) + 0.5, rng.uniform(0.2, 9, m)
    group = rng.permutation(np.arange(m) % 6)
    found, left_out = published.cross_trait_intercepts(
        y, score, n, (np.array([1.4]), 0.3), d, group
    )
    score = np.where(score < 1, 1, score)
    root = np.sqrt(n[0] * 400)
    X = np.column_stack([np.ones(m), score * root / root.mean()])
    rho, constant = d * y.mean() / np.mean(score * root), 0.0
    for _ in range(2):
        rho = max(-1.0, min(1.0, rho))
        spread = (1.0 * n[0] * score / d + 1) * (0.3 * 400 * score / d + 1)
        weight = 1 / score / (spread + (rho * root * score / d + constant) ** 2)
        W = np.diag(weight)
        constant, slope = np.linalg.solve(X.T @ W @ X, X.T @ W @ y[:, 0])
        rho = slope * d / root.mean()
    assert found[0] == pytest.approx(constant, rel=1e-10)
    for g in range(6):
        rest = group != g
        fit = np.linalg.solve(X[rest].T @ W[np.ix_(rest, rest)] @ X[rest],
                              X[rest].T @ (weight * y[:, 0])[rest])  # fmt: skip
        assert left_out[g, 0] == pytest.approx(fit[0], rel=1e-9)
