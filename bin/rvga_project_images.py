#!/usr/bin/env python3
"""Project a batch of raw images on the bases: the rows that are in the sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rvga import cli, formats
from rvga.errors import InputError
from rvga.geometry import geometry_of
from rvga.images import ImageSet, filled, geometry_digest
from rvga.parallel import ordered_map, read_ahead
from rvga.projection import Projection, tile_rows
from rvga.voxel_match import columns_of, require_maps_in_order

# Images of another cohort must hold this share of the voxels of the bases.
LEAST_SHARED = 0.9


def parser():
    """Return the option parser."""
    result = cli.make_parser(__doc__)
    add = result.add_argument
    add("--images", type=Path, required=True, help="images file of the batch")
    add("--subjects", type=Path, required=True, help="subjects file")
    add("--bases", type=Path, required=True, help="bases file, of this sample or another")
    add("--out", type=Path, required=True, help="scores file to write")
    return result


class Match:
    """Where the voxels of the bases are among the images.

    Attributes
    ----------
    present : (N,)
        Voxels of the bases that the images have, and the sample keeps.
    columns : (number present,) or slice
        Their columns in the images file.
    voxel_mean : (number present,)
        What stands for a subject's missing value there.
    n_absent, n_unfit : int
        Voxels of the bases that the images lack, and that they have but the sample does not
        keep (constant, or with a value in too few subjects).
    n_unused : int
        Voxels that the sample keeps and the bases do not have.

    Raises
    ------
    InputError
        Too few voxels of the bases are there, or the sample is of other images.
    """

    def __init__(self, based: formats.Envelope, selected: formats.Envelope, images: ImageSet):
        voxel_index = selected["voxel_index"][...]
        if voxel_index.max(initial=-1) >= images.n_voxels:
            raise InputError(
                f"{selected.path.name} was not made from these images: it keeps voxels beyond "
                f"their {images.n_voxels}; give files of the same run"
            )
        voxel_mean = np.full(images.n_voxels, np.nan)
        if "voxel_mean" in selected:
            voxel_mean[voxel_index] = selected["voxel_mean"][...]
        kept = np.zeros(images.n_voxels + 1, dtype=bool)
        kept[voxel_index] = True
        if "map_order" in based:
            named = list(based.array("map_order"))
            require_maps_in_order(named, images.map_orders, based.path.name)
        column = columns_of(geometry_of(based), images.geometry, based.path.name)
        # An absent voxel is column -1, the last entry, which is never kept.
        self.present = kept[column]
        self.columns: np.ndarray | slice = column[self.present]
        self.voxel_mean = voxel_mean[self.columns]
        N = len(column)
        found = int(self.present.sum())
        if np.array_equal(self.columns, np.arange(images.n_voxels)):
            self.columns = slice(None)  # no copy of the images is needed
        self.n_absent = int((column < 0).sum())
        self.n_unfit = N - found - self.n_absent
        self.n_unused = len(voxel_index) - found
        if found < LEAST_SHARED * N:
            raise InputError(
                f"{based.path.name}: the images have {found} of its {N} voxels "
                f"({found / N:.1%}), but {LEAST_SHARED:.0%} are needed ({self.n_absent} are not "
                f"in the images, {self.n_unfit} are constant or lack values in the sample): use a "
                "wider mask, lower min_coverage, or make new bases"
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    with (
        cli.threads(1),
        formats.open_file(args.subjects, "subjects") as selected,
        formats.open_file(args.bases, "bases") as based,
        ImageSet([args.images]) as images,
    ):
        sample = set(selected.array("subject"))
        subjects = [subject for subject in images.subject if subject in sample]
        match = Match(based, selected, images)
        # A voxel that images or sample lack has the mean of the bases' own sample in everybody.
        constant = based["mean"][...][~match.present]
        n, (N, r) = len(subjects), based["bases"].shape
        size = tile_rows(len(match.voxel_mean))
        cli.state_memory(
            f"{n} images of {images.n_voxels} voxels, {size} at a time",
            12.0 * N * r + (args.threads + 3) * 16.0 * size * images.n_voxels,
        )
        projection = Projection(based["bases"][...], match.present, constant, match.voxel_mean)
        image_sum = np.empty(n)
        image_squares = np.empty(n)
        image_times_mean = np.empty(n)

        def tiles() -> Iterator[np.ndarray]:
            for _, _, block in images.blocks(subjects, size):
                yield filled(block, match.columns, match.voxel_mean)

        attributes = {
            "geometry_digest": geometry_digest(images.geometry),
            "n_voxels_absent": match.n_absent,
            "n_voxels_unfit": match.n_unfit,
            "n_voxels_unused": match.n_unused,
        }
        made_from = {"subjects": selected.digest, "bases": based.digest}
        with formats.create(
            args.out, "scores", attributes, inputs=made_from, code=args.code
        ) as writer:
            ldrs = writer.reserve("ldrs", (n, r))
            first = 0
            done = ordered_map(projection.scores, read_ahead(tiles(), 1), args.threads)
            for found in cli.progress(done, -(-n // size), "block"):
                rows = slice(first, first + len(found.ldrs))
                ldrs[rows] = found.ldrs
                image_sum[rows] = found.image_sum
                image_squares[rows] = found.image_sum_of_squares
                image_times_mean[rows] = found.image_times_mean
                first = rows.stop
            writer.add("subject", subjects)
            writer.add("image_sum", image_sum)
            writer.add("image_sum_of_squares", image_squares)
            writer.add("image_times_mean", image_times_mean)
            writer.add("image_digest", images.digests(subjects))
    numbers = {
        "n_images": len(images.subject),
        "n_projected": n,
        "r": r,
        "n_voxels_absent": match.n_absent,
        "n_voxels_unfit": match.n_unfit,
        "n_voxels_unused": match.n_unused,
    }
    cli.report(f"{n} of {len(images.subject)} images are of the sample")
    cli.write_summary(args.summary, "project_images", numbers)


if __name__ == "__main__":
    cli.run(main)
