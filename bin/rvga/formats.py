"""Every binary file of the pipeline: one HDF5 envelope, declared once.

A *kind* names its datasets with dimensions (letters, or literal sizes), dtype and
meaning. :func:`create` writes beside the target and renames when complete; :func:`open_file`
checks kind, version, dtypes and that each letter has one size throughout the file. Files hold
no time stamps and no paths, so the same input and options give the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from rvga.errors import InputError

Reader = TypeVar("Reader")
FORMAT = "rvga"
TEXT = "text"
_HASH_BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class Dataset:
    """One dataset of a kind: dimensions by letter (or a literal size), dtype, meaning."""

    dimensions: tuple[str, ...]
    dtype: str
    meaning: str
    optional: bool = False


@dataclass(frozen=True)
class Kind:
    """One kind of file: what it is for, its datasets and its required root attributes."""

    meaning: str
    version: int
    datasets: dict[str, Dataset]
    attributes: dict[str, str] = field(default_factory=dict)


_GEOMETRY = {
    "geometry/affine": Dataset(
        ("4", "4"), "f8", "voxel indices to millimetres (NIfTI)", optional=True
    ),
    "geometry/shape": Dataset(("3",), "i8", "shape of the image grid (NIfTI)", optional=True),
    "geometry/index": Dataset(
        ("N", "3"), "i4", "grid indices of each voxel (NIfTI)", optional=True
    ),
}
_GEOMETRY_ATTRIBUTE = {"geometry_type": "kind of geometry that maps are written in: 'nifti'"}

KINDS: dict[str, Kind] = {
    "images": Kind(
        "raw images of a batch of subjects inside the mask",
        1,
        {
            "images": Dataset(("n", "N"), "f4", "raw values, a row a subject"),
            "subject": Dataset(("n",), TEXT, "subject ids, in the rows' order"),
            "coordinates": Dataset(("N", "d"), "f8", "voxel coordinates in millimetres"),
            "voxel_count": Dataset(("N",), "i8", "subjects with a finite value, by voxel"),
            "voxel_sum": Dataset(("N",), "f8", "sum of the finite values, by voxel"),
            "voxel_sum_of_squares": Dataset(("N",), "f8", "sum of squares, by voxel"),
            **_GEOMETRY,
        },
        _GEOMETRY_ATTRIBUTE,
    ),
    "subjects": Kind(
        "the one sample and the one set of voxels of a study",
        1,
        {
            "subject": Dataset(("n",), TEXT, "subject ids, sorted by bytes"),
            "voxel_index": Dataset(("N",), "i8", "columns of the images files that are kept"),
        },
        {
            "sample_hash": "first 16 hex digits of the SHA-256 of the sorted ids",
            "flow": "JSON list of {step, n_in, n_out, reason}: flow of subjects",
        },
    ),
    "bases": Kind(
        "functional principal components of the smoothed images",
        1,
        {
            "bases": Dataset(("N", "r"), "f4", "orthonormal columns, sign fixed"),
            "eigenvalues": Dataset(("k",), "f8", "eigenvalues that were computed, descending"),
            "mean": Dataset(("N",), "f8", "mean of the smoothed images, by voxel"),
            "coordinates": Dataset(("N", "d"), "f8", "voxel coordinates in millimetres"),
            "candidate_bandwidths": Dataset(("h",), "f8", "bandwidths tried, in millimetres"),
            "candidate_scores": Dataset(("h",), "f8", "their GCV scores; NaN where skipped"),
            **_GEOMETRY,
        },
        {
            **_GEOMETRY_ATTRIBUTE,
            "bandwidth": "the bandwidth used, in millimetres; 0 is no smoothing",
            "n_eff": "effective number of independent voxels, squared sum over sum of squares",
            "total_variance": "sum of all eigenvalues, from the trace",
            "n": "subjects that the components were found in",
        },
    ),
    "ldrs": Kind(
        "low-dimensional representations of the raw images",
        1,
        {
            "ldrs": Dataset(("n", "r"), "f8", "S = X B"),
            "subject": Dataset(("n",), TEXT, "subject ids, sorted by bytes"),
            "quality_components": Dataset(("q",), "i8", "numbers of components assessed"),
            "quality_correlation": Dataset(
                ("q",), "f8", "mean correlation of raw image and reconstruction"
            ),
        },
    ),
    "null": Kind(
        "covariates factored once and LDRs without them",
        1,
        {
            "Q": Dataset(("n", "p"), "f8", "orthonormal basis of the covariates and intercept"),
            "residual_ldrs": Dataset(("n", "r"), "f8", "P S"),
            "A": Dataset(("r", "r"), "f8", "S' P S"),
            "subject": Dataset(("n",), TEXT, "subject ids, sorted by bytes"),
        },
        {"sample_hash": "as in the subjects file", "covariates": "JSON list of the columns used"},
    ),
    "minimal": Kind(
        "the minimal dataset: component GWAS from which any voxel's GWAS follows",
        1,
        {
            "z": Dataset(("m", "r"), "z", "component z statistics: code (i2) x scale, or f4"),
            "scale": Dataset(("m",), "f4", "z of one code unit, by variant (1 for f4)"),
            "a": Dataset(("m",), "f8", "g' P g, by variant; NaN where no estimate is possible"),
            "A": Dataset(("c", "r", "r"), "f8", "residual cross-products of the LDRs"),
            "A_index": Dataset(("m",), "i2", "which A belongs to the variant"),
            "Sigma": Dataset(("r", "r"), "f8", "residual covariance of the LDRs, A / n"),
            "bases": Dataset(("N", "r"), "f4", "functional bases; absent in a chunk", True),
            "eigenvalues": Dataset(
                ("k",), "f8", "eigenvalues of the bases; absent in a chunk", True
            ),
            "coordinates": Dataset(("N", "d"), "f8", "millimetres; absent in a chunk", True),
            "variants/chromosome": Dataset(("m",), "i1", "1-22, X 23, Y 24, MT 25"),
            "variants/base_pair_location": Dataset(("m",), "i4", "1-based position"),
            "variants/variant_id": Dataset(("m",), TEXT, "id in the genotype file"),
            "variants/effect_allele": Dataset(("m",), TEXT, "allele that beta counts"),
            "variants/other_allele": Dataset(("m",), TEXT, "the other allele"),
            "variants/effect_allele_frequency": Dataset(("m",), "f4", "in the sample"),
            "variants/missing_rate": Dataset(("m",), "f4", "share of missing genotypes"),
            **_GEOMETRY,
        },
        {
            "n": "subjects",
            "p": "covariates including the intercept",
            "coding": "'int16' or 'float32'",
            "n_eff": "effective number of independent voxels; 0 in a chunk",
            "geometry_type": "kind of geometry that maps are written in; '' in a chunk",
            "genome_build": "'GRCh37', 'GRCh38' or ''",
            "sample_hash": "as in the subjects file",
            "minor_allele_count": "least minor allele count of a variant in the file",
            "counts": "JSON {chromosome: {read, written, dropped: {reason: number}, "
            "missing: {reason: number}}}; missing rows are written, without an estimate",
        },
    ),
    "tail": Kind(
        "image-wide p of the largest |z| over the image (method 4b)",
        1,
        {
            "threshold": Dataset(("t",), "f8", "thresholds of |z|, normal scale, ascending"),
            "neg_log_10_p": Dataset(("t",), "f8", "image-wide -log10 p of the threshold"),
            "relative_error": Dataset(("t",), "f8", "Monte-Carlo standard error of p over p"),
        },
        {
            "significance": "'image_wide' or 'published'",
            "significance_level": "study-wide level",
            "critical_z": "|z| (normal scale) beyond which a voxel is significant",
            "n_eff": "effective number of independent voxels",
        },
    ),
    "ld": Kind(
        "LD reference from two disjoint panels (method 5b)",
        1,
        {
            "block_start": Dataset(("b+1",), "i8", "first variant of each block, then m"),
            "block_chromosome": Dataset(("b",), "i1", "1-22, X 23, Y 24, MT 25"),
            "block_rank": Dataset(("b",), "i8", "columns of M kept, by block"),
            "M": Dataset(("x",), "f4", "m_b x k_b by block, row-major, one after another"),
            "share": Dataset(("y",), "f4", "cumulated share of the trace, by column of M"),
            "R_a": Dataset(("w",), "f4", "packed lower triangles by row, half a of panel 1"),
            "R_b": Dataset(("w",), "f4", "packed lower triangles by row, half b of panel 1"),
            "T": Dataset(("w",), "f4", "packed lower triangles by row of T, method 5b"),
            "error_traces": Dataset(
                ("c", "4"),
                "f8",
                "tr(OROR) and tr(OROR^2), O = M M', within blocks and whole, by chromosome",
            ),
            "variants/chromosome": Dataset(("m",), "i1", "1-22, X 23, Y 24, MT 25"),
            "variants/base_pair_location": Dataset(("m",), "i4", "1-based position"),
            "variants/variant_id": Dataset(("m",), TEXT, "id in panel 1"),
            "variants/effect_allele": Dataset(("m",), TEXT, "allele that the correlations count"),
            "variants/other_allele": Dataset(("m",), TEXT, "the other allele"),
            "variants/effect_allele_frequency": Dataset(("m",), "f4", "in panel 1"),
        },
        {
            "n_a": "people in half a of panel 1",
            "n_b": "people in half b of panel 1",
            "n_2": "people in panel 2",
            "ld_share": "share of the trace that M keeps",
            "counts": "JSON {reason: number of variants dropped}",
        },
    ),
    "genetic_covariance": Kind(
        "genetic covariance of the components and what its errors need",
        1,
        {
            "Gamma": Dataset(("r", "r"), "f8", "genetic covariance of the LDRs"),
            "Sigma": Dataset(("r", "r"), "f8", "residual covariance of the LDRs"),
            "s": Dataset(
                ("r", "r"), "f8", "sum of q' H q, less its noise, with what lies between blocks"
            ),
            "bases": Dataset(("N", "r"), "f4", "functional bases"),
            "coordinates": Dataset(("N", "d"), "f8", "millimetres"),
            "block_Gamma": Dataset(
                ("b", "r", "r"), "f8", "block contributions, for the jackknife", True
            ),
            "block_t1": Dataset(("b",), "f8", "t1 by block", True),
            "block_t2": Dataset(("b",), "f8", "t2 by block", True),
            **_GEOMETRY,
        },
        {
            "n": "subjects",
            "m": "variants that enter R",
            "t_1": "trace of Omega R",
            "t_2": "trace of Omega R^2",
            "t_4": "sum of tr(H_a H_b), with what lies between blocks",
            "heritability_method": "'moments' or 'published'",
        },
    ),
    "correlation_matrix": Kind(
        "genetic correlation between all voxels, by row blocks",
        1,
        {
            "genetic_correlation": Dataset(("N", "N"), "f4", "NaN where out of range"),
            "standard_error": Dataset(("N", "N"), "f4", "NaN where out of range"),
            "coordinates": Dataset(("N", "d"), "f8", "millimetres"),
            **_GEOMETRY,
        },
    ),
    "truth": Kind(
        "what a simulated study was made from",
        1,
        {
            "coordinates": Dataset(("N", "d"), "f8", "voxel coordinates in millimetres"),
            "geometry/index": Dataset(("N", "3"), "i4", "grid indices of each voxel"),
            "geometry/affine": Dataset(("4", "4"), "f8", "voxel indices to millimetres"),
            "geometry/shape": Dataset(("3",), "i8", "shape of the image grid"),
            "genetic_covariance_factor": Dataset(
                ("N", "f"), "f8", "F with genetic covariance of raw voxels = F F'"
            ),
            "residual_covariance_factor": Dataset(
                ("N", "e"), "f8", "E: spatially smooth residual covariance of voxels = E E'"
            ),
            "noise_variance": Dataset(("N",), "f8", "white measurement noise, by voxel"),
            "causal/chromosome": Dataset(("l",), "i1", "1-22, X 23"),
            "causal/base_pair_location": Dataset(("l",), "i4", "1-based position"),
            "causal/variant_id": Dataset(("l",), TEXT, "id in the genotype files"),
            "causal/effect_allele": Dataset(("l",), TEXT, "allele that the effect counts"),
            "causal/planted": Dataset(("l",), "i1", "1 planted locus, 0 polygenic background"),
            "causal/effect": Dataset(
                ("l", "f"),
                "f8",
                "effect e of a dosage on the factors; e F' is that on voxels",
            ),
            "causal/dosage_variance": Dataset(("l",), "f8", "variance of the dosage in the study"),
            "causal/trait_effect": Dataset(
                ("l",), "f8", "effect of a dosage on the external trait (of variance one)"
            ),
            "trait_covariance": Dataset(
                ("f",),
                "f8",
                "genetic covariance with the external trait: F c by voxel",
            ),
        },
        {
            "n": "subjects with complete data, over whom covariances are taken",
            "seed": "seed of the simulation",
            "trait_heritability": "of the external trait, whose variance is one; 0 without",
        },
    ),
}


def describe_kind(name: str) -> str:
    """Return a plain-text table of one kind, for documentation."""
    kind = KINDS[name]
    rows = [f"{name} (format_version {kind.version}): {kind.meaning}"]
    for dataset, entry in kind.datasets.items():
        shape = " x ".join(entry.dimensions)
        rows.append(f"  {dataset}\t{shape}\t{entry.dtype}\t{entry.meaning}")
    rows.extend(f"  @{name}\t{meaning}" for name, meaning in kind.attributes.items())
    return "\n".join(rows)


class Envelope:
    """An open file of one kind; ``file["name"]`` is its h5py dataset.

    Attributes
    ----------
    attributes : dict
        Root attributes of the kind, as Python values.
    inputs : dict of str to str
        Role → digest of each file that this one was made from.
    digest : str
        Identity of this file's content.
    """

    def __init__(self, path: Path, handle: h5py.File, kind: str):
        self.path = path
        self.kind = kind
        self._handle = handle
        self.attributes: dict[str, Any] = {
            key: _python_value(handle.attrs[key]) for key in KINDS[kind].attributes
        }
        self.inputs: dict[str, str] = json.loads(handle.attrs["inputs"])
        self.parameters: dict[str, Any] = json.loads(handle.attrs["parameters"])
        self.digest = str(handle.attrs["digest"])

    def __getitem__(self, name: str) -> h5py.Dataset:
        return self._handle[name]

    def __contains__(self, name: str) -> bool:
        return name in self._handle

    def array(self, name: str) -> np.ndarray:
        """Return a whole dataset; text as an array of ``str`` objects."""
        dataset = self._handle[name]
        if h5py.check_string_dtype(dataset.dtype) is not None:
            return dataset.asstr()[...]
        return dataset[...]

    def require_made_from(self, role: str, other: Envelope) -> None:
        """Refuse to go on unless this file was made from ``other``.

        Raises
        ------
        InputError
            The digest recorded under ``role`` is another one.
        """
        if self.inputs.get(role) != other.digest:
            raise InputError(
                f"{self.path.name} was not made from {other.path.name}: they are of different "
                f"runs; give the {role} file of the same run"
            )

    def close(self) -> None:
        """Close the file."""
        self._handle.close()

    def __enter__(self) -> Envelope:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Writer:
    """A file of one kind that is being written; see :func:`create`."""

    def __init__(self, path: Path, handle: h5py.File, kind: str):
        self.path = path
        self._handle = handle
        self._kind = KINDS[kind]

    def add(self, name: str, values: Any, **options: Any) -> None:
        """Write a whole dataset."""
        entry = self._entry(name)
        if entry.dtype == TEXT:
            values = np.asarray(values, dtype=object)
            self._handle.create_dataset(name, data=values, dtype=h5py.string_dtype(), **options)
        else:
            values = np.asarray(values)
            dtype = values.dtype if entry.dtype == "z" else np.dtype(entry.dtype)
            self._handle.create_dataset(name, data=values.astype(dtype, copy=False), **options)

    def reserve(
        self, name: str, shape: tuple[int, ...], dtype: str | None = None, **options: Any
    ) -> h5py.Dataset:
        """Create an empty dataset that the caller fills by slices.

        For text, ``dtype`` may be ``"S12"``: UTF-8 of at most 12 bytes, padded with zero
        bytes, which is much smaller and faster than text of variable length.
        """
        entry = self._entry(name)
        if entry.dtype == TEXT:
            kind = h5py.string_dtype(length=int(dtype[1:]) if dtype else None)
        else:
            kind = np.dtype(dtype or entry.dtype)
        return self._handle.create_dataset(name, shape=shape, dtype=kind, **options)

    def __getitem__(self, name: str) -> h5py.Dataset:
        return self._handle[name]

    def _entry(self, name: str) -> Dataset:
        if name not in self._kind.datasets:
            raise KeyError(f"dataset '{name}' is not declared in formats.KINDS")
        return self._kind.datasets[name]


@contextlib.contextmanager
def create(
    path: str | Path,
    kind: str,
    attributes: Mapping[str, Any],
    *,
    inputs: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    code: str = "",
) -> Iterator[Writer]:
    """Write a file of one kind; it appears under its name only when complete and consistent.

    Parameters
    ----------
    path : path
        Target. The file is written beside it under a temporary name.
    kind : str
        Key of :data:`KINDS`.
    attributes : mapping
        Values of the kind's root attributes: text, numbers, or what JSON can hold.
    inputs : mapping of str to str
        Role → digest of each file that this one is made from.
    parameters : mapping
        Options that decided the content.
    code : str
        Fingerprint of the code of the stage.

    Raises
    ------
    ValueError
        A dataset or attribute is missing, or a dimension has two sizes.
    """
    path = Path(path)
    declared = KINDS[kind]
    missing = sorted(set(declared.attributes) - set(attributes))
    if missing:
        raise ValueError(f"{kind}: attributes {missing} were not given")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with h5py.File(temporary, "w", libver=("v110", "v110")) as handle:
            yield Writer(path, handle, kind)
            for key in sorted(declared.attributes):
                handle.attrs[key] = _attribute_value(attributes[key])
            handle.attrs["format"] = f"{FORMAT}.{kind}"
            handle.attrs["format_version"] = declared.version
            handle.attrs["rvga_version"] = _version()
            handle.attrs["code"] = code
            handle.attrs["inputs"] = json.dumps(dict(inputs or {}), sort_keys=True)
            handle.attrs["parameters"] = json.dumps(dict(parameters or {}), sort_keys=True)
            problem = _problem(handle, kind)
            if problem:
                raise ValueError(f"{kind}: {problem}")
            handle.attrs["digest"] = _content_digest(handle, declared)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def open_file(path: str | Path, kind: str) -> Envelope:
    """Open a file for reading and check that it is of the kind and whole.

    Raises
    ------
    InputError
        The file is absent, not HDF5, of another kind or version, or inconsistent.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        handle = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise InputError(
            f"{path}: not a readable HDF5 file (damaged, cut short or of another format): "
            "make it again"
        ) from error
    try:
        found = str(handle.attrs.get("format", ""))
        if found != f"{FORMAT}.{kind}":
            raise InputError(
                f"{path}: is '{found or 'a foreign HDF5 file'}', "
                f"but an rvga '{kind}' file is due here"
            )
        version = int(handle.attrs.get("format_version", -1))
        if version != KINDS[kind].version:
            raise InputError(
                f"{path}: format_version {version}, this software reads {KINDS[kind].version}; "
                "use the release that wrote it, or make the file again"
            )
        for key in (*KINDS[kind].attributes, "inputs", "parameters", "digest"):
            if key not in handle.attrs:
                raise InputError(f"{path}: attribute '{key}' is missing: the file is damaged")
        problem = _problem(handle, kind)
        if problem:
            raise InputError(f"{path}: {problem}: the file is damaged")
        return Envelope(path, handle, kind)
    except BaseException:
        handle.close()
        raise


