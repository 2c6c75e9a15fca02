"""Regions of images that come without any: compact parcels of each part and feature."""

from __future__ import annotations

import numpy as np

from rvga.geometry import Geometry, len_of_runs
from rvga.heritability import default_parcels

# All parts together.
MOST_PARCELS = 24


def default_regions(geometry: Geometry) -> tuple[np.ndarray, list[str]]:
    """Return each voxel's parcel and the parcels' names, as :func:`rvga.regions.read_regions`.

    Up to 24 by the coordinates, shared out among the parts and the maps of CIFTI, since a mean over
    two features means nothing. The part's name goes before the parcel's where there are several.

    Parameters
    ----------
    geometry : Geometry

    Returns
    -------
    label : (N,) int64
        1 … k.
    names : list of str
    """
    group, group_names = _features(geometry)
    number = max(1, MOST_PARCELS // len(group_names))
    label, names = np.zeros(geometry.n_voxels, dtype=np.int64), []
    for k, name in enumerate(group_names):
        here = np.flatnonzero(group == k)
        own = default_parcels(geometry.coordinates[here], number)
        label[here] = len(names) + own
        names += [f"{name} parcel {one}".strip() for one in range(1, int(own.max()) + 1)]
    return label, names


def _features(geometry: Geometry) -> tuple[np.ndarray, list[str]]:
    """Return each voxel's part, or map of CIFTI, (N,), and their names; '' for a single one."""
    layouts, of_voxel = geometry.map_layouts, geometry.layout_of_voxel
    group, names = np.zeros(geometry.n_voxels, dtype=np.int64), []
    for k, layout in enumerate(layouts):
        here = of_voxel == k
        maps = layout.maps if layout.type == "cifti" else [""]
        size = sum(len_of_runs(model["runs"]) for model in layout.models) or 1
        of_map = geometry.map_positions()[here] // size if len(maps) > 1 else 0
        group[here] = len(names) + of_map
        names += [" ".join(word for word in (layout.name, one) if word) for one in maps]
    used, group = np.unique(group, return_inverse=True)
    return group, [names[k] for k in used] if len(used) > 1 else [""]
