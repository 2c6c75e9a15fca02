"""Distances and tangent coordinates along a surface against analytic ones."""

from __future__ import annotations

import numpy as np
import pytest

from rvga import smoothing, surface

RADIUS = 100.0
# Distances along the surface and weights are to be this exact (relative; share of the largest).
DISTANCE_TOLERANCE = 1e-3
WEIGHT_TOLERANCE = 5e-3


def sphere(divisions: int) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices and triangles of an icosahedron divided again and again."""
    golden = (1 + 5**0.5) / 2
    corners = [(-1, golden, 0), (1, golden, 0), (-1, -golden, 0), (1, -golden, 0)]
    vertices = np.array(
        corners + [(c, a, b) for a, b, c in corners] + [(b, c, a) for a, b, c in corners]
    )
    apart = np.linalg.norm(vertices[:, None] - vertices[None], axis=2)
    near = (apart > 0) & (apart < 2.1)
    triangles = np.array(
        [
            (a, b, c) if np.linalg.det(vertices[[a, b, c]]) > 0 else (a, c, b)
            for a in range(12) for b in range(a) for c in range(b)
            if near[a, b] and near[b, c] and near[a, c]
        ]
    )  # fmt: skip
    assert len(triangles) == 20
    for _ in range(divisions):
        edges = np.sort(
            np.vstack([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
        )
        edges, place = np.unique(edges, axis=0, return_inverse=True)
        ab, bc, ca = place.reshape(3, -1) + len(vertices)
        vertices = np.vstack([vertices, vertices[edges].mean(axis=1)])
        a, b, c = triangles.T
        parts = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        triangles = np.vstack([np.column_stack(part) for part in parts])
    return RADIUS * vertices / np.linalg.norm(vertices, axis=1, keepdims=True), triangles


def analytic_tangent(vertices: np.ndarray, source: int, frame: np.ndarray) -> np.ndarray:
    """Return great-circle coordinates (N, 2) of all vertices around one."""
    here = vertices[source] / RADIUS
    cosine = vertices @ here / RADIUS
    direction = vertices - np.outer(vertices @ here, here)
    direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-12)
    tangent = RADIUS * np.arccos(np.clip(cosine, -1, 1))[:, None] * (direction @ frame.T)
    # The way to the opposite pole has no direction.
    tangent[cosine < -1 + 1e-9] = RADIUS * np.pi
    return tangent


def frame_of(one: surface.Surface, source: int) -> np.ndarray:
    """Return the two axes of a vertex's tangent plane."""
    return surface.frames_of(one.normals[source : source + 1])[0]


@pytest.fixture(scope="module")
def ball():
    vertices, triangles = sphere(4)
    return vertices, surface.Surface(vertices, triangles)


@pytest.mark.parametrize("reach", [20.0, 45.0])
def test_distances_on_a_sphere_are_great_circles(ball, reach):
    vertices, one = ball
    sources = [0, 7, 100, 1000, 2561]
    for source in sources:
        counts, column, tangent = one.neighbours(source, source + 1, reach)
        assert counts.tolist() == [len(column)]
        assert (np.diff(column) > 0).all()
        exact = analytic_tangent(vertices, source, frame_of(one, source))
        distance = np.linalg.norm(exact[column], axis=1)
        away = column != source
        found = np.linalg.norm(tangent[away], axis=1)
        np.testing.assert_allclose(found, distance[away], rtol=DISTANCE_TOLERANCE)
        # Everybody well within reach is there, and nobody from well beyond it.
        inside = np.flatnonzero((np.abs(exact) < 0.99 * reach).all(axis=1))
        assert set(inside) <= set(column)
        assert (np.abs(exact[column]) < 1.01 * reach).all()


def dense_weights(tangents, bandwidth: float) -> np.ndarray:
    """Return local-linear weights from a function of tangent coordinates, one vertex at a time."""
    N = len(tangents(0))
    weights = np.zeros((N, N))
    for v in range(N):
        offset = tangents(v)
        near = np.flatnonzero((np.abs(offset) <= 4 * bandwidth * (1 + 1e-9)).all(axis=1))
        root = np.exp(-0.25 * ((offset[near] / bandwidth) ** 2).sum(axis=1))
        T = np.column_stack([np.ones(len(near)), offset[near]])
        weights[v, near] = np.linalg.pinv(root[:, None] * T, rcond=1e-8)[0] * root
    weights[np.abs(weights) < 1 / N] = 0
    return weights


def test_weights_on_a_sphere_are_those_of_analytic_distances():
    vertices, triangles = sphere(3)
    one = surface.Surface(vertices, triangles)
    h = float(np.median(one.nearest))
    W = smoothing.smoothing_weights(one, h, workers=2).toarray()
    expected = dense_weights(lambda v: analytic_tangent(vertices, v, frame_of(one, v)), h)
    # Weights at the border between kept and dropped (1/N) may fall on either side.
    border = np.abs(np.maximum(np.abs(W), np.abs(expected)) - 1 / len(W)) < 0.1 / len(W)
    assert np.abs(np.where(border, 0, W - expected)).max() < WEIGHT_TOLERANCE * expected.max()
    assert border.mean() < 0.01
    np.testing.assert_allclose(W.sum(axis=1), 1, atol=0.02)


