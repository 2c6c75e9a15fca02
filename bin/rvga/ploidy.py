"""Genotypes of the sex chromosomes: what is made missing, and how alleles are counted.

Dosages are on the scale 0 to 2 for everybody, so that a man's single copy on X outside the
pseudo-autosomal regions, on Y or on MT counts 0 or 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rvga.packed import (
    Counts,
    Packed,
    call_counts,
    clear_people,
    clear_single_copies,
    counts,
    mask_of,
)

DIPLOID, X, Y, MT = range(4)
MALE, FEMALE, UNKNOWN = 1, 2, 0


@dataclass(frozen=True)
class Sexes:
    """Masks of the people of a block by sex.

    Attributes
    ----------
    sex : (n,) int8
        1 male, 2 female, 0 unknown.
    males, females, others, not_males : (words,) uint32
        From :func:`rvga.packed.mask_of`; ``others`` are of unknown sex.
    """

    sex: np.ndarray
    males: np.ndarray
    females: np.ndarray
    others: np.ndarray
    not_males: np.ndarray

    @classmethod
    def of(cls, sex: np.ndarray) -> Sexes:
        """Return the masks of people in this order."""
        sex = np.asarray(sex)
        parts = (sex == MALE, sex == FEMALE, (sex != MALE) & (sex != FEMALE), sex != MALE)
        return cls(sex, *(mask_of(part) for part in parts))


@dataclass(frozen=True)
class Alleles:
    """Counts of a block of m variants.

    Attributes
    ----------
    people : Counts
        Sums over people.
    alleles, chromosomes : (m,) float64
        Effect alleles and the chromosomes that may carry them; a single copy counts once.
    expected_factor : (m,) float64
        Mean variance of a genotype in equilibrium over p(1 - p).
    missing_rate : (m,) float64
        Share without a genotype, of those who may have one (on Y: men).
    haploid_heterozygotes : (m,) int64
        Genotypes made missing because they show two alleles where there is one.
    """

    people: Counts
    alleles: np.ndarray
    chromosomes: np.ndarray
    expected_factor: np.ndarray
    missing_rate: np.ndarray
    haploid_heterozygotes: np.ndarray


def code(block: Packed, kind: int, sexes: Sexes | None = None) -> Alleles:
    """Make impossible genotypes of a block missing, in place, and count alleles.

    Parameters
    ----------
    kind : int
        ``DIPLOID`` (also X inside the pseudo-autosomal regions), ``X``, ``Y`` or ``MT``.
    sexes : Sexes
        Needed for X and Y. On X people of unknown sex, on Y all but men get no genotype.
    """
    m = len(block)
    crossed = np.zeros(m, dtype=np.int64)
    if kind in (X, Y):
        if sexes is None:
            raise ValueError("X and Y need the people's sexes")
        clear_people(block, sexes.others if kind == X else sexes.not_males)
        clear_single_copies(block, sexes.males, crossed)
        people = counts(block)
    else:
        people = block.counts if block.counts is not None else counts(block)
    n = block.n if kind != Y else int(np.sum(sexes.sex == MALE))
    called = people.called.astype(np.float64)
    if kind == DIPLOID:
        alleles, chromosomes, single = people.total, 2 * called, np.zeros(m)
    elif kind == X:
        men = counts(block, sexes.males)
        single = men.called.astype(np.float64)
        alleles, chromosomes = people.total - men.total / 2, 2 * called - single
    else:
        alleles, chromosomes, single = people.total / 2, called, called
    with np.errstate(invalid="ignore", divide="ignore"):
        # On the scale 0 to 2 a single copy has variance 4 p(1 - p), two copies 2 p(1 - p).
        factor = 2 + 2 * single / called
    missing_rate = 1 - called / n if n else np.ones(m)
    return Alleles(people, alleles, chromosomes, factor, missing_rate, crossed)


def equilibrium_counts(block: Packed, kind: int, sexes: Sexes | None = None) -> np.ndarray | None:
    """Return the people with 0, 1 and 2 copies, (m, 3), for a test of equilibrium.

    On X outside the pseudo-autosomal regions women only; None on Y and MT, where there is none.
    """
    if kind in (Y, MT):
        return None
    return call_counts(block, sexes.females if kind == X else None)[:, :3]
