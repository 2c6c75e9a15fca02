#!/usr/bin/env python3
"""Project raw images on the bases: low-dimensional representations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rvga import cli, formats, projection, samples, tables
from rvga.atomic import replacing
from rvga.covariance import prefetched
from rvga.errors import InputError
from rvga.genotype_samples import read_sample_table
from rvga.geometry import geometry_of
from rvga.images import ImageSet, block_rows, filled, require_same_images
from rvga.parallel import ordered_map
from rvga.voxel_match import columns_of

# Images of another cohort must hold this share of the voxels of the bases.
LEAST_SHARED = 0.9


def parser():
    """Return the option parser."""
    result = cli.make_parser(__doc__)
    add = result.add_argument
    add("--images", type=Path, nargs="+", required=True, help="images files, all batches")
    add("--subjects", type=Path, required=True, help="subjects file")
    add("--bases", type=Path, required=True, help="bases file, of this sample or another")
    add("--samples", type=Path, help=".psam or .fam file, for the family ids of --phenotypes")
    add("--subject-id", choices=samples.SUBJECT_IDS, default="IID", help="what names a subject")
    add("--out", type=Path, required=True, help="LDRs file to write")
    add("--table", type=Path, required=True, help="the same as a table (TSV)")
    add("--phenotypes", type=Path, help="the same as phenotypes for PLINK and REGENIE")
    add("--outliers", type=Path, help="table of subjects far from all others (TSV)")
    return result


class Match:
    """Where the voxels of the bases are among the images.

    Attributes
    ----------
    present : (N,)
        Voxels of the bases that the images have, and the sample keeps.
    columns : (number present,)
        Their columns in the images files.
    voxel_mean : (number present,)
        What stands for a subject's missing value there.
    n_unused : int
        Voxels that the sample keeps and the bases do not have.

    Raises
    ------
    InputError
        Too few voxels of the bases are there.
    """

    def __init__(self, based: formats.Envelope, selected: formats.Envelope, images: ImageSet):
        voxel_index = selected["voxel_index"][...]
        voxel_mean = np.full(images.n_voxels, np.nan)
        if "voxel_mean" in selected:
            voxel_mean[voxel_index] = selected["voxel_mean"][...]
        kept = np.zeros(images.n_voxels + 1, dtype=bool)
        kept[voxel_index] = True
        column = columns_of(geometry_of(based), images.geometry, based.path.name)
        # An absent voxel is column -1, the last entry, which is never kept.
        self.present = kept[column]
        self.columns = column[self.present]
        self.voxel_mean = voxel_mean[self.columns]
        N = len(column)
        found = int(self.present.sum())
        self.n_unused = len(voxel_index) - found
        if found < LEAST_SHARED * N:
            raise InputError(
                f"{based.path.name}: the images have {found} of its {N} voxels "
                f"({found / N:.1%}), but {LEAST_SHARED:.0%} are needed: use a wider mask, lower "
                "min_coverage, or make new bases"
            )


def phenotype_lines(
    subjects: Sequence[str], ldrs: np.ndarray, sample_file: Path | None, subject_id: str
) -> Iterator[str]:
    """Yield the lines of a phenotype file with FID and IID; FID is 0 where none is known."""
    people = {subject: ("0", subject) for subject in subjects}
    if sample_file is not None:
        table = read_sample_table(sample_file)
        for fid, iid in zip(table.fid, table.iid, strict=True):
            people[samples.subject_of(fid, iid, subject_id)] = (fid, iid)
    yield "\t".join(["FID", "IID", *(f"LDR{k}" for k in range(1, ldrs.shape[1] + 1))]) + "\n"
    for subject, row in zip(subjects, ldrs, strict=True):
        fid, iid = people[subject]
        yield "\t".join([fid, iid, *(f"{value:.10g}" for value in row)]) + "\n"


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
        same_sample = based.inputs.get("subjects") == selected.digest
        subjects = list(selected.array("subject"))
        match = Match(based, selected, images)
        bases = based["bases"][...].astype(np.float64)
        n, (N, r) = len(subjects), bases.shape
        size = block_rows(images.n_voxels)
        cli.state_memory(
            f"{n} x {r} LDRs",
            8.0 * (2 * N * r + 6 * n * r) + (args.threads + 3) * 16 * size * images.n_voxels,
        )
        # A voxel that the images lack has the mean of the bases' own sample in everybody.
        absent_mean = based["mean"][...][~match.present]
        absent_share = absent_mean @ bases[~match.present]
        present = bases[match.present]
        n_absent = N - len(present)

        digest = images.new_digest()

        def blocks() -> Iterator[np.ndarray]:
            for first, stop, block in images.blocks(subjects):
                digest.update(subjects[first:stop], block)
                yield filled(block, match.columns, match.voxel_mean)

        def represent(block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            raw = block.astype(np.float64)
            return (
                projection.project(raw, present) + absent_share,
                raw.sum(axis=1) + absent_mean.sum(),
                np.einsum("nv,nv->n", raw, raw) + absent_mean @ absent_mean,
            )

        ldrs = np.empty((n, r))
        image_sum = np.empty(n)
        image_squares = np.empty(n)
        first = 0
        done = ordered_map(represent, prefetched(blocks()), args.threads)
        for found in cli.progress(done, -(-n // size), "block"):
            rows = slice(first, first + len(found[0]))
            ldrs[rows], image_sum[rows], image_squares[rows] = found
            first = rows.stop
        require_same_images(digest, selected)

        numbers_of_components = projection.quality_numbers(r)
        correlation = projection.reconstruction_correlation(
            ldrs, bases, image_sum, image_squares, numbers_of_components
        )
        defined = np.isfinite(correlation).sum(axis=1)
        quality = np.full(len(defined), np.nan)
        quality[defined > 0] = np.nanmean(correlation[defined > 0], axis=1)
        undefined = int(n - defined[-1])
        distances = projection.robust_distances(ldrs)
        outlying = distances.outlying
        if not same_sample:
            cli.report(f"{args.bases.name} was made from another sample")
        if n_absent:
            cli.warn(
                f"{n_absent} of the {N} voxels of the bases are not in these images: the mean of "
                "the bases' own sample stands for them in everybody",
                warnings,
            )
        if undefined:
            cli.warn(f"{undefined} images do not vary and have no reconstruction", warnings)
        if len(outlying):
            cli.warn(
                f"{len(outlying)} of {n} subjects lie far from all others in the space of the "
                "LDRs; they are listed and stay in the analysis",
                warnings,
            )
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
            if args.phenotypes is not None:
                lines = phenotype_lines(subjects, ldrs, args.samples, args.subject_id)
                with replacing(args.phenotypes) as temporary, temporary.open("w") as file:
                    file.writelines(lines)
            if args.outliers is not None:
                listed = pd.DataFrame(
                    {
                        "subject": [subjects[row] for row in outlying],
                        "squared_distance": distances.squared[outlying],
                        "threshold": distances.threshold,
                    }
                )
                tables.write_table(listed, args.outliers, "outliers")
    numbers = {
        "n": n,
        "r": r,
        "quality_components": numbers_of_components,
        "quality_correlation": [float(q) if np.isfinite(q) else None for q in quality],
        "n_images_without_reconstruction": undefined,
        "bases_of_same_sample": same_sample,
        "n_voxels_bases": N,
        "n_voxels_absent": n_absent,
        "n_voxels_unused": match.n_unused,
        "outliers": {
            "n": len(outlying),
            "threshold": distances.threshold if np.isfinite(distances.threshold) else None,
        },
    }
    cli.report(f"mean correlation of image and reconstruction: {quality[-1]:.3f}")
    cli.write_summary(args.summary, "make_ldrs", numbers, warnings)


if __name__ == "__main__":
    cli.run(main)
