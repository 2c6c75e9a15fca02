"""Band regression against one dense weighted least-squares fit, and on simulated overlap."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from heritability_study import correlated_dosages
from rvga import bands, ld
from rvga import heritability as h
from rvga.jackknife import jackknife_standard_error

N, N_2 = 700.0, 1100.0
STARTS = [0, 30, 55, 80, 110, 140]


@pytest.fixture(scope="module")
def blocks(genotypes):
    """Return a reference of 5 blocks over 140 variants and scores of 4 phenotypes.

    The last phenotype is a trait of other people; 20 variants lack scores.
    """
    made, _, scores = genotypes
    return made, scores


@pytest.fixture(scope="module")
def genotypes():
    """Return the blocks, the standardised halves of panel 1, and the scores."""
    dosages = correlated_dosages(240, 260, seed=6).astype(np.float32)
    common = np.minimum(dosages.mean(axis=1), 2 - dosages.mean(axis=1)) > 0.3
    dosages = dosages[common][:140]
    halves = ld.split_halves(130, 1)
    G_a, G_b = (ld.standardise(dosages[:, :130][:, half]) for half in halves)
    K = np.zeros((65, 65))
    ld.accumulate_kinship(K, G_a, G_b)
    G_2 = ld.standardise(dosages[:, 130:])
    made = [
        ld.make_block(G_a[i:j], G_b[i:j], G_2[i:j], K, 0.98) for i, j in itertools.pairwise(STARTS)
    ]
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(140, 4)) / np.sqrt(N)
    scores[rng.permutation(140)[:20], 1] = np.nan
    return made, (G_a, G_b), scores


def pipeline(made, scores, samples, groups, order=None, share_of=None):
    """Return what the functions give, blocks in any order: Γ̂, κ̂, and both without each group."""
    number, m = len(bands.EDGES), float(len(scores))
    order = range(len(made)) if order is None else order
    sample_of = np.array([0, 0, 0, 1])
    seen = {}
    for i in order:
        rows = slice(STARTS[i], STARTS[i + 1])
        block = made[i]
        seen[i] = h.project_block(block.M, block.R_a, block.R_b, block.T, scores[rows], 65, 65)
    t_1, t_2 = np.zeros((2, len(made), number))
    squares = np.zeros((len(made), number, 2))
    for i, one in seen.items():
        band = bands.band_of(made[i].share)
        t_1[i] = bands.band_sums(np.diag(one.H_1), band, number)
        t_2[i] = bands.band_sums(one.t_2, band, number)
        for a in (0, 1):
            part = (one.q[:, sample_of == a] ** 2).sum(axis=1)
            squares[i, :, a] = bands.band_sums(part, band, number)
    equations = bands.Equations(
        t_1.ravel(), t_2.ravel(), squares.reshape(-1, 2),
        np.repeat(np.arange(len(made)), number), np.tile(np.arange(number), len(made)),
    )  # fmt: skip
    h2 = [bands.mean_heritability(equations, a, one, m) for a, one in enumerate(samples)]
    v = bands.inverse_variances(equations, samples, h2, m)
    each = bands.normal_matrices(equations, v, m)
    normal = np.zeros((max(groups) + 1, 2, 2, 2, 2))
    np.add.at(normal, np.array(groups)[equations.block], each)
    right = np.zeros((len(normal), 2, 4, 4))
    for i, one in seen.items():
        right[groups[i]] += bands.block_right_sides(
            one.q, bands.band_of(made[i].share), t_1[i], t_2[i],
            v.reshape(len(made), number, 2)[i][:, sample_of], m,
        )  # fmt: skip
    return equations, v, normal, right, sample_of, seen


def dense(made, scores, samples, free, left_out=()):
    """Return Γ̂ and κ̂ by one weighted fit a pair from dense matrices of whole variants."""
    m = len(scores)
    D = np.isfinite(scores).all(axis=1).astype(float)
    u = np.where(D[:, None] > 0, np.nan_to_num(scores), 0.0)
    rows = []
    for i, block in enumerate(made):
        at = slice(STARTS[i], STARTS[i + 1])
        R_1 = (block.R_a.astype(float) + block.R_b.astype(float)) / 2
        share = block.share.astype(float)
        reached = np.flatnonzero(share >= 0.98 - 1e-9)
        last = reached[0] if len(reached) else len(share) - 1
        low = 0.0
        for k, edge in enumerate(bands.EDGES):
            inside = (share > low + 1e-9) & (share <= edge + 1e-9)
            if k == len(bands.EDGES) - 1:
                inside |= (np.arange(len(share)) == last) & (share > low + 1e-9)
            low = edge
            W = D[at, None] * block.M.astype(float)[:, inside]
            Omega = W @ W.T
            t_1, t_2 = np.sum(Omega * R_1), np.sum(Omega * block.T.astype(float))
            rows.append((i, t_1, t_2, u[at].T @ Omega @ u[at]))
    block_of = np.array([row[0] for row in rows])
    t_1, t_2 = (np.array([row[k] for row in rows]) for k in (1, 2))
    Q = np.stack([row[3] for row in rows])
    use = (t_1 > 0) & (t_2 > 0)
    x = np.stack([t_2 / m, t_1], axis=1)

    def fit(w, y, kappa):
        keep = use & ~np.isin(block_of, left_out)
        root = np.sqrt(w[keep])
        if kappa is None:
            return np.linalg.lstsq(root[:, None] * x[keep], root * y[keep], rcond=None)[0]
        slope = np.linalg.lstsq(
            (root * x[keep, 0])[:, None], root * (y[keep] - kappa * t_1[keep]), rcond=None
        )[0][0]
        return np.array([slope, kappa])

    kept_left_out, left_out = left_out, ()
    sigma = np.diag([2.0, 1.0, 0.5])
    variances = []
    for a, sample in enumerate(samples):
        y = (Q[:, :3, :3].trace(axis1=1, axis2=2) if a == 0 else Q[:, 3, 3]) / sample.variance
        h2 = 0.0
        for _ in range(3):
            w = np.where(use, t_1 / (t_1 / sample.n + h2 * t_2 / m) ** 2, 0.0)
            h2 = np.clip(fit(w, y, 1 / sample.n if sample.fixed else None)[0], 0, 1)
        variances.append(t_1 / sample.n + h2 * t_2 / m)
    left_out = kept_left_out
    own_kappa = np.zeros((4, 4))
    own_kappa[:3, :3], own_kappa[3, 3] = sigma / N, 1 / N_2
    Gamma, kappa = np.zeros((2, 4, 4))
    of = [0, 0, 0, 1]
    for j, k in itertools.product(range(4), range(4)):
        w = np.where(use, t_1 / (variances[of[j]] * variances[of[k]]), 0.0)
        Gamma[j, k], kappa[j, k] = fit(w, Q[:, j, k], None if free else own_kappa[j, k])
    return Gamma, kappa


def samples(fixed: bool) -> list[bands.Sample]:
    return [bands.Sample(N, 3.5, fixed), bands.Sample(N_2, 1.0, fixed)]


def fixed_kappa() -> dict:
    own = np.diag([2.0, 1.0, 0.5]) / N
    zero = np.zeros((3, 1))
    return {(0, 0): own, (0, 1): zero, (1, 0): zero.T, (1, 1): np.array([[1 / N_2]])}


@pytest.mark.parametrize("free", [True, False])
def test_estimates_and_jackknife_equal_dense_weighted_fits(blocks, free):
    made, scores = blocks
    groups = [0, 0, 1, 2, 2]
    *_, normal, right, of, _ = pipeline(made, scores, samples(not free), groups)
    kappa_of = {} if free else fixed_kappa()
    found = bands.solve(normal.sum(axis=0), right.sum(axis=0), of, kappa_of)
    expected = dense(made, scores, samples(not free), free)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-12)
    left_out = bands.leave_one_out(normal, right, of, kappa_of)
    without = [
        dense(made, scores, samples(not free), free, [i for i in range(5) if groups[i] == g])
        for g in range(3)
    ]
    for k in (0, 1):
        np.testing.assert_allclose(left_out[k], [one[k] for one in without], rtol=1e-8, atol=1e-12)
    # h², ρ and their jackknife errors follow from the same matrices.
    Sigma, rows = np.diag([2.0, 1.0, 0.5]), np.random.default_rng(3).normal(size=(6, 3))
    h2 = np.array([[b @ one[0][:3, :3] @ b / (b @ Sigma @ b) for b in rows] for one in without])
    np.testing.assert_allclose(
        h.heritability_jackknife(left_out[0][:, :3, :3], Sigma, rows),
        jackknife_standard_error(h2), rtol=1e-8,
    )  # fmt: skip


def test_correlations_and_their_jackknife_equal_direct_ratios():
    rng = np.random.default_rng(4)
    base = rng.normal(size=(4, 12))
    Gamma = base @ base.T
    Gammas = np.stack([Gamma + 0.2 * (e + e.T) for e in rng.normal(size=(9, 4, 4))])
    rows = rng.normal(size=(5, 3))

    def ratio(G):
        return np.array(
            [
                b @ G[:3, 3] / np.sqrt((b @ G[:3, :3] @ b) * G[3, 3]) if G[3, 3] > 0 else np.nan
                for b in rows
            ]
        )

    np.testing.assert_allclose(h.cross_trait_ratio(Gamma, rows), ratio(Gamma), rtol=1e-10)
    each = np.stack([ratio(G) for G in Gammas])
    np.testing.assert_allclose(
        h.cross_trait_jackknife(Gammas, rows),
        np.sqrt(8 / 9 * np.sum((each - each.mean(axis=0)) ** 2, axis=0)), rtol=1e-10,
    )  # fmt: skip
    Gamma[3, 3] = -1
    assert np.isnan(h.cross_trait_ratio(Gamma, rows)).all()


def test_order_of_blocks_and_variants_does_not_matter(blocks):
    made, scores = blocks
    groups = [0, 0, 1, 2, 2]
    one = pipeline(made, scores, samples(False), groups)
    other = pipeline(made, scores, samples(False), groups, order=[3, 1, 4, 0, 2])
    np.testing.assert_allclose(one[3], other[3], rtol=1e-12)
    rng = np.random.default_rng(9)
    shuffled, mixed = [], scores.copy()
    for (i, j), block in zip(itertools.pairwise(STARTS), made, strict=True):
        p = rng.permutation(j - i)
        square = np.ix_(p, p)
        shuffled.append(
            ld.LdBlock(
                block.M[p], block.share, *(x[square] for x in (block.R_a, block.R_b, block.T))
            )
        )
        mixed[i:j] = scores[i:j][p]
    third = pipeline(shuffled, mixed, samples(False), groups)
    np.testing.assert_allclose(one[3], third[3], rtol=1e-9)


def test_the_estimate_does_not_depend_on_the_basis(blocks):
    made, scores = blocks
    groups = [0] * 5
    Q = np.eye(4)
    Q[:3, :3] = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
    estimates = []
    for given in (scores, scores @ Q.T):
        *_, normal, right, of, _ = pipeline(made, given, samples(False), groups)
        estimates.append(bands.solve(normal[0], right[0], of, {}))
    for one, other in zip(*estimates, strict=True):
        np.testing.assert_allclose(other, Q @ one @ Q.T, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("fixed", [True, False])
def test_coefficients_give_the_same_estimate_as_the_regression(blocks, fixed):
    made, scores = blocks
    equations, v, normal, right, of, seen = pipeline(made, scores, samples(fixed), [0] * 5)
    c = bands.coefficients(equations, v[:, 0], len(scores), fixed)
    assert c @ equations.t_2 / len(scores) == pytest.approx(1)
    if not fixed:
        assert c @ equations.t_1 == pytest.approx(0, abs=1e-9 * np.abs(c * equations.t_1).max())
    kappa = np.diag([2.0, 1.0, 0.5]) / N
    total = np.zeros((4, 4))
    t_1 = 0.0
    for i, one in seen.items():
        band = bands.band_of(made[i].share)
        weight = np.where(band >= 0, c[i * 6 : i * 6 + 6][np.maximum(band, 0)], 0.0)
        part = h.moments_of(one, weight)
        total, t_1 = total + part.quadratic, t_1 + part.t_1
        C = np.diag(weight)
        np.testing.assert_allclose(part.t_4, np.trace(C @ one.H_a @ C @ one.H_b), rtol=1e-10)
        np.testing.assert_allclose(
            part.quartic, one.q.T @ C @ one.H_1 @ C @ one.q, rtol=1e-9, atol=1e-14
        )
    Gamma, _ = bands.solve(normal[0], right[0], of, fixed_kappa() if fixed else {})
    estimate = total[:3, :3] - t_1 * (kappa if fixed else 0)
    np.testing.assert_allclose(estimate, Gamma[:3, :3], rtol=1e-8, atol=1e-12)


def test_weights_of_variants_are_the_diagonal_of_R_Omega_R(blocks):
    made, scores = blocks
    block, rows = made[1], slice(STARTS[1], STARTS[2])
    one = h.project_block(block.M, block.R_a, block.R_b, block.T, scores[rows], 65, 65)
    kept = np.isfinite(scores[rows]).all(axis=1)
    weight = np.random.default_rng(1).uniform(size=block.M.shape[1])
    W = kept[:, None] * block.M.astype(float)
    Omega = W @ np.diag(weight) @ W.T
    expected = np.diag(block.R_a.astype(float) @ Omega @ block.R_b)
    np.testing.assert_allclose(h.variant_weights(one, weight), expected, rtol=1e-5, atol=1e-6)
    scored = np.diag(block.R_a.astype(float) @ block.R_b)
    np.testing.assert_allclose(one.ld_score, scored, rtol=1e-5)


@pytest.mark.parametrize("missing", ["none", "2 %", "10 %", "30 %", "an arm"])
def test_traces_by_band_equal_those_of_the_panels_genotypes(genotypes, missing):
    made, halves, _ = genotypes
    gone = np.zeros(140, dtype=bool)
    if missing == "an arm":
        gone[80:] = True
    elif missing != "none":
        number = round(1.4 * float(missing.split()[0]))
        gone[np.random.default_rng(7).permutation(140)[:number]] = True
    scores = np.where(gone[:, None], np.nan, 0.1) * np.ones((1, 4))
    equations, *_ = pipeline(made, scores, samples(True), [0] * 5)
    # Standardised genotypes are kept in single precision; the traces are taken in double.
    R_a, R_b = (G.astype(float) @ G.astype(float).T / 65 for G in halves)
    expected = np.zeros((2, 5, len(bands.EDGES)))
    for i, (first, stop) in enumerate(itertools.pairwise(STARTS)):
        at = slice(first, stop)
        W = made[i].M.astype(float) * ~gone[at, None]
        band = bands.band_of(made[i].share)
        for k in range(len(bands.EDGES)):
            Omega = np.zeros((140, 140))
            Omega[at, at] = W[:, band == k] @ W[:, band == k].T
            expected[0, i, k] = np.sum(Omega * (R_a + R_b)) / 2
            expected[1, i, k] = np.trace(Omega @ R_a @ R_b)
    scale = np.abs(expected).max(axis=(1, 2))
    np.testing.assert_allclose(equations.t_1, expected[0].ravel(), atol=1e-5 * scale[0])
    np.testing.assert_allclose(equations.t_2, expected[1].ravel(), atol=1e-5 * scale[1])


def test_bands_are_those_of_the_cumulated_share():
    share = np.array([0.2, 0.3, 0.31, 0.6, 0.66, 0.79, 0.85, 0.95, 0.985, 0.99])
    assert bands.band_of(share).tolist() == [0, 0, 1, 2, 3, 3, 4, 5, 5, -1]
    assert bands.band_of(np.array([0.5])).tolist() == [1]
    values = np.arange(20.0).reshape(10, 2)
    sums = bands.band_sums(values, bands.band_of(share), 6)
    np.testing.assert_allclose(sums[0], [2, 4])
    np.testing.assert_allclose(sums.sum(axis=0), values[:-1].sum(axis=0))


def test_no_estimate_from_bands_without_information():
    empty = bands.Equations(
        np.array([1.0, -1.0]), np.array([1.0, 1.0]), np.ones((2, 1)), np.arange(2), np.arange(2)
    )
    with pytest.raises(ValueError, match="1 of 2 bands"):
        bands.mean_heritability(empty, 0, bands.Sample(10, 1, False), 5.0)
    one = np.ones((1, 1, 2, 2))
    with pytest.raises(ValueError, match="slope and intercept"):
        bands.solve(one, np.ones((2, 1, 1)), np.zeros(1, dtype=int), {})


def test_blended_errors_lie_between_both():
    closed, jack = np.array([1.0, 1.0, 2.0]), np.array([3.0, 0.5, 2.0])
    np.testing.assert_allclose(h.blended_error(closed, jack, 0.0), closed)
    np.testing.assert_allclose(h.blended_error(closed, jack, 1.0), [3, 1, 2])
    np.testing.assert_allclose(h.blended_error(closed, jack, 0.5), [np.sqrt(5), 1, 2])
    share = np.array([0.25, 0.75])
    assert h.blend_factor(np.array([2.0, 2.0]), share) == pytest.approx(0)
    assert h.blend_factor(np.array([4.0, 0.0]), share) == pytest.approx(0.75)
    label = h.variant_classes(np.arange(600.0), np.tile([0.1, 0.7, 0.5], 200))
    means, shares = h.class_means(np.ones(600), label)
    assert len(means) == 60
    np.testing.assert_allclose(shares, 1 / 60)


@pytest.fixture(scope="module")
def overlapping():
    """Return κ̂, the truth, and ρ̂ of replicates with half of the people in common.

    Two phenotypes with genetic correlation .5 and environmental correlation .6.
    """
    n, shared, n_panel, m, pairs = 900, 450, 400, 1500, 30
    kappas, rhos, naive = [], [], []
    for draw in range(3):
        total = 2 * n - shared
        dosages = correlated_dosages(m, total + 2 * n_panel, seed=300 + draw, decay=0.85)
        parts = np.split(dosages, [total, total + n_panel], axis=1)
        keep = np.ones(m, dtype=bool)
        for part in parts:
            frequency = ld.allele_frequency(part)
            keep &= np.minimum(frequency, 1 - frequency) >= 0.02
        study, panel_1, panel_2 = (part[keep].astype(np.float32) for part in parts)
        M = int(keep.sum())
        starts = np.linspace(0, M, 11).astype(int)
        halves = ld.split_halves(n_panel, 1)
        G_a, G_b = (ld.standardise(panel_1[:, half]) for half in halves)
        G_2 = ld.standardise(panel_2)
        K = np.zeros((len(halves[0]), len(halves[1])))
        ld.accumulate_kinship(K, G_a, G_b)
        G = ld.standardise(study)
        rng = np.random.default_rng(draw)
        effects = rng.normal(size=(2, M, pairs))
        effects[1] = 0.5 * effects[0] + np.sqrt(0.75) * effects[1]
        genetic = np.einsum("mn,amp->anp", G, effects)
        genetic /= genetic.std(axis=1, keepdims=True)
        noise = rng.normal(size=(2, total, pairs))
        noise[1] = 0.6 * noise[0] + 0.8 * noise[1]
        y = np.sqrt(0.4) * genetic + np.sqrt(0.6) * noise
        people = slice(0, n), slice(total - n, total)
        scores = []
        for a in (0, 1):
            own = y[a][people[a]]
            own = (own - own.mean(axis=0)) / own.std(axis=0)
            scores.append(ld.standardise(study[:, people[a]]) @ own / n)
        both = slice(total - n, n)
        overlap = (y[0][both] * y[1][both]).mean(axis=0) * shared / n**2
        number, found = len(bands.EDGES), []
        for i, j in itertools.pairwise(starts):
            block = ld.make_block(G_a[i:j], G_b[i:j], G_2[i:j], K, 0.98)
            u = np.hstack([scores[0][i:j], scores[1][i:j]])
            seen = h.project_block(
                block.M, block.R_a, block.R_b, block.T, u, len(halves[0]), len(halves[1])
            )
            found.append((seen, bands.band_of(block.share)))
        t_1, t_2 = (
            np.concatenate([bands.band_sums(values(one), band, number) for one, band in found])
            for values in (lambda one: np.diag(one.H_1), lambda one: one.t_2)
        )
        for k in range(pairs):
            pair = [k, pairs + k]
            squares = np.concatenate(
                [bands.band_sums(one.q[:, pair] ** 2, band, number) for one, band in found]
            )
            index = np.arange(len(t_1))
            equations = bands.Equations(t_1, t_2, squares, index // number, index % number)
            given = [bands.Sample(n, 1.0, False)] * 2
            h2 = [bands.mean_heritability(equations, a, given[a], M) for a in (0, 1)]
            v = bands.inverse_variances(equations, given, h2, M)
            normal = bands.normal_matrices(equations, v, M).sum(axis=0)
            right = np.zeros((2, 2, 2))
            for b, (one, band) in enumerate(found):
                here = slice(b * number, (b + 1) * number)
                right += bands.block_right_sides(
                    one.q[:, pair], band, t_1[here], t_2[here], v[here], M
                )
            Gamma, kappa = bands.solve(normal, right, np.array([0, 1]), {})
            zero = {(0, 1): np.zeros((1, 1)), (1, 0): np.zeros((1, 1))}
            without, _ = bands.solve(normal, right, np.array([0, 1]), zero)
            kappas.append((kappa[0, 1], overlap[k]))
            rhos.append(Gamma[0, 1] / np.sqrt(Gamma[0, 0] * Gamma[1, 1]))
            naive.append(without[0, 1] / np.sqrt(Gamma[0, 0] * Gamma[1, 1]))
    return np.array(kappas), np.array(rhos), np.array(naive)


def test_people_in_common_are_absorbed_by_the_intercept(overlapping):
    kappas, rhos, naive = overlapping
    # Truth is about .5 · .56 / 900; the mean over 90 replicates is known to about 3 %.
    assert kappas[:, 0].mean() == pytest.approx(kappas[:, 1].mean(), rel=0.12)
    assert np.nanmean(rhos) == pytest.approx(0.5, abs=4 * np.nanstd(rhos) / np.sqrt(90) + 0.03)
    assert np.nanmean(naive) > 0.8
