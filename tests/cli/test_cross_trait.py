"""CROSS_TRAIT on a small study: truth, flips and rsids, and bad input."""

from __future__ import annotations

import argparse
import json
import tracemalloc

import nibabel
import numpy as np
import pandas as pd
import pytest

import rvga_cross_trait
from helpers import files_in, run_stage
from heritability_study import (
    band_products,
    block_file,
    heritability_args,
    make_study,
    study_rows,
    write_ld_reference,
)
from rvga import heritability as h
from rvga import published
from rvga.genetic_covariance import CrossEstimate, GeneticCovariance
from rvga.jackknife import jackknife_standard_error
from rvga.ld_reference import LdReference
from rvga.tables import read_table


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a study, its LD reference and the folder of its heritability."""
    made = make_study(tmp_path_factory.mktemp("study"), n=900)
    reference = write_ld_reference(made, run_stage)
    done = run_stage("heritability", heritability_args(made, reference, made.folder))
    assert done.returncode == 0, done.stderr
    return made, reference


def cross(study, sumstats, out, *options):
    made, reference = study
    return run_stage(
        "cross_trait", "--dataset", made.dataset, "--ld-reference", reference,
        "--genetic-covariance", made.folder / "genetic_covariance.h5", "--trait", "height",
        "--sumstats", sumstats, "--out", out / "height.tsv", "--out-map", out / "height.nii.gz",
        "--out-regions", out / "height.regions.tsv",
        "--out-intercepts", out / "height.intercepts.tsv",
        "--summary", out / "height.json", "--overlap", "none", *options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(study, tmp_path_factory):
    """Return the folder of a run on the study's own trait."""
    folder = tmp_path_factory.mktemp("result")
    done = cross(study, study[0].sumstats, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_voxels_of_the_traits_component_correlate_with_it(study, result):
    made, _ = study
    table = read_table(result / "height.tsv", "cross_trait")
    # The trait has the effects of component 0, and all components have one heritability.
    deviation = made.bases * np.sqrt(np.diag(made.Sigma))
    truth = deviation[:, 0] / np.sqrt((deviation**2).sum(axis=1))
    strength = np.corrcoef(table.genetic_correlation_raw, truth)[0, 1]
    assert strength > 0.9
    within = np.abs(table.genetic_correlation_raw - truth) < 3 * table.standard_error_raw
    assert within.mean() > 0.8
    image = nibabel.load(result / "height.nii.gz")
    values = np.asarray(image.dataobj)[tuple(np.indices((5, 4, 3)).reshape(3, -1))]
    np.testing.assert_allclose(values, table.genetic_correlation, rtol=1e-5)
    assert table.reason[table.genetic_correlation.isna()].notna().all()


def test_summary_counts_and_warns(result):
    summary = json.loads((result / "height.json").read_text())
    numbers = summary["numbers"]
    assert numbers["n_trait"] == pytest.approx(900)
    assert numbers["n_shared_variants"] == numbers["dropped"]["matched_by_position"]
    assert 0 < numbers["heritability_trait_raw"] < 1
    # Every row of the file has one fate; the alleles of matched ones may be turned besides.
    fates = {
        k: n
        for k, n in numbers["dropped"].items()
        if k not in ("alleles_swapped", "strand_flipped")
    }
    assert sum(fates.values()) == numbers["n_rows"]
    # Two blocks are too few for a test of the intercepts.
    errors = numbers["heritability_trait_raw"] / numbers["standard_error_trait_raw"]
    weak = [text for text in summary["warnings"] if f"is {errors:.2f} of its standard" in text]
    assert len(weak) == (errors < 5)
    assert not any("intercept" in text for text in summary["warnings"])
    assert numbers["se_method"] == "closed_form"
    assert numbers["genetic_correlation_by"] == "precise"
    assert numbers["heritability_trait_by"] == "balanced"
    assert numbers["build"] == "study"
    assert numbers["format"] == "GWAS-SSF"


def test_flips_rsids_and_strangers_change_nothing(study, result, tmp_path):
    made, _ = study
    frame = pd.read_csv(made.sumstats, sep="\t", dtype={"chromosome": str})
    index = (frame.base_pair_location - 1000) // 100
    frame["SNP"] = "rs" + frame.chromosome + "_" + index.astype(str)
    flip = np.arange(len(frame)) % 3 == 0
    frame.loc[flip, "beta"] *= -1
    frame.loc[flip, ["effect_allele", "other_allele"]] = ["A", "G"]
    extra = frame.iloc[:1].assign(SNP="rs_elsewhere")
    ambiguous = frame.iloc[:1].assign(effect_allele="T", other_allele="A")
    frame = pd.concat([frame, extra, ambiguous]).drop(columns=["chromosome", "base_pair_location"])
    path = tmp_path / "trait.txt.gz"
    frame.sample(frac=1, random_state=1).to_csv(path, sep=" ", index=False)
    done = cross(study, path, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "height.tsv").read_bytes() == (result / "height.tsv").read_bytes()
    counts = json.loads((tmp_path / "height.json").read_text())["numbers"]["dropped"]
    assert counts["strand-ambiguous alleles"] == 1
    assert counts["alleles_swapped"] > 200
    assert counts["not_in_reference"] >= 1


def test_a_subset_of_variants_is_used_as_it_is(study, result, tmp_path):
    frame = pd.read_csv(study[0].sumstats, sep="\t").iloc[::2]
    frame.to_csv(tmp_path / "half.tsv", sep="\t", index=False)
    done = cross(study, tmp_path / "half.tsv", tmp_path)
    assert done.returncode == 0, done.stderr
    half, full = (read_table(folder / "height.tsv", "cross_trait") for folder in (tmp_path, result))
    assert np.corrcoef(half.genetic_correlation_raw, full.genetic_correlation_raw)[0, 1] > 0.9
    assert half.standard_error_raw.median() > full.standard_error_raw.median()


@pytest.fixture(scope="module")
def blocky(tmp_path_factory):
    """Return a study with 28 LD blocks, enough for a jackknife."""
    made = make_study(tmp_path_factory.mktemp("blocky"), n=900)
    reference = write_ld_reference(made, run_stage, **{"ld-blocks": block_file(made.folder)})
    done = run_stage("heritability", heritability_args(made, reference, made.folder))
    assert done.returncode == 0, done.stderr
    return made, reference


def test_possible_overlap_is_band_regression_with_free_intercepts(blocky, tmp_path):
    made, reference = blocky
    done = cross(blocky, made.sumstats, tmp_path, "--overlap", "possible")
    assert done.returncode == 0, done.stderr
    Gamma, kappa, without = free_bands(made, reference)
    table = read_table(tmp_path / "height.tsv", "cross_trait")
    rows = made.bases.astype(float)
    rho = h.cross_trait_ratio(Gamma, rows)
    np.testing.assert_allclose(table.genetic_correlation_raw, rho, atol=2e-4)
    each = np.stack([h.cross_trait_ratio(G, rows) for G in without])
    G = len(each)
    error = np.sqrt((G - 1) / G * ((each - each.mean(axis=0)) ** 2).sum(axis=0))
    np.testing.assert_allclose(table.standard_error_raw, error, rtol=5e-3)
    assert set(table.se_method) == {"jackknife"}
    found = read_table(tmp_path / "height.intercepts.tsv", "intercepts")
    assert found.component.tolist() == ["1", "2", "3", "height"]
    assert found.expected.tolist() == [0, 0, 0, 1]
    # Nobody is in common.
    assert (found.intercept - found.expected).abs().lt(4 * found.standard_error).all()
    np.testing.assert_allclose(
        found.intercept[:3],
        kappa[:3, 3] * np.sqrt(899 * 900) / np.sqrt(np.diag(made.Sigma)),
        atol=1e-4,
    )
    regions = read_table(tmp_path / "height.regions.tsv", "cross_trait_regions")
    assert regions.trait.tolist() == ["height"] * len(regions)
    with GeneticCovariance.open(made.folder / "genetic_covariance.h5") as covariance:
        names, region_rows = covariance.regions
    assert regions.region.tolist() == names
    expected = h.cross_trait_ratio(Gamma, region_rows)
    np.testing.assert_allclose(regions.genetic_correlation_raw, expected, atol=2e-4)
    # The same bytes for any number of threads and any order of rows.
    frame = pd.read_csv(made.sumstats, sep="\t", dtype=str).sample(frac=1, random_state=3)
    mixed, out = tmp_path / "mixed.tsv", tmp_path / "again"
    frame.to_csv(mixed, sep="\t", index=False)
    out.mkdir()
    done = cross(blocky, mixed, out, "--overlap", "possible", "--threads", "2")
    assert done.returncode == 0, done.stderr
    for name in ("height.tsv", "height.regions.tsv", "height.intercepts.tsv"):
        assert (out / name).read_bytes() == (tmp_path / name).read_bytes(), name


def free_bands(made, reference_path):
    """Return band estimates of the components and the trait from their scores, and leave-outs."""
    of = np.array([0, 0, 0, 1])
    trait = pd.read_csv(made.sumstats, sep="\t")
    z = (trait.beta / trait.standard_error).to_numpy()
    scores = np.column_stack([made.scores, z / np.sqrt(900 + z**2)])
    _, t_1, t_2, Q, group, m = band_products(made, reference_path, scores)
    use = (t_1 > 0) & (t_2 > 0)
    x = np.stack([t_2 / m, t_1], axis=1)

    def fit(w, y, keep):
        root = np.sqrt(w[keep])
        return np.linalg.lstsq(root[:, None] * x[keep], root * y[keep], rcond=None)[0]

    spread = []
    own = Q[:, :3, :3].trace(axis1=1, axis2=2) / np.trace(made.Sigma)
    for y, n in ((own, 899), (Q[:, 3, 3], 900)):
        h2 = 0.0
        for _ in range(3):
            w = t_1 / (t_1 / n + h2 * t_2 / m) ** 2
            h2 = np.clip(fit(w, y, use)[0], 0, 1)
        spread.append(t_1 / n + h2 * t_2 / m)

    def all_pairs(keep):
        out = np.zeros((2, 4, 4))
        for j in range(4):
            for k in range(4):
                w = t_1 / (spread[of[j]] * spread[of[k]])
                out[:, j, k] = fit(w, Q[:, j, k], keep)
        return out

    without = np.stack([all_pairs(use & (group != i))[0] for i in range(group.max() + 1)])
    return *all_pairs(use), without


def test_another_build_is_lifted_by_a_chain(study, result, tmp_path):
    frame = pd.read_csv(study[0].sumstats, sep="\t")
    frame["base_pair_location"] += 500_000
    frame.to_csv(tmp_path / "lifted.tsv", sep="\t", index=False)
    chain = tmp_path / "x.chain"
    chain.write_text(
        "".join(
            f"chain 1 chr{c} 9000000 + 500000 600000 chr{c} 9000000 + 0 100000 {c}\n100000\n\n"
            for c in (1, 2)
        )
    )
    done = cross(study, tmp_path / "lifted.tsv", tmp_path, "--chain", chain)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "height.tsv").read_bytes() == (result / "height.tsv").read_bytes()
    assert json.loads((tmp_path / "height.json").read_text())["numbers"]["build"] == "lifted"


