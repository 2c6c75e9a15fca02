"""CROSS_TRAIT on a small study: truth, flips and rsids, and bad input."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pandas as pd
import pytest

from helpers import files_in, run_stage
from heritability_study import heritability_args, ld_reference, make_study
from rvga.tables import read_table


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a study, its LD reference and the folder of its heritability."""
    made = make_study(tmp_path_factory.mktemp("study"), n=900)
    reference = ld_reference(made, run_stage)
    done = run_stage("heritability", heritability_args(made, reference, made.folder))
    assert done.returncode == 0, done.stderr
    return made, reference


def cross(study, sumstats, out, *options):
    made, reference = study
    return run_stage(
        "cross_trait", "--dataset", made.dataset, "--ld-reference", reference,
        "--genetic-covariance", made.folder / "genetic_covariance.h5", "--trait", "height",
        "--sumstats", sumstats, "--out", out / "height.tsv", "--out-map", out / "height.nii.gz",
        "--summary", out / "height.json", *options,
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
    assert "no people in common" in summary["warnings"][0]


def test_flips_rsids_and_strangers_change_nothing(study, result, tmp_path):
    made, _ = study
    frame = pd.read_csv(made.sumstats, sep="\t", dtype={"chromosome": str})
    index = (frame.base_pair_location - 1000) // 100
    frame["SNP"] = "rs" + frame.chromosome + "_" + index.astype(str)
    flip = np.arange(len(frame)) % 3 == 0
    frame.loc[flip, "beta"] *= -1
    frame.loc[flip, ["effect_allele", "other_allele"]] = ["A", "G"]
    extra = frame.iloc[:1].assign(SNP="rs_elsewhere")
    ambiguous = frame.iloc[:1].assign(SNP="rs_at", effect_allele="T", other_allele="A")
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


def test_wrong_frequencies_are_warned_of(study, tmp_path):
    frame = pd.read_csv(study[0].sumstats, sep="\t").assign(effect_allele_frequency=0.99)
    frame.to_csv(tmp_path / "f.tsv", sep="\t", index=False)
    done = cross(study, tmp_path / "f.tsv", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "effect-allele frequencies differ" in done.stderr


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no effect allele", "no effect-allele column; found: chromosome, base_pair_location"),
        ("no n", "no sample size"),
        ("too few variants", "share 100 of the reference's"),
        ("another build", "share 0 of the reference's"),
        ("columns of another form", "'effect_allele' is not of the form role=column"),
        ("negative n", "is not above 0"),
        ("covariance of another run", "genetic_covariance.h5 was not made from"),
        ("missing file", "no such file"),
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
    elif case == "negative n":
        options = ["--n", "-5"]
    elif case == "covariance of another run":
        other = make_study(given / "other", m=150, n=100, n_panel=60, seed=5)
        made = made._replace(dataset=other.dataset)
    path = given / "trait.tsv"
    if case != "missing file":
        frame.to_csv(path, sep="\t", index=False)
    done = run_stage(
        "cross_trait", "--dataset", made.dataset, "--ld-reference", reference,
        "--genetic-covariance", study[0].folder / "genetic_covariance.h5", "--trait", "height",
        "--sumstats", path, "--out", out / "height.tsv", "--out-map", out / "height.nii.gz",
        *options,
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
