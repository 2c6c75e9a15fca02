"""Shapes that GWAS results come in: which columns play which role, read chunk by chunk."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from rvga.errors import InputError

# Names that are in use in tables of no particular program, compared in lower case.
ALIASES: dict[str, tuple[str, ...]] = {
    "chromosome": ("chromosome", "chr", "#chrom", "chrom", "#chr", "hm_chrom", "chromosome_name"),
    "base_pair_location": (
        "base_pair_location", "bp", "pos", "position", "genpos", "hm_pos", "base_pair", "bp_pos",
    ),
    "rsid": (
        "rsid", "snp", "rs_id", "markername", "variant_id", "id", "snpid", "marker", "markerid",
        "rs", "hm_rsid", "rs_number", "rsids", "variant",
    ),
    "effect_allele": (
        "effect_allele", "a1", "allele1", "ea", "alt", "hm_effect_allele", "effectallele", "a_1",
        "eff_allele", "tested_allele", "inc_allele", "alleleb",
    ),
    "other_allele": (
        "other_allele", "a2", "allele2", "allele0", "oa", "nea", "non_effect_allele", "ref",
        "omitted", "hm_other_allele", "noneffect_allele", "otherallele", "a0", "a_0", "dec_allele",
        "allelea",
    ),
    "beta": ("beta", "b", "effect", "effects", "log(or)", "logor", "log_odds", "hm_beta", "es"),
    "odds_ratio": ("odds_ratio", "or", "hm_odds_ratio", "oddsratio", "hazard_ratio", "hr"),
    "standard_error": (
        "standard_error", "se", "stderr", "std_error", "sebeta", "standarderror", "log(or)_se",
        "hm_standard_error",
    ),
    "z": ("z", "zscore", "z_score", "z-score", "t_stat", "z_stat", "tstat", "stat"),
    "p_value": (
        "p_value", "p", "pval", "pvalue", "p-value", "p.value", "p_val", "p_bolt_lmm", "p_lrt",
        "hm_p_value",
    ),
    "neg_log_10_p_value": (
        "neg_log_10_p_value", "neg_log10_p", "log10p", "lp", "neg_log10_pval", "mlog10p", "nlog10p",
        "-log10_p", "minuslog10p",
    ),
    "n": (
        "n", "obs_ct", "neff", "n_eff", "n_total", "samplesize", "weight", "ntot", "totaln",
        "nmiss", "sample_size", "n_sample",
    ),
    "n_cases": (
        "n_cases", "ncase", "nca", "n_case", "ncas", "cases", "num_cases", "n.cases", "n_cas",
    ),
    "n_controls": (
        "n_controls", "ncontrol", "nco", "n_control", "ncon", "controls", "num_controls", "n_ctrl",
        "n.controls", "n_con",
    ),
    "effect_allele_frequency": (
        "effect_allele_frequency", "eaf", "a1_freq", "a1freq", "freq", "frq", "af", "maf_effect",
        "freq1", "a1_frq", "hm_effect_allele_frequency", "af1", "af_alt",
    ),
    "test": ("test",),
    "sample": (),
}  # fmt: skip
# Two columns of one of these roles would leave the sign or the size of effects to chance.
_DECISIVE = ("effect_allele", "other_allele", "beta", "odds_ratio", "standard_error", "z")
_TEXT = ("chromosome", "rsid", "effect_allele", "other_allele", "test", "ref", "alt")
# A cell between white space, which may hold some itself between double quotes.
_WORD = re.compile(r'(?:"[^"]*"|\S)+')
_MISSING = ["NA", "#NA", "", ".", "nan", "NaN", "NULL", "None", "-", "-nan"]


@dataclass(frozen=True)
class Format:
    """How one program names its columns.

    Attributes
    ----------
    name : str
    needs : frozenset of str
        Lower-case names by which the header is recognised.
    roles : dict
        Role → lower-case names, the first that is there is taken; other roles are not looked for.
    """

    name: str
    needs: frozenset[str]
    roles: Mapping[str, tuple[str, ...]]


def _format(name: str, needs: str, **roles: str) -> Format:
    return Format(
        name, frozenset(needs.split()), {role: tuple(text.split()) for role, text in roles.items()}
    )


# The first whose names are all in the header is taken.
FORMATS = (
    _format(
        "PLINK 2", "a1 obs_ct test", chromosome="#chrom chrom", base_pair_location="pos", rsid="id",
        effect_allele="a1", other_allele="omitted ax", ref="ref", alt="alt", test="test",
        n="obs_ct", beta="beta", odds_ratio="or", standard_error="se log(or)_se",
        z="t_stat z_stat", p_value="p", neg_log_10_p_value="neg_log10_p log10_p",
        effect_allele_frequency="a1_freq",
    ),
    _format(
        "REGENIE", "genpos allele0 allele1 log10p", chromosome="chrom #chrom",
        base_pair_location="genpos", rsid="id", effect_allele="allele1", other_allele="allele0",
        test="test", n="n", n_cases="n_cases", n_controls="n_controls", beta="beta",
        standard_error="se", neg_log_10_p_value="log10p", effect_allele_frequency="a1freq",
    ),
    _format(
        "BOLT-LMM", "allele0 allele1 p_bolt_lmm_inf", chromosome="chr", base_pair_location="bp",
        rsid="snp", effect_allele="allele1", other_allele="allele0", beta="beta",
        standard_error="se", p_value="p_bolt_lmm p_bolt_lmm_inf", n="n",
        effect_allele_frequency="a1freq",
    ),
    # Its Tstat is a score, not a t statistic.
    _format(
        "SAIGE", "allele1 allele2 af_allele2", chromosome="chr", base_pair_location="pos",
        rsid="rsid markerid snpid", effect_allele="allele2", other_allele="allele1", beta="beta",
        standard_error="se", p_value="p.value", n="n", n_cases="n_case n.cases n_cases",
        n_controls="n_ctrl n.controls n_controls", effect_allele_frequency="af_allele2",
    ),
    _format(
        "fastGWA", "chr snp pos a1 a2 n af1 beta se", chromosome="chr", base_pair_location="pos",
        rsid="snp", effect_allele="a1", other_allele="a2", beta="beta", standard_error="se",
        p_value="p", n="n", effect_allele_frequency="af1",
    ),
    # GWAS-VCF turned into a table (MungeSumstats): A1 is REF, A2 is ALT, which effects are of.
    _format(
        "IEU table", "snp chr bp a1 a2 lp", chromosome="chr", base_pair_location="bp", rsid="snp",
        effect_allele="a2", other_allele="a1", beta="beta es", standard_error="se",
        neg_log_10_p_value="lp", n="n ss", n_cases="n_cas nc", n_controls="n_con",
        effect_allele_frequency="frq af",
    ),
    _format(
        "GWAS-SSF harmonised", "hm_chrom hm_pos hm_effect_allele hm_other_allele",
        chromosome="hm_chrom", base_pair_location="hm_pos", rsid="hm_rsid rsid",
        effect_allele="hm_effect_allele", other_allele="hm_other_allele", beta="hm_beta",
        odds_ratio="hm_odds_ratio", standard_error="standard_error", p_value="p_value",
        neg_log_10_p_value="neg_log_10_p_value", n="n", n_cases="n_cases num_cases",
        n_controls="n_controls num_controls",
        effect_allele_frequency="hm_effect_allele_frequency",
    ),
    _format(
        "GWAS-SSF", "chromosome base_pair_location effect_allele other_allele",
        chromosome="chromosome", base_pair_location="base_pair_location",
        rsid="rsid rs_id variant_id", effect_allele="effect_allele", other_allele="other_allele",
        beta="beta", odds_ratio="odds_ratio hazard_ratio", standard_error="standard_error",
        z="z-score z_score z", p_value="p_value", neg_log_10_p_value="neg_log_10_p_value", n="n",
        n_cases="n_cases num_cases", n_controls="n_controls num_controls",
        effect_allele_frequency="effect_allele_frequency",
    ),
    _format(
        "LDSC", "snp a1 a2 n z", rsid="snp", effect_allele="a1", other_allele="a2", n="n", z="z",
        chromosome="chr", base_pair_location="bp", effect_allele_frequency="frq",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What the first lines of a file say.

    Attributes
    ----------
    format : str
        Name of the shape, 'table' for one of no particular program.
    separator : str
    skipped : int
        Lines before the header.
    names : list of str
        Column names.
    columns : dict
        Role → column name.
    n_cases, n_controls : float or None
        Where the head of the file gives them (GWAS-VCF).
    quoted : bool
        Whether cells may stand in double quotes, as some of the header or the first row do.
    """

    format: str
    separator: str
    skipped: int
    names: list[str]
    columns: dict[str, str]
    n_cases: float | None = None
    n_controls: float | None = None
    comments: list[str] = field(default_factory=list)
    quoted: bool = False


