"""Regions of an image: labels of the images' kind, by part, or a table that names voxels."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from rvga.covariates import MISSING
from rvga.errors import InputError
from rvga.geometry import Geometry
from rvga.image_files import content_of, head_of, kind_of
from rvga.image_parts import map_values
from rvga.label_files import WHAT, Labels, is_unlabelled, read_label_file, read_names

SHEET_COLUMNS = ("part", "labels", "names")
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
        One of, plain or compressed by gzip where it is text:

        - labels of the kind and grid of the study's images (:func:`read_label_file`; for a table
          of images, columns ``voxel`` and ``value``), 0 being no region. Names are those of the
          file's table of labels, else the numbers; labels of one name are one region, and names
          as ``unknown`` or ``???`` no region;
        - a sheet with columns ``part``, ``labels`` and ``names``: for each part of the images such
          a file, and, where it has no names, a table of them (:func:`read_names`). Files are named
          from the sheet's folder, or stand in it. ``part`` may be left out for images of one part,
          and ``names`` always. The part's name goes before the regions' where there are several;
        - for images of every kind, a table with the columns ``voxel`` (the number from 0 that
          ``heritability.tsv`` gives it, or the column's name where the images are a table) and
          ``region`` (a name, or whole numbers throughout; 0, empty, NA, nan or None is none).
          Voxels that it does not list are in no region.

        Columns are parted by one of tab, comma and semicolon, or by white space.
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
        voxel or a part that there is not.
    """
    path = Path(path)
    line, header, rows = _text_table(path)
    if {"voxel", "region"} <= set(header):
        return _from_table(path, rows(), geometry)
    if "labels" in header and "voxel" not in header:
        return _from_sheet(path, rows(), geometry)
    # Values and labels of vertices are text too, and so is a table of labels as images.
    if "region" in (name.lower() for name in header) or (header and not geometry.layouts):
        raise InputError(
            f"{path}: is text, but neither a table with the columns 'voxel' and 'region' nor a "
            f"sheet with the columns 'part' and 'labels'; line 1 is '{_short(line)}'"
        )
    if len(geometry.map_layouts) > 1:
        raise InputError(
            f"{path}: is one file of labels, but the study's images are of several parts "
            f"({_listed(geometry)}); give a sheet with the columns 'part' and 'labels', a file for "
            "each"
        )
    return _in_one_part(path, None, geometry)


def read_labels(path: Path, geometry: Geometry) -> np.ndarray:
    """Return the labels of :func:`read_regions`, (N,)."""
    return read_regions(path, geometry)[0]


# -------------------------------------------------------------------------------------------
# Labels
# -------------------------------------------------------------------------------------------


def _in_one_part(
    path: Path, names_path: Path | None, geometry: Geometry, part: str = "the study's images"
) -> tuple[np.ndarray, list[str]]:
    """Return regions of images of one part from a file of labels."""
    layout = geometry.map_layouts[0]
    if layout.type == "table":
        labels = Labels(map_values(path, geometry, WHAT), None)
    else:
        labels = read_label_file(path, layout, geometry.map_positions(), part)
    key = _whole_numbers(labels.values, path)
    there = np.isfinite(labels.values) & ((key != 0) | (not labels.zero_is_none))
    names, source = labels.names, f"{path}: its table of labels"
    if names_path is not None:
        names, source = read_names(names_path), str(names_path)
    # Labels of one name are one region, which has the first one's number.
    number_of: dict[str, int] = {}
    label = np.zeros(len(key), dtype=np.int64)
    for one in np.unique(key[there]).tolist():
        here = there & (key == one)
        if names is not None and one not in names:
            raise InputError(
                f"{source} has no name for label {one} ({int(here.sum())} voxels of {path.name}); "
                "give each label a name"
            )
        name = str(one) if names is None else names[one]
        if names is not None and is_unlabelled(name):
            continue
        if not name.isprintable():
            raise InputError(f"{source}: the name of label {one} cannot be shown; rename it")
        # 0 stands for no region, and a row of an annotation's table may be the first.
        label[here] = number_of.setdefault(name, one if labels.zero_is_none else one + 1)
    if not number_of:
        what = "no label other than 0" if names is None else "no label that names a region"
        raise InputError(f"{path}: has {what} at any voxel of {part}")
    return label, sorted(number_of, key=number_of.__getitem__)


def _whole_numbers(values: np.ndarray, path: Path) -> np.ndarray:
    values = np.where(np.isfinite(values), values, 0.0)
    if np.any(values != np.round(values)):
        raise InputError(f"{path}: holds values that are not whole numbers; give labels")
    if np.any(np.abs(values) >= _LARGEST):
        raise InputError(f"{path}: holds labels of 2^53 or more; give smaller whole numbers")
    return values.astype(np.int64)


