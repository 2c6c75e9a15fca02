"""Which voxel of one set of images is which of another: for bases used in another cohort."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np

from rvga.errors import InputError
from rvga.geometry import Geometry, Layout

# Two grids are one when no corner differs by more than this.
AFFINE_TOLERANCE_MM = 1e-3


def columns_of(wanted: Geometry, available: Geometry, wanted_name: str) -> np.ndarray:
    """Return the column of each wanted voxel among available ones, (N,), -1 where absent.

    Voxels are the same when they are the same cell of one grid, vertex of one surface,
    grayordinate of one CIFTI layout or column (by name) of a table.

    Parameters
    ----------
    wanted, available : Geometry
        Of the bases, and of the images.
    wanted_name : str
        Name of the file of bases, for messages.

    Raises
    ------
    InputError
        The images are of another kind, on another grid or on another surface.
    """
    ours, theirs = wanted.map_layouts, available.map_layouts
    if len(ours) != len(theirs):
        raise InputError(
            f"{wanted_name}: was made from images of {len(ours)} parts, but these have "
            f"{len(theirs)}; give the same features and hemispheres in the same order"
        )
    keys = []
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        difference = _difference(one, other)
        if difference:
            part = f" (part {number + 1})" if len(ours) > 1 else ""
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
        keys.append(list(zip(geometry.layout_of_voxel.tolist(), place.tolist(), strict=True)))
    column = {key: number for number, key in enumerate(keys[1])}
    return np.array([column.get(key, -1) for key in keys[0]], dtype=np.int64)


def _difference(one: Layout, other: Layout) -> str:
    """Return how the images that two layouts describe differ, or the empty string."""
    if one.type != other.type:
        return f"one is of type {one.type}, the other of type {other.type}"
    if one.type == "nifti":
        if list(one.shape) != list(other.shape):
            return f"grids of {_by(one.shape)} and {_by(other.shape)} voxels"
        apart = _corners_apart(np.asarray(one.affine), np.asarray(other.affine), one.shape)
        if apart > AFFINE_TOLERANCE_MM:
            return (
                f"the corners of their grids are up to {apart:.4g} mm apart "
                f"({AFFINE_TOLERANCE_MM:g} mm are allowed)"
            )
    elif one.type == "surface" and one.n_vertices != other.n_vertices:
        return f"surfaces of {one.n_vertices} and {other.n_vertices} vertices"
    elif one.type == "cifti":
        if len(one.maps) != len(other.maps):
            return f"{len(one.maps)} and {len(other.maps)} maps"
        # Names of maps may differ; the brain models decide what a place is.
        plain = [asdict(replace(layout, maps=[]))["models"] for layout in (one, other)]
        if plain[0] != plain[1]:
            return "their brain models differ"
    return ""


def _corners_apart(affine: np.ndarray, other: np.ndarray, shape) -> float:
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape], indexing="ij"))
    corners = np.vstack([corners.reshape(3, -1), np.ones(8)])
    return float(np.linalg.norm(((affine - other) @ corners)[:3], axis=0).max())


def _by(shape) -> str:
    return " x ".join(str(size) for size in shape)
