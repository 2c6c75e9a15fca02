"""Every binary file of the pipeline: one HDF5 envelope, declared once.

A *kind* names its datasets with dimensions (letters, or literal sizes), dtype and
meaning. :func:`create` writes beside the target and renames when complete; :func:`open_file`
checks kind, version, dtypes and that each letter has one size throughout the file. Files hold
no time stamps and no paths, so the same input and options give the same bytes. All data lie in
chunks with a checksum, and attributes are of fixed length, which HDF5's own checksums cover: a
changed byte is noticed where it is read. What a file from a stranger may hold is in
``hdf5_safety``.
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

from rvga import hdf5_safety
from rvga.errors import InputError
from rvga.sink import Sink

Reader = TypeVar("Reader")
FORMAT = "rvga"
TEXT = "text"
_HASH_BLOCK_BYTES = 1 << 22
_TEXT_BLOCK_BYTES = 1 << 22
# Of every dataset, for its chunks (of at most 1 MiB, mostly); a file has a dozen.
_CACHE_BYTES = 1 << 21


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
    # What follows is there for images that are not one NIfTI volume.
    "geometry/parts": Dataset(
        ("g",), TEXT, "JSON of each joined part: its name, type and the layout of its map", True
    ),
    "part": Dataset(
        ("N",), "i2", "part (feature or hemisphere, from 0) of each voxel; absent is one", True
    ),
    "geometry/position": Dataset(
        ("N",), "i8", "place of each voxel in its part's map: grid cell, vertex, column", True
    ),
    "geometry/vertex": Dataset(
        ("N",), "i4", "vertex of each voxel, numbered through all surfaces; -1 none", True
    ),
    "geometry/vertices": Dataset(
        ("v", "3"), "f8", "coordinates of every vertex of all surfaces, in millimetres", True
    ),
    "geometry/triangles": Dataset(
        ("f", "3"), "i4", "vertices of every triangle of all surfaces", True
    ),
    "geometry/name": Dataset(("N",), TEXT, "names of the voxels (columns of a table)", True),
}
_GEOMETRY_ATTRIBUTE = {
    "geometry_type": "kind of geometry that maps are written in: 'nifti', 'surface', 'cifti', "
    "'table', or 'joined' (several parts)"
}

KINDS: dict[str, Kind] = {
    "images": Kind(
        "raw images of a batch of subjects inside the mask",
        2,
        {
            "images": Dataset(("n", "N"), "f4", "raw values, a row a subject"),
            "subject": Dataset(("n",), TEXT, "subject ids, in the rows' order"),
            "image_digest": Dataset(
                ("n", "16"), "u1", "identity of each image: BLAKE2b of its row's bytes"
            ),
            "coordinates": Dataset(
                ("N", "d"), "f8", "voxel coordinates in millimetres, or an index without any"
            ),
            "voxel_count": Dataset(("N",), "i8", "subjects with a finite value, by voxel"),
            "voxel_sum": Dataset(("N",), "f8", "sum of the finite values, by voxel"),
            "voxel_sum_of_squares": Dataset(("N",), "f8", "sum of squares, by voxel"),
            "map_order": Dataset(
                ("q",),
                TEXT,
                "by part, digests of the names of the first image's CIFTI or GIFTI maps: in any "
                "order, and of those read in theirs; empty or absent where names say nothing",
                True,
            ),
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
            "voxel_mean": Dataset(
                ("N",),
                "f8",
                "mean of the sample's finite values, which fills in missing ones",
                True,
            ),
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
            "residual": Dataset(
                ("r",), "f8", "||C b - lambda b|| / lambda by component; 0 where exact", True
            ),
            "mean": Dataset(("N",), "f8", "mean of the smoothed images, by voxel"),
            "map_order": Dataset(
                ("q",),
                TEXT,
                "that of the images, where the names of their maps say something",
                True,
            ),
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
    "scores": Kind(
        "a batch of raw images projected on the bases: those of the final sample",
        2,
        {
            "ldrs": Dataset(("n", "r"), "f8", "S = X B; no row without a subject of the sample"),
            "subject": Dataset(("n",), TEXT, "subject ids, sorted by bytes"),
            "image_sum": Dataset(("n",), "f8", "sum of the raw image over the bases' voxels"),
            "image_sum_of_squares": Dataset(("n",), "f8", "sum of its squares"),
            "image_times_mean": Dataset(
                ("n",), "f8", "sum of its products with the sample's mean image"
            ),
            "image_digest": Dataset(
                ("n", "16"), "u1", "identity of each raw image over all voxels of the mask"
            ),
        },
        {
            "geometry_digest": "identity of the voxels of the images",
            "n_voxels_absent": "voxels of the bases that the images lack",
            "n_voxels_unfit": "voxels of the bases that the images have and the sample drops",
            "n_voxels_unused": "voxels that the sample keeps and the bases lack",
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
        2,
        {
            "Q": Dataset(
                ("n", "p"), "f8", "orthonormal basis of the covariates and intercept", True
            ),
            "residual_ldrs": Dataset(
                ("c", "n", "r"),
                "f8",
                "P S, or P (S - offsets) with the offsets of a chromosome",
                optional=True,
            ),
            "A": Dataset(("c", "r", "r"), "f8", "cross-products of residual_ldrs"),
            "A_chromosome": Dataset(
                ("c",), "i1", "chromosome that the row is for; 0 is every chromosome (then c = 1)"
            ),
            "Sigma": Dataset(("r", "r"), "f8", "residual covariance without offsets, S' P S / n"),
            "subject": Dataset(("n",), TEXT, "subject ids, sorted by bytes", True),
            "sex": Dataset(
                ("n",), "i1", "1 male, 2 female, 0 unknown; where sex_column names it", True
            ),
            "size": Dataset(
                ("2",), "i8", "n and p where only the cross-product is known, not the people", True
            ),
        },
        {"sample_hash": "as in the subjects file", "covariates": "JSON list of the columns used"},
    ),
    "minimal": Kind(
        "the minimal dataset: component GWAS from which any voxel's GWAS follows",
        2,
        {
            "z": Dataset(("m", "r"), "z", "component z statistics: code (i2) x scale, or f4"),
            "scale": Dataset(("m",), "f4", "z of one code unit, by variant (1 for f4)"),
            "a": Dataset(("m",), "f4", "g' P g, by variant; NaN where no estimate is possible"),
            "A": Dataset(("c", "r", "r"), "f8", "residual cross-products of the LDRs"),
            "A_index": Dataset(("m",), "i2", "which A belongs to the variant"),
            "Sigma": Dataset(("r", "r"), "f8", "residual covariance of the LDRs, without offsets"),
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
        2,
        {
            "threshold": Dataset(("t",), "f8", "thresholds of |z|, normal scale, ascending"),
            "neg_log_10_p": Dataset(("t",), "f8", "image-wide -log10 p of the threshold"),
            "relative_error": Dataset(("t",), "f8", "Monte-Carlo standard error of p over p"),
        },
        {
            "significance": "rule of critical_z: 'image_wide' or 'published'",
            "significance_level": "study-wide level",
            "critical_z": "|z| (normal scale) beyond which a voxel is significant",
            "critical_z_image_wide": "|z| at which the image-wide p is the level",
            "critical_z_published": "|z| at which the p of one voxel is level / n_eff",
            "n_eff": "effective number of independent voxels",
        },
    ),
    "clumps": Kind(
        "clumps of significant variants by LD, of one chromosome or of all",
        1,
        {
            "row": Dataset(("s",), "i8", "row of each significant variant in the dataset"),
            "base_pair_location": Dataset(("s",), "i8", "its position"),
            "leader": Dataset(("s",), "i8", "row of the index variant of its clump"),
            "has_ld": Dataset(("s",), "i1", "1 where there are genotypes that vary, else 0"),
        },
        {
            "people": "whose genotypes: 'study', 'everyone' in the files, or '' without any",
            "sample_hash": "of these people, as in the subjects file; '' without any",
            "n_people": "their number",
            "clump_r2": "least LD within a clump",
            "clump_kb": "kilobases on either side of an index variant",
        },
    ),
    "ld": Kind(
        "LD reference from two disjoint panels (method 5b)",
        2,
        {
            "block_start": Dataset(("b+1",), "i8", "first variant of each block, then m"),
            "block_chromosome": Dataset(("b",), "i1", "1-22, X 23, Y 24, MT 25"),
            "block_rank": Dataset(("b",), "i8", "columns of M kept, by block"),
            "M": Dataset(("x",), "f4", "m_b x k_b by block, row-major, one after another"),
            "share": Dataset(("y",), "f4", "cumulated share of the trace, by column of M"),
            "t_1_ratio": Dataset(
                ("y",), "f4", "gain of diag(M'RM) with panel 1 standardised in one", True
            ),
            "R_a": Dataset(("w",), "f4", "packed lower triangles by row, half a of panel 1"),
            "R_b": Dataset(("w",), "f4", "packed lower triangles by row, half b of panel 1"),
            "T": Dataset(("w",), "f4", "packed lower triangles by row of T, method 5b"),
            "H": Dataset(
                ("v",),
                "f8",
                "M'R_1M by block, R_1 the mean of R_a and R_b by people: strips of 64 rows from "
                "the diagonal on, its square halved; with their transpose they add up to it",
            ),
            "H_difference": Dataset(("v",), "f8", "M'(R_a - R_b)M by block, as H"),
            "t_1": Dataset(("y",), "f8", "diagonal of M'R_1M, by column of M"),
            "t_2": Dataset(("y",), "f8", "diagonal of M'TM, by column of M"),
            "t_4": Dataset(("b",), "f8", "tr(M'R_aM M'R_bM), by block"),
            "band_t_4": Dataset(
                ("b", "6", "6"),
                "f8",
                "sums of (M'R_aM)_kl (M'R_bM)_kl over pairs of bands of columns, by block; upper "
                "edges of the bands in share .3, .5, .65, .8, .9 and .98",
            ),
            "class_trace": Dataset(
                ("y", "12"),
                "f8",
                "sum of (R_aM)_jk (R_bM)_jk over the variants j of a class, by column k of M; "
                "classes by ld_score, from 1.5, 2.5, 4, 6, 9, 13, 20, 30, 50, 80 and 120 on",
            ),
            "ld_score": Dataset(
                ("m",), "f8", "sum of R_a's and R_b's products over the variants of the block"
            ),
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
            "kappa": Dataset(
                ("r", "r"),
                "f8",
                "noise of the scores, Sigma / n or the mean of A / n^2 over chromosomes, weighted "
                "by their t_1; Sigma / n if absent",
                True,
            ),
            "s": Dataset(
                ("r", "r"), "f8", "sum of q' H q, less its noise, with what lies between blocks"
            ),
            "bases": Dataset(("N", "r"), "f4", "functional bases"),
            "coordinates": Dataset(("N", "d"), "f8", "millimetres"),
            "left_out": Dataset(
                ("b", "r", "r"), "f8", "Gamma without each group of blocks, for the jackknife", True
            ),
            "blend_factor": Dataset(
                ("1",), "f8", "part of the jackknife's excess that se_method auto adds", True
            ),
            "intercept": Dataset(
                ("r", "r"), "f8", "kappa of the band regression, its intercept estimated", True
            ),
            "region_name": Dataset(("k",), TEXT, "label of each region", True),
            "region_rows": Dataset(("k", "r"), "f8", "basis of each region's mean image", True),
            "correlation/Gamma": Dataset(
                ("r", "r"), "f8", "Gamma for genetic correlations, by 'balanced'", True
            ),
            "correlation/kappa": Dataset(("r", "r"), "f8", "kappa for correlation/Gamma", True),
            "correlation/s": Dataset(("r", "r"), "f8", "s for correlation/Gamma", True),
            "correlation/left_out": Dataset(
                ("b", "r", "r"), "f8", "correlation/Gamma without each group of blocks", True
            ),
            "correlation/traces": Dataset(
                ("3",), "f8", "t_1, t_2 and t_4 for correlation/Gamma", True
            ),
            "correlation/blend_factor": Dataset(
                ("1",), "f8", "blend_factor for correlation/Gamma", True
            ),
            **_GEOMETRY,
        },
        {
            "n": "subjects",
            "m": "variants that enter R",
            "t_1": "trace of Omega R",
            "t_2": "trace of Omega R^2",
            "t_4": "sum of tr(H_a H_b), with what lies between blocks",
            "heritability_method": "'balanced', 'moments', 'bands' or 'published'",
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
            key: hdf5_safety.attribute_value(handle, key) for key in KINDS[kind].attributes
        }
        self.inputs: dict[str, str] = self._json("inputs")
        self.parameters: dict[str, Any] = self._json("parameters")
        self.digest = str(hdf5_safety.attribute_value(handle, "digest"))

    def _json(self, key: str) -> dict[str, Any]:
        try:
            value = hdf5_safety.json_value(hdf5_safety.attribute_value(self._handle, key))
        except ValueError as error:
            raise InputError(
                f"{self.path}: attribute '{key}' is no JSON ({error}): the file is damaged"
            ) from error
        if not isinstance(value, dict):
            raise InputError(f"{self.path}: attribute '{key}' is no JSON object: it is damaged")
        return value

    def __getitem__(self, name: str) -> h5py.Dataset:
        return hdf5_safety.CheckedDataset(self._handle[name].id)

    def __contains__(self, name: str) -> bool:
        return name in self._handle

    def array(self, name: str) -> np.ndarray:
        """Return a whole dataset; text as an array of ``str`` objects."""
        return self.rows(name, 0, None)

    def rows(self, name: str, first: int, stop: int | None) -> np.ndarray:
        """Return rows ``first`` to ``stop`` of a dataset; text as an array of ``str`` objects."""
        dataset = self[name]
        values = dataset[first:stop] if dataset.ndim else dataset[()]
        if h5py.check_string_dtype(dataset.dtype) is not None:
            return hdf5_safety.text_of(name, self.path, values)
        return values

    def verify(self) -> None:
        """Read the whole file and compare it with its digest.

        Raises
        ------
        InputError
            Something in the file is not what was written.
        """
        names = [name for name in KINDS[self.kind].datasets if name in self]
        found = _content_digest(self._handle, {name: self[name] for name in names})
        if found != self.digest:
            raise InputError(
                f"{self.path}: the content does not agree with its digest: the file was changed or "
                "damaged after it was written; ask for it again"
            )

    def stored_bytes(self) -> dict[str, int]:
        """Return the bytes that the values of each dataset take in the file."""
        names = [name for name in KINDS[self.kind].datasets if name in self]
        return {name: hdf5_safety.stored_bytes(self[name]) for name in names}

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
            encoded = [
                value if isinstance(value, bytes) else str(value).encode() for value in values
            ]
            width = max(map(len, encoded), default=1)
            target = self.reserve(name, (len(encoded),), f"S{max(width, 1)}", **options)
            step = max(1, _TEXT_BLOCK_BYTES // max(width, 1))
            for first in range(0, len(encoded), step):
                # By blocks, because one long text makes all of them wide.
                block = np.array(encoded[first : first + step], dtype=target.dtype)
                target[first : first + step] = block
            return
        values = np.asarray(values)
        dtype = values.dtype if entry.dtype == "z" else np.dtype(entry.dtype)
        options = _layout(values.shape, dtype.itemsize, options)
        self._handle.create_dataset(name, data=values.astype(dtype, copy=False), **options)

    def reserve(
        self, name: str, shape: tuple[int, ...], dtype: str | None = None, **options: Any
    ) -> h5py.Dataset:
        """Create an empty dataset that the caller fills by slices.

        For text, ``dtype`` is ``"S12"``, say: UTF-8 of at most 12 bytes, padded with zero
        bytes, which is much smaller and faster than text of variable length, and which HDF5's
        checksums cover. The chunks are of at most about 1 MiB, unless ``chunks`` is given.
        """
        entry = self._entry(name)
        if entry.dtype == TEXT:
            if dtype is None:
                raise ValueError(f"dataset '{name}': text needs a width, as dtype 'S12'")
            kind = h5py.string_dtype(length=int(dtype[1:]))
            options = {"compression": "gzip", "compression_opts": 4, "shuffle": True, **options}
        else:
            kind = np.dtype(dtype or entry.dtype)
        options = _layout(shape, kind.itemsize, options)
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
        with _written(temporary, path) as (handle, sink):
            yield Writer(path, handle, kind)
            sink.check()
            for key in sorted(declared.attributes):
                _set_attribute(handle, key, attributes[key])
            _set_attribute(handle, "format", f"{FORMAT}.{kind}")
            _set_attribute(handle, "format_version", declared.version)
            _set_attribute(handle, "rvga_version", _version())
            _set_attribute(handle, "code", code)
            _set_attribute(handle, "inputs", dict(inputs or {}))
            _set_attribute(handle, "parameters", dict(parameters or {}))
            handle.flush()
            problem = _problem(handle, kind)
            if problem:
                raise ValueError(f"{kind}: {problem}")
            names = [name for name in declared.datasets if name in handle]
            digest = _content_digest(handle, {name: handle[name] for name in names})
            _set_attribute(handle, "digest", digest)
            _set_attribute(handle, "attributes_digest", attributes_digest(handle))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _written(temporary: Path, path: Path) -> Iterator[tuple[h5py.File, Sink]]:
    """Open a file for writing; a full disk is an OSError that names ``path``."""
    with Sink(temporary, path) as sink:
        try:
            with h5py.File(sink, "w", libver=("v110", "v110"), rdcc_nbytes=_CACHE_BYTES) as handle:
                yield handle, sink
        except Exception:
            sink.check()  # what could not be written explains all that follows from it
            raise
    sink.check()


def open_file(path: str | Path, kind: str) -> Envelope:
    """Open a file for reading and check that it is of the kind and whole.

    Raises
    ------
    InputError
        The file is absent, not HDF5, of another kind or version, or inconsistent.
    OSError
        The system does not let the file be read.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    # HDF5 does not tell a damaged file from one that the system would not read: ask it first.
    with path.open("rb") as plain:
        plain.read(1)
    try:
        handle = h5py.File(path, "r", locking=False, rdcc_nbytes=_CACHE_BYTES)
    except OSError as error:
        raise InputError(
            f"{path}: not a readable HDF5 file (damaged, cut short or of another format): "
            "make it again"
        ) from error
    try:
        return _checked(path, handle, kind)
    except InputError:
        handle.close()
        raise
    except hdf5_safety.READ_ERRORS as error:
        handle.close()
        raise InputError(
            f"{path}: not a readable HDF5 file (damaged, cut short or of another format): "
            "make it again"
        ) from error
    except BaseException:
        handle.close()
        raise


