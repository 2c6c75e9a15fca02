"""Representations, reconstruction quality and covariates factored once."""

from __future__ import annotations

import numpy as np
import pytest
import threadpoolctl
from scipy.stats import chi2

from rvga import projection
from rvga.errors import InputError


def test_projection_is_a_product():
    rng = np.random.default_rng(0)
    X, B = rng.normal(size=(5, 30)).astype("f4"), rng.normal(size=(30, 3))
    mean = X.astype(float).mean(axis=0)
    found = projection.Projection(B, np.ones(30, dtype=bool), np.zeros(0), mean).scores(X)
    X = X.astype(float)
    np.testing.assert_allclose(found.image_times_mean, X @ mean)
    less, centred = X - mean, found.centred()
    np.testing.assert_allclose(centred.ldrs, less @ B, atol=1e-12)
    np.testing.assert_allclose(centred.image_sum, less.sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(centred.image_sum_of_squares, (less**2).sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(centred.image_times_mean, less @ mean, atol=1e-12)
    np.testing.assert_allclose(found.ldrs, X @ B)
    np.testing.assert_allclose(found.image_sum, X.sum(axis=1))
    np.testing.assert_allclose(found.image_sum_of_squares, (X**2).sum(axis=1))


def test_a_voxel_that_the_images_lack_is_constant():
    rng = np.random.default_rng(0)
    X, B = rng.normal(size=(5, 30)), rng.normal(size=(30, 3))
    present = rng.random(30) < 0.8
    X[:, ~present] = X[0, ~present]
    mean = X.mean(axis=0)
    onto = projection.Projection(B, present, X[0, ~present], mean[present])
    found = onto.scores(X[:, present])
    np.testing.assert_allclose(found.image_times_mean, X @ mean)
    assert 0 < present.sum() < 30
    np.testing.assert_allclose(found.ldrs, X @ B)
    np.testing.assert_allclose(found.image_sum, X.sum(axis=1))
    np.testing.assert_allclose(found.image_sum_of_squares, (X**2).sum(axis=1))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("N", "r"), [(40, 1), (500, 33), (1001, 100), (3001, 257)])
def test_an_image_has_the_same_scores_whatever_comes_with_it(N, r, order):
    rng = np.random.default_rng(N + r)
    X = np.asarray(rng.normal(size=(128, N)).astype("f4"), order=order)
    onto = projection.Projection(
        rng.normal(size=(N, r)).astype("f4"), np.ones(N, dtype=bool), np.zeros(0), X.mean(axis=0)
    )
    with threadpoolctl.threadpool_limits(1):
        whole = onto.scores(X)
        for n in (1, 2, 7, 23, 64, 127):
            rows = rng.permutation(128)[:n]
            found = onto.scores(X[rows])
            for name in ("ldrs", "image_sum", "image_sum_of_squares", "image_times_mean"):
                assert np.array_equal(getattr(found, name), getattr(whole, name)[rows]), name


@pytest.mark.parametrize(("N", "rows"), [(10, 128), (131072, 128), (200_000, 80), (10**7, 16)])
def test_images_a_tile(N, rows):
    assert projection.tile_rows(N) == rows


@pytest.mark.parametrize(
    ("r", "expected"), [(1, [1]), (7, [1, 2, 5, 7]), (60, [1, 2, 5, 10, 20, 50, 60])]
)
def test_quality_numbers(r, expected):
    assert projection.quality_numbers(r).tolist() == expected


def test_reconstruction_correlation_equals_the_plain_one():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(12, 50)) + 3.0
    B, _ = np.linalg.qr(rng.normal(size=(50, 6)))
    B = B.astype("f4").astype(float)
    found = projection.reconstruction_correlation(
        X @ B, B, X.sum(axis=1), (X**2).sum(axis=1), [1, 2, 6]
    )
    for row, q in enumerate([1, 2, 6]):
        expected = [np.corrcoef(x, B[:, :q] @ (x @ B[:, :q]))[0, 1] for x in X]
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=1e-6)


def test_an_image_without_variation_has_no_correlation():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(3, 50))
    X[1] = 4.0
    B, _ = np.linalg.qr(rng.normal(size=(50, 2)))
    found = projection.reconstruction_correlation(X @ B, B, X.sum(axis=1), (X**2).sum(axis=1), [2])
    assert np.isnan(found[0]).tolist() == [False, True, False]


def test_outlying_subjects():
    rng = np.random.default_rng(0)
    turn = rng.normal(size=(5, 5))
    S = rng.normal(size=(2000, 5)) @ turn
    found = projection.robust_distances(S)
    assert found.threshold == pytest.approx(chi2.isf(0.05 / 2000, 5))
    assert len(found.outlying) <= 2
    # Distances are those of the true covariance, nearly.
    exact = np.einsum("nr,rs,ns->n", S, np.linalg.inv(turn.T @ turn), S)
    assert np.corrcoef(found.squared, exact)[0, 1] > 0.99
    np.testing.assert_allclose(np.median(found.squared), chi2.median(5), rtol=1e-9)
    # A tenth of the subjects elsewhere does not hide itself, nor make others look strange.
    S[:200] += 15 * turn[0]
    S[7] += 40 * turn[1]
    found = projection.robust_distances(S)
    assert found.outlying[0] == 7
    assert set(range(200)) <= set(found.outlying.tolist())
    assert len(found.outlying) <= 203


