#!/usr/bin/env python3
"""Estimate heritability of every voxel and genetic correlations between regions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rvga import cli, formats
from rvga.calibrated import (
    FEW_GROUPS,
    FEWEST_ERRORS,
    beyond_panels,
    few_causal,
    jackknife_excess,
)
from rvga.dataset import MinimalDataset
from rvga.errors import InputError
from rvga.false_discovery import false_discovery_rate
from rvga.genetic_covariance import (
    JACKKNIFE_GROUPS,
    Correlation,
    GeneticCovariance,
    Intercept,
    estimate_covariance,
    intercept_table,
    match_dataset,
    sums_memory,
    three_axes,
)
from rvga.geometry import add_geometry, write_map
from rvga.heritability import (
    Moments,
    correlation_in_range,
    correlation_reasons,
    heritability_reasons,
    neg_log_10_p_normal,
    region_bases,
)
from rvga.heterogeneity import heterogeneity_test
from rvga.jackknife import jackknife_standard_error
from rvga.ld_reference import LdReference
from rvga.parcels import default_regions
from rvga.regions import read_regions
from rvga.tables import write_table

# Rows of the matrix of correlations in a chunk of its file.
ROWS = 64
WELL_COVERED = 0.9
# -log10 p of a test of the model that is warned of.
UNLIKELY = 3.0
# Voxels, evenly taken, whose errors by both ways are compared.
COMPARED = 200
# Each voxel's label, 0 for none, and the names of the labels in ascending order.
Regions = tuple[np.ndarray, list[str]]


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = cli.make_parser(__doc__)
    add = parser.add_argument
    add("--dataset", type=Path, required=True, help="minimal dataset, *.rvga.h5")
    add("--ld-reference", type=Path, required=True, help="LD reference, *.ld.h5")
    add(
        "--heritability-method", choices=("balanced", "moments", "bands", "published"),
        default="balanced",
        help="calibrated: weights that count all variants alike, or 1; band regression; published",
    )  # fmt: skip
    add(
        "--intercept", choices=("fixed", "free"), default="fixed",
        help="noise taken as that of unrelated people, or estimated by band regression",
    )  # fmt: skip
    add(
        "--se-method", choices=("closed_form", "jackknife", "auto"), default="closed_form",
        help="errors; auto lies between the two",
    )  # fmt: skip
    add("--regions", type=Path, help="labels like the images, sheet of parts, or table of voxels")
    add(
        "--correlation-voxels", default="",
        help="voxels (from 0), comma-separated, whose correlation with every voxel is mapped",
    )  # fmt: skip
    add("--genetic-correlation-matrix", action="store_true", help="write all voxels with all")
    add("--out", type=Path, required=True, help="heritability.tsv")
    add("--out-map", type=Path, required=True, help="heritability.nii.gz")
    add("--out-regions", type=Path, required=True, help="regions.tsv")
    add("--out-intercepts", type=Path, required=True, help="intercepts.tsv")
    add("--out-correlation", type=Path, required=True, help="genetic_correlation.tsv")
    add("--out-covariance", type=Path, required=True, help="genetic_covariance.h5")
    add("--out-matrix", type=Path, help="correlation_matrix.h5")
    add("--out-voxel-maps", type=Path, help="folder for the maps of --correlation-voxels")
    return parser


def write_covariance(
    args: argparse.Namespace, regions: Regions | None, numbers: dict
) -> tuple[np.ndarray, pd.DataFrame]:
    """Compute Γ̂ over all blocks and write ``genetic_covariance.h5``.

    Returns
    -------
    labels : (N,) int64
        Regions, 1 … k in the file's order; 0 is none.
    intercepts : DataFrame
        Table of the components' intercepts.
    """
    method = args.heritability_method
    with (
        MinimalDataset.open(args.dataset) as dataset,
        LdReference.open(args.ld_reference) as reference,
    ):
        rows = min(ROWS, dataset.N)
        cli.state_memory(
            f"{reference.m} reference variants, {dataset.N} voxels",
            sums_memory(dataset, reference, args.threads)
            + 8.0 * JACKKNIFE_GROUPS * dataset.N * (args.se_method != "closed_form")
            + 8.0 * 3 * (args.threads + 2) * rows * dataset.N * args.genetic_correlation_matrix,
        )
        match = match_dataset(dataset, reference)
        try:
            found, sums = estimate_covariance(
                dataset, reference, match, method=method,
                fixed_intercept=args.intercept == "fixed", workers=args.threads,
                progress=lambda items, total: cli.progress(items, total, "LD block"),
            )  # fmt: skip
        except ValueError as error:
            raise InputError(
                f"{args.ld_reference}: no estimate is possible ({error}); use larger LD panels"
            ) from error
        x = found.moments
        attributes = {
            "n": dataset.n, "m": reference.m, "t_1": x.t_1,
            "t_2": reference.m / x.scale, "t_4": x.t_4,
            "heritability_method": method, "geometry_type": dataset.geometry.type,
        }  # fmt: skip
        names, region_rows, labels = region_rows_of(dataset, regions)
        with formats.create(
            args.out_covariance,
            "genetic_covariance",
            attributes,
            inputs={"dataset": dataset.digest, "ld": reference.digest},
            parameters={"heritability_method": method, "intercept": args.intercept},
            code=args.code,
        ) as writer:
            writer.add("Gamma", x.Gamma)
            writer.add("Sigma", dataset.Sigma)
            writer.add("kappa", x.kappa)
            writer.add("s", x.s)
            writer.add("bases", dataset.bases)
            writer.add("coordinates", dataset.coordinates)
            writer.add("left_out", found.left_out)
            if found.blend is not None:
                writer.add("blend_factor", np.array([found.blend]))
            if found.correlation is not None:
                add_correlation(writer, found.correlation, reference.m)
            if found.intercept is not None:
                writer.add("intercept", found.intercept.kappa)
            writer.add("region_name", names)
            writer.add("region_rows", region_rows)
            add_geometry(writer, dataset.geometry)
        intercepts = own_intercepts(found.intercept, x.kappa, numbers)
        t_4_factor, s_factor = reference.factors()
        numbers |= {
            **match.counts, **attributes, "n_used_variants": sums.n_used,
            "n_blocks": reference.n_blocks, "n_blocks_used": sums.n_blocks_used,
            "n_panel_1": reference.n_a + reference.n_b, "n_panel_2": reference.n_2,
            "ld_share": reference.ld_share, "t_4_factor": t_4_factor, "s_factor": s_factor,
            "n_jackknife_groups": len(found.left_out), "intercept": args.intercept,
            "t_1_ratio_in_reference": reference.has_t_1_ratio,
            "share_of_reference": sums.n_used / reference.m,
            "n_negative_eigenvalues": negative_eigenvalues(x),
            "n_negative_eigenvalues_for_correlations": negative_eigenvalues(
                x if found.correlation is None else found.correlation.moments
            ),
            # Which estimator each kind of number is by.
            "heritability_by": method,
            "genetic_correlation_by": "precise" if method == "balanced" else method,
            **found.numbers, **{name: finite(value) for name, value in found.model_test.items()},
        }  # fmt: skip
    return labels, intercepts


def add_correlation(writer: formats.Writer, found: Correlation, m: int) -> None:
    """Write the Γ̂ that genetic correlations are of."""
    x = found.moments
    for name, values in (
        ("Gamma", x.Gamma), ("kappa", x.kappa), ("s", x.s), ("left_out", found.left_out),
        ("traces", np.array([x.t_1, m / x.scale, x.t_4])), ("blend_factor", [found.blend]),
    ):  # fmt: skip
        writer.add(f"correlation/{name}", np.asarray(values, dtype=np.float64))


def negative_eigenvalues(x: Moments) -> int:
    """Return how many eigenvalues of Γ̂ are below 0."""
    return int((np.linalg.eigvalsh(x.Gamma) < 0).sum())


def finite(value: float) -> float | None:
    """Return a number, None for one that is not finite."""
    return float(value) if np.isfinite(value) else None


def region_rows_of(
    dataset: MinimalDataset, regions: Regions | None
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return names and mean basis rows of the regions, and each voxel's region (1 … k, 0 none)."""
    bases = dataset.bases.astype(np.float64)
    labels, names = regions or default_regions(dataset.geometry)
    region, rows = region_bases(bases, labels)
    compact = np.where(labels == 0, 0, np.searchsorted(region, labels) + 1)
    return names, rows, compact


