"""Tables of related pairs: PLINK 2's and KING's ``.kin0``, and UK Biobank's ``rel`` file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rvga.errors import InputError
from rvga.samples import subject_of, text_lines

# Kinship above which two people are third-degree relatives or closer (KING's bound).
THIRD_DEGREE = 0.0442
_COLUMNS = {
    "first": ("iid1", "id1"),
    "second": ("iid2", "id2"),
    "first_family": ("fid1",),
    "second_family": ("fid2",),
    "kinship": ("kinship", "kin"),
}


@dataclass(frozen=True)
class Relatedness:
    """Related pairs within a sample; it names nobody."""

    n_pairs: int
    n_people: int
    n_pairs_listed: int


def relatedness(path: Path, subjects: Iterable[str], subject_id: str = "IID") -> Relatedness:
    """Count the pairs of a sample whose kinship is above :data:`THIRD_DEGREE`.

    Parameters
    ----------
    path : Path
        Table with a header (``IID1 IID2 KINSHIP`` or ``ID1 ID2 Kinship``, with or without
        ``FID1 FID2``); without a column of kinship every pair counts as related.
    subjects : iterable of str
        The sample.
    subject_id : str
        ``IID`` or ``FID_IID``; the latter needs ``FID1`` and ``FID2``, 0 where absent.

    Raises
    ------
    InputError
        The columns of ids are missing, or a line is cut short or has no number.
    """
    lines = text_lines(path, "kinship")
    mark = next((mark for mark in ("\t", ",") if mark in lines[0]), None)
    header = [name.strip().lstrip("#").lower() for name in lines[0].split(mark)]
    place = {
        role: next((header.index(name) for name in names if name in header), -1)
        for role, names in _COLUMNS.items()
    }
    if place["first"] < 0 or place["second"] < 0:
        raise InputError(
            f"{path}: has no columns IID1 and IID2 (or ID1 and ID2); give PLINK 2's "
            "--make-king-table, KING's .kin0 or a table with these columns"
        )
    sample = set(subjects)
    listed = 0
    pairs: set[tuple[str, str]] = set()
    for number, line in enumerate(lines[1:], start=2):
        words = [word.strip() for word in line.split(mark)]
        if not any(words):
            continue
        if len(words) < len(header):
            raise InputError(
                f"{path}: line {number} has {len(words)} fields, but the header has {len(header)}"
            )
        listed += 1
        if place["kinship"] >= 0:
            try:
                if not float(words[place["kinship"]]) > THIRD_DEGREE:
                    continue
            except ValueError as error:
                raise InputError(
                    f"{path}: line {number}: kinship '{words[place['kinship']]}' is not a number"
                ) from error
        first, second = (
            subject_of(
                words[place[f"{role}_family"]] if place[f"{role}_family"] >= 0 else "0",
                words[place[role]],
                subject_id,
            )
            for role in ("first", "second")
        )
        if first != second and first in sample and second in sample:
            pairs.add((min(first, second), max(first, second)))
    people = {person for pair in pairs for person in pair}
    return Relatedness(n_pairs=len(pairs), n_people=len(people), n_pairs_listed=listed)
