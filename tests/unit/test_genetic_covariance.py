"""Γ̂, κ, h², ρ and their errors of whole files against dense matrices; order, missing variants."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest

from helpers import run_stage
from heritability_study import block_file, correlated_dosages, make_study, write_ld_reference
from rvga import balance, bands, ld
from rvga import heritability as h
from rvga.balance import merged_classes
from rvga.dataset import MinimalDataset
from rvga.genetic_covariance import (
    estimate_covariance,
    estimate_with_trait,
    match_dataset,
    noise_by_A,
)
from rvga.jackknife import group_starts, jackknife_standard_error, number_of_groups
from rvga.ld_products import N_CLASSES, block_products, class_of
from rvga.ld_reference import LdReference, Panel

N_TRAIT = 900.0


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a study, its reference of 28 blocks and û of a trait, some variants missing."""
    made = make_study(tmp_path_factory.mktemp("study"), n=900)
    blocks = block_file(made.folder)
    reference = write_ld_reference(made, run_stage, **{"ld-blocks": blocks})
    with h5py.File(made.dataset, "r+") as file:
        z = file["z"][...]
        z[::17] = np.nan
        file["z"][...] = z
    with LdReference.open(reference) as opened:
        trait = np.random.default_rng(5).normal(size=opened.m) / 25
        trait[3::13] = np.nan
    return made, reference, trait


