"""GWAS-SSF tables with their metadata file, the GWAS Catalog's standard (v1.0)."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rvga.atomic import replacing
from rvga.errors import InputError

CHROMOSOME_CODES = {**{str(number): number for number in range(1, 23)}, "X": 23, "Y": 24, "MT": 25}
REQUIRED_METADATA = ("date_metadata_last_modified", "genome_assembly", "trait_description")
# Below, a p cannot be written as a double; the whole file then holds its logarithm.
_LARGEST_NEG_LOG_10_P = 300.0
_ALLELE = r"[ACGTacgt]+"


def metadata_of(
    attributes: Mapping[str, Any], *, trait_description: str, date: str, **more: Any
) -> dict[str, Any]:
    """Return the metadata that a minimal dataset's root attributes tell.

    Parameters
    ----------
    attributes : mapping
        ``MinimalDataset.attributes``.
    trait_description : str
        What the table is about.
    date : str
        ``date_metadata_last_modified``, year-month-day.
    more
        Further entries of the standard, or others in place of these.
    """
    return {
        "genotyping_technology": ["NR"],
        "samples": [{"sample_size": int(attributes["n"]), "sample_ancestry_category": ["NR"]}],
        "trait_description": [trait_description],
        "genome_assembly": attributes["genome_build"] or "NR",
        "sex": "NR",
        "analysis_software": f"rvga {_version()}",
        "date_metadata_last_modified": date,
        **more,
    }


class _TooSmallError(Exception):
    """A p of the table cannot be written as a double."""


def write_gwas_ssf(
    table: pd.DataFrame | Callable[[], Iterable[pd.DataFrame]],
    path: str | Path,
    metadata: Mapping[str, Any],
) -> int:
    """Write a GWAS-SSF table and, beside it, ``<path>-meta.yaml``.

    ``p_value`` is written where every p can be; else ``neg_log_10_p_value`` for the whole file.
    Rows without an estimate are left out, because the standard requires a p, and so are rows
    with other letters than ACGT in an allele.

    Parameters
    ----------
    table : DataFrame, or function that gives blocks of it
        As ``MinimalDataset.voxel`` gives: ``chromosome``, ``base_pair_location``,
        ``effect_allele``, ``other_allele``, ``beta``, ``standard_error``,
        ``effect_allele_frequency``, ``neg_log_10_p_value``; ``variant_id`` and ``n`` if present.
        A function may be called twice: again where a p turns out to be too small.
    path : path
        ``.tsv`` or ``.tsv.gz``.
    metadata : mapping
        Entries of the metadata file; at least those of :data:`REQUIRED_METADATA`.

    Returns
    -------
    int
        Rows left out.

    Raises
    ------
    InputError
        The name ends otherwise, or an entry of the metadata is missing.
    """
    path = Path(path)
    if not path.name.endswith((".tsv", ".tsv.gz")):
        raise InputError(f"{path}: a GWAS-SSF table must be named *.tsv or *.tsv.gz")
    absent = [key for key in REQUIRED_METADATA if not metadata.get(key)]
    if absent:
        raise InputError(f"{path}: the metadata of GWAS-SSF need '{absent[0]}'")
    blocks = table if callable(table) else lambda: [table]
    with replacing(path) as temporary:
        try:
            written = _write_table(blocks(), temporary, path.suffix == ".gz", as_logarithm=False)
        except _TooSmallError:
            written = _write_table(blocks(), temporary, path.suffix == ".gz", as_logarithm=True)
        digest = _md5(temporary)
    complete = {
        **metadata,
        "data_file_name": path.name,
        "data_file_md5sum": digest,
        "file_type": "GWAS-SSF v1.0",
        "coordinate_system": "1-based",
        "is_harmonised": False,
        "is_sorted": written.is_sorted,
        "minor_allele_freq_lower_limit": float(f"{written.lowest_frequency:.6g}"),
    }
    with replacing(path.with_name(f"{path.name}-meta.yaml")) as temporary:
        temporary.write_text(_yaml(complete))
    return written.left_out


@dataclass
class _Written:
    """What the metadata say of the rows that were written."""

    left_out: int = 0
    is_sorted: bool = True
    lowest_frequency: float = 0.0


def _write_table(
    blocks: Iterable[pd.DataFrame], path: Path, packed: bool, *, as_logarithm: bool
) -> _Written:
    """Write the rows of all blocks; :class:`_TooSmallError` where a p cannot be written."""
    written, rows = _Written(), 0
    last_place, lowest = -1, np.inf
    with contextlib.ExitStack() as stack:
        stream: Any = stack.enter_context(path.open("wb"))
        if packed:
            # No name and no time inside, so that equal tables are equal byte for byte.
            stream = stack.enter_context(gzip.GzipFile("", "wb", 5, stream, mtime=0))
        header = True
        for block in blocks:
            keep = np.isfinite(block["neg_log_10_p_value"].to_numpy())
            for name in ("effect_allele", "other_allele"):
                keep &= block[name].str.fullmatch(_ALLELE).to_numpy(dtype=bool)
            written.left_out += int((~keep).sum())
            part = block[keep]
            logarithm = part["neg_log_10_p_value"]
            if not as_logarithm and bool((logarithm > _LARGEST_NEG_LOG_10_P).any()):
                raise _TooSmallError
            _write_rows(part, stream, as_logarithm, header)
            header = False
            rows += len(part)
            if not len(part):
                continue
            code = part["chromosome"].map(CHROMOSOME_CODES).to_numpy(dtype=np.int64)
            place = code * (1 << 32) + part["base_pair_location"].to_numpy(dtype=np.int64)
            written.is_sorted &= bool(place[0] >= last_place and np.all(np.diff(place) >= 0))
            last_place = int(place[-1])
            frequency = part["effect_allele_frequency"].to_numpy(dtype=np.float64)
            minor = np.minimum(frequency, 1 - frequency)
            lowest = min(lowest, float(np.nanmin(minor, initial=np.inf)))
    if np.isfinite(lowest):
        written.lowest_frequency = lowest
    return written


def _write_rows(part: pd.DataFrame, stream: Any, as_logarithm: bool, header: bool) -> None:
    last = "neg_log_10_p_value" if as_logarithm else "p_value"
    logarithm = part["neg_log_10_p_value"].to_numpy()
    table = pd.DataFrame(
        {
            "chromosome": part["chromosome"].map(CHROMOSOME_CODES).astype("int64"),
            "base_pair_location": part["base_pair_location"],
            "effect_allele": part["effect_allele"],
            "other_allele": part["other_allele"],
            "beta": part["beta"],
            "standard_error": part["standard_error"],
            "effect_allele_frequency": part["effect_allele_frequency"],
            last: logarithm if as_logarithm else 10.0**-logarithm,
        }
    )
    if "variant_id" in part:
        names = part["variant_id"].astype(object)
        table["rsid"] = names.where(part["variant_id"].str.fullmatch(r"rs\d+"), None)
    if "n" in part:
        table["n"] = part["n"]
    buffer = io.StringIO()
    table.to_csv(
        buffer,
        sep="\t",
        na_rep="#NA",
        index=False,
        header=header,
        float_format="%.8g",
        lineterminator="\n",
    )
    stream.write(buffer.getvalue().encode())


def _md5(path: Path) -> str:
    state = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as handle:
        while block := handle.read(1 << 22):
            state.update(block)
    return state.hexdigest()


def _yaml(entries: Mapping[str, Any]) -> str:
    """Return YAML of scalars, lists and lists of mappings; every scalar is valid JSON too."""
    lines: list[str] = []
    for key in sorted(entries):
        value = entries[key]
        if not isinstance(value, (list, tuple)):
            lines.append(f"{key}: {_scalar(value)}")
            continue
        lines.append(f"{key}:")
        for item in value:
            if not isinstance(item, Mapping):
                lines.append(f"  - {_scalar(item)}")
                continue
            for number, name in enumerate(sorted(item)):
                start = "  - " if number == 0 else "    "
                lines.append(f"{start}{name}: {_scalar(item[name])}")
    return "\n".join(lines) + "\n"


def _scalar(value: Any) -> str:
    # A date stays unquoted, since the standard's reader wants a date.
    if isinstance(value, str) and len(value) == 10 and value[4] == value[7] == "-":
        return value
    return json.dumps(value, ensure_ascii=False)


def _version() -> str:
    from rvga.version import VERSION

    return VERSION
