#!/usr/bin/env python3
"""Factor the covariates once and take them out of the LDRs."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rvga import cli, formats, projection
from rvga.chromosomes import normalise_chromosome
from rvga.covariates import read_covariates, read_sexes
from rvga.errors import InputError
from rvga.kinship import THIRD_DEGREE, relatedness
from rvga.loco import LocoFile, component_numbers, prediction_rows, source_row
from rvga.samples import text_lines

# A prediction that adds this share to a component's variance does not predict it.
_ADDED_VARIANCE = 0.01


def parser():
    """Return the option parser."""
    result = cli.make_parser(__doc__)
    add = result.add_argument
    add("--ldrs", type=Path, help="LDRs file")
    add("--subjects", type=Path, help="subjects file")
    add("--covariates", type=Path, help="table with a 'subject' column")
    add("--covariate-columns", type=cli.names, default=[], help="columns to use; none is all")
    add("--categorical-columns", type=cli.names, default=[], help="columns of labels")
    add("--sex-column", default="", help="column of sexes, for X and Y; none: of the genotypes")
    add("--loco-predictions", type=Path, nargs="+", default=[], help="REGENIE's .loco files")
    add("--loco-components", type=cli.names, default=[], help="component of each .loco file")
    add("--chromosomes", type=cli.names, default=[], help="chromosomes analysed; none is all")
    add("--kinship", type=Path, help="table of related pairs (IID1, IID2, KINSHIP)")
    add("--residual-cross-product", type=Path, help="table of A = S'PS, instead of people")
    add("--n-subjects", type=int, default=0, help="subjects behind --residual-cross-product")
    add("--n-covariates", type=int, default=-1, help="their covariates, without the intercept")
    add("--bases", type=Path, help="bases that --residual-cross-product belongs to")
    add("--out", type=Path, required=True, help="null file to write")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    if args.residual_cross_product:
        _from_cross_product(args)
        return
    for name in ("ldrs", "subjects", "covariates"):
        if getattr(args, name) is None:
            raise InputError(f"--{name} is due, or --residual-cross-product (--help)")
    warnings: list[str] = []
    with (
        cli.threads(1),
        formats.open_file(args.subjects, "subjects") as selected,
        formats.open_file(args.ldrs, "ldrs") as represented,
    ):
        represented.require_made_from("subjects", selected)
        subjects = list(selected.array("subject"))
        subject_id = selected.parameters.get("subject_id", "IID")
        table = read_covariates(
            args.covariates, args.covariate_columns, args.categorical_columns, subject_id
        )
        design, names = table.design(subjects)
        sexes = None
        if args.sex_column:
            sexes = read_sexes(args.covariates, args.sex_column, subjects, subject_id)
        ldrs = represented["ldrs"][...]
        n, r = ldrs.shape
        # REGENIE writes 23 chromosomes; they are kept in single precision.
        offsets = 4.0 * 23 * n * r if args.loco_predictions else 0.0
        cli.state_memory(f"{n} x {r} LDRs", 8.0 * (4 * n * r + 3 * n * (len(names) + 1)) + offsets)
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
        files, codes = _predictions(args, subjects, subject_id, r)
        inputs = {"subjects": selected.digest, "ldrs": represented.digest}
        if "bases" in represented.inputs:
            inputs["bases"] = represented.inputs["bases"]
        with formats.create(
            args.out,
            "null",
            {
                "sample_hash": selected.attributes["sample_hash"],
                "covariates": factor.used,
            },
            inputs=inputs,
            parameters={
                "covariate_columns": args.covariate_columns,
                "categorical_columns": args.categorical_columns,
                "sex_column": args.sex_column,
                "loco_predictions": bool(files),
            },
            code=args.code,
        ) as writer:
            writer.add("Q", factor.Q)
            writer.add("Sigma", A / n)
            writer.add("subject", subjects)
            if sexes is not None:
                writer.add("sex", sexes)
            if files:
                added = _write_offsets(writer, residual, A, factor.Q, files, codes)
            else:
                writer.add("residual_ldrs", residual[None])
                writer.add("A", A[None])
                writer.add("A_chromosome", [0])
    numbers: dict[str, Any] = {
        "n": n,
        "p": p,
        "r": r,
        "covariates_used": factor.used,
        "covariates_redundant": factor.redundant,
    }
    if files:
        numbers["n_chromosomes_with_offsets"] = len(codes)
        numbers["variance_left_by_offsets"] = 1.0 + added
        _warn_of_bad_predictions(added, warnings)
    if args.kinship:
        numbers["kinship"] = _related(args, subjects, subject_id, bool(files), warnings)
    cli.report(f"{n} subjects, {p} covariates with the intercept, {r} LDRs")
    cli.write_summary(args.summary, "fit_null", numbers, warnings)


def _predictions(
    args: argparse.Namespace, subjects: list[str], subject_id: str, r: int
) -> tuple[list[LocoFile], list[int]]:
    """Return the predictions in the components' order, and the chromosomes (ranks) of them."""
    if not args.loco_predictions:
        return [], []
    if len(args.loco_components) != len(args.loco_predictions):
        raise InputError(
            f"--loco-components names {len(args.loco_components)} components, but there are "
            f"{len(args.loco_predictions)} files of --loco-predictions"
        )
    chromosomes = [normalise_chromosome(name, "--chromosomes") for name in args.chromosomes]
    numbers = component_numbers(args.loco_components, r, "loco_predictions")
    order = sorted(range(r), key=numbers.__getitem__)
    files = [
        LocoFile(args.loco_predictions[place], subjects, subject_id)
        for place in cli.progress(order, r, "component")
    ]
    return files, prediction_rows(files, chromosomes)


