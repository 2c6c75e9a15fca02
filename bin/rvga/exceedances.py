"""The compiled loop of the image-wide tail (method 4b), apart from what only reads a tail."""

from __future__ import annotations

import numpy as np

from rvga.machine_code import compiled

_VOXELS_PER_TILE = 2048


@compiled
def exceedances(
    rest: np.ndarray,
    slope: np.ndarray,
    voxel: np.ndarray,
    beyond: np.ndarray,
    threshold: np.ndarray,
) -> np.ndarray:
    """Return the number of voxels with |rest + beyond · slope| > threshold, (draws, thresholds).

    The drawn voxel itself is beyond the threshold by construction and is counted so.
    """
    draws, N = rest.shape
    thresholds = len(threshold)
    counts = np.ones((draws, thresholds), dtype=np.int64)
    for d in range(draws):
        rest[d, voxel[d]] = 0.0
        slope[d, voxel[d]] = 0.0
        for first in range(0, N, _VOXELS_PER_TILE):
            y = rest[d, first : first + _VOXELS_PER_TILE]
            c = slope[d, first : first + _VOXELS_PER_TILE]
            for k in range(thresholds):
                s = beyond[d, k]
                t = threshold[k]
                number = np.int32(0)
                for v in range(len(y)):
                    number += np.int32(abs(y[v] + s * c[v]) > t)
                counts[d, k] += number
    return counts
