"""The fused scan against all voxel statistics, computed at once."""

from __future__ import annotations

import numpy as np
import pytest
import threadpoolctl

from rvga import reconstruction, scan

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


def run(data, block, threads):
    bases, A, beta, a, A_index = data
    running = scan.Scan(scan.prepare(bases, A, NU, CRITICAL), threads)
    found = [
        running.add(beta[k : k + block], a[k : k + block], A_index[k : k + block])
        for k in range(0, M, block)
    ]
    joined = [
        np.concatenate([getattr(one, name) for one in found])
        for name in ("n_significant_voxels", "lead_voxel", "z")
    ]
    totals = running.totals()
    return [*joined, totals.n_significant_variants, totals.largest_abs_z]


def test_scan_agrees_with_all_voxel_statistics(data):
    bases, A, beta, a, A_index = data
    z = np.full((M, N), np.nan)
    for k in (0, 1):
        rows = A_index == k
        variance = reconstruction.voxel_variance(bases, A[k])
        alive = variance > 0
        z[np.ix_(rows, alive)] = reconstruction.voxel_z(
            beta[rows], a[rows], bases[alive], variance[alive], NU
        )
    count, lead, lead_z, by_voxel, largest = run(data, 100, 1)
    missing = np.isin(np.arange(M), [40, 41])
    assert np.array_equal(lead < 0, missing)
    assert np.isnan(lead_z[missing]).all()
    size = np.where(np.isnan(z), -1, np.abs(z))
    good = ~missing
    np.testing.assert_allclose(np.abs(lead_z[good]), size[good].max(axis=1), rtol=2e-6)
    np.testing.assert_allclose(lead_z[good], z[np.flatnonzero(good), lead[good]], rtol=1e-12)
    # No statistic is at the very edge here, so single precision decides as double does.
    assert np.min(np.abs(size[size > 0] - CRITICAL)) > 1e-6
    assert np.array_equal(count, (size > CRITICAL).sum(axis=1))
    assert np.array_equal(by_voxel, (size > CRITICAL).sum(axis=0))
    alive = np.arange(N) != 100
    np.testing.assert_allclose(largest[alive], size.max(axis=0)[alive], rtol=1e-5)
    assert np.isnan(largest[100])
    assert 17 in np.flatnonzero(count)


@pytest.mark.parametrize(("block", "threads"), [(1, 1), (37, 2), (128, 3), (1000, 2)])
def test_scan_does_not_depend_on_blocks_or_threads(data, block, threads):
    for one, other in zip(run(data, 200, 1), run(data, block, threads), strict=True):
        assert np.array_equal(one, other, equal_nan=True)


def test_scan_of_nothing(data):
    bases, A, *_ = data
    running = scan.Scan(scan.prepare(bases, A, NU, CRITICAL), 2)
    found = running.add(np.empty((0, R)), np.empty(0), np.empty(0, dtype=int))
    assert len(found.z) == 0
    totals = running.totals()
    assert totals.n_significant_variants.sum() == 0
    assert np.nanmax(totals.largest_abs_z) == 0
