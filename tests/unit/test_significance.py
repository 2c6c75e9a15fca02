"""Tails against high-precision values, and image-wide p against brute force."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import integrate, special, stats

from rvga import significance as sig

CLOSED_FORMS = [(1, 1e-3), (1, 2.0), (1, 1e3), (2, 0.5), (2, 1e3), (4, 3.0), (4, 700.0)]


def closed_form_two_sided(nu: int, z: float) -> float:
    """Return the two-sided p of t with 1, 2 or 4 degrees of freedom, without cancellation."""
    if nu == 1:
        return 2 / np.pi * np.arctan2(1.0, z)
    if nu == 2:
        s = np.sqrt(2 + z * z)
        return 2 / (s * (s + z))
    s = z / np.sqrt(4 + z * z)
    one_less = 4 / ((4 + z * z) * (1 + s))
    return one_less**2 * (2 + s) / 2  # 1 − s (3 − s²) / 2


@pytest.mark.parametrize(("nu", "z"), CLOSED_FORMS)
def test_t_tail_agrees_with_closed_forms(nu, z):
    expected = -np.log10(closed_form_two_sided(nu, z))
    assert sig.neg_log_10_p_t(z, nu) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("nu", [3, 30, 2816, 1_000_000])
@pytest.mark.parametrize("z", [0.01, 1.0, 5.0, 20.0, 36.0, 40.0, 200.0, 1000.0])
def test_t_tail_agrees_with_integration(nu, z):
    # The density beyond z over that at z, so that nothing underflows.
    def relative(u: float) -> float:
        x = z + u
        return np.exp(-(nu + 1) / 2 * (np.log1p(x * x / nu) - np.log1p(z * z / nu)))

    width = 60.0 * (nu + z * z) / ((nu + 1) * max(z, 0.5))
    if nu == 3:
        body = integrate.quad(lambda v: relative(v / (1 - v)) / (1 - v) ** 2, 0, 1, epsrel=1e-12)[0]
    else:
        knots = np.concatenate([[0], np.geomspace(width * 1e-4, width * 30, 60)])
        body = sum(
            integrate.quad(relative, low, high, epsabs=0, epsrel=1e-12)[0]
            for low, high in itertools.pairwise(knots)
        )
    log_density = (
        special.gammaln((nu + 1) / 2)
        - special.gammaln(nu / 2)
        - 0.5 * np.log(nu * np.pi)
        - (nu + 1) / 2 * np.log1p(z * z / nu)
    )
    expected = -(np.log(2) + log_density + np.log(body)) / np.log(10)
    assert sig.neg_log_10_p_t(z, nu) == pytest.approx(expected, rel=1e-8, abs=1e-9)


def test_t_tail_is_symmetric_missing_stays_and_shapes_stay():
    z = np.array([[0.0, -3.0], [3.0, np.nan]])
    result = sig.neg_log_10_p_t(z, 50)
    assert result.shape == (2, 2)
    assert result[0, 0] == 0.0
    assert not np.signbit(result[0, 0])
    assert result[0, 1] == result[1, 0]
    assert np.isnan(result[1, 1])
    assert np.isfinite(sig.neg_log_10_p_t(1e200, 3))


def test_t_tail_is_continuous_where_the_formula_changes():
    z = np.linspace(33, 36, 3001)  # p passes 1e-250 within
    p = sig.neg_log_10_p_t(z, 1e6)
    assert p[0] < 250 < p[-1]
    second = np.diff(p, 2)
    assert np.all(np.abs(second - np.median(second)) < 1e-9)


@pytest.mark.parametrize("nu", [3, 40, 2816, 10**6])
def test_t_to_normal_has_the_tail_of_t_and_is_inverted(nu):
    z = np.array([-900.0, -30.0, -2.0, 0.0, 0.3, 5.0, 100.0])
    normal = sig.t_to_normal(z, nu)
    np.testing.assert_allclose(
        sig.neg_log_10_p_normal(normal), sig.neg_log_10_p_t(z, nu), rtol=1e-10, atol=1e-12
    )
    assert np.array_equal(np.sign(normal), np.sign(z))
    for t, expected in zip(normal[4:], z[4:], strict=True):
        assert sig.normal_to_t(t, nu) == pytest.approx(expected, rel=1e-9)


def test_omnibus_is_the_f_test_of_least_squares():
    rng = np.random.default_rng(2)
    n, r = 90, 4
    S = rng.normal(size=(n, r)) @ rng.normal(size=(r, r))
    g = rng.normal(size=n) + 0.3 * S[:, 0]
    S, g = S - S.mean(0), g - g.mean()
    a, A, nu = g @ g, S.T @ S, n - 1 - 1
    beta = (g @ S / a)[None]
    # The same R² from regressing the variant on the components.
    fitted = S @ np.linalg.lstsq(S, g, rcond=None)[0]
    R2 = fitted @ fitted / a
    F = R2 / r / ((1 - R2) / (nu - r + 1))
    expected = -np.log10(stats.f.sf(F, r, nu - r + 1))
    result = sig.omnibus_neg_log_10_p(beta, np.array([a]), A, nu)
    np.testing.assert_allclose(result, expected, rtol=1e-10)


def test_omnibus_far_tail_and_its_limits():
    r_squared = np.array([0.0, 0.5, 0.9, 1.0])
    p = sig.neg_log_10_p_f(r_squared, 40, 3000)
    assert p[0] == 0
    # Bounds of the incomplete beta function: x^a (1-x)^b / (a B) < I < that / (1 - x (a+b)/(a+1)).
    a, b, x = 1500.0, 20.0, 0.1
    log_term = a * np.log(x) + b * np.log1p(-x) - np.log(a) - special.betaln(a, b)
    assert (
        -log_term / np.log(10) > p[2] > -(log_term - np.log1p(-x * (a + b) / (a + 1))) / np.log(10)
    )
    assert np.isfinite(p[3])
    with pytest.raises(ValueError, match="degrees of freedom"):
        sig.omnibus_neg_log_10_p(np.ones((1, 5)), np.ones(1), np.eye(5), 4)


@pytest.fixture(scope="module")
def image():
    """Return bases and covariance of smooth images on 400 voxels."""
    rng = np.random.default_rng(4)
    x = np.linspace(0, 1, 400)
    kernel = np.exp(-0.5 * ((x[:, None] - x) / 0.03) ** 2)
    values, vectors = np.linalg.eigh(kernel)
    bases = vectors[:, ::-1][:, :18]
    Sigma = np.diag(values[::-1][:18]) + 0.1 * np.cov(rng.normal(size=(18, 60)))
    return bases, Sigma


@pytest.fixture(scope="module")
def tail(image):
    return sig.image_wide_tail(*image, n_eff=9.0, draws=8000, seed=3)


def test_image_wide_p_agrees_with_brute_force(image, tail):
    bases, Sigma = image
    U = bases @ np.linalg.cholesky(Sigma)
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    rng = np.random.default_rng(5)
    batches, size = 20, 20_000
    largest = np.concatenate(
        [np.abs(rng.standard_normal((size, 18)) @ U.T).max(axis=1) for _ in range(batches)]
    )
    for p in (0.5, 1e-1, 1e-2, 1e-3):
        t = np.quantile(largest, 1 - p)
        computed = 10.0 ** -sig.image_wide_neg_log_10_p(t, tail)
        # Four standard errors of the simulated share, and of the table.
        error = np.hypot(
            np.sqrt((1 - p) / p / len(largest)), np.interp(t, tail.threshold, tail.relative_error)
        )
        assert computed == pytest.approx(p, rel=4 * error)


def test_independent_voxels_give_the_exact_formula():
    tail = sig.image_wide_tail(np.eye(25), np.eye(25), n_eff=25.0, draws=4000)
    t = np.array([0.0, 2.0, 3.3, 5.5, 9.9, 20.0, 39.0, 60.0])
    exact = -np.log10(-np.expm1(25 * np.log1p(-2 * stats.norm.sf(t[1:5]))))
    assert sig.image_wide_neg_log_10_p(0.0, tail) == 0
    np.testing.assert_allclose(sig.image_wide_neg_log_10_p(t[1:5], tail), exact, atol=0.01)
    far = sig.neg_log_10_p_normal(t[5:]) - np.log10(25)
    np.testing.assert_allclose(sig.image_wide_neg_log_10_p(t[5:], tail), far, rtol=1e-6)


def test_one_voxel_is_an_ordinary_test():
    tail = sig.image_wide_tail(np.ones((1, 1)), np.ones((1, 1)), n_eff=1.0, draws=100)
    assert tail.critical_z == pytest.approx(stats.norm.isf(2.5e-8), abs=1e-9)
    t = np.array([0.3, 4.0, 50.0])
    np.testing.assert_allclose(
        sig.image_wide_neg_log_10_p(t, tail), sig.neg_log_10_p_normal(t), rtol=1e-9
    )


def test_identical_voxels_count_once():
    tail = sig.image_wide_tail(np.ones((300, 1)), np.ones((1, 1)), n_eff=1.0, draws=500)
    assert tail.critical_z == pytest.approx(stats.norm.isf(2.5e-8), abs=1e-6)


def test_tail_is_ordered_and_its_critical_value_solves_the_level(tail):
    assert np.all(np.diff(tail.neg_log_10_p) >= 0)
    assert tail.neg_log_10_p[0] == 0
    assert sig.image_wide_neg_log_10_p(tail.critical_z, tail) == pytest.approx(
        -np.log10(5e-8), abs=1e-9
    )
    assert tail.critical_relative_error < 0.02
    # Between one test and as many tests as voxels.
    assert 5.45 < tail.critical_z < stats.norm.isf(2.5e-8 / 400)
    assert np.array_equal(sig.image_wide_neg_log_10_p(np.array([np.nan]), tail), [np.nan], True)


def test_tail_does_not_depend_on_threads_nor_on_dead_voxels(image, tail):
    import threadpoolctl

    bases, Sigma = image
    with threadpoolctl.threadpool_limits(1):
        one, two = (
            sig.image_wide_tail(bases, Sigma, n_eff=9.0, draws=1000, seed=3, threads=threads)
            for threads in (1, 3)
        )
        dead = np.vstack([np.zeros((2, 18)), bases])
        three = sig.image_wide_tail(dead, Sigma, n_eff=9.0, draws=1000, seed=3)
    for field in dataclasses.fields(one):
        assert np.array_equal(getattr(one, field.name), getattr(two, field.name))
        assert np.array_equal(getattr(one, field.name), getattr(three, field.name))
    assert not np.array_equal(one.neg_log_10_p, tail.neg_log_10_p)


def test_stated_error_is_that_of_repeated_runs(image):
    runs = [sig.image_wide_tail(*image, n_eff=9.0, draws=600, seed=seed) for seed in range(25)]
    p = np.array([10.0 ** -sig.image_wide_neg_log_10_p(5.8, run) for run in runs])
    stated = np.mean([np.interp(5.8, run.threshold, run.relative_error) for run in runs])
    spread = p.std(ddof=1) / p.mean()
    # Drawing each voxel equally often can only make the spread smaller; 25 runs tell it to 15 %.
    assert 0.4 * stated < spread < 1.5 * stated


def test_published_rule():
    assert sig.published_critical_z(14.0, 5e-8) == pytest.approx(
        stats.norm.isf(5e-8 / 14 / 2), rel=1e-12
    )
    one, other = (
        sig.image_wide_tail(np.eye(20), np.eye(20), n_eff=14.0, draws=500, significance=rule)
        for rule in ("image_wide", "published")
    )
    # The rule decides which critical value counts; the table of p is image-wide in both.
    assert one.critical_z == one.critical_z_image_wide == other.critical_z_image_wide
    assert other.critical_z == other.critical_z_published == one.critical_z_published
    assert one.critical_z != other.critical_z
    assert np.array_equal(one.neg_log_10_p, other.neg_log_10_p)


def test_null_variants_are_below_image_wide_p_as_often_as_it_says(image):
    """Genotypes that do nothing, least squares, the scan, t statistics of few people."""
    from rvga import scan

    bases, Sigma = image
    rng = np.random.default_rng(12)
    n, m, nu = 250, 60_000, 248
    S = rng.standard_normal((n, 18)) @ np.linalg.cholesky(Sigma).T
    S -= S.mean(axis=0)
    A = S.T @ S
    of_study = sig.image_wide_tail(bases, A / n, n_eff=9.0, draws=20_000, seed=3)
    scanner = scan.prepare(bases, A[None], nu, sig.normal_to_t(of_study.critical_z, nu))
    z = []
    for _ in range(m // 2000):
        g = rng.binomial(2, rng.uniform(0.1, 0.5, (2000, 1)), (2000, n)).astype(float)
        g -= g.mean(axis=1, keepdims=True)
        a = (g**2).sum(axis=1)
        z.append(scan.scan_block(scanner, g @ S / a[:, None], a, np.zeros(2000, dtype=int)).z)
    p = sig.image_wide_neg_log_10_p(sig.t_to_normal(np.concatenate(z), nu), of_study)
    assert np.isfinite(p).all()
    for level in (0.1, 1e-2, 1e-3):
        low, high = stats.binom.interval(0.99, m, level)
        assert low <= (p > -np.log10(level)).sum() <= high, level


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="no voxel"):
        sig.image_wide_tail(np.zeros((3, 2)), np.eye(2), n_eff=1.0, draws=100)
    with pytest.raises(ValueError, match="draws"):
        sig.image_wide_tail(np.eye(2), np.eye(2), n_eff=1.0, draws=1)
