"""LD_BLOCKS on small panels: what it writes, and its message for each kind of bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers import files_in
from heritability_study import correlated_dosages, write_pgen
from rvga import ld
from rvga.ld_reference import LdReference

M, PEOPLE = 260, 60


@pytest.fixture(scope="module")
def panels(tmp_path_factory):
    """Return the folder of two panels on chromosome 3, and their dosages."""
    folder = tmp_path_factory.mktemp("panels")
    dosages = correlated_dosages(M, 2 * PEOPLE, seed=9)
    write_pgen(folder / "one", dosages[:, :PEOPLE], "3", [f"a{i}" for i in range(PEOPLE)])
    write_pgen(folder / "two", dosages[:, PEOPLE:], "3", [f"b{i}" for i in range(PEOPLE)])
    return folder, dosages


def blocks(run_stage, first, second, out, *options):
    return run_stage(
        "ld_blocks", "--chromosome", "3", "--panel-1", first, "--panel-2", second,
        *options, "--out", out,
    )  # fmt: skip


def test_blocks_hold_the_panels_correlations(panels, tmp_path, run_stage):
    folder, dosages = panels
    out, summary = tmp_path / "ld.h5", tmp_path / "ld.json"
    done = blocks(
        run_stage, folder / "one.pgen", folder / "two.pgen", out, "--summary", summary,
        "--ld-share", "0.9", "--seed", "4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "memory: about" in done.stderr
    order = np.argsort([f"a{i}" for i in range(PEOPLE)])
    panel_1 = dosages[:, :PEOPLE][:, order].astype(np.float32)
    half_a, half_b = ld.split_halves(PEOPLE, 4)
    with LdReference.open(out) as reference:
        kept = ((reference.variants.base_pair_location - 1000) // 100).to_numpy()
        G_a, G_b = (ld.standardise(panel_1[kept][:, half]) for half in (half_a, half_b))
        block = reference.block(0)
        np.testing.assert_allclose(block.R_a, G_a @ G_a.T / len(half_a), atol=1e-5)
        np.testing.assert_allclose(block.R_b, G_b @ G_b.T / len(half_b), atol=1e-5)
        T = block.R_a.astype(float) @ block.R_b
        np.testing.assert_allclose(block.T, (T + T.T) / 2, atol=1e-4)
        assert reference.n_2 == PEOPLE
        assert 0.9 <= block.share[-1] < 0.95
        frequency = panel_1[kept].mean(axis=1) / 2
        np.testing.assert_allclose(reference.variants.effect_allele_frequency, frequency, atol=1e-6)
    numbers = json.loads(summary.read_text())["numbers"]
    assert numbers["n_variants"] == len(kept) == numbers["counts"]["kept"]
    dropped = numbers["counts"]["rare_in_a_panel"] + numbers["counts"]["constant_in_a_half"]
    assert dropped + len(kept) == M


def test_same_bytes_whatever_order_threads_and_files(panels, tmp_path, run_stage):
    folder, dosages = panels
    shuffled = np.random.default_rng(1).permutation(PEOPLE)
    people = [f"a{i}" for i in shuffled]
    half = M // 2
    one = dosages[:, :PEOPLE][:, shuffled]
    first = write_pgen(tmp_path / "first", one[:half], "3", people)
    second = write_pgen(tmp_path / "second", one[half:], "chr3", people, start=1000 + 100 * half)
    text = second.with_suffix(".pvar").read_text()
    for k in reversed(range(M - half)):
        text = text.replace(f"rschr3_{k}\t", f"rs3_{k + half}\t")
    second.with_suffix(".pvar").write_text(text)
    outs = [tmp_path / "a.h5", tmp_path / "b.h5"]
    done = blocks(run_stage, folder / "one.pgen", folder / "two.pgen", outs[0], "--threads", 1)
    assert done.returncode == 0, done.stderr
    done = blocks(run_stage, [second, first], folder / "two.pgen", outs[1], "--threads", 2)
    assert done.returncode == 0, done.stderr
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_swapped_alleles_are_turned(panels, tmp_path, run_stage):
    folder, dosages = panels
    swapped = [("G", "A") if k % 2 else ("A", "G") for k in range(M)]
    turned = dosages[:, PEOPLE:].copy()
    turned[1::2] = 2 - turned[1::2]
    write_pgen(tmp_path / "two", turned, "3", [f"b{i}" for i in range(PEOPLE)], alleles=swapped)
    outs = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for out, second in zip(outs, (folder / "two.pgen", tmp_path / "two.pgen"), strict=True):
        done = blocks(run_stage, folder / "one.pgen", second, out)
        assert done.returncode == 0, done.stderr
    with LdReference.open(outs[0]) as one, LdReference.open(outs[1]) as other:
        assert one.m == other.m
        for ours, theirs in zip(one.blocks(), other.blocks(), strict=True):
            np.testing.assert_allclose(ours[2].M, theirs[2].M, atol=1e-5)
            np.testing.assert_array_equal(ours[2].T, theirs[2].T)


def test_blocks_of_a_bed_file(panels, tmp_path, run_stage):
    folder, _ = panels
    bed = tmp_path / "blocks.bed"
    bed.write_text("chrom\tstart\tend\nchr3\t999\t9900\nchr3\t9900\t20000\nchr4\t0\t100\n")
    out, summary = tmp_path / "ld.h5", tmp_path / "s.json"
    done = blocks(
        run_stage, folder / "one.pgen", folder / "two.pgen", out, "--ld-blocks", bed,
        "--summary", summary,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with LdReference.open(out) as reference:
        position = reference.variants.base_pair_location.to_numpy()
        first = position[: reference.block_start[1]]
        assert reference.n_blocks == 2
        assert first.max() <= 9900 < position[reference.block_start[1]]
        assert position.max() <= 20000
    counts = json.loads(summary.read_text())["numbers"]["counts"]
    assert counts["outside_ld_blocks"] == M - 191


def test_one_panel_is_split_at_random_and_said(panels, tmp_path, run_stage):
    """The same as two panels of the people that the split has drawn, and another for each seed."""
    _, dosages = panels
    n = dosages.shape[1]
    names = [f"p{i:03d}" for i in range(n)]
    both = write_pgen(tmp_path / "both", dosages, "3", names)
    parts = []
    for which, people in zip(("one", "two"), ld.split_panel(n, 4), strict=True):
        ids = [names[i] for i in people]
        parts.append(write_pgen(tmp_path / which, dosages[:, people], "3", ids))
    arrays = []
    for second, seed in (([], 4), ([parts[1]], 4), ([], 5)):
        out = tmp_path / "ld.h5"
        done = run_stage(
            "ld_blocks", "--chromosome", "3", "--panel-1", parts[0] if second else both,
            "--panel-2", *second, "--seed", seed, "--out", out, "--summary", tmp_path / "s.json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert ("split at random (seed" in done.stderr) == (not second)
        numbers = json.loads((tmp_path / "s.json").read_text())["numbers"]
        assert (numbers["n_panels"], numbers["seed"]) == (2 if second else 1, seed)
        assert "MB of the LD reference" in done.stderr
        with LdReference.open(out) as reference:
            single = ("M", "share", "t_1_ratio", "R_a", "R_b", "T")
            double = (
                "H", "H_difference", "t_1", "t_2", "t_4", "band_t_4", "class_trace", "ld_score",
            )  # fmt: skip
            taken = sum(reference.envelope[name].size * 4 for name in single)
            taken += sum(reference.envelope[name].size * 8 for name in double)
            assert 0.5 * numbers["bytes_at_most"] < taken <= numbers["bytes_at_most"]
            assert reference.envelope.parameters["panels"] == numbers["n_panels"]
            assert reference.n_a + reference.n_b == reference.n_2 == n // 2
            names_of_it = (*single, *double, "error_traces")
            arrays.append([reference.envelope[name][...] for name in names_of_it])
    assert all(np.array_equal(a, b) for a, b in zip(arrays[0], arrays[1], strict=True))
    assert not np.array_equal(arrays[0][2], arrays[2][2])


def test_a_chromosome_that_neither_panel_has_is_an_empty_file(panels, tmp_path, run_stage):
    folder, _ = panels
    out = tmp_path / "ld.h5"
    done = run_stage(
        "ld_blocks", "--chromosome", "22", "--panel-1", folder / "one.pgen",
        "--panel-2", folder / "two.pgen", "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with LdReference.open(out) as reference:
        assert (reference.m, reference.n_blocks) == (0, 0)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("people in common", "have 3 people in common (a0, a1, a2)"),
        ("no shared variants", "share no variant on chromosome 3"),
        ("few people", "has 40 people; an LD reference needs at least 50"),
        ("no common variant", "minor allele frequency of at least 0.01"),
        ("unknown chromosome", "chromosome 'chrQ' is unknown"),
        ("overlapping blocks", "overlap on chromosome 3"),
        ("blocks elsewhere", "lies in a block"),
        ("damaged blocks", "line 1 is not 'chromosome start end'"),
        ("files of other people", "are in only one of this file and two.pgen"),
        ("lists of other length", "1 genotype files but 2 files of variants"),
        ("missing file", "no such file"),
        ("share above 1", "outside (0, 1]"),
        ("one small panel", "has 60 people; without a panel 2 it is split in two and needs"),
        ("samples of no panel", "--panel-2-variants and --panel-2-samples need --panel-2"),
    ],
)
def test_bad_input(panels, tmp_path, run_stage, case, message):
    folder, dosages = panels
    first, second, options = folder / "one.pgen", folder / "two.pgen", []
    here = tmp_path / "in"
    here.mkdir()
    others = dosages[:, PEOPLE:]
    ids = [f"b{i}" for i in range(PEOPLE)]
    if case == "people in common":
        second = write_pgen(here / "two", others, "3", ["a2", "a0", "a1", *ids[3:]])
    elif case == "no shared variants":
        second = write_pgen(here / "two", others, "3", ids, start=1050)
    elif case == "few people":
        second = write_pgen(here / "two", others[:, :40], "3", ids[:40])
    elif case == "no common variant":
        second = write_pgen(here / "two", np.zeros_like(others), "3", ids)
    elif case == "unknown chromosome":
        options = ["--chromosome", "chrQ"]
    elif case.endswith("blocks") or case == "blocks elsewhere":
        text = {
            "overlapping blocks": "3 0 5000\n3 4000 9000\n",
            "blocks elsewhere": "3 900000 990000\n",
            "damaged blocks": "3\n",
        }[case]
        (here / "blocks.bed").write_text(text)
        options = ["--ld-blocks", here / "blocks.bed"]
    elif case == "files of other people":
        second = [second, write_pgen(here / "three", others, "4", [*ids[1:], "stranger"])]
    elif case == "lists of other length":
        options = ["--panel-1-variants", folder / "one.pvar", folder / "one.pvar"]
    elif case == "missing file":
        second = here / "nothing.pgen"
    elif case == "share above 1":
        options = ["--ld-share", "1.5"]
    elif case == "one small panel":
        second = []
    elif case == "samples of no panel":
        second, options = [], ["--panel-2-samples", folder / "two.psam"]
    out = tmp_path / "out"
    out.mkdir()
    done = blocks(run_stage, first, second, out / "ld.h5", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not files_in(out)