class Dense:
    """Everything from one matrix for the genome, block-diagonal where the method is."""

    def __init__(self, reference: LdReference, blocks, scores, kappa, inverse_n, factors):
        self.m, self.kappa, self.inverse_n = float(reference.m), kappa, inverse_n
        self.sizes = np.diff(reference.block_start)
        kept = np.isfinite(scores).all(axis=1)
        self.u = np.where(kept[:, None], scores, 0.0)
        M, share, R_a, R_b, T, ratio = zip(*blocks, strict=True)
        D = [kept[i:j].astype(float) for i, j in itertools.pairwise(reference.block_start)]
        DM = [d[:, None] * one for d, one in zip(D, M, strict=True)]
        n_a, n_b = reference.n_a, reference.n_b
        self.R_a, self.R_b, self.T = (diagonal(x) for x in (R_a, R_b, T))
        self.R_1 = (n_a * self.R_a + n_b * self.R_b) / (n_a + n_b)
        self.DM, self.factors = DM, factors
        # What t₁ is in a study of 900 people, by column of M: linear in 1/n, and of what the
        # variants that are there leave beside R's diagonal.
        self.gain = []
        for one, (i, j), whole, part in zip(
            ratio, itertools.pairwise(reference.block_start), M, DM, strict=True
        ):
            R_1, kept_share = self.R_1[i:j, i:j], 1.0
            before, after = (np.diag(V.T @ R_1 @ V) for V in (whole, part))
            if not kept[i:j].all():
                rest, left = (
                    np.diag(V.T @ (R_1 - np.diag(np.diag(R_1))) @ V) for V in (whole, part)
                )
                kept_share = (left @ rest) / (rest @ rest)
            change = kept_share * one * (2 - (n_a + n_b) / 900) * before
            self.gain.append(1 + change / np.where(after == 0, 1, after))
        self.band = [bands.band_of(one) for one in share]
        self.M = M
        self.Omega = diagonal([one @ one.T for one in DM])
        self.group = group_starts(self.sizes, number_of_groups(len(self.sizes)))

    def moments(self, keep=None, weights=None):
        """Return Γ̂ (5b) and s, scale and t₄ for the errors, from the blocks ``keep``.

        ``weights`` are those of M's columns by block, 1 without.
        """
        weights = [np.ones(one.shape[1]) for one in self.DM] if weights is None else weights
        Omega = diagonal([one * c @ one.T for one, c in zip(self.DM, weights, strict=True)])
        if keep is not None:
            Omega = self.masked(keep, Omega)
        t_1, t_2 = self.first_trace(keep, weights), np.trace(Omega @ self.T)
        t_4 = np.trace(Omega @ self.R_a @ Omega @ self.R_b)
        scale, u = self.m / t_2, self.u
        Gamma = scale * (u.T @ Omega @ u - t_1 * self.kappa)
        s = self.factors[1] * (u.T @ Omega @ self.R_1 @ Omega @ u - t_4 * self.kappa)
        return Gamma, s, scale, self.factors[0] * t_4

    def first_trace(self, keep, weights):
        edges = np.concatenate([[0], np.cumsum(self.sizes)])
        parts = [
            np.sum(c * gain * np.diag(DM.T @ self.R_1[i:j, i:j] @ DM))
            for (i, j), DM, gain, c in zip(
                itertools.pairwise(edges), self.DM, self.gain, weights, strict=True
            )
        ]
        return np.sum(np.array(parts)[slice(None) if keep is None else keep])

    def masked(self, keep, Omega):
        inside = np.repeat(keep, self.sizes)
        return Omega * inside[:, None] * inside[None, :]

    def balanced(self, n, h2=0.2, large=0.4):
        """Return the weights for heritability and for correlations, by block, as they are defined.

        One after another, over all variants of the reference, missing or not.
        """
        edges = np.concatenate([[0], np.cumsum(self.sizes)])
        score = np.concatenate(
            [np.sum(self.R_a[i:j, i:j] * self.R_b[i:j, i:j], axis=1) for i, j in
             itertools.pairwise(edges)]
        )  # fmt: skip
        label = class_of(score)
        classes = merged_classes(np.bincount(label, minlength=12))[label]
        size = np.bincount(classes).astype(float)
        rows = []
        for b, (i, j) in enumerate(itertools.pairwise(edges)):
            for band in range(len(bands.EDGES)):
                M = self.M[b][:, self.band[b] == band].astype(float)
                if M.shape[1] == 0:
                    continue
                each = (self.R_a[i:j, i:j] @ M) * (self.R_b[i:j, i:j] @ M)
                t_1 = np.mean(np.diag(M.T @ self.R_1[i:j, i:j] @ M))
                t_2 = np.mean(np.diag(M.T @ self.T[i:j, i:j] @ M))
                within = np.array([each[classes[i:j] == c].sum() for c in range(len(size))])
                within /= M.shape[1]
                traces = within + (t_2 - within.sum()) * size / self.m
                rows.append((b, band, M.shape[1], max(t_1, 0), t_2, traces))
        block, band, columns, t_1, t_2 = (np.array([row[k] for row in rows]) for k in range(5))
        traces = np.array([row[5] for row in rows])
        v = 2 * (t_1 / n + h2 * np.maximum(t_2, 0) / self.m) ** 2
        basis = np.maximum(traces, 0) / v[:, None]
        # Least Σ c² v + large² Σ w (d - 1)² with Σ c t₂ = m, by its conditions of first order.
        root = np.sqrt(size / self.m)
        d = (traces * columns[:, None]).T @ basis / size[:, None]
        quadratic = (basis * (columns * v)[:, None]).T @ basis
        quadratic += large**2 * (d * root[:, None]).T @ (d * root[:, None])
        linear = large**2 * d.T @ root**2
        total = (columns * t_2) @ basis / self.m
        free = np.linalg.solve(quadratic, np.stack([linear, total]).T)
        mu = free[:, 0] + free[:, 1] * (1 - total @ free[:, 0]) / (total @ free[:, 1])
        out = []
        for c in (basis @ mu, np.maximum(t_2, 0) / v):
            c = c * ((columns * t_2).sum() / ((columns * t_2) @ c))
            weights = [np.zeros(one.shape[1]) for one in self.M]
            for k in range(len(c)):
                weights[block[k]][self.band[block[k]] == band[k]] = c[k]
            out.append(weights)
        return out

    def regression(self, of, samples, fixed):
        """Return Γ̂ and κ (5c) of all groups and without each, from stacked equations."""
        t_1, t_2, Q, group = [], [], [], []
        edges = np.concatenate([[0], np.cumsum(self.sizes)])
        for b, DM in enumerate(self.DM):
            at = slice(edges[b], edges[b + 1])
            for k in range(len(bands.EDGES)):
                V = DM[:, self.band[b] == k]
                O = V @ V.T
                gain = self.gain[b][self.band[b] == k]
                t_1.append(np.sum(gain * np.diag(V.T @ self.R_1[at, at] @ V)))
                t_2.append(np.trace(O @ self.T[at, at]))
                Q.append(self.u[at].T @ O @ self.u[at])
                group.append(self.group[b])
        t_1, t_2, Q, group = map(np.array, (t_1, t_2, Q, group))
        use, x = (t_1 > 0) & (t_2 > 0), np.stack([t_2 / self.m, t_1], axis=1)

        def fit(w, y, kappa, keep):
            root = np.sqrt(w[keep])
            if kappa is None:
                return np.linalg.lstsq(root[:, None] * x[keep], root * y[keep], rcond=None)[0]
            rest = root * (y[keep] - kappa * t_1[keep])
            return np.array([rest @ (root * x[keep, 0]) / np.sum((root * x[keep, 0]) ** 2), kappa])

        spread = []
        for a, (n, variance) in enumerate(samples):
            own, h2 = np.flatnonzero(of == a), 0.0
            y = np.trace(Q[:, own][:, :, own], axis1=1, axis2=2) / variance
            for _ in range(3):
                w = np.where(use, t_1, 0) / (t_1 / n + h2 * t_2 / self.m) ** 2
                h2 = np.clip(fit(w, y, 1 / n if fixed else None, use)[0], 0, 1)
            spread.append(t_1 / n + h2 * t_2 / self.m)
        self.weights, self.t_1, self.x, self.use = spread, t_1, x, use

        def pairs(keep):
            out = np.zeros((2, len(of), len(of)))
            for j, k in itertools.product(range(len(of)), repeat=2):
                w = np.where(use, t_1, 0) / (spread[of[j]] * spread[of[k]])
                out[:, j, k] = fit(w, Q[:, j, k], self.kappa[j, k] if fixed else None, keep)
            return out

        without = np.stack([pairs(use & (group != g)) for g in range(group.max() + 1)])
        return *pairs(use), without


