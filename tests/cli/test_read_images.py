"""READ_IMAGES: what it writes, and what it says about bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers import files_in, make_image_study, run_stage, write_nifti
from rvga import formats

AFFINE = np.array([[2.0, 0, 0, -5], [0, 2, 0, -4], [0, 0, 2, -3], [0, 0, 0, 1]])


@pytest.fixture
def study(tmp_path):
    return make_image_study(tmp_path, n=12)


def test_values_and_counts(study, tmp_path):
    volume = study.volumes[3].copy()
    volume[2, 2, 2], volume[1, 1, 1] = np.nan, np.inf
    write_nifti(study.images[3], volume, AFFINE)
    (tmp_path / "ids.txt").write_text("\n".join(study.subjects))
    done = run_stage(
        "read_images",
        *("--images", study.images, "--subjects", tmp_path / "ids.txt", "--mask", study.mask),
        *("--out", tmp_path / "x.h5", "--summary", tmp_path / "x.json", "--threads", 2),
    )
    assert done.returncode == 0, done.stderr
    expected = study.volumes[:, study.inside]
    lost = np.array([tuple(i) in {(2, 2, 2), (1, 1, 1)} for i in np.argwhere(study.inside)])
    expected[3, lost] = np.nan
    with formats.open_file(tmp_path / "x.h5", "images") as found:
        np.testing.assert_array_equal(found["images"][...], expected)
        assert found.array("subject").tolist() == study.subjects
        np.testing.assert_array_equal(found["voxel_count"][...], np.where(lost, 11, 12))
        np.testing.assert_allclose(found["voxel_sum"][...], np.nansum(expected, 0, "f8"))
        np.testing.assert_allclose(
            found["voxel_sum_of_squares"][...], np.nansum(expected.astype("f8") ** 2, 0)
        )
        index = np.argwhere(study.inside)
        np.testing.assert_array_equal(found["geometry/index"][...], index)
        np.testing.assert_allclose(found["coordinates"][...], index * 2 + AFFINE[:3, 3])
    summary = json.loads((tmp_path / "x.json").read_text())
    assert summary["numbers"] == {
        "n_images": 12, "n_voxels": 116, "n_images_not_finite": 1, "n_values_not_finite": 2,
    }  # fmt: skip
    assert "1 of 12 images have values that are not finite" in summary["warnings"][0]
    assert "1 of 12 images have values that are not finite" in done.stderr


def test_bytes_do_not_depend_on_threads(study, tmp_path):
    (tmp_path / "ids.txt").write_text("\n".join(study.subjects))
    for threads in (1, 2):
        done = run_stage(
            "read_images",
            *("--images", study.images, "--subjects", tmp_path / "ids.txt", "--mask", study.mask),
            *("--out", tmp_path / f"{threads}.h5", "--threads", threads),
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def missing(study):
    study.images[5].unlink()
    return f"{study.images[5].name}: no such file"


def empty(study):
    study.images[5].write_bytes(b"")
    return f"{study.images[5].name}: the file is empty"


def truncated(study):
    study.images[5].write_bytes(study.images[5].read_bytes()[:-60])
    return f"{study.images[5].name}: the compressed file is cut short"


def other_shape(study):
    write_nifti(study.images[5], np.zeros((6, 5, 3), dtype=np.float32), AFFINE)
    return "has shape 6 x 5 x 3, but the mask mask.nii.gz has 6 x 5 x 4"


def other_affine(study):
    affine = AFFINE.copy()
    affine[2, 3] += 0.5
    write_nifti(study.images[5], study.volumes[5], affine)
    return "corners of the grids are up to 0.5 mm apart"


def no_mask(study):
    study.mask.unlink()
    return "mask.nii.gz: no such file (mask)"


def empty_mask(study):
    write_nifti(study.mask, np.zeros((6, 5, 4), dtype=np.uint8), AFFINE)
    return "the mask has 0 voxels above 0"


def twice(study):
    study.subjects[7] = study.subjects[2]
    return f"subject '{study.subjects[2]}' is there twice (lines 3 and 8)"


def one_id_less(study):
    study.subjects.pop()
    return "holds 11 subject ids for 12 images"


@pytest.mark.parametrize(
    "spoil",
    [
        missing, empty, truncated, other_shape, other_affine, no_mask, empty_mask, twice,
        one_id_less,
    ],
)  # fmt: skip
def test_bad_input_is_one_message_and_leaves_nothing(study, tmp_path, spoil):
    message = spoil(study)
    (tmp_path / "ids.txt").write_text("\n".join(study.subjects))
    before = files_in(tmp_path)
    done = run_stage(
        "read_images",
        *("--images", study.images, "--subjects", tmp_path / "ids.txt", "--mask", study.mask),
        *("--out", tmp_path / "x.h5", "--summary", tmp_path / "x.json"),
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("ERROR") == 1
    assert "Traceback" not in done.stderr
    assert files_in(tmp_path) == before
