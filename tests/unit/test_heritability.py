"""The moment estimator against dense matrices, textbook formulae and simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from heritability_study import correlated_dosages
from rvga import heritability as h
from rvga import ld


def make_reference(dosages_1: np.ndarray, dosages_2: np.ndarray, starts, share=0.95):
    """Return the blocks of one chromosome, K and both halves' genotypes."""
    half_a, half_b = ld.split_halves(dosages_1.shape[1], 1)
    G_a, G_b = (ld.standardise(dosages_1[:, half]) for half in (half_a, half_b))
    K = np.zeros((len(half_a), len(half_b)))
    ld.accumulate_kinship(K, G_a, G_b)
    G_2 = ld.standardise(dosages_2)
    blocks = [
        ld.make_block(G_a[i:j], G_b[i:j], G_2[i:j], K, share) for i, j in itertools.pairwise(starts)
    ]
    return blocks, G_a, G_b


@pytest.fixture(scope="module")
def small():
    """Return a reference of 3 blocks over 80 variants and random scores of 4 components."""
    dosages = correlated_dosages(110, 200, seed=6).astype(np.float32)
    dosages = dosages[np.minimum(dosages.mean(axis=1), 2 - dosages.mean(axis=1)) > 0.3][:80]
    starts = [0, 30, 55, 80]
    blocks, G_a, G_b = make_reference(dosages[:, :100], dosages[:, 100:], starts)
    scores = np.random.default_rng(2).normal(size=(80, 4)) / 10
    return starts, blocks, G_a, G_b, scores


def total_of(starts, blocks, scores, n_a=50, n_b=50) -> h.BlockMoments:
    parts = [
        h.block_moments(b.M, b.R_a, b.R_b, b.T, scores[i:j], n_a, n_b)
        for i, j, b in zip(starts, starts[1:], blocks, strict=False)
    ]
    return parts[0] + parts[1] + parts[2]


@pytest.mark.parametrize("missing", [0, 1, 25, 60])
def test_any_subset_of_variants_equals_the_dense_computation(small, missing):
    starts, blocks, G_a, G_b, scores = small
    gone = np.random.default_rng(missing).permutation(80)[:missing]
    scores = scores.copy()
    scores[gone, 1] = np.nan
    D = np.ones(80)
    D[gone] = 0
    Omega, mask = np.zeros((80, 80)), np.zeros((80, 80))
    for i, j, block in zip(starts, starts[1:], blocks, strict=False):
        DM = D[i:j, None] * block.M.astype(float)
        Omega[i:j, i:j] = DM @ DM.T
        mask[i:j, i:j] = 1
    R_a, R_b = G_a.astype(float) @ G_a.T / 50, G_b.astype(float) @ G_b.T / 50
    R_1 = (R_a + R_b) / 2
    u = np.where(D[:, None] > 0, np.nan_to_num(scores), 0)
    total = total_of(starts, blocks, scores)
    np.testing.assert_allclose(total.t_1, np.trace(Omega @ R_1), rtol=1e-4)
    np.testing.assert_allclose(total.t_2, np.trace(Omega @ R_a @ R_b), rtol=1e-4)
    np.testing.assert_allclose(
        total.t_4, np.trace(Omega @ (R_a * mask) @ Omega @ (R_b * mask)), rtol=1e-4
    )
    np.testing.assert_allclose(total.quadratic, u.T @ Omega @ u, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        total.quartic, u.T @ Omega @ (R_1 * mask) @ Omega @ u, rtol=1e-4, atol=1e-6
    )


def test_the_estimate_does_not_depend_on_the_basis(small):
    starts, blocks, _, _, scores = small
    Q = np.random.default_rng(5).normal(size=(4, 4))
    kappa = np.cov(np.random.default_rng(6).normal(size=(4, 50))) / 100
    n = np.full((4, 4), 0.01)
    one = h.combine(total_of(starts, blocks, scores), kappa, n, 80)
    other = h.combine(total_of(starts, blocks, scores @ Q.T), Q @ kappa @ Q.T, n, 80)
    np.testing.assert_allclose(other.Gamma, Q @ one.Gamma @ Q.T, rtol=1e-9)
    np.testing.assert_allclose(other.s, Q @ one.s @ Q.T, rtol=1e-9)
    rows = np.random.default_rng(7).normal(size=(5, 4))
    for ours, theirs in zip(
        h.heritability(one, rows @ Q), h.heritability(other, rows), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8)


def random_moments(c: int, seed: int, n: float = 500.0) -> h.Moments:
    """Return moments with positive definite Γ, κ, s that belong to one sample."""
    rng = np.random.default_rng(seed)

    def positive() -> np.ndarray:
        x = rng.normal(size=(c, 3 * c))
        return x @ x.T / (3 * c)

    Gamma = positive()
    kappa = (Gamma + positive()) / n
    return h.Moments(Gamma, kappa, positive() * 2, 1.3, 70.0, 90.0, np.full((c, c), 1 / n))


