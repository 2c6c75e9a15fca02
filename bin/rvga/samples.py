"""Who is in the study: lists of subjects, their intersection, and hints when ids differ."""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rvga.errors import InputError

SUBJECT_IDS = ("IID", "FID_IID")
LEAST_SUBJECTS = 10
LEAST_SHARE = 0.1


def sort_by_bytes(subjects: Iterable[str]) -> list[str]:
    """Return the ids sorted by their UTF-8 bytes, the same in every locale."""
    return sorted(subjects, key=str.encode)


def sample_hash(subjects: Iterable[str]) -> str:
    """Return the first 16 hex digits of the SHA-256 of the sorted ids, one a line."""
    content = "\n".join(sort_by_bytes(subjects))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def subject_of(fid: str, iid: str, subject_id: str) -> str:
    """Return the subject id that a family id and an individual id make."""
    return iid if subject_id == "IID" else f"{fid}_{iid}"


def read_samples(path: str | Path, subject_id: str = "IID") -> np.ndarray:
    """Return the subject ids of a PLINK 2 ``.psam`` or PLINK 1 ``.fam`` file, in file order.

    A file whose first line does not begin with ``#`` is read as ``.fam``. Without a family id,
    ``FID_IID`` takes 0 for it, as PLINK does.

    Raises
    ------
    InputError
        The file is absent, empty or lacks a column, or a subject is there twice.
    """
    path = Path(path)
    lines = text_lines(path, "genotype samples")
    ids: list[str] = []
    fid_column, iid_column, width = 0, 1, 2
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if line.startswith("##") or not line.strip():
            continue
        words = line.split()
        if line.startswith("#"):
            header = [words[0][1:], *words[1:]]
            if ids or "IID" not in header:
                raise InputError(
                    f"{path}: line {number} is not the header of a .psam file "
                    "(#FID IID ... or #IID ...)"
                )
            iid_column = header.index("IID")
            fid_column = header.index("FID") if "FID" in header else -1
            width = max(iid_column, fid_column) + 1
            continue
        if len(words) < width:
            raise InputError(f"{path}: line {number} has {len(words)} columns, too few for ids")
        fid = words[fid_column] if fid_column >= 0 else "0"
        subject = subject_of(fid, words[iid_column], subject_id)
        if subject in first_line:
            raise InputError(
                f"{path}: subject '{subject}' is there twice (lines {first_line[subject]} and "
                f"{number}); {_twice_hint(subject_id)}"
            )
        first_line[subject] = number
        ids.append(subject)
    if not ids:
        raise InputError(f"{path}: holds no subjects (genotype samples)")
    return np.array(ids, dtype=object)


def read_id_list(path: str | Path, subject_id: str = "IID") -> set[str]:
    """Return the subjects of a keep or remove list: one id, or FID and IID, a line.

    A header (``#IID``, ``#FID IID``, ``FID IID``, ``IID`` or ``subject``) may be there.

    Raises
    ------
    InputError
        The file is absent or holds no id.
    """
    path = Path(path)
    subjects = set()
    for line in text_lines(path, "list of subjects"):
        words = line.split()
        if not words or words[0].lstrip("#") in ("FID", "IID", "subject"):
            continue
        pair = len(words) > 1
        subjects.add(subject_of(words[0], words[1], subject_id) if pair else words[0])
    if not subjects:
        raise InputError(f"{path}: holds no subject id (list of subjects)")
    return subjects


@dataclass
class Sample:
    """A sample that gets smaller step by step.

    Attributes
    ----------
    subjects : set of str
        Who is left.
    flow : list of dict
        ``{step, n_in, n_out, reason}`` of every step.
    """

    subjects: set[str]
    flow: list[dict[str, object]] = field(default_factory=list)

    @classmethod
    def start(cls, subjects: Iterable[str], step: str, reason: str) -> Sample:
        """Return a sample of all given subjects, with its first step."""
        subjects = set(subjects)
        n = len(subjects)
        return cls(subjects, [{"step": step, "n_in": n, "n_out": n, "reason": reason}])

    def keep(self, others: Iterable[str], step: str, reason: str) -> None:
        """Keep only those who are among ``others``."""
        before = len(self.subjects)
        self.subjects = self.subjects & set(others)
        self._record(step, before, reason)

    def remove(self, others: Iterable[str], step: str, reason: str) -> None:
        """Remove those who are among ``others``."""
        before = len(self.subjects)
        self.subjects = self.subjects - set(others)
        self._record(step, before, reason)

    def _record(self, step: str, before: int, reason: str) -> None:
        after = len(self.subjects)
        self.flow.append({"step": step, "n_in": before, "n_out": after, "reason": reason})


