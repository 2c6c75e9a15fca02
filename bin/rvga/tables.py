"""Every table of the pipeline: columns declared once, one reader, one writer.

Tables are tab-separated with a header; missing values are ``NA``.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from rvga.atomic import replacing
from rvga.errors import InputError

VARIANT_COLUMNS = {
    "chromosome": "1-22, X, Y, MT",
    "base_pair_location": "1-based position",
    "variant_id": "id in the genotype files",
    "effect_allele": "allele that beta counts",
    "other_allele": "the other allele",
    "effect_allele_frequency": "in the sample",
}

TABLES: dict[str, dict[str, str]] = {
    "chunks": {
        "file": "name of the genotype file within the run",
        "chunk": "number of the chunk within its genotype file, from 1",
        "chromosome": "1-22, X, Y, MT, or 'mixed'",
        "first_variant": "0-based index of the first variant in the genotype file",
        "n_variants": "number of variants",
    },
    "ldrs": {"subject": "subject id"},
    "outliers": {
        "subject": "subject id",
        "squared_distance": "squared robust Mahalanobis distance in the space of the LDRs",
        "threshold": "beyond which a subject is listed",
    },
    "variants": {
        **VARIANT_COLUMNS,
        "n_significant_voxels": "voxels beyond the critical value",
        "lead_voxel": "voxel (from 0) with the largest |z|",
        "z": "t statistic at the lead voxel",
        "neg_log_10_p_value": "-log10 p of the lead voxel by itself",
        "neg_log_10_p_image_wide": "-log10 image-wide p of the largest |z|",
        "neg_log_10_p_omnibus": "-log10 p of the omnibus test over all components",
    },
    "significant": {
        "row": "row of the dataset, from 0",
        **VARIANT_COLUMNS,
        "z": "t statistic at the lead voxel",
        "neg_log_10_p_image_wide": "-log10 image-wide p of the largest |z|",
    },
    "pairs": {
        **VARIANT_COLUMNS,
        "voxel": "voxel, from 0",
        "beta": "effect at the voxel, in image units per allele",
        "standard_error": "its standard error",
        "z": "t statistic at the voxel",
        "neg_log_10_p_value": "-log10 p of the voxel by itself",
        "neg_log_10_p_image_wide": "-log10 image-wide p of the voxel's |z|",
    },
    "voxels": {
        "voxel": "voxel, from 0",
        "x_mm": "coordinate",
        "y_mm": "coordinate",
        "z_mm": "coordinate",
        "n_significant_variants": "variants beyond the critical value",
        "largest_abs_z": "largest |z| over the variants",
    },
    "loci": {
        "locus": "number, in genome order, from 1",
        "chromosome": "1-22, X, Y, MT",
        "start": "first position of the locus",
        "end": "last position of the locus",
        "lead_variant_id": "variant with the smallest image-wide p",
        "base_pair_location": "its position",
        "effect_allele": "its effect allele",
        "other_allele": "its other allele",
        "effect_allele_frequency": "in the sample",
        "lead_voxel": "voxel (from 0) of its largest |z|",
        "x_mm": "coordinate of the lead voxel",
        "y_mm": "coordinate of the lead voxel",
        "z_mm": "coordinate of the lead voxel",
        "beta": "effect at the lead voxel, in image units per allele",
        "standard_error": "its standard error",
        "z": "its t statistic",
        "neg_log_10_p_value": "-log10 p of the lead voxel by itself",
        "neg_log_10_p_image_wide": "-log10 image-wide p",
        "n_significant_voxels": "significant voxels of the lead variant",
        "n_significant_variants": "significant variants in the locus",
        "n_clumps": "independent lead variants in the locus",
        "novel": "yes, no, or NA without known associations",
        "known_associations": "known associations inside the locus (at most 5 positions)",
    },
    "lead_variants": {
        "locus": "number of the locus",
        **VARIANT_COLUMNS,
        "lead_voxel": "voxel (from 0) of the largest |z|",
        "z": "t statistic at the lead voxel",
        "neg_log_10_p_image_wide": "-log10 image-wide p",
        "n_significant_voxels": "significant voxels",
        "n_clumped": "significant variants in this clump, the lead included",
        "start": "first position of the clump",
        "end": "last position of the clump",
    },
    "heritability": {
        "voxel": "voxel, from 0",
        "x_mm": "coordinate",
        "y_mm": "coordinate",
        "z_mm": "coordinate",
        "heritability": "h2 where it is within range, else NA",
        "standard_error": "its standard error",
        "neg_log_10_p_value": "one-sided test of h2 = 0, from the raw values",
        "false_discovery_rate": "smallest rate at which the test is rejected, over all rows",
        "heritability_raw": "h2 as estimated",
        "standard_error_raw": "as estimated",
        "se_method": "closed_form, jackknife or auto",
        "reason": "why the estimate is not shown; NA otherwise",
    },
    "regions": {
        "region": "label of the region",
        "n_voxels": "voxels",
        "x_mm": "centre",
        "y_mm": "centre",
        "z_mm": "centre",
        "heritability": "h2 of the region's mean image, NA out of range",
        "standard_error": "its standard error",
        "neg_log_10_p_value": "one-sided test of h2 = 0, from the raw values",
        "false_discovery_rate": "smallest rate at which the test is rejected, over all rows",
        "heritability_raw": "h2 as estimated",
        "standard_error_raw": "as estimated",
        "se_method": "closed_form, jackknife or auto",
        "reason": "why the estimate is not shown; NA otherwise",
    },
    "genetic_correlation": {
        "region_1": "label (or voxel) of one",
        "region_2": "label (or voxel) of the other",
        "genetic_correlation": "rho where it is within range, else NA",
        "standard_error": "its standard error",
        "neg_log_10_p_value": "test of rho = 0, from the raw values",
        "false_discovery_rate": "smallest rate at which the test is rejected, over all rows",
        "genetic_correlation_raw": "as estimated",
        "standard_error_raw": "as estimated",
        "phenotypic_correlation": "correlation of the two in the sample",
        "se_method": "closed_form, jackknife or auto",
        "reason": "why the estimate is not shown; NA otherwise",
    },
    "cross_trait": {
        "voxel": "voxel, from 0",
        "x_mm": "coordinate",
        "y_mm": "coordinate",
        "z_mm": "coordinate",
        "genetic_correlation": "rho with the trait where it is within range, else NA",
        "standard_error": "its standard error",
        "neg_log_10_p_value": "test of rho = 0, from the raw values",
        "false_discovery_rate": "smallest rate at which the test is rejected, over all rows",
        "genetic_correlation_raw": "as estimated",
        "standard_error_raw": "as estimated",
        "se_method": "closed_form or jackknife",
        "reason": "why the estimate is not shown; NA otherwise",
    },
    "cross_trait_regions": {
        "trait": "external trait",
        "region": "label of the region",
        "genetic_correlation": "rho of the region's mean image with the trait, NA out of range",
        "standard_error": "its standard error",
        "neg_log_10_p_value": "test of rho = 0, from the raw values",
        "false_discovery_rate": "smallest rate at which the test is rejected, over all rows",
        "genetic_correlation_raw": "as estimated",
        "standard_error_raw": "as estimated",
        "se_method": "closed_form or jackknife",
        "reason": "why the estimate is not shown; NA otherwise",
    },
    "intercepts": {
        "component": "component, from 1, or the name of the trait",
        "other": "the same, or the trait",
        "intercept": "kappa of the band regression, in units of its own noise",
        "expected": "1 for itself, 0 with the trait: no structure, nobody in common",
        "standard_error": "delete-a-block jackknife",
        "neg_log_10_p_value": "two-sided test of the expected value",
        "false_discovery_rate": "smallest rate at which the test is rejected, over all rows",
    },
    "truth_comparison": {
        "quantity": "what is compared",
        "value": "the number",
        "goal": "what a good run reaches; NA where there is none",
        "reached": "yes, no, or NA",
    },
    "truth_loci": {
        "variant_id": "planted causal variant",
        "chromosome": "1-22, X",
        "base_pair_location": "1-based position",
        "power": "probability that a run finds it, from its non-centrality",
        "found": "yes or no",
        "locus": "number of the locus found, NA otherwise",
    },
    "variant_query": {
        "voxel": "voxel, from 0",
        "x_mm": "coordinate",
        "y_mm": "coordinate",
        "z_mm": "coordinate",
        "beta": "effect of an effect allele on the voxel, in image units",
        "standard_error": "its standard error",
        "z": "t statistic",
        "neg_log_10_p_value": "-log10 p of the voxel by itself",
    },
    "region_query": {
        **VARIANT_COLUMNS,
        "lead_voxel": "voxel (from 0) with the largest |z|",
        "beta": "effect at the lead voxel, in image units per allele",
        "standard_error": "its standard error",
        "z": "t statistic at the lead voxel",
        "neg_log_10_p_value": "-log10 p of the lead voxel by itself",
    },
    "region_voxel_query": {
        **VARIANT_COLUMNS,
        "beta": "effect at the voxel, in image units per allele",
        "standard_error": "its standard error",
        "z": "t statistic at the voxel",
        "neg_log_10_p_value": "-log10 p of the voxel by itself",
    },
    "software_versions": {"software": "name", "version": "version"},
}


def write_table(frame: pd.DataFrame, path: str | Path, kind: str) -> None:
    """Write a table of a declared kind; gzip when the name ends in ``.gz``.

    Raises
    ------
    ValueError
        The columns are not those of the kind.
    """
    columns = list(TABLES[kind])
    given = list(frame.columns)
    if given[: len(columns)] != columns or (kind != "ldrs" and len(given) != len(columns)):
        raise ValueError(f"table '{kind}' has columns {given}, declared are {columns}")
    content = lines_of(frame.iloc[:0], header=True) + lines_of(frame)
    if str(path).endswith(".gz"):
        # A fixed time stamp keeps equal tables equal byte for byte.
        content = gzip.compress(content, compresslevel=5, mtime=0)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


class TableWriter:
    """A table that is written block by block; see :func:`table_writer`."""

    # Pieces of one size make the compressed bytes the same however the rows came in.
    _PIECE_BYTES = 1 << 20

    def __init__(self, write: Callable[[bytes], object], kind: str):
        self._write = write
        self._kind = kind
        self._waiting = bytearray("\t".join(TABLES[kind]).encode() + b"\n")

    def add(self, frame: pd.DataFrame) -> None:
        """Append rows; the columns are those of the kind."""
        if list(frame.columns) != list(TABLES[self._kind]):
            raise ValueError(f"table '{self._kind}' does not have columns {list(frame.columns)}")
        self.add_lines(lines_of(frame))

    def add_lines(self, lines: bytes) -> None:
        """Append whole lines of text that are in the table's form already."""
        self._waiting += lines
        while len(self._waiting) >= self._PIECE_BYTES:
            self._write(bytes(self._waiting[: self._PIECE_BYTES]))
            del self._waiting[: self._PIECE_BYTES]

    def finish(self) -> None:
        """Write what waits."""
        self._write(bytes(self._waiting))
        self._waiting.clear()