def _checked(path: Path, handle: h5py.File, kind: str) -> Envelope:
    """Return the envelope of an open file after all checks; none of its data are read."""
    problem = hdf5_safety.attributes_problem(handle)
    found = ""
    if problem is None and "format" in handle.attrs:
        found = str(hdf5_safety.attribute_value(handle, "format"))
    if not found.startswith(f"{FORMAT}."):
        raise InputError(f"{path}: is a foreign HDF5 file, but an rvga '{kind}' file is due here")
    if found != f"{FORMAT}.{kind}":
        raise InputError(f"{path}: is '{found}', but an rvga '{kind}' file is due here")
    version = hdf5_safety.attribute_value(handle, "format_version")
    if version != KINDS[kind].version:
        raise InputError(
            f"{path}: format_version {version}, this software reads {KINDS[kind].version}; "
            "use the release that wrote it, or make the file again"
        )
    for key in (*KINDS[kind].attributes, "inputs", "parameters", "digest", "attributes_digest"):
        if key not in handle.attrs:
            raise InputError(f"{path}: attribute '{key}' is missing: the file is damaged")
    problem = hdf5_safety.members_problem(handle, set(KINDS[kind].datasets))
    problem = problem or _problem(handle, kind)
    if problem:
        raise InputError(f"{path}: {problem}: the file is damaged")
    # HDF5's own checksums do not cover attributes of more than 64 KiB.
    if hdf5_safety.attribute_value(handle, "attributes_digest") != attributes_digest(handle):
        raise InputError(
            f"{path}: its attributes do not agree with their digest: the file was changed or "
            "damaged; make it again"
        )
    return Envelope(path, handle, kind)


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
        refused = hdf5_safety.dataset_problem(dataset, name)
        if refused:
            return refused
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