def match_report(
    one: Sequence[str], other: Sequence[str], one_name: str, other_name: str
) -> dict[str, object]:
    """Return the counts of how two lists of ids match; it names nobody."""
    common = len(set(one) & set(other))
    return {
        "first": one_name,
        "second": other_name,
        "n_first": len(set(one)),
        "n_second": len(set(other)),
        "n_common": common,
    }


def require_overlap(
    one: Sequence[str], other: Sequence[str], one_name: str, other_name: str
) -> None:
    """Refuse two lists of ids that have nobody or few people in common.

    Few are less than a tenth of the shorter list, or fewer than 10 people.

    Raises
    ------
    InputError
        With the counts, three examples a side and a hint at how the ids differ.
    """
    common = len(set(one) & set(other))
    smaller = min(len(set(one)), len(set(other)))
    if common >= LEAST_SUBJECTS and common >= LEAST_SHARE * smaller:
        return
    number = "no subject" if common == 0 else f"only {common} subjects"
    verb = "is" if common == 0 else "are"
    hint = id_hint(one, other)
    if not hint:
        hint = (
            f"at least {LEAST_SUBJECTS} are needed"
            if common and common >= LEAST_SHARE * smaller
            else "check that the files are of the same study and how subject_id is set"
        )
    raise InputError(
        f"{number} of {one_name} ({len(set(one))}: {_examples(one, other)}) {verb} in "
        f"{other_name} ({len(set(other))}: {_examples(other, one)}); {hint}"
    )


def id_hint(one: Iterable[str], other: Iterable[str]) -> str:
    """Return which simple change of ids would make two lists match best, or ''."""
    first, second = set(one), set(other)
    best, hint = len(first & second), ""
    for change, text in _CHANGES:
        for changed, kept, side in ((first, second, "first"), (second, first, "second")):
            common = len({change(subject) for subject in changed} & kept)
            if common > best:
                best, hint = common, f"{text} in the {side} list ({common} subjects would match)"
        common = len({change(subject) for subject in first} & {change(s) for s in second})
        if common > best:
            best, hint = common, f"{text} in both lists ({common} subjects would match)"
    return f"hint: the ids match after dropping {hint}" if hint else ""


def _strip(pattern: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)
    return lambda subject: compiled.sub("", subject)


_CHANGES: tuple[tuple[Callable[[str], str], str], ...] = (
    (_strip(r"^sub-"), "the prefix 'sub-'"),
    (_strip(r"^0_"), "the prefix '0_' (family id 0: try subject_id IID)"),
    (_strip(r"^[^_]*_"), "the family id before '_' (try the other subject_id)"),
    (_strip(r"^0+(?=.)"), "leading zeros"),
    (_strip(r"\.0+$"), "the '.0' at the end"),
    (_strip(r"^[A-Za-z]+[-_]?0*(?=\d)"), "the letters before the number"),
    (_strip(r"(?<=.)_.*$"), "everything from '_' on"),
    (str.lower, "the difference between upper and lower case"),
)


def text_lines(path: Path, what: str) -> list[str]:
    """Return the lines of a text file, compressed by gzip or not.

    Raises
    ------
    InputError
        The file is absent, empty, or not text.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file ({what})")
    content = path.read_bytes()
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{path}: is no UTF-8 text, or damaged ({what}); save it as text in UTF-8"
        ) from error
    if not text.strip():
        raise InputError(f"{path}: the file is empty ({what})")
    return text.splitlines()


def _twice_hint(subject_id: str) -> str:
    if subject_id == "IID":
        return "if people of different families share it, set subject_id to FID_IID"
    return "remove one of them"


def _examples(subjects: Iterable[str], other: Iterable[str]) -> str:
    """Return three ids as examples, of those that do not match where there are any."""
    unmatched = sort_by_bytes(set(subjects) - set(other)) or sort_by_bytes(set(subjects))
    return ", ".join(unmatched[:3]) + (", …" if len(unmatched) > 3 else "")
