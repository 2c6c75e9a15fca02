"""Positions of one genome build on another, by a chain file."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvga.chromosomes import CHROMOSOMES, RANK, normalise_chromosome
from rvga.errors import InputError

_FARTHEST_BACK = 64


@dataclass(frozen=True)
class _Segments:
    """Aligned stretches of one source chromosome, sorted by start; positions from 0."""

    start: np.ndarray
    end: np.ndarray
    rank: np.ndarray
    target: np.ndarray
    reverse: np.ndarray
    ends: np.ndarray


class Chain:
    """Aligned stretches of two genome builds, read from a chain file.

    Alignments from or to sequences that are no chromosome (patches, alternative loci) are left
    out, and equal alignments that are listed under two names count once.
    """

    def __init__(self, segments: dict[str, _Segments]):
        self._segments = segments

    @classmethod
    def read(cls, path: Path) -> Chain:
        """Read a chain file, plain or gzip.

        Raises
        ------
        InputError
            It is absent, damaged or not a chain file.
        """
        if not path.is_file():
            raise InputError(f"{path}: no such file (chain of two genome builds)")
        rows: dict[str, list[tuple[int, int, int, int, bool]]] = {}
        try:
            with _open(path) as lines:
                _read_lines(path, lines, rows)
        except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            raise InputError(
                f"{path}: cannot be read as a chain file ({error}); is it damaged or cut short?"
            ) from error
        if not rows:
            raise InputError(
                f"{path}: holds no alignment between chromosomes; give a chain file such as "
                "hg19ToHg38.over.chain.gz"
            )
        return cls({name: _segments(found) for name, found in rows.items()})

    def lift(
        self, chromosome: np.ndarray, position: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return where positions are on the other build.

        Parameters
        ----------
        chromosome : (k,) array of str
            Names as of :mod:`rvga.chromosomes`; others (None) are not found.
        position : (k,)
            From 1; NaN is not found.

        Returns
        -------
        chromosome : (k,) object
            None where the position has no or more than one place.
        position : (k,) float64
            NaN there.
        reverse : (k,) bool
            Where the other build runs the other way, so that alleles are complements.
        """
        chromosome = np.asarray(chromosome, dtype=object)
        given = np.asarray(position, dtype=float)
        names = np.full(len(given), None, dtype=object)
        lifted = np.full(len(given), np.nan)
        reverse = np.zeros(len(given), dtype=bool)
        spelling = np.array(CHROMOSOMES, dtype=object)
        for name, segments in self._segments.items():
            here = np.flatnonzero((chromosome == name) & np.isfinite(given))
            if len(here) == 0:
                continue
            at = given[here].astype(np.int64) - 1
            found = _covering(segments, at)
            hit = found >= 0
            rows, i = here[hit], found[hit]
            offset = at[hit] - segments.start[i]
            backward = segments.reverse[i]
            lifted[rows] = segments.target[i] + np.where(backward, -offset, offset) + 1
            reverse[rows] = backward
            names[rows] = spelling[segments.rank[i] - 1]
        return names, lifted, reverse


def _open(path: Path):
    with path.open("rb") as handle:
        packed = handle.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rt") if packed else path.open()


def _read_lines(path: Path, lines, rows: dict[str, list]) -> None:
    """Collect (start, end, rank of the target, its first position, reverse) by source."""
    names: dict[str, str | None] = {}
    wanted = None
    inside = False
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            inside = False
            continue
        if words[0].startswith("#"):
            continue
        try:
            if words[0] == "chain":
                source, strand, start = words[2], words[4], int(words[5])
                target, size, target_strand, target_start = (
                    words[7], int(words[8]), words[9], int(words[10]),
                )  # fmt: skip
                wanted = _known(source, names), _known(target, names)
                inside = True
                if strand != "+":
                    raise ValueError("source strand")
                continue
            if not inside:
                raise ValueError("no chain")
            length = int(words[0])
            if wanted[0] is not None and wanted[1] is not None:
                reverse = target_strand == "-"
                first = size - 1 - target_start if reverse else target_start
                row = (start, start + length, RANK[wanted[1]], first, reverse)
                rows.setdefault(wanted[0], []).append(row)
            start += length
            target_start += length
            if len(words) >= 3:
                start += int(words[1])
                target_start += int(words[2])
        except (ValueError, IndexError) as error:
            raise InputError(
                f"{path}: line {number} is not a line of a chain file; give the chain file from "
                "the trait's genome build to the study's"
            ) from error


def _known(name: str, seen: dict[str, str | None]) -> str | None:
    if name not in seen:
        try:
            seen[name] = normalise_chromosome(name)
        except InputError:
            seen[name] = None
    return seen[name]


def _segments(rows: list[tuple[int, int, int, int, bool]]) -> _Segments:
    table = np.unique(np.array(rows, dtype=np.int64), axis=0)
    start, end, rank, target, reverse = table.T
    return _Segments(start, end, rank, target, reverse.astype(bool), np.sort(end))


def _covering(segments: _Segments, at: np.ndarray) -> np.ndarray:
    """Return the one segment that covers each position, -1 where none or several do."""
    last = np.searchsorted(segments.start, at, side="right") - 1
    number = last + 1 - np.searchsorted(segments.ends, at, side="right")
    found = np.where(number == 1, last, -1)
    # Where segments overlap elsewhere, the one that covers need not be the last to start.
    for _ in range(_FARTHEST_BACK):
        wrong = (found >= 0) & (segments.end[np.maximum(found, 0)] <= at)
        if not wrong.any():
            return found
        found[wrong] -= 1
    return np.where(segments.end[np.maximum(found, 0)] <= at, -1, found)
