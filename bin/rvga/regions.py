"""Regions of an image: a label image of the images' kind, or a table that names voxels."""

from __future__ import annotations

import codecs
import csv
import io
import re
from pathlib import Path

import numpy as np

from rvga.covariates import MISSING
from rvga.errors import InputError
from rvga.geometry import Geometry
from rvga.image_parts import map_values

_HEAD_BYTES = 1 << 16
# Words that are no region, in capitals or not.
_NO_REGION = (*MISSING, "none")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# Whole numbers below it are exact in double precision.
_LARGEST = 2**53
# Characters of a word that a message shows.
_SHOWN = 60


def read_regions(path: Path, geometry: Geometry) -> tuple[np.ndarray, list[str]]:
    """Return each voxel's region and the regions' names, in the order of their labels.

    Parameters
    ----------
    path : Path
        An image of whole numbers, of the kind and grid of the study's images (its first map, for
        every map of theirs), 0 being no region; or, for images of every kind and of several
        parts, a table with the columns ``voxel`` (the number from 0 that ``heritability.tsv``
        gives it, or the column's name where the images are a table) and ``region`` (a name, or
        whole numbers throughout; 0, empty, NA, nan or None is none), parted by one of tab, comma
        and semicolon, or by white space. Voxels that a table does not list are in no region.
    geometry : Geometry

    Returns
    -------
    label : (N,) int64
        0 is no region.
    names : list of str
        Of the labels above and below 0, ascending.

    Raises
    ------
    InputError
        It cannot be read, has another grid, holds values that are not whole numbers, or names a
        voxel that there is not.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file (regions)")
    rows = _table_rows(path, geometry)
    if rows is not None:
        return _from_table(path, rows, geometry)
    if geometry.layouts:
        label = _whole_labels(map_values(path, geometry, "regions"), path)
    else:
        label = _whole_labels(_volume(path, geometry), path)
    return label, [str(one) for one in np.unique(label[label != 0])]


def read_labels(path: Path, geometry: Geometry) -> np.ndarray:
    """Return the labels of :func:`read_regions`, (N,)."""
    return read_regions(path, geometry)[0]


def _volume(path: Path, geometry: Geometry) -> np.ndarray:
    import nibabel

    try:
        image = nibabel.load(path)
        values = np.asarray(image.dataobj)
    except Exception as error:
        # nibabel raises many kinds for damaged files.
        raise InputError(f"{path}: cannot be read as a NIfTI image ({error})") from error
    shape = tuple(int(size) for size in values.shape)
    if shape != geometry.shape:
        raise InputError(
            f"{path}: has shape {shape}, the study's images {geometry.shape}; resample the regions "
            "to the study's grid"
        )
    if not np.allclose(image.affine, geometry.affine, atol=1e-3):
        raise InputError(
            f"{path}: has another affine than the study's images; resample the regions to the "
            "study's grid"
        )
    return values[tuple(geometry.index.T)].astype(np.float64)


def _whole_labels(labels: np.ndarray, path: Path) -> np.ndarray:
    labels = np.where(np.isfinite(labels), labels, 0.0)
    if np.any(labels != np.round(labels)):
        raise InputError(f"{path}: holds values that are not whole numbers; give a label image")
    if np.any(np.abs(labels) >= _LARGEST):
        raise InputError(f"{path}: holds labels of 2^53 or more; give smaller whole numbers")
    if not np.any(labels):
        raise InputError(f"{path}: has no label other than 0 at any of the study's voxels")
    return labels.astype(np.int64)


def _table_rows(path: Path, geometry: Geometry) -> list[tuple[int, list[str]]] | None:
    """Return line numbers and cells of a table of regions, None for a file of another kind.

    Raises
    ------
    InputError
        It is text that cannot be read, or has no such columns where nothing but a table has text.
    """
    with path.open("rb") as handle:
        head = handle.read(_HEAD_BYTES)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{path}: is text in UTF-16; save it as text in UTF-8")
    if b"\0" in head or head.startswith(b"\x1f\x8b"):
        return None
    line = head.decode("utf-8-sig", errors="replace").splitlines()[:1]
    header = _cells(line[0], _delimiter(line[0])) if line else []
    if not {"voxel", "region"} <= set(header):
        # Values and labels of vertices are text too, and so is a table of labels as images.
        if "region" in (name.lower() for name in header) or (header and not geometry.layouts):
            raise InputError(
                f"{path}: is text, but not a table with the columns 'voxel' and 'region'; line 1 "
                f"is '{_short(line[0])}'"
            )
        return None
    for name in ("voxel", "region"):
        if header.count(name) > 1:
            raise InputError(f"{path}: column '{name}' is there twice; keep one of them")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8 ({error}); save it as such") from error
    delimiter, lines = _delimiter(line[0]), io.StringIO(text, newline="")
    if delimiter is None:
        return [(number, one.split()) for number, one in enumerate(lines, start=1)]
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        return [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise InputError(
            f"{path}: line {reader.line_num} cannot be read ({error}); mend its quotes"
        ) from error


def _delimiter(header: str) -> str | None:
    """Return what parts the columns, as in the table of covariates; None is white space."""
    return next((mark for mark in ("\t", ",", ";") if mark in header), None)


def _cells(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]


def _short(word: str) -> str:
    return word if len(word) <= _SHOWN else word[:_SHOWN] + "…"


def _from_table(
    path: Path, rows: list[tuple[int, list[str]]], geometry: Geometry
) -> tuple[np.ndarray, list[str]]:
    header = rows[0][1]
    at_voxel, at_region = header.index("voxel"), header.index("region")
    N, named = geometry.n_voxels, geometry.type == "table"
    place = {str(name): k for k, name in enumerate(geometry.name)} if named else {}
    region: dict[int, str] = {}
    for number, cells in rows[1:]:
        if not any(cells):
            continue
        if len(cells) != len(header):
            raise InputError(
                f"{path}: line {number} has {len(cells)} columns, the header {len(header)}; "
                "mend the line"
            )
        word = cells[at_voxel]
        if named:
            voxel = place.get(word)
        else:
            # The digits of other scripts are decimal too, and int() takes only so many of them.
            digits = word.isascii() and word.isdecimal() and len(word) <= len(str(_LARGEST))
            voxel = int(word) if digits and int(word) < N else None
        if voxel is None:
            known = "a column of the images" if named else f"a number from 0 to {N - 1}"
            raise InputError(
                f"{path}: line {number}: voxel '{_short(word)}' is not {known}; mend the line"
            )
        if voxel in region:
            raise InputError(f"{path}: line {number}: voxel '{word}' is listed twice; list it once")
        name = cells[at_region]
        if not name.isprintable():
            raise InputError(
                f"{path}: line {number}: the region's name holds a tab, a line break or another "
                "character that cannot be shown; mend the line"
            )
        region[voxel] = "" if name.lower() in _NO_REGION else name
    region, names = _numbered(region, path)
    if not names:
        raise InputError(f"{path}: names no region for any voxel")
    label_of = {name: k for k, name in enumerate(names, start=1)}
    label = np.zeros(N, dtype=np.int64)
    for voxel, name in region.items():
        label[voxel] = label_of.get(name, 0)
    return label, names


def _numbered(region: dict[int, str], path: Path) -> tuple[dict[int, str], list[str]]:
    """Return the regions, '' for none, and their names in order; numbers where all are.

    Raises
    ------
    InputError
        All are numbers, and one is not whole, or 2^53 or more.
    """
    names = set(region.values()) - {""}
    values = {name: float(name) for name in names if _NUMBER.fullmatch(name)}
    shown = {name: "" for name, value in values.items() if value == 0}
    if len(values) < len(names):
        region = {voxel: shown.get(name, name) for voxel, name in region.items()}
        return region, sorted(set(region.values()) - {""})
    for name, value in values.items():
        if abs(value) >= _LARGEST or value != int(value):
            raise InputError(
                f"{path}: region '{_short(name)}' is not a whole number below 2^53; "
                "regions are whole numbers or names"
            )
        shown[name] = str(int(value)) if value else ""
    region = {voxel: shown.get(name, "") for voxel, name in region.items()}
    return region, sorted(set(region.values()) - {""}, key=int)