def test_the_published_estimator_allows_for_people_in_common(blocky, tmp_path):
    """The stage against the functions that unit tests hold to the published program."""
    made, reference = blocky
    done = run_stage(
        "heritability", heritability_args(made, reference, tmp_path),
        "--heritability-method", "published",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    own = made._replace(folder=tmp_path), reference
    done = cross(own, made.sumstats, tmp_path, "--overlap", "possible")
    assert done.returncode == 0, done.stderr
    trait = pd.read_csv(made.sumstats, sep="\t")
    z = (trait.beta / trait.standard_error).to_numpy()
    n, deviation = float(made.n), np.sqrt(np.diag(made.Sigma))
    r = made.scores / deviation
    z_own = r * np.sqrt((n - 2) / (1 - r**2))
    scores = np.column_stack([z_own * deviation / np.sqrt(n), z / np.sqrt(900)])
    with LdReference.open(reference) as opened:
        at = study_rows(made, opened)
        scores, z_own, z = scores[at], z_own[at], z[at]
        blocks, sizes = list(opened.blocks()), np.diff(opened.block_start)
        people = opened.n_a, opened.n_b
    parts = [
        h.published_block_moments(b.M, b.share, b.R_a, b.R_b, scores[i:j], *people)
        for i, j, b in blocks
    ]
    score = [published.adjusted_ld_scores((b.R_a + b.R_b) / 2, sum(people)) for _, _, b in blocks]
    kappa = np.zeros((4, 4))
    kappa[:3, :3], kappa[3, 3] = made.Sigma / n, 1 / 900
    d = np.array([p.t_1 for p in parts])
    quadratic = np.stack([p.quadratic for p in parts])
    Gamma = quadratic.sum(axis=0) - d.sum() * kappa
    Gammas = h.leave_one_out_Gamma(quadratic, d, np.zeros(len(d)), kappa, 1.0)
    intercept, without = published.cross_trait_intercepts(
        z_own * z[:, None], np.concatenate(score), (n, 900.0),
        (np.diag(Gamma)[:3] / deviation**2, Gamma[3, 3]), d.sum(),
        np.repeat(np.arange(len(d)), sizes),
    )  # fmt: skip
    scale = deviation / np.sqrt(n * 900)
    Gamma[:3, 3] -= d.sum() * intercept * scale
    Gammas[:, :3, 3] -= (d.sum() - d)[:, None] * without * scale
    rows = made.bases.astype(float)
    each = np.stack([h.cross_trait_ratio(G, rows) for G in Gammas])
    rho = len(d) * h.cross_trait_ratio(Gamma, rows) - (len(d) - 1) * each.mean(axis=0)
    table = read_table(tmp_path / "height.tsv", "cross_trait")
    np.testing.assert_allclose(table.genetic_correlation_raw, rho, atol=2e-3)
    np.testing.assert_allclose(table.standard_error_raw, jackknife_standard_error(each), rtol=5e-3)
    found = read_table(tmp_path / "height.intercepts.tsv", "intercepts")
    np.testing.assert_allclose(found.intercept[:3], intercept, atol=1e-3)
    assert found.intercept.isna().tolist() == [False, False, False, True]


def test_what_the_intercepts_say_is_warned_of():
    args = argparse.Namespace(trait="height", overlap="none")
    numbers = {
        "n_jackknife_groups": 200, "smallest_intercept_false_discovery_rate": 1e-5,
        "n_intercepts_with_trait_fdr_5_percent": 3,
    }  # fmt: skip
    for change, said in (
        ({}, 1), ({"n_jackknife_groups": 49}, 0),
        ({"smallest_intercept_false_discovery_rate": 0.01}, 0),
    ):  # fmt: skip
        warnings: list[str] = []
        rvga_cross_trait.warn_of_overlap(args, numbers | change, warnings)
        assert len(warnings) == said
    args.overlap, warnings = "possible", []
    rvga_cross_trait.warn_of_overlap(args, numbers, warnings)
    assert not warnings


@pytest.mark.parametrize(
    ("value", "error", "overlap", "said"),
    [
        (1.3, 0.05, "none", "structured or related"),
        (0.8, 0.05, "none", "divided by an inflation factor"),
        (1.1, 0.05, "none", ""),
        (1.3, 0.05, "possible", ""),
        (None, None, "none", ""),
    ],
)
def test_an_intercept_of_the_trait_is_warned_of(value, error, overlap, said):
    args, warnings = argparse.Namespace(trait="height", overlap=overlap), []
    numbers = {
        "n_jackknife_groups": 200, "smallest_intercept_false_discovery_rate": 0.5,
        "intercept_trait": value, "intercept_trait_standard_error": error,
    }  # fmt: skip
    rvga_cross_trait.warn_of_overlap(args, numbers, warnings)
    assert len(warnings) == bool(said)
    assert all(said in text and f"is {value:.3f}" in text for text in warnings)


def test_jackknife_of_many_voxels_is_never_held_whole():
    """By parts it is what all voxels at once give, in less memory than groups by voxels."""
    rng = np.random.default_rng(5)
    groups, N = 40, 30_000
    A = rng.normal(size=(groups, 4, 9))
    Gammas, rows = A @ A.transpose(0, 2, 1), rng.normal(size=(N, 3))
    found = CrossEstimate(Gammas.mean(axis=0), Gammas, None, None, np.eye(4), 1, True)
    tracemalloc.start()
    rho, error, how = rvga_cross_trait.correlations(found, rows, "jackknife", None)
    again = h.cross_trait_jackknife(Gammas, rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert how == "jackknife"
    assert peak < 0.6 * 8 * groups * N
    each = np.stack([h.cross_trait_ratio(G, rows) for G in Gammas])
    whole = groups * h.cross_trait_ratio(found.Gamma, rows) - (groups - 1) * each.mean(axis=0)
    np.testing.assert_allclose(rho, whole, rtol=1e-10)
    np.testing.assert_allclose(error, np.sqrt((groups - 1) * each.var(axis=0)), rtol=1e-10)
    np.testing.assert_array_equal(error, again)


@pytest.mark.parametrize("how", ["jackknife", "auto"])
def test_other_errors_without_overlap(blocky, tmp_path, how):
    done = cross(blocky, blocky[0].sumstats, tmp_path, "--se-method", how)
    assert done.returncode == 0, done.stderr
    table = read_table(tmp_path / "height.tsv", "cross_trait")
    assert set(table.se_method) == {how}
    assert (table.standard_error_raw > 0).all()


def test_wrong_frequencies_are_warned_of(study, tmp_path):
    frame = pd.read_csv(study[0].sumstats, sep="\t").assign(effect_allele_frequency=0.99)
    frame.to_csv(tmp_path / "f.tsv", sep="\t", index=False)
    done = cross(study, tmp_path / "f.tsv", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "effect-allele frequencies of f.tsv differ" in done.stderr


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no effect allele", "no effect-allele column; found: chromosome, base_pair_location"),
        ("no n", "no sample size"),
        ("too few variants", "share 100 of the reference's"),
        ("another build", "700 not in reference; are they of the same genome build?"),
        ("columns of another form", "'effect_allele' is not of the form role=column"),
        ("role twice", "--columns: role 'z' is given twice"),
        ("every row twice", "of its rows 1388 repeated, 12 not in reference; is every variant in"),
        ("negative n", "is not above 0"),
        ("covariance of another run", "genetic_covariance.h5 was not made from"),
        ("missing file", "no such file"),
        ("all alleles swapped", "effect and other allele are swapped"),
        ("two builds", "positions are of two genome builds"),
        ("no header", "the table has no header"),
        ("two effect columns", "'beta' and 'effect' could both be the beta"),
        ("N is 0", "no sample size"),
        ("p is 0", "line 2: p is given as 0"),
        ("infinite z", "line 3: z is infinite"),
        ("chain that is none", "is not a line of a chain file"),
    ],
)
def test_bad_input(study, tmp_path, case, message):
    made, reference = study
    given, out = tmp_path / "in", tmp_path / "out"
    given.mkdir()
    out.mkdir()
    frame = pd.read_csv(made.sumstats, sep="\t")
    options: list[object] = []
    if case == "no effect allele":
        frame = frame.drop(columns="effect_allele")
    elif case == "no n":
        frame = frame.drop(columns="n")
    elif case == "too few variants":
        known = frame[frame.chromosome == 1].iloc[100:]
        position = pd.Series(_positions(reference))
        frame = known[known.base_pair_location.isin(position)].iloc[:100]
    elif case == "another build":
        frame["base_pair_location"] += 33
    elif case == "columns of another form":
        options = ["--columns", "effect_allele"]
    elif case == "role twice":
        options = ["--columns", "z=beta,z=n"]
    elif case == "every row twice":
        frame = pd.concat([frame, frame])
    elif case == "negative n":
        options = ["--n", "-5"]
    elif case == "covariance of another run":
        other = make_study(given / "other", m=150, n=100, n_panel=60, seed=5)
        made = made._replace(dataset=other.dataset)
    elif case == "all alleles swapped":
        with LdReference.open(reference) as opened:
            known = opened.variants
        known = known.assign(chromosome=known.chromosome.astype(int))
        frame = frame.merge(known[["chromosome", "base_pair_location", "effect_allele_frequency"]])
        frame = frame.rename(
            columns={"effect_allele": "other_allele", "other_allele": "effect_allele"}
        )
        frame["effect_allele_frequency"] += np.random.default_rng(1).normal(0, 0.01, len(frame))
    elif case == "two builds":
        frame.loc[frame.chromosome == 2, "base_pair_location"] += 33
    elif case == "two effect columns":
        frame = frame.assign(effect=-frame.beta).rename(columns={"effect_allele": "a1"})
    elif case == "N is 0":
        frame["n"] = 0
    elif case == "p is 0":
        frame = frame.assign(p_value=0.0).drop(columns="standard_error")
    elif case == "infinite z":
        frame = frame.assign(z=np.inf).drop(columns=["beta", "standard_error"])
        frame.loc[0, "z"] = 1.0
    elif case == "chain that is none":
        options = ["--chain", made.sumstats]
    path = given / "trait.tsv"
    if case != "missing file":
        frame.to_csv(path, sep="\t", index=False, header=case != "no header")
    done = run_stage(
        "cross_trait", "--dataset", made.dataset, "--ld-reference", reference,
        "--genetic-covariance", study[0].folder / "genetic_covariance.h5", "--trait", "height",
        "--sumstats", path, "--out", out / "height.tsv", "--out-map", out / "height.nii.gz",
        "--out-regions", out / "height.regions.tsv",
        "--out-intercepts", out / "height.intercepts.tsv", *options,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not files_in(out)


def _positions(reference) -> np.ndarray:
    from rvga.ld_reference import LdReference

    with LdReference.open(reference) as opened:
        variants = opened.variants
        return variants.base_pair_location[variants.chromosome == "1"].to_numpy()
