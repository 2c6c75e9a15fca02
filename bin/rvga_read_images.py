#!/usr/bin/env python3
"""Read a batch of images inside a mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from rvga import cli, formats, images
from rvga.errors import InputError
from rvga.geometry import Geometry, add_geometry


def parser():
    """Return the option parser."""
    result = cli.make_parser(__doc__)
    add = result.add_argument
    add("--images", type=Path, nargs="+", required=True, help="NIfTI images, one a subject")
    add("--subjects", type=Path, required=True, help="subject ids, one a line, in that order")
    add("--mask", type=Path, required=True, help="NIfTI mask: voxels above 0")
    add("--out", type=Path, required=True, help="images file to write")
    return result


def rows(paths: Sequence[Path], geometry: Geometry, mask: str, threads: int) -> Iterator:
    """Yield the images' values in order, a few files ahead."""
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(paths), 4 * threads):
            some = paths[first : first + 4 * threads]
            yield from pool.map(lambda path: images.read_image(path, geometry, mask), some)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    subjects = images.read_subject_list(args.subjects)
    if len(subjects) != len(args.images):
        raise InputError(
            f"{args.subjects}: holds {len(subjects)} subject ids for {len(args.images)} images; "
            "one id an image is needed"
        )
    geometry = images.read_mask(args.mask)
    n, N = len(subjects), len(geometry.index)
    cells = float(np.prod(geometry.shape))
    cli.state_memory("images being read", 4 * args.threads * (16 * cells + 4 * N) + 24 * N)

    count = np.zeros(N, dtype=np.int64)
    total = np.zeros(N)
    squares = np.zeros(N)
    incomplete = 0
    warnings: list[str] = []
    attributes = {"geometry_type": geometry.type}
    with (
        cli.threads(1),
        formats.create(args.out, "images", attributes, code=args.code) as writer,
    ):
        stored = writer.reserve("images", (n, N), chunks=images.image_chunk(N))
        read = rows(args.images, geometry, args.mask.name, args.threads)
        for row, values in enumerate(cli.progress(read, n, "image")):
            stored[row] = values
            finite = np.isfinite(values)
            incomplete += not finite.all()
            value = np.where(finite, values, 0.0).astype(np.float64)
            count += finite
            total += value
            squares += value * value
        writer.add("subject", subjects)
        writer.add("coordinates", geometry.coordinates)
        writer.add("voxel_count", count)
        writer.add("voxel_sum", total)
        writer.add("voxel_sum_of_squares", squares)
        add_geometry(writer, geometry)
        missing = int(n * N - count.sum())
        if missing:
            cli.warn(
                f"{incomplete} of {n} images have values that are not finite inside the mask "
                f"({missing} in all); such voxels will be left out",
                warnings,
            )
    numbers = {
        "n_images": n,
        "n_voxels": N,
        "n_images_not_finite": incomplete,
        "n_values_not_finite": missing,
    }
    cli.write_summary(args.summary, "read_images", numbers, warnings)


if __name__ == "__main__":
    cli.run(main)
