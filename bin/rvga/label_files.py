"""Files that label each place of an image: volumes, vertices (GIFTI, FreeSurfer), CIFTI."""

from __future__ import annotations

import csv
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rvga.errors import InputError
from rvga.geometry import (
    AFFINE_TOLERANCE_MM,
    Layout,
    grid_distance,
    len_of_runs,
    numbers_of,
)
from rvga.image_files import (
    by,
    content_of,
    head_of,
    hemisphere,
    kind_of,
    read_cifti_labels,
    read_gifti_labels,
    read_vertices,
    read_volume,
)

WHAT = "regions"
# Names of label tables that are no region, without a word for the hemisphere before them.
_UNLABELLED = re.compile(
    r"((ctx[-_])?(l|r|lh|rh|left|right)[-_. ]+)?"
    r"(|\?+|unknown|none|null|na|nan|n/a|undefined|background(\+.*)?|medial[-_ ]?wall)",
    re.IGNORECASE,
)
# A line of FreeSurfer's lookup table: number, name, and a colour of four numbers.
_LOOKUP = re.compile(r"([0-9]+)\s+(\S+)\s+[0-9]+\s+[0-9]+\s+[0-9]+\s+[0-9]+")
_NUMBER_COLUMNS = ("label", "index")


@dataclass(frozen=True)
class Labels:
    """What a file says of the places of an image.

    Attributes
    ----------
    values : (N,) float64
        Label of each voxel; not finite, or 0 where ``zero_is_none``, is none.
    names : dict of int to str, optional
        Of the labels; None where the file has numbers only.
    zero_is_none : bool
        Whether 0 is no label whatever it is called.
    """

    values: np.ndarray
    names: dict[int, str] | None
    zero_is_none: bool = True


def is_unlabelled(name: str) -> bool:
    """Return whether a name of a label table means no region (``unknown``, ``???``, ...)."""
    return _UNLABELLED.fullmatch(name.strip()) is not None


def read_label_file(path: Path, layout: Layout, positions: np.ndarray, part: str) -> Labels:
    """Return the labels that a file has at some places of an image file.

    Parameters
    ----------
    path : Path
        A volume (NIfTI, MGH) for a grid; GIFTI, a FreeSurfer annotation, curv, MGH or text with a
        value a vertex for a surface; CIFTI (dense labels or scalars, the first map) for CIFTI.
    layout : Layout
        Of the image file; not of a table.
    positions : (N,)
        Places in it.
    part : str
        Of which images, for messages: ``the images`` or ``part 'lh' of the images``.

    Raises
    ------
    InputError
        The file is of another kind, size, grid or hemisphere, or cannot be read.
    """
    if layout.type == "nifti":
        return _of_volume(path, layout, positions, part)
    if layout.type == "surface":
        return _of_vertices(path, layout, positions, part)
    cifti = read_cifti_labels(path, WHAT)
    values = _on_models(path, cifti.values, cifti.models, layout.models, part)
    return Labels(np.tile(values, len(layout.maps))[positions], cifti.names)


def _of_volume(path: Path, layout: Layout, positions: np.ndarray, part: str) -> Labels:
    if _annotated_vertices(path):
        raise InputError(
            f"{path}: is a FreeSurfer annotation of vertices, but {part} are volumes; give the "
            "labels as a volume"
        )
    volume, affine = read_volume(path, WHAT)
    if list(volume.shape) != list(layout.shape):
        raise InputError(
            f"{path}: has shape {by(volume.shape)}, {part} {by(layout.shape)}; resample the "
            "regions to the images' grid"
        )
    apart = grid_distance(affine, np.asarray(layout.affine), layout.shape)
    if not apart <= AFFINE_TOLERANCE_MM:
        raise InputError(
            f"{path}: has another affine than {part} (the corners of the grids are up to "
            f"{apart:.4g} mm apart); resample the regions to the images' grid"
        )
    return Labels(np.asarray(volume, dtype=np.float64).reshape(-1)[positions], None)


