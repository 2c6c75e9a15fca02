"""GWAS results of external traits, in the many shapes they come in, and matching of variants."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtri_exp

from rvga.chromosomes import normalise_chromosome
from rvga.errors import InputError

# Names that are in use, compared in lower case; the first that a file has is taken.
ALIASES: dict[str, tuple[str, ...]] = {
    "chromosome": ("chromosome", "chr", "#chrom", "chrom", "#chr", "hm_chrom", "chromosome_name"),
    "base_pair_location": (
        "base_pair_location", "bp", "pos", "position", "genpos", "hm_pos", "base_pair", "bp_pos",
    ),
    "rsid": (
        "rsid", "snp", "rs_id", "markername", "variant_id", "id", "snpid", "marker", "markerid",
        "rs", "hm_rsid", "rs_number", "rsids",
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
    "odds_ratio": ("odds_ratio", "or", "hm_odds_ratio", "oddsratio"),
    "standard_error": (
        "standard_error", "se", "stderr", "std_error", "sebeta", "standarderror", "log(or)_se",
    ),
    "z": ("z", "zscore", "z_score", "z-score", "t_stat", "z_stat", "tstat", "stat"),
    "p_value": (
        "p_value", "p", "pval", "pvalue", "p-value", "p.value", "p_val", "p_bolt_lmm", "p_lrt",
    ),
    "neg_log_10_p_value": (
        "neg_log_10_p_value", "neg_log10_p", "log10p", "lp", "neg_log10_pval", "mlog10p", "nlog10p",
    ),
    "n": ("n", "obs_ct", "neff", "n_eff", "n_total", "samplesize", "weight", "ntot", "totaln"),
    "n_cases": ("n_cases", "ncase", "nca", "n_case", "ncas", "cases"),
    "n_controls": ("n_controls", "ncontrol", "nco", "n_control", "ncon", "controls"),
    "effect_allele_frequency": (
        "effect_allele_frequency", "eaf", "a1_freq", "a1freq", "freq", "frq", "af", "maf_effect",
        "freq1", "a1_frq", "hm_effect_allele_frequency", "af1",
    ),
    "test": ("test",),
}  # fmt: skip
_MISSING = ["NA", "#NA", "", ".", "nan", "NaN", "NULL", "None", "-"]
_COMPLEMENT = {("A", "T"), ("T", "A"), ("C", "G"), ("G", "C")}
# LD score regression's rule for variants that were tested in too few people.
_LEAST_SHARE_OF_N = 1 / 1.5


@dataclass(frozen=True)
class Sumstats:
    """Usable rows of one trait's results.

    Attributes
    ----------
    table : DataFrame
        ``effect_allele``, ``other_allele``, ``z``, ``n``, and as far as the file has them
        ``chromosome``, ``base_pair_location``, ``rsid``, ``effect_allele_frequency``.
    n_read : int
        Rows of the file.
    dropped : dict of str to int
        Reason → rows that are not in the table.
    columns : dict of str to str
        Role → the file's column name.
    """

    table: pd.DataFrame
    n_read: int
    dropped: dict[str, int]
    columns: dict[str, str]


def read_sumstats(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    n: float | None = None,
    n_cases: float | None = None,
    n_controls: float | None = None,
) -> Sumstats:
    """Read GWAS results of a trait: GWAS-SSF or any table with a header, plain or gzip.

    Parameters
    ----------
    path : Path
        Tab, comma or space separated.
    columns : mapping
        Role (a key of :data:`ALIASES`) → column name, where the names are unusual.
    n, n_cases, n_controls : float, optional
        Sample size; they have priority over the file's columns. For cases and controls the
        effective size is 4 / (1/cases + 1/controls).

    Raises
    ------
    InputError
        The file is absent, empty or damaged, or alleles, an effect or the sample size cannot
        be found.
    """
    path = Path(path)
    frame, found = _read_columns(path, dict(columns or {}))
    n_read = len(frame)
    dropped: dict[str, int] = {}

    def drop(condition: np.ndarray | pd.Series, reason: str) -> None:
        nonlocal frame
        condition = np.asarray(condition, dtype=bool)
        dropped[reason] = int(condition.sum())
        frame = frame[~condition]

    if "test" in frame:
        drop(~frame["test"].str.upper().isin(["ADD"]), "not a row of the additive test")
    frame = frame.assign(z=_z(path, frame, found), n=_n(path, frame, n, n_cases, n_controls))
    for name in ("effect_allele", "other_allele"):
        frame[name] = frame[name].str.upper()
    valid = frame["effect_allele"].str.fullmatch("[ACGT]+", na=False) & frame[
        "other_allele"
    ].str.fullmatch("[ACGT]+", na=False)
    drop(~valid | (frame["effect_allele"] == frame["other_allele"]), "alleles not valid")
    drop(~np.isfinite(frame["z"]), "no z statistic")
    drop(~(np.isfinite(frame["n"]) & (frame["n"] > 1)), "no sample size")
    drop(ambiguous(frame), "strand-ambiguous alleles")
    if len(frame):
        floor = _LEAST_SHARE_OF_N * float(np.quantile(frame["n"], 0.9))
        drop(frame["n"] < floor, "sample size below two thirds of the 90th percentile")
    if len(frame) == 0:
        reasons = ", ".join(f"{number} {reason}" for reason, number in dropped.items() if number)
        raise InputError(f"{path}: none of its {n_read} rows can be used: {reasons}")
    keep = [
        name
        for name in (
            "chromosome", "base_pair_location", "rsid", "effect_allele", "other_allele", "z", "n",
            "effect_allele_frequency",
        )
        if name in frame
    ]  # fmt: skip
    if "chromosome" in frame:
        known = {name: _chromosome(name) for name in frame["chromosome"].dropna().unique()}
        frame["chromosome"] = frame["chromosome"].map(known)
    for name in ("base_pair_location", "effect_allele_frequency"):
        if name in frame:
            frame[name] = pd.to_numeric(frame[name], errors="coerce")
    return Sumstats(frame[keep].reset_index(drop=True), n_read, dropped, found)


def ambiguous(frame: pd.DataFrame) -> np.ndarray:
    """Return which variants have alleles that are each other's complement (A/T, C/G), (m,)."""
    pairs = zip(frame["effect_allele"], frame["other_allele"], strict=True)
    return np.fromiter((pair in _COMPLEMENT for pair in pairs), dtype=bool, count=len(frame))


