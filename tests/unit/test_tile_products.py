"""Products in whole numbers against the same sums in Python's own whole numbers."""

from __future__ import annotations

import numpy as np
import pytest

from rvga import tile_products
from rvga.packed import DOSAGE_ONE, MISSING_DOSAGE, Packed, pack
from rvga.tile_products import LARGEST_WHOLE, TileSpace, available, rounding, whole_columns
from small_study import dosages_of, hard_calls

pytestmark = pytest.mark.skipif(
    not available(), reason="this processor has no tiles for 8-bit products"
)


def products(block: Packed, X: np.ndarray):
    """Return the products, the columns as rounded, and the mean and genotypes used."""
    g = np.array([block.dosage(row) for row in range(len(block))])
    called = np.isfinite(g).sum(axis=1)
    mean = np.nansum(g, axis=1) / np.maximum(called, 1)
    columns = whole_columns(X)
    out = np.full((len(block), X.shape[1]), np.nan)
    tile_products.tile_products(block, mean, called, columns, TileSpace(X.shape[1]), out)
    return out, np.rint(X / columns.unit), columns.unit, mean, g


@pytest.mark.parametrize("kind", ["calls", "dosages"])
@pytest.mark.parametrize("n", [1, 63, 64, 65, 1024, 1025, 3001])
def test_are_those_of_the_rounded_columns(kind, n):
    rng = np.random.default_rng(n)
    raw = hard_calls(37, n, seed=n, missing=0.1)
    raw[::3][raw[::3] < 0] = 1
    raw[5] = -9
    if kind == "dosages":
        raw = dosages_of(raw, seed=1)
    X = rng.normal(size=(n, 21)) * 10.0 ** rng.integers(-3, 4, 21)
    X[:, 2] = 0
    out, whole, unit, mean, g = products(pack(raw), X)
    assert np.abs(whole).max() == LARGEST_WHOLE
    assert np.all(np.abs(whole * unit - X) <= 0.5001 * unit)
    centred = np.nan_to_num(g - mean[:, None])
    size = np.abs(centred) @ np.abs(whole * unit) + np.abs(whole * unit).sum(axis=0)
    assert np.all(np.abs(out - centred @ (whole * unit)) <= 1e-14 * size)


@pytest.mark.parametrize("kind", ["calls", "dosages"])
def test_largest_numbers_of_many_people_do_not_overflow(kind):
    # Sums of 32 bits would, over so many people, if they were not added up before.
    n = 70_001
    if kind == "calls":
        block = pack(np.full((2, n), 2, dtype=np.int8))
    else:
        block = pack(np.full((2, n), 32767 / 16384, dtype=np.float32))
    # Digits -128, -128 and -126, and three times 127.
    numbers = [-128 * (1 + 256) - 126 * 65536.0, LARGEST_WHOLE, LARGEST_WHOLE]
    X = np.broadcast_to(numbers, (n, 3)) * 1.0
    X[0] = LARGEST_WHOLE
    columns, called = whole_columns(X), np.array([n, n])
    out = np.empty((2, 3))
    tile_products.tile_products(block, np.zeros(2), called, columns, TileSpace(3), out)
    value = block.dosage(0)[0]
    np.testing.assert_array_equal(columns.unit, 1.0)
    np.testing.assert_array_equal(out, np.tile(value * X.sum(axis=0), (2, 1)))


def test_many_rows_are_multiplied_part_by_part(monkeypatch):
    raw = dosages_of(hard_calls(90, 200, seed=2, missing=0.05), seed=1)
    raw[::4] = np.abs(raw[::4]) % 2
    X = np.random.default_rng(3).normal(size=(200, 7))
    whole = products(pack(raw), X)[0]
    monkeypatch.setattr(tile_products, "_MOST_ROWS", 64)
    np.testing.assert_array_equal(products(pack(raw), X)[0], whole)


@pytest.mark.parametrize("kind", ["calls", "dosages"])
def test_rows_may_lie_apart(kind):
    raw = hard_calls(40, 300, seed=5, missing=0.05)
    block = pack(raw if kind == "calls" else dosages_of(raw, seed=1))
    X = np.random.default_rng(1).normal(size=(300, 5))
    apart = products(Packed(300, block.codes[::2]), X)[0]
    np.testing.assert_array_equal(apart, products(block, X)[0][::2])


@pytest.mark.parametrize("columns", [2, 4])
def test_memory_for_another_number_of_columns_is_refused(columns):
    block = pack(hard_calls(4, 70, seed=5))
    X, out = np.ones((70, 3)), np.empty((4, 3))
    with pytest.raises(ValueError, match=f"memory for {columns} columns, but 3 are multiplied"):
        tile_products.tile_products(
            block, np.ones(4), np.full(4, 70), whole_columns(X), TileSpace(columns), out
        )


def test_error_of_rounding_is_known():
    X = np.random.default_rng(1).normal(size=(50_000, 3))
    X[7] = [5, 500, 50_000]
    columns = whole_columns(X)
    error = np.rint(X / columns.unit) * columns.unit - X
    size = np.sqrt(np.square(X).mean(axis=0))
    np.testing.assert_allclose(rounding(X), error.std(axis=0) / size, rtol=0.02)


def test_a_missing_code_is_what_the_formula_takes_off():
    assert pack(np.array([[-9]], dtype=np.int8)).codes[0, 0] == tile_products.MISSING_CALL
    assert pack(np.array([[-9.0]], dtype=np.float32)).codes[0, 0] == MISSING_DOSAGE
    assert MISSING_DOSAGE / DOSAGE_ONE > 2


def test_machines_without_tiles_are_told(monkeypatch):
    monkeypatch.setattr(tile_products, "available", lambda: False)
    with pytest.raises(RuntimeError, match="no tiles"):
        TileSpace(3)