def delta_variance(x: h.Moments, u: int, v: int) -> float:
    """Return Var(ρ_uv) by the delta method with the full covariance of three γ̂."""
    g = x.Gamma
    rho = g[u, v] / np.sqrt(g[u, u] * g[v, v])
    entries = [(u, v), (u, u), (v, v)]
    gradient = np.array(
        [1 / np.sqrt(g[u, u] * g[v, v]), -rho / (2 * g[u, u]), -rho / (2 * g[v, v])]
    )
    C = [[h.covariance_of_estimates(x, first, second) for second in entries] for first in entries]
    return float(gradient @ np.array(C) @ gradient)


def test_error_of_correlation_is_the_delta_method():
    x = random_moments(5, 1)
    rho, error = h.genetic_correlation(x, np.eye(5)[:3], np.eye(5))
    for u in range(3):
        for v in range(5):
            expected = 0.0 if u == v else np.sqrt(delta_variance(x, u, v))
            assert error[u, v] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(rho[[0, 1, 2], [0, 1, 2]], 1.0)


def test_error_of_heritability_is_the_delta_method():
    x = random_moments(3, 2)
    n = 1 / x.inverse_n[0, 0]
    _, error = h.heritability(x, np.eye(3))
    for v in range(3):
        variance, gamma = n * x.kappa[v, v], x.Gamma[v, v]
        # γ̂ and the variance estimate move together: their covariance is 4 γ Σ / n.
        V = h.covariance_of_estimates(x, (v, v), (v, v))
        expected = V / variance**2 - 8 * gamma**2 / variance**2 / n
        expected += 2 * gamma**2 / variance**2 / n
        assert error[v] == pytest.approx(np.sqrt(expected), rel=1e-9)


def test_cross_trait_error_is_the_delta_method():
    x = random_moments(4, 3)
    kappa, inverse_n = x.kappa.copy(), x.inverse_n.copy()
    kappa[-1, :-1] = kappa[:-1, -1] = 0
    inverse_n[-1, :-1] = inverse_n[:-1, -1] = 0
    inverse_n[-1, -1] = 1 / 900
    x = h.Moments(x.Gamma, kappa, x.s, x.scale, x.t_1, x.t_4, inverse_n)
    rho, error, h2, _ = h.cross_trait_correlation(x, np.eye(3))
    for u in range(3):
        g = x.Gamma
        assert rho[u] == pytest.approx(g[u, 3] / np.sqrt(g[u, u] * g[3, 3]))
        assert error[u] == pytest.approx(np.sqrt(delta_variance(x, u, 3)), rel=1e-9)
    assert h2 == pytest.approx(x.Gamma[3, 3] / (900 * kappa[3, 3]))


def test_published_errors_are_those_of_the_paper():
    base = random_moments(2, 4)
    n, d = 500.0, 90.0
    x = h.Moments(base.Gamma, base.kappa, base.Gamma, 1.0, d, d, base.inverse_n)
    (h_u, h_v), errors = h.heritability(x, np.eye(2))
    expected = 2 * d / n**2 + 2 * h_u / n + 2 * h_u * (1 - h_u) / n
    assert errors[0] == pytest.approx(np.sqrt(expected))
    rho, error = h.genetic_correlation(x, np.eye(2), np.eye(2))
    q, E = rho[0, 1] ** 2, 1 - rho[0, 1] ** 2
    H_u, H_v = 1 / h_u - 1, 1 / h_v - 1
    D = n * x.kappa[0, 1] / x.Gamma[0, 1] - 1
    square = (4 / n + d / n**2) * E**2 + (1 / n + d / n**2) * E * (H_u + H_v)
    square -= 2 * (1 / n + d / n**2) * E * q * D
    square += d / (2 * n**2) * q * ((H_u - D) ** 2 + (H_v - D) ** 2)
    square += d / n**2 * (q**2 * D**2 + H_u * H_v - q * D * (H_u + H_v))
    # The printed formula and the delta method are one, term by term.
    assert error[0, 1] ** 2 == pytest.approx(square, rel=1e-9)


