"""Labels of every kind with their names, a file for each part, and a message for each mistake."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis, Cifti2Image, LabelAxis, ScalarAxis, SeriesAxis

from rvga.errors import InputError
from rvga.geometry import Geometry, Layout, join, runs_of
from rvga.label_files import is_unlabelled, read_names
from rvga.regions import read_regions

VERTICES = 6
AFFINE = np.diag([2.0, 2, 2, 1])
GRID = (5, 4, 3)


def surface(name="", structure="CortexLeft", kept=(0, 2, 3, 5)):
    """Return four of six vertices of a surface."""
    kept = np.array(kept)
    layout = Layout(
        name=name, type="surface", suffix=".func.gii", n_vertices=VERTICES, structure=structure
    )
    return Geometry(
        None, None, None, type="surface", layouts=(layout,),
        part_index=np.zeros(len(kept), dtype=np.int16), position=kept,
        places=np.zeros((len(kept), 3)), vertex=np.full(len(kept), -1),
    )  # fmt: skip


def volume(name=""):
    """Return the first four voxels of a grid."""
    index = np.argwhere(np.ones(GRID))[:4]
    layout = Layout(name=name, affine=AFFINE.tolist(), shape=list(GRID))
    return Geometry(
        AFFINE, GRID, index, layouts=(layout,), part_index=np.zeros(4, dtype=np.int16),
        position=np.arange(4), places=index @ AFFINE[:3, :3],
    )  # fmt: skip


def table(name=""):
    """Return three columns of a table."""
    return Geometry(
        None, None, None, type="table",
        layouts=(Layout(name=name, type="table", suffix=".map.tsv", smoothable=False),),
        part_index=np.zeros(3, dtype=np.int16), position=np.arange(3),
        places=np.arange(3.0)[:, None], name=np.array(["a", "b", "c"], dtype=object),
    )  # fmt: skip


def cifti(maps=("map",)):
    """Return vertices 1, 2 and 5 of the left cortex, 0 of the right, and two voxels."""
    models = [
        {"structure": "CIFTI_STRUCTURE_CORTEX_LEFT", "kind": "surface", "size": [VERTICES],
         "runs": runs_of(np.array([1, 2, 5]))},
        {"structure": "CIFTI_STRUCTURE_CORTEX_RIGHT", "kind": "surface", "size": [VERTICES],
         "runs": runs_of(np.array([0]))},
        {"structure": "CIFTI_STRUCTURE_ACCUMBENS_LEFT", "kind": "voxels", "size": list(GRID),
         "affine": AFFINE.tolist(), "runs": runs_of(np.array([7, 8]))},
    ]  # fmt: skip
    size = 6 * len(maps)
    layout = Layout(
        type="cifti", suffix=".dscalar.nii", sections=[f"{m} {k}" for m in maps for k in range(3)],
        maps=list(maps), models=models, smoothable=False,
    )  # fmt: skip
    section = np.concatenate([[0, 0, 0, 1, 2, 2] + np.array(3 * k) for k in range(len(maps))])
    return Geometry(
        None, None, None, type="cifti", layouts=(layout,), part_index=section.astype(np.int16),
        position=np.arange(size), places=np.arange(float(size))[:, None],
    )  # fmt: skip


def write_gifti(path, values, names=None, structure=""):
    """Write labels of vertices."""
    array = nibabel.gifti.GiftiDataArray(
        np.asarray(values, dtype=np.int32), intent="NIFTI_INTENT_LABEL"
    )
    labels = nibabel.gifti.GiftiLabelTable()
    for key, name in (names or {}).items():
        label = nibabel.gifti.GiftiLabel(key, 1, 1, 1, 1)
        label.label = name
        labels.labels.append(label)
    meta = {"AnatomicalStructurePrimary": structure} if structure else {}
    nibabel.save(
        nibabel.gifti.GiftiImage(
            darrays=[array], labeltable=labels, meta=nibabel.gifti.GiftiMetaData(meta)
        ),
        path,
    )
    return path


def write_annot(path, rows, names):
    """Write a FreeSurfer annotation; -1 is no label."""
    table = np.column_stack([np.arange(1, len(names) + 1) * 9] * 3 + [np.zeros(len(names))])
    nibabel.freesurfer.write_annot(
        path, np.array(rows), table.astype(np.int64), [name.encode() for name in names],
        fill_ctab=True,
    )  # fmt: skip
    return path


def write_dlabel(path, models, values, names, axis=None):
    """Write CIFTI dense labels of the models given, one map."""
    axis = axis or LabelAxis(["atlas"], [{k: (v, (1, 1, 1, 1)) for k, v in names.items()}])
    header = (axis, models)
    Cifti2Image(np.atleast_2d(np.asarray(values, dtype=np.float32)), header).to_filename(path)
    return path


def cortex(kept, side="LEFT", size=VERTICES):
    """Return a brain model of vertices."""
    return BrainModelAxis.from_surface(np.array(kept), size, f"CORTEX_{side}")


def by_voxel(label, names):
    """Return the name of each voxel's region, '' for none."""
    number = np.unique(label[label != 0])
    assert len(number) == len(names)
    name_of = dict(zip(number.tolist(), names, strict=True))
    return [name_of.get(one, "") for one in label.tolist()]