def own_intercepts(intercept: Intercept | None, kappa: np.ndarray, numbers: dict) -> pd.DataFrame:
    """Return the table of estimated over expected κ_jj, which is 1 without structure; its mean.

    ``kappa`` (r, r) is what unrelated people have, Σ/n without offsets.
    """
    if intercept is None:
        return intercept_table([], [], np.zeros(0), 1.0, np.zeros(0))
    scale = 1 / np.diag(kappa)
    ratio = np.diag(intercept.kappa) * scale
    left_out = np.diagonal(intercept.left_out, axis1=1, axis2=2) * scale
    names = [str(j + 1) for j in range(len(ratio))]
    table = intercept_table(names, names, ratio, 1.0, jackknife_standard_error(left_out))
    mean = float(np.trace(intercept.kappa)) / float(np.trace(kappa))
    means = np.trace(intercept.left_out, axis1=1, axis2=2) / np.trace(kappa)
    error = float(jackknife_standard_error(means))
    test = neg_log_10_p_normal(np.array([mean - 1]), np.array([error]), sides=2)[0]
    numbers |= {
        "mean_intercept": finite(mean), "mean_intercept_standard_error": finite(error),
        "mean_intercept_neg_log_10_p_value": finite(test),
        "n_intercepts_not_1_fdr_5_percent": int((table["false_discovery_rate"] <= 0.05).sum()),
    }  # fmt: skip
    return table