def match_variants(
    reference: pd.DataFrame, other: pd.DataFrame, *, by: str = "position"
) -> tuple[np.ndarray, np.ndarray, int]:
    """Find each reference variant in another table by place (or rsid) and both alleles.

    Parameters
    ----------
    reference, other : DataFrame
        ``effect_allele``, ``other_allele`` and, by position, ``chromosome`` and
        ``base_pair_location``; by rsid, ``variant_id`` (reference) and ``rsid`` (other).
    by : {"position", "rsid"}

    Returns
    -------
    row : (m,) int64
        Row of ``other``; -1 where there is none.
    sign : (m,) float64
        -1 where effect and other allele are swapped, else 1.
    n_duplicates : int
        Rows of ``other`` left out because the same variant is in it more than once (all
        copies are left out).
    """
    left, right = _keys(reference, by, "variant_id"), _keys(other, by, "rsid")
    right = right[right["key"].notna()]
    repeated = right["key"].duplicated(keep=False)
    right = right[~repeated]
    own_repeat = left["key"].duplicated(keep=False) | left["key"].isna()
    index = pd.Index(right["key"])
    at = index.get_indexer(left["key"])
    at[own_repeat.to_numpy()] = -1
    hit = at >= 0
    row = np.where(hit, right["row"].to_numpy()[np.maximum(at, 0)] if len(right) else -1, -1)
    sign = np.ones(len(left))
    if len(right):
        same = left["effect"].to_numpy() == right["effect"].to_numpy()[np.maximum(at, 0)]
        sign[hit & ~same] = -1.0
    return row.astype(np.int64), sign, int(repeated.sum())


