"""Tables of images, a row a subject and a column a voxel, read a few rows at a time."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from rvga.errors import InputError
from rvga.image_files import GZIP_MAGIC, head_of, kind_name, kind_of

SUBJECT_COLUMNS = ("subject", "IID", "#IID", "participant_id", "id", "eid")
FAMILY_COLUMNS = ("FID", "#FID")
# What pandas calls the index of a frame that it writes to parquet.
_INDEX_COLUMN = re.compile(r"__index_level_[0-9]+__")
COORDINATES = ("x", "y", "z")
MISSING = (b"", b"NA", b"na", b"N/A", b"NULL", b".")
_BATCH_VALUES = 1 << 22
# Groups of rows of parquet up to this size are read some columns at a time.
_GROUP_BYTES = 1 << 28
_COLUMNS_AT_A_TIME = 1000
# What a column of parquet costs in bytes: once, in every group of rows, and while it is open.
_PARQUET_COLUMN_BYTES, _PARQUET_CHUNK_BYTES, _PARQUET_READER_BYTES = 3_000, 1_000, 8_000


class ImageTable:
    """A table of images that is open for reading; see :func:`open_table`.

    Attributes
    ----------
    path : Path
    columns : list of str
        Names of the voxels.
    coordinates : (N, d) or None
        Where the file itself says where the voxels lie.
    left_out : list of str
        Columns that are neither the ids used nor voxels: families, further ids, an index.
    splits : bool
        Whether a share of the rows can be read without reading what stands before.
    """

    path: Path
    columns: list[str]
    coordinates: np.ndarray | None = None
    left_out: Sequence[str] = ()
    splits = True
    # What a column costs while the table is read, in bytes.
    column_bytes = 120

    def rows(
        self, share: tuple[int, int] = (1, 1), wanted: Collection[str] | None = None
    ) -> Iterator[tuple[str, str, np.ndarray]]:
        """Yield ``(place, subject, values)`` of the rows of one share.

        Parameters
        ----------
        share : (int, int)
            Which share, from 1, and of how many.
        wanted : collection of str, optional
            Only these subjects.

        Raises
        ------
        InputError
            A cell is no number (its line and column are named), a row has another number of
            cells than the header, an id is empty, or the file is damaged.
        """
        raise NotImplementedError

    def ids(self, share: tuple[int, int] = (1, 1)) -> Iterator[str]:
        """Yield the subjects of the rows of one share, as :meth:`rows` does."""
        raise NotImplementedError


def open_table(path: str | Path) -> ImageTable:
    """Open a table of images: text (TSV or CSV, perhaps gzip), parquet or HDF5, by content.

    Text and parquet have a column of ids (``subject``, or ``IID`` with or without ``FID``) and
    numbers in all others. HDF5 has a dataset ``images`` (n x N), ids in ``subject`` or ``id``
    (n, or n x 2 with the family first), and perhaps ``coordinates`` or ``coord`` (N x d) and
    ``voxel`` (names).

    Raises
    ------
    InputError
        The file is absent, damaged, of another kind, or lacks the ids.
    """
    path = Path(path)
    kind = kind_of(head_of(path, "table of images"))
    if kind == "text":
        return TextTable(path)
    if kind == "parquet":
        return ParquetTable(path)
    if kind == "hdf5":
        return HDF5Table(path)
    raise InputError(
        f"{path}: is {kind_name(kind)}, but a table of images is due; use TSV, CSV, parquet or "
        "HDF5 with a row a subject"
    )


def share_of_rows(n: int, share: tuple[int, int]) -> tuple[int, int]:
    """Return the first row of a share of n rows, and that after its last."""
    number, total = share
    return n * (number - 1) // total, n * number // total


class TextTable(ImageTable):
    """Tab-, comma- or semicolon-separated text; one line is in memory at a time."""

    def __init__(self, path: Path):
        self.path = path
        with path.open("rb") as file:
            self.splits = file.read(2) != GZIP_MAGIC
        with self._open() as file:
            header = self._line(file).removeprefix(b"\xef\xbb\xbf")
            self._start = file.tell()
        unquoted = re.sub(rb'"[^"]*"', b"", header)
        self._separator = next((mark for mark in (b"\t", b",", b";") if mark in unquoted), b"\t")
        names = [self._text(cell) for cell in self._cells(header, 1, 0)]
        self._id, self._skipped = _id_columns(path, names)
        self._width = len(names)
        self.columns = [name for k, name in enumerate(names) if k not in self._skipped]
        _require_names(path, names)
        self.left_out = [names[k] for k in sorted(self._skipped - {self._id})]
        _require_columns(path, self.columns)

    def rows(self, share=(1, 1), wanted=None):
        """Yield the rows that begin in this share of the file's bytes."""
        for line, number, begins in self._lines(share):
            yield from self._row(line, number, begins, wanted)

    def ids(self, share=(1, 1)):
        """Yield the subjects of a share."""
        for line, number, begins in self._lines(share):
            yield self._checked(line, number, begins)[1]

    def _lines(self, share: tuple[int, int]) -> Iterator[tuple[bytes, int, int]]:
        """Yield lines that are not blank, their number (0 is not known) and their first byte."""
        if share != (1, 1) and not self.splits:
            raise InputError(f"{self.path}: is compressed, so it can only be read as a whole")
        with self._open() as file:
            stop = None
            first = 2
            if share != (1, 1):
                size = self.path.stat().st_size - self._start
                begin, end = share_of_rows(size, share)
                stop = self._start + end
                # The line that runs over the border belongs to the share before.
                file.seek(self._start + begin - 1)
                if self._start + begin - 1 >= 0 and begin > 0:
                    self._line(file)
                else:
                    file.seek(self._start)
                first = 0
            else:
                self._line(file)
            number = first
            while stop is None or file.tell() < stop:
                begins = file.tell()
                line = self._line(file)
                if not line:
                    break
                if line.strip():
                    yield line, number, begins
                number += 1 if number else 0

    def _checked(self, line: bytes, number: int, begins: int) -> tuple[list[bytes], str]:
        """Return a line's cells and its subject."""
        cells = self._cells(line, number, begins)
        if len(cells) != self._width:
            raise InputError(
                f"{self._place(number, begins)}: {len(cells)} cells, where the header has "
                f"{self._width}; the file may be cut short"
            )
        subject = self._text(cells[self._id])
        if not subject:
            raise InputError(f"{self._place(number, begins)}: the subject id is empty")
        return cells, subject

    def _place(self, number: int, begins: int) -> str:
        return f"{self.path}, line {number or self._line_number(begins)}"

    def _row(self, line: bytes, number: int, begins: int, wanted):
        cells, subject = self._checked(line, number, begins)
        if wanted is not None and subject not in wanted:
            return
        values = [cell for k, cell in enumerate(cells) if k not in self._skipped]
        try:
            # Python takes 1_01 for 101.
            if b"_" in line and any(b"_" in cell for cell in values):
                raise ValueError("underscore")
            numbers = np.array(values).astype(np.float64)
        except ValueError:
            numbers = np.empty(len(values))
            for column, cell in enumerate(values):
                numbers[column] = self._number(cell, number, begins, self.columns[column])
        place = f"{self.path}, line {number}" if number else f"{self.path}, subject '{subject}'"
        yield place, subject, numbers

    def _number(self, cell: bytes, number: int, begins: int, column: str) -> float:
        if cell.strip() in MISSING:
            return np.nan
        try:
            return float(cell.replace(b"_", b"?"))
        except ValueError:
            raise InputError(
                f"{self._place(number, begins)}, column '{column}': '{self._text(cell)}' is no "
                "number; write NA for a missing value"
            ) from None

    def _line_number(self, begins: int) -> int:
        with self._open() as file:
            number = 1
            while begins > 0:
                block = file.read(min(begins, 1 << 24))
                number += block.count(b"\n")
                begins -= len(block)
        return number

    def _cells(self, line: bytes, number: int, begins: int) -> list[bytes]:
        line = line.rstrip(b"\r\n")
        if b'"' not in line:
            return line.split(self._separator)
        if line.count(b'"') % 2:
            raise InputError(
                f"{self._place(number, begins)}: a quotation mark is not closed on its line; "
                "remove it, or the line break between the two"
            )
        place = self._place(number, begins)
        cells = split_quoted(self._text(line, strip=False), self._separator.decode(), place)
        return [cell.encode() for cell in cells]

    def _text(self, cell: bytes, strip: bool = True) -> str:
        try:
            text = cell.decode("utf-8")
            return text.strip() if strip else text
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self.path}: is no UTF-8 text (table of images); save it as text in UTF-8"
            ) from error

    def _open(self) -> io.BufferedIOBase:
        return self.path.open("rb") if self.splits else gzip.open(self.path, "rb")

    def _line(self, file) -> bytes:
        try:
            return file.readline()
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(
                f"{self.path}: the compressed file is cut short or damaged ({error}); copy it again"
            ) from error


