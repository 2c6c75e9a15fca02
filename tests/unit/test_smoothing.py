"""Smoothing weights and the choice of the bandwidth, against slow oracles."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import oracles
from rvga import smoothing
from rvga.errors import InputError


def points(d: int, seed: int = 0) -> np.ndarray:
    """Return an irregular set of points: a grid with holes, moved a little."""
    rng = np.random.default_rng(seed)
    size = {1: 60, 2: 11, 3: 6}[d]
    grid = np.indices((size,) * d).reshape(d, -1).T.astype(float)
    grid = grid[rng.random(len(grid)) < 0.8]
    return grid * 2.0 + 0.2 * rng.normal(size=grid.shape)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("bandwidth", [0.6, 2.0, 7.0])
def test_weights_equal_the_dense_formula(d, bandwidth):
    coordinates = points(d)
    W = smoothing.smoothing_weights(coordinates, bandwidth)
    expected = oracles.local_linear_weights(coordinates, bandwidth)
    np.testing.assert_allclose(W.toarray(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("multiple", [0.5, 1.0])
def test_weights_on_a_grid_whose_voxels_lie_on_the_windows_border(multiple):
    # At 0.5 times the spacing, the second neighbour lies exactly 4h away.
    index = np.indices((5, 5, 4)).reshape(3, -1).T
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    plain = index * 1.7
    for coordinates in (plain, plain + 1234.567):
        W = smoothing.smoothing_weights(coordinates, 1.7 * multiple)
        expected = oracles.local_linear_weights(plain, 1.7 * multiple)
        np.testing.assert_allclose(W.toarray(), expected, rtol=0, atol=1e-10)
    turned = smoothing.smoothing_weights(plain @ turn, 1.7 * multiple)
    expected = oracles.local_linear_weights(plain @ turn, 1.7 * multiple)
    np.testing.assert_allclose(turned.toarray(), expected, rtol=0, atol=1e-10)


def test_flat_sheets_and_lone_voxels_are_smoothed_like_what_they_are():
    sheet = np.indices((7, 7)).reshape(2, -1).T.astype(float)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    embedded = np.column_stack([sheet, np.full(len(sheet), 5.0)])
    flat = smoothing.smoothing_weights(sheet, 0.8).toarray()
    np.testing.assert_allclose(
        smoothing.smoothing_weights(embedded, 0.8).toarray(), flat, rtol=0, atol=1e-10
    )
    lone = np.vstack([embedded, [[100.0, 100.0, 100.0]]]) @ turn
    W = smoothing.smoothing_weights(lone, 0.8).toarray()
    assert W[-1, -1] == pytest.approx(1.0, abs=1e-12)
    assert np.count_nonzero(W[-1]) == 1


def test_linear_images_are_reproduced():
    # With few voxels the weights below 1/N are those that matter least: none is dropped here.
    coordinates = np.arange(40.0)[:, None]
    W = smoothing.smoothing_weights(coordinates, 0.5)
    image = 3.0 + 2.0 * coordinates[:, 0]
    dropped = np.abs(1 - W.sum(axis=1)).max()
    assert dropped < 1e-3
    smooth = smoothing.smooth(image[None], W)[0]
    np.testing.assert_allclose(smooth, image, atol=dropped * np.abs(image).max() + 1e-9)


def test_weights_and_smoothing_do_not_depend_on_workers():
    coordinates = points(3)
    one, two = (smoothing.smoothing_weights(coordinates, 2.0, workers=w) for w in (1, 2))
    assert one.data.tobytes() == two.data.tobytes()
    X = np.random.default_rng(0).normal(size=(9, len(coordinates)))
    assert smoothing.smooth(X, one).tobytes() == smoothing.smooth(X, one, workers=2).tobytes()
    np.testing.assert_allclose(smoothing.smooth(X, one), X @ one.toarray().T, atol=1e-12)


def smooth_images(coordinates: np.ndarray, noise: float, length: float, n: int = 30):
    """Return images (n, N): a smooth random field and white noise."""
    rng = np.random.default_rng(5)
    apart = ((coordinates[:, None] - coordinates[None]) ** 2).sum(axis=2)
    covariance = np.exp(-apart / (2 * length**2)) + 1e-9 * np.eye(len(coordinates))
    signal = rng.normal(size=(n, len(coordinates))) @ np.linalg.cholesky(covariance).T
    return signal + noise * rng.normal(size=signal.shape)


@pytest.mark.parametrize(("noise", "length"), [(0.05, 2.0), (1.0, 3.0), (2.0, 8.0)])
def test_chosen_bandwidth_is_the_brute_force_minimum(noise, length):
    coordinates = np.indices((14, 14)).reshape(2, -1).T.astype(float)
    X = smooth_images(coordinates, noise, length)
    choice = smoothing.choose_bandwidth(coordinates, lambda: iter([X[:20], X[20:]]))
    scores = {}
    for candidate in choice.candidates:
        W = oracles.local_linear_weights(coordinates, candidate.bandwidth)
        if 1 - np.trace(W) / len(W) < 0.05:
            assert candidate.skipped
            continue
        scores[candidate.bandwidth] = oracles.gcv_score(X, W)
        assert candidate.score == pytest.approx(scores[candidate.bandwidth], rel=1e-9)
    assert choice.bandwidth == min(scores, key=scores.get)
    assert {0.5, 0.75, 1.0, 1.5, 2.0, 3.0} <= {c.bandwidth for c in choice.candidates}


def test_the_grid_is_extended_while_the_winner_is_at_the_edge():
    coordinates = np.arange(300.0)[:, None] * 2.5
    X = smooth_images(coordinates, noise=3.0, length=60.0)
    choice = smoothing.choose_bandwidth(coordinates, lambda: iter([X]))
    assert choice.bandwidth > 3 * 2.5
    assert choice.candidates[-1].bandwidth > choice.bandwidth
    assert choice.warnings == []


def test_units_of_the_coordinates_do_not_matter():
    coordinates = np.indices((12, 12)).reshape(2, -1).T.astype(float)
    X = smooth_images(coordinates, 1.0, 3.0)
    millimetres = smoothing.choose_bandwidth(coordinates, lambda: iter([X]))
    metres = smoothing.choose_bandwidth(coordinates / 1000, lambda: iter([X]))
    assert metres.bandwidth * 1000 == pytest.approx(millimetres.bandwidth)


def test_the_search_ends_at_the_extent_of_the_image(monkeypatch):
    # A score that falls for ever would otherwise never be bracketed.
    monkeypatch.setattr(smoothing, "gcv_score", lambda images, W, workers: float(W.trace()))
    coordinates = np.arange(60.0)[:, None]
    choice = smoothing.choose_bandwidth(coordinates, lambda: iter([]))
    assert 59 <= choice.bandwidth <= 1.5 * 59
    assert "is the largest" in choice.warnings[0]


def test_bandwidths_with_too_many_neighbours_are_skipped_and_said(monkeypatch):
    monkeypatch.setattr(smoothing, "MOST_NEIGHBOURS", 60.0)
    monkeypatch.setattr(smoothing, "_LARGEST_WINDOW", 1000.0)
    coordinates = np.indices((11, 11, 11)).reshape(3, -1).T.astype(float)
    X = np.random.default_rng(0).normal(size=(3, len(coordinates)))
    choice = smoothing.choose_bandwidth(coordinates, lambda: iter([X]))
    for candidate in choice.candidates:
        if np.isnan(candidate.neighbours):
            assert "more than 1000 voxels within 4h" in candidate.skipped
            assert candidate.bandwidth >= 2
            continue
        W = oracles.local_linear_weights(coordinates, candidate.bandwidth)
        # Where no weights were made, 1,000 of the 1,331 voxels stand for all.
        tolerance = 1e-3 if np.isfinite(candidate.trace_share) else 1e-2
        assert candidate.neighbours == pytest.approx(np.count_nonzero(W) / len(W), rel=tolerance)
        assert bool(candidate.skipped) == (candidate.neighbours > 60)
        assert bool(candidate.skipped) == np.isnan(candidate.score)
    reasons = {candidate.skipped[:20] for candidate in choice.candidates}
    assert reasons == {"", "more than 60 neighbo", "more than 1000 voxel"}
    # White noise is best smoothed as much as possible.
    assert "is the largest that could be assessed" in choice.warnings[0]


def test_narrower_windows_are_tried_where_all_have_too_many_neighbours(monkeypatch):
    monkeypatch.setattr(smoothing, "MOST_NEIGHBOURS", 12.0)
    coordinates = np.indices((9, 9, 9)).reshape(3, -1).T.astype(float)
    X = np.random.default_rng(0).normal(size=(3, len(coordinates)))
    choice = smoothing.choose_bandwidth(coordinates, lambda: iter([X]))
    assert choice.bandwidth == 0.375
    assert "is the " in choice.warnings[0]


def test_without_any_bandwidth_there_is_no_smoothing_and_a_warning():
    # Pairs so far apart that every line through a voxel and its neighbour fits exactly.
    X = np.random.default_rng(0).normal(size=(3, 4))
    far = np.array([[0.0, 0, 0], [1, 0, 0], [1e6, 0, 0], [1e6 + 1, 0, 0]])
    choice = smoothing.choose_bandwidth(far, lambda: iter([X]))
    assert all(c.skipped == "hardly any smoothing" for c in choice.candidates)
    assert choice.bandwidth == 0.0
    assert "not smoothed" in choice.warnings[0]


def test_published_grid():
    coordinates = np.indices((10, 10)).reshape(2, -1).T.astype(float)
    X = smooth_images(coordinates, 1.0, 3.0)
    choice = smoothing.choose_bandwidth(coordinates, lambda: iter([X]), published=True)
    expected = np.array([0.5, 1, 2, 3, 5, 10]) * 100 ** (-1 / 6)
    np.testing.assert_allclose([c.bandwidth for c in choice.candidates], expected)
    for candidate in choice.candidates:
        W = oracles.local_linear_weights(coordinates, candidate.bandwidth)
        assert bool(candidate.skipped) == (
            np.count_nonzero(W) / 100 > 10 or np.trace(W) / 100 > 1 - 1e-12
        )


def test_lone_voxels_of_different_parts_are_not_neighbours():
    two = smoothing.Cloud(np.array([[0.0, 0, 0], [3, 0, 0]]), np.array([0, 1]))
    assert np.isinf(two.nearest).all()
    choice = smoothing.choose_bandwidth(two, lambda: iter([np.eye(2)]))
    assert (choice.bandwidth, choice.candidates) == (0.0, [])
    assert "not smoothed" in choice.warnings[0]
    # The lone voxel of a part does not count among those of another.
    line = np.arange(5.0)[:, None] * 2.0
    more = smoothing.Cloud(np.vstack([line, [[3.0]]]), np.array([0, 0, 0, 0, 0, 4]))
    np.testing.assert_array_equal(more.nearest, [2, 2, 2, 2, 2, np.inf])
    assert smoothing.median_nearest_distance(more) == 2.0


@pytest.mark.parametrize("bandwidth", [1e7, 1e12])
def test_no_bandwidth_is_wide_enough_to_join_parts(bandwidth):
    cloud = smoothing.Cloud(np.array([[0.0], [1], [2], [0], [1]]), np.array([0, 0, 0, 1, 1]))
    W = smoothing.smoothing_weights(cloud, bandwidth).toarray()
    assert not W[:3, 3:].any()
    assert not W[3:, :3].any()
    assert cloud.mean_window(bandwidth) == (3 * 3 + 2 * 2) / 5


def test_voxels_at_the_same_place_do_not_set_the_bandwidths_unit():
    coordinates = np.vstack([np.arange(30.0)[:, None] * 2.0, np.zeros((50, 1))])
    X = np.random.default_rng(0).normal(size=(4, len(coordinates)))
    assert smoothing.median_nearest_distance(coordinates) == 2.0
    choice = smoothing.choose_bandwidth(coordinates, lambda: iter([X]))
    assert np.isfinite(choice.bandwidth)
    assert all(candidate.bandwidth > 0 for candidate in choice.candidates)
    with pytest.raises(InputError, match="coordinates: every voxel has the same coordinates as"):
        smoothing.choose_bandwidth(np.ones((6, 3)), lambda: iter([X[:, :6]]))


@pytest.mark.parametrize("bandwidth", [9.0, 1e9])
def test_largest_bandwidth_is_the_last_whose_window_is_narrow_enough(bandwidth):
    coordinates = points(3)
    found = smoothing.largest_bandwidth(coordinates, bandwidth, 40.0)
    assert smoothing.mean_window(coordinates, found) <= 40
    assert smoothing.mean_window(coordinates, 1.01 * found) > 40
    assert float(f"{found:.3g}") == pytest.approx(found, rel=1e-12)
    assert smoothing.largest_bandwidth(np.zeros((50, 2)), 3.0, 40.0) == 0.0


def test_most_voxels_in_a_window_follow_from_memory():
    assert smoothing.most_in_window(100) == 5000
    N = 100_000
    most = smoothing.most_in_window(N)
    assert 1000 < most < 5000
    assert smoothing.weight_bytes(N, 0, most) == pytest.approx(8 * 2**30, rel=1e-6)
    assert smoothing.most_in_window(10_000_000) == 1000


def test_the_published_grid_skips_wide_windows_before_weights_are_made(monkeypatch):
    # Voxels in metres: every window of the published grid holds every voxel.
    rng = np.random.default_rng(0)
    coordinates = rng.uniform(0, 0.2, size=(3000, 3))
    made = []
    whole = smoothing.smoothing_weights
    monkeypatch.setattr(
        smoothing, "smoothing_weights", lambda *a, **k: made.append(a) or whole(*a, **k)
    )
    X = rng.normal(size=(2, len(coordinates)))
    choice = smoothing.choose_bandwidth(coordinates, lambda: iter([X]), published=True)
    assert [candidate.skipped for candidate in choice.candidates] == (
        ["more than 300 neighbours on average"] * 6
    )
    assert made == []
    assert choice.bandwidth == 0.0


def test_a_bandwidth_beyond_memory_is_skipped_before_weights_are_made(monkeypatch):
    monkeypatch.setattr(smoothing, "most_in_window", lambda N: 20.0)
    coordinates = np.arange(400.0)[:, None]

    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr(smoothing, "smoothing_weights", never)
    found = smoothing._assess(smoothing.Cloud(coordinates), lambda: iter([]), 4.0, True, 1)
    assert "more than 20 neighbours on average: memory" in found.skipped


def test_sampled_neighbours_stand_for_all():
    coordinates = np.indices((16, 16, 16)).reshape(3, -1).T.astype(float)
    for bandwidth in (0.5, 1.2):
        W = smoothing.smoothing_weights(coordinates, bandwidth)
        found = smoothing.sampled_neighbours(coordinates, bandwidth)
        assert found == pytest.approx(W.nnz / len(coordinates), rel=0.05)
    small = coordinates[:900]
    W = smoothing.smoothing_weights(small, 1.2)
    assert smoothing.sampled_neighbours(small, 1.2) == pytest.approx(W.nnz / 900, rel=1e-12)


def test_the_memory_stated_for_a_search_holds_its_weights():
    # As many neighbours as the search may meet, on a line.
    coordinates = np.arange(6000.0)[:, None]
    tracemalloc.start()
    W = smoothing.smoothing_weights(coordinates, 95.0)
    smoothing.smooth(np.zeros((1, 6000)), W)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert W.nnz / 6000 > 0.9 * smoothing.MOST_NEIGHBOURS
    assert peak < smoothing.weight_bytes(6000, 1)
    # Of the other terms little is left at 200,000 voxels.
    assert smoothing.weight_bytes(200_000, 1) > 200_000 * smoothing.MOST_NEIGHBOURS * 24
