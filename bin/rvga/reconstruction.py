"""Voxel statistics from component statistics (method 3); arrays in, arrays out."""

from __future__ import annotations

import numpy as np


def beta_from_z(z: np.ndarray, a: np.ndarray, variance: np.ndarray, nu: float) -> np.ndarray:
    """Return effects from t statistics: beta = z sqrt(V / (a (nu + z^2))).

    Parameters
    ----------
    z : (m, r)
        t statistics of each variant and phenotype.
    a : (m,)
        g'Pg by variant.
    variance : (r,) or (m, r)
        Residual sum of squares of each phenotype, A_jj.
    nu : float
        Degrees of freedom, n - p - 1.
    """
    return z * np.sqrt(variance / (a[:, None] * (nu + z * z)))


def standard_error_from_beta(
    beta: np.ndarray, a: np.ndarray, variance: np.ndarray, nu: float
) -> np.ndarray:
    """Return SE = sqrt((V - a beta^2) / (nu a)), shapes as in :func:`beta_from_z`."""
    return np.sqrt(np.maximum(variance - a[:, None] * beta * beta, 0.0) / (nu * a[:, None]))


def voxel_variance(bases: np.ndarray, A: np.ndarray) -> np.ndarray:
    """Return V_v = b_v' A b_v for every row of ``bases`` (N, r); shape (N,)."""
    return np.einsum("vr,vr->v", bases @ A, bases)


def voxel_z(
    beta: np.ndarray, a: np.ndarray, bases: np.ndarray, variance: np.ndarray, nu: float
) -> np.ndarray:
    """Return t statistics (m, N) of the voxels from component effects (m, r).

    ``z = beta_v / SE_v`` with ``SE_v^2 = (V_v - a beta_v^2) / (nu a)``.
    """
    beta_v = beta @ bases.T
    scaled = beta_v * np.sqrt(a[:, None] / variance)  # correlation of variant and voxel
    return scaled * np.sqrt(nu / np.maximum(1.0 - scaled * scaled, np.finfo(float).tiny))
