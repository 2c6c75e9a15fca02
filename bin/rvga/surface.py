"""Neighbours along a triangulated surface, in the tangent plane of each vertex (method 1).

Arrays in, arrays out. Distances are shortest paths over a graph of edges and of short cuts
across the triangles within two rings, each as long as the arc that the normals at its ends
imply, so that a path may leave in many more directions than there are edges. The tangent frame
of the source is carried along the path by the least rotation from normal to normal, so that
steps add up as vectors: what a neighbour's coordinates are, unrolled into the source's plane.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from rvga.machine_code import compiled

_RINGS = 2
# Across a sharper fold than this (radians between normals) a short cut says nothing.
_LARGEST_TURN = 1.0
# Vertices whose windows stand for all when the work is planned.
_SOURCES = 200


class Surface:
    """The vertices of a surface that have values, and how to walk between them.

    Parameters
    ----------
    coordinates : (N, 3)
        Places of the vertices.
    triangles : (f, 3)
        Rows of ``coordinates``; triangles of which a corner has no value are left out before.
        Vertices that no triangle touches have no neighbours.

    Attributes
    ----------
    normals : (N, 3)
        Unit normals, the mean of the adjoining triangles' by area; 0 for lone vertices.
    """

    def __init__(self, coordinates: np.ndarray, triangles: np.ndarray):
        self.coordinates = np.ascontiguousarray(coordinates, dtype=np.float64)
        triangles = np.asarray(triangles, dtype=np.int64).reshape(-1, 3)
        self.normals = vertex_normals(self.coordinates, triangles)
        self._indptr, self._indices, self._length, nearest = _walks(
            self.coordinates, self.normals, triangles
        )
        self.nearest = nearest

    @property
    def N(self) -> int:
        """Number of vertices."""
        return len(self.coordinates)

    @property
    def extent(self) -> float:
        """Largest side of the box around the surface."""
        return float(np.ptp(self.coordinates, axis=0).max())

    d = 2

    def mean_window(self, reach: float) -> float:
        """Return the mean number of vertices within a reach, from evenly spaced ones."""
        sources = np.unique(np.linspace(0, self.N - 1, min(self.N, _SOURCES)).astype(np.int64))
        return float(np.mean([self.neighbours(at, at + 1, reach)[0][0] for at in sources]))

    def window_sizes(self, reach: float) -> np.ndarray:
        """Return about how many vertices (N,) each has within a reach."""
        # Only the sizes of batches depend on it, so the mean serves.
        return np.full(self.N, np.ceil(self.mean_window(reach)), dtype=np.int64)

    def neighbours(
        self, first: int, stop: int, reach: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the vertices near each of some vertices, itself included.

        Parameters
        ----------
        first, stop : int
            The vertices asked about.
        reach : float
            Largest size of either tangent coordinate.

        Returns
        -------
        counts : (stop - first,)
            Neighbours of each vertex.
        column : (sum of counts,)
            The neighbours, ascending within each vertex.
        tangent : (sum of counts, 2)
            Their coordinates in the vertex's tangent plane; the length is the distance along
            the surface.
        """
        counts, column, tangent = _neighbours(
            self.coordinates,
            self.normals,
            self._indptr,
            self._indices,
            self._length,
            frames_of(self.normals[first:stop]),
            first,
            stop,
            reach,
        )
        order = np.lexsort((column, np.repeat(np.arange(stop - first), counts)))
        return counts, column[order], tangent[order]


def vertex_normals(coordinates: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return unit normals (N, 3) of the vertices, weighted by the triangles' areas."""
    a, b, c = (coordinates[triangles[:, corner]] for corner in range(3))
    cross = np.cross(b - a, c - a)
    normals = np.zeros_like(coordinates)
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], cross)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return normals / np.where(length > 0.0, length, 1.0)


