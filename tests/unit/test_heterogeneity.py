"""Is heritability the same across the image? The test's law and its power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rvga.heritability import Moments
from rvga.heterogeneity import heterogeneity_test, weighted_chi_square_tail


@pytest.mark.parametrize("k", [1, 3, 20])
def test_equal_weights_are_a_chi_square(k):
    for value in (0.2 * k, 0.999 * k, k, 1.001 * k, 3.0 * k + 5, 200.0):
        found = weighted_chi_square_tail(2.5 * value, np.full(k, 2.5))
        assert found == pytest.approx(stats.chi2.sf(value, k), rel=0.08 if k == 1 else 0.03)


def test_unequal_weights_agree_with_simulation():
    weights = np.array([5.0, 2.0, 1.0, 0.3, 0.01])
    draws = (np.random.default_rng(1).normal(size=(400_000, 5)) ** 2) @ weights
    for value in (2.0, 8.0, 25.0, 40.0):
        simulated = np.mean(draws > value)
        found = weighted_chi_square_tail(value, weights)
        assert abs(found - simulated) < 0.03 * simulated + 4 * np.sqrt(simulated / len(draws))


def draw(rng, r: int, n: float, genetic: np.ndarray) -> Moments:
    """Return moments whose Γ̂ is ``genetic`` and Gaussian errors as the closed form says."""
    scale, t_4, signal = 1.2, 900.0, 300.0
    h2 = np.trace(genetic) / r
    tau = np.sqrt(scale**2 * (t_4 / n**2 + 2 * signal / n) - h2**2 / n)
    noise = rng.normal(size=(r, r)) * tau
    noise = (noise + noise.T) / np.sqrt(2)
    identity = np.eye(r)
    return Moments(
        genetic + noise, identity / n, signal * identity, scale, 500.0, t_4,
        np.full((r, r), 1 / n),
    )  # fmt: skip


def test_p_is_uniform_when_heritability_is_the_same_everywhere():
    rng = np.random.default_rng(2)
    r, n = 6, 20_000.0
    rows = rng.normal(size=(150, r)) * np.array([4, 3, 2, 1, 1, 1])
    p = [heterogeneity_test(draw(rng, r, n, 0.3 * np.eye(r)), rows).p_value for _ in range(400)]
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert abs(np.mean(np.array(p) < 0.05) - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 400)


def test_differences_are_found_and_the_units_do_not_matter():
    rng = np.random.default_rng(3)
    r, n = 4, 2_000_000.0
    rows = rng.normal(size=(80, r))
    x = draw(rng, r, n, np.diag([0.9, 0.1, 0.5, 0.1]))
    found = heterogeneity_test(x, rows)
    assert found.p_value < 1e-3
    assert found.statistic > 3 * found.expected
    U = np.diag([3.0, 0.2, 1.0, 7.0])
    other = Moments(
        U @ x.Gamma @ U, U @ x.kappa @ U, U @ x.s @ U, x.scale, x.t_1, x.t_4, x.inverse_n
    )
    same = heterogeneity_test(other, rows @ np.linalg.inv(U))
    assert same.statistic == pytest.approx(found.statistic)
    assert same.p_value == pytest.approx(found.p_value, abs=1e-6)


def test_one_voxel_is_not_enough():
    x = draw(np.random.default_rng(1), 2, 100.0, np.eye(2))
    with pytest.raises(ValueError, match="1 voxels"):
        heterogeneity_test(x, np.array([[1.0, 0.0], [0.0, 0.0]]))
