"""FIT_BASES: bases against the oracle, byte identity, and bad input."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

import oracles
import rvga_fit_bases
from helpers import files_in, make_image_study, run_stage, selected_study, write_nifti
from rvga import formats, fpca, smoothing
from rvga.errors import InputError
from rvga.geometry import Geometry, Layout

AFFINE = np.array([[2.0, 0, 0, -5], [0, 2, 0, -4], [0, 0, 2, -3], [0, 0, 0, 1]])


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


def test_a_given_bandwidth_with_too_many_weights_is_refused(study, tmp_path, monkeypatch):
    _, images, subjects = study
    words = ["--images", images, "--subjects", subjects, "--components", 4]
    words = [*map(str, words), "--out", str(tmp_path / "b.h5"), "--bandwidth"]
    monkeypatch.setattr(smoothing, "most_in_window", lambda N: 40.0)

    def never(*_, **__):
        raise AssertionError

    with monkeypatch.context() as patched:
        patched.setattr(smoothing, "smoothing_weights", never)
        message = r"bandwidth: 1e\+06 was given, but 116 voxels .* give at most [0-9.]+, or auto"
        with pytest.raises(InputError, match=message) as refused:
            rvga_fit_bases.main([*words, "1e6"])
    assert files_in(tmp_path) == set()
    largest = str(refused.value).split("at most ")[1].split(",")[0]
    rvga_fit_bases.main([*words, largest])
    with pytest.raises(InputError, match="correct the coordinates, which many voxels share"):
        rvga_fit_bases.require_window(2.0, smoothing.Cloud(np.zeros((50, 3))))


def test_components_by_variance(study, tmp_path):
    done = fit(study, tmp_path / "b.h5", "--components-variance", "0.9", "--bandwidth", "none")
    assert done.returncode == 0, done.stderr
    _, eigenvalues = oracles.principal_components(raw(study), 1)
    cumulated = np.cumsum(eigenvalues) / eigenvalues.sum()
    with formats.open_file(tmp_path / "b.h5", "bases") as found:
        assert found["bases"].shape[1] == np.count_nonzero(cumulated < 0.9) + 1


def test_components_by_reconstruction_correlation(study, tmp_path):
    X = raw(study)
    bases, _ = oracles.principal_components(X, 20)

    def correlation(q):
        B = bases[:, :q]
        return np.mean([np.corrcoef(x, B @ (B.T @ x))[0, 1] for x in X])

    target = 0.5 * (correlation(4) + correlation(3))
    options = ("--components-correlation", target, "--bandwidth", "none")
    done = fit(study, tmp_path / "b.h5", *options)
    assert done.returncode == 0, done.stderr
    expected = next(q for q in range(1, 21) if correlation(q) >= target)
    with formats.open_file(tmp_path / "b.h5", "bases") as found:
        assert found["bases"].shape[1] == expected
    done = fit(study, tmp_path / "b.h5", "--components-correlation", 0.99999)
    assert done.returncode == 2
    assert "0.99999 asked for, but all 23 components that can be found reach 0." in done.stderr
    assert "mean image outside the bases counts too); use components or comp" in done.stderr
    assert "bandwidth)" not in done.stderr


def by_correlation(target, X, bases, sizes):
    """Return how many components images need that come in blocks of these sizes."""
    stops = np.cumsum(sizes)
    sample = SimpleNamespace(N=X.shape[1], blocks=lambda _: np.split(X, stops[:-1]))

    def explore(number):
        return SimpleNamespace(bases=bases[:, :number])

    return rvga_fit_bases.by_correlation(target, explore, bases.shape[1], sample, [])


def test_correlation_with_a_constant_image_alone_in_a_block(capsys):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(9, 60)) * 3 + 1
    X[8] = 2.0
    bases, _ = np.linalg.qr(rng.normal(size=(60, 40)))
    rest = X[:8]
    means = [
        np.mean([np.corrcoef(x, bases[:, :q] @ (x @ bases[:, :q]))[0, 1] for x in rest])
        for q in range(1, 41)
    ]
    for q in (3, 37):
        target = means[q - 1] - 1e-9
        expected = 1 + next(k for k, mean in enumerate(means) if mean >= target)
        for sizes in ([9], [4, 4, 1], [1, 6, 2]):
            assert by_correlation(target, X, bases, sizes) == expected
    assert "1 of 9 images do not count" in capsys.readouterr().err
    with pytest.raises(InputError, match=f"all 40 components .* reach {means[-1]:.3f} "):
        by_correlation(0.999, X, bases, [4, 4, 1])


def test_correlation_where_no_image_has_one():
    X = np.outer(np.arange(1.0, 5), np.ones(60))
    bases, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(60, 4)))
    with pytest.raises(InputError, match=r"none of the 4 images .* has a correlation"):
        by_correlation(0.5, X, bases, [3, 1])


def krylov(monkeypatch, study, out, *options, images=None):
    """Run FIT_BASES by the streamed way, in this process."""
    monkeypatch.setattr(fpca, "EXACT_SIDE", 5)
    monkeypatch.setattr(fpca, "block_size", lambda number: 4)
    _, made, subjects = study
    words = ["--images", *(images or [made]), "--subjects", subjects, "--out", out]
    rvga_fit_bases.main([*map(str, words), *map(str, options)])


def test_streamed_components_equal_exact_ones(study, tmp_path, monkeypatch):
    summary = tmp_path / "x.json"
    done = fit(study, tmp_path / "exact.h5", "--components", 4, "--bandwidth", "2.1")
    assert done.returncode == 0, done.stderr
    krylov(
        monkeypatch, study, tmp_path / "b.h5", "--components", 4, "--bandwidth", 2.1,
        "--threads", 1, "--summary", summary,
    )  # fmt: skip
    with (
        formats.open_file(tmp_path / "exact.h5", "bases") as exact,
        formats.open_file(tmp_path / "b.h5", "bases") as found,
    ):
        np.testing.assert_allclose(found["bases"][...], exact["bases"][...], atol=2e-6)
        np.testing.assert_allclose(found["eigenvalues"][...], exact["eigenvalues"][:4], rtol=1e-6)
        total = exact.attributes["total_variance"]
        assert found.attributes["total_variance"] == pytest.approx(total, rel=1e-6)
        np.testing.assert_allclose(found["mean"][...], exact["mean"][...], rtol=1e-12)
        assert found["residual"][...].max() < 1e-4
        n_eff = exact.attributes["n_eff"]
    numbers = json.loads(summary.read_text())["numbers"]
    assert numbers["decomposition"] == "krylov"
    assert numbers["passes"] > 1
    assert numbers["subspace_angle"] <= fpca.ANGLE_TOLERANCE
    error = max(5 * numbers["n_eff_standard_error"], 1e-5 * n_eff)
    assert numbers["n_eff"] == pytest.approx(n_eff, abs=error)


def test_streamed_components_of_some_of_the_voxels_equal_exact_ones(tmp_path, monkeypatch):
    files = make_image_study(tmp_path, n=24)
    place = tuple(np.argwhere(files.inside)[5])
    for path, volume in zip(files.images, files.volumes, strict=True):
        volume[place] = 1.0
        write_nifti(path, volume, AFFINE)
    images, subjects = tmp_path / "images.h5", tmp_path / "subjects.h5"
    for done in (files.read_images(images), files.select([images], subjects)):
        assert done.returncode == 0, done.stderr
    study, options = (files, images, subjects), ("--components", 3, "--bandwidth", "none")
    done = fit(study, tmp_path / "exact.h5", *options)
    assert done.returncode == 0, done.stderr
    krylov(monkeypatch, study, tmp_path / "b.h5", *options)
    with (
        formats.open_file(tmp_path / "exact.h5", "bases") as exact,
        formats.open_file(tmp_path / "b.h5", "bases") as found,
    ):
        assert len(found["bases"]) == files.inside.sum() - 1
        np.testing.assert_allclose(found["bases"][...], exact["bases"][...], atol=2e-6)
        np.testing.assert_allclose(found["eigenvalues"][...], exact["eigenvalues"][:3], rtol=1e-6)


def test_streamed_bytes_do_not_depend_on_batches_or_threads(study, tmp_path, monkeypatch):
    files, images, _ = study
    one, two = tmp_path / "one.h5", tmp_path / "two.h5"
    for path, rows in ((one, range(17, -1, -1)), (two, range(18, 24))):
        assert files.read_images(path, list(rows)).returncode == 0
    found = set()
    for batches, threads in (([images], 1), ([one, two], 2), ([two, one], 1)):
        options = ("--components", 3, "--bandwidth", "2.1", "--threads", threads)
        krylov(monkeypatch, study, tmp_path / "b.h5", *options, images=batches)
        found.add((tmp_path / "b.h5").read_bytes())
    assert len(found) == 1


def test_streamed_components_by_correlation_and_share(study, tmp_path, monkeypatch):
    for options in (("--components-correlation", 0.3), ("--components-variance", 0.5)):
        done = fit(study, tmp_path / "exact.h5", "--bandwidth", "none", *options)
        assert done.returncode == 0, done.stderr
        krylov(monkeypatch, study, tmp_path / "b.h5", "--bandwidth", "none", *options)
        with (
            formats.open_file(tmp_path / "exact.h5", "bases") as exact,
            formats.open_file(tmp_path / "b.h5", "bases") as found,
        ):
            assert found["bases"].shape == exact["bases"].shape


def test_fewer_voxels_than_subjects(tmp_path):
    study = selected_study(tmp_path / "study", n=150)
    done = fit(study, tmp_path / "b.h5", "--components", 5, "--bandwidth", "1.9")
    assert done.returncode == 0, done.stderr
    W = oracles.local_linear_weights(np.argwhere(study[0].inside) * 2.0, 1.9)
    bases, eigenvalues = oracles.principal_components(raw(study) @ W.T, 5)
    with formats.open_file(tmp_path / "b.h5", "bases") as found:
        np.testing.assert_allclose(found["bases"][...], bases, atol=2e-6)
        k = found["eigenvalues"].shape[0]
        np.testing.assert_allclose(found["eigenvalues"][...], eigenvalues[:k], rtol=1e-6)


def test_voxels_on_surfaces_and_elsewhere_are_different_spaces():
    # Two features on one surface of four vertices, then two voxels in space.
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    triangles = np.array([[0, 1, 2], [1, 3, 2]])
    geometry = Geometry(
        affine=None,
        shape=None,
        index=None,
        type="joined",
        layouts=(
            Layout(name="a", type="surface", suffix=".func.gii", n_vertices=4),
            Layout(name="b", type="surface", suffix=".func.gii", n_vertices=4),
            Layout(name="c", affine=np.eye(4).tolist(), shape=[2, 2, 2]),
        ),
        part_index=np.array([0, 0, 0, 1, 1, 1, 1, 2, 2], dtype=np.int16),
        position=np.array([0, 1, 2, 0, 1, 2, 3, 0, 1]),
        places=np.vstack([vertices[:3], vertices, [[0, 0, 0], [0, 0, 1.0]]]),
        vertex=np.array([0, 1, 2, 0, 1, 2, 3, -1, -1]),
        vertices=vertices,
        triangles=triangles,
    )
    W = smoothing.smoothing_weights(rvga_fit_bases.space_of(geometry, "geodesic"), 2.0).toarray()
    for first, stop in ((0, 3), (3, 7), (7, 9)):
        own = np.zeros(9, dtype=bool)
        own[first:stop] = True
        assert not W[own][:, ~own].any()
        np.testing.assert_allclose(W[own].sum(axis=1), 1, atol=0.35)
    assert np.count_nonzero(W[3]) > 1
    straight = rvga_fit_bases.space_of(geometry, "euclidean")
    assert isinstance(straight, smoothing.Cloud)


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
        (("--components-correlation", 1), "1 is outside [0, 1)"),
        (("--surface-distance", "straight"), "invalid choice: 'straight'"),
        (("--bandwidth", "-1"), "'-1' is neither auto, none nor a number above 0"),
    ],
)
def test_options_out_of_range(study, tmp_path, options, message):
    done = fit(study, tmp_path / "b.h5", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert files_in(tmp_path) == set()


def test_images_without_coordinates_are_not_smoothed():
    layout = Layout(type="table", suffix=".map.tsv", smoothable=False)
    geometry = Geometry(
        affine=None,
        shape=None,
        index=None,
        type="table",
        layouts=(layout,),
        position=np.arange(3),
        places=np.arange(3.0)[:, None],
        name=np.array(["a", "b", "c"], dtype=object),
    )
    choice = rvga_fit_bases.choose(SimpleNamespace(bandwidth="auto"), None, [], geometry)
    assert choice.bandwidth == 0
    assert "no coordinates to smooth by: they are not smoothed" in choice.warnings[0]
    with pytest.raises(InputError, match="bandwidth: 2 was given, but the images have no coordi"):
        rvga_fit_bases.choose(SimpleNamespace(bandwidth=2.0), None, [], geometry)
    none = rvga_fit_bases.choose(SimpleNamespace(bandwidth="none"), None, [], geometry)
    assert (none.bandwidth, none.warnings) == (0, [])