def _from_sheet(
    path: Path, rows: list[tuple[int, list[str]]], geometry: Geometry
) -> tuple[np.ndarray, list[str]]:
    """Return regions from files of labels for each part."""
    layouts = geometry.map_layouts
    several = len(layouts) > 1
    given: dict[str, tuple[Path, Path | None]] = {}
    header = rows[0][1]
    unknown = sorted(set(header) - set(SHEET_COLUMNS))
    if unknown:
        raise InputError(
            f"{path}: line 1: column '{_short(unknown[0])}' is unknown; use "
            f"{', '.join(SHEET_COLUMNS)}"
        )
    if several and "part" not in header:
        raise InputError(
            f"{path}: column 'part' is missing; the study's images are of the parts "
            f"{_listed(geometry)}"
        )
    known = [layout.name for layout in layouts]
    for number, cells in rows[1:]:
        if not any(cells):
            continue
        _require_cells(path, number, cells, header)
        row = dict(zip(header, cells, strict=True))
        # The only part may go without a name.
        part = row.get("part", "") or ("" if several else known[0])
        if part not in known:
            raise InputError(
                f"{path}: line {number}: part '{_short(part)}' is none of the study's images "
                f"({_listed(geometry)})"
            )
        if part in given:
            raise InputError(
                f"{path}: line {number}: part '{part}' is listed twice; list it once"
                if several
                else f"{path}: line {number}: the study's images are of one part; give one line"
            )
        names = row.get("names", "")
        given[part] = (
            _named_file(path, number, row["labels"]),
            _named_file(path, number, names) if names else None,
        )
    absent = next((name for name in known if name not in given), None)
    if absent is not None:
        what = f"part '{absent}' of the study's images" if several else "the study's images"
        raise InputError(f"{path}: names no labels for {what}; add a line")
    if not several:
        return _in_one_part(*given[known[0]], geometry)
    label, names = np.zeros(geometry.n_voxels, dtype=np.int64), []
    of_voxel = geometry.layout_of_voxel
    for k, layout in enumerate(layouts):
        here = np.flatnonzero(of_voxel == k)
        alone = replace(geometry.subset(here), type=layout.type, layouts=(layout,))
        own, own_names = _in_one_part(*given[layout.name], alone, f"part '{layout.name}'")
        used = np.unique(own[own != 0])
        label[here] = np.where(own == 0, 0, len(names) + 1 + np.searchsorted(used, own))
        names += [f"{layout.name} {name}" for name in own_names]
    return label, names


def _named_file(sheet: Path, number: int, name: str) -> Path:
    """Return a file that a sheet names, from its folder or in it."""
    if not name:
        raise InputError(f"{sheet}: line {number}: labels is empty; name the file")
    for path in (sheet.parent / name, sheet.parent / Path(name).name):
        if path.is_file():
            return path
    raise InputError(f"{sheet}: line {number}: {_short(name)}: no such file")


def _listed(geometry: Geometry) -> str:
    return ", ".join(layout.name or "(no name)" for layout in geometry.map_layouts)


# -------------------------------------------------------------------------------------------
# Tables
# -------------------------------------------------------------------------------------------


def _text_table(path: Path) -> tuple[str, list[str], Callable[[], list[tuple[int, list[str]]]]]:
    """Return the first line of a text, its cells, and what reads all; nothing of another file.

    Raises
    ------
    InputError
        The text cannot be read, or is in UTF-16.
    """
    head = head_of(path, WHAT)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{path}: is text in UTF-16; save it as text in UTF-8")
    if b"\0" in head or kind_of(head) not in ("text", ""):
        return "", [], list
    line = (head.decode("utf-8-sig", errors="replace").splitlines() or [""])[0]
    delimiter = _delimiter(line)
    header = _cells(line, delimiter)

    def rows() -> list[tuple[int, list[str]]]:
        for name in (*SHEET_COLUMNS, "voxel", "region"):
            if header.count(name) > 1:
                raise InputError(f"{path}: column '{name}' is there twice; keep one of them")
        try:
            text = content_of(path, WHAT).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: is not text in UTF-8 ({error}); save it as such") from error
        lines = io.StringIO(text, newline="")
        if delimiter is None:
            return [(number, one.split()) for number, one in enumerate(lines, start=1)]
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            return [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
        except csv.Error as error:
            raise InputError(
                f"{path}: line {reader.line_num} cannot be read ({error}); mend its quotes"
            ) from error

    return line, header, rows


def _delimiter(header: str) -> str | None:
    """Return what parts the columns, as in the table of covariates; None is white space."""
    return next((mark for mark in ("\t", ",", ";") if mark in header), None)


def _cells(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]


def _require_cells(path: Path, number: int, cells: list[str], header: list[str]) -> None:
    if len(cells) != len(header):
        raise InputError(
            f"{path}: line {number} has {len(cells)} columns, the header {len(header)}; "
            "mend the line"
        )


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
        _require_cells(path, number, cells, header)
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
