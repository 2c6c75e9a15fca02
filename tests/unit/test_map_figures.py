"""Pictures of maps in every geometry."""

from __future__ import annotations

import io

import matplotlib.image
import numpy as np
import pytest

from rvga import map_figures
from rvga.geometry import Geometry, Layout

SHAPE = (9, 10, 8)


def octahedron(level: int, centre: float) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices and triangles of a ball of radius 30 around (centre, 0, 0)."""
    corners = [tuple(sign * row) for row in np.eye(3) for sign in (1.0, -1.0)]
    faces = [(x, y, z) for x in (0, 1) for y in (2, 3) for z in (4, 5)]
    for _ in range(level):
        number = {corner: row for row, corner in enumerate(corners)}
        halves = []
        for face in faces:
            ends = [corners[k] for k in face]
            middle = []
            for one, other in ((0, 1), (1, 2), (2, 0)):
                point = tuple((np.array(ends[one]) + ends[other]) / 2)
                if point not in number:
                    number[point] = len(corners)
                    corners.append(point)
                middle.append(number[point])
            a, b, c = face
            x, y, z = middle
            halves += [(a, x, z), (b, y, x), (c, z, y), (x, y, z)]
        faces = halves
    vertices = np.array(corners)
    vertices *= 30.0 / np.linalg.norm(vertices, axis=1, keepdims=True)
    return vertices + [centre, 0.0, 0.0], np.array(faces, dtype=np.int32)


def hemispheres() -> Geometry:
    """Return two balls, of which the inner sides are not in the mask."""
    left, faces = octahedron(3, -40.0)
    right, _ = octahedron(3, 40.0)
    vertices = np.vstack([left, right])
    kept = np.flatnonzero(np.abs(vertices[:, 0]) > 35.0)
    part = (kept >= len(left)).astype(np.int16)
    layouts = tuple(
        Layout(name=name, type="surface", suffix=".func.gii", n_vertices=len(left))
        for name in ("left", "right")
    )
    return Geometry(
        None, None, None, "joined", layouts, part, kept - part * len(left), vertices[kept],
        kept.astype(np.int32), vertices, np.vstack([faces, faces + len(left)]),
    )  # fmt: skip


def table(coordinates: np.ndarray | None, n: int) -> Geometry:
    """Return the columns of a table, with or without coordinates."""
    layout = Layout(type="table", suffix=".map.tsv", smoothable=coordinates is not None)
    places = np.arange(n, dtype=float)[:, None] if coordinates is None else coordinates
    names = np.array([f"volume of structure {k}" for k in range(n)], dtype=object)
    return Geometry(
        None, None, None, "table", (layout,), None, np.arange(n), places, name=names
    )  # fmt: skip


def grid() -> Geometry:
    """Return a small block of voxels."""
    index = np.argwhere(np.ones(SHAPE)).astype(np.int32)
    return Geometry(np.diag([3.0, 3, 3, 1]), SHAPE, index)


def two_features() -> Geometry:
    """Return the block of voxels twice."""
    one = grid()
    n = one.n_voxels
    affine = one.affine.tolist()
    layouts = tuple(Layout(name=name, affine=affine, shape=list(SHAPE)) for name in ("FA", "MD"))
    return Geometry(
        None, None, None, "joined", layouts, np.repeat([0, 1], n).astype(np.int16),
        np.tile(one.map_positions(), 2), np.tile(one.coordinates, (2, 1)),
    )  # fmt: skip


def pixels(picture) -> np.ndarray:
    """Return the colours (height, width, 3) of a picture."""
    return matplotlib.image.imread(io.BytesIO(picture.data))[:, :, :3]


def coloured(picture) -> int:
    """Return the number of pixels that are not grey."""
    return int((np.ptp(pixels(picture), axis=2) > 0.15).sum())


CASES = {
    "grid": (grid, ["volume"]),
    "two features": (two_features, ["volume", "volume"]),
    "hemispheres": (hemispheres, ["surface", "surface"]),
    "profile": (lambda: table(np.arange(60.0)[:, None] * 1.5, 60), ["line"]),
    "plane": (lambda: table(np.random.default_rng(1).normal(size=(50, 2)), 50), ["points"]),
    "points": (lambda: table(np.random.default_rng(1).normal(size=(50, 3)), 50), ["points"]),
    "columns": (lambda: table(None, 12), ["line"]),
}


@pytest.mark.parametrize("case", CASES)
def test_every_geometry_is_drawn(case):
    make, kinds = CASES[case]
    geometry = make()
    canvas = map_figures.canvas_of(geometry, None)
    assert [panel.kind for panel in canvas.panels] == kinds
    rows = np.concatenate([panel.rows for panel in canvas.panels])
    assert np.array_equal(np.sort(rows), np.arange(geometry.n_voxels))
    values = np.sin(np.arange(geometry.n_voxels) / 5.0) * 4
    values[3] = np.nan
    lead = int(np.nanargmax(values))
    for draw in (
        lambda: map_figures.overview(values, canvas, "basis", diverging=True),
        lambda: map_figures.around(values, canvas, "z", lead),
    ):
        picture = draw()
        assert picture.mime == "image/png"
        assert coloured(picture) > 500
        assert draw().data == picture.data


def test_a_surface_shows_its_values_where_they_are():
    geometry = hemispheres()
    canvas = map_figures.canvas_of(geometry, None)
    left, right = canvas.panels
    assert (left.name, right.name) == ("left", "right")
    # Every panel holds its own ball only, with the values' vertices in their places.
    for panel in canvas.panels:
        np.testing.assert_allclose(
            panel.vertices[panel.vertex], geometry.coordinates[panel.rows], rtol=1e-12
        )
        assert panel.triangles.max() == len(panel.vertices) - 1
        assert np.ptp(panel.vertices[:, 0]) == pytest.approx(60.0)
    # The right ball is seen in the right half of the picture, its outer side furthest right.
    values = np.where(geometry.part == 1, 3.0, np.nan)
    seen = np.ptp(pixels(map_figures.overview(values, canvas, "z", diverging=True)), axis=2) > 0.15
    width = seen.shape[1] * (1 - 0.8 / 10.0)
    column = np.flatnonzero(seen[:, : int(width) - 5].sum(axis=0))
    assert column.min() > 0.45 * width
    outer = seen[:, int(0.75 * width) : int(width) - 5].sum()
    inner = seen[:, int(0.5 * width) : int(0.75 * width)].sum()
    assert outer > 2 * inner


def test_missing_values_and_nothing_at_all_are_left_empty():
    geometry = hemispheres()
    canvas = map_figures.canvas_of(geometry, None)
    nothing = np.full(geometry.n_voxels, np.nan)
    picture = map_figures.overview(nothing, canvas, "h²")
    bar = pixels(picture).shape[1]
    assert (np.ptp(pixels(picture)[:, : int(0.9 * bar)], axis=2) > 0.15).sum() == 0


def test_more_parts_than_can_be_drawn_are_counted():
    one = table(None, 3)
    layouts = tuple(
        Layout(name=f"table {k}", type="table", suffix=".map.tsv", smoothable=False)
        for k in range(15)
    )
    geometry = Geometry(
        None, None, None, "joined", layouts, np.repeat(np.arange(15), 3).astype(np.int16),
        np.tile(np.arange(3), 15), np.arange(45.0)[:, None], name=np.tile(one.name, 15),
    )  # fmt: skip
    canvas = map_figures.canvas_of(geometry, None)
    assert canvas.left_out == 3
    assert coloured(map_figures.overview(np.arange(45.0), canvas, "x")) > 100


def test_a_fine_surface_looks_as_a_coarse_one(monkeypatch):
    vertices, triangles = octahedron(6, 0.0)
    layout = Layout(type="surface", suffix=".func.gii", n_vertices=len(vertices))
    rows = np.arange(len(vertices))
    geometry = Geometry(
        None, None, None, "surface", (layout,), None, rows, vertices, rows.astype(np.int32),
        vertices, triangles,
    )  # fmt: skip
    canvas = map_figures.canvas_of(geometry, None)
    values = np.sin(vertices[:, 1] / 9.0) + np.cos(vertices[:, 2] / 7.0)
    one = pixels(map_figures.overview(values, canvas, "x", diverging=True))
    monkeypatch.setattr(map_figures, "_MANY_TRIANGLES", 1000)
    monkeypatch.setattr(map_figures, "_DOTS_HIGH", 130)
    other = pixels(map_figures.overview(values, canvas, "x", diverging=True))
    assert one.shape == other.shape
    # Alike but for the rim and the shading of single dots; no holes.
    assert (np.abs(one - other).max(axis=2) > 0.25).mean() < 0.02
    assert coloured_share(one) == pytest.approx(coloured_share(other), rel=0.05)


def coloured_share(values: np.ndarray) -> float:
    """Return the share of pixels that are not grey."""
    return float((np.ptp(values, axis=2) > 0.15).mean())
