"""Clumping against an obvious implementation and against PLINK; merging; known loci."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from rvga import loci
from rvga.errors import InputError
from rvga.known_loci import read_known_loci
from small_study import subject_names, write_bed


def linked_calls(m: int, n: int, seed: int) -> np.ndarray:
    """Return calls (m, n) with linkage disequilibrium that decays along the variants."""
    rng = np.random.default_rng(seed)
    haplotypes = np.empty((m, 2 * n), dtype=np.int8)
    latent = rng.normal(size=2 * n)
    for row in range(m):
        keep = rng.choice([0.2, 0.8, 0.97], p=[0.1, 0.4, 0.5])
        latent = keep * latent + np.sqrt(1 - keep**2) * rng.normal(size=2 * n)
        haplotypes[row] = latent > rng.normal(scale=0.6)
    return haplotypes[:, :n] + haplotypes[:, n:]


def slow_clumps(chromosome, position, order, r2, clump_r2, clump_kb):
    """Return, by variant, the index variant of its clump."""
    leader = {}
    for one in order:
        if one in leader:
            continue
        for other in range(len(position)):
            near = (
                chromosome[other] == chromosome[one]
                and abs(position[other] - position[one]) <= clump_kb * 1000
            )
            if other not in leader and near and (other == one or r2[one, other] >= clump_r2):
                leader[other] = one
    return np.array([leader[k] for k in range(len(position))])


@pytest.fixture(scope="module")
def variants():
    rng = np.random.default_rng(3)
    calls = linked_calls(120, 300, 1)
    position = np.sort(rng.integers(1, 900_000, 120))
    chromosome = np.repeat([1, 2], 60)
    position = np.concatenate([np.sort(position[::2]), np.sort(position[1::2])])
    return chromosome, position, rng.exponential(5, 120) + 7.4, calls


def clump(chromosome, position, order, r_squared, **options):
    """Return the clumps of variants."""
    return loci.clumps_of(loci.leaders(chromosome, position, order, r_squared, **options), position)


def test_clumps_are_those_of_the_obvious_way(variants):
    chromosome, position, p, calls = variants
    rows = loci.standardised(calls)
    order = loci.priority(p, p)
    r2 = np.corrcoef(calls) ** 2
    clumps = clump(
        chromosome,
        position,
        order,
        loci.ld_of_standardised(rows, np.arange(120)),
        clump_r2=0.1,
        clump_kb=150,
    )
    expected = slow_clumps(chromosome, position, order, r2, 0.1, 150)
    assert np.array_equal(clumps.index[clumps.member_of], expected)
    assert 5 < len(clumps.index) < 100
    assert clumps.size.sum() == 120
    for k, index in enumerate(clumps.index):
        members = position[expected == index]
        assert (clumps.start[k], clumps.end[k]) == (members.min(), members.max())


@pytest.mark.skipif(shutil.which("plink1.9") is None, reason="plink1.9 is not on PATH")
@pytest.mark.parametrize(("clump_r2", "clump_kb"), [(0.2, 0.301), (0.1, 250), (0.5, 0.1)])
def test_clumps_are_those_of_plink(variants, tmp_path, clump_r2, clump_kb):
    # PLINK 1.9 measures LD between estimated haplotypes; with homozygotes only these are known,
    # and r² is that of the calls.
    _, _, p, calls = variants
    calls = 2 * (calls > calls.mean(axis=1, keepdims=True)).astype(np.int8)
    position = 1000 + 10 * np.arange(120)
    write_bed(tmp_path / "g", calls, subject_names(300))
    pd.DataFrame({"SNP": [f"rs{at}" for at in position], "P": 10.0**-p}).to_csv(
        tmp_path / "p.txt", sep=" ", index=False
    )
    done = subprocess.run(
        ["plink1.9", "--bfile", "g", "--clump", "p.txt", "--clump-p1", "1e-6", "--clump-p2", "1e-6"]
        + ["--clump-r2", str(clump_r2), "--clump-kb", str(clump_kb), "--out", "out"]
        + ["--allow-no-sex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    found = pd.read_csv(tmp_path / "out.clumped", sep=r"\s+").set_index("BP")
    clumps = clump(
        np.ones(120, int),
        position,
        loci.priority(p, p),
        loci.ld_of_standardised(loci.standardised(calls), np.arange(120)),
        clump_r2=clump_r2,
        clump_kb=clump_kb,
    )
    assert sorted(found.index) == position[clumps.index].tolist()
    for k, index in enumerate(clumps.index):
        listed = found.loc[position[index], "SP2"]
        members = set() if listed == "NONE" else {name.split("(")[0] for name in listed.split(",")}
        mine = {f"rs{at}" for at in position[clumps.member_of == k]} - {f"rs{position[index]}"}
        assert members == mine


def test_unknown_ld_and_no_ld_go_by_distance():
    chromosome, position = np.ones(4, int), np.array([100, 200, 300_000, 900_000])
    order = np.array([1, 0, 2, 3])
    without = clump(chromosome, position, order, None, clump_r2=0.5, clump_kb=250)
    assert without.index.tolist() == [1, 2, 3]
    rows = loci.standardised(np.array([[0, 1, 2, 0], [0, 1, 2, 0], [1, 1, 1, 1.0]]))
    assert np.isnan(rows[2]).all()
    ld = loci.ld_of_standardised(rows, np.array([0, -1, 2, 1]))
    assert np.isnan(ld(0, np.array([1, 2]))).all()
    assert ld(0, np.array([3]))[0] == pytest.approx(1, abs=1e-6)
    assert clump(chromosome, position, order, ld, clump_r2=0.5, clump_kb=1000).index.tolist() == [1]


def test_missing_dosages_take_the_mean():
    one = np.array([[0.0, 1.0, np.nan, 2.0, 1.2]])
    filled = np.array([[0.0, 1.0, 1.05, 2.0, 1.2]])
    np.testing.assert_allclose(loci.standardised(one), loci.standardised(filled), atol=1e-7)


def test_priority_breaks_ties_by_z_then_genome_order():
    assert loci.priority([8.0, 9, 9, 9], [5.0, 6, 7, 6]).tolist() == [2, 1, 3, 0]


def test_overlapping_clumps_merge_and_others_do_not():
    chromosome = np.array([1, 1, 1, 1, 1, 2])
    position = np.array([10, 20, 30, 40, 90, 40])
    member = np.array([0, 1, 0, 1, 2, 3])
    clumps = loci.Clumps(
        np.array([0, 1, 4, 5]), member, np.array([2, 2, 1, 1]),
        np.array([10, 20, 90, 40]), np.array([30, 40, 90, 40]),
    )  # fmt: skip
    merged = loci.merge_clumps(chromosome, clumps)
    assert merged.locus_of_clump.tolist() == [0, 0, 1, 2]
    assert merged.chromosome.tolist() == [1, 1, 2]
    assert merged.start.tolist() == [10, 90, 40]
    assert merged.end.tolist() == [40, 90, 40]
    assert position[clumps.index[0]] == 10
    known = loci.inside(merged, np.array([1, 1, 2, 1, 1]), np.array([40, 41, 90, 10, 40]))
    assert [one.tolist() for one in known] == [[10, 40], [], []]


def test_nothing_gives_nothing():
    empty = np.empty(0, dtype=np.int64)
    clumps = clump(empty, empty, empty, None, clump_r2=0.1, clump_kb=250)
    assert len(loci.merge_clumps(empty, clumps).start) == 0


def test_known_loci_of_both_forms(tmp_path):
    plain = tmp_path / "known.tsv"
    plain.write_text("rsid\tchromosome\tbase_pair_location\nrs1\tchr2\t500\nrs2\t23\t77\n")
    known = read_known_loci(plain)
    assert known.chromosome.tolist() == [2, 23]
    assert known.base_pair_location.tolist() == [500, 77]
    assert not known.catalog
    # As spreadsheets write it.
    plain.write_bytes("\ufeffchromosome;base_pair_location\r\nchr2;500\r\n".encode())
    assert read_known_loci(plain).base_pair_location.tolist() == [500]
    export = tmp_path / "gwas_catalog.tsv"
    export.write_text(
        "PUBMEDID\tCHR_ID\tCHR_POS\n1\t6\t1000\n2\t\t\n3\t6;7\t5;9\n4\t6 x 7\t4 x 9\n5\tX\t12\n"
    )
    known = read_known_loci(export)
    assert known.catalog
    assert known.chromosome.tolist() == [6, 23]
    assert known.base_pair_location.tolist() == [1000, 12]
    assert known.n_without_position == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rsid\tpos\nrs1\t5\n", "column 'chromosome' is missing"),
        ("chromosome\tbase_pair_location\n1\tfive\n", "line 2: base_pair_location 'five'"),
        ("chromosome\tbase_pair_location\n1\t5\n31\t5\n", "line 3: chromosome '31' is unknown"),
        ("", "cannot be read"),
    ],
)
def test_known_loci_that_cannot_be_read(tmp_path, text, message):
    path = tmp_path / "known.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_known_loci(path)
