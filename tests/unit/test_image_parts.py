"""Images of every kind: the same values from each, and a message for every mistake."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
from nibabel.cifti2 import BrainModelAxis, Cifti2Image, ScalarAxis
from scipy.io import savemat

import helpers
from helpers import write_maps, write_metric
from rvga import image_files, image_tables
from rvga.errors import InputError
from rvga.geometry import describe, identity, join, same_voxels
from rvga.image_parts import PartFiles, Rules, map_values, open_part, pair_files, part_files

DATA = Path(os.environ.get("RVGA_TEST_DATA", Path(__file__).parents[3] / "shared/data"))
FORMATS = DATA / "surface_formats"
THICKNESS = "lh.conte69_32k_thickness"
needs_formats = pytest.mark.skipif(
    not FORMATS.is_dir(), reason="the public maps in five formats are not on this machine"
)
AFFINE = np.array([[2.0, 0, 0, -5], [0, 2, 0, -4], [0, 0, 2, -3], [0, 0, 0, 1]])
SHAPE = (4, 3, 2)
N_VERTICES = 42


def sphere(seed=0):
    """Return 42 points of a sphere and the triangles between them."""
    from scipy.spatial import ConvexHull

    points = np.random.default_rng(seed).normal(size=(N_VERTICES, 3))
    points = 50 * points / np.linalg.norm(points, axis=1, keepdims=True)
    return points.astype(np.float32), ConvexHull(points).simplices.astype(np.int32)


def write_surface(path, structure="", points=None, triangles=None):
    """Write a GIFTI surface, a sphere unless another is given."""
    if points is None:
        points, triangles = sphere()
    return helpers.write_surface(path, structure, points, triangles)


def cortex(side="LEFT", kept=None, n=N_VERTICES):
    """Return a brain model of a cortex."""
    kept = np.arange(n) if kept is None else kept
    return BrainModelAxis.from_surface(kept, n, f"CORTEX_{side}")


def nucleus():
    """Return a brain model of some voxels."""
    mask = np.zeros((5, 4, 3), dtype=bool)
    mask[1:3, 1:3, 1] = True
    return BrainModelAxis.from_mask(mask, affine=AFFINE, name="THALAMUS_LEFT")


def write_cifti(path, axis, values, names=None):
    """Write dense scalars (maps, g)."""
    values = np.atleast_2d(np.asarray(values, dtype=np.float32))
    names = names or [f"map{k}" for k in range(len(values))]
    Cifti2Image(values, header=(ScalarAxis(names), axis)).to_filename(path)
    return path


def volume(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def save(path, data, affine=AFFINE, kind=nibabel.Nifti1Image):
    kind(data, affine).to_filename(path)
    return path


def read(path, rules=None, **files):
    """Return the values of one image."""
    return open_part(PartFiles(**files), rules or Rules(), path).read(path)


# -------------------------------------------------------------------------------------------
# The same data in several formats
# -------------------------------------------------------------------------------------------


@needs_formats
def test_one_map_in_five_formats_has_the_same_values_and_the_same_rule_of_missing_ones():
    surface = (FORMATS / "conte69_32k_lh.surf.gii",)
    names = [THICKNESS + ending for ending in ("", ".mgh", ".gii", ".dscalar.nii", ".txt")]
    zero_is_a_value = [read(FORMATS / name, surfaces=surface) for name in names]
    # The medial wall: not finite in two of the files, 0 in three. 0 is a value.
    assert [int(np.isnan(values).sum()) for values in zero_is_a_value] == [3221, 0, 0, 0, 3221]
    rules = Rules(zero_is_missing=True)
    values = [read(FORMATS / name, rules, surfaces=surface) for name in names]
    for other in values[1:]:
        np.testing.assert_array_equal(np.isnan(other), np.isnan(values[0]))
        np.testing.assert_allclose(other, values[0], rtol=0, atol=2.3e-7)
    assert np.isfinite(values[0]).sum() == 29271
    geometries = [
        open_part(PartFiles(surfaces=surface), rules, FORMATS / name).geometry for name in names
    ]
    for geometry in geometries:
        np.testing.assert_array_equal(geometry.coordinates, geometries[0].coordinates)
        np.testing.assert_array_equal(geometry.triangles, geometries[0].triangles)
        assert geometry.smoothable


@pytest.mark.parametrize("name", ["a.mgh", "a.mgz", "a.gii", "lh.thickness", "a.txt"])
def test_values_of_vertices(tmp_path, name):
    values = np.random.default_rng(1).normal(size=N_VERTICES).astype(np.float32)
    values[3] = np.nan
    surface = write_surface(tmp_path / "lh.surf.gii", "CortexLeft")
    path = write_metric(tmp_path / name, values)
    reader = open_part(PartFiles(surfaces=(surface,)), Rules(), path)
    np.testing.assert_array_equal(reader.read(path), values)
    points, triangles = sphere()
    np.testing.assert_array_equal(reader.geometry.coordinates, points)
    np.testing.assert_array_equal(reader.geometry.triangles, triangles)
    assert reader.geometry.layouts[0].structure == "CortexLeft"
    mask = write_metric(tmp_path / "mask.gii", np.arange(N_VERTICES) % 2)
    half = open_part(PartFiles(surfaces=(surface,), mask=mask), Rules(), path)
    np.testing.assert_array_equal(half.read(path), values[1::2])
    np.testing.assert_array_equal(half.geometry.coordinates, points[1::2])
    assert half.geometry.vertex.tolist() == list(range(1, N_VERTICES, 2))


def test_vertices_without_a_surface_are_not_smoothed(tmp_path):
    path = write_metric(tmp_path / "a.gii", np.arange(1, 8.0))
    geometry = open_part(PartFiles(), Rules(), path).geometry
    assert not geometry.smoothable
    assert geometry.coordinates.shape == (7, 1)
    assert geometry.triangles is None
    assert open_part(PartFiles(), Rules("index"), path).geometry.smoothable


def test_freesurfer_surfaces(tmp_path):
    points, triangles = sphere()
    nibabel.freesurfer.write_geometry(tmp_path / "lh.white", points, triangles)
    surface = image_files.read_surface(tmp_path / "lh.white")
    np.testing.assert_allclose(surface.points, points, rtol=1e-6)
    np.testing.assert_array_equal(surface.triangles, triangles)
    assert surface.structure == "CortexLeft"
    packed = tmp_path / "lh.white.gz"
    packed.write_bytes(gzip.compress((tmp_path / "lh.white").read_bytes()))
    again = image_files.read_surface(packed)
    np.testing.assert_array_equal(again.points, surface.points)
    np.testing.assert_array_equal(again.triangles, triangles)
    assert again.structure == "CortexLeft"
    packed.write_bytes(gzip.compress((tmp_path / "lh.white").read_bytes()[:300]))
    with pytest.raises(InputError, match=r"lh\.white\.gz: cut short or damaged"):
        image_files.read_surface(packed)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("lh.white", "L"), ("sub-1_hemi-R_white.surf.gii", "R"), ("a.L.surf.gii", "L"), ("ball", "")],
)
def test_the_hemisphere_by_name(name, expected):
    assert image_files.hemisphere(name) == expected


def test_analyze_and_nifti_pairs_are_header_and_values(tmp_path):
    data = volume()
    for name, kind in (("analyze", nibabel.Spm99AnalyzeImage), ("pair", nibabel.Nifti1Pair)):
        save(tmp_path / f"{name}.img", data, kind=kind)
        header, values = tmp_path / f"{name}.hdr", tmp_path / f"{name}.img"
        if name == "analyze":
            nibabel.AnalyzeImage(data, None).to_filename(values)
        found, _ = image_files.read_volume(header)
        np.testing.assert_array_equal(found, data)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        values.rename(elsewhere / values.name)
        found = pair_files([header, elsewhere / values.name])
        assert found == [(header, elsewhere / values.name, None)]
        found, _ = image_files.read_volume(header, "image", elsewhere / values.name)
        np.testing.assert_array_equal(found, data)
        with pytest.raises(InputError, match=rf"{name}\.hdr: .*no {name}\.img beside it"):
            image_files.read_volume(header)


def spm_matrix(affine):
    """Return an affine (4, 4) for voxels counted from 1, as SPM writes it."""
    from_one = np.eye(4)
    from_one[:3, 3] = -1
    return affine @ from_one


@pytest.mark.parametrize("name", ["mat", "M"])
def test_spm_says_where_the_voxels_of_analyze_images_lie(tmp_path, name):
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
    affine = AFFINE.copy()
    affine[:2, :3] = turn @ np.diag([2.0, 2, 2])
    header = tmp_path / "a.hdr"
    nibabel.AnalyzeImage(volume(), np.diag([2.0, 2, 2, 1])).to_filename(header)
    plain = image_files.read_volume(header)[1]
    written = affine if name == "mat" else np.diag([-1.0, 1, 1, 1]) @ affine
    savemat(tmp_path / "a.mat", {name: spm_matrix(written), "other": 1})
    found, found_affine = image_files.read_volume(header)
    np.testing.assert_array_equal(found, volume())
    np.testing.assert_allclose(found_affine, affine, atol=1e-12)
    assert np.abs(found_affine - plain).max() > 1
    # An independent reader agrees.
    read_there = nibabel.Spm99AnalyzeImage.from_filename(header).affine
    np.testing.assert_allclose(found_affine, read_there, atol=1e-12)
    mask = tmp_path / "mask.nii"
    save(mask, np.ones(SHAPE, dtype=np.uint8), affine)
    np.testing.assert_array_equal(read(header, mask=mask), volume().ravel())
    save(mask, np.ones(SHAPE, dtype=np.uint8), plain)
    with pytest.raises(InputError, match=r"a\.hdr: its affine .* is another one than that of the"):
        read(header, mask=mask)
    # Where it does not stand beside the header, it is named.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in (tmp_path / "a.img", tmp_path / "a.mat"):
        path.rename(elsewhere / path.name)
    given = pair_files([header, elsewhere / "a.img", elsewhere / "a.mat"])
    assert given == [(header, elsewhere / "a.img", elsewhere / "a.mat")]
    path, *others = given[0]
    np.testing.assert_allclose(image_files.read_volume(path, "image", *others)[1], affine)


def test_a_mat_file_that_is_not_spms_is_refused(tmp_path):
    header, matrix = tmp_path / "a.hdr", tmp_path / "a.mat"
    nibabel.AnalyzeImage(volume(), AFFINE).to_filename(header)
    matrix.write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    with pytest.raises(InputError, match=r"a\.mat: .*no MATLAB file of SPM .*; remove it .*NIfTI"):
        image_files.read_volume(header)
    good = tmp_path / "good.mat"
    savemat(good, {"mat": np.eye(4)})
    for length in range(0, good.stat().st_size, 7):
        matrix.write_bytes(good.read_bytes()[:length])
        with pytest.raises(InputError, match=r"a\.mat: "):
            image_files.read_volume(header)
    for content in ({"other": np.eye(4)}, {"mat": np.eye(3)}, {"mat": np.full((4, 4), np.nan)}):
        savemat(matrix, content)
        with pytest.raises(InputError, match=r"a\.mat: .*no 4 x 4 matrix 'mat' or 'M'"):
            image_files.read_volume(header)
    # NIfTI says itself where its voxels lie.
    nibabel.Nifti1Pair(volume(), AFFINE).to_filename(tmp_path / "a.hdr")
    np.testing.assert_allclose(image_files.read_volume(header)[1], AFFINE)


def test_the_scale_and_origin_that_spm_wrote_are_applied(tmp_path):
    data = volume()
    affine = np.diag([-2.0, 2, 2, 1])
    affine[:3, 3] = 4, -2, -2
    image = nibabel.Spm99AnalyzeImage(data, affine)
    image.set_data_dtype(np.int16)
    image.to_filename(tmp_path / "a.img")
    header = nibabel.Spm99AnalyzeHeader((tmp_path / "a.hdr").read_bytes())
    slope = float(header["scl_slope"])
    assert 0 < slope < 0.01
    # Counted from 1, in voxels.
    header["origin"][:3] = 3, 2, 2
    (tmp_path / "a.hdr").write_bytes(header.binaryblock)
    found, found_affine = image_files.read_volume(tmp_path / "a.hdr")
    np.testing.assert_allclose(found, data, rtol=0, atol=0.51 * slope)
    np.testing.assert_allclose(found_affine, affine)
    # A plain Analyze header has neither; its range for display is no scale.
    plain = nibabel.AnalyzeImage(data, None)
    plain.header["cal_max"], plain.header["glmax"] = 10, 1000
    plain.to_filename(tmp_path / "b.img")
    found, found_affine = image_files.read_volume(tmp_path / "b.hdr")
    np.testing.assert_array_equal(found, data)
    np.testing.assert_allclose(found_affine[:3, 3], [1.5, -1, -0.5])


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image, nibabel.Nifti1Pair])
@pytest.mark.parametrize(("unit", "factor"), [("micron", 1e3), ("meter", 1e-3), ("unknown", 1)])
def test_affines_are_in_millimetres(tmp_path, kind, unit, factor):
    affine = AFFINE.copy()
    affine[:3] *= factor
    image = kind(volume(shape=(*SHAPE, 2)), affine)
    image.header.set_xyzt_units(unit)
    path = tmp_path / ("a.img" if kind is nibabel.Nifti1Pair else "a.nii")
    mask = kind(np.ones(SHAPE, dtype=np.uint8), affine)
    mask.header.set_xyzt_units(unit)
    mask.to_filename(tmp_path / f"mask{path.suffix}")
    header = path.with_suffix(".hdr") if path.suffix == ".img" else path
    found = image_files.read_volume(header.with_stem("mask"))[1]
    np.testing.assert_allclose(found, AFFINE, rtol=1e-6)
    if path == header:
        # A mask in millimetres goes with a series in another unit.
        image.to_filename(path)
        millimetres = save(tmp_path / "mm.nii", np.ones(SHAPE, dtype=np.uint8))
        reader = open_part(PartFiles(mask=millimetres), Rules(), path, ["s1", "s2"])
        assert [subject for subject, _ in reader.rows()] == ["s1", "s2"]


def test_mgh_volumes_need_a_mask_and_give_mgz_maps(tmp_path):
    data = volume()
    path = tmp_path / "a.mgz"
    nibabel.MGHImage(data, AFFINE).to_filename(path)
    mask = save(tmp_path / "mask.nii.gz", np.ones(SHAPE, dtype=np.uint8))
    reader = open_part(PartFiles(mask=mask), Rules(), path)
    np.testing.assert_array_equal(reader.read(path), data.ravel())
    assert reader.geometry.layouts[0].suffix == ".mgz"
    with pytest.raises(InputError, match=r"a\.mgz: is a volume \(MGH\), which needs a mask"):
        open_part(PartFiles(), Rules(), path)


# -------------------------------------------------------------------------------------------
# CIFTI
# -------------------------------------------------------------------------------------------


def test_cifti_maps_structures_and_coordinates(tmp_path):
    wall = np.setdiff1d(np.arange(N_VERTICES), [5, 6, 20])
    axis = cortex(kept=wall) + cortex("RIGHT") + nucleus()
    g = len(axis)
    values = np.random.default_rng(2).normal(size=(3, g)).astype(np.float32)
    path = write_cifti(tmp_path / "a.nii", axis, values, ["area", "thickness", "curv"])
    points, triangles = sphere()
    left = write_surface(tmp_path / "one.surf.gii", "CortexLeft")
    right = write_surface(tmp_path / "sub.R.surf.gii", "", points + 1000, triangles)
    surfaces = (right, left)
    reader = open_part(PartFiles(surfaces=surfaces), Rules(), path)
    np.testing.assert_array_equal(reader.read(path), values.ravel())
    geometry = reader.geometry
    assert len(geometry.part_names) == 9
    assert geometry.part_names[1] == "map1 CORTEX_RIGHT"
    expected = np.vstack([points[wall], points + 1000, AFFINE[:3, 3] + 2 * nucleus().voxel])
    np.testing.assert_allclose(geometry.coordinates, np.tile(expected, (3, 1)))
    on_surface = geometry.vertex >= 0
    np.testing.assert_array_equal(
        geometry.vertices[geometry.vertex[on_surface]], geometry.coordinates[on_surface]
    )
    assert on_surface.sum() == 3 * (len(wall) + N_VERTICES)
    assert geometry.smoothable
    chosen = open_part(PartFiles(surfaces=surfaces), Rules(cifti_maps=("3", "area")), path)
    np.testing.assert_array_equal(chosen.read(path), values[[2, 0]].ravel())
    assert chosen.geometry.layouts[0].maps == ["map3", "area"]
    with pytest.raises(InputError, match=r"no map 'volume'.*3 maps are area, thickness, curv"):
        open_part(PartFiles(surfaces=surfaces), Rules(cifti_maps=("volume",)), path)


def test_names_of_maps_are_not_kept_since_they_may_name_a_subject(tmp_path):
    values = volume(shape=(2, N_VERTICES))
    path = write_cifti(tmp_path / "a.nii", cortex(), values, ["sub-1_area", "sub-1_thickness"])
    assert "sub-1" not in " ".join(describe(open_part(PartFiles(), Rules(), path).geometry))


def test_cifti_of_which_one_brain_model_has_coordinates_is_refused(tmp_path):
    axis = cortex() + cortex("RIGHT")
    path = write_cifti(tmp_path / "a.dscalar.nii", axis, volume(shape=len(axis)))
    left = write_surface(tmp_path / "lh.surf.gii", "CortexLeft")
    with pytest.raises(InputError, match="CORTEX_RIGHT has no coordinates, while others have"):
        open_part(PartFiles(surfaces=(left,)), Rules(), path)
    with_voxels = write_cifti(tmp_path / "b.dscalar.nii", cortex() + nucleus(), volume(shape=46))
    with pytest.raises(InputError, match="CORTEX_LEFT has no coordinates, while others have"):
        open_part(PartFiles(), Rules(), with_voxels)
    for rules, which in ((Rules("none"), with_voxels), (Rules(), path)):
        geometry = open_part(PartFiles(), rules, which).geometry
        assert not geometry.smoothable
        assert geometry.coordinates.shape[1] == 1


def test_surfaces_that_do_not_fit_cifti_are_refused(tmp_path):
    path = write_cifti(tmp_path / "a.dscalar.nii", cortex(), volume(shape=N_VERTICES))
    small = write_surface(
        tmp_path / "lh.surf.gii", "", np.eye(3, dtype="f4"), np.array([[0, 1, 2]], "i4")
    )
    with pytest.raises(InputError, match="has 3 vertices, but the brain model"):
        open_part(PartFiles(surfaces=(small,)), Rules(), path)
    right = write_surface(tmp_path / "rh.surf.gii", "CortexRight")
    with pytest.raises(InputError, match=r"which brain model of a\.dscalar\.nii is it the surface"):
        open_part(PartFiles(surfaces=(right,)), Rules(), path)


def test_another_set_of_brain_models_is_refused(tmp_path):
    path = write_cifti(tmp_path / "a.dscalar.nii", cortex(), volume(shape=N_VERTICES))
    other = write_cifti(tmp_path / "b.dscalar.nii", cortex(kept=np.arange(40)), volume(shape=40))
    reader = open_part(PartFiles(), Rules(), path)
    with pytest.raises(InputError, match=r"b\.dscalar\.nii: its brain models are other ones"):
        reader.read(other)
    two = write_cifti(tmp_path / "c.dscalar.nii", cortex(), volume(shape=(2, N_VERTICES)))
    series = tmp_path / "d.dtseries.nii"
    axes = (nibabel.cifti2.SeriesAxis(0, 1, 2), cortex())
    Cifti2Image(volume(shape=(2, N_VERTICES)), header=axes).to_filename(series)
    with pytest.raises(InputError, match=r"d\.dtseries\.nii: is CIFTI, but not of dense scalars"):
        reader.read(series)
    with pytest.raises(InputError, match=r"c\.dscalar\.nii: has 2 maps, but a\.dscalar\.nii has 1"):
        reader.read(two)


def test_cifti_maps_in_another_order_are_refused(tmp_path):
    values = volume(shape=(2, N_VERTICES))
    names = ["area", "thickness"]
    first = write_cifti(tmp_path / "a.nii", cortex(), values, names)
    other = write_cifti(tmp_path / "b.nii", cortex(), values[::-1], names[::-1])
    for chosen in ((), ("1",), ("1", "thickness")):
        reader = open_part(PartFiles(), Rules(cifti_maps=chosen), first)
        with pytest.raises(InputError, match=r"b\.nii: has its maps in another order \(thickness"):
            reader.read(other)
    reader = open_part(PartFiles(), Rules(cifti_maps=("area", "thickness")), first)
    np.testing.assert_array_equal(reader.read(other), values.ravel())
    # Names with a subject's id are others in every file, and still tell the order.
    for form in ("{s}_{name}", "{name} of {s}", "sub-{s}_{name}_32k"):
        mine, yours, turned = (
            write_cifti(
                tmp_path / f"{s}.nii",
                cortex(),
                values,
                [form.format(s=s, name=name) for name in names[::step]],
            )
            for s, step in (("s1", 1), ("s22", 1), ("s3", -1))
        )
        reader = open_part(PartFiles(), Rules(), mine)
        np.testing.assert_array_equal(reader.read(yours), values.ravel())
        assert reader.maps.others == []
        with pytest.raises(InputError, match=r"s3\.nii: has its maps in another order"):
            reader.read(turned)
    # Other maps are taken by their numbers, and counted.
    other = write_cifti(tmp_path / "c.nii", cortex(), values, ["area", "curvature"])
    reader = open_part(PartFiles(), Rules(), first)
    reader.read(other)
    assert [path.name for path in reader.maps.others] == ["c.nii"]
    with pytest.raises(InputError, match="chooses a map twice; name each once"):
        open_part(PartFiles(), Rules(cifti_maps=("1", "area")), first)


def test_gifti_files_of_several_maps(tmp_path):
    surface = write_surface(tmp_path / "lh.surf.gii", "CortexLeft")
    maps = volume(shape=(3, N_VERTICES))
    names = ["area", "thickness", "mean curv"]
    path = write_maps(tmp_path / "a.gii", maps, names)
    reader = open_part(PartFiles("lh", surfaces=(surface,)), Rules(), path)
    np.testing.assert_array_equal(reader.read(path), maps.ravel())
    geometry = reader.geometry
    assert [layout.name for layout in geometry.map_layouts] == ["lh.map1", "lh.map2", "lh.map3"]
    assert geometry.part.tolist() == [0] * N_VERTICES + [1] * N_VERTICES + [2] * N_VERTICES
    assert len(geometry.vertices) == N_VERTICES
    assert geometry.smoothable
    mask = write_metric(tmp_path / "mask.gii", np.arange(N_VERTICES) % 2)
    rules = Rules(cifti_maps=("mean curv", "area"))
    chosen = open_part(PartFiles(surfaces=(surface,), mask=mask), rules, path)
    np.testing.assert_array_equal(chosen.read(path), maps[[2, 0]][:, 1::2].ravel())
    assert [layout.name for layout in chosen.geometry.map_layouts] == ["map3", "area"]
    one = open_part(PartFiles(surfaces=(surface,)), Rules(cifti_maps=("2",)), path)
    np.testing.assert_array_equal(one.read(path), maps[1])
    assert one.geometry.type == "surface"
    turned = write_maps(tmp_path / "b.gii", maps[::-1], names[::-1])
    np.testing.assert_array_equal(chosen.read(turned), maps[[2, 0]][:, 1::2].ravel())
    with pytest.raises(InputError, match=r"b\.gii: has its maps in another order \(mean curv"):
        reader.read(turned)
    with pytest.raises(InputError, match=r"c\.gii: has 2 maps, but a\.gii has 3"):
        reader.read(write_maps(tmp_path / "c.gii", maps[:2], names[:2]))
    with pytest.raises(InputError, match=r"has no map 'sulc' .* its 3 maps are area, thickness"):
        open_part(PartFiles(), Rules(cifti_maps=("sulc",)), path)
    # Without names the order in the file is all there is.
    plain = write_maps(tmp_path / "d.gii", maps)
    np.testing.assert_array_equal(open_part(PartFiles(), Rules(), plain).read(plain), maps.ravel())


def test_a_map_chosen_by_name_keeps_its_name(tmp_path):
    path = write_cifti(tmp_path / "a.nii", cortex(), volume(shape=(2, N_VERTICES)), ["a", "b"])
    geometry = open_part(PartFiles(), Rules(cifti_maps=("b",)), path).geometry
    assert geometry.layouts[0].maps == ["b"]


def test_grids_of_cifti_may_differ_by_rounding(tmp_path):
    def thalamus(shift):
        mask = np.zeros((5, 4, 3), dtype=bool)
        mask[1:3, 1:3, 1] = True
        affine = AFFINE.copy()
        affine[0, 3] += shift
        return BrainModelAxis.from_mask(mask, affine=affine, name="THALAMUS_LEFT")

    values = volume(shape=4)
    reader = open_part(PartFiles(), Rules(), write_cifti(tmp_path / "a.nii", thalamus(0), values))
    near = write_cifti(tmp_path / "b.nii", thalamus(5e-4), values)
    np.testing.assert_array_equal(reader.read(near), values)
    far = write_cifti(tmp_path / "c.nii", thalamus(0.25), values)
    # What is rounding only leaves no trace.
    rounded = write_cifti(tmp_path / "d.nii", thalamus(-1e-7), values)
    places = open_part(PartFiles(), Rules(), rounded).geometry.coordinates
    np.testing.assert_array_equal(places, reader.geometry.coordinates)
    with pytest.raises(
        InputError, match=r"c\.nii: .*grid of CIFTI_STRUCTURE_THALAMUS_LEFT are up to 0\.25 mm"
    ):
        reader.read(far)


# -------------------------------------------------------------------------------------------
# Mistakes
# -------------------------------------------------------------------------------------------


def test_mixed_orientations_are_named(tmp_path):
    mask = save(tmp_path / "mask.nii", np.ones(SHAPE, dtype=np.uint8))
    flipped = AFFINE.copy()
    flipped[0, 0], flipped[0, 3] = -2, -5 + 2 * (SHAPE[0] - 1)
    path = save(tmp_path / "las.nii", volume(), flipped)
    with pytest.raises(
        InputError, match=r"las\.nii: .*axes point to LAS, the mask's to RAS: the orientations are"
    ):
        read(path, mask=mask)


def test_a_surface_with_another_number_of_vertices_is_refused(tmp_path):
    surface = write_surface(tmp_path / "lh.surf.gii")
    path = write_metric(tmp_path / "a.gii", np.ones(N_VERTICES + 1))
    with pytest.raises(InputError, match=r"a\.gii: has 43 vertices, but the surface lh\.surf\.gii"):
        read(path, surfaces=(surface,))
    mask = write_metric(tmp_path / "mask.mgh", np.ones(N_VERTICES - 1))
    with pytest.raises(InputError, match=r"mask\.mgh: the mask has 41 values, but the surface"):
        read(path, surfaces=(surface,), mask=mask)
    with pytest.raises(InputError, match=r"a\.gii: has 43 vertices, but the mask mask\.mgh has 41"):
        read(path, mask=mask)


@pytest.mark.parametrize("where", ["file", "array"])
def test_values_of_the_other_hemisphere_are_refused(tmp_path, where):
    surface = write_surface(tmp_path / "lh.surf.gii", "CortexLeft")
    plain = write_metric(tmp_path / "plain.gii", np.ones(N_VERTICES))
    paths = {}
    for structure in ("CortexLeft", "CortexRight"):
        meta = nibabel.gifti.GiftiMetaData({"AnatomicalStructurePrimary": structure})
        array = nibabel.gifti.GiftiDataArray(
            np.ones(N_VERTICES, dtype=np.float32), meta=meta if where == "array" else None
        )
        image = nibabel.gifti.GiftiImage(darrays=[array], meta=meta if where == "file" else None)
        paths[structure] = tmp_path / f"{structure}.gii"
        paths[structure].write_bytes(image.to_bytes())
    reader = open_part(PartFiles(surfaces=(surface,)), Rules(), paths["CortexLeft"])
    assert reader.read(paths["CortexLeft"]).tolist() == [1] * N_VERTICES
    message = r"CortexRight\.gii: says that it is of CortexRight, but the surface is of CortexLeft"
    with pytest.raises(InputError, match=message):
        reader.read(paths["CortexRight"])
    with pytest.raises(InputError, match=message):
        map_values(paths["CortexRight"], reader.geometry, "truth")
    # Without a surface the first image tells.
    alone = open_part(PartFiles(), Rules(), paths["CortexLeft"])
    alone.read(plain)
    with pytest.raises(InputError, match=message):
        alone.read(paths["CortexRight"])
    geometries = [open_part(PartFiles(), Rules(), path).geometry for path in paths.values()]
    assert not same_voxels(*geometries)
    unknown = open_part(PartFiles(), Rules(), plain).geometry
    assert same_voxels(geometries[0], unknown)
    assert identity(geometries[0]) == identity(unknown)
    files = PartFiles(surfaces=(surface,), mask=paths["CortexRight"])
    with pytest.raises(InputError, match=message):
        open_part(files, Rules(), paths["CortexLeft"])


@pytest.mark.parametrize(
    ("fill", "message"),
    [(0.0, r"a\.\w+: every value inside the mask is 0"), (np.nan, "has a finite value")],
)
@pytest.mark.parametrize("name", ["a.nii", "a.gii"])
def test_images_of_zeros_or_of_nothing_are_refused(tmp_path, name, fill, message):
    path = tmp_path / name
    if name == "a.nii":
        mask = save(tmp_path / "mask.nii", np.ones(SHAPE, dtype=np.uint8))
        save(path, np.full(SHAPE, fill, dtype=np.float32))
    else:
        mask = write_metric(tmp_path / "mask.gii", np.ones(9))
        write_metric(path, np.full(9, fill))
    with pytest.raises(InputError, match=message):
        read(path, mask=mask)


@pytest.mark.parametrize("name", ["a.dscalar.nii", "a.gii"])
def test_a_map_of_zeros_or_of_nothing_among_others_is_refused(tmp_path, name):
    path = tmp_path / name
    for fill, message in ((0, "every value inside the mask is 0"), (np.nan, "has a finite value")):
        maps = volume(shape=(3, N_VERTICES))
        maps[1] = fill
        if name == "a.gii":
            write_maps(path, maps)
        else:
            write_cifti(path, cortex(), maps)
        with pytest.raises(InputError, match=rf"{name}, map 2: .*{message}"):
            read(path)
        chosen = read(path, Rules(cifti_maps=("3", "1")))
        np.testing.assert_array_equal(chosen, maps[[2, 0]].ravel())


def test_zero_is_a_value_unless_it_is_said_to_be_missing(tmp_path):
    path = write_metric(tmp_path / "a.gii", [0, 1, -2, np.inf])
    np.testing.assert_array_equal(read(path), [0, 1, -2, np.nan])
    np.testing.assert_array_equal(read(path, Rules(zero_is_missing=True)), [np.nan, 1, -2, np.nan])


@pytest.mark.parametrize("name", ["a.mgh", "a.gii", "lh.thickness", "a.dscalar.nii", "a.mgz"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_files_cut_short_are_refused(tmp_path, name, share):
    path = tmp_path / name
    if name == "a.dscalar.nii":
        write_cifti(path, cortex(), volume(shape=N_VERTICES))
    else:
        write_metric(path, volume(shape=N_VERTICES))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"a\.|lh\.thickness") as refused:
        read(path)
    assert "\n" not in str(refused.value)


def test_what_is_no_map_of_vertices_is_refused(tmp_path):
    surface = write_surface(tmp_path / "lh.surf.gii")
    files = {"surfaces": (surface,)}
    with pytest.raises(InputError, match="is a surface"):
        read(surface, **files)
    two = write_maps(tmp_path / "two.gii", [volume(shape=4), volume(shape=5)])
    with pytest.raises(InputError, match=r"two\.gii: its maps have different numbers of vertices"):
        read(two, **files)
    two = write_maps(tmp_path / "two.gii", [volume(shape=4), volume(shape=4)])
    with pytest.raises(InputError, match=r"two\.gii: holds 2 maps, but one is due \(mask\)"):
        read(two, **files, mask=two)
    words = tmp_path / "words.txt"
    words.write_text("1.5\n2\nthree\n")
    with pytest.raises(InputError, match=r"words\.txt, line 3: 'three' is no number"):
        read(words, **files)
    metric = write_metric(tmp_path / "a.gii", volume(shape=4))
    with pytest.raises(InputError, match="is no surface, it lacks points"):
        read(metric, surfaces=(metric,))
    unknown = tmp_path / "a.zip"
    unknown.write_bytes(b"PK\x03\x04\0\0\0")
    with pytest.raises(InputError, match="is of an unknown kind"):
        read(unknown)
    outside = tmp_path / "outside.gii"
    outside.write_bytes(metric.read_bytes().replace(b"GZipBase64Binary", b"ExternalFileBinary"))
    with pytest.raises(InputError, match="its values are in another file"):
        read(outside, **files)


def test_what_does_not_go_together_is_refused(tmp_path):
    metric = write_metric(tmp_path / "a.gii", volume(shape=4))
    table = tmp_path / "coordinates.tsv"
    table.write_text("voxel\tx\na\t1\n")
    with pytest.raises(InputError, match="a table of coordinates is for tables"):
        read(metric, coordinates=table)
    with pytest.raises(InputError, match="lies on one surface, but 2 are given"):
        read(metric, surfaces=(metric, metric))
    cifti = write_cifti(tmp_path / "b.dscalar.nii", cortex(), volume(shape=N_VERTICES))
    with pytest.raises(InputError, match="maps of one subject"):
        open_part(PartFiles(), Rules(), cifti, ["a"])
    mask = save(tmp_path / "mask.nii", np.ones(SHAPE, dtype=np.uint8))
    reader = open_part(PartFiles(mask=mask), Rules(), save(tmp_path / "c.nii", volume()))
    with pytest.raises(InputError, match="where a volume is due"):
        reader.read(cifti)


# -------------------------------------------------------------------------------------------
# Files of many subjects
# -------------------------------------------------------------------------------------------

SUBJECTS = [f"s{k:02d}" for k in (3, 1, 2, 5, 4, 9, 7)]


@pytest.fixture
def stack():
    """Return images (n, x, y, z) float32 with a missing value."""
    data = np.random.default_rng(4).normal(size=(len(SUBJECTS), *SHAPE)).astype(np.float32)
    data[2, 1, 1, 1] = np.nan
    return data


def write_table(path, data):
    """Write images (n, ...) as a table in the format of the name."""
    rows = data.reshape(len(data), -1)
    columns = [f"v{k}" for k in range(rows.shape[1])]
    if path.name.endswith(".h5"):
        with h5py.File(path, "w") as file:
            file["images"] = rows
            file["id"] = np.array([[b"f", s.encode()] for s in SUBJECTS])
        return path
    frame = pd.DataFrame(rows, columns=columns)
    frame.insert(0, "subject", SUBJECTS)
    if path.name.endswith(".parquet"):
        frame.to_parquet(path, row_group_size=3)
    else:
        separator = "," if ".csv" in path.name else "\t"
        frame.to_csv(path, sep=separator, index=False, na_rep="NA", float_format="%.9g")
    return path


TABLES = ["t.tsv", "t.csv.gz", "t.parquet", "t.h5"]


@pytest.mark.parametrize("name", [*TABLES, "all.nii", "all.nii.gz", "all.mgh"])
def test_volumes_of_many_subjects_and_tables_give_equal_bits(tmp_path, stack, name):
    path = tmp_path / name
    if name in TABLES:
        reader = open_part(PartFiles(), Rules(), write_table(path, stack))
    else:
        kind = nibabel.MGHImage if name == "all.mgh" else nibabel.Nifti1Image
        save(path, np.moveaxis(stack, 0, -1), kind=kind)
        mask = save(tmp_path / "mask.nii", np.ones(SHAPE, dtype=np.uint8))
        reader = open_part(PartFiles(mask=mask), Rules(), path, SUBJECTS)
        assert reader.geometry.index.shape == (24, 3)
    rows = dict(reader.rows())
    assert list(rows) == SUBJECTS
    np.testing.assert_array_equal(np.stack(list(rows.values())), stack.reshape(7, -1))
    assert list(reader.ids()) == SUBJECTS
    some = dict(reader.rows(wanted={"s05", "s01"}))
    assert sorted(some) == ["s01", "s05"]
    np.testing.assert_array_equal(some["s05"], stack[3].ravel())
    if name == "t.csv.gz":
        return
    for total in (1, 2, 3, 7, 11):
        shares = [list(reader.rows((number, total))) for number in range(1, total + 1)]
        assert [subject for share in shares for subject, _ in share] == SUBJECTS
        listed = [list(reader.ids((number, total))) for number in range(1, total + 1)]
        assert listed == [[subject for subject, _ in share] for share in shares]


def test_vertices_of_many_subjects(tmp_path):
    data = np.random.default_rng(5).normal(size=(N_VERTICES, 7)).astype(np.float32)
    path = tmp_path / "lh.thickness.fsaverage.mgh"
    nibabel.MGHImage(data[:, None, None, :], np.eye(4)).to_filename(path)
    surface = write_surface(tmp_path / "lh.surf.gii")
    reader = open_part(PartFiles(surfaces=(surface,)), Rules(), path, SUBJECTS)
    np.testing.assert_array_equal(np.stack([row for _, row in reader.rows()]), data.T)


def test_scaled_volumes_are_scaled(tmp_path):
    data = np.arange(48).reshape(*SHAPE, 2).astype(np.int16)
    image = nibabel.Nifti1Image(data, AFFINE)
    image.header.set_slope_inter(0.5, 10)
    image.to_filename(tmp_path / "a.nii")
    mask = save(tmp_path / "mask.nii", np.ones(SHAPE, dtype=np.uint8))
    reader = open_part(PartFiles(mask=mask), Rules(), tmp_path / "a.nii", ["a", "b"])
    expected = nibabel.load(tmp_path / "a.nii").get_fdata()
    for k, (_, values) in enumerate(reader.rows()):
        np.testing.assert_array_equal(values, expected[..., k].ravel())


def test_volumes_and_ids_of_another_number_are_refused(tmp_path, stack):
    path = save(tmp_path / "all.nii", np.moveaxis(stack, 0, -1))
    mask = save(tmp_path / "mask.nii", np.ones(SHAPE, dtype=np.uint8))
    with pytest.raises(
        InputError, match=r"all\.nii: has 7 volumes .* but the list of subjects has 6 ids"
    ):
        open_part(PartFiles(mask=mask), Rules(), path, SUBJECTS[:6])
    other = save(tmp_path / "other.nii", np.ones((4, 3, 3), dtype=np.uint8))
    with pytest.raises(InputError, match=r"has shape 4 x 3 x 2, but the mask other\.nii"):
        open_part(PartFiles(mask=other), Rules(), path, SUBJECTS)
    with pytest.raises(InputError, match="give a file of several volumes with a list"):
        read(path, mask=mask)
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(InputError, match=r"all\.nii: cut short"):
        open_part(PartFiles(mask=mask), Rules(), path, SUBJECTS)
    packed = tmp_path / "packed.nii.gz"
    for damaged in (gzip.compress(content[:-100]), gzip.compress(content)[:-40]):
        packed.write_bytes(damaged)
        with pytest.raises(InputError, match=r"packed\.nii\.gz: .*cut short"):
            list(open_part(PartFiles(mask=mask), Rules(), packed, SUBJECTS).rows())


def test_coordinates_of_a_table(tmp_path, stack):
    path = write_table(tmp_path / "t.tsv", stack)
    geometry = open_part(PartFiles(), Rules(), path).geometry
    assert not geometry.smoothable
    geometry = open_part(PartFiles(), Rules("index"), path).geometry
    assert geometry.smoothable
    np.testing.assert_array_equal(geometry.coordinates[:, 0], np.arange(24))
    places = tmp_path / "places.csv"
    rows = [f"v{k},{k / 2},{k}" for k in range(23, -1, -1)]
    places.write_text("voxel,x,y\n" + "\n".join(rows) + "\n")
    geometry = open_part(PartFiles(coordinates=places), Rules(), path).geometry
    np.testing.assert_array_equal(geometry.coordinates, np.arange(24)[:, None] * [0.5, 1])
    assert geometry.smoothable
    for text, message in (
        ("voxel,x\nv0,1\n", r"no coordinates for 23 of the images' 24 columns \(v1, v2, v3, …\)"),
        ("voxel,y\nv0,1\n", r"line 1: columns voxel and x"),
        ("voxel,x\nv0,one\n", r"line 2: a coordinate is no number"),
        ("voxel,x\nv0,1\nv0,2\n", r"line 3: voxel 'v0' is there twice"),
        ("voxel,x\nv0\n", r"line 2: 1 cells, not 2"),
        ("voxel,x\nv0,1_0\n", r"line 2: a coordinate is no number"),
    ):
        places.write_text(text)
        with pytest.raises(InputError, match=rf"places\.csv.*{message}"):
            open_part(PartFiles(coordinates=places), Rules(), path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject\ta\tb\ns1\t1\tx7\n", r"t\.tsv, line 2, column 'b': 'x7' is no number"),
        ("subject\ta\tb\ns1\t1\t1_01\n", r"line 2, column 'b': '1_01' is no number"),
        ('subject,a,b\ns1,"1,2\n', r"line 2: a quotation mark is not closed on its line"),
        ("subject\ta\tb\ns1\t1\t2\n\ns2\t1\n", r"t\.tsv, line 4: 2 cells, where the header has 3"),
        ("person\ta\tb\ns1\t1\t2\n", r"column subject \(or IID\) is missing \(found person, a, b"),
        ("subject\ta\ta\ns1\t1\t2\n", "column 'a' is there twice"),
        (",subject,a,b\n0,s1,1,2\n", r"t\.tsv: column 1 has no name; give it one, or leave it out"),
        ("subject,a,b,,\ns1,1,2,,\n", r"t\.tsv: column 4 has no name"),
        ("subject\ta\ns1\t1\n", "has 1 columns of numbers"),
        ("subject\ta\tb\n \t1\t2\n", r"line 2: the subject id is empty"),
        ("subject\ta\tb\ns1\tNA\tNA\n", r"line 2: no voxel inside the mask has a finite value"),
        ("subject\ta\tb\ns1\t0\t0\n", r"line 2: every value inside the mask is 0"),
    ],
)
def test_bad_tables_are_refused_by_line_and_column(tmp_path, text, message):
    path = tmp_path / "t.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        list(open_part(PartFiles(), Rules(), path).rows())


def test_ids_that_are_stored_as_fractions_are_whole_numbers(tmp_path):
    frame = pd.DataFrame({"eid": [1000001.0, 1000002.0], "a": [1.0, 2], "b": [3.0, 4]})
    frame.to_parquet(tmp_path / "t.parquet")
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["id"], file["images"] = frame["eid"], frame[["a", "b"]]
    for name in ("t.parquet", "t.h5"):
        table = image_tables.open_table(tmp_path / name)
        assert list(table.ids()) == ["1000001", "1000002"]
        assert [subject for _, subject, _ in table.rows()] == ["1000001", "1000002"]


def test_labels_are_no_values(tmp_path):
    array = nibabel.gifti.GiftiDataArray(
        np.arange(N_VERTICES, dtype=np.int32), intent="NIFTI_INTENT_LABEL"
    )
    path = tmp_path / "lh.label.gii"
    path.write_bytes(nibabel.gifti.GiftiImage(darrays=[array]).to_bytes())
    with pytest.raises(InputError, match=r"lh\.label\.gii: holds labels of vertices, but values"):
        read(path)
    metric = write_metric(tmp_path / "a.gii", np.arange(N_VERTICES) + 1)
    assert read(metric, mask=path).tolist() == list(range(2, N_VERTICES + 1))


def test_digits_with_an_underscore_are_no_value_of_a_vertex(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("1\n2\n1_01\n")
    with pytest.raises(InputError, match=r"a\.txt, line 3: '1_01' is no number"):
        image_files.read_vertices(path)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_separators_between_quotation_marks_are_text(tmp_path, mark):
    path = tmp_path / "t.csv"
    rows = [["subject", '"area, left; all"', '"b ""c"""'], ['"s,1;x"', '"1"', "2"]]
    path.write_text("\n".join(mark.join(row) for row in rows) + "\n")
    table = image_tables.open_table(path)
    assert table.columns == ["area, left; all", 'b "c"']
    assert [(s, v.tolist()) for _, s, v in table.rows()] == [("s,1;x", [1, 2])]
    places = tmp_path / "places.csv"
    places.write_text('voxel,x\n"area, left; all",1\n"b ""c""",2\n')
    found = image_tables.read_coordinates(places, table.columns)
    assert found.tolist() == [[1], [2]]


