"""Band regression: genetic covariance and intercept together (method 5c); arrays in, arrays out.

Each band k of eigenvectors of each block is one equation for every pair of phenotypes,
E[û_j'Ω_k û_l] = γ_jl t₂ₖ/m + κ_jl t₁ₖ, with weights that are common to all pairs of phenotypes
of the same two samples, so that the estimate does not depend on the basis of the components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rvga.ld import columns_for_share

# Upper edges of the bands, shares of a block's trace.
EDGES = (0.3, 0.5, 0.65, 0.8, 0.9, 0.98)
ROUNDS = 3


def band_of(cumulated: np.ndarray, edges: tuple[float, ...] = EDGES) -> np.ndarray:
    """Return the band of each column of M, from 0; -1 for columns beyond the last edge.

    Parameters
    ----------
    cumulated : (k,)
        Cumulated share of the trace, by column. A column is in the band that its share lies
        in; the one that reaches the last edge is the last of the last band.
    edges : tuple of float
    """
    band = np.searchsorted(edges, np.asarray(cumulated, dtype=float) - 1e-9, side="left")
    band = np.minimum(band, len(edges) - 1)
    band[columns_for_share(cumulated, edges[-1]) :] = -1
    return band


def band_sums(values: np.ndarray, band: np.ndarray, number: int) -> np.ndarray:
    """Return the sums of columns' values over bands, (number, ...) from (k, ...)."""
    out = np.zeros((number, *values.shape[1:]))
    inside = band >= 0
    np.add.at(out, band[inside], values[inside])
    return out


@dataclass(frozen=True)
class Equations:
    """The right-hand sides of all equations, one a block and band.

    Attributes
    ----------
    t_1, t_2 : (e,)
    squares : (e, a)
        û'Ω_kû summed over the phenotypes of each sample.
    block, band : (e,) int
    """

    t_1: np.ndarray
    t_2: np.ndarray
    squares: np.ndarray
    block: np.ndarray
    band: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        """Whether both traces are above 0, (e,)."""
        return (self.t_1 > 0) & (self.t_2 > 0)


@dataclass(frozen=True)
class Sample:
    """Phenotypes of the same people.

    Attributes
    ----------
    n : float
        People.
    variance : float
        Sum of the phenotypes' variances.
    fixed : bool
        Whether the intercept is taken to be Σ/n instead of estimated.
    """

    n: float
    variance: float
    fixed: bool


def mean_heritability(
    equations: Equations, a: int, sample: Sample, m: float, rounds: int = ROUNDS
) -> float:
    """Return h̄² = tr Γ̂ / tr Σ of a sample in [0, 1], weights iterated from h̄² = 0.

    Parameters
    ----------
    equations : Equations
    a : int
        Column of ``squares``.
    m : float
        Variants that enter R.

    Raises
    ------
    ValueError
        Fewer than two equations can be used.
    """
    use = equations.usable
    if use.sum() < 2:
        raise ValueError(f"{int(use.sum())} of {len(use)} bands have positive traces")
    t_1, x = equations.t_1[use], equations.t_2[use] / m
    y = equations.squares[use, a] / sample.variance
    h2 = 0.0
    for _ in range(rounds):
        w = t_1 / (t_1 / sample.n + h2 * x) ** 2
        normal = np.array([[w @ (x * x), w @ (x * t_1)], [w @ (x * t_1), w @ (t_1 * t_1)]])
        right = np.array([w @ (x * y), w @ (t_1 * y)])
        h2 = _slope(normal, right, 1 / sample.n if sample.fixed else None)
        h2 = float(np.clip(h2, 0.0, 1.0))
    return h2


def _slope(normal: np.ndarray, right: np.ndarray, kappa: float | None) -> float:
    if kappa is not None:
        return float((right[0] - normal[0, 1] * kappa) / normal[0, 0])
    return float(np.linalg.solve(normal, right)[0])


def inverse_variances(
    equations: Equations, samples: list[Sample], heritabilities: list[float], m: float
) -> np.ndarray:
    """Return v = 1/(t₁/n + h̄² t₂/m) of each equation and sample, (e, a); 0 if not usable.

    The weight of an equation for samples a and b is t₁ v_a v_b.
    """
    use = equations.usable
    v = np.zeros((len(use), len(samples)))
    for a, (sample, h2) in enumerate(zip(samples, heritabilities, strict=True)):
        v[use, a] = 1 / (equations.t_1[use] / sample.n + h2 * equations.t_2[use] / m)
    return v


