"""Genotypes of X, Y and MT: who may have which, and how alleles are counted."""

from __future__ import annotations

import numpy as np
import pytest

from rvga import packed
from rvga.ploidy import DIPLOID, MT, Sexes, X, Y, code, equilibrium_counts

#        man man man man woman woman woman unknown
SEX = np.array([1, 1, 1, 1, 2, 2, 2, 0])
CALLS = np.array([[0, 2, 1, -9, 0, 1, 2, 2]], dtype=np.int8)


@pytest.fixture(params=[np.int8, np.float32])
def block(request):
    return packed.pack(CALLS.astype(request.param))


def test_two_copies(block):
    found = code(block, DIPLOID)
    assert found.alleles == 8
    assert found.chromosomes == 14
    assert found.missing_rate == pytest.approx(1 / 8)
    assert found.expected_factor == 2
    assert equilibrium_counts(block, DIPLOID).tolist() == [[2, 2, 3]]


def test_x_counts_men_once(block):
    found = code(block, X, Sexes.of(SEX))
    known = [0, 2, np.nan, np.nan, 0, 1, 2, np.nan]
    np.testing.assert_array_equal(block.dosage(0), known)
    assert found.haploid_heterozygotes == 1
    # Men 0 and 1 of one copy, women 0, 1 and 2 of two.
    assert found.alleles == 1 + 3
    assert found.chromosomes == 2 + 6
    assert found.missing_rate == pytest.approx(3 / 8)
    # Two men of variance 4 p q, three women of 2 p q.
    assert found.expected_factor == pytest.approx((2 * 4 + 3 * 2) / 5)
    assert equilibrium_counts(block, X, Sexes.of(SEX)).tolist() == [[1, 1, 1]]


def test_y_is_of_men(block):
    found = code(block, Y, Sexes.of(SEX))
    np.testing.assert_array_equal(block.dosage(0), [0, 2, *[np.nan] * 6])
    assert found.haploid_heterozygotes == 1
    assert (found.alleles, found.chromosomes) == (1, 2)
    assert found.missing_rate == pytest.approx(2 / 4)
    assert equilibrium_counts(block, Y, Sexes.of(SEX)) is None


def test_mt_has_one_copy(block):
    found = code(block, MT)
    assert (found.alleles, found.chromosomes) == (4, 7)
    assert found.expected_factor == 4
    assert equilibrium_counts(block, MT) is None


def test_sexes_are_needed(block):
    with pytest.raises(ValueError, match="sexes"):
        code(block, X)
