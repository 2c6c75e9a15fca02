"""From significant variants to loci: clumping, merging, novelty (method 4); arrays in, arrays out.

Variants are in genome order throughout: ascending chromosome rank, then position.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LD = Callable[[int, np.ndarray], np.ndarray]
_VALUES = 1 << 24  # dosages copied at a time


@dataclass(frozen=True)
class Clumps:
    """Clumps of variants, in genome order of their index variants.

    Attributes
    ----------
    index : (k,) int
        Index (lead) variant of each clump.
    member_of : (s,) int
        Clump of each variant.
    size : (k,) int
        Variants in each clump, the index included.
    start, end : (k,) int
        First and last position of the members.
    """

    index: np.ndarray
    member_of: np.ndarray
    size: np.ndarray
    start: np.ndarray
    end: np.ndarray


@dataclass(frozen=True)
class Loci:
    """Merged clumps in genome order: bounds (inclusive) and the locus of each clump."""

    chromosome: np.ndarray
    start: np.ndarray
    end: np.ndarray
    locus_of_clump: np.ndarray


def standardised(dosages: np.ndarray) -> np.ndarray:
    """Return rows with mean 0 and norm 1, missing values at the mean (so 0).

    Parameters
    ----------
    dosages : (k, n)
        NaN is missing. A row without variation becomes NaN throughout: its LD is unknown.

    Returns
    -------
    (k, n) float32 array
    """
    values = np.asarray(dosages, dtype=np.float64)
    known = np.isfinite(values)
    number = np.maximum(known.sum(axis=1, keepdims=True), 1)
    mean = np.where(known, values, 0.0).sum(axis=1, keepdims=True) / number
    centred = np.where(known, values - mean, 0.0)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    norm[norm < 1e-6] = np.nan
    return (centred / norm).astype(np.float32)


def ld_of_standardised(rows: np.ndarray, row_of: np.ndarray) -> LD:
    """Return the function r²(i, others) of variants whose standardised dosages are given.

    Parameters
    ----------
    rows : (k, n)
        From :func:`standardised`; a memory map will do.
    row_of : (s,) int
        Row of each variant, −1 where there is none; r² is then NaN.
    """

    def r_squared(one: int, others: np.ndarray) -> np.ndarray:
        result = np.full(len(others), np.nan)
        if row_of[one] < 0:
            return result
        lead = np.asarray(rows[row_of[one]])
        known = np.flatnonzero(row_of[others] >= 0)
        size = max(_VALUES // len(lead), 1)
        for first in range(0, len(known), size):
            part = known[first : first + size]
            result[part] = np.square(
                (np.asarray(rows[row_of[others[part]]]) @ lead).astype(np.float64)
            )
        return result

    return r_squared


def priority(neg_log_10_p: np.ndarray, abs_z: np.ndarray) -> np.ndarray:
    """Return variants by descending −log10 p, then descending |z|, then genome order."""
    return np.lexsort((np.arange(len(abs_z)), -np.asarray(abs_z), -np.asarray(neg_log_10_p)))


def leaders(
    chromosome: np.ndarray,
    position: np.ndarray,
    order: np.ndarray,
    r_squared: LD | None,
    *,
    clump_r2: float,
    clump_kb: float,
) -> np.ndarray:
    """Clump variants greedily by LD, as PLINK does; return the index variant of each one's clump.

    In the order given, each variant that is not in a clump yet starts one and takes in every
    such variant within ``clump_kb`` kilobases with r² ≥ ``clump_r2``. Where r² is unknown (no
    genotypes, or NaN for the pair), distance alone decides. Chromosomes do not touch each other:
    the clumps of one are the same whether others are there or not.

    Parameters
    ----------
    chromosome, position : (s,) int
        In genome order.
    order : (s,) int
        From :func:`priority`.
    r_squared : callable or None
        ``r_squared(i, others)``; None clumps by distance only.
    clump_r2 : float
        In [0, 1].
    clump_kb : float
        Window on either side of the index variant.

    Returns
    -------
    (s,) int64
        For :func:`clumps_of`.
    """
    leader = np.full(len(position), -1, dtype=np.int64)
    window = round(clump_kb * 1000)
    edges = {
        value: (
            np.searchsorted(chromosome, value, "left"),
            np.searchsorted(chromosome, value, "right"),
        )
        for value in np.unique(chromosome)
    }
    for one in order:
        if leader[one] >= 0:
            continue
        low, high = edges[chromosome[one]]
        near = position[low:high]
        first = low + np.searchsorted(near, position[one] - window, "left")
        stop = low + np.searchsorted(near, position[one] + window, "right")
        others = first + np.flatnonzero(leader[first:stop] < 0)
        leader[one] = one
        others = others[others != one]
        if r_squared is not None and len(others):
            r2 = r_squared(int(one), others)
            others = others[np.isnan(r2) | (r2 >= clump_r2)]
        leader[others] = one
    return leader


def clumps_of(leader: np.ndarray, position: np.ndarray) -> Clumps:
    """Return the clumps that each variant's index variant (s,) makes."""
    index, member_of = np.unique(leader, return_inverse=True)
    start = np.full(len(index), np.iinfo(np.int64).max)
    end = np.zeros(len(index), dtype=np.int64)
    np.minimum.at(start, member_of, position)
    np.maximum.at(end, member_of, position)
    return Clumps(index, member_of, np.bincount(member_of, minlength=len(index)), start, end)


def merge_clumps(chromosome: np.ndarray, clumps: Clumps) -> Loci:
    """Merge clumps whose intervals (first to last member) overlap to loci.

    Parameters
    ----------
    chromosome : (s,) int
        Of the variants that were clumped.
    clumps : Clumps
    """
    of_clump = chromosome[clumps.index]
    locus_of = np.zeros(len(clumps.index), dtype=np.int64)
    bounds: list[list[int]] = []
    for k in np.lexsort((clumps.end, clumps.start, of_clump)):
        where = [int(of_clump[k]), int(clumps.start[k]), int(clumps.end[k])]
        if bounds and bounds[-1][0] == where[0] and where[1] <= bounds[-1][2]:
            bounds[-1][2] = max(bounds[-1][2], where[2])
        else:
            bounds.append(where)
        locus_of[k] = len(bounds) - 1
    table = np.array(bounds, dtype=np.int64).reshape(-1, 3)
    return Loci(table[:, 0], table[:, 1], table[:, 2], locus_of)


def inside(
    loci: Loci, known_chromosome: np.ndarray, known_position: np.ndarray
) -> list[np.ndarray]:
    """Return, by locus, the sorted positions of known associations within its bounds."""
    return [
        np.unique(
            known_position[
                (known_chromosome == chromosome)
                & (known_position >= start)
                & (known_position <= end)
            ]
        )
        for chromosome, start, end in zip(loci.chromosome, loci.start, loci.end, strict=True)
    ]
