"""One spelling of chromosomes."""

from __future__ import annotations

import numpy as np
import pytest

from rvga.chromosomes import CHROMOSOMES, RANK, normalise_chromosome, pseudoautosomal
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
        ("chrPAR2", "X"),
        ("0X", "X"),
        ("0Y", "Y"),
        ("26", "MT"),
        ("chrM", "MT"),
        ("0M", "MT"),
        ("chrMT", "MT"),
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


@pytest.mark.parametrize(
    ("genome_build", "edges"),
    [
        ("GRCh37", [60_001, 2_699_520, 154_931_044, 155_260_560]),
        ("GRCh38", [10_001, 2_781_479, 155_701_383, 156_030_895]),
    ],
)
def test_pseudoautosomal_regions_hold_both_their_ends(genome_build, edges):
    start_1, end_1, start_2, end_2 = edges
    outside = np.array([start_1 - 1, end_1 + 1, 80_000_000, start_2 - 1, end_2 + 1])
    assert pseudoautosomal(np.array(edges), genome_build).all()
    assert pseudoautosomal(np.array([start_1 + 1, end_2 - 1]), genome_build).all()
    assert not pseudoautosomal(outside, genome_build).any()


def test_builds_differ_between_their_ends():
    position = np.array([2_700_000, 155_000_000])
    assert pseudoautosomal(position, "GRCh37").tolist() == [False, True]
    assert pseudoautosomal(position, "GRCh38").tolist() == [True, False]


@pytest.mark.parametrize("genome_build", ["", "hg19"])
def test_variants_on_x_need_a_build(genome_build):
    with pytest.raises(InputError, match=r"3 variants on chromosome X.*set genome_build to GRCh37"):
        pseudoautosomal(np.array([1, 2, 3]), genome_build)
    assert pseudoautosomal(np.array([], dtype=int), genome_build).shape == (0,)
