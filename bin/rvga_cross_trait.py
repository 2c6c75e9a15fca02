#!/usr/bin/env python3
"""Estimate the genetic correlation of every voxel and region with an external trait."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rvga import cli
from rvga.calibrated import FEW_GROUPS, weak_trait
from rvga.dataset import MinimalDataset
from rvga.errors import InputError
from rvga.false_discovery import false_discovery_rate
from rvga.genetic_covariance import (
    CrossEstimate,
    GeneticCovariance,
    estimate_with_trait,
    intercept_table,
    match_dataset,
    require_enough,
    sums_memory,
    three_axes,
)
from rvga.geometry import write_map
from rvga.heritability import (
    blended_error,
    correlation_reasons,
    cross_trait_correlation,
    cross_trait_jackknife,
    cross_trait_left_out,
    cross_trait_ratio,
    heritability,
    heritability_reasons,
    neg_log_10_p_normal,
    trait_scores,
)
from rvga.jackknife import jackknife_standard_error
from rvga.ld_reference import LdReference
from rvga.liftover import Chain
from rvga.published import jackknife_estimate
from rvga.sumstats import NOT_WANTED, ROWS, read_sumstats
from rvga.tables import write_table
from rvga.trait_matching import (
    WantedRows,
    check_frequencies,
    check_signs,
    drop_summary,
    match_trait,
)

# -log10 p of a test of the intercepts that is warned of.
UNLIKELY = 3.0


def positive_number(text: str) -> float:
    """Parse a number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = cli.make_parser(__doc__)
    add = parser.add_argument
    add("--dataset", type=Path, required=True, help="minimal dataset, *.rvga.h5")
    add("--ld-reference", type=Path, required=True, help="LD reference, *.ld.h5")
    add("--genetic-covariance", type=Path, required=True, help="genetic_covariance.h5")
    add("--trait", required=True, help="name of the trait")
    add("--sumstats", type=Path, required=True, help="its GWAS results, plain or gzip")
    add("--columns", default="", help="unusual column names, e.g. 'effect_allele=A1,z=STAT'")
    add("--n", type=positive_number, help="its sample size, where no column holds it")
    add("--n-cases", type=positive_number, help="cases, for the effective sample size")
    add("--n-controls", type=positive_number, help="controls, for the effective sample size")
    add("--chain", type=Path, help="chain file from its genome build to the study's")
    add(
        "--overlap", choices=("possible", "none"), default="possible",
        help="whether people of its GWAS may be in the study",
    )  # fmt: skip
    add(
        "--se-method", choices=("closed_form", "jackknife", "auto"), default="closed_form",
        help="errors without overlap; with it, and by bands, the jackknife is the only one",
    )  # fmt: skip
    add("--out", type=Path, required=True, help="<trait>.tsv")
    add("--out-map", type=Path, required=True, help="<trait>.nii.gz")
    add("--out-regions", type=Path, required=True, help="<trait>.regions.tsv")
    add("--out-intercepts", type=Path, required=True, help="<trait>.intercepts.tsv")
    return parser


def parse_columns(text: str) -> dict[str, str]:
    """Parse ``role=column,…``."""
    columns = {}
    for part in cli.names(text):
        role, equals, name = part.partition("=")
        if not equals or not role.strip() or not name.strip():
            raise InputError(f"--columns: '{part}' is not of the form role=column")
        if role.strip() in columns:
            raise InputError(f"--columns: role '{role.strip()}' is given twice; give it once")
        columns[role.strip()] = name.strip()
    return columns


