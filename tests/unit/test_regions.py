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


@pytest.mark.parametrize("word", ["0.0", "-0", "nan", "NaN", "na", "N/A", "None", ""])
@pytest.mark.parametrize("names", [("A", "B"), ("2", "10")])
def test_words_for_no_region(tmp_path, word, names):
    path = tmp_path / "regions.tsv"
    path.write_text(f"voxel\tregion\n0\t{names[0]}\n1\t{word}\n2\t{names[1]}\n")
    label, found = read_regions(path, volume())
    assert found == list(names)
    assert label.tolist() == [1, 0, 2, 0]


def test_numbers_are_one_region_however_they_are_written(tmp_path):
    path = tmp_path / "regions.tsv"
    path.write_text("voxel\tregion\n0\t1.0\n1\t10\n2\t1\n3\t-2.0\n")
    label, names = read_regions(path, volume())
    assert names == ["-2", "1", "10"]
    assert label.tolist() == [2, 3, 2, 1]
    path.write_text("voxel\tregion\n0\t1.0\n1\tA\n")
    assert read_regions(path, volume())[1] == ["1.0", "A"]


@pytest.mark.parametrize(
    "text",
    [
        "voxel\tregion\n0\tinsula, left\n2\tB\n",
        '"voxel","region"\r\n"0","insula, left"\r\n\r\n2,B\r\n',
        'region;voxel\n"insula, left";0\nB;2',
    ],
)
def test_columns_are_parted_by_one_mark(tmp_path, text):
    path = tmp_path / "regions.csv"
    path.write_bytes(text.encode())
    label, names = read_regions(path, volume())
    assert sorted(names) == ["B", "insula, left"]
    assert [names[k - 1] if k else "" for k in label] == ["insula, left", "", "B", ""]
    path.write_text("voxel  region\n0 A\n\n2   B\n")
    assert read_regions(path, volume())[0].tolist() == [1, 0, 2, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("voxel\tregion\n0\tA\n".encode("utf-16"), "is text in UTF-16"),
        ("voxel\tregion\n0\té\n".encode("latin-1"), "is not text in UTF-8"),
    ],
)
def test_other_encodings_are_named(tmp_path, content, message):
    path = tmp_path / "regions.tsv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_regions(path, volume())


def test_labels_that_are_not_exact_are_refused(tmp_path):
    values = np.zeros((2, 2, 2))
    values[0, 0, 0] = 1e19
    nibabel.Nifti1Image(values, np.diag([2.0, 2, 2, 1])).to_filename(tmp_path / "l.nii.gz")
    with pytest.raises(InputError, match=r"labels of 2\^53 or more"):
        read_regions(tmp_path / "l.nii.gz", volume())


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("voxel\tregion\n0\tA\n4\tB\n", "nifti", "line 3: voxel '4' is not a number from 0 to 3"),
        ("voxel\tregion\nz\tA\n", "table", "line 2: voxel 'z' is not a column of the images"),
        ("voxel\tregion\n1\tA\n1\tB\n", "nifti", "line 3: voxel '1' is listed twice"),
        ("voxel\tregion\n1\n", "nifti", "line 2 has 1 columns, the header 2"),
        ("voxel\tregion\n1\t\n", "nifti", "names no region"),
        ("index\tregion\n1\tA\n", "nifti", "neither a table with the columns 'voxel' and 'region'"),
        ("Voxel,Region\n1,A\n", "surface", "line 1 is 'Voxel,Region'"),
        ("voxel label\n1 A\n", "nifti", "neither a table with the columns 'voxel' and 'region'"),
        ("voxel\tregion\tregion\n0\tA\tB\n", "nifti", "column 'region' is there twice"),
        ("voxel\tregion\n" + "9" * 5000 + "\tA\n", "nifti", "9…' is not a number from 0 to 3"),
        ("voxel\tregion\n\u0661\tA\n", "nifti", "line 2: voxel '\u0661' is not a number"),
        ('voxel\tregion\n1\t"A\n', "nifti", "mend its quotes"),
        ('voxel,region\n1,"A\tB"\n', "nifti", "line 2: the region's name holds a tab"),
        ("voxel\tregion\n1\t1.5\n", "nifti", "region '1.5' is not a whole number below 2^53"),
        ("voxel\tregion\n1\t9007199254740993\n", "nifti", "not a whole number below 2^53"),
        (
            "1\n2\n",
            "surface",
            "has 2 values (regions), but the surface of the study's images has 6",
        ),
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