def test_a_folded_sheet_is_smoothed_as_if_it_were_flat():
    # A strip that runs down, around half a circle and up again: its walls are near in space only.
    along = np.arange(0.0, 60.0)
    across = np.arange(0.0, 12.0)
    radius = 2.5
    angle = np.clip((along - 20) / radius, 0, np.pi)
    x = np.where(along < 20, 0, radius * (1 - np.cos(angle)))
    y = np.where(
        along < 20, 20 - along,
        np.where(angle < np.pi, -radius * np.sin(angle), along - 20 - np.pi * radius),
    )  # fmt: skip
    rows, columns = np.meshgrid(range(60), range(12), indexing="ij")
    vertices = np.column_stack([x[rows.ravel()], y[rows.ravel()], across[columns.ravel()]])
    flat = np.column_stack([along[rows.ravel()], across[columns.ravel()]])
    corner = (rows * 12 + columns)[:-1, :-1].ravel()
    triangles = np.vstack(
        [np.column_stack([corner, corner + 1, corner + 12]),
         np.column_stack([corner + 1, corner + 13, corner + 12])]
    )  # fmt: skip
    one = surface.Surface(vertices, triangles)
    middle = 10 * 12 + 6
    _, column, tangent = one.neighbours(middle, middle + 1, 12.0)
    distance = np.linalg.norm(flat[column] - flat[middle], axis=1)
    np.testing.assert_allclose(np.linalg.norm(tangent, axis=1), distance, rtol=0.02, atol=0.05)
    opposite = np.argmin(np.linalg.norm(vertices - vertices[middle] - [2 * radius, 0, 0], axis=1))
    assert np.linalg.norm(vertices[opposite] - vertices[middle]) < 2.1 * radius
    assert opposite in smoothing.Cloud(vertices).neighbours(middle, middle + 1, 12.0)[1]
    assert opposite not in column
    folded = smoothing.smoothing_weights(one, 2.0).toarray()[middle]
    spread = smoothing.smoothing_weights(flat, 2.0).toarray()[middle]
    np.testing.assert_allclose(folded, spread, atol=0.02 * spread.max())


def test_lone_vertices_and_holes():
    vertices, triangles = sphere(2)
    kept = triangles[~(triangles == 5).any(axis=1)]
    one = surface.Surface(vertices, kept)
    W = smoothing.smoothing_weights(one, 20.0).toarray()
    assert W[5, 5] == pytest.approx(1)
    assert np.count_nonzero(W[5]) == 1
    assert np.count_nonzero(W[:, 5]) == 1
    assert not np.isfinite(one.nearest[5])
    assert np.isfinite(smoothing.median_nearest_distance(one))


def test_parts_are_never_joined():
    vertices, triangles = sphere(2)
    N = len(vertices)
    two = smoothing.Joined(
        [
            (np.arange(0, 2 * N, 2), surface.Surface(vertices, triangles)),
            (np.arange(1, 2 * N, 2), smoothing.Cloud(vertices)),
        ]
    )
    W = smoothing.smoothing_weights(two, 30.0).toarray()
    assert not W[::2, 1::2].any()
    assert not W[1::2, ::2].any()
    alone = smoothing.smoothing_weights(vertices, 30.0).toarray()
    both_kept = np.abs(alone) >= 1 / N
    np.testing.assert_allclose(W[1::2, 1::2][both_kept], alone[both_kept], atol=1e-12)
    cloud = smoothing.Cloud(np.vstack([vertices, vertices]), np.repeat([0, 3], N))
    W = smoothing.smoothing_weights(cloud, 30.0).toarray()
    assert not W[:N, N:].any()
    assert not W[N:, :N].any()
    np.testing.assert_array_equal(W[:N, :N], W[N:, N:])
    assert smoothing.median_nearest_distance(cloud) == pytest.approx(
        smoothing.median_nearest_distance(vertices)
    )


def test_a_surface_of_lone_vertices_is_not_smoothed():
    vertices, _ = sphere(0)
    lone = surface.Surface(vertices, np.empty((0, 3), dtype=int))
    X = np.random.default_rng(0).normal(size=(4, len(vertices)))
    for space in (lone, smoothing.Joined([(np.arange(len(vertices)), lone)])):
        choice = smoothing.choose_bandwidth(space, lambda: iter([X]))
        assert choice.bandwidth == 0.0
        assert choice.candidates == []
        assert "not smoothed" in choice.warnings[0]


def test_weights_do_not_depend_on_workers(ball):
    _, one = ball
    found = [smoothing.smoothing_weights(one, 6.0, workers=workers) for workers in (1, 2)]
    assert found[0].data.tobytes() == found[1].data.tobytes()
    assert found[0].indices.tobytes() == found[1].indices.tobytes()
