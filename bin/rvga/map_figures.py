"""Pictures of maps in the geometry that the images came in: volumes, surfaces, profiles, tables.

A canvas is a list of panels, one for each part of the image (a feature, a hemisphere, a
structure). Volumes are cut into slices, surfaces are seen from two sides, everything else is
drawn over its coordinates or its columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rvga import figures
from rvga.figures import BLUE, GREY, ORANGE, Picture, Space
from rvga.geometry import Geometry

MOST_PANELS = 12
_MOST_NAMES = 40
_EMPTY = (0.86, 0.86, 0.86)
_WIDTH = 10.0
_MANY_TRIANGLES = 60_000  # a hemisphere of 30,000 vertices; more are drawn as dots
_DOTS_HIGH = 260
_MOST_STEPS = 12
_TRIANGLES_AT_ONCE = 20_000


@dataclass(frozen=True)
class Panel:
    """A part of an image and how it is drawn.

    Attributes
    ----------
    name : str
        Name of the part; empty where there is one.
    kind : str
        ``volume``, ``surface``, ``points`` or ``line``.
    rows : (k,)
        Voxels of the part.
    space : Space or None
        Of a volume.
    coordinates : (k, d) or None
        Of points and lines.
    vertices, triangles, vertex : arrays or None
        Of a surface: (v, 3) coordinates, (f, 3) corners, (k,) vertex of each voxel.
    labels : sequence of str
        Names of the columns of a table.
    """

    name: str
    kind: str
    rows: np.ndarray
    space: Space | None = None
    coordinates: np.ndarray | None = None
    vertices: np.ndarray | None = None
    triangles: np.ndarray | None = None
    vertex: np.ndarray | None = None
    labels: Sequence[str] = ()


@dataclass(frozen=True)
class Canvas:
    """What maps are drawn on: panels, and what stands behind volumes."""

    panels: Sequence[Panel]
    background_name: str = ""

    @property
    def left_out(self) -> int:
        """Number of parts beyond those that are drawn."""
        return max(0, len(self.panels) - MOST_PANELS)


def canvas_of(geometry: Geometry, mean: np.ndarray | None) -> Canvas:
    """Return the panels of a geometry; ``mean`` (N,) may stand behind volumes."""
    panels = []
    layouts = geometry.map_layouts
    layout_of_voxel = geometry.layout_of_voxel
    background = ""
    for number, name in enumerate(geometry.part_names):
        rows = np.flatnonzero(geometry.part == number)
        if not len(rows):
            continue
        layout = layouts[layout_of_voxel[rows[0]]]
        vertex = None if geometry.vertex is None else geometry.vertex[rows]
        if layout.type == "nifti":
            index = np.column_stack(np.unravel_index(geometry.map_positions()[rows], layout.shape))
            here = None if mean is None else mean[rows]
            space = figures.space_of(np.asarray(layout.affine), tuple(layout.shape), index, here)
            background = background or space.background_name
            panels.append(Panel(name, "volume", rows, space))
        elif (
            vertex is not None
            and geometry.triangles is not None
            and len(geometry.triangles)
            and (vertex >= 0).all()
        ):
            panels.append(_surface(name, rows, vertex, geometry))
        else:
            panels.append(_points(name, rows, geometry, layout.smoothable))
    return Canvas(panels, background)


def _surface(name: str, rows: np.ndarray, vertex: np.ndarray, geometry: Geometry) -> Panel:
    """Return a panel of the surface that the vertices are on, cut out of all surfaces."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    triangles, total = geometry.triangles, len(geometry.vertices)
    ends = (triangles[:, [0, 1]], triangles[:, [1, 2]])
    one, other = np.concatenate(ends).T
    graph = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(total, total))
    _, piece = connected_components(graph, directed=False)
    used = np.isin(piece, np.unique(piece[vertex]))
    number = np.cumsum(used) - 1
    return Panel(
        name,
        "surface",
        rows,
        vertices=geometry.vertices[used],
        triangles=number[triangles[used[triangles[:, 0]]]],
        vertex=number[vertex],
    )