def diagonal(parts) -> np.ndarray:
    size = sum(len(one) for one in parts)
    out, at = np.zeros((size, size)), 0
    for one in parts:
        out[at : at + len(one), at : at + len(one)] = one
        at += len(one)
    return out


def stored_blocks(reference: LdReference):
    return [
        tuple(np.asarray(x, dtype=float) for x in (b.M, b.share, b.R_a, b.R_b, b.T, b.t_1_ratio))
        for _, _, b in reference.blocks()
    ]


def scores_of(dataset: MinimalDataset, row: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """Return û of the reference's variants from the dataset's arrays."""
    found = dataset.components()
    u = found.beta * np.sqrt(found.a / dataset.n)[:, None]
    return np.where(row[:, None] >= 0, u[row] * sign[:, None], np.nan)


def close(found, expected, relative):
    """Compare arrays on the scale of the largest entry."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=relative * np.abs(expected).max())


def delta_errors(Gamma, s, scale, t_4, kappa, inverse_n, rows):
    """Return h², SE and ρ, SE of rows with the first, by the delta method on all of Γ̂."""
    x = h.Moments(Gamma, kappa, s, scale, 0.0, t_4, inverse_n)
    y = x.project(rows)
    n, variance = 1 / inverse_n[0, 0], np.diag(y.kappa) * (1 / inverse_n[0, 0] - 1)
    square = [
        h.covariance_of_estimates(y, (v, v), (v, v)) / variance[v] ** 2
        - 6 * (y.Gamma[v, v] / variance[v]) ** 2 / n
        for v in range(len(rows))
    ]
    rho, errors = np.ones(len(rows)), np.zeros(len(rows))
    for v in range(1, len(rows)):
        g, entries = y.Gamma, [(0, v), (0, 0), (v, v)]
        root = np.sqrt(g[0, 0] * g[v, v])
        rho[v] = g[0, v] / root
        gradient = np.array([1 / root, -rho[v] / 2 / g[0, 0], -rho[v] / 2 / g[v, v]])
        C = [[h.covariance_of_estimates(y, i, j) for j in entries] for i in entries]
        errors[v] = np.sqrt(gradient @ np.array(C) @ gradient)
    return np.diag(y.Gamma) / variance, np.sqrt(square), rho, errors


@pytest.mark.parametrize("source", ["stored arrays", "genotypes"])
def test_all_of_it_equals_dense_matrices(study, source):
    made, path, _ = study
    with MinimalDataset.open(made.dataset) as dataset, LdReference.open(path) as reference:
        match = match_dataset(dataset, reference)
        scores = scores_of(dataset, match.row, match.sign)
        assert 0.9 < np.isfinite(scores).all(axis=1).mean() < 0.96
        blocks = stored_blocks(reference)
        relative = 1e-8
        if source == "genotypes":
            blocks, relative = blocks_of_genotypes(made, reference), 1e-5
        kappa = dataset.Sigma / (dataset.n - 1)
        inverse_n = np.full_like(kappa, 1 / dataset.n)
        dense = Dense(reference, blocks, scores, kappa, inverse_n, reference.factors())
        found = {
            (method, fixed): estimate_covariance(
                dataset, reference, match, method=method, fixed_intercept=fixed, workers=2
            )[0]
            for method, fixed in (
                ("moments", True),
                ("bands", True),
                ("bands", False),
                ("balanced", True),
                ("balanced", False),
            )
        }
        sample = [(dataset.n - 1.0, np.trace(dataset.Sigma))]
    x = found["moments", True].moments
    rows = made.bases.astype(float)[:4]
    Gamma, s, scale, t_4 = dense.moments()
    close(x.Gamma, Gamma, relative)
    close(x.s, s, relative)
    assert x.t_4 == pytest.approx(t_4, rel=relative)
    h2, error, rho, rho_error = delta_errors(Gamma, s, scale, t_4, kappa, inverse_n, rows)
    close(h.heritability(x, rows)[0], h2, relative)
    close(h.heritability(x, rows)[1], error, relative)
    ours = h.genetic_correlation(x, rows[:1], rows)
    close(ours[0][0], rho, relative)
    close(ours[1][0], rho_error, 10 * relative)
    groups = dense.group.max() + 1
    without = np.stack([dense.moments(dense.group != g)[0] for g in range(groups)])
    close(found["moments", True].left_out, without, relative)
    variance = np.einsum("vr,rs,vs->v", rows, dense.kappa, rows) * 899
    each = np.einsum("vr,grs,vs->gv", rows, without, rows) / variance
    close(
        h.heritability_jackknife(found["moments", True].left_out, kappa * 899, rows),
        np.sqrt((groups - 1) / groups * ((each - each.mean(axis=0)) ** 2).sum(axis=0)),
        10 * relative,
    )
    balanced = found["balanced", True]
    both = (
        (balanced.moments, balanced.left_out),
        (balanced.correlation.moments, balanced.correlation.left_out),
    )
    for (x, left_out), weights in zip(both, dense.balanced(900), strict=True):
        Gamma, s, scale, t_4 = dense.moments(weights=weights)
        close(x.Gamma, Gamma, relative)
        close(x.s, s, relative)
        assert x.t_4 == pytest.approx(t_4, rel=relative)
        assert x.scale == pytest.approx(scale, rel=relative)
        without = [dense.moments(dense.group != g, weights)[0] for g in range(groups)]
        close(left_out, np.stack(without), relative)
    # With a free intercept it takes the place of κ, in both.
    free = found["balanced", False]
    _, intercept, _ = dense.regression(np.zeros(3, dtype=int), sample, False)
    for x, fixed in (
        (free.moments, balanced.moments),
        (free.correlation.moments, balanced.correlation.moments),
    ):
        more = fixed.scale * fixed.t_1 * (kappa - intercept)
        close(x.Gamma, fixed.Gamma + more, 10 * relative)
    for fixed in (True, False):
        Gamma, free, without = dense.regression(np.zeros(3, dtype=int), sample, fixed)
        estimate = found["bands", fixed]
        close(estimate.moments.Gamma, Gamma, relative)
        close(estimate.left_out, without[:, 0], relative)
        if not fixed:
            close(estimate.intercept.kappa, free, relative)
            close(estimate.intercept.left_out, without[:, 1], relative)
        check_weighted(dense, estimate.moments, fixed, relative)


@pytest.mark.parametrize("missing", ["none", "2 %", "10 %", "30 %", "an arm", "whole blocks"])
def test_default_equals_dense_matrices_whatever_is_missing(study, missing):
    """Of whole blocks one is left with a single variant."""
    made, path, _ = study
    with MinimalDataset.open(made.dataset) as dataset, LdReference.open(path) as reference:
        match = match_dataset(dataset, reference)
        row, m, start = match.row.copy(), reference.m, reference.block_start
        if missing == "none":
            # A variant without statistics is lent those of its neighbour.
            row = np.where(np.isfinite(dataset.components().beta[row, 0]), row, row + 1)
        elif missing == "an arm":
            row[m // 6 : m // 2] = -1
        elif missing == "whole blocks":
            row[start[3] : start[6]] = -1
            row[start[4] + 7] = match.row[start[4] + 7]
        else:
            share = float(missing.split()[0]) / 100
            row[np.random.default_rng(6).permutation(m)[: round(share * m)]] = -1
        match = replace(match, row=row)
        scores = scores_of(dataset, row, match.sign)
        kappa = dataset.Sigma / (dataset.n - 1)
        inverse_n = np.full_like(kappa, 1 / dataset.n)
        dense = Dense(
            reference, stored_blocks(reference), scores, kappa, inverse_n, reference.factors()
        )
        found, sums = estimate_covariance(
            dataset, reference, match, method="balanced", fixed_intercept=True, workers=2
        )
    assert (sums.n_used == m) == (missing == "none")
    assert (sums.n_blocks_used == reference.n_blocks) == (missing not in ("whole blocks", "an arm"))
    rows = made.bases.astype(float)[:4]
    for x, weights in zip(
        (found.moments, found.correlation.moments), dense.balanced(900), strict=True
    ):
        Gamma, s, scale, t_4 = dense.moments(weights=weights)
        close(x.kappa, kappa, 1e-12)
        close(x.Gamma, Gamma, 1e-8)
        h2, error, rho, rho_error = delta_errors(Gamma, s, scale, t_4, kappa, inverse_n, rows)
        close(h.heritability(x, rows)[0], h2, 1e-8)
        close(h.heritability(x, rows)[1], error, 1e-8)
        ours = h.genetic_correlation(x, rows[:1], rows)
        close(ours[0][0], rho, 1e-8)
        close(ours[1][0], rho_error, 1e-7)


def check_weighted(dense: Dense, x: h.Moments, fixed: bool, relative: float) -> None:
    """Hold the closed form of the band regression to its Ω = M C M' in one piece."""
    w = np.where(dense.use, dense.t_1, 0) / dense.weights[0] ** 2
    N = np.einsum("e,ei,ej->ij", w, dense.x, dense.x)
    first = np.array([1 / N[0, 0], 0.0]) if fixed else np.linalg.inv(N)[0]
    c = (w * (dense.x @ first)).reshape(len(dense.DM), -1)
    Omega = diagonal(
        [
            DM @ np.diag(np.where(band >= 0, c[b][band], 0.0)) @ DM.T
            for b, (DM, band) in enumerate(zip(dense.DM, dense.band, strict=True))
        ]
    )
    t_4 = np.trace(Omega @ dense.R_a @ Omega @ dense.R_b)
    s = dense.u.T @ Omega @ dense.R_1 @ Omega @ dense.u - t_4 * dense.kappa
    assert x.t_4 == pytest.approx(dense.factors[0] * t_4, rel=10 * relative)
    close(x.s, dense.factors[1] * s, 10 * relative)


def blocks_of_genotypes(made, reference: LdReference):
    """Return the reference's arrays from the panels' genotypes, in double precision."""
    out = []
    for chromosome in ("1", "2"):
        known = reference.variants[reference.variants.chromosome == chromosome]
        G = []
        for files in (made.panel_1, made.panel_2):
            with Panel("panel", files, [], [], chromosome) as panel:
                place = panel.variants.base_pair_location.to_numpy()
                rows = np.searchsorted(place, known.base_pair_location.to_numpy())
                G.append(panel.dosages(rows).astype(float))
        half_a, half_b = ld.split_halves(G[0].shape[1], 1)
        G_a, G_b, G_1, G_2 = (
            (g - g.mean(axis=1, keepdims=True)) / g.std(axis=1, keepdims=True)
            for g in (G[0][:, half_a], G[0][:, half_b], *G)
        )
        R_a, R_b = G_a @ G_a.T / len(half_a), G_b @ G_b.T / len(half_b)
        T = R_a @ R_b
        here = np.flatnonzero((reference.variants.chromosome == chromosome).to_numpy())
        for i, j in itertools.pairwise(reference.block_start):
            if not here[0] <= i <= here[-1]:
                continue
            at = slice(i - here[0], j - here[0])
            values, vectors = np.linalg.eigh(G_2[at] @ G_2[at].T / G_2.shape[1])
            values, vectors = values[::-1], vectors[:, ::-1]
            share = np.cumsum(values) / values.sum()
            k = int((share < 0.98).sum()) + 1
            M = vectors[:, :k] / np.sqrt(values[:k])
            halves = np.diag(M.T @ (R_a[at, at] + R_b[at, at]) @ M) / 2
            ratio = np.diag(M.T @ (G_1[at] @ G_1[at].T) @ M) / G_1.shape[1] / halves - 1
            both = (T[at, at] + T[at, at].T) / 2
            out.append((M, share[:k], R_a[at, at], R_b[at, at], both, ratio))
    return out


@pytest.mark.parametrize(
    ("method", "overlap"), [("moments", False), ("balanced", False), ("balanced", True)]
)
def test_with_a_trait_all_of_it_equals_dense_matrices(study, method, overlap):
    made, path, trait = study
    with MinimalDataset.open(made.dataset) as dataset, LdReference.open(path) as reference:
        match = match_dataset(dataset, reference)
        scores = np.column_stack([scores_of(dataset, match.row, match.sign), trait])
        kappa, inverse_n = np.zeros((2, 4, 4))
        kappa[:3, :3], inverse_n[:3, :3] = dataset.Sigma / (dataset.n - 1), 1 / dataset.n
        kappa[3, 3] = inverse_n[3, 3] = 1 / N_TRAIT
        dense = Dense(
            reference, stored_blocks(reference), scores, kappa, inverse_n, reference.factors()
        )
        found = estimate_with_trait(
            dataset, reference, match, trait, N_TRAIT, method=method, overlap=overlap, workers=1
        )
        samples = [(dataset.n - 1.0, np.trace(dataset.Sigma)), (N_TRAIT, 1.0)]
    groups = range(dense.group.max() + 1)
    if overlap:
        Gamma, free, without = dense.regression(np.array([0, 0, 0, 1]), samples, False)
        close(found.Gamma, Gamma, 1e-8)
        close(found.left_out, without[:, 0], 1e-8)
        close(found.intercept.kappa, free, 1e-8)
        close(found.intercept.left_out, without[:, 1], 1e-8)
        return
    weights = None
    assert (found.trait_heritability is None) == (method == "moments")
    if method == "balanced":
        for_h2, weights = dense.balanced(900)
        Gamma, s, scale, t_4 = dense.moments(weights=for_h2)
        own = h.Moments(*(a[3:, 3:] for a in (Gamma, kappa, s)), scale, 0.0, t_4, inverse_n[3:, 3:])
        one = np.ones((1, 1))
        # Its h² counts effects alike, wherever they lie; ρ need not.
        value, error = h.heritability(found.trait_heritability, one)
        assert value == pytest.approx(Gamma[3, 3], rel=1e-8)
        assert error == pytest.approx(h.heritability(own, one)[1], rel=1e-8)
        assert value != pytest.approx(found.Gamma[3, 3], rel=1e-3)
    Gamma, s, scale, t_4 = dense.moments(weights=weights)
    close(found.Gamma, Gamma, 1e-8)
    close(found.closed_form.s, s, 1e-8)
    without = np.stack([dense.moments(dense.group != g, weights)[0] for g in groups])
    close(found.left_out, without, 1e-8)
    rows = made.bases.astype(float)[:5]
    each = np.stack([h.cross_trait_ratio(G, rows) for G in without])
    close(h.cross_trait_jackknife(found.left_out, rows), jackknife_standard_error(each), 1e-8)
    x = h.Moments(Gamma, kappa, s, scale, 0.0, t_4, inverse_n)
    assert found.closed_form.t_4 == pytest.approx(t_4, rel=1e-8)
    for u, row in enumerate(rows):
        both = np.zeros((2, 4))
        both[0, :3], both[1, 3] = row, 1.0
        g, k, s_2, v = (both @ a @ both.T for a in (x.Gamma, x.kappa, x.s, np.diag([0.0] * 4)))
        v = np.diag([1 / 900, 1 / N_TRAIT])
        y = h.Moments(g, k, s_2, scale, 0.0, t_4, v)
        root = np.sqrt(g[0, 0] * g[1, 1])
        rho = g[0, 1] / root
        gradient = np.array([1 / root, -rho / 2 / g[0, 0], -rho / 2 / g[1, 1]])
        entries = [(0, 1), (0, 0), (1, 1)]
        C = [[h.covariance_of_estimates(y, i, j) for j in entries] for i in entries]
        found_rho, found_error, _, _ = h.cross_trait_correlation(found.closed_form, rows)
        assert found_rho[u] == pytest.approx(rho, rel=1e-8)
        assert found_error[u] == pytest.approx(np.sqrt(gradient @ np.array(C) @ gradient), rel=1e-7)


def test_which_allele_a_dataset_counts_does_not_matter(study, tmp_path):
    made, path, _ = study
    turned = tmp_path / "turned.rvga.h5"
    shutil.copyfile(made.dataset, turned)
    with h5py.File(turned, "r+") as file:
        some = np.random.default_rng(8).random(len(file["z"])) < 0.5
        z = file["z"][...]
        z[some] *= -1
        file["z"][...] = z
        effect, other = (file[f"variants/{name}_allele"] for name in ("effect", "other"))
        one, two = effect[...], other[...]
        effect[...], other[...] = np.where(some, two, one), np.where(some, one, two)
    found = []
    for dataset_path in (made.dataset, turned):
        with MinimalDataset.open(dataset_path) as dataset, LdReference.open(path) as reference:
            match = match_dataset(dataset, reference)
            one, _ = estimate_covariance(
                dataset, reference, match, method="moments", fixed_intercept=False, workers=1
            )
            found.append((one.moments.Gamma, one.moments.s, one.left_out, one.intercept.kappa))
    for ours, theirs in zip(*found, strict=True):
        assert ours.tobytes() == theirs.tobytes()


@pytest.fixture(scope="module")
def panels_and_study():
    """Return references of 500 variants in 5 blocks and genotypes of a study, four draws."""
    out = []
    for draw in range(4):
        dosages = correlated_dosages(700, 2600, seed=40 + draw, decay=0.9).astype(np.float32)
        parts = dosages[:, :1000], dosages[:, 1000:1800], dosages[:, 1800:]
        frequency = np.min([np.minimum(f, 1 - f) for f in map(ld.allele_frequency, parts)], axis=0)
        study, one, two = (part[frequency > 0.03][:500] for part in parts)
        half_a, half_b = ld.split_halves(800, 1)
        G_a, G_b, G_2 = map(ld.standardise, (one[:, half_a], one[:, half_b], two))
        K = G_a.T.astype(float) @ G_b
        blocks = [
            ld.make_block(G_a[k : k + 100], G_b[k : k + 100], G_2[k : k + 100], K, 0.98)
            for k in range(0, 500, 100)
        ]
        G = ld.standardise(study).astype(float)
        out.append((blocks, G @ G.T / G.shape[1]))
    return out


def balanced_of(blocks, n):
    """Return the weights for heritability of a reference of these blocks, by block."""
    products, scores = zip(*(block_products(block, 400, 400) for block in blocks), strict=True)
    start = np.concatenate([[0], np.cumsum([len(block.share) for block in blocks])])
    t_1, t_2, by_class = (
        np.concatenate([getattr(one, name) for one in products])
        for name in ("t_1", "t_2", "class_trace")
    )
    equation = balance.equations(np.concatenate([block.share for block in blocks]), start)
    size = np.bincount(class_of(np.concatenate(scores)), minlength=N_CLASSES)
    traces, size = balance.class_traces(by_class, t_2, size)
    weight = balance.balanced_weights(equation, t_1, t_2, traces, size, n)
    return np.split(weight, start[1:-1])


@pytest.mark.parametrize("where", ["at random", "one arm"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("balanced", [False, True])
def test_variants_that_a_study_lacks_do_not_bias(panels_and_study, where, share, balanced):
    """Expected û'Ωû of independent effects, given the study's own R, over what the method takes.

    With effects of variance h²/m and noise (1 - h²) R/n the expectation of Γ̂ is exact, so that
    only the panels' sampling is left. With t₂ of all variants instead of those at hand it is
    biased by a fifth or more where three in ten are missing.
    """
    h2, n, ratio, naive = 0.4, 1000, [], []
    for draw, (blocks, R) in enumerate(panels_and_study):
        m = len(R)
        gone = np.arange(round(share * m))
        if where == "at random":
            gone = np.random.default_rng(draw).permutation(m)[: len(gone)]
        scores = np.zeros((m, 1))
        scores[gone] = np.nan
        quadratic, total, complete = 0.0, None, 0.0
        weights = [np.ones(block.M.shape[1]) for block in blocks]
        if balanced:
            weights = balanced_of(blocks, n)
        for b, block in enumerate(blocks):
            at = slice(100 * b, 100 * b + 100)
            c = weights[b]
            matrices = (getattr(block, k) for k in ("M", "R_a", "R_b", "T"))
            part = h.moments_of(h.project_block(*matrices, scores[at], 400, 400), c)
            total = part if total is None else total + part
            complete += np.einsum("ik,ij,jk,k->", block.M, block.T, block.M, c, optimize=True)
            kept = np.isfinite(scores[at, 0]).astype(float)[:, None]
            DM = kept * block.M
            half = R[at].T @ DM
            quadratic += h2 / m * np.sum(half * half * c)
            noise = np.einsum("ik,ij,jk,k->", DM, R[at, at], DM, c, optimize=True)
            quadratic += (1 - h2) / n * noise
        # Sampled genotypes add h² tr(ΩR)/n to the signal, so that the noise is that of all of y.
        ratio.append(m / total.t_2 * (quadratic - total.t_1 / n) / h2)
        naive.append(m / complete * (quadratic - total.t_1 / n) / h2)
    spread = np.std(ratio, ddof=1) / 2
    assert abs(np.mean(ratio) - 1) < max(3 * spread, 0.03)
    assert spread < 0.03
    # With these weights and variants missing at random both traces happen to change alike.
    if share == 0.3 and not (balanced and where == "at random"):
        assert abs(np.mean(naive) - 1) > 0.15


def test_noise_of_scores_is_that_of_the_degrees_of_freedom():
    """û² of variants that do nothing is A/(n (n - p)) on average, a third more than A/n² here."""
    rng, n, p, m = np.random.default_rng(11), 60, 20, 6000
    Q = np.linalg.qr(np.column_stack([np.ones(n), rng.normal(size=(n, p - 1))]))[0]
    ratio = []
    for _ in range(4):
        y, G = rng.normal(size=n), rng.normal(size=(m // 4, n))
        y, G = y - Q @ (Q.T @ y), G - (G @ Q) @ Q.T
        a = np.einsum("ij,ij->i", G, G)
        u = h.component_scores((G @ y / a)[:, None], a, n)
        A = float(y @ y)
        ratio.append(np.mean(u**2) / (A / (n * (n - p))))
    assert abs(np.mean(ratio) - 1) < 4 * np.sqrt(2 / m)


def test_noise_of_a_dataset_is_by_its_degrees_of_freedom(study):
    with MinimalDataset.open(study[0].dataset) as dataset:
        own, A = noise_by_A(dataset), dataset.A
        np.testing.assert_allclose(own, A / (900 * 899), rtol=1e-12)
        np.testing.assert_allclose(noise_by_A(dataset, published=True), A / 900**2, rtol=1e-12)
