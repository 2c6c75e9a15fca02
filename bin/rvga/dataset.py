"""The minimal dataset as a user opens it: any voxel, variant or region of a whole-image GWAS.

Examples
--------
>>> with MinimalDataset.open("study.rvga.h5") as dataset:  # doctest: +SKIP
...     gwas = dataset.voxel(dataset.nearest_voxel((-24.0, 10.0, 3.0)))
...     effects = dataset.variant("rs429358")
...     locus = dataset.region("6", 160_000_000, 161_000_000).voxel(17)
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rvga import formats
from rvga.chromosomes import CHROMOSOMES, RANK, normalise_chromosome
from rvga.coding import decode_z
from rvga.errors import InputError
from rvga.geometry import Geometry, geometry_of
from rvga.reconstruction import (
    beta_from_z,
    standard_error_from_beta,
    voxel_variance,
    voxel_z,
)
from rvga.significance import neg_log_10_p_t
from rvga.tables import VARIANT_COLUMNS

BLOCK_VARIANTS = 8192
_VOXELS_PER_PRODUCT = 1 << 16
# Deflate cannot shrink by more than 1,032; what claims more is made to exhaust memory.
_LARGEST_COMPRESSION = 1100
_SMALL_BYTES = 1 << 20
# A column that is read by blocks of rows may not have rows wider than this.
_LONGEST_TEXT_BYTES = 1 << 16
_STATISTICS = ("beta", "standard_error", "z", "neg_log_10_p_value")


@dataclass(frozen=True)
class Components:
    """Component statistics of m variants, in double precision; NaN is missing.

    Attributes
    ----------
    z, beta : (m, r)
        t statistics and effects of each component.
    a : (m,)
        g'Pg.
    A_index : (m,)
        Which residual cross-product belongs to each variant.
    """

    z: np.ndarray
    beta: np.ndarray
    a: np.ndarray
    A_index: np.ndarray


class MinimalDataset:
    """A minimal dataset, opened by :meth:`open` and used as a context manager.

    Attributes
    ----------
    n, p, r, N, m : int
        Subjects, covariates with the intercept, components, voxels, variants.
    nu : int
        Degrees of freedom, n - p - 1.
    A : (c, r, r) float64
        Residual cross-products of the components.
    Sigma : (r, r) float64
        Residual covariance of the components.
    bases : (N, r) float64
        Functional bases.
    eigenvalues : (k,) float64
        Their eigenvalues.
    coordinates : (N, d) float64
        Millimetres.
    geometry : Geometry
        Where the voxels lie and how maps are written.
    attributes : dict
        Root attributes of the file.
    digest : str
        Identity of the content.
    """

    def __init__(self, envelope: formats.Envelope):
        self._file = envelope
        _refuse_inflated(envelope)
        for name in ("bases", "eigenvalues", "coordinates", "geometry/index"):
            if name not in envelope:
                raise InputError(
                    f"{envelope.path}: '{name}' is missing: it is a chunk of the component GWAS; "
                    "give the joined dataset (*.rvga.h5)"
                )
        self.path = envelope.path
        self.attributes: dict[str, Any] = envelope.attributes
        self.inputs = envelope.inputs
        self.digest = envelope.digest
        self.n, self.p = int(self.attributes["n"]), int(self.attributes["p"])
        self.nu = self.n - self.p - 1
        self.m, self.r = envelope["z"].shape
        self.A: np.ndarray = envelope["A"][...]
        self.Sigma: np.ndarray = envelope["Sigma"][...]
        self.bases: np.ndarray = envelope["bases"][...].astype(np.float64)
        self.eigenvalues: np.ndarray = envelope["eigenvalues"][...]
        self.coordinates: np.ndarray = envelope["coordinates"][...]
        self.geometry: Geometry = geometry_of(envelope)
        self.N = self.bases.shape[0]
        self._check_values()
        # A variance by component and by voxel for each A.
        self._component_variance = np.einsum("cjj->cj", self.A)
        for array in (self.A, self.Sigma, self.bases, self.eigenvalues, self.coordinates):
            array.setflags(write=False)

    @classmethod
    def open(cls, path: str | Path) -> MinimalDataset:
        """Open a dataset for reading.

        Raises
        ------
        InputError
            It is absent, damaged, foreign, a mere chunk, or claims impossible sizes.
        """
        return formats.open_as(path, "minimal", cls)

    @functools.cached_property
    def variants(self) -> pd.DataFrame:
        """The variants in genome order, with the columns of ``tables.VARIANT_COLUMNS``."""
        file = self._file
        names = np.array(["", *CHROMOSOMES], dtype=object)
        columns: dict[str, Any] = {
            "chromosome": names[self._chromosome],
            "base_pair_location": self._position.astype(np.int64),
        }
        for name in ("variant_id", "effect_allele", "other_allele"):
            columns[name] = file.array(f"variants/{name}")
        columns["effect_allele_frequency"] = file["variants/effect_allele_frequency"][...].astype(
            np.float64
        )
        return pd.DataFrame(columns)[list(VARIANT_COLUMNS)]

    def variant_block(self, first: int, stop: int) -> pd.DataFrame:
        """Return rows ``first`` to ``stop`` of :attr:`variants`, reading no others."""
        file = self._file
        columns: dict[str, Any] = {
            "chromosome": np.array(["", *CHROMOSOMES], dtype=object)[self._chromosome[first:stop]],
            "base_pair_location": self._position[first:stop].astype(np.int64),
        }
        for name in ("variant_id", "effect_allele", "other_allele"):
            columns[name] = file[f"variants/{name}"].asstr()[first:stop]
        frequency = file["variants/effect_allele_frequency"][first:stop]
        columns["effect_allele_frequency"] = frequency.astype(np.float64)
        return pd.DataFrame(columns)[list(VARIANT_COLUMNS)]

    @functools.cached_property
    def _chromosome(self) -> np.ndarray:
        return self._file["variants/chromosome"][...]

    @functools.cached_property
    def _position(self) -> np.ndarray:
        return self._file["variants/base_pair_location"][...]

    @functools.cached_property
    def missing_rate(self) -> np.ndarray:
        """Share of missing genotypes by variant, (m,)."""
        return self._file["variants/missing_rate"][...]

    def components(self, first: int = 0, stop: int | None = None) -> Components:
        """Return the component statistics of variants ``first`` to ``stop``."""
        stop = self.m if stop is None else stop
        if not 0 <= first <= stop <= self.m:
            raise IndexError(f"variants {first} to {stop} of {self.m}")
        try:
            codes = self._file["z"][first:stop]
            scale = self._file["scale"][first:stop]
            a = self._file["a"][first:stop]
            A_index = self._file["A_index"][first:stop].astype(np.int64)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: the file is damaged") from error
        if len(A_index) and not (A_index.min() >= 0 and A_index.max() < len(self.A)):
            raise InputError(f"{self.path}: an A_index is out of range: the file is damaged")
        z = decode_z(codes, scale)
        beta = beta_from_z(z, a, self._component_variance[A_index], self.nu)
        return Components(z=z, beta=beta, a=a, A_index=A_index)

    def blocks(
        self, size: int, first: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, int, Components]]:
        """Yield ``(first, stop, components)`` of consecutive blocks of variants."""
        stop = self.m if stop is None else stop
        for start in range(first, stop, size):
            end = min(start + size, stop)
            yield start, end, self.components(start, end)

    def voxel(self, i: int, first: int = 0, stop: int | None = None) -> pd.DataFrame:
        """Return the GWAS of one voxel.

        Parameters
        ----------
        i : int
            Voxel, from 0; see :meth:`nearest_voxel` for coordinates in millimetres.
        first, stop : int
            Variants; all by default.

        Returns
        -------
        DataFrame
            The columns of ``tables.VARIANT_COLUMNS``, ``beta``, ``standard_error``, ``z`` and
            ``neg_log_10_p_value`` (t distribution with ``nu`` degrees of freedom); NaN where the
            variant has no estimate.
        """
        stop = self.m if stop is None else stop
        basis = self.bases[self._voxel_number(i)]
        return self._profile(basis[None, :], first, stop)

    def mean_of_voxels(
        self, voxels: Sequence[int], first: int = 0, stop: int | None = None
    ) -> pd.DataFrame:
        """Return the GWAS of the mean over some voxels; columns as :meth:`voxel`."""
        numbers = [self._voxel_number(i) for i in voxels]
        if not numbers:
            raise InputError("a mean over no voxels was asked for; give at least one")
        stop = self.m if stop is None else stop
        return self._profile(self.bases[numbers].mean(axis=0, keepdims=True), first, stop)

    def variant(self, variant_id: str) -> pd.DataFrame:
        """Return the association of one variant with every voxel.

        Parameters
        ----------
        variant_id : str
            Id in the genotype files, or ``chromosome:position:allele:allele``.

        Returns
        -------
        DataFrame
            ``voxel``, ``x_mm``, ``y_mm``, ``z_mm``, ``beta``, ``standard_error``, ``z``,
            ``neg_log_10_p_value``; a row a voxel.
        """
        row = self.variant_row(variant_id)
        statistics = self.voxel_statistics(row, row + 1)
        table: dict[str, Any] = {"voxel": np.arange(self.N)}
        for axis, name in enumerate(("x_mm", "y_mm", "z_mm")):
            column = (
                self.coordinates[:, axis]
                if axis < self.coordinates.shape[1]
                else np.full(self.N, np.nan)
            )
            table[name] = column
        return pd.DataFrame({**table, **{name: statistics[name][0] for name in _STATISTICS}})

    def variant_row(self, variant_id: str) -> int:
        """Return the row of a variant, by id or by chromosome, position and alleles.

        Raises
        ------
        InputError
            No variant, or more than one, has the id.
        """
        variants = self.variants
        rows = np.flatnonzero(variants["variant_id"].to_numpy(dtype=object) == variant_id)
        words = variant_id.split(":")
        if not len(rows) and len(words) == 4 and words[1].isdigit():
            chromosome = normalise_chromosome(words[0], f"variant '{variant_id}'")
            low, high = self._range(chromosome, int(words[1]), int(words[1]))
            alleles = {word.upper() for word in words[2:]}
            rows = np.array(
                [
                    row
                    for row in range(low, high)
                    if {
                        str(variants["effect_allele"].iat[row]).upper(),
                        str(variants["other_allele"].iat[row]).upper(),
                    }
                    == alleles
                ],
                dtype=int,
            )
        if len(rows) == 0:
            raise InputError(
                f"{self.path}: holds no variant '{variant_id}'; give the id of the genotype files, "
                "or chromosome:position:allele:allele (rare variants are left out of the dataset)"
            )
        if len(rows) > 1:
            raise InputError(
                f"{self.path}: {len(rows)} variants are called '{variant_id}'; say which by "
                "chromosome:position:allele:allele"
            )
        return int(rows[0])

    def region(self, chromosome: object, start: int, end: int) -> DatasetView:
        """Return the variants from position ``start`` to ``end``, both included."""
        name = normalise_chromosome(chromosome, "region")
        if not 0 <= start <= end:
            raise InputError(f"region {name}:{start}-{end}: the start must not be after the end")
        return DatasetView(self, *self._range(name, start, end))

    def nearest_voxel(self, coordinates: Sequence[float]) -> int:
        """Return the voxel nearest to a point in millimetres."""
        point = np.asarray(coordinates, dtype=np.float64)
        if point.shape != (self.coordinates.shape[1],) or not np.all(np.isfinite(point)):
            raise InputError(
                f"{len(point)} coordinates were given, "
                f"{self.coordinates.shape[1]} finite ones are due"
            )
        return int(np.argmin(((self.coordinates - point) ** 2).sum(axis=1)))

    def voxel_statistics(
        self, first: int, stop: int, voxels: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Return ``beta``, ``standard_error``, ``z`` and ``neg_log_10_p_value`` as (m, k) arrays.

        Parameters
        ----------
        first, stop : int
            Variants.
        voxels : (k,) array of int, optional
            All by default.
        """
        bases = self.bases if voxels is None else self.bases[voxels]
        return self._statistics(self.components(first, stop), bases)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> MinimalDataset:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _statistics(self, components: Components, bases: np.ndarray) -> dict[str, np.ndarray]:
        """Return voxel statistics for any rows of bases (k, r), by method 3."""
        shape = (len(components.a), len(bases))
        result = {name: np.empty(shape) for name in _STATISTICS}
        for index in np.unique(components.A_index):
            rows = components.A_index == index
            A, a, beta = self.A[index], components.a[rows], components.beta[rows]
            for low in range(0, len(bases), _VOXELS_PER_PRODUCT):
                columns = slice(low, low + _VOXELS_PER_PRODUCT)
                part = bases[columns]
                variance = voxel_variance(part, A)
                beta_v = beta @ part.T
                with np.errstate(divide="ignore", invalid="ignore"):
                    z = voxel_z(beta, a, part, variance, self.nu)
                    standard_error = standard_error_from_beta(beta_v, a, variance, self.nu)
                # A voxel that the components do not reach has no statistics.
                lost = ~(variance > 0)
                for values in (beta_v, standard_error, z):
                    values[:, lost] = np.nan
                result["beta"][rows, columns] = beta_v
                result["standard_error"][rows, columns] = standard_error
                result["z"][rows, columns] = z
        result["neg_log_10_p_value"][...] = neg_log_10_p_t(result["z"], self.nu)
        return result

    def _profile(self, basis: np.ndarray, first: int, stop: int) -> pd.DataFrame:
        """Return the table of one row of bases (1, r) over variants."""
        columns = {name: np.empty(stop - first) for name in _STATISTICS}
        for start, end, components in self.blocks(BLOCK_VARIANTS, first, stop):
            block = self._statistics(components, basis)
            for name in _STATISTICS:
                columns[name][start - first : end - first] = block[name][:, 0]
        table = self.variants.iloc[first:stop].reset_index(drop=True)
        return table.assign(**columns)

    def _voxel_number(self, i: int) -> int:
        if not 0 <= int(i) < self.N:
            raise InputError(f"voxel {i} does not exist: the dataset has voxels 0 to {self.N - 1}")
        return int(i)

    def _range(self, chromosome: str, start: int, end: int) -> tuple[int, int]:
        """Return the rows of the variants of a stretch of the genome."""
        rank = RANK[chromosome]
        first = int(np.searchsorted(self._chromosome, rank, side="left"))
        stop = int(np.searchsorted(self._chromosome, rank, side="right"))
        position = self._position[first:stop]
        return (
            first + int(np.searchsorted(position, start, side="left")),
            first + int(np.searchsorted(position, end, side="right")),
        )

    def _check_values(self) -> None:
        """Refuse values that cannot be: the arithmetic below relies on them."""
        problem = None
        if self.p < 1 or self.nu < 1:
            problem = f"n = {self.n} and p = {self.p} leave no degrees of freedom"
        elif self.attributes["coding"] not in ("int16", "float32") or (
            self._file["z"].dtype != ("i2" if self.attributes["coding"] == "int16" else "f4")
        ):
            problem = f"coding '{self.attributes['coding']}' does not agree with the type of z"
        elif not all(np.all(np.isfinite(array)) for array in (self.A, self.Sigma, self.bases)):
            problem = "A, Sigma or bases hold values that are not finite"
        elif not np.allclose(self.A, self.A.transpose(0, 2, 1)) or not np.all(
            np.einsum("cjj->cj", self.A) > 0
        ):
            problem = "A is not a symmetric matrix with a positive diagonal"
        elif self.geometry.type != "nifti":
            problem = f"geometry '{self.geometry.type}' is unknown to this release"
        elif np.any(self.geometry.index < 0) or np.any(
            self.geometry.index >= np.asarray(self.geometry.shape)
        ):
            problem = "a voxel lies outside the image grid"
        elif self.m and not (self._chromosome.min() >= 1 and self._chromosome.max() <= 25):
            problem = "a chromosome code is outside 1 to 25"
        elif np.any(np.diff(self._chromosome.astype(np.int64) * (1 << 32) + self._position) < 0):
            problem = "the variants are not in genome order"
        if problem:
            raise InputError(f"{self.path}: {problem}: the file is damaged")


