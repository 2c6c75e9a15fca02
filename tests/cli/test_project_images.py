"""PROJECT_IMAGES: rows of one batch that are in the sample, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers import (
    files_in,
    make_image_study,
    represented_study,
    run_stage,
    write_cifti,
    write_nifti,
)
from rvga import formats

AFFINE = [[2.0, 0, 0, -5], [0, 2, 0, -4], [0, 0, 2, -3], [0, 0, 0, 1]]
BY_SUBJECT = (
    "subject",
    "ldrs",
    "image_sum",
    "image_sum_of_squares",
    "image_times_mean",
    "image_digest",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return represented_study(tmp_path_factory.mktemp("study"), 6)


def project(study, out, images=None, subjects=None, *options):
    """Run PROJECT_IMAGES."""
    return run_stage(
        "project_images",
        *("--images", images or study[1], "--subjects", subjects or study[2]),
        *("--bases", study[3], "--out", out, *options),
    )


def content(path: Path) -> dict[str, np.ndarray]:
    with formats.open_file(path, "scores") as found:
        return {name: found.array(name) for name in BY_SUBJECT}


def test_scores_and_sums_are_of_the_raw_images(study, tmp_path):
    out = tmp_path / "scores.h5"
    done = project(study, out, None, None, "--summary", tmp_path / "x.json")
    assert done.returncode == 0, done.stderr
    assert "memory: about" in done.stderr
    files = study[0]
    X = files.volumes[np.argsort(files.subjects)][:, files.inside].astype(float)
    with formats.open_file(study[3], "bases") as based:
        B = based["bases"][...].astype(float)
    found = content(out)
    assert found["subject"].tolist() == sorted(files.subjects)
    np.testing.assert_allclose(found["ldrs"], X @ B, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(found["image_sum"], X.sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found["image_sum_of_squares"], (X**2).sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found["image_times_mean"], X @ X.mean(axis=0), rtol=1e-7)
    text = (tmp_path / "x.json").read_text()
    numbers = json.loads(text)["numbers"]
    assert (numbers["n_images"], numbers["n_projected"], numbers["r"]) == (24, 24, 6)
    assert not any(subject in text for subject in files.subjects)


def test_a_subject_has_the_same_bytes_in_any_batch(study, tmp_path):
    files = study[0]
    assert project(study, tmp_path / "all.h5").returncode == 0
    whole = content(tmp_path / "all.h5")
    for number, rows in enumerate(([5], [0, 23, 7], list(range(22, 3, -1)))):
        images, out = tmp_path / f"images{number}.h5", tmp_path / f"scores{number}.h5"
        assert files.read_images(images, rows).returncode == 0
        done = project(study, out, images, None, "--threads", 1 + number % 2)
        assert done.returncode == 0, done.stderr
        part = content(out)
        assert part["subject"].tolist() == sorted(files.subjects[row] for row in rows)
        here = np.searchsorted(whole["subject"].astype(str), part["subject"].astype(str))
        for name in BY_SUBJECT:
            assert part[name].tolist() == whole[name][here].tolist(), name


def test_who_is_not_in_the_sample_has_no_row(study, tmp_path):
    files, _, _, bases = study
    removed = sorted(files.subjects)[3:6]
    (tmp_path / "remove.txt").write_text("".join(f"{subject}\n" for subject in removed))
    subjects = tmp_path / "subjects.h5"
    done = files.select([study[1]], subjects, "--remove", tmp_path / "remove.txt")
    assert done.returncode == 0, done.stderr
    given = (files, study[1], subjects, bases)
    assert project(given, tmp_path / "all.h5").returncode == 0
    assert content(tmp_path / "all.h5")["subject"].tolist() == [
        subject for subject in sorted(files.subjects) if subject not in removed
    ]
    # A batch of nobody in the sample is an empty file.
    images, out = tmp_path / "images.h5", tmp_path / "nobody.h5"
    assert files.read_images(images, [files.subjects.index(s) for s in removed]).returncode == 0
    done = project(given, out, images, None, "--summary", tmp_path / "x.json")
    assert done.returncode == 0, done.stderr
    assert "0 of 3 images are of the sample" in done.stderr
    assert content(out)["ldrs"].shape == (0, 6)
    assert json.loads((tmp_path / "x.json").read_text())["numbers"]["n_projected"] == 0


def test_a_missing_value_is_the_voxels_mean(study, tmp_path):
    files = make_image_study(tmp_path / "study")
    volumes = files.volumes.copy()
    volumes[3, 2, 2, 2] = np.nan
    write_nifti(files.images[3], volumes[3], np.array(AFFINE))
    images, subjects, out = (tmp_path / name for name in ("i.h5", "s.h5", "scores.h5"))
    for done in (
        files.read_images(images),
        files.select([images], subjects, "--min-coverage", 0.9),
        project(study, out, images, subjects),
    ):
        assert done.returncode == 0, done.stderr
    X = volumes[:, files.inside].astype(float)
    x = np.where(np.isnan(X[3]), np.nanmean(X, axis=0).astype(np.float32), X[3])
    found = content(out)
    row = found["subject"].tolist().index(files.subjects[3])
    assert found["image_sum"][row] == pytest.approx(x.sum(), rel=1e-10)


def with_mask(folder: Path, n_gone: int, affine=None):
    """Return another cohort, read under a mask without some voxels or in another space."""
    files = make_image_study(folder, n=20)
    inside = files.inside.copy()
    inside[tuple(np.argwhere(inside)[len(inside[inside]) - n_gone :].T)] = False
    inside[0, 0, :] = n_gone > 0
    affine = np.array(AFFINE if affine is None else affine)
    write_nifti(files.mask, inside.astype(np.uint8), affine)
    for image, volume in zip(files.images, files.volumes, strict=True):
        write_nifti(image, volume, affine)
    images, subjects = folder / "images.h5", folder / "subjects.h5"
    for done in (files.read_images(images), files.select([images], subjects)):
        assert done.returncode == 0, done.stderr
    return images, subjects


def test_voxels_that_the_cohort_lacks_are_counted(study, tmp_path):
    images, subjects = with_mask(tmp_path / "other", 7)
    done = project(study, tmp_path / "scores.h5", images, subjects)
    assert done.returncode == 0, done.stderr
    with formats.open_file(tmp_path / "scores.h5", "scores") as found:
        assert found.attributes["n_voxels_absent"] == 7
        assert found.attributes["n_voxels_unused"] == 4


def test_voxels_that_the_sample_drops_are_counted_apart(study, tmp_path):
    folder = tmp_path / "other"
    files = make_image_study(folder, n=20)
    inside = files.inside.copy()
    gone = np.argwhere(inside)
    inside[tuple(gone[:2].T)] = False
    write_nifti(files.mask, inside.astype(np.uint8), np.array(AFFINE))
    for image, volume in zip(files.images, files.volumes, strict=True):
        volume[tuple(gone[2:5].T)] = 1.0
        write_nifti(image, volume, np.array(AFFINE))
    images, subjects, scores = (folder / name for name in ("i.h5", "s.h5", "scores.h5"))
    for done in (
        files.read_images(images),
        files.select([images], subjects),
        project(study, scores, images, subjects),
    ):
        assert done.returncode == 0, done.stderr
    with formats.open_file(scores, "scores") as found:
        assert found.attributes["n_voxels_absent"] == 2
        assert found.attributes["n_voxels_unfit"] == 3
    done = run_stage(
        "make_ldrs",
        *("--scores", scores, "--subjects", subjects, "--bases", study[3]),
        *("--out", folder / "ldrs.h5", "--table", folder / "ldrs.tsv"),
    )
    assert done.returncode == 0, done.stderr
    assert "2 of the 116 voxels of the bases are not in these images" in done.stderr
    assert "3 of the 116 voxels of the bases are in these images, but constant" in done.stderr


def test_too_few_voxels_of_the_bases_are_refused(study, tmp_path):
    images, subjects = with_mask(tmp_path / "other", 30)
    done = project(study, tmp_path / "scores.h5", images, subjects)
    assert done.returncode == 2
    assert "(30 are not in the images, 0 are constant or lack values" in done.stderr
    assert "the images have 86 of its 116 voxels (74.1%), but 90% are needed" in done.stderr
    assert not (tmp_path / "scores.h5").exists()


def test_bases_of_another_space_are_refused(study, tmp_path):
    moved = np.array(AFFINE)
    moved[0, 3] += 0.5
    images, subjects = with_mask(tmp_path / "other", 0, moved)
    done = project(study, tmp_path / "scores.h5", images, subjects)
    assert done.returncode == 2
    assert "bases.h5: was made from other images than these: the corners" in done.stderr
    assert "up to 0.5 mm apart" in done.stderr


def test_a_sample_of_other_voxels_is_refused(study, tmp_path):
    images, _ = with_mask(tmp_path / "other", 7)
    before = files_in(tmp_path)
    done = project(study, tmp_path / "scores.h5", images)
    assert done.returncode == 2
    assert "it keeps voxels beyond their 113" in done.stderr
    assert files_in(tmp_path) == before


def test_a_damaged_file_is_refused(study, tmp_path):
    short = tmp_path / "subjects.h5"
    short.write_bytes(study[2].read_bytes()[:-200])
    done = project(study, tmp_path / "scores.h5", None, short)
    assert done.returncode == 2
    assert "not a readable HDF5 file" in done.stderr
    assert files_in(tmp_path) == {"subjects.h5"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["{s}_area", "{s}_thickness"], None),
        (["{s}_thickness", "{s}_area"], "the same maps in another order than these; choose the"),
    ],
)
def test_bases_of_the_same_maps_in_another_order_are_refused(tmp_path, names, message):
    rng = np.random.default_rng(5)
    table = tmp_path / "covariates.tsv"
    table.write_text("subject\tage\n" + "".join(f"s{k}\t{40 + k * k % 17}\n" for k in range(20)))
    made = []
    for number, forms in enumerate((["{s}_area", "{s}_thickness"], names)):
        subjects = [f"s{10 * number + k}" for k in range(10)]
        paths = [tmp_path / f"{subject}.dscalar.nii" for subject in subjects]
        for subject, path in zip(subjects, paths, strict=True):
            write_cifti(path, rng.normal(size=(2, 12)), [form.format(s=subject) for form in forms])
        ids, images, selected = (tmp_path / f"{number}.{name}" for name in ("txt", "h5", "sub.h5"))
        ids.write_text("\n".join(subjects) + "\n")
        for done in (
            run_stage("read_images", "--images", paths, "--subjects", ids, "--out", images),
            run_stage("select_subjects", "--images", images, "--covariates", table,
                      "--out", selected),
        ):  # fmt: skip
            assert done.returncode == 0, done.stderr
        made.append((images, selected))
    bases = tmp_path / "bases.h5"
    done = run_stage("fit_bases", "--images", made[0][0], "--subjects", made[0][1],
                     "--components", 2, "--out", bases)  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run_stage("project_images", "--images", made[1][0], "--subjects", made[1][1],
                     "--bases", with_map_order(bases, made[0][0]),
                     "--out", tmp_path / "x.h5")  # fmt: skip
    assert done.returncode == (2 if message else 0), done.stderr
    assert (message or "") in done.stderr
    assert (tmp_path / "x.h5").exists() == (message is None)


def with_map_order(bases: Path, images: Path) -> Path:
    """Return bases that remember the order of the maps of some images."""
    with formats.open_file(bases, "bases") as found, formats.open_file(images, "images") as read:
        if "map_order" in found:
            return bases
        names = [name for name in formats.KINDS["bases"].datasets if name in found]
        out = bases.with_name("remembering.h5")
        with formats.create(out, "bases", found.attributes, inputs=found.inputs) as writer:
            for name in names:
                writer.add(name, found.array(name))
            writer.add("map_order", read.array("map_order"))
    return out
