"""Batches of images, as rows in any order of subjects; no statistics."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rvga import formats
from rvga.errors import InputError
from rvga.geometry import Geometry, geometry_of, identity, same_voxels

_BLOCK_VALUES = 1 << 24


def read_subject_list(path: str | Path) -> list[str]:
    """Return the subject ids of a text file, one a line, in order.

    Raises
    ------
    InputError
        The file is absent or empty, or an id is blank or there twice.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file (list of subjects)")
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    if not lines:
        raise InputError(f"{path}: the file is empty (list of subjects)")
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        subject = line.strip()
        if not subject:
            raise InputError(f"{path}: line {number} is blank, but a subject id is due")
        if subject in first_line:
            raise InputError(
                f"{path}: subject '{subject}' is there twice (lines {first_line[subject]} and "
                f"{number}); keep one image a subject"
            )
        first_line[subject] = number
    return list(first_line)


def image_chunk(N: int) -> tuple[int, int]:
    """Return the HDF5 chunk of images: one row, because rows are read in any order."""
    return 1, min(N, 1 << 16)


def block_rows(N: int) -> int:
    """Return how many images of N voxels are read at a time.

    It depends on nothing else, because sums over blocks do.
    """
    return min(256, max(16, _BLOCK_VALUES // N))


class ImageSet:
    """All batches of images of a study, as rows in any order of subjects.

    Use as a context manager.

    Attributes
    ----------
    subject : list of str
        Ids of all batches, sorted by bytes, so that the order of batches does not matter.
    geometry : Geometry
        Of all voxels of the mask.
    batch_counts : (N,)
        Subjects with a finite value, by voxel, over all batches.

    Raises
    ------
    InputError
        A file is damaged, batches are on different voxels, or a subject is in two batches.
    """

    def __init__(self, paths: Sequence[str | Path]):
        self._files: list[formats.Envelope] = []
        try:
            self._open(paths)
        except BaseException:
            self.close()
            raise

    def _open(self, paths: Sequence[str | Path]) -> None:
        place: dict[str, tuple[int, int]] = {}
        self.batch_counts = None
        for number, path in enumerate(paths):
            batch = formats.open_file(path, "images")
            self._files.append(batch)
            geometry = geometry_of(batch)
            if number == 0:
                self.geometry = geometry
                self.batch_counts = batch["voxel_count"][...]
            else:
                if not same_voxels(geometry, self.geometry):
                    raise InputError(
                        f"{path}: is on other voxels than {paths[0]}; "
                        "read all batches under the same mask"
                    )
                self.batch_counts += batch["voxel_count"][...]
            for row, subject in enumerate(batch.array("subject")):
                if subject in place:
                    earlier = self._files[place[subject][0]].path
                    raise InputError(
                        f"{path}: subject '{subject}' is there twice (also in {earlier}); "
                        "keep one image a subject"
                    )
                place[subject] = (number, row)
        self.subject = sorted(place, key=str.encode)
        self._place = place

    @property
    def n_voxels(self) -> int:
        """Number of voxels of the mask."""
        return self.geometry.n_voxels

    def rows(self, subjects: Sequence[str]) -> np.ndarray:
        """Return the images (n, N) float32 of some subjects, in their order.

        Raises
        ------
        InputError
            A subject has no image here.
        """
        try:
            place = np.array([self._place[subject] for subject in subjects]).reshape(-1, 2)
        except KeyError as error:
            raise InputError(
                f"subject {error} of the sample is in none of the images files; "
                "give all batches of the same run"
            ) from error
        result = np.empty((len(place), self.n_voxels), dtype=np.float32)
        for number in np.unique(place[:, 0]):
            here = np.flatnonzero(place[:, 0] == number)
            here = here[np.argsort(place[here, 1])]
            row = place[here, 1]
            dataset = self._files[number]["images"]
            # Neighbouring rows are read together; each run is one access to the file.
            for run in np.split(np.arange(len(row)), np.flatnonzero(np.diff(row) != 1) + 1):
                result[here[run]] = dataset[row[run[0]] : row[run[-1]] + 1]
        return result

    def blocks(
        self, subjects: Sequence[str], size: int = 0
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield ``(first, stop, images)`` over some subjects, in their order.

        ``size`` is the number of images a block; 0 is :func:`block_rows`.
        """
        size = size or block_rows(self.n_voxels)
        for first in range(0, len(subjects), size):
            stop = min(first + size, len(subjects))
            yield first, stop, self.rows(subjects[first:stop])

    def new_digest(self) -> ImageDigest:
        """Return an empty digest of this set's voxels, to be told of rows in order."""
        return ImageDigest(self.geometry)

    def close(self) -> None:
        """Close all files."""
        for batch in self._files:
            batch.close()

    def __enter__(self) -> ImageSet:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class ImageDigest:
    """Identity of the images of a sample, whatever batches they came in."""

    def __init__(self, geometry: Geometry):
        self._state = hashlib.blake2b(digest_size=16)
        self._state.update(identity(geometry).encode())
        self._state.update(np.ascontiguousarray(geometry.map_positions(), dtype="i8").data)
        self._state.update(np.ascontiguousarray(geometry.coordinates).data)

    def update(self, subjects: Sequence[str], images: np.ndarray) -> None:
        """Add some subjects and their images (n, N) over all voxels of the mask."""
        self._state.update("\0".join(subjects).encode())
        self._state.update(np.ascontiguousarray(images).data)

    def hexdigest(self) -> str:
        """Return the identity as text."""
        return self._state.hexdigest()


def require_same_images(digest: ImageDigest, subjects: formats.Envelope) -> None:
    """Refuse images that the sample was not selected from.

    Raises
    ------
    InputError
        The digest recorded in the subjects file is another one.
    """
    if subjects.inputs.get("images") != digest.hexdigest():
        raise InputError(
            f"{subjects.path.name} was not made from these images files: they are of different "
            "runs; give the images files of the same run"
        )


def filled(images: np.ndarray, voxel_index: np.ndarray, voxel_mean: np.ndarray) -> np.ndarray:
    """Return the kept voxels (n, N) float32 of images (n, M), missing ones as the voxel's mean.

    Parameters
    ----------
    images : (n, M)
        Rows of an images file; a missing value is NaN.
    voxel_index : (N,)
        Columns that are kept.
    voxel_mean : (N,)
        What stands for a missing value (``voxel_mean`` of the subjects file).
    """
    kept = images[:, voxel_index]
    missing = ~np.isfinite(kept)
    if missing.any():
        kept[missing] = np.broadcast_to(voxel_mean, kept.shape)[missing].astype(kept.dtype)
    return kept


def read_filled(
    images: formats.Envelope,
    rows: Sequence[int] | slice,
    voxel_index: np.ndarray,
    voxel_mean: np.ndarray,
) -> np.ndarray:
    """Return some rows of an images file as :func:`filled` makes them, (n, N) float32.

    ``rows`` is a slice, or row numbers in ascending order without repeats.
    """
    return filled(images["images"][rows], voxel_index, voxel_mean)
