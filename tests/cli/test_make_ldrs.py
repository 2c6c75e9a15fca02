"""MAKE_LDRS: representations of the raw images, their quality, and bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers import files_in, run_stage, selected_study
from rvga import formats, tables


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    files, images, subjects = selected_study(folder)
    bases = folder / "bases.h5"
    done = run_stage(
        "fit_bases",
        *("--images", images, "--subjects", subjects, "--components", 6, "--out", bases),
    )
    assert done.returncode == 0, done.stderr
    return files, images, subjects, bases


def make(study, folder, images=None, subjects=None, *options):
    """Run MAKE_LDRS."""
    return run_stage(
        "make_ldrs",
        *("--images", images or study[1], "--subjects", subjects or study[2]),
        *("--bases", study[3], "--out", folder / "ldrs.h5", "--table", folder / "ldrs.tsv"),
        *options,
    )


def test_ldrs_and_quality_are_of_the_raw_images(study, tmp_path):
    done = make(study, tmp_path, None, None, "--summary", tmp_path / "x.json")
    assert done.returncode == 0, done.stderr
    files = study[0]
    order = np.argsort(files.subjects)
    X = files.volumes[order][:, files.inside].astype(float)
    with formats.open_file(study[3], "bases") as based:
        B = based["bases"][...].astype(float)
    with formats.open_file(tmp_path / "ldrs.h5", "ldrs") as found:
        S = found["ldrs"][...]
        np.testing.assert_allclose(S, X @ B, rtol=1e-12, atol=1e-10)
        assert found.array("subject").tolist() == sorted(files.subjects)
        assert found["quality_components"][...].tolist() == [1, 2, 5, 6]
        for q, value in zip((1, 2, 5, 6), found["quality_correlation"][...], strict=True):
            each = [np.corrcoef(x, B[:, :q] @ (B[:, :q].T @ x))[0, 1] for x in X]
            assert value == pytest.approx(np.mean(each), abs=1e-6)
    table = tables.read_table(tmp_path / "ldrs.tsv", "ldrs")
    assert list(table.columns) == ["subject", *(f"LDR{k}" for k in range(1, 7))]
    assert table["subject"].tolist() == sorted(files.subjects)
    np.testing.assert_allclose(table.iloc[:, 1:], S, rtol=1e-7)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text)["numbers"]["quality_components"] == [1, 2, 5, 6]
    assert not any(subject in text for subject in files.subjects)


def test_bytes_do_not_depend_on_batches_or_threads(study, tmp_path):
    files = study[0]
    one, two = tmp_path / "one.h5", tmp_path / "two.h5"
    for path, rows in ((one, range(20, -1, -1)), (two, range(21, 24))):
        assert files.read_images(path, list(rows)).returncode == 0
    found = set()
    for images, threads in (([study[1]], 1), ([one, two], 2), ([two, one], 1)):
        done = make(study, tmp_path, images, None, "--threads", threads)
        assert done.returncode == 0, done.stderr
        found.add((tmp_path / "ldrs.h5").read_bytes() + (tmp_path / "ldrs.tsv").read_bytes())
    assert len(found) == 1


def test_files_of_different_runs_are_refused(study, tmp_path):
    _, images, subjects = selected_study(tmp_path / "other", n=20)
    before = files_in(tmp_path)
    done = make(study, tmp_path, None, subjects)
    assert done.returncode == 2
    assert "bases.h5 was not made from subjects.h5" in done.stderr
    done = make(study, tmp_path, images)
    assert done.returncode == 2
    assert "is in none of the images files" in done.stderr
    assert files_in(tmp_path) == before


def test_a_damaged_file_is_refused(study, tmp_path):
    short = tmp_path / "subjects.h5"
    short.write_bytes(study[2].read_bytes()[:-200])
    done = make(study, tmp_path, None, short)
    assert done.returncode == 2
    assert "not a readable HDF5 file" in done.stderr
    assert files_in(tmp_path) == {"subjects.h5"}
