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
    assert block.codes.nbytes == M * 96 * 2 // (8 if block.is_calls else 1)
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


def test_tile_is_centred_with_missing_at_zero(raw):
    block = packed.pack(raw)
    centre = np.linspace(0, 2, M).astype(np.float32)
    tile = np.full((M, 32), 7, dtype=np.float32)
    packed.centre_tile(block.codes, centre, 32, 64, tile)
    expected = np.nan_to_num(plain(raw)[:, 32:64].astype(np.float32) - centre[:, None])
    np.testing.assert_array_equal(tile, expected)
