"""The calibration benchmark: its truths are exact, and its summaries say what the numbers say."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from rvga import heritability as h
from rvga.ld import standardise

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "calibration.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("calibration_bench", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sizes(bench):
    return bench.Sizes(
        study=150, other=130, panel=80, wide_panels=(60, 80), chromosomes=2, variants=120,
        megabases=1.0, largest_block=40,
    )  # fmt: skip


@pytest.fixture(scope="module")
def genotypes(bench, sizes):
    return bench.draw_set(sizes, 7, "plain")


def test_named_scenarios_are_eight_of_a_hundred_phenotypes(bench):
    assert len(bench.NAMED) == 8
    assert all(2 * one.pairs == 100 for one in bench.NAMED.values())
    assert all(one in bench.__doc__ for one in bench.NAMED)


@pytest.mark.parametrize("placement", ["any", "frequency", "low_ld", "high_ld"])
def test_truth_is_exact_in_the_population(bench, genotypes, placement):
    """Its genetic covariance is that of independent chromosomes, not that of the people drawn."""
    scenario = bench.Scenario(0.4, 20, placement, pairs=4)
    rng = np.random.default_rng(1)
    zero = bench.draw_phenotypes(genotypes, scenario._replace(h2=0.0), rng)
    assert abs(np.corrcoef(zero.own.T)[0, 1] - 0.6) < 0.25
    rho = np.array([0, 0.3, 0.7, -0.5])
    effects = bench.draw_effects(genotypes, scenario, rho, np.random.default_rng(1))
    first, second = effects[:, ::2], effects[:, 1::2]
    candidates, _ = bench.candidates_of(genotypes, placement)
    assert not np.delete(effects, candidates, axis=0).any()
    assert ((effects != 0).sum(axis=0) == 20).all()
    everybody = np.hstack([genotypes.study, genotypes.others[0.0]])
    assert sum(map(len, genotypes.population)) == len(everybody) == len(effects)
    R = np.zeros((len(effects),) * 2)
    at = 0
    for one in genotypes.population:
        here = slice(at, at := at + len(one))
        # Of these people and those of the panels, within a chromosome.
        assert np.abs(one - everybody[here] @ everybody[here].T / everybody.shape[1]).mean() < 0.05
        R[here, here] = one
    for a, b, value in ((first, first, 0.4), (second, second, 0.4), (first, second, 0.4 * rho)):
        found = np.einsum("ik,ij,jk->k", a, R, b)
        np.testing.assert_allclose(found, np.broadcast_to(value, 4), rtol=1e-5, atol=1e-6)
    # Without noise the phenotypes are the genetic values.
    quiet = scenario._replace(h2=1.0)
    found = bench.draw_phenotypes(genotypes, quiet, np.random.default_rng(1))
    np.testing.assert_array_equal(found.rho, rho)
    own = np.sqrt(2.5) * genotypes.study.T @ effects
    np.testing.assert_allclose(found.own, own, atol=1e-4)
    trait = np.sqrt(2.5) * genotypes.others[0.0].T @ second
    np.testing.assert_allclose(found.trait, trait, atol=1e-4)


def test_causal_variants_lie_where_they_should(bench, genotypes):
    score, m = genotypes.ld_score, len(genotypes.ld_score)
    low, _ = bench.candidates_of(genotypes, "low_ld")
    high, _ = bench.candidates_of(genotypes, "high_ld")
    assert len(low) == len(high) == m // 4
    assert score[low].max() <= np.quantile(score, 0.26)
    assert score[high].min() >= np.quantile(score, 0.74)
    _, scale = bench.candidates_of(genotypes, "frequency")
    p = genotypes.frequency
    np.testing.assert_allclose(scale**2, 2 * p * (1 - p))


def test_people_in_both_studies_share_genotypes_and_environment(bench, genotypes):
    shared = 65
    own, other = genotypes.study[:, -shared:], genotypes.others[0.5][:, :shared]
    for k in (0, 50):
        assert np.corrcoef(own[k], other[k])[0, 1] > 0.999
    scenario = bench.Scenario(0.0, 20, overlap=0.5, pairs=60, rhos=(0.0,))
    found = bench.draw_phenotypes(genotypes, scenario, np.random.default_rng(3))
    assert found.shared == shared
    inside = np.mean(found.own[-shared:, ::2] * found.trait[:shared])
    outside = np.mean(found.own[:shared, ::2] * found.trait[shared:])
    assert inside == pytest.approx(0.6, abs=0.06)
    assert outside == pytest.approx(0.0, abs=0.06)


def test_ld_scores_are_those_of_ldsc(bench):
    G = np.random.default_rng(2).integers(0, 3, size=(6, 50)).astype(float)
    r2 = np.corrcoef(G) ** 2
    expected = (r2 - (1 - r2) / 48).sum(axis=1)
    np.testing.assert_allclose(bench.ld_scores(G), expected, rtol=1e-5)
    assert standardise(G).shape == (6, 50)


def test_published_sums_are_those_of_the_estimator(bench, genotypes):
    """What is not computed anew for every scenario equals the pipeline's own function."""
    reference = genotypes.references[80]
    rng = np.random.default_rng(5)
    R = np.eye(len(reference.blocks[0].M))
    block, scores = reference.blocks[0], rng.normal(size=(len(reference.blocks[0].M), 3))
    for _, inverse_share in bench.PUBLISHED:
        whole = h.published_block_moments(
            block.M, block.share, R, R, scores, 40, 40, inverse_share=inverse_share
        )
        q = block.cut(inverse_share).M.T.astype(float) @ scores
        np.testing.assert_allclose(q.T @ q, whole.quadratic, rtol=1e-9)