def read_header(path: Path, asked: Mapping[str, str]) -> Header:
    """Recognise a file's shape and find the columns of each role.

    Parameters
    ----------
    path : Path
        Plain or gzip.
    asked : mapping
        Role → column name as the user gave them; they go before what is recognised.

    Raises
    ------
    InputError
        The file is absent, empty, damaged, or lacks a header or a column that is needed, or
        has two columns for what decides the sign or size of effects.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file (summary statistics)")
    unknown = sorted(set(asked) - set(ALIASES))
    if unknown:
        raise InputError(
            f"--columns: '{unknown[0]}' is no role of a column; known are {', '.join(ALIASES)}"
        )
    comments, line, first_row = _first_lines(path)
    if comments and comments[0].startswith("##fileformat=VCF"):
        return _vcf_header(path, comments, line, asked)
    names, separator = _split(line)
    _require_names(path, names)
    _require_cells(path, names, first_row, separator, len(comments) + 2)
    for role, name in asked.items():
        if name not in names:
            raise InputError(
                f"{path}: no column '{name}' ({role}) as --columns says; found: {', '.join(names)}"
            )
    lower = {name.strip().lower(): name for name in reversed(names)}
    known = next((one for one in FORMATS if one.needs <= set(lower)), None)
    found = {} if known is None else _as_named(known, lower) | dict(asked)
    # A file that begins like one of a program, but has effects under other names, is none of it.
    if known is None or not _has_effect(found):
        known, found = None, _aliased(path, lower, asked)
    # Who names one effect column has decided between the two.
    for one, other in (("beta", "odds_ratio"), ("odds_ratio", "beta")):
        if one in asked and other not in asked:
            found.pop(other, None)
    if "other_allele" in found or not {"ref", "alt"} <= set(found):
        found = {role: name for role, name in found.items() if role not in ("ref", "alt")}
    _require_roles(path, names, found)
    return Header(
        known.name if known else "table", separator, len(comments), names, found,
        quoted='"' in line or _has_quoted_cell(first_row, separator),
    )  # fmt: skip


def read_chunks(path: Path, header: Header, rows: int) -> Iterator[pd.DataFrame]:
    """Yield the columns that play a role, named by it; the index is the row's number in the file.

    Raises
    ------
    InputError
        The file is damaged or a cell that should be a number is none.
    """
    if header.format == "GWAS-VCF":
        yield from _vcf_chunks(path, header, rows)
        return
    used = list(dict.fromkeys(header.columns.values()))
    kinds = {name: "str" if role in _TEXT else "float64" for role, name in header.columns.items()}
    try:
        for raw in _frames(path, header, rows, used, kinds):
            yield _by_role(raw, header)
    except (ValueError, OverflowError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise _damaged(path, error) from error
        _refuse_bad_number(path, header, rows, used)
        raise _damaged(path, error) from error


def _by_role(raw: pd.DataFrame, header: Header) -> pd.DataFrame:
    frame = pd.DataFrame(
        {role: raw[name] for role, name in header.columns.items()}, index=raw.index
    )
    if "ref" in frame:
        # Without the column OMITTED the other allele is whichever of REF and ALT is not A1.
        is_ref = frame["effect_allele"] == frame["ref"]
        frame["other_allele"] = frame["alt"].where(is_ref, frame["ref"])
        known = is_ref | (frame["effect_allele"] == frame["alt"])
        frame["other_allele"] = frame["other_allele"].where(known)
        frame = frame.drop(columns=["ref", "alt"])
    return frame


def _frames(path: Path, header: Header, rows: int, used, kinds) -> Iterator[pd.DataFrame]:
    try:
        with pd.read_csv(
            path,
            sep=header.separator,
            skiprows=header.skipped,
            header=0,
            names=header.names,
            usecols=used,
            dtype=kinds,
            na_values=_MISSING,
            keep_default_na=False,
            compression="gzip" if _is_gzip(path) else None,
            quoting=csv.QUOTE_MINIMAL if header.quoted else csv.QUOTE_NONE,
            chunksize=rows,
        ) as reader:
            yield from reader
    except pd.errors.EmptyDataError:
        return
    except (pd.errors.ParserError, EOFError, OSError, zlib.error) as error:
        raise _damaged(path, error) from error


def _refuse_bad_number(path: Path, header: Header, rows: int, used: list[str]) -> None:
    """Raise for the first cell that should be a number and is none."""
    for raw in _frames(path, header, rows, used, "str"):
        for role, name in header.columns.items():
            if role in _TEXT:
                continue
            bad = pd.to_numeric(raw[name], errors="coerce").isna() & raw[name].notna()
            if bad.any():
                at = int(np.argmax(bad.to_numpy()))
                raise InputError(
                    f"{path}: line {line_of(header, raw.index[at])}: '{raw[name].iloc[at]}' in "
                    f"column '{name}' is not a number; mend the line, or mark missing values as NA"
                )


def line_of(header: Header, row: int) -> int:
    """Return the line, from 1, of a row of the file."""
    return int(row) + header.skipped + 2


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: cannot be read as a table ({error}); is the file damaged or cut short?"
    )


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as handle:
        return handle.read(2) == b"\x1f\x8b"


def _first_lines(path: Path) -> tuple[list[str], str, str]:
    """Return the comment lines, the line after them, and the next."""
    opener = gzip.open if _is_gzip(path) else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as handle:
            comments = []
            line = handle.readline()
            while line.startswith("##"):
                comments.append(line.rstrip("\r\n"))
                line = handle.readline()
            first_row = handle.readline()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read as text or gzip ({error}); give a table with a header line"
        ) from error
    line = line.rstrip("\r\n")
    if not line.strip():
        raise InputError(f"{path}: the file is empty (summary statistics)")
    if "\0" in line:
        raise InputError(f"{path}: is no text, but a binary file; give a table as text")
    return comments, line, first_row.rstrip("\r\n")


def _split(line: str) -> tuple[list[str], str]:
    separator = next((mark for mark in ("\t", ",", ";") if mark in line), r"\s+")
    return _cells(line, separator), separator


def _cells(line: str, separator: str) -> list[str]:
    """Return a line's cells, without the double quotes around them."""
    if separator == r"\s+":
        return [word.strip('"') for word in _WORD.findall(line)]
    if '"' not in line:
        return line.split(separator)
    return next(csv.reader([line], delimiter=separator))


