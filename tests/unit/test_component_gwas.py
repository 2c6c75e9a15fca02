"""Component GWAS against least squares in double precision, whatever the blocks and threads."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from rvga import component_gwas, tile_products
from rvga.coding import MISSING_CODE, decode_z, encode_z
from rvga.component_gwas import Workspace, null_model
from rvga.component_gwas import associate_block as associate_packed
from rvga.packed import pack
from rvga.parallel import ordered_map
from rvga.reconstruction import beta_from_z, standard_error_from_beta
from rvga.variant_filters import (
    ALL_MISSING,
    BELOW_COUNT,
    BELOW_FREQUENCY,
    COLLINEAR,
    ESTIMATED,
    MONOMORPHIC,
    Filters,
)
from small_study import MISSING, dosages_of, hard_calls, least_squares, mean_imputed

N, P, R, M = 5000, 5, 4, 70


@pytest.fixture(params=["whole numbers", "single precision"], autouse=True)
def products(request, monkeypatch):
    """Run each test with both ways of multiplying, where the machine has both."""
    whole = request.param == "whole numbers"
    if whole and not component_gwas.available():
        pytest.skip("this processor has no tiles for 8-bit products")
    monkeypatch.setattr(component_gwas, "available", lambda: whole)
    return request.param


def associate_block(raw: np.ndarray, null, **options):
    """Return the result of calls or dosages (m, n)."""
    return associate_packed(pack(raw), null, **options)


def make(covariates: np.ndarray, ldrs: np.ndarray):
    """Return the null model and A of components and covariates."""
    Q = np.linalg.qr(covariates)[0]
    residual = ldrs - Q @ (Q.T @ ldrs)
    return null_model(Q, residual), residual.T @ residual


@pytest.fixture(scope="module")
def data():
    """Return covariates, components with effects up to |z| of about 100, and calls."""
    rng = np.random.default_rng(8)
    # More people than a product takes at once, so that partial sums are added.
    covariates = np.column_stack([np.ones(N), rng.normal(size=(N, P - 1))])
    calls = hard_calls(M, N, seed=9, missing=0.03)
    calls[0] = rng.binomial(2, 0.99, N)
    calls[1] = rng.binomial(2, 0.004, N)
    ldrs = rng.normal(size=(N, R)) * [1, 30, 1e-3, 1e4]
    ldrs += covariates @ rng.normal(size=(P, R)) * 5
    g = mean_imputed(calls)
    ldrs[:, 0] += 2.0 * g[2] + 0.2 * g[3]
    return covariates, ldrs, calls


def statistics(result, A: np.ndarray, nu: int):
    """Return beta and SE of a block's result."""
    beta = beta_from_z(result.z, result.a, np.diag(A), nu)
    return beta, standard_error_from_beta(beta, result.a, np.diag(A), nu)


def within_rule(beta, standard_error, expected_beta, expected_error):
    """Assert the exactness rule: beta to 1e-4 SE, SE to 1e-5 of itself."""
    assert np.max(np.abs(beta - expected_beta) / expected_error) <= 1e-4
    assert np.max(np.abs(standard_error / expected_error - 1)) <= 1e-5


@pytest.mark.parametrize("kind", ["calls", "dosages"])
def test_agrees_with_least_squares(data, kind):
    covariates, ldrs, calls = data
    genotypes = calls if kind == "calls" else dosages_of(calls, seed=3)
    null, A = make(covariates, ldrs)
    result = associate_block(genotypes, null)
    assert (result.status == ESTIMATED).all()
    expected = least_squares(mean_imputed(genotypes), covariates, ldrs)
    assert np.abs(expected[0] / expected[1]).max() > 50
    within_rule(*statistics(result, A, null.nu), *expected)


@pytest.mark.parametrize("noise", [1.0, 0.1, 0.01, 1e-3])
def test_z_in_the_thousands_is_exact(data, noise):
    covariates, ldrs, calls = data
    g = mean_imputed(calls)
    rng = np.random.default_rng(4)
    strong = np.column_stack([g[5] + noise * rng.normal(size=N), ldrs[:, 1:]])
    null, A = make(covariates, strong)
    result = associate_block(calls, null)
    beta, standard_error, *_ = expected = least_squares(g, covariates, strong)
    if noise < 0.1:
        assert np.abs(beta / standard_error).max() > 3000
    within_rule(*statistics(result, A, null.nu), *expected)


def test_one_person_far_from_all_others_is_exact(data):
    covariates, ldrs, calls = data
    far = ldrs.copy()
    far[7] += 1e5 * ldrs.std(axis=0)
    null, A = make(covariates, far)
    expected = least_squares(mean_imputed(calls), covariates, far)
    within_rule(*statistics(associate_block(calls, null), A, null.nu), *expected)


