#!/usr/bin/env python3
"""Scan every voxel of a range of variants: counts, lead voxels, image-wide and omnibus p."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rvga import cli, formats, scan, significance, tables
from rvga.dataset import MinimalDataset
from rvga.errors import InputError
from rvga.parallel import ordered_map
from rvga.reconstruction import beta_from_z, standard_error_from_beta

STAGE = "scan_voxels"


def parser():
    """Return the option parser."""
    result = cli.make_parser(__doc__)
    add = result.add_argument
    add("--dataset", type=Path, required=True, help="minimal dataset")
    add("--tail", type=Path, required=True, help="image-wide tail of the same dataset")
    add("--part", type=cli.positive_integer, default=1, help="which part of the variants, from 1")
    add("--parts", type=cli.positive_integer, default=1, help="number of parts")
    add("--block-variants", type=cli.positive_integer, default=1024, help="variants at a time")
    add("--out", type=Path, required=True, help="table of variants to write (.tsv.gz)")
    add("--out-voxels", type=Path, required=True, help="table of voxels to write (.tsv)")
    add("--out-significant", type=Path, help="table of the significant variants (.tsv)")
    add("--out-pairs", type=Path, help="table of every significant variant and voxel (.tsv.gz)")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    if args.part > args.parts:
        raise InputError(f"--part {args.part} is beyond --parts {args.parts}; parts count from 1")
    warnings: list[str] = []
    # Blocks run in parallel on one BLAS thread each, so the number of threads changes nothing.
    with (
        cli.threads(1),
        MinimalDataset.open(args.dataset) as dataset,
        formats.open_file(args.tail, "tail") as stored,
        contextlib.ExitStack() as stack,
    ):
        stored.require_made_from("dataset", dataset)
        tail = significance.Tail.of(stored)
        first, stop = bounds(dataset.m, args.part, args.parts)
        nu, r = dataset.nu, dataset.r
        size = min(args.block_variants, max(stop - first, 1))
        cli.state_memory(
            f"{dataset.N} voxels x {r} components, {size} variants at a time",
            scan.memory(dataset.N, r, len(dataset.A), size, args.threads),
        )
        if nu - r + 1 <= 0:
            cli.warn(
                f"no omnibus test: {r} components need more than {nu} degrees of freedom", warnings
            )
        critical_t = significance.normal_to_t(tail.critical_z, nu)
        scanner = scan.prepare(dataset.bases, dataset.A, nu, critical_t)
        work = Work(scanner, tail, args.out_pairs is not None)
        totals = scan.Totals(scanner)
        numbers = dict.fromkeys(COUNTS, 0)
        largest = 0.0
        writer = stack.enter_context(tables.table_writer(args.out, "variants"))
        significant = pairs = None
        if args.out_significant is not None:
            significant = stack.enter_context(
                tables.table_writer(args.out_significant, "significant")
            )
        if args.out_pairs is not None:
            pairs = stack.enter_context(tables.table_writer(args.out_pairs, "pairs"))
        done = ordered_map(work, read_blocks(dataset, size, first, stop), args.threads)
        for block in cli.progress(done, -(-(stop - first) // size), "block of variants"):
            totals.add(block.results)
            writer.add_lines(block.lines)
            if significant is not None:
                significant.add(block.significant)
            if pairs is not None:
                pairs.add_lines(block.pair_lines)
            for name in COUNTS:
                numbers[name] += block.counts[name]
            largest = max(largest, float(np.nanmax(np.abs(block.results.z), initial=0.0)))
        of_voxels = totals.of_voxels()
        tables.write_table(voxel_frame(dataset.coordinates, of_voxels), args.out_voxels, "voxels")
    numbers |= {
        "part": args.part,
        "parts": args.parts,
        "n_variants": stop - first,
        "n_significant_voxels": int((of_voxels.n_significant_variants > 0).sum()),
        "n_voxels_without_variance": int(np.isnan(of_voxels.largest_abs_z).sum()),
        "largest_abs_z": largest,
        "critical_t": critical_t,
        "N": dataset.N,
    }
    cli.report(
        f"{numbers['n_significant_variants']} of {stop - first} variants are significant somewhere"
    )
    cli.write_summary(args.summary, STAGE, numbers, warnings)


COUNTS = (
    "n_missing",
    "n_significant_variants",
    "n_significant_pairs",
    "n_beyond_image_wide",
    "n_beyond_published",
)


@dataclass(frozen=True)
class Block:
    """A block that was scanned: results, lines of the tables, counts by name of ``COUNTS``."""

    results: scan.BlockResults
    lines: bytes
    significant: pd.DataFrame
    pair_lines: bytes
    counts: dict[str, int]


def read_blocks(dataset: MinimalDataset, size: int, first: int, stop: int) -> Iterator[tuple]:
    """Yield first row, components and variants of consecutive blocks."""
    for start, end, components in dataset.blocks(size, first, stop):
        yield start, components, dataset.variant_block(start, end)


class Work:
    """What is done with a block, in any thread: scan, p values, lines of text."""

    def __init__(self, scanner: scan.Scanner, tail: significance.Tail, hits: bool):
        self._scanner = scanner
        self._tail = tail
        self._hits = hits

    def __call__(self, block: tuple) -> Block:
        """Return the results of ``(first row, components, variants)``."""
        start, components, variants = block
        scanner, tail = self._scanner, self._tail
        nu = scanner.nu
        found = scan.scan_block(
            scanner, components.beta, components.a, components.A_index, self._hits
        )
        missing = found.lead_voxel < 0
        p = significance.neg_log_10_p_t(found.z, nu)
        z_normal = significance.normal_from_neg_log_10_p(p)
        columns = {
            "n_significant_voxels": with_missing(found.n_significant_voxels, missing),
            "lead_voxel": with_missing(found.lead_voxel, missing),
            "z": found.z,
            "neg_log_10_p_value": p,
            "neg_log_10_p_image_wide": significance.image_wide_neg_log_10_p(z_normal, tail),
            "neg_log_10_p_omnibus": omnibus(found.r_squared, components.A_index, scanner),
        }
        counts = {
            "n_missing": int(missing.sum()),
            "n_significant_variants": int((found.n_significant_voxels > 0).sum()),
            "n_significant_pairs": int(found.n_significant_voxels.sum()),
            "n_beyond_image_wide": int((z_normal > tail.critical_z_image_wide).sum()),
            "n_beyond_published": int((z_normal > tail.critical_z_published).sum()),
        }
        pair_lines = b""
        if found.hits is not None:
            pair_lines = tables.lines_of(
                pair_frame(found.hits, variants, components, scanner, tail)
            )
        frame = variants.assign(**columns)
        beyond = np.flatnonzero(found.n_significant_voxels > 0)
        chosen = frame.iloc[beyond].assign(row=start + beyond)[list(tables.TABLES["significant"])]
        return Block(found, tables.lines_of(frame), chosen, pair_lines, counts)


def pair_frame(
    hits: scan.Hits, variants: pd.DataFrame, components, scanner: scan.Scanner, tail
) -> pd.DataFrame:
    """Return the table of every significant pair of a block."""
    a = components.a[hits.row]
    variance = scanner.deviation[components.A_index[hits.row], hits.voxel] ** 2
    beta = beta_from_z(hits.z[:, None], a, variance[:, None], scanner.nu)
    error = standard_error_from_beta(beta, a, variance[:, None], scanner.nu)
    z_normal = significance.t_to_normal(hits.z, scanner.nu)
    return (
        variants.iloc[hits.row]
        .reset_index(drop=True)
        .assign(
            voxel=hits.voxel,
            beta=beta[:, 0],
            standard_error=error[:, 0],
            z=hits.z,
            neg_log_10_p_value=significance.neg_log_10_p_t(hits.z, scanner.nu),
            neg_log_10_p_image_wide=significance.image_wide_neg_log_10_p(z_normal, tail),
        )
    )


def bounds(m: int, part: int, parts: int) -> tuple[int, int]:
    """Return the first variant of a part (from 1) and the one after its last."""
    return m * (part - 1) // parts, m * part // parts


def with_missing(values: np.ndarray, missing: np.ndarray) -> pd.array:
    """Return integers with missing ones."""
    return pd.arrays.IntegerArray(values.astype(np.int64), missing)


def omnibus(r_squared: np.ndarray, A_index: np.ndarray, scanner: scan.Scanner) -> np.ndarray:
    """Return −log10 p of the omnibus test by variant, NaN without the degrees of freedom."""
    result = np.full(len(r_squared), np.nan)
    for index, rank in enumerate(scanner.rank):
        rows = A_index == index
        if scanner.nu - rank + 1 > 0:
            result[rows] = significance.neg_log_10_p_f(
                r_squared[rows], int(rank), scanner.nu - int(rank) + 1
            )
    return result


def voxel_frame(coordinates: np.ndarray, totals: scan.VoxelTotals) -> pd.DataFrame:
    """Return the table of voxels; absent axes are missing."""
    N, d = coordinates.shape
    table: dict[str, np.ndarray] = {"voxel": np.arange(N)}
    for axis, name in enumerate(("x_mm", "y_mm", "z_mm")):
        table[name] = coordinates[:, axis] if axis < d else np.full(N, np.nan)
    table["n_significant_variants"] = totals.n_significant_variants
    table["largest_abs_z"] = totals.largest_abs_z
    return pd.DataFrame(table)


if __name__ == "__main__":
    cli.run(main)
