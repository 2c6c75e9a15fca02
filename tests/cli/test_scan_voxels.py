"""The scan_voxels stage as a program, against the dataset's own voxel statistics."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import helpers
from helpers import files_in
from rvga import formats, significance
from rvga.dataset import MinimalDataset
from rvga.tables import read_table
from small_study import (
    hard_calls,
    make_study,
    mean_imputed,
    run_dataset,
    subject_names,
    write_pgen,
)

M, N_PEOPLE, N_VOXELS = 140, 250, 40


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a dataset with strong effects, its tail, and a tail of another dataset."""
    import rvga_image_tail

    folder = tmp_path_factory.mktemp("scan")
    people = sorted(subject_names(N_PEOPLE), key=str.encode)
    calls = hard_calls(M, N_PEOPLE, seed=21)
    effect = np.zeros((M, N_VOXELS))
    effect[[20, 90]] = np.random.default_rng(2).normal(scale=1.5, size=(2, N_VOXELS))
    study = make_study(folder, N_PEOPLE, extra=mean_imputed(calls).T @ effect)
    mains = [
        write_pgen(folder / "one", calls[:70], people, "1"),
        write_pgen(folder / "two", calls[70:], people, "2"),
    ]
    dataset = run_dataset(folder / "run", study, mains)
    other = run_dataset(folder / "other", study, mains[:1])
    tails = []
    for path in (dataset, other):
        tails.append(path.with_name("tail.h5"))
        rvga_image_tail.main(
            ["--dataset", str(path), "--out", str(tails[-1]), "--draws", "2000", "--threads", "1"]
        )
    return dataset, *tails


def scan(run_stage, folder, dataset, tail, *options):
    folder.mkdir(exist_ok=True)
    out, voxels = folder / "hits.tsv.gz", folder / "voxels.tsv"
    done = run_stage(
        "scan_voxels", "--dataset", dataset, "--tail", tail, "--out", out,
        "--out-voxels", voxels, "--summary", folder / "s.json", *options,
    )  # fmt: skip
    return done, out, voxels


