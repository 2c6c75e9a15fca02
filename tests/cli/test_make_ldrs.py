"""MAKE_LDRS: representations of the raw images, their quality, and bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import oracles
from helpers import files_in, make_image_study, run_stage, selected_study, write_nifti
from rvga import formats, tables

AFFINE = [[2.0, 0, 0, -5], [0, 2, 0, -4], [0, 0, 2, -3], [0, 0, 0, 1]]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    files, images, subjects = selected_study(folder)
    bases = folder / "bases.h5"
    done = run_stage(
        "fit_bases",
        *("--images", images, "--subjects", subjects, "--components", 6, "--out", bases),
    )
    assert done.returncode == 0, done.stderr
    return files, images, subjects, bases


def make(study, folder, images=None, subjects=None, *options):
    """Run MAKE_LDRS."""
    return run_stage(
        "make_ldrs",
        *("--images", images or study[1], "--subjects", subjects or study[2]),
        *("--bases", study[3], "--out", folder / "ldrs.h5", "--table", folder / "ldrs.tsv"),
        *options,
    )


def test_ldrs_and_quality_are_of_the_raw_images(study, tmp_path):
    done = make(study, tmp_path, None, None, "--summary", tmp_path / "x.json")
    assert done.returncode == 0, done.stderr
    files = study[0]
    order = np.argsort(files.subjects)
    X = files.volumes[order][:, files.inside].astype(float)
    with formats.open_file(study[3], "bases") as based:
        B = based["bases"][...].astype(float)
    with formats.open_file(tmp_path / "ldrs.h5", "ldrs") as found:
        S = found["ldrs"][...]
        np.testing.assert_allclose(S, X @ B, rtol=1e-12, atol=1e-10)
        assert found.array("subject").tolist() == sorted(files.subjects)
        assert found["quality_components"][...].tolist() == [1, 2, 5, 6]
        for q, value in zip((1, 2, 5, 6), found["quality_correlation"][...], strict=True):
            each = [np.corrcoef(x, B[:, :q] @ (B[:, :q].T @ x))[0, 1] for x in X]
            assert value == pytest.approx(np.mean(each), abs=1e-6)
    table = tables.read_table(tmp_path / "ldrs.tsv", "ldrs")
    assert list(table.columns) == ["subject", *(f"LDR{k}" for k in range(1, 7))]
    assert table["subject"].tolist() == sorted(files.subjects)
    np.testing.assert_allclose(table.iloc[:, 1:], S, rtol=1e-7)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text)["numbers"]["quality_components"] == [1, 2, 5, 6]
    assert not any(subject in text for subject in files.subjects)


def test_bytes_do_not_depend_on_batches_or_threads(study, tmp_path):
    files = study[0]
    one, two = tmp_path / "one.h5", tmp_path / "two.h5"
    for path, rows in ((one, range(20, -1, -1)), (two, range(21, 24))):
        assert files.read_images(path, list(rows)).returncode == 0
    found = set()
    for images, threads in (([study[1]], 1), ([one, two], 2), ([two, one], 1)):
        done = make(study, tmp_path, images, None, "--threads", threads)
        assert done.returncode == 0, done.stderr
        found.add((tmp_path / "ldrs.h5").read_bytes() + (tmp_path / "ldrs.tsv").read_bytes())
    assert len(found) == 1


def test_images_of_another_run_are_refused(study, tmp_path):
    _, images, _ = selected_study(tmp_path / "other", n=20)
    before = files_in(tmp_path)
    done = make(study, tmp_path, images)
    assert done.returncode == 2
    assert "is in none of the images files" in done.stderr
    assert files_in(tmp_path) == before


def test_bases_serve_another_cohort(study, tmp_path):
    files, images, subjects = selected_study(tmp_path / "other", n=20)
    done = make(study, tmp_path, images, subjects, "--summary", tmp_path / "x.json")
    assert done.returncode == 0, done.stderr
    order = np.argsort(files.subjects)
    X = files.volumes[order][:, files.inside].astype(float)
    with formats.open_file(study[3], "bases") as based:
        B = based["bases"][...].astype(float)
    with formats.open_file(tmp_path / "ldrs.h5", "ldrs") as found:
        np.testing.assert_allclose(found["ldrs"][...], X @ B, rtol=1e-12, atol=1e-10)
    numbers = json.loads((tmp_path / "x.json").read_text())["numbers"]
    assert numbers["bases_of_same_sample"] is False
    assert numbers["n_voxels_absent"] == numbers["n_voxels_unused"] == 0


def smaller_mask(study, folder: Path, n_gone: int):
    """Return another cohort whose mask lacks some voxels and has some that the bases lack."""
    files = make_image_study(folder, n=20)
    inside = files.inside.copy()
    gone = np.argwhere(inside)[-n_gone:]
    inside[tuple(gone.T)] = False
    inside[0, 0, :] = True
    write_nifti(files.mask, inside.astype(np.uint8), np.array(AFFINE))
    images, subjects = folder / "images.h5", folder / "subjects.h5"
    for done in (files.read_images(images), files.select([images], subjects)):
        assert done.returncode == 0, done.stderr
    return files, images, subjects, inside


def test_voxels_that_the_cohort_lacks_take_the_mean_of_the_bases(study, tmp_path):
    files, images, subjects, inside = smaller_mask(study, tmp_path / "other", 7)
    done = make(study, tmp_path, images, subjects, "--summary", tmp_path / "x.json")
    assert done.returncode == 0, done.stderr
    assert "7 of the 116 voxels of the bases are not in these images" in done.stderr
    order = np.argsort(files.subjects)
    X = files.volumes[order][:, study[0].inside].astype(float)
    with formats.open_file(study[3], "bases") as based:
        B, mean = based["bases"][...].astype(float), based["mean"][...]
    absent = ~inside[study[0].inside]
    assert absent.sum() == 7
    X[:, absent] = mean[absent]
    with formats.open_file(tmp_path / "ldrs.h5", "ldrs") as found:
        S = found["ldrs"][...]
        np.testing.assert_allclose(S, X @ B, rtol=1e-10)
        each = [np.corrcoef(x, B @ s)[0, 1] for x, s in zip(X, S, strict=True)]
        assert found["quality_correlation"][-1] == pytest.approx(np.mean(each), abs=1e-6)
    numbers = json.loads((tmp_path / "x.json").read_text())["numbers"]
    assert (numbers["n_voxels_absent"], numbers["n_voxels_unused"]) == (7, 4)


def test_too_few_voxels_of_the_bases_are_refused(study, tmp_path):
    _, images, subjects, _ = smaller_mask(study, tmp_path / "other", 30)
    done = make(study, tmp_path, images, subjects)
    assert done.returncode == 2
    assert "the images have 86 of its 116 voxels (74.1%), but 90% are needed" in done.stderr
    assert not (tmp_path / "ldrs.h5").exists()


def test_bases_of_another_space_are_refused(study, tmp_path):
    folder = tmp_path / "other"
    files = make_image_study(folder, n=20)
    moved = np.array(AFFINE)
    moved[0, 3] += 0.5
    write_nifti(files.mask, files.inside.astype(np.uint8), moved)
    for image, volume in zip(files.images, files.volumes, strict=True):
        write_nifti(image, volume, moved)
    images, subjects = folder / "images.h5", folder / "subjects.h5"
    for done in (files.read_images(images), files.select([images], subjects)):
        assert done.returncode == 0, done.stderr
    done = make(study, tmp_path, images, subjects)
    assert done.returncode == 2
    assert "bases.h5: was made from other images than these: the corners" in done.stderr
    assert "up to 0.5 mm apart" in done.stderr


def test_phenotypes_for_other_programs(study, tmp_path):
    files = study[0]
    done = make(
        study, tmp_path, None, None, "--samples", files.psam, "--phenotypes", tmp_path / "p.pheno"
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in (tmp_path / "p.pheno").read_text().splitlines()]
    assert lines[0] == ["FID", "IID", *(f"LDR{k}" for k in range(1, 7))]
    assert [line[:2] for line in lines[1:]] == [[f"f{s}", s] for s in sorted(files.subjects)]
    with formats.open_file(tmp_path / "ldrs.h5", "ldrs") as found:
        values = np.array([line[2:] for line in lines[1:]], dtype=float)
        np.testing.assert_allclose(values, found["ldrs"][...], rtol=1e-8)


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")
def test_plink_reads_the_phenotypes(study, tmp_path):
    files = study[0]
    done = make(
        study, tmp_path, None, None, "--samples", files.psam, "--phenotypes", tmp_path / "p.pheno"
    )
    assert done.returncode == 0, done.stderr
    ran = subprocess.run(
        ["plink2", "--psam", files.psam, "--pheno", tmp_path / "p.pheno", "--write-samples",
         "--require-pheno", "LDR6", "--out", tmp_path / "o"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "6 quantitative phenotypes loaded" in ran.stdout
    # The header and everybody: all ids agree, and nobody's value is missing.
    assert len((tmp_path / "o.id").read_text().splitlines()) == 25


def test_outlying_subjects_are_listed_and_stay(tmp_path):
    folder = tmp_path / "study"
    files = make_image_study(folder, n=80)
    # The ninth person's image is that of nobody else.
    strange = write_nifti(files.images[8], 8 * files.volumes[8], np.array(AFFINE))
    assert strange.is_file()
    images, subjects, bases = (folder / name for name in ("i.h5", "s.h5", "b.h5"))
    for done in (
        files.read_images(images),
        files.select([images], subjects),
        run_stage("fit_bases", "--images", images, "--subjects", subjects, "--components", 4,
                  "--bandwidth", "none", "--out", bases),
    ):  # fmt: skip
        assert done.returncode == 0, done.stderr
    done = make(
        (files, images, subjects, bases), tmp_path, None, None,
        "--outliers", tmp_path / "outliers.tsv", "--summary", tmp_path / "x.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "of 80 subjects lie far from all others" in done.stderr
    listed = tables.read_table(tmp_path / "outliers.tsv", "outliers")
    assert listed["subject"][0] == files.subjects[8]
    assert (listed["squared_distance"] > listed["threshold"]).all()
    numbers = json.loads((tmp_path / "x.json").read_text())["numbers"]
    assert numbers["outliers"]["n"] == len(listed) <= 3
    assert files.subjects[8] not in (tmp_path / "x.json").read_text()
    with formats.open_file(tmp_path / "ldrs.h5", "ldrs") as found:
        assert found["ldrs"].shape[0] == 80


def test_a_damaged_file_is_refused(study, tmp_path):
    short = tmp_path / "subjects.h5"
    short.write_bytes(study[2].read_bytes()[:-200])
    done = make(study, tmp_path, None, short)
    assert done.returncode == 2
    assert "not a readable HDF5 file" in done.stderr
    assert files_in(tmp_path) == {"subjects.h5"}


def test_missing_values_are_the_voxels_mean_throughout(tmp_path):
    files = make_image_study(tmp_path / "study", n=24)
    volumes = files.volumes.copy()
    volumes[3, 2, 2, 2] = volumes[11, 4, 1, 3] = np.nan
    for row in (3, 11):
        write_nifti(files.images[row], volumes[row], np.array(AFFINE))
    images, subjects, bases = (tmp_path / name for name in ("i.h5", "s.h5", "b.h5"))
    for done in (
        files.read_images(images),
        files.select([images], subjects, "--min-coverage", 0.9),
        run_stage("fit_bases", "--images", images, "--subjects", subjects, "--components", 4,
                  "--bandwidth", "none", "--out", bases),
        make((files, images, subjects, bases), tmp_path),
    ):  # fmt: skip
        assert done.returncode == 0, done.stderr
    X = volumes[np.argsort(files.subjects)][:, files.inside].astype(float)
    assert np.isnan(X).sum() == 2
    X = np.where(np.isnan(X), np.nanmean(X, axis=0).astype(np.float32), X)
    B, _ = oracles.principal_components(X, 4)
    with formats.open_file(bases, "bases") as based:
        np.testing.assert_allclose(based["bases"][...], B, atol=2e-6)
        B = based["bases"][...].astype(float)
    with formats.open_file(tmp_path / "ldrs.h5", "ldrs") as found:
        np.testing.assert_allclose(found["ldrs"][...], X @ B, rtol=1e-6)
