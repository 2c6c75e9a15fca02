"""Regions of an image: a label image of the images' kind, or a table that names voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rvga.errors import InputError
from rvga.geometry import Geometry
from rvga.image_parts import map_values

_HEAD_BYTES = 4096


def read_regions(path: Path, geometry: Geometry) -> tuple[np.ndarray, list[str]]:
    """Return each voxel's region and the regions' names, in the order of their labels.

    Parameters
    ----------
    path : Path
        An image of whole numbers, of the kind and grid of the study's images (its first map, for
        every map of theirs), 0 being no region; or, for images of every kind and of several
        parts, a table with the columns ``voxel`` (the number from 0 that ``heritability.tsv``
        gives it, or the column's name where the images are a table) and ``region`` (a name;
        empty, NA or 0 is none). Voxels that a table does not list are in no region.
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
    lines = _table_lines(path)
    if lines is not None:
        return _from_table(path, lines, geometry)
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
    if not np.any(labels):
        raise InputError(f"{path}: has no label other than 0 at any of the study's voxels")
    return labels.astype(np.int64)


def _table_lines(path: Path) -> list[list[str]] | None:
    """Return the cells of a table of regions, None for a file of another kind."""
    with path.open("rb") as handle:
        head = handle.read(_HEAD_BYTES)
    first = head.split(b"\n", 1)[0].decode("utf-8-sig", errors="replace")
    if b"\0" in head or not {"voxel", "region"} <= set(_cells(first)):
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8 ({error}); save it as such") from error
    return [_cells(line) for line in text.splitlines()]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.replace(",", "\t").split("\t")]


def _from_table(
    path: Path, lines: list[list[str]], geometry: Geometry
) -> tuple[np.ndarray, list[str]]:
    at_voxel, at_region = lines[0].index("voxel"), lines[0].index("region")
    N, named = geometry.n_voxels, geometry.type == "table"
    place = {str(name): k for k, name in enumerate(geometry.name)} if named else {}
    region: dict[int, str] = {}
    for number, cells in enumerate(lines[1:], start=2):
        if cells == [""]:
            continue
        if len(cells) != len(lines[0]):
            raise InputError(
                f"{path}: line {number} has {len(cells)} columns, the header {len(lines[0])}; "
                "mend the line"
            )
        word = cells[at_voxel]
        if named:
            voxel = place.get(word)
        else:
            voxel = int(word) if word.isdecimal() and int(word) < N else None
        if voxel is None:
            known = "a column of the images" if named else f"a number from 0 to {N - 1}"
            raise InputError(f"{path}: line {number}: voxel '{word}' is not {known}; mend the line")
        if voxel in region:
            raise InputError(f"{path}: line {number}: voxel '{word}' is listed twice; list it once")
        region[voxel] = cells[at_region]
    names = sorted(set(region.values()) - {"", "NA", "0"})
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    if not names:
        raise InputError(f"{path}: names no region for any voxel")
    label = np.zeros(N, dtype=np.int64)
    for voxel, name in region.items():
        label[voxel] = names.index(name) + 1 if name in names else 0
    return label, names