def test_published_block_is_the_plain_formula(small):
    starts, blocks, _, _, scores = small
    block = blocks[0]
    u = scores[: starts[1]].copy()
    u[[2, 9], 0] = np.nan
    part = h.published_block_moments(block.M, block.share, block.R_a, block.R_b, u, 50, 50)
    kept = np.isfinite(u).all(axis=1)
    values, vectors = np.linalg.eigh((block.R_a.astype(float) + block.R_b) / 2)
    order = np.argsort(values)[::-1]
    cumulated = np.cumsum(values[order]) / values.sum()
    k = int((cumulated < 0.98).sum()) + 1
    L = vectors[:, order[:k]] * np.sqrt(values[order[:k]])
    M = block.M[:, : int((block.share < 0.95).sum()) + 1].astype(float)
    assert part.t_1 == pytest.approx(np.sum((L[kept].T @ M[kept]) ** 2), rel=1e-6)
    np.testing.assert_allclose(
        part.quadratic, (u[kept].T @ M[kept]) @ (M[kept].T @ u[kept]), rtol=1e-9
    )


def test_left_out_groups_equal_estimates_without_their_blocks(small):
    starts, blocks, _, _, scores = small
    parts = [
        h.block_moments(b.M, b.R_a, b.R_b, b.T, scores[i:j], 50, 50)
        for i, j, b in zip(starts, starts[1:], blocks, strict=False)
    ]
    kappa, n = np.eye(4) / 300, np.full((4, 4), 1 / 300)
    left_out = h.leave_one_out_Gamma(
        np.stack([p.quadratic for p in parts]),
        np.array([p.t_1 for p in parts]),
        np.array([p.t_2 for p in parts]),
        kappa,
        80,
    )
    without_second = h.combine(parts[0] + parts[2], kappa, n, 80)
    np.testing.assert_allclose(left_out[1], without_second.Gamma, rtol=1e-10)


def test_jackknife_errors_follow_from_the_left_out_estimates():
    rng = np.random.default_rng(8)
    base = random_moments(3, 5).Gamma
    Gammas = np.stack([base + 0.01 * (e + e.T) for e in rng.normal(size=(20, 3, 3))])
    h2 = np.array([G[0, 0] / 2.0 for G in Gammas])
    expected = np.sqrt(19 / 20 * np.sum((h2 - h2.mean()) ** 2))
    found = h.heritability_jackknife(Gammas, 2 * np.eye(3), np.eye(3)[:1])
    assert found[0] == pytest.approx(expected)
    rho = np.array([G[0, 1] / np.sqrt(G[0, 0] * G[1, 1]) for G in Gammas])
    expected = np.sqrt(19 / 20 * np.sum((rho - rho.mean()) ** 2))
    found = h.genetic_correlation_jackknife(Gammas, np.eye(3)[:1], np.eye(3)[1:2])
    assert found[0, 0] == pytest.approx(expected)


def test_scores_are_linear_and_agree_with_their_z_forms():
    rng = np.random.default_rng(9)
    n, g = 400, rng.normal(size=400)
    S = rng.normal(size=(n, 2)) + 0.2 * g[:, None]
    S, g = S - S.mean(axis=0), g - g.mean()
    a = float(g @ g)
    beta = (g @ S / a)[None, :]
    expected = (g / g.std()) @ S / n
    np.testing.assert_allclose(h.component_scores(beta, np.array([a]), n)[0], expected)
    residual = S - g[:, None] * beta
    z = beta[0] / np.sqrt((residual**2).sum(axis=0) / (n - 2) / a)
    r = expected / S.std(axis=0)
    np.testing.assert_allclose(h.trait_scores(z, np.full(2, n - 2.0)), r, rtol=1e-9)


def test_p_values_come_from_the_tail():
    found = h.neg_log_10_p_normal(np.array([2.0, -2.0, 60.0]), np.ones(3), sides=1)
    np.testing.assert_allclose(found[:2], -np.log10(stats.norm.sf([2.0, -2.0])), rtol=1e-10)
    assert found[2] == pytest.approx(-stats.norm.logsf(60) / np.log(10))
    two = h.neg_log_10_p_normal(np.array([-2.0]), np.ones(1), sides=2)
    assert two[0] == pytest.approx(-np.log10(2 * stats.norm.sf(2.0)))
    assert np.isnan(h.neg_log_10_p_normal(np.ones(2), np.array([0.0, np.nan]), sides=1)).all()


def test_reasons_name_what_is_out_of_range():
    h2 = np.array([0.3, -0.1, 1.2, 0.5, np.nan, 0.2])
    error = np.array([0.1, 0.1, 0.1, 1.5, 0.1, np.nan])
    assert h.heritability_reasons(h2, error).tolist() == [
        "", "heritability below 0", "heritability above 1", "standard error above 1",
        "no variance", "standard error not defined",
    ]  # fmt: skip
    rho, error = np.array([1.0, -1.2, np.nan, 0.1]), np.array([0.0, 0.1, np.nan, 2.0])
    assert h.correlation_in_range(rho, error).tolist() == [True, False, False, False]
    assert h.correlation_reasons(rho, error).tolist() == [
        "", "correlation beyond 1", "heritability not above 0", "standard error above 1",
    ]  # fmt: skip