@pytest.mark.parametrize(("share", "exact"), [(0.5, True), (0.9, False)])
def test_components_of_one_person_are_not_rounded_to_whole_numbers(products, share, exact):
    # One person's share of the sum of squares: 100 or 134 times the root mean square.
    n = 20_000
    S = np.random.default_rng(2).normal(size=(n, 2))
    S[:, 1] *= np.sqrt((1 - share) / np.square(S[1:, 1]).sum())
    S[0, 1] = np.sqrt(share)
    Q = np.full((n, 1), n**-0.5)
    whole = products == "whole numbers"
    assert null_model(Q, S).arithmetic == ("whole" if whole and exact else "single")
    # What is allowed is within the rule, with covariates and components that explain the most.
    if whole:
        error = 6 * tile_products.rounding(S).max() / np.sqrt(0.1 * 0.5)
        assert (error <= 1e-4) == exact


def test_memory_serves_null_models_of_both_kinds(data, products):
    covariates, ldrs, calls = data
    null, _ = make(covariates, ldrs)
    residual = null.residuals
    workspace = Workspace(R + P, M)
    expected = associate_block(calls, null).z
    for tiles in (False, True) if products == "whole numbers" else (False,):
        other = null_model(null.Q, residual, tiles=tiles)
        assert other.arithmetic == ("whole" if tiles else "single")
        found = associate_block(calls, other, workspace=workspace).z
        np.testing.assert_allclose(found, expected, atol=1e-4)
    with pytest.raises(ValueError, match="memory is for 3 columns, the null model has 9"):
        associate_block(calls, null, workspace=Workspace(3, M))


def test_agrees_with_statsmodels(data):
    covariates, ldrs, calls = data
    rng = np.random.default_rng(1)
    # A categorical covariate, and one in odd units.
    site = rng.integers(0, 3, N)
    odd = np.column_stack([covariates, site == 1, site == 2, 1.4e6 + 1e5 * rng.normal(size=N)])
    null, A = make(odd, ldrs)
    beta, standard_error = statistics(associate_block(calls[:6], null), A, null.nu)
    g = mean_imputed(calls[:6])
    # The same model with the odd covariate standardised, which least squares allows.
    design = odd.copy()
    design[:, -1] = (design[:, -1] - design[:, -1].mean()) / design[:, -1].std()
    for row in range(6):
        for component in range(R):
            fit = sm.OLS(ldrs[:, component], np.column_stack([design, g[row]])).fit()
            assert abs(beta[row, component] - fit.params[-1]) <= 1e-4 * fit.bse[-1]
            assert abs(standard_error[row, component] / fit.bse[-1] - 1) <= 1e-5