def _of_vertices(path: Path, layout: Layout, positions: np.ndarray, part: str) -> Labels:
    kind = kind_of(head_of(path, WHAT))
    zero_is_none, names = True, None
    if _annotated_vertices(path):
        _require_hemisphere(path, layout, part)
        values, names = _annotation(path)
        zero_is_none = False
    elif kind == "gifti":
        values, names = read_gifti_labels(path, WHAT, layout.structure)
    elif kind == "cifti":
        raise InputError(
            f"{path}: is CIFTI, but {part} are of one surface; write the labels of its hemisphere "
            "as GIFTI (.label.gii)"
        )
    else:
        values = read_vertices(path, WHAT, layout.structure)
    if len(values) != layout.n_vertices:
        raise InputError(
            f"{path}: has {len(values)} values (regions), but the surface of {part} has "
            f"{layout.n_vertices} vertices; give the labels of that surface"
        )
    return Labels(np.asarray(values, dtype=np.float64)[positions], names, zero_is_none)


def _require_hemisphere(path: Path, layout: Layout, part: str) -> None:
    """Refuse an annotation whose name says the other hemisphere; nothing inside says which."""
    theirs = {"L": "CortexLeft", "R": "CortexRight"}.get(hemisphere(path.name), "")
    if theirs and layout.structure.startswith("Cortex") and layout.structure != theirs:
        raise InputError(
            f"{path}: is named as that of {theirs}, but {part} are of {layout.structure}; give "
            "the labels of that hemisphere"
        )


# -------------------------------------------------------------------------------------------
# FreeSurfer annotations
# -------------------------------------------------------------------------------------------


def _annotated_vertices(path: Path) -> int:
    """Return the number of vertices of a FreeSurfer annotation, 0 for a file of another kind.

    It begins with that number and a pair for each vertex, the vertex's number first.
    """
    if kind_of(head_of(path, WHAT)):
        return 0
    content = content_of(path, WHAT)
    n = int.from_bytes(content[:4], "big", signed=True)
    if n < 1 or len(content) < 4 + 8 * n:
        return 0
    first = np.frombuffer(content, dtype=">i4", count=2 * n, offset=4)[::2]
    return n if np.array_equal(first, np.arange(n)) else 0


def _annotation(path: Path) -> tuple[np.ndarray, dict[int, str]]:
    """Return each vertex's row of the annotation's table, -1 for none, and the rows' names."""
    import nibabel

    with tempfile.NamedTemporaryFile(suffix=".annot") as file:
        # A compressed one is not read by name.
        file.write(content_of(path, WHAT))
        file.flush()
        try:
            row, table, names = nibabel.freesurfer.read_annot(file.name)
        # A table that is cut short or absent is told in many ways.
        except Exception as error:
            raise InputError(
                f"{path}: its table of labels is cut short or damaged ({error}); copy it again"
            ) from error
    if len(names) != len(table):
        raise InputError(f"{path}: its table of labels is cut short or damaged; copy it again")
    found = {k: name.decode("utf-8", errors="replace").strip() for k, name in enumerate(names)}
    return np.where(row < 0, np.nan, row), found


# -------------------------------------------------------------------------------------------
# CIFTI
# -------------------------------------------------------------------------------------------


def _on_models(
    path: Path,
    values: np.ndarray,
    theirs: Sequence[dict[str, Any]],
    ours: Sequence[dict[str, Any]],
    part: str,
) -> np.ndarray:
    """Return the values at the grayordinates of other brain models, 0 where there is none.

    An atlas of the cortex may lack what the images have besides, and may have the medial wall.

    Raises
    ------
    InputError
        No structure is in both, or one has another surface or grid.
    """
    starts = np.cumsum([0, *(len_of_runs(model["runs"]) for model in theirs)])
    of = {model["structure"]: k for k, model in enumerate(theirs)}
    if not any(model["structure"] in of for model in ours):
        raise InputError(
            f"{path}: has labels of {', '.join(of)}, but {part} are of "
            f"{', '.join(model['structure'] for model in ours)}; give labels of these structures"
        )
    found = []
    for model in ours:
        k = of.get(model["structure"])
        if k is None:
            found.append(np.zeros(len_of_runs(model["runs"])))
            continue
        difference = _model_difference(theirs[k], model)
        if difference:
            raise InputError(
                f"{path}: its {model['structure']} is another one than that of {part} "
                f"({difference}); resample the labels"
            )
        everywhere = np.zeros(int(np.prod(model["size"])))
        everywhere[numbers_of(theirs[k]["runs"])] = values[starts[k] : starts[k + 1]]
        found.append(everywhere[numbers_of(model["runs"])])
    return np.concatenate(found)


