#!/usr/bin/env python3
"""Associate a chunk of variants with every component by least squares."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rvga import cli, formats
from rvga.chromosomes import RANK
from rvga.coding import encode_z
from rvga.component_gwas import (
    COLLINEAR,
    ESTIMATED,
    PEOPLE_PER_PRODUCT,
    REASONS,
    BlockResult,
    associate,
    null_model,
)
from rvga.errors import InputError
from rvga.genotypes import Genotypes, open_genotypes
from rvga.minimal import encoded_text, reserve_variants, total_counts

# A dataset is meant to be shared: with fewer carriers, beta tells of single people.
LEAST_MINOR_ALLELE_COUNT = 5
# Python, its libraries and the compiler of the kernels, measured.
LIBRARY_BYTES = 280 << 20


def parser() -> argparse.ArgumentParser:
    """Return the stage's command line."""
    arguments = cli.make_parser(__doc__)
    add = arguments.add_argument
    add("--genotypes", type=Path, required=True, help=".pgen or .bed")
    add("--variants", type=Path, help=".pvar or .bim; default: the same stem")
    add("--samples", type=Path, help=".psam or .fam; default: the same stem")
    add("--subject-id", choices=("IID", "FID_IID"), default="IID", help="what a subject is called")
    add("--first-variant", type=int, default=0, help="first variant, from 0")
    add("--n-variants", type=cli.positive_integer, help="variants of the chunk; default: the rest")
    add("--null", type=Path, required=True, help="null model of this study")
    add(
        "--minor-allele-frequency",
        type=cli.number_between(0, 0.5),
        default=0.0,
        help="leave out variants below",
    )
    add(
        "--minor-allele-count",
        type=float,
        default=20,
        help=f"leave out variants below; at least {LEAST_MINOR_ALLELE_COUNT}",
    )
    add("--dataset-coding", choices=("int16", "float32"), default="int16", help="coding of z")
    add("--genome-build", choices=("", "GRCh37", "GRCh38"), default="", help="build of positions")
    add("--block-variants", type=cli.positive_integer, default=512, help="variants a product")
    add("--out", type=Path, required=True, help="minimal dataset of the chunk")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    if not args.minor_allele_count >= LEAST_MINOR_ALLELE_COUNT:
        raise InputError(
            f"--minor-allele-count {args.minor_allele_count:g} is below "
            f"{LEAST_MINOR_ALLELE_COUNT}: rarer variants would show single people's images"
        )
    # Every product is computed by one thread of BLAS; the threads share out the blocks.
    with (
        cli.threads(1),
        formats.open_file(args.null, "null") as null_file,
        open_genotypes(
            args.genotypes,
            args.variants,
            args.samples,
            subject_id=args.subject_id,
            variant_range=_asked(args),
        ) as genotypes,
    ):
        _run(args, null_file, genotypes)


