"""GWAS-SSF tables with their metadata file, the GWAS Catalog's standard (v1.0)."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Mapping
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
_ROWS_PER_BLOCK = 1 << 17


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


def write_gwas_ssf(frame: pd.DataFrame, path: str | Path, metadata: Mapping[str, Any]) -> int:
    """Write a GWAS-SSF table and, beside it, ``<path>-meta.yaml``.

    ``p_value`` is written where every p can be; else ``neg_log_10_p_value`` for the whole file.
    Rows without an estimate are left out, because the standard requires a p.

    Parameters
    ----------
    frame : DataFrame
        As ``MinimalDataset.voxel`` gives: ``chromosome``, ``base_pair_location``,
        ``effect_allele``, ``other_allele``, ``beta``, ``standard_error``,
        ``effect_allele_frequency``, ``neg_log_10_p_value``; ``variant_id`` and ``n`` if present.
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
    keep = np.isfinite(frame["neg_log_10_p_value"].to_numpy())
    frame = frame[keep]
    as_logarithm = bool((frame["neg_log_10_p_value"] > _LARGEST_NEG_LOG_10_P).any())
    with replacing(path) as temporary:
        with temporary.open("wb") as plain:
            if path.suffix == ".gz":
                # No name and no time inside, so that equal tables are equal byte for byte.
                with gzip.GzipFile("", "wb", 5, plain, mtime=0) as packed:
                    _write_rows(frame, packed, as_logarithm)
            else:
                _write_rows(frame, plain, as_logarithm)
        digest = _md5(temporary)
    frequency = frame["effect_allele_frequency"].to_numpy()
    lowest = float(np.minimum(frequency, 1 - frequency).min()) if len(frame) else 0.0
    complete = {
        **metadata,
        "data_file_name": path.name,
        "data_file_md5sum": digest,
        "file_type": "GWAS-SSF v1.0",
        "coordinate_system": "1-based",
        "is_harmonised": False,
        "is_sorted": _is_sorted(frame),
        "minor_allele_freq_lower_limit": float(f"{lowest:.6g}"),
    }
    with replacing(path.with_name(f"{path.name}-meta.yaml")) as temporary:
        temporary.write_text(_yaml(complete))
    return int((~keep).sum())


def _write_rows(frame: pd.DataFrame, stream: Any, as_logarithm: bool) -> None:
    last = "neg_log_10_p_value" if as_logarithm else "p_value"
    for first in range(0, max(1, len(frame)), _ROWS_PER_BLOCK):
        part = frame.iloc[first : first + _ROWS_PER_BLOCK]
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
            header=first == 0,
            float_format="%.8g",
            lineterminator="\n",
        )
        stream.write(buffer.getvalue().encode())


def _is_sorted(frame: pd.DataFrame) -> bool:
    place = frame["chromosome"].map(CHROMOSOME_CODES).to_numpy(dtype=np.int64) * (1 << 32)
    return bool(np.all(np.diff(place + frame["base_pair_location"].to_numpy(dtype=np.int64)) >= 0))


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
