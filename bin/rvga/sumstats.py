"""GWAS results of external traits as usable rows, and matching of variants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtri_exp

from rvga.chromosomes import normalise_chromosome
from rvga.errors import InputError
from rvga.sumstats_formats import Header, line_of, read_chunks, read_header

_COMPLEMENTS = ("AT", "TA", "CG", "GC")
# LD score regression's rule for variants that were tested in too few people.
_LEAST_SHARE_OF_N = 1 / 1.5
ROWS = 250_000
NOT_WANTED = "not_in_reference"
_KEPT = (
    "chromosome", "base_pair_location", "rsid", "effect_allele", "other_allele", "z", "n",
    "effect_allele_frequency",
)  # fmt: skip


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
    format : str
        The shape that was recognised, 'table' for one of no particular program.
    """

    table: pd.DataFrame
    n_read: int
    dropped: dict[str, int]
    columns: dict[str, str]
    format: str


def read_sumstats(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    n: float | None = None,
    n_cases: float | None = None,
    n_controls: float | None = None,
    wanted: Callable[[pd.DataFrame], np.ndarray] | None = None,
    rows: int = ROWS,
) -> Sumstats:
    """Read GWAS results of a trait: any shape of :mod:`rvga.sumstats_formats`, plain or gzip.

    Memory is that of one chunk and of the rows that are wanted.

    Parameters
    ----------
    path : Path
        Tab, comma or space separated, or GWAS-VCF.
    columns : mapping
        Role (a key of :data:`rvga.sumstats_formats.ALIASES`) → column name, where the names are
        unusual.
    n, n_cases, n_controls : float, optional
        Sample size; they have priority over the file's columns. For cases and controls the
        effective size is 4 / (1/cases + 1/controls); the file's cases and controls, where it has
        both, go before its n for the same reason.
    wanted : callable, optional
        Chunk → which of its rows are of use, (k,) bool; others are counted and not kept.
    rows : int
        Rows read at once; the result does not depend on it.

    Raises
    ------
    InputError
        The file is absent, empty or damaged, or alleles, an effect or the sample size cannot
        be found, a z is infinite, a p that is needed is 0, or no row can be used.
    """
    path = Path(path)
    header = read_header(path, dict(columns or {}))
    size = _SampleSize(path, header, n, n_cases, n_controls)
    n_read, dropped, kept = 0, Counter(), []
    for chunk in read_chunks(path, header, rows):
        n_read += len(chunk)
        usable = _usable(path, header, chunk, size, wanted, dropped)
        if len(usable):
            kept.append(usable)
    if n_read == 0:
        raise InputError(f"{path}: the table has a header but no row")
    if not kept:
        reasons = ", ".join(
            f"{number} {reason.replace('_', ' ')}" for reason, number in dropped.items() if number
        )
        raise InputError(f"{path}: none of its {n_read} rows can be used: {reasons}")
    table = pd.concat(kept, ignore_index=True)
    floor = _LEAST_SHARE_OF_N * float(np.quantile(table["n"], 0.9))
    few = (table["n"] < floor).to_numpy()
    dropped["sample size below two thirds of the 90th percentile"] = int(few.sum())
    table = table[~few].reset_index(drop=True)
    return Sumstats(table, n_read, dict(dropped), dict(header.columns), header.format)


def _usable(
    path: Path,
    header: Header,
    frame: pd.DataFrame,
    size: _SampleSize,
    wanted: Callable[[pd.DataFrame], np.ndarray] | None,
    dropped: Counter,
) -> pd.DataFrame:
    """Return the rows of a chunk that can be used, and count the others by reason."""

    def drop(condition: np.ndarray | pd.Series, reason: str) -> None:
        nonlocal frame
        condition = np.asarray(condition, dtype=bool)
        dropped[reason] += int(condition.sum())
        frame = frame[~condition]

    if "test" in frame:
        drop(~frame["test"].str.upper().isin(["ADD"]), "not a row of the additive test")
    if "chromosome" in frame:
        known = {name: _chromosome(name) for name in frame["chromosome"].dropna().unique()}
        frame = frame.assign(chromosome=frame["chromosome"].map(known).astype("object"))
    for name in ("effect_allele", "other_allele"):
        frame = frame.assign(**{name: frame[name].str.upper()})
    if wanted is not None:
        drop(~wanted(frame), NOT_WANTED)
    valid = frame["effect_allele"].str.fullmatch("[ACGT]+", na=False) & frame[
        "other_allele"
    ].str.fullmatch("[ACGT]+", na=False)
    drop(~valid | (frame["effect_allele"] == frame["other_allele"]), "alleles not valid")
    frame = frame.assign(z=_z(path, frame, header), n=size.of(frame))
    drop(~np.isfinite(frame["z"]), "no z statistic")
    drop(~(np.isfinite(frame["n"]) & (frame["n"] > 1)), "no sample size")
    drop(ambiguous(frame), "strand-ambiguous alleles")
    return frame[[name for name in _KEPT if name in frame]]


def ambiguous(frame: pd.DataFrame) -> np.ndarray:
    """Return which variants have alleles that are each other's complement (A/T, C/G), (m,)."""
    return (frame["effect_allele"] + frame["other_allele"]).isin(_COMPLEMENTS).to_numpy()


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