def normal_matrices(equations: Equations, v: np.ndarray, m: float) -> np.ndarray:
    """Return w x x' of each equation and pair of samples, x = (t₂/m, t₁), (e, a, a, 2, 2)."""
    x = np.stack([equations.t_2 / m, equations.t_1], axis=1)
    w = equations.t_1[:, None, None] * v[:, :, None] * v[:, None, :]
    return np.einsum("eab,ei,ej->eabij", w, x, x)


def block_right_sides(
    q: np.ndarray, band: np.ndarray, t_1: np.ndarray, t_2: np.ndarray, v: np.ndarray, m: float
) -> np.ndarray:
    """Return Σ_k w x û'Ω_kû over the bands of one block, (2, c, c).

    Parameters
    ----------
    q : (k, c)
        M'Dû.
    band : (k,)
        Band of each column of M, -1 for none.
    t_1, t_2 : (K,)
        Traces by band.
    v : (K, c)
        :func:`inverse_variances` by band, for the sample of each phenotype.
    m : float
    """
    inside = band >= 0
    of = band[inside]
    scaled = q[inside] * v[of]
    # A band without positive traces has v = 0. Roots, because a product with its own transpose is
    # symmetric, of which half is computed.
    slope = scaled * np.sqrt(np.maximum(t_1 * t_2 / m, 0.0))[of, None]
    scaled *= np.maximum(t_1, 0.0)[of, None]
    return np.stack([slope.T @ slope, scaled.T @ scaled])


def solve(
    normal: np.ndarray,
    right: np.ndarray,
    sample_of: np.ndarray,
    fixed_kappa: dict[tuple[int, int], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Return Γ̂ and κ̂ of the phenotypes, (c, c) each.

    Parameters
    ----------
    normal : (a, a, 2, 2)
        Summed :func:`normal_matrices`.
    right : (2, c, c)
        Summed :func:`block_right_sides`.
    sample_of : (c,) int
        Sample of each phenotype.
    fixed_kappa : dict
        Pair of samples → κ of their phenotypes, where it is not estimated.

    Raises
    ------
    ValueError
        The equations do not tell slope and intercept apart.
    """
    Gamma, kappa = np.empty_like(right[0]), np.empty_like(right[0])
    for a in range(len(normal)):
        for b in range(len(normal)):
            at = np.ix_(np.flatnonzero(sample_of == a), np.flatnonzero(sample_of == b))
            (n_00, n_01), (_, n_11) = normal[a, b]
            y_0, y_1 = right[0][at], right[1][at]
            if (a, b) in fixed_kappa:
                kappa[at] = fixed_kappa[a, b]
                Gamma[at] = (y_0 - n_01 * kappa[at]) / n_00
                continue
            determinant = n_00 * n_11 - n_01 * n_01
            if not determinant > 1e-10 * n_00 * n_11:
                raise ValueError("the bands do not tell slope and intercept apart")
            Gamma[at] = (n_11 * y_0 - n_01 * y_1) / determinant
            kappa[at] = (n_00 * y_1 - n_01 * y_0) / determinant
    return Gamma, kappa


def leave_one_out(
    normal: np.ndarray,
    right: np.ndarray,
    sample_of: np.ndarray,
    fixed_kappa: dict[tuple[int, int], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Return Γ̂ and κ̂ without each group of blocks, (g, c, c) each.

    Parameters
    ----------
    normal : (g, a, a, 2, 2)
    right : (g, 2, c, c)
        By group; others as of :func:`solve`. Weights are those of all blocks.
    """
    all_normal, all_right = normal.sum(axis=0), right.sum(axis=0)
    pairs = [
        solve(all_normal - normal[g], all_right - right[g], sample_of, fixed_kappa)
        for g in range(len(normal))
    ]
    return np.stack([Gamma for Gamma, _ in pairs]), np.stack([kappa for _, kappa in pairs])


def coefficients(equations: Equations, v: np.ndarray, m: float, fixed: bool) -> np.ndarray:
    """Return c of each equation, (e,), with Γ̂ = Σ c (û'Ωû - t₁κ) for one sample.

    With a free intercept Σ c t₁ = 0, so that κ falls out; always Σ c t₂/m = 1.

    Parameters
    ----------
    v : (e,)
        :func:`inverse_variances` of the sample.
    """
    x_0, x_1 = equations.t_2 / m, equations.t_1
    w = equations.t_1 * v * v
    n_00, n_01, n_11 = w @ (x_0 * x_0), w @ (x_0 * x_1), w @ (x_1 * x_1)
    if fixed:
        return w * x_0 / n_00
    return w * (n_11 * x_0 - n_01 * x_1) / (n_00 * n_11 - n_01 * n_01)
