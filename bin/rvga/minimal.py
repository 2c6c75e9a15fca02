"""How the minimal dataset and its chunks are laid out in HDF5, and how chunks are joined."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from rvga.errors import InputError
from rvga.formats import Envelope, Writer, open_file

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
_COLUMN_CHUNK_ROWS = 1 << 14


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
    z_rows = max(1, min(m, _Z_CHUNK_BYTES // (dtype.itemsize * r)))
    # HDF5 cannot divide an empty dataset into chunks.
    z_layout = {"chunks": (z_rows, r)} if m else {}
    layout = (
        {"chunks": (min(m, _COLUMN_CHUNK_ROWS),), "compression": "gzip", "compression_opts": 4,
         "shuffle": True}
        if m
        else {}
    )  # fmt: skip
    columns = {"z": writer.reserve("z", (m, r), dtype.str, **z_layout)}
    for name in _NUMBER_COLUMNS:
        columns[name] = writer.reserve(name, (m,), **layout)
    for name in TEXT_COLUMNS:
        full = f"variants/{name}"
        columns[full] = writer.reserve(full, (m,), f"S{widths[name]}", **layout)
    return columns


@contextlib.contextmanager
def open_chunks(paths: Sequence[Path], null: Envelope) -> Iterator[list[Envelope]]:
    """Open the chunks of one study, in genome order whatever order they are given in.

    Raises
    ------
    InputError
        A chunk is of another null model or other options, or is given twice.
    """
    with contextlib.ExitStack() as stack:
        chunks = [stack.enter_context(open_file(path, "minimal")) for path in paths]
        seen: dict[str, Path] = {}
        # Chunks with equal content (both without a variant, say) are told apart by their paths.
        resolved: set[Path] = set()
        for chunk in chunks:
            chunk.require_made_from("null", null)
            path = chunk.path.resolve()
            if path in resolved or (chunk.digest in seen and chunk["a"].shape[0]):
                other = seen.get(chunk.digest, path)
                raise InputError(
                    f"{chunk.path}: is given twice (it equals {other}); give each chunk once, and "
                    "each genotype file once in the samplesheet"
                )
            resolved.add(path)
            seen[chunk.digest] = chunk.path
            for key in ("coding", "genome_build", "minor_allele_count"):
                if chunk.attributes[key] != chunks[0].attributes[key]:
                    raise InputError(
                        f"{chunk.path}: {key} is '{chunk.attributes[key]}', but "
                        f"'{chunks[0].attributes[key]}' in {chunks[0].path.name}: they are of "
                        "different runs"
                    )
            if chunk.parameters != chunks[0].parameters:
                raise InputError(
                    f"{chunk.path}: was made with other options than {chunks[0].path.name}"
                )
        chunks.sort(key=_place)
        yield chunks


def _place(chunk: Envelope) -> tuple:
    """Return the genome place of a chunk's first and last variant."""
    if not chunk["a"].shape[0]:
        return (0, 0, 0, 0, b"", chunk.digest)
    chromosome, position = chunk["variants/chromosome"], chunk["variants/base_pair_location"]
    return (
        int(chromosome[0]),
        int(position[0]),
        int(chromosome[-1]),
        int(position[-1]),
        bytes(chunk["variants/variant_id"][0]),
        chunk.digest,
    )


def genome_order(chunks: Sequence[Envelope]) -> tuple[np.ndarray, np.ndarray]:
    """Return the chunk and the row of every variant of the whole, in genome order."""
    sizes = [chunk["a"].shape[0] for chunk in chunks]
    chromosome = np.concatenate([chunk["variants/chromosome"][...] for chunk in chunks])
    position = np.concatenate([chunk["variants/base_pair_location"][...] for chunk in chunks])
    source = np.repeat(np.arange(len(chunks), dtype=np.int32), sizes)
    row = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])
    order = np.lexsort((row, source, position, chromosome))
    return source[order], row[order]


def copy_variants(
    chunks: Sequence[Envelope],
    source: np.ndarray,
    row: np.ndarray,
    columns: Mapping[str, h5py.Dataset],
    first: int,
    stop: int,
) -> None:
    """Copy variants ``first`` to ``stop`` of the whole from their chunks."""
    here, rows = source[first:stop], row[first:stop]
    for name, target in columns.items():
        block = np.empty((stop - first, *target.shape[1:]), dtype=target.dtype)
        for number in np.unique(here):
            places = np.flatnonzero(here == number)
            wanted = rows[places]
            low, high = int(wanted.min()), int(wanted.max()) + 1
            block[places] = chunks[number][name][low:high][wanted - low]
        target[first:stop] = block


def count_repeated(columns: Mapping[str, h5py.Dataset]) -> tuple[int, str]:
    """Return how many variants repeat an earlier one, in a dataset in genome order.

    A variant repeats another of the same place with the same two alleles. The text names the
    first, '' where there is none.
    """
    chromosome = columns["variants/chromosome"][...].astype(np.int64)
    place = chromosome << 32 | columns["variants/base_pair_location"][...]
    same = place[1:] == place[:-1]
    shared = np.concatenate([[False], same]) | np.concatenate([same, [False]])
    count, example = 0, ""
    here, seen = -1, set()
    for first in range(0, len(place), _COLUMN_CHUNK_ROWS):
        stop = min(first + _COLUMN_CHUNK_ROWS, len(place))
        rows = np.flatnonzero(shared[first:stop])
        if len(rows) == 0:
            continue
        text = [columns[f"variants/{name}"][first:stop][rows] for name in TEXT_COLUMNS]
        for at, variant_id, *alleles in zip(place[first:stop][rows], *text, strict=True):
            if at != here:
                here, seen = at, set()
            pair = tuple(sorted(alleles))
            if pair in seen:
                count += 1
                example = example or bytes(variant_id).decode()
            seen.add(pair)
    return count, example


def merged_counts(chunks: Sequence[Envelope]) -> dict[str, dict]:
    """Return the chunks' counts by chromosome, added up."""
    import json

    from rvga.chromosomes import RANK

    merged: dict[str, dict] = {}
    for chunk in chunks:
        for chromosome, entry in json.loads(chunk.attributes["counts"]).items():
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
