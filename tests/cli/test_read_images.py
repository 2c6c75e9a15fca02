"""READ_IMAGES: what it writes, and what it says about bad input."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from helpers import (
    files_in,
    make_image_study,
    run_stage,
    write_cifti,
    write_maps,
    write_metric,
    write_nifti,
    write_surface,
)
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
        "geometry_type": "nifti", "parts": [], "smoothable": True,
    }  # fmt: skip
    assert "1 of 12 images have missing values (2 in all)" in summary["warnings"][0]
    assert "1 of 12 images have missing values (2 in all)" in done.stderr


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


def turned(study):
    affine = AFFINE.copy()
    affine[0, 0], affine[0, 3] = -2, 5
    write_nifti(study.images[5], study.volumes[5][::-1], affine)
    return "its axes point to LAS, the mask's to RAS: the orientations are mixed"


def zeros(study):
    write_nifti(study.images[5], np.zeros((6, 5, 4), dtype=np.float32), AFFINE)
    return f"{study.images[5].name}: every value inside the mask is 0"


def nothing(study):
    write_nifti(study.images[5], np.full((6, 5, 4), np.nan, dtype=np.float32), AFFINE)
    return f"{study.images[5].name}: no voxel inside the mask has a finite value"


@pytest.mark.parametrize(
    "spoil",
    [
        missing, empty, truncated, other_shape, other_affine, no_mask, empty_mask, twice,
        one_id_less, turned, zeros, nothing,
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


# -------------------------------------------------------------------------------------------
# Images of other kinds
# -------------------------------------------------------------------------------------------


def images_of(path):
    """Return the subjects and images of an images file, sorted by subject."""
    with formats.open_file(path, "images") as found:
        subjects = found.array("subject")
        order = np.argsort(subjects)
        return subjects[order].tolist(), found["images"][...][order]


def test_volumes_one_file_and_a_table_give_equal_images(study, tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(study.subjects))
    stack = np.moveaxis(study.volumes, 0, -1)
    inside = study.volumes[:, study.inside]
    rows = [
        "\t".join([subject, *(f"{value:.9g}" for value in values)])
        for subject, values in zip(study.subjects, inside, strict=True)
    ]
    header = "\t".join(["subject", *(f"v{k}" for k in range(inside.shape[1]))])
    (tmp_path / "table.tsv").write_text("\n".join([header, *rows]) + "\n")
    many = ("--subjects", ids, "--mask", study.mask)
    ways = {
        "single": (*("--images", study.images), *many),
        "stack": (*("--images", write_nifti(tmp_path / "all.nii", stack, AFFINE)), *many),
        "packed": (*("--images", write_nifti(tmp_path / "all.nii.gz", stack, AFFINE)), *many),
        "table": ("--images", tmp_path / "table.tsv"),
    }
    found = {}
    for name, options in ways.items():
        share = ("--share", "1/1") if name in ("stack", "packed") else ()
        out = tmp_path / f"{name}.h5"
        done = run_stage("read_images", *options, *share, "--out", out)
        assert done.returncode == 0, done.stderr
        found[name] = images_of(out)
    for name in ("stack", "packed", "table"):
        assert found[name][0] == found["single"][0]
        np.testing.assert_array_equal(found[name][1], found["single"][1])
    for name in ("table", "stack"):
        shares = []
        for share in ("1/2", "2/2"):
            out = tmp_path / "share.h5"
            done = run_stage("read_images", *ways[name], "--share", share, "--out", out)
            assert done.returncode == 0, done.stderr
            shares.append(images_of(out))
        assert sorted(shares[0][0] + shares[1][0]) == found["single"][0]


def test_several_maps_of_gifti_are_read_one_after_another(tmp_path):
    rng = np.random.default_rng(9)
    values = rng.normal(size=(3, 2, 20)).astype(np.float32)
    for k, maps in enumerate(values):
        names = ["area", "thickness"] if k < 2 else ["area", "curvature"]
        write_maps(tmp_path / f"{k}.gii", maps, names)
    (tmp_path / "ids.txt").write_text("s0\ns1\ns2\n")
    given = ("--subjects", tmp_path / "ids.txt", "--out", tmp_path / "x.h5")
    files = ("--images", [tmp_path / f"{k}.gii" for k in range(3)])
    done = run_stage("read_images", *files, *given, "--summary", tmp_path / "x.json")
    assert done.returncode == 0, done.stderr
    assert "0.gii: 2 maps an image, one after another" in done.stderr
    np.testing.assert_array_equal(images_of(tmp_path / "x.h5")[1], values.reshape(3, 40))
    summary = json.loads((tmp_path / "x.json").read_text())
    assert summary["numbers"]["parts"] == ["map1", "map2"]
    assert summary["warnings"][0].startswith(
        "1 of 3 images have maps of other names than the first"
    )
    done = run_stage("read_images", *files, *given, "--cifti-maps", "area")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(images_of(tmp_path / "x.h5")[1], values[:, 0])
    assert "other names" not in done.stderr


def gifti_study(folder, n=6, vertices=20):
    """Write two surfaces and, for n subjects, a map on each; return the maps by part."""
    rng = np.random.default_rng(8)
    values = {}
    for side, structure in (("lh", "CortexLeft"), ("rh", "CortexRight")):
        points = rng.normal(size=(vertices, 3)).astype(np.float32)
        triangles = np.stack([np.arange(vertices - 2) + k for k in range(3)], axis=1)
        write_surface(folder / f"{side}.surf.gii", structure, points, triangles.astype(np.int32))
        values[side] = rng.normal(size=(n, vertices)).astype(np.float32)
        for k, row in enumerate(values[side]):
            write_metric(folder / f"{side}.{k}.gii", row)
    (folder / "ids.txt").write_text("".join(f"s{k}\n" for k in range(n)))
    return values


def test_parts_are_joined(tmp_path):
    values = gifti_study(tmp_path)
    done = run_stage(
        "read_images",
        *("--images", [tmp_path / f"{side}.{k}.gii" for side in ("lh", "rh") for k in range(6)]),
        *("--subjects", tmp_path / "ids.txt"),
        *("--surface", tmp_path / "lh.surf.gii", tmp_path / "rh.surf.gii"),
        *("--part", "lh:0:1:0", "--part", "rh:0:2:0"),
        *("--out", tmp_path / "x.h5", "--summary", tmp_path / "x.json", "--threads", 2),
    )
    assert done.returncode == 0, done.stderr
    with formats.open_file(tmp_path / "x.h5", "images") as found:
        expected = np.hstack([values["lh"], values["rh"]])
        np.testing.assert_array_equal(found["images"][...], expected)
        assert found["part"][...].tolist() == [0] * 20 + [1] * 20
        assert found["geometry/vertex"][...].tolist() == list(range(40))
        assert found["geometry/triangles"][...].max() == 39
        np.testing.assert_allclose(found["voxel_sum"][...], expected.sum(axis=0), atol=1e-5)
        assert found.attributes["geometry_type"] == "joined"
    numbers = json.loads((tmp_path / "x.json").read_text())["numbers"]
    assert numbers["parts"] == ["lh", "rh"]
    assert numbers["smoothable"]


def test_tables_of_two_parts_are_joined_by_subject(tmp_path):
    (tmp_path / "a.tsv").write_text("subject\tp\tq\ns1\t1\t2\ns2\t3\t4\ns3\t5\tNA\n")
    (tmp_path / "b.csv").write_text("IID,u,v,w\ns3,9,8,7\ns9,1,1,1\ns1,6,5,4\ns2,3,2,1\n")
    out = tmp_path / "x.h5"
    options = ("--part", "A:0:0:0", "--part", "B:0:0:0", "--out", out)
    images = ("--images", tmp_path / "a.tsv", tmp_path / "b.csv")
    done = run_stage("read_images", *images, *options)
    assert done.returncode == 0, done.stderr
    assert "the images have no coordinates to smooth by" in done.stderr
    assert "b.csv: 1 subjects are not in a.tsv and are left out" in done.stderr
    for share, said in (("1/2", True), ("2/2", False)):
        done = run_stage("read_images", *images, *options, "--share", share)
        assert done.returncode == 0, done.stderr
        assert ("1 subjects are not in a.tsv" in done.stderr) == said
    summary = tmp_path / "x.json"
    done = run_stage("read_images", *images, *options, "--summary", summary)
    assert done.returncode == 0, done.stderr
    assert any(
        "1 subjects are not in a.tsv" in w for w in json.loads(summary.read_text())["warnings"]
    )
    assert "s9" not in summary.read_text()
    assert images_of(out)[0] == ["s1", "s2", "s3"]
    expected = [[1, 2, 6, 5, 4], [3, 4, 3, 2, 1], [5, np.nan, 9, 8, 7]]
    np.testing.assert_array_equal(images_of(out)[1], expected)
    (tmp_path / "b.csv").write_text("IID,u,v,w\ns3,9,8,7\ns1,6,5,4\n")
    done = run_stage("read_images", *images, *options)
    assert done.returncode == 2
    assert "b.csv: lacks 1 subjects that a.tsv has ('s2' the first)" in done.stderr
    (tmp_path / "b.csv").write_text("IID,u,v,w\ns3,9,8,7\ns1,6,5,4\ns2,1,1,1\ns1,6,5,4\n")
    done = run_stage("read_images", *images, *options)
    assert done.returncode == 2
    assert "b.csv: subject 's1' is there twice" in done.stderr


def test_columns_that_are_no_voxels_are_named_in_the_log(tmp_path):
    (tmp_path / "t.tsv").write_text("subject\teid\tp\tq\ns1\t7\t1\t2\ns2\t8\t3\t4\n")
    done = run_stage("read_images", "--images", tmp_path / "t.tsv", "--out", tmp_path / "x.h5")
    assert done.returncode == 0, done.stderr
    assert "t.tsv: column eid is an id or an index, no voxel, and is left out" in done.stderr
    np.testing.assert_array_equal(images_of(tmp_path / "x.h5")[1], [[1, 2], [3, 4]])


def twice_in_a_table(folder):
    (folder / "t.tsv").write_text("subject\ta\tb\ns1\t1\t2\ns1\t2\t3\n")
    return ["--images", folder / "t.tsv"], "t.tsv: subject 's1' is there twice"


def mask_for_a_table(folder):
    (folder / "t.tsv").write_text("subject\ta\tb\ns1\t1\t2\n")
    return ["--images", folder / "t.tsv", "--mask", folder / "t.tsv"], "which takes no --mask"


def volumes_without_ids(folder):
    write_nifti(folder / "all.nii", np.ones((3, 3, 3, 2)), AFFINE)
    write_nifti(folder / "mask.nii", np.ones((3, 3, 3)), AFFINE)
    given = ["--images", folder / "all.nii", "--mask", folder / "mask.nii"]
    return given, "give the list of its subjects (--image_subjects)"


def no_mask_for_a_volume(folder):
    write_nifti(folder / "a.nii", np.ones((3, 3, 3)), AFFINE)
    (folder / "ids.txt").write_text("s1\n")
    given = ["--images", folder / "a.nii", "--subjects", folder / "ids.txt"]
    return given, "a.nii: is a volume (NIfTI), which needs a mask"


def a_table_as_one_image(folder):
    (folder / "t.tsv").write_text("subject\ta\tb\ns1\t1\t2\n")
    (folder / "ids.txt").write_text("s1\n")
    given = ["--images", folder / "t.tsv", "--subjects", folder / "ids.txt"]
    return given, "t.tsv: is a table of subjects"


def text_named_as_an_image(folder):
    (folder / "a.nii.gz").write_text("no image")
    write_nifti(folder / "mask.nii", np.ones((3, 3, 3)), AFFINE)
    given = ["--images", folder / "a.nii.gz", "--mask", folder / "mask.nii"]
    return given, "a.nii.gz: is named as an image but holds no image"


def no_share(folder):
    (folder / "t.tsv").write_text("subject\ta\tb\ns1\t1\t2\n")
    return ["--images", folder / "t.tsv", "--share", "3/2"], "'3/2' is no share"


def parts_of_one_name(folder):
    (folder / "t.tsv").write_text("subject\ta\tb\ns1\t1\t2\n")
    given = ["--images", folder / "t.tsv", folder / "t.tsv", "--part", "a:::", "--part", "a:::"]
    return given, "each part needs a name of its own"


def another_number_of_volumes(folder):
    write_nifti(folder / "all.nii", np.ones((3, 3, 3, 4)), AFFINE)
    write_nifti(folder / "mask.nii", np.ones((3, 3, 3)), AFFINE)
    (folder / "ids.txt").write_text("s1\ns2\ns3\n")
    given = ["--images", folder / "all.nii", "--mask", folder / "mask.nii", "--share", "1/1"]
    given += ["--subjects", folder / "ids.txt"]
    return given, "all.nii: has 4 volumes (shape 3 x 3 x 3 x 4), but the list of subjects has 3 ids"


def another_number_of_vertices(folder):
    gifti_study(folder)
    write_metric(folder / "lh.3.gii", np.ones(19))
    given = ["--images", *[folder / f"lh.{k}.gii" for k in range(6)]]
    given += ["--subjects", folder / "ids.txt", "--surface", folder / "lh.surf.gii"]
    return given, "lh.3.gii: has 19 vertices, but the surface lh.surf.gii has 20"


def one_of_two_brain_models_without_coordinates(folder):
    gifti_study(folder)
    (folder / "ids.txt").write_text("s1\n")
    write_cifti(folder / "a.dscalar.nii", np.ones((1, 40)), ["thickness"])
    given = ["--images", folder / "a.dscalar.nii", "--subjects", folder / "ids.txt"]
    given += ["--surface", folder / "lh.surf.gii"]
    return given, "CORTEX_RIGHT has no coordinates, while others have (1 of 2 lack them)"


def no_matrix_of_spm(folder):
    nibabel.AnalyzeImage(np.ones((3, 3, 3)), AFFINE).to_filename(folder / "a.hdr")
    write_nifti(folder / "mask.nii", np.ones((3, 3, 3)), AFFINE)
    (folder / "ids.txt").write_text("s1\n")
    (folder / "a.mat").write_text("1 0 0 0\n")
    given = ["--images", *[folder / f"a.{ending}" for ending in ("hdr", "img", "mat")]]
    given += ["--subjects", folder / "ids.txt", "--mask", folder / "mask.nii"]
    return given, "a.mat: stands beside an Analyze image and would say where its voxels lie, but is"


@pytest.mark.parametrize(
    "spoil",
    [
        another_number_of_volumes, another_number_of_vertices, no_matrix_of_spm,
        one_of_two_brain_models_without_coordinates,
        twice_in_a_table, mask_for_a_table, volumes_without_ids, no_mask_for_a_volume,
        a_table_as_one_image, text_named_as_an_image, no_share,
        parts_of_one_name,
    ],
)  # fmt: skip
def test_other_bad_input_is_one_message(tmp_path, spoil):
    given, message = spoil(tmp_path)
    before = files_in(tmp_path)
    done = run_stage("read_images", *given, "--out", tmp_path / "x.h5")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("ERROR") == 1
    assert "Traceback" not in done.stderr
    assert files_in(tmp_path) == before
