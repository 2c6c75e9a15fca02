"""Delete-one-group jackknife; arrays in, arrays out."""

from __future__ import annotations

import numpy as np


def number_of_groups(blocks: int, most: int = 200, fewest: int = 20) -> int:
    """Return how many groups to make of LD blocks, of two at least where that leaves 20 groups.

    Scores of neighbouring blocks are correlated, which makes the jackknife over single small blocks
    too short (by about a tenth in simulations); with whole groups it matters at their ends only.
    """
    return min(most, max(blocks // 2, min(fewest, blocks)))


def group_starts(sizes: np.ndarray, number: int) -> np.ndarray:
    """Merge neighbouring blocks into at most ``number`` groups of similar total size.

    Parameters
    ----------
    sizes : (b,)
        Sizes of the blocks.
    number : int
        Largest number of groups.

    Returns
    -------
    (b,) int64
        Group of each block, from 0, without gaps.
    """
    sizes = np.asarray(sizes, dtype=float)
    middle = np.cumsum(sizes) - sizes / 2
    group = np.minimum((middle / sizes.sum() * number).astype(np.int64), number - 1)
    return np.unique(group, return_inverse=True)[1].astype(np.int64)


def jackknife_standard_error(leave_one_out: np.ndarray) -> np.ndarray:
    """Return the delete-one standard error over the first axis.

    SE² = (G - 1)/G Σ (x_g - mean)², for G leave-one-out values along axis 0; NaN for G < 2.
    """
    groups = len(leave_one_out)
    if groups < 2:
        return np.full(leave_one_out.shape[1:], np.nan)
    centred = leave_one_out - leave_one_out.mean(axis=0)
    return np.sqrt((groups - 1) / groups * np.sum(centred * centred, axis=0))