# -------------------------------------------------------------------------------------------
# One part
# -------------------------------------------------------------------------------------------


def test_names_of_a_gifti_table_are_the_regions(tmp_path):
    names = {0: "???", 3: "insula", 4: "L_Medial_wall", 7: "V1", 9: "unused"}
    path = write_gifti(tmp_path / "a.label.gii", [7, 3, 3, 4, 0, 0], names, "CortexLeft")
    label, found = read_regions(path, surface())
    assert by_voxel(label, found) == ["V1", "insula", "", ""]
    assert label.tolist() == [7, 3, 0, 0]


def test_labels_of_one_name_are_one_region(tmp_path):
    path = write_gifti(
        tmp_path / "a.label.gii", [7, 3, 3, 4, 0, 5], {3: "V1", 4: "B", 5: "V1", 7: "V1"}
    )
    label, found = read_regions(path, surface())
    assert by_voxel(label, found) == ["V1", "V1", "B", "V1"]
    assert label.tolist() == [3, 3, 4, 3]


@pytest.mark.parametrize("packed", [False, True])
def test_a_freesurfer_annotation(tmp_path, packed):
    path = write_annot(tmp_path / "lh.a.annot", [1, 0, 2, -1, 2, 0], ["unknown", "insula", "V1"])
    if packed:
        (tmp_path / "lh.a.annot.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = tmp_path / "lh.a.annot.gz"
    label, found = read_regions(path, surface())
    assert by_voxel(label, found) == ["insula", "V1", "", ""]
    # Any ending will do, and the first row is a region if its name is one.
    path = write_annot(tmp_path / "parcels", [1, 0, 0, 1, -1, -1], ["first", "second"])
    label, found = read_regions(path, surface())
    assert by_voxel(label, found) == ["second", "first", "second", ""]


def test_dense_labels_by_structure_and_vertex(tmp_path):
    # All vertices of the left cortex, with the medial wall; none of the right, and no voxel.
    values, names = [0, 5, 2, 2, 2, 5], {0: "???", 2: "L_V1", 5: "L_insula"}
    path = write_dlabel(tmp_path / "a.dlabel.nii", cortex(range(VERTICES)), values, names)
    label, found = read_regions(path, cifti())
    assert by_voxel(label, found) == ["L_insula", "L_V1", "L_insula", "", "", ""]
    # Regions are the same in each map of the images.
    label, found = read_regions(path, cifti(("thickness", "area")))
    assert by_voxel(label, found) == ["L_insula", "L_V1", "L_insula", "", "", ""] * 2


def test_dense_labels_of_vertices_and_voxels(tmp_path):
    mask = np.zeros(GRID, dtype=bool)
    # Voxels 7, 8 and 9 with the first index fastest.
    mask[2:5, 1, 0] = True
    nucleus = BrainModelAxis.from_mask(mask, "ACCUMBENS_LEFT", AFFINE)
    models = cortex([0], "RIGHT") + nucleus + cortex([1, 5])
    path = write_dlabel(
        tmp_path / "a.dlabel.nii", models, [1, 2, 3, 2, 3, 1], {1: "A", 2: "B", 3: "C"}
    )
    label, found = read_regions(path, cifti())
    assert by_voxel(label, found) == ["C", "", "A", "A", "B", "C"]
    scalars = write_dlabel(
        tmp_path / "a.dscalar.nii", models, [1, 2, 3, 2, 3, 1], {}, ScalarAxis(["atlas"])
    )
    assert by_voxel(*read_regions(scalars, cifti())) == ["3", "", "1", "1", "2", "3"]


LOOKUP = (
    "#No. Label Name: R G B A\n\n 0  Unknown  0 0 0 0\n  7  Left-V1  70 130 180 0\n9 B 1 2 3 0\n"
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.tsv", "index\tname\tcolor\n0\tunknown\t#000000\n9\tB\t\n7\tLeft-V1\t#ff0000\n"),
        ("names.csv", '"name","label"\r\n"Left-V1",7\r\nB,9\r\n'),
        ("lookup.txt", LOOKUP),
    ],
)
def test_an_atlas_with_a_table_of_names(tmp_path, name, text):
    values = np.zeros(GRID, dtype=np.int16)
    values[0, 0] = [9, 7, 0]
    values[0, 1, 0] = 9
    nibabel.Nifti1Image(values, AFFINE).to_filename(tmp_path / "atlas.nii.gz")
    (tmp_path / name).write_text(text)
    (tmp_path / "regions.csv").write_text(f"labels,names\natlas.nii.gz,{name}\n")
    label, found = read_regions(tmp_path / "regions.csv", volume())
    assert by_voxel(label, found) == ["B", "Left-V1", "", "B"]
    assert label.tolist() == [9, 7, 0, 9]


