"""Positions of one build on another, by hand-made and published chains."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from helpers import TEST_DATA
from rvga.errors import InputError
from rvga.liftover import Chain

# Forward with a gap on either side, then a stretch that runs the other way.
CHAIN = """chain 1000 chr1 1000 + 100 200 chr2 2000 + 500 610 1
40 10 20
50

chain 900 chr1 1000 + 300 320 chr3 400 - 50 70 2
20

chain 800 chr1 1000 + 150 155 chr9 1000 + 0 5 3
5

chain 10 chrUn_1 50 + 0 50 chr1 1000 + 0 50 4
50
"""


@pytest.mark.parametrize("packed", [False, True])
def test_a_chain_by_hand(tmp_path, packed):
    path = tmp_path / "a.chain.gz"
    path.write_bytes(gzip.compress(CHAIN.encode()) if packed else CHAIN.encode())
    chain = Chain.read(path)
    at = np.array([100, 101, 140, 141, 150, 151, 156, 200, 201, 301, 320, 321, np.nan])
    names, places, reverse = chain.lift(np.full(len(at), "1", dtype=object), at)
    # 151 to 155 are covered by two alignments, hence no place.
    expected = [None, "2", "2", None, None, None, "2", "2", None, "3", "3", None, None]
    assert names.tolist() == expected
    np.testing.assert_array_equal(
        places,
        [np.nan, 501, 540, np.nan, np.nan, np.nan, 566, 610, np.nan, 350, 331, np.nan, np.nan],
    )
    assert reverse.tolist() == [name == "3" for name in expected]
    names, places, _ = chain.lift(np.array(["5", None], dtype=object), np.array([101.0, 101.0]))
    assert names.tolist() == [None, None]
    assert np.isnan(places).all()


def test_every_position_equals_a_walk_over_the_alignments(tmp_path):
    rng = np.random.default_rng(3)
    lines, expected, start, target = [], {}, 50, 10
    lines.append("chain 1 1 100000 + 50 0 1 200000 + 10 0 1")
    for _ in range(40):
        length, gap, other = (int(v) for v in rng.integers(1, 30, size=3))
        for k in range(length):
            expected[start + k + 1] = target + k + 1
        lines.append(f"{length} {gap} {other}")
        start, target = start + length + gap, target + length + other
    path = tmp_path / "b.chain"
    path.write_text("\n".join(lines) + "\n")
    at = np.arange(1, start + 10)
    names, places, _ = Chain.read(path).lift(np.full(len(at), "1", dtype=object), at)
    for position, name, place in zip(at, names, places, strict=True):
        assert (place if name else None) == expected.get(position)


def test_a_published_chain():
    path = TEST_DATA / "sumstats" / "GRCh37_to_GRCh38.chain.gz"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    # rs429358, rs7412 (APOE) and rs1801133 (MTHFR) on both builds.
    names, places, reverse = Chain.read(path).lift(
        np.array(["19", "19", "1"], dtype=object), np.array([45411941, 45412079, 11856378])
    )
    assert names.tolist() == ["19", "19", "1"]
    assert places.tolist() == [44908684, 44908822, 11796321]
    assert not reverse.any()
    hits = TEST_DATA / "sumstats" / "eduAttainOkbay.txt"
    rows = [line.split("\t") for line in hits.read_text().splitlines()[1:]]
    chromosome = np.array([row[1] for row in rows], dtype=object)
    names, places, _ = Chain.read(path).lift(chromosome, np.array([int(row[2]) for row in rows]))
    assert (names == chromosome).all()
    # The published position of rs9320913 on GRCh38.
    at = [row[0] for row in rows].index("rs9320913")
    assert places[at] == 98136857


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no alignment"),
        ("rs1 A G\n", "line 1 is not a line of a chain file"),
        ("chain 1 1 100\n", "line 1 is not a line"),
        ("chain 1 1 100 + 0 9 1 100 + 0 9 1\nx\n", "line 2 is not a line"),
        ("chain 1 chrUn 100 + 0 9 1 100 + 0 9 1\n9\n", "holds no alignment between chromosomes"),
    ],
)
def test_files_that_are_no_chain_are_named(tmp_path, text, message):
    path = tmp_path / "c.chain"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Chain.read(path)


def test_a_chain_cut_short_or_absent_is_named(tmp_path):
    path = tmp_path / "d.chain.gz"
    with pytest.raises(InputError, match="no such file"):
        Chain.read(path)
    path.write_bytes(gzip.compress(CHAIN.encode() * 50)[:60])
    with pytest.raises(InputError, match="cut short"):
        Chain.read(path)
