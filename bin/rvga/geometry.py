"""Where the voxels of a row of numbers lie, and how a map of them is written."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rvga.atomic import replacing
from rvga.errors import InputError
from rvga.formats import Envelope, Writer
from rvga.hdf5_safety import json_value

TYPES = ("nifti", "surface", "cifti", "table")
# The endings that a map may have, by the type of its geometry; longer ones first.
MAP_SUFFIXES = {
    "nifti": (".nii.gz", ".nii", ".mgz", ".mgh"),
    "surface": (".func.gii", ".shape.gii", ".gii", ".curv", ".mgz", ".mgh"),
    "cifti": (".dscalar.nii",),
    "table": (".map.tsv", ".tsv"),
}
# Two grids are one when no corner differs by more than this.
AFFINE_TOLERANCE_MM = 1e-3
_MOST_VALUES = 1 << 31


@dataclass(frozen=True)
class Layout:
    """How the map of one image file is laid out; a joined image has one for each of its files.

    Attributes
    ----------
    name : str
        Name of the part; empty where there is one.
    type : str
        ``nifti`` (a grid), ``surface``, ``cifti`` or ``table``.
    suffix : str
        Ending of a map's file name.
    sections : list of str
        What smoothing never crosses: hemispheres or structures of each map. One at least.
    affine, shape
        Of a grid.
    n_vertices, structure
        Of a surface.
    maps, models
        Of CIFTI: names of the maps, and the brain models in their order, each ``structure``,
        ``kind`` (``surface`` or ``voxels``), ``size`` (vertices of the surface, or ``shape`` and
        ``affine`` of the grid) and ``runs`` (first and last-but-one vertex, or cell of the grid
        with the first index fastest).
    smoothable : bool
        Whether the coordinates mean a place.
    """

    name: str = ""
    type: str = "nifti"
    suffix: str = ".nii.gz"
    sections: list[str] = field(default_factory=lambda: [""])
    affine: list[list[float]] | None = None
    shape: list[int] | None = None
    n_vertices: int = 0
    structure: str = ""
    maps: list[str] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    smoothable: bool = True

    @property
    def size(self) -> int:
        """Number of places of a map, kept voxels and others."""
        if self.type == "nifti":
            return int(np.prod(self.shape or [0], dtype=np.int64))
        if self.type == "surface":
            return self.n_vertices
        if self.type == "cifti":
            return len(self.maps) * sum(len_of_runs(model["runs"]) for model in self.models)
        return _MOST_VALUES


@dataclass(frozen=True)
class Geometry:
    """Geometry of N voxels (or vertices, or columns of a table), in one part or several.

    One NIfTI volume needs ``affine`` (4, 4), ``shape`` (3,) and the grid ``index`` (N, 3) only.

    Attributes
    ----------
    type : str
        ``nifti``, ``surface``, ``cifti``, ``table``, or ``joined``.
    layouts : tuple of Layout
        One for each file of a map.
    part_index : (N,)
        Section (hemisphere, structure, feature) of each voxel, numbered through all layouts.
    position : (N,)
        Place of each voxel in its layout.
    places : (N, d)
        Coordinates in millimetres, or an index where there are none.
    vertex : (N,)
        Row of ``vertices`` of each voxel, −1 for none.
    vertices, triangles : (v, 3), (f, 3)
        All surfaces, one after another; a surface of several parts is there once.
    name : (N,)
        Names of the columns of a table.
    """

    affine: np.ndarray | None
    shape: tuple[int, int, int] | None
    index: np.ndarray | None
    type: str = "nifti"
    layouts: tuple[Layout, ...] = ()
    part_index: np.ndarray | None = None
    position: np.ndarray | None = None
    places: np.ndarray | None = None
    vertex: np.ndarray | None = None
    vertices: np.ndarray | None = None
    triangles: np.ndarray | None = None
    name: np.ndarray | None = None

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return len(self.index if self.index is not None else self.position)

    @property
    def coordinates(self) -> np.ndarray:
        """Voxel coordinates (N, d), in millimetres where :attr:`smoothable`, else an index."""
        if self.places is not None:
            return self.places
        return self.index @ self.affine[:3, :3].T + self.affine[:3, 3]

    @property
    def smoothable(self) -> bool:
        """Whether the coordinates of every voxel mean a place, so that neighbours are near."""
        return all(layout.smoothable for layout in self.layouts)

    @property
    def part(self) -> np.ndarray:
        """Section (N,) int16 of each voxel, which smoothing never crosses; zeros for one."""
        if self.part_index is None:
            return np.zeros(self.n_voxels, dtype=np.int16)
        return self.part_index

    @property
    def part_names(self) -> list[str]:
        """Names of the sections, by their number in :attr:`part`."""
        return [
            " ".join(word for word in (layout.name, section) if word)
            for layout in self.map_layouts
            for section in layout.sections
        ]

    @property
    def map_layouts(self) -> tuple[Layout, ...]:
        """Layouts of the files that a map is written to."""
        if self.layouts:
            return self.layouts
        return (Layout(affine=self.affine.tolist(), shape=[int(size) for size in self.shape]),)

    @property
    def layout_of_voxel(self) -> np.ndarray:
        """Number of each voxel's layout, (N,)."""
        ends = np.cumsum([len(layout.sections) for layout in self.map_layouts])
        return np.searchsorted(ends, self.part, side="right")

    def subset(self, voxel_index: np.ndarray) -> Geometry:
        """Return the geometry of some of the voxels."""
        by_voxel = ("index", "part_index", "position", "places", "vertex", "name")
        kept = {name: getattr(self, name) for name in by_voxel}
        return replace(
            self,
            **{name: None if of is None else of[voxel_index] for name, of in kept.items()},
        )

    def map_positions(self) -> np.ndarray:
        """Return the place of each voxel in its layout, (N,)."""
        if self.position is not None:
            return self.position
        return np.ravel_multi_index(tuple(self.index.T.astype(np.int64)), self.shape)


