"""Products of images in whole numbers against the same products in double."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rvga import digit_products
from rvga.digit_products import CLOSE, ROUGH, DigitCovariance, digit_rows, largest_whole
from rvga.tile_products import available

needs_tiles = pytest.mark.skipif(
    not available(), reason="this processor has no tiles for 8-bit products"
)
# Products of digits that are left out, over the largest of a row times that of a column, a voxel.
LOST = {ROUGH: 2.0**-21, CLOSE: 2.0**-30}


def covariance(
    X: np.ndarray,
    mean: np.ndarray,
    V: np.ndarray,
    digits: tuple[int, int],
    block: int,
    workers: int = 1,
) -> np.ndarray:
    """Return the sum over blocks of so many images."""
    units = np.zeros(len(X))
    with ThreadPoolExecutor(workers) as pool:
        product = DigitCovariance(V, mean, units, digits, block, pool, workers)
        for first in range(0, len(X), block):
            product.add(X[first : first + block])
        return product.total()


def bound(X: np.ndarray, V: np.ndarray, U: np.ndarray, digits: tuple[int, int]) -> np.ndarray:
    """Return the largest error that the products may have, (N, k)."""
    lost = LOST[digits]
    scores = lost * np.abs(X).max(axis=1)[:, None] * np.abs(V).max(axis=0) * X.shape[1]
    sums = lost * (np.abs(X) * 0 + np.abs(X).max(axis=1)[:, None]).max() * np.abs(U).max(axis=0)
    return np.abs(X).T @ scores + sums * len(X)


@needs_tiles
@pytest.mark.parametrize("digits", [ROUGH, CLOSE])
@pytest.mark.parametrize(("n", "N", "k"), [(1, 1, 1), (5, 63, 3), (64, 64, 16), (70, 321, 17)])
@pytest.mark.parametrize("block", [7, 64, 1000])
def test_are_those_of_the_centred_images(digits, n, N, k, block):
    rng = np.random.default_rng(n)
    X = (rng.normal(size=(n, N)) * 10.0 ** rng.integers(-2, 3, (n, 1)) + 50).astype(np.float32)
    mean, V = X.mean(axis=0, dtype=float) + 0.1, rng.normal(size=(N, k))
    Y = X.astype(float) - mean
    U = Y @ V
    found = covariance(X, mean, V, digits, block)
    assert found.shape == (N, k)
    # A value less the mean is rounded to single precision twice.
    rounding = (
        np.abs(X).max()
        * 2.0**-23
        * (np.abs(U).sum(axis=0) + np.abs(Y).sum() * np.abs(V).max(axis=0))
    )
    assert np.all(np.abs(found - Y.T @ U) <= bound(Y, V, U, digits) + rounding)


@needs_tiles
@pytest.mark.parametrize(("digits", "error"), [(ROUGH, 2e-6), (CLOSE, 1e-9)])
def test_typical_errors(digits, error):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(600, 3000)).astype(np.float32)
    V = np.linalg.qr(rng.normal(size=(3000, 20)))[0]
    exact = X.T.astype(float) @ (X.astype(float) @ V)
    found = covariance(X, np.zeros(3000), V, digits, 256)
    assert np.abs(found - exact).max() < error * np.abs(exact).max()


@needs_tiles
@pytest.mark.parametrize("digits", [ROUGH, CLOSE])
def test_largest_numbers_of_many_voxels_do_not_overflow(digits):
    # Sums of 32 bits would, over so many voxels, if they were not brought up before.
    N = 150_001
    number = float(np.float32(largest_whole(digits[0])))
    X = np.full((2, N), number, dtype=np.float32)
    X[1] = -(2.0 ** (8 * digits[0] - 1)) * 0.99
    V = np.full((N, 2), number)
    V[:, 1] = -128.0 * sum(256.0**place for place in range(digits[1]))
    found = covariance(X, np.zeros(N), V, digits, 2)
    exact = X.T.astype(float) @ (X.astype(float) @ V)
    np.testing.assert_allclose(found, exact, rtol=1e-5 if digits == ROUGH else 1e-7)


@needs_tiles
def test_bytes_do_not_depend_on_workers_or_on_how_rows_lie():
    rng = np.random.default_rng(2)
    wide = rng.normal(size=(300, 1001)).astype(np.float32)
    X, V, mean = wide[:, :1000], rng.normal(size=(1000, 9)), rng.normal(size=1000)
    found = covariance(X, mean, V, ROUGH, 100)
    assert covariance(X, mean, V, ROUGH, 100, workers=3).tobytes() == found.tobytes()
    assert covariance(np.ascontiguousarray(X), mean, V, ROUGH, 100).tobytes() == found.tobytes()
    assert covariance(np.asfortranarray(X), mean, V, ROUGH, 100).tobytes() == found.tobytes()
    assert covariance(X.astype(float), mean, V, ROUGH, 100).tobytes() == found.tobytes()


@needs_tiles
def test_units_found_once_serve_other_vectors_and_more_digits():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(40, 200)).astype(np.float32)
    X[7] = 0
    X[8] *= np.float32(1e30)
    X[9] *= np.float32(1e-30)
    V, units = rng.normal(size=(200, 4)), np.zeros(40)
    X[8] /= np.float32(1e26)
    with ThreadPoolExecutor(1) as pool:
        first = DigitCovariance(V, np.zeros(200), units, ROUGH, 40, pool, 1)
        first.add(X)
        assert (units > 0).all()
        assert np.all(np.log2(units) == np.round(np.log2(units)))
        kept = units.copy()
        again = DigitCovariance(2 * V, np.zeros(200), units, CLOSE, 40, pool, 1)
        again.add(X)
        assert (units == kept).all()
        exact = X.T.astype(float) @ (X.astype(float) @ V)
        for product, factor, error in ((first, 1, 1e-5), (again, 2, 1e-9)):
            assert (
                np.abs(product.total() - factor * exact).max()
                < error * factor * np.abs(exact).max()
            )


@needs_tiles
@pytest.mark.parametrize("digits", [ROUGH, CLOSE])
@pytest.mark.parametrize("size", [1e-31, 1e37])
def test_sizes_near_the_bounds_of_single_precision(digits, size):
    X = (np.random.default_rng(5).normal(size=(20, 130)) * size).astype(np.float32)
    V = np.random.default_rng(6).normal(size=(130, 3))
    exact = X.T.astype(float) @ (X.astype(float) @ V)
    found = covariance(X, np.zeros(130), V, digits, 20)
    # Units do not get any smaller than that.
    least = 2.0**-118 * np.abs(X).astype(float).sum() * np.abs(V).max() * 130
    assert np.abs(found - exact).max() <= 1e-5 * np.abs(exact).max() + least


@needs_tiles
def test_more_images_than_a_block_may_have_are_refused():
    with ThreadPoolExecutor(1) as pool:
        product = DigitCovariance(np.ones((3, 1)), np.zeros(3), np.zeros(999), ROUGH, 8, pool, 1)
        with pytest.raises(ValueError, match="a block of 600 images"):
            product.add(np.ones((600, 3), dtype=np.float32))


@pytest.mark.parametrize("digits", [3, 5])
def test_digits_make_up_the_numbers(digits):
    rng = np.random.default_rng(4)
    U = rng.normal(size=(70, 18))
    U[:, 3] = 0
    tiles, unit = digit_rows(U, digits)
    value = (tiles.view(np.int8).astype(float) * 256.0 ** np.arange(digits)[:, None]).sum(axis=2)
    value = value.reshape(2, 2, 16, 64).transpose(1, 3, 0, 2).reshape(128, 32)
    assert np.abs(value[:70, :18] * unit - U).max() <= 0.5 * unit.max()
    assert not value[70:].any()
    assert not value[:, 18:].any()


def test_without_tiles_it_is_refused(monkeypatch):
    monkeypatch.setattr(digit_products, "available", lambda: False)
    with pytest.raises(RuntimeError, match="no tiles"):
        DigitCovariance(np.ones((3, 1)), np.zeros(3), np.zeros(2), ROUGH, 2, None, 1)
