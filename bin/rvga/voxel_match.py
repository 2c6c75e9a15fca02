"""Which voxel of one set of images is which of another: for bases used in another cohort."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from rvga.errors import InputError
from rvga.geometry import (
    AFFINE_TOLERANCE_MM,
    Geometry,
    Layout,
    grid_distance,
    in_another_order,
    len_of_runs,
)
from rvga.image_files import by

_NUMBERED_MAP = re.compile(r"map[0-9]*")


def columns_of(wanted: Geometry, available: Geometry, wanted_name: str) -> np.ndarray:
    """Return the column of each wanted voxel among available ones, (N,), -1 where absent.

    Voxels are the same when they are the same cell of one grid, vertex of one surface,
    grayordinate of one CIFTI layout or column (by name) of a table. Parts go by their names,
    in whichever order they are given.

    Parameters
    ----------
    wanted, available : Geometry
        Of the bases, and of the images.
    wanted_name : str
        Name of the file of bases, for messages.

    Raises
    ------
    InputError
        The images are of another kind, on another grid or surface, of another hemisphere, or
        of other parts.
    """
    ours, theirs = wanted.map_layouts, available.map_layouts
    if len(ours) != len(theirs):
        raise InputError(
            f"{wanted_name}: was made from images of {len(ours)} parts, but these have "
            f"{len(theirs)}; give the same features and hemispheres"
        )
    partner = _partners(ours, theirs, wanted_name)
    keys = []
    for number, one in enumerate(ours):
        difference = _difference(one, theirs[partner[number]])
        if difference:
            part = f" (part {one.name or number + 1})" if len(ours) > 1 else ""
            raise InputError(
                f"{wanted_name}: was made from other images than these{part}: {difference}; "
                "bring the images to the space of the bases"
            )
    for geometry in (wanted, available):
        place = geometry.map_positions().astype(object)
        if geometry.name is not None:
            of_table = np.array([layout.type == "table" for layout in geometry.map_layouts])
            named = of_table[geometry.layout_of_voxel]
            place[named] = geometry.name[named]
        layout = geometry.layout_of_voxel
        if geometry is wanted:
            layout = np.asarray(partner)[layout]
        keys.append(list(zip(layout.tolist(), place.tolist(), strict=True)))
    column = {key: number for number, key in enumerate(keys[1])}
    return np.array([column.get(key, -1) for key in keys[0]], dtype=np.int64)


def require_maps_in_order(
    wanted: Sequence[str], available: Sequence[str], wanted_name: str
) -> None:
    """Refuse images that have the maps of the bases in another order.

    Parameters
    ----------
    wanted, available : sequence of str
        By part, digests of the names of the maps (``map_order`` of the files of bases and
        images); those that are equal in any order are of the same maps.
    wanted_name : str
        Name of the file of bases, for messages.

    Raises
    ------
    InputError
        The names are the same, but not their order.
    """
    for theirs in available:
        if theirs not in wanted and any(in_another_order(theirs, ours) for ours in wanted):
            raise InputError(
                f"{wanted_name}: was made from images that have the same maps in another order "
                "than these; choose the maps by name with --cifti_maps, in the order in which the "
                "run that made the bases has them"
            )


def _partners(ours: Sequence[Layout], theirs: Sequence[Layout], wanted_name: str) -> list[int]:
    """Return which of the images' parts each part of the bases is, by name."""
    names = [layout.name for layout in theirs]
    wanted = [layout.name for layout in ours]
    # One part may go without a name.
    if wanted == names or (len(ours) == 1 and not (wanted[0] and names[0])):
        return list(range(len(ours)))
    if sorted(wanted) != sorted(names) or len(set(names)) < len(names):
        raise InputError(
            f"{wanted_name}: was made from the parts {_listed(wanted)}, but these images have "
            f"{_listed(names)}; give the same features and hemispheres under the same names"
        )
    return [names.index(name) for name in wanted]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name or "(no name)" for name in names)


def _difference(one: Layout, other: Layout) -> str:
    """Return how the images that two layouts describe differ, or the empty string."""
    if one.type != other.type:
        return f"one is of type {one.type}, the other of type {other.type}"
    if one.type == "nifti":
        if list(one.shape) != list(other.shape):
            return f"grids of {by(one.shape)} and {by(other.shape)} voxels"
        apart = grid_distance(np.asarray(one.affine), np.asarray(other.affine), one.shape)
        if apart > AFFINE_TOLERANCE_MM:
            return (
                f"the corners of their grids are up to {apart:.4g} mm apart "
                f"({AFFINE_TOLERANCE_MM:g} mm are allowed)"
            )
    elif one.type == "surface":
        if one.n_vertices != other.n_vertices:
            return f"surfaces of {one.n_vertices} and {other.n_vertices} vertices"
        if one.structure and other.structure and one.structure != other.structure:
            return f"surfaces of {one.structure} and {other.structure}"
    elif one.type == "cifti":
        if len(one.maps) != len(other.maps):
            return f"{len(one.maps)} and {len(other.maps)} maps"
        # One map chosen by its number, or the only one, says nothing of what it is.
        unnamed = len(one.maps) == 1 and any(
            _NUMBERED_MAP.fullmatch(layout.maps[0]) for layout in (one, other)
        )
        if list(one.maps) != list(other.maps) and not unnamed:
            return (
                f"the maps {', '.join(one.maps)} and {', '.join(other.maps)} (choose the same "
                "ones, in the same order, with --cifti_maps)"
            )
        difference = models_difference(one.models, other.models)
        if difference:
            return f"their brain models differ: {difference}"
    return ""


def models_difference(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> str:
    """Return how two lists of CIFTI brain models differ, or the empty string.

    Grids are one when no corner differs by more than
    :data:`~rvga.geometry.AFFINE_TOLERANCE_MM`.

    Parameters
    ----------
    ours, theirs : sequence of dict
        As :attr:`rvga.geometry.Layout.models`.
    """
    for one, other in zip(ours, theirs, strict=False):
        name = one["structure"]
        if name != other["structure"] or one["kind"] != other["kind"]:
            return (
                f"{name} ({one['kind']}) stands where {other['structure']} ({other['kind']}) does"
            )
        if list(one["size"]) != list(other["size"]):
            what = "vertices" if one["kind"] == "surface" else "voxels"
            return f"{name} is of {by(one['size'])} and of {by(other['size'])} {what}"
        if one["kind"] == "voxels":
            affines = np.asarray(one["affine"]), np.asarray(other["affine"])
            apart = grid_distance(*affines, one["size"])
            if not apart <= AFFINE_TOLERANCE_MM:
                return (
                    f"the corners of the grid of {name} are up to {apart:.4g} mm apart "
                    f"({AFFINE_TOLERANCE_MM:g} mm are allowed)"
                )
        counts = len_of_runs(one["runs"]), len_of_runs(other["runs"])
        if counts[0] != counts[1]:
            return f"{name} has {counts[0]} and {counts[1]} values"
        if [list(run) for run in one["runs"]] != [list(run) for run in other["runs"]]:
            return f"{name} has its {counts[0]} values at other places"
    return "" if len(ours) == len(theirs) else f"there are {len(ours)} and {len(theirs)}"
