"""Products with the covariance of smoothed images, and components found by them alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

import oracles
from rvga import cli, fpca, tile_products
from rvga.covariance import SmoothedCovariance
from rvga.errors import InputError
from rvga.parallel import read_ahead


@pytest.fixture(autouse=True)
def _one_thread():
    # As in the stage: linear algebra in one thread, tiles in several.
    with cli.threads(1):
        yield


def raw_images(n: int, N: int, decay: float, seed: int = 0) -> np.ndarray:
    """Return images far from zero, whose eigenvalues fall like a power, in single precision."""
    rng = np.random.default_rng(seed)
    k = min(n, N)
    U = np.linalg.qr(rng.normal(size=(n, k)))[0] * np.arange(1, k + 1) ** (-decay / 2)
    V = np.linalg.qr(rng.normal(size=(N, k)))[0]
    return (U @ V.T * np.sqrt(n) + 7).astype(np.float32)


def weights(N: int, seed: int = 1) -> sparse.csr_array:
    """Return a sparse smoother."""
    near = sparse.random_array((N, N), density=4 / N, rng=np.random.default_rng(seed))
    return sparse.csr_array(0.5 * sparse.eye_array(N) + near)


def operator(X: np.ndarray, W, block: int, workers: int = 1) -> SmoothedCovariance:
    """Return the operator over blocks of some size."""

    def blocks():
        return (X[first : first + block] for first in range(0, len(X), block))

    return SmoothedCovariance(blocks, X.mean(axis=0, dtype=float), len(X), W, workers=workers)


def dense(X: np.ndarray, W) -> np.ndarray:
    """Return the covariance matrix, written out."""
    Y = X.astype(float) if W is None else X.astype(float) @ W.toarray().T
    return np.cov(Y.T, bias=True)


@pytest.mark.parametrize("smoothed", [False, True])
def test_product_trace_and_matrix(smoothed):
    X = raw_images(50, 70, 1.0)
    W = weights(70) if smoothed else None
    C = dense(X, W)
    V = np.random.default_rng(2).normal(size=(70, 5))
    for block in (7, 50):
        covariance = operator(X, W, block)
        np.testing.assert_allclose(covariance.product(V), C @ V, atol=1e-12 * np.abs(C).max() * 70)
        assert covariance.trace() == pytest.approx(np.trace(C), rel=1e-6)
        np.testing.assert_allclose(covariance.matrix(), C, atol=1e-12 * np.abs(C).max())


def test_bytes_do_not_depend_on_workers():
    X, W = raw_images(300, 5000, 1.0), weights(5000)
    V = np.random.default_rng(2).normal(size=(5000, 3))
    one, two = (operator(X, W, 128, workers) for workers in (1, 2))
    assert one.product(V).tobytes() == two.product(V).tobytes()
    assert one.trace() == two.trace()


def test_components_do_not_depend_on_workers():
    X = raw_images(200, 9000, 1.0)
    found = []
    for workers in (1, 3):
        covariance = operator(X, None, 64, workers)
        rough = fpca.KrylovSpectrum(
            covariance.rough_product, 9000, covariance.trace(), block=16, seed=1,
            dtype=np.float32, workers=workers,
        )  # fmt: skip
        fpca.krylov_components(
            rough, number=5, most=100, tolerance=fpca.ROUGH_TOLERANCE, to_be_corrected=True
        )
        found.append(fpca.refined_components(rough, covariance.close_product, 5))
    assert found[0].bases.tobytes() == found[1].bases.tobytes()
    assert found[0].eigenvalues.tobytes() == found[1].eigenvalues.tobytes()


def subspace_angle(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest angle (radians) between two subspaces, exact when it is small."""
    other = np.linalg.qr(other)[0]
    return float(np.linalg.norm(one - other @ (other.T @ one), 2))


@pytest.mark.parametrize("smoothed", [False, True])
@pytest.mark.parametrize("block", [37, 128, 500])
@pytest.mark.parametrize("decay", [0.5, 1.5])
def test_streamed_components_equal_a_dense_decomposition(smoothed, block, decay):
    X = raw_images(400, 700, decay)
    W = weights(700) if smoothed else None
    Y = X.astype(float) if W is None else X.astype(float) @ W.toarray().T
    for r in (5, 40):
        covariance = operator(X, W, block)
        spectrum = fpca.KrylovSpectrum(
            covariance.product, 700, covariance.trace(), block=fpca.block_size(r), seed=1
        )
        found = fpca.krylov_components(spectrum, number=r, most=100)
        bases, eigenvalues = oracles.principal_components(Y, r)
        assert found.converged
        np.testing.assert_allclose(found.eigenvalues, eigenvalues[:r], rtol=1e-6)
        assert (eigenvalues[r - 1] - eigenvalues[r]) / eigenvalues[r - 1] > 1e-3
        angle = subspace_angle(found.bases, bases)
        assert angle < 1e-6
        assert found.angle < 1e-6
        # The estimate of the error is none that flatters.
        assert angle < 1.5 * found.angle + 1e-12
        C = dense(X, W)
        residual = np.linalg.norm(C @ found.bases - found.bases * found.eigenvalues, axis=0)
        np.testing.assert_allclose(
            found.residual, residual / found.eigenvalues, rtol=0.05, atol=1e-11
        )
        np.testing.assert_allclose(found.bases.T @ found.bases, np.eye(r), atol=1e-12)
        assert (found.bases[np.argmax(np.abs(found.bases), axis=0), range(r)] > 0).all()


