"""Covariates ↔ columns of numbers: one table by header, categories as indicators."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvga.errors import InputError
from rvga.samples import subject_of, text_lines

MISSING = ("", "na", "nan", "n/a")
_ID_COLUMNS = ("subject", "FID", "IID")


@dataclass(frozen=True)
class CovariateTable:
    """A table of covariates.

    Attributes
    ----------
    path : Path
        Where it was read.
    subject : list of str
        Ids, in file order.
    numeric : dict of str to (n,) array
        Numeric columns by name; NaN is missing.
    categorical : dict of str to list of str
        Categorical columns by name; '' is missing.
    columns : list of str
        Names of all columns in use, in order.
    """

    path: Path
    subject: list[str]
    numeric: dict[str, np.ndarray]
    categorical: dict[str, list[str]]
    columns: list[str]

    @property
    def complete(self) -> list[str]:
        """Subjects without a missing value."""
        keep = np.ones(len(self.subject), dtype=bool)
        for values in self.numeric.values():
            keep &= np.isfinite(values)
        for levels in self.categorical.values():
            keep &= np.array([level != "" for level in levels])
        return [subject for subject, kept in zip(self.subject, keep, strict=True) if kept]

    def design(self, subjects: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Return the columns (n, q) of some subjects and their names, without intercept.

        A categorical column becomes one indicator ``column=level`` for each of its levels in
        these subjects, sorted by bytes, but the first.

        Raises
        ------
        InputError
            A subject is not in the table, or a categorical column has one level only.
        """
        row_of = {subject: row for row, subject in enumerate(self.subject)}
        absent = [subject for subject in subjects if subject not in row_of]
        if absent:
            raise InputError(
                f"{self.path}: subject '{absent[0]}' of the sample is not in the table; "
                "give the covariates that the sample was selected with"
            )
        rows = np.array([row_of[subject] for subject in subjects], dtype=np.int64)
        columns: list[np.ndarray] = []
        names: list[str] = []
        for name in self.columns:
            if name in self.numeric:
                columns.append(self.numeric[name][rows])
                names.append(name)
                continue
            values = np.array(self.categorical[name], dtype=object)[rows]
            levels = sorted(set(values), key=str.encode)
            if len(levels) < 2:
                raise InputError(
                    f"{self.path}: covariate '{name}' is constant in the sample of "
                    f"{len(subjects)} subjects; leave it out of categorical_columns"
                )
            for level in levels[1:]:
                columns.append((values == level).astype(np.float64))
                names.append(f"{name}={level}")
        matrix = np.column_stack(columns) if columns else np.empty((len(rows), 0))
        incomplete = ~np.isfinite(matrix).all(axis=1)
        if incomplete.any():
            subject = subjects[int(np.argmax(incomplete))]
            raise InputError(
                f"{self.path}: subject '{subject}' of the sample has a missing value; "
                "give the covariates that the sample was selected with"
            )
        return matrix, names


