"""Which rows of a trait's GWAS are the variants of an LD reference: place, alleles, build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rvga.chromosomes import RANK
from rvga.errors import InputError
from rvga.liftover import Chain
from rvga.sumstats import match_variants

# Fewest variants that a statement about the genome build or the alleles rests on.
_ENOUGH = 50
# A build that has less than this share of what either build has is there by chance.
_MIXED_SHARE = 0.1
# Shares of a chromosome's reference variants at whose place there is a row: plainly of the
# build, plainly not (some are hit by chance).
_OF_THE_BUILD, _NOT_OF_THE_BUILD = 0.2, 0.02
# Correlation of frequencies: below the first alleles are swapped, below the second it is odd.
_SWAPPED, _ODD = -0.2, 0.5
_FREQUENCY_GAP, _FREQUENCY_SHARE = 0.2, 0.05
# Share of effects of one sign that is odd, unless alleles were turned to make it so.
_ONE_SIGN = 0.95
_COMPLEMENT = str.maketrans("ACGT", "TGCA")
# Counts of rows that are matched.
_OF_MATCHED, _MATCHED_BY = ("alleles_swapped", "strand_flipped"), "matched_by_"


@dataclass(frozen=True)
class TraitMatch:
    """Where the reference's variants are in a trait's table.

    Attributes
    ----------
    row : (m,) int64
        Row of the table, -1 where absent.
    sign : (m,) float64
        -1 where effect and other allele are swapped.
    build : str
        'study' (positions used as they are), 'lifted', 'rsid' (positions of another build), or
        'none' (no positions, matched by rsid).
    counts : dict
        Numbers by reason.
    """

    row: np.ndarray
    sign: np.ndarray
    build: str
    counts: dict[str, int]


class WantedRows:
    """Says of each chunk of a trait's file which rows can be variants of the reference.

    Rows at a place of the reference (as given, or lifted) or with one of its ids.

    Attributes
    ----------
    variants_by_chromosome : dict of str to int
        Variants of the reference.
    rows_by_chromosome, hits_by_chromosome : dict of str to int
        Rows within the reference's bounds on a chromosome, and those at one of its places.
    """

    def __init__(self, reference: pd.DataFrame, chain: Chain | None):
        self._chain = chain
        self._place = np.unique(_place(reference["chromosome"], reference["base_pair_location"]))
        self._ids = pd.Index(reference["variant_id"].dropna().unique())
        bounds = reference.groupby("chromosome")["base_pair_location"].agg(["min", "max"])
        self._bounds = {name: (low, high) for name, low, high in bounds.itertuples()}
        self.variants_by_chromosome = reference["chromosome"].value_counts().to_dict()
        self.rows_by_chromosome: dict[str, int] = {}
        self.hits_by_chromosome: dict[str, int] = {}

    def __call__(self, chunk: pd.DataFrame) -> np.ndarray:
        """Return (k,) bool and count rows by chromosome."""
        wanted = np.zeros(len(chunk), dtype=bool)
        if {"chromosome", "base_pair_location"} <= set(chunk):
            name, position = chunk["chromosome"], chunk["base_pair_location"]
            hit = np.isin(_place(name, position), self._place)
            self._count(name.to_numpy(), position.to_numpy(), hit)
            wanted |= hit
            if self._chain is not None:
                name, position, _ = self._chain.lift(name.to_numpy(), position.to_numpy())
                wanted |= np.isin(_place(name, position), self._place)
        if "rsid" in chunk:
            wanted |= chunk["rsid"].isin(self._ids).to_numpy()
        return wanted

    def _count(self, chromosome: np.ndarray, position: np.ndarray, hit: np.ndarray) -> None:
        for name, (low, high) in self._bounds.items():
            here = (chromosome == name) & (position >= low) & (position <= high)
            rows, hits = self.rows_by_chromosome, self.hits_by_chromosome
            rows[name] = rows.get(name, 0) + int(here.sum())
            hits[name] = hits.get(name, 0) + int((here & hit).sum())


def match_trait(
    reference: pd.DataFrame, table: pd.DataFrame, name: str, chain: Chain | None, wanted: WantedRows
) -> TraitMatch:
    """Find each reference variant in a trait's table (by place, or rsid) and its sign.

    The genome build is told by overlap: of positions as they are, of lifted positions, and of
    positions of variants with a known rsid. Alleles may be swapped or of the other strand.

    Parameters
    ----------
    reference : DataFrame
        ``chromosome``, ``base_pair_location``, ``variant_id``, ``effect_allele``,
        ``other_allele``.
    table : DataFrame
        As of :func:`rvga.sumstats.read_sumstats`.
    name : str
        Name of the file, for messages.
    chain : Chain, optional
        From the trait's build to the study's.
    wanted : WantedRows
        After the file was read.

    Raises
    ------
    InputError
        The file's positions are of more than one genome build.
    """
    place = {"chromosome", "base_pair_location"} <= set(table)
    by_id = _match(reference, table, "rsid") if "rsid" in table else None
    as_is = _match(reference, table, "position") if place else None
    lifted = None
    if place and chain is not None:
        moved = lift_table(table, chain)
        lifted = _match(reference, moved, "position")
    if place:
        _refuse_mixture(name, table, reference, as_is, lifted, by_id, wanted)
    build, first = "study", as_is
    if lifted is not None and _hits(lifted) > _hits(as_is):
        build, first = "lifted", lifted
    elif as_is is None or _positions_disagree(reference, table, by_id):
        build, first = "rsid" if place else "none", None
    ways = [("position", first), ("rsid", by_id)]
    return _combine(reference, table, build, [way for way in ways if way[1] is not None])


def lift_table(table: pd.DataFrame, chain: Chain) -> pd.DataFrame:
    """Return the table on the other build; rows without one place there have none."""
    name, position, reverse = chain.lift(
        table["chromosome"].to_numpy(), table["base_pair_location"].to_numpy()
    )
    moved = table.assign(chromosome=name, base_pair_location=position)
    single = (table["effect_allele"].str.len() == 1) & (table["other_allele"].str.len() == 1)
    # An insertion's position on the other strand is not that of its first base.
    moved.loc[reverse & ~single.to_numpy(), ["chromosome", "base_pair_location"]] = [None, np.nan]
    for column in ("effect_allele", "other_allele"):
        turned = [text.translate(_COMPLEMENT) for text in moved[column][reverse]]
        moved.loc[reverse, column] = turned
    return moved


def check_frequencies(
    reference: pd.DataFrame, table: pd.DataFrame, match: TraitMatch, name: str
) -> tuple[dict[str, float], list[str]]:
    """Compare effect-allele frequencies with the reference's.

    Returns
    -------
    numbers : dict
        ``frequency_correlation`` and ``n_frequencies``, where they can be had.
    warnings : list of str

    Raises
    ------
    InputError
        They run the other way: effect and other allele are swapped throughout.
    """
    if "effect_allele_frequency" not in table:
        return {}, []
    hit = np.flatnonzero(match.row >= 0)
    given = pd.to_numeric(table["effect_allele_frequency"]).to_numpy()[match.row[hit]]
    theirs = np.where(match.sign[hit] < 0, 1 - given, given)
    ours = reference["effect_allele_frequency"].to_numpy()[hit]
    known = np.isfinite(theirs) & np.isfinite(ours)
    given, theirs, ours = given[known], theirs[known], ours[known]
    if len(ours) < _ENOUGH:
        return {"n_frequencies": len(ours)}, []
    warnings = []
    gap = float(np.mean(np.abs(theirs - ours) > _FREQUENCY_GAP))
    correlation = np.nan
    if theirs.std() > 1e-6 and ours.std() > 1e-6:
        correlation = float(np.corrcoef(theirs, ours)[0, 1])
    if correlation < _SWAPPED:
        raise InputError(
            f"{name}: effect-allele frequencies run against those of the LD reference (correlation "
            f"{correlation:.2f} over {len(ours)} variants): effect and other allele are swapped; "
            "exchange them with --columns 'effect_allele=<column>,other_allele=<column>'"
        )
    if gap > _FREQUENCY_SHARE or correlation < _ODD:
        hint = "is the ancestry the same"
        if given.max() <= 0.5:
            hint = "are the frequencies not of the minor allele, whichever it is"
        warnings.append(
            f"effect-allele frequencies of {name} differ by more than {_FREQUENCY_GAP} from those "
            f"of the LD reference for {gap:.0%} of the variants (correlation {correlation:.2f}): "
            f"is the effect allele the right column, and {hint}?"
        )
    numbers: dict[str, float] = {"n_frequencies": len(ours)}
    if np.isfinite(correlation):
        numbers["frequency_correlation"] = correlation
    return numbers, warnings


def check_signs(table: pd.DataFrame, match: TraitMatch, name: str) -> list[str]:
    """Return a warning where nearly all effects of the matched rows have one sign.

    z without sign, or odds ratios as log odds, look like that; so do effects of the allele that
    raises the trait, which are right.
    """
    z = table["z"].to_numpy()[match.row[match.row >= 0]]
    z = z[np.isfinite(z) & (z != 0)]
    if len(z) < _ENOUGH:
        return []
    positive = float(np.mean(z > 0))
    if max(positive, 1 - positive) < _ONE_SIGN:
        return []
    return [
        f"{max(positive, 1 - positive):.0%} of the effects of {name} are "
        f"{'above' if positive > 0.5 else 'below'} 0: are they without sign, or odds ratios in a "
        "column of log odds? (They are right where the effect allele was chosen by the effect)"
    ]


def drop_summary(counts: Mapping[str, int], number: int = 3) -> str:
    """Return the most frequent reasons for which rows were not used, as text.

    Counts of rows that are used (how they matched, and on which strand) are no reasons.
    """
    dropped = {
        reason: n
        for reason, n in counts.items()
        if n and reason not in _OF_MATCHED and not reason.startswith(_MATCHED_BY)
    }
    largest = sorted(((n, reason) for reason, n in dropped.items()), reverse=True)[:number]
    return ", ".join(f"{n} {reason.replace('_', ' ')}" for n, reason in largest)


@dataclass(frozen=True)
class _Found:
    """Matches of one way, and which rows of the table (k,) are a variant that is in it twice."""

    row: np.ndarray
    sign: np.ndarray
    repeated: np.ndarray
    strand_flipped: np.ndarray


def _match(reference: pd.DataFrame, table: pd.DataFrame, by: str) -> _Found:
    """Match by place or id and both alleles, then what is left by the other strand's alleles."""
    row, sign, _ = match_variants(reference, table, by=by)
    left = row < 0
    flipped = table.assign(
        effect_allele=[text.translate(_COMPLEMENT) for text in table["effect_allele"]],
        other_allele=[text.translate(_COMPLEMENT) for text in table["other_allele"]],
    )
    # The complement of an insertion would be read backwards: single letters only.
    single = (table["effect_allele"].str.len() == 1) & (table["other_allele"].str.len() == 1)
    single &= ~table.index.isin(row[row >= 0])
    other_row, other_sign, _ = match_variants(reference[left], flipped[single], by=by)
    at = np.flatnonzero(left)[other_row >= 0]
    row[at] = np.flatnonzero(single)[other_row[other_row >= 0]]
    sign[at] = other_sign[other_row >= 0]
    turned = np.zeros(len(reference), dtype=bool)
    turned[at] = True
    return _Found(row, sign, _repeated(table, by), turned)


