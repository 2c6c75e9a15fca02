"""How the minimal dataset and its chunks are laid out in HDF5, and how chunks are joined."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rvga.chromosomes import CHROMOSOMES, RANK
from rvga.errors import InputError
from rvga.formats import KINDS, Envelope, Writer, create, open_file
from rvga.null import null_size

TEXT_COLUMNS = ("variant_id", "effect_allele", "other_allele")
_NUMBER_COLUMNS = (
    "scale",
    "a",
    "A_index",
    "variants/chromosome",
    "variants/base_pair_location",
    "variants/effect_allele_frequency",
    "variants/missing_rate",
)
# An HDF5 chunk of z: small enough that a variant or a region is read at once.
_Z_CHUNK_BYTES = 1 << 18
# Rows of a chunk of the other columns: a power of two, so that blocks end where chunks end.
COLUMN_CHUNK_ROWS = 1 << 14
_TEXT_CHUNK_BYTES = 1 << 20
# Each holds on to the HDF5 chunks that were read last.
_OPEN_FILES = 4
# Of a row while chunks are put in order: place, chunk and row, and their sorting.
ORDER_BYTES = 64


def encoded_text(values: Sequence[str]) -> np.ndarray:
    """Return text as fixed-length UTF-8 bytes (m,), at least one byte wide."""
    encoded = np.array([str(value).encode() for value in values], dtype=bytes)
    width = max(1, encoded.dtype.itemsize) if len(encoded) else 1
    # The dtype says UTF-8, without which HDF5 refuses to convert.
    return encoded.astype(h5py.string_dtype(length=width))


def reserve_variants(
    writer: Writer, m: int, r: int, coding: str, widths: Mapping[str, int]
) -> dict[str, h5py.Dataset]:
    """Create the datasets with a row a variant, to be filled by slices.

    z is stored as it is, because codes hardly shrink; its chunks share the rows evenly, so that
    the last one is not padded. The other columns are shuffled and deflated.

    Parameters
    ----------
    m, r : int
        Variants and components.
    coding : {"int16", "float32"}
        Coding of z.
    widths : mapping
        Bytes of each text column.
    """
    dtype = np.dtype("i2" if coding == "int16" else "f4")
    z_rows = max(1, _Z_CHUNK_BYTES // (dtype.itemsize * r))
    z_rows = -(-m // -(-m // z_rows)) if m else 0
    packed = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
    columns = {"z": writer.reserve("z", (m, r), dtype.str, chunks=(z_rows, r))}
    for name in _NUMBER_COLUMNS:
        chunks = (min(m, COLUMN_CHUNK_ROWS),)
        columns[name] = writer.reserve(name, (m,), chunks=chunks, **packed)
    for name in TEXT_COLUMNS:
        full, width = f"variants/{name}", widths[name]
        rows = COLUMN_CHUNK_ROWS
        while rows > 1 and rows * width > _TEXT_CHUNK_BYTES:
            rows //= 2
        columns[full] = writer.reserve(full, (m,), f"S{width}", chunks=(min(m, rows),), **packed)
    return columns


def write_chunk(
    path: Path,
    null: Envelope,
    columns: Mapping[str, np.ndarray | Sequence[str]],
    *,
    coding: str,
    genome_build: str,
    minor_allele_count: float,
    counts: Mapping[str, Mapping],
    parameters: Mapping[str, Any],
    code: str,
) -> None:
    """Write the variants of a chunk, with what is the whole study's.

    Parameters
    ----------
    null : Envelope
        Null model that the chunk was made with.
    columns : mapping
        ``z`` (m, r) as coded and, of length m, the other datasets with a row a variant; text
        columns as text.
    coding : {"int16", "float32"}
        Coding of z.
    genome_build, minor_allele_count, counts
        Attributes of the file.
    parameters : mapping
        Other options that chunks of one dataset must share.
    code : str
        Fingerprint of the stage's code.
    """
    m, r = columns["z"].shape
    texts = [f"variants/{name}" for name in TEXT_COLUMNS]
    values = {
        name: encoded_text(column) if name in texts else column for name, column in columns.items()
    }
    widths = {
        name: values[full].dtype.itemsize for name, full in zip(TEXT_COLUMNS, texts, strict=True)
    }
    n, p = null_size(null)
    attributes = {
        "n": n,
        "p": p,
        "coding": coding,
        "n_eff": 0.0,
        "geometry_type": "",
        "genome_build": genome_build,
        "sample_hash": null.attributes["sample_hash"],
        "minor_allele_count": minor_allele_count,
        "counts": counts,
    }
    inputs = {"null": null.digest}
    with create(
        path, "minimal", attributes, inputs=inputs, parameters=parameters, code=code
    ) as writer:
        writer.add("A", null["A"][...])
        writer.add("Sigma", null["Sigma"][...])
        reserved = reserve_variants(writer, m, r, coding, widths)
        if m:
            for name, column in values.items():
                reserved[name][...] = column


@dataclass(frozen=True)
class Shard:
    """A chunk of a study's component GWAS, as far as it must be known to join it.

    Attributes
    ----------
    path, digest, attributes, parameters
        Of its file.
    m : int
        Variants.
    low, high : int
        Least and greatest place of its variants, see :func:`places`.
    widths : dict
        Bytes of its text columns.
    """

    path: Path
    digest: str
    attributes: dict[str, Any]
    parameters: dict[str, Any]
    m: int
    low: int
    high: int
    first_id: bytes
    widths: dict[str, int]


def places(columns: Mapping[str, h5py.Dataset], first: int, stop: int) -> np.ndarray:
    """Return chromosome and position of variants as one number that sorts by the genome."""
    chromosome = columns["variants/chromosome"][first:stop].astype(np.int64)
    return chromosome << 32 | columns["variants/base_pair_location"][first:stop]


def read_shards(paths: Sequence[Path], null: Envelope) -> list[Shard]:
    """Look at the chunks of one study, one after another, and return them in genome order.

    Raises
    ------
    InputError
        A chunk is of another null model or other options, or is given twice.
    """
    shards: list[Shard] = []
    seen: dict[str, Path] = {}
    # Chunks with equal content (both without a variant, say) are told apart by their paths.
    resolved: set[Path] = set()
    for path in paths:
        with open_file(path, "minimal") as chunk:
            chunk.require_made_from("null", null)
            shard = _shard(chunk)
        real = path.resolve()
        if real in resolved or (shard.digest in seen and shard.m):
            other = seen.get(shard.digest, real)
            raise InputError(
                f"{path}: is given twice (it equals {other}); give each chunk once, and each "
                "genotype file once in the samplesheet"
            )
        resolved.add(real)
        seen[shard.digest] = path
        shards.append(shard)
        for key in ("coding", "genome_build", "minor_allele_count"):
            if shard.attributes[key] != shards[0].attributes[key]:
                raise InputError(
                    f"{path}: {key} is '{shard.attributes[key]}', but "
                    f"'{shards[0].attributes[key]}' in {shards[0].path.name}: they are of "
                    "different runs"
                )
        if shard.parameters != shards[0].parameters:
            raise InputError(f"{path}: was made with other options than {shards[0].path.name}")
    return sorted(shards, key=lambda shard: (shard.low, shard.high, shard.first_id, shard.digest))


def _shard(chunk: Envelope) -> Shard:
    m = chunk["a"].shape[0]
    low, high, first_id = 1 << 62, 0, b""
    for first in range(0, m, COLUMN_CHUNK_ROWS):
        here = places(chunk, first, min(first + COLUMN_CHUNK_ROWS, m))
        low, high = min(low, int(here.min())), max(high, int(here.max()))
    if m:
        first_id = bytes(chunk["variants/variant_id"][0])
    return Shard(
        path=chunk.path,
        digest=chunk.digest,
        attributes=chunk.attributes,
        parameters=chunk.parameters,
        m=m,
        low=low,
        high=high,
        first_id=first_id,
        widths={name: chunk[f"variants/{name}"].dtype.itemsize for name in TEXT_COLUMNS},
    )


class OpenShards:
    """The chunks' files, of which only a few are open at a time."""

    def __init__(self, shards: Sequence[Shard]):
        self.shards = list(shards)
        self._open: OrderedDict[int, Envelope] = OrderedDict()

    def __getitem__(self, number: int) -> Envelope:
        """Return the open file of a chunk."""
        if number not in self._open:
            while len(self._open) >= _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            shard = self.shards[number]
            envelope = open_file(shard.path, "minimal")
            if envelope.digest != shard.digest:
                envelope.close()
                raise InputError(f"{shard.path}: changed while it was read; run the stage again")
            self._open[number] = envelope
        self._open.move_to_end(number)
        return self._open[number]

    def __enter__(self) -> OpenShards:
        return self

    def __exit__(self, *exception: object) -> None:
        for envelope in self._open.values():
            envelope.close()
        self._open.clear()


