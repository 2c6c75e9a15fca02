"""Recovery of a and t from external statistics, and inflation of test statistics."""

from __future__ import annotations

import numpy as np
import pytest

from component_tables import component_statistics
from rvga import recovery
from rvga.calibration import LAMBDA_VARIANTS, lambda_bound, lambda_gc, lambda_variants

N, P, R, M = 80, 4, 6, 15
NU = N - P - 1


@pytest.fixture(scope="module")
def example():
    """Return statistics by brute force, a, and A's diagonal."""
    rng = np.random.default_rng(4)
    covariates = np.column_stack([np.ones(N), rng.normal(size=(N, P - 1))])
    g = rng.binomial(2, 0.3, size=(M, N)).astype(float)
    S = rng.normal(size=(N, R)) * np.arange(1, R + 1) + np.outer(g[0], np.full(R, 3.0))
    Q = np.linalg.qr(covariates)[0]
    left = g - (g @ Q) @ Q.T
    residual = S - Q @ (Q.T @ S)
    diagonal = np.tile((residual**2).sum(axis=0), (M, 1))
    return component_statistics(g, covariates, S), (left**2).sum(axis=1), diagonal


def test_a_turned_component_shows_in_its_correlations():
    rng = np.random.default_rng(5)
    loading = np.array([1.0, 1.0, -1.0, 0.0, 1.0])
    A = (
        400.0
        * (np.eye(5) + np.outer(loading, loading))
        * np.outer([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    )
    scale = np.sqrt(np.diag(A))
    z = rng.multivariate_normal(np.zeros(5), A / np.outer(scale, scale), size=3000)
    z[::100, 0] = np.nan
    z[7] = 40.0
    found = recovery.sign_agreement(z, A)
    np.testing.assert_allclose(found[[0, 1, 2, 4]], 1.0, atol=0.1)
    assert np.isnan(found[3])
    z[:, 2] *= -1
    found = recovery.sign_agreement(z, A)
    np.testing.assert_allclose(found[[0, 1, 2, 4]], [1 / 3, 1 / 3, -1, 1 / 3], atol=0.1)
    assert np.isnan(recovery.sign_agreement(z[:900], A)).all()
    assert np.isnan(recovery.sign_agreement(z, np.diag(np.diag(A)))).all()


@pytest.mark.parametrize("score", [False, True])
def test_a_and_t_are_those_of_least_squares(example, score):
    s, a, diagonal = example
    error = s.score_error if score else s.error
    inverse = recovery.inverse_a(s.beta, error, diagonal, NU, score)
    np.testing.assert_allclose(inverse, np.tile(1 / a[:, None], R), rtol=1e-10)
    found = recovery.mean_a(inverse)
    np.testing.assert_allclose(found, a, rtol=1e-10)
    z = recovery.t_statistics(s.beta, error, found, diagonal, NU, score)
    np.testing.assert_allclose(z, s.beta / s.error, rtol=1e-9)
    assert np.abs(z).max() > 4
    assert recovery.disagreement(inverse, found).max() < 1e-9
    np.testing.assert_allclose(recovery.component_ratios(inverse), 1.0, rtol=1e-9)


def test_the_kind_of_standard_error_matters(example):
    s, a, diagonal = example
    wrong = recovery.inverse_a(s.beta, s.score_error, diagonal, NU, score=False)
    assert recovery.disagreement(wrong, recovery.mean_a(wrong)).max() > 0.05
    assert np.abs(recovery.mean_a(wrong) / a - 1).max() > 0.05


def test_missing_components_and_variants(example):
    s, a, diagonal = example
    error = s.error.copy()
    error[2, 3] = np.nan
    error[3, :] = np.nan
    error[4, 1] = 0.0
    inverse = recovery.inverse_a(s.beta, error, diagonal, NU, score=False)
    found = recovery.mean_a(inverse)
    assert np.isnan(found[3])
    np.testing.assert_allclose(np.delete(found, 3), np.delete(a, 3), rtol=1e-10)
    z = recovery.t_statistics(s.beta, error, found, diagonal, NU, score=False)
    assert np.isnan(z[[2, 4], [3, 1]]).all()


def test_a_component_of_another_variance_is_found(example):
    s, _, diagonal = example
    inverse = recovery.inverse_a(s.beta, s.error, diagonal, NU, score=False)
    inverse[:, 2] *= 1.03
    ratio = recovery.component_ratios(inverse)
    np.testing.assert_allclose(ratio, [1, 1, 1.03, 1, 1, 1], rtol=1e-6)


def test_people_left_out_are_allowed_for():
    """The allowance covers what leaving people out does, and hardly more than it must."""
    rng = np.random.default_rng(7)
    n, r = 2000, 40
    squares = rng.normal(size=(n, r)) ** 2
    total = squares.sum(axis=0)
    far = []
    for k in (20, 100):
        for _ in range(50):
            kept = rng.permutation(n)[k:]
            ratio = squares[kept].sum(axis=0) / (n - k) / (total / n)
            far.append(np.abs(ratio / ratio.mean() - 1).max())
        allowed = recovery.allowed_disagreement(1e-3, n, np.array([float(n - k)]))[0]
        assert max(far) < allowed < 6 * max(far)
        far.clear()
    assert (
        recovery.allowed_disagreement(1e-3, n, np.array([n, np.nan, n + 5.0])).tolist()
        == [1e-3] * 3
    )


def test_rounding_to_digits_is_within_the_tolerance(example):
    s, a, diagonal = example
    for digits in (3, 4, 6):
        error, beta = (
            np.array([float(f"{x:.{digits}g}") for x in values.ravel()]).reshape(values.shape)
            for values in (s.error, s.beta)
        )
        inverse = recovery.inverse_a(beta, error, diagonal, NU, score=False)
        found = recovery.mean_a(inverse)
        assert recovery.disagreement(inverse, found).max() < recovery.tolerance(digits)
        assert np.abs(found / a - 1).max() < 10.0 ** (1 - digits)


def test_frequency_from_a():
    f = np.array([0.01, 0.2, 0.5])
    np.testing.assert_allclose(recovery.frequency_from_a(2 * f * (1 - f) * 500, 500), f, rtol=1e-9)


def test_lambda_gc_is_one_under_the_null_and_scales():
    rng = np.random.default_rng(2)
    z = rng.standard_t(12, size=(60_000, 3)) * np.array([1.0, 1.1, 1.0])
    z[::7, 1] = np.nan
    found = lambda_gc(z, 12)
    deviation = 2.5 / np.sqrt(len(z))
    assert np.abs(found - [1, 1.21, 1]).max() < 4 * deviation
    assert np.isnan(lambda_gc(np.full((4, 2), np.nan), 12)).all()


def test_lambda_variants_are_spread_and_bounded():
    assert lambda_variants(7).tolist() == list(range(7))
    many = lambda_variants(3 * LAMBDA_VARIANTS)
    assert len(many) == LAMBDA_VARIANTS
    assert (many[0], many[-1]) == (0, 3 * LAMBDA_VARIANTS - 1)


def test_lambda_bound_is_not_passed_by_chance():
    rng = np.random.default_rng(3)
    found = lambda_gc(rng.normal(size=(2000, 200)), 1e6)
    assert found.max() < lambda_bound(2000)
    assert lambda_bound(LAMBDA_VARIANTS) < 1.14
