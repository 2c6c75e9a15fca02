"""Which voxel of one set of images is which of another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rvga.errors import InputError
from rvga.geometry import Geometry, Layout, join
from rvga.voxel_match import columns_of, require_maps_in_order


def grid(index, shift: float = 0.0, shape=(4, 4, 4)) -> Geometry:
    """Return voxels of a grid."""
    affine = np.diag([2.0, 2, 2, 1])
    affine[0, 3] = shift
    return Geometry(affine, shape, np.asarray(index, dtype=np.int32))


def described(layout: Layout, position, name=None) -> Geometry:
    """Return voxels of one layout."""
    position = np.asarray(position)
    return Geometry(
        affine=None,
        shape=None,
        index=None,
        type=layout.type,
        layouts=(layout,),
        part_index=np.zeros(len(position), dtype=np.int16),
        position=position,
        places=position[:, None].astype(float),
        name=None if name is None else np.array(name, dtype=object),
    )


def test_cells_of_a_grid():
    ours = grid([(0, 0, 1), (1, 2, 3), (3, 3, 3)])
    theirs = grid([(0, 0, 0), (1, 2, 3), (0, 0, 1)], shift=5e-4)
    assert columns_of(ours, theirs, "b").tolist() == [2, 1, -1]
    with pytest.raises(InputError, match=r"b: .* corners of their grids are up to 0.01 mm apart"):
        columns_of(ours, grid([(0, 0, 0)], shift=0.01), "b")
    with pytest.raises(InputError, match="grids of 4 x 4 x 4 and 5 x 4 x 4 voxels"):
        columns_of(ours, grid([(0, 0, 0)], shape=(5, 4, 4)), "b")


def test_vertices_of_a_surface():
    surface = Layout(type="surface", suffix=".func.gii", n_vertices=9)
    other = replace(surface, suffix=".mgh")
    found = columns_of(described(surface, [1, 4, 8]), described(other, [4, 5, 8, 1]), "b")
    assert found.tolist() == [3, 0, 2]
    with pytest.raises(InputError, match="surfaces of 9 and 10 vertices"):
        columns_of(described(surface, [1]), described(replace(surface, n_vertices=10), [1]), "b")
    left, right = (replace(surface, structure=f"Cortex{side}") for side in ("Left", "Right"))
    assert columns_of(described(left, [1]), described(surface, [1]), "b").tolist() == [0]
    with pytest.raises(InputError, match="surfaces of CortexLeft and CortexRight"):
        columns_of(described(left, [1]), described(right, [1]), "b")
    with pytest.raises(InputError, match="one is of type nifti, the other of type surface"):
        columns_of(grid([(0, 0, 0)]), described(surface, [1]), "b")


def test_columns_of_a_table_go_by_name():
    table = Layout(type="table", suffix=".map.tsv", smoothable=False)
    ours = described(table, [0, 1, 2], ["x", "y", "z"])
    theirs = described(table, [0, 1, 2], ["z", "w", "x"])
    assert columns_of(ours, theirs, "b").tolist() == [2, -1, 0]


def test_parts_are_told_apart():
    surface = Layout(name="a", type="surface", suffix=".func.gii", n_vertices=9)
    one, two = described(surface, [1, 2]), described(replace(surface, name="b"), [2, 3])
    both = join([one, two])
    assert columns_of(both, both, "b").tolist() == [0, 1, 2, 3]
    # The order in which parts are given does not matter, their names do.
    assert columns_of(both, join([two, one]), "b").tolist() == [2, 3, 0, 1]
    renamed = described(replace(surface, name="c"), [2, 3])
    with pytest.raises(InputError, match=r"b: was made from the parts a, b, but .* have a, c;"):
        columns_of(both, join([one, renamed]), "b")
    with pytest.raises(InputError, match=r"from the parts a, but .* have b;"):
        columns_of(one, two, "b")
    unnamed = described(replace(surface, name=""), [2, 1])
    assert columns_of(one, unnamed, "b").tolist() == [1, 0]
    with pytest.raises(InputError, match="images of 2 parts, but these have 1"):
        columns_of(both, one, "b")


def test_brain_models_of_cifti():
    models = [{"structure": "CORTEX_LEFT", "kind": "surface", "size": [9], "runs": [[0, 9]]}]
    layout = Layout(type="cifti", suffix=".dscalar.nii", maps=["thickness"], models=models)
    for name in ("thickness", "map", "map3"):
        same = replace(layout, maps=[name])
        found = columns_of(described(layout, [1, 8]), described(same, [8, 1]), "b")
        assert found.tolist() == [1, 0]
    for ours, theirs in (
        (["thickness"], ["area"]),
        (["thickness", "area"], ["area", "thickness"]),
        (["map1", "map2"], ["thickness", "area"]),
    ):
        one, other = (replace(layout, maps=maps) for maps in (ours, theirs))
        with pytest.raises(InputError, match=f"the maps {', '.join(ours)} and {', '.join(theirs)}"):
            columns_of(described(one, [1]), described(other, [1]), "b")
    fewer = replace(layout, models=[{**models[0], "runs": [[0, 8]]}])
    with pytest.raises(InputError, match="their brain models differ"):
        columns_of(described(layout, [1]), described(fewer, [1]), "b")
    with pytest.raises(InputError, match="1 and 2 maps"):
        columns_of(described(layout, [1]), described(replace(layout, maps=["a", "b"]), [1]), "b")


def test_grids_of_cifti_are_one_within_a_thousandth_of_a_millimetre():
    def voxels(shift):
        affine = np.diag([2.0, 2, 2, 1])
        affine[1, 3] = shift
        model = {"structure": "THALAMUS_LEFT", "kind": "voxels", "size": [5, 4, 3]}
        model |= {"affine": affine.tolist(), "runs": [[0, 9]]}
        return Layout(type="cifti", suffix=".dscalar.nii", maps=["map"], models=[model])

    ours = described(voxels(0.0), [1, 8])
    assert columns_of(ours, described(voxels(9e-4), [8, 1]), "b").tolist() == [1, 0]
    with pytest.raises(InputError, match=r"grid of THALAMUS_LEFT are up to 0\.002 mm apart"):
        columns_of(ours, described(voxels(2e-3), [8, 1]), "b")


def test_maps_in_the_order_of_the_bases():
    ours = ["names order"]
    for theirs in (["names order"], ["others order"], [""], [], ["others turned"]):
        require_maps_in_order(ours, theirs, "b.h5")
    require_maps_in_order(["a one", "b two"], ["b two", "a one"], "b.h5")
    for wanted in (ours, ["a one", *ours]):
        with pytest.raises(InputError, match=r"b\.h5: .*same maps in another order .*cifti_maps"):
            require_maps_in_order(wanted, ["names turned"], "b.h5")