def test_distances_do_not_depend_on_units_and_need_spread():
    S = np.random.default_rng(1).normal(size=(200, 4))
    plain = projection.robust_distances(S).squared
    scaled = projection.robust_distances(S * [1e-3, 1, 50, 1e6] + 7).squared
    np.testing.assert_allclose(scaled, plain, rtol=1e-6)
    assert not len(projection.robust_distances(np.ones((20, 3))).outlying)
    few = projection.robust_distances(np.random.default_rng(2).normal(size=(30, 20)))
    assert np.isfinite(few.squared).all()


def test_correlation_by_number_equals_the_plain_one():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(12, 50)) + 3.0
    X[3] = 2.0
    B, _ = np.linalg.qr(rng.normal(size=(50, 6)))
    total, defined = projection.correlation_by_number(
        X @ B, B.sum(axis=0), X.sum(axis=1), (X**2).sum(axis=1), 50
    )
    assert defined.tolist() == [11] * 6
    for q in range(1, 7):
        each = [np.corrcoef(x, B[:, :q] @ (x @ B[:, :q]))[0, 1] for x in np.delete(X, 3, axis=0)]
        assert total[q - 1] == pytest.approx(np.sum(each), abs=1e-10)


def test_correlations_of_blocks_add_up_where_a_block_has_none():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(7, 50)) + 3.0
    X[6] = 2.0
    B, _ = np.linalg.qr(rng.normal(size=(50, 4)))

    def of(rows):
        Y = X[rows]
        return projection.correlation_by_number(
            Y @ B, B.sum(axis=0), Y.sum(axis=1), (Y**2).sum(axis=1), 50
        )

    whole, blocks = of(slice(0, 7)), [of(slice(0, 4)), of(slice(4, 6)), of(slice(6, 7))]
    assert blocks[2][1].tolist() == [0] * 4
    np.testing.assert_allclose(sum(total for total, _ in blocks), whole[0], rtol=1e-12)
    assert sum(defined for _, defined in blocks).tolist() == whole[1].tolist() == [6] * 4


def covariates(n: int = 80, q: int = 4) -> tuple[np.ndarray, list[str]]:
    """Return random covariates and their names."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, q)) + 5.0, [f"c{k}" for k in range(q)]


def test_q_spans_the_intercept_and_the_covariates():
    C, names = covariates()
    factor = projection.factor_covariates(C, names, "table")
    np.testing.assert_allclose(factor.Q.T @ factor.Q, np.eye(5), atol=1e-14)
    full = np.column_stack([np.ones(len(C)), C])
    np.testing.assert_allclose(factor.Q @ (factor.Q.T @ full), full, atol=1e-12)
    assert factor.used == names
    assert factor.redundant == []


def test_residuals_equal_least_squares():
    C, names = covariates()
    S = np.random.default_rng(1).normal(size=(len(C), 3)) * 100 + 1e4
    factor = projection.factor_covariates(C, names, "table")
    residual, A = projection.residual_cross_product(S, factor.Q)
    full = np.column_stack([np.ones(len(C)), C])
    expected = S - full @ np.linalg.lstsq(full, S, rcond=None)[0]
    np.testing.assert_allclose(residual, expected, atol=1e-9)
    np.testing.assert_allclose(A, expected.T @ expected, rtol=1e-9, atol=1e-6)
    assert (A == A.T).all()


@pytest.mark.parametrize(("scale", "shift"), [(1e-9, 0.0), (1e9, 0.0), (1.0, 1e6)])
def test_units_of_covariates_do_not_matter(scale, shift):
    C, names = covariates()
    S = np.random.default_rng(1).normal(size=(len(C), 3))
    plain = projection.factor_covariates(C, names, "table")
    other = projection.factor_covariates(C * scale + shift, names, "table")
    first, A = projection.residual_cross_product(S, plain.Q)
    second, B = projection.residual_cross_product(S, other.Q)
    np.testing.assert_allclose(second, first, atol=1e-9)
    np.testing.assert_allclose(B, A, rtol=1e-9, atol=1e-9)


def test_a_redundant_column_is_named_and_left_out():
    C, names = covariates()
    C = np.column_stack([C, C[:, 0] * 3 - C[:, 2] * 1e3 + 7])
    factor = projection.factor_covariates(C, [*names, "sum"], "table")
    assert factor.redundant == ["sum"]
    assert factor.used == names
    assert factor.Q.shape[1] == 5
    without = projection.factor_covariates(C[:, :4], names, "table")
    np.testing.assert_allclose(factor.Q, without.Q)


def test_nearly_redundant_columns_are_kept():
    C, names = covariates()
    rng = np.random.default_rng(3)
    C = np.column_stack([C, C[:, 0] + 1e-5 * rng.normal(size=len(C))])
    factor = projection.factor_covariates(C, [*names, "close"], "table")
    assert factor.redundant == []
    np.testing.assert_allclose(factor.Q.T @ factor.Q, np.eye(6), atol=1e-12)


def test_without_covariates_there_is_the_intercept():
    factor = projection.factor_covariates(np.empty((9, 0)), [], "table")
    np.testing.assert_allclose(factor.Q, np.full((9, 1), 1 / 3))


@pytest.mark.parametrize("value", [0.0, 1.0, 1e12, 0.1])
def test_a_constant_covariate_is_bad_input(value):
    C, names = covariates()
    C[:, 2] = value
    with pytest.raises(InputError, match="covariate 'c2' is constant"):
        projection.factor_covariates(C, names, "table")


def test_fewer_subjects_than_covariates_is_bad_input():
    rng = np.random.default_rng(0)
    projection.factor_covariates(rng.normal(size=(8, 5)), list("abcde"), "table")
    with pytest.raises(InputError, match="7 subjects are too few for 5 covariates"):
        projection.factor_covariates(rng.normal(size=(7, 5)), list("abcde"), "table")