def test_no_estimate_from_a_reference_without_information(small):
    nothing = h.BlockMoments(np.eye(2), np.eye(2), 1.0, -0.5, 1.0)
    with pytest.raises(ValueError, match="not positive"):
        h.combine(nothing, np.eye(2), np.eye(2), 10)


def test_parcels_are_compact_numbered_and_repeatable():
    grid = np.indices((6, 6, 6)).reshape(3, -1).T.astype(float)
    labels = h.default_parcels(grid, 8)
    assert set(labels) == set(range(1, 9))
    assert np.array_equal(labels, h.default_parcels(grid, 8))
    spread = [grid[labels == k].std(axis=0).max() for k in range(1, 9)]
    assert max(spread) < 1.8
    centres = [grid[labels == k].mean(axis=0)[2] for k in range(1, 9)]
    assert centres == sorted(centres)
    assert set(h.default_parcels(grid[:3], 24)) == {1, 2, 3}


def test_region_rows_are_the_mean_images():
    bases = np.arange(8.0).reshape(4, 2)
    region, rows = h.region_bases(bases, np.array([0, 7, 7, 2]))
    assert region.tolist() == [2, 7]
    np.testing.assert_allclose(rows, [[6, 7], [3, 4]])


@pytest.fixture(scope="module")
def replicates():
    """Return (estimates, errors) of h² and ρ, truth .3, over genotype draws and phenotypes.

    Phenotypes are columns, as components are; people of study and panels are all different.
    """
    n, n_panel, m, pairs, truth = 1000, 400, 1500, 40, 0.3
    heritabilities, correlations = [], []
    for draw in range(4):
        dosages = correlated_dosages(m, n + 2 * n_panel, seed=100 + draw, decay=0.85)
        panel_1, panel_2 = dosages[:, n : n + n_panel], dosages[:, n + n_panel :]
        keep = np.ones(m, dtype=bool)
        for part in (dosages[:, :n], panel_1, panel_2):
            frequency = ld.allele_frequency(part)
            keep &= np.minimum(frequency, 1 - frequency) >= 0.02
        M = int(keep.sum())
        starts = [0, M // 3, 2 * M // 3, M]
        blocks, *_ = make_reference(
            panel_1[keep].astype(np.float32), panel_2[keep].astype(np.float32), starts, 0.98
        )
        G = ld.standardise(dosages[keep, :n])
        rng = np.random.default_rng(draw)
        effects = rng.normal(size=(M, 2 * pairs))
        effects[:, 1::2] = 0.5 * effects[:, ::2] + np.sqrt(0.75) * effects[:, 1::2]
        genetic = G.T @ effects
        genetic /= genetic.std(axis=0)
        realised = np.mean(genetic[:, ::2] * genetic[:, 1::2], axis=0)
        y = np.sqrt(truth) * genetic + np.sqrt(1 - truth) * rng.normal(size=(n, 2 * pairs))
        y -= y.mean(axis=0)
        total = total_of(starts, blocks, G @ y / n, n_panel // 2, n_panel // 2)
        shape = (2 * pairs, 2 * pairs)
        x = h.combine(total, y.T @ y / n**2, np.full(shape, 1 / n), M)
        h2, error = h.heritability(x, np.eye(2 * pairs))
        heritabilities += list(zip(h2 - truth, error, strict=True))
        rho, error = h.genetic_correlation(x, np.eye(2 * pairs)[::2], np.eye(2 * pairs)[1::2])
        correlations += list(zip(np.diag(rho) - realised, np.diag(error), strict=True))
    return np.array(heritabilities), np.array(correlations)


@pytest.mark.parametrize("which", [0, 1])
def test_estimates_are_unbiased_and_errors_calibrated(replicates, which):
    """Monte Carlo: bias within 4 of its errors, mean SE² within the error of the variance.

    Replicates of a genotype draw share its panels, so the bias's error is taken between draws
    (floor: as if all replicates were independent).
    """
    deviation, error = replicates[which].T
    draws = np.split(deviation, 4)
    between = np.std([d.mean() for d in draws], ddof=1) / 2
    independent = deviation.std() / np.sqrt(len(deviation))
    assert abs(deviation.mean()) < 4 * max(between, independent)
    ratio = np.sqrt(np.mean(error**2)) / deviation.std(ddof=1)
    # 160 to 320 replicates know an SD to 4 to 6 %, and the rest is spread between panels.
    assert 0.8 < ratio < 1.25
    covered = np.mean(np.abs(deviation) < 1.96 * error)
    assert 0.88 < covered <= 1.0