@pytest.fixture(params=["floating point", "tiles"])
def products(request, monkeypatch):
    """Let products be of either arithmetic."""
    if request.param == "tiles" and not tile_products.available():
        pytest.skip("this processor has no tiles for 8-bit products")
    if request.param != "tiles":
        monkeypatch.setattr(tile_products, "available", lambda: False)
    return request.param


def test_rough_and_close_products(products):
    X, W = raw_images(300, 500, 1.0), weights(500)
    V = np.random.default_rng(2).normal(size=(500, 33))
    C = dense(X, W)
    one, two = (operator(X, W, 70, workers) for workers in (1, 2))
    rough, close = one.rough_product(V), one.close_product(V)
    size = np.abs(C @ V).max()
    assert 0 < np.abs(rough - C @ V).max() < 3e-6 * size
    assert np.abs(close - C @ V).max() < (3e-9 if products == "tiles" else 1e-12) * size
    assert two.rough_product(V).tobytes() == rough.tobytes()
    assert two.close_product(V).tobytes() == close.tobytes()


@pytest.mark.parametrize("smoothed", [False, True])
@pytest.mark.parametrize(("decay", "r"), [(0.5, 5), (0.5, 40), (1.5, 5), (1.5, 40), (2.5, 40)])
def test_components_found_roughly_are_refined(smoothed, decay, r, products):
    X = raw_images(400, 700, decay)
    W = weights(700) if smoothed else None
    Y = X.astype(float) if W is None else X.astype(float) @ W.toarray().T
    covariance = operator(X, W, 37)
    rough = fpca.KrylovSpectrum(
        covariance.rough_product,
        700,
        covariance.trace(),
        block=fpca.block_size(r),
        seed=1,
        dtype=np.float32,
    )
    fpca.krylov_components(
        rough, number=r, most=100, tolerance=fpca.ROUGH_TOLERANCE, to_be_corrected=True
    )
    found = fpca.refined_components(rough, covariance.close_product, r)
    bases, eigenvalues = oracles.principal_components(Y, r)
    assert (eigenvalues[r - 1] - eigenvalues[r]) / eigenvalues[r - 1] > 1e-3
    assert found.converged
    assert found.passes > rough.passes
    np.testing.assert_allclose(found.eigenvalues, eigenvalues[:r], rtol=1e-6)
    angle = subspace_angle(found.bases, bases)
    assert angle < 1e-6
    assert angle < 1.5 * found.angle + 1e-12
    n_eff = np.sum(eigenvalues) ** 2 / np.sum(eigenvalues**2)
    assert found.n_eff == pytest.approx(n_eff, rel=1e-5, abs=5 * found.n_eff_error)


def test_the_sum_of_squares_is_unbiased_with_its_error():
    # A flat tail outside of a small space, so that the probes decide.
    X = raw_images(300, 400, 0.2)
    C = dense(X, None)
    exact = float((C**2).sum())
    standardized, errors = [], []
    for seed in range(40):
        spectrum = fpca.KrylovSpectrum(lambda V: C @ V, 400, np.trace(C), block=8, seed=seed)
        spectrum.step()
        spectrum.step()
        found, error = spectrum.sum_of_squares()
        standardized.append((found - exact) / error)
        errors.append(error / exact)
    assert abs(np.mean(standardized)) < 3 / np.sqrt(40)
    assert 0.7 < np.std(standardized) < 1.4
    assert 1e-4 < np.mean(errors) < 0.1


def test_components_by_share_of_variance():
    X = raw_images(300, 400, 1.2)
    C = dense(X, None)
    eigenvalues = np.linalg.eigvalsh(C)[::-1]
    cumulated = np.cumsum(eigenvalues) / eigenvalues.sum()
    for share in (0.5, 0.8):
        spectrum = fpca.KrylovSpectrum(lambda V: C @ V, 400, np.trace(C), block=16, seed=1)
        found = fpca.krylov_components(spectrum, share=share, most=200)
        assert found.bases.shape[1] == np.count_nonzero(cumulated < share) + 1
        assert found.share == pytest.approx(cumulated[found.bases.shape[1] - 1], rel=1e-6)