def geometry_of(envelope: Envelope) -> Geometry:
    """Return the geometry stored in an open file.

    Raises
    ------
    InputError
        The description of the parts is damaged.
    """

    def stored(name: str) -> np.ndarray | None:
        return envelope.array(name) if name in envelope else None

    shape = stored("geometry/shape")
    geometry = Geometry(
        affine=stored("geometry/affine"),
        shape=None if shape is None else tuple(int(size) for size in shape),
        index=stored("geometry/index"),
        type=str(envelope.attributes.get("geometry_type", "nifti")),
    )
    if "geometry/parts" in envelope:
        try:
            layouts = tuple(Layout(**json_value(text)) for text in envelope.array("geometry/parts"))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{envelope.path}: its description of the image's parts is damaged; make it again"
            ) from error
        geometry = replace(
            geometry,
            layouts=layouts,
            part_index=stored("part"),
            position=stored("geometry/position"),
            places=stored("coordinates"),
            vertex=stored("geometry/vertex"),
            vertices=stored("geometry/vertices"),
            triangles=stored("geometry/triangles"),
            name=stored("geometry/name"),
        )
    problem = geometry_problem(geometry)
    if problem:
        raise InputError(f"{envelope.path}: {problem}: the file is damaged")
    return geometry


def geometry_problem(geometry: Geometry) -> str:
    """Return what is inconsistent in a geometry that came from a file, or the empty string."""
    if geometry.type not in (*TYPES, "joined"):
        return f"geometry '{geometry.type}' is unknown to this release"
    if not geometry.layouts:
        if geometry.type != "nifti" or geometry.index is None:
            return "the places of its voxels are missing"
        if geometry.affine is None or geometry.shape is None:
            return "the grid of its voxels is missing"
        outside = (geometry.index < 0) | (geometry.index >= np.asarray(geometry.shape))
        return "voxels lie outside the image grid" if outside.any() else ""
    if geometry.position is None or geometry.places is None:
        return "the places of its voxels are missing"
    if len(geometry.layouts) > 1 and geometry.part_index is None:
        return "the parts of its voxels are missing"
    for layout in geometry.layouts:
        problem = _layout_problem(layout)
        if problem:
            return problem
    part = geometry.part
    if len(part) and (part.min() < 0 or part.max() >= len(geometry.part_names)):
        return "voxels belong to parts that are not described"
    sizes = np.array([layout.size for layout in geometry.layouts], dtype=np.int64)
    here = sizes[geometry.layout_of_voxel]
    if np.any(geometry.position < 0) or np.any(geometry.position >= here):
        return "voxels lie outside the image"
    if geometry.vertex is not None:
        n_vertices = 0 if geometry.vertices is None else len(geometry.vertices)
        if np.any(geometry.vertex < -1) or np.any(geometry.vertex >= n_vertices):
            return "voxels lie outside the surface"
        corners = geometry.triangles
        if corners is not None and np.any((corners < 0) | (corners >= n_vertices)):
            return "triangles lie outside the surface"
    if geometry.name is None and any(layout.type == "table" for layout in geometry.layouts):
        return "the names of a table's columns are missing"
    return ""