class ParquetTable(ImageTable):
    """A parquet file; a group of rows, or part of one, is in memory at a time.

    The format keeps a description of every column in every group of rows, all in memory. A group
    that is small enough is read some columns at a time, which needs much less than all columns
    at once, some rows at a time.
    """

    def __init__(self, path: Path):
        import pyarrow
        import pyarrow.parquet

        self.path = path
        self._errors = (pyarrow.ArrowException, OSError)
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
            schema = self._file.schema_arrow
        except self._errors as error:
            raise self._damaged(error) from error
        self._id, skipped = _id_columns(path, schema.names)
        self.columns = [name for k, name in enumerate(schema.names) if k not in skipped]
        self.left_out = [schema.names[k] for k in sorted(skipped - {self._id})]
        _require_names(path, schema.names)
        self._id_name = schema.names[self._id]
        _require_columns(path, self.columns)
        single = True
        for name in self.columns:
            kind = schema.field(name).type
            numeric = pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind)
            if not numeric:
                raise InputError(
                    f"{path}: column '{name}' is of type {kind}, but numbers are due; remove it, "
                    "or make it a number"
                )
            single &= kind == pyarrow.float32()
        self._dtype = np.dtype(np.float32 if single else np.float64)
        metadata = self._file.metadata
        groups = [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
        # First row and number of rows of each group.
        self._groups = list(zip(np.cumsum([0, *groups[:-1]]).tolist(), groups, strict=True))
        held = max(groups, default=0) * self._dtype.itemsize
        described = _PARQUET_COLUMN_BYTES + _PARQUET_CHUNK_BYTES * len(groups)
        by_rows = held * len(self.columns) > _GROUP_BYTES
        self.column_bytes = described + (_PARQUET_READER_BYTES if by_rows else held)

    def _damaged(self, error: Exception) -> InputError:
        return InputError(
            f"{self.path}: not a readable parquet file, cut short or damaged "
            f"({str(error).splitlines()[0]}); copy it again"
        )

    def rows(self, share=(1, 1), wanted=None):
        """Yield the rows of a share of the row numbers."""
        begin, end = share_of_rows(self._file.metadata.num_rows, share)
        for group, (first, size) in enumerate(self._groups):
            if first >= end or first + size <= begin:
                continue
            row = first
            for ids, values in self._pieces(group, size):
                for k in range(max(begin - row, 0), min(end - row, len(ids))):
                    subject = self._checked(ids[k], row + k)
                    if wanted is None or subject in wanted:
                        yield f"{self.path}, row {row + k + 1}", subject, values[k]
                row += len(ids)

    def ids(self, share=(1, 1)):
        """Yield the subjects of a share."""
        begin, end = share_of_rows(self._file.metadata.num_rows, share)
        row = 0
        for batch in self._file.iter_batches(columns=[self._id_name]):
            for subject in batch.column(0).to_pylist():
                if begin <= row < end:
                    yield self._checked(subject, row)
                row += 1

    def _pieces(self, group: int, size: int) -> Iterator[tuple[list[object], np.ndarray]]:
        """Yield ids and values (rows, N) of a group, as a whole or some rows at a time."""
        N = len(self.columns)
        try:
            if size * N * self._dtype.itemsize <= _GROUP_BYTES:
                found = self._file.read_row_group(group, columns=[self._id_name])
                values = np.empty((size, N), dtype=self._dtype)
                for first in range(0, N, _COLUMNS_AT_A_TIME):
                    names = self.columns[first : first + _COLUMNS_AT_A_TIME]
                    part = self._file.read_row_group(group, columns=names, use_threads=False)
                    for k, name in enumerate(names, start=first):
                        values[:, k] = part.column(name).to_numpy()
                yield found.column(0).to_pylist(), values
                return
            batches = self._file.iter_batches(
                batch_size=max(1, _BATCH_VALUES // N), row_groups=[group]
            )
            for batch in batches:
                values = np.empty((batch.num_rows, N), dtype=self._dtype)
                for k, name in enumerate(self.columns):
                    values[:, k] = batch.column(name).to_numpy(zero_copy_only=False)
                yield batch.column(self._id_name).to_pylist(), values
        except self._errors as error:
            raise self._damaged(error) from error

    def _checked(self, subject: object, row: int) -> str:
        text = "" if subject is None else _id_text(subject)
        if not text:
            raise InputError(f"{self.path}, row {row + 1}: the subject id is empty")
        return text


class HDF5Table(ImageTable):
    """An HDF5 file with ``images`` and ids; some rows are in memory at a time."""

    def __init__(self, path: Path):
        import h5py

        self.path = path
        try:
            self._file = h5py.File(path, "r", locking=False)
        except OSError as error:
            raise InputError(
                f"{path}: not a readable HDF5 file (damaged or cut short); copy it again"
            ) from error
        self._images = self._dataset(("images",), "images (n x N numbers)")
        if self._images.ndim != 2 or self._images.dtype.kind not in "iuf":
            raise InputError(
                f"{path}: dataset 'images' has shape {self._images.shape} and type "
                f"{self._images.dtype}, but n x N numbers are due"
            )
        ids = self._dataset(("subject", "id"), "subject or id (the rows' subjects)")
        self._ids = _texts(ids, path)
        n, N = self._images.shape
        if len(self._ids) != n:
            raise InputError(f"{path}: has {len(self._ids)} ids for {n} rows of images")
        voxel = self._dataset(("voxel", "geometry/name"), "")
        self.columns = (
            _texts(voxel, path) if voxel is not None else [f"voxel_{k}" for k in range(N)]
        )
        if len(self.columns) != N:
            raise InputError(f"{path}: has {len(self.columns)} names for {N} voxels")
        _require_names(path, self.columns)
        _require_columns(path, self.columns)
        places = self._dataset(("coordinates", "coord"), "")
        if places is not None:
            self.coordinates = np.asarray(places[...], dtype=np.float64).reshape(len(places), -1)
            if len(places) != N or not np.isfinite(self.coordinates).all():
                raise InputError(f"{path}: its coordinates are not of {N} voxels, or not finite")

        empty = next((row for row, subject in enumerate(self._ids) if not subject), None)
        if empty is not None:
            raise InputError(f"{path}, row {empty + 1}: the subject id is empty")

    def ids(self, share=(1, 1)):
        """Yield the subjects of a share."""
        begin, end = share_of_rows(len(self._ids), share)
        yield from self._ids[begin:end]

    def _dataset(self, names: Sequence[str], what: str):
        import h5py

        for name in names:
            try:
                found = self._file.get(name, getlink=True)
                dataset = self._file.get(name)
            except (KeyError, OSError, ValueError) as error:
                raise InputError(f"{self.path}: dataset '{name}' cannot be read") from error
            if dataset is None and found is None:
                continue
            plain = isinstance(found, h5py.HardLink) and isinstance(dataset, h5py.Dataset)
            if not plain or dataset.is_virtual or dataset.external:
                raise InputError(
                    f"{self.path}: '{name}' takes its values from elsewhere, which is refused; "
                    "copy the values into the file"
                )
            return dataset
        if what:
            raise InputError(f"{self.path}: lacks a dataset {what}")
        return None

    def rows(self, share=(1, 1), wanted=None):
        """Yield the rows of a share of the row numbers."""
        n, N = self._images.shape
        begin, end = share_of_rows(n, share)
        size = max(1, _BATCH_VALUES // N)
        for first in range(begin, end, size):
            stop = min(first + size, end)
            rows = [row for row in range(first, stop) if wanted is None or self._ids[row] in wanted]
            if not rows:
                continue
            try:
                block = self._images[first:stop]
            except OSError as error:
                raise InputError(
                    f"{self.path}: cannot be read, cut short or damaged; copy it again"
                ) from error
            for row in rows:
                yield f"{self.path}, row {row + 1}", self._ids[row], block[row - first]


def read_coordinates(path: str | Path, columns: Sequence[str]) -> np.ndarray:
    """Return the coordinates (N, d) of a table's columns: a table ``voxel, x[, y[, z]]``.

    Raises
    ------
    InputError
        A column is missing, a cell is no number, a voxel is there twice, or one of the images'
        columns is not in it.
    """
    path = Path(path)
    try:
        text = gzip.decompress(path.read_bytes()) if _is_gzip(path) else path.read_bytes()
        lines = text.decode("utf-8-sig").splitlines()
    except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: is no UTF-8 text, or damaged (coordinates)") from error
    if not lines:
        raise InputError(f"{path}: the file is empty (coordinates)")
    separator = next((mark for mark in ("\t", ",", ";") if mark in lines[0]), "\t")
    header = split_quoted(lines[0], separator, f"{path}, line 1")
    axes = [axis for axis in COORDINATES if axis in header]
    if "voxel" not in header or axes != list(COORDINATES[: len(axes)]) or not axes:
        raise InputError(
            f"{path}, line 1: columns voxel and x (y, z) are due (found {', '.join(header)})"
        )
    found: dict[str, list[float]] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = split_quoted(line, separator, f"{path}, line {number}")
        if len(cells) != len(header):
            raise InputError(f"{path}, line {number}: {len(cells)} cells, not {len(header)}")
        row = dict(zip(header, cells, strict=True))
        try:
            # Python takes 1_01 for 101.
            place = [float(row[axis].replace("_", "?")) for axis in axes]
        except ValueError:
            place = [np.nan]
        if not np.isfinite(place).all():
            raise InputError(f"{path}, line {number}: a coordinate is no number")
        if row["voxel"] in found:
            raise InputError(f"{path}, line {number}: voxel '{row['voxel']}' is there twice")
        found[row["voxel"]] = place
    absent = [name for name in columns if name not in found]
    if absent:
        raise InputError(
            f"{path}: has no coordinates for {len(absent)} of the images' {len(columns)} columns "
            f"({', '.join(absent[:3])}{', …' if len(absent) > 3 else ''}); name each column of "
            "the images in its column voxel"
        )
    return np.array([found[name] for name in columns])


def split_quoted(line: str, separator: str, place: str) -> list[str]:
    """Return a line's cells; a separator between quotation marks separates nothing.

    Raises
    ------
    InputError
        The line cannot be taken apart; ``place`` says which it is.
    """
    try:
        cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error as error:
        raise InputError(f"{place}: is no line of a table ({error}); write it again") from error
    return [cell.strip() for cell in cells]


def _is_gzip(path: Path) -> bool:
    if not path.is_file():
        raise InputError(f"{path}: no such file (coordinates)")
    with path.open("rb") as file:
        return file.read(2) == GZIP_MAGIC


def _id_columns(path: Path, names: Sequence[str]) -> tuple[int, set[int]]:
    """Return the column of ids and all columns that are no voxels."""
    found = [name for name in SUBJECT_COLUMNS if name in names]
    if not found:
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        raise InputError(
            f"{path}: column subject (or IID) is missing (found {shown}); name the column of ids"
        )
    subject = list(names).index(found[0])
    other = {*FAMILY_COLUMNS, *SUBJECT_COLUMNS}
    skipped = {k for k, name in enumerate(names) if name in other or _INDEX_COLUMN.fullmatch(name)}
    return subject, skipped


def _require_columns(path: Path, columns: Sequence[str]) -> None:
    if len(columns) < 2:
        raise InputError(f"{path}: has {len(columns)} columns of numbers; at least 2 are needed")
    if len(set(columns)) < len(columns):
        seen: set[str] = set()
        twice = next(name for name in columns if name in seen or seen.add(name))
        raise InputError(f"{path}: column '{twice}' is there twice; rename or remove one")


def _require_names(path: Path, names: Sequence[str]) -> None:
    empty = next((k for k, name in enumerate(names) if not name), None)
    if empty is not None:
        raise InputError(
            f"{path}: column {empty + 1} has no name; give it one, or leave it out if it is a "
            "row number or follows the last separator"
        )


def _id_text(value: object) -> str:
    """Return an id as text; a whole number that is stored as a fraction is meant as one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _texts(dataset, path: Path) -> list[str]:
    """Return names stored as text, bytes or numbers; of n x 2 the second column."""
    values = np.asarray(dataset[...])
    if values.ndim == 2 and values.shape[1] in (1, 2):
        values = values[:, -1]
    if values.ndim != 1:
        raise InputError(f"{path}: ids or names have shape {values.shape}; one a row is due")
    try:
        return [
            value.decode("utf-8").strip() if isinstance(value, bytes) else _id_text(value)
            for value in values.tolist()
        ]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: ids or names are no UTF-8 text") from error