def _has_quoted_cell(row: str, separator: str) -> bool:
    """Return whether a cell of a row begins with a double quote."""
    return any(cell.startswith('"') for cell in re.split(separator, row.strip()))


def _require_cells(path: Path, names: list[str], row: str, separator: str, number: int) -> None:
    """Refuse a table whose rows have a cell more than its header, as names of rows that R writes.

    Separators at the end of a line are no cells.
    """
    cells = _cells(row, separator)
    while len(cells) > len(names) and not cells[-1].strip():
        cells.pop()
    if len(cells) > len(names):
        raise InputError(
            f"{path}: line {number} has {len(cells)} columns, the header {len(names)}; give each "
            "column its name (R writes names of rows without one: row.names = FALSE)"
        )


def _require_names(path: Path, names: list[str]) -> None:
    numbers = [name for name in names if re.fullmatch(r"[-+]?[\d.]+([eE][-+]?\d+)?", name.strip())]
    if numbers:
        raise InputError(
            f"{path}: the first line holds values ('{numbers[0]}'), so that the table has no "
            "header; add a line with the names of the columns"
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"{path}: column '{repeated[0]}' stands twice in the header")


def _as_named(known: Format, lower: Mapping[str, str]) -> dict[str, str]:
    """Return role → column of a table of a known program."""
    return {
        role: next(lower[name] for name in listed if name in lower)
        for role, listed in known.roles.items()
        if any(name in lower for name in listed)
    }


