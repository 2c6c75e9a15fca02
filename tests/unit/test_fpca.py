"""Functional principal components against a dense singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest

import oracles
from rvga import fpca
from rvga.errors import InputError


def images(n: int, N: int, seed: int = 0) -> np.ndarray:
    """Return centred images whose leading eigenvalues are well apart."""
    rng = np.random.default_rng(seed)
    k = min(n, N)
    X = (rng.normal(size=(n, k)) * 0.8 ** np.arange(k)) @ rng.normal(size=(k, N))
    return X - X.mean(axis=0)


@pytest.mark.parametrize(("n", "N"), [(20, 70), (70, 20), (40, 40), (30, 600), (600, 30)])
def test_components_equal_a_dense_decomposition(n, N):
    X = images(n, N)
    found = fpca.principal_components(X, number=8)
    bases, eigenvalues = oracles.principal_components(X, 8)
    np.testing.assert_allclose(found.bases, bases, rtol=0, atol=1e-7)
    k = len(found.eigenvalues)
    np.testing.assert_allclose(found.eigenvalues, eigenvalues[:k], rtol=1e-6)
    assert (eigenvalues[k:] < 1e-9 * eigenvalues[0]).all()
    assert found.total_variance == pytest.approx(eigenvalues.sum(), rel=1e-10)
    assert found.n_eff == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), rel=1e-10)
    assert found.share == pytest.approx(eigenvalues[:8].sum() / eigenvalues.sum(), rel=1e-8)
    np.testing.assert_allclose(found.bases.T @ found.bases, np.eye(8), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 9), (9, 2), (3, 5), (5, 3)])
def test_the_smallest_problems(shape):
    X = images(*shape)
    found = fpca.principal_components(X, number=1)
    bases, _ = oracles.principal_components(X, 1)
    np.testing.assert_allclose(found.bases, bases, rtol=0, atol=1e-9)


def test_gram_over_several_tiles(monkeypatch):
    monkeypatch.setattr(fpca, "_TILE", 7)
    rng = np.random.default_rng(0)
    panels = [rng.normal(size=(5, 31)), rng.normal(size=(3, 31))]
    expected = sum(panel.T @ panel for panel in panels)
    for workers in (1, 3):
        np.testing.assert_allclose(fpca.gram(panels, 31, workers=workers), expected, atol=1e-12)


def test_components_by_share_of_variance():
    X = images(50, 80)
    _, eigenvalues = oracles.principal_components(X, 1)
    cumulated = np.cumsum(eigenvalues) / eigenvalues.sum()
    for share in (0.3, 0.8, 0.95):
        r = fpca.principal_components(X, share=share).bases.shape[1]
        assert cumulated[r - 1] >= share > (cumulated[r - 2] if r > 1 else 0)
    everything = fpca.principal_components(X, share=1.0)
    assert everything.bases.shape[1] == len(everything.eigenvalues)


def test_bytes_do_not_depend_on_workers():
    X = images(60, 1100).astype(np.float32)
    one, two = (fpca.principal_components(X, number=5, workers=w) for w in (1, 2))
    assert one.bases.tobytes() == two.bases.tobytes()
    assert one.eigenvalues.tobytes() == two.eigenvalues.tobytes()


def test_signs_do_not_depend_on_the_signs_found():
    B = np.random.default_rng(0).normal(size=(30, 4))
    flipped = B * [1, -1, -1, 1]
    np.testing.assert_array_equal(fpca.fix_signs(B), fpca.fix_signs(flipped))
    fixed = fpca.fix_signs(B)
    assert (fixed[np.argmax(np.abs(fixed), axis=0), range(4)] > 0).all()


def test_more_components_than_there_are_is_bad_input():
    with pytest.raises(InputError, match=r"components: 10 asked for, .* hold only 9"):
        fpca.principal_components(images(10, 50), number=10)


def test_images_without_variation_are_bad_input():
    with pytest.raises(InputError, match="all images are equal"):
        fpca.principal_components(np.zeros((10, 50)), number=2)


N_FLAT, R_FLAT = 600, 20
FLAT = {
    "equal": np.ones(N_FLAT - R_FLAT),
    "nearly equal": np.linspace(1.001, 0.999, N_FLAT - R_FLAT),
    "ten per cent": np.linspace(1.1, 0.9, N_FLAT - R_FLAT),
    "two levels": np.r_[np.linspace(1.1, 0.9, 300), np.full(N_FLAT - R_FLAT - 300, 0.01)],
}


@pytest.mark.parametrize("noise", FLAT)
def test_error_is_that_of_components_above_noise_of_equal_variance(noise):
    eigenvalues = np.r_[np.linspace(5, 2, R_FLAT), FLAT[noise]]
    U = np.linalg.qr(np.random.default_rng(1).normal(size=(N_FLAT, N_FLAT)))[0]
    C = (U * eigenvalues) @ U.T
    rounded = C.astype(np.float32)
    rough = fpca.KrylovSpectrum(
        lambda V: rounded @ V.astype(np.float32),
        N_FLAT, eigenvalues.sum(), block=fpca.block_size(R_FLAT), seed=3, dtype=np.float32,
    )  # fmt: skip
    fpca.krylov_components(
        rough, number=R_FLAT, most=100, tolerance=fpca.ROUGH_TOLERANCE, to_be_corrected=True
    )
    found = fpca.refined_components(rough, lambda V: C @ V, R_FLAT)
    true = U[:, :R_FLAT]
    angle = np.linalg.norm(found.bases - true @ (true.T @ found.bases), 2)
    assert angle <= 1.25 * found.angle
    assert found.converged
    assert found.angle <= fpca.ANGLE_TOLERANCE
    np.testing.assert_allclose(found.eigenvalues, eigenvalues[:R_FLAT], rtol=1e-9)


def test_the_best_is_kept_where_corrections_bring_nothing():
    # A product with noise, as no more than so many digits would leave it: the angle cannot fall.
    rng = np.random.default_rng(1)
    eigenvalues = np.r_[np.linspace(5, 2, 8), np.linspace(0.5, 0, 192)]
    U = np.linalg.qr(rng.normal(size=(200, 200)))[0]
    C = (U * eigenvalues) @ U.T
    rough = fpca.KrylovSpectrum(lambda V: C @ V, 200, eigenvalues.sum(), block=32, seed=3)
    fpca.krylov_components(rough, number=8, most=50)
    told = []
    found = fpca.refined_components(
        rough, lambda V: C @ V + 1e-4 * rng.normal(size=V.shape), 8, progress=told.append
    )
    angles = [float(line.split()[-1]) for line in told]
    assert found.angle == pytest.approx(min(angles), rel=0.06)
    assert not found.converged
    assert found.passes == rough.passes + len(told) < fpca.MOST_PASSES
    assert all(angle >= found.angle * 0.94 for angle in angles[-2:])


def test_columns_that_depend_on_others_are_left_out_of_the_space():
    # The images have so few dimensions that a third block has hardly any that are new.
    rng = np.random.default_rng(5)
    U = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    C = (U * np.linspace(3, 1, 40)) @ U.T
    spectrum = fpca.KrylovSpectrum(lambda V: C @ V, 40, np.trace(C), block=16, seed=1)
    for _ in range(5):
        spectrum.step()
    Q = spectrum.vectors(40)
    np.testing.assert_allclose(Q.T @ Q, np.eye(40), atol=1e-12)
    np.testing.assert_allclose(spectrum.ritz()[0][:40], np.linspace(3, 1, 40), rtol=1e-12)
    assert spectrum.angle(10) == 0.0