class DatasetView:
    """The variants of a region; made by :meth:`MinimalDataset.region`.

    Attributes
    ----------
    first, stop : int
        Rows of the dataset.
    """

    def __init__(self, dataset: MinimalDataset, first: int, stop: int):
        self.dataset = dataset
        self.first = first
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.first

    @property
    def variants(self) -> pd.DataFrame:
        """The region's variants, numbered from 0."""
        return self.dataset.variants.iloc[self.first : self.stop].reset_index(drop=True)

    def components(self) -> Components:
        """Return the region's component statistics."""
        return self.dataset.components(self.first, self.stop)

    def voxel(self, i: int) -> pd.DataFrame:
        """Return the region's GWAS of one voxel, as :meth:`MinimalDataset.voxel`."""
        return self.dataset.voxel(i, self.first, self.stop)

    def lead_voxels(self) -> pd.DataFrame:
        """Return, by variant, the voxel with the largest |z| and its statistics."""
        dataset = self.dataset
        lead = np.zeros(len(self), dtype=np.int64)
        columns = {name: np.full(len(self), np.nan) for name in _STATISTICS}
        # About 64 MiB a statistic at a time.
        size = max(1, (1 << 23) // dataset.N)
        for start, end, components in dataset.blocks(size, self.first, self.stop):
            block = dataset._statistics(components, dataset.bases)
            magnitude = np.where(np.isfinite(block["z"]), np.abs(block["z"]), -1.0)
            here = np.argmax(magnitude, axis=1)
            rows = slice(start - self.first, end - self.first)
            lead[rows] = here
            for name in _STATISTICS:
                columns[name][rows] = block[name][np.arange(end - start), here]
        return self.variants.assign(lead_voxel=lead, **columns)


def _refuse_inflated(envelope: formats.Envelope) -> None:
    """Refuse sizes out of proportion to what is stored, before memory is taken."""
    path = envelope.path
    for name, entry in formats.KINDS["minimal"].datasets.items():
        if name not in envelope:
            continue
        dataset = envelope[name]
        try:
            size = dataset.size * dataset.dtype.itemsize
        except (OverflowError, ValueError) as error:
            raise InputError(f"{path}: '{name}' has an impossible size: it is damaged") from error
        stored = dataset.id.get_storage_size()
        if size > _SMALL_BYTES and size > _LARGEST_COMPRESSION * stored:
            raise InputError(
                f"{path}: '{name}' claims {size} bytes but stores {stored}: the file is damaged"
            )
        if entry.dtype == formats.TEXT and dataset.dtype.itemsize > _LONGEST_TEXT_BYTES:
            raise InputError(f"{path}: '{name}' has texts of impossible length: it is damaged")