def _has_effect(found: Mapping[str, str]) -> bool:
    """Return whether z follows from the columns: it, or an effect and its error or p."""
    signed = {"beta", "odds_ratio"} & set(found)
    return "z" in found or bool(
        signed and {"standard_error", "p_value", "neg_log_10_p_value"} & set(found)
    )


def _aliased(path: Path, lower: Mapping[str, str], asked: Mapping[str, str]) -> dict[str, str]:
    """Return role → column of a table of no particular program."""
    found = dict(asked)
    for role, aliases in ALIASES.items():
        if role in found:
            continue
        free = [
            lower[name] for name in aliases if name in lower and lower[name] not in found.values()
        ]
        if not free:
            continue
        if len(free) > 1 and role in _DECISIVE:
            raise InputError(
                f"{path}: columns '{free[0]}' and '{free[1]}' could both be the {role}; say which "
                f"with --columns '{role}={free[0]}'"
            )
        found[role] = free[0]
    return found


def _require_roles(path: Path, names: list[str], found: Mapping[str, str]) -> None:
    listed = ", ".join(names)
    for role in ("effect_allele", "other_allele"):
        derived = role == "other_allele" and {"ref", "alt"} <= set(found)
        if role not in found and not derived:
            raise InputError(
                f"{path}: no {role.replace('_', '-')} column; found: {listed}; name it with "
                f"--columns '{role}=<column>'"
            )
    if "rsid" not in found and not {"chromosome", "base_pair_location"} <= set(found):
        raise InputError(
            f"{path}: neither chromosome and base_pair_location nor rsid among the columns; "
            f"found: {listed}"
        )
    if not _has_effect(found):
        raise InputError(
            f"{path}: no z, and no effect (beta, odds_ratio) with standard_error or p_value; "
            f"found: {listed}"
        )


