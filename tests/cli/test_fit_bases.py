"""FIT_BASES: bases against the oracle, byte identity, and bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest

import oracles
import rvga_fit_bases
from helpers import files_in, run_stage, selected_study
from rvga import formats


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return selected_study(tmp_path_factory.mktemp("study"))


def fit(study, out, *options):
    """Run FIT_BASES."""
    _, images, subjects = study
    given = ("--images", images) if "--images" not in options else ()
    return run_stage("fit_bases", *given, "--subjects", subjects, *options, "--out", out)


def raw(study):
    """Return the images in the sample's order."""
    files = study[0]
    order = np.argsort(files.subjects)
    return files.volumes[order][:, files.inside].astype(float)


def test_components_of_smoothed_images_equal_the_oracle(study, tmp_path):
    done = fit(study, tmp_path / "b.h5", "--components", 5, "--summary", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    X = raw(study)
    coordinates = np.argwhere(study[0].inside) * 2.0
    with formats.open_file(tmp_path / "b.h5", "bases") as found:
        h = found.attributes["bandwidth"]
        scores = dict(
            zip(found["candidate_bandwidths"][...], found["candidate_scores"][...], strict=True)
        )
        for bandwidth, score in scores.items():
            if np.isfinite(score):
                W = oracles.local_linear_weights(coordinates, bandwidth)
                assert score == pytest.approx(oracles.gcv_score(X, W), rel=1e-8)
        assert h == min((b for b in scores if np.isfinite(scores[b])), key=scores.get)
        smoothed = X @ oracles.local_linear_weights(coordinates, h).T
        bases, eigenvalues = oracles.principal_components(smoothed, 5)
        np.testing.assert_allclose(found["bases"][...], bases, atol=2e-6)
        k = found["eigenvalues"].shape[0]
        np.testing.assert_allclose(
            found["eigenvalues"][:10], eigenvalues[:10], rtol=1e-5, atol=1e-6 * eigenvalues[0]
        )
        assert k >= 10
        np.testing.assert_allclose(found["mean"][...], smoothed.mean(axis=0), rtol=1e-7)
        assert found.attributes["total_variance"] == pytest.approx(eigenvalues.sum(), rel=1e-6)
        n_eff = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
        assert found.attributes["n_eff"] == pytest.approx(n_eff, rel=1e-6)
        B = found["bases"][...].astype(float)
        np.testing.assert_allclose(B.T @ B, np.eye(5), atol=1e-6)
    numbers = json.loads((tmp_path / "b.json").read_text())["numbers"]
    assert numbers["r"] == 5
    assert numbers["bandwidth"] == h
    assert len(numbers["candidates"]) == len(scores)


def test_without_smoothing(study, tmp_path):
    done = fit(study, tmp_path / "b.h5", "--components", 4, "--bandwidth", "none")
    assert done.returncode == 0, done.stderr
    bases, _ = oracles.principal_components(raw(study), 4)
    with formats.open_file(tmp_path / "b.h5", "bases") as found:
        np.testing.assert_allclose(found["bases"][...], bases, atol=2e-6)
        assert found.attributes["bandwidth"] == 0
        assert found["candidate_scores"].shape == (0,)


def test_a_bandwidth_that_is_given(study, tmp_path):
    done = fit(study, tmp_path / "b.h5", "--components", 4, "--bandwidth", "1.9")
    assert done.returncode == 0, done.stderr
    W = oracles.local_linear_weights(np.argwhere(study[0].inside) * 2.0, 1.9)
    bases, _ = oracles.principal_components(raw(study) @ W.T, 4)
    with formats.open_file(tmp_path / "b.h5", "bases") as found:
        np.testing.assert_allclose(found["bases"][...], bases, atol=2e-6)


def test_components_by_variance(study, tmp_path):
    done = fit(study, tmp_path / "b.h5", "--components-variance", "0.9", "--bandwidth", "none")
    assert done.returncode == 0, done.stderr
    _, eigenvalues = oracles.principal_components(raw(study), 1)
    cumulated = np.cumsum(eigenvalues) / eigenvalues.sum()
    with formats.open_file(tmp_path / "b.h5", "bases") as found:
        assert found["bases"].shape[1] == np.count_nonzero(cumulated < 0.9) + 1


def test_bytes_do_not_depend_on_batches_or_threads(study, tmp_path):
    files, images, _ = study
    one, two = tmp_path / "one.h5", tmp_path / "two.h5"
    for path, rows in ((one, range(17, -1, -1)), (two, range(18, 24))):
        assert files.read_images(path, list(rows)).returncode == 0
    found = set()
    for batches, threads in (([images], 1), ([one, two], 2), ([two, one], 1)):
        done = fit(study, tmp_path / "b.h5", "--images", batches, "--threads", threads)
        assert done.returncode == 0, done.stderr
        found.add((tmp_path / "b.h5").read_bytes())
    assert len(found) == 1


def test_bytes_do_not_depend_on_where_the_smoothed_images_are_held(study, tmp_path, monkeypatch):
    _, images, subjects = study
    found = set()
    for limit in (1 << 30, 0):
        monkeypatch.setattr(rvga_fit_bases, "IN_MEMORY_BYTES", limit)
        words = ["--images", images, "--subjects", subjects, "--out", tmp_path / "b.h5"]
        rvga_fit_bases.main([*map(str, words), "--threads", "1"])
        found.add((tmp_path / "b.h5").read_bytes())
    assert len(found) == 1
    assert files_in(tmp_path) == {"b.h5"}


def test_the_seed_draws_the_images_for_the_bandwidth(study, tmp_path):
    scores = []
    for seed in (1, 1, 2):
        done = fit(study, tmp_path / "b.h5", "--seed", seed, "--bandwidth-subjects", 8)
        assert done.returncode == 0, done.stderr
        with formats.open_file(tmp_path / "b.h5", "bases") as found:
            scores.append(found["candidate_scores"][...].tobytes())
    assert scores[0] == scores[1] != scores[2]


def test_files_of_different_runs_are_refused(study, tmp_path):
    other, images, _ = selected_study(tmp_path / "other", n=30)
    before = files_in(tmp_path)
    done = fit(study, tmp_path / "b.h5", "--images", images)
    assert done.returncode == 2
    assert "subjects.h5 was not made from these images files" in done.stderr
    assert files_in(tmp_path) == before
    assert len(other.subjects) == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--components", 24), "components: 24 asked for, but 24 images of 116 voxels hold only"),
        (("--components", -1), "-1 is less than 0"),
        (("--components-variance", 0), "0 is outside (0, 1]"),
        (("--components-variance", 1.1), "1.1 is outside (0, 1]"),
        (("--bandwidth", "wide"), "'wide' is neither auto, none nor a number above 0"),
        (("--bandwidth", "-1"), "'-1' is neither auto, none nor a number above 0"),
    ],
)
def test_options_out_of_range(study, tmp_path, options, message):
    done = fit(study, tmp_path / "b.h5", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert files_in(tmp_path) == set()