def _model_difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    if one["kind"] != other["kind"]:
        return f"{one['kind']}, not {other['kind']}"
    if list(one["size"]) != list(other["size"]):
        what = "vertices" if one["kind"] == "surface" else "voxels"
        return f"{by(one['size'])} and {by(other['size'])} {what}"
    if one["kind"] == "voxels":
        affines = np.asarray(one["affine"]), np.asarray(other["affine"])
        apart = grid_distance(*affines, one["size"])
        if not apart <= AFFINE_TOLERANCE_MM:
            return f"the corners of their grids are up to {apart:.4g} mm apart"
    return ""


# -------------------------------------------------------------------------------------------
# Names
# -------------------------------------------------------------------------------------------


def read_names(path: Path) -> dict[int, str]:
    """Return the names of labels from a table.

    TSV or CSV with columns ``name`` and ``label`` (or ``index``), others being of no account, or
    FreeSurfer's lookup table (number, name and colour).

    Raises
    ------
    InputError
        It is neither, a number is no whole number, or a label is there twice.
    """
    try:
        text = content_of(path, "names of regions").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8 (names of regions); save it so") from error
    lines = [(k, line) for k, line in enumerate(text.splitlines(), start=1) if line.strip()]
    plain = [(k, line.strip()) for k, line in lines if not line.lstrip().startswith("#")]
    if plain and _LOOKUP.fullmatch(plain[0][1]):
        pairs = []
        for number, line in plain:
            found = _LOOKUP.fullmatch(line)
            if found is None:
                raise InputError(
                    f"{path}: line {number} is not a number, a name and a colour of four numbers, "
                    "as the lines before; mend it"
                )
            pairs.append((number, found[1], found[2]))
    else:
        pairs = _named_columns(path, lines)
    names: dict[int, str] = {}
    for number, label, name in pairs:
        if not re.fullmatch(r"[+-]?[0-9]{1,15}", label):
            raise InputError(f"{path}: line {number}: label '{label[:60]}' is not a whole number")
        if int(label) in names:
            raise InputError(f"{path}: line {number}: label {int(label)} is there twice")
        if not name.isprintable():
            raise InputError(
                f"{path}: line {number}: the name holds a character that cannot be shown"
            )
        names[int(label)] = name
    if not names:
        raise InputError(f"{path}: names no label")
    return names


def _named_columns(path: Path, lines: list[tuple[int, str]]) -> list[tuple[int, str, str]]:
    mark = next((one for one in ("\t", ",", ";") if lines and one in lines[0][1]), "\t")
    pairs, header, place = [], [], (0, 0)
    for number, line in lines:
        try:
            cells = [cell.strip() for cell in next(csv.reader([line], delimiter=mark, strict=True))]
        except csv.Error as error:
            raise InputError(f"{path}: line {number} cannot be read ({error}); mend it") from error
        if not header:
            header = [cell.lower() for cell in cells]
            columns = [name for name in _NUMBER_COLUMNS if name in header]
            if not columns or header.count("name") != 1 or header.count(columns[0]) != 1:
                raise InputError(
                    f"{path}: columns label (or index) and name are due once each (names of "
                    f"regions; found {', '.join(cells)[:200]})"
                )
            place = header.index(columns[0]), header.index("name")
            continue
        if len(cells) != len(header):
            raise InputError(
                f"{path}: line {number} has {len(cells)} columns, the header {len(header)}; "
                "mend the line"
            )
        pairs.append((number, cells[place[0]], cells[place[1]]))
    return pairs
