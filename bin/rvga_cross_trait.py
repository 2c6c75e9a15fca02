#!/usr/bin/env python3
"""Estimate the genetic correlation of every voxel with an external trait of other people."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rvga import cli
from rvga.dataset import MinimalDataset
from rvga.errors import InputError
from rvga.genetic_covariance import (
    GeneticCovariance,
    match_dataset,
    require_enough,
    sum_over_blocks,
    sums_memory,
)
from rvga.geometry import write_map
from rvga.heritability import (
    combine,
    correlation_reasons,
    cross_trait_correlation,
    heritability_reasons,
    neg_log_10_p_normal,
    trait_scores,
)
from rvga.ld_reference import LdReference
from rvga.sumstats import Sumstats, match_variants, read_sumstats
from rvga.tables import write_table

FREQUENCY_GAP = 0.2
FREQUENCY_SHARE = 0.05


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
    add("--out", type=Path, required=True, help="<trait>.tsv")
    add("--out-map", type=Path, required=True, help="<trait>.nii.gz")
    return parser


def parse_columns(text: str) -> dict[str, str]:
    """Parse ``role=column,…``."""
    columns = {}
    for part in cli.names(text):
        role, equals, name = part.partition("=")
        if not equals or not role.strip() or not name.strip():
            raise InputError(f"--columns: '{part}' is not of the form role=column")
        columns[role.strip()] = name.strip()
    return columns


def match_trait(sumstats: Sumstats, reference: LdReference, counts: dict) -> np.ndarray:
    """Return rows of the trait's table and sign for each reference variant, (2, m).

    By position and alleles; variants not found so by rsid and alleles.
    """
    table = sumstats.table
    row = np.full(reference.m, -1, dtype=np.int64)
    sign = np.ones(reference.m)
    counts["repeated"] = 0
    for way, columns in (
        ("position", {"chromosome", "base_pair_location"}),
        ("rsid", {"rsid"}),
    ):
        if not columns <= set(table.columns):
            continue
        found, its_sign, repeated = match_variants(reference.variants, table, by=way)
        new = (row < 0) & (found >= 0)
        # A row that is matched by position is not used again for another variant.
        new &= ~np.isin(found, row[row >= 0])
        row[new], sign[new] = found[new], its_sign[new]
        counts["repeated"] = max(counts["repeated"], repeated)
        counts[f"matched_by_{way}"] = int(new.sum())
    hit = row >= 0
    counts["not_in_reference"] = len(table) - int(hit.sum()) - counts["repeated"]
    counts["alleles_swapped"] = int((sign[hit] < 0).sum())
    return np.stack([row, sign])


def check_frequencies(sumstats: Sumstats, reference, row, sign, warnings: list[str]) -> None:
    """Warn when effect-allele frequencies disagree with the reference."""
    if "effect_allele_frequency" not in sumstats.table:
        return
    hit = row >= 0
    theirs = sumstats.table["effect_allele_frequency"].to_numpy()[row[hit]]
    theirs = np.where(sign[hit] < 0, 1 - theirs, theirs)
    gap = np.abs(theirs - reference.variants["effect_allele_frequency"].to_numpy()[hit])
    gap = gap[np.isfinite(gap)]
    if len(gap) and np.mean(gap > FREQUENCY_GAP) > FREQUENCY_SHARE:
        cli.warn(
            f"effect-allele frequencies differ by more than {FREQUENCY_GAP} from the LD reference "
            f"for {np.mean(gap > FREQUENCY_GAP):.0%} of the variants: is the effect allele the "
            "right column, and the ancestry the same?",
            warnings,
        )


def estimate(args: argparse.Namespace, numbers: dict, warnings: list[str]):
    """Return ρ, its error and the open geometry's data for the table."""
    sumstats = read_sumstats(
        args.sumstats,
        columns=parse_columns(args.columns),
        n=args.n,
        n_cases=args.n_cases,
        n_controls=args.n_controls,
    )
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
            f"{reference.m} reference variants, {sumstats.n_read} rows of {args.trait}",
            sums_memory(dataset, reference, args.threads) + 900.0 * sumstats.n_read,
        )
        match = match_dataset(dataset, reference)
        counts = dict(sumstats.dropped)
        row, sign = match_trait(sumstats, reference, counts)
        row = row.astype(np.int64)
        shared = int(((row >= 0) & (match.row >= 0)).sum())
        require_enough(shared, reference.m, args.sumstats.name, reference.path.name)
        check_frequencies(sumstats, reference, row, sign, warnings)
        z = np.where(row >= 0, sumstats.table["z"].to_numpy()[row] * sign, np.nan)
        n = np.where(row >= 0, sumstats.table["n"].to_numpy()[row], np.nan)
        published = covariance.method == "published"
        scores = z / np.sqrt(n) if published else trait_scores(z, n)
        sums = sum_over_blocks(
            dataset, reference, match, method=covariance.method, workers=args.threads, trait=scores,
            progress=lambda items, total: cli.progress(items, total, "LD block"),
        )  # fmt: skip
        # The noise of û is 1/n for each variant, so that its mean is that of 1/n.
        n_trait = 1 / float(np.nanmean(1 / n[match.row >= 0]))
        kappa = np.zeros((dataset.r + 1,) * 2)
        inverse_n = np.zeros_like(kappa)
        kappa[:-1, :-1], kappa[-1, -1] = dataset.Sigma / dataset.n, 1 / n_trait
        inverse_n[:-1, :-1], inverse_n[-1, -1] = 1 / dataset.n, 1 / n_trait
        try:
            found = combine(
                sums.total, kappa, inverse_n, reference.m, reference.factors(), published=published
            )
        except ValueError as error:
            raise InputError(
                f"{args.sumstats}: no estimate is possible over the {shared} variants it shares "
                f"with {reference.path.name} ({error})"
            ) from error
        rho, error, h2, h2_error = cross_trait_correlation(found, dataset.bases)
        numbers |= {
            "n_trait": n_trait, "n_rows": sumstats.n_read, "columns": sumstats.columns,
            "n_reference_variants": reference.m, "n_shared_variants": sums.n_used,
            "dropped": counts, "heritability_trait_raw": h2, "standard_error_trait_raw": h2_error,
            "heritability_trait_reason": heritability_reasons(
                np.array([h2]), np.array([h2_error])
            )[0],
            "heritability_method": covariance.method,
        }  # fmt: skip
        return rho, error, dataset.coordinates, dataset.geometry


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    warnings: list[str] = []
    numbers: dict = {"trait": args.trait}
    # Blocks run side by side, each on one thread, so that the bytes do not depend on threads.
    with cli.threads(1):
        rho, error, coordinates, geometry = estimate(args, numbers, warnings)
    reason = correlation_reasons(rho, error)
    if not numbers["heritability_trait_raw"] > 0:
        reason[:] = "heritability of the trait not above 0"
    shown = reason == ""
    table = pd.DataFrame(
        {
            "voxel": np.arange(len(rho)),
            "x_mm": coordinates[:, 0],
            "y_mm": coordinates[:, 1],
            "z_mm": coordinates[:, 2],
            "genetic_correlation": np.where(shown, rho, np.nan),
            "standard_error": np.where(shown, error, np.nan),
            "neg_log_10_p_value": neg_log_10_p_normal(rho, error, sides=2),
            "genetic_correlation_raw": rho,
            "standard_error_raw": error,
            "reason": pd.Series(reason, dtype=object).where(~shown, None),
        }
    )
    write_table(table, args.out, "cross_trait")
    write_map(args.out_map, table["genetic_correlation"].to_numpy(), geometry)
    hidden = {str(k): int(v) for k, v in table["reason"].dropna().value_counts().items()}
    numbers |= {
        "n_voxels": len(table), "n_voxels_shown": int(shown.sum()), "reasons": hidden,
        "mean_genetic_correlation_raw": finite(np.mean, rho),
        "median_standard_error_raw": finite(np.median, error),
    }  # fmt: skip
    cli.warn(
        f"the correlation with {args.trait} assumes that its GWAS has no people in common with "
        "this study; people in common bias it",
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


def finite(statistic: Callable, values: np.ndarray) -> float | None:
    """Return a statistic of the finite values, None where there are none."""
    values = values[np.isfinite(values)]
    return float(statistic(values)) if len(values) else None


if __name__ == "__main__":
    cli.run(main)
