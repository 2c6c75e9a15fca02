"""Genotype files as arrays: PLINK 2 (.pgen, .pvar, .psam) and PLINK 1 (.bed, .bim, .fam).

The effect allele is ALT of a ``.pvar`` and A1 (fifth column) of a ``.bim``, which is the
allele that pgenlib counts in both. Males' haploid calls on X are on the 0/2 scale, as the files
store them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pgenlib
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rvga.chromosomes import normalise_chromosome
from rvga.errors import InputError
from rvga.parallel import read_ahead
from rvga.samples import read_samples, text_lines

__all__ = [
    "Genotypes",
    "companions",
    "listed_variants",
    "open_genotypes",
    "read_info",
    "read_samples",
    "read_sex",
    "read_variants",
]

MISSING = -9
_MAGIC = b"\x6c\x1b"
_VARIANTS_PER_BLOCK = 1 << 16
_DOSAGE_BITS = 0xE0  # bits 5 to 7 of a variant record type: dosages are present
_COMPANIONS = {".pgen": ((".pvar", ".pvar.zst"), (".psam",)), ".bed": ((".bim",), (".fam",))}
_CONVERTIBLE = (".bgen", ".vcf", ".vcf.gz", ".bcf")
_MAX_POSITION = (1 << 31) - 1
_READ_BYTES = 1 << 20
_READ_LINES = 1 << 17


class Genotypes:
    """An open genotype file; made by :func:`open_genotypes`, used as a context manager.

    Attributes
    ----------
    path, variants_path, samples_path : Path
        The three files.
    subject : (n,) array of str
        Subject ids in file order.
    variants : DataFrame
        ``chromosome``, ``base_pair_location``, ``variant_id``, ``effect_allele``,
        ``other_allele``; the index is the variant's place in the file. All of them, unless the
        file was opened with a range.
    n_variants : int
        Number of variants in the file.
    has_dosages : bool
        False where every genotype is a hard call, so that ``raw`` gives int8.
    """

    def __init__(
        self,
        path: Path,
        reader: pgenlib.PgenReader,
        subject: np.ndarray,
        variants: pd.DataFrame,
        n_variants: int,
        has_dosages: bool,
        variants_path: Path,
        samples_path: Path,
    ):
        self.path = path
        self.variants_path = variants_path
        self.samples_path = samples_path
        self.subject = subject
        self.variants = variants
        self.n_variants = n_variants
        self.has_dosages = has_dosages
        self._reader = reader
        self._rows: np.ndarray | None = None
        self._row_of: dict[str, int] | None = None

    def subject_index(self, subjects: Sequence[str]) -> np.ndarray:
        """Return the file's rows of these subjects, in the order given.

        Raises
        ------
        InputError
            A subject is not in the file.
        """
        if self._row_of is None:
            self._row_of = {subject: row for row, subject in enumerate(self.subject)}
        rows = [self._row_of.get(str(subject), -1) for subject in subjects]
        absent = [str(name) for name, row in zip(subjects, rows, strict=True) if row < 0]
        if absent:
            raise InputError(
                f"{self.path}: {len(absent)} of {len(rows)} subjects are not in the genotype file, "
                f"the first is '{absent[0]}'; select the subjects with this file among the samples"
            )
        return np.asarray(rows, dtype=np.int64)

    def raw(self, first: int, stop: int, subject_rows: np.ndarray) -> np.ndarray:
        """Return genotypes of variants ``first`` to ``stop`` as the file stores them.

        Returns
        -------
        (stop - first, n) array
            int8 calls where the file has no dosages, else float32 dosages of the effect allele;
            -9 is missing.
        """
        if not 0 <= first <= stop <= self.n_variants:
            raise IndexError(f"variants {first} to {stop} of {self.n_variants}")
        inverse = self._choose(subject_rows)
        block = self._buffer(stop - first)
        if stop > first:
            read = self._reader.read_dosages_range if self.has_dosages else self._reader.read_range
            try:
                read(first, stop, block)
            except RuntimeError as error:
                raise self._damaged(first, stop) from error
        return block if inverse is None else np.ascontiguousarray(block[:, inverse])

    def dosages(self, variant_index: np.ndarray, subject_rows: np.ndarray) -> np.ndarray:
        """Return dosages of the effect allele, NaN where missing.

        Parameters
        ----------
        variant_index : (k,) array of int
            Places in the file, in any order.
        subject_rows : (n,) array of int
            Rows of :attr:`subject`, in any order.

        Returns
        -------
        (k, n) float32 array
        """
        index = np.asarray(variant_index)
        if len(index) == 0:
            return np.empty((0, len(subject_rows)), dtype=np.float32)
        if index.min() < 0 or index.max() >= self.n_variants:
            raise IndexError(f"a variant index is outside 0 to {self.n_variants - 1}")
        first, stop = int(index[0]), int(index[-1]) + 1
        if stop - first == len(index) and np.array_equal(index, np.arange(first, stop)):
            return _with_nan(self.raw(first, stop, subject_rows))
        inverse = self._choose(subject_rows)
        block = self._buffer(len(index))
        read = self._reader.read_dosages_list if self.has_dosages else self._reader.read_list
        try:
            read(np.ascontiguousarray(index, dtype=np.uint32), block)
        except RuntimeError as error:
            raise self._damaged(int(index.min()), int(index.max()) + 1) from error
        return _with_nan(block if inverse is None else block[:, inverse])

    def blocks(
        self, first: int, stop: int, size: int, subject_rows: np.ndarray
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield ``(first, stop, dosages)`` of consecutive blocks, as :meth:`dosages` gives them."""
        for start, end, block in self.raw_blocks(first, stop, size, subject_rows):
            yield start, end, _with_nan(block)

    def raw_blocks(
        self, first: int, stop: int, size: int, subject_rows: np.ndarray
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield ``(first, stop, raw)`` of consecutive blocks; a thread reads one block ahead."""
        bounds = ((start, min(start + size, stop)) for start in range(first, stop, size))
        raw = ((start, end, self.raw(start, end, subject_rows)) for start, end in bounds)
        yield from read_ahead(raw, 1)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def __enter__(self) -> Genotypes:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _choose(self, subject_rows: np.ndarray) -> np.ndarray | None:
        """Let pgenlib read these subjects only; return how to bring them in the order asked for."""
        rows = np.asarray(subject_rows, dtype=np.int64)
        if len(rows) == 0:
            raise ValueError("no subject was asked for")
        inverse = None
        if np.any(rows[1:] <= rows[:-1]):
            rows, inverse = np.unique(rows, return_inverse=True)
        if rows[0] < 0 or rows[-1] >= len(self.subject):
            raise IndexError(f"a subject row is outside 0 to {len(self.subject) - 1}")
        if self._rows is None or not np.array_equal(self._rows, rows):
            self._reader.change_sample_subset(rows.astype(np.uint32))
            self._rows = rows
        return inverse

    def _buffer(self, n_variants: int) -> np.ndarray:
        dtype = np.float32 if self.has_dosages else np.int8
        return np.empty((n_variants, len(self._rows)), dtype=dtype)

    def _damaged(self, first: int, stop: int) -> InputError:
        return InputError(
            f"{self.path}: variants {first + 1} to {stop} cannot be decoded: the file is damaged; "
            "copy or make it again"
        )


def _with_nan(raw: np.ndarray) -> np.ndarray:
    dosages = raw.astype(np.float32, copy=False)
    dosages[dosages == MISSING] = np.nan
    return dosages


def companions(main: Path) -> tuple[Path, Path]:
    """Return the variant and the sample file that belong to a main file, by its stem.

    Raises
    ------
    InputError
        The name ends in none of the known ways, or a companion is absent.
    """
    if main.suffix not in _COMPANIONS:
        raise InputError(
            f"{main}: the name must end in {' or '.join(_COMPANIONS)}, or the variant and sample "
            "files must be given"
        )
    found = []
    for suffixes, what in zip(_COMPANIONS[main.suffix], ("variants", "samples"), strict=True):
        candidates = [main.with_name(main.name[: -len(main.suffix)] + end) for end in suffixes]
        existing = [path for path in candidates if path.is_file()]
        if not existing:
            raise InputError(f"{candidates[0]}: no such file (the {what} of {main.name})")
        found.append(existing[0])
    return found[0], found[1]


def open_genotypes(
    main: Path,
    variants: Path | None = None,
    samples: Path | None = None,
    *,
    subject_id: str = "IID",
    variant_range: tuple[int, int] | None = None,
) -> Genotypes:
    """Open a PLINK 2 or PLINK 1 file and check that its three parts belong together.

    Parameters
    ----------
    main : Path
        ``.pgen`` or ``.bed``.
    variants, samples : Path, optional
        ``.pvar`` or ``.bim``, ``.psam`` or ``.fam``; by default those of the same stem.
    subject_id : {"IID", "FID_IID"}
        What a subject is called.
    variant_range : (first, stop), optional
        Keep the table of these variants only, so that memory does not follow the file's size.

    Raises
    ------
    InputError
        A file is absent, cut short, foreign or of another number of variants or people.
    """
    main = Path(main)
    if not main.is_file():
        raise InputError(f"{main}: no such file (genotypes)")
    if main.name.endswith(_CONVERTIBLE):
        raise InputError(
            f"{main}: only PLINK 2 and PLINK 1 files are read directly; convert it with "
            "'plink2 --make-pgen'"
        )
    if variants is None or samples is None:
        found = companions(main)
        variants, samples = variants or found[0], samples or found[1]
    with main.open("rb") as handle:
        magic = handle.read(3)
    if not magic:
        raise InputError(f"{main}: the file is empty (genotypes); copy or make it again")
    if magic[:2] != _MAGIC or len(magic) < 3:
        raise InputError(
            f"{main}: not a PLINK file (its first bytes are not 6c 1b): give a .pgen or .bed file"
        )
    if magic[2] == 0:
        raise InputError(
            f"{main}: a sample-major .bed file; convert it with 'plink2 --bfile … --make-pgen'"
        )
    subject = read_samples(Path(samples), subject_id)
    table, n_variants = _read_variants(Path(variants), variant_range)
    header = _check_header(main, Path(variants), Path(samples), n_variants, len(subject))
    try:
        reader = pgenlib.PgenReader(
            str(main).encode(), raw_sample_ct=len(subject), variant_ct=n_variants
        )
    except RuntimeError as error:
        raise InputError(
            f"{main}: cannot be opened as a PLINK file: it is damaged; copy or make it again"
        ) from error
    return Genotypes(
        main,
        reader,
        subject,
        table,
        n_variants,
        header.has_dosages,
        Path(variants),
        Path(samples),
    )


@dataclass(frozen=True)
class _Header:
    """What the head of a genotype file says of itself."""

    n_variants: int
    n_subjects: int
    has_dosages: bool
    size: int | None  # bytes of the whole file; None where the head does not say


def _check_header(
    main: Path, variants: Path, samples: Path, n_variants: int, n_subjects: int
) -> _Header:
    """Check a main file's head and size against its companions."""
    size = main.stat().st_size
    with main.open("rb") as handle:
        mode = handle.read(3)[2]
    if mode == 1:
        expected = 3 + n_variants * -(-n_subjects // 4)
        if size != expected:
            raise InputError(
                f"{main}: {size} bytes, but {n_variants} variants of {variants.name} and "
                f"{n_subjects} people of {samples.name} make {expected}: the file is cut short, or "
                "the three are not of one set"
            )
        return _Header(n_variants, n_subjects, False, expected)
    try:
        header = _pgen_header(main, mode)
    except (ValueError, IndexError) as error:
        raise InputError(
            f"{main}: the file is cut short within its header; copy or make it again"
        ) from error
    for number, companion, count, what in (
        (header.n_variants, variants, n_variants, "variants"),
        (header.n_subjects, samples, n_subjects, "people"),
    ):
        if number != count:
            raise InputError(
                f"{main}: holds {number} {what}, but {companion.name} lists {count}: they are not "
                "of one set"
            )
    if header.size is not None and size < header.size:
        raise InputError(
            f"{main}: {size} bytes, but its header tells of {header.size}: the file is cut short; "
            "copy or make it again"
        )
    return header


def _pgen_header(path: Path, mode: int) -> _Header:
    """Read the counts, record types and record lengths of a PGEN file (PLINK 2 specification)."""
    with path.open("rb") as handle:
        handle.seek(3)
        n_variants, n_subjects = (int(value) for value in _exactly(handle, 2, "<u4"))
        form = int(_exactly(handle, 1, "u1")[0])
        flags = -(-n_variants // 8) if form >> 6 == 3 else 0
        calls = -(-n_subjects // 4)
        if mode == 2:
            return _Header(n_variants, n_subjects, False, 12 + flags + n_variants * calls)
        if mode == 3:
            record = calls + 2 * n_subjects
            return _Header(n_variants, n_subjects, True, 12 + flags + n_variants * record)
        if mode != 0x10 or form & 15 > 7:
            # Dosage reading is right for hard calls too, only slower.
            return _Header(n_variants, n_subjects, True, None)
        wide_types, length_bytes, count_bytes = form & 4, (form & 3) + 1, (form >> 4) & 3
        n_blocks = -(-n_variants // _VARIANTS_PER_BLOCK)
        offsets = _exactly(handle, n_blocks, "<u8")
        has_dosages = False
        size = handle.tell()
        for block in range(n_blocks):
            m = min(_VARIANTS_PER_BLOCK, n_variants - block * _VARIANTS_PER_BLOCK)
            types = _exactly(handle, m if wide_types else -(-m // 2), "u1")
            lengths = _exactly(handle, m * length_bytes, "u1").reshape(m, length_bytes)
            handle.seek(m * count_bytes + (-(-m // 8) if flags else 0), 1)
            if wide_types and np.any(types & _DOSAGE_BITS):
                has_dosages = True
            weights = 256 ** np.arange(length_bytes, dtype=np.int64)
            size = int(offsets[block]) + int((lengths.sum(axis=0, dtype=np.int64) * weights).sum())
        return _Header(n_variants, n_subjects, has_dosages, size)


def _exactly(handle: Any, count: int, dtype: str) -> np.ndarray:
    """Read so many numbers, or raise ValueError where the file ends before."""
    content = handle.read(count * np.dtype(dtype).itemsize)
    values = np.frombuffer(content, dtype=dtype)
    if len(values) != count:
        raise ValueError("the file ends too early")
    return values


def read_variants(path: Path) -> pd.DataFrame:
    """Read all variants of a ``.pvar`` (also ``.zst``, also without header line) or ``.bim`` file.

    Returns
    -------
    DataFrame
        ``chromosome`` (normalised text), ``base_pair_location``, ``variant_id``,
        ``effect_allele`` (ALT or A1), ``other_allele``; row i is variant i of the file.

    Raises
    ------
    InputError
        A line has too few columns, a position that is no number, an unknown chromosome
        or several ALT alleles.
    """
    return _read_variants(path, None)[0]


def read_sex(path: Path) -> np.ndarray:
    """Return the sexes of a ``.psam`` or ``.fam`` file, in file order.

    Returns
    -------
    (n,) int8 array
        1 male, 2 female, 0 unknown or not given.
    """
    codes = {"1": 1, "M": 1, "m": 1, "2": 2, "F": 2, "f": 2}
    column, sexes = 4, []
    for line in text_lines(Path(path), "genotype samples"):
        if line.startswith("##") or not line.strip():
            continue
        words = line.split()
        if line.startswith("#"):
            header = [words[0][1:], *words[1:]]
            column = header.index("SEX") if "SEX" in header else -1
            continue
        given = words[column] if 0 <= column < len(words) else "0"
        sexes.append(codes.get(given, 0))
    return np.array(sexes, dtype=np.int8)


# Imputation quality: Minimac and IMPUTE, IMPUTE and others, Beagle.
_QUALITY = r"(?:^|;)(?:R2|INFO|DR2)=(?P<quality>[^;]*)"


def read_info(path: Path, first: int, stop: int) -> np.ndarray:
    """Return the imputation quality of variants ``first`` to ``stop`` of a ``.pvar`` file.

    It is the field R2, INFO or DR2 of the column INFO.

    Returns
    -------
    (stop - first,) float64 array
        NaN where the file does not say.

    Raises
    ------
    InputError
        A quality is no number.
    """
    path = Path(path)
    n_skipped, columns, delimiter = _layout(path)
    quality = np.full(stop - first, np.nan)
    if columns[0] != "#CHROM" or "INFO" not in columns:
        return quality
    read = _read_tabs if delimiter == "\t" else _read_spaces
    total = 0
    for part in read(path, n_skipped, columns, {"base_pair_location": "POS", "info": "INFO"}):
        low, high = max(first - total, 0), min(stop - total, part.num_rows)
        if low < high:
            info = pc.extract_regex(part["info"].slice(low, high - low), _QUALITY)
            text = pc.struct_field(info, "quality")
            try:
                values = pc.cast(text, pa.float64()).to_numpy().astype(float)
            except pa.ArrowInvalid as error:
                raise InputError(
                    f"{path}: an R2, INFO or DR2 of the lines {n_skipped + total + low + 1} to "
                    f"{n_skipped + total + high} is no number ({error}); set minimum_info to 0 or "
                    "correct the column INFO"
                ) from error
            quality[total + low - first : total + high - first] = values
        total += part.num_rows
        if total >= stop:
            break
    return quality


def listed_variants(path: Path, variants: pd.DataFrame) -> np.ndarray:
    """Return which variants are in a list, (m,) bool.

    The list has a variant a line: its id, or chromosome:position:other allele:effect allele. It
    is read line by line, so that memory does not follow its length.

    Raises
    ------
    InputError
        The file is absent or empty.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file (list of variants)")
    wanted: dict[str, list[int]] = {}
    fields = ("variant_id", "chromosome", "base_pair_location", "other_allele", "effect_allele")
    for row, (identity, *place) in enumerate(
        zip(*(variants[name].to_numpy() for name in fields), strict=True)
    ):
        for name in {str(identity), ":".join(map(str, place))} - {"."}:
            wanted.setdefault(name, []).append(row)
    found = np.zeros(len(variants), dtype=bool)
    empty = True
    with pa.input_stream(str(path), compression="detect") as stream:
        for line in _lines(stream):
            words = line.split(maxsplit=1)
            if not words or words[0].startswith("#"):
                continue
            empty = False
            rows = wanted.get(words[0])
            if rows is None and words[0].count(":") == 3:
                name, _, rest = words[0].partition(":")
                try:
                    rows = wanted.get(f"{normalise_chromosome(name)}:{rest}")
                except InputError:
                    # An id that only looks like a place.
                    continue
            if rows is not None:
                found[rows] = True
    if empty:
        raise InputError(f"{path}: holds no variant id (list of variants)")
    return found


def _read_variants(path: Path, wanted: tuple[int, int] | None) -> tuple[pd.DataFrame, int]:
    """Return some variants (all for None), numbered as in the file, and how many there are.

    The file is read by blocks, so that memory follows what is wanted and not the file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file (variants)")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (variants)")
    n_skipped, columns, delimiter = _layout(path)
    roles = _roles(path, columns)
    read = _read_tabs if delimiter == "\t" else _read_spaces
    low, high = (0, None) if wanted is None else wanted
    kept: list[pa.Table] = []
    total = 0
    for part in read(path, n_skipped, columns, roles):
        start = max(low - total, 0)
        stop = part.num_rows if high is None else min(high - total, part.num_rows)
        if start < stop or not kept:
            kept.append(part.slice(start, max(stop - start, 0)))
        total += part.num_rows
    if total == 0:
        raise InputError(f"{path}: holds no variant")
    table = _checked(path, pa.concat_tables(kept).combine_chunks(), n_skipped + 1 + low)
    frame = table.to_pandas()
    frame.index = pd.RangeIndex(low, low + len(frame))
    return frame, total


def _checked(path: Path, table: pa.Table, line: int) -> pa.Table:
    """Return the table with normalised chromosomes; ``line`` is that of its first row."""
    if table.num_rows == 0:
        return table
    several = pc.index(pc.match_substring(table["effect_allele"], ","), True).as_py()
    if several >= 0:
        raise InputError(
            f"{path}: line {line + several} has several ALT alleles "
            f"({table['effect_allele'][several].as_py()}); split such variants first, e.g. "
            "'bcftools norm -m -any', or leave them out with 'plink2 --max-alleles 2 --make-pgen'"
        )
    position = table["base_pair_location"]
    outside = pc.or_(pc.less(position, 0), pc.greater(position, _MAX_POSITION))
    at = pc.index(outside, True).as_py()
    if at >= 0:
        raise InputError(
            f"{path}: line {line + at} has position {position[at].as_py()}; give one from 0 to "
            f"{_MAX_POSITION}"
        )
    for column in ("variant_id", "effect_allele", "other_allele"):
        strange = pc.match_substring_regex(table[column], _NOT_ONE_WORD)
        at = pc.index(strange, True).as_py()
        if at >= 0:
            raise InputError(
                f"{path}: line {line + at} has {table[column][at].as_py()!r} as {column}: empty, "
                "or with white space or a control character, which tables cannot hold; mend it"
            )
    names = pa.concat_arrays(table["chromosome"].chunks).dictionary_encode()
    normalised = []
    for code, name in enumerate(names.dictionary.to_pylist()):
        at = pc.index(names.indices, pa.scalar(code, names.indices.type)).as_py()
        normalised.append(normalise_chromosome(name, f"{path}: line {line + at}"))
    chromosome = pa.array(normalised, pa.string()).take(names.indices)
    return table.set_column(0, "chromosome", chromosome)


# In RE2, where the class s is ASCII only, pZ and pC are all separators and control characters.
_NOT_ONE_WORD = r"^$|[\s\pZ\pC]"
_FIELDS = ("chromosome", "base_pair_location", "variant_id", "effect_allele", "other_allele")
_PVAR_NAMES = ("#CHROM", "POS", "ID", "ALT", "REF")
_BIM_COLUMNS = ("chromosome", "variant_id", "cm", "base_pair_location", "effect_allele", "other")


def _layout(path: Path) -> tuple[int, list[str], str]:
    """Return the lines before the data, the columns' names and the delimiter."""
    skipped = 0
    with pa.input_stream(str(path), compression="detect") as raw:
        for line in _lines(raw):
            line = line.removeprefix("\ufeff")
            if line.startswith("##"):
                skipped += 1
                continue
            delimiter = "\t" if "\t" in line else " "
            words = line.rstrip("\r\n").split("\t" if delimiter == "\t" else None)
            if line.startswith("#"):
                return skipped + 1, words, delimiter
            if len(words) not in (5, 6):
                raise InputError(
                    f"{path}: line {skipped + 1} has {len(words)} columns; a .bim file or a .pvar "
                    "file without header has 5 or 6"
                )
            names = list(_BIM_COLUMNS)
            if len(words) == 5:
                names.remove("cm")
            return skipped, names, delimiter
    raise InputError(f"{path}: holds no variant")


def _lines(stream: Any) -> Iterator[str]:
    """Yield lines of a stream that may be compressed."""
    rest = b""
    while chunk := stream.read(1 << 16):
        *complete, rest = (rest + chunk).split(b"\n")
        for line in complete:
            yield line.decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")


def _roles(path: Path, columns: list[str]) -> dict[str, str]:
    """Return field → the file's column name."""
    if columns[0] != "#CHROM":
        if columns[0].startswith("#"):
            raise InputError(
                f"{path}: the header line starts with '{columns[0]}'; a .pvar file's starts with "
                "'#CHROM'"
            )
        return dict(zip(_FIELDS, (*_FIELDS[:4], "other"), strict=True))
    for name in _PVAR_NAMES:
        if name not in columns:
            raise InputError(f"{path}: column '{name}' is missing from the header line")
    return dict(zip(_FIELDS, _PVAR_NAMES, strict=True))


def _read_tabs(
    path: Path, n_skipped: int, columns: list[str], roles: dict[str, str]
) -> Iterator[pa.Table]:
    types = {name: pa.string() for name in roles.values()}
    types[roles["base_pair_location"]] = pa.int64()
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            reader = pyarrow.csv.open_csv(
                stream,
                read_options=pyarrow.csv.ReadOptions(
                    column_names=columns, skip_rows=n_skipped, block_size=_READ_BYTES
                ),
                parse_options=pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=types,
                    include_columns=list(roles.values()),
                    null_values=[],
                    strings_can_be_null=False,
                ),
                # The other pools keep what they were given back, in step with the file's length.
                memory_pool=pa.system_memory_pool(),
            )
            for batch in reader:
                yield pa.Table.from_batches([batch]).rename_columns(list(roles))
    except pa.ArrowInvalid as error:
        raise _bad_line(path, n_skipped, columns, roles, "\t", str(error)) from error


def _read_spaces(
    path: Path, n_skipped: int, columns: list[str], roles: dict[str, str]
) -> Iterator[pa.Table]:
    try:
        frames = pd.read_csv(
            path,
            sep=r"\s+",
            header=None,
            names=columns,
            skiprows=n_skipped,
            usecols=list(roles.values()),
            dtype={name: "int64" if field == _FIELDS[1] else str for field, name in roles.items()},
            na_filter=False,
            quoting=csv.QUOTE_NONE,
            chunksize=_READ_LINES,
        )
        for frame in frames:
            columns_of = {
                field: pa.array(frame[name], pa.int64() if field == _FIELDS[1] else pa.string())
                for field, name in roles.items()
            }
            yield pa.table(columns_of)
    except ValueError as error:
        raise _bad_line(path, n_skipped, columns, roles, None, str(error)) from error


def _bad_line(
    path: Path,
    n_skipped: int,
    columns: list[str],
    roles: dict[str, str],
    delimiter: str | None,
    reason: str,
) -> InputError:
    """Return the message that names the first line that cannot be read."""
    at = columns.index(roles["base_pair_location"])
    with pa.input_stream(str(path), compression="detect") as stream:
        for number, line in enumerate(_lines(stream), start=1):
            if number <= n_skipped:
                continue
            words = line.rstrip("\r\n").split(delimiter)
            if len(words) != len(columns):
                return InputError(
                    f"{path}: line {number} has {len(words)} columns instead of {len(columns)}: "
                    "the file is damaged or cut short"
                )
            if not words[at].strip().lstrip("-").isdigit():
                return InputError(f"{path}: line {number}: position '{words[at]}' is no number")
    return InputError(f"{path}: cannot be read as a table of variants ({reason})")