def test_an_atlas_of_freesurfer_is_read_as_the_images_are(tmp_path):
    values = np.zeros(GRID, dtype=np.int32)
    values[0, 0] = [0, 1024, 1024]
    nibabel.MGHImage(values, AFFINE).to_filename(tmp_path / "aparc.mgz")
    assert by_voxel(*read_regions(tmp_path / "aparc.mgz", volume())) == ["", "1024", "1024", ""]


@pytest.mark.parametrize("kind", ["voxels", "sheet", "values"])
def test_text_may_be_compressed(tmp_path, kind):
    text = "voxel\tregion\n1\tB\n2\tA\n"
    if kind == "sheet":
        write_gifti(tmp_path / "a.gii", [0, 0, 2, 1, 0, 0], {1: "A", 2: "B"})
        text = "labels\na.gii\n"
    elif kind == "values":
        text = "0\n0\n2\n1\n0\n0\n"
    path = tmp_path / "regions.tsv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    expected = ["", "2", "1", ""] if kind == "values" else ["", "B", "A", ""]
    assert by_voxel(*read_regions(path, surface())) == expected
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"tsv\.gz: the compressed file is cut short or damaged"):
        read_regions(path, surface())


@pytest.mark.parametrize(
    ("name", "none"),
    [
        ("???", True), ("Unknown", True), ("ctx-lh-unknown", True), ("R_Medial_wall", True),
        ("Background+FreeSurfer_Defined_Medial_Wall", True), ("", True), ("lh.none", True),
        ("insula", False), ("L_V1", False), ("medial wall of V1", False), ("unknown_2", False),
    ],
)  # fmt: skip
def test_which_names_are_no_region(name, none):
    assert is_unlabelled(name) == none


# -------------------------------------------------------------------------------------------
# Several parts
# -------------------------------------------------------------------------------------------


@pytest.fixture
def hemispheres(tmp_path):
    """Return images of two hemispheres and files of labels for each."""
    write_annot(tmp_path / "lh.a.annot", [1, 0, 1, 2, 2, 0], ["unknown", "V1", "insula"])
    write_gifti(
        tmp_path / "rh.a.label.gii", [2, 1, 0, 0, 0, 0], {0: "???", 1: "insula", 2: "V1"},
        "CortexRight",
    )  # fmt: skip
    left, right = surface("lh"), surface("rh", "CortexRight", kept=(0, 1, 4))
    return join([left, right])


def sheet(folder, *lines, name="regions.csv"):
    """Write a sheet of labels."""
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_each_part_has_its_own_labels(tmp_path, hemispheres):
    path = sheet(tmp_path, "part,labels", "rh,rh.a.label.gii", "lh,lh.a.annot")
    label, found = read_regions(path, hemispheres)
    expected = ["lh V1", "lh V1", "lh insula", "", "rh V1", "rh insula", ""]
    assert by_voxel(label, found) == expected
    assert found == ["lh V1", "lh insula", "rh insula", "rh V1"]


def test_features_of_one_surface_may_share_a_file(tmp_path):
    both = join([surface("thickness"), surface("area")])
    write_annot(tmp_path / "a.annot", [1, 0, 1, 2, 2, 0], ["unknown", "V1", "insula"])
    path = sheet(tmp_path, "part\tlabels\tnames", "thickness\ta.annot\t", "area\ta.annot\t")
    assert by_voxel(*read_regions(path, both)) == [
        "thickness V1", "thickness V1", "thickness insula", "",
        "area V1", "area V1", "area insula", "",
    ]  # fmt: skip


