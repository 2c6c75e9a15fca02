"""From a minimal dataset and an LD reference to heritability and genetic correlation of voxels.

Examples
--------
>>> with GeneticCovariance.open("genetic_covariance.h5") as covariance:  # doctest: +SKIP
...     h2, error = covariance.heritability()
...     rho, error = covariance.row(17)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from rvga import heritability as moments
from rvga.dataset import MinimalDataset
from rvga.errors import InputError
from rvga.formats import Envelope, open_as
from rvga.geometry import Geometry, geometry_of
from rvga.jackknife import group_starts
from rvga.ld import LdBlock
from rvga.ld_reference import LdReference
from rvga.parallel import ordered_map
from rvga.sumstats import match_variants

FEWEST_SHARED = 200
LEAST_SHARE_OF_REFERENCE = 0.1
JACKKNIFE_GROUPS = 200
# Python with its libraries, before any data.
INTERPRETER_BYTES = 150 << 20


@dataclass(frozen=True)
class Match:
    """Where a table's variants are among those of an LD reference.

    Attributes
    ----------
    row : (m,) int64
        Row of the table for each reference variant, -1 where absent.
    sign : (m,) float64
        -1 where effect and other allele are swapped.
    counts : dict
        Numbers for the summary.
    """

    row: np.ndarray
    sign: np.ndarray
    counts: dict[str, int]


def match_dataset(dataset: MinimalDataset, reference: LdReference) -> Match:
    """Match a dataset's variants to a reference by position and alleles.

    Raises
    ------
    InputError
        They share too few variants.
    """
    row, sign, repeated = match_variants(reference.variants, dataset.variants)
    hit = row >= 0
    require_enough(int(hit.sum()), reference.m, dataset.path.name, reference.path.name)
    counts = {
        "n_reference_variants": reference.m,
        "n_dataset_variants": dataset.m,
        "n_shared_variants": int(hit.sum()),
        "n_alleles_swapped": int((sign[hit] < 0).sum()),
        "n_repeated_in_dataset": repeated,
    }
    return Match(row, sign, counts)


def require_enough(shared: int, m: int, first: str, second: str) -> None:
    """Refuse fewer shared variants than 200 or a tenth of the reference.

    Raises
    ------
    InputError
        With both numbers.
    """
    floor = max(FEWEST_SHARED, int(np.ceil(LEAST_SHARE_OF_REFERENCE * m)))
    if shared < floor:
        raise InputError(
            f"{first} and {second} share {shared} of the reference's {m} variants by position and "
            f"alleles (at least {floor} are needed); are they of the same genome build?"
        )


@dataclass(frozen=True)
class Sums:
    """Sums over all blocks of a reference, and by group of blocks for the jackknife."""

    total: moments.BlockMoments
    group_quadratic: np.ndarray
    group_t_1: np.ndarray
    group_t_2: np.ndarray
    n_used: int
    n_blocks_used: int


def sum_over_blocks(
    dataset: MinimalDataset,
    reference: LdReference,
    match: Match,
    *,
    method: str,
    workers: int,
    trait: np.ndarray | None = None,
    progress=lambda items, total: items,
) -> Sums:
    """Pass once over the reference, block by block (method 5b; 5 when published).

    Parameters
    ----------
    method : {"moments", "published"}
    workers : int
        Blocks worked on at once; the result does not depend on it.
    trait : (m,), optional
        û of an external trait by reference variant, NaN where absent; it becomes the last
        column, and only variants that both have are used.
    progress : callable
        Wraps the iteration: (items, total) -> items.
    """
    sizes = np.diff(reference.block_start)
    group = group_starts(sizes, JACKKNIFE_GROUPS)
    c = dataset.r + (trait is not None)
    quadratic = np.zeros((int(group.max()) + 1, c, c))
    t_1, t_2 = np.zeros(len(quadratic)), np.zeros(len(quadratic))

    def inputs() -> Iterator[tuple[LdBlock, np.ndarray]]:
        for first, stop, block in reference.blocks():
            scores = _scores(dataset, match, first, stop, method)
            if trait is not None:
                scores = np.column_stack([scores, trait[first:stop]])
            yield block, scores

    def work(item: tuple[LdBlock, np.ndarray]) -> tuple[moments.BlockMoments, int]:
        block, scores = item
        used = int(np.isfinite(scores).all(axis=1).sum())
        if method == "published":
            part = moments.published_block_moments(
                block.M, block.share, block.R_a, block.R_b, scores, reference.n_a, reference.n_b
            )
        else:
            part = moments.block_moments(
                block.M, block.R_a, block.R_b, block.T, scores, reference.n_a, reference.n_b
            )
        return part, used

    total = moments.BlockMoments(np.zeros((c, c)), np.zeros((c, c)), 0.0, 0.0, 0.0)
    n_used = n_blocks_used = 0
    done = progress(ordered_map(work, inputs(), workers), len(sizes))
    for g, (part, used) in zip(group, done, strict=True):
        total = total + part
        quadratic[g] += part.quadratic
        t_1[g] += part.t_1
        t_2[g] += part.t_2
        n_used += used
        n_blocks_used += used > 0
    return Sums(total, quadratic, t_1, t_2, n_used, n_blocks_used)


def _scores(
    dataset: MinimalDataset, match: Match, first: int, stop: int, method: str
) -> np.ndarray:
    """Return û (stop - first, r) of reference variants, NaN where the dataset has none."""
    row = match.row[first:stop]
    hit = np.flatnonzero(row >= 0)
    scores = np.full((stop - first, dataset.r), np.nan)
    if len(hit) == 0:
        return scores
    low, high = int(row[hit].min()), int(row[hit].max()) + 1
    found = dataset.components(low, high)
    at = row[hit] - low
    if method == "published":
        values = moments.published_scores(found.z[at], dataset.Sigma, dataset.n)
    else:
        values = moments.component_scores(found.beta[at], found.a[at], dataset.n)
    scores[hit] = values * match.sign[first:stop][hit, None]
    return scores


def sums_memory(dataset: MinimalDataset, reference: LdReference, workers: int) -> float:
    """Return the bytes that :func:`sum_over_blocks` and the variant tables take."""
    largest = int(np.diff(reference.block_start).max())
    work = (workers + 2) * (8 * 6 * largest**2 + reference.block_bytes() + 16 * largest * dataset.r)
    tables = 700.0 * (dataset.m + reference.m)
    return INTERPRETER_BYTES + work + tables + 16.0 * JACKKNIFE_GROUPS * dataset.r**2


class GeneticCovariance:
    """An open ``genetic_covariance.h5``: heritability and any genetic correlation of voxels.

    Attributes
    ----------
    bases : (N, r)
    moments : rvga.heritability.Moments
        Γ̂ of the components and what errors need.
    Sigma : (r, r)
    geometry : Geometry
    method : str
        'moments' or 'published'.
    """

    def __init__(self, envelope: Envelope):
        self.envelope = envelope
        self.path = envelope.path
        self.bases = envelope["bases"][...].astype(np.float64)
        self.N, self.r = self.bases.shape
        self.Sigma = envelope["Sigma"][...]
        self.n = float(envelope.attributes["n"])
        self.m = float(envelope.attributes["m"])
        self.method = str(envelope.attributes["heritability_method"])
        self.geometry: Geometry = geometry_of(envelope)
        self.coordinates = envelope["coordinates"][...]
        t_2 = float(envelope.attributes["t_2"])
        self.moments = moments.Moments(
            Gamma=envelope["Gamma"][...],
            kappa=self.Sigma / self.n,
            s=envelope["s"][...],
            scale=1.0 if self.method == "published" else self.m / t_2,
            t_1=float(envelope.attributes["t_1"]),
            t_4=float(envelope.attributes["t_4"]),
            inverse_n=np.full((self.r, self.r), 1.0 / self.n),
        )

    @classmethod
    def open(cls, path: str | Path) -> GeneticCovariance:
        """Open a file of kind 'genetic_covariance'.

        Raises
        ------
        InputError
            It is absent, damaged or another kind of file.
        """
        return open_as(path, "genetic_covariance", cls)

    @cached_property
    def left_out(self) -> np.ndarray:
        """Γ̂ without each group of blocks, (g, r, r)."""
        return moments.leave_one_out_Gamma(
            self.envelope["block_Gamma"][...],
            self.envelope["block_t1"][...],
            self.envelope["block_t2"][...],
            self.Sigma / self.n,
            self.m,
        )

    def heritability(
        self, rows: np.ndarray | None = None, se_method: str = "closed_form"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return h² and its standard error as estimated, for voxels or for rows of bases (k, r)."""
        rows = self.bases if rows is None else rows
        h2, error = moments.heritability(self.moments, rows)
        if se_method == "jackknife":
            error = moments.heritability_jackknife(self.left_out, self.Sigma, rows)
        return h2, error

    def correlation(
        self, rows: np.ndarray, columns: np.ndarray, se_method: str = "closed_form"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ρ and its standard error between rows of bases, (I, r) and (J, r), as they are."""
        rho, error = moments.genetic_correlation(self.moments, rows, columns)
        if se_method == "jackknife":
            error = moments.genetic_correlation_jackknife(self.left_out, rows, columns)
        return rho, error

    def row(self, voxel: int, se_method: str = "closed_form") -> tuple[np.ndarray, np.ndarray]:
        """Return ρ and its standard error of one voxel with every voxel, (N,) each.

        Raises
        ------
        InputError
            There is no such voxel.
        """
        if not 0 <= voxel < self.N:
            raise InputError(f"voxel {voxel} is not among the {self.N} voxels (0 to {self.N - 1})")
        rho, error = self.correlation(self.bases[voxel : voxel + 1], self.bases, se_method)
        return rho[0], error[0]

    def matrix(self, block_rows: int = 512) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """Yield (first, stop, ρ, standard error) of all voxels with all, by blocks of rows."""
        for first in range(0, self.N, block_rows):
            stop = min(first + block_rows, self.N)
            yield first, stop, *self.correlation(self.bases[first:stop], self.bases)

    def regions(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels other than 0 and the basis row of each region's mean image."""
        return moments.region_bases(self.bases, labels)

    def phenotypic_correlation(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the sample's correlation between rows of bases, (I, J)."""
        variances = [np.einsum("vr,vr->v", b @ self.Sigma, b) for b in (rows, columns)]
        with np.errstate(divide="ignore", invalid="ignore"):
            return (rows @ self.Sigma @ columns.T) / np.sqrt(np.outer(*variances))

    def close(self) -> None:
        """Close the file."""
        self.envelope.close()

    def __enter__(self) -> GeneticCovariance:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_labels(path: Path, geometry: Geometry) -> np.ndarray:
    """Return the integer label of each voxel from a NIfTI image of the study's grid, (N,).

    Raises
    ------
    InputError
        It cannot be read, has another grid, or holds values that are not whole numbers.
    """
    import nibabel

    if not path.is_file():
        raise InputError(f"{path}: no such file (regions)")
    try:
        image = nibabel.load(path)
        values = np.asarray(image.dataobj)
    except Exception as error:
        # nibabel raises many kinds for damaged files.
        raise InputError(f"{path}: cannot be read as a NIfTI image ({error})") from error
    shape = tuple(int(size) for size in values.shape)
    if shape != geometry.shape:
        raise InputError(
            f"{path}: has shape {shape}, the study's images {geometry.shape}; resample the regions "
            "to the study's grid"
        )
    if not np.allclose(image.affine, geometry.affine, atol=1e-3):
        raise InputError(
            f"{path}: has another affine than the study's images; resample the regions to the "
            "study's grid"
        )
    labels = values[tuple(geometry.index.T)].astype(np.float64)
    labels = np.where(np.isfinite(labels), labels, 0.0)
    if np.any(labels != np.round(labels)):
        raise InputError(f"{path}: holds values that are not whole numbers; give a label image")
    if not np.any(labels):
        raise InputError(f"{path}: has no label other than 0 at any of the study's voxels")
    return labels.astype(np.int64)
