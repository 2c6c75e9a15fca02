#!/usr/bin/env python3
"""Factor the covariates once and take them out of the LDRs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rvga import cli, formats, projection
from rvga.covariates import read_covariates
from rvga.errors import InputError


def parser():
    """Return the option parser."""
    result = cli.make_parser(__doc__)
    add = result.add_argument
    add("--ldrs", type=Path, required=True, help="LDRs file")
    add("--subjects", type=Path, required=True, help="subjects file")
    add("--covariates", type=Path, required=True, help="table with a 'subject' column")
    add("--covariate-columns", type=cli.names, default=[], help="columns to use; none is all")
    add("--categorical-columns", type=cli.names, default=[], help="columns of labels")
    add("--out", type=Path, required=True, help="null file to write")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    warnings: list[str] = []
    with (
        cli.threads(1),
        formats.open_file(args.subjects, "subjects") as selected,
        formats.open_file(args.ldrs, "ldrs") as represented,
    ):
        represented.require_made_from("subjects", selected)
        subjects = list(selected.array("subject"))
        table = read_covariates(
            args.covariates,
            args.covariate_columns,
            args.categorical_columns,
            selected.parameters.get("subject_id", "IID"),
        )
        design, names = table.design(subjects)
        ldrs = represented["ldrs"][...]
        n, r = ldrs.shape
        cli.state_memory(f"{n} x {r} LDRs", 8.0 * (4 * n * r + 3 * n * (len(names) + 1)))
        factor = projection.factor_covariates(design, names, table.path.name)
        p = factor.Q.shape[1]
        if n - p - 1 < 1:
            raise InputError(f"{table.path.name}: {n} subjects are too few for {p - 1} covariates")
        if factor.redundant:
            named = ", ".join(f"'{name}'" for name in factor.redundant)
            cli.warn(
                f"{table.path.name}: covariates {named} follow from the others and are left out",
                warnings,
            )
        residual, A = projection.residual_cross_product(ldrs, factor.Q)
        with formats.create(
            args.out,
            "null",
            {
                "sample_hash": selected.attributes["sample_hash"],
                "covariates": factor.used,
            },
            inputs={"subjects": selected.digest, "ldrs": represented.digest},
            parameters={
                "covariate_columns": args.covariate_columns,
                "categorical_columns": args.categorical_columns,
            },
            code=args.code,
        ) as writer:
            writer.add("Q", factor.Q)
            writer.add("residual_ldrs", residual)
            writer.add("A", A)
            writer.add("subject", subjects)
    numbers = {
        "n": n,
        "p": p,
        "r": r,
        "covariates_used": factor.used,
        "covariates_redundant": factor.redundant,
    }
    cli.report(f"{n} subjects, {p} covariates with the intercept, {r} LDRs")
    cli.write_summary(args.summary, "fit_null", numbers, warnings)


if __name__ == "__main__":
    cli.run(main)