def _points(name: str, rows: np.ndarray, geometry: Geometry, smoothable: bool) -> Panel:
    """Return a panel of voxels by their coordinates, or by their columns."""
    labels = () if geometry.name is None else [str(value) for value in geometry.name[rows]]
    coordinates = geometry.coordinates[rows].astype(float)
    if smoothable and coordinates.shape[1] > 1:
        return Panel(name, "points", rows, coordinates=coordinates, labels=labels)
    if not smoothable or coordinates.shape[1] != 1:
        coordinates = np.arange(len(rows), dtype=float)[:, None]
    elif len(np.unique(coordinates)) > 1:
        labels = ()
    return Panel(name, "line", rows, coordinates=coordinates, labels=labels)


def overview(
    values: np.ndarray,
    canvas: Canvas | Space,
    bar_label: str,
    *,
    diverging: bool = False,
    slices: int = 7,
) -> Picture:
    """Draw a map (N,) on all panels; missing values, and exact zeros, are left empty.

    ``slices`` are those of an image that is one volume.
    """
    one = not isinstance(canvas, Space) and len(canvas.panels) == 1
    if isinstance(canvas, Space) or (one and canvas.panels[0].kind == "volume"):
        space = canvas if isinstance(canvas, Space) else canvas.panels[0].space
        return figures.brain_slices(values, space, bar_label, diverging=diverging, number=slices)
    return _draw(values, canvas.panels[:MOST_PANELS], bar_label, diverging, None)


def around(
    values: np.ndarray,
    canvas: Canvas | Space,
    bar_label: str,
    voxel: int,
    *,
    diverging: bool = True,
) -> Picture:
    """Draw a map (N,) with one voxel marked: three planes of a volume, else its part."""
    if isinstance(canvas, Space):
        return figures.brain_planes(
            values, canvas, bar_label, canvas.coordinates[voxel], diverging=diverging
        )
    panel = next(panel for panel in canvas.panels if voxel in panel.rows)
    inside = int(np.searchsorted(panel.rows, voxel))
    if panel.kind == "volume":
        at = panel.space.coordinates[inside]
        return figures.brain_planes(
            values[panel.rows], panel.space, bar_label, at, diverging=diverging
        )
    return _draw(values, [panel], bar_label, diverging, inside)


@figures.styled
def _draw(
    values: np.ndarray,
    panels: Sequence[Panel],
    bar_label: str,
    diverging: bool,
    marked: int | None,
) -> Picture:
    """Draw the panels one below the other, or two surfaces side by side, on one colour scale."""
    width = _WIDTH if marked is None else 6.0
    shown = np.concatenate([values[panel.rows] for panel in panels])
    limits = figures.limits(shown, diverging)
    colours = matplotlib.colormaps["RdBu_r" if diverging else "viridis"]
    scale = ScalarMappable(Normalize(*limits), colours)
    # Surfaces take half a row where there are several.
    places, rows = [], 0
    for panel in panels:
        half = panel.kind == "surface" and marked is None and len(panels) > 1
        if half and places and places[-1][2] and places[-1][1] == 0:
            places.append((rows - 1, 1, True))
        else:
            places.append((rows, 0, half))
            rows += 1
    height = [0.0] * rows
    for panel, (row, _, _) in zip(panels, places, strict=True):
        own = {"line": 2.0 + _below(panel), "points": 2.8}.get(panel.kind, 2.3)
        height[row] = max(height[row], own)
    figure = Figure(figsize=(width, sum(height)))
    bar_left = 1 - 0.8 / width
    bottom = 1.0
    for row in range(rows):
        share = height[row] / sum(height)
        bottom -= share
        for panel, (of_row, column, half) in zip(panels, places, strict=True):
            if of_row == row:
                span = (bar_left - 0.015) / (2 if half else 1)
                box = (column * span, bottom, span, share)
                _panel(figure, box, panel, values[panel.rows], scale, bar_label, diverging, marked)
    if any(panel.kind != "line" for panel in panels):
        tall = min(0.68, 1.6 / sum(height))
        axes = figure.add_axes((bar_left, 0.5 - tall / 2, 0.018, tall))
        bar = figure.colorbar(scale, cax=axes)
        bar.set_label(bar_label)
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(5)
        bar.update_ticks()
    return figures.encode(figure, f"Map: {bar_label}", raster=True)


def _tilted(panel: Panel) -> bool:
    """Tell whether the names of a table's columns need slanting."""
    return sum(map(len, panel.labels)) > 90