def read_covariates(
    path: str | Path,
    columns: Sequence[str] = (),
    categorical: Sequence[str] = (),
    subject_id: str = "IID",
) -> CovariateTable:
    """Read a table of covariates (TSV or CSV by its header, compressed or not).

    Parameters
    ----------
    path : path
        Has a ``subject`` column, or ``IID`` (and ``FID``), read by ``subject_id``.
    columns : sequence of str
        Columns to use; none given is all but the ids.
    categorical : sequence of str
        Columns of labels; they are used whether ``columns`` names them or not.
    subject_id : str
        ``IID`` or ``FID_IID``.

    Raises
    ------
    InputError
        A column is missing or twice, a line has too many or too few fields, a subject is there
        twice, or text stands where a number is due.
    """
    path = Path(path)
    lines = text_lines(path, "covariates")
    header_line = lines[0]
    delimiter = next((mark for mark in ("\t", ",", ";") if mark in header_line), None)
    reader = csv.reader(lines, delimiter=delimiter) if delimiter else map(str.split, lines)
    header = [name.strip() for name in next(reader)]
    if header:
        header[0] = header[0].lstrip("#")
    for name in header:
        if header.count(name) > 1:
            raise InputError(f"{path}: column '{name}' is there twice")
    subject_columns = _subject_columns(path, header, subject_id)
    wanted = list(dict.fromkeys([*columns, *categorical])) if columns else None
    if wanted is None:
        wanted = [name for name in header if name not in _ID_COLUMNS]
    for name in [*wanted, *categorical]:
        if name not in header:
            raise InputError(
                f"{path}: column '{name}' is missing; the columns are {', '.join(header)}"
            )
        if name in _ID_COLUMNS:
            raise InputError(f"{path}: column '{name}' holds ids and cannot be a covariate")
    place = {name: header.index(name) for name in wanted}
    numeric: dict[str, list[float]] = {name: [] for name in wanted if name not in categorical}
    labels: dict[str, list[str]] = {name: [] for name in wanted if name in categorical}
    first_line: dict[str, int] = {}
    for number, fields in enumerate(reader, start=2):
        if not any(field.strip() for field in fields):
            continue
        if len(fields) != len(header):
            raise InputError(
                f"{path}: line {number} has {len(fields)} fields, but the header has {len(header)}"
            )
        ids = [fields[column].strip() for column in subject_columns]
        subject = ids[0] if len(ids) == 1 else subject_of(ids[0], ids[1], "FID_IID")
        if not all(ids):
            raise InputError(f"{path}: line {number} has no subject id")
        if subject in first_line:
            raise InputError(
                f"{path}: subject '{subject}' is there twice (lines {first_line[subject]} and "
                f"{number}); keep one line a subject"
            )
        first_line[subject] = number
        for name, values in numeric.items():
            values.append(_number(path, number, name, fields[place[name]]))
        for name, levels in labels.items():
            text = fields[place[name]].strip()
            levels.append("" if text.lower() in MISSING else text)
    if not first_line:
        raise InputError(f"{path}: holds a header but no subjects (covariates)")
    return CovariateTable(
        path=path,
        subject=list(first_line),
        numeric={name: np.array(values) for name, values in numeric.items()},
        categorical=labels,
        columns=wanted,
    )


_SEXES = {"1": 1, "1.0": 1, "m": 1, "male": 1, "2": 2, "2.0": 2, "f": 2, "female": 2, "": 0}


def read_sexes(
    path: str | Path, column: str, subjects: Sequence[str], subject_id: str = "IID"
) -> np.ndarray:
    """Return the sexes of some subjects from a column of the table of covariates.

    Parameters
    ----------
    column : str
        1, 1.0, M or male; 2, 2.0, F or female (in capitals or not); missing as elsewhere in the
        table.
    subjects : sequence of str
        Ids; one that is not in the table is of unknown sex.

    Returns
    -------
    (n,) int8 array
        1 male, 2 female, 0 unknown.

    Raises
    ------
    InputError
        The column is missing, or holds something else for one of the subjects.
    """
    table = read_covariates(path, [column], [column], subject_id)
    sex_of, asked = {}, set(subjects)
    for subject, text in zip(table.subject, table.categorical[column], strict=True):
        if subject not in asked:
            continue
        if text.lower() not in _SEXES:
            raise InputError(
                f"{table.path}: subject '{subject}' has '{text}' in sex_column '{column}'; write "
                "1 or M (male), 2 or F (female), or NA"
            )
        sex_of[subject] = _SEXES[text.lower()]
    return np.array([sex_of.get(subject, 0) for subject in subjects], dtype=np.int8)


def _subject_columns(path: Path, header: list[str], subject_id: str) -> list[int]:
    if "subject" in header:
        return [header.index("subject")]
    if "IID" not in header:
        raise InputError(
            f"{path}: column 'subject' is missing (nor is there 'IID'); the columns are "
            f"{', '.join(header)}"
        )
    if subject_id == "IID":
        return [header.index("IID")]
    if "FID" not in header:
        raise InputError(f"{path}: column 'FID' is missing, which subject_id FID_IID needs")
    return [header.index("FID"), header.index("IID")]


def _number(path: Path, line: int, column: str, text: str) -> float:
    text = text.strip()
    if text.lower() in MISSING:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise InputError(
            f"{path}: line {line}, column '{column}': '{text}' is not a number; correct it, "
            "write NA, or name the column in categorical_columns"
        )
    return value