def arc_length(chord: np.ndarray, normal: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return lengths (k,) along a surface of chords (k, 3) between points with unit normals.

    The part of a chord along the difference of the normals bends by the angle between them, as
    on a sphere or a cylinder, where this is exact.
    """
    squared = np.einsum("kd,kd->k", chord, chord)
    apart = other - normal
    size = np.linalg.norm(apart, axis=1)
    half = np.arcsin(np.minimum(size / 2.0, 1.0))
    bent = np.einsum("kd,kd->k", chord, apart) / np.where(size > 0.0, size, 1.0)
    stretch = np.where(half > 1e-6, half / np.where(half > 1e-6, np.sin(half), 1.0), 1.0)
    return np.sqrt(squared + bent**2 * (stretch**2 - 1.0))


def _walks(coordinates, normals, triangles):
    """Return the graph of edges and short cuts (indptr, indices, lengths), and nearest edges."""
    N = len(coordinates)
    one = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    pairs = np.concatenate([one, one[:, ::-1]])
    ones = np.ones(len(pairs), dtype=np.int32)
    edges = sparse.csr_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(N, N))
    edges.data[:] = 1
    rings = reached = edges
    for _ in range(_RINGS - 1):
        reached = reached @ edges
        rings = rings + reached
    graph = rings.tocoo()
    row, column = graph.coords
    keep = row != column
    row, column = row[keep].astype(np.int64), column[keep].astype(np.int64)
    chord = coordinates[column] - coordinates[row]
    turn = 2.0 * np.arcsin(
        np.minimum(np.linalg.norm(normals[row] - normals[column], axis=1) / 2, 1)
    )
    mild = turn <= _LARGEST_TURN
    straight = np.linalg.norm(chord, axis=1)
    length = np.where(mild, arc_length(chord, normals[row], normals[column]), straight)
    order = np.lexsort((column, row))
    edge_keys = np.unique(pairs[:, 0] * N + pairs[:, 1])
    is_edge = np.isin(row * N + column, edge_keys)
    nearest = np.full(N, np.inf)
    np.minimum.at(nearest, row[is_edge], length[is_edge])
    order = order[(mild | is_edge)[order]]
    row, column, length = row[order], column[order], length[order]
    indptr = np.zeros(N + 1, dtype=np.int64)
    np.cumsum(np.bincount(row, minlength=N), out=indptr[1:])
    return indptr, column, length, nearest


def frames_of(normals: np.ndarray) -> np.ndarray:
    """Return two unit vectors (N, 2, 3) of the plane across each unit normal (N, 3)."""
    rows = np.arange(len(normals))
    axis = np.argmin(np.abs(normals), axis=1)
    one = -normals * normals[rows, axis][:, None]
    one[rows, axis] += 1.0
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    return np.stack([one, np.cross(normals, one)], axis=1)


@compiled
def _carry(frames, node, other, normals):
    """Turn the frame at one vertex by the least rotation between normals into another's."""
    ax, ay, az = normals[node, 0], normals[node, 1], normals[node, 2]
    bx, by, bz = normals[other, 0], normals[other, 1], normals[other, 2]
    cosine = ax * bx + ay * by + az * bz
    if cosine < -0.999999:
        for k in range(2):
            for d in range(3):
                frames[other, k, d] = frames[node, k, d]
        return
    x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    for k in range(2):
        u, v, w = frames[node, k, 0], frames[node, k, 1], frames[node, k, 2]
        along = (x * u + y * v + z * w) / (1.0 + cosine)
        frames[other, k, 0] = u * cosine + (y * w - z * v) + x * along
        frames[other, k, 1] = v * cosine + (z * u - x * w) + y * along
        frames[other, k, 2] = w * cosine + (x * v - y * u) + z * along


@compiled
def _push(heap_key, heap_node, size, key, node):
    place = size
    while place > 0:
        above = (place - 1) >> 1
        if heap_key[above] <= key:
            break
        heap_key[place] = heap_key[above]
        heap_node[place] = heap_node[above]
        place = above
    heap_key[place] = key
    heap_node[place] = node
    return size + 1


@compiled
def _pop(heap_key, heap_node, size):
    size -= 1
    key, node = heap_key[size], heap_node[size]
    place = 0
    while True:
        below = 2 * place + 1
        if below >= size:
            break
        if below + 1 < size and heap_key[below + 1] < heap_key[below]:
            below += 1
        if heap_key[below] >= key:
            break
        heap_key[place] = heap_key[below]
        heap_node[place] = heap_node[below]
        place = below
    heap_key[place] = key
    heap_node[place] = node
    return size


@compiled
def _neighbours(coordinates, normals, indptr, indices, length, start, first, stop, reach):
    N = len(coordinates)
    limit = np.sqrt(2.0) * reach
    distance = np.full(N, np.inf)
    done = np.zeros(N, dtype=np.bool_)
    place = np.zeros((N, 2))
    frames = np.zeros((N, 2, 3))
    touched = np.empty(N, dtype=np.int64)
    heap_key = np.empty(1024)
    heap_node = np.empty(1024, dtype=np.int64)
    counts = np.zeros(stop - first, dtype=np.int64)
    column = np.empty(1024, dtype=np.int64)
    tangent = np.empty((1024, 2))
    filled = 0
    for source in range(first, stop):
        n_touched = 1
        touched[0] = source
        distance[source] = 0.0
        for k in range(2):
            for d in range(3):
                frames[source, k, d] = start[source - first, k, d]
        size = _push(heap_key, heap_node, 0, 0.0, source)
        while size > 0:
            node = heap_node[0]
            size = _pop(heap_key, heap_node, size)
            if done[node]:
                continue
            done[node] = True
            nx, ny, nz = normals[node, 0], normals[node, 1], normals[node, 2]
            for edge in range(indptr[node], indptr[node + 1]):
                other = indices[edge]
                far = distance[node] + length[edge]
                if far >= distance[other] or far > limit:
                    continue
                if distance[other] == np.inf:
                    touched[n_touched] = other
                    n_touched += 1
                distance[other] = far
                x = coordinates[other, 0] - coordinates[node, 0]
                y = coordinates[other, 1] - coordinates[node, 1]
                z = coordinates[other, 2] - coordinates[node, 2]
                up = x * nx + y * ny + z * nz
                x, y, z = x - nx * up, y - ny * up, z - nz * up
                flat = np.sqrt(x * x + y * y + z * z)
                scale = length[edge] / flat if flat > 0.0 else 0.0
                for k in range(2):
                    step = x * frames[node, k, 0] + y * frames[node, k, 1] + z * frames[node, k, 2]
                    place[other, k] = place[node, k] + scale * step
                _carry(frames, node, other, normals)
                if size == len(heap_key):
                    more_key, more_node = np.empty(2 * size), np.empty(2 * size, dtype=np.int64)
                    more_key[:size] = heap_key
                    more_node[:size] = heap_node
                    heap_key, heap_node = more_key, more_node
                size = _push(heap_key, heap_node, size, far, other)
        for at in range(n_touched):
            node = touched[at]
            if abs(place[node, 0]) <= reach and abs(place[node, 1]) <= reach:
                if filled == len(column):
                    more_column = np.empty(2 * filled, dtype=np.int64)
                    more_tangent = np.empty((2 * filled, 2))
                    more_column[:filled] = column
                    more_tangent[:filled] = tangent
                    column, tangent = more_column, more_tangent
                column[filled] = node
                tangent[filled, 0] = place[node, 0]
                tangent[filled, 1] = place[node, 1]
                filled += 1
                counts[source - first] += 1
            distance[node] = np.inf
            done[node] = False
            place[node, 0] = 0.0
            place[node, 1] = 0.0
    return counts, column[:filled], tangent[:filled]