def test_small_share_equals_a_reference_with_that_share(bench, genotypes):
    block = genotypes.references[80].blocks[1]
    cut = block.cut(0.8)
    k = cut.M.shape[1]
    assert k < block.M.shape[1]
    assert block.share[k - 1] >= 0.8 > block.share[k - 2]
    assert h.moments_of(cut.seen).t_2 == pytest.approx(block.seen.t_2[:k].sum())


@pytest.mark.parametrize("kind", ["plain", "wide", "structured"])
def test_a_set_gives_every_estimator_and_the_tables_print(bench, sizes, kind, tmp_path, capsys):
    cell = bench.Scenario(0.8, 20, pairs=4)
    none = bench.Scenario(0.0, 20, rhos=(0.0,), pairs=4)
    found = bench.run_set(kind, 0, sizes, {"overlap": cell, "null": none}, 3)
    again = bench.run_set(kind, 0, sizes, {"overlap": cell}, 3)
    for name, values in again.items():
        np.testing.assert_array_equal(values, found[name], err_msg=name)
    where = "overlap panel 80 share 0.98" if kind == "wide" else "overlap"
    for estimator in ("moments", "balanced", "precise", "bands_fixed", "bands_free"):
        for error in ("closed_form", "jackknife", "auto"):
            assert found[f"{where}|h2|{estimator}|{error}"].shape == (8, 3)
            assert found[f"{where}|rho|{estimator}|{error}"].shape == (4, 3)
    for name in ("moments", "balanced", "precise", "moments_intercept", "bands_free"):
        assert found[f"{where}|cross|{name}|jackknife"].shape == (4, 3)
    assert found[f"{where}|cross|published_overlap_0.98_0.95|jackknife"].shape == (4, 3)
    assert found[f"{where}|h2|published_0.98_0.95|closed_form"].shape == (8, 3)
    if kind == "wide":
        assert found["overlap panel 60 share 0.6|h2|moments|closed_form"].shape == (8, 3)
    np.savez(tmp_path / "plain-000.npz", **found)
    bench.print_tables(tmp_path)
    printed = capsys.readouterr().out
    assert "Genotype sets: {'plain': 1," in printed
    assert ("| overlap | 8 | " in printed) == (kind != "wide")


def test_summary_of_known_numbers(bench):
    first = np.array([[0.5, 0.1, 0.4], [0.3, 0.1, 0.4], [0.8, 0.1, 0.4], [np.nan, 0.1, 0.4]])
    second = np.array([[0.4, 0.1, 0.4], [0.1, 0.1, 0.4]])
    row = bench.summarise([first, second], one_sided=True)
    assert (row.sets, row.replicates, row.lost) == (2, 5, 1)
    deviation = np.array([0.1, -0.1, 0.4, 0, -0.3])
    assert row.bias == pytest.approx(deviation.mean())
    assert row.bias_error == pytest.approx(np.std([0.4 / 3, -0.15], ddof=1) / np.sqrt(2))
    assert row.sd == pytest.approx(deviation.std(ddof=1))
    assert row.covered == pytest.approx(3 / 5)
    assert row.rejected == pytest.approx(4 / 5)
    truth = np.array([0.0, 0.3, 0.7, -0.5])
    slope = bench.summarise(
        [np.column_stack([0.9 * truth + 0.1, np.ones(4), truth])] * 2, one_sided=False
    )
    assert slope.slope == pytest.approx(0.9)
    assert slope.slope_error == pytest.approx(0)


