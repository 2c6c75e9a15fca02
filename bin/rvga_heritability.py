#!/usr/bin/env python3
"""Estimate heritability of every voxel and genetic correlations between regions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rvga import cli, formats
from rvga.dataset import MinimalDataset
from rvga.errors import InputError
from rvga.genetic_covariance import (
    JACKKNIFE_GROUPS,
    GeneticCovariance,
    match_dataset,
    read_labels,
    sum_over_blocks,
    sums_memory,
)
from rvga.geometry import add_geometry, write_map
from rvga.heritability import (
    combine,
    correlation_reasons,
    default_parcels,
    heritability_reasons,
    neg_log_10_p_normal,
)
from rvga.ld_reference import LdReference
from rvga.tables import write_table

ROWS = 512
WELL_COVERED = 0.9
FEW_GROUPS = 50


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = cli.make_parser(__doc__)
    add = parser.add_argument
    add("--dataset", type=Path, required=True, help="minimal dataset, *.rvga.h5")
    add("--ld-reference", type=Path, required=True, help="LD reference, *.ld.h5")
    add(
        "--heritability-method", choices=("moments", "published"), default="moments",
        help="the calibrated estimator, or the published one",
    )  # fmt: skip
    add("--se-method", choices=("closed_form", "jackknife"), default="closed_form", help="errors")
    add("--regions", type=Path, help="NIfTI image of integer labels on the study's grid")
    add(
        "--correlation-voxels", default="",
        help="voxels (from 0), comma-separated, whose correlation with every voxel is mapped",
    )  # fmt: skip
    add("--genetic-correlation-matrix", action="store_true", help="write all voxels with all")
    add("--out", type=Path, required=True, help="heritability.tsv")
    add("--out-map", type=Path, required=True, help="heritability.nii.gz")
    add("--out-regions", type=Path, required=True, help="regions.tsv")
    add("--out-correlation", type=Path, required=True, help="genetic_correlation.tsv")
    add("--out-covariance", type=Path, required=True, help="genetic_covariance.h5")
    add("--out-matrix", type=Path, help="correlation_matrix.h5")
    add("--out-voxel-maps", type=Path, help="folder for the maps of --correlation-voxels")
    return parser


def write_covariance(args: argparse.Namespace, numbers: dict) -> None:
    """Compute Γ̂ over all blocks and write ``genetic_covariance.h5``."""
    method = args.heritability_method
    with (
        MinimalDataset.open(args.dataset) as dataset,
        LdReference.open(args.ld_reference) as reference,
    ):
        rows = min(ROWS, dataset.N)
        cli.state_memory(
            f"{reference.m} reference variants, {dataset.N} voxels",
            sums_memory(dataset, reference, args.threads)
            + 8.0 * JACKKNIFE_GROUPS * dataset.N * (args.se_method == "jackknife")
            + 8.0 * 16 * rows * dataset.N * args.genetic_correlation_matrix,
        )
        match = match_dataset(dataset, reference)
        sums = sum_over_blocks(
            dataset, reference, match, method=method, workers=args.threads,
            progress=lambda items, total: cli.progress(items, total, "LD block"),
        )  # fmt: skip
        published = method == "published"
        kappa = dataset.Sigma / dataset.n
        factors = reference.factors()
        try:
            found = combine(
                sums.total, kappa, np.full_like(kappa, 1 / dataset.n), reference.m, factors,
                published=published,
            )  # fmt: skip
        except ValueError as error:
            raise InputError(
                f"{args.ld_reference}: no estimate is possible ({error}); use larger LD panels"
            ) from error
        attributes = {
            "n": dataset.n, "m": reference.m, "t_1": found.t_1,
            "t_2": float(reference.m) if published else sums.total.t_2, "t_4": found.t_4,
            "heritability_method": method, "geometry_type": dataset.geometry.type,
        }  # fmt: skip
        with formats.create(
            args.out_covariance,
            "genetic_covariance",
            attributes,
            inputs={"dataset": dataset.digest, "ld": reference.digest},
            parameters={"heritability_method": method},
            code=args.code,
        ) as writer:
            writer.add("Gamma", found.Gamma)
            writer.add("Sigma", dataset.Sigma)
            writer.add("s", found.s)
            writer.add("bases", dataset.bases)
            writer.add("coordinates", dataset.coordinates)
            writer.add("block_Gamma", sums.group_quadratic)
            writer.add("block_t1", sums.group_t_1)
            writer.add("block_t2", sums.group_t_2)
            add_geometry(writer, dataset.geometry)
        numbers |= {
            **match.counts, **attributes, "n_used_variants": sums.n_used,
            "n_blocks": reference.n_blocks, "n_blocks_used": sums.n_blocks_used,
            "n_panel_1": reference.n_a + reference.n_b, "n_panel_2": reference.n_2,
            "ld_share": reference.ld_share, "t_4_factor": factors[0], "s_factor": factors[1],
            "n_jackknife_groups": len(sums.group_t_1),
        }  # fmt: skip
        numbers["share_of_reference"] = sums.n_used / reference.m


def heritability_table(covariance: GeneticCovariance, se_method: str) -> pd.DataFrame:
    """Return the table of all voxels."""
    h2, error = covariance.heritability(se_method=se_method)
    reason = heritability_reasons(h2, error)
    shown = reason == ""
    x, y, z = covariance.coordinates[:, :3].T
    return pd.DataFrame(
        {
            "voxel": np.arange(covariance.N),
            "x_mm": x,
            "y_mm": y,
            "z_mm": z,
            "heritability": np.where(shown, h2, np.nan),
            "standard_error": np.where(shown, error, np.nan),
            "neg_log_10_p_value": neg_log_10_p_normal(h2, error, sides=1),
            "heritability_raw": h2,
            "standard_error_raw": error,
            "se_method": se_method,
            "reason": pd.Series(reason, dtype=object).where(~shown, None),
        }
    )


def region_table(
    covariance: GeneticCovariance, names: list[str], rows: np.ndarray, labels: np.ndarray, se_method
) -> pd.DataFrame:
    """Return h² of the mean image of each region; ``labels`` are 1 … k in the rows' order."""
    h2, error = covariance.heritability(rows, se_method)
    reason = heritability_reasons(h2, error)
    shown = reason == ""
    groups = [labels == label for label in range(1, len(names) + 1)]
    centres = np.stack([covariance.coordinates[group, :3].mean(axis=0) for group in groups])
    return pd.DataFrame(
        {
            "region": names,
            "n_voxels": [int(group.sum()) for group in groups],
            "x_mm": centres[:, 0],
            "y_mm": centres[:, 1],
            "z_mm": centres[:, 2],
            "heritability": np.where(shown, h2, np.nan),
            "standard_error": np.where(shown, error, np.nan),
            "heritability_raw": h2,
            "standard_error_raw": error,
            "reason": pd.Series(reason, dtype=object).where(~shown, None),
        }
    )


