#!/usr/bin/env python3
"""Project raw images on the bases: low-dimensional representations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rvga import cli, formats, projection, tables
from rvga.errors import InputError
from rvga.images import ImageSet, block_rows, require_finite, require_same_images


def parser():
    """Return the option parser."""
    result = cli.make_parser(__doc__)
    add = result.add_argument
    add("--images", type=Path, nargs="+", required=True, help="images files, all batches")
    add("--subjects", type=Path, required=True, help="subjects file")
    add("--bases", type=Path, required=True, help="bases file")
    add("--out", type=Path, required=True, help="LDRs file to write")
    add("--table", type=Path, required=True, help="the same as a table (TSV)")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    warnings: list[str] = []
    with (
        cli.threads(1),
        formats.open_file(args.subjects, "subjects") as selected,
        formats.open_file(args.bases, "bases") as based,
        ImageSet(args.images) as images,
    ):
        based.require_made_from("subjects", selected)
        subjects = list(selected.array("subject"))
        voxel_index = selected["voxel_index"][...]
        bases = based["bases"][...].astype(np.float64)
        n, (N, r) = len(subjects), bases.shape
        if len(voxel_index) != N:
            raise InputError(
                f"{args.bases}: has {N} voxels, but {args.subjects} keeps {len(voxel_index)}; "
                "give files of the same run"
            )
        size = block_rows(images.n_voxels)
        cli.state_memory(f"{n} x {r} LDRs", 8.0 * (N * r + 3 * n * r) + 24 * size * N)

        ldrs = np.empty((n, r))
        image_sum = np.empty(n)
        image_squares = np.empty(n)
        digest = images.new_digest()
        n_blocks = -(-n // size)
        for first, stop, block in cli.progress(images.blocks(subjects), n_blocks, "block"):
            digest.update(subjects[first:stop], block)
            raw = block[:, voxel_index].astype(np.float64)
            require_finite(raw, subjects[first:stop])
            ldrs[first:stop] = projection.project(raw, bases)
            image_sum[first:stop] = raw.sum(axis=1)
            image_squares[first:stop] = np.einsum("nv,nv->n", raw, raw)
        require_same_images(digest, selected)

        numbers_of_components = projection.quality_numbers(r)
        correlation = projection.reconstruction_correlation(
            ldrs, bases, image_sum, image_squares, numbers_of_components
        )
        defined = np.isfinite(correlation).sum(axis=1)
        quality = np.full(len(defined), np.nan)
        quality[defined > 0] = np.nanmean(correlation[defined > 0], axis=1)
        undefined = int(n - defined[-1])
        outliers = int(projection.outlying_subjects(ldrs).sum())
        if undefined:
            cli.warn(f"{undefined} images do not vary and have no reconstruction", warnings)
        if outliers:
            cli.warn(f"{outliers} of {n} subjects lie far from all others", warnings)
        with formats.create(
            args.out,
            "ldrs",
            {},
            inputs={"subjects": selected.digest, "bases": based.digest},
            code=args.code,
        ) as writer:
            writer.add("ldrs", ldrs)
            writer.add("subject", subjects)
            writer.add("quality_components", numbers_of_components)
            writer.add("quality_correlation", quality)
            frame = pd.DataFrame(ldrs, columns=[f"LDR{k}" for k in range(1, r + 1)])
            frame.insert(0, "subject", subjects)
            tables.write_table(frame, args.table, "ldrs")
    numbers = {
        "n": n,
        "r": r,
        "quality_components": numbers_of_components,
        "quality_correlation": [float(q) if np.isfinite(q) else None for q in quality],
        "n_images_without_reconstruction": undefined,
        "n_outlying_subjects": outliers,
    }
    cli.report(f"mean correlation of image and reconstruction: {quality[-1]:.3f}")
    cli.write_summary(args.summary, "make_ldrs", numbers, warnings)


if __name__ == "__main__":
    cli.run(main)
