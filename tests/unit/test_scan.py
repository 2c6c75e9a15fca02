"""The fused scan against all voxel statistics, computed at once."""

from __future__ import annotations

import numpy as np
import pytest
import threadpoolctl

from rvga import reconstruction, scan
from rvga.parallel import ordered_map

M, N, R, NU = 331, 2200, 7, 900.0
CRITICAL = 3.2


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(8)
    bases = np.linalg.qr(rng.normal(size=(N, R)))[0]
    bases[100] = 0.0
    L = rng.normal(size=(2, R, R)) + 2 * np.eye(R)
    A = L @ L.transpose(0, 2, 1) * NU
    A_index = (np.arange(M) > 150).astype(int)
    a = rng.uniform(50, 600, M)
    scale = np.sqrt(np.einsum("cjj->cj", A)[A_index] / NU / a[:, None])
    beta = rng.normal(size=(M, R)) * scale
    beta[17] *= 8
    beta[40] = np.nan
    a[41] = np.nan
    return bases, A, beta, a, A_index


@pytest.fixture(autouse=True)
def one_thread():
    with threadpoolctl.threadpool_limits(1):
        yield


def run(data, block, threads, hits=False):
    bases, A, beta, a, A_index = data
    scanner = scan.prepare(bases, A, NU, CRITICAL)
    totals = scan.Totals(scanner)
    found = []
    blocks = [slice(k, k + block) for k in range(0, M, block)]
    for one in ordered_map(
        lambda rows: scan.scan_block(scanner, beta[rows], a[rows], A_index[rows], hits),
        blocks,
        threads,
    ):
        totals.add(one)
        found.append(one)
    joined = [
        np.concatenate([getattr(one, name) for one in found])
        for name in ("n_significant_voxels", "lead_voxel", "z", "r_squared")
    ]
    if hits:
        joined.append(
            np.concatenate([k.start + one.hits.row for k, one in zip(blocks, found, strict=True)])
        )
        joined += [
            np.concatenate([getattr(x.hits, name) for x in found]) for name in ("voxel", "z")
        ]
    of_voxels = totals.of_voxels()
    return [*joined, of_voxels.n_significant_variants, of_voxels.largest_abs_z]


def all_statistics(data):
    bases, A, beta, a, A_index = data
    z = np.full((M, len(bases)), np.nan)
    for k in (0, 1):
        rows = A_index == k
        variance = reconstruction.voxel_variance(bases, A[k])
        alive = variance > 0
        z[np.ix_(rows, alive)] = reconstruction.voxel_z(
            beta[rows], a[rows], bases[alive], variance[alive], NU
        )
    return z


def test_scan_agrees_with_all_voxel_statistics(data):
    _, A, beta, a, A_index = data
    z = all_statistics(data)
    count, lead, lead_z, r_squared, row, voxel, hit_z, by_voxel, largest = run(data, 100, 1, True)
    missing = np.isin(np.arange(M), [40, 41])
    assert np.array_equal(lead < 0, missing)
    assert np.isnan(lead_z[missing]).all()
    size = np.where(np.isnan(z), -1, np.abs(z))
    good = ~missing
    np.testing.assert_allclose(np.abs(lead_z[good]), size[good].max(axis=1), rtol=1e-12)
    np.testing.assert_allclose(lead_z[good], z[np.flatnonzero(good), lead[good]], rtol=1e-12)
    assert np.array_equal(lead[good], size[good].argmax(axis=1))
    assert np.array_equal(count, (size > CRITICAL).sum(axis=1))
    assert np.array_equal(by_voxel, (size > CRITICAL).sum(axis=0))
    assert np.array_equal(np.transpose([row, voxel]), np.argwhere(size > CRITICAL))
    np.testing.assert_allclose(hit_z, z[row, voxel], rtol=1e-12)
    expected = a * np.einsum("mr,mrs,ms->m", beta, np.linalg.inv(A)[A_index], beta)
    np.testing.assert_allclose(r_squared[good], expected[good], rtol=1e-9)
    alive = np.arange(N) != 100
    np.testing.assert_allclose(largest[alive], size.max(axis=0)[alive], rtol=1e-5)
    assert np.isnan(largest[100])
    assert 17 in np.flatnonzero(count)