def _repeated(table: pd.DataFrame, by: str) -> np.ndarray:
    """Return which rows (k,) have the place, or the id, and both alleles of another row."""
    effect, other = table["effect_allele"], table["other_allele"]
    first = effect.where(effect <= other, other)
    key = {"first": first, "second": other.where(effect <= other, effect)}
    for name in ("rsid",) if by == "rsid" else ("chromosome", "base_pair_location"):
        key[name] = table[name]
    key = pd.DataFrame(key)
    return (key.duplicated(keep=False) & key.notna().all(axis=1)).to_numpy()


def _hits(found: _Found) -> int:
    return int((found.row >= 0).sum())


def _agreement(
    reference: pd.DataFrame, table: pd.DataFrame, by_id: _Found | None
) -> np.ndarray | None:
    """Return, for variants found by rsid, whether the positions agree; None when too few."""
    if by_id is None:
        return None
    hit = np.flatnonzero(by_id.row >= 0)
    rows = table.iloc[by_id.row[hit]]
    known = rows["base_pair_location"].notna().to_numpy()
    if known.sum() < _ENOUGH:
        return None
    same = (
        rows["base_pair_location"].to_numpy() == (reference["base_pair_location"].to_numpy()[hit])
    )
    return same[known]


def _positions_disagree(reference, table, by_id: _Found | None) -> bool:
    same = _agreement(reference, table, by_id)
    return same is not None and float(same.mean()) < _MIXED_SHARE


