"""LD references as files: panels of genotypes in, blocks of an LD reference out."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas as pd

from rvga.chromosomes import CHROMOSOMES, RANK, normalise_chromosome
from rvga.errors import InputError
from rvga.formats import Envelope, Writer, open_as
from rvga.genotypes import open_genotypes
from rvga.hdf5_safety import READ_ERRORS
from rvga.ld import (
    LdBlock,
    between_block_factors,
    columns_for_share,
    pack_lower,
    trace_in_study,
    unpack_lower,
)
from rvga.ld_products import N_BANDS, N_CLASSES, BlockProducts, packed_size, products_of_part
from rvga.sumstats import match_variants

VARIANT_FIELDS = (
    "chromosome",
    "base_pair_location",
    "variant_id",
    "effect_allele",
    "other_allele",
    "effect_allele_frequency",
)


class Panel:
    """One panel's genotypes on one chromosome, over any number of files of the same people.

    Attributes
    ----------
    name : str
        For messages.
    people : (n,) array of str
        IIDs, sorted by bytes, so that the order in the files does not matter.
    variants : DataFrame
        Variants of the chromosome, sorted by position and alleles.
    """

    def __init__(
        self,
        name: str,
        mains: Sequence[Path],
        variants: Sequence[Path],
        samples: Sequence[Path],
        chromosome: str,
    ):
        self.name = name
        for what, files in (("variants", variants), ("samples", samples)):
            if files and len(files) != len(mains):
                raise InputError(
                    f"{name}: {len(mains)} genotype files but {len(files)} files of {what}; "
                    "give one each, in the same order"
                )
        self._open = contextlib.ExitStack()
        try:
            self._files = [
                self._open.enter_context(
                    open_genotypes(
                        main,
                        variants[i] if variants else None,
                        samples[i] if samples else None,
                        subject_id="IID",
                    )
                )
                for i, main in enumerate(mains)
            ]
            self.people = np.array(sorted(self._files[0].subject), dtype=object)
            for file, main in zip(self._files, mains, strict=True):
                self._check_people(file.subject, main, mains[0])
            self._rows = [file.subject_index(self.people) for file in self._files]
            self.variants = self._table(chromosome)
        except BaseException:
            self._open.close()
            raise

    def _check_people(self, people: np.ndarray, main: Path, first: Path) -> None:
        different = sorted(set(people) ^ set(self.people))
        if different:
            raise InputError(
                f"{main}: {len(different)} people are in only one of this file and {first.name}, "
                f"the first is '{different[0]}'; all files of {self.name} must have the same people"
            )

    def _table(self, chromosome: str) -> pd.DataFrame:
        tables = []
        for number, file in enumerate(self._files):
            table = file.variants
            table = table[table["chromosome"] == chromosome]
            tables.append(table.assign(file=number, index=table.index.to_numpy()))
        return pd.concat(tables, ignore_index=True).sort_values(
            ["base_pair_location", "effect_allele", "other_allele", "file", "index"],
            ignore_index=True,
        )

    def dosages(self, rows: np.ndarray) -> np.ndarray:
        """Return dosages (len(rows), n) of rows of :attr:`variants`, NaN where missing."""
        file = self.variants["file"].to_numpy()[rows]
        index = self.variants["index"].to_numpy()[rows]
        if len(self._files) == 1:
            return self._files[0].dosages(index, self._rows[0])
        block = np.empty((len(rows), len(self.people)), dtype=np.float32)
        for number in np.unique(file):
            here = np.flatnonzero(file == number)
            block[here] = self._files[number].dosages(index[here], self._rows[number])
        return block

    def part(self, name: str, which: np.ndarray) -> Panel:
        """Return a panel of some of the people, by index; it reads from this one's files."""
        part = copy.copy(self)
        part.name = name
        part._open = contextlib.ExitStack()
        part.people = self.people[which]
        part._rows = [rows[which] for rows in self._rows]
        return part

    def __enter__(self) -> Panel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()


