"""Coordinates of voxels and maps of them."""

from __future__ import annotations

from dataclasses import replace

import nibabel
import numpy as np
import pytest

from rvga import formats
from rvga.errors import InputError
from rvga.geometry import (
    Geometry,
    Layout,
    add_geometry,
    geometry_of,
    join,
    numbers_of,
    require_map_suffix,
    runs_of,
    same_voxels,
    volume_of,
    write_map,
)

AFFINE = np.array([[0.0, -2, 0, 10], [3, 0, 0, -4], [0, 0, 1.5, 7], [0, 0, 0, 1]])


@pytest.fixture
def geometry():
    index = np.array([[0, 0, 0], [1, 2, 0], [3, 1, 1]], dtype=np.int32)
    return Geometry(AFFINE, (4, 3, 2), index)


def test_coordinates_follow_the_affine(geometry):
    expected = [nibabel.affines.apply_affine(AFFINE, row) for row in geometry.index]
    np.testing.assert_allclose(geometry.coordinates, expected)


def test_subset_keeps_the_grid(geometry):
    part = geometry.subset(np.array([2, 0]))
    assert part.index.tolist() == [[3, 1, 1], [0, 0, 0]]
    assert part.shape == geometry.shape


def test_volume_has_values_at_the_voxels_only(geometry):
    volume = volume_of(np.array([1.0, 2.0, 3.0]), geometry, fill=-1)
    assert volume[1, 2, 0] == 2
    assert volume[3, 1, 1] == 3
    assert (volume == -1).sum() == volume.size - 3


@pytest.mark.parametrize("name", ["map.nii", "map.nii.gz"])
def test_maps_come_back_and_are_equal_byte_for_byte(tmp_path, geometry, name):
    values = np.array([0.25, np.nan, -7.0])
    write_map(tmp_path / name, values, geometry)
    first = (tmp_path / name).read_bytes()
    image = nibabel.load(tmp_path / name)
    np.testing.assert_array_equal(image.affine, AFFINE)
    np.testing.assert_array_equal(image.get_fdata()[tuple(geometry.index.T)], values)
    assert np.isnan(image.get_fdata()).sum() == image.get_fdata().size - 2
    write_map(tmp_path / name, values, geometry)
    assert (tmp_path / name).read_bytes() == first


def test_geometry_is_stored_and_read(tmp_path, geometry):
    path = tmp_path / "x.h5"
    with formats.create(path, "images", {"geometry_type": "nifti"}) as writer:
        writer.add("images", np.zeros((2, 3)))
        writer.add("subject", ["a", "b"])
        writer.add("image_digest", np.zeros((2, 16)))
        writer.add("coordinates", geometry.coordinates)
        for name in ("voxel_count", "voxel_sum", "voxel_sum_of_squares"):
            writer.add(name, np.zeros(3))
        add_geometry(writer, geometry)
    with formats.open_file(path, "images") as found:
        other = geometry_of(found)
    np.testing.assert_array_equal(other.affine, geometry.affine)
    np.testing.assert_array_equal(other.index, geometry.index)
    assert other.shape == geometry.shape
    assert other.type == "nifti"


# -------------------------------------------------------------------------------------------
# Geometries of other kinds
# -------------------------------------------------------------------------------------------


def surface_geometry(name="", suffix=".func.gii", n=6, first=0):
    """Return some vertices of a surface of n."""
    kept = np.array([0, 2, 5])
    vertices = np.arange(3.0 * n).reshape(n, 3) + first
    return Geometry(
        None,
        None,
        None,
        type="surface",
        layouts=(Layout(name, "surface", suffix, n_vertices=n, structure="CortexLeft"),),
        part_index=np.zeros(3, dtype=np.int16),
        position=kept.astype(np.int64),
        places=vertices[kept],
        vertex=kept.astype(np.int32),
        vertices=vertices,
        triangles=np.array([[0, 1, 2], [2, 3, 5]], dtype=np.int32),
    )


