"""Sample files beside genotypes (.psam, .fam, Oxford .sample): ids and sex, by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rvga.errors import InputError
from rvga.genotype_sources import Source
from rvga.samples import id_hint, text_lines

UNKNOWN = "NA"
_SEX = {"1": "1", "2": "2", "m": "1", "f": "2", "male": "1", "female": "2"}


@dataclass(frozen=True)
class SampleTable:
    """People in the order of a file; ``sex`` is 1 (male), 2 (female) or NA, ``fid`` 0 if none."""

    fid: list[str]
    iid: list[str]
    sex: list[str]

    def __len__(self) -> int:
        return len(self.iid)

    def take(self, rows: Sequence[int]) -> SampleTable:
        """Return the people of these rows."""
        return SampleTable(*([column[row] for row in rows] for column in self._columns()))

    def knows_sex(self) -> bool:
        """Return whether the sex of anybody is known."""
        return any(sex != UNKNOWN for sex in self.sex)

    def psam(self) -> str:
        """Return the content of a .psam file; family ids only where there are some."""
        families = any(fid != "0" for fid in self.fid)
        lines = ["#FID\tIID\tSEX" if families else "#IID\tSEX"]
        for fid, iid, sex in zip(*self._columns(), strict=True):
            lines.append(f"{fid}\t{iid}\t{sex}" if families else f"{iid}\t{sex}")
        return "\n".join(lines) + "\n"

    def _columns(self) -> tuple[list[str], list[str], list[str]]:
        return self.fid, self.iid, self.sex


def read_sample_table(path: Path) -> SampleTable:
    """Read a ``.psam``, ``.fam`` or Oxford ``.sample`` file.

    An Oxford file is known by its header, ``ID_1 ID_2`` or (one id a person) ``ID``; ID_1 is the
    family id and ID_2 the individual id. Sex is 1, 2, M, F, male or female; all else is unknown.

    Raises
    ------
    InputError
        The file is absent or empty, a line has too few columns, or somebody is there twice.
    """
    path = Path(path)
    lines = [
        (number, line.split())
        for number, line in enumerate(text_lines(path, "genotype samples"), start=1)
        if line.strip() and not line.startswith("##")
    ]
    first = lines[0][1] if lines else []
    if first and first[0].startswith("#"):
        header, start = [first[0][1:], *first[1:]], 1
        if "IID" not in header:
            raise InputError(
                f"{path}: line {lines[0][0]} is not the header of a .psam file (#FID IID … or #IID)"
            )
        at = {name: header.index(name) if name in header else -1 for name in ("FID", "IID")}
        fid_at, iid_at, sex_at = at["FID"], at["IID"], _place(header, "sex")
    elif first and first[0].lower() in ("id_1", "id"):
        # The second line tells the columns' types.
        start, sex_at = 2, _place(first, "sex")
        fid_at, iid_at = (0, 1) if first[0].lower() == "id_1" else (-1, 0)
        if len(lines) < 2 or lines[1][1][0] != "0":
            raise InputError(
                f"{path}: line 2 of an Oxford .sample file tells the columns' types (0 0 0 …); it "
                "is missing"
            )
    else:
        start, fid_at, iid_at, sex_at = 0, 0, 1, 4
    width = max(fid_at, iid_at) + 1
    table = SampleTable([], [], [])
    seen: dict[tuple[str, str], int] = {}
    for number, words in lines[start:]:
        if len(words) < width:
            raise InputError(f"{path}: line {number} has {len(words)} columns, too few for ids")
        person = (words[fid_at] if fid_at >= 0 else "0", words[iid_at])
        if person in seen:
            raise InputError(
                f"{path}: subject '{' '.join(person)}' is there twice (lines {seen[person]} and "
                f"{number}); remove or rename one of them"
            )
        seen[person] = number
        table.fid.append(person[0])
        table.iid.append(person[1])
        sex = words[sex_at].lower() if 0 <= sex_at < len(words) else ""
        table.sex.append(_SEX.get(sex, UNKNOWN))
    if not len(table):
        raise InputError(f"{path}: holds no subjects (genotype samples)")
    return table


def _place(header: Sequence[str], name: str) -> int:
    """Return the column of this name in any case, or -1."""
    lower = [word.lower() for word in header]
    return lower.index(name) if name in lower else -1


def people_of(source: Source, samples: Path | None) -> SampleTable:
    """Return the people of a genotype file, in its order.

    Ids in the genotype file are matched with those of the sample file (IID, else FID_IID), in
    any order; rows of the sample file are taken in order where the genotype file has no ids.

    Raises
    ------
    InputError
        There are no ids at all, or the two files do not belong together.
    """
    if samples is None:
        if source.ids is None:
            raise InputError(
                f"{source.path}: has no sample ids inside; name its .sample (or .psam or .fam) "
                "file in the column 'samples' of the samplesheet"
            )
        return _from_ids(source)
    table = read_sample_table(samples)
    if source.ids is None:
        if len(table) != source.n_samples:
            raise InputError(
                f"{samples}: lists {len(table)} people, but {source.path} holds "
                f"{source.n_samples} and has no ids inside: they are not of one set"
            )
        return table
    ids = source.ids
    for key in _keys(table):
        if tuple(key) == ids:
            return table
    best: list[str] = []
    for key in _keys(table):
        row_of = {name: row for row, name in enumerate(key)}
        if len(row_of) == len(key):
            absent = [name for name in ids if name not in row_of]
            if not absent:
                return table.take([row_of[name] for name in ids])
            best = min((best or absent, absent), key=len)
    if not best:
        best = list(ids)
    hint = id_hint(ids, table.iid)
    raise InputError(
        f"{samples}: does not list {len(best)} of the {len(ids)} samples of {source.path}, the "
        f"first is '{best[0]}'; " + (hint or "give the sample file that belongs to it")
    )


def _keys(table: SampleTable) -> list[list[str]]:
    """Return the ways in which a genotype file may name these people."""
    pairs = list(zip(table.fid, table.iid, strict=True))
    joined = ["_".join(pair) for pair in pairs]
    spaced = [" ".join(pair) for pair in pairs]
    return [table.iid, joined, spaced, table.fid]


def _from_ids(source: Source) -> SampleTable:
    """Return people by the ids of the genotype file; two words are family and individual."""
    fid, iid = [], []
    for name in source.ids or ():
        words = name.split()
        if len(words) not in (1, 2):
            raise InputError(
                f"{source.path}: sample id '{name}' is no one or two words; give a .sample file "
                "in the column 'samples' of the samplesheet"
            )
        fid.append(words[0] if len(words) == 2 else "0")
        iid.append(words[-1])
    return SampleTable(fid, iid, [UNKNOWN] * len(iid))