@pytest.mark.parametrize("name", ["t.parquet", "t.tsv"])
def test_further_ids_and_an_index_are_no_voxels(tmp_path, name):
    frame = pd.DataFrame(
        {"eid": [7, 8], "subject": ["s1", "s2"], "FID": [1, 2], "a": [1.0, 2], "b": [3.0, 4]},
        index=[11, 12],
    )
    path = tmp_path / name
    if name == "t.parquet":
        frame.to_parquet(path)
    else:
        frame.rename_axis("__index_level_0__").to_csv(path, sep="\t")
    table = image_tables.open_table(path)
    assert table.columns == ["a", "b"]
    assert sorted(table.left_out) == ["FID", "__index_level_0__", "eid"]
    found = [(s, v.tolist()) for _, s, v in table.rows()]
    assert found == [("s1", [1, 3]), ("s2", [2, 4])]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_groups_of_parquet_are_read_by_columns_or_by_rows(tmp_path, monkeypatch, dtype):
    rng = np.random.default_rng(6)
    frame = pd.DataFrame(rng.normal(size=(11, 25)).astype(dtype)).rename(columns="v{}".format)
    frame.iloc[4, 3] = np.nan
    frame.insert(7, "subject", [f"s{k}" for k in range(11)])
    if dtype == np.float64:
        frame["v9"] = pd.array([*range(10), None], dtype="Int64")
    path = tmp_path / "t.parquet"
    frame.to_parquet(path, row_group_size=4)
    expected = frame.drop(columns="subject").to_numpy(dtype=dtype, na_value=np.nan)
    monkeypatch.setattr(image_tables, "_COLUMNS_AT_A_TIME", 10)
    monkeypatch.setattr(image_tables, "_BATCH_VALUES", 75)
    column_bytes = []
    for most in (1 << 28, 0):
        monkeypatch.setattr(image_tables, "_GROUP_BYTES", most)
        table = image_tables.open_table(path)
        column_bytes.append(table.column_bytes)
        for total in (1, 3):
            found = [row for k in range(total) for row in table.rows((k + 1, total))]
            assert [subject for _, subject, _ in found] == frame["subject"].tolist()
            assert found[5][0].endswith("t.parquet, row 6")
            values = np.array([row for _, _, row in found])
            np.testing.assert_array_equal(values, expected)
            assert values.dtype == dtype
    # Three groups of at most four rows.
    assert column_bytes == [3_000 + 3 * 1_000 + 4 * np.dtype(dtype).itemsize, 14_000]


