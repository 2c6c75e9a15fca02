#!/usr/bin/env python3
"""Divide the variants of one genotype file into chunks for the component GWAS."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rvga import cli
from rvga.chromosomes import normalise_chromosome
from rvga.errors import InputError
from rvga.genotypes import open_genotypes
from rvga.tables import write_table

# A file with more runs of chromosomes than this is not sorted; its chunks are mixed.
MOST_RUNS = 100


def parser() -> argparse.ArgumentParser:
    """Return the stage's command line."""
    arguments = cli.make_parser(__doc__)
    arguments.add_argument("--genotypes", type=Path, required=True, help=".pgen or .bed")
    arguments.add_argument("--variants", type=Path, help=".pvar or .bim; default: the same stem")
    arguments.add_argument("--samples", type=Path, help=".psam or .fam; default: the same stem")
    arguments.add_argument("--chromosome", default="all", help="chromosome to plan, or 'all'")
    arguments.add_argument(
        "--chunk-variants", type=cli.positive_integer, default=20_000, help="variants a chunk"
    )
    arguments.add_argument("--out", type=Path, required=True, help="table of chunks")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    with cli.threads(args.threads):
        # People are only counted here, so the longer id serves every study.
        with open_genotypes(
            args.genotypes, args.variants, args.samples, subject_id="FID_IID"
        ) as genotypes:
            chromosome = genotypes.variants["chromosome"].to_numpy(dtype=object)
        warnings: list[str] = []
        ranges = _runs(chromosome)
        n_left_out = 0
        if args.chromosome.lower() != "all":
            wanted = normalise_chromosome(args.chromosome, "--chromosome")
            ranges = [run for run in ranges if run[0] == wanted]
            n_left_out = len(chromosome) - sum(stop - first for _, first, stop in ranges)
            if not ranges:
                raise InputError(
                    f"{args.genotypes}: holds no variant of chromosome {wanted}; correct the "
                    "'chromosome' column of the samplesheet, or say 'all'"
                )
            if n_left_out:
                cli.warn(
                    f"{args.genotypes.name}: {n_left_out} variants are not on chromosome {wanted} "
                    "and are left out",
                    warnings,
                )
        elif len(ranges) > MOST_RUNS:
            ranges = [("mixed", 0, len(chromosome))]
        chunks = [
            (name, start, min(args.chunk_variants, stop - start))
            for name, first, stop in ranges
            for start in range(first, stop, args.chunk_variants)
        ]
        frame = pd.DataFrame(chunks, columns=["chromosome", "first_variant", "n_variants"])
        frame.insert(0, "chunk", np.arange(1, len(frame) + 1))
        write_table(frame, args.out, "chunks")
        cli.report(f"{len(frame)} chunks of {int(frame['n_variants'].sum())} variants")
        numbers = {
            "n_chunks": len(frame),
            "n_variants": int(frame["n_variants"].sum()),
            "n_left_out": n_left_out,
        }
        cli.write_summary(args.summary, "plan_chunks", numbers, warnings)


def _runs(chromosome: np.ndarray) -> list[tuple[str, int, int]]:
    """Return (chromosome, first, stop) of each run of equal chromosomes."""
    change = np.flatnonzero(chromosome[1:] != chromosome[:-1]) + 1
    bounds = [0, *change.tolist(), len(chromosome)]
    return [(str(chromosome[first]), first, stop) for first, stop in itertools.pairwise(bounds)]


if __name__ == "__main__":
    cli.run(main)