def _write_offsets(
    writer: formats.Writer,
    residual: np.ndarray,
    A: np.ndarray,
    Q: np.ndarray,
    files: list[LocoFile],
    codes: list[int],
) -> np.ndarray:
    """Write the LDRs less their predictions, by chromosome; return the variance added, (r,).

    REGENIE divides a phenotype's residual by its standard deviation (n - p degrees of freedom)
    before it is predicted, so that the predictions are multiplied by it here.
    """
    n, r = residual.shape
    deviation = np.sqrt(np.diag(A) / (n - Q.shape[1]))
    residuals = writer.reserve("residual_ldrs", (len(codes), n, r))
    products = writer.reserve("A", (len(codes), r, r))
    added = np.zeros(r)
    for row, code in enumerate(cli.progress(codes, len(codes), "chromosome")):
        predicted = np.column_stack([source_row(file, code) for file in files]) * deviation
        here, product = projection.residual_cross_product(residual - predicted, Q)
        residuals[row] = here
        products[row] = product
        added += (np.diag(product) / np.diag(A) - 1.0) / len(codes)
    writer.add("A_chromosome", codes)
    return added


def _warn_of_bad_predictions(added: np.ndarray, warnings: list[str]) -> None:
    bad = np.flatnonzero(added > _ADDED_VARIANCE)
    if len(bad):
        cli.warn(
            f"loco_predictions: {len(bad)} of {len(added)} components vary more without their "
            f"predictions than with them (LDR{bad[0] + 1}: {100 * added[bad[0]]:.1f} % more): "
            "these are predictions of other components, of the opposite sign or of another sample",
            warnings,
        )


def _related(
    args: argparse.Namespace,
    subjects: list[str],
    subject_id: str,
    has_offsets: bool,
    warnings: list[str],
) -> dict[str, float]:
    found = relatedness(args.kinship, subjects, subject_id)
    if found.n_pairs and not has_offsets:
        cli.warn(
            f"{found.n_pairs} pairs of the sample ({found.n_people} people) are third-degree "
            f"relatives or closer (kinship above {THIRD_DEGREE}): least squares takes them for "
            "unrelated, which makes p values too small; give loco_predictions, or remove one of "
            "each pair",
            warnings,
        )
    return {
        "threshold": THIRD_DEGREE,
        "n_pairs": found.n_pairs,
        "n_people": found.n_people,
        "n_pairs_listed": found.n_pairs_listed,
    }


def _from_cross_product(args: argparse.Namespace) -> None:
    """Write the null model of people who are not at hand: A, n and p."""
    for name in ("ldrs", "subjects", "covariates", "kinship"):
        if getattr(args, name) is not None:
            raise InputError(f"--{name} and --residual-cross-product exclude each other")
    if args.loco_predictions:
        raise InputError("--loco-predictions needs people: give ldrs and covariates")
    if args.bases is None or args.n_subjects < 1 or args.n_covariates < 0:
        raise InputError(
            "--residual-cross-product needs --bases, --n-subjects (at least 1) and "
            "--n-covariates (without the intercept, at least 0)"
        )
    n, p = args.n_subjects, args.n_covariates + 1
    A = _read_cross_product(args.residual_cross_product)
    if n - p - 1 < len(A):
        raise InputError(
            f"--n-subjects {n} is too small for {args.n_covariates} covariates and {len(A)} "
            "components"
        )
    with formats.open_file(args.bases, "bases") as bases:
        if bases["bases"].shape[1] != len(A):
            raise InputError(
                f"{args.residual_cross_product}: has {len(A)} components, but {args.bases.name} "
                f"has {bases['bases'].shape[1]}: give the cross-product of the LDRs of these bases"
            )
        with formats.create(
            args.out,
            "null",
            {"sample_hash": "", "covariates": []},
            inputs={"bases": bases.digest},
            parameters={"n_subjects": n, "n_covariates": args.n_covariates},
            code=args.code,
        ) as writer:
            writer.add("A", A[None])
            writer.add("A_chromosome", [0])
            writer.add("Sigma", A / n)
            writer.add("size", [n, p])
    cli.report(f"{n} subjects, {p} covariates with the intercept, {len(A)} LDRs, as given")
    numbers = {"n": n, "p": p, "r": len(A), "covariates_used": [], "covariates_redundant": []}
    cli.write_summary(args.summary, "fit_null", numbers)


def _read_cross_product(path: Path) -> np.ndarray:
    """Read A (r, r): tab-separated, a header LDR1 to LDRr and r lines."""
    rows = list(csv.reader(text_lines(path, "residual cross-product"), delimiter="\t"))
    r = len(rows[0])
    if [name.strip() for name in rows[0]] != [f"LDR{number}" for number in range(1, r + 1)]:
        raise InputError(f"{path}: line 1 should be LDR1 to LDRr, separated by tabs")
    if len(rows) != r + 1:
        raise InputError(f"{path}: has {len(rows) - 1} lines below the header, but {r} are due")
    A = np.empty((r, r))
    for number, row in enumerate(rows[1:], start=2):
        try:
            A[number - 2] = [float(word) for word in row]
        except ValueError as error:
            raise InputError(f"{path}: line {number} does not hold {r} numbers") from error
    scale = np.sqrt(np.abs(np.diag(A)))
    if not np.isfinite(A).all() or (np.abs(A - A.T) > 1e-6 * np.outer(scale, scale)).any():
        raise InputError(f"{path}: is not symmetric, or has a value that is not finite")
    A = 0.5 * (A + A.T)
    if np.linalg.eigvalsh(A)[0] <= 0:
        raise InputError(f"{path}: is not positive definite: it is no cross-product of residuals")
    return A


if __name__ == "__main__":
    cli.run(main)
