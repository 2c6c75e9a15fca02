"""LD blocks, factors and traces against dense, obvious computations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from heritability_study import correlated_dosages
from rvga import ld
from rvga.heritability import project_block


@pytest.fixture(scope="module")
def panels() -> list[np.ndarray]:
    """Return dosages of 90 variants in two panels of 60 people."""
    dosages = correlated_dosages(120, 120, seed=4).astype(np.float32)
    keep = (dosages[:, :60].std(axis=1) > 0.2) & (dosages[:, 60:].std(axis=1) > 0.2)
    dosages = dosages[keep][:90]
    return [dosages[:, :60], dosages[:, 60:]]


def test_standardise_takes_missing_calls_as_the_mean():
    dosages = np.array([[0, 1, 2, np.nan], [1, 1, 1, 1], [2, 0, np.nan, np.nan]], dtype=np.float32)
    filled = np.array([[0, 1, 2, 1.0], [1, 1, 1, 1], [2, 0, 1, 1]])
    centred = filled - filled.mean(axis=1, keepdims=True)
    expected = centred / np.maximum(centred.std(axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(ld.standardise(dosages), expected, atol=1e-6)
    np.testing.assert_allclose(ld.allele_frequency(dosages), [0.5, 0.5, 0.5])


def test_a_variant_without_calls_is_all_zero_and_without_frequency():
    nothing = np.full((1, 5), np.nan, dtype=np.float32)
    assert not ld.standardise(nothing).any()
    assert np.isnan(ld.allele_frequency(nothing)).all()


def test_halves_and_thirds_are_disjoint_and_follow_the_seed():
    a, b = ld.split_halves(11, 5)
    assert sorted([*a, *b]) == list(range(11))
    assert np.array_equal(a, ld.split_halves(11, 5)[0])
    assert not np.array_equal(ld.split_halves(100, 5)[0], ld.split_halves(100, 6)[0])
    thirds = ld.split_thirds(11, 5)
    assert [len(third) for third in thirds] == [3, 3, 3]
    assert len(set(np.concatenate(thirds))) == 9
    assert [len(third) for third in ld.split_thirds(100, 5, largest=10)] == [10, 10, 10]


@pytest.mark.parametrize("chunk", [1, 7, 90])
@pytest.mark.parametrize("band", [3, 40, 500])
def test_boundary_cost_is_the_sum_of_r2_across(panels, chunk, band):
    G = ld.standardise(panels[0])
    m, n = G.shape
    cost = ld.BoundaryCost(band)
    for first in range(0, m, chunk):
        cost.add(G[first : first + chunk])
    r2 = (G.astype(float) @ G.T / n) ** 2 - 1 / n
    expected = np.zeros(m + 1)
    for i in range(m + 1):
        for j, k in itertools.product(range(i), range(i, m)):
            if k - j <= band:
                expected[i] += r2[j, k]
    np.testing.assert_allclose(cost.result(), expected, atol=1e-4)


def test_cuts_are_the_cheapest_of_all():
    rng = np.random.default_rng(3)
    m, smallest, largest = 17, 3, 7
    cost = rng.random(m + 1)
    best, choice = np.inf, None
    for number in range(1, 6):
        for cuts in itertools.combinations(range(1, m), number):
            starts = np.array([0, *cuts, m])
            sizes = np.diff(starts)
            if sizes.min() >= smallest and sizes.max() <= largest and cost[list(cuts)].sum() < best:
                best, choice = cost[list(cuts)].sum(), starts
    assert np.array_equal(ld.choose_cuts(cost, smallest, largest), choice)


def test_few_variants_are_one_block_and_none_are_no_block():
    assert ld.choose_cuts(np.zeros(11), 2, 10).tolist() == [0, 10]
    assert ld.choose_cuts(np.zeros(1), 2, 10).tolist() == [0]
    with pytest.raises(ValueError, match="more than half"):
        ld.choose_cuts(np.zeros(30), 6, 10)


@pytest.mark.parametrize("m", [40, 90])
def test_inverse_factor_inverts_the_leading_part(panels, m):
    G = ld.standardise(panels[1])[:m]
    n = G.shape[1]
    R = G.astype(float) @ G.T / n
    M, share = ld.inverse_factor(G, 0.9)
    eigenvalues, U = np.linalg.eigh(R)
    eigenvalues, U = eigenvalues[::-1], U[:, ::-1]
    k = M.shape[1]
    np.testing.assert_allclose(share, np.cumsum(eigenvalues)[:k] / m, rtol=1e-5)
    assert share[-1] >= 0.9 > share[-2]
    np.testing.assert_allclose(M.T @ R @ M, np.eye(k), atol=1e-5)
    np.testing.assert_allclose(M @ M.T, (U[:, :k] / eigenvalues[:k]) @ U[:, :k].T, atol=1e-4)
    assert (M[np.argmax(np.abs(M), axis=0), np.arange(k)] > 0).all()


def test_a_smaller_share_is_the_leading_columns(panels):
    G = ld.standardise(panels[1])
    M, share = ld.inverse_factor(G, 0.98)
    fewer, _ = ld.inverse_factor(G, 0.7)
    k = ld.columns_for_share(share, 0.7)
    assert k == fewer.shape[1] < M.shape[1]
    np.testing.assert_allclose(M[:, :k], fewer, atol=1e-9)


def test_triangles_survive_packing():
    matrix = np.random.default_rng(1).normal(size=(6, 6))
    matrix = matrix + matrix.T
    packed = ld.pack_lower(matrix)
    assert packed.tolist()[:3] == [matrix[0, 0], matrix[1, 0], matrix[1, 1]]
    assert np.array_equal(ld.unpack_lower(packed, 6), matrix)


def test_block_holds_the_whole_chromosomes_R_squared(panels):
    half_a, half_b = ld.split_halves(60, 1)
    G_a, G_b = (ld.standardise(panels[0][:, half]) for half in (half_a, half_b))
    G_2 = ld.standardise(panels[1])
    K = np.zeros((30, 30))
    for first in range(0, 90, 37):
        ld.accumulate_kinship(K, G_a[first : first + 37], G_b[first : first + 37])
    R_a, R_b = G_a.astype(float) @ G_a.T / 30, G_b.astype(float) @ G_b.T / 30
    here = slice(25, 60)
    block = ld.make_block(G_a[here], G_b[here], G_2[here], K, 0.9)
    product = (R_a @ R_b)[here, here]
    np.testing.assert_allclose(block.T, (product + product.T) / 2, atol=2e-5)
    np.testing.assert_allclose(block.R_a, R_a[here, here], atol=1e-6)
    np.testing.assert_allclose(block.R_b, R_b[here, here], atol=1e-6)


def test_traces_between_blocks_match_dense_matrices(panels):
    thirds = [ld.standardise(panels[0][:, third]) for third in ld.split_thirds(60, 2)]
    G_2 = ld.standardise(panels[1])
    starts = [0, 30, 55, 90]
    between = ld.TracesBetweenBlocks((20, 20, 20))
    between.add_variants([third[:50] for third in thirds])
    between.add_variants([third[50:] for third in thirds])
    Omega = np.zeros((90, 90))
    for i, j in itertools.pairwise(starts):
        M, _ = ld.inverse_factor(G_2[i:j], 0.8)
        Omega[i:j, i:j] = M @ M.T
        between.add_block(*between.block(M, [third[i:j] for third in thirds]))
    R = [third.astype(float) @ third.T / 20 for third in thirds]
    mask = np.zeros((90, 90))
    for i, j in itertools.pairwise(starts):
        mask[i:j, i:j] = 1
    expected = np.zeros(4)
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        for place, first in ((0, R[a] * mask), (1, R[a])):
            second = R[b] * mask if place == 0 else R[b]
            expected[place] += np.trace(Omega @ first @ Omega @ second) / 3
            rest = R[b] @ R[c]
            if place == 0:
                # Within blocks Ω R Ω is block-diagonal and meets the diagonal block of R R.
                rest = rest * mask
            expected[2 + place] += np.trace(Omega @ first @ Omega @ rest) / 3
    np.testing.assert_allclose(between.result(), expected, rtol=2e-4)


def test_factors_stay_within_bounds():
    assert ld.between_block_factors(np.empty((0, 4))) == (1.0, 1.0)
    assert ld.between_block_factors(np.array([[10, 12, 5, 4]])) == (1.2, 1.0)
    assert ld.between_block_factors(np.array([[10, 12, 5, 4], [10, 8, 5, 96]])) == (1.0, 3.0)
    assert ld.between_block_factors(np.array([[10, 12, -5, 4]])) == (1.2, 1.0)


def test_the_trace_is_that_of_the_studys_size():
    """tr(ΩR) of 3,000 people, standardised as one or in parts of 200 or 100, is linear in 1/n.

    The parts are the same people, so that only how they are standardised makes a difference.
    """
    dosages = correlated_dosages(500, 4000, seed=61, decay=0.95).astype(np.float32)
    people, other = dosages[:, :3000], dosages[:, 3000:]
    frequency = ld.allele_frequency(people)
    common = np.minimum(frequency, 1 - frequency) > 0.1
    people, other = people[common], ld.standardise(other[common])
    found = {n: 0.0 for n in (100, 200, 3000)}
    for k in range(0, len(people) - 80, 80):
        M, _ = ld.inverse_factor(other[k : k + 80], 0.98)
        for n in found:
            for part in np.split(people[k : k + 80], 3000 // n, axis=1):
                found[n] += np.sum((ld.standardise(part).T @ M) ** 2) / 3000
    halves, ratio = np.array([found[100]]), np.array([found[200] / found[100] - 1])
    mended = ld.trace_in_study(halves, ratio, 200, 3000.0)[0]
    before, after = found[100] / found[3000] - 1, mended / found[3000] - 1
    assert before > 0.001
    assert abs(after) < 0.15 * before
    np.testing.assert_array_equal(ld.trace_in_study(halves, None, 200, 3000.0), halves)


def test_the_trace_of_some_variants_is_that_of_the_studys_size():
    """What diag(M'RM) of a subset gains in one panel follows from what all variants gain.

    The ratio of all variants is not theirs: the diagonal of R, which does not change, is more of
    what a subset has.
    """
    rng = np.random.default_rng(8)
    shares = (1.0, 0.7, 0.3)
    mended, unscaled = [], []
    for seed in range(12):
        dosages = correlated_dosages(150, 1200, seed=100 + seed, decay=0.95).astype(np.float32)
        frequency = dosages.mean(axis=1) / 2
        dosages = dosages[np.minimum(frequency, 1 - frequency) > 0.05]
        panel, other = dosages[:, :600], ld.standardise(dosages[:, 600:])
        G_1, halves = ld.standardise(panel), [ld.standardise(panel[:, k::2]) for k in (0, 1)]
        b = ld.make_block(*halves, other, np.zeros((300, 300)), 0.98, G_1)
        for kept in shares:
            there = rng.permutation(len(dosages)) < kept * len(dosages)
            scores = np.where(there, 0.0, np.nan)[:, None]
            seen = project_block(b.M, b.R_a, b.R_b, b.T, scores, 300, 300, b.t_1_ratio, 600.0)
            before = np.trace(seen.H_1)
            true = np.sum((G_1[there].T @ b.M[there].astype(float)) ** 2) / 600
            mended.append((seen.t_1.sum() - true) / before)
            unscaled.append((np.diag(seen.H_1) @ (1 + b.t_1_ratio) - true) / before)
    mended, unscaled = (np.reshape(x, (-1, len(shares))).T for x in (mended, unscaled))
    np.testing.assert_allclose(mended[0], 0, atol=1e-6)
    for found, wrong in zip(mended[1:], unscaled[1:], strict=True):
        assert abs(found.mean()) < 3 * found.std(ddof=1) / np.sqrt(len(found))
        assert abs(found.mean()) < 0.5 * abs(wrong.mean())
        assert abs(wrong.mean()) > 2e-4


def test_a_block_keeps_what_one_panel_gains_over_its_halves(panels):
    half_a, half_b = panels[0][:, :28], panels[0][:, 28:]
    G_a, G_b, both, G_2 = (ld.standardise(p) for p in (half_a, half_b, *panels))
    K = G_a.T.astype(float) @ G_b
    block = ld.make_block(G_a, G_b, G_2, K, 0.9, both)
    n_a, n_b = K.shape
    M = block.M.astype(float)
    halves = np.diag(M.T @ (n_a * block.R_a + n_b * block.R_b) @ M) / (n_a + n_b)
    whole = ld.trace_in_study(halves, block.t_1_ratio, n_a + n_b, n_a + n_b)
    np.testing.assert_allclose(whole, np.sum((both.T @ M) ** 2, axis=0) / (n_a + n_b), rtol=1e-4)
    assert ld.make_block(G_a, G_b, G_2, K, 0.9).t_1_ratio is None