def estimates(h2: np.ndarray, error: np.ndarray, se_method: str) -> dict[str, object]:
    """Return the columns of h² and its error: those in range shown, and all of them raw."""
    reason = heritability_reasons(h2, error)
    shown = reason == ""
    log_p = neg_log_10_p_normal(h2, error, sides=1)
    return {
        "heritability": np.where(shown, h2, np.nan),
        "standard_error": np.where(shown, error, np.nan),
        "neg_log_10_p_value": log_p,
        "false_discovery_rate": false_discovery_rate(log_p),
        "heritability_raw": h2,
        "standard_error_raw": error,
        "se_method": se_method,
        "reason": pd.Series(reason, dtype=object).where(~shown, None),
    }


def heritability_table(covariance: GeneticCovariance, se_method: str) -> pd.DataFrame:
    """Return the table of all voxels."""
    h2, error = covariance.heritability(se_method=se_method)
    x, y, z = three_axes(covariance.coordinates)
    return pd.DataFrame(
        {
            "voxel": np.arange(covariance.N),
            "x_mm": x,
            "y_mm": y,
            "z_mm": z,
            **estimates(h2, error, se_method),
        }
    )


def region_table(
    covariance: GeneticCovariance, names: list[str], rows: np.ndarray, labels: np.ndarray, se_method
) -> pd.DataFrame:
    """Return h² of the mean image of each region; ``labels`` are 1 … k in the rows' order."""
    h2, error = covariance.heritability(rows, se_method)
    groups = [labels == label for label in range(1, len(names) + 1)]
    x, y, z = three_axes(np.stack([covariance.coordinates[group].mean(axis=0) for group in groups]))
    return pd.DataFrame(
        {
            "region": names,
            "n_voxels": [int(group.sum()) for group in groups],
            "x_mm": x,
            "y_mm": y,
            "z_mm": z,
            **estimates(h2, error, se_method),
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
    log_p = neg_log_10_p_normal(rho, error, sides=2)
    return pd.DataFrame(
        {
            "region_1": [names[i] for i in first],
            "region_2": [names[i] for i in second],
            "genetic_correlation": np.where(shown, rho, np.nan),
            "standard_error": np.where(shown, error, np.nan),
            "neg_log_10_p_value": log_p,
            "false_discovery_rate": false_discovery_rate(log_p),
            "genetic_correlation_raw": rho,
            "standard_error_raw": error,
            "phenotypic_correlation": phenotypic[first, second],
            "se_method": se_method,
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
        targets = [writer.reserve(name, (N, N), chunks=(min(N, ROWS), N)) for name in names]
        writer.add("coordinates", covariance.coordinates)
        add_geometry(writer, covariance.geometry)
        steps = -(-N // ROWS)
        rows = covariance.matrix(ROWS, workers=args.threads)
        for first, stop, rho, error in cli.progress(rows, steps, "correlation rows, block"):
            shown = correlation_in_range(rho, error)
            hidden += shown.size - int(np.count_nonzero(shown))
            rho[~shown], error[~shown] = np.nan, np.nan
            targets[0][first:stop], targets[1][first:stop] = rho, error
    return hidden


def write_voxel_maps(args, covariance: GeneticCovariance, voxels: list[int]) -> None:
    """Write maps of ρ and its error for some voxels."""
    for voxel in voxels:
        rho, error = covariance.row(voxel, args.se_method)
        shown = correlation_reasons(rho, error) == ""
        for name, values in (("genetic_correlation", rho), ("standard_error", error)):
            path = args.out_voxel_maps / f"{name}_voxel_{voxel}.nii.gz"
            write_map(path, np.where(shown, values, np.nan), covariance.geometry)


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


def check(args: argparse.Namespace) -> tuple[list[int], Regions | None]:
    """Check what can be wrong in options and regions before the long work."""
    with MinimalDataset.open(args.dataset) as dataset:
        voxels = voxel_list(args.correlation_voxels, dataset.N)
        regions = None
        if args.regions is not None:
            regions = read_regions(args.regions, dataset.geometry)
    if voxels and args.out_voxel_maps is None:
        raise InputError("--correlation-voxels needs --out-voxel-maps, the folder for the maps")
    if args.heritability_method == "published" and args.intercept == "free":
        raise InputError(
            "--intercept free is not to be had with --heritability-method published; use "
            "balanced, moments or bands"
        )
    if args.heritability_method == "published" and args.se_method == "auto":
        raise InputError(
            "--se-method auto is not to be had with --heritability-method published; use "
            "closed_form or jackknife"
        )
    method = args.heritability_method
    free = method in ("balanced", "moments") and args.intercept == "free"
    if free and args.se_method != "jackknife":
        raise InputError(
            f"with --heritability-method {method} and --intercept free the closed form leaves out "
            "the error of the intercept; use --se-method jackknife (or --heritability-method bands)"
        )
    if args.genetic_correlation_matrix and args.out_matrix is None:
        raise InputError("--genetic-correlation-matrix needs --out-matrix, the file to write")
    return voxels, regions


def note_heterogeneity(covariance: GeneticCovariance, numbers: dict) -> None:
    """Test whether h² is the same everywhere; the published estimator has no such errors."""
    if covariance.method == "published":
        return
    try:
        test = heterogeneity_test(covariance.moments, covariance.bases)
    except ValueError as error:
        cli.report(f"no test of heterogeneity ({error})")
        return
    numbers |= {
        "heterogeneity_variance": test.statistic,
        "heterogeneity_variance_expected": test.expected,
        "heterogeneity_p_value": test.p_value,
        "heterogeneity_n_voxels": test.n_voxels,
    }


def warn_of_model(numbers: dict, warnings: list[str]) -> None:
    """Warn where both estimators disagree, or the intercept is not that of unrelated people.

    Both tests rest on the jackknife and say nothing with few groups of blocks.
    """
    if numbers["n_jackknife_groups"] < FEW_GROUPS:
        return
    if (numbers.get("model_test_neg_log_10_p_value") or 0) > UNLIKELY:
        one = "balanced" if "heritability_balanced" in numbers else "moments"
        cli.warn(
            f"both estimators of mean heritability disagree ({numbers[f'heritability_{one}']:.3f} "
            f"by {one}, {numbers['heritability_bands']:.3f} by bands, z = "
            f"{numbers['model_test_z']:.1f}): effects depend on LD or frequency, or there is "
            f"structure; of the two {one} leans less on it, with ld_share .95 to .98",
            warnings,
        )
    if (numbers.get("mean_intercept_neg_log_10_p_value") or 0) > UNLIKELY:
        above = numbers["mean_intercept"] > 1
        where = "low-LD" if above else "high-LD"
        cause = "people related or structured beyond what the covariates explain, or " * above
        cli.warn(
            f"the mean intercept is {numbers['mean_intercept']:.3f} (standard error "
            f"{numbers['mean_intercept_standard_error']:.3f}) where 1 is expected: {cause}effects "
            f"that lie in {where} variants, with which --intercept free is worse than fixed; use "
            "it only where both estimators of mean heritability agree",
            warnings,
        )


def compare_errors(
    covariance: GeneticCovariance, free: bool, numbers: dict, warnings: list[str]
) -> None:
    """Note how much longer the jackknife is than the closed form, and warn where it is a lot.

    The published estimator has another closed form, and that of ``moments`` and ``balanced`` leaves
    out the error of a free intercept.
    """
    if covariance.method == "published" or (free and covariance.method in ("moments", "balanced")):
        return
    some = np.unique(np.linspace(0, covariance.N - 1, COMPARED).astype(np.int64))
    rows = np.asarray(covariance.bases[some], dtype=np.float64)
    jackknife, closed_form = (
        covariance.heritability(rows, method)[1] for method in ("jackknife", "closed_form")
    )
    excess = jackknife_excess(jackknife, closed_form)
    numbers["jackknife_over_closed_form"] = finite(excess)
    for text in few_causal(excess, numbers["n_jackknife_groups"]):
        cli.warn(text, warnings)


def warn_of_weak_signal(h2: np.ndarray, error: np.ndarray, warnings: list[str]) -> None:
    """Warn where most voxels' heritability is known too poorly for a ratio of it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.asarray(h2, dtype=float) / np.asarray(error, dtype=float)
    ratio = ratio[np.isfinite(ratio)]
    if len(ratio) and np.median(ratio) < FEWEST_ERRORS:
        cli.warn(
            f"the median heritability is {np.median(ratio):.1f} of its standard errors: below "
            f"{FEWEST_ERRORS:g} genetic correlations are skewed, and their intervals uncertain",
            warnings,
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    warnings: list[str] = []
    numbers: dict = {"se_method": args.se_method}
    # Blocks run side by side, each on one thread, so that the bytes do not depend on threads.
    with cli.threads(1):
        voxels, given = check(args)
        labels, intercepts = write_covariance(args, given, numbers)
        if numbers["share_of_reference"] < WELL_COVERED:
            cli.warn(
                f"only {numbers['share_of_reference']:.0%} of the LD reference's variants are in "
                "the dataset: estimates stay unbiased, but their errors grow",
                warnings,
            )
        if args.heritability_method != "published":
            people = min(numbers["n_panel_1"], numbers["n_panel_2"])
            for text in beyond_panels(people, numbers["ld_share"]):
                cli.warn(text, warnings)
        if args.heritability_method != "published" and not numbers["t_1_ratio_in_reference"]:
            cli.warn(
                f"{args.ld_reference.name} lacks the dataset 't_1_ratio', without which "
                "heritability is too low where panels are smaller than the study; make the LD "
                "reference again",
                warnings,
            )
        if args.heritability_method == "published":
            cli.warn(
                "the published estimator is biased, up or down with the LD reference's shares and "
                "size; use it for comparison only",
                warnings,
            )
        groups = numbers["n_jackknife_groups"]
        if args.se_method != "closed_form" and groups < FEW_GROUPS:
            cli.warn(
                f"the jackknife has only {groups} groups of LD blocks, so that its errors are "
                "uncertain themselves",
                warnings,
            )
        with GeneticCovariance.open(args.out_covariance) as covariance:
            table = heritability_table(covariance, args.se_method)
            names, rows = covariance.regions
            note_heterogeneity(covariance, numbers)
            compare_errors(covariance, args.intercept == "free", numbers, warnings)
            regions = region_table(covariance, names, rows, labels, args.se_method)
            correlations = correlation_table(covariance, names, rows, args.se_method)
            if args.genetic_correlation_matrix:
                numbers["n_matrix_entries_not_shown"] = write_matrix(args, covariance)
            write_voxel_maps(args, covariance, voxels)
            write_map(args.out_map, table["heritability"].to_numpy(), covariance.geometry)
    write_table(table, args.out, "heritability")
    write_table(regions, args.out_regions, "regions")
    write_table(correlations, args.out_correlation, "genetic_correlation")
    write_table(intercepts, args.out_intercepts, "intercepts")
    warn_of_model(numbers, warnings)
    raw, error = table["heritability_raw"], table["standard_error_raw"]
    warn_of_weak_signal(raw, error, warnings)
    hidden = reason_counts(table)
    numbers |= {
        "n_voxels": len(table), "n_voxels_shown": int(table["heritability"].notna().sum()),
        "reasons": hidden, "mean_heritability_raw": float(raw.mean()),
        "median_heritability_raw": float(raw.median()),
        "largest_heritability_raw": float(raw.max()),
        "median_standard_error_raw": float(error.median()),
        "n_significant_voxels_fdr_5_percent": int((table["false_discovery_rate"] <= 0.05).sum()),
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