def _layout_problem(layout: Layout) -> str:
    """Return what is wrong with a description, which may come from anybody's file."""
    damaged = "the description of the image's parts is damaged"
    if layout.type not in TYPES or layout.suffix not in MAP_SUFFIXES[layout.type]:
        return damaged
    if not isinstance(layout.name, str) or not layout.sections:
        return damaged
    if layout.name and not all(letter.isalnum() or letter in "._-" for letter in layout.name):
        return f"part '{layout.name}' cannot name a file"
    try:
        if layout.type == "nifti":
            affine = np.asarray(layout.affine, dtype=np.float64)
            shape = [int(size) for size in layout.shape]
            sound = affine.shape == (4, 4) and len(shape) == 3 and min(shape) > 0
        elif layout.type == "cifti":
            sound = bool(layout.maps) and bool(layout.models)
            for model in layout.models:
                runs = np.asarray(model["runs"], dtype=np.int64).reshape(-1, 2)
                sound &= model["kind"] in ("surface", "voxels")
                sound &= bool(len(runs) and runs.min() >= 0 and (runs[:, 1] > runs[:, 0]).all())
                of = int(np.prod(model["size"], dtype=np.int64))
                sound &= bool(runs.max() <= of)
        else:
            sound = layout.n_vertices >= 0
        return "" if sound and 0 <= layout.size <= _MOST_VALUES else damaged
    except (TypeError, ValueError, KeyError, OverflowError):
        return damaged


def add_geometry(writer: Writer, geometry: Geometry) -> None:
    """Store a geometry; the caller gives ``geometry_type=geometry.type`` as attribute and
    writes ``coordinates``."""
    if geometry.index is not None:
        writer.add("geometry/affine", geometry.affine)
        writer.add("geometry/shape", np.asarray(geometry.shape))
        writer.add("geometry/index", geometry.index)
    if not geometry.layouts:
        return
    writer.add("geometry/parts", describe(geometry))
    writer.add("geometry/position", geometry.position)
    if len(geometry.part_names) > 1:
        writer.add("part", geometry.part)
    for name in ("vertex", "vertices", "triangles", "name"):
        if getattr(geometry, name) is not None:
            writer.add(f"geometry/{name}", getattr(geometry, name))


def describe(geometry: Geometry) -> list[str]:
    """Return one line of JSON for each layout."""
    return [json.dumps(asdict(layout), sort_keys=True) for layout in geometry.layouts]


