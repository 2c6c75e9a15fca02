#!/usr/bin/env python3
"""Read a batch of images: volumes, surfaces, CIFTI or a table, of one part or several."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from rvga import cli, formats, images
from rvga.errors import InputError
from rvga.geometry import add_geometry, join
from rvga.image_files import by, is_compressed
from rvga.image_parts import (
    COORDINATE_RULES,
    PartFiles,
    PartReader,
    Rules,
    open_part,
    pair_files,
    part_files,
)


def share(text: str) -> tuple[int, int]:
    """Parse ``2/8``, the second of eight shares."""
    first, _, second = text.partition("/")
    if not (first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second)):
        raise argparse.ArgumentTypeError(f"'{text}' is no share such as 2/8")
    return int(first), int(second)


def yes_or_no(text: str) -> bool:
    """Parse ``true`` or ``false``."""
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return text == "true"


def parser():
    """Return the option parser."""
    result = cli.make_parser(__doc__)
    add = result.add_argument
    add("--images", type=Path, nargs="+", required=True,
        help="one file a subject (all of one part, then of the next), or one a part")  # fmt: skip
    add("--subjects", type=Path, nargs="+", default=[],
        help="ids, one a line, in order; with --share a list a part; none for tables")  # fmt: skip
    add("--share", type=share, help="files of many subjects: read this share, such as 2/8")
    add("--part", action="append", default=[],
        help="name:mask:surfaces:coordinates by the files' numbers (0 none, 1+2 two)")  # fmt: skip
    add("--mask", type=Path, nargs="+", default=[], help="voxels above 0 are kept")
    add("--surface", type=Path, nargs="+", default=[], help="GIFTI or FreeSurfer surfaces")
    add("--coordinates", type=Path, nargs="+", default=[], help="tables voxel, x, y, z")
    add("--coordinate-rule", choices=COORDINATE_RULES, default="auto",
        help="index: number of the column; none: no smoothing")  # fmt: skip
    add("--cifti-maps", default="all", help="all, or names or numbers separated by commas")
    add("--zero-is-missing", type=yes_or_no, default=False, help="true: a 0 is a missing value")
    add("--out", type=Path, required=True, help="images file to write")
    return result


def given_parts(args) -> list[PartFiles]:
    """Return the files of each part; without ``--part`` there is one, with all that is given."""
    if not args.part:
        if len(args.mask) > 1 or len(args.coordinates) > 1:
            raise InputError("several masks or tables of coordinates need --part, one for each")
        first = [*args.mask, None][0], tuple(args.surface), [*args.coordinates, None][0]
        return [PartFiles("", *first)]
    parts = [part_files(text, args.mask, args.surface, args.coordinates) for text in args.part]
    named = [part.name for part in parts]
    if len(parts) > 1 and (len(set(named)) < len(named) or not all(named)):
        raise InputError(f"--part: each part needs a name of its own ({', '.join(named)})")
    return parts


def read_files(
    reader: PartReader, files: Sequence[tuple[Path, Path | None, Path | None]], threads: int
) -> Iterator[np.ndarray]:
    """Yield the images' values in order, a few files ahead."""
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(files), 4 * threads):
            yield from pool.map(lambda of: reader.read(*of), files[first : first + 4 * threads])