def test_parts_of_different_kinds(tmp_path):
    values = np.zeros(GRID, dtype=np.int16)
    values[0, 0] = [2, 10, 10]
    nibabel.Nifti1Image(values, AFFINE).to_filename(tmp_path / "atlas.nii.gz")
    write_gifti(tmp_path / "a.gii", [4, 0, 0, 4, 0, 1])
    (tmp_path / "sizes.tsv").write_text("voxel\tvalue\nc\t3\na\t1\n")
    (tmp_path / "names.csv").write_text("label,name\n2,A\n10,B\n")
    path = sheet(
        tmp_path, "part,labels,names", "fa,atlas.nii.gz,names.csv", "lh,a.gii,", "roi,sizes.tsv,"
    )
    label, found = read_regions(path, join([volume("fa"), surface("lh"), table("roi")]))
    assert by_voxel(label, found) == [
        "fa A", "fa B", "fa B", "", "lh 4", "", "lh 4", "lh 1", "roi 1", "", "roi 3",
    ]  # fmt: skip
    assert found == ["fa A", "fa B", "lh 1", "lh 4", "roi 1", "roi 3"]


def test_files_are_found_in_their_folders_or_beside_the_sheet(tmp_path, hemispheres):
    (tmp_path / "left").mkdir()
    (tmp_path / "lh.a.annot").rename(tmp_path / "left/lh.a.annot")
    away = tmp_path / "elsewhere"
    lines = ("part,labels", "lh,left/lh.a.annot", f"rh,{away}/rh.a.label.gii")
    expected = read_regions(sheet(tmp_path, *lines), hemispheres)
    (tmp_path / "left/lh.a.annot").rename(tmp_path / "lh.a.annot")
    found = read_regions(sheet(tmp_path, *lines), hemispheres)
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[1] == expected[1]


# -------------------------------------------------------------------------------------------
# Mistakes
# -------------------------------------------------------------------------------------------

LEFT, RIGHT = "lh,lh.a.annot", "rh,rh.a.label.gii"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["part,labels", LEFT], "names no labels for part 'rh' of the study's images"),
        (["part,labels", LEFT, RIGHT, "mid,x"], "line 4: part 'mid' is none of the study's images"),
        (["part,labels", LEFT, LEFT, RIGHT], "line 3: part 'lh' is listed twice"),
        (["labels", "lh.a.annot"], "column 'part' is missing; the study's images are of the parts"),
        (["part,labels,colour", "lh,x,y"], "column 'colour' is unknown; use part, labels, names"),
        (["part,labels,labels", "lh,x,y"], "column 'labels' is there twice"),
        (["part,labels", LEFT, "rh"], "line 3 has 1 columns, the header 2"),
        (["part,labels", LEFT, "rh,"], "line 3: labels is empty; name the file"),
        (["part,labels", LEFT, "rh,no.gii"], "line 3: no.gii: no such file"),
        (["part,labels", LEFT, "rh,short.gii"], "5 values (regions), but the surface of part 'rh'"),
        (["part,labels", "lh,rh.a.label.gii", RIGHT], "is of CortexRight, but the surface is of"),
        (["part,labels", LEFT, "rh,lh.a.annot"], "is named as that of CortexLeft, but part 'rh'"),
        (["part,labels", LEFT, "rh,none.gii"], "no label that names a region at any voxel of part"),
        (["part,labels", LEFT, "rh,lost.gii"], "table of labels has no name for label 3 (1 voxels"),
        (["part,labels", LEFT, "rh,cut.annot"], "table of labels is cut short or damaged"),
        (["part,labels", LEFT, "rh,a.nii"], "one value a vertex is due (regions)"),
        (["part,labels,names", LEFT + ",", RIGHT + ",few.tsv"], "few.tsv has no name for label 2"),
    ],
)
def test_bad_sheets_are_named(tmp_path, hemispheres, lines, message):
    write_gifti(tmp_path / "short.gii", [1, 1, 1, 1, 1])
    write_gifti(tmp_path / "none.gii", [1, 1, 1, 1, 1, 1], {1: "unknown"})
    write_gifti(tmp_path / "lost.gii", [1, 3, 1, 1, 1, 3], {1: "A"})
    whole = (tmp_path / "lh.a.annot").read_bytes()
    (tmp_path / "cut.annot").write_bytes(whole[: 4 + 8 * VERTICES + 20])
    nibabel.Nifti1Image(np.ones(GRID, np.int16), AFFINE).to_filename(tmp_path / "a.nii")
    (tmp_path / "few.tsv").write_text("label\tname\n1\tA\n")
    with pytest.raises(InputError) as found:
        read_regions(sheet(tmp_path, *lines), hemispheres)
    assert message in str(found.value)