def _keys(frame: pd.DataFrame, by: str, id_column: str) -> pd.DataFrame:
    effect, other = frame["effect_allele"].str.upper(), frame["other_allele"].str.upper()
    first = effect.where(effect <= other, other)
    second = other.where(effect <= other, effect)
    if by == "position":
        position = frame["base_pair_location"]
        whole = position.round().astype("Int64").astype("str")
        place = frame["chromosome"].astype("str") + ":" + whole
        absent = frame["chromosome"].isna() | position.isna()
    else:
        place = frame[id_column].astype("str")
        absent = frame[id_column].isna()
    key = (place + ":" + first + ":" + second).where(~absent)
    return pd.DataFrame({"key": key, "effect": effect, "row": np.arange(len(frame))})


def _read_columns(path: Path, asked: dict[str, str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read the columns that play a role, named by it."""
    if not path.is_file():
        raise InputError(f"{path}: no such file (summary statistics)")
    unknown = sorted(set(asked) - set(ALIASES))
    if unknown:
        raise InputError(
            f"--columns: '{unknown[0]}' is no role of a column; known are {', '.join(ALIASES)}"
        )
    skipped, header, separator = _header(path)
    found = _roles(path, header, asked)
    text = ("chromosome", "rsid", "effect_allele", "other_allele", "test")
    used = list(dict.fromkeys(found.values()))
    try:
        raw = pd.read_csv(
            path,
            sep=separator,
            skiprows=skipped,
            header=0,
            names=header,
            usecols=used,
            dtype="str",
            na_values=_MISSING,
            keep_default_na=False,
            compression="gzip" if _is_gzip(path) else None,
            quoting=3,
        )
    except (pd.errors.ParserError, UnicodeDecodeError, EOFError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as a table ({error}); is the file damaged or cut short?"
        ) from error
    frame = pd.DataFrame(index=raw.index)
    for role, name in found.items():
        frame[role] = raw[name] if role in text else _numbers(path, raw[name], skipped)
    if len(frame) == 0:
        raise InputError(f"{path}: the table has a header but no row")
    return frame, found


def _numbers(path: Path, column: pd.Series, skipped: int) -> pd.Series:
    values = pd.to_numeric(column, errors="coerce")
    bad = values.isna() & column.notna()
    if bad.any():
        at = int(np.argmax(bad.to_numpy()))
        raise InputError(
            f"{path}: line {at + skipped + 2}: '{column.iloc[at]}' in column '{column.name}' is "
            "not a number; mend the line, or mark missing values as NA"
        )
    return values.astype(float)


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as handle:
        return handle.read(2) == b"\x1f\x8b"


def _header(path: Path) -> tuple[int, list[str], str]:
    """Return the number of comment lines, the column names and the separator."""
    opener = gzip.open if _is_gzip(path) else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as handle:
            skipped = 0
            line = handle.readline()
            while line.startswith("##"):
                skipped += 1
                line = handle.readline()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read as text or gzip ({error}); give a table with a header line"
        ) from error
    line = line.rstrip("\r\n")
    if not line.strip():
        raise InputError(f"{path}: the file is empty (summary statistics)")
    for mark in ("\t", ",", ";"):
        if mark in line:
            return skipped, line.split(mark), mark
    return skipped, line.split(), r"\s+"


def _roles(path: Path, header: list[str], asked: dict[str, str]) -> dict[str, str]:
    """Return role → column name, or say what is missing."""
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise InputError(f"{path}: column '{repeated[0]}' stands twice in the header")
    listed = ", ".join(header)
    for role, name in asked.items():
        if name not in header:
            raise InputError(
                f"{path}: no column '{name}' ({role}) as --columns says; found: {listed}"
            )
    lower = {name.strip().lower(): name for name in reversed(header)}
    found = dict(asked)
    for role, aliases in ALIASES.items():
        if role not in found:
            name = next((lower[alias] for alias in aliases if alias in lower), None)
            if name is not None and name not in found.values():
                found[role] = name
    # REGENIE's ALLELE0/ALLELE1, SAIGE's Allele1/Allele2: the effect allele is ALLELE1, Allele2.
    if "allele2" in lower and "af_allele2" in lower and "effect_allele" not in asked:
        found["effect_allele"], found["other_allele"] = lower["allele2"], lower["allele1"]
    # PLINK 2 writes REF, ALT, A1 and OMITTED; A1 is the one that is counted.
    if {"a1", "ref", "alt"} <= set(lower) and "other_allele" not in asked:
        if "omitted" not in lower:
            raise InputError(
                f"{path}: has A1 with REF and ALT but not OMITTED, so the other allele is unclear; "
                "run PLINK 2 with 'cols=+omitted'"
            )
        found["other_allele"] = lower["omitted"]
    for role in ("effect_allele", "other_allele"):
        if role not in found:
            raise InputError(
                f"{path}: no {role.replace('_', '-')} column; found: {listed}; name it with "
                f"--columns '{role}=<column>'"
            )
    if "rsid" not in found and not {"chromosome", "base_pair_location"} <= set(found):
        raise InputError(
            f"{path}: neither chromosome and base_pair_location nor rsid among the columns; "
            f"found: {listed}"
        )
    signed = {"beta", "odds_ratio"} & set(found)
    size = {"standard_error", "p_value", "neg_log_10_p_value"} & set(found)
    if "z" not in found and not (signed and size):
        raise InputError(
            f"{path}: no z, and no effect (beta, odds_ratio) with standard_error or p_value; "
            f"found: {listed}"
        )
    return found


def _z(path: Path, frame: pd.DataFrame, found: Mapping[str, str]) -> np.ndarray:
    """Return z: effect over its error, else as given, else from p and the effect's sign."""
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = None
        if "beta" in frame:
            effect = frame["beta"].to_numpy()
        elif "odds_ratio" in frame:
            if (frame["odds_ratio"] < 0).any():
                raise InputError(
                    f"{path}: column '{found['odds_ratio']}' (odds_ratio) has negative values; if "
                    f"it holds log odds, give --columns 'beta={found['odds_ratio']}'"
                )
            effect = np.log(frame["odds_ratio"].to_numpy())
        z = np.full(len(frame), np.nan)
        if effect is not None and "standard_error" in frame:
            error = frame["standard_error"].to_numpy()
            z = np.where(error > 0, effect / error, np.nan)
        if "z" in frame:
            z = np.where(np.isfinite(z), z, frame["z"].to_numpy())
        if effect is not None and "neg_log_10_p_value" in frame:
            log_p = -frame["neg_log_10_p_value"].to_numpy() * np.log(10.0)
        elif effect is not None and "p_value" in frame:
            log_p = np.log(frame["p_value"].to_numpy())
        else:
            return z
        usable = np.isfinite(log_p) & (log_p <= 0)
        size = -ndtri_exp(np.where(usable, log_p, 0.0) - np.log(2.0))
        from_p = np.where(usable, np.sign(effect) * size, np.nan)
    return np.where(np.isfinite(z), z, from_p)


def _n(
    path: Path,
    frame: pd.DataFrame,
    n: float | None,
    n_cases: float | None,
    n_controls: float | None,
) -> np.ndarray:
    if n is not None:
        return np.full(len(frame), float(n))
    if (n_cases is None) != (n_controls is None):
        raise InputError("--n-cases and --n-controls belong together: give both, or --n")
    if n_cases is not None and n_controls is not None:
        return np.full(len(frame), 4.0 / (1.0 / n_cases + 1.0 / n_controls))
    if "n" in frame:
        return frame["n"].to_numpy()
    if "n_cases" in frame and "n_controls" in frame:
        with np.errstate(divide="ignore"):
            return 4.0 / (1.0 / frame["n_cases"].to_numpy() + 1.0 / frame["n_controls"].to_numpy())
    raise InputError(
        f"{path}: no sample size: there is no column n (nor n_cases and n_controls); give --n, or "
        "--n-cases and --n-controls"
    )


def _chromosome(name: str) -> str | None:
    """Return the normalised name, None for contigs that are no chromosome of the reference."""
    try:
        return normalise_chromosome(name.removesuffix(".0"))
    except InputError:
        return None