def _refuse_mixture(name, table, reference, as_is, lifted, by_id, wanted: WantedRows) -> None:
    """Refuse a file some of whose positions are of another build."""
    if lifted is not None:
        one, other = np.zeros((2, len(table)), dtype=bool)
        one[as_is.row[as_is.row >= 0]] = True
        other[lifted.row[lifted.row >= 0]] = True
        only = int((one & ~other).sum()), int((other & ~one).sum())
        if sum(only) >= _ENOUGH and min(only) >= _MIXED_SHARE * sum(only):
            raise InputError(
                f"{name}: positions are of two genome builds: {only[0]} variants are found as they "
                f"are and {only[1]} others only after lifting; bring the file to one build"
            )
        return
    same = _agreement(reference, table, by_id)
    if same is not None and _MIXED_SHARE <= same.mean() <= 1 - _MIXED_SHARE:
        raise InputError(
            f"{name}: positions are of two genome builds: {int(same.sum())} of {len(same)} "
            "variants with a known rsid are where the LD reference has them, the others elsewhere; "
            "bring the file to one build"
        )
    share = {
        chromosome: wanted.hits_by_chromosome[chromosome] / number
        for chromosome, number in wanted.variants_by_chromosome.items()
        if number >= 4 * _ENOUGH and wanted.rows_by_chromosome.get(chromosome, 0) >= number / 2
    }
    if share and max(share.values()) > _OF_THE_BUILD and min(share.values()) < _NOT_OF_THE_BUILD:
        best, worst = max(share, key=share.get), min(share, key=share.get)
        raise InputError(
            f"{name}: positions are of two genome builds: on chromosome {best} it has rows where "
            f"{share[best]:.0%} of the LD reference's variants are, on chromosome {worst} "
            f"{share[worst]:.0%}; bring the file to one build"
        )


