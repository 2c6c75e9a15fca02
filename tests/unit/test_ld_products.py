"""Stored products of blocks, and those of a part of the variants, against dense matrices."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from heritability_study import correlated_dosages
from rvga import bands, ld
from rvga import heritability as h
from rvga import ld_products as products
from rvga.ld_reference import StoredBlock
from rvga.parallel import ordered_map, read_ahead

N_A, N_B, N = 120, 121, 700.0


@pytest.fixture(scope="module")
def block() -> ld.LdBlock:
    """Return a block of 190 variants, M of more than two strips of columns."""
    dosages = correlated_dosages(260, 2 * (N_A + N_B), seed=12, decay=0.95).astype(np.float32)
    parts = np.split(dosages, [N_A, N_A + N_B], axis=1)
    common = [np.minimum(p.mean(axis=1), 2 - p.mean(axis=1)) > 0.15 for p in parts]
    parts = [part[np.all(common, axis=0)][:190] for part in parts]
    G_a, G_b, G_2 = map(ld.standardise, parts)
    G_1 = ld.standardise(np.concatenate(parts[:2], axis=1))
    K = np.zeros((N_A, N_B))
    ld.accumulate_kinship(K, G_a, G_b)
    made = ld.make_block(G_a, G_b, G_2, K, 0.99, G_1)
    assert len(made.M) == 190
    assert made.M.shape[1] > 2 * products.STRIP
    return made


def symmetric(k: int) -> np.ndarray:
    matrix = np.random.default_rng(k).normal(size=(k, k))
    return matrix + matrix.T


def stored(block: ld.LdBlock, kept: np.ndarray) -> StoredBlock:
    """Return the block as it is read for a study with the variants ``kept``."""
    whole, ld_score = products.block_products(block, N_A, N_B)
    triangles = None
    if kept.all():
        whole = replace(whole, difference=None)
    else:
        triangles = tuple(ld.pack_lower(one) for one in (block.R_a, block.R_b, block.T))
    return StoredBlock(block.M, whole, block.t_1_ratio, kept, ld_score, triangles, N_A, N_B)


@pytest.mark.parametrize("k", [1, 5, 64, 65, 128, 150])
def test_strips_are_the_matrix(k):
    H, rng = symmetric(k), np.random.default_rng(1)
    packed = products.pack_strips(H)
    assert packed.shape == (products.packed_size(k),)
    np.testing.assert_allclose(products.unpack_strips(packed, k), H, rtol=1e-15)
    q = rng.normal(size=(k, 3))
    np.testing.assert_allclose(products.quadratic_form(packed, q), q.T @ H @ q, rtol=1e-11)
    wide = np.array([k, 2 * k, 0])
    assert products.packed_size(wide).tolist() == [int(products.packed_size(one)) for one in wide]


def test_rows_of_a_triangle_are_those_of_the_matrix():
    matrix, rows = symmetric(9), np.array([7, 0, 3])
    np.testing.assert_array_equal(ld.triangle_rows(ld.pack_lower(matrix), 9, rows), matrix[rows])
    np.testing.assert_array_equal(ld.unpack_lower(ld.pack_lower(matrix), 9), matrix)


def test_stored_products_are_those_of_dense_matrices(block):
    found, ld_score = products.block_products(block, N_A, N_B)
    M, R_a, R_b, T = (np.asarray(x, dtype=float) for x in (block.M, block.R_a, block.R_b, block.T))
    k, share = M.shape[1], N_A / (N_A + N_B)
    R_1 = (N_A * R_a + N_B * R_b) / (N_A + N_B)
    close = {"rtol": 0, "atol": 1e-11 * np.abs(M.T @ R_1 @ M).max()}
    np.testing.assert_allclose(products.unpack_strips(found.H, k), M.T @ R_1 @ M, **close)
    difference = products.unpack_strips(found.difference, k)
    np.testing.assert_allclose(difference, M.T @ (R_a - R_b) @ M, **close)
    np.testing.assert_allclose(found.t_1, np.diag(M.T @ R_1 @ M), rtol=1e-11)
    np.testing.assert_allclose(found.t_2, np.diag(M.T @ T @ M), rtol=1e-10)
    H_a, H_b = M.T @ R_a @ M, M.T @ R_b @ M
    assert found.t_4 == pytest.approx(np.trace(H_a @ H_b), rel=1e-11)
    c = np.random.default_rng(3).uniform(-0.2, 1, size=k)
    C = np.diag(c)
    weighted = np.trace(C @ H_a @ C @ H_b)
    assert found.halves_trace(share, c) == pytest.approx(weighted, rel=1e-11)
    np.testing.assert_allclose(ld_score, np.diag(R_a @ R_b), rtol=1e-11)
    label = products.class_of(ld_score)
    for one in range(products.N_CLASSES):
        low, high = (0, *products.CLASS_EDGES)[one], (*products.CLASS_EDGES, np.inf)[one]
        assert np.all((ld_score[label == one] >= low) & (ld_score[label == one] < high))
        inside = np.diag((label == one).astype(float))
        expected = np.diag(M.T @ R_a @ inside @ R_b @ M)
        np.testing.assert_allclose(found.class_trace[:, one], expected, rtol=1e-9, atol=1e-9)
    assert len(np.unique(label)) > 3


GONE = ["none", "one", "2 %", "10 %", "30 %", "60 %", "an arm", "most", "all"]


@pytest.mark.parametrize("missing", GONE)
def test_products_of_a_part_are_those_of_its_rows(block, missing):
    """What is brought down equals what the rows that are there give, to rounding.

    The paths differ: rows of the missing taken off, rows of the others put together, and both
    ways to the sums by class; :func:`project_block` and the dense matrices know none of them.
    """
    m, rng = len(block.M), np.random.default_rng(5)
    kept = np.ones(m, dtype=bool)
    if missing == "an arm":
        kept[m // 3 :] = False
    elif missing == "one":
        kept[17] = False
    elif missing in ("most", "all"):
        kept[:] = False
        kept[:4] = missing == "most"
    elif missing != "none":
        kept[rng.permutation(m)[: round(m * float(missing.split()[0]) / 100)]] = False
    scores = rng.normal(size=(m, 4))
    M = block.M.astype(float)
    one = stored(block, kept)
    found, t_1 = one.seen(M, N)
    q = products.project_scores(M, np.where(kept[:, None], scores, 0.0))
    band = bands.band_of(block.share)
    assert set(band) == set(range(-1, products.N_BANDS))
    seen = products.SeenBlock(q, found, t_1, one.share_a, band)
    dense = h.project_block(
        block.M, block.R_a.astype(float), block.R_b.astype(float), block.T.astype(float),
        np.where(kept[:, None], scores, np.nan), N_A, N_B, block.t_1_ratio, N,
    )  # fmt: skip
    whole = products.block_products(block, N_A, N_B)[0]
    scale = {"rtol": 0, "atol": 1e-12 * np.abs(products.unpack_strips(whole.H, M.shape[1])).max()}
    np.testing.assert_allclose(seen.q, dense.q, rtol=0, atol=1e-12 * max(np.abs(q).max(), 1))
    np.testing.assert_allclose(products.unpack_strips(found.H, len(q)), dense.H_1, **scale)
    # The share that is kept of the rest beside R's diagonal is a ratio of two small sums.
    np.testing.assert_allclose(seen.t_1, dense.t_1, rtol=0, atol=1e-7 * whole.t_1.max())
    np.testing.assert_allclose(found.t_1, np.diag(dense.H_1), **scale)
    np.testing.assert_allclose(seen.t_2, dense.t_2, rtol=0, atol=1e-12 * np.abs(whole.t_2).max())
    c = rng.uniform(size=len(q))
    by_band = np.append(rng.uniform(-0.5, 1, size=products.N_BANDS), 0.0)[band]
    by_band[band == 2] = 0.0
    if missing == "none":
        with pytest.raises(ValueError, match="need the difference"):
            h.moments_of(seen, c)
        c = by_band
    for weight in (None, c, by_band):
        ours, theirs = h.moments_of(seen, weight), h.moments_of(dense, weight)
        assert ours.t_4 == pytest.approx(theirs.t_4, rel=1e-12, abs=1e-12 * whole.t_4)
        size = np.abs(theirs.quartic).max() + 1e-300
        np.testing.assert_allclose(ours.quartic, theirs.quartic, rtol=0, atol=1e-11 * size)
        np.testing.assert_allclose(ours.quadratic, theirs.quadratic, rtol=1e-11, atol=1e-11)
    label = products.class_of(one.ld_score)
    size = 1e-11 * np.abs(whole.class_trace).max()
    for at in range(products.N_CLASSES):
        rows = label == at
        expected = np.einsum("jk,jk->k", dense.RM_a[rows], dense.RM_b[rows])
        np.testing.assert_allclose(found.class_trace[:, at], expected, rtol=0, atol=size)


def test_items_read_ahead_come_in_order_and_errors_after_them():
    started = []

    def items(number, fails=False):
        for k in range(number):
            started.append(k)
            yield k
        if fails:
            raise KeyError("damaged")

    assert list(read_ahead(items(50), 3)) == list(range(50))
    assert list(read_ahead(items(0), 3)) == []
    ahead = read_ahead(items(5, fails=True), 2)
    assert [next(ahead) for _ in range(5)] == list(range(5))
    with pytest.raises(KeyError, match="damaged"):
        next(ahead)
    # Who stops early leaves no thread behind, and not much is read in vain.
    before, started[:] = threading.active_count(), []
    with pytest.raises(ZeroDivisionError):
        list(ordered_map(lambda k: 1 / (k - 3), read_ahead(items(1000), 2), 2))
    end = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() == before
    assert len(started) < 20
    assert list(itertools.islice(read_ahead(itertools.count(), 2), 3)) == [0, 1, 2]
