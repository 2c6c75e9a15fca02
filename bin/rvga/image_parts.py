"""The parts of an image: their geometry from a mask, surface or table, and their values."""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rvga.errors import InputError
from rvga.geometry import (
    AFFINE_TOLERANCE_MM,
    Geometry,
    Layout,
    grid_distance,
    in_another_order,
    join,
    len_of_runs,
    numbers_of,
)
from rvga.image_files import (
    GZIP_MAGIC,
    TABLE_KINDS,
    Surface,
    affine_text,
    begins_with_number,
    by,
    content_of,
    head_of,
    hemisphere,
    in_millimetres,
    is_pair,
    kind_name,
    kind_of,
    orientation,
    read_cifti,
    read_metric,
    read_surface,
    read_vertices,
    read_volume,
)
from rvga.image_tables import open_table, read_coordinates, share_of_rows
from rvga.voxel_match import models_difference

COORDINATE_RULES = ("auto", "index", "none")
_IMAGE_NAME = re.compile(r"\.(nii|img|hdr|mgh|mgz|gii)(\.gz)?$", re.IGNORECASE)
_SURFACE_SUFFIX = {"gifti": ".func.gii", "mgh": ".mgh", "curv": ".curv"}
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SIDES = {"L": ("LEFT", "CortexLeft"), "R": ("RIGHT", "CortexRight")}


@dataclass(frozen=True)
class PartFiles:
    """What says where the voxels of a part lie: files, each optional, and the part's name."""

    name: str = ""
    mask: Path | None = None
    surfaces: tuple[Path, ...] = ()
    coordinates: Path | None = None


@dataclass(frozen=True)
class Rules:
    """How images are read.

    Attributes
    ----------
    coordinates : str
        ``auto``; ``index``: the number of the column or vertex is its coordinate;
        ``none``: coordinates mean nothing, and nothing is smoothed.
    cifti_maps : tuple of str
        Names or numbers (from 1) of the maps to read from CIFTI or GIFTI; empty is all.
    zero_is_missing : bool
        Whether a value of exactly 0 is missing. Not finite always is.
    """

    coordinates: str = "auto"
    cifti_maps: tuple[str, ...] = ()
    zero_is_missing: bool = False


