"""Component summary statistics of other programs, read together by blocks of variants.

A text file's format is told by its header. Files of several components are read in step: the
same variants in the same order. Where the order differs, the files are joined by chromosome,
position and alleles instead (:func:`joined_blocks`), which holds them whole.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from rvga.chromosomes import RANK, normalise_chromosome
from rvga.errors import InputError
from rvga.loco import component_numbers

ALL = "all"
_MISSING = ["NA", "nan", "-nan", "NaN", "NAN", "#NA", "", ".", "inf", "-inf"]
_DIGIT_ROWS = 500
_KEYS = ("chromosome", "base_pair_location", "variant_id", "effect_allele", "other_allele")
_SEARCH_ROWS = 100_000
_HEIG_BLOCK = 20
_BAD_ID = "is no id (white space, or characters that do not print)"
# In GWAS-SSF, and in HEIG's files as exported from a dataset, 25 is MT; PLINK's 25 is on X.
_MT_CODE = {"25": "MT"}
# Positions are stored in 32 bits, and no chromosome is longer.
LARGEST_POSITION = 2**31 - 1


@dataclass(frozen=True)
class Format:
    """How a program names its columns.

    Attributes
    ----------
    signature : tuple of str
        Columns that tell the format.
    columns : dict
        Role → names; the first that is there is taken.
    score : bool
        Standard errors come from the residual variance without the variant.
    wide : str
        Pattern of a component's columns in a file of many, with groups ``name`` and ``what``.
    """

    signature: tuple[str, ...]
    columns: dict[str, tuple[str, ...]]
    score: bool = False
    wide: str = ""


def _roles(names: str, **more: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    roles = ("chromosome", "base_pair_location", "variant_id", "effect_allele", "other_allele")
    return {**{role: (name,) for role, name in zip(roles, names.split(), strict=True)}, **more}


_EFFECT = {"beta": ("BETA",), "standard_error": ("SE",)}
FORMATS: dict[str, Format] = {
    "REGENIE": Format(
        ("GENPOS", "ALLELE0", "ALLELE1"),
        _roles("CHROM GENPOS ID ALLELE1 ALLELE0", frequency=("A1FREQ",), n=("N",), test=("TEST",))
        | _EFFECT,
        score=True,
        wide=r"(?P<what>BETA|SE)\.(?P<name>.+)",
    ),
    "PLINK 2": Format(
        ("#CHROM", "POS", "A1", "TEST", "OBS_CT"),
        _roles(
            "#CHROM POS ID A1 OMITTED",
            other_allele=("OMITTED", "AX"),
            frequency=("A1_FREQ",),
            n=("OBS_CT",),
            test=("TEST",),
            reference=("REF",),
            alternate=("ALT",),
        )
        | _EFFECT,
    ),
    "SAIGE": Format(
        ("CHR", "POS", "Allele1", "Allele2", "AF_Allele2"),
        _roles("CHR POS MarkerID Allele2 Allele1", frequency=("AF_Allele2",), n=("N",))
        | _EFFECT
        | {"variant_id": ("MarkerID", "SNPID", "rsid")},
        score=True,
    ),
    "fastGWA": Format(
        ("CHR", "SNP", "POS", "A1", "A2", "AF1"),
        _roles("CHR POS SNP A1 A2", frequency=("AF1",), n=("N",)) | _EFFECT,
        score=True,
    ),
    "GWAS-SSF": Format(
        ("chromosome", "base_pair_location", "effect_allele", "other_allele"),
        {
            **{role: (role,) for role in _KEYS},
            "variant_id": ("rsid", "variant_id"),
            "beta": ("beta",),
            "standard_error": ("standard_error",),
            "frequency": ("effect_allele_frequency",),
            "n": ("n",),
        },
    ),
    "BGENIE": Format(
        ("chr", "rsid", "pos"),
        _roles("chr pos rsid a_1 a_0", frequency=("af",))
        | {"effect_allele": ("a_1", "alleleB"), "other_allele": ("a_0", "alleleA")},
        wide=r"(?P<name>.+)_(?P<what>beta|se)",
    ),
}
_OPTIONAL = {"frequency", "n", "test", "reference", "alternate", "variant_id"}


@dataclass
class Block:
    """Some variants of all components.

    Attributes
    ----------
    keys : DataFrame
        ``chromosome`` (in the project's spelling; as in the file where it is none),
        ``base_pair_location``, ``variant_id``, ``effect_allele``, ``other_allele``.
    frequency, n : (k,) float64
        Of the effect allele, and of people; NaN where the file does not say.
    beta, standard_error : (k, r) float64
        NaN where missing.
    z : (k, r) float64 or None
        t statistics where the file holds them in place of standard errors.
    """

    keys: pd.DataFrame
    frequency: np.ndarray
    n: np.ndarray
    beta: np.ndarray
    standard_error: np.ndarray
    z: np.ndarray | None = None

    def rows(self, chosen: np.ndarray | slice) -> Block:
        """Return some of the variants."""
        return Block(
            self.keys.iloc[chosen].reset_index(drop=True),
            self.frequency[chosen],
            self.n[chosen],
            self.beta[chosen],
            self.standard_error[chosen],
            None if self.z is None else self.z[chosen],
        )


class OrderError(Exception):
    """Two files do not hold the same variants in the same order."""


class RepeatedError(Exception):
    """Variants stand in the files more than once.

    Attributes
    ----------
    hashes : (k,) uint64
        Of their chromosome, position and alleles.
    """

    def __init__(self, hashes: np.ndarray):
        super().__init__(f"{len(hashes)} variants are repeated")
        self.hashes = hashes


class TextFile:
    """One program's table, with the statistics of one component or of many.

    Attributes
    ----------
    components : list of str
        Names of the components in it.
    format : str
        Key of :data:`FORMATS`.
    score : bool
        As in :class:`Format`.
    digits : int
        Significant digits of its standard errors.
    frequency_rounding : float
        Relative rounding of its frequencies.
    """

    frequency_rounding = 1e-5

    def __init__(self, path: Path, component: str):
        self.path = path
        self.skipped, self.header, self.separator = _header(path)
        self.format = _format_of(path, self.header)
        declared = FORMATS[self.format]
        self.score = declared.score
        self._columns = _present(path, self.header, self.format, declared)
        self._effects = self._effect_columns(declared, component)
        self.components = list(self._effects)
        self.digits = self._digits()

    def _effect_columns(self, declared: Format, component: str) -> dict[str, tuple[str, str]]:
        """Return component → columns of its beta and standard error."""
        single = tuple(self._columns.get(role, "") for role in ("beta", "standard_error"))
        if all(single):
            if component.lower() == ALL:
                raise InputError(
                    f"{self.path}: holds one component ({self.format}); name it in the sheet, "
                    "as LDR1"
                )
            return {component: single}
        found: dict[str, dict[str, str]] = {}
        for column in self.header:
            match = re.fullmatch(declared.wide, column) if declared.wide else None
            if match:
                found.setdefault(match["name"], {})[match["what"].lower()] = column
        complete = {
            # REGENIE numbers the phenotypes of one file Y1, Y2, …
            re.sub(r"^Y(?=[0-9]+$)", "LDR", name): (columns["beta"], columns["se"])
            for name, columns in found.items()
            if len(columns) == 2
        }
        if not complete:
            raise InputError(
                f"{self.path}: has no columns of effects and standard errors ({self.format}); "
                f"found: {', '.join(self.header[:20])}"
            )
        if component.lower() == ALL:
            return complete
        if len(complete) == 1:
            return {component: next(iter(complete.values()))}
        if component not in complete:
            raise InputError(
                f"{self.path}: holds {len(complete)} components, the first is "
                f"'{next(iter(complete))}', but not '{component}'; write all in its place"
            )
        return {component: complete[component]}

    def _digits(self) -> int:
        column = next(iter(self._effects.values()))[1]
        sample = self._read([column], dtype=str, nrows=_DIGIT_ROWS)[column].dropna()
        # A whole number of digits, without sign, exponent and leading zeros.
        mantissa = sample.str.lower().str.replace(r"e.*$|[-+.]", "", regex=True).str.lstrip("0")
        return int(mantissa.str.len().max()) if len(mantissa) else 1

    def _read(self, columns: Sequence[str], **options):
        try:
            return pd.read_csv(
                self.path,
                sep=self.separator,
                skiprows=self.skipped + 1,
                header=None,
                names=self.header,
                usecols=list(columns),
                na_values=_MISSING,
                keep_default_na=False,
                compression="gzip" if _is_gzip(self.path) else None,
                quoting=3,
                low_memory=False,
                **options,
            )
        except pd.errors.EmptyDataError as error:
            raise self._empty() from error
        except (ValueError, EOFError, OSError, UnicodeDecodeError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> InputError:
        return InputError(
            f"{self.path}: cannot be read as a {self.format} table ({error}); is it damaged or "
            "cut short?"
        )

    def _empty(self) -> InputError:
        return InputError(f"{self.path}: has a header but no row; is it cut short?")

    def _line(self, row: int) -> int:
        """Return the line, from 1, of a row of the table, from 0; blank lines are no rows."""
        opener = gzip.open if _is_gzip(self.path) else open
        with opener(self.path, "rt", encoding="utf-8-sig") as file:
            for line, text in enumerate(file, start=1):
                if line > self.skipped + 1 and text.strip():
                    row -= 1
                if row < 0:
                    return line
        raise IndexError(row)

    def _refuse_text(self, columns: Sequence[str]) -> None:
        """Refuse the first value of these columns that is no number, where there is one."""
        for frame in self._read(columns, dtype=str, chunksize=_SEARCH_ROWS):
            for column in columns:
                wrong = pd.to_numeric(frame[column], errors="coerce").isna() & frame[column].notna()
                _refuse(self.path, self._line, frame[column], wrong, "is no number")

    def blocks(self, rows: int) -> Iterator[Block]:
        """Yield the additive test's rows, ``rows`` at a time (fewer at the end).

        Raises
        ------
        InputError
            A number is text or impossible, an id is not printable, or no row is there.
        """
        columns = dict(self._columns)
        for role in ("beta", "standard_error"):
            columns.pop(role, None)
        text = {
            columns[role]: str
            for role in (
                "chromosome", "variant_id", "effect_allele", "other_allele", "test", "reference",
                "alternate",
            )
            if role in columns
        }  # fmt: skip
        effects = [name for pair in self._effects.values() for name in pair]
        numbers = {name: np.float64 for name in (*effects, *(
            columns[role] for role in ("base_pair_location", "frequency", "n") if role in columns
        ))}  # fmt: skip
        used = dict.fromkeys([*text, *numbers])
        reader = self._read(list(used), dtype=text | numbers, chunksize=rows)
        waiting: list[Block] = []
        number, read, added = 0, 0, 0
        pieces = iter(reader)
        while True:
            try:
                frame = next(pieces)
            except StopIteration:
                break
            except UnicodeDecodeError as error:
                raise self._damaged(error) from error
            except ValueError as error:
                self._refuse_text(list(numbers))
                raise self._damaged(error) from error
            except (EOFError, OSError) as error:
                raise self._damaged(error) from error
            waiting.append(self._block(frame, columns))
            read += len(frame)
            added += len(waiting[-1].keys)
            number += len(waiting[-1].keys)
            while number >= rows:
                joined = _concatenated(waiting)
                yield joined.rows(slice(0, rows))
                waiting = [joined.rows(slice(rows, None))]
                number -= rows
        if read == 0:
            raise self._empty()
        if added == 0:
            raise InputError(
                f"{self.path}: has no row of the additive test ({columns['test']} is never ADD); "
                "run the program with the additive model"
            )
        if number:
            yield _concatenated(waiting)

    def _block(self, frame: pd.DataFrame, columns: dict[str, str]) -> Block:
        if "test" in columns:
            frame = frame[frame[columns["test"]] == "ADD"]
        effect = frame[columns["effect_allele"]].str.upper()
        if "other_allele" in columns:
            other = frame[columns["other_allele"]].str.upper()
        else:
            # PLINK 2 without OMITTED: of two alleles, the one that is not counted.
            first = frame[columns["reference"]].str.upper()
            second = frame[columns["alternate"]].str.upper()
            other = first.where(effect == second, second)
        names = frame[columns["variant_id"]] if "variant_id" in columns else effect
        chromosome = frame[columns["chromosome"]]
        if self.format == "GWAS-SSF":
            chromosome = chromosome.replace(_MT_CODE)
        chromosome = _spelled(chromosome)
        position = _positions(
            self.path, self._line, frame[columns["base_pair_location"]], chromosome
        )
        _refuse_impossible(
            self.path,
            self._line,
            *(frame[columns[role]] if role in columns else None for role in ("frequency", "n")),
        )
        if "variant_id" in columns:
            _refuse(self.path, self._line, names, _unprintable(names), _BAD_ID)
        else:
            names = chromosome + ":" + position.astype(str) + ":" + other + ":" + effect
        keys = pd.DataFrame(
            {
                "chromosome": chromosome,
                "base_pair_location": position,
                "variant_id": names.fillna("."),
                "effect_allele": effect.fillna(""),
                "other_allele": other.fillna(""),
            }
        ).reset_index(drop=True)

        def numbers(role: str) -> np.ndarray:
            if role not in columns:
                return np.full(len(frame), np.nan)
            return frame[columns[role]].to_numpy(dtype=np.float64)

        pairs = list(self._effects.values())
        return Block(
            keys,
            numbers("frequency"),
            numbers("n"),
            frame[[beta for beta, _ in pairs]].to_numpy(dtype=np.float64),
            frame[[error for _, error in pairs]].to_numpy(dtype=np.float64),
        )


class HeigFile:
    """HEIG's pair: ``.snpinfo`` (a table of variants) and ``.sumstats`` (HDF5).

    The HDF5 file has the attributes ``n_snps``, ``n_gwas`` and ``n_blocks``, and datasets
    ``beta0``, ``z0``, ``beta1`` … of up to 20 components each, (n_snps, 20).
    """

    format = "HEIG"
    score = False
    digits = 7
    frequency_rounding = 5e-4

    def __init__(self, path: Path, variants: Path | None):
        self.path = path
        self.variants = variants or path.with_suffix(".snpinfo")
        if not self.variants.is_file():
            raise InputError(
                f"{self.variants}: no such file; HEIG's .sumstats needs its .snpinfo (column "
                "variants of the sheet)"
            )
        with self._open() as file:
            absent = [name for name in ("n_snps", "n_gwas", "n_blocks") if name not in file.attrs]
            if absent:
                raise InputError(
                    f"{path}: is HDF5 but not HEIG's: attribute '{absent[0]}' is missing"
                )
            self.m, r = int(file.attrs["n_snps"]), int(file.attrs["n_gwas"])
            for block in range(-(-r // _HEIG_BLOCK)):
                width = min(_HEIG_BLOCK, r - block * _HEIG_BLOCK)
                for name in (f"beta{block}", f"z{block}"):
                    data = file.get(name)
                    if (
                        not isinstance(data, h5py.Dataset)
                        or data.ndim != 2
                        or data.shape[0] != self.m
                        or data.shape[1] < width
                    ):
                        raise InputError(
                            f"{path}: dataset '{name}' is missing or not {self.m} x {width}; the "
                            "file is damaged, or holds a trait and not LDRs"
                        )
        self.components = [f"LDR{number}" for number in range(1, r + 1)]
        self._table = self._read_table()

    def _open(self) -> h5py.File:
        try:
            return h5py.File(self.path, "r", locking=False)
        except OSError as error:
            raise InputError(f"{self.path}: not a readable HDF5 file; make it again") from error

    def _read_table(self) -> pd.DataFrame:
        text = {"CHR": str, "SNP": str, "A1": str, "A2": str}
        try:
            table = pd.read_csv(
                self.variants, sep="\t", dtype=text, na_values=["NA"], keep_default_na=False
            )
        except (ValueError, UnicodeDecodeError) as error:
            raise InputError(f"{self.variants}: cannot be read as a table ({error})") from error
        absent = [name for name in (*text, "POS", "N") if name not in table.columns]
        if absent:
            raise InputError(f"{self.variants}: column '{absent[0]}' is missing")
        if len(table) != self.m:
            raise InputError(
                f"{self.variants}: has {len(table)} variants, but {self.path.name} has {self.m}"
            )
        if self.m == 0:
            raise InputError(f"{self.variants}: has a header but no row")
        for name in ("POS", "N", "MAF"):
            if name in table.columns:
                numbers = pd.to_numeric(table[name], errors="coerce").astype(np.float64)
                wrong = numbers.isna() & table[name].notna()
                _refuse(self.variants, _line_of_table, table[name], wrong, "is no number")
                table[name] = numbers
        table["CHR"] = _spelled(table["CHR"].replace(_MT_CODE))
        table["POS"] = _positions(self.variants, _line_of_table, table["POS"], table["CHR"])
        _refuse_impossible(self.variants, _line_of_table, table.get("MAF"), table["N"])
        _refuse(self.variants, _line_of_table, table["SNP"], _unprintable(table["SNP"]), _BAD_ID)
        return table

    def blocks(self, rows: int) -> Iterator[Block]:
        """Yield the variants, ``rows`` at a time."""
        table = self._table
        # HEIG's MAF is A1's frequency where it analysed the genotypes itself. Where no value is
        # above a half, it may be the minor allele's, which says no side.
        frequency = np.full(self.m, np.nan)
        if "MAF" in table.columns:
            frequency = table["MAF"].to_numpy(dtype=np.float64)
        with self._open() as file:
            for first in range(0, self.m, rows):
                part = slice(first, min(first + rows, self.m))
                here = table.iloc[part]
                r = len(self.components)
                values = {
                    name: np.concatenate(
                        [
                            file[f"{name}{block}"][part][:, : r - block * _HEIG_BLOCK]
                            for block in range(-(-r // _HEIG_BLOCK))
                        ],
                        axis=1,
                    ).astype(np.float64)
                    for name in ("beta", "z")
                }
                with np.errstate(divide="ignore", invalid="ignore"):
                    error = np.where(values["z"] != 0, values["beta"] / values["z"], np.nan)
                keys = pd.DataFrame(
                    {
                        "chromosome": here["CHR"],
                        "base_pair_location": here["POS"],
                        "variant_id": here["SNP"].fillna("."),
                        "effect_allele": here["A1"].fillna("").str.upper(),
                        "other_allele": here["A2"].fillna("").str.upper(),
                    }
                ).reset_index(drop=True)
                yield Block(
                    keys,
                    frequency[part],
                    here["N"].to_numpy(dtype=np.float64),
                    values["beta"],
                    error,
                    values["z"],
                )

    @property
    def folded(self) -> bool:
        """Whether the frequencies may be those of the minor allele, whichever it is."""
        return "MAF" in self._table.columns and not bool((self._table["MAF"] > 0.5).any())


def open_files(
    paths: Sequence[Path], components: Sequence[str], variants: Path | None
) -> list[TextFile | HeigFile]:
    """Open every file of component statistics.

    Parameters
    ----------
    paths : sequence of Path
        Files.
    components : sequence of str
        What each holds: ``LDR3``, or ``all`` for a file of many components.
    variants : Path, optional
        The ``.snpinfo`` file of HEIG's pair.

    Raises
    ------
    InputError
        A file's format is unknown, or the files are of different formats.
    """
    if len(paths) != len(components):
        raise InputError(f"--components names {len(components)} files, but there are {len(paths)}")
    files: list[TextFile | HeigFile] = []
    for path, component in zip(paths, components, strict=True):
        if not path.is_file():
            raise InputError(f"{path}: no such file (component summary statistics)")
        files.append(HeigFile(path, variants) if _is_hdf5(path) else TextFile(path, component))
    other = next((file for file in files if file.format != files[0].format), None)
    if other is not None:
        raise InputError(
            f"{other.path}: is of {other.format}, but {files[0].path.name} of {files[0].format}; "
            "import files of one program"
        )
    return files


def component_order(files: Sequence[TextFile | HeigFile], r: int) -> list[int]:
    """Return the column, of all files' side by side, of each component of the bases.

    Raises
    ------
    InputError
        A component is unknown, twice or absent.
    """
    names = [name for file in files for name in file.components]
    numbers = component_numbers(names, r, "component_sumstats")
    return sorted(range(r), key=numbers.__getitem__)


def aligned_blocks(
    files: Sequence[TextFile | HeigFile],
    order: Sequence[int],
    rows: int,
    repeated: np.ndarray | None = None,
) -> Iterator[tuple[Block, pd.DataFrame]]:
    """Yield blocks of all components from files that hold the same variants in one order.

    A repeated variant shows when its block may be gone already: give what
    :class:`RepeatedError` holds and begin again.

    Parameters
    ----------
    files : sequence
        As opened.
    order : sequence of int
        See :func:`component_order`.
    rows : int
        Variants of a block.
    repeated : (k,) uint64, optional
        Hashes of the variants that are repeated.

    Yields
    ------
    block : Block
        Variants that are there once.
    dropped : DataFrame
        Keys of the others, with ``reason``.

    Raises
    ------
    OrderError
        They do not.
    RepeatedError
        Variants are repeated, and ``repeated`` is not given.
    """
    seen: list[np.ndarray] = []
    readers = [file.blocks(rows) for file in files]
    while True:
        blocks = [next(reader, None) for reader in readers]
        if all(block is None for block in blocks):
            break
        first = blocks[0]
        if first is None or any(
            block is None or not first.keys.equals(block.keys) for block in blocks
        ):
            raise OrderError
        # 64 bits: that two variants share a hash is as good as excluded.
        hashes = pd.util.hash_array(_join_key(first.keys))
        again = np.zeros(len(hashes), dtype=bool)
        if repeated is None:
            seen.append(hashes)
        else:
            again = np.isin(hashes, repeated)
        block = _side_by_side(first, blocks, order).rows(~again)
        yield block, first.keys[again].assign(reason="repeated")
    if seen:
        values, counts = np.unique(np.concatenate(seen), return_counts=True)
        if (counts > 1).any():
            raise RepeatedError(values[counts > 1])


def joined_blocks(
    files: Sequence[TextFile | HeigFile], order: Sequence[int], rows: int
) -> Iterator[tuple[Block, pd.DataFrame]]:
    """Join files by chromosome, position and both alleles; yield blocks and who fell out.

    Rows are in the order of the first file. Effect and other allele that are exchanged in
    another file are turned. A variant that a file has twice is left out.

    Yields
    ------
    block : Block
        Variants that every file has.
    dropped : DataFrame
        With the first block: keys of the first file's others, with ``reason``.
    """
    whole = [_concatenated(list(file.blocks(rows))) for file in files]
    first = whole[0]
    index = _join_key(first.keys)
    kept = np.ones(len(index), dtype=bool)
    repeated = pd.Series(index).duplicated(keep=False).to_numpy()
    for number, block in enumerate(whole[1:], start=1):
        key = _join_key(block.keys)
        single = ~pd.Series(key).duplicated(keep=False).to_numpy()
        at = pd.Index(key[single]).get_indexer(pd.Index(index))
        kept &= at >= 0
        taken = block.rows(np.flatnonzero(single)[np.maximum(at, 0)]) if single.any() else first
        turned = taken.keys["effect_allele"].to_numpy() != first.keys["effect_allele"].to_numpy()
        sign = np.where(turned, -1.0, 1.0)[:, None]
        taken.beta = taken.beta * sign
        if taken.z is not None:
            taken.z = taken.z * sign
        whole[number] = taken
    dropped = first.keys[repeated | ~kept].copy()
    dropped["reason"] = np.where(repeated, "repeated", "not_in_every_component")[repeated | ~kept]
    chosen = np.flatnonzero(kept & ~repeated)
    for low in range(0, len(chosen), rows):
        part = chosen[low : low + rows]
        block = _side_by_side(first.rows(part), [block.rows(part) for block in whole], order)
        yield block, dropped.iloc[: None if low == 0 else 0]


def _side_by_side(first: Block, blocks: Sequence[Block], order: Sequence[int]) -> Block:
    columns = list(order)
    z = None
    if first.z is not None:
        z = np.concatenate([block.z for block in blocks], axis=1)[:, columns]
    return Block(
        first.keys,
        first.frequency,
        first.n,
        np.concatenate([block.beta for block in blocks], axis=1)[:, columns],
        np.concatenate([block.standard_error for block in blocks], axis=1)[:, columns],
        z,
    )


def _concatenated(blocks: Sequence[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    return Block(
        pd.concat([block.keys for block in blocks], ignore_index=True),
        *(
            np.concatenate([getattr(block, name) for block in blocks])
            for name in ("frequency", "n", "beta", "standard_error")
        ),
        None if blocks[0].z is None else np.concatenate([block.z for block in blocks]),
    )


def _spelled(names: pd.Series) -> pd.Series:
    """Return chromosomes in the project's spelling; contigs that are none as they are."""
    names = names.fillna(".")
    spelling = {}
    for name in names.unique():
        try:
            spelling[name] = normalise_chromosome(name)
        except InputError:
            spelling[name] = name
    return names.map(spelling)


def _positions(
    path: Path, line_of: Callable[[int], int], position: pd.Series, chromosome: pd.Series
) -> pd.Series:
    """Return positions as int64, 0 on contigs that are left out; refuse impossible ones."""
    possible = (position >= 1) & (position <= LARGEST_POSITION) & (position % 1 == 0)
    rule = f"is no position (a whole number from 1 to {LARGEST_POSITION})"
    _refuse(path, line_of, position, ~possible & chromosome.isin(RANK), rule)
    return position.where(possible, 0).astype(np.int64)


def _refuse_impossible(
    path: Path, line_of: Callable[[int], int], frequency: pd.Series | None, n: pd.Series | None
) -> None:
    if frequency is not None:
        wrong = (frequency < 0) | (frequency > 1)
        _refuse(path, line_of, frequency, wrong, "is no frequency (from 0 to 1)")
    if n is not None:
        _refuse(path, line_of, n, n < 0, "is no number of people")


def _unprintable(names: pd.Series) -> pd.Series:
    """Return which texts hold white space or characters that do not print; missing do not."""
    names = names.fillna(".")
    return ~names.map(str.isprintable).astype(bool) | names.str.contains(" ", regex=False)


def _refuse(
    path: Path,
    line_of: Callable[[int], int],
    values: pd.Series,
    wrong: pd.Series,
    rule: str,
) -> None:
    """Refuse the first wrong value of a column, by line; the index counts the rows from 0."""
    if not wrong.any():
        return
    row = wrong.idxmax()
    value = values[row]
    shown = "NA" if pd.isna(value) else repr(value) if isinstance(value, str) else f"{value:.15g}"
    raise InputError(
        f"{path}: line {line_of(int(row))}, column {values.name}: {shown} {rule}; correct the "
        "line or leave it out"
    )


def _line_of_table(row: int) -> int:
    return row + 2


def _join_key(keys: pd.DataFrame) -> np.ndarray:
    effect, other = keys["effect_allele"], keys["other_allele"]
    first, second = effect.where(effect <= other, other), other.where(effect <= other, effect)
    place = keys["chromosome"] + ":" + keys["base_pair_location"].astype(str)
    return (place + ":" + first + ":" + second).to_numpy(dtype=object)


def _present(path: Path, header: Sequence[str], name: str, declared: Format) -> dict[str, str]:
    """Return role → column of those that are there, or say what is missing."""
    found = {}
    for role, names in declared.columns.items():
        column = next((column for column in names if column in header), None)
        if column is not None:
            found[role] = column
    needed = set(_KEYS) - _OPTIONAL
    if "reference" in found and "alternate" in found:
        needed.discard("other_allele")
    absent = sorted(needed - set(found))
    if absent:
        wanted = " or ".join(declared.columns[absent[0]])
        raise InputError(
            f"{path}: is a {name} table without {wanted} ({absent[0]}); found: {', '.join(header)}"
        )
    if name == "PLINK 2" and "OR" in header:
        raise InputError(f"{path}: holds odds ratios; components are analysed by linear regression")
    return found


def _format_of(path: Path, header: Sequence[str]) -> str:
    for name, declared in FORMATS.items():
        if set(declared.signature) <= set(header):
            return name
    raise InputError(
        f"{path}: is of none of the formats {', '.join([*FORMATS, 'HEIG'])}; its columns are "
        f"{', '.join(header[:20])}"
    )


def _header(path: Path) -> tuple[int, list[str], str]:
    """Return the number of comment lines, the column names and the separator."""
    opener = gzip.open if _is_gzip(path) else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:
            skipped, line = 0, file.readline()
            while line.startswith("##"):
                skipped, line = skipped + 1, file.readline()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text or gzip ({error})") from error
    line = line.rstrip("\r\n")
    if not line.strip():
        raise InputError(f"{path}: the file is empty (component summary statistics)")
    if "\t" in line:
        header, separator = line.split("\t"), "\t"
    else:
        header, separator = line.split(), r"\s+"
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: column '{twice}' stands twice in the header")
    return skipped, header, separator


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"
