"""Questions that several stages ask of the null model's file."""

from __future__ import annotations

import numpy as np

from rvga.chromosomes import CHROMOSOMES, RANK
from rvga.errors import InputError
from rvga.formats import Envelope


def null_size(null: Envelope) -> tuple[int, int]:
    """Return n and p (covariates with the intercept) of a null model.

    Raises
    ------
    InputError
        The file holds neither the covariates' basis nor the two numbers.
    """
    if "Q" in null:
        n, p = null["Q"].shape
        return int(n), int(p)
    if "size" not in null:
        raise InputError(f"{null.path}: holds neither 'Q' nor 'size': the file is damaged")
    n, p = null["size"][...]
    return int(n), int(p)


def has_offsets(null: Envelope) -> bool:
    """Return whether the LDRs had leave-one-chromosome-out predictions taken off."""
    return null["A_chromosome"][...].tolist() != [0]


def rows_of_chromosomes(null: Envelope, codes: np.ndarray) -> np.ndarray:
    """Return the row of ``A`` (and ``residual_ldrs``) of each chromosome code, as integers.

    Parameters
    ----------
    codes : (m,) int
        Ranks of :mod:`rvga.chromosomes`.

    Raises
    ------
    InputError
        A chromosome has no row.
    """
    chromosome = null["A_chromosome"][...].astype(np.int64)
    codes = np.asarray(codes, dtype=np.int64)
    if chromosome.tolist() == [0]:
        return np.zeros(codes.shape, dtype=np.int64)
    row_of = np.full(max(RANK.values()) + 1, -1, dtype=np.int64)
    row_of[chromosome] = np.arange(len(chromosome))
    rows = row_of[codes]
    if (rows < 0).any():
        absent = CHROMOSOMES[int(codes[rows < 0][0]) - 1]
        raise InputError(
            f"{null.path}: has no leave-one-chromosome-out prediction for chromosome {absent}; "
            "give predictions of every chromosome that is analysed, or leave its variants out"
        )
    return rows