class PartReader:
    """Reads the values of one part; made by :func:`open_part`.

    Attributes
    ----------
    geometry : Geometry
        Of the part's voxels.
    collective : bool
        Whether one file holds many subjects: then :meth:`rows`, else :meth:`read`.
    left_out : sequence of str
        Columns of a table that are neither the subjects nor voxels.
    maps : Maps, optional
        Which maps of a file of several are read.
    """

    geometry: Geometry
    collective = False
    left_out: Sequence[str] = ()
    maps: Maps | None = None

    def __init__(self, rules: Rules):
        self._rules = rules

    def read(self, path: Path, data: Path | None = None, matrix: Path | None = None) -> np.ndarray:
        """Return the values (N,) float32 of one image, NaN where missing.

        ``data`` and ``matrix`` are the files of values and of SPM's affine that go with a header.

        Raises
        ------
        InputError
            The file is damaged, on another grid or surface, or has no value, or zeros only.
        """
        raise NotImplementedError

    def rows(
        self, share: tuple[int, int] = (1, 1), wanted: Collection[str] | None = None
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield ``(subject, values)`` of a file of many subjects, (N,) float32."""
        raise NotImplementedError

    def ids(self, share: tuple[int, int] = (1, 1)) -> Iterator[str]:
        """Yield the subjects of a share of a file of many subjects."""
        raise NotImplementedError

    def _values(self, values: np.ndarray, place: object) -> np.ndarray:
        """Return values as float32 with NaN for missing ones; refuse those without any."""
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.asarray(values).astype(np.float32)
        finite = np.isfinite(values)
        if not finite.any():
            raise InputError(
                f"{place}: no voxel inside the mask has a finite value; remove the image, or "
                "check that it belongs to the mask"
            )
        if not values[finite].any():
            raise InputError(
                f"{place}: every value inside the mask is 0; remove the image, or make it again"
            )
        values[~finite] = np.nan
        if self._rules.zero_is_missing:
            values[values == 0] = np.nan
        return values

    def _values_of_maps(self, values: np.ndarray, path: Path) -> np.ndarray:
        """Return the values (maps, N) of one image as a row; refuse a map without any."""
        places = [path] if len(values) == 1 else [f"{path}, map {k + 1}" for k in self.maps.chosen]
        rows = (self._values(row, place) for row, place in zip(values, places, strict=True))
        return np.concatenate(list(rows))


class Maps:
    """Which maps of CIFTI or GIFTI files are read: the chosen ones, in the order of the choice.

    Names of maps often hold a subject's id, so what all names of a file begin or end with says
    nothing. What is left tells whether another file has the same maps, and in the same order.

    Parameters
    ----------
    names : sequence of str
        Of all maps of the first image.
    rules : Rules
    path : path
        The first image.

    Attributes
    ----------
    chosen : list of int
        Numbers, from 0, in the first image.
    labels : list of str
        What the chosen maps are called: the word that chose them where it is a name, else
        ``map1``, so that no subject's id is among them.
    order : str
        :meth:`order_of` the first image.
    others : list of Path
        Files read since whose maps have other names; they were taken by their numbers.
    """

    def __init__(self, names: Sequence[str], rules: Rules, path: Path):
        self._wanted = rules.cifti_maps
        self._first = path.name
        self.chosen = self._choose(names, path)
        self._require_distinct(self.chosen, path)
        words = self._wanted or [""] * len(self.chosen)
        self.labels = [
            word if word in names else f"map{k + 1}"
            for word, k in zip(words, self.chosen, strict=True)
        ]
        self._by_name = all(word in names for word in words)
        self._names = [names[k] for k in self.chosen]
        self.order = self.order_of(names, self.chosen)
        self.others: list[Path] = []

    def of(self, names: Sequence[str], path: Path) -> list[int]:
        """Return which maps (from 0) of a file with these names are read.

        Raises
        ------
        InputError
            A map that was chosen is not there, there are more or fewer, or they stand in another
            order.
        """
        chosen = self._choose(names, path)
        if len(chosen) != len(self.chosen):
            raise InputError(
                f"{path}: has {len(chosen)} maps, but {self._first} has {len(self.chosen)}; choose "
                "with --cifti_maps"
            )
        theirs = self.order_of(names, chosen)
        if in_another_order(theirs, self.order):
            raise InputError(
                f"{path}: has its maps in another order ({', '.join(names[k] for k in chosen)}) "
                f"than {self._first} ({', '.join(self._names)}); choose them by name with "
                "--cifti_maps"
            )
        self._require_distinct(chosen, path)
        if theirs != self.order:
            self.others.append(path)
        return chosen

    def order_of(self, names: Sequence[str], chosen: Sequence[int]) -> str:
        """Return digests of a file's names of maps, in any order and of the chosen ones in theirs.

        Empty where the maps are chosen by name, or have no names of their own.
        """
        plain = _without_common(names)
        if self._by_name or not any(plain):
            return ""
        digests = (
            hashlib.blake2b("\n".join(of).encode(), digest_size=8).hexdigest()
            for of in (sorted(plain), [plain[k] for k in chosen])
        )
        return " ".join(digests)

    def _choose(self, names: Sequence[str], path: Path) -> list[int]:
        chosen = []
        for word in self._wanted or map(str, range(1, len(names) + 1)):
            if word in names and self._wanted:
                if list(names).count(word) > 1:
                    raise InputError(f"{path}: map '{word}' is there twice; give its number")
                chosen.append(list(names).index(word))
            elif word.isdigit() and 1 <= int(word) <= len(names):
                chosen.append(int(word) - 1)
            else:
                raise InputError(
                    f"{path}: has no map '{word}' (--cifti_maps); its {len(names)} maps are "
                    f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
                )
        return chosen

    def _require_distinct(self, chosen: Sequence[int], path: Path) -> None:
        if len(set(chosen)) < len(chosen):
            raise InputError(
                f"{path}: --cifti_maps {','.join(self._wanted)} chooses a map twice; name each once"
            )


def _without_common(names: Sequence[str]) -> list[str]:
    """Return names without what all of them begin with and end with."""
    begin = _common_start(names)
    rest = [name[begin:] for name in names]
    end = _common_start([name[::-1] for name in rest])
    return [name[: len(name) - end] for name in rest]


def _common_start(names: Sequence[str]) -> int:
    """Return with how many letters all names begin alike."""
    first, last = min(names), max(names)
    same = (one == other for one, other in zip(first, last, strict=False))
    return next((k for k, equal in enumerate(same) if not equal), min(len(first), len(last)))


def open_part(files: PartFiles, rules: Rules, image: Path, subjects: Sequence[str] | None = None):
    """Return the reader of a part, chosen by the content of its first image.

    Parameters
    ----------
    files : PartFiles
    rules : Rules
    image : path
        The first image, or the one file of many subjects.
    subjects : sequence of str, optional
        Subjects of the volumes of one file, in their order. An image of its own for every
        subject where not given (a table has its subjects itself).

    Raises
    ------
    InputError
        The files do not go together, or what the kind of image needs is missing.
    """
    head = head_of(image)
    kind = kind_of(head)
    if kind == "cifti":
        if subjects is not None:
            raise InputError(
                f"{image}: the maps of a CIFTI file are maps of one subject; give one file a "
                "subject"
            )
        return CiftiReader(files, rules, image)
    surface = files.surfaces[0] if len(files.surfaces) == 1 else None
    if len(files.surfaces) > 1:
        raise InputError(
            f"{image}: is {kind_name(kind)}, which lies on one surface, but {len(files.surfaces)} "
            "are given; join hemispheres by the column part of the samplesheet and --parts"
        )
    on_vertices = kind in ("curv", "gifti")
    on_vertices |= kind in ("mgh", "nifti") and surface is not None
    on_vertices |= kind == "mgh" and _is_vector(image, subjects is not None)
    on_vertices |= kind == "text" and begins_with_number(head)
    if files.coordinates is not None and (on_vertices or kind not in TABLE_KINDS):
        raise InputError(
            f"{files.coordinates}: a table of coordinates is for tables, but {image.name} is "
            f"{kind_name(kind)}; leave out --coordinates"
        )
    if on_vertices:
        reader = VertexReader(files, rules, image, kind, subjects is not None)
    elif kind in ("nifti", "analyze", "mgh"):
        reader = VolumeReader(files, rules, image, kind)
    elif kind in TABLE_KINDS:
        if subjects is not None:
            raise InputError(f"{image}: a table names its subjects itself; leave out the list")
        return TableReader(files, rules, image)
    else:
        raise InputError(
            f"{image}: is {kind_name(kind)}, which is read neither as an image nor as a table; "
            "use NIfTI, MGH, GIFTI, FreeSurfer curv, CIFTI, TSV, parquet or HDF5"
        )
    return reader if subjects is None else SeriesReader(reader, rules, image, kind, subjects)


# -------------------------------------------------------------------------------------------
# Volumes
# -------------------------------------------------------------------------------------------


def volume_geometry(path: str | Path, data: Path | None = None) -> Geometry:
    """Return the geometry of the voxels above 0 in a mask file, in C order of the grid.

    Raises
    ------
    InputError
        As :func:`~rvga.image_files.read_volume`, or fewer than 2 voxels are above 0.
    """
    volume, affine = read_volume(path, "mask", data)
    with np.errstate(invalid="ignore"):
        index = np.argwhere(np.isfinite(volume) & (volume > 0)).astype(np.int32)
    _require_voxels(path, len(index))
    return Geometry(affine=affine, shape=tuple(int(size) for size in volume.shape), index=index)


def require_same_grid(
    path: Path, shape: Sequence[int], affine: np.ndarray, geometry: Geometry, mask_name: str
) -> None:
    """Refuse an image that is on another grid than the mask.

    Raises
    ------
    InputError
        Names both shapes or affines, and both orientations where they differ.
    """
    theirs, ours = orientation(affine), orientation(geometry.affine)
    turned = (
        f" (its axes point to {theirs}, the mask's to {ours}: the orientations are mixed)"
        if theirs != ours
        else ""
    )
    if tuple(shape) != geometry.shape:
        raise InputError(
            f"{path}: has shape {by(shape)}, but the mask {mask_name} has "
            f"{by(geometry.shape)}{turned}; resample the image to the mask's grid"
        )
    apart = grid_distance(affine, geometry.affine, geometry.shape)
    if apart > AFFINE_TOLERANCE_MM:
        raise InputError(
            f"{path}: its affine ({affine_text(affine)}) is another one than that of the mask "
            f"{mask_name} ({affine_text(geometry.affine)}){turned}: the corners of the grids are "
            f"up to {apart:.4g} mm apart ({AFFINE_TOLERANCE_MM:g} mm are allowed); "
            "resample the image to the mask's grid"
        )


class VolumeReader(PartReader):
    """Images on the grid of a mask: NIfTI, Analyze, MGH."""

    def __init__(self, files: PartFiles, rules: Rules, image: Path, kind: str):
        super().__init__(rules)
        if files.mask is None:
            raise InputError(
                f"{image}: is a volume ({kind_name(kind)}), which needs a mask; give --mask"
            )
        if rules.coordinates == "index":
            raise InputError(
                "--coordinates index is for tables and surfaces; leave it out for volumes"
            )
        self._mask_name = files.mask.name
        self.geometry = volume_geometry(files.mask)
        if files.name or kind == "mgh" or rules.coordinates == "none":
            self.geometry = _described(
                self.geometry,
                replace(
                    self.geometry.map_layouts[0],
                    name=files.name,
                    suffix=".mgz" if kind == "mgh" else ".nii.gz",
                    smoothable=rules.coordinates != "none",
                ),
            )

    def read(self, path, data=None, matrix=None):
        """Return the values of one image at the mask's voxels."""
        volume, affine = read_volume(path, "image", data, matrix)
        self.check(path, volume.shape, affine)
        return self._values(self.pick(volume), path)

    def check(self, path: Path, shape: Sequence[int], affine: np.ndarray) -> None:
        """Refuse another grid than the mask's."""
        require_same_grid(path, shape, affine, self.geometry, self._mask_name)

    def pick(self, volume: np.ndarray) -> np.ndarray:
        """Return the values at the mask's voxels."""
        return volume[tuple(self.geometry.index.T)]


def _described(geometry: Geometry, layout: Layout) -> Geometry:
    """Return a grid's geometry with its description said in full."""
    return replace(
        geometry,
        layouts=(layout,),
        part_index=np.zeros(geometry.n_voxels, dtype=np.int16),
        position=geometry.map_positions(),
        places=geometry.coordinates,
    )


# -------------------------------------------------------------------------------------------
# Vertices of a surface
# -------------------------------------------------------------------------------------------


class VertexReader(PartReader):
    """Images of one value a vertex: curv, GIFTI metric, MGH, text."""

    def __init__(self, files: PartFiles, rules: Rules, image: Path, kind: str, series: bool):
        super().__init__(rules)
        surface: Surface | None = None
        kept = None
        if files.surfaces:
            surface = read_surface(files.surfaces[0])
            self._origin = f"the surface {files.surfaces[0].name}"
            size = len(surface.points)
        if files.mask is not None:
            mask = read_vertices(files.mask, "mask", surface.structure if surface else "")
            if surface is not None and len(mask) != size:
                raise InputError(
                    f"{files.mask}: the mask has {len(mask)} values, but the surface "
                    f"{files.surfaces[0].name} has {size} vertices; give the mask of this surface"
                )
            if surface is None:
                self._origin = f"the mask {files.mask.name}"
            size = len(mask)
            with np.errstate(invalid="ignore"):
                kept = np.flatnonzero(np.isfinite(mask) & (mask > 0))
            _require_voxels(files.mask, len(kept))
        self._structure = "" if surface is None else surface.structure
        metric = read_metric(image) if kind == "gifti" else None
        if metric is not None:
            self.maps = Maps(metric.maps, rules, image)
            self._structure = self._structure or metric.structure
        if surface is None and files.mask is None:
            if series:
                raise InputError(
                    f"{image}: is values of vertices; give the surface they lie on (--surface) or "
                    "a mask"
                )
            size = len(read_vertices(image)) if metric is None else metric.values.shape[1]
            self._origin = f"the first image {image.name}"
        self._size = size
        kept = np.arange(size) if kept is None else kept
        _require_voxels(image, len(kept))
        smoothable = rules.coordinates == "index" or (
            surface is not None and rules.coordinates != "none"
        )
        if surface is None or rules.coordinates == "index":
            places = kept.astype(np.float64)[:, None]
        else:
            places = surface.points[kept]
        on_surface = surface is not None and rules.coordinates != "index"
        self._kept = kept
        self.geometry = Geometry(
            affine=None,
            shape=None,
            index=None,
            type="surface",
            layouts=(
                Layout(
                    name=files.name,
                    type="surface",
                    suffix=_SURFACE_SUFFIX.get(kind, ".func.gii"),
                    n_vertices=size,
                    structure=self._structure,
                    smoothable=smoothable,
                ),
            ),
            part_index=np.zeros(len(kept), dtype=np.int16),
            position=kept.astype(np.int64),
            places=places,
            vertex=kept.astype(np.int32) if on_surface else None,
            vertices=surface.points if on_surface else None,
            triangles=surface.triangles if on_surface else None,
        )
        if self.maps is not None and len(self.maps.chosen) > 1:
            self.geometry = self._of_maps(self.maps)

    def _of_maps(self, maps: Maps) -> Geometry:
        """Return the geometry of several maps on the same vertices, each a part."""
        layout = self.geometry.map_layouts[0]
        names = [
            label if _FILE_NAME.fullmatch(label) else f"map{k + 1}"
            for label, k in zip(maps.labels, maps.chosen, strict=True)
        ]
        named = [".".join(word for word in (layout.name, name) if word) for name in names]
        return join(
            [replace(self.geometry, layouts=(replace(layout, name=name),)) for name in named]
        )

    def read(self, path, data=None, matrix=None):
        """Return the values of one image at the kept vertices, one map after another."""
        if self.maps is None:
            values = read_vertices(path, "image", self._structure)[None]
        else:
            metric = read_metric(path, "image", self._structure)
            values = metric.values[self.maps.of(metric.maps, path)]
        self.check(path, values.shape[1:], None)
        return self._values_of_maps(values[:, self._kept], path)

    def check(self, path: Path, shape: Sequence[int], affine: np.ndarray | None) -> None:
        """Refuse another number of vertices than the surface's."""
        count = int(np.prod(shape, dtype=np.int64))
        if count != self._size:
            raise InputError(
                f"{path}: has {count} vertices, but {self._origin} has {self._size}; "
                "resample the image to this surface, or give its own"
            )

    def pick(self, volume: np.ndarray) -> np.ndarray:
        """Return the values at the kept vertices."""
        return volume.reshape(-1, order="F")[self._kept]


# -------------------------------------------------------------------------------------------
# CIFTI
# -------------------------------------------------------------------------------------------


class CiftiReader(PartReader):
    """CIFTI dense scalars: the chosen maps, each structure a section."""

    def __init__(self, files: PartFiles, rules: Rules, image: Path):
        super().__init__(rules)
        if rules.coordinates == "index":
            raise InputError("--coordinates index is for tables and surfaces; leave it out")
        if files.coordinates is not None:
            raise InputError(
                f"{files.coordinates}: a table of coordinates is for tables, but {image.name} is "
                "CIFTI; give the surfaces of its hemispheres (--surface)"
            )
        first = read_cifti(image)
        self._models, self._origin = first.models, image.name
        self.maps = Maps(first.maps, rules, image)
        maps = self.maps.labels
        places, vertex, surfaces, with_places = self._places(files, rules, image)
        structure = np.concatenate(
            [np.full(len_of_runs(m["runs"]), k) for k, m in enumerate(self._models)]
        )
        kept = np.arange(len(structure))
        if files.mask is not None:
            mask = read_cifti(files.mask, "mask")
            self._require_same_models(mask.models, files.mask)
            kept = np.flatnonzero(np.isfinite(mask.values[0]) & (mask.values[0] > 0))
        _require_voxels(files.mask or image, len(kept))
        self._kept = kept
        m, g = len(maps), len(structure)
        short = [model["structure"].removeprefix("CIFTI_STRUCTURE_") for model in self._models]
        sections = [
            " ".join(word for word in (name if m > 1 else "", of) if word)
            for name in maps
            for of in short
        ]
        layout = Layout(
            name=files.name,
            type="cifti",
            suffix=".dscalar.nii",
            sections=sections,
            maps=maps if m > 1 or rules.cifti_maps else ["map"],
            models=self._models,
            smoothable=with_places,
        )
        self.geometry = Geometry(
            affine=None,
            shape=None,
            index=None,
            type="cifti",
            layouts=(layout,),
            part_index=np.concatenate(
                [structure[kept] + k * len(self._models) for k in range(m)]
            ).astype(np.int16),
            position=np.concatenate([kept + k * g for k in range(m)]).astype(np.int64),
            places=np.tile(places[kept], (m, 1)),
            vertex=np.tile(vertex[kept], m).astype(np.int32) if surfaces else None,
            vertices=np.concatenate([of.points for of in surfaces]) if surfaces else None,
            triangles=_stacked_triangles(surfaces) if surfaces else None,
        )

    def _places(self, files: PartFiles, rules: Rules, image: Path):
        """Return coordinates (g, 3) or an index (g, 1), vertices, surfaces, whether they count."""
        surfaces = [read_surface(path) for path in files.surfaces]
        given: dict[str, int] = {}
        on_surface = [model for model in self._models if model["kind"] == "surface"]
        for number, surface in enumerate(surfaces):
            fits = [
                model["structure"] for model in on_surface if _is_of(model, surface, files.surfaces)
            ]
            if len(fits) != 1 or fits[0] in given:
                raise InputError(
                    f"{files.surfaces[number]}: which brain model of {image.name} is it the "
                    f"surface of ({', '.join(m['structure'] for m in on_surface)})? Its structure "
                    "should stand in the file, or L or R in its name, once each"
                )
            given[fits[0]] = number
        total = sum(len_of_runs(model["runs"]) for model in self._models)
        places = np.full((total, 3), np.nan)
        vertex = np.full(total, -1, dtype=np.int64)
        first_vertex = np.cumsum([0, *(len(surface.points) for surface in surfaces)])
        first, lacking = 0, []
        for model in self._models:
            cells = numbers_of(model["runs"])
            here = slice(first, first + len(cells))
            first += len(cells)
            if model["kind"] == "voxels":
                ijk = np.stack(np.unravel_index(cells, model["size"], order="F"), axis=1)
                affine = np.asarray(model["affine"])
                places[here] = ijk @ affine[:3, :3].T + affine[:3, 3]
            elif model["structure"] in given:
                surface = surfaces[given[model["structure"]]]
                if len(surface.points) != model["size"][0]:
                    raise InputError(
                        f"{surface.name}: has {len(surface.points)} vertices, but the brain model "
                        f"{model['structure']} of {image.name} has {model['size'][0]}; give the "
                        "surface of that resolution"
                    )
                places[here] = surface.points[cells]
                vertex[here] = cells + first_vertex[given[model["structure"]]]
            else:
                lacking.append(model["structure"])
        if rules.coordinates == "none" or len(lacking) == len(self._models):
            if lacking:
                return np.arange(total, dtype=np.float64)[:, None], vertex, [], False
            return places, vertex, surfaces, False
        if lacking:
            raise InputError(
                f"{image}: its brain model {lacking[0]} has no coordinates, while others have "
                f"({len(lacking)} of {len(self._models)} lack them); give its surface with "
                "--surface, or --coordinates none to go without smoothing"
            )
        return places, vertex, surfaces, True

    def _require_same_models(self, models: list[dict[str, Any]], path: Path) -> None:
        difference = models_difference(models, self._models)
        if difference:
            raise InputError(
                f"{path}: its brain models are other ones than those of {self._origin}: "
                f"{difference}; resample the file"
            )

    def read(self, path, data=None, matrix=None):
        """Return the values of the chosen maps, one map after another."""
        cifti = read_cifti(path)
        self._require_same_models(cifti.models, path)
        chosen = self.maps.of(cifti.maps, path)
        return self._values_of_maps(cifti.values[chosen][:, self._kept], path)


def _is_of(model: dict[str, Any], surface: Surface, paths: Sequence[Path]) -> bool:
    """Return whether a surface is that of a brain model, by what it says or its name says."""
    for side, (in_cifti, in_gifti) in _SIDES.items():
        if in_cifti in model["structure"]:
            same = surface.structure == in_gifti or (
                not surface.structure and hemisphere(surface.name) == side
            )
            # One surface for one hemisphere needs no name.
            unnamed = not surface.structure and not hemisphere(surface.name)
            return same or (unnamed and len(paths) == 1 and len(surface.points) == model["size"][0])
    return len(surface.points) == model["size"][0]


def _stacked_triangles(surfaces: Sequence[Surface]) -> np.ndarray:
    first = np.cumsum([0, *(len(surface.points) for surface in surfaces)])
    stacked = [of.triangles + first[k] for k, of in enumerate(surfaces)]
    return np.concatenate(stacked).astype(np.int32)


# -------------------------------------------------------------------------------------------
# Files of many subjects
# -------------------------------------------------------------------------------------------


class TableReader(PartReader):
    """A table with a row a subject."""

    collective = True

    def __init__(self, files: PartFiles, rules: Rules, image: Path):
        super().__init__(rules)
        if _IMAGE_NAME.search(image.name):
            raise InputError(
                f"{image}: is named as an image but holds no image (text, or a table); check the "
                "file, or give a table its own ending"
            )
        for given, name in ((files.mask, "--mask"), (*files.surfaces, None)[:1] + ("--surface",)):
            if given is not None:
                raise InputError(
                    f"{image}: is a table, which takes no {name}; give its voxels' places with "
                    "--coordinates"
                )
        self.table = open_table(image)
        self.column_bytes = self.table.column_bytes
        self.left_out = self.table.left_out
        columns = self.table.columns
        places = self.table.coordinates
        if files.coordinates is not None:
            places = read_coordinates(files.coordinates, columns)
        smoothable = rules.coordinates == "index" or (
            places is not None and rules.coordinates != "none"
        )
        if places is None or rules.coordinates == "index":
            places = np.arange(len(columns), dtype=np.float64)[:, None]
        self.geometry = Geometry(
            affine=None,
            shape=None,
            index=None,
            type="table",
            layouts=(
                Layout(name=files.name, type="table", suffix=".map.tsv", smoothable=smoothable),
            ),
            part_index=np.zeros(len(columns), dtype=np.int16),
            position=np.arange(len(columns), dtype=np.int64),
            places=places,
            name=np.array(columns, dtype=object),
        )

    def rows(self, share=(1, 1), wanted=None):
        """Yield the rows of a share."""
        for place, subject, values in self.table.rows(share, wanted):
            yield subject, self._values(values, place)

    def ids(self, share=(1, 1)):
        """Yield the subjects of a share."""
        yield from self.table.ids(share)


class SeriesReader(PartReader):
    """One file with a volume (or one value a vertex) for each of many subjects."""

    collective = True

    def __init__(self, reader, rules: Rules, image: Path, kind: str, subjects: Sequence[str]):
        super().__init__(rules)
        if kind not in ("nifti", "mgh"):
            raise InputError(
                f"{image}: is {kind_name(kind)}, but a file of several volumes is NIfTI or MGH"
            )
        self.geometry = reader.geometry
        self._reader = reader
        self._path = image
        self._subjects = list(subjects)
        self._series = _Series(image, kind)
        # Surface data in one row keep their subjects in the fourth dimension, as volumes do.
        shape = self._series.shape
        if self._series.count != len(self._subjects):
            raise InputError(
                f"{image}: has {self._series.count} volumes (shape {by(self._series.full_shape)}), "
                f"but the list of subjects has {len(self._subjects)} ids; give one id a volume, in "
                "their order"
            )
        reader.check(image, shape, self._series.affine)

    def ids(self, share=(1, 1)):
        """Yield the subjects of a share."""
        begin, end = share_of_rows(len(self._subjects), share)
        yield from self._subjects[begin:end]

    def rows(self, share=(1, 1), wanted=None):
        """Yield the subjects of a share, in the order of the file."""
        begin, end = share_of_rows(len(self._subjects), share)
        chosen = [
            row for row in range(begin, end) if wanted is None or self._subjects[row] in wanted
        ]
        for row, volume in zip(chosen, self._series.volumes(chosen), strict=True):
            place = f"{self._path}, volume {row + 1} (subject '{self._subjects[row]}')"
            yield self._subjects[row], self._values(self._reader.pick(volume), place)


@dataclass
class _Series:
    """The volumes of one NIfTI or MGH file, one in memory at a time."""

    path: Path
    kind: str
    shape: tuple[int, ...] = ()
    count: int = 0
    full_shape: tuple[int, ...] = ()
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))

    def __post_init__(self):
        import nibabel

        head = head_of(self.path)
        if is_pair(head):
            raise InputError(
                f"{self.path}: a header whose values are in another file; convert the pair to one "
                ".nii"
            )
        try:
            if self.kind == "mgh":
                header = nibabel.MGHImage.header_class(head[:284].ljust(284, b"\0"))
                self._slope, self._intercept, self._offset = 1.0, 0.0, 284
                self.affine = header.get_affine()
            else:
                size = 540 if head[4:7] == b"n+2" else 348
                kind = nibabel.Nifti2Header if size == 540 else nibabel.Nifti1Header
                header = kind(head[:size], check=True)
                slope, intercept = header.get_slope_inter()
                self._slope = 1.0 if slope is None else float(slope)
                self._intercept = 0.0 if intercept is None else float(intercept)
                self._offset = int(header.get_data_offset())
                self.affine = in_millimetres(header.get_best_affine(), header)
            self.full_shape = tuple(int(size) for size in header.get_data_shape())
            self._dtype = header.get_data_dtype()
        except (
            nibabel.spatialimages.HeaderDataError,
            nibabel.wrapstruct.WrapStructError,
            nibabel.freesurfer.mghformat.MGHError,
            ValueError,
            KeyError,
            OverflowError,
        ) as error:
            raise InputError(
                f"{self.path}: the header is damaged ({error}); copy it again"
            ) from error
        if self._dtype.fields is not None or self._dtype.kind not in "iuf":
            raise InputError(
                f"{self.path}: voxels are of type {self._dtype}, but real numbers are due"
            )
        if not self.full_shape or min(self.full_shape) < 1:
            raise InputError(f"{self.path}: has shape {by(self.full_shape)}; copy it again")
        shape = (*self.full_shape, 1, 1, 1)
        self.shape, self.count = shape[:3], int(np.prod(shape[3:]))
        self._bytes = int(np.prod(self.shape, dtype=np.int64)) * self._dtype.itemsize
        with self.path.open("rb") as file:
            self._compressed = file.read(2) == GZIP_MAGIC
        size = self.path.stat().st_size
        due = self._offset + self._bytes * self.count
        if not self._compressed and size < due:
            raise InputError(
                f"{self.path}: cut short: its header announces {due} bytes, there are {size}; "
                "copy it again"
            )

    def volumes(self, rows: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield some volumes in ascending order; a compressed file is read up to the last."""
        opened = gzip.open if self._compressed else open
        with opened(self.path, "rb") as file:
            for row in rows:
                try:
                    file.seek(self._offset + row * self._bytes)
                    content = file.read(self._bytes)
                except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                    raise InputError(
                        f"{self.path}: the compressed file is cut short or damaged ({error}); "
                        "copy it again"
                    ) from error
                if len(content) < self._bytes:
                    raise InputError(
                        f"{self.path}: cut short within volume {row + 1}; copy it again"
                    )
                volume = np.frombuffer(content, dtype=self._dtype).reshape(self.shape, order="F")
                if self._slope != 1.0 or self._intercept != 0.0:
                    volume = volume * self._slope + self._intercept
                yield volume


def _is_vector(path: Path, series: bool) -> bool:
    """Return whether an MGH file has one row of values (for every subject, in a series)."""
    shape = _Series(path, "mgh").full_shape
    return sum(size > 1 for size in (shape[:3] if series else shape)) <= 1


def map_values(path: str | Path, geometry: Geometry, what: str) -> np.ndarray:
    """Return the values (N,) float64 that one map has at the voxels of a geometry.

    The map is of the images' kind: a volume, values of vertices, CIFTI (its first map, for every
    map of the images), or a table with columns ``voxel`` and ``value``.

    Raises
    ------
    InputError
        The map is of another kind or size, or the image is of several files.
    """
    path = Path(path)
    if len(geometry.map_layouts) > 1:
        raise InputError(
            f"{path}: {what} of images of several parts are not read from one file; leave it out"
        )
    layout = geometry.map_layouts[0]
    positions = geometry.map_positions()
    if layout.type == "nifti":
        volume, affine = read_volume(path, what)
        grid = replace(geometry, affine=np.asarray(layout.affine), shape=tuple(layout.shape))
        require_same_grid(path, volume.shape, affine, grid, "of the images")
        return np.asarray(volume, dtype=np.float64).reshape(-1)[positions]
    if layout.type == "surface":
        values = read_vertices(path, what, layout.structure)
    elif layout.type == "cifti":
        cifti = read_cifti(path, what)
        difference = models_difference(cifti.models, layout.models)
        if difference:
            raise InputError(
                f"{path}: its brain models are other ones than the images' ({what}): {difference}"
            )
        values = np.tile(cifti.values[0].astype(np.float64), len(layout.maps))
    else:
        return _table_values(path, geometry, what)
    if len(values) != layout.size:
        raise InputError(
            f"{path}: has {len(values)} values ({what}), but the images' surface has "
            f"{layout.size} vertices; resample it"
        )
    return values[positions]


def _table_values(path: Path, geometry: Geometry, what: str) -> np.ndarray:
    lines = content_of(path, what).decode("utf-8-sig", errors="replace").splitlines()
    cells = [line.replace(",", "\t").split("\t") for line in lines if line.strip()]
    header = [name.strip() for name in cells[0]] if cells else []
    if not {"voxel", "value"} <= set(header):
        raise InputError(f"{path}, line 1: columns voxel and value are due ({what})")
    voxel, value = header.index("voxel"), header.index("value")
    found: dict[str, float] = {}
    for number, row in enumerate(cells[1:], start=2):
        try:
            text = row[value].strip()
            found[row[voxel].strip()] = np.nan if text in ("", "NA") else float(text)
        except (IndexError, ValueError) as error:
            raise InputError(
                f"{path}, line {number}: a voxel and a number are due ({what})"
            ) from error
    return np.array([found.get(name, np.nan) for name in geometry.name])


def _require_voxels(path: str | Path, number: int) -> None:
    if number < 2:
        raise InputError(f"{path}: the mask has {number} voxels above 0; at least 2 are needed")


def part_files(
    text: str,
    masks: Sequence[Path],
    surfaces: Sequence[Path],
    coordinates: Sequence[Path],
) -> PartFiles:
    """Return a part's files from ``name:mask:surfaces:coordinates``.

    Numbers count the files of each option from 1; 0 or nothing is none, and surfaces may be
    several, joined by ``+``. The name is empty for an image of one part.

    Raises
    ------
    InputError
        The text has another form, or a number is beyond the files.
    """
    found = re.fullmatch(r"([A-Za-z0-9._-]*):([0-9]*):([0-9+]*):([0-9]*)", text)
    if not found:
        raise InputError(f"--part {text}: should be name:mask:surfaces:coordinates, with numbers")

    def some(numbers: str, paths: Sequence[Path], what: str) -> tuple[Path, ...]:
        chosen = [int(number) for number in numbers.split("+") if number and int(number)]
        if any(number > len(paths) for number in chosen):
            raise InputError(f"--part {text}: there are only {len(paths)} files of {what}")
        return tuple(paths[number - 1] for number in chosen)

    name, mask, surface, places = found.groups()
    return PartFiles(
        name,
        next(iter(some(mask, masks, "--mask")), None),
        some(surface, surfaces, "--surface"),
        next(iter(some(places, coordinates, "--coordinates")), None),
    )


def pair_files(paths: Sequence[Path]) -> list[tuple[Path, Path | None, Path | None]]:
    """Return images with, where an image is a header, the files of values and affine after it.

    What belongs to a header and does not follow stands beside it.
    """
    result: list[tuple[Path, Path | None, Path | None]] = []
    waiting = False
    for path in paths:
        name = path.name.removesuffix(".gz").lower()
        if waiting and name.endswith(".img"):
            result[-1] = (result[-1][0], path, None)
            continue
        if waiting and name.endswith(".mat"):
            result[-1] = (*result[-1][:2], path)
            continue
        waiting = is_pair(head_of(path))
        result.append((path, None, None))
    return result
