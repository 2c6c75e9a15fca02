"""MAKE_LDRS: representations of the raw images, their quality, and bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

import oracles
from helpers import (
    files_in,
    make_image_study,
    represented_study,
    run_stage,
    selected_study,
    write_nifti,
)
from rvga import formats, tables

AFFINE = [[2.0, 0, 0, -5], [0, 2, 0, -4], [0, 0, 2, -3], [0, 0, 0, 1]]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return represented_study(tmp_path_factory.mktemp("study"), 6)


def project(study, images, subjects, out):
    """Run PROJECT_IMAGES."""
    done = run_stage(
        "project_images",
        *("--images", images, "--subjects", subjects, "--bases", study[3], "--out", out),
    )
    assert done.returncode == 0, done.stderr
    return out


def join(study, folder, scores, subjects=None, *options):
    """Run MAKE_LDRS."""
    return run_stage(
        "make_ldrs",
        *("--scores", scores, "--subjects", subjects or study[2]),
        *("--bases", study[3], "--out", folder / "ldrs.h5", "--table", folder / "ldrs.tsv"),
        *options,
    )


def make(study, folder, images=None, subjects=None, *options):
    """Run PROJECT_IMAGES on each batch, then MAKE_LDRS."""
    scores = [
        project(study, batch, subjects or study[2], folder / f"scores.{number}.h5")
        for number, batch in enumerate(images or [study[1]])
    ]
    return join(study, folder, scores, subjects, *options)


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
    numbers = json.loads(text)["numbers"]
    assert numbers["quality_components"] == [1, 2, 5, 6]
    deviations = X - X.mean(axis=0)
    for q, value in zip((1, 2, 5, 6), numbers["quality_correlation_centred"], strict=True):
        each = [np.corrcoef(x, B[:, :q] @ (B[:, :q].T @ x))[0, 1] for x in deviations]
        assert value == pytest.approx(np.mean(each), abs=1e-6)
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


def test_batches_of_nobody_and_of_one_change_nothing(study, tmp_path):
    files = study[0]
    removed = sorted(files.subjects)[3]
    (tmp_path / "remove.txt").write_text(f"{removed}\n")
    subjects = tmp_path / "subjects.h5"
    done = files.select([study[1]], subjects, "--remove", tmp_path / "remove.txt")
    assert done.returncode == 0, done.stderr
    nobody = files.subjects.index(removed)
    others = [row for row in range(24) if row != nobody]
    batches = []
    for number, rows in enumerate(([nobody], others[:1], others[1:])):
        batches.append(tmp_path / f"images.{number}.h5")
        assert files.read_images(batches[-1], rows).returncode == 0
    found = set()
    for images in ([study[1]], batches):
        done = make(study, tmp_path, images, subjects)
        assert done.returncode == 0, done.stderr
        found.add((tmp_path / "ldrs.h5").read_bytes() + (tmp_path / "ldrs.tsv").read_bytes())
    assert len(found) == 1


@pytest.fixture(scope="module")
def batches(study, tmp_path_factory):
    """Return the scores of two batches."""
    folder = tmp_path_factory.mktemp("batches")
    found = []
    for number, rows in enumerate((range(10), range(10, 24))):
        images = folder / f"images.{number}.h5"
        assert study[0].read_images(images, list(rows)).returncode == 0
        found.append(project(study, images, study[2], folder / f"scores.{number}.h5"))
    return found


def refused(done, folder, sentence):
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert not files_in(folder) & {"ldrs.h5", "ldrs.tsv"}


def test_a_batch_that_is_not_there_is_noticed(study, batches, tmp_path):
    first = min(study[0].subjects[:10])
    done = join(study, tmp_path, batches[1:])
    refused(done, tmp_path, f"subject '{first}' of the sample is in none of the scores files")


def test_a_batch_that_is_there_twice_is_noticed(study, batches, tmp_path):
    done = join(study, tmp_path, [*batches, batches[0]])
    refused(done, tmp_path, "is there twice (also in")


def test_scores_of_another_sample_are_refused(study, batches, tmp_path):
    _, images, subjects = selected_study(tmp_path / "other", n=20)
    other = project(study, images, subjects, tmp_path / "scores.x.h5")
    done = join(study, tmp_path, [batches[0], other])
    refused(done, tmp_path, "scores.x.h5 was not made from subjects.h5")


def test_scores_of_other_bases_are_refused(study, batches, tmp_path):
    files, images, subjects, _ = study
    bases = tmp_path / "bases.h5"
    done = run_stage(
        "fit_bases",
        *("--images", images, "--subjects", subjects, "--components", 5, "--out", bases),
    )
    assert done.returncode == 0, done.stderr
    done = join((files, images, subjects, bases), tmp_path, batches)
    refused(done, tmp_path, "scores.0.h5 was not made from bases.h5")


def test_images_that_the_sample_was_not_selected_from_are_refused(study, batches, tmp_path):
    files = make_image_study(tmp_path / "other")
    # The same subjects and voxels; one value of one image is another.
    volume = files.volumes[15].copy()
    volume[3, 3, 3] += 1
    write_nifti(files.images[15], volume, np.array(AFFINE))
    images = tmp_path / "images.h5"
    assert files.read_images(images, list(range(10, 24))).returncode == 0
    changed = project(study, images, study[2], tmp_path / "scores.x.h5")
    done = join(study, tmp_path, [batches[0], changed])
    refused(done, tmp_path, "subjects.h5 was not made from these images files")


def rewritten(source, target, attributes, subjects):
    """Write a scores file again with some things changed."""
    with formats.open_file(source, "scores") as given:
        content = {name: given.array(name) for name in formats.KINDS["scores"].datasets}
        content["subject"] = subjects(content["subject"].tolist())
        kept = {**given.attributes, **attributes}
        with formats.create(target, "scores", kept, inputs=given.inputs) as writer:
            for name, values in content.items():
                writer.add(name, values)
    return target


def test_scores_on_other_voxels_are_refused(study, batches, tmp_path):
    moved = rewritten(batches[1], tmp_path / "x.h5", {"geometry_digest": "other"}, list)
    done = join(study, tmp_path, [batches[0], moved])
    refused(done, tmp_path, "x.h5: is of images on other voxels than")


def test_a_stranger_among_the_scores_is_refused(study, batches, tmp_path):
    strange = rewritten(batches[1], tmp_path / "x.h5", {}, lambda ids: ["stranger", *ids[1:]])
    done = join(study, tmp_path, [batches[0], strange])
    refused(done, tmp_path, "x.h5: subject 'stranger' is not in subjects.h5")


def test_bases_serve_another_cohort(study, tmp_path):
    files, images, subjects = selected_study(tmp_path / "other", n=20)
    done = make(study, tmp_path, [images], subjects, "--summary", tmp_path / "x.json")
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
    done = make(study, tmp_path, [images], subjects, "--summary", tmp_path / "x.json")
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
    scores = project(study, study[1], study[2], tmp_path / "scores.h5")
    done = join(study, tmp_path, [scores], short)
    assert done.returncode == 2
    assert "not a readable HDF5 file" in done.stderr
    assert files_in(tmp_path) == {"subjects.h5", "scores.h5"}


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


def test_places_of_cifti_that_differ_by_rounding_are_those_of_one_study(tmp_path):
    inside = np.zeros((5, 4, 3), dtype=bool)
    inside[1:4, 1:3, :] = True
    rng = np.random.default_rng(7)
    table = tmp_path / "covariates.tsv"
    table.write_text(
        "subject\tage\n" + "".join(f"s{k:02d}\t{40 + k * k % 17}\n" for k in range(24))
    )
    patterns = rng.normal(size=(4, 18))
    images = []
    for number, shift in enumerate((0.0, 1e-7, 6e-4)):
        affine = np.array(AFFINE)
        affine[1, 3] += shift
        axis = nibabel.cifti2.BrainModelAxis.from_mask(inside, affine=affine, name="PUTAMEN_LEFT")
        subjects = [f"s{8 * number + k:02d}" for k in range(8)]
        for subject in subjects:
            values = 5 + rng.normal(size=(1, 4)) @ patterns + 0.3 * rng.normal(size=(1, 18))
            axes = (nibabel.cifti2.ScalarAxis(["thickness"]), axis)
            image = nibabel.cifti2.Cifti2Image(values.astype(np.float32), header=axes)
            image.to_filename(tmp_path / f"{subject}.dscalar.nii")
        ids = tmp_path / f"{number}.txt"
        ids.write_text("\n".join(subjects) + "\n")
        images.append(tmp_path / f"images.{number}.h5")
        done = run_stage(
            "read_images",
            *("--images", [tmp_path / f"{subject}.dscalar.nii" for subject in subjects]),
            *("--subjects", ids, "--out", images[-1]),
        )
        assert done.returncode == 0, done.stderr
    found = {}
    for order in ((0, 1, 2), (2, 0, 1)):
        folder = tmp_path / f"first{order[0]}"
        folder.mkdir()
        given = [images[number] for number in order]
        subjects, bases = folder / "subjects.h5", folder / "bases.h5"
        for done in (
            run_stage("select_subjects", "--images", given, "--covariates", table,
                      "--out", subjects),
            run_stage("fit_bases", "--images", given[::-1], "--subjects", subjects,
                      "--components", 3, "--bandwidth", 2, "--out", bases),
        ):  # fmt: skip
            assert done.returncode == 0, done.stderr
        scores = [
            project((None, None, None, bases), path, subjects, folder / f"scores{path.name}")
            for path in given
        ]
        done = join((None, None, subjects, bases), folder, scores)
        assert done.returncode == 0, done.stderr
        with formats.open_file(folder / "ldrs.h5", "ldrs") as ldrs:
            found[order[0]] = ldrs["ldrs"][...]
    # The coordinates are those of one of the batches.
    np.testing.assert_allclose(found[0], found[2], rtol=1e-2, atol=1e-2)
    other = tmp_path / "images.far.h5"
    with (
        h5py.File(images[0]) as one,
        formats.create(other, "images", {"geometry_type": "cifti"}) as writer,
    ):
        for name in one:
            if name not in ("geometry", "coordinates", "subject"):
                writer.add(name, one[name][...])
        writer.add("subject", [f"t{k}" for k in range(8)])
        writer.add("coordinates", one["coordinates"][...] + [0, 2e-3, 0])
        for name in one["geometry"]:
            writer.add(f"geometry/{name}", one["geometry"][name][...])
    done = run_stage("select_subjects", "--images", images[0], other, "--covariates", table,
                     "--out", tmp_path / "x.h5")  # fmt: skip
    assert done.returncode == 2
    assert "images.far.h5: is on other voxels than" in done.stderr