def _combine(reference, table, build: str, ways: list[tuple[str, _Found]]) -> TraitMatch:
    """Take matches by place first, then by rsid; a row of the table is used once.

    A variant that is there twice by place is not taken by an id that one of its rows has.
    Every row is matched, repeated or of other alleles.
    """
    m = len(reference)
    row, sign = np.full(m, -1, dtype=np.int64), np.ones(m)
    repeated, flipped = np.zeros(len(table), dtype=bool), 0
    counts = {"repeated": 0, "strand_flipped": 0}
    for way, found in ways:
        new = (row < 0) & (found.row >= 0) & ~np.isin(found.row, row[row >= 0])
        new[new] = ~repeated[found.row[new]]
        row[new], sign[new] = found.row[new], found.sign[new]
        repeated |= found.repeated
        flipped += int((found.strand_flipped & new).sum())
        counts[f"{_MATCHED_BY}{way}"] = int(new.sum())
    hit = row >= 0
    repeated[row[hit]] = False
    counts |= {"repeated": int(repeated.sum()), "strand_flipped": flipped}
    counts["other_alleles"] = len(table) - int(hit.sum()) - counts["repeated"]
    counts["alleles_swapped"] = int((sign[hit] < 0).sum())
    return TraitMatch(row, sign, build, counts)


def _place(chromosome, position) -> np.ndarray:
    """Return chromosome and position as one number, -1 where one is missing."""
    rank = pd.Series(np.asarray(chromosome, dtype=object)).map(RANK).to_numpy(dtype=float)
    position = np.asarray(position, dtype=float)
    known = np.isfinite(rank) & np.isfinite(position)
    return np.where(known, np.nan_to_num(rank) * (1 << 32) + np.nan_to_num(position), -1.0).astype(
        np.int64
    )