class Batch:
    """What is known of each part: its reader, and where its values come from."""

    def __init__(self, args):
        self.args = args
        self.parts = given_parts(args)
        self.rules = Rules(
            args.coordinate_rule,
            () if args.cifti_maps == "all" else tuple(cli.names(args.cifti_maps)),
            args.zero_is_missing,
        )
        self.warnings: list[str] = []
        self.collective = args.share is not None or not args.subjects
        lists = [images.read_subject_list(path) for path in args.subjects]
        if self.collective:
            self._open_collective(lists)
        else:
            self._open_single(lists)

    def _open_single(self, lists: list[list[str]]) -> None:
        if len(lists) != 1:
            raise InputError("--subjects: one list is due for images of one subject each")
        self.subjects = lists[0]
        files = pair_files(self.args.images)
        n, k = len(self.subjects), len(self.parts)
        if n * k != len(files):
            times = f" in {k} parts" if k > 1 else ""
            raise InputError(
                f"{self.args.subjects[0]}: holds {n} subject ids for {len(files)} images{times}; "
                "one id an image is needed"
            )
        self.files = [files[n * part : n * (part + 1)] for part in range(k)]
        self.readers = [
            open_part(part, self.rules, of[0][0])
            for part, of in zip(self.parts, self.files, strict=True)
        ]
        if any(reader.collective for reader in self.readers):
            raise InputError(
                f"{self.args.images[0]}: is a table of subjects, not the image of one; give the "
                "table itself as --images"
            )
        for of, reader in zip(self.files, self.readers, strict=True):
            if reader.maps is not None and len(reader.maps.chosen) > 1:
                cli.report(
                    f"{of[0][0].name}: {len(reader.maps.chosen)} maps an image, one after another"
                )

    def warn_of_maps(self) -> None:
        """Say how many images have maps of other names than the first; only order tells them."""
        others = sum(len(reader.maps.others) for reader in self.readers if reader.maps)
        if others:
            cli.warn(
                f"{others} of {len(self.subjects)} images have maps of other names than the first "
                "image of their part: they are taken by their order; choose them by name with "
                "--cifti_maps if they are not the same maps",
                self.warnings,
            )

    def _open_collective(self, lists: list[list[str]]) -> None:
        paths = self.args.images
        if len(paths) != len(self.parts):
            raise InputError(
                f"{len(paths)} files of many subjects for {len(self.parts)} parts; one a part is "
                "needed"
            )
        if lists and len(lists) != len(paths):
            raise InputError(
                f"{len(lists)} lists of subjects for {len(paths)} files; one for each is needed"
            )
        self.readers = []
        for number, (part, path) in enumerate(zip(self.parts, paths, strict=True)):
            listed = lists[number] if lists else None
            reader = open_part(part, self.rules, path, listed)
            if not reader.collective:
                raise InputError(
                    f"{path}: holds volumes or values without subject ids; give the list of its "
                    "subjects (--image_subjects), or a samplesheet of one image a subject"
                )
            self.readers.append(reader)
        first = self.readers[0]
        self.subjects = []
        places: dict[str, int] = {}
        for subject in first.ids(self.args.share or (1, 1)):
            if subject in places:
                raise InputError(
                    f"{paths[0]}: subject '{subject}' is there twice; keep one row a subject"
                )
            places[subject] = len(places)
            self.subjects.append(subject)
        if not self.subjects:
            raise InputError(f"{paths[0]}: holds no subject in share {self.args.share}")
        self._places = places
        self._warn_of_columns()
        if self.args.share is None or self.args.share[0] == 1:
            self._warn_of_others()

    def _warn_of_columns(self) -> None:
        """Say which columns of tables are taken for no voxels."""
        for path, reader in zip(self.args.images, self.readers, strict=True):
            if reader.left_out:
                cli.report(
                    f"{path.name}: column {', '.join(reader.left_out)} is an id or an index, no "
                    "voxel, and is left out"
                )

    def _warn_of_others(self) -> None:
        """Count the subjects that only a later part has; one share says it for all."""
        first, *later = self.readers
        if not later:
            return
        known = set(first.ids())
        for path, reader in zip(self.args.images[1:], later, strict=True):
            others = sum(subject not in known for subject in reader.ids())
            if others:
                cli.warn(
                    f"{path.name}: {others} subjects are not in {self.args.images[0].name} and "
                    "are left out; every subject needs every part",
                    self.warnings,
                )

    def rows(self, number: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield row and values of one part, every subject once.

        Raises
        ------
        InputError
            A subject is in one part twice, or lacks it.
        """
        reader = self.readers[number]
        if not self.collective:
            yield from enumerate(read_files(reader, self.files[number], self.args.threads))
            return
        taken = np.zeros(len(self.subjects), dtype=bool)
        path = self.args.images[number]
        whole = (1, 1) if number else (self.args.share or (1, 1))
        for subject, values in reader.rows(whole, self._places):
            row = self._places[subject]
            if taken[row]:
                raise InputError(
                    f"{path}: subject '{subject}' is there twice; keep one row a subject"
                )
            taken[row] = True
            yield row, values
        if not taken.all():
            absent = [self.subjects[row] for row in np.flatnonzero(~taken)]
            raise InputError(
                f"{path}: lacks {len(absent)} subjects that {self.args.images[0].name} has "
                f"('{absent[0]}' the first); every subject needs every part: remove them from the "
                "other files, or add them here"
            )

    def memory(self) -> float:
        """Return about how many bytes are in memory at most."""
        N = sum(reader.geometry.n_voxels for reader in self.readers)
        if self.collective:
            columns = [getattr(reader, "column_bytes", 16) for reader in self.readers]
            widths = [reader.geometry.n_voxels for reader in self.readers]
            return sum(a * b for a, b in zip(columns, widths, strict=True)) + (1 << 26) + 24 * N
        size = max(layout.size for reader in self.readers for layout in reader.geometry.map_layouts)
        return 4 * self.args.threads * (16.0 * size + 4 * N) + 24 * N


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    batch = Batch(args)
    warnings = batch.warnings
    geometry = join([reader.geometry for reader in batch.readers])
    n, N = len(batch.subjects), geometry.n_voxels
    cli.state_memory("images being read", batch.memory())
    packed = [path.name for path in args.images if batch.collective and is_compressed(path)]
    if packed:
        cli.report(f"{', '.join(packed)}: compressed, so read from the beginning by one task")

    count = np.zeros(N, dtype=np.int64)
    total = np.zeros(N)
    squares = np.zeros(N)
    incomplete = np.zeros(n, dtype=bool)
    digests = images.RowDigests(n)
    attributes = {"geometry_type": geometry.type}
    ends = np.cumsum([0, *(reader.geometry.n_voxels for reader in batch.readers)])
    with (
        cli.threads(1),
        formats.create(args.out, "images", attributes, code=args.code) as writer,
    ):
        stored = writer.reserve("images", (n, N), chunks=images.image_chunk(N))
        for number in range(len(batch.readers)):
            here = slice(int(ends[number]), int(ends[number + 1]))
            for row, values in cli.progress(batch.rows(number), n, "image"):
                values = np.ascontiguousarray(values, dtype=np.float32)
                stored[row, here] = values
                digests.update(row, values)
                finite = np.isfinite(values)
                incomplete[row] |= not finite.all()
                value = np.where(finite, values, 0.0).astype(np.float64)
                count[here] += finite
                total[here] += value
                squares[here] += value * value
        writer.add("subject", batch.subjects)
        writer.add("image_digest", digests.values())
        writer.add("coordinates", geometry.coordinates)
        writer.add("voxel_count", count)
        writer.add("voxel_sum", total)
        writer.add("voxel_sum_of_squares", squares)
        add_geometry(writer, geometry)
        orders = [reader.maps.order if reader.maps else "" for reader in batch.readers]
        if any(orders):
            writer.add("map_order", orders)
        batch.warn_of_maps()
        missing = int(n * N - count.sum())
        if missing:
            cli.warn(
                f"{int(incomplete.sum())} of {n} images have missing values "
                f"({missing} in all); min_coverage decides on such voxels",
                warnings,
            )
        if not geometry.smoothable:
            cli.warn(
                "the images have no coordinates to smooth by, so they will not be smoothed",
                warnings,
            )
    numbers = {
        "n_images": n,
        "n_voxels": N,
        "n_images_not_finite": int(incomplete.sum()),
        "n_values_not_finite": missing,
        "geometry_type": geometry.type,
        "parts": geometry.part_names if len(geometry.part_names) > 1 else [],
        "smoothable": geometry.smoothable,
    }
    cli.report(f"{by((n, N))} values, {geometry.type}")
    cli.write_summary(args.summary, "read_images", numbers, warnings)


if __name__ == "__main__":
    cli.run(main)
