"""The jackknife against textbook identities."""

from __future__ import annotations

import numpy as np
import pytest

from rvga.jackknife import group_starts, jackknife_standard_error, number_of_groups


def test_error_of_a_mean_is_the_usual_one():
    values = np.random.default_rng(1).normal(size=(30, 2))
    left_out = np.stack([np.delete(values, i, axis=0).mean(axis=0) for i in range(30)])
    expected = values.std(axis=0, ddof=1) / np.sqrt(30)
    np.testing.assert_allclose(jackknife_standard_error(left_out), expected, rtol=1e-10)


def test_one_group_has_no_error():
    assert np.isnan(jackknife_standard_error(np.ones((1, 3)))).all()


def test_groups_have_two_blocks_where_there_are_enough():
    found = [number_of_groups(blocks) for blocks in (2, 15, 28, 40, 90, 399, 1700)]
    assert found == [2, 15, 20, 20, 45, 199, 200]


@pytest.mark.parametrize(("blocks", "number"), [(10, 200), (1000, 200), (1, 5), (7, 3)])
def test_groups_are_contiguous_and_of_similar_size(blocks, number):
    sizes = np.random.default_rng(2).integers(200, 1000, size=blocks)
    group = group_starts(sizes, number)
    assert group[0] == 0
    assert set(np.diff(group)) <= {0, 1}
    assert group[-1] + 1 <= min(blocks, number)
    if blocks > 2 * number:
        totals = np.bincount(group, weights=sizes)
        assert totals.max() < 1.5 * sizes.sum() / number + 1000
