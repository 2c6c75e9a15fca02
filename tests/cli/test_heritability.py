"""HERITABILITY on a small study: numbers against a direct computation, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import h5py
import nibabel
import numpy as np
import pytest

import rvga_heritability
from helpers import files_in, run_stage
from heritability_study import (
    band_products,
    block_file,
    heritability_args,
    make_study,
    study_rows,
    write_ld_reference,
    write_pgen,
)
from rvga import heritability as h
from rvga.false_discovery import false_discovery_rate
from rvga.formats import open_file
from rvga.genetic_covariance import GeneticCovariance, weights_of
from rvga.ld_reference import LdReference
from rvga.tables import read_table


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a study and its LD reference."""
    made = make_study(tmp_path_factory.mktemp("study"))
    return made, write_ld_reference(made, run_stage)


@pytest.fixture(scope="module")
def result(study, tmp_path_factory):
    """Return the folder of a complete run."""
    folder = tmp_path_factory.mktemp("result")
    done = run_stage(
        "heritability", heritability_args(*study, folder), "--summary", folder / "s.json",
        "--correlation-voxels", "3,0", "--out-voxel-maps", folder / "maps",
        "--genetic-correlation-matrix", "--out-matrix", folder / "matrix.h5",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "memory: about" in done.stderr
    return folder


def direct_moments(study, reference_path: Path, which: int = 0) -> h.Moments:
    """Return the moments from the scores that the study was made of.

    ``which`` weights: 0 for heritability, 1 for correlations.
    """
    with LdReference.open(reference_path) as reference:
        scores = study.scores[study_rows(study, reference)]
        weight = weights_of(reference, study.n, "balanced", trait=False)[which]
        total = None
        for i, (first, stop, b) in enumerate(reference.blocks()):
            seen = h.project_block(
                b.M, b.R_a, b.R_b, b.T, scores[first:stop], reference.n_a, reference.n_b,
                b.t_1_ratio, study.n,
            )  # fmt: skip
            at = slice(reference.column_start[i], reference.column_start[i + 1])
            part = h.moments_of(seen, weight[at])
            total = part if total is None else total + part
        kappa = study.Sigma / (study.n - 1)
        inverse_n = np.full_like(kappa, 1 / study.n)
        return h.combine(
            total, kappa, inverse_n, reference.m, reference.factors(), Sigma=study.Sigma
        )


def test_tables_and_maps_follow_from_the_scores(study, result):
    x = direct_moments(*study)
    h2, error = h.heritability(x, study[0].bases.astype(float))
    table = read_table(result / "heritability.tsv", "heritability")
    np.testing.assert_allclose(table.heritability_raw, h2, rtol=1e-4)
    np.testing.assert_allclose(table.standard_error_raw, error, rtol=1e-4)
    image = nibabel.load(result / "heritability.nii.gz")
    shown = np.asarray(image.dataobj)[tuple(np.indices((5, 4, 3)).reshape(3, -1))]
    np.testing.assert_allclose(shown, table.heritability, rtol=1e-5)
    # Truth is .5 in each component; a run of this size knows it to about .1.
    assert abs(np.trace(x.Gamma) / np.trace(study[0].Sigma) - 0.5) < 0.35


def test_regions_and_pairs(study, result):
    regions = read_table(result / "regions.tsv", "regions")
    pairs = read_table(result / "genetic_correlation.tsv", "genetic_correlation")
    with GeneticCovariance.open(result / "genetic_covariance.h5") as covariance:
        rows = covariance.regions[1]
    # Correlations are of the weights of least variance, h² is not.
    for which, quantity in ((0, regions), (1, pairs)):
        x = direct_moments(*study, which)
        if which == 0:
            expected = h.heritability(x, rows)
            found = quantity.heritability_raw, quantity.standard_error_raw
        else:
            upper = np.triu_indices(len(regions), k=1)
            expected = [one[upper] for one in h.genetic_correlation(x, rows, rows)]
            found = quantity.genetic_correlation_raw, quantity.standard_error_raw
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-4)
    assert len(pairs) == len(regions) * (len(regions) - 1) // 2
    assert regions.n_voxels.sum() == 60
    assert regions.region[0] == "parcel 1"
    assert (pairs.phenotypic_correlation.abs() <= 1 + 1e-9).all()
    outside = pairs.genetic_correlation_raw.abs() > 1
    assert pairs.genetic_correlation[outside].isna().all()
    assert pairs.reason[outside].notna().all()


