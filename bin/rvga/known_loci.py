"""Known associations of other studies: which positions are no news."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rvga.chromosomes import RANK, normalise_chromosome
from rvga.errors import InputError

_PLAIN = ("chromosome", "base_pair_location")
_CATALOG = ("CHR_ID", "CHR_POS")


@dataclass(frozen=True)
class KnownLoci:
    """Positions of known associations.

    Attributes
    ----------
    chromosome : (k,) int
        1-22, X 23, Y 24, MT 25.
    base_pair_location : (k,) int
    catalog : bool
        Whether the file is a GWAS Catalog export (positions on GRCh38).
    n_without_position : int
        Rows left out: a catalog export has entries without a single position.
    """

    chromosome: np.ndarray
    base_pair_location: np.ndarray
    catalog: bool
    n_without_position: int


def read_known_loci(path: Path) -> KnownLoci:
    """Read a table with ``chromosome`` and ``base_pair_location``, or a GWAS Catalog export.

    The separator (tab, comma or semicolon) is told by the header line; the file may be gzipped.

    Raises
    ------
    InputError
        The columns are absent, or a row of a plain table is not a position.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            header = file.readline()
        separator = next((mark for mark in "\t,;" if mark.encode() in header), "\t")
        frame = pd.read_csv(
            path,
            sep=separator,
            dtype=str,
            keep_default_na=False,
            encoding_errors="replace",
            compression="gzip" if packed else None,
        )
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read as a table of known associations ({error}); give "
            "a text table with a header line"
        ) from error
    catalog = not set(_PLAIN) <= set(frame.columns) and set(_CATALOG) <= set(frame.columns)
    if not catalog and not set(_PLAIN) <= set(frame.columns):
        absent = next(name for name in _PLAIN if name not in frame.columns)
        raise InputError(
            f"{path}: column '{absent}' is missing; a table of known associations has "
            "'chromosome' and 'base_pair_location' (or is a GWAS Catalog export with "
            "'CHR_ID' and 'CHR_POS')"
        )
    names, places = (frame[name].str.strip() for name in (_CATALOG if catalog else _PLAIN))
    location = pd.to_numeric(places, errors="coerce").to_numpy(dtype=float)
    good = np.isfinite(location) & (location >= 1)
    if catalog:
        good &= (names != "").to_numpy()
    elif not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise InputError(
            f"{path}: line {row + 2}: base_pair_location '{places.iloc[row]}' is not a position; "
            "mend or delete the line"
        )
    rank = {
        name: RANK[normalise_chromosome(name, f"{path}: line {int(np.argmax(names == name)) + 2}")]
        for name in names[good].unique()
    }
    return KnownLoci(
        chromosome=names[good].map(rank).to_numpy(dtype=np.int64),
        base_pair_location=np.rint(location[good]).astype(np.int64),
        catalog=catalog,
        n_without_position=int((~good).sum()),
    )