# ---------------------------------------------------------------------------------------------
# GWAS-VCF: one FORMAT field a role, ALT is the effect allele
# ---------------------------------------------------------------------------------------------

_VCF_ROLES = {
    "ES": "beta", "SE": "standard_error", "LP": "neg_log_10_p_value", "EZ": "z", "SS": "n",
    "AF": "effect_allele_frequency", "NC": "n_cases", "ID": "rsid",
}  # fmt: skip


def _vcf_header(path: Path, comments: list[str], line: str, asked: Mapping[str, str]) -> Header:
    names = line.split("\t")
    fixed = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
    if names[:9] != fixed or len(names) < 10:
        raise InputError(
            f"{path}: is a VCF without the columns FORMAT and a trait, so it holds no GWAS "
            "results; give a GWAS-VCF"
        )
    samples = names[9:]
    sample = asked.get("sample", samples[0] if len(samples) == 1 else None)
    if set(asked) - {"sample"}:
        raise InputError(
            f"{path}: the columns of a GWAS-VCF are known; of --columns only 'sample' is of use"
        )
    if sample is None:
        raise InputError(
            f"{path}: holds {len(samples)} traits ({', '.join(samples[:5])}); say which with "
            "--columns 'sample=<name>'"
        )
    if sample not in samples:
        raise InputError(f"{path}: no trait '{sample}'; found: {', '.join(samples[:20])}")
    cases = controls = None
    for comment in comments:
        if comment.startswith("##SAMPLE=<") and f"ID={sample}," in comment.replace(">", ","):
            pairs = dict(re.findall(r"(\w+)=([^,>]+)", comment))
            if pairs.get("StudyType", "") == "CaseControl":
                cases, controls = (_count(pairs.get(f"Total{k}")) for k in ("Cases", "Controls"))
    columns = {"effect_allele": "ALT", "other_allele": "REF", "sample": sample}
    return Header("GWAS-VCF", "\t", len(comments), names, columns, cases, controls, comments)


def _count(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if value > 0 else None


def _vcf_chunks(path: Path, header: Header, rows: int) -> Iterator[pd.DataFrame]:
    sample = header.columns["sample"]
    used = ["#CHROM", "POS", "ID", "REF", "ALT", "FORMAT", sample]
    try:
        for raw in _frames(path, header, rows, used, "str"):
            yield _vcf_frame(path, raw, sample, header)
    except UnicodeDecodeError as error:
        raise _damaged(path, error) from error


def _vcf_frame(path: Path, raw: pd.DataFrame, sample: str, header: Header) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "chromosome": raw["#CHROM"],
            "base_pair_location": _vcf_numbers(path, raw["POS"], "POS", header),
            "rsid": raw["ID"],
            "effect_allele": raw["ALT"],
            "other_allele": raw["REF"],
        }
    )
    values: dict[str, pd.Series] = {}
    for form, group in raw.groupby("FORMAT", sort=True):
        fields = str(form).split(":")
        parts = group[sample].str.split(":", expand=True)
        for k, name in enumerate(fields[: parts.shape[1]]):
            if name in _VCF_ROLES:
                column = parts[k].where(~parts[k].isin(_MISSING))
                column = column if name == "ID" else _vcf_numbers(path, column, name, header)
                values.setdefault(name, pd.Series(pd.NA, index=raw.index, dtype="object"))
                values[name].loc[group.index] = column.astype("object")
    for name, column in values.items():
        role = _VCF_ROLES[name]
        if role == "rsid":
            frame["rsid"] = frame["rsid"].where(frame["rsid"].notna(), column.astype("str"))
        else:
            frame[role] = pd.to_numeric(column, errors="coerce").astype(float)
    if "n_cases" in frame and "n" in frame:
        frame["n_controls"] = frame["n"] - frame["n_cases"]
    elif "n_cases" in frame:
        frame = frame.drop(columns="n_cases")
    return frame


def _vcf_numbers(path: Path, column: pd.Series, name: str, header: Header) -> pd.Series:
    values = pd.to_numeric(column, errors="coerce")
    bad = (values.isna() & column.notna()).to_numpy()
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(
            f"{path}: line {line_of(header, column.index[at])}: '{column.iloc[at]}' for {name} is "
            "not a number; mend the line"
        )
    return values.astype(float)
