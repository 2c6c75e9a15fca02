"""Regions of images of every kind, and one message for each that cannot be used."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from rvga.errors import InputError
from rvga.geometry import Geometry, Layout
from rvga.regions import read_labels, read_regions

VERTICES = 6


def volume() -> Geometry:
    index = np.argwhere(np.ones((2, 2, 2)))[[0, 3, 5, 7]]
    return Geometry(np.diag([2.0, 2, 2, 1]), (2, 2, 2), index)


def other(kind: str, layouts: int = 1) -> Geometry:
    """Return four voxels: vertices 0, 2, 3, 5 of a surface, columns of a table, or two parts."""
    surface = {"n_vertices": VERTICES, "structure": "CortexLeft", "suffix": ".func.gii"}
    if kind == "table":
        made = [Layout(type="table", suffix=".map.tsv")]
    else:
        made = [Layout(name=f"part{k}", type="surface", **surface) for k in range(layouts)]
    position = np.array([0, 2, 3, 5]) if layouts == 1 else np.array([0, 2, 0, 1])
    return Geometry(
        None, None, None, type="joined" if layouts > 1 else kind, layouts=tuple(made),
        part_index=np.repeat(np.arange(layouts), 4 // layouts), position=position,
        places=np.zeros((4, 3)), vertex=np.full(4, -1),
        name=np.array(["a", "b", "c", "d"]) if kind == "table" else None,
    )  # fmt: skip


def test_a_volume_of_labels(tmp_path):
    values = np.arange(8, dtype=np.int16).reshape(2, 2, 2) * 10
    nibabel.Nifti1Image(values, np.diag([2.0, 2, 2, 1])).to_filename(tmp_path / "l.nii.gz")
    label, names = read_regions(tmp_path / "l.nii.gz", volume())
    assert label.tolist() == [0, 30, 50, 70]
    assert names == ["30", "50", "70"]


def test_labels_of_vertices(tmp_path):
    array = nibabel.gifti.GiftiDataArray(
        np.array([4, 9, 9, 0, 9, 2], dtype=np.int32), intent="NIFTI_INTENT_LABEL"
    )
    nibabel.save(nibabel.gifti.GiftiImage(darrays=[array]), tmp_path / "l.label.gii")
    (tmp_path / "l.txt").write_text("4\n9\n9\n0\n9\n2\n")
    for name in ("l.label.gii", "l.txt"):
        label, names = read_regions(tmp_path / name, other("surface"))
        assert label.tolist() == [4, 9, 0, 2]
        assert names == ["2", "4", "9"]


@pytest.mark.parametrize("separator", ["\t", ","])
@pytest.mark.parametrize("kind", ["nifti", "surface", "table", "joined"])
def test_a_table_names_voxels_of_every_kind(tmp_path, kind, separator):
    geometry = volume() if kind == "nifti" else other(kind, 2 if kind == "joined" else 1)
    voxels = ["c", "a", "d"] if kind == "table" else ["2", "0", "3"]
    lines = [["voxel", "region"], [voxels[0], "left insula"], [voxels[1], "NA"], [voxels[2], "V1"]]
    path = tmp_path / "regions.tsv"
    path.write_text("".join(separator.join(line) + "\n" for line in lines))
    label, names = read_regions(path, geometry)
    assert names == ["V1", "left insula"]
    assert label.tolist() == [0, 0, 2, 1]
    assert read_labels(path, geometry).tolist() == label.tolist()


def test_numbers_of_regions_are_in_their_order(tmp_path):
    path = tmp_path / "regions.tsv"
    path.write_text("voxel\tregion\n0\t10\n1\t9\n2\t0\n3\t9\n")
    label, names = read_regions(path, volume())
    assert names == ["9", "10"]
    assert label.tolist() == [2, 1, 0, 1]


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("voxel\tregion\n0\tA\n4\tB\n", "nifti", "line 3: voxel '4' is not a number from 0 to 3"),
        ("voxel\tregion\nz\tA\n", "table", "line 2: voxel 'z' is not a column of the images"),
        ("voxel\tregion\n1\tA\n1\tB\n", "nifti", "line 3: voxel '1' is listed twice"),
        ("voxel\tregion\n1\n", "nifti", "line 2 has 1 columns, the header 2"),
        ("voxel\tregion\n1\t\n", "nifti", "names no region"),
        ("1\n2\n", "surface", "has 2 values (regions), but the images' surface has 6 vertices"),
        ("1\n2\n3\n.5\n1\n1\n", "surface", "not whole numbers"),
        ("0\n0\n0\n0\n0\n0\n", "surface", "no label other than 0"),
        ("1\n2\n3\n4\n5\n6\n", "joined", "several parts"),
    ],
)
def test_bad_regions_are_named(tmp_path, text, kind, message):
    path = tmp_path / "regions.txt"
    path.write_text(text)
    geometry = volume() if kind == "nifti" else other(kind, 2 if kind == "joined" else 1)
    with pytest.raises(InputError) as found:
        read_regions(path, geometry)
    assert message in str(found.value)
    assert "regions.txt" in str(found.value)
