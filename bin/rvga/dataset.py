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
import math
import operator
import re
from collections import Counter
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
from rvga.hdf5_safety import json_value
from rvga.minimal import dataset_size
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
# What is read whole (bases, geometry, A) hardly shrinks; more is made to exhaust memory.
_SMALL_BYTES = 1 << 26
_LARGEST_INFLATION = 32
# A column that is read by blocks of rows may not have rows wider than this.
_LONGEST_TEXT_BYTES = 1 << 16
_TEXT_BLOCK_BYTES = 1 << 24
# Cells of an image grid, of which a map has a number each.
_MOST_CELLS = 1 << 28
# Beyond, products of A and bases overflow.
_LARGEST_NUMBER = 1e60
# Of a position; far more than there are bases.
_MOST_DIGITS = 15
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
        self._envelope: formats.Envelope | None = envelope
        _refuse_inflated(envelope)
        for name in ("bases", "eigenvalues", "coordinates"):
            if name not in envelope:
                raise InputError(
                    f"{envelope.path}: '{name}' is missing: it is a chunk of the component GWAS; "
                    "give the joined dataset (*.rvga.h5)"
                )
        self.path = envelope.path
        self.attributes: dict[str, Any] = envelope.attributes
        self.inputs = envelope.inputs
        self.digest = envelope.digest
        self._check_attributes()
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

    @property
    def _file(self) -> formats.Envelope:
        if self._envelope is None:
            raise InputError(
                f"{self.path}: was closed; use the dataset inside its 'with', or open it again"
            )
        return self._envelope

    @functools.cached_property
    def variants(self) -> pd.DataFrame:
        """All variants in genome order, with the columns of ``tables.VARIANT_COLUMNS``.

        This is the one thing that holds something of every variant; :meth:`variant_block`,
        :meth:`blocks`, :meth:`gwas_blocks`, regions and single variants do not need it.
        """
        return self.variant_block(0, self.m)

    def variant_block(self, first: int, stop: int) -> pd.DataFrame:
        """Return rows ``first`` to ``stop`` of :attr:`variants`, reading no others.

        Raises
        ------
        InputError
            The rows are damaged: an unknown chromosome, no genome order, no frequency, an id or
            an allele that is no single word of characters that print.
        """
        file = self._file
        chromosome = file["variants/chromosome"][first:stop]
        position = file["variants/base_pair_location"][first:stop].astype(np.int64)
        frequency = file["variants/effect_allele_frequency"][first:stop].astype(np.float64)
        problem = None
        if len(chromosome) and not (chromosome.min() >= 1 and chromosome.max() <= len(CHROMOSOMES)):
            problem = f"a chromosome code is outside 1 to {len(CHROMOSOMES)}"
        elif np.any(np.diff(chromosome.astype(np.int64) * (1 << 32) + position) < 0):
            problem = "the variants are not in genome order"
        elif np.any(position < 0) or np.any((frequency < 0) | (frequency > 1)):
            problem = "a position or an allele frequency is impossible"
        if problem:
            raise InputError(f"{self.path}: {problem}: the file is damaged")
        columns: dict[str, Any] = {
            "chromosome": np.array(["", *CHROMOSOMES], dtype=object)[chromosome],
            "base_pair_location": position,
        }
        for name in ("variant_id", "effect_allele", "other_allele"):
            columns[name] = file.rows(f"variants/{name}", first, stop)
            self._refuse_text(name, columns[name], first)
        columns["effect_allele_frequency"] = frequency
        return pd.DataFrame(columns)[list(VARIANT_COLUMNS)]

    def _refuse_text(self, name: str, values: np.ndarray, first: int) -> None:
        """Refuse text that would forge columns or rows of a table, or command a terminal.

        White space separates the columns of many programs. An id may be empty, an allele not.
        """
        allele = name != "variant_id"
        whole = "".join(values)
        if whole.isprintable() and " " not in whole and not (allele and "" in values):
            return
        for row, value in enumerate(values, start=first):
            if " " in value or not value.isprintable() or (allele and not value):
                what = "is empty" if not value else "has white space or control characters"
                raise InputError(
                    f"{self.path}: {name} {value!a} of row {row} {what}: the file is damaged"
                )

    @functools.cached_property
    def missing_rate(self) -> np.ndarray:
        """Share of missing genotypes by variant, (m,)."""
        return self._file["variants/missing_rate"][...]

    def components(self, first: int = 0, stop: int | None = None) -> Components:
        """Return the component statistics of variants ``first`` to ``stop``."""
        stop = self.m if stop is None else stop
        if not 0 <= first <= stop <= self.m:
            raise IndexError(f"variants {first} to {stop} of {self.m}")
        codes = self._file["z"][first:stop]
        scale = self._file["scale"][first:stop]
        a = self._file["a"][first:stop].astype(np.float64)
        A_index = self._file["A_index"][first:stop].astype(np.int64)
        problem = None
        if len(A_index) and not (A_index.min() >= 0 and A_index.max() < len(self.A)):
            problem = "an A_index is out of range"
        elif not np.all(np.isfinite(scale)) or np.any(scale < 0):
            problem = "a scale is negative or not finite"
        elif np.any(np.isinf(a)) or np.any(a <= 0):
            problem = "a value of a is not positive or not finite"
        elif codes.dtype != np.int16 and np.any(np.isinf(codes)):
            problem = "a z is not finite"
        if problem:
            raise InputError(f"{self.path}: {problem}: the file is damaged")
        z = decode_z(codes, scale)
        beta = beta_from_z(z, a, self._component_variance[A_index], self.nu)
        return Components(z=z, beta=beta, a=a, A_index=A_index)

    def variants_by_A(self, rows: int = 1 << 20) -> np.ndarray:
        """Return how many variants belong to each A, (c,); streamed.

        Raises
        ------
        InputError
            An A_index is out of range.
        """
        if len(self.A) == 1:
            return np.array([self.m])
        number = np.zeros(len(self.A), dtype=np.int64)
        for first in range(0, self.m, rows):
            index = self._file["A_index"][first : first + rows].astype(np.int64)
            if len(index) and not (index.min() >= 0 and index.max() < len(self.A)):
                raise InputError(f"{self.path}: an A_index is out of range: make the dataset again")
            number += np.bincount(index, minlength=len(self.A))
        return number

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
        return self.gwas(self.bases[self._voxel_number(i)], first, stop)

    def mean_of_voxels(
        self, voxels: Sequence[int], first: int = 0, stop: int | None = None
    ) -> pd.DataFrame:
        """Return the GWAS of the mean over some voxels; columns as :meth:`voxel`.

        The mean of the denoised images over these voxels is a phenotype like a voxel, with the
        mean of their rows of bases; its GWAS is as exact as a voxel's.
        """
        return self.gwas(self.mean_weights(voxels), first, stop)

    def region_mean(
        self, labels: np.ndarray, label: int, first: int = 0, stop: int | None = None
    ) -> pd.DataFrame:
        """Return the GWAS of the mean over a labelled region; columns as :meth:`voxel`.

        Parameters
        ----------
        labels : (N,) array of int
            Label of each voxel.
        label : int
            The region.
        """
        return self.gwas(self.region_weights(labels, label), first, stop)

    def component(self, k: int, first: int = 0, stop: int | None = None) -> pd.DataFrame:
        """Return the GWAS of one component, from 0; columns as :meth:`voxel`."""
        return self.gwas(self.component_weights(k), first, stop)

    def mean_weights(self, voxels: Sequence[int]) -> np.ndarray:
        """Return the weights (r,) of the components in the mean over some voxels."""
        numbers = [self._voxel_number(i) for i in voxels]
        if not numbers:
            raise InputError("a mean over no voxels was asked for; give at least one")
        twice = next((i for i, number in Counter(numbers).items() if number > 1), None)
        if twice is not None:
            raise InputError(f"voxel {twice} is given more than once; give each voxel once")
        return self.bases[numbers].mean(axis=0)

    def region_weights(self, labels: np.ndarray, label: int) -> np.ndarray:
        """Return the weights (r,) of the components in the mean over a labelled region."""
        labels = np.asarray(labels)
        if labels.shape != (self.N,):
            raise InputError(f"{labels.shape} labels were given, one for each voxel is due")
        voxels = np.flatnonzero(labels == label)
        if not len(voxels):
            known = ", ".join(str(value) for value in np.unique(labels[labels != 0])[:10])
            raise InputError(f"no voxel has the label {label}; there are {known or 'none'}")
        return self.mean_weights(voxels)

    def component_weights(self, k: int) -> np.ndarray:
        """Return the weights (r,) of the components in component ``k``: one and zeros."""
        number = _whole(k, "component")
        if not 0 <= number < self.r:
            raise InputError(
                f"component {k} does not exist: the dataset has components 0 to {self.r - 1}"
            )
        return np.eye(self.r)[number]

    def gwas(self, weights: np.ndarray, first: int = 0, stop: int | None = None) -> pd.DataFrame:
        """Return the GWAS of any weighted sum of the components; columns as :meth:`voxel`.

        Parameters
        ----------
        weights : (r,)
            A row of bases, a mean of rows, or any other.
        """
        blocks = list(self.gwas_blocks(weights, first, stop))
        if not blocks:
            return self._gwas_block(weights, 0, 0)
        return pd.concat(blocks, ignore_index=True)

    def gwas_blocks(
        self,
        weights: np.ndarray,
        first: int = 0,
        stop: int | None = None,
        size: int = BLOCK_VARIANTS,
    ) -> Iterator[pd.DataFrame]:
        """Yield :meth:`gwas` by blocks of variants; memory does not grow with their number."""
        stop = self.m if stop is None else stop
        if not 0 <= first <= stop <= self.m:
            raise IndexError(f"variants {first} to {stop} of {self.m}")
        for start in range(first, stop, size):
            yield self._gwas_block(weights, start, min(start + size, stop))

    def _gwas_block(self, weights: np.ndarray, first: int, stop: int) -> pd.DataFrame:
        basis = np.asarray(weights, dtype=np.float64)
        if basis.shape != (self.r,):
            raise ValueError(f"weights have shape {basis.shape}, ({self.r},) is due")
        statistics = self._statistics(self.components(first, stop), basis[None, :])
        table = self.variant_block(first, stop)
        return table.assign(**{name: statistics[name][:, 0] for name in _STATISTICS})

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
            No variant, or more than one, has the id, or it is not text.
        """
        if not isinstance(variant_id, str):
            raise InputError(
                f"variant {variant_id!r} is not text; give its id, or "
                "chromosome:position:allele:allele"
            )
        rows = self._rows_of_place(variant_id)
        if len(rows) == 0:
            rows = self._rows_of_id(variant_id)
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

    def _rows_of_place(self, name: str) -> np.ndarray:
        """Return the rows of ``chromosome:position:allele:allele``, found by bisection."""
        words = name.split(":")
        if len(words) != 4 or not (words[1].isascii() and words[1].isdigit()):
            return np.zeros(0, dtype=int)
        try:
            chromosome = normalise_chromosome(words[0], f"variant '{name}'")
        except InputError:
            # Not a place, but it may be an id.
            return np.zeros(0, dtype=int)
        low, high = self._range(chromosome, int(words[1]), int(words[1]))
        here = self.variant_block(low, high)
        wanted = sorted(word.upper() for word in words[2:])
        pairs = zip(here["effect_allele"], here["other_allele"], strict=True)
        same = [sorted((one.upper(), other.upper())) == wanted for one, other in pairs]
        return low + np.flatnonzero(same)

    def _rows_of_id(self, name: str) -> np.ndarray:
        """Return the rows whose id is ``name``; all ids are read, by blocks."""
        ids = self._file["variants/variant_id"]
        wanted = name.encode()
        if len(wanted) > ids.dtype.itemsize:
            return np.zeros(0, dtype=int)
        size = max(1, _TEXT_BLOCK_BYTES // ids.dtype.itemsize)
        found = [
            first + np.flatnonzero(ids[first : first + size] == wanted)
            for first in range(0, self.m, size)
        ]
        return np.concatenate([np.zeros(0, dtype=int), *found])

    def id_blocks(self, first: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Yield the ids of variants ``first`` to ``stop`` as text, by blocks."""
        stop = self.m if stop is None else stop
        for start in range(first, stop, BLOCK_VARIANTS):
            end = min(start + BLOCK_VARIANTS, stop)
            yield self._file.rows("variants/variant_id", start, end)

    def region(self, chromosome: object, start: int, end: int) -> DatasetView:
        """Return the variants from position ``start`` to ``end``, both included.

        Raises
        ------
        InputError
            The chromosome is unknown, or the positions are no numbers in order.
        """
        name = normalise_chromosome(chromosome, "region")
        try:
            start, end = (int(value) for value in (start, end))
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"region {name}:{start}-{end}: start and end are positions, whole numbers"
            ) from error
        if not 0 <= start <= end:
            raise InputError(f"region {name}:{start}-{end}: the start must not be after the end")
        return DatasetView(self, *self._range(name, start, end))

    def nearest_voxel(self, coordinates: Sequence[float]) -> int:
        """Return the voxel nearest to a point in millimetres.

        Raises
        ------
        InputError
            The point has not as many finite coordinates as the voxels.
        """
        dimensions = self.coordinates.shape[1]
        try:
            point = np.asarray(coordinates, dtype=np.float64)
        except (TypeError, ValueError):
            point = np.full(0, np.nan)
        if point.shape != (dimensions,) or not np.all(np.isfinite(point)):
            raise InputError(
                f"point {coordinates}: {dimensions} finite coordinates in millimetres are due"
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

    def verify(self) -> None:
        """Read the whole file and check everything in it.

        Raises
        ------
        InputError
            Something is not what was written.
        """
        self._file.verify()
        for first, stop, _ in self.blocks(BLOCK_VARIANTS):
            # With the row before, so that the order is checked across blocks as well.
            self.variant_block(max(0, first - 1), stop)

    def size(self) -> dict[str, int]:
        """Return the bytes of the file's parts.

        Returns
        -------
        dict
            ``variant_bytes``: what grows with the variants (codes, scales, a, the variants'
            table); ``fixed_bytes``: the rest (bases, A, geometry, HDF5's own);
            ``file_bytes``: both.
        """
        return dataset_size(self._file)

    def close(self) -> None:
        """Close the file; what was read whole (bases, A, coordinates) stays."""
        if self._envelope is not None:
            self._envelope.close()
            self._envelope = None

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

    def _voxel_number(self, i: int) -> int:
        number = _whole(i, "voxel")
        if not 0 <= number < self.N:
            raise InputError(f"voxel {i} does not exist: the dataset has voxels 0 to {self.N - 1}")
        return number

    def _range(self, chromosome: str, start: int, end: int) -> tuple[int, int]:
        """Return the rows of the variants of a stretch of the genome, by bisection.

        About 50 rows are looked at, and no more chunks of the file.
        """
        rank = RANK[chromosome]
        chromosomes = self._file["variants/chromosome"]
        positions = self._file["variants/base_pair_location"]
        first = _bisect(chromosomes, rank, 0, self.m)
        stop = _bisect(chromosomes, rank + 1, first, self.m)
        low = _bisect(positions, start, first, stop)
        return low, _bisect(positions, end + 1, low, stop)

    def _check_values(self) -> None:
        """Refuse values that cannot be: the arithmetic below relies on them."""
        problem = None
        if self.p < 1 or self.nu < 1:
            problem = f"n = {self.n} and p = {self.p} leave no degrees of freedom"
        elif self.attributes["coding"] not in ("int16", "float32") or (
            self._file["z"].dtype != ("i2" if self.attributes["coding"] == "int16" else "f4")
        ):
            problem = f"coding '{self.attributes['coding']}' does not agree with the type of z"
        elif min(self.r, self.N, len(self.A)) < 1:
            problem = "it holds no components, no voxels or no A"
        elif not all(
            np.all(np.isfinite(array))
            for array in (self.A, self.Sigma, self.bases, self.eigenvalues, self.coordinates)
        ):
            problem = "A, Sigma, bases, eigenvalues or coordinates hold values that are not finite"
        elif not all(
            np.all(np.abs(array) < _LARGEST_NUMBER) for array in (self.A, self.Sigma, self.bases)
        ):
            problem = "A, Sigma or bases hold absurd values"
        elif not all(_is_covariance(matrix) for matrix in (*self.A, self.Sigma)):
            problem = "A or Sigma is not a symmetric positive matrix with a positive diagonal"
        elif any(
            layout.type == "nifti" and layout.size > _MOST_CELLS
            for layout in self.geometry.map_layouts
        ):
            problem = "the image grid has an impossible size"
        if problem:
            raise InputError(f"{self.path}: {problem}: the file is damaged")

    def _check_attributes(self) -> None:
        """Refuse attributes of other types than declared."""
        numbers = ("n", "p", "n_eff", "minor_allele_count")
        texts = ("coding", "genome_build", "sample_hash", "counts", "geometry_type")
        for key in numbers:
            value = self.attributes[key]
            if isinstance(value, str) or not math.isfinite(value) or not 0 <= value < 1e12:
                raise InputError(f"{self.path}: attribute '{key}' is impossible: it is damaged")
        for key in texts:
            value = self.attributes[key]
            if not (isinstance(value, str) and value.isprintable()):
                raise InputError(
                    f"{self.path}: attribute '{key}' is not text that prints: it is damaged"
                )
        try:
            counts = json_value(self.attributes["counts"])
            sound = all(
                name in RANK
                and all(isinstance(entry[key], int) for key in ("read", "written"))
                and all(isinstance(entry[key], dict) for key in ("dropped", "missing"))
                for name, entry in counts.items()
            )
        except (ValueError, AttributeError, KeyError, TypeError):
            sound = False
        if not sound:
            raise InputError(f"{self.path}: attribute 'counts' makes no sense: it is damaged")


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
        return self.dataset.variant_block(self.first, self.stop)

    def components(self) -> Components:
        """Return the region's component statistics."""
        return self.dataset.components(self.first, self.stop)

    def voxel(self, i: int) -> pd.DataFrame:
        """Return the region's GWAS of one voxel, as :meth:`MinimalDataset.voxel`."""
        return self.dataset.voxel(i, self.first, self.stop)

    def region_mean(self, labels: np.ndarray, label: int) -> pd.DataFrame:
        """Return the GWAS of a labelled region's mean over these variants."""
        return self.dataset.region_mean(labels, label, self.first, self.stop)

    def component(self, k: int) -> pd.DataFrame:
        """Return the GWAS of one component over these variants."""
        return self.dataset.component(k, self.first, self.stop)

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


def stretch(text: str) -> tuple[str, int, int]:
    """Return chromosome, start and end of ``chromosome:start-end``; commas part thousands.

    Raises
    ------
    InputError
        It is of another form.
    """
    match = re.fullmatch(r"([^:]+):([0-9][0-9,]*)-([0-9][0-9,]*)", text)
    start, end = (word.replace(",", "") for word in match.groups()[1:]) if match else ("", "")
    if match is None or max(len(start), len(end)) > _MOST_DIGITS:
        raise InputError(
            f"region '{text[:60]}' is not chromosome:start-end, for example 2:1000000-2000000"
        )
    return match.group(1), int(start), int(end)


def _whole(value: Any, what: str) -> int:
    """Return a whole number that was given for ``what``; 1.7 is not taken for 1."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise InputError(f"{what} {value!r} is not a whole number") from error


def _bisect(values: Any, wanted: int, low: int, high: int) -> int:
    """Return the first row from ``low`` to ``high`` whose value is not below ``wanted``."""
    while low < high:
        middle = (low + high) // 2
        if int(values[middle]) < wanted:
            low = middle + 1
        else:
            high = middle
    return low


def _is_covariance(matrix: np.ndarray) -> bool:
    """Return whether a matrix is symmetric with a positive diagonal and no negative direction."""
    diagonal = np.diag(matrix)
    if not np.all(diagonal > 0):
        return False
    scale = 1.0 / np.sqrt(diagonal)
    correlation = matrix * np.outer(scale, scale)
    if np.any(np.abs(correlation - correlation.T) > 1e-6):
        return False
    return bool(np.linalg.eigvalsh(correlation)[0] > -1e-8 * len(matrix))


def _refuse_inflated(envelope: formats.Envelope) -> None:
    """Refuse sizes out of proportion to the file, before memory is taken."""
    path = envelope.path
    whole = 0
    for name, entry in formats.KINDS["minimal"].datasets.items():
        if name not in envelope:
            continue
        dataset = envelope[name]
        if "m" not in entry.dimensions:
            whole += dataset.size * dataset.dtype.itemsize
        elif entry.dtype == formats.TEXT and dataset.dtype.itemsize > _LONGEST_TEXT_BYTES:
            raise InputError(f"{path}: '{name}' has texts of impossible length: it is damaged")
    stored = path.stat().st_size
    if whole > _SMALL_BYTES + _LARGEST_INFLATION * stored:
        raise InputError(
            f"{path}: its bases and geometry claim {whole} bytes in a file of {stored}: it is "
            "damaged"
        )