def _run(args: argparse.Namespace, null_file: formats.Envelope, genotypes: Genotypes) -> None:
    first, stop = _range(args, genotypes)
    rows = genotypes.subject_index(null_file.array("subject"))
    try:
        null = null_model(null_file["Q"][...], null_file["residual_ldrs"][...])
    except ValueError as error:
        raise InputError(f"{args.null}: {error}") from error
    item = 4 if genotypes.has_dosages else 1
    block = args.block_variants
    cli.state_memory(
        f"{stop - first} variants x {null.n} people x {null.r} components",
        LIBRARY_BYTES
        # Blocks read ahead, being computed and waiting; products' workspace; null model; results.
        + (args.threads + 3) * block * null.n * item
        + args.threads * block * (4 * min(null.n, PEOPLE_PER_PRODUCT) + 24 * (null.r + null.p))
        + null.n * (20 * null.r + 20 * null.p)
        + (stop - first) * (4 * null.r + 200),
    )
    blocks = associate(
        genotypes.raw_blocks(first, stop, block, rows),
        null,
        minor_allele_frequency=args.minor_allele_frequency,
        minor_allele_count=args.minor_allele_count,
        block_variants=block,
        threads=args.threads,
    )
    n_blocks = -(-(stop - first) // block)
    chunk = _Chunk(args.dataset_coding, null.r)
    for result in cli.progress(blocks, n_blocks, "block"):
        chunk.append(result)
    chromosome = genotypes.variants["chromosome"].loc[first : stop - 1]
    counts = chunk.counts(chromosome.to_numpy(dtype=object))
    _write(args, null_file, genotypes, chunk, counts, first)
    totals = total_counts(counts)
    cli.report(
        f"{totals['read']} variants read, {totals['written']} written, dropped: "
        f"{totals['dropped'] or 'none'}, without estimate: {totals['missing'] or 'none'}"
    )
    numbers = {"n": null.n, "p": null.p, "r": null.r, "counts": counts, **totals}
    cli.write_summary(args.summary, "component_gwas", numbers)


def _asked(args: argparse.Namespace) -> tuple[int, int] | None:
    """Return the range of variants that was asked for, or None for the whole file."""
    if args.n_variants is None:
        return None
    return max(0, args.first_variant), args.first_variant + args.n_variants


def _range(args: argparse.Namespace, genotypes: Genotypes) -> tuple[int, int]:
    m = genotypes.n_variants
    stop = m if args.n_variants is None else args.first_variant + args.n_variants
    if not 0 <= args.first_variant < stop <= m:
        raise InputError(
            f"--first-variant {args.first_variant} and --n-variants {args.n_variants} do not lie "
            f"within the {m} variants of {args.genotypes}; plan the chunks again"
        )
    return args.first_variant, stop


class _Chunk:
    """The rows to write, coded as they come."""

    def __init__(self, coding: str, r: int):
        self.coding = coding
        self.status: list[np.ndarray] = []
        dtype = np.int16 if coding == "int16" else np.float32
        self.z = [np.empty((0, r), dtype=dtype)]
        self.columns: dict[str, list[np.ndarray]] = {
            "scale": [np.empty(0)],
            "a": [np.empty(0)],
            "variants/effect_allele_frequency": [np.empty(0)],
            "variants/missing_rate": [np.empty(0)],
        }

    def append(self, result: BlockResult) -> None:
        """Code and keep the rows of a block that are written."""
        self.status.append(result.status)
        keep = (result.status == ESTIMATED) | (result.status == COLLINEAR)
        codes, scale = encode_z(result.z[keep], self.coding)
        self.z.append(codes)
        for name, values in (
            ("scale", scale),
            ("a", result.a[keep]),
            ("variants/effect_allele_frequency", result.frequency[keep]),
            ("variants/missing_rate", result.missing_rate[keep]),
        ):
            self.columns[name].append(values)

    def kept(self) -> np.ndarray:
        """Return which variants of the chunk are written, as indexes."""
        status = np.concatenate(self.status)
        return np.flatnonzero((status == ESTIMATED) | (status == COLLINEAR))

    def counts(self, chromosome: np.ndarray) -> dict[str, dict]:
        """Return, by chromosome, how many were read, written, dropped and without estimate."""
        status = np.concatenate(self.status)
        table = {}
        for name in sorted(set(chromosome), key=RANK.__getitem__):
            here = status[chromosome == name]
            numbers = {code: int((here == code).sum()) for code in REASONS}
            missing = numbers.pop(COLLINEAR)
            dropped = {REASONS[code]: number for code, number in numbers.items() if number}
            table[name] = {
                "read": len(here),
                "written": len(here) - sum(dropped.values()),
                "dropped": dropped,
                "missing": {REASONS[COLLINEAR]: missing} if missing else {},
            }
        return table


def _write(
    args: argparse.Namespace,
    null_file: formats.Envelope,
    genotypes: Genotypes,
    chunk: _Chunk,
    counts: dict[str, dict],
    first: int,
) -> None:
    variants = genotypes.variants.loc[first + chunk.kept()]
    n, p = null_file["Q"].shape
    A = null_file["A"][...]
    m, r = len(variants), A.shape[0]
    attributes = {
        "n": n,
        "p": p,
        "coding": args.dataset_coding,
        "n_eff": 0.0,
        "geometry_type": "",
        "genome_build": args.genome_build,
        "sample_hash": null_file.attributes["sample_hash"],
        "minor_allele_count": args.minor_allele_count,
        "counts": counts,
    }
    text = {
        name: encoded_text(variants[name])
        for name in ("variant_id", "effect_allele", "other_allele")
    }
    widths = {name: values.dtype.itemsize for name, values in text.items()}
    with formats.create(
        args.out,
        "minimal",
        attributes,
        inputs={"null": null_file.digest},
        parameters={"minor_allele_frequency": args.minor_allele_frequency},
        code=args.code,
    ) as writer:
        writer.add("A", A[None])
        writer.add("Sigma", A / n)
        columns = reserve_variants(writer, m, r, args.dataset_coding, widths)
        if m:
            columns["z"][...] = np.concatenate(chunk.z)
            for name, values in chunk.columns.items():
                columns[name][...] = np.concatenate(values)
            columns["A_index"][...] = 0
            columns["variants/chromosome"][...] = variants["chromosome"].map(RANK).to_numpy()
            columns["variants/base_pair_location"][...] = variants["base_pair_location"].to_numpy()
            for name, values in text.items():
                columns[f"variants/{name}"][...] = values


if __name__ == "__main__":
    cli.run(main)