def open_as(path: str | Path, kind: str, build: Callable[[Envelope], Reader]) -> Reader:
    """Return ``build(envelope)`` of an open file, which is closed again if that fails.

    Raises
    ------
    InputError
        The file is absent, damaged or of another kind.
    """
    envelope = open_file(path, kind)
    try:
        return build(envelope)
    except BaseException:
        envelope.close()
        raise


def _problem(handle: h5py.File, kind: str) -> str | None:
    """Return what is inconsistent in an open file, or None."""
    sizes: dict[str, tuple[int, str]] = {}
    for name, entry in KINDS[kind].datasets.items():
        if name not in handle:
            if entry.optional:
                continue
            return f"dataset '{name}' is missing"
        if _points_elsewhere(handle, name):
            return f"'{name}' takes its values from elsewhere, which is refused"
        dataset = handle[name]
        if not isinstance(dataset, h5py.Dataset):
            return f"'{name}' is not a dataset"
        if dataset.is_virtual or dataset.external:
            return f"'{name}' takes its values from other files, which is refused"
        if not _dtype_agrees(dataset, entry.dtype):
            return f"dataset '{name}' has dtype {dataset.dtype}, not {entry.dtype}"
        if dataset.ndim != len(entry.dimensions):
            return f"dataset '{name}' has {dataset.ndim} dimensions, not {len(entry.dimensions)}"
        for letter, size in zip(entry.dimensions, dataset.shape, strict=True):
            if letter.isdigit():
                expected, origin = int(letter), "its definition"
            elif letter.endswith("+1"):
                letter, size = letter[:-2], size - 1
                expected, origin = sizes.setdefault(letter, (size, name))
            else:
                expected, origin = sizes.setdefault(letter, (size, name))
            if size != expected:
                return f"dataset '{name}' has {letter} = {size}, but {origin} says {expected}"
    return None


