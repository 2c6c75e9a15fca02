#!/usr/bin/env python3
"""Join the chunks of the component GWAS to the minimal dataset of the study."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from rvga import cli, formats
from rvga.calibration import LAMBDA_VARIANTS, lambda_bound, lambda_gc, lambda_variants
from rvga.coding import decode_z
from rvga.errors import InputError
from rvga.geometry import add_geometry, geometry_of
from rvga.minimal import (
    COLUMN_CHUNK_ROWS,
    ORDER_BYTES,
    TEXT_COLUMNS,
    OpenShards,
    Repeats,
    Shard,
    copy_variants,
    cross_product_rows,
    dataset_size,
    genome_order,
    merged_counts,
    read_shards,
    reserve_variants,
    total_counts,
)
from rvga.null import has_offsets, null_size

# Bytes of z of a block, and at most so many HDF5 chunks of the other columns.
BLOCK_BYTES = 1 << 25
MOST_CHUNKS = 8


def parser() -> argparse.ArgumentParser:
    """Return the stage's command line."""
    arguments = cli.make_parser(__doc__)
    arguments.add_argument(
        "--chunks", type=Path, nargs="+", required=True, help="chunks, any order"
    )
    arguments.add_argument("--bases", type=Path, required=True, help="bases of this study")
    arguments.add_argument("--null", type=Path, required=True, help="null model of this study")
    arguments.add_argument("--out", type=Path, required=True, help="the dataset, <study>.rvga.h5")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    with (
        cli.threads(args.threads),
        formats.open_file(args.null, "null") as null,
        formats.open_file(args.bases, "bases") as bases,
    ):
        if null.inputs.get("bases") != bases.digest:
            raise InputError(
                f"{args.bases}: are not the bases of the LDRs in {args.null.name}: they are of "
                "different runs"
            )
        _run(args, null, bases, read_shards(args.chunks, null))