def cifti_geometry(maps=("map",)):
    """Return most grayordinates of a cortex and some voxels, for each of some maps."""
    models = [
        {
            "structure": "CIFTI_STRUCTURE_CORTEX_LEFT",
            "kind": "surface",
            "size": [6],
            "runs": [[0, 2], [4, 6]],
        },
        {
            "structure": "CIFTI_STRUCTURE_THALAMUS_LEFT",
            "kind": "voxels",
            "size": [4, 3, 2],
            "affine": AFFINE.tolist(),
            "runs": [[5, 7], [10, 11]],
        },
    ]
    kept = np.array([0, 1, 3, 4, 6])
    m = len(maps)
    return Geometry(
        None,
        None,
        None,
        type="cifti",
        layouts=(
            Layout(
                "",
                "cifti",
                ".dscalar.nii",
                sections=["left", "thalamus"] * m,
                maps=list(maps),
                models=models,
            ),
        ),
        part_index=np.concatenate([np.array([0, 0, 0, 1, 1]) + 2 * k for k in range(m)]).astype(
            np.int16
        ),
        position=np.concatenate([kept + 7 * k for k in range(m)]).astype(np.int64),
        places=np.random.default_rng(0).normal(size=(5 * m, 3)),
    )


def table_geometry(name="", smoothable=True):
    """Return two columns of a table."""
    return Geometry(
        None,
        None,
        None,
        type="table",
        layouts=(Layout(name, "table", ".map.tsv", smoothable=smoothable),),
        part_index=np.zeros(2, dtype=np.int16),
        position=np.array([0, 3]),
        places=np.array([[0.5, 1], [2, 3]]),
        name=np.array(["thickness", "area"], dtype=object),
    )


def stored(path, geometry):
    """Return a geometry after writing and reading it."""
    N = geometry.n_voxels
    with formats.create(path, "images", {"geometry_type": geometry.type}) as writer:
        writer.add("images", np.zeros((2, N)))
        writer.add("subject", ["a", "b"])
        writer.add("image_digest", np.zeros((2, 16)))
        writer.add("coordinates", geometry.coordinates)
        for name in ("voxel_count", "voxel_sum", "voxel_sum_of_squares"):
            writer.add(name, np.zeros(N))
        add_geometry(writer, geometry)
    with formats.open_file(path, "images") as found:
        return geometry_of(found)


