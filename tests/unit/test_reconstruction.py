"""Voxel statistics from component statistics against least squares on the denoised image."""

from __future__ import annotations

import numpy as np
import pytest

from rvga.reconstruction import (
    beta_from_z,
    standard_error_from_beta,
    voxel_variance,
    voxel_z,
)
from small_study import hard_calls, least_squares


@pytest.fixture(scope="module")
def components():
    """Return component least squares in double precision and what they were made from."""
    rng = np.random.default_rng(4)
    n, p, r, N, m = 200, 3, 6, 30, 25
    covariates = np.column_stack([np.ones(n), rng.normal(size=(n, p - 1))])
    bases = np.linalg.qr(rng.normal(size=(N, r)))[0]
    ldrs = rng.normal(size=(n, r)) * np.arange(1, r + 1) + covariates @ rng.normal(size=(p, r))
    g = hard_calls(m, n, seed=5).astype(float)
    ldrs[:, 0] += g[0] * 2
    Q = np.linalg.qr(covariates)[0]
    residual = ldrs - Q @ (Q.T @ ldrs)
    A = residual.T @ residual
    projected = g - (g @ Q) @ Q.T
    a = (projected**2).sum(axis=1)
    beta = (projected @ residual) / a[:, None]
    return {
        "a": a, "A": A, "beta": beta, "nu": n - p - 1, "bases": bases, "g": g,
        "covariates": covariates, "denoised": ldrs @ bases.T, "ldrs": ldrs,
    }  # fmt: skip


def test_component_statistics_are_least_squares(components):
    c = components
    beta, standard_error = least_squares(c["g"], c["covariates"], c["ldrs"])
    np.testing.assert_allclose(c["beta"], beta, rtol=1e-9)
    got = standard_error_from_beta(c["beta"], c["a"], np.diag(c["A"]), c["nu"])
    np.testing.assert_allclose(got, standard_error, rtol=1e-9)


def test_z_holds_the_same_as_beta(components):
    c = components
    variance = np.diag(c["A"])
    z = c["beta"] / standard_error_from_beta(c["beta"], c["a"], variance, c["nu"])
    np.testing.assert_allclose(beta_from_z(z, c["a"], variance, c["nu"]), c["beta"], rtol=1e-12)


def test_voxels_are_least_squares_on_the_denoised_image(components):
    c = components
    beta, standard_error = least_squares(c["g"], c["covariates"], c["denoised"])
    variance = voxel_variance(c["bases"], c["A"])
    np.testing.assert_allclose(c["beta"] @ c["bases"].T, beta, rtol=1e-8, atol=1e-12)
    got = standard_error_from_beta(beta, c["a"], variance, c["nu"])
    np.testing.assert_allclose(got, standard_error, rtol=1e-9)
    z = voxel_z(c["beta"], c["a"], c["bases"], variance, c["nu"])
    np.testing.assert_allclose(z, beta / standard_error, rtol=1e-8)


def test_missing_variant_stays_missing(components):
    c = components
    a = c["a"].copy()
    a[3] = np.nan
    beta = c["beta"].copy()
    beta[3] = np.nan
    z = voxel_z(beta, a, c["bases"], voxel_variance(c["bases"], c["A"]), c["nu"])
    assert np.isnan(z[3]).all()
    assert np.isfinite(np.delete(z, 3, axis=0)).all()
