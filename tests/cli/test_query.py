"""rvga query: maps, GWAS-SSF tables and regions, and what is refused."""

from __future__ import annotations

import contextlib
import gzip
import os
import subprocess
import sys

import nibabel
import numpy as np
import pandas as pd
import pytest

import helpers
from rvga import command
from rvga.dataset import MinimalDataset
from rvga.tables import read_table
from small_study import hard_calls, make_study, run_dataset, run_here, subject_names, write_pgen

N = 120


@pytest.fixture(scope="module")
def dataset_path(tmp_path_factory):
    """Return a dataset of 40 variants on chromosome 3."""
    folder = tmp_path_factory.mktemp("study")
    study = make_study(folder, N)
    main = write_pgen(folder / "a", hard_calls(40, N, seed=2), subject_names(N), "3")
    return run_dataset(folder, study, [main], "--minor-allele-count", "5")


def rvga(*words, cwd):
    """Run the command in a folder, within this process."""
    with contextlib.chdir(cwd):
        return run_here(command.dispatch, *words)


def rvga_process(*words, cwd):
    """Run the command as its own process."""
    return subprocess.run(
        [sys.executable, "-m", "rvga.command", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(helpers.BIN)},
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("statistic", ["z", "beta", "standard_error", "neg_log_10_p_value"])
def test_variant_map(dataset_path, tmp_path, statistic):
    done = rvga(
        "query", dataset_path, "variant", "rs1050", "--statistic", statistic, "--out", "m.nii.gz",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "effect allele G, other allele A" in done.stderr
    image = nibabel.load(tmp_path / "m.nii.gz")
    with MinimalDataset.open(dataset_path) as dataset:
        expected = dataset.variant("rs1050")[statistic]
        index = tuple(dataset.geometry.index.T)
        np.testing.assert_array_equal(image.affine, dataset.geometry.affine)
    volume = image.get_fdata()
    np.testing.assert_allclose(volume[index], expected, rtol=1e-6)
    assert np.isfinite(volume).sum() == len(expected)


def test_variant_table(dataset_path, tmp_path):
    done = rvga_process(
        "query", dataset_path, "variant", "3:1050:A:G", "--out", "t.tsv", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    table = read_table(tmp_path / "t.tsv", "variant_query")
    with MinimalDataset.open(dataset_path) as dataset:
        np.testing.assert_allclose(table["z"], dataset.variant("rs1050")["z"], rtol=1e-6)


def test_voxel_is_written_as_gwas_ssf(dataset_path, tmp_path):
    done = rvga(
        "query", dataset_path, "voxel", 17, "--date", "2026-02-03", "--trait", "thickness",
        "--out", "g.tsv.gz", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "g.tsv.gz", sep="\t")
    with MinimalDataset.open(dataset_path) as dataset:
        expected = dataset.voxel(17)
    np.testing.assert_allclose(table["beta"], expected["beta"], rtol=1e-6)
    np.testing.assert_allclose(
        table["p_value"], 10 ** -expected["neg_log_10_p_value"].to_numpy(), rtol=1e-6
    )
    text = (tmp_path / "g.tsv.gz-meta.yaml").read_text()
    assert "date_metadata_last_modified: 2026-02-03" in text
    assert '  - "thickness"' in text


@pytest.mark.parametrize("words", [["--mm", "-1,0.4,2.3"], ["--mm=-1,0.4,2.3"]])
def test_voxel_by_coordinates(dataset_path, tmp_path, words):
    done = rvga("query", dataset_path, "voxel", *words, "--out", "g.tsv.gz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with MinimalDataset.open(dataset_path) as dataset:
        voxel = dataset.nearest_voxel((-1, 0.4, 2.3))
        expected = dataset.voxel(voxel)["beta"]
    assert f"voxel {voxel} at 0, 0, 2 mm" in done.stderr
    with gzip.open(tmp_path / "g.tsv.gz", "rt") as handle:
        np.testing.assert_allclose(pd.read_csv(handle, sep="\t")["beta"], expected, rtol=1e-6)


def test_region(dataset_path, tmp_path):
    with MinimalDataset.open(dataset_path) as dataset:
        view = dataset.region("3", 1100, 1200)
        lead, voxel = view.lead_voxels(), view.voxel(4)
    done = rvga("query", dataset_path, "region", "chr3:1,100-1,200", "--out", "r.tsv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = read_table(tmp_path / "r.tsv", "region_query")
    assert table["lead_voxel"].tolist() == lead["lead_voxel"].tolist()
    np.testing.assert_allclose(table["z"], lead["z"], rtol=1e-6)
    done = rvga(
        "query", dataset_path, "region", "3:1100-1200", "--voxel", 4, "--out", "v.tsv.gz",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = read_table(tmp_path / "v.tsv.gz", "region_voxel_query")
    np.testing.assert_allclose(table["beta"], voxel["beta"], rtol=1e-6)
    assert table["chromosome"].tolist() == ["3"] * len(voxel)


def test_info(dataset_path, tmp_path):
    done = rvga("query", dataset_path, "info", cwd=tmp_path)
    assert done.returncode == 0
    rows = dict(line.split("\t") for line in done.stdout.splitlines())
    assert rows["subjects"] == "120"
    assert rows["voxels"] == "40"
    assert rows["components"] == "5"
    assert rows["chromosome_3"].endswith(" of 40")
    with MinimalDataset.open(dataset_path) as dataset:
        low, high = dataset.coordinates[:, 1].min(), dataset.coordinates[:, 1].max()
    assert rows["y_mm"] == f"{low:g} to {high:g}"


def test_a_point_outside_the_image_is_warned_of(dataset_path, tmp_path):
    done = rvga("query", dataset_path, "voxel", "--mm", "900,0,0", "--out", "g.tsv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "WARNING: the point 900,0,0 lies outside the image" in done.stderr


def test_mistake_ends_the_process_with_status_2(tmp_path):
    done = rvga_process("query", "nowhere.rvga.h5", "info", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "ERROR: nowhere.rvga.h5: no such file\n"


def test_help_names_the_tasks(tmp_path):
    done = rvga_process("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "query" in done.stdout
    assert "simulate" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["variant", "rs1", "--out", "m.nii.gz"], "holds no variant 'rs1'"),
        (["variant", "rs1050", "--out", "m.png"], "m.png: the name of --out must end in .nii"),
        (["variant", "rs1050", "--statistic", "t", "--out", "m.nii"], "invalid choice: 't'"),
        (["voxel", "40", "--out", "g.tsv"], "voxel 40 does not exist"),
        (["voxel", "-1", "--out", "g.tsv"], "voxel -1 does not exist"),
        (["voxel", "x", "--out", "g.tsv"], "invalid int value"),
        (["voxel", "--out", "g.tsv"], "which voxel?"),
        (["voxel", "3", "--mm", "1,2,3", "--out", "g.tsv"], "give one of them"),
        (["voxel", "--mm", "1,2", "--out", "g.tsv"], "3 finite coordinates in millimetres are due"),
        (["voxel", "--mm", "1,two,3", "--out", "g.tsv"], "is not x,y,z"),
        (["voxel", "3", "--out", "g.csv"], "g.csv: the name of --out must end in .tsv"),
        (["voxel", "3", "--date", "yesterday", "--out", "g.tsv"], "'yesterday' is no date"),
        (["region", "3", "--out", "r.tsv"], "is not chromosome:start-end"),
        (["region", "1:,-,", "--out", "r.tsv"], "region '1:,-,' is not chromosome:start-end"),
        (["region", f"1:1-{'9' * 5000}", "--out", "r.tsv"], "is not chromosome:start-end"),
        (["region", "Q:1-2", "--out", "r.tsv"], "chromosome 'Q' is unknown"),
        (["region", "3:9-2", "--out", "r.tsv"], "start must not be after"),
        (["region", "4:1-2", "--out", "r.tsv"], "holds no variant in 4:1-2"),
        (["region", "3:1-9999", "--voxel", "99", "--out", "r.tsv"], "voxel 99 does not exist"),
        (["region", "3:1-9999"], "required: --out"),
        ([], "required: WHAT"),
    ],
)
def test_mistakes(dataset_path, tmp_path, words, message):
    done = rvga("query", dataset_path, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("ERROR: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, b"", b"\x89HDF\r\n\x1a\n cut", b"text"])
def test_file_that_is_no_dataset(tmp_path, content):
    path = tmp_path / "x.rvga.h5"
    if content is not None:
        path.write_bytes(content)
    done = rvga("query", path, "info", cwd=tmp_path)
    assert done.returncode == 2
    assert "x.rvga.h5: " in done.stderr


def test_chunk_is_refused(tmp_path):
    from small_study import run_chunks

    study = make_study(tmp_path, N)
    main = write_pgen(tmp_path / "a", hard_calls(40, N, seed=2), subject_names(N), "3")
    chunk = run_chunks(tmp_path, study, [main])[0]
    done = rvga("query", chunk, "info", cwd=tmp_path)
    assert done.returncode == 2
    assert "it is a chunk of the component GWAS" in done.stderr