def read_trait(
    args: argparse.Namespace, reference: LdReference, numbers: dict, warnings: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return z and n of each reference variant, NaN where absent, (m,) each."""
    chain = None if args.chain is None else Chain.read(args.chain)
    variants = reference.variants
    wanted = WantedRows(variants, chain)
    try:
        sumstats = read_sumstats(
            args.sumstats,
            columns=parse_columns(args.columns),
            n=args.n,
            n_cases=args.n_cases,
            n_controls=args.n_controls,
            wanted=wanted,
        )
    except InputError as error:
        if NOT_WANTED.replace("_", " ") in str(error) and not any(
            wanted.hits_by_chromosome.values()
        ):
            raise InputError(f"{error}; {build_hint(args)}") from error
        raise
    match = match_trait(variants, sumstats.table, args.sumstats.name, chain, wanted)
    dropped = {**sumstats.dropped, **match.counts}
    numbers |= {
        "n_rows": sumstats.n_read, "format": sumstats.format, "columns": sumstats.columns,
        "build": match.build, "dropped": dropped,
    }  # fmt: skip
    if match.build == "rsid":
        cli.warn(
            f"positions of {args.trait} are of another genome build than the LD reference; its "
            "variants were matched by rsid, which finds fewer: give a chain file",
            warnings,
        )
    found, words = check_frequencies(variants, sumstats.table, match, args.sumstats.name)
    numbers |= found
    for word in [*words, *check_signs(sumstats.table, match, args.sumstats.name)]:
        cli.warn(word, warnings)
    hit = match.row >= 0
    row = np.maximum(match.row, 0)
    z = np.where(hit, sumstats.table["z"].to_numpy()[row] * match.sign, np.nan)
    return z, np.where(hit, sumstats.table["n"].to_numpy()[row], np.nan)


def build_hint(args: argparse.Namespace) -> str:
    """Return what to do when positions do not overlap."""
    if args.chain is not None:
        return "is the chain file from the trait's genome build to that of the LD reference?"
    return "are they of the same genome build? If not, give a chain file"


def estimate(
    args: argparse.Namespace, numbers: dict, warnings: list[str]
) -> tuple[CrossEstimate, GeneticCovariance, pd.DataFrame]:
    """Return Γ̂ with the trait, the study's covariance (closed) and the table of intercepts."""
    with (
        MinimalDataset.open(args.dataset) as dataset,
        LdReference.open(args.ld_reference) as reference,
        GeneticCovariance.open(args.genetic_covariance) as covariance,
    ):
        for role, other in (("dataset", dataset), ("ld", reference)):
            if covariance.envelope.inputs.get(role) != other.digest:
                raise InputError(
                    f"{covariance.path.name} was not made from {other.path.name}: they are of "
                    "different runs; give the files of one run"
                )
        cli.state_memory(
            f"{reference.m} reference variants and as many of {args.trait}",
            sums_memory(dataset, reference, args.threads)
            + 1500.0 * reference.m
            + 900.0 * ROWS
            # LD-score regression holds the products of z.
            + 12.0 * reference.m * dataset.r * (covariance.method == "published"),
        )
        match = match_dataset(dataset, reference)
        z, n = read_trait(args, reference, numbers, warnings)
        shared = int((np.isfinite(z) & (match.row >= 0)).sum())
        try:
            require_enough(shared, reference.m, args.sumstats.name, reference.path.name)
        except InputError as error:
            reasons, repeated = drop_summary(numbers["dropped"]), numbers["dropped"]["repeated"]
            hint = build_hint(args)
            if repeated > numbers["n_rows"] / 2:
                hint = "is every variant in it twice? All rows of such a variant are left out"
            # What it asks of the genome build is asked once.
            said = str(error).partition("; ")[0]
            raise InputError(f"{said}; of its rows {reasons}; {hint}") from error
        published = covariance.method == "published"
        overlap = args.overlap == "possible"
        scores = z / np.sqrt(n) if published else trait_scores(z, n)
        # The noise of û is 1/n for each variant, so that its mean is that of 1/n.
        n_trait = 1 / float(np.nanmean(1 / n[match.row >= 0]))
        try:
            found = estimate_with_trait(
                dataset, reference, match, scores, n_trait, method=covariance.method,
                overlap=overlap, workers=args.threads, trait_n=n,
                progress=lambda items, total: cli.progress(items, total, "LD block"),
            )  # fmt: skip
        except ValueError as error:
            raise InputError(
                f"{args.sumstats}: no estimate is possible over the {shared} variants it shares "
                f"with {reference.path.name} ({error})"
            ) from error
        intercepts = trait_intercepts(args.trait, found, dataset, n_trait, numbers)
        numbers |= {
            "n_trait": n_trait, "n_reference_variants": reference.m,
            "n_shared_variants": found.n_used, "heritability_method": covariance.method,
            "genetic_correlation_by": estimator(covariance.method, overlap),
            "heritability_trait_by": (
                covariance.method
                if found.trait_heritability is not None
                else estimator(covariance.method, overlap)
            ),
            "overlap": args.overlap, "n_jackknife_groups": len(found.left_out),
        }  # fmt: skip
        # The regions are used after the file is closed.
        numbers["n_regions"] = len(covariance.regions[0])
        return found, covariance, intercepts


def estimator(method: str, overlap: bool) -> str:
    """Return the name of what correlations with a trait are estimated by."""
    if method == "published":
        return method
    if overlap:
        return "bands"
    return "precise" if method == "balanced" else method


def trait_intercepts(
    trait: str, found: CrossEstimate, dataset: MinimalDataset, n_trait: float, numbers: dict
) -> pd.DataFrame:
    """Return the table of κ of each component with the trait, and of the trait itself.

    κ √n₂ / √κ_jj is 0 without people in common; with them it is their share n_both / √(n n₂)
    times the correlation of component and trait in them. κ_jj is that of unrelated people, Σ_jj/n
    without offsets.
    """
    if found.intercept is None:
        return intercept_table([], [], np.zeros(0), 0.0, np.zeros(0))
    r = dataset.r
    scale = np.append(np.sqrt(n_trait / np.diag(found.expected_kappa)[:-1]), n_trait)
    value = found.intercept.kappa[:, -1] * scale
    error = jackknife_standard_error(found.intercept.left_out[:, :, -1] * scale)
    names = [*(str(j + 1) for j in range(r)), trait]
    expected = np.append(np.zeros(r), 1.0)
    table = intercept_table(names, [trait] * (r + 1), value, expected, error)
    with_trait = table.iloc[:-1]
    numbers |= {
        "n_intercepts_with_trait_fdr_5_percent": int(
            (with_trait["false_discovery_rate"] <= 0.05).sum()
        ),
        "largest_intercept_with_trait": finite(lambda v: v[np.argmax(np.abs(v))], value[:-1]),
        "smallest_intercept_false_discovery_rate": finite(
            np.min, with_trait["false_discovery_rate"].to_numpy()
        ),
        "intercept_trait": finite(np.mean, value[-1:]),
        "intercept_trait_standard_error": finite(np.mean, error[-1:]),
    }  # fmt: skip
    return table


def correlations(
    found: CrossEstimate, rows: np.ndarray, se_method: str, blend: float | None
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return ρ and its standard error for rows of bases, and how the error was found."""
    rho = cross_trait_ratio(found.Gamma, rows)
    if found.pseudo_values:
        error = np.empty(len(rows))
        for at, ratios in cross_trait_left_out(found.left_out, rows):
            rho[at] = jackknife_estimate(rho[at], ratios)
            error[at] = jackknife_standard_error(ratios)
        return rho, error, "jackknife"
    if found.closed_form is None:
        return rho, cross_trait_jackknife(found.left_out, rows), "jackknife"
    error = cross_trait_correlation(found.closed_form, rows)[1]
    if se_method == "closed_form" or (se_method == "auto" and blend is None):
        return rho, error, "closed_form"
    jackknife = cross_trait_jackknife(found.left_out, rows)
    if se_method == "jackknife":
        return rho, jackknife, "jackknife"
    return rho, blended_error(error, jackknife, blend), "auto"


def heritability_of_trait(found: CrossEstimate) -> tuple[float, float]:
    """Return h² of the trait over the shared variants and its standard error.

    By 'balanced' it is of the weights for heritability, as that of voxels; where people may be in
    common it is the slope of the band regression.
    """
    if found.trait_heritability is not None:
        h2, error = heritability(found.trait_heritability, np.ones((1, 1)))
        return float(h2[0]), float(error[0])
    if found.closed_form is not None:
        return cross_trait_correlation(found.closed_form, np.zeros((1, len(found.Gamma) - 1)))[2:]
    return float(found.Gamma[-1, -1]), float(jackknife_standard_error(found.left_out[:, -1, -1]))


def estimates(rho: np.ndarray, error: np.ndarray, se_method: str, gamma: float) -> pd.DataFrame:
    """Return the columns that tables of correlations with a trait share.

    ``gamma`` is the trait's genetic variance that ρ is relative to.
    """
    reason = correlation_reasons(rho, error)
    if not gamma > 0:
        reason[:] = "heritability of the trait not above 0"
    shown = reason == ""
    log_p = neg_log_10_p_normal(rho, error, sides=2)
    return pd.DataFrame(
        {
            "genetic_correlation": np.where(shown, rho, np.nan),
            "standard_error": np.where(shown, error, np.nan),
            "neg_log_10_p_value": log_p,
            "false_discovery_rate": false_discovery_rate(log_p),
            "genetic_correlation_raw": rho,
            "standard_error_raw": error,
            "se_method": se_method,
            "reason": pd.Series(reason, dtype=object).where(~shown, None),
        }
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    warnings: list[str] = []
    numbers: dict = {"trait": args.trait}
    # Blocks run side by side, each on one thread, so that the bytes do not depend on threads.
    with cli.threads(1):
        found, covariance, intercepts = estimate(args, numbers, warnings)
        names, region_rows = covariance.regions
        trait_h2, trait_error = heritability_of_trait(found)
        blend = covariance.correlation_blend
        rho, error, how = correlations(found, covariance.bases, args.se_method, blend)
        gamma = float(found.Gamma[-1, -1])
        table = estimates(rho, error, how, gamma)
        regions = estimates(*correlations(found, region_rows, args.se_method, blend), gamma)
    regions.insert(0, "trait", args.trait)
    regions.insert(1, "region", pd.Series(names, dtype=object))
    table.insert(0, "voxel", np.arange(len(table)))
    for axis, values in enumerate(three_axes(covariance.coordinates)):
        table.insert(axis + 1, ("x_mm", "y_mm", "z_mm")[axis], values)
    write_table(table, args.out, "cross_trait")
    write_table(regions, args.out_regions, "cross_trait_regions")
    write_table(intercepts, args.out_intercepts, "intercepts")
    write_map(args.out_map, table["genetic_correlation"].to_numpy(), covariance.geometry)
    hidden = {str(k): int(v) for k, v in table["reason"].dropna().value_counts().items()}
    numbers |= {
        "heritability_trait_raw": trait_h2, "standard_error_trait_raw": trait_error,
        "heritability_trait_reason": heritability_reasons(
            np.array([trait_h2]), np.array([trait_error])
        )[0],
        "se_method": how, "n_voxels": len(table),
        "n_voxels_shown": int(table["genetic_correlation"].notna().sum()), "reasons": hidden,
        "n_significant_voxels_fdr_5_percent": int((table["false_discovery_rate"] <= 0.05).sum()),
        "mean_genetic_correlation_raw": finite(np.mean, rho),
        "median_standard_error_raw": finite(np.median, error),
    }  # fmt: skip
    warn_of_overlap(args, numbers, warnings)
    for text in weak_trait(args.trait, trait_h2, trait_error):
        cli.warn(text, warnings)
    if how != "closed_form" and numbers["n_jackknife_groups"] < FEW_GROUPS:
        cli.warn(
            f"the jackknife has only {numbers['n_jackknife_groups']} groups of LD blocks, so that "
            "its errors are uncertain themselves",
            warnings,
        )
    if hidden:
        cli.warn(
            f"the correlation of {sum(hidden.values())} of {len(table)} voxels with {args.trait} "
            "is out of range and not shown ("
            + ", ".join(f"{name}: {number}" for name, number in hidden.items())
            + ")",
            warnings,
        )
    cli.write_summary(args.summary, "cross_trait", numbers, warnings)


def warn_of_overlap(args: argparse.Namespace, numbers: dict, warnings: list[str]) -> None:
    """Warn when nobody is said to be in common but the intercepts say otherwise.

    With ``possible`` the intercepts are estimated, so that they may be what they are.
    """
    rate = numbers.get("smallest_intercept_false_discovery_rate")
    if numbers["n_jackknife_groups"] < FEW_GROUPS:
        return
    if args.overlap == "none" and rate is not None and rate < 10.0**-UNLIKELY:
        cli.warn(
            f"{args.trait} is said to have no people in common with the study, but its intercept "
            f"with {numbers['n_intercepts_with_trait_fdr_5_percent']} components is not 0: people "
            "in common bias the correlation; give overlap 'possible'",
            warnings,
        )
    value, error = numbers.get("intercept_trait"), numbers.get("intercept_trait_standard_error")
    if args.overlap != "none" or value is None or not error:
        return
    if neg_log_10_p_normal(np.array([value - 1]), np.array([error]), sides=2)[0] > UNLIKELY:
        cause = (
            "its people are structured or related beyond its covariates"
            if value > 1
            else "its statistics were divided by an inflation factor"
        )
        cli.warn(
            f"the intercept of {args.trait} itself is {value:.3f} (standard error {error:.3f}) "
            f"where 1 is expected: perhaps {cause}; overlap 'possible' estimates it",
            warnings,
        )


def finite(statistic: Callable, values: np.ndarray) -> float | None:
    """Return a statistic of the finite values, None where there are none."""
    values = values[np.isfinite(values)]
    return float(statistic(values)) if len(values) else None


if __name__ == "__main__":
    cli.run(main)
