"""Slow and obvious implementations, against which the real ones are tested."""

from __future__ import annotations

import numpy as np


def local_linear_weights(coordinates: np.ndarray, bandwidth: float) -> np.ndarray:
    """Return the dense smoothing weights (N, N), one voxel after another."""
    N = len(coordinates)
    weights = np.zeros((N, N))
    for v in range(N):
        offset = coordinates - coordinates[v]
        near = np.flatnonzero((np.abs(offset) <= 4 * bandwidth * (1 + 1e-9)).all(axis=1))
        kernel = np.exp(-0.5 * (offset[near] / bandwidth) ** 2) / np.sqrt(2 * np.pi) / bandwidth
        root = np.sqrt(kernel.prod(axis=1))
        T = np.column_stack([np.ones(len(near)), offset[near]])
        weights[v, near] = np.linalg.pinv(root[:, None] * T, rcond=1e-8)[0] * root
    weights[np.abs(weights) < 1 / N] = 0
    return weights


def gcv_score(images: np.ndarray, weights: np.ndarray) -> float:
    """Return ||X - X W'||^2 / n / (1 - tr(W)/N)^2."""
    n, N = images.shape
    return ((images - images @ weights.T) ** 2).sum() / n / (1 - np.trace(weights) / N) ** 2


def principal_components(images: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """Return bases (N, r) and all covariance eigenvalues (divisor n) by one dense SVD."""
    _, s, Vt = np.linalg.svd(images - images.mean(axis=0), full_matrices=False)
    bases = Vt[:r].T.copy()
    for k in range(r):
        if bases[np.argmax(np.abs(bases[:, k])), k] < 0:
            bases[:, k] *= -1
    return bases, s**2 / len(images)