def test_the_line_is_named_in_every_share(tmp_path):
    path = tmp_path / "t.tsv"
    lines = [f"s{k}\t{k}\t{k + 1}" for k in range(1, 40)]
    lines[33] = "s34\t1\tbad"
    path.write_text("\n".join(["subject\ta\tb", *lines]) + "\n")
    table = image_tables.open_table(path)
    messages = []
    for number in range(1, 6):
        try:
            list(table.rows((number, 5)))
        except InputError as error:
            messages.append(str(error))
    assert len(messages) == 1
    assert "t.tsv, line 35, column 'b': 'bad' is no number" in messages[0]


def test_bad_parquet_and_hdf5_are_refused(tmp_path, stack):
    path = write_table(tmp_path / "t.parquet", stack)
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    with pytest.raises(InputError, match="not a readable parquet file"):
        open_part(PartFiles(), Rules(), path)
    pd.DataFrame({"subject": ["a"], "x": ["text"], "y": [1.0]}).to_parquet(path)
    with pytest.raises(InputError, match="column 'x' is of type"):
        open_part(PartFiles(), Rules(), path)
    path = write_table(tmp_path / "t.h5", stack)
    with h5py.File(path, "a") as file:
        del file["id"]
    with pytest.raises(InputError, match=r"t\.h5: lacks a dataset subject or id"):
        open_part(PartFiles(), Rules(), path)
    with h5py.File(path, "a") as file:
        file["subject"] = np.array(SUBJECTS[:-1], dtype="S")
    with pytest.raises(InputError, match="has 6 ids for 7 rows"):
        open_part(PartFiles(), Rules(), path)
    with h5py.File(path, "a") as file:
        del file["images"]
        file["images"] = h5py.ExternalLink("other.h5", "images")
    with pytest.raises(InputError, match="takes its values from elsewhere"):
        open_part(PartFiles(), Rules(), path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        open_part(PartFiles(), Rules(), path)


# -------------------------------------------------------------------------------------------
# Parts
# -------------------------------------------------------------------------------------------


def test_parts_are_remembered(tmp_path):
    points, triangles = sphere()
    left = write_surface(tmp_path / "lh.surf.gii", "CortexLeft")
    right = write_surface(tmp_path / "rh.surf.gii", "CortexRight", points + 200, triangles)
    metric = write_metric(tmp_path / "a.gii", volume(shape=N_VERTICES))
    geometries = [
        open_part(PartFiles(name, None, (surface,)), Rules(), metric).geometry
        for name, surface in (("area_lh", left), ("area_rh", right), ("thickness_lh", left))
    ]
    mask = save(tmp_path / "mask.nii", np.ones(SHAPE, dtype=np.uint8))
    image = save(tmp_path / "b.nii", volume())
    geometries.append(open_part(PartFiles("FA", mask), Rules(), image).geometry)
    joined = join(geometries)
    assert joined.part_names == ["area_lh", "area_rh", "thickness_lh", "FA"]
    sizes = [N_VERTICES, N_VERTICES, N_VERTICES, 24]
    np.testing.assert_array_equal(joined.part, np.repeat(range(4), sizes))
    # A surface of two features is there once.
    assert joined.vertices.shape == (2 * N_VERTICES, 3)
    assert len(joined.triangles) == 2 * len(triangles)
    on_surface = joined.vertex >= 0
    np.testing.assert_allclose(
        joined.vertices[joined.vertex[on_surface]], joined.coordinates[on_surface]
    )
    np.testing.assert_array_equal(joined.vertex[-24:], -1)
    np.testing.assert_array_equal(joined.vertex[:42], joined.vertex[84:126])
    assert joined.smoothable


def test_part_specifications():
    masks, surfaces = [Path("m1"), Path("m2")], [Path("s1"), Path("s2")]
    found = part_files("lh:2:1+2:0", masks, surfaces, [])
    assert found == PartFiles("lh", Path("m2"), (Path("s1"), Path("s2")), None)
    assert part_files(":0::", masks, surfaces, []) == PartFiles()
    with pytest.raises(InputError, match="there are only 2 files of --mask"):
        part_files("lh:3:0:0", masks, surfaces, [])
    with pytest.raises(InputError, match="should be name:mask:surfaces:coordinates"):
        part_files("l h:1", masks, surfaces, [])


def test_values_of_a_map_at_the_voxels(tmp_path):
    surface = write_surface(tmp_path / "lh.surf.gii")
    metric = write_metric(tmp_path / "a.gii", volume(shape=N_VERTICES))
    mask = write_metric(tmp_path / "mask.gii", np.arange(N_VERTICES) % 2)
    geometry = open_part(PartFiles("", mask, (surface,)), Rules(), metric).geometry
    labels = write_metric(tmp_path / "labels.mgh", np.arange(N_VERTICES))
    np.testing.assert_array_equal(
        map_values(labels, geometry, "regions"), np.arange(1, N_VERTICES, 2)
    )
    short = write_metric(tmp_path / "short.mgh", np.arange(5))
    with pytest.raises(InputError, match="has 5 values"):
        map_values(short, geometry, "regions")