def join(geometries: Sequence[Geometry]) -> Geometry:
    """Return the geometry of parts one after another; one part stays as it is.

    Coordinates of fewer dimensions are filled up with 0. A surface that several parts have is
    kept once.
    """
    if len(geometries) == 1:
        return geometries[0]
    d = max(geometry.coordinates.shape[1] for geometry in geometries)
    first_section = 0
    part, places, vertex = [], [], []
    surfaces: list[np.ndarray] = []
    triangles: list[np.ndarray] = []
    offset_of: dict[bytes, int] = {}
    n_vertices = 0
    for geometry in geometries:
        part.append(geometry.part.astype(np.int16) + np.int16(first_section))
        first_section += len(geometry.part_names)
        here = geometry.coordinates
        places.append(np.pad(here, ((0, 0), (0, d - here.shape[1]))))
        own = np.full(geometry.n_voxels, -1, dtype=np.int32)
        if geometry.vertices is not None:
            key = geometry.vertices.tobytes() + geometry.triangles.tobytes()
            if key not in offset_of:
                offset_of[key] = n_vertices
                surfaces.append(geometry.vertices)
                triangles.append(geometry.triangles + n_vertices)
                n_vertices += len(geometry.vertices)
            on_surface = geometry.vertex >= 0
            own[on_surface] = geometry.vertex[on_surface] + offset_of[key]
        vertex.append(own)
    names = [
        geometry.name if geometry.name is not None else np.full(geometry.n_voxels, "", dtype=object)
        for geometry in geometries
    ]
    return Geometry(
        affine=None,
        shape=None,
        index=None,
        type="joined",
        layouts=tuple(layout for geometry in geometries for layout in geometry.map_layouts),
        part_index=np.concatenate(part).astype(np.int16),
        position=np.concatenate([geometry.map_positions() for geometry in geometries]),
        places=np.concatenate(places),
        vertex=np.concatenate(vertex) if surfaces else None,
        vertices=np.concatenate(surfaces) if surfaces else None,
        triangles=np.concatenate(triangles).astype(np.int32) if surfaces else None,
        name=np.concatenate(names)
        if any(geometry.name is not None for geometry in geometries)
        else None,
    )


def identity(geometry: Geometry) -> str:
    """Return what tells a geometry from another, besides its arrays, as text.

    The format of maps, the names of CIFTI maps and the structure are left out: they are those of
    the first image, whichever that is, and it may not say them. So are the affines of CIFTI
    models, which may differ by rounding.
    """
    layouts = [
        {
            **asdict(replace(layout, suffix="", structure="")),
            "maps": len(layout.maps),
            "sections": len(layout.sections),
            "models": [
                {key: value for key, value in model.items() if key != "affine"}
                for model in layout.models
            ],
        }
        for layout in geometry.map_layouts
    ]
    return json.dumps([geometry.type, layouts], sort_keys=True)


def places_are_rounded(geometry: Geometry) -> np.ndarray:
    """Return (N,) whether a voxel's place is the image's own word, which may differ by rounding.

    That is so for CIFTI with models of voxels; other places are those of a mask, a surface or a
    table, which all images share.
    """
    of_layout = [
        any("affine" in model for model in layout.models) for layout in geometry.map_layouts
    ]
    return np.array(of_layout)[geometry.layout_of_voxel]


def same_voxels(one: Geometry, other: Geometry) -> bool:
    """Return whether two geometries are of the same voxels, at the same places.

    Places that each image says itself may be :data:`AFFINE_TOLERANCE_MM` apart.
    """
    return (
        identity(one) == identity(other)
        and not other_structures(one, other)
        and np.array_equal(one.part, other.part)
        and np.array_equal(one.map_positions(), other.map_positions())
        and _same_places(one, other)
        and (one.name is None) == (other.name is None)
        and (one.name is None or np.array_equal(one.name, other.name))
        and (one.triangles is None) == (other.triangles is None)
        and (one.triangles is None or np.array_equal(one.triangles, other.triangles))
    )


def _same_places(one: Geometry, other: Geometry) -> bool:
    ours, theirs = one.coordinates, other.coordinates
    if ours.shape != theirs.shape:
        return False
    apart = np.linalg.norm(ours - theirs, axis=1)
    return bool(np.all(apart <= np.where(places_are_rounded(one), AFFINE_TOLERANCE_MM, 0.0)))


def grid_distance(affine: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    """Return how far (mm) the corners of a grid lie apart under two affines, at most."""
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape], indexing="ij"))
    corners = np.vstack([corners.reshape(3, -1), np.ones(8)])
    return float(np.linalg.norm(((affine - other) @ corners)[:3], axis=0).max())