def test_one_row_of_the_matrix_is_the_map_and_the_python_row(result):
    with GeneticCovariance.open(result / "genetic_covariance.h5") as covariance:
        rho, error = covariance.row(3)
        shown = h.correlation_reasons(rho, error) == ""
    with open_file(result / "matrix.h5", "correlation_matrix") as matrix:
        row, errors = matrix["genetic_correlation"][3], matrix["standard_error"][3]
    np.testing.assert_allclose(row[shown], rho[shown], rtol=1e-5)
    np.testing.assert_allclose(errors[shown], error[shown], rtol=1e-5, atol=1e-7)
    assert np.isnan(row[~shown]).all()
    assert row[3] == pytest.approx(1)
    assert errors[3] == pytest.approx(0, abs=1e-4)
    image = nibabel.load(result / "maps/genetic_correlation_voxel_3.nii.gz")
    values = np.asarray(image.dataobj)[tuple(np.indices((5, 4, 3)).reshape(3, -1))]
    np.testing.assert_allclose(values[shown], rho[shown], rtol=1e-5)
    names = {f"{what}_voxel_{v}.nii.gz" for v in (0, 3)
             for what in ("genetic_correlation", "standard_error")}  # fmt: skip
    assert files_in(result / "maps") == names


def test_summary_has_the_reports_numbers(result):
    summary = json.loads((result / "s.json").read_text())
    numbers = summary["numbers"]
    assert summary["stage"] == "heritability"
    assert numbers["n_voxels"] == 60
    assert numbers["n_shared_variants"] == numbers["n_used_variants"] == numbers["m"]
    assert numbers["n_voxels_shown"] + sum(numbers["reasons"].values()) == 60
    assert numbers["heritability_method"] == numbers["heritability_by"] == "balanced"
    assert numbers["genetic_correlation_by"] == "precise"


def test_same_bytes_for_any_number_of_threads(study, result, tmp_path):
    done = run_stage("heritability", heritability_args(*study, tmp_path), "--threads", 2)
    assert done.returncode == 0, done.stderr
    for name in files_in(tmp_path):
        assert (tmp_path / name).read_bytes() == (result / name).read_bytes(), name