def _run(
    args: argparse.Namespace,
    null: formats.Envelope,
    bases: formats.Envelope,
    shards: list[Shard],
) -> None:
    counts = merged_counts(shards)
    totals = total_counts(counts)
    A = null["A"][...]
    n, p = null_size(null)
    r, m = A.shape[1], totals["written"]
    if sum(shard.m for shard in shards) != m:
        raise InputError(
            "the chunks hold another number of variants than they count; make them again"
        )
    if m == 0:
        reasons = ", ".join(f"{number} {reason}" for reason, number in totals["dropped"].items())
        raise InputError(
            f"no variant is left after the filters: of {totals['read']} read, {reasons or 'none'}; "
            "lower --minor-allele-count or --minor-allele-frequency, or check the genotype files"
        )
    if bases["bases"].shape[1] != r:
        raise InputError(
            f"{args.bases}: has {bases['bases'].shape[1]} components, {args.null.name} has {r}: "
            "they are of different runs"
        )
    coding = shards[0].attributes["coding"]
    row_bytes = (2 if coding == "int16" else 4) * r
    widths = {name: max(shard.widths[name] for shard in shards) for name in TEXT_COLUMNS}
    # Whole HDF5 chunks of every column, so that none is packed twice.
    chunks = BLOCK_BYTES // (row_bytes * COLUMN_CHUNK_ROWS)
    rows = COLUMN_CHUNK_ROWS * min(max(1, chunks), MOST_CHUNKS)
    cli.state_memory(
        f"{m} variants x {r} components by blocks of {min(m, rows)}",
        2 * min(m, rows) * (row_bytes + 2 * sum(widths.values()) + 100)
        # Chunks that overlap are put in order together; most do not.
        + ORDER_BYTES * (2 * max(shard.m for shard in shards) + min(m, rows)),
    )
    geometry = geometry_of(bases)
    attributes = {
        **{
            key: shards[0].attributes[key]
            for key in ("coding", "genome_build", "minor_allele_count")
        },
        "n": n,
        "p": p,
        "n_eff": bases.attributes["n_eff"],
        "geometry_type": geometry.type,
        "sample_hash": null.attributes["sample_hash"],
        "counts": counts,
    }
    A_row = cross_product_rows(null["A_chromosome"][...])
    repeats = Repeats()
    with (
        OpenShards(shards) as opened,
        formats.create(
            args.out,
            "minimal",
            attributes,
            inputs={"null": null.digest, "bases": bases.digest},
            parameters=shards[0].parameters,
            code=args.code,
        ) as writer,
    ):
        writer.add("A", A)
        writer.add("Sigma", null["Sigma"][...])
        writer.add("bases", bases["bases"][...])
        writer.add("eigenvalues", bases["eigenvalues"][...])
        writer.add("coordinates", bases["coordinates"][...])
        add_geometry(writer, geometry)
        columns = reserve_variants(writer, m, r, coding, widths)
        first = 0
        for source, row in cli.progress(genome_order(opened, rows), -(-m // rows), "block"):
            repeats.add(copy_variants(opened, source, row, columns, first, A_row))
            first += len(source)
        inflation = _inflation(columns, m, rows, n - p - 1)
    with formats.open_file(args.out, "minimal") as written:
        size = dataset_size(written)
    warnings: list[str] = []
    _warn_of_inflation(inflation, m, has_offsets(null), warnings)
    if repeats.count:
        cli.warn(
            f"{repeats.count} of {m} variants repeat another of the same position and alleles "
            f"(the first is {repeats.example}); heritability leaves out all their copies: give "
            "each once",
            warnings,
        )
    cli.report(
        f"{m} variants of {totals['read']} read, {len(shards)} chunks; "
        f"{size['variant_bytes']} bytes for the variants "
        f"({size['variant_bytes'] / (m * r):.3f} a variant and component), "
        f"{size['fixed_bytes']} fixed"
    )
    numbers = {
        "n": n,
        "p": p,
        "r": r,
        "n_voxels": bases["bases"].shape[0],
        "m": m,
        "n_eff": bases.attributes["n_eff"],
        "genome_build": attributes["genome_build"],
        "dataset_coding": coding,
        "minor_allele_count": attributes["minor_allele_count"],
        **shards[0].parameters,
        **size,
        "bytes_per_variant_and_component": size["variant_bytes"] / (m * r),
        "sample_hash": attributes["sample_hash"],
        "n_repeated": repeats.count,
        "lambda_gc": [float(value) if np.isfinite(value) else None for value in inflation],
        "counts": counts,
        **totals,
    }
    cli.write_summary(args.summary, "minimal_dataset", numbers, warnings)


def _inflation(columns: Mapping[str, h5py.Dataset], m: int, rows: int, nu: int) -> np.ndarray:
    """Return lambda_GC of every component, from variants spread evenly over the whole."""
    chosen = lambda_variants(m)
    z = np.empty((len(chosen), columns["z"].shape[1]))
    for first in range(0, m, rows):
        low, high = np.searchsorted(chosen, (first, min(first + rows, m)))
        if high > low:
            here = chosen[low:high] - first
            codes = columns["z"][first : first + rows][here]
            z[low:high] = decode_z(codes, columns["scale"][first : first + rows][here])
    return lambda_gc(z, nu)


def _warn_of_inflation(inflation: np.ndarray, m: int, offsets: bool, warnings: list[str]) -> None:
    """Warn of components whose statistics are larger than chance and some polygenicity make."""
    bound = lambda_bound(min(m, LAMBDA_VARIANTS))
    high = np.flatnonzero(inflation > bound)
    if len(high):
        most = int(high[np.argmax(inflation[high])])
        advice = "" if offsets else ", in which case give loco_predictions or more covariates"
        cli.warn(
            f"lambda_GC of {len(high)} of {len(inflation)} components is above {bound:.2f} (LDR"
            f"{most + 1}: {inflation[most]:.2f}): many small effects do that, and so do population "
            f"structure and relatives{advice}; the intercept (kappa) of the heritability step "
            "tells them apart",
            warnings,
        )


if __name__ == "__main__":
    cli.run(main)
