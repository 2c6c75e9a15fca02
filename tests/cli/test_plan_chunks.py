"""plan_chunks: ranges of variants, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rvga.tables import read_table
from rvga_plan_chunks import main as plan_chunks
from small_study import hard_calls, run_here, subject_names, write_bed, write_pgen

PEOPLE = subject_names(10)


@pytest.fixture
def main(tmp_path):
    """Return a genotype file of 25 variants on chromosome 2 and 8 on X."""
    path = write_pgen(tmp_path / "g", hard_calls(33, 10, seed=1), PEOPLE)
    pvar = path.with_suffix(".pvar")
    lines = pvar.read_text().splitlines()
    lines[2:] = [line.replace("1\t", "chr2\t", 1) for line in lines[2:27]] + [
        line.replace("1\t", "23\t", 1) for line in lines[27:]
    ]
    pvar.write_text("\n".join(lines) + "\n")
    return path


def test_chunks_cover_each_variant_once_and_no_two_chromosomes(run_stage, main, tmp_path):
    out, summary = tmp_path / "chunks.tsv", tmp_path / "s.json"
    done = run_stage(
        "plan_chunks", "--genotypes", main, "--variants", main.with_suffix(".pvar"), "--samples",
        main.with_suffix(".psam"), "--chunk-variants", 10, "--out", out, "--summary", summary,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = read_table(out, "chunks")
    assert table["file"].astype(str).tolist() == ["1"] * 4
    assert table["chunk"].tolist() == [1, 2, 3, 4]
    assert table["chromosome"].tolist() == ["2", "2", "2", "X"]
    assert table["first_variant"].tolist() == [0, 10, 20, 25]
    assert table["n_variants"].tolist() == [10, 10, 5, 8]
    assert json.loads(summary.read_text())["numbers"] == {
        "n_chunks": 4, "n_files": 1, "n_left_out": 0, "n_variants": 33
    }  # fmt: skip


def test_lists_of_variants_alone_make_the_same_chunks(main, tmp_path):
    given = ("--chunk-variants", 10, "--variants", main.with_suffix(".pvar"))
    whole, alone = tmp_path / "whole.tsv", tmp_path / "alone.tsv"
    assert run_here(plan_chunks, *given, "--genotypes", main, "--out", whole).returncode == 0
    main.unlink()
    assert run_here(plan_chunks, *given, "--out", alone).returncode == 0
    assert alone.read_bytes() == whole.read_bytes()
    done = run_here(plan_chunks, "--out", tmp_path / "none.tsv")
    assert done.returncode == 2
    assert "no file to plan" in done.stderr
    assert not (tmp_path / "none.tsv").exists()


def test_one_chromosome_of_a_file(main, tmp_path):
    out = tmp_path / "chunks.tsv"
    done = run_here(plan_chunks, "--genotypes", main, "--chromosome", "chrX", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "25 variants are not on chromosome X" in done.stderr
    assert read_table(out, "chunks").iloc[:, 1:].to_numpy().tolist() == [[1, "X", 25, 8]]


def test_file_in_no_order_makes_mixed_chunks(tmp_path):
    path = write_bed(tmp_path / "g", hard_calls(300, 10, seed=1), PEOPLE)
    bim = path.with_suffix(".bim")
    names = np.random.default_rng(0).integers(1, 23, 300)
    lines = bim.read_text().splitlines()
    bim.write_text("".join(f"{n}{line[1:]}\n" for n, line in zip(names, lines, strict=True)))
    out = tmp_path / "chunks.tsv"
    assert (
        run_here(plan_chunks, "--genotypes", path, "--chunk-variants", 200, "--out", out).returncode
        == 0
    )
    assert read_table(out, "chunks").iloc[:, 1:].to_numpy().tolist() == [
        [1, "mixed", 0, 200], [2, "mixed", 200, 100]
    ]  # fmt: skip


def test_several_files_in_one_table(main, tmp_path):
    other = write_bed(tmp_path / "h", hard_calls(7, 10, seed=2), PEOPLE)
    out = tmp_path / "chunks.tsv"
    done = run_here(
        plan_chunks, "--genotypes", main, other, "--chromosome", "X", "all", "--file", "00001",
        "00002", "--chunk-variants", 5, "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in out.read_text().splitlines()]
    assert rows[0] == ["file", "chunk", "chromosome", "first_variant", "n_variants"]
    assert rows[1:] == [
        ["00001", "1", "X", "25", "5"],
        ["00001", "2", "X", "30", "3"],
        ["00002", "1", "1", "0", "5"],
        ["00002", "2", "1", "5", "2"],
    ]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda main: None, ["--chromosome", "7"], "holds no variant of chromosome 7"),
        (lambda main: None, ["--chromosome", "moon"], "chromosome 'moon' is unknown"),
        (lambda main: None, ["--file", "a", "b"], "--file names 2 for 1 genotype files"),
        (lambda main: main.unlink(), [], "no such file"),
        (lambda main: main.write_bytes(b""), [], "the file is empty (genotypes)"),
        (lambda main: main.write_bytes(main.read_bytes()[:-9]), [], "cut short"),
        (lambda main: main.with_suffix(".psam").unlink(), [], "g.psam: no such file"),
        (
            lambda main: main.with_suffix(".psam").write_text("#IID\na\nb\n"),
            [],
            "holds 10 people, but g.psam lists 2",
        ),
        (
            lambda main: main.with_suffix(".pvar").write_text("1\trs\t5\tA\tG\n"),
            [],
            "holds 33 variants, but g.pvar lists 1",
        ),
        (
            lambda main: main.with_suffix(".pvar").write_text(
                main.with_suffix(".pvar").read_text().replace("chr2\t1030", "chrUn_1\t1030")
            ),
            [],
            "g.pvar: line 6: chromosome 'chrUn_1' is unknown",
        ),
    ],
)
def test_bad_input(main, tmp_path, change, options, message):
    change(main)
    before = sorted(tmp_path.iterdir())
    done = run_here(plan_chunks, "--genotypes", main, *options, "--out", tmp_path / "chunks.tsv")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