def test_numbers_are_printed_as_in_the_docs(bench):
    assert [bench.number(x) for x in (0.0123, -0.4, 1.25, -0.0001, np.nan)] == [
        ".012", "−.400", "1.250", ".000", "·",
    ]  # fmt: skip


def test_best_published_share_has_the_least_squared_error(bench, tmp_path):
    rng = np.random.default_rng(4)
    cells = {"about": np.ones(5)}
    for (first, second), bias in zip(bench.PUBLISHED, (0.2, 0.01, 0.1), strict=True):
        value = 0.4 + bias + 0.01 * rng.normal(size=50)
        triple = np.column_stack([value, np.full(50, 0.01), np.full(50, 0.4)])
        cells[f"weak|h2|published_{first:.2f}_{second:.2f}|closed_form"] = triple
    np.savez(tmp_path / "plain-000.npz", **cells)
    share, row = bench.Results(tmp_path).best_published("weak", "h2")
    assert share == f"{bench.PUBLISHED[1][1]:.2f}"
    assert row.bias == pytest.approx(0.01, abs=0.005)
    assert bench.rmse(row) == pytest.approx(np.hypot(row.bias, row.sd))
    # The one with the least spread may be another.
    name = "weak|h2|published_{:.2f}_{:.2f}|closed_form".format(*bench.PUBLISHED[0])
    cells[name][:, 0] = 0.6 + 0.001 * rng.normal(size=50)
    np.savez(tmp_path / "plain-000.npz", **cells)
    results = bench.Results(tmp_path)
    assert results.best_published("weak", "h2")[0] == f"{bench.PUBLISHED[1][1]:.2f}"
    assert results.best_published("weak", "h2", by="sd")[0] == f"{bench.PUBLISHED[0][1]:.2f}"


def test_spread_is_held_against_the_published_estimator(bench, tmp_path, capsys):
    rng, cells = np.random.default_rng(6), {"about": np.ones(5)}
    names = ["balanced", *("published_{:.2f}_{:.2f}".format(*pair) for pair in bench.PUBLISHED)]
    for scenario, truth in (("null", 0.0), ("polygenic", 0.4)):
        for k, name in enumerate(names):
            noise = rng.normal(size=400)
            noise = (noise - noise.mean()) / noise.std(ddof=1)
            value = 0.1 * (k > 0) + truth * (1.25 if k else 1.0) + 0.05 * (k + 1) * noise
            triple = np.column_stack([value, np.full(400, 0.05), np.full(400, truth)])
            cells[f"{scenario}|h2|{name}|closed_form"] = triple
    np.savez(tmp_path / "plain-000.npz", **cells)
    bench._print_spread(bench.Results(tmp_path))
    printed = capsys.readouterr().out
    error = bench.number(np.hypot(0.2, 0.1))
    row = f"| polygenic | .050 | .100 (0.95) | 1.000 | 1.250 | .050 | .080 | .050 | {error} (0.95)"
    assert row in printed


def test_weights_of_a_smaller_share_are_those_of_its_columns(bench, genotypes):
    reference = genotypes.references[80]
    cut = reference.cut(0.9)
    for name in bench.WEIGHTED:
        for block, weight in zip(cut.blocks, cut.weights[name], strict=True):
            assert len(weight) == len(block.share)
        total = sum(
            float(c @ b.traces[1]) for b, c in zip(cut.blocks, cut.weights[name], strict=True)
        )
        assert total == pytest.approx(sum(b.traces[1].sum() for b in cut.blocks))


def test_parts_of_a_run_hold_every_kind(bench):
    order = bench.plan(8)
    assert [one for one in order if one[0] == "plain"] == [("plain", k) for k in range(8)]
    assert ("wide", 1) in order
    assert ("structured", 1) in order
    assert len(set(order)) == len(order)