KINDS = {
    "surface": surface_geometry,
    "cifti": cifti_geometry,
    "two maps": lambda: cifti_geometry(("area", "curvature")),
    "table": table_geometry,
    "joined": lambda: join(
        [surface_geometry("lh"), surface_geometry("rh", first=100), table_geometry("FA")]
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_stored_and_read(tmp_path, kind):
    geometry = KINDS[kind]()
    found = stored(tmp_path / "x.h5", geometry)
    assert same_voxels(found, geometry)
    assert found.map_layouts == geometry.map_layouts
    assert found.smoothable == geometry.smoothable
    assert found.part_names == geometry.part_names
    kept = np.array([2, 0]) if kind != "table" else np.array([1, 0])
    part = stored(tmp_path / "y.h5", found.subset(kept))
    np.testing.assert_array_equal(part.coordinates, geometry.coordinates[kept])
    np.testing.assert_array_equal(part.map_positions(), geometry.map_positions()[kept])
    assert not same_voxels(part, geometry)


@pytest.mark.parametrize(
    ("suffix", "read"),
    [
        (".func.gii", lambda path: nibabel.load(path).darrays[0].data),
        (".shape.gii", lambda path: nibabel.load(path).darrays[0].data),
        (".mgh", lambda path: nibabel.load(path).get_fdata().ravel()),
        (".mgz", lambda path: nibabel.load(path).get_fdata().ravel()),
        (".curv", nibabel.freesurfer.read_morph_data),
    ],
)
def test_maps_of_a_surface(tmp_path, suffix, read):
    geometry = surface_geometry(suffix=suffix if suffix != ".shape.gii" else ".func.gii")
    name = "map.nii.gz" if suffix != ".shape.gii" else "map.shape.gii"
    (path,) = write_map(tmp_path / name, [0.25, np.nan, -7], geometry)
    assert path == tmp_path / f"map{suffix}"
    expected = [0.25, np.nan, np.nan, np.nan, np.nan, -7]
    np.testing.assert_array_equal(read(path), expected)
    first = path.read_bytes()
    write_map(tmp_path / name, [0.25, np.nan, -7], geometry)
    assert path.read_bytes() == first
    if suffix.endswith(".gii"):
        assert nibabel.load(path).meta["AnatomicalStructurePrimary"] == "CortexLeft"


@pytest.mark.parametrize("maps", [("map",), ("area", "curvature")])
def test_maps_of_cifti_have_the_brain_models_that_came_in(tmp_path, maps):
    geometry = cifti_geometry(maps)
    values = np.arange(1.0, geometry.n_voxels + 1)
    (path,) = write_map(tmp_path / "map.nii.gz", values, geometry)
    assert path.name == "map.dscalar.nii"
    image = nibabel.load(path)
    expected = np.full(7 * len(maps), np.nan)
    expected[geometry.position] = values
    np.testing.assert_array_equal(image.get_fdata(), expected.reshape(len(maps), 7))
    assert image.header.get_axis(0).name.tolist() == list(maps)
    models = image.header.get_axis(1)
    assert models.name.tolist().count("CIFTI_STRUCTURE_CORTEX_LEFT") == 4
    assert models.vertex[:4].tolist() == [0, 1, 4, 5]
    assert models.voxel[4:].tolist() == [[1, 1, 0], [2, 1, 0], [2, 2, 0]]
    assert image.nifti_header["intent_code"] == 3006
    first = path.read_bytes()
    write_map(tmp_path / "map.nii.gz", values, geometry)
    assert path.read_bytes() == first


def test_maps_of_tables_are_tables(tmp_path):
    (path,) = write_map(tmp_path / "map.nii.gz", [0.25, np.nan], table_geometry())
    assert path.read_text() == "voxel\tx\ty\tvalue\nthickness\t0.5\t1\t0.25\narea\t2\t3\tNA\n"
    (path,) = write_map(tmp_path / "map.tsv", [0.25, 1], table_geometry(smoothable=False))
    assert path == tmp_path / "map.tsv"
    assert path.read_text() == "voxel\tvalue\nthickness\t0.25\narea\t1\n"


def test_maps_of_joined_images_are_one_file_a_part(tmp_path, geometry):
    volume = Geometry(
        None,
        None,
        None,
        layouts=(Layout("FA", affine=AFFINE.tolist(), shape=[4, 3, 2]),),
        part_index=np.zeros(3, dtype=np.int16),
        position=geometry.map_positions(),
        places=geometry.coordinates,
    )
    joined = join([surface_geometry("lh"), volume])
    paths = write_map(tmp_path / "map.nii.gz", np.arange(6.0), joined)
    assert [path.name for path in paths] == ["map.lh.func.gii", "map.FA.nii.gz"]
    assert nibabel.load(paths[0]).darrays[0].data[[0, 2, 5]].tolist() == [0, 1, 2]
    found = nibabel.load(paths[1])
    np.testing.assert_array_equal(found.affine, AFFINE)
    assert found.get_fdata()[tuple(geometry.index.T)].tolist() == [3, 4, 5]


def test_a_name_that_does_not_suit_is_refused():
    require_map_suffix("a.func.gii", surface_geometry())
    require_map_suffix("a.nii.gz", Geometry(AFFINE, (4, 3, 2), np.zeros((1, 3), dtype=int)))
    with pytest.raises(InputError, match=r"written as '\.nii\.gz'.*end in \.func\.gii"):
        require_map_suffix("a.nii.gz", surface_geometry())


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("surface", {"position": np.array([0, 1, 6])}, "lie outside the image"),
        ("surface", {"position": np.array([0, 1, -1])}, "lie outside the image"),
        ("surface", {"vertex": np.array([0, 1, 6], dtype="i4")}, "outside the surface"),
        ("surface", {"triangles": np.array([[0, 1, 6]], dtype="i4")}, "triangles lie outside"),
        ("joined", {"part_index": np.full(8, 3, dtype="i2")}, "parts that are not described"),
        ("cifti", {"position": np.full(5, 7)}, "lie outside the image"),
        ("table", {"name": None}, "names of a table's columns are missing"),
        ("table", {"layouts": (Layout("../up", "table", ".map.tsv"),)}, "cannot name a file"),
        ("table", {"layouts": (Layout("", "table", ".sh"),)}, "description .* damaged"),
        ("cifti", {"layouts": (Layout("", "cifti", ".dscalar.nii"),)}, "description .* damaged"),
    ],
)
def test_a_damaged_geometry_is_refused(tmp_path, kind, changes, message):
    geometry = replace(KINDS[kind](), **changes)
    with pytest.raises(InputError, match=rf"x\.h5: .*{message}"):
        stored(tmp_path / "x.h5", geometry)


def test_runs_hold_any_order():
    numbers = np.array([3, 4, 5, 9, 2, 1, 7, 8])
    assert runs_of(numbers) == [[3, 6], [9, 10], [2, 3], [1, 2], [7, 9]]
    np.testing.assert_array_equal(numbers_of(runs_of(numbers)), numbers)