def _z(path: Path, frame: pd.DataFrame, header: Header) -> np.ndarray:
    """Return z: effect over its error, else as given, else from p and the effect's sign.

    NaN where none of them is there, or the error is not above 0.
    """
    z = np.full(len(frame), np.nan)
    effect = _effect(path, frame, header)
    with np.errstate(divide="ignore", invalid="ignore"):
        if effect is not None and "standard_error" in frame:
            error = frame["standard_error"].to_numpy()
            z = np.where(error > 0, effect / error, np.nan)
        if "z" in frame:
            z = np.where(np.isnan(z), frame["z"].to_numpy(), z)
    infinite = np.isinf(z)
    if infinite.any():
        at = int(np.argmax(infinite))
        raise InputError(
            f"{path}: line {line_of(header, frame.index[at])}: z is infinite "
            f"({int(infinite.sum())} such rows here); mend or remove these lines"
        )
    if effect is None:
        return z
    return np.where(np.isnan(z), _z_from_p(path, frame, header, effect, np.isnan(z)), z)


def _effect(path: Path, frame: pd.DataFrame, header: Header) -> np.ndarray | None:
    """Return the effect on the linear or log-odds scale, None without such a column."""
    beta = frame["beta"].to_numpy() if "beta" in frame else None
    if "odds_ratio" not in frame:
        return beta
    name = header.columns["odds_ratio"]
    odds = frame["odds_ratio"].to_numpy()
    if (odds < 0).any():
        raise InputError(
            f"{path}: column '{name}' (odds_ratio) has negative values; if "
            f"it holds log odds, give --columns 'beta={name}'"
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        log_odds = np.log(odds)
    # An odds ratio of 0 or infinity is a fit that did not converge.
    log_odds = np.where(np.isfinite(log_odds), log_odds, np.nan)
    if beta is None:
        return log_odds
    both = np.isfinite(beta) & np.isfinite(log_odds)
    apart = np.abs(beta - log_odds) > 0.01 + 0.02 * np.abs(beta)
    if both.any() and np.mean(apart[both]) > 0.01:
        at = frame.index[int(np.argmax(apart & both))]
        own = header.columns["beta"]
        raise InputError(
            f"{path}: columns '{own}' and '{name}' are two effects that disagree (line "
            f"{line_of(header, at)}); name the right one with --columns 'beta={own}' or "
            f"'odds_ratio={name}'"
        )
    return np.where(np.isfinite(beta), beta, log_odds)


def _z_from_p(
    path: Path, frame: pd.DataFrame, header: Header, effect: np.ndarray, needed: np.ndarray
) -> np.ndarray:
    """Return z of a two-sided p and the effect's sign; NaN without p."""
    if "neg_log_10_p_value" in frame:
        log_p = -frame["neg_log_10_p_value"].to_numpy() * np.log(10.0)
        wrong = needed & (log_p > 0)
        what = "a negative -log10 p"
    elif "p_value" in frame:
        p = frame["p_value"].to_numpy()
        zero = needed & (p == 0) & np.isfinite(effect)
        if zero.any():
            at = int(np.argmax(zero))
            raise InputError(
                f"{path}: line {line_of(header, frame.index[at])}: p is given as 0, from which no "
                f"z follows ({int(zero.sum())} such rows here); give standard errors, z or -log10 p"
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            log_p = np.log(p)
        wrong = needed & ((p < 0) | (p > 1))
        what = "a p outside 0 to 1"
    else:
        return np.full(len(frame), np.nan)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InputError(
            f"{path}: line {line_of(header, frame.index[at])}: {what}; is the right column used?"
        )
    usable = np.isfinite(log_p)
    size = -ndtri_exp(np.where(usable, log_p, 0.0) - np.log(2.0))
    return np.where(usable, np.sign(effect) * size, np.nan)


class _SampleSize:
    """Sample size of each row, from what was given and what the file has."""

    def __init__(self, path: Path, header: Header, n, n_cases, n_controls):
        if (n_cases is None) != (n_controls is None):
            raise InputError("--n-cases and --n-controls belong together: give both, or --n")
        if n is None and n_cases is None:
            n_cases, n_controls = header.n_cases, header.n_controls
        self._fixed = None if n is None else float(n)
        if self._fixed is None and n_cases is not None and n_controls is not None:
            self._fixed = 4.0 / (1.0 / n_cases + 1.0 / n_controls)
        self._path = path

    def of(self, frame: pd.DataFrame) -> np.ndarray:
        """Return n of each row, (k,)."""
        if self._fixed is not None:
            return np.full(len(frame), self._fixed)
        n = frame["n"].to_numpy() if "n" in frame else np.full(len(frame), np.nan)
        if {"n_cases", "n_controls"} <= set(frame):
            cases, controls = frame["n_cases"].to_numpy(), frame["n_controls"].to_numpy()
            with np.errstate(divide="ignore", invalid="ignore"):
                effective = 4.0 / (1.0 / cases + 1.0 / controls)
            return np.where((cases > 0) & (controls > 0), effective, n)
        if "n" not in frame:
            raise InputError(
                f"{self._path}: no sample size: there is no column n (nor n_cases and n_controls); "
                "give --n, or --n-cases and --n-controls"
            )
        return n


def _chromosome(name: str) -> str | None:
    """Return the normalised name, None for contigs that are no chromosome of the reference."""
    try:
        return normalise_chromosome(str(name).removesuffix(".0"))
    except InputError:
        return None
