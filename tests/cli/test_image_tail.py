"""The image_tail stage as a program."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

import helpers
from helpers import files_in
from rvga import formats, significance
from small_study import hard_calls, make_study, run_dataset, subject_names, write_pgen


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tail")
    study = make_study(folder, 80)
    main = write_pgen(folder / "g", hard_calls(30, 80, seed=1), subject_names(80))
    return run_dataset(folder / "run", study, [main], "--minor-allele-count", "5")


def test_tail_of_a_dataset(run_stage, dataset, tmp_path):
    out, summary = tmp_path / "tail.h5", tmp_path / "s.json"
    done = helpers.run_stage_process(
        "image_tail", "--dataset", dataset, "--out", out, "--draws", 2000, "--summary", summary
    )
    assert done.returncode == 0, done.stderr
    with formats.open_file(out, "tail") as file, formats.open_file(dataset, "minimal") as made:
        file.require_made_from("dataset", made)
        tail = significance.Tail.of(file)
    numbers = json.loads(summary.read_text())["numbers"]
    assert tail.significance == "image_wide"
    assert numbers["critical_z"] == tail.critical_z
    # 40 voxels of five components: between one test and 40.
    assert 1 < numbers["effective_tests"] < 40
    assert numbers["critical_t"] > tail.critical_z
    again = tmp_path / "again.h5"
    done = run_stage(
        "image_tail", "--dataset", dataset, "--out", again, "--draws", 2000, "--threads", 2
    )
    assert done.returncode == 0
    assert again.read_bytes() == out.read_bytes()


def test_published_rule(run_stage, dataset, tmp_path):
    out, summary = tmp_path / "tail.h5", tmp_path / "s.json"
    done = run_stage(
        "image_tail", "--dataset", dataset, "--out", out, "--significance", "published",
        "--significance-level", 1e-3, "--draws", 2000, "--summary", summary,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with formats.open_file(out, "tail") as file:
        tail = significance.Tail.of(file)
    assert tail.critical_z == tail.critical_z_published
    assert tail.critical_z == pytest.approx(stats.norm.isf(5e-4 / 3.5))
    numbers = json.loads(summary.read_text())["numbers"]
    # What the published rule really lets through, by the table of image-wide p.
    assert numbers["critical_z_image_wide"] == tail.critical_z_image_wide
    p = 10.0 ** -significance.image_wide_neg_log_10_p(np.array([tail.critical_z]), tail)[0]
    assert numbers["image_wide_p_of_published"] == pytest.approx(p)
    assert (p > 1e-3) == (tail.critical_z < tail.critical_z_image_wide)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--draws", "5"], "too few"),
        (["--significance-level", "0"], "outside (0, 1)"),
        (["--significance-level", "1.5"], "outside (0, 1)"),
        (["--significance", "other"], "invalid choice"),
        (["--seed", "-1"], "negative"),
    ],
)
def test_options_out_of_range(run_stage, dataset, tmp_path, options, message):
    done = run_stage("image_tail", "--dataset", dataset, "--out", tmp_path / "t.h5", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert files_in(tmp_path) == set()


@pytest.mark.parametrize("content", [None, b"", b"not HDF5", "cut"])
def test_dataset_that_is_none(run_stage, dataset, tmp_path, content):
    path = tmp_path / "in" / "study.rvga.h5"
    path.parent.mkdir()
    if content is not None:
        whole = dataset.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content == "cut" else content)
    out = tmp_path / "out"
    out.mkdir()
    done = run_stage("image_tail", "--dataset", path, "--out", out / "t.h5")
    assert done.returncode == 2
    assert "study.rvga.h5" in done.stderr
    assert "Traceback" not in done.stderr
    assert files_in(out) == set()