def test_scan_agrees_with_the_dataset(made, tmp_path):
    dataset, path, _ = made
    run_stage = helpers.run_stage_process
    done, out, voxel_path = scan(run_stage, tmp_path / "all", dataset, path)
    assert done.returncode == 0, done.stderr
    hits, voxels = read_table(out, "variants"), read_table(voxel_path, "voxels")
    with MinimalDataset.open(dataset) as opened, formats.open_file(path, "tail") as stored:
        statistics = opened.voxel_statistics(0, opened.m)
        tail = significance.Tail.of(stored)
        nu = opened.nu
        expected_ids = opened.variants["variant_id"]
        components = opened.components()
        A = opened.A[0]
    z = statistics["z"]
    lead = np.abs(z).argmax(axis=1)
    assert hits["variant_id"].tolist() == expected_ids.tolist()
    assert np.array_equal(hits["lead_voxel"], lead)
    np.testing.assert_allclose(hits["z"], z[np.arange(len(z)), lead], rtol=1e-7)
    normal = np.abs(significance.t_to_normal(z, nu))
    assert np.array_equal(hits["n_significant_voxels"], (normal > tail.critical_z).sum(axis=1))
    assert np.array_equal(voxels["n_significant_variants"], (normal > tail.critical_z).sum(axis=0))
    np.testing.assert_allclose(voxels["largest_abs_z"], np.abs(z).max(axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        hits["neg_log_10_p_value"],
        statistics["neg_log_10_p_value"][np.arange(len(z)), lead],
        rtol=1e-7,
    )
    np.testing.assert_allclose(
        hits["neg_log_10_p_image_wide"],
        significance.image_wide_neg_log_10_p(normal.max(axis=1), tail),
        rtol=1e-7,
        atol=1e-7,
    )
    np.testing.assert_allclose(
        hits["neg_log_10_p_omnibus"],
        significance.omnibus_neg_log_10_p(components.beta, components.a, A, nu),
        rtol=1e-7,
    )
    significant = hits[hits["n_significant_voxels"] > 0]
    assert set(significant["base_pair_location"]) == {1200}
    numbers = json.loads((tmp_path / "all" / "s.json").read_text())["numbers"]
    assert numbers["n_significant_variants"] == len(significant) == 2
    assert numbers["n_variants"] == M


def test_every_significant_pair_on_request(run_stage, made, tmp_path):
    dataset, path, _ = made
    pairs_path = tmp_path / "pairs.tsv.gz"
    done, out, _ = scan(run_stage, tmp_path / "all", dataset, path, "--out-pairs", pairs_path)
    assert done.returncode == 0, done.stderr
    pairs = read_table(pairs_path, "pairs")
    with MinimalDataset.open(dataset) as opened, formats.open_file(path, "tail") as stored:
        statistics = opened.voxel_statistics(0, opened.m)
        tail = significance.Tail.of(stored)
        variants, nu = opened.variants, opened.nu
    normal = np.abs(significance.t_to_normal(statistics["z"], nu))
    row, voxel = np.nonzero(normal > tail.critical_z)
    assert len(pairs) == len(row) > 0
    assert pairs["variant_id"].tolist() == variants["variant_id"].iloc[row].tolist()
    assert np.array_equal(pairs["voxel"], voxel)
    for name in ("beta", "standard_error", "z", "neg_log_10_p_value"):
        np.testing.assert_allclose(pairs[name], statistics[name][row, voxel], rtol=1e-6)
    np.testing.assert_allclose(
        pairs["neg_log_10_p_image_wide"],
        significance.image_wide_neg_log_10_p(normal[row, voxel], tail),
        rtol=1e-6,
    )
    hits = read_table(out, "variants")
    counted = pairs.groupby(["chromosome", "variant_id"], sort=False).size()
    significant = hits[hits["n_significant_voxels"] > 0]
    assert counted.tolist() == significant["n_significant_voxels"].tolist()


def test_variants_are_counted_by_both_rules(run_stage, made, tmp_path):
    import rvga_image_tail

    dataset, _, _ = made
    counts = {}
    for rule in ("image_wide", "published"):
        tail = tmp_path / f"{rule}.h5"
        rvga_image_tail.main(
            ["--dataset", str(dataset), "--out", str(tail), "--draws", "1000", "--threads", "1"]
            + ["--significance", rule, "--significance-level", "0.2"]
        )
        done, out, _ = scan(run_stage, tmp_path / rule, dataset, tail)
        assert done.returncode == 0, done.stderr
        counts[rule] = json.loads((tmp_path / rule / "s.json").read_text())["numbers"]
        hits = read_table(out, "variants")
        significant = int((hits["n_significant_voxels"] > 0).sum())
        assert significant == counts[rule]["n_significant_variants"]
        assert significant == counts[rule][f"n_beyond_{rule}"]
    for name in ("n_beyond_image_wide", "n_beyond_published"):
        assert counts["image_wide"][name] == counts["published"][name]
    assert counts["published"]["n_beyond_published"] != counts["published"]["n_beyond_image_wide"]


def test_parts_blocks_and_threads_change_nothing(run_stage, made, tmp_path):
    dataset, tail, _ = made
    pairs = [tmp_path / name for name in ("one.tsv.gz", "other.tsv.gz")]
    _, whole, whole_voxels = scan(
        run_stage, tmp_path / "whole", dataset, tail, "--out-pairs", pairs[0]
    )
    done, again, again_voxels = scan(
        run_stage, tmp_path / "b", dataset, tail, "--block-variants", 7, "--threads", 2,
        "--out-pairs", pairs[1],
    )  # fmt: skip
    assert done.returncode == 0
    assert pairs[1].read_bytes() == pairs[0].read_bytes()
    assert again.read_bytes() == whole.read_bytes()
    assert again_voxels.read_bytes() == whole_voxels.read_bytes()
    frames, counts = [], 0
    for part in (1, 2, 3):
        done, out, voxels = scan(
            run_stage, tmp_path / str(part), dataset, tail, "--part", part, "--parts", 3
        )
        assert done.returncode == 0, done.stderr
        frames.append(read_table(out, "variants"))
        counts = counts + read_table(voxels, "voxels")["n_significant_variants"]
    pd.testing.assert_frame_equal(
        pd.concat(frames, ignore_index=True), read_table(whole, "variants")
    )
    assert np.array_equal(counts, read_table(whole_voxels, "voxels")["n_significant_variants"])


def test_a_part_may_be_empty(run_stage, made, tmp_path):
    dataset, tail, _ = made
    done, out, _ = scan(run_stage, tmp_path, dataset, tail, "--part", 1, "--parts", 1000)
    assert done.returncode == 0, done.stderr
    assert len(read_table(out, "variants")) == 0


def test_tail_of_another_dataset(run_stage, made, tmp_path):
    dataset, _, other = made
    done, *_ = scan(run_stage, tmp_path, dataset, other)
    assert done.returncode == 2
    assert "different runs" in done.stderr
    assert files_in(tmp_path) == set()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--part", "4", "--parts", "3"], "--part 4 is beyond --parts 3"),
        (["--part", "0"], "less than 1"),
        (["--block-variants", "0"], "less than 1"),
    ],
)
def test_options_out_of_range(run_stage, made, tmp_path, options, message):
    done, *_ = scan(run_stage, tmp_path, made[0], made[1], *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert files_in(tmp_path) == set()


def test_dataset_where_a_tail_is_due(run_stage, made, tmp_path):
    done, *_ = scan(run_stage, tmp_path, made[0], made[0])
    assert done.returncode == 2
    assert "'tail' file is due" in done.stderr
    assert files_in(tmp_path) == set()