def lines_of(frame: pd.DataFrame, header: bool = False) -> bytes:
    """Return the rows as text in the form of every table (eight digits, ``NA``), fast."""
    columns = []
    for place in range(0 if header else frame.shape[1]):
        values = frame.iloc[:, place]
        if values.dtype.kind == "f":
            numbers = values.to_numpy(dtype="float64", na_value=float("nan"))
            texts = ["NA" if x != x else f"{x:.8g}" for x in numbers.tolist()]
        elif values.dtype.kind in "iu":
            missing = values.isna().to_numpy()
            numbers = values.to_numpy(dtype="int64", na_value=0) if missing.any() else values
            texts = list(map(str, numbers.tolist()))
            for row in missing.nonzero()[0]:
                texts[row] = "NA"
        else:
            texts = values.tolist()
            if set(map(type, texts)) - {str}:
                break
        columns.append(texts)
    if not header and len(columns) == frame.shape[1]:
        text = "".join(f"{line}\n" for line in map("\t".join, zip(*columns, strict=True)))
        if (
            '"' not in text
            and "\r" not in text
            and text.count("\n") == len(frame)
            and text.count("\t") == len(frame) * (len(columns) - 1)
        ):
            return text.encode()
    # What needs quotes, or has other types, is left to pandas.
    return frame.to_csv(
        sep="\t",
        na_rep="NA",
        index=False,
        header=header,
        float_format="%.8g",
        lineterminator="\n",
    ).encode()


