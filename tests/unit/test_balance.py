"""Weights that count all classes of variants alike: least, uniform, and right in expectation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from heritability_study import correlated_dosages
from rvga import balance, ld
from rvga import heritability as h
from rvga.ld_products import N_CLASSES, block_products, class_of


def columns(seed: int = 0):
    """Return equations, traces by column and class sizes of a made-up reference."""
    rng = np.random.default_rng(seed)
    equation = np.repeat(np.arange(12), rng.integers(2, 9, size=12))
    size = np.array([120.0, 300.0, 180.0])
    by_class = rng.gamma(2.0, size=(len(equation), 3)) * np.linspace(3, 0.2, len(equation))[:, None]
    return equation, rng.gamma(8, size=len(equation)) / 8, by_class, size


def objective(weight, equation, t_1, traces, size, n, h2=0.2, large=0.4):
    """Return predicted variance and mean squared bias of weights with Σ c t₂ = m."""
    m, t_2 = size.sum(), traces.sum(axis=1)
    weight = weight * m / (weight @ t_2)
    mean = {e: (t_1[equation == e].mean(), t_2[equation == e].mean()) for e in set(equation)}
    v = np.array([2 * (mean[e][0] / n + h2 * mean[e][1] / m) ** 2 for e in equation])
    d = traces.T @ weight / size
    return weight**2 @ v + large**2 * (size / m) @ (d - 1) ** 2


def test_no_other_weights_of_their_kind_are_better():
    equation, t_1, traces, size = columns()
    n, t_2 = 400.0, traces.sum(axis=1)
    found = balance.balanced_weights(equation, t_1, t_2, traces, size, n)
    assert found @ t_2 == pytest.approx(t_2.sum())
    for e in set(equation):
        assert len(set(found[equation == e])) == 1
    best = objective(found, equation, t_1, traces, size, n)
    assert best < objective(np.ones(len(t_1)), equation, t_1, traces, size, n)
    precise = balance.precise_weights(equation, t_1, t_2, size.sum(), n)
    assert best < objective(precise, equation, t_1, traces, size, n)

    def of(mu):
        mean = np.array([traces[equation == e].mean(axis=0) for e in equation])
        share = np.array(
            [[t[equation == e].mean() for t in (t_1, t_2)] for e in equation]
        )  # fmt: skip
        v = (share[:, 0] / n + 0.2 * share[:, 1] / size.sum()) ** 2
        return objective(mean @ mu / v, equation, t_1, traces, size, n)

    searched = minimize(of, np.ones(3), method="Nelder-Mead", options={"xatol": 1e-9})
    assert best == pytest.approx(searched.fun, rel=1e-6)


def test_from_precise_to_uniform_as_bias_weighs_more():
    equation, t_1, traces, size = columns(1)
    t_2, spread = traces.sum(axis=1), []
    for large in (0.0, 0.2, 0.8, 1e4):
        weight = balance.balanced_weights(equation, t_1, t_2, traces, size, 400.0, large=large)
        d = traces.T @ weight / size * size.sum() / t_2.sum()
        assert (size @ d) / size.sum() == pytest.approx(1)
        spread.append(np.abs(d - 1).max())
        if large == 0:
            precise = balance.precise_weights(equation, t_1, t_2, size.sum(), 400.0)
            np.testing.assert_allclose(weight, precise, rtol=1e-8)
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] < 1e-4 < 0.1 < spread[0]


def test_columns_without_a_band_have_no_weight():
    equation, t_1, traces, size = columns(2)
    equation[-3:] = -1
    t_2 = traces.sum(axis=1)
    for weight in (
        balance.balanced_weights(equation, t_1, t_2, traces, size, 400.0),
        balance.precise_weights(equation, t_1, t_2, size.sum(), 400.0),
    ):
        assert (weight[-3:] == 0).all()
        assert (weight[:-3] != 0).all()


def test_traces_that_are_not_positive_are_refused():
    equation, t_1, traces, size = columns(3)
    for function, args in (
        (balance.balanced_weights, (-traces, size)),
        (balance.precise_weights, (size.sum(),)),
    ):
        with pytest.raises(ValueError, match="positive"):
            function(equation, t_1, -traces.sum(axis=1), *args, 400.0)


def test_merged_classes_hold_every_class_and_enough_variants():
    for size in ([1, 40, 50, 0, 9, 0], [0, 0, 7], [100], [3, 3, 3, 91], [91, 3, 3, 3]):
        merged = balance.merged_classes(np.array(size))
        assert (np.diff(merged) >= 0).all()
        assert (np.diff(merged) <= 1).all()
        assert merged[0] == 0
        assert (np.bincount(merged, weights=size) >= 0.05 * sum(size)).all()


def test_class_traces_sum_to_all():
    rng = np.random.default_rng(4)
    size = np.array([30, 5, 60, 0, 5, 0, 0, 0, 0, 0, 0, 0])
    by_class, t_2 = rng.gamma(2, size=(20, 12)) * (size > 0), rng.gamma(30, size=20)
    traces, merged = balance.class_traces(by_class, t_2, size)
    np.testing.assert_allclose(traces.sum(axis=1), t_2)
    assert merged.sum() == size.sum()
    assert traces.shape == (20, len(merged))


def test_effects_of_low_ld_and_high_ld_variants_count_alike():
    """Expected û'Ωû of effects in either half of the variants, given a study's own R.

    Blocks of strong and of weak LD; noise is left out, so that only the panels' sampling is left.
    """
    n_study, ratio = 1500, {"balanced": [], "precise": []}
    for draw in range(2):
        study, blocks, traces, sizes = [], [], [], []
        for b in range(4):
            decay = (0.95, 0.5)[b % 2]
            dosages = correlated_dosages(160, n_study + 3000, seed=100 * draw + b, decay=decay)
            dosages = dosages[np.minimum(*_frequencies(dosages)) > 0.05][:120].astype(np.float32)
            mine, one, two = np.split(dosages, [n_study, n_study + 2000], axis=1)
            G_a, G_b, G_2 = map(ld.standardise, (one[:, :1000], one[:, 1000:], two))
            block = ld.make_block(G_a, G_b, G_2, G_a.T.astype(float) @ G_b, 0.98)
            products, score = block_products(block, 1000, 1000)
            study.append(ld.standardise(mine).astype(float))
            blocks.append(block)
            traces.append((products.t_1, products.t_2, products.class_trace, block.share))
            sizes.append(np.bincount(class_of(score), minlength=N_CLASSES))
        t_1, t_2, by_class, share = (np.concatenate(one) for one in zip(*traces, strict=True))
        start = np.concatenate([[0], np.cumsum([len(one[0]) for one in traces])])
        equation = balance.equations(share, start)
        by_class, size = balance.class_traces(by_class, t_2, sum(sizes))
        m = float(size.sum())
        weights = {
            # So few variants say little: bias has to count for more than by default.
            "balanced": balance.balanced_weights(
                equation, t_1, t_2, by_class, size, 200.0, large=10.0
            ),
            "precise": balance.precise_weights(equation, t_1, t_2, m, 200.0),
        }
        for name, weight in weights.items():
            d, score = [], []
            for b, (block, G) in enumerate(zip(blocks, study, strict=True)):
                RM = G @ (G.T @ block.M) / n_study
                c = weight[start[b] : start[b + 1]]
                # The study's own sampling adds tr(ΩR)/n to every variant's part.
                H = np.einsum("k,jk,jk->", c, block.M, RM)
                d.append(np.einsum("jk,k,jk->j", RM, c, RM) - H / n_study)
                score.append(np.sum((G @ G.T / n_study) ** 2, axis=1))
            d, score = np.concatenate(d) * m / t_2.sum(), np.concatenate(score)
            low = score < np.median(score)
            ratio[name].append((d[low].mean(), d[~low].mean()))
    balanced, precise = (np.mean(ratio[name], axis=0) for name in ("balanced", "precise"))
    assert np.abs(balanced - 1).max() < 0.06
    assert precise[0] < 0.85
    assert precise[1] > 1.1


def _frequencies(dosages):
    frequency = dosages.mean(axis=1) / 2
    return frequency, 1 - frequency


def test_weights_hold_for_a_reference_without_variants_of_some_classes():
    """A reference of independent variants has one class, of which every weight is uniform."""
    equation, t_1, traces, size = columns(5)
    one = traces.sum(axis=1, keepdims=True)
    weight = balance.balanced_weights(equation, t_1, one[:, 0], one, size.sum()[None], 400.0)
    precise = balance.precise_weights(equation, t_1, one[:, 0], size.sum(), 400.0)
    np.testing.assert_allclose(weight, precise, rtol=1e-9)
    part = h.BlockMoments(np.eye(1), np.eye(1), float(weight @ t_1), float(weight @ one[:, 0]), 1.0)
    assert part.t_2 == pytest.approx(one.sum())
