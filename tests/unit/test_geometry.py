"""Coordinates of voxels and maps of them."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from rvga import formats
from rvga.geometry import Geometry, add_geometry, geometry_of, volume_of, write_map

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