def attributes_digest(handle: h5py.File) -> str:
    """Return the digest of all root attributes but the digests themselves."""
    state = hashlib.blake2b(digest_size=16)
    _update_by_attributes(state, handle, {"digest", "attributes_digest"})
    return state.hexdigest()


def _update_by_attributes(state: Any, handle: h5py.File, left_out: set[str]) -> None:
    for key in sorted(set(handle.attrs) - left_out):
        value = hdf5_safety.attribute_value(handle, key)
        if isinstance(value, str):
            content = value.encode()
        elif isinstance(value, (bool, int)):
            content = np.array(value, dtype="<i8").tobytes()
        else:
            content = np.array(value, dtype="<f8").tobytes()
        state.update(key.encode() + b"\0" + content + b"\0")


def _content_digest(handle: h5py.File, datasets: Mapping[str, h5py.Dataset]) -> str:
    """Return the digest of all datasets and attributes, read by blocks of rows.

    BLAKE2b of 16 bytes over, for every attribute by name, ``name NUL value NUL`` (text as UTF-8,
    integers as i8, other numbers as f8), then for every dataset by name ``name NUL type NUL
    shape`` (numpy's type text, sizes as i8) and the values in C order; all little-endian.
    """
    state = hashlib.blake2b(digest_size=16)
    _update_by_attributes(state, handle, {"digest", "attributes_digest", "rvga_version", "code"})
    for name in sorted(datasets):
        dataset = datasets[name]
        little = dataset.dtype.newbyteorder("<")
        state.update(name.encode() + b"\0" + little.str.encode() + b"\0")
        state.update(np.array(dataset.shape, dtype="<i8").tobytes())
        if dataset.size == 0:
            continue
        row_bytes = max(1, dataset.dtype.itemsize * dataset.size // dataset.shape[0])
        step = max(1, _HASH_BLOCK_BYTES // row_bytes)
        for first in range(0, dataset.shape[0], step):
            block = np.asarray(dataset[first : first + step], dtype=little)
            state.update(np.ascontiguousarray(block).view("u1").data)
    return state.hexdigest()


def _layout(shape: tuple[int, ...], itemsize: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the creation options of a dataset: in chunks with a checksum, where it has data."""
    options = dict(options)
    if not shape or (0 in shape and not options.get("maxshape")):
        # HDF5 cannot divide an empty dataset into chunks; it has no data to guard either.
        return {}
    if not options.get("chunks"):
        options["chunks"] = hdf5_safety.chunk_shape(shape, itemsize)
    return {"fletcher32": True, **options}


def _set_attribute(handle: h5py.File, key: str, value: Any) -> None:
    """Store an attribute: numbers as they are, text and JSON as UTF-8 of fixed length."""
    if isinstance(value, (bool, np.bool_, int, float, np.integer, np.floating)):
        handle.attrs[key] = value
        return
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    content = text.encode()
    dtype = h5py.string_dtype(length=max(1, len(content)))
    handle.attrs.create(key, np.array(content, dtype=dtype), dtype=dtype)


def _version() -> str:
    from rvga.version import VERSION

    return VERSION
