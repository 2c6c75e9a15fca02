"""minimal_dataset: chunks of one study joined in genome order, and what is refused."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest

from rvga import formats
from rvga.dataset import MinimalDataset
from rvga_minimal_dataset import main as minimal_dataset
from small_study import hard_calls, make_study, run_chunks, run_here, subject_names, write_pgen

N = 120


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a study and its chunks, of chromosomes 3 and 10."""
    folder = tmp_path_factory.mktemp("study")
    s = make_study(folder, N)
    people = subject_names(N)
    mains = [
        write_pgen(folder / "b", hard_calls(30, N, seed=1), people, "10"),
        write_pgen(folder / "a", hard_calls(50, N, seed=2), people, "3"),
    ]
    return s, run_chunks(folder, s, mains, chunk=20)


def join(run_stage, s, chunks, out, *options):
    return run_stage(
        "minimal_dataset", "--chunks", chunks, "--bases", s.bases, "--null", s.null, "--out", out,
        *options,
    )  # fmt: skip


def join_here(s, chunks, out):
    return run_here(
        minimal_dataset, "--chunks", chunks, "--bases", s.bases, "--null", s.null, "--out", out
    )


def test_chunks_are_joined_in_genome_order(run_stage, study, tmp_path):
    s, chunks = study
    out, summary = tmp_path / "study.rvga.h5", tmp_path / "s.json"
    done = join(run_stage, s, chunks, out, "--summary", summary)
    assert done.returncode == 0, done.stderr
    with MinimalDataset.open(out) as dataset:
        variants = dataset.variants
        assert variants["chromosome"].drop_duplicates().tolist() == ["3", "10"]
        for _, part in variants.groupby("chromosome"):
            assert part["base_pair_location"].is_monotonic_increasing
        assert dataset.N == 40
        assert dataset.attributes["n_eff"] == 3.5
        with formats.open_file(s.null, "null") as null:
            assert dataset.inputs["null"] == null.digest
        components = dataset.components()
        parts = []
        for chunk in chunks:
            with formats.open_file(chunk, "minimal") as file:
                parts.append(
                    (file.array("variants/variant_id"), file["variants/chromosome"][...],
                     file["a"][...])
                )  # fmt: skip
        a = {
            (identity, int(chromosome)): value
            for part in parts
            for identity, chromosome, value in zip(*part, strict=True)
        }
        expected = [
            a[identity, int(chromosome)]
            for identity, chromosome in zip(
                variants["variant_id"], variants["chromosome"], strict=True
            )
        ]
        np.testing.assert_array_equal(components.a, expected)
    numbers = json.loads(summary.read_text())["numbers"]
    assert numbers["read"] == 80
    assert numbers["m"] == numbers["written"] == len(expected)
    assert list(numbers["counts"]) == ["10", "3"]


def test_order_of_the_chunks_changes_nothing(study, tmp_path):
    s, chunks = study
    contents = set()
    for number, order in enumerate((chunks, chunks[::-1], chunks[2:] + chunks[:2])):
        out = tmp_path / f"{number}.rvga.h5"
        assert join_here(s, order, out).returncode == 0
        contents.add(out.read_bytes())
    assert len(contents) == 1


@pytest.fixture(scope="module")
def other_study(tmp_path_factory):
    """Return another study of the same sizes and one chunk of it."""
    folder = tmp_path_factory.mktemp("other")
    s = make_study(folder, N, seed=2)
    main = write_pgen(folder / "a", hard_calls(20, N, seed=2), subject_names(N), "5")
    return s, run_chunks(folder, s, [main])


def refused(done, message, out):
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("ERROR") == 1
    assert not out.exists()


def test_chunks_of_two_studies_are_refused(study, other_study, tmp_path):
    out = tmp_path / "o.rvga.h5"
    done = join_here(study[0], [*study[1], *other_study[1]], out)
    refused(done, "gwas.00000.h5 was not made from null.h5", out)


def test_bases_of_another_study_are_refused(study, other_study, tmp_path):
    out = tmp_path / "o.rvga.h5"
    done = run_here(
        minimal_dataset, "--chunks", study[1], "--bases", other_study[0].bases, "--null",
        study[0].null, "--out", out,
    )  # fmt: skip
    refused(done, "are not the bases of the LDRs in null.h5", out)


