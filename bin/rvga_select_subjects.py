#!/usr/bin/env python3
"""Select the one sample and the one set of voxels of a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rvga import cli, formats, samples
from rvga.covariates import read_covariates
from rvga.errors import InputError
from rvga.geometry import map_stem, write_map
from rvga.images import ImageSet, block_rows
from rvga.projection import factor_covariates
from rvga.sample_selection import Lists, Source, select_sample

MANY_DROPPED = 0.1


def parser():
    """Return the option parser."""
    result = cli.make_parser(__doc__)
    add = result.add_argument
    add("--images", type=Path, nargs="+", required=True, help="images files, all batches")
    add("--covariates", type=Path, required=True, help="table with a 'subject' column")
    add("--covariate-columns", type=cli.names, default=[], help="columns to use; none is all")
    add("--categorical-columns", type=cli.names, default=[], help="columns of labels")
    add("--samples", type=Path, nargs="+", default=[], help=".psam or .fam files; none is all")
    add("--keep", type=Path, help="list of subjects to keep")
    add("--remove", type=Path, help="list of subjects to remove")
    add("--subject-id", choices=samples.SUBJECT_IDS, default="IID", help="what names a subject")
    add("--min-coverage", type=cli.number_between(0, 1, open_low=True), default=1.0,
        help="least share of subjects with a value; below 1 the voxel's mean fills in")  # fmt: skip
    add("--out", type=Path, required=True, help="subjects file to write")
    add("--out-coverage", type=Path,
        help="map of the share of subjects with a value, in the images' format")  # fmt: skip
    return result


class Voxels:
    """What is found of every voxel, over the rows of the final sample only.

    Attributes
    ----------
    covered, total, low, high : (N,)
        Number, sum, smallest and largest of the finite values.
    incomplete, flat : int
        Subjects that lack a value, and subjects with one value everywhere.
    """

    def __init__(self, N: int):
        self.covered = np.zeros(N, dtype=np.int64)
        self.total = np.zeros(N)
        self.low = np.full(N, np.inf, dtype=np.float32)
        self.high = np.full(N, -np.inf, dtype=np.float32)
        self.incomplete = self.flat = 0

    def add(self, block: np.ndarray) -> None:
        """Take in some images (n, N)."""
        total = block.sum(axis=0, dtype=np.float64)
        if np.isfinite(total).all():
            # Nobody lacks a value, which is the rule: much less to do.
            self.covered += len(block)
            self.total += total
            self.low = np.minimum(self.low, block.min(axis=0))
            self.high = np.maximum(self.high, block.max(axis=0))
            for row in block[block[:, 0] == block[:, -1]]:
                self.flat += int(row.min() == row.max())
            return
        finite = np.isfinite(block)
        self.covered += finite.sum(axis=0)
        self.total += np.where(finite, block, 0.0).sum(axis=0, dtype=np.float64)
        self.incomplete += int((~finite.all(axis=1)).sum())
        for_low = np.where(finite, block, np.float32(np.inf))
        self.low = np.minimum(self.low, for_low.min(axis=0))
        row_low = for_low.min(axis=1)
        for_high = np.where(finite, block, np.float32(-np.inf))
        self.high = np.maximum(self.high, for_high.max(axis=0))
        self.flat += int((row_low == for_high.max(axis=1)).sum())


def incomplete_rows(
    images: ImageSet, subjects: Sequence[str], voxel_index: np.ndarray
) -> np.ndarray:
    """Return how many of the kept voxels lack a value, by subject."""
    blocks = images.blocks(subjects)
    lacking = [(~np.isfinite(block[:, voxel_index])).sum(axis=1) for _, _, block in blocks]
    return np.concatenate(lacking)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    warnings: list[str] = []
    table = read_covariates(
        args.covariates, args.covariate_columns, args.categorical_columns, args.subject_id
    )
    with cli.threads(1), ImageSet(args.images) as images:
        sample, matches, unknown = select_sample(
            images.subject,
            Source("images", "images'", "images", "have an image"),
            table,
            Lists(args.samples, args.keep, args.remove, args.subject_id),
        )
        for message in unknown:
            cli.warn(message, warnings)
        if images.other_maps:
            cli.warn(
                f"{images.other_maps} of {len(args.images)} batches begin with an image whose maps "
                "have other names than those of the first batch: they are taken by their order; "
                "choose them by name with --cifti_maps if they are not the same maps",
                warnings,
            )
        subjects = samples.sort_by_bytes(sample.subjects)
        n, N = len(subjects), images.n_voxels
        # Covariates that cannot be used are found here, before the long stages.
        factor_covariates(*table.design(subjects), table.path.name)

        cli.state_memory("images being checked", 28 * block_rows(N) * N)
        digest = images.digest(subjects)
        voxels = Voxels(N)
        size = block_rows(images.n_voxels)
        n_blocks = -(-n // size)
        for _, _, block in cli.progress(images.blocks(subjects), n_blocks, "block"):
            voxels.add(block)
        geometry = images.geometry
        n_incomplete = np.zeros(0)
        lacking = voxels.covered < args.min_coverage * n - 1e-9
        constant = ~lacking & (voxels.low >= voxels.high)
        voxel_index = np.flatnonzero(~lacking & ~constant)
        if args.min_coverage < 1.0:
            n_incomplete = incomplete_rows(images, subjects, voxel_index)
    incomplete, flat_images = voxels.incomplete, voxels.flat
    if len(voxel_index) < 2:
        raise InputError(
            f"images: {len(voxel_index)} of {N} voxels can be used ({int(lacking.sum())} have a "
            f"value in less than {args.min_coverage:g} of the subjects, {int(constant.sum())} are "
            "constant); at least 2 are needed: check the mask and the images, lower min_coverage, "
            "or remove subjects without full coverage"
        )
    if lacking.mean() > MANY_DROPPED:
        cli.warn(
            f"{int(lacking.sum())} of {N} voxels are left out because {incomplete} subjects lack "
            "values; removing those subjects, or a lower min_coverage, would keep the voxels",
            warnings,
        )
    if constant.mean() > MANY_DROPPED:
        cli.warn(f"{int(constant.sum())} of {N} voxels are constant and left out", warnings)
    filled = int((n - voxels.covered[voxel_index]).sum())
    if filled:
        cli.warn(
            f"{filled} missing values of {int((n_incomplete > 0).sum())} subjects are filled in "
            f"with the voxel's mean (min_coverage {args.min_coverage:g})",
            warnings,
        )
    if flat_images:
        cli.warn(f"{flat_images} of {n} images have one value everywhere in the mask", warnings)

    sample_hash = samples.sample_hash(subjects)
    with formats.create(
        args.out,
        "subjects",
        {"sample_hash": sample_hash, "flow": sample.flow},
        inputs={"images": digest.hexdigest()},
        parameters={
            "min_coverage": args.min_coverage,
            "covariate_columns": args.covariate_columns,
            "categorical_columns": args.categorical_columns,
            "subject_id": args.subject_id,
        },
        code=args.code,
    ) as writer:
        writer.add("subject", subjects)
        writer.add("voxel_index", voxel_index)
        writer.add("voxel_mean", voxels.total[voxel_index] / voxels.covered[voxel_index])
    if args.out_coverage:
        write_map(map_stem(args.out_coverage), voxels.covered / n, geometry)
    numbers = {
        "n": n,
        "sample_hash": sample_hash,
        "flow": sample.flow,
        "matches": matches,
        "n_genotype_files": len(args.samples),
        "covariates": table.columns,
        "n_voxels_mask": N,
        "n_voxels": len(voxel_index),
        "n_voxels_dropped_coverage": int(lacking.sum()),
        "n_voxels_dropped_constant": int(constant.sum()),
        "n_subjects_incomplete_images": incomplete,
        "n_subjects_constant_images": flat_images,
        "coverage": {
            "min_coverage": args.min_coverage,
            "lowest": float(voxels.covered.min() / n),
            "mean": float(voxels.covered.mean() / n),
            "n_voxels_full": int((voxels.covered == n).sum()),
            "n_values_filled": filled,
            "n_subjects_filled": int((n_incomplete > 0).sum()),
            "largest_share_filled": float(n_incomplete.max(initial=0) / len(voxel_index)),
        },
        "geometry_type": geometry.type,
        "parts": geometry.part_names if len(geometry.part_names) > 1 else [],
    }
    cli.report(f"{n} subjects, {len(voxel_index)} of {N} voxels")
    cli.write_summary(args.summary, "select_subjects", numbers, warnings)


if __name__ == "__main__":
    cli.run(main)