def people_hash(people: Sequence[str]) -> str:
    """Return the identity of a set of people: 16 hex digits of the SHA-256 of sorted ids."""
    return hashlib.sha256("\n".join(sorted(people)).encode()).hexdigest()[:16]


def require_disjoint(first: Panel, second: Panel) -> None:
    """Refuse two panels that have people in common.

    Raises
    ------
    InputError
        With the number of common people and three of their ids.
    """
    common = sorted(set(first.people) & set(second.people))
    if common:
        raise InputError(
            f"{first.name} and {second.name} have {len(common)} people in common "
            f"({', '.join(common[:3])}{', …' if len(common) > 3 else ''}); the LD reference needs "
            "two panels of different people: remove them from one panel"
        )


def shared_variants(
    first: Panel, second: Panel, chromosome: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, int]]:
    """Match two panels by position and alleles.

    Returns
    -------
    rows_1, rows_2 : (m,) int64
        Rows of the panels' variant tables, in genome order.
    flipped : (m,) bool
        Where panel 2 counts the other allele.
    counts : dict
        Variants by reason.

    Raises
    ------
    InputError
        Both panels have variants on the chromosome, but none in common.
    """
    row, sign, repeated = match_variants(first.variants, second.variants)
    hit = np.flatnonzero(row >= 0)
    counts = {
        "in_panel_1": len(first.variants),
        "in_panel_2": len(second.variants),
        "in_both": len(hit),
        "alleles_swapped": int((sign[hit] < 0).sum()),
        "repeated_in_panel_2": repeated,
    }
    if len(hit) == 0 and len(first.variants) and len(second.variants):
        raise InputError(
            f"{first.name} and {second.name} share no variant on chromosome {chromosome} by "
            f"position and alleles (first positions: {_example(first)} and {_example(second)}); "
            "are they of the same genome build?"
        )
    return hit, row[hit], sign[hit] < 0, counts


def _example(panel: Panel) -> str:
    one = panel.variants.iloc[0]
    return f"{one.base_pair_location} {one.effect_allele}/{one.other_allele}"


def read_block_borders(path: Path, chromosome: str) -> np.ndarray:
    """Return (k, 2) starts and ends of LD blocks of a chromosome from a BED file, sorted.

    A variant at position x is in a block when start < x <= end (BED counts from 0).

    Raises
    ------
    InputError
        A line is not three columns with a start below its end, or blocks overlap.
    """
    borders = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        words = line.split()
        header = number == 1 and len(words) >= 2 and not words[1].isdigit()
        if not words or line.startswith(("#", "track", "browser")) or header:
            continue
        if len(words) < 3 or not (words[1].isdigit() and words[2].isdigit()):
            raise InputError(
                f"{path}: line {number} is not 'chromosome start end'; give a BED file"
            )
        start, end = int(words[1]), int(words[2])
        if end <= start:
            raise InputError(f"{path}: line {number}: the end {end} is not after the start {start}")
        if normalise_chromosome(words[0], f"{path}: line {number}") == chromosome:
            borders.append((start, end))
    borders.sort()
    for (_, end), (start, _) in itertools.pairwise(borders):
        if start < end:
            raise InputError(
                f"{path}: LD blocks overlap on chromosome {chromosome} at {start}-{end}; "
                "make them disjoint"
            )
    return np.array(borders, dtype=np.int64).reshape(-1, 2)


def add_variants(writer: Writer, variants: pd.DataFrame) -> None:
    """Write the variant table (:data:`VARIANT_FIELDS`, chromosomes as text) of an LD file."""
    rank = variants["chromosome"].map(RANK).to_numpy(dtype=np.int8)
    writer.add("variants/chromosome", rank)
    for name in VARIANT_FIELDS[1:]:
        writer.add(f"variants/{name}", variants[name].to_numpy())


