#!/usr/bin/env python3
"""Read LDRs from a table and select the sample, in place of images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rvga import cli, formats, samples
from rvga.covariates import CovariateTable, read_covariates
from rvga.errors import InputError
from rvga.projection import factor_covariates
from rvga.sample_selection import Lists, Source, select_sample


def parser():
    """Return the option parser."""
    result = cli.make_parser(__doc__)
    add = result.add_argument
    add("--ldrs", type=Path, required=True, help="table: subject (or FID, IID), LDR1 to LDRr")
    add("--bases", type=Path, required=True, help="bases that the LDRs belong to")
    add("--covariates", type=Path, required=True, help="table with a 'subject' column")
    add("--covariate-columns", type=cli.names, default=[], help="columns to use; none is all")
    add("--categorical-columns", type=cli.names, default=[], help="columns of labels")
    add("--samples", type=Path, nargs="+", default=[], help=".psam or .fam files; none is all")
    add("--keep", type=Path, help="list of subjects to keep")
    add("--remove", type=Path, help="list of subjects to remove")
    add("--subject-id", choices=samples.SUBJECT_IDS, default="IID", help="what names a subject")
    add("--subjects", type=Path, required=True, help="subjects file to write")
    add("--out", type=Path, required=True, help="LDRs file to write")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    with cli.threads(1), formats.open_file(args.bases, "bases") as bases:
        N, r = bases["bases"].shape
        names = [f"LDR{number}" for number in range(1, r + 1)]
        ldrs = _read_ldrs(args, names)
        covariates = read_covariates(
            args.covariates, args.covariate_columns, args.categorical_columns, args.subject_id
        )
        cli.state_memory(f"{len(ldrs.subject)} x {r} LDRs", 60.0 * len(ldrs.subject) * r)
        sample, matches, unknown = select_sample(
            ldrs.subject,
            Source("ldrs", "LDRs'", "ldrs", "have LDRs"),
            covariates,
            Lists(args.samples, args.keep, args.remove, args.subject_id, step_by_file=True),
            complete=(ldrs.complete, "complete LDRs", "have no missing LDR"),
        )
        warnings: list[str] = []
        for message in unknown:
            cli.warn(message, warnings)
        subjects = samples.sort_by_bytes(sample.subjects)
        # Covariates that cannot be used are found here, before the long stages.
        factor_covariates(*covariates.design(subjects), covariates.path.name)
        row_of = {subject: row for row, subject in enumerate(ldrs.subject)}
        rows = [row_of[subject] for subject in subjects]
        values = np.column_stack([ldrs.numeric[name][rows] for name in names])
        sample_hash = samples.sample_hash(subjects)
        parameters = {
            "covariate_columns": args.covariate_columns,
            "categorical_columns": args.categorical_columns,
            "subject_id": args.subject_id,
        }
        with formats.create(
            args.subjects,
            "subjects",
            {"sample_hash": sample_hash, "flow": sample.flow},
            inputs={"bases": bases.digest},
            parameters=parameters,
            code=args.code,
        ) as writer:
            writer.add("subject", subjects)
            writer.add("voxel_index", np.arange(N))
        try:
            _write_ldrs(args, bases, subjects, values)
        except BaseException:
            args.subjects.unlink(missing_ok=True)
            raise
    numbers = {
        "n": len(subjects),
        "r": r,
        "sample_hash": sample_hash,
        "flow": sample.flow,
        "matches": matches,
        "n_genotype_files": len(args.samples),
        "covariates": covariates.columns,
        "n_voxels": N,
    }
    cli.report(f"{len(subjects)} subjects, {r} LDRs")
    cli.write_summary(args.summary, "import_ldrs", numbers, warnings)


def _read_ldrs(args: argparse.Namespace, names: list[str]) -> CovariateTable:
    table = read_covariates(args.ldrs, [], [], args.subject_id)
    found = [name for name in table.columns if name.startswith("LDR")]
    if sorted(found) != sorted(names):
        raise InputError(
            f"{args.ldrs}: its columns of LDRs ({', '.join(found[:3]) or 'none'}, {len(found)} in "
            f"all) are not LDR1 to LDR{len(names)}, the components of {args.bases.name}; give the "
            "LDRs of these bases"
        )
    extra = next((name for name in table.columns if name not in names), None)
    if extra is not None:
        raise InputError(
            f"{args.ldrs}: column '{extra}' is no LDR; keep the subject and LDR1 to LDR"
            f"{len(names)}, and give covariates in their own table"
        )
    return table


def _write_ldrs(
    args: argparse.Namespace, bases: formats.Envelope, subjects: list[str], values: np.ndarray
) -> None:
    with formats.open_file(args.subjects, "subjects") as selected:
        inputs = {"subjects": selected.digest, "bases": bases.digest}
    with formats.create(args.out, "ldrs", {}, inputs=inputs, code=args.code) as writer:
        writer.add("ldrs", values)
        writer.add("subject", subjects)
        # Without images nothing is known of the reconstruction.
        writer.add("quality_components", np.empty(0, dtype=np.int64))
        writer.add("quality_correlation", np.empty(0))


if __name__ == "__main__":
    cli.run(main)