def genome_order(opened: OpenShards, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the chunk and the row of every variant in genome order, ``size`` at a time.

    Chunks are taken in the order of their first place. What lies before the first place of the
    next chunk is final, so that only chunks that overlap are in memory together. Variants of one
    place are in the order of id and alleles, whatever chunks they came in.
    """
    waiting = _Rows.none()
    final: list[_Rows] = []
    for number, shard in enumerate(opened.shards):
        if not shard.m:
            continue
        done = waiting.place < shard.low
        if done.any():
            final.append(waiting.take(done).in_order(opened))
            waiting = waiting.take(~done)
        chunk = opened[number]
        waiting = _Rows.joined(
            [
                waiting,
                _Rows(
                    places(chunk, 0, shard.m),
                    np.full(shard.m, number, dtype=np.int32),
                    np.arange(shard.m, dtype=np.int32),
                ),
            ]
        )
        if sum(len(part.place) for part in final) >= size:
            whole = _Rows.joined(final)
            full = len(whole.place) // size * size
            for first in range(0, full, size):
                yield whole.source[first : first + size], whole.row[first : first + size]
            final = [whole.take(slice(full, None))]
    whole = _Rows.joined([*final, waiting.in_order(opened)])
    for first in range(0, len(whole.place), size):
        yield whole.source[first : first + size], whole.row[first : first + size]


@dataclass(frozen=True)
class _Rows:
    """Places of variants, and the chunk and row that each is in."""

    place: np.ndarray
    source: np.ndarray
    row: np.ndarray

    @staticmethod
    def none() -> _Rows:
        return _Rows(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32))

    @staticmethod
    def joined(parts: Sequence[_Rows]) -> _Rows:
        parts = [part for part in parts if len(part.place)]
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return _Rows.none()
        return _Rows(
            np.concatenate([part.place for part in parts]),
            np.concatenate([part.source for part in parts]),
            np.concatenate([part.row for part in parts]),
        )

    def take(self, which: Any) -> _Rows:
        return _Rows(self.place[which], self.source[which], self.row[which])

    def in_order(self, opened: OpenShards) -> _Rows:
        rows = self
        if np.any(np.diff(self.place) < 0):
            rows = self.take(np.lexsort((self.row, self.source, self.place)))
        same = np.diff(rows.place) == 0
        if not same.any():
            return rows
        tied = np.flatnonzero(np.r_[False, same] | np.r_[same, False])
        keys: dict[int, tuple] = {}
        for number in np.unique(rows.source[tied]):
            here = tied[rows.source[tied] == number]
            wanted = rows.row[here]
            low, high = int(wanted.min()), int(wanted.max()) + 1
            text = [
                opened[int(number)][f"variants/{name}"][low:high][wanted - low].tolist()
                for name in TEXT_COLUMNS
            ]
            keys.update(zip(here.tolist(), zip(*text, strict=True), strict=True))
        order = sorted(
            tied.tolist(),
            key=lambda at: (rows.place[at], keys[at], rows.source[at], rows.row[at]),
        )
        moved = np.arange(len(rows.place))
        moved[tied] = order
        return rows.take(moved)


def copy_variants(
    opened: OpenShards,
    source: np.ndarray,
    row: np.ndarray,
    columns: Mapping[str, h5py.Dataset],
    first: int,
    A_row: np.ndarray,
) -> dict[str, np.ndarray]:
    """Copy a block of variants from their chunks to row ``first`` of the whole and after.

    Parameters
    ----------
    source, row : (k,)
        Chunk and row of each variant of the block.
    A_row : (26,)
        Which A belongs to a variant, by chromosome code; −1 for none.

    Returns
    -------
    dict
        The block's columns.
    """
    stop = first + len(source)
    copied = {
        name: np.empty((len(source), *target.shape[1:]), dtype=target.dtype)
        for name, target in columns.items()
        if name != "A_index"
    }
    for number in np.unique(source):
        here = np.flatnonzero(source == number)
        wanted = row[here]
        low, high = int(wanted.min()), int(wanted.max()) + 1
        chunk = opened[int(number)]
        for name, block in copied.items():
            block[here] = chunk[name][low:high][wanted - low]
    for name, block in copied.items():
        columns[name][first:stop] = block
    index = A_row[copied["variants/chromosome"]]
    if np.any(index < 0):
        code = int(copied["variants/chromosome"][np.flatnonzero(index < 0)[0]])
        raise InputError(
            f"the null model has no residual cross-product for chromosome {CHROMOSOMES[code - 1]}: "
            "give predictions for it, or leave out its variants"
        )
    columns["A_index"][first:stop] = index
    return copied


def cross_product_rows(A_chromosome: np.ndarray) -> np.ndarray:
    """Return which A belongs to each chromosome code, (26,); −1 for none."""
    row = np.full(len(CHROMOSOMES) + 1, -1, dtype=np.int16)
    for number, code in enumerate(A_chromosome):
        if code == 0:
            row[:] = number
        else:
            row[code] = number
    return row


class Repeats:
    """How many variants repeat another of the same place with the same two alleles.

    Attributes
    ----------
    count : int
        Variants after the first of their kind.
    example : str
        Id of the first that repeats another, '' where there is none.
    """

    def __init__(self) -> None:
        self.count = 0
        self.example = ""
        self._place = -1
        self._seen: set[tuple[bytes, ...]] = set()

    def add(self, block: Mapping[str, np.ndarray]) -> None:
        """Count in the next block of variants in genome order."""
        chromosome = block["variants/chromosome"].astype(np.int64)
        place = chromosome << 32 | block["variants/base_pair_location"]
        if not len(place):
            return
        same = place[1:] == place[:-1]
        shared = np.r_[place[0] == self._place, same] | np.r_[same, False]
        # The last row may go on in the next block.
        shared[-1] = True
        rows = np.flatnonzero(shared)
        text = [block[f"variants/{name}"][rows].tolist() for name in TEXT_COLUMNS]
        for at, variant_id, *alleles in zip(place[rows].tolist(), *text, strict=True):
            if at != self._place:
                self._place, self._seen = at, set()
            pair = tuple(sorted(alleles))
            if pair in self._seen:
                self.count += 1
                self.example = self.example or variant_id.decode()
            self._seen.add(pair)


def dataset_size(file: Envelope) -> dict[str, int]:
    """Return ``variant_bytes``, ``fixed_bytes`` and ``file_bytes`` of a minimal dataset.

    ``variant_bytes`` is what the file stores for the datasets with a row a variant;
    ``fixed_bytes`` is all the rest of the file, HDF5's own included.
    """
    declared = KINDS["minimal"].datasets
    stored = file.stored_bytes()
    by_variant = sum(size for name, size in stored.items() if "m" in declared[name].dimensions)
    total = file.path.stat().st_size
    return {
        "variant_bytes": by_variant,
        "fixed_bytes": total - by_variant,
        "file_bytes": total,
    }


def dataset_bytes(path: str | Path, m: int | None = None) -> dict[str, float]:
    """Return the bytes of a minimal dataset, and against beta and SE of every voxel in float32.

    Parameters
    ----------
    path : path
        Minimal dataset.
    m : int, optional
        Variants to which the measured bytes a variant are multiplied up; those of the file by
        default.

    Returns
    -------
    dict
        As :func:`dataset_size`, measured; ``bytes_per_variant_and_component``, measured;
        ``m``, ``N``, ``r``; ``scaled_bytes``, the dataset at ``m`` variants; ``voxelwise_bytes``,
        8 m N; ``ratio``, the second over the first.
    """
    with open_file(path, "minimal") as file:
        measured, r = file["z"].shape
        size = dataset_size(file)
        N = file["bases"].shape[0]
    m = measured if m is None else m
    scaled = size["fixed_bytes"] + size["variant_bytes"] * m / measured
    voxelwise = 8.0 * m * N
    return {
        **size,
        "bytes_per_variant_and_component": size["variant_bytes"] / (measured * r),
        "m": m,
        "N": N,
        "r": r,
        "scaled_bytes": scaled,
        "voxelwise_bytes": voxelwise,
        "ratio": voxelwise / scaled,
    }


def merged_counts(shards: Sequence[Shard]) -> dict[str, dict]:
    """Return the chunks' counts by chromosome, added up."""
    return merge_counts(json.loads(shard.attributes["counts"]) for shard in shards)


def merge_counts(tables: Iterable[Mapping[str, Mapping]]) -> dict[str, dict]:
    """Return tables of counts by chromosome, added up, in genome order."""
    merged: dict[str, dict] = {}
    for table in tables:
        for chromosome, entry in table.items():
            total = merged.setdefault(
                chromosome, {"read": 0, "written": 0, "dropped": {}, "missing": {}}
            )
            for key in ("read", "written"):
                total[key] += entry[key]
            for group in ("dropped", "missing"):
                for reason, number in entry[group].items():
                    total[group][reason] = total[group].get(reason, 0) + number
    return dict(sorted(merged.items(), key=lambda item: RANK[item[0]]))


def total_counts(counts: Mapping[str, Mapping]) -> dict:
    """Return counts by chromosome added up over the chromosomes."""
    totals: dict = {"read": 0, "written": 0, "dropped": {}, "missing": {}}
    for entry in counts.values():
        for key in ("read", "written"):
            totals[key] += entry[key]
        for group in ("dropped", "missing"):
            for reason, number in entry[group].items():
                totals[group][reason] = totals[group].get(reason, 0) + number
    return totals
