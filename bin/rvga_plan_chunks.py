#!/usr/bin/env python3
"""Divide the variants of genotype files into chunks for the component GWAS."""

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
from rvga.genotypes import open_genotypes, read_variants
from rvga.tables import write_table

# A file with more runs of chromosomes than this is not sorted; its chunks are mixed.
MOST_RUNS = 100


def parser() -> argparse.ArgumentParser:
    """Return the stage's command line."""
    arguments = cli.make_parser(__doc__)
    add = arguments.add_argument
    add(
        "--genotypes", type=Path, nargs="*", default=[],
        help=".pgen or .bed files, checked against the others; without them --variants is due",
    )  # fmt: skip
    add("--variants", type=Path, nargs="*", default=[], help=".pvar or .bim; default: same stem")
    add("--samples", type=Path, nargs="*", default=[], help=".psam or .fam; default: same stem")
    add("--chromosome", nargs="*", default=[], help="each file's chromosome to plan, or 'all'")
    add("--file", nargs="*", default=[], help="what the table calls each file; default: 1, 2, …")
    arguments.add_argument(
        "--chunk-variants", type=cli.positive_integer, default=20_000, help="variants a chunk"
    )
    arguments.add_argument("--out", type=Path, required=True, help="table of chunks")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    warnings: list[str] = []
    if not args.genotypes and not args.variants:
        raise InputError("no file to plan: give --genotypes, or --variants without them")
    n = len(args.genotypes or args.variants)
    for name in ("variants", "samples", "chromosome", "file"):
        given = getattr(args, name)
        if given and len(given) != n:
            raise InputError(f"--{name} names {len(given)} for {n} genotype files; name one each")
    variants, samples = args.variants or [None] * n, args.samples or [None] * n
    chromosomes = args.chromosome or ["all"] * n
    names = args.file or [str(number) for number in range(1, n + 1)]
    frames, n_left_out = [], 0
    with cli.threads(args.threads):
        for name, asked, *paths in zip(
            names, chromosomes, args.genotypes or [None] * n, variants, samples, strict=True
        ):
            ranges, left_out = _ranges(*paths, asked, warnings)
            n_left_out += left_out
            chunks = [
                (label, start, min(args.chunk_variants, stop - start))
                for label, first, stop in ranges
                for start in range(first, stop, args.chunk_variants)
            ]
            frame = pd.DataFrame(chunks, columns=["chromosome", "first_variant", "n_variants"])
            frame.insert(0, "chunk", np.arange(1, len(frame) + 1))
            frame.insert(0, "file", name)
            frames.append(frame)
    table = pd.concat(frames, ignore_index=True)
    write_table(table, args.out, "chunks")
    cli.report(f"{len(table)} chunks of {int(table['n_variants'].sum())} variants")
    numbers = {
        "n_files": n,
        "n_chunks": len(table),
        "n_variants": int(table["n_variants"].sum()),
        "n_left_out": n_left_out,
    }
    cli.write_summary(args.summary, "plan_chunks", numbers, warnings)


def _ranges(
    main_file: Path | None,
    variants: Path | None,
    samples: Path | None,
    asked: str,
    warnings: list[str],
) -> tuple[list[tuple[str, int, int]], int]:
    """Return (chromosome, first, stop) of what is to be done in a file, and how many are not."""
    # People are only counted here, so the longer id serves every study.
    if main_file is None:
        main_file = variants
        chromosome = read_variants(variants)["chromosome"].to_numpy(dtype=object)
    else:
        with open_genotypes(main_file, variants, samples, subject_id="FID_IID") as genotypes:
            chromosome = genotypes.variants["chromosome"].to_numpy(dtype=object)
    ranges = _runs(chromosome)
    if asked.lower() == "all":
        return ([("mixed", 0, len(chromosome))] if len(ranges) > MOST_RUNS else ranges), 0
    wanted = normalise_chromosome(asked, "--chromosome")
    ranges = [run for run in ranges if run[0] == wanted]
    n_left_out = len(chromosome) - sum(stop - first for _, first, stop in ranges)
    if not ranges:
        raise InputError(
            f"{main_file}: holds no variant of chromosome {wanted}; correct the "
            "'chromosome' column of the samplesheet, or say 'all'"
        )
    if n_left_out:
        cli.warn(
            f"{main_file.name}: {n_left_out} variants are not on chromosome {wanted} "
            "and are left out",
            warnings,
        )
    return ranges, n_left_out


def _runs(chromosome: np.ndarray) -> list[tuple[str, int, int]]:
    """Return (chromosome, first, stop) of each run of equal chromosomes."""
    change = np.flatnonzero(chromosome[1:] != chromosome[:-1]) + 1
    bounds = [0, *change.tolist(), len(chromosome)]
    return [(str(chromosome[first]), first, stop) for first, stop in itertools.pairwise(bounds)]


if __name__ == "__main__":
    cli.run(main)