# Datasets with a part for each block, and how many numbers make a chunk of about 1 MiB.
_BLOCK_ARRAYS = {
    "M": 1 << 18, "R_a": 1 << 18, "R_b": 1 << 18, "T": 1 << 18,
    "H": 1 << 17, "H_difference": 1 << 17,
}  # fmt: skip
# Chunks that the system is asked for before they are read.
_CHUNKS_AHEAD = 8
# Those with a number, or a row of them, for each column of M or each variant.
_COLUMN_ARRAYS = ("share", "t_1", "t_2", "class_trace", "ld_score")


def largest_file_bytes(sizes: np.ndarray, n_2: int) -> int:
    """Return the most bytes that blocks of these sizes take in an LD file.

    Three triangles of correlations and M in four bytes, two triangles of products of M, traces and
    LD scores in eight; M has at most as many columns as variants or people of panel 2.
    """
    sizes = np.asarray(sizes, dtype=np.int64)
    columns = np.minimum(sizes, n_2)
    single = 3 * sizes * (sizes + 1) // 2 + sizes * columns + 2 * columns
    double = 2 * packed_size(columns) + (2 + N_CLASSES) * columns + sizes + 1 + N_BANDS**2
    return int(4 * np.sum(single) + 8 * np.sum(double))


class BlockWriter:
    """Fills the block datasets of an LD file, whose sizes need not be known beforehand."""

    def __init__(self, writer: Writer):
        self._writer = writer
        self._starts, self._chromosomes, self._ranks = [0], [], []
        self._t_4: list[float] = []
        self._band_t_4: list[np.ndarray] = []
        for name, chunk in _BLOCK_ARRAYS.items():
            writer.reserve(name, (0,), maxshape=(None,), chunks=(chunk,))
        for name in _COLUMN_ARRAYS:
            tail = (N_CLASSES,) * (name == "class_trace")
            chunks = ((1 << 14) // (N_CLASSES if tail else 1), *tail)
            writer.reserve(name, (0, *tail), maxshape=(None, *tail), chunks=chunks)

    def add(
        self, block: LdBlock, products: BlockProducts, ld_score: np.ndarray, chromosome: int
    ) -> None:
        """Append one block with :func:`rvga.ld_products.block_products` of it.

        ``chromosome`` is by number (X 23, Y 24, MT 25).
        """
        for name in ("R_a", "R_b", "T"):
            self._append(name, pack_lower(getattr(block, name)))
        self._append("M", block.M.ravel())
        self._append("share", block.share)
        self._append("H", products.H)
        self._append("H_difference", products.difference)
        for name in ("t_1", "t_2", "class_trace"):
            self._append(name, getattr(products, name))
        self._append("ld_score", ld_score)
        self._t_4.append(products.t_4)
        self._band_t_4.append(products.band_t_4)
        if block.t_1_ratio is not None:
            if len(self._starts) == 1:
                self._writer.reserve("t_1_ratio", (0,), maxshape=(None,), chunks=(1 << 18,))
            self._append("t_1_ratio", block.t_1_ratio)
        self._starts.append(self._starts[-1] + len(block.M))
        self._ranks.append(block.M.shape[1])
        self._chromosomes.append(chromosome)

    def finish(self) -> None:
        """Write the index of the blocks."""
        self._writer.add("block_start", np.array(self._starts, dtype=np.int64))
        self._writer.add("block_rank", np.array(self._ranks, dtype=np.int64))
        self._writer.add("block_chromosome", np.array(self._chromosomes, dtype=np.int8))
        self._writer.add("t_4", np.array(self._t_4, dtype=np.float64))
        self._writer.add("band_t_4", np.reshape(self._band_t_4, (-1, N_BANDS, N_BANDS)))

    def _append(self, name: str, values: np.ndarray) -> None:
        dataset = self._writer[name]
        size = len(dataset)
        dataset.resize(size + len(values), axis=0)
        dataset[size:] = values


@dataclass(frozen=True)
class StoredBlock:
    """What is read of a block for a study: more of it where the study lacks some variants.

    Attributes
    ----------
    M : (m, k) float32 or None
        Where it was asked for, or is needed.
    whole : BlockProducts
        Over all variants.
    t_1_ratio : (k,) or None
        As in :class:`rvga.ld.LdBlock`.
    kept : (m,) bool
        Variants that the study has.
    ld_score : (m,)
    triangles : (R_a, R_b, T) or None
        Packed; where a variant is missing.
    n_a, n_b : int
        People in the halves of panel 1.
    """

    M: np.ndarray | None
    whole: BlockProducts
    t_1_ratio: np.ndarray | None
    kept: np.ndarray
    ld_score: np.ndarray
    triangles: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    n_a: int
    n_b: int

    @property
    def share_a(self) -> float:
        """Half a's share of the people of panel 1."""
        return self.n_a / (self.n_a + self.n_b)

    def seen(self, M: np.ndarray | None, n: float) -> tuple[BlockProducts, np.ndarray]:
        """Return the products over the variants that are there, and t₁ in a study of n people.

        ``M`` (m, k) is in double precision, None if it was not read.
        """
        products = self.whole
        if self.triangles is not None:
            products = products_of_part(
                self.whole, M, self.triangles, self.kept, self.ld_score, self.n_a, self.n_b
            )
        whole = None if self.triangles is None else self.whole.t_1
        return products, trace_in_study(
            products.t_1, self.t_1_ratio, self.n_a + self.n_b, n, whole, products.kept_share
        )


class LdReference:
    """An LD reference that is open for reading; a context manager.

    Attributes
    ----------
    m, n_blocks, n_a, n_b, n_2 : int
    ld_share : float
        Share of the trace that M keeps.
    block_start : (b + 1,) int64
    block_rank : (b,) int64
        Columns of M.
    column_start : (b + 1,) int64
        First column of each block among those of all, then their number.
    variants : DataFrame
        :data:`VARIANT_FIELDS`, chromosomes as text.
    """

    def __init__(self, envelope: Envelope):
        self.envelope = envelope
        self.path = envelope.path
        self.digest = envelope.digest
        self.n_a = int(envelope.attributes["n_a"])
        self.n_b = int(envelope.attributes["n_b"])
        self.n_2 = int(envelope.attributes["n_2"])
        self.ld_share = float(envelope.attributes["ld_share"])
        self.block_start = envelope.array("block_start").astype(np.int64)
        self.block_chromosome = envelope.array("block_chromosome")
        self.block_rank = envelope.array("block_rank").astype(np.int64)
        sizes = np.diff(self.block_start)
        self.m, self.n_blocks = int(self.block_start[-1]), len(sizes)
        self._triangle = np.concatenate([[0], np.cumsum(sizes * (sizes + 1) // 2)])
        self._M = np.concatenate([[0], np.cumsum(sizes * self.block_rank)])
        self._packed = np.concatenate([[0], np.cumsum(packed_size(self.block_rank))])
        self.column_start = np.concatenate([[0], np.cumsum(self.block_rank)])
        for name, size in (
            ("M", self._M[-1]), ("share", self.column_start[-1]), ("T", self._triangle[-1]),
            ("H", self._packed[-1]), ("variants/chromosome", self.m),
        ):  # fmt: skip
            if len(envelope[name]) != size:
                raise InputError(
                    f"{self.path}: dataset '{name}' has {len(envelope[name])} values, its blocks "
                    f"need {size}: the file is damaged"
                )
        # Opened once, which takes about as long as to read a block of them.
        self._large = {name: envelope[name] for name in _BLOCK_ARRAYS}
        self._announced: dict[str, int] = {}
        self._bytes = self.path.stat().st_size
        self._variants: pd.DataFrame | None = None

    @classmethod
    def open(cls, path: str | Path) -> LdReference:
        """Open a file of kind 'ld'.

        Raises
        ------
        InputError
            It is absent, damaged or another kind of file.
        """
        return open_as(path, "ld", cls)

    @property
    def has_t_1_ratio(self) -> bool:
        """Whether its blocks have a ``t_1_ratio`` (:class:`rvga.ld.LdBlock`)."""
        return "t_1_ratio" in self.envelope

    @property
    def variants(self) -> pd.DataFrame:
        """The variant table, read once."""
        if self._variants is None:
            columns = {name: self.envelope.array(f"variants/{name}") for name in VARIANT_FIELDS}
            names = np.array(("", *CHROMOSOMES), dtype=object)
            columns["chromosome"] = names[columns["chromosome"]]
            self._variants = pd.DataFrame(columns)
        return self._variants

    @cached_property
    def columns(self) -> dict[str, np.ndarray | None]:
        """``share``, ``t_1``, ``t_2``, ``t_1_ratio`` and ``class_trace`` of all columns of M."""
        names = ("share", "t_1", "t_2", "class_trace")
        columns = {name: self.envelope[name][...] for name in names}
        columns["t_1_ratio"] = self.envelope["t_1_ratio"][...] if self.has_t_1_ratio else None
        return columns

    @cached_property
    def ld_score(self) -> np.ndarray:
        """LD score of each variant within its block, from the halves of panel 1, (m,)."""
        return self.envelope["ld_score"][...]

    @cached_property
    def _t_4(self) -> tuple[np.ndarray, np.ndarray]:
        return self.envelope["t_4"][...], self.envelope["band_t_4"][...]

    def columns_of(self, i: int, name: str) -> np.ndarray | None:
        """Return one of :attr:`columns` for the columns of block i, (k, ...)."""
        values = self.columns[name]
        at = slice(self.column_start[i], self.column_start[i + 1])
        return None if values is None else values[at]

    def M(self, i: int) -> np.ndarray:
        """Return M of block i, (m_b, k) float32."""
        size = int(self.block_start[i + 1] - self.block_start[i])
        flat = np.empty(size * int(self.block_rank[i]), dtype=np.float32)
        self._read("M", self._M, i, flat)
        return flat.reshape(size, -1)

    def products(self, i: int, difference: bool = False) -> BlockProducts:
        """Return the stored products of block i, with ``difference`` where it is asked for."""
        packed = [np.empty(self._packed[i + 1] - self._packed[i]) for _ in range(1 + difference)]
        for name, target in zip(("H", "H_difference"), packed, strict=False):
            self._read(name, self._packed, i, target)
        of = (self.columns_of(i, name) for name in ("t_1", "t_2"))
        return BlockProducts(
            packed[0], packed[1] if difference else None, *of, float(self._t_4[0][i]),
            self._t_4[1][i], self.columns_of(i, "class_trace"),
        )  # fmt: skip

    def stored(
        self, i: int, kept: np.ndarray, *, with_M: bool = False, with_difference: bool = False
    ) -> StoredBlock:
        """Read of block i what a study needs that has the variants ``kept`` (m_b,).

        Where variants are missing M, the difference of the halves and the triangles are read, too.
        """
        part = not kept.all()
        return StoredBlock(
            self.M(i) if with_M or part else None,
            self.products(i, difference=with_difference or part),
            self.columns_of(i, "t_1_ratio"),
            kept,
            self.ld_score[self.block_start[i] : self.block_start[i + 1]],
            self.triangles(i) if part else None,
            self.n_a,
            self.n_b,
        )

    def triangles(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return R_a, R_b and T of block i as packed lower triangles."""
        size = int(self._triangle[i + 1] - self._triangle[i])
        packed = tuple(np.empty(size, dtype=np.float32) for _ in range(3))
        for name, target in zip(("R_a", "R_b", "T"), packed, strict=True):
            self._read(name, self._triangle, i, target)
        return packed

    def _read(self, name: str, start: np.ndarray, i: int, target: np.ndarray) -> None:
        if len(target):
            first, stop = int(start[i]), int(start[i + 1])
            self._announce(name, first, stop)
            self._large[name].read_direct(target, np.s_[first:stop])

    def _announce(self, name: str, first: int, stop: int) -> None:
        """Let the system read what follows from disk in the meantime."""
        dataset = self._large[name]
        if not hasattr(os, "posix_fadvise") or not dataset.chunks:
            return
        chunk = dataset.chunks[0]
        begin = max(self._announced.get(name, 0), first // chunk)
        end = min(stop // chunk + _CHUNKS_AHEAD, -(-len(dataset) // chunk))
        for k in range(begin, end):
            try:
                place = dataset.id.get_chunk_info_by_coord((k * chunk,))
            except READ_ERRORS:
                # Of a damaged file, about which the reading itself will tell.
                return
            if place.byte_offset is not None and place.byte_offset + place.size <= self._bytes:
                os.posix_fadvise(
                    dataset.file.id.get_vfd_handle(),
                    place.byte_offset,
                    place.size,
                    os.POSIX_FADV_WILLNEED,
                )
        self._announced[name] = max(begin, end)

    def block(self, i: int, share: float | None = None) -> LdBlock:
        """Return block i, its M at a smaller share of the trace if asked."""
        size = int(self.block_start[i + 1] - self.block_start[i])
        rank = int(self.block_rank[i])
        first = self.column_start[i]
        M = self.M(i)
        cumulated = self.envelope["share"][first : self.column_start[i + 1]]
        if share is not None:
            rank = columns_for_share(cumulated, share)
        ratio = None
        if self.has_t_1_ratio:
            ratio = self.envelope["t_1_ratio"][first : first + rank]
        return LdBlock(
            M[:, :rank],
            cumulated[:rank],
            *(unpack_lower(one, size) for one in self.triangles(i)),
            ratio,
        )

    def blocks(self, share: float | None = None) -> Iterator[tuple[int, int, LdBlock]]:
        """Yield (first variant, one past the last, block) in genome order."""
        for i in range(self.n_blocks):
            yield int(self.block_start[i]), int(self.block_start[i + 1]), self.block(i, share)

    def factors(self) -> tuple[float, float]:
        """Return :func:`rvga.ld.between_block_factors` of the reference."""
        return between_block_factors(self.envelope["error_traces"][...])

    def block_bytes(self) -> int:
        """Return the bytes that all of the largest block takes, its triangles unpacked."""
        sizes, ranks = np.diff(self.block_start), self.block_rank
        each = 4 * (3 * sizes**2 + sizes * ranks) + 16 * packed_size(ranks)
        return int(each.max()) if len(sizes) else 0

    def close(self) -> None:
        """Close the file."""
        self.envelope.close()

    def __enter__(self) -> LdReference:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def concatenate(references: Sequence[LdReference], writer: Writer) -> None:
    """Write the blocks of several references, in the order given, into a file of kind 'ld'.

    All of them have a ``t_1_ratio``, or none.
    """
    step = 1 << 20
    names = [*_BLOCK_ARRAYS, *_COLUMN_ARRAYS, "t_4", "band_t_4"]
    if any(reference.has_t_1_ratio for reference in references):
        names.append("t_1_ratio")
    for name in names:
        sources = [reference.envelope[name] for reference in references]
        target = writer.reserve(name, (sum(map(len, sources)), *sources[0].shape[1:]))
        at = 0
        for source in sources:
            for first in range(0, len(source), step):
                piece = source[first : first + step]
                target[at : at + len(piece)] = piece
                at += len(piece)
    offsets = np.concatenate([[0], np.cumsum([reference.m for reference in references])])
    starts = [
        reference.block_start[1:] + offset
        for reference, offset in zip(references, offsets, strict=False)
    ]
    writer.add("block_start", np.concatenate([[0], *starts]))
    traces = [reference.envelope["error_traces"][...] for reference in references]
    writer.add("error_traces", np.concatenate(traces))
    writer.add("block_rank", np.concatenate([r.block_rank for r in references]))
    writer.add("block_chromosome", np.concatenate([r.block_chromosome for r in references]))
    add_variants(writer, pd.concat([r.variants for r in references], ignore_index=True))