@contextlib.contextmanager
def table_writer(path: str | Path, kind: str) -> Iterator[TableWriter]:
    """Write a table of a declared kind by blocks; it appears under its name when complete."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        if str(path).endswith(".gz"):
            # No time stamp and no name, as in write_table.
            with gzip.GzipFile("", "wb", compresslevel=5, fileobj=file, mtime=0) as packed:
                writer = TableWriter(packed.write, kind)
                yield writer
                writer.finish()
        else:
            writer = TableWriter(file.write, kind)
            yield writer
            writer.finish()


def read_table_blocks(
    path: str | Path, kind: str, rows: int
) -> Iterator[tuple[pd.DataFrame, bytes]]:
    """Yield ``(frame, lines)`` of up to ``rows`` rows: the values and the text as it stands.

    Raises
    ------
    InputError
        The file is absent, has other columns, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file (table of {kind})")
    names = list(TABLES[kind])
    text = {name: str for name in _TEXT_COLUMNS if name in TABLES[kind]}
    opener = gzip.open if path.name.endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            header = file.readline().decode().rstrip("\n").split("\t")
            if header != names:
                raise InputError(f"{path}: its columns are not those of a '{kind}' table")
            while lines := b"".join(itertools.islice(file, rows)):
                frame = pd.read_csv(
                    io.BytesIO(lines),
                    sep="\t",
                    names=names,
                    na_values=["NA"],
                    keep_default_na=False,
                    dtype=text,
                    low_memory=False,
                )
                yield frame, lines
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError, pd.errors.ParserError) as e:
        raise InputError(
            f"{path}: cannot be read as a '{kind}' table: it is damaged or cut short; make it again"
        ) from e


def read_table(path: str | Path, kind: str) -> pd.DataFrame:
    """Read a table of a declared kind; ids, alleles, chromosomes and labels stay text.

    Raises
    ------
    InputError
        The file is absent or lacks a declared column.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file (table of {kind})")
    text = {name: str for name in _TEXT_COLUMNS if name in TABLES[kind]}
    frame = pd.read_csv(
        path, sep="\t", na_values=["NA"], keep_default_na=False, dtype=text, low_memory=False
    )
    missing = [name for name in TABLES[kind] if name not in frame.columns]
    if missing:
        raise InputError(f"{path}: column '{missing[0]}' is missing; is this a '{kind}' table?")
    return frame


_TEXT_COLUMNS = (
    "chromosome", "variant_id", "lead_variant_id", "effect_allele", "other_allele", "novel",
    "known_associations", "se_method", "reason", "region", "region_1", "region_2", "subject",
    "trait", "component", "other", "quantity", "reached", "goal", "value", "found", "software",
    "version",
)  # fmt: skip