def test_published_method_jackknife_and_regions(study, tmp_path):
    labels = np.zeros((5, 4, 3), dtype=np.int16)
    labels[:2], labels[3:] = 12, 5
    nibabel.Nifti1Image(labels, np.diag([2.0, 2, 2, 1])).to_filename(tmp_path / "labels.nii.gz")
    done = run_stage(
        "heritability", heritability_args(*study, tmp_path),
        "--regions", tmp_path / "labels.nii.gz",
        "--heritability-method", "published", "--se-method", "jackknife",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "biased" in done.stderr
    regions = read_table(tmp_path / "regions.tsv", "regions")
    assert regions.region.tolist() == ["5", "12"]
    assert regions.n_voxels.tolist() == [24, 24]
    table = read_table(tmp_path / "heritability.tsv", "heritability")
    assert set(table.se_method) == {"jackknife"}
    with GeneticCovariance.open(tmp_path / "genetic_covariance.h5") as covariance:
        assert covariance.moments.scale == 1.0
        closed = covariance.heritability()[1]
    # Two blocks make a poor jackknife, but not the closed form.
    assert np.isfinite(table.standard_error_raw).all()
    assert not np.allclose(table.standard_error_raw, closed)


@pytest.fixture(scope="module")
def blocky(tmp_path_factory):
    """Return a study and its LD reference of 28 blocks, enough for a jackknife."""
    made = make_study(tmp_path_factory.mktemp("blocky"), n=900)
    return made, write_ld_reference(made, run_stage, **{"ld-blocks": block_file(made.folder)})


def dense_bands(study, reference_path: Path, free: bool):
    """Return band estimates from the study's scores, all blocks at once."""
    n = study.n - 1.0
    _, t_1, t_2, Q, group, m = band_products(study, reference_path, study.scores)
    use, variance = (t_1 > 0) & (t_2 > 0), np.trace(study.Sigma)
    h2 = 0.0
    x = np.stack([t_2 / m, t_1], axis=1)

    def fit(w, y, kappa, keep):
        root = np.sqrt(w[keep])
        if kappa is None:
            return np.linalg.lstsq(root[:, None] * x[keep], root * y[keep], rcond=None)[0]
        left = (root * x[keep, 0])[:, None]
        right = root * (y[keep] - kappa * t_1[keep])
        return np.array([np.linalg.lstsq(left, right, rcond=None)[0][0], kappa])

    for _ in range(3):
        w = t_1 / (t_1 / n + h2 * t_2 / m) ** 2
        y = Q.trace(axis1=1, axis2=2) / variance
        h2 = np.clip(fit(w, y, None if free else 1 / n, use)[0], 0, 1)
    w = t_1 / (t_1 / n + h2 * t_2 / m) ** 2
    r = len(study.Sigma)

    def all_pairs(keep):
        out = np.zeros((2, r, r))
        for j in range(r):
            for k in range(r):
                kappa = None if free else study.Sigma[j, k] / n
                out[:, j, k] = fit(w, Q[:, j, k], kappa, keep)
        return out

    without = np.stack([all_pairs(use & (group != i)) for i in range(group.max() + 1)])
    return *all_pairs(use), without


@pytest.mark.parametrize("intercept", ["fixed", "free"])
def test_bands_equal_a_weighted_fit_over_all_blocks(blocky, tmp_path, intercept):
    made, reference = blocky
    done = run_stage(
        "heritability", heritability_args(made, reference, tmp_path), "--threads", 2,
        "--heritability-method", "bands", "--intercept", intercept, "--se-method", "jackknife",
        "--summary", tmp_path / "s.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    Gamma, kappa, without = dense_bands(made, reference, intercept == "free")
    # The dataset holds z in single precision.
    with GeneticCovariance.open(tmp_path / "genetic_covariance.h5") as covariance:
        size = np.abs(Gamma).max()
        np.testing.assert_allclose(covariance.moments.Gamma, Gamma, atol=1e-5 * size)
        np.testing.assert_allclose(covariance.left_out, without[:, 0], atol=1e-5 * size)
        assert covariance.moments.scale == pytest.approx(1)
    table = read_table(tmp_path / "heritability.tsv", "heritability")
    rows = made.bases.astype(float)
    variance = np.einsum("vr,vr->v", rows @ made.Sigma, rows)
    h2 = np.einsum("vr,gvr->gv", rows, rows @ np.concatenate([Gamma[None], without[:, 0]]))
    h2 = h2 / variance
    np.testing.assert_allclose(table.heritability_raw, h2[0], atol=1e-4)
    centred = h2[1:] - h2[1:].mean(axis=0)
    G = len(centred)
    error = np.sqrt((G - 1) / G * (centred**2).sum(axis=0))
    np.testing.assert_allclose(table.standard_error_raw, error, rtol=1e-3)
    rate = false_discovery_rate(table.neg_log_10_p_value.to_numpy())
    np.testing.assert_allclose(table.false_discovery_rate, rate, rtol=1e-5)
    if intercept == "free":
        found = read_table(tmp_path / "intercepts.tsv", "intercepts")
        ratio = (made.n - 1) * np.diag(kappa) / np.diag(made.Sigma)
        np.testing.assert_allclose(found.intercept, ratio, rtol=1e-4)
    numbers = json.loads((tmp_path / "s.json").read_text())["numbers"]
    assert numbers["heritability_bands"] == pytest.approx(
        np.trace(Gamma) / np.trace(made.Sigma), abs=1e-4
    )
    each = numbers["model_difference"] / numbers["model_difference_standard_error"]
    assert numbers["model_test_z"] == pytest.approx(each)
    assert 0 <= numbers["heterogeneity_p_value"] <= 1
    assert 0 < numbers["blend_factor"] < 1


def test_what_the_tests_of_the_model_say_is_warned_of():
    numbers = {
        "n_jackknife_groups": 200, "model_test_neg_log_10_p_value": 4.0, "model_test_z": 4.0,
        "heritability_moments": 0.3, "heritability_bands": 0.2, "mean_intercept": 1.2,
        "mean_intercept_standard_error": 0.02, "mean_intercept_neg_log_10_p_value": 8.0,
    }  # fmt: skip
    for change, said in (
        ({}, ["estimators of mean heritability disagree", "the mean intercept is 1.200"]),
        ({"model_test_neg_log_10_p_value": 2.0}, ["the mean intercept is 1.200"]),
        ({"mean_intercept_neg_log_10_p_value": None}, ["estimators of mean heritability"]),
        ({"n_jackknife_groups": 49}, []),
    ):
        warnings: list[str] = []
        rvga_heritability.warn_of_model(numbers | change, warnings)
        assert len(warnings) == len(said)
        assert all(words in text for words, text in zip(said, warnings, strict=True))


@pytest.mark.parametrize(
    ("intercept", "said", "not_said"),
    [(1.2, "effects that lie in low-LD", "high-LD"), (0.8, "lie in high-LD", "people related")],
)
def test_an_intercept_is_explained_by_its_side(intercept, said, not_said):
    numbers = {
        "n_jackknife_groups": 200, "mean_intercept": intercept,
        "mean_intercept_standard_error": 0.02, "mean_intercept_neg_log_10_p_value": 8.0,
    }  # fmt: skip
    warnings: list[str] = []
    rvga_heritability.warn_of_model(numbers, warnings)
    assert said in warnings[0]
    assert not_said not in warnings[0]


def test_heritability_of_few_standard_errors_is_warned_of():
    for h2, number in ((0.4, 0), (0.2, 1)):
        warnings: list[str] = []
        values = np.array([h2, h2, -0.1, np.nan, h2])
        rvga_heritability.warn_of_weak_signal(values, np.full(5, 0.05), warnings)
        assert len(warnings) == number
    assert "the median heritability is 4.0 of its standard errors" in warnings[0]


def test_auto_errors_lie_between_both_and_closed_forms_follow(blocky, tmp_path):
    made, reference = blocky
    errors = {}
    for method in ("closed_form", "jackknife", "auto"):
        out = tmp_path / method
        out.mkdir()
        done = run_stage(
            "heritability", heritability_args(made, reference, out), "--se-method", method,
            "--heritability-method", "bands", "--summary", out / "s.json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        for name, kind in (("heritability", "heritability"), ("regions", "regions"),
                           ("genetic_correlation", "genetic_correlation")):  # fmt: skip
            table = read_table(out / f"{name}.tsv", kind)
            assert set(table.se_method) == {method}
            errors[name, method] = table.standard_error_raw.to_numpy()
    factor = json.loads((tmp_path / "auto/s.json").read_text())["numbers"]["blend_factor"]
    for name in ("heritability", "regions"):
        closed, jack = errors[name, "closed_form"], errors[name, "jackknife"]
        expected = np.sqrt(closed**2 + factor * np.maximum(jack**2 - closed**2, 0))
        np.testing.assert_allclose(errors[name, "auto"], expected, rtol=1e-5)
    # Both are estimates of the same size of error.
    ratio = np.median(errors["heritability", "jackknife"] / errors["heritability", "closed_form"])
    assert 0.4 < ratio < 2.5


def test_variants_missing_from_the_dataset_do_not_bias(study, result, tmp_path):
    made, reference = study
    thinned = tmp_path / "thin.rvga.h5"
    thinned.write_bytes(made.dataset.read_bytes())
    gone = np.random.default_rng(1).permutation(len(made.scores))[:140]
    with h5py.File(thinned, "r+") as file:
        z = file["z"][...]
        z[gone] = np.nan
        file["z"][...] = z
    thin = made._replace(dataset=thinned)
    done = run_stage("heritability", heritability_args(thin, reference, tmp_path))
    assert done.returncode == 0, done.stderr
    assert "of the LD reference's variants are in the dataset" in done.stderr
    scores = made.scores.copy()
    scores[gone] = np.nan
    x = direct_moments(made._replace(scores=scores), reference)
    table = read_table(tmp_path / "heritability.tsv", "heritability")
    expected = h.heritability(x, made.bases.astype(float))[0]
    np.testing.assert_allclose(table.heritability_raw, expected, rtol=1e-4)


def test_a_reference_of_an_earlier_version_is_warned_of(study, tmp_path):
    made, reference = study
    older, said = tmp_path / "older.ld.h5", "older.ld.h5 lacks the dataset 't_1_ratio'"
    older.write_bytes(reference.read_bytes())
    with h5py.File(older, "r+") as file:
        del file["t_1_ratio"]
    arguments = heritability_args(made, older, tmp_path)
    done = run_stage("heritability", arguments, "--summary", tmp_path / "s.json")
    assert done.returncode == 0, done.stderr
    assert said in done.stderr
    summary = json.loads((tmp_path / "s.json").read_text())
    assert any(said in warning for warning in summary["warnings"])


def other_positions(made, folder: Path) -> Path:
    """Return a reference on positions that the dataset does not have."""
    panels = []
    for name, files in (("p1", made.panel_1), ("p2", made.panel_2)):
        people = [line.split()[0] for line in
                  files[0].with_suffix(".psam").read_text().splitlines()[1:]]  # fmt: skip
        dosages = np.random.default_rng(len(panels)).integers(0, 3, size=(300, len(people)))
        panels.append(write_pgen(folder / f"far_{name}", dosages, "1", people, start=900_050))
    chunk, out = folder / "far.h5", folder / "far.ld.h5"
    done = run_stage(
        "ld_blocks", "--chromosome", "1", "--panel-1", panels[0], "--panel-2", panels[1],
        "--out", chunk,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert run_stage("ld_reference", "--chunks", chunk, "--out", out).returncode == 0
    return out


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("too few variants", "share 0 of the reference's 300 variants"),
        ("regions of another shape", "has shape 5 x 4 x 4, the study's images 5 x 4 x 3"),
        ("regions of another affine", "another affine"),
        ("regions that are no labels", "not whole numbers"),
        ("regions without labels", "no label other than 0"),
        ("regions damaged", "cut short: its header announces"),
        ("voxel out of range", "'60' is not a voxel; give numbers from 0 to 59"),
        ("voxel maps without folder", "needs --out-voxel-maps"),
        ("free intercept as published", "--intercept free is not to be had with"),
        ("auto errors as published", "--se-method auto is not to be had with"),
        ("free intercept in closed form", "the closed form leaves out the error of the intercept"),
        ("matrix without file", "needs --out-matrix"),
        ("dataset of another kind", "an rvga 'minimal' file is due here"),
        ("reference missing", "no such file"),
        ("reference damaged", "not a readable HDF5 file"),
    ],
)
def test_bad_input(study, tmp_path, case, message):
    made, reference = study
    given, out = tmp_path / "in", tmp_path / "out"
    given.mkdir()
    out.mkdir()
    options: list[object] = []
    if case == "too few variants":
        reference = other_positions(made, given)
    elif case.startswith("regions"):
        labels = np.ones((5, 4, 4 if case.endswith("shape") else 3))
        labels *= {"regions that are no labels": 1.5, "regions without labels": 0}.get(case, 1)
        affine = np.diag([3.0 if case.endswith("affine") else 2.0, 2, 2, 1])
        path = given / "labels.nii"
        nibabel.Nifti1Image(labels, affine).to_filename(path)
        if case.endswith("damaged"):
            path.write_bytes(path.read_bytes()[:400])
        options = ["--regions", path]
    elif case == "voxel out of range":
        options = ["--correlation-voxels", "0,60", "--out-voxel-maps", out / "maps"]
    elif case == "voxel maps without folder":
        options = ["--correlation-voxels", "0"]
    elif case == "free intercept as published":
        options = ["--heritability-method", "published", "--intercept", "free"]
    elif case == "auto errors as published":
        options = ["--heritability-method", "published", "--se-method", "auto"]
    elif case == "free intercept in closed form":
        options = ["--intercept", "free"]
    elif case == "matrix without file":
        options = ["--genetic-correlation-matrix"]
    elif case == "dataset of another kind":
        made = made._replace(dataset=reference)
    elif case == "reference missing":
        reference = given / "nothing.h5"
    elif case == "reference damaged":
        cut = given / "cut.h5"
        cut.write_bytes(reference.read_bytes()[:5000])
        reference = cut
    done = run_stage("heritability", heritability_args(made, reference, out), *options)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not files_in(out)


def test_settings_beyond_the_calibration_are_warned_of(study, blocky, tmp_path):
    """Panels, share and few causal variants: in the log, in the summary, and so in the report."""
    summary = json.loads(run_summary(*study, tmp_path / "a"))
    people = min(summary["numbers"]["n_panel_1"], summary["numbers"]["n_panel_2"])
    said = [text for text in summary["warnings"] if "the smaller LD panel has" in text]
    assert len(said) == 1
    assert f"has {people} people, and heritability was calibrated with 1,000 or more" in said[0]
    # The ratio is that of the two ways over all voxels; two groups of blocks say nothing of it.
    numbers = json.loads(run_summary(*blocky, tmp_path / "b"))["numbers"]
    with GeneticCovariance.open(tmp_path / "b/genetic_covariance.h5") as covariance:
        errors = [covariance.heritability(se_method=how)[1] for how in ("jackknife", "closed_form")]
    expected = np.median(errors[0] / errors[1])
    assert numbers["jackknife_over_closed_form"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("jackknife", "groups", "method", "free", "said"),
    [
        (0.12, 200, "moments", False, True), (0.12, 49, "moments", False, False),
        (0.07, 200, "bands", True, False), (0.12, 200, "bands", True, True),
        (0.12, 200, "moments", True, False), (0.12, 200, "published", False, False),
    ],
)  # fmt: skip
def test_few_causal_variants_are_warned_of(jackknife, groups, method, free, said):
    error = {"jackknife": jackknife, "closed_form": 0.05}
    covariance = SimpleNamespace(
        method=method, N=300, bases=np.ones((300, 2), dtype=np.float32),
        heritability=lambda rows, how: (np.full(len(rows), 0.4), np.full(len(rows), error[how])),
    )  # fmt: skip
    numbers, warnings = {"n_jackknife_groups": groups}, []
    rvga_heritability.compare_errors(covariance, free, numbers, warnings)
    assert [f"are {jackknife / 0.05:.1f} times" in text for text in warnings] == [True] * said


def run_summary(made, reference, folder: Path) -> str:
    """Return the summary of a plain run."""
    folder.mkdir()
    done = run_stage(
        "heritability", heritability_args(made, reference, folder), "--summary", folder / "s.json"
    )
    assert done.returncode == 0, done.stderr
    return (folder / "s.json").read_text()
