#!/usr/bin/env python3
"""Scan every voxel of a range of variants: counts, lead voxels, image-wide and omnibus p."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rvga import cli, formats, scan, significance, tables
from rvga.dataset import Components, MinimalDataset
from rvga.errors import InputError

STAGE = "scan_voxels"


def parser():
    """Return the option parser."""
    result = cli.make_parser(__doc__)
    add = result.add_argument
    add("--dataset", type=Path, required=True, help="minimal dataset")
    add("--tail", type=Path, required=True, help="image-wide tail of the same dataset")
    add("--part", type=cli.positive_integer, default=1, help="which part of the variants, from 1")
    add("--parts", type=cli.positive_integer, default=1, help="number of parts")
    add("--block-variants", type=cli.positive_integer, default=4096, help="variants at a time")
    add("--out", type=Path, required=True, help="table of variants to write (.tsv.gz)")
    add("--out-voxels", type=Path, required=True, help="table of voxels to write (.tsv)")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    if args.part > args.parts:
        raise InputError(f"--part {args.part} is beyond --parts {args.parts}; parts count from 1")
    warnings: list[str] = []
    # Tiles run in parallel on one BLAS thread each, so the number of threads changes nothing.
    with (
        cli.threads(1),
        MinimalDataset.open(args.dataset) as dataset,
        formats.open_file(args.tail, "tail") as stored,
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
        testable = nu - r + 1 > 0
        if not testable:
            cli.warn(
                f"no omnibus test: {r} components need more than {nu} degrees of freedom", warnings
            )
        critical_t = significance.normal_to_t(tail.critical_z, nu)
        running = scan.Scan(scan.prepare(dataset.bases, dataset.A, nu, critical_t), args.threads)
        n_missing = n_significant = n_pairs = 0
        largest = 0.0
        with tables.table_writer(args.out, "variants") as writer:
            blocks = dataset.blocks(size, first, stop)
            for start, end, components in cli.progress(
                blocks, -(-(stop - first) // size), "block of variants"
            ):
                found = running.add(components.beta, components.a, components.A_index)
                missing = found.lead_voxel < 0
                z_normal = significance.t_to_normal(found.z, nu)
                columns = {
                    "n_significant_voxels": with_missing(found.n_significant_voxels, missing),
                    "lead_voxel": with_missing(found.lead_voxel, missing),
                    "z": found.z,
                    "neg_log_10_p_value": significance.neg_log_10_p_t(found.z, nu),
                    "neg_log_10_p_image_wide": significance.image_wide_neg_log_10_p(z_normal, tail),
                    "neg_log_10_p_omnibus": omnibus(components, dataset.A, nu)
                    if testable
                    else np.nan,
                }
                writer.add(dataset.variant_block(start, end).assign(**columns))
                n_missing += int(missing.sum())
                n_significant += int((found.n_significant_voxels > 0).sum())
                n_pairs += int(found.n_significant_voxels.sum())
                largest = max(largest, float(np.nanmax(np.abs(found.z), initial=0.0)))
            totals = running.totals()
            tables.write_table(voxel_frame(dataset.coordinates, totals), args.out_voxels, "voxels")
    numbers = {
        "part": args.part,
        "parts": args.parts,
        "n_variants": stop - first,
        "n_missing": n_missing,
        "n_significant_variants": n_significant,
        "n_significant_pairs": n_pairs,
        "n_significant_voxels": int((totals.n_significant_variants > 0).sum()),
        "n_voxels_without_variance": int(np.isnan(totals.largest_abs_z).sum()),
        "largest_abs_z": largest,
        "critical_t": critical_t,
        "N": dataset.N,
    }
    cli.report(f"{n_significant} of {stop - first} variants are significant somewhere")
    cli.write_summary(args.summary, STAGE, numbers, warnings)


def bounds(m: int, part: int, parts: int) -> tuple[int, int]:
    """Return the first variant of a part (from 1) and the one after its last."""
    return m * (part - 1) // parts, m * part // parts


def with_missing(values: np.ndarray, missing: np.ndarray) -> pd.array:
    """Return integers with missing ones."""
    return pd.arrays.IntegerArray(values.astype(np.int64), missing)


def omnibus(components: Components, A: np.ndarray, nu: float) -> np.ndarray:
    """Return −log10 p of the omnibus test by variant, each with its own A."""
    result = np.full(len(components.a), np.nan)
    for index in np.unique(components.A_index):
        rows = components.A_index == index
        result[rows] = significance.omnibus_neg_log_10_p(
            components.beta[rows], components.a[rows], A[index], nu
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
