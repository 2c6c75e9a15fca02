"""Filters of variants against slow sums, and PLINK 2."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from math import comb

import numpy as np
import pytest

from rvga import packed
from rvga.ploidy import DIPLOID, code, equilibrium_counts
from rvga.variant_filters import (
    ABOVE_MISSING,
    ALL_MISSING,
    BELOW_COUNT,
    BELOW_FREQUENCY,
    BELOW_HARDY_WEINBERG,
    BELOW_INFO,
    DROPPED,
    ESTIMATED,
    MISSING_ROWS,
    MONOMORPHIC,
    Filters,
    hardy_weinberg_p,
    mach_r2,
    screen,
)
from small_study import dosages_of, hard_calls, subject_names, write_pgen


def exact_p(zero: int, one: int, two: int) -> float:
    """Return the exact p by whole numbers."""
    people, rare = zero + one + two, 2 * two + one
    ways = {}
    for heterozygotes in range(rare % 2, rare + 1, 2):
        homozygotes = (rare - heterozygotes) // 2
        if heterozygotes + homozygotes <= people:
            ways[heterozygotes] = (
                comb(people, homozygotes)
                * comb(people - homozygotes, heterozygotes)
                * 2**heterozygotes
            )
    tail = sum(number for number in ways.values() if number <= ways[one])
    return float(Fraction(tail, sum(ways.values())))


def test_exact_test_of_equilibrium_is_exact():
    rng = np.random.default_rng(1)
    number = rng.multinomial(60, [0.5, 0.3, 0.2], size=60)
    number = np.vstack([number, [[0, 60, 0], [60, 0, 0], [0, 0, 60], [59, 1, 0], [59, 0, 1],
                                 [1, 58, 1], [30, 0, 30], [0, 1, 0], [0, 0, 0]]])  # fmt: skip
    expected = [exact_p(*map(int, row)) if row.sum() else 1.0 for row in number]
    np.testing.assert_allclose(hardy_weinberg_p(number), expected, rtol=1e-9)


def test_exact_test_of_many_people():
    number = np.array([[1200, 1500, 300], [1500, 900, 600], [40_000, 9_000, 1_000], [9, 1000, 9]])
    expected = [exact_p(*map(int, row)) for row in number]
    np.testing.assert_allclose(hardy_weinberg_p(number), expected, rtol=1e-8)
    # Beyond the smallest number that can be written, p is 0 and not an error.
    assert hardy_weinberg_p(np.array([[250_000, 0, 250_000]]))[0] == 0
    half = hardy_weinberg_p(np.array([[125_000, 250_000, 125_000]]))[0]
    assert half == pytest.approx(1)


def screened(filters, **changes):
    given = {
        "called": np.array([100]),
        "variation": np.array([40.0]),
        "alleles": np.array([60.0]),
        "chromosomes": np.array([200.0]),
        "missing_rate": np.array([0.02]),
        "info": np.array([0.9]),
        "hardy_weinberg": np.array([1e-3]),
    }
    given.update({name: np.array([value]) for name, value in changes.items()})
    return int(screen(filters, **given)[0])


@pytest.mark.parametrize(
    ("filters", "changes", "status"),
    [
        (Filters(), {}, ESTIMATED),
        (Filters(minor_allele_frequency=0.3, minor_allele_count=60), {}, ESTIMATED),
        (Filters(minor_allele_frequency=0.31), {}, BELOW_FREQUENCY),
        (Filters(minor_allele_frequency=0.31), {"alleles": 140.0}, BELOW_FREQUENCY),
        (Filters(minor_allele_count=61), {}, BELOW_COUNT),
        (Filters(minor_allele_count=61), {"alleles": 140.0}, BELOW_COUNT),
        (Filters(maximum_missing_rate=0.02), {}, ESTIMATED),
        (Filters(maximum_missing_rate=0.01), {}, ABOVE_MISSING),
        (Filters(minimum_info=0.9), {}, ESTIMATED),
        (Filters(minimum_info=0.91), {}, BELOW_INFO),
        (Filters(minimum_info=0.91), {"info": np.nan}, ESTIMATED),
        (Filters(hardy_weinberg_p=1e-3), {}, ESTIMATED),
        (Filters(hardy_weinberg_p=2e-3), {}, BELOW_HARDY_WEINBERG),
        (Filters(hardy_weinberg_p=2e-3), {"hardy_weinberg": np.nan}, ESTIMATED),
        # Nobody's genotype shows in a variant that does not vary: it keeps a row.
        (Filters(0.5, 1e9, 1, 0, 1), {"variation": 0.0, "alleles": 0.0}, MONOMORPHIC),
        (Filters(0.5, 1e9, 1, 0, 1), {"called": 0, "variation": 0.0}, ALL_MISSING),
        # The first reason of several.
        (Filters(0.5, 1e9, 1, 0, 1), {}, BELOW_COUNT - 1),
        (Filters(0.5, 1e9, 1, 1, 1), {}, BELOW_COUNT),
        (Filters(0.5, 0, 1, 1, 1), {}, BELOW_FREQUENCY),
        (Filters(0, 0, 1, 1, 1), {}, BELOW_INFO),
    ],
)
def test_reasons(filters, changes, status):
    assert screened(filters, **changes) == status


@pytest.mark.parametrize("count", [5, 20, 21, 50, 400])
def test_rare_calls_of_the_least_count_keep_the_share(count):
    """Whatever the homozygous among them, from 20 alleles on; heterozygous ones from 5 on."""
    n = 20_000
    for homozygous in range(count // 2 + 1 if count >= 20 else 1):
        g = np.repeat([2.0, 1, 0], [homozygous, count - 2 * homozygous, n - count + homozygous])
        away = np.square(g - g.mean())
        share = away.max() / away.sum()
        assert share <= Filters(minor_allele_count=count).largest_share
    # One person's dosage among noise does not, and is looked at.
    away = np.square(np.where(np.arange(n) == 0, 1, 0.5 * count / n) - 0.5 * count / n)
    filters = Filters(minor_allele_count=count)
    assert away.max() / away.sum() > filters.largest_share
    assert filters.may_have_few_carriers(away.sum())


def test_without_a_count_nobody_has_too_large_a_share():
    assert Filters().largest_share == 1


def test_every_reason_has_a_name():
    assert sorted([ESTIMATED, *DROPPED, *MISSING_ROWS]) == list(range(12))


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not on PATH")
def test_plink_agrees(tmp_path):
    m, n = 50, 400
    calls = hard_calls(m, n, seed=1, missing=0.03)
    rng = np.random.default_rng(2)
    # Too few heterozygotes in half of the variants.
    lost = (calls == 1) & (rng.random(calls.shape) < 0.3) & (np.arange(m) % 2 == 0)[:, None]
    calls[lost] = 2
    dosages = dosages_of(calls, seed=3)
    write_pgen(tmp_path / "c", calls, subject_names(n))
    write_pgen(tmp_path / "d", dosages, subject_names(n))
    for words in (["--pfile", "c", "--hardy"], ["--pfile", "d", "--freq", "cols=+machr2"]):
        subprocess.run(
            ["plink2", *words, "--out", "o", "--threads", "1"],
            cwd=tmp_path, check=True, capture_output=True,
        )  # fmt: skip
    p = column(tmp_path / "o.hardy", "P")
    ours = hardy_weinberg_p(equilibrium_counts(packed.pack(calls), DIPLOID))
    np.testing.assert_allclose(ours, p, rtol=1e-5)
    assert p.min() < 1e-4
    counted = code(packed.pack(dosages), DIPLOID)
    called, total, squares = (
        counted.people.called, counted.people.total, counted.people.squares
    )  # fmt: skip
    r2 = mach_r2(
        called,
        squares - total**2 / called,
        counted.alleles / counted.chromosomes,
        counted.expected_factor,
    )
    np.testing.assert_allclose(r2, column(tmp_path / "o.afreq", "MACH_R2"), rtol=1e-4)


def column(path, name):
    lines = [line.split() for line in path.read_text().splitlines()]
    at = lines[0].index(name)
    return np.array([float(words[at]) for words in lines[1:]])
