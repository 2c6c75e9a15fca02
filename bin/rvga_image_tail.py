#!/usr/bin/env python3
"""Tabulate the image-wide p of the largest statistic over the voxels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rvga import cli, formats, significance
from rvga.dataset import MinimalDataset
from rvga.errors import InputError

STAGE = "image_tail"
LARGE_RELATIVE_ERROR = 0.02


def parser():
    """Return the option parser."""
    result = cli.make_parser(__doc__)
    add = result.add_argument
    add("--dataset", type=Path, required=True, help="minimal dataset")
    add("--significance", choices=("image_wide", "published"), default="image_wide", help="rule")
    add(
        "--significance-level",
        type=cli.number_between(0, 1, open_low=True, open_high=True),
        default=5e-8,
        help="study-wide level",
    )
    add("--draws", type=cli.positive_integer, default=20_000, help="Monte-Carlo draws")
    add("--seed", type=int, default=1, help="seed of the draws")
    add("--out", type=Path, required=True, help="table to write (HDF5)")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    if args.draws < 100:
        raise InputError(f"--draws {args.draws} is too few for a tail; give at least 100")
    if args.seed < 0:
        raise InputError(f"--seed {args.seed} is negative; give a seed of 0 or more")
    warnings: list[str] = []
    level = args.significance_level
    # Batches run in parallel on one BLAS thread each, so the number of threads changes nothing.
    with cli.threads(1), MinimalDataset.open(args.dataset) as dataset:
        n_eff = float(dataset.attributes["n_eff"])
        if not n_eff >= 1:
            raise InputError(
                f"{args.dataset}: n_eff is {n_eff:g}, at least 1 is due: make the dataset again"
            )
        cli.state_memory(
            f"{dataset.N} voxels x {dataset.r} components",
            significance.tail_memory(dataset.N, dataset.r, args.threads),
        )
        # With offsets by chromosome one table serves all variants, from their mean covariance.
        share = dataset.variants_by_A() / dataset.m if dataset.m else np.eye(len(dataset.A))[0]
        try:
            tail = significance.image_wide_tail(
                dataset.bases,
                np.tensordot(share, dataset.A, axes=1) / dataset.n,
                n_eff=n_eff,
                significance=args.significance,
                significance_level=level,
                draws=args.draws,
                seed=args.seed,
                threads=args.threads,
                progress=cli.progress,
            )
        except ValueError as error:
            raise InputError(f"{args.dataset}: {error}: make the dataset again") from error
        with formats.create(
            args.out,
            "tail",
            {
                "significance": tail.significance,
                "significance_level": tail.significance_level,
                "critical_z": tail.critical_z,
                "critical_z_image_wide": tail.critical_z_image_wide,
                "critical_z_published": tail.critical_z_published,
                "n_eff": tail.n_eff,
            },
            inputs={"dataset": dataset.digest},
            parameters={
                "significance": args.significance,
                "significance_level": level,
                "draws": args.draws,
                "seed": args.seed,
            },
            code=args.code,
        ) as writer:
            writer.add("threshold", tail.threshold)
            writer.add("neg_log_10_p", tail.neg_log_10_p)
            writer.add("relative_error", tail.relative_error)
        error = tail.critical_relative_error
        if error > LARGE_RELATIVE_ERROR:
            cli.warn(
                f"the image-wide p at the critical value has a relative error of {error:.1%}; "
                "raise the number of draws",
                warnings,
            )
        tests = 10.0 ** float(
            significance.neg_log_10_p_normal(tail.critical_z_image_wide) + np.log10(level)
        )
        of_published = significance.image_wide_neg_log_10_p(tail.critical_z_published, tail)
        numbers = {
            "significance": tail.significance,
            "significance_level": level,
            "critical_z": tail.critical_z,
            "critical_t": significance.normal_to_t(tail.critical_z, dataset.nu),
            "critical_neg_log_10_p_value": significance.neg_log_10_p_normal(tail.critical_z),
            "critical_z_image_wide": tail.critical_z_image_wide,
            "critical_z_published": tail.critical_z_published,
            "image_wide_p_of_published": 10.0 ** -float(of_published),
            "effective_tests": tests,
            "relative_error": error,
            "n_eff": n_eff,
            "N": dataset.N,
            "r": dataset.r,
            "draws": args.draws,
        }
    cli.report(f"critical |z| {tail.critical_z:.4f} at {level:g} ({tail.significance})")
    cli.write_summary(args.summary, STAGE, numbers, warnings)


if __name__ == "__main__":
    cli.run(main)