def test_near_ties_and_the_edge_are_decided_in_double_precision(data):
    bases, A, beta, a, A_index = data
    bases = bases.copy()
    strongest = int(np.nanargmax(np.abs(all_statistics(data)[17])))
    # Copies of the lead voxel in other tiles, turned by less than single precision can tell, and
    # two that are the very same.
    turned = [5, 700, 2100]
    bases[turned] = bases[strongest] * (1 + 1e-9 * np.random.default_rng(1).normal(size=(3, R)))
    same = [9, 2150, strongest]
    bases[same] = bases[strongest]
    z = np.abs(np.nan_to_num(all_statistics((bases, *data[1:])), nan=0.0))
    top = np.sort(z[17][turned + same])
    assert np.array_equal(np.sort(z[17])[-6:], top)
    assert 0 < top[-1] - top[0] < 1e-6
    first = {float(top[k + 1] + top[k]) / 2 for k in range(5) if top[k + 1] - top[k] > 1e-12}
    assert len(first) >= 2
    for critical in first:
        scanner = scan.prepare(bases, A, NU, critical)
        found = scan.scan_block(scanner, beta[:30], a[:30], A_index[:30], True)
        assert found.lead_voxel[17] == z[17].argmax()
        assert np.array_equal(found.n_significant_voxels, (z[:30] > critical).sum(axis=1))
        assert np.array_equal(
            np.transpose([found.hits.row, found.hits.voxel]), np.argwhere(z[:30] > critical)
        )


def test_equal_voxels_give_the_first(data):
    bases, A, beta, a, A_index = data
    same = np.repeat(bases[:1], 1200, axis=0)
    scanner = scan.prepare(same, A, NU, CRITICAL)
    found = scan.scan_block(scanner, beta, a, A_index)
    assert set(found.lead_voxel) == {-1, 0}


def test_components_without_variance_are_left_out(data):
    bases, A, beta, a, A_index = data
    # A direction of the components that varies in nobody has no effects either.
    some = np.linalg.qr(np.random.default_rng(5).normal(size=(R, R - 2)))[0]
    singular = some @ some.T @ A @ some @ some.T
    inside = beta @ some @ some.T
    scanner = scan.prepare(bases, singular, NU, CRITICAL)
    assert scanner.rank.tolist() == [R - 2, R - 2]
    found = scan.scan_block(scanner, inside, a, A_index)
    z = np.abs(np.nan_to_num(all_statistics((bases, singular, inside, a, A_index)), nan=0.0))
    good = found.lead_voxel >= 0
    np.testing.assert_allclose(np.abs(found.z[good]), z[good].max(axis=1), rtol=1e-9)


@pytest.mark.parametrize(("block", "threads"), [(1, 1), (37, 2), (128, 3), (1000, 2)])
def test_scan_does_not_depend_on_blocks_or_threads(data, block, threads):
    for one, other in zip(run(data, 200, 1, True), run(data, block, threads, True), strict=True):
        assert np.array_equal(one, other, equal_nan=True)


def test_scan_of_nothing(data):
    bases, A, *_ = data
    scanner = scan.prepare(bases, A, NU, CRITICAL)
    found = scan.scan_block(scanner, np.empty((0, R)), np.empty(0), np.empty(0, dtype=int), True)
    assert len(found.z) == 0
    assert len(found.hits.row) == 0
    totals = scan.Totals(scanner)
    totals.add(found)
    assert totals.of_voxels().n_significant_variants.sum() == 0
    assert np.nanmax(totals.of_voxels().largest_abs_z) == 0
