#!/usr/bin/env python3
"""Join the chunks of the component GWAS to the minimal dataset of the study."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rvga import cli, formats
from rvga.errors import InputError
from rvga.geometry import add_geometry, geometry_of
from rvga.minimal import (
    TEXT_COLUMNS,
    copy_variants,
    count_repeated,
    genome_order,
    merged_counts,
    open_chunks,
    reserve_variants,
    total_counts,
)

BLOCK_BYTES = 1 << 25


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
        open_chunks(args.chunks, null) as chunks,
    ):
        if bases.inputs.get("subjects") != null.inputs.get("subjects"):
            raise InputError(
                f"{args.bases}: was not made from the same subjects as {args.null.name}: they are "
                "of different runs"
            )
        _run(args, null, bases, chunks)


def _run(
    args: argparse.Namespace,
    null: formats.Envelope,
    bases: formats.Envelope,
    chunks: list[formats.Envelope],
) -> None:
    counts = merged_counts(chunks)
    totals = total_counts(counts)
    A = null["A"][...]
    n, p = null["Q"].shape
    r, m = A.shape[0], totals["written"]
    if sum(chunk["a"].shape[0] for chunk in chunks) != m:
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
    coding = chunks[0].attributes["coding"]
    row_bytes = (2 if coding == "int16" else 4) * r
    rows = max(1, min(m, BLOCK_BYTES // row_bytes))
    cli.state_memory(
        f"{m} variants x {r} components by blocks of {rows}", 3 * rows * row_bytes + 250 * m
    )
    source, row = genome_order(chunks)
    geometry = geometry_of(bases)
    attributes = {
        **{
            key: chunks[0].attributes[key]
            for key in ("coding", "genome_build", "minor_allele_count")
        },
        "n": n,
        "p": p,
        "n_eff": bases.attributes["n_eff"],
        "geometry_type": geometry.type,
        "sample_hash": null.attributes["sample_hash"],
        "counts": counts,
    }
    widths = {
        name: max(chunk[f"variants/{name}"].dtype.itemsize for chunk in chunks)
        for name in TEXT_COLUMNS
    }
    with formats.create(
        args.out,
        "minimal",
        attributes,
        inputs={"null": null.digest, "bases": bases.digest},
        parameters=chunks[0].parameters,
        code=args.code,
    ) as writer:
        writer.add("A", A[None])
        writer.add("Sigma", A / n)
        writer.add("bases", bases["bases"][...])
        writer.add("eigenvalues", bases["eigenvalues"][...])
        writer.add("coordinates", bases["coordinates"][...])
        add_geometry(writer, geometry)
        columns = reserve_variants(writer, m, r, coding, widths)
        starts = range(0, m, rows)
        for first in cli.progress(starts, len(starts), "block"):
            copy_variants(chunks, source, row, columns, first, min(first + rows, m))
        repeated, example = count_repeated(columns)
    warnings: list[str] = []
    if repeated:
        cli.warn(
            f"{repeated} of {m} variants repeat another of the same position and alleles (the "
            f"first is {example}); heritability leaves out all their copies: give each once",
            warnings,
        )
    cli.report(f"{m} variants of {totals['read']} read, {len(chunks)} chunks")
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
        "minor_allele_frequency": chunks[0].parameters["minor_allele_frequency"],
        "sample_hash": attributes["sample_hash"],
        "n_repeated": repeated,
        "counts": counts,
        **totals,
    }
    cli.write_summary(args.summary, "minimal_dataset", numbers, warnings)


if __name__ == "__main__":
    cli.run(main)
