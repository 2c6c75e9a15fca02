#!/usr/bin/env python3
"""Convert a BGEN, VCF or BCF file to a PLINK 2 set."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rvga import cli
from rvga.chromosomes import normalise_chromosome
from rvga.conversion import ENDS, LEAST_MEMORY, Conversion, convert, plink2_version
from rvga.genotype_samples import UNKNOWN, people_of
from rvga.genotype_sources import FORMATS, Source, read_source, source_format, source_stem

# Python beside plink2, whose workspace is the rest of the task's memory.
LIBRARY_MEMORY = 256


def parser() -> argparse.ArgumentParser:
    """Return the stage's command line."""
    arguments = cli.make_parser(__doc__)
    add = arguments.add_argument
    add("--genotypes", type=Path, required=True, help=".bgen, .vcf, .vcf.gz or .bcf")
    add("--format", choices=FORMATS, help="default: by the name's end")
    add("--samples", type=Path, help=".sample, .psam or .fam; ids where the file has none, and sex")
    add("--chromosome", default="all", help="chromosome to take, or 'all'")
    add("--genome-build", choices=("", "GRCh37", "GRCh38"), default="", help="build of positions")
    add("--sex-not-needed", action="store_true", help="take X and Y without anybody's sex")
    add("--memory", type=cli.positive_integer, default=2048, help="MiB for the stage")
    add("--out", type=Path, required=True, help="folder of the .pgen, .pvar and .psam files")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    warnings: list[str] = []
    chromosome = "all"
    if args.chromosome.lower() != "all":
        chromosome = normalise_chromosome(args.chromosome, "--chromosome")
    plink2_version()
    source = read_source(args.genotypes, source_format(args.genotypes, args.format or ""))
    people = people_of(source, args.samples)
    memory = max(args.memory - LIBRARY_MEMORY, LEAST_MEMORY)
    cli.state_memory(f"plink2 and {len(people)} people", (memory + LIBRARY_MEMORY) << 20)
    stem = args.out / source_stem(args.genotypes)
    done = convert(
        source,
        people,
        stem,
        chromosome=chromosome,
        genome_build=args.genome_build,
        need_sex=not args.sex_not_needed,
        threads=args.threads,
        memory=memory,
    )
    n_unknown = 0 if args.sex_not_needed else people.sex.count(UNKNOWN)
    _warn(source, done, chromosome, n_unknown, warnings)
    cli.report(
        f"{done.n_variants} variants of {done.n_samples} people ({done.field}) in "
        f"{', '.join(stem.name + end for end in ENDS)}"
    )
    numbers = {"file": args.genotypes.name, "format": source.format, **asdict(done)}
    cli.write_summary(args.summary, "convert_genotypes", numbers, warnings)


def _warn(
    source: Source, done: Conversion, chromosome: str, n_unknown: int, warnings: list[str]
) -> None:
    """Say what was left out or read with less than the file holds."""
    name = source.path.name
    if done.n_left_out:
        where = "on chromosome 1-22, X, Y or MT" if chromosome == "all" else f"on {chromosome}"
        cli.warn(f"{name}: {done.n_left_out} variants are not {where} and are left out", warnings)
    if done.n_multiallelic_dropped:
        cli.warn(
            f"{name}: {done.n_multiallelic_dropped} variants of several ALT alleles are left out; "
            "split them beforehand to keep them",
            warnings,
        )
    if done.field == "GT" and source.fields & {"GP", "HDS"}:
        cli.warn(
            f"{name}: has no dosages (DS), so that calls (GT) are used although there are "
            f"{' and '.join(sorted(source.fields & {'GP', 'HDS'}))}",
            warnings,
        )
    if done.n_need_sex and n_unknown:
        cli.warn(f"{name}: {n_unknown} people of unknown sex have variants on X or Y", warnings)


if __name__ == "__main__":
    cli.run(main)
