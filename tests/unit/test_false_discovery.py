"""Adjusted p values against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rvga.false_discovery import false_discovery_rate


def test_rates_equal_the_definition_and_leave_missing_tests_out():
    p = np.random.default_rng(1).uniform(size=40) ** 3
    p[7] = p[8]
    rate = false_discovery_rate(-np.log10(p))
    np.testing.assert_allclose(rate, stats.false_discovery_control(p), rtol=1e-10)
    with_gap = np.insert(-np.log10(p), 5, np.nan)
    found = false_discovery_rate(with_gap)
    assert np.isnan(found[5])
    np.testing.assert_allclose(np.delete(found, 5), rate)


def test_tests_beyond_the_range_of_numbers_keep_their_rank():
    rate = false_discovery_rate(np.array([400.0, 300.0, 0.0]))
    assert rate[1] == pytest.approx(1.5e-300, rel=1e-6)
    assert rate[2] == 1
    assert rate[0] <= rate[1]
    assert false_discovery_rate(np.array([])).shape == (0,)
    assert np.isnan(false_discovery_rate(np.array([np.nan]))).all()