def _below(panel: Panel) -> float:
    """Return the room for what stands below a line, in inches."""
    named = 0 < len(panel.labels) <= _MOST_NAMES
    return 1.05 if named and _tilted(panel) else 0.5


def _panel(
    figure: Figure,
    box: tuple[float, float, float, float],
    panel: Panel,
    values: np.ndarray,
    scale: ScalarMappable,
    bar_label: str,
    diverging: bool,
    marked: int | None,
) -> None:
    """Draw a panel inside a box (left, bottom, width, height) of the figure."""
    left, bottom, width, height = box
    inches = figure.get_size_inches()
    title = 0.24 / inches[1] if panel.name else 0.0
    if panel.name:
        figure.text(
            left + width / 2, bottom + height - 0.04 / inches[1], panel.name,
            ha="center", va="top", fontsize=9, color=GREY, parse_math=False,
        )  # fmt: skip
    inner = (left, bottom, width, height - title)
    if panel.kind == "volume":
        figures.draw_brain(
            figure, values, panel.space, diverging, scale.get_clim(), inner,
            display_mode="z", cut_coords=figures.cuts(panel.space.coordinates, 2, 7),
        )  # fmt: skip
    elif panel.kind == "surface":
        for side, azimuth in enumerate((-1.0, 1.0)):
            axes = figure.add_axes((left + side * width / 2, bottom, width / 2, height - title))
            _draw_surface(axes, panel, values, scale, azimuth, marked)
    elif panel.kind == "points":
        _draw_points(figure, inner, panel, values, scale, marked)
    else:
        margin = (0.9 / inches[0], _below(panel) / inches[1])
        axes = figure.add_axes(
            (left + margin[0], bottom + margin[1], width - 1.2 * margin[0],
             height - title - margin[1] - 0.1 / inches[1])
        )  # fmt: skip
        _draw_line(axes, panel, values, bar_label, diverging, marked)


