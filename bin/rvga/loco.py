"""Leave-one-chromosome-out predictions of the components, as REGENIE's first step writes them.

A file holds one component: a line that begins with ``FID_IID`` and names the people, then a
line a chromosome with its number and each person's prediction. The predictions are in standard
deviations of the component's residual on the covariates, and are turned back by the caller.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rvga.chromosomes import RANK, normalise_chromosome
from rvga.errors import InputError

_FIRST = "FID_IID"
_MISSING = ("NA", "nan", "NaN", "")


def component_numbers(names: Sequence[str], r: int, what: str) -> list[int]:
    """Return the components (from 0) that names like ``LDR3`` or ``3`` mean.

    Raises
    ------
    InputError
        A name means no component, a component is there twice, or one lacks.
    """
    numbers = []
    for name in names:
        found = re.fullmatch(r"(?:LDR)?([1-9][0-9]*)", name.strip(), re.IGNORECASE)
        if found is None or int(found[1]) > r:
            raise InputError(f"{what}: component '{name}' is none of LDR1 to LDR{r}")
        number = int(found[1]) - 1
        if number in numbers:
            raise InputError(f"{what}: component 'LDR{number + 1}' is there twice; keep one")
        numbers.append(number)
    absent = [f"LDR{number + 1}" for number in range(r) if number not in numbers]
    if absent:
        raise InputError(
            f"{what}: {len(absent)} of {r} components have no file, the first is {absent[0]}; "
            "give one for every component"
        )
    return numbers


class LocoFile:
    """One component's predictions, for the subjects of the sample.

    Attributes
    ----------
    codes : list of int
        Chromosomes (ranks) in the file's order; Y and MT have the row of X, as in REGENIE.
    """

    def __init__(self, path: Path, subjects: Sequence[str], subject_id: str):
        self.path = path
        self.values: dict[int, np.ndarray] = {}
        lines = _lines(path)
        header = lines[0].split() if lines else []
        if not header or header[0] != _FIRST:
            raise InputError(
                f"{path}: line 1 does not begin with {_FIRST}; give the .loco file that REGENIE's "
                "step 1 writes for the component"
            )
        columns = self._columns(header[1:], subjects, subject_id)
        for number, line in enumerate(lines[1:], start=2):
            words = line.split()
            if not words:
                continue
            if len(words) != len(header):
                raise InputError(
                    f"{path}: line {number} has {len(words)} fields, but line 1 has "
                    f"{len(header)}; the file is damaged or cut short"
                )
            code = RANK[normalise_chromosome(words[0], f"{path}, line {number}")]
            if code in self.values:
                raise InputError(f"{path}: line {number}: chromosome {words[0]} is there twice")
            self.values[code] = self._numbers(words, columns, subjects, number)
        if not self.values:
            raise InputError(f"{path}: holds people but no chromosome's predictions")

    def _columns(self, ids: list[str], subjects: Sequence[str], subject_id: str) -> np.ndarray:
        """Return the field of each subject."""
        wanted = set(subjects)
        field: dict[str, int] = {}
        for place, name in enumerate(ids, start=1):
            found = _subjects_meant(name, wanted, subject_id)
            if len(found) > 1:
                raise InputError(
                    f"{self.path}: '{name}' in line 1 can be read as more than one subject of the "
                    "sample; set subject_id to FID_IID"
                )
            for subject in found:
                if subject in field:
                    raise InputError(f"{self.path}: subject '{subject}' is in line 1 twice")
                field[subject] = place
        absent = [subject for subject in subjects if subject not in field]
        if absent:
            raise InputError(
                f"{self.path}: {len(absent)} of {len(subjects)} subjects have no prediction "
                f"(subject_id is {subject_id}), the first is '{absent[0]}'; run REGENIE's step 1 "
                "on the whole sample, or leave such subjects out with remove"
            )
        return np.array([field[subject] for subject in subjects])

    def _numbers(
        self, words: list[str], columns: np.ndarray, subjects: Sequence[str], number: int
    ) -> np.ndarray:
        chosen = [words[place] for place in columns]
        absent = [row for row, word in enumerate(chosen) if word in _MISSING]
        if absent:
            raise InputError(
                f"{self.path}: line {number}: {len(absent)} of {len(subjects)} subjects have no "
                f"prediction, the first is '{subjects[absent[0]]}'; leave such subjects out with "
                "remove, or run REGENIE's step 1 on the whole sample"
            )
        try:
            values = np.array(chosen, dtype=np.float64)
        except ValueError:
            values = np.array([np.nan])
        if not np.isfinite(values).all():
            raise InputError(
                f"{self.path}: line {number} holds something that is not a number; make the file "
                "again"
            )
        return values.astype(np.float32)


def prediction_rows(files: Sequence[LocoFile], chromosomes: Sequence[str]) -> list[int]:
    """Return the chromosomes (ranks, ascending) to make rows for.

    REGENIE collapses the sex chromosomes (and MT) into one line, which serves X, Y and MT.

    Parameters
    ----------
    files : sequence of LocoFile
        Every component's.
    chromosomes : sequence of str
        Those that are analysed; none is all that the files have.

    Raises
    ------
    InputError
        A file lacks a chromosome that is analysed, or that another file has.
    """
    first = files[0]
    codes = [RANK[name] for name in chromosomes] or sorted(first.values)
    for file in files:
        for code in codes:
            if source_row(file, code) is None:
                name = next(name for name, rank in RANK.items() if rank == code)
                raise InputError(
                    f"{file.path}: has no prediction for chromosome {name}, which is analysed; "
                    "run REGENIE's step 1 so that every chromosome is left out once"
                )
    return sorted(set(codes))


def source_row(file: LocoFile, code: int) -> np.ndarray | None:
    """Return the predictions for a chromosome, None where the file has none."""
    if code in file.values:
        return file.values[code]
    return file.values.get(RANK["X"]) if code > RANK["X"] else None


def _subjects_meant(name: str, wanted: set[str], subject_id: str) -> set[str]:
    """Return the subjects of the sample that ``FID_IID`` may mean."""
    if subject_id == "FID_IID":
        return {name} & wanted
    half = len(name) // 2
    if len(name) % 2 and name[half] == "_" and name[:half] == name[half + 1 :]:
        return {name[:half]} & wanted
    ends = {name[place + 1 :] for place, mark in enumerate(name) if mark == "_"}
    return ends & wanted


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"{path}: no such file (leave-one-chromosome-out predictions)")
    content = path.read_bytes()
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return content.decode().splitlines()
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{path}: is no text, or damaged (leave-one-chromosome-out predictions); make it again"
        ) from error