def test_same_chunk_twice_is_refused(study, tmp_path):
    out = tmp_path / "o.rvga.h5"
    refused(join_here(study[0], [*study[1], study[1][0]], out), "is given twice", out)
    copy = shutil.copy(study[1][0], tmp_path / "copy.h5")
    refused(join_here(study[0], [*study[1], copy], out), "is given twice", out)


def test_variants_in_two_files_are_counted_and_said(run_stage, tmp_path):
    s = make_study(tmp_path, N)
    calls, people = hard_calls(30, N, seed=1), subject_names(N)
    mains = [
        write_pgen(tmp_path / "all", calls, people, "3"),
        write_pgen(tmp_path / "part", calls[:7], people, "3"),
    ]
    summary = tmp_path / "s.json"
    chunks = run_chunks(tmp_path / "chunks", s, mains)
    done = join(run_stage, s, chunks, tmp_path / "o.rvga.h5", "--summary", summary)
    assert done.returncode == 0, done.stderr
    content = json.loads(summary.read_text())
    with MinimalDataset.open(tmp_path / "o.rvga.h5") as dataset:
        keys = ["chromosome", "base_pair_location", "effect_allele", "other_allele"]
        expected = int(dataset.variants.duplicated(keys).sum())
        assert expected > 3
    assert content["numbers"]["n_repeated"] == expected
    assert [f"{expected} of " in warning for warning in content["warnings"]] == [True]


def test_chunks_with_other_options_are_refused(study, tmp_path):
    s, chunks = study
    out = tmp_path / "o.rvga.h5"
    main = write_pgen(tmp_path / "c", hard_calls(20, N, seed=5), subject_names(N), "7")
    for options, message in (
        (("--dataset-coding", "float32"), "coding is"),
        (("--minor-allele-count", "6"), "minor_allele_count is"),
        (("--genome-build", "GRCh37"), "genome_build is"),
        (("--minor-allele-frequency", "0.01"), "other options"),
    ):
        more = run_chunks(tmp_path / "more", s, [main], *options)
        refused(join_here(s, [*chunks, *more], out), message, out)


def test_no_variant_left_is_told_with_the_reasons(study, tmp_path):
    s, _ = study
    out = tmp_path / "o.rvga.h5"
    calls = hard_calls(20, N, seed=5)
    main = write_pgen(tmp_path / "c", calls, subject_names(N), "7")
    chunks = run_chunks(tmp_path / "none", s, [main], "--minor-allele-count", "500", chunk=10)
    done = join_here(s, chunks, out)
    refused(
        done,
        "no variant is left after the filters: of 20 read, 20 below_minor_allele_count",
        out,
    )


def test_chunk_without_variants_among_others_is_fine(study, tmp_path):
    s, chunks = study
    calls = np.zeros((20, N), dtype=np.int8)
    calls[:, 3] = 1
    main = write_pgen(tmp_path / "c", calls, subject_names(N), "7")
    empty = run_chunks(tmp_path / "none", s, [main], chunk=10)
    out = tmp_path / "o.rvga.h5"
    done = join_here(s, [*empty, *chunks], out)
    assert done.returncode == 0, done.stderr
    with MinimalDataset.open(out) as dataset:
        counts = json.loads(dataset.attributes["counts"])
    dropped = {"below_minor_allele_count": 20}
    assert counts["7"] == {"read": 20, "written": 0, "dropped": dropped, "missing": {}}


def test_damaged_chunk_is_named(study, tmp_path):
    s, chunks = study
    out = tmp_path / "o.rvga.h5"
    bad = tmp_path / "gwas.bad.h5"
    bad.write_bytes(chunks[0].read_bytes()[:-500])
    refused(join_here(s, [bad, *chunks[1:]], out), "gwas.bad.h5: not a readable HDF5", out)
    shutil.copy(chunks[0], bad)
    with h5py.File(bad, "r+") as handle:
        del handle["scale"]
    refused(join_here(s, [bad, *chunks[1:]], out), "'scale' is missing", out)
    refused(join_here(s, [tmp_path / "no.h5"], out), "no.h5: no such file", out)


def test_nothing_half_written_is_left(study, tmp_path):
    s, chunks = study
    bad = tmp_path / "gwas.bad.h5"
    bad.write_bytes(chunks[0].read_bytes()[:-500])
    join_here(s, [bad], tmp_path / "o.rvga.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["gwas.bad.h5"]