def other_structures(one: Geometry, other: Geometry) -> bool:
    """Return whether two geometries say that they are of different structures (hemispheres)."""
    return any(
        bool(a.structure and b.structure) and a.structure.lower() != b.structure.lower()
        for a, b in zip(one.map_layouts, other.map_layouts, strict=True)
    )


def in_another_order(one: str, other: str) -> bool:
    """Return whether two files have the same maps in different orders.

    Parameters
    ----------
    one, other : str
        Two digests of the names of maps: in any order, and in the order they are read in. Empty
        where the names say nothing.
    """
    return one != other and bool(one and other) and one.split()[0] == other.split()[0]


def runs_of(numbers: np.ndarray) -> list[list[int]]:
    """Return ascending or mixed whole numbers as runs ``[first, last + 1]``, in their order."""
    numbers = np.asarray(numbers, dtype=np.int64)
    cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
    starts = np.concatenate([[0], cuts])
    stops = np.concatenate([cuts, [len(numbers)]])
    return [[int(numbers[i]), int(numbers[j - 1]) + 1] for i, j in zip(starts, stops, strict=True)]


def numbers_of(runs: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the whole numbers that :func:`runs_of` was given."""
    return np.concatenate([np.arange(first, stop) for first, stop in runs])


def len_of_runs(runs: Sequence[Sequence[int]]) -> int:
    """Return how many numbers runs hold."""
    return int(sum(stop - first for first, stop in runs))


# -------------------------------------------------------------------------------------------
# Maps
# -------------------------------------------------------------------------------------------


def volume_of(values: np.ndarray, geometry: Geometry, fill: float = np.nan) -> np.ndarray:
    """Return a float32 volume with ``values`` (N,) at the voxels and ``fill`` elsewhere."""
    volume = np.full(geometry.shape, fill, dtype=np.float32)
    volume[tuple(geometry.index.T)] = values
    return volume


def map_stem(path: str | Path) -> Path:
    """Return a map's path without the ending that tells its format."""
    path = Path(path)
    endings = {suffix for suffixes in MAP_SUFFIXES.values() for suffix in suffixes}
    for suffix in sorted(endings, key=len, reverse=True):
        if path.name.endswith(suffix) and path.name != suffix:
            return path.with_name(path.name[: -len(suffix)])
    return path


def map_paths(path: str | Path, geometry: Geometry) -> list[Path]:
    """Return the files that a map of this name is written to, in the geometry that came in.

    An ending that suits the geometry is kept; another one is replaced. A joined image has one
    file a part, with the part's name before the ending.
    """
    path = Path(path)
    stem = map_stem(path)
    ending = path.name[len(stem.name) :]
    result = []
    for layout in geometry.map_layouts:
        suffix = ending if ending in MAP_SUFFIXES[layout.type] else layout.suffix
        part = f".{layout.name}" if layout.name else ""
        result.append(stem.with_name(f"{stem.name}{part}{suffix}"))
    return result


def require_map_suffix(path: str | Path, geometry: Geometry) -> None:
    """Refuse a map's name whose ending does not suit the geometry.

    Raises
    ------
    InputError
        Names the endings that do.
    """
    path = Path(path)
    ending = path.name[len(map_stem(path).name) :]
    types = sorted({layout.type for layout in geometry.map_layouts})
    if not any(ending in MAP_SUFFIXES[of] for of in types):
        named = ", ".join(suffix for of in types for suffix in MAP_SUFFIXES[of])
        raise InputError(
            f"{path}: a map of this dataset cannot be written as '{ending}', since its images were "
            f"of another kind; let the name end in {named}"
        )


def write_map(path: str | Path, values: np.ndarray, geometry: Geometry) -> list[Path]:
    """Write a map of one value a voxel, NaN elsewhere, and return its files.

    The format is that of the images (NIfTI, GIFTI, FreeSurfer, CIFTI, a table); see
    :func:`map_paths` for the names. Equal maps are equal byte for byte.
    """
    paths = map_paths(path, geometry)
    values = np.asarray(values, dtype=np.float64)
    layout_of_voxel = geometry.layout_of_voxel
    positions = geometry.map_positions()
    for number, (layout, target) in enumerate(zip(geometry.map_layouts, paths, strict=True)):
        here = np.flatnonzero(layout_of_voxel == number)
        if layout.type == "table":
            content = _table_map(values[here], geometry.subset(here), layout)
        else:
            full = np.full(layout.size, np.nan, dtype=np.float32)
            full[positions[here]] = values[here]
            content = _map_content(target.name, full, layout, geometry)
        if target.name.endswith((".nii.gz", ".mgz")):
            # A fixed time stamp keeps equal maps equal byte for byte.
            content = gzip.compress(content, compresslevel=5, mtime=0)
        with replacing(target) as temporary:
            Path(temporary).write_bytes(content)
    return paths


def _map_content(name: str, full: np.ndarray, layout: Layout, geometry: Geometry) -> bytes:
    """Return the bytes of a map (before compression) of all places of a layout."""
    import nibabel

    if layout.type == "cifti":
        return _cifti_map(full, layout)
    if layout.type == "nifti":
        volume = full.reshape(layout.shape)
        if name.endswith((".mgz", ".mgh")):
            return nibabel.MGHImage(volume, np.asarray(layout.affine)).to_bytes()
        image = nibabel.Nifti1Image(volume, np.asarray(layout.affine))
        image.header.set_xyzt_units("mm")
        return image.to_bytes()
    if name.endswith(".gii"):
        array = nibabel.gifti.GiftiDataArray(
            full, intent="NIFTI_INTENT_NONE", datatype="NIFTI_TYPE_FLOAT32"
        )
        meta = {"AnatomicalStructurePrimary": layout.structure} if layout.structure else {}
        return nibabel.gifti.GiftiImage(
            darrays=[array], meta=nibabel.gifti.GiftiMetaData(meta)
        ).to_bytes()
    if name.endswith((".mgz", ".mgh")):
        return nibabel.MGHImage(full.reshape(-1, 1, 1), np.eye(4)).to_bytes()
    # The curvature format of FreeSurfer: its mark, numbers of vertices, faces, values a vertex.
    faces = 0 if geometry.triangles is None else len(geometry.triangles)
    head = np.array([len(full), faces, 1], dtype=">i4")
    return b"\xff\xff\xff" + head.tobytes() + full.astype(">f4").tobytes()


def cifti_axis(models: Sequence[dict[str, Any]]):
    """Return the nibabel axis of brain models as :class:`Layout` holds them."""
    from nibabel.cifti2 import BrainModelAxis

    axis = None
    for model in models:
        cells = numbers_of(model["runs"])
        if model["kind"] == "surface":
            part = BrainModelAxis.from_surface(cells, int(model["size"][0]), model["structure"])
        else:
            shape = tuple(int(size) for size in model["size"])
            place = np.stack(np.unravel_index(cells, shape, order="F"), axis=1)
            part = BrainModelAxis(
                model["structure"],
                voxel=place,
                affine=np.asarray(model["affine"]),
                volume_shape=shape,
            )
        axis = part if axis is None else axis + part
    return axis


def _cifti_map(full: np.ndarray, layout: Layout) -> bytes:
    from nibabel.cifti2 import Cifti2Image, ScalarAxis

    data = full.reshape(len(layout.maps), -1)
    axes = (ScalarAxis(layout.maps), cifti_axis(layout.models))
    image = Cifti2Image(data, header=axes)
    image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_SCALARS")
    image.update_headers()
    return image.to_bytes()


def _table_map(values: np.ndarray, geometry: Geometry, layout: Layout) -> bytes:
    """Return the table of a map: the columns' names, their coordinates where they have any."""
    names = ["voxel"]
    columns = [geometry.name]
    if layout.smoothable:
        for k, axis in enumerate("xyz"[: geometry.coordinates.shape[1]]):
            names.append(axis)
            columns.append([f"{value:.8g}" for value in geometry.coordinates[:, k]])
    names.append("value")
    columns.append(["NA" if np.isnan(value) else f"{value:.8g}" for value in values])
    lines = ["\t".join(names), *("\t".join(cells) for cells in zip(*columns, strict=True))]
    return ("\n".join(lines) + "\n").encode()