def correlation_table(
    covariance: GeneticCovariance, names: list[str], rows: np.ndarray, se_method: str
) -> pd.DataFrame:
    """Return ρ of every pair of regions."""
    rho, error = covariance.correlation(rows, rows, se_method)
    phenotypic = covariance.phenotypic_correlation(rows, rows)
    first, second = np.triu_indices(len(names), k=1)
    rho, error = rho[first, second], error[first, second]
    reason = correlation_reasons(rho, error)
    shown = reason == ""
    return pd.DataFrame(
        {
            "region_1": [names[i] for i in first],
            "region_2": [names[i] for i in second],
            "genetic_correlation": np.where(shown, rho, np.nan),
            "standard_error": np.where(shown, error, np.nan),
            "neg_log_10_p_value": neg_log_10_p_normal(rho, error, sides=2),
            "genetic_correlation_raw": rho,
            "standard_error_raw": error,
            "phenotypic_correlation": phenotypic[first, second],
            "reason": pd.Series(reason, dtype=object).where(~shown, None),
        }
    )


def write_matrix(args: argparse.Namespace, covariance: GeneticCovariance) -> int:
    """Write all voxels with all by row blocks; return the number of pairs not shown."""
    N, hidden = covariance.N, 0
    with formats.create(
        args.out_matrix,
        "correlation_matrix",
        {"geometry_type": covariance.geometry.type},
        inputs={"genetic_covariance": covariance.envelope.digest},
        code=args.code,
    ) as writer:
        names = ("genetic_correlation", "standard_error")
        targets = [writer.reserve(name, (N, N), chunks=(min(N, 64), N)) for name in names]
        writer.add("coordinates", covariance.coordinates)
        add_geometry(writer, covariance.geometry)
        steps = -(-N // ROWS)
        for first, stop, rho, error in cli.progress(
            covariance.matrix(ROWS), steps, "correlation rows, block"
        ):
            shown = correlation_reasons(rho, error) == ""
            hidden += int((~shown).sum())
            targets[0][first:stop] = np.where(shown, rho, np.nan)
            targets[1][first:stop] = np.where(shown, error, np.nan)
    return hidden


def write_voxel_maps(args, covariance: GeneticCovariance, voxels: list[int]) -> None:
    """Write maps of ρ and its error for some voxels."""
    for voxel in voxels:
        rho, error = covariance.row(voxel, args.se_method)
        shown = correlation_reasons(rho, error) == ""
        for name, values in (("genetic_correlation", rho), ("standard_error", error)):
            path = args.out_voxel_maps / f"{name}_voxel_{voxel}.nii.gz"
            write_map(path, np.where(shown, values, np.nan), covariance.geometry)


def false_discovery_count(neg_log_10_p: np.ndarray, level: float = 0.05) -> int:
    """Return how many tests Benjamini and Hochberg's rule rejects."""
    p = np.sort(10.0 ** -neg_log_10_p[np.isfinite(neg_log_10_p)])
    below = np.flatnonzero(p <= level * np.arange(1, len(p) + 1) / max(len(p), 1))
    return int(below[-1] + 1) if len(below) else 0


def reason_counts(table: pd.DataFrame) -> dict[str, int]:
    """Return reason → number of estimates that are not shown."""
    return {str(key): int(n) for key, n in table["reason"].dropna().value_counts().items()}


def voxel_list(text: str, N: int) -> list[int]:
    """Parse ``--correlation-voxels``."""
    voxels = []
    for word in cli.names(text):
        if not word.isdigit() or int(word) >= N:
            raise InputError(
                f"--correlation-voxels: '{word}' is not a voxel; give numbers from 0 to {N - 1}"
            )
        voxels.append(int(word))
    return sorted(set(voxels))


def check(args: argparse.Namespace) -> tuple[list[int], np.ndarray | None]:
    """Check what can be wrong in options and regions before the long work."""
    with MinimalDataset.open(args.dataset) as dataset:
        voxels = voxel_list(args.correlation_voxels, dataset.N)
        labels = None
        if args.regions is not None:
            labels = read_labels(args.regions, dataset.geometry)
    if voxels and args.out_voxel_maps is None:
        raise InputError("--correlation-voxels needs --out-voxel-maps, the folder for the maps")
    if args.genetic_correlation_matrix and args.out_matrix is None:
        raise InputError("--genetic-correlation-matrix needs --out-matrix, the file to write")
    return voxels, labels


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    warnings: list[str] = []
    numbers: dict = {"se_method": args.se_method}
    # Blocks run side by side, each on one thread, so that the bytes do not depend on threads.
    with cli.threads(1):
        voxels, labels = check(args)
        write_covariance(args, numbers)
        if numbers["share_of_reference"] < WELL_COVERED:
            cli.warn(
                f"only {numbers['share_of_reference']:.0%} of the LD reference's variants are in "
                "the dataset: estimates stay unbiased, but their errors grow",
                warnings,
            )
        if args.heritability_method == "published":
            cli.warn(
                "the published estimator depends on the LD reference's shares and is biased "
                "towards 0; use it for comparison only",
                warnings,
            )
        groups = numbers["n_jackknife_groups"]
        if args.se_method == "jackknife" and groups < FEW_GROUPS:
            cli.warn(
                f"the jackknife has only {groups} groups of LD blocks, so that its errors are "
                "uncertain themselves",
                warnings,
            )
        with GeneticCovariance.open(args.out_covariance) as covariance:
            table = heritability_table(covariance, args.se_method)
            if labels is None:
                labels = default_parcels(covariance.coordinates)
                region, rows = covariance.regions(labels)
                names = [f"parcel {label}" for label in region]
            else:
                region, rows = covariance.regions(labels)
                names = [str(label) for label in region]
            compact = np.where(labels == 0, 0, np.searchsorted(region, labels) + 1)
            regions = region_table(covariance, names, rows, compact, args.se_method)
            correlations = correlation_table(covariance, names, rows, args.se_method)
            if args.genetic_correlation_matrix:
                numbers["n_matrix_entries_not_shown"] = write_matrix(args, covariance)
            write_voxel_maps(args, covariance, voxels)
            write_map(args.out_map, table["heritability"].to_numpy(), covariance.geometry)
    write_table(table, args.out, "heritability")
    write_table(regions, args.out_regions, "regions")
    write_table(correlations, args.out_correlation, "genetic_correlation")
    raw, error = table["heritability_raw"], table["standard_error_raw"]
    hidden = reason_counts(table)
    numbers |= {
        "n_voxels": len(table), "n_voxels_shown": int(table["heritability"].notna().sum()),
        "reasons": hidden, "mean_heritability_raw": float(raw.mean()),
        "median_heritability_raw": float(raw.median()),
        "largest_heritability_raw": float(raw.max()),
        "median_standard_error_raw": float(error.median()),
        "n_significant_voxels_fdr_5_percent": false_discovery_count(
            table["neg_log_10_p_value"].to_numpy()
        ),
        "n_regions": len(names), "n_region_pairs": len(correlations),
        "region_reasons": reason_counts(regions),
        "correlation_reasons": reason_counts(correlations),
        "regions_given": args.regions is not None,
    }  # fmt: skip
    if hidden:
        cli.warn(
            f"heritability of {sum(hidden.values())} of {len(table)} voxels is out of range and "
            "not shown (" + ", ".join(f"{reason}: {n}" for reason, n in hidden.items()) + ")",
            warnings,
        )
    cli.write_summary(args.summary, "heritability", numbers, warnings)


if __name__ == "__main__":
    cli.run(main)
