"""Packed genotypes against the plain arrays that they were made from."""

from __future__ import annotations

import numpy as np
import pytest

from rvga import packed
from small_study import MISSING, dosages_of, hard_calls

M, N = 23, 77


@pytest.fixture(params=["calls", "dosages"])
def raw(request):
    calls = hard_calls(M, N, seed=1, missing=0.1)
    if request.param == "calls":
        return calls
    # Some dosages are whole numbers.
    return np.where(np.arange(N) % 5 < 2, calls, dosages_of(calls, seed=2)).astype(np.float32)


def plain(raw):
    g = raw.astype(float)
    return np.where(g == MISSING, np.nan, g)


def test_packing_loses_nothing(raw):
    block = packed.pack(raw)
    assert block.is_calls == (raw.dtype == np.int8)
    assert len(block) == M
    assert block.codes.nbytes == M * 128 * 2 // (8 if block.is_calls else 1)
    np.testing.assert_array_equal([block.dosage(row) for row in range(M)], plain(raw))


@pytest.mark.parametrize("part", [False, True])
def test_sums_over_people(raw, part):
    people = np.random.default_rng(3).random(N) < 0.4 if part else np.ones(N, dtype=bool)
    mask = packed.mask_of(people) if part else None
    g = plain(raw)[:, people]
    found = packed.counts(packed.pack(raw), mask)
    np.testing.assert_array_equal(found.called, np.isfinite(g).sum(axis=1))
    np.testing.assert_array_equal(found.total, np.nansum(g, axis=1))
    np.testing.assert_array_equal(found.squares, np.nansum(g * g, axis=1))


def test_sums_are_exact_for_any_codes_and_many_people():
    n = 140_003
    codes = np.zeros((4, packed.width(n)), dtype=np.uint16)
    codes[0, :n] = np.random.default_rng(1).integers(0, 1 << 16, n)
    codes[1, :n] = 2 * packed.DOSAGE_ONE
    codes[2, :n] = packed.MISSING_DOSAGE - 1
    codes[3, :n] = packed.MISSING_DOSAGE
    found = packed.counts(packed.Packed(n, codes))
    known = codes[:, :n] != packed.MISSING_DOSAGE
    values = np.where(known, codes[:, :n], 0).astype(np.int64)
    np.testing.assert_array_equal(found.called, known.sum(axis=1))
    np.testing.assert_array_equal(found.total * packed.DOSAGE_ONE, values.sum(axis=1))
    squares = found.squares * packed.DOSAGE_ONE**2
    np.testing.assert_array_equal(squares, (values * values).sum(axis=1))


def test_calls_are_counted(raw):
    people = np.arange(N) % 3 == 1
    g = plain(raw)[:, people]
    nearest = np.rint(g)
    calls = np.where(np.abs(g - nearest) <= 0.1, nearest, np.nan)
    expected = [[(row == copies).sum() for copies in range(3)] for row in calls]
    number = packed.call_counts(packed.pack(raw), packed.mask_of(people))
    np.testing.assert_array_equal(number[:, :3], expected)
    np.testing.assert_array_equal(number.sum(axis=1), people.sum())


def test_people_are_cleared(raw):
    block = packed.pack(raw)
    gone = np.arange(N) % 4 == 2
    packed.clear_people(block, packed.mask_of(gone))
    expected = plain(raw)
    expected[:, gone] = np.nan
    np.testing.assert_array_equal([block.dosage(row) for row in range(M)], expected)
    assert np.all(block.codes.view(np.uint8).reshape(M, -1)[:, -1] == 0)


def test_single_copies_are_cleared_and_counted(raw):
    block = packed.pack(raw)
    men = np.arange(N) % 2 == 0
    number = np.zeros(M, dtype=np.int64)
    packed.clear_single_copies(block, packed.mask_of(men), number)
    expected = plain(raw)
    single = (expected == 1) & men
    expected[single] = np.nan
    np.testing.assert_array_equal([block.dosage(row) for row in range(M)], expected)
    np.testing.assert_array_equal(number, single.sum(axis=1))
    assert number.sum() > 0


def test_range_of_the_called(raw):
    raw = raw.copy()
    for row, (least, largest) in enumerate([(0, 1), (1, 2), (0, 2), (1, 1), (2, 2)]):
        called = raw[row] >= 0
        raw[row, called] = np.clip(raw[row, called], least, largest)
    rows = np.array([4, 0, 2, 1, 3])
    got = packed.dosage_range(packed.pack(raw), rows)
    g = plain(raw)[rows]
    expected = np.column_stack([np.nanmin(g, axis=1), np.nanmax(g, axis=1)])
    np.testing.assert_array_equal(got, expected)
    assert len(np.unique(expected, axis=0)) == 5


def test_tile_is_centred_with_missing_at_zero(raw):
    block = packed.pack(raw)
    centre = np.linspace(0, 2, M).astype(np.float32)
    tile = np.full((M, 32), 7, dtype=np.float32)
    packed.centre_tile(block.codes, centre, 32, 64, tile)
    expected = np.nan_to_num(plain(raw)[:, 32:64].astype(np.float32) - centre[:, None])
    np.testing.assert_array_equal(tile, expected)