def _points_elsewhere(handle: h5py.File, name: str) -> bool:
    """Return whether a name, or a group on the way to it, is a soft or external link."""
    parts = name.split("/")
    return any(
        not isinstance(handle.get("/".join(parts[:depth]), getlink=True), h5py.HardLink)
        for depth in range(1, len(parts) + 1)
    )


def _dtype_agrees(dataset: h5py.Dataset, dtype: str) -> bool:
    if dtype == TEXT:
        return h5py.check_string_dtype(dataset.dtype) is not None
    if dtype == "z":
        return dataset.dtype in (np.dtype("i2"), np.dtype("f4"))
    return dataset.dtype == np.dtype(dtype)


def _content_digest(handle: h5py.File, kind: Kind) -> str:
    """Return the digest of all datasets and attributes, read by blocks of rows."""
    state = hashlib.blake2b(digest_size=16)
    for key in sorted(set(handle.attrs) - {"digest", "rvga_version", "code"}):
        state.update(f"{key}={handle.attrs[key]!s};".encode())
    for name in sorted(kind.datasets):
        if name not in handle:
            continue
        dataset = handle[name]
        state.update(f"{name}:{dataset.shape};".encode())
        if dataset.size == 0:
            continue
        text = h5py.check_string_dtype(dataset.dtype) is not None
        row_bytes = max(1, dataset.dtype.itemsize * dataset.size // dataset.shape[0])
        step = max(1, _HASH_BLOCK_BYTES // row_bytes)
        for first in range(0, dataset.shape[0], step):
            block = dataset[first : first + step]
            if text:
                state.update(b"\0".join(value for value in block))
            else:
                state.update(np.ascontiguousarray(block).data)
    return state.hexdigest()


def _attribute_value(value: Any) -> Any:
    if isinstance(value, (str, bool, int, float, np.integer, np.floating)):
        return value
    return json.dumps(value, sort_keys=True)


def _python_value(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _version() -> str:
    from rvga.version import VERSION

    return VERSION