def test_one_file_for_several_parts_is_refused(tmp_path, hemispheres):
    with pytest.raises(InputError, match=r"images are of several parts \(lh, rh\); give a sheet"):
        read_regions(tmp_path / "lh.a.annot", hemispheres)


def test_a_sheet_of_one_part_has_one_line(tmp_path):
    write_gifti(tmp_path / "a.gii", [1, 1, 1, 2, 2, 2])
    with pytest.raises(InputError, match=r"line 3: the study's images are of one part"):
        read_regions(sheet(tmp_path, "labels,names", "a.gii,", "a.gii,"), surface())
    with pytest.raises(InputError, match="names no labels for the study's images; add a line"):
        read_regions(sheet(tmp_path, "labels"), surface())


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("annotation", "is a FreeSurfer annotation of vertices, but the study's images are vol"),
        ("vertices", "CORTEX_LEFT is another one than that of the study's images (7 and 6 vert"),
        ("structures", "has labels of CIFTI_STRUCTURE_CEREBELLUM, but the study's images are of"),
        ("grid", "the corners of their grids are up to"),
        ("parcels", "is CIFTI, but of neither dense labels nor dense scalars (regions)"),
        ("surface", "is CIFTI, but the study's images are of one surface"),
        ("volume", "is NIfTI, where CIFTI is due (regions)"),
        ("printable", "the name of label 1 cannot be shown; rename it"),
    ],
)
def test_labels_of_other_images_are_refused(tmp_path, case, message):
    path, geometry, values = tmp_path / "a.dlabel.nii", cifti(), np.ones(VERTICES)
    if case == "annotation":
        geometry, path = volume(), write_annot(tmp_path / "a.annot", [0] * 6, ["A"])
    elif case == "vertices":
        write_dlabel(path, cortex(range(7), size=7), np.ones(7), {1: "A"})
    elif case == "structures":
        models = BrainModelAxis.from_surface(np.arange(6), 6, "CEREBELLUM")
        write_dlabel(path, models, values, {1: "A"})
    elif case == "grid":
        mask = np.zeros(GRID, dtype=bool)
        mask[2:4, 1, 0] = True
        models = BrainModelAxis.from_mask(mask, "ACCUMBENS_LEFT", np.diag([3.0, 2, 2, 1]))
        write_dlabel(path, models, [1, 1], {1: "A"})
    elif case == "parcels":
        write_dlabel(path, cortex(range(6)), values, {}, SeriesAxis(0, 1, 1))
    elif case == "surface":
        geometry = surface()
        write_dlabel(path, cortex(range(6)), values, {1: "A"})
    elif case == "volume":
        nibabel.Nifti1Image(np.ones(GRID, np.int16), AFFINE).to_filename(tmp_path / "a.nii")
        path = tmp_path / "a.nii"
    else:
        write_dlabel(path, cortex(range(6)), values, {1: "a\tb"})
    with pytest.raises(InputError) as found:
        read_regions(path, geometry)
    assert message in str(found.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label\n1\n", "columns label (or index) and name are due once each"),
        ("label\tname\n1.5\tA\n", "line 2: label '1.5' is not a whole number"),
        ("label\tname\n1\tA\n1\tB\n", "line 3: label 1 is there twice"),
        ("label\tname\n1\n", "line 2 has 1 columns, the header 2"),
        ('label,name\n1,"A\n', "line 2 cannot be read"),
        ('label,name\n1,"A\tB"\n', "line 2: the name holds a character that cannot be shown"),
        ("label\tname\n", "names no label"),
        (LOOKUP + "10 C\n", "line 6 is not a number, a name and a colour of four numbers"),
        ("label\tname\n1\té\n".encode("latin-1"), "is not text in UTF-8"),
    ],
)
def test_bad_tables_of_names_are_named(tmp_path, text, message):
    path = tmp_path / "names.tsv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as found:
        read_names(path)
    assert message in str(found.value)
    assert "names.tsv" in str(found.value)
