"""One spelling of chromosomes."""

from __future__ import annotations

import pytest

from rvga.chromosomes import CHROMOSOMES, RANK, normalise_chromosome
from rvga.errors import InputError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, name) for name in CHROMOSOMES),
        ("chr1", "1"),
        ("CHR22", "22"),
        ("01", "1"),
        ("chr09", "9"),
        (7, "7"),
        (23, "X"),
        ("chrX", "X"),
        ("x", "X"),
        ("24", "Y"),
        ("25", "X"),
        ("XY", "X"),
        ("PAR1", "X"),
        ("26", "MT"),
        ("chrM", "MT"),
        (" 3 ", "3"),
    ],
)
def test_names_that_are_known(name, expected):
    assert normalise_chromosome(name) == expected


@pytest.mark.parametrize("name", ["0", "27", "", "chr", "Un_KI270742v1", "1_random", "nan"])
def test_unknown_name_is_refused_with_its_place(name):
    with pytest.raises(InputError, match=r"genes\.bim: line 3: chromosome .* is unknown"):
        normalise_chromosome(name, "genes.bim: line 3")


def test_rank_follows_the_genome():
    assert [RANK[name] for name in ("1", "22", "X", "Y", "MT")] == [1, 22, 23, 24, 25]