def test_variant_nearly_explained_by_covariates_is_exact(data):
    covariates, ldrs, calls = data
    g = dosages_of(calls[:8], seed=3)
    g[g == MISSING] = 1.0
    rng = np.random.default_rng(2)
    close = (
        g.astype(float) + rng.normal(size=g.shape) * np.array([0.3, 0.1, 0.03, 0.01] * 2)[:, None]
    )
    design = np.column_stack([covariates, close.T])
    null, A = make(design, ldrs)
    result = associate_block(g, null)
    expected = least_squares(g.astype(float), design, ldrs)
    kept = result.status == ESTIMATED
    assert kept.all()
    share = result.a / ((g - g.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    assert share.min() < 1e-3
    beta, standard_error = statistics(result, A, null.nu)
    within_rule(beta, standard_error, *expected)


def blocks_of(genotypes, size):
    for first in range(0, len(genotypes), size):
        part = genotypes[first : first + size]
        yield first, first + len(part), part


@pytest.mark.parametrize("kind", ["calls", "dosages"])
def test_blocks_and_threads_change_no_bit(data, kind):
    covariates, ldrs, calls = data
    genotypes = calls if kind == "calls" else dosages_of(calls, seed=3)
    null, _ = make(covariates, ldrs)

    def one(block):
        first, _, raw = block
        return associate_block(raw, null, workspace=Workspace(R + P, 32), first=first)

    results = [
        list(ordered_map(one, blocks_of(genotypes, size), threads))
        for size, threads in ((32, 1), (32, 3), (7, 2), (31, 1))
    ]
    assert [result.first for result in results[1]] == [0, 32, 64]
    for other in results[1:]:
        for name in ("z", "a", "frequency", "missing_rate", "status"):
            one, two = (
                np.concatenate([getattr(result, name) for result in parts])
                for parts in (results[0], other)
            )
            np.testing.assert_array_equal(one, two)


def test_units_of_covariates_change_nothing(data):
    covariates, ldrs, calls = data
    scaled = covariates * [1, 1e6, 1e-6, 3, 1] + [0, 5e5, 0, 0, 7]
    z = associate_block(calls, make(covariates, ldrs)[0]).z
    np.testing.assert_allclose(associate_block(calls, make(scaled, ldrs)[0]).z, z, atol=1e-4)


def test_swapped_allele_turns_the_sign(data):
    covariates, ldrs, calls = data
    null, _ = make(covariates, ldrs)
    swapped = np.where(calls == MISSING, MISSING, 2 - calls).astype(np.int8)
    one, two = associate_block(calls, null), associate_block(swapped, null)
    np.testing.assert_allclose(two.z, -one.z, atol=2e-4)
    np.testing.assert_allclose(two.frequency, 1 - one.frequency, atol=1e-12)


def test_frequency_and_missing_rate_are_counted(data):
    covariates, ldrs, calls = data
    result = associate_block(calls, make(covariates, ldrs)[0])
    known = np.where(calls == MISSING, np.nan, calls.astype(float))
    np.testing.assert_allclose(result.frequency, np.nanmean(known, axis=1) / 2, rtol=1e-12)
    np.testing.assert_allclose(result.missing_rate, np.isnan(known).mean(axis=1), atol=1e-12)


@pytest.mark.parametrize("dtype", [np.int8, np.float32])
def test_variants_without_estimate_are_told_apart(dtype):
    rng = np.random.default_rng(0)
    n = 400
    sex = rng.integers(0, 2, n)
    covariates = np.column_stack([np.ones(n), sex])
    null, _ = make(covariates, rng.normal(size=(n, 3)))
    genotypes = np.zeros((8, n), dtype=dtype)
    genotypes[0] = rng.binomial(2, 0.3, n)
    genotypes[1] = MISSING
    genotypes[2] = 2
    genotypes[3, :7] = 1
    genotypes[4] = 2 * sex
    genotypes[5, :19] = 1
    genotypes[6, :20] = 1
    genotypes[7] = 2
    genotypes[7, :200] = MISSING
    genotypes[7, 200:240] = 1
    result = associate_block(
        genotypes, null, filters=Filters(minor_allele_count=20, minor_allele_frequency=0.03)
    )
    assert result.status.tolist() == [
        ESTIMATED, ALL_MISSING, MONOMORPHIC, BELOW_COUNT, COLLINEAR, BELOW_COUNT, BELOW_FREQUENCY,
        ESTIMATED,
    ]  # fmt: skip
    missing = np.isin(result.status, (ALL_MISSING, MONOMORPHIC, COLLINEAR))
    assert np.isnan(result.z[missing]).all()
    assert np.isnan(result.a[missing]).all()
    assert np.isfinite(result.z[[0, 7]]).all()


def test_component_without_variance_is_refused():
    Q = np.ones((10, 1)) / np.sqrt(10)
    S = np.zeros((10, 2))
    S[:, 0] = np.linspace(-1, 1, 10)
    with pytest.raises(ValueError, match="component 2 does not vary"):
        null_model(Q, S)


def test_too_few_people_are_refused():
    with pytest.raises(ValueError, match="3 people are too few for 2 covariates"):
        null_model(np.eye(3)[:, :2], np.ones((3, 1)))


@pytest.mark.parametrize("largest", [1e-3, 1.0, 5.7, 60.0, 1e4])
def test_coding_error_is_within_its_bound(largest):
    rng = np.random.default_rng(3)
    z = rng.normal(size=(200, 50))
    z *= largest / np.abs(z).max(axis=1, keepdims=True)
    codes, scale = encode_z(z)
    assert codes.dtype == np.int16
    assert scale.dtype == np.float32
    error = np.abs(decode_z(codes, scale) - z)
    assert np.all(error <= np.abs(z).max(axis=1, keepdims=True) / 65_534 * (1 + 1e-6))
    # The largest code is used, so the bound cannot be had with fewer bits.
    assert (np.abs(codes.astype(int)).max(axis=1) >= 32_766).all()


def test_coding_keeps_missing_and_zero():
    z = np.array([[np.nan, 1.0], [np.nan, np.nan], [0.0, 0.0]])
    codes, scale = encode_z(z)
    assert codes[0, 0] == MISSING_CODE
    np.testing.assert_array_equal(np.isnan(decode_z(codes, scale)), np.isnan(z))
    np.testing.assert_allclose(decode_z(codes, scale)[[0, 2], 1], [1.0, 0.0], rtol=1e-6)
    plain, unit = encode_z(z, "float32")
    np.testing.assert_array_equal(unit, 1)
    np.testing.assert_array_equal(decode_z(plain, unit), z)