def _draw_surface(
    axes: Axes,
    panel: Panel,
    values: np.ndarray,
    scale: ScalarMappable,
    side: float,
    marked: int | None,
) -> None:
    """Draw a surface seen along x from one side, the nearest triangles last, lit from there."""
    vertices, triangles = panel.vertices, panel.triangles
    full = np.full(len(vertices), np.nan)
    full[panel.vertex] = values
    corners = vertices[triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1)
    light = 0.45 + 0.55 * np.abs(normal[:, 0]) / np.where(length > 0, length, 1.0)
    of_corners = full[triangles]
    known = np.isfinite(of_corners) & (of_corners != 0.0)
    mean = np.where(known, of_corners, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    colour = scale.to_rgba(mean)[:, :3]
    colour[known.sum(axis=1) < 2] = _EMPTY
    order = np.argsort(side * corners[:, :, 0].mean(axis=1), kind="stable")
    flat = np.stack([side * corners[:, :, 1], corners[:, :, 2]], axis=2)
    shaded = np.clip(colour * light[:, None], 0.0, 1.0)[order]
    if len(triangles) > _MANY_TRIANGLES:
        _dots(axes, flat[order], shaded)
    else:
        axes.add_collection(
            PolyCollection(flat[order], facecolors=shaded, edgecolors=shaded, linewidths=0.3)
        )
    if marked is not None:
        x, y, z = vertices[panel.vertex[marked]]
        if side * (x - np.median(vertices[:, 0])) > 0:  # else it is on the other side
            axes.plot(side * y, z, "o", ms=9, mfc="none", mew=1.6, color="black", zorder=3)
    axes.set_aspect("equal")
    axes.axis("off")
    ends = flat.min(axis=(0, 1)), flat.max(axis=(0, 1))
    margin = 0.03 * (ends[1] - ends[0])
    axes.set_xlim(ends[0][0] - margin[0], ends[1][0] + margin[0])
    axes.set_ylim(ends[0][1] - margin[1], ends[1][1] + margin[1])


def _dots(axes: Axes, corners: np.ndarray, colour: np.ndarray) -> None:
    """Draw small triangles (f, 3, 2), far ones first, as dots of a picture, later over earlier.

    Each is covered by points no more than a dot apart.
    """
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    scale = _DOTS_HIGH / max(float((high - low)[1]), 1e-9)
    size = np.maximum(np.ceil(scale * (high - low)).astype(np.int64), 1) + 1
    picture = np.ones((size[1], size[0], 3))
    edge = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    steps = int(np.clip(np.ceil(scale * np.quantile(edge, 0.999)) + 1, 2, _MOST_STEPS))
    weights = np.array(
        [(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]
    )
    # By triangle, so that a nearer one covers all dots of those behind it.
    for first in range(0, len(corners), _TRIANGLES_AT_ONCE):
        some = corners[first : first + _TRIANGLES_AT_ONCE]
        places = np.einsum("pk,fkx->fpx", weights / steps, some)
        cell = np.rint((places - low) / (high - low) * (size - 1)).astype(np.int64)
        picture[cell[:, :, 1].ravel(), cell[:, :, 0].ravel()] = np.repeat(
            colour[first : first + _TRIANGLES_AT_ONCE], len(weights), axis=0
        )
    axes.imshow(
        picture,
        origin="lower",
        extent=(low[0], high[0], low[1], high[1]),
        interpolation="antialiased",
    )


def _draw_points(
    figure: Figure,
    box: tuple[float, float, float, float],
    panel: Panel,
    values: np.ndarray,
    scale: ScalarMappable,
    marked: int | None,
) -> None:
    """Draw points over each pair of their coordinates, the largest sizes on top."""
    left, bottom, width, height = box
    place = panel.coordinates
    pairs = [(0, 1)] if place.shape[1] == 2 else [(1, 2), (0, 2), (0, 1)]
    order = np.argsort(np.nan_to_num(np.abs(values), nan=-1.0), kind="stable")
    colour = scale.to_rgba(np.nan_to_num(values))
    colour[~np.isfinite(values), :3] = _EMPTY
    inches = figure.get_size_inches()
    margin = (0.65 / inches[0], 0.5 / inches[1])
    size = float(np.clip(9000.0 / max(len(values), 1), 2.0, 40.0))
    for number, (x, y) in enumerate(pairs):
        axes = figure.add_axes(
            (
                left + number * width / len(pairs) + margin[0],
                bottom + margin[1],
                width / len(pairs) - 1.3 * margin[0],
                height - 1.3 * margin[1],
            )
        )
        axes.scatter(place[order, x], place[order, y], s=size, c=colour[order], lw=0)
        if marked is not None:
            axes.plot(place[marked, x], place[marked, y], "o", ms=9, mfc="none", mew=1.6, c="black")
        axes.set_aspect("equal", adjustable="box")
        axes.set_xlabel(f"{'xyz'[x]} (mm)", labelpad=1)
        axes.set_ylabel(f"{'xyz'[y]} (mm)", labelpad=1)
        axes.tick_params(labelsize=7)


def _draw_line(
    axes: Axes,
    panel: Panel,
    values: np.ndarray,
    bar_label: str,
    diverging: bool,
    marked: int | None,
) -> None:
    """Draw values over their one coordinate, or over the columns of a table."""
    place = panel.coordinates[:, 0]
    named = bool(panel.labels)
    if diverging:
        axes.axhline(0.0, color=GREY, lw=0.8)
    if named:
        axes.plot(place, values, "o", ms=4, color=BLUE)
        axes.vlines(place, 0.0, values, color=BLUE, lw=1)
    else:
        order = np.argsort(place, kind="stable")
        axes.plot(place[order], values[order], "-", lw=1.4, color=BLUE)
    if marked is not None:
        axes.plot(place[marked], values[marked], "o", ms=9, mfc="none", mew=1.8, color=ORANGE)
    axes.set_ylabel(bar_label)
    if not diverging and np.nanmin(values, initial=0.0) >= 0:
        axes.set_ylim(bottom=0.0)
    if named and len(place) <= _MOST_NAMES:
        names = [name if len(name) <= 18 else f"{name[:17]}…" for name in panel.labels]
        tilt: dict[str, Any] = {}
        if _tilted(panel):
            tilt = {"rotation": 40, "ha": "right", "rotation_mode": "anchor", "fontsize": 7.5}
        axes.set_xticks(place, names, parse_math=False, **tilt)
    else:
        axes.set_xlabel("column of the table" if named else "coordinate")