def test_a_share_near_the_limit_is_not_refused_while_the_space_grows():
    # Exactly as many components as may be asked for: small spaces seem to need more.
    C = np.diag(0.9 ** np.arange(200.0))
    eigenvalues = np.diag(C)
    share = eigenvalues[:20].sum() / eigenvalues.sum() - 1e-6
    spectrum = fpca.KrylovSpectrum(lambda V: C @ V, 200, np.trace(C), block=12, seed=1)
    found = fpca.krylov_components(spectrum, share=share, most=20)
    assert found.bases.shape[1] == 20
    spectrum = fpca.KrylovSpectrum(lambda V: C @ V, 200, np.trace(C), block=12, seed=1)
    with pytest.raises(InputError, match=r"components: the first 20 hold"):
        fpca.krylov_components(spectrum, share=share + 2e-3, most=20)


@pytest.mark.parametrize("gap", [2e-3, 1e-2])
def test_a_small_gap_after_large_components_is_refined(gap, products):
    # A thousand times the last, and single precision that alone cannot tell it from the next.
    r, N, n = 10, 300, 600
    eigenvalues = np.concatenate([np.geomspace(1000, 1, r), (1 - gap) * 0.97 ** np.arange(60)])
    rng = np.random.default_rng(4)
    U = np.linalg.qr(rng.normal(size=(n, 70)))[0] * np.sqrt(n * eigenvalues)
    X = (U @ np.linalg.qr(rng.normal(size=(N, 70)))[0].T + 3).astype(np.float32)
    bases, exact = oracles.principal_components(X.astype(float), r)
    assert (exact[r - 1] - exact[r]) / exact[r - 1] > 1e-3
    covariance = operator(X, None, 100)
    rough = fpca.KrylovSpectrum(
        covariance.rough_product,
        N, covariance.trace(), block=16, seed=1, dtype=np.float32,
    )  # fmt: skip
    single = fpca.krylov_components(
        rough, number=r, most=70, tolerance=fpca.ROUGH_TOLERANCE, to_be_corrected=True
    )
    found = fpca.refined_components(rough, covariance.close_product, r)
    assert found.converged
    np.testing.assert_allclose(found.eigenvalues, exact[:r], rtol=1e-6)
    angle = subspace_angle(found.bases, bases)
    assert angle < 1e-6
    assert angle < subspace_angle(single.bases, bases)


def test_a_space_that_holds_everything():
    # Six components and no more: what QR makes of nothing must not spoil them.
    rng = np.random.default_rng(0)
    Y = rng.normal(size=(90, 6)) @ rng.normal(size=(6, 300))
    C = np.cov(Y.T, bias=True)
    spectrum = fpca.KrylovSpectrum(lambda V: C @ V, 300, np.trace(C), block=32, seed=1)
    found = fpca.krylov_components(spectrum, number=4, most=50)
    bases, eigenvalues = oracles.principal_components(Y, 4)
    assert subspace_angle(found.bases, bases) < 1e-8
    np.testing.assert_allclose(found.eigenvalues, eigenvalues[:4], rtol=1e-9)


def test_more_components_than_are_looked_for():
    C = np.diag(np.linspace(2, 1, 200))
    spectrum = fpca.KrylovSpectrum(lambda V: C @ V, 200, np.trace(C), block=16, seed=1)
    with pytest.raises(InputError, match=r"components: the first 10 hold .* of the variance"):
        fpca.krylov_components(spectrum, share=0.9, most=10)


def test_too_many_components_are_refused_before_any_pass():
    spectrum = fpca.KrylovSpectrum(lambda V: V, 200, 200.0, block=16, seed=1)
    with pytest.raises(InputError, match=r"components: 11 asked for, but at most 10 can be found"):
        fpca.krylov_components(spectrum, number=11, most=10)
    assert spectrum.passes == 0


def test_images_without_variation():
    with pytest.raises(InputError, match="all images are equal"):
        fpca.KrylovSpectrum(lambda V: 0 * V, 50, 0.0, block=8, seed=1)


def test_extrapolated_n_eff():
    eigenvalues = np.exp(-0.1 * np.arange(60))
    exact = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    assert fpca.extrapolated_n_eff(eigenvalues, 20, 60) == pytest.approx(exact)
    assert np.isnan(fpca.extrapolated_n_eff(eigenvalues, 3, 60))


def test_reading_ahead_keeps_order_and_raises():
    assert list(read_ahead(iter(range(5)), 1)) == list(range(5))

    def breaks():
        yield 1
        raise InputError("broken")

    with pytest.raises(InputError, match="broken"):
        list(read_ahead(breaks(), 1))
