"""The truth of a simulated study on a run's bases, against brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rvga import truth
from rvga.errors import InputError

N, R, F, E, L = 30, 5, 3, 4, 6


@pytest.fixture
def rng():
    return np.random.default_rng(8)


@pytest.fixture
def known(rng) -> truth.Truth:
    causal = pd.DataFrame(
        {
            "chromosome": ["1", "1", "1", "2", "2", "X"],
            "base_pair_location": [1_000_000, 5_000_000, 9_000_000, 2_000_000, 2_100_000, 100],
            "variant_id": [f"v{number}" for number in range(L)],
            "planted": [True, False, True, True, False, False],
        }
    )
    return truth.Truth(
        genetic_factor=rng.normal(size=(N, F)),
        residual_factor=rng.normal(size=(N, E)),
        noise_variance=rng.uniform(0.5, 2, N),
        causal=causal,
        effect=rng.normal(size=(L, F)),
        trait_covariance=rng.normal(size=F) * 0.2,
        trait_heritability=0.6,
    )


@pytest.fixture
def bases(rng):
    return np.linalg.qr(rng.normal(size=(N, R)))[0]


def test_projection_is_that_of_the_whole_voxel_covariance(known, bases):
    projected = truth.project(known, bases)
    genetic = known.genetic_factor @ known.genetic_factor.T
    rest = known.residual_factor @ known.residual_factor.T + np.diag(known.noise_variance)
    denoise = bases @ bases.T
    # The denoised image of x is B B'x: its covariance by voxels, in full.
    genetic_voxels = denoise @ genetic @ denoise
    all_voxels = denoise @ (genetic + rest) @ denoise
    expected = np.diag(genetic_voxels) / np.diag(all_voxels)
    np.testing.assert_allclose(truth.denoised_heritability(projected, bases), expected)
    scale = np.sqrt(np.diag(genetic_voxels))
    np.testing.assert_allclose(
        truth.correlation_of(projected.genetic, bases),
        genetic_voxels / np.outer(scale, scale),
        atol=1e-12,
    )
    raw = np.diag(genetic) / np.diag(genetic + rest)
    np.testing.assert_allclose(truth.raw_heritability(known), raw)
    np.testing.assert_allclose(
        projected.effect @ bases.T, known.effect @ known.genetic_factor.T @ denoise
    )


def test_simulated_people_have_the_projected_heritability_and_correlation(known, bases, rng):
    people = 200_000
    factors = rng.normal(size=(people, F))
    genetic = factors @ known.genetic_factor.T
    images = genetic + rng.normal(size=(people, E)) @ known.residual_factor.T
    images += rng.normal(size=(people, N)) * np.sqrt(known.noise_variance)
    projected = truth.project(known, bases)
    ldrs, genetic_ldrs = images @ bases, genetic @ bases
    observed = np.var(genetic_ldrs @ bases.T, axis=0) / np.var(ldrs @ bases.T, axis=0)
    np.testing.assert_allclose(
        truth.denoised_heritability(projected, bases), observed, rtol=0.03, atol=0.003
    )
    trait = factors @ known.trait_covariance
    expected = [
        np.cov(voxel, trait)[0, 1] / np.sqrt(np.var(voxel) * known.trait_heritability)
        for voxel in (genetic_ldrs @ bases.T).T
    ]
    np.testing.assert_allclose(
        truth.cross_trait_correlation(projected, bases, known.trait_heritability),
        expected,
        atol=0.01,
    )


def test_power_is_the_share_of_regressions_that_pass(rng):
    n, critical = 300, 3.0
    genotype = rng.binomial(2, 0.3, n).astype(float)
    genotype -= genotype.mean()
    a, nu, beta = genotype @ genotype, n - 2, 0.25
    noise = rng.normal(size=(20_000, n))
    noise -= noise.mean(axis=1, keepdims=True)
    phenotype = noise + beta * genotype
    estimate = phenotype @ genotype / a
    rest = (phenotype**2).sum(axis=1) - a * estimate**2
    t = estimate / np.sqrt(rest / (nu * a))
    limit = stats.t.isf(stats.norm.sf(critical), nu)
    ncp = beta * np.sqrt(a)  # residual variance 1
    expected = np.mean(np.abs(t) > limit)
    assert 0.3 < expected < 0.95
    assert truth.power(np.array([ncp]), critical, nu)[0] == pytest.approx(expected, abs=0.012)
    exact = stats.nct.sf(limit, nu, ncp) + stats.nct.cdf(-limit, nu, ncp)
    assert truth.power(np.array([ncp]), critical, nu)[0] == pytest.approx(exact, abs=0.003)


def test_noncentrality_is_the_largest_over_all_voxels(bases, rng):
    effect, a = rng.normal(size=(L, R)), rng.uniform(50, 500, L)
    a[2] = np.nan
    variance = rng.uniform(100, 200, N)
    nu = 250
    ncp, voxel = truth.noncentrality(effect, a, bases, variance, nu)
    for number in range(L):
        if number == 2:
            assert np.isnan(ncp[number])
            continue
        every = [
            abs(bases[v] @ effect[number]) * np.sqrt(a[number]) / np.sqrt(variance[v] / nu)
            for v in range(N)
        ]
        assert ncp[number] == pytest.approx(max(every))
        assert voxel[number] == int(np.argmax(every))
    assert np.isnan(truth.power(ncp, 5.0, nu)[2])


def test_voxels_are_matched_by_their_grid_indices(rng):
    index = np.argwhere(np.ones((4, 3, 2)))
    order = rng.permutation(len(index))
    rows = truth.match_voxels(index[order], index[5:9])
    np.testing.assert_array_equal(index[order][rows], index[5:9])
    with pytest.raises(InputError, match=r"lacks the voxel with grid indices \[9, 9, 9\]"):
        truth.match_voxels(index, np.array([[0, 0, 0], [9, 9, 9]]))


@pytest.fixture
def loci():
    return pd.DataFrame(
        {
            "locus": [1, 2, 3],
            "chromosome": ["1", "1", "2"],
            "start": [900_000, 6_000_000, 7_000_000],
            "end": [950_000, 6_200_000, 7_000_000],
            "base_pair_location": [940_000, 6_100_000, 7_000_000],
        }
    )


def test_planted_variants_are_found_only_by_their_own_signal(known, loci):
    assert truth.locus_around("1", 940_000, loci) == 1
    assert truth.locus_around("1", 951_000, loci) is None
    assert truth.locus_around("2", 940_000, loci) is None
    wide = loci.assign(end=[1_000_000, 9_000_000, 7_000_000])
    power = np.array([1, 0.5, 0.2, 0.99, 0.1, 0.1])
    # The planted ones are variants 0 (in locus 1), 2 (in locus 2, not significant), 3 (in none).
    significant = np.array([True, True, False, True, False, False])
    planted = truth.truth_loci(known, power, significant, wide)
    assert planted["found"].tolist() == ["yes", "no", "no"]
    assert planted["locus"].isna().tolist() == [False, True, True]


def test_loci_are_told_true_from_false_by_distance(known, loci):
    # Locus 2's lead lies 1.1 Mb from a causal variant, locus 3's 4.9 Mb.
    power = np.array([1, 0.5, 0.2, 0.99, 0.1, 0.1])
    planted = truth.truth_loci(known, power, np.array([True] * L), loci.assign(end=1_000_000))
    comparison = truth.Comparison()
    variants = (np.array(["1", "1", "3"], dtype=object), np.array([1_000_500, 2_000_000, 5]))
    comparison.add_loci(planted, loci, known.causal, variants)
    table = comparison.table().set_index("quantity")
    strong = table.loc["planted loci with power ≥ 0.95 that were found"]
    assert (strong["value"], strong["reached"]) == ("1 of 2", "no")
    false = table.loc["loci without a causal variant within 500 kb"]
    assert (false["value"], false["reached"]) == ("2", "no")
    assert table.loc["loci without a planted variant within 500 kb", "value"] == "2"
    assert table.loc["expected number found (sum of powers)", "value"] == "2.190"
    share = table.loc["share of all variants without a causal variant within 500 kb", "value"]
    assert share == "0.667"
    assert table.loc["median distance of leads to a causal variant (kb)", "value"] == "1100.000"


@pytest.mark.parametrize(
    ("leads", "far", "expected"),
    [
        # Chromosome 5 has no causal variant: a lead there is false, however many others are true.
        ([("1", 1_000_000), ("5", 1_000_000)], 6, ("1", "no")),
        ([("1", 1_000_000), ("2", 2_400_000)], 6, ("0", "yes")),
        # Where hardly a variant could be false, none being false tells nothing; one being so does.
        ([("1", 1_000_000)], 2, ("0", "NA")),
        ([("1", 1_000_000), ("5", 1_000_000)], 2, ("1", "no")),
        ([], 6, ("0", "yes")),
    ],
)
def test_loci_on_a_chromosome_without_causal_variants_are_false(known, leads, far, expected):
    found = pd.DataFrame(
        [
            {"locus": number, "chromosome": name, "base_pair_location": place,
             "start": place - 1000, "end": place + 1000}
            for number, (name, place) in enumerate(leads, start=1)
        ],
        columns=["locus", "chromosome", "base_pair_location", "start", "end"],
    )  # fmt: skip
    planted = truth.truth_loci(known, np.ones(L), np.ones(L, dtype=bool), found)
    variants = (
        np.array(["5"] * far + ["1"] * (10 - far), dtype=object),
        np.full(10, 1_000_000),
    )
    comparison = truth.Comparison()
    comparison.add_loci(planted, found, known.causal, variants)
    row = (
        comparison.table().set_index("quantity").loc["loci without a causal variant within 500 kb"]
    )
    assert (row["value"], row["reached"]) == expected


def test_distance_to_the_nearest_causal_variant(known, rng):
    chromosome = rng.choice(np.array(["1", "2", "3"], dtype=object), 400)
    position = rng.integers(1, 12_000_000, 400)
    distance = truth.distance_to_causal(chromosome, position, known.causal)
    for name, place, found in zip(chromosome, position, distance, strict=True):
        same = known.causal.loc[known.causal["chromosome"] == name, "base_pair_location"]
        expected = min((abs(place - where) for where in same), default=np.inf)
        assert found == expected


def test_agreement_counts_what_it_says():
    agreement = truth.Agreement(
        np.array([0.1, 0.2, 0.3, np.nan, 0.5]),
        np.array([0.2, 0.2, 0.5, 0.4, np.nan]),
        np.array([0.06, 0.1, 0.05, 0.1, 0.1]),
    )
    assert agreement.used.sum() == 3
    assert agreement.mean_difference == pytest.approx(0.1)
    assert agreement.root_mean_square == pytest.approx(np.sqrt(0.05 / 3))
    assert agreement.coverage == pytest.approx(2 / 3)
    assert agreement.correlation == pytest.approx(
        np.corrcoef([0.1, 0.2, 0.3], [0.2, 0.2, 0.5])[0, 1]
    )
    constant = truth.Agreement(np.full(4, 0.2), np.arange(4.0))
    assert np.isnan(constant.correlation)
    comparison = truth.Comparison()
    comparison.add_agreement("h²", constant, goal=0.8)
    row = comparison.table().set_index("quantity").loc["h²: correlation with the truth"]
    assert (row["value"], row["reached"]) == ("NA", "NA")


def test_correlations_beyond_one_are_missing_but_rounding_is_not():
    given = np.array([0.5, 1 + 1e-12, -1.2, np.nan])
    np.testing.assert_array_equal(truth.within_range(given), [0.5, 1.0, np.nan, np.nan])
    negative = np.diag([1.0, -1.0])
    assert np.isnan(truth.correlation_of(negative, np.eye(2))[0, 1])
