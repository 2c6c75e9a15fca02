"""LD_REFERENCE: joining chromosomes, and its message for each kind of bad input."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from helpers import files_in
from heritability_study import correlated_dosages, write_pgen
from rvga.ld_reference import LdReference

PEOPLE = 55


@pytest.fixture(scope="module")
def chunks(tmp_path_factory):
    """Return a folder with LD files of chromosomes 2, 10 and (empty) 5, and odd ones."""
    from helpers import run_stage

    folder = tmp_path_factory.mktemp("chunks")
    for chromosome in ("2", "10"):
        dosages = correlated_dosages(90, 3 * PEOPLE, seed=int(chromosome))
        for at, name in enumerate("abc"):
            part = dosages[:, at * PEOPLE : (at + 1) * PEOPLE]
            ids = [f"{name}{i}" for i in range(PEOPLE)]
            write_pgen(folder / f"{name}{chromosome}", part, chromosome, ids)
        ids = [f"w{i}" for i in range(2 * PEOPLE)]
        write_pgen(folder / f"w{chromosome}", dosages[:, : 2 * PEOPLE], chromosome, ids)

    def make(out, chromosome, second="b", *options):
        files = [folder / f"{second}{c}.pgen" for c in ("2", "10")] if second else []
        first = [folder / f"{'a' if second else 'w'}{c}.pgen" for c in ("2", "10")]
        done = run_stage(
            "ld_blocks", "--chromosome", chromosome, "--panel-1", first, "--panel-2", files,
            *options, "--out", folder / out,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    make("ld.2.h5", "2")
    make("ld.10.h5", "10")
    make("ld.5.h5", "5")
    make("other_panel.h5", "10", "c")
    make("other_seed.h5", "10", "b", "--seed", "9")
    make("one.h5", "10", None, "--seed", "7")
    (folder / "older.h5").write_bytes((folder / "ld.10.h5").read_bytes())
    with h5py.File(folder / "older.h5", "r+") as file:
        del file["t_1_ratio"]
    (folder / "first.h5").write_bytes((folder / "ld.10.h5").read_bytes())
    with h5py.File(folder / "first.h5", "r+") as file:
        file.attrs["format_version"] = 1
    return folder


def test_chromosomes_are_joined_in_genome_order(chunks, tmp_path, run_stage):
    out, summary = tmp_path / "panel.ld.h5", tmp_path / "s.json"
    parts = [chunks / f"ld.{c}.h5" for c in ("10", "5", "2")]
    done = run_stage("ld_reference", "--chunks", parts, "--out", out, "--summary", summary)
    assert done.returncode == 0, done.stderr
    with (
        LdReference.open(out) as whole,
        LdReference.open(chunks / "ld.2.h5") as two,
        LdReference.open(chunks / "ld.10.h5") as ten,
    ):
        assert whole.variants.chromosome.drop_duplicates().tolist() == ["2", "10"]
        assert whole.m == two.m + ten.m
        blocks = [*two.blocks(), *ten.blocks()]
        for (_, _, ours), (_, _, theirs) in zip(whole.blocks(), blocks, strict=True):
            for name in ("M", "share", "R_a", "R_b", "T", "t_1_ratio"):
                np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        for i in range(whole.n_blocks):
            part, k = (two, i) if i < two.n_blocks else (ten, i - two.n_blocks)
            for ours, theirs in zip(
                vars(whole.products(i, difference=True)).values(),
                vars(part.products(k, difference=True)).values(),
                strict=True,
            ):
                np.testing.assert_array_equal(ours, theirs)
        assert whole.envelope["error_traces"].shape == (2, 4)
    numbers = json.loads(summary.read_text())["numbers"]
    assert numbers["chromosomes"] == ["2", "10"]
    other = tmp_path / "again.ld.h5"
    assert run_stage("ld_reference", "--chunks", parts[::-1], "--out", other).returncode == 0
    assert out.read_bytes() == other.read_bytes()


def test_one_panel_that_was_split_is_warned_of_and_recorded(chunks, tmp_path, run_stage):
    out, summary = tmp_path / "panel.ld.h5", tmp_path / "s.json"
    done = run_stage(
        "ld_reference", "--chunks", chunks / "one.h5", "--out", out, "--summary", summary
    )
    assert done.returncode == 0, done.stderr
    said = f"its {2 * PEOPLE} people were split at random (seed 7) into {PEOPLE} for"
    found = json.loads(summary.read_text())
    assert any(said in warning for warning in found["warnings"])
    assert (found["numbers"]["n_panels"], found["numbers"]["seed"]) == (1, 7)
    with LdReference.open(out) as reference:
        assert reference.envelope.parameters["panels"] == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ld.5.h5"], "none of the 1 LD files"),
        (["ld.2.h5", "ld.2.h5"], "both hold chromosome 2"),
        (["ld.2.h5", "other_panel.h5"], "different people of LD panel 2"),
        (["ld.2.h5", "other_seed.h5"], "was made with seed 9"),
        (["ld.2.h5", "one.h5"], "different people of LD panel 1"),
        (["ld.2.h5", "ld.5.h5", "older.h5"], "older.h5 lacks the dataset 't_1_ratio'"),
        (["ld.2.h5", "first.h5"], "format_version 1, this software reads 2; use the release that"),
        (["a2.pgen"], "not a readable HDF5 file"),
        (["nothing.h5"], "no such file"),
    ],
)
def test_bad_input(chunks, tmp_path, run_stage, names, message):
    done = run_stage(
        "ld_reference", "--chunks", [chunks / name for name in names],
        "--out", tmp_path / "panel.ld.h5",
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not files_in(tmp_path)
