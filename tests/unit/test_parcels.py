"""Parcels of images without regions: of one part as they were, of several each its own."""

from __future__ import annotations

import numpy as np
import pytest

from rvga.geometry import Geometry, Layout, join, runs_of
from rvga.heritability import default_parcels
from rvga.parcels import default_regions


def grid(shape, name=""):
    """Return all voxels of a grid, described as images of a part are."""
    index = np.argwhere(np.ones(shape))
    affine = np.diag([2.0, 2, 2, 1])
    layout = Layout(name=name, affine=affine.tolist(), shape=list(shape))
    return Geometry(
        affine, shape, index, layouts=(layout,), position=np.arange(len(index)),
        part_index=np.zeros(len(index), dtype=np.int16), places=index @ affine[:3, :3],
    )  # fmt: skip


def test_one_part_has_the_parcels_of_its_coordinates():
    geometry = grid((5, 4, 3))
    label, names = default_regions(geometry)
    np.testing.assert_array_equal(label, default_parcels(geometry.coordinates))
    assert names == [f"parcel {k}" for k in range(1, 25)]


@pytest.mark.parametrize("parts", [2, 5, 30])
def test_parts_at_the_same_places_have_parcels_of_their_own(parts):
    geometry = join([grid((5, 4, 3), f"f{k}") for k in range(parts)])
    label, names = default_regions(geometry)
    each = max(1, 24 // parts)
    assert names == [f"f{k} parcel {j}" for k in range(parts) for j in range(1, each + 1)]
    own = default_parcels(grid((5, 4, 3)).coordinates, each)
    for k in range(parts):
        here = geometry.layout_of_voxel == k
        np.testing.assert_array_equal(label[here], own + k * each)


def test_maps_of_cifti_are_features_and_structures_are_not():
    models = [
        {"structure": f"CIFTI_STRUCTURE_CORTEX_{side}", "kind": "surface", "size": [20],
         "runs": runs_of(np.arange(20))} for side in ("LEFT", "RIGHT")
    ]  # fmt: skip
    layout = Layout(
        type="cifti", suffix=".dscalar.nii", maps=["area", "thickness"], models=models,
        sections=[f"{m} {k}" for m in "at" for k in "LR"],
    )  # fmt: skip
    places = np.tile(np.random.default_rng(1).normal(size=(40, 3)), (2, 1))
    geometry = Geometry(
        None, None, None, type="cifti", layouts=(layout,), position=np.arange(80),
        part_index=np.repeat(np.arange(4), 20).astype(np.int16), places=places,
    )  # fmt: skip
    label, names = default_regions(geometry)
    assert names == [f"{m} parcel {k}" for m in ("area", "thickness") for k in range(1, 13)]
    np.testing.assert_array_equal(label[:40], default_parcels(places[:40], 12))
    np.testing.assert_array_equal(label[40:], label[:40] + 12)
    # Voxels of one map only, as a mask may leave them.
    assert default_regions(geometry.subset(np.arange(40)))[1][0] == "parcel 1"
