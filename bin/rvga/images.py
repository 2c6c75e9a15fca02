"""Batches of images, as rows in any order of subjects; no statistics."""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from rvga import formats
from rvga.errors import InputError
from rvga.geometry import (
    Geometry,
    geometry_of,
    identity,
    in_another_order,
    places_are_rounded,
    same_voxels,
)

_BLOCK_VALUES = 1 << 24
# Places that one call of the system may fill.
_MOST_TARGETS = 1024
DIGEST_BYTES = 16


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
    map_orders : list of str
        By part, digests of the names of the first image's maps (``map_order`` of the file).
    other_maps : int
        Batches whose first image has maps of other names than the first of all.

    Raises
    ------
    InputError
        A file is damaged, batches are on different voxels, their maps are in different orders,
        or a subject is in two batches.
    """

    def __init__(self, paths: Sequence[str | Path]):
        self._files: list[formats.Envelope] = []
        self._stored: dict[int, _StoredRows | None] = {}
        try:
            self._open(paths)
        except BaseException:
            self.close()
            raise

    def _open(self, paths: Sequence[str | Path]) -> None:
        place: dict[str, tuple[int, int]] = {}
        self.batch_counts = None
        self.other_maps = 0
        for number, path in enumerate(paths):
            batch = formats.open_file(path, "images")
            self._files.append(batch)
            geometry = geometry_of(batch)
            if number == 0:
                self.geometry = geometry
                self.batch_counts = batch["voxel_count"][...]
                self.map_orders = orders = _map_orders(batch)
            else:
                if not same_voxels(geometry, self.geometry):
                    raise InputError(
                        f"{path}: is on other voxels than {paths[0]}; "
                        "read all batches under the same mask or surface, from images of one kind"
                    )
                self.batch_counts += batch["voxel_count"][...]
                theirs = _map_orders(batch)
                if any(map(in_another_order, theirs, orders)):
                    raise InputError(
                        f"{path}: its first image (of '{batch.array('subject')[0]}') has its maps "
                        f"in another order than that of {paths[0]} (of "
                        f"'{self._files[0].array('subject')[0]}'); choose them by name with "
                        "--cifti_maps"
                    )
                self.other_maps += theirs != orders
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

    def rows(self, subjects: Sequence[str], *, checked: bool = True) -> np.ndarray:
        """Return the images (n, N) float32 of some subjects, in their order.

        ``checked=False`` leaves out the checksums, for images that were read before: less work
        where they come from memory.

        Raises
        ------
        InputError
            A subject has no image here.
        """
        return self._rows(subjects, checked, _Buffers())

    def _rows(self, subjects: Sequence[str], checked: bool, buffers: _Buffers) -> np.ndarray:
        """Return images in one of the buffers."""
        result = buffers.take(len(subjects), self.n_voxels)
        for number, here, row in self._places(subjects):
            dataset = self._files[number]["images"]
            if not checked:
                if number not in self._stored:
                    self._stored[number] = _StoredRows(dataset) if _is_plain(dataset) else None
                stored_rows = self._stored[number]
                if stored_rows is not None:
                    stored_rows.read(row, here, result)
                    continue
            # Neighbouring rows are read together; each run is one access to the file.
            for run in np.split(np.arange(len(row)), np.flatnonzero(np.diff(row) != 1) + 1):
                stored = slice(int(row[run[0]]), int(row[run[-1]]) + 1)
                if bool((np.diff(here[run]) == 1).all()):
                    target = slice(int(here[run[0]]), int(here[run[-1]]) + 1)
                    dataset.read_direct(result, stored, target)
                else:
                    result[here[run]] = dataset[stored]
        return result

    def _places(self, subjects: Sequence[str]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield file, places among ``subjects`` and rows of the file, by ascending rows.

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
        for number in np.unique(place[:, 0]):
            here = np.flatnonzero(place[:, 0] == number)
            here = here[np.argsort(place[here, 1])]
            yield int(number), here, place[here, 1]

    def digests(self, subjects: Sequence[str]) -> np.ndarray:
        """Return the identities (n, 16) of some subjects' images, as they were when written.

        They are bytes as u1, in the order of ``subjects``; no image is read.

        Raises
        ------
        InputError
            A subject has no image here.
        """
        result = np.empty((len(subjects), DIGEST_BYTES), dtype="u1")
        for number, here, row in self._places(subjects):
            result[here] = self._files[number]["image_digest"][...][row]
        return result

    def digest(self, subjects: Sequence[str]) -> ImageDigest:
        """Return the identity of a sample's images; no image is read.

        Raises
        ------
        InputError
            A subject has no image here.
        """
        result = self.new_digest()
        result.add(subjects, self.digests(subjects))
        return result

    def blocks(
        self, subjects: Sequence[str], size: int = 0, *, checked: bool = True
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield ``(first, stop, images)`` over some subjects, in their order.

        ``size`` is the number of images a block; 0 is :func:`block_rows`. ``checked`` is that of
        :meth:`rows`. The memory of a block is used again once nothing refers to it.
        """
        size = size or block_rows(self.n_voxels)
        buffers = _Buffers()
        for first in range(0, len(subjects), size):
            stop = min(first + size, len(subjects))
            yield first, stop, self._rows(subjects[first:stop], checked, buffers)

    def new_digest(self) -> ImageDigest:
        """Return an empty digest of this set's voxels, to be told of rows in order."""
        return ImageDigest(geometry_digest(self.geometry))

    def close(self) -> None:
        """Close all files."""
        for batch in self._files:
            batch.close()

    def __enter__(self) -> ImageSet:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Buffers:
    """Arrays whose memory is used again when nothing refers to them any more.

    Fresh memory costs more than the reading of a file that the system holds: its pages are
    cleared and mapped one by one.
    """

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []

    def take(self, n: int, width: int) -> np.ndarray:
        """Return an array (n, width) float32 of any content."""
        size = max(n * width, 1)
        memory = self._free.pop() if self._free else None
        if memory is None or len(memory) < size:
            memory = np.empty(size, dtype=np.float32)
        # Views of this array refer to it, not to the memory beneath: it lives as long as they.
        owner = np.frombuffer(memory.data, dtype=np.float32, count=n * width)
        weakref.finalize(owner, self._free.append, memory).atexit = False
        return owner.reshape(n, width)


def _map_orders(batch: formats.Envelope) -> list[str]:
    return list(batch.array("map_order")) if "map_order" in batch else []


def geometry_digest(geometry: Geometry) -> str:
    """Return the identity of the voxels of images as text, without what may differ by rounding."""
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)
    state.update(identity(geometry).encode())
    state.update(np.ascontiguousarray(geometry.map_positions(), dtype="i8").data)
    coordinates = np.array(geometry.coordinates)
    coordinates[places_are_rounded(geometry)] = 0.0
    state.update(coordinates.data)
    return state.hexdigest()


class RowDigests:
    """Identities of images whose values come by parts, the parts of each image in order.

    Parameters
    ----------
    n : int
        Number of images.
    """

    def __init__(self, n: int):
        self._states = [hashlib.blake2b(digest_size=DIGEST_BYTES) for _ in range(n)]

    def update(self, row: int, values: np.ndarray) -> None:
        """Add the next float32 values of an image."""
        self._states[row].update(np.ascontiguousarray(values, dtype="<f4").data)

    def values(self) -> np.ndarray:
        """Return the identities (n, 16) as :func:`image_digests` does."""
        each = [state.digest() for state in self._states]
        return np.frombuffer(b"".join(each), dtype="u1").reshape(-1, DIGEST_BYTES)


def image_digests(images: np.ndarray) -> np.ndarray:
    """Return the identity (n, 16) of each image (n, N), bytes as u1."""
    digests = RowDigests(len(images))
    for row, image in enumerate(images):
        digests.update(row, image)
    return digests.values()


def _is_plain(dataset: h5py.Dataset) -> bool:
    """Return whether rows are stored as little-endian float32 and their checksums, no more."""
    return (
        dataset.dtype == np.dtype("<f4")
        and dataset.chunks is not None
        and dataset.chunks[0] == 1
        and bool(dataset.fletcher32)
        and dataset.compression is None
        and not dataset.shuffle
        and dataset.scaleoffset is None
        and dataset.id.get_num_chunks() == len(dataset) * -(-dataset.shape[1] // dataset.chunks[1])
    )


class _StoredRows:
    """Rows as they lie in the file, read without the library: neighbours by one call.

    A row is one chunk or several, the last filled up; a checksum of four bytes follows each.
    """

    def __init__(self, dataset: h5py.Dataset):
        (n, self._N), (_, self._width) = dataset.shape, dataset.chunks
        self._name = dataset.file.filename
        self._descriptor = dataset.file.id.get_vfd_handle()
        self._offsets = np.empty((n, -(-self._N // self._width)), dtype=np.int64)

        def place(chunk: h5py.h5d.StoreInfo) -> None:
            row, first = chunk.chunk_offset
            self._offsets[row, first // self._width] = chunk.byte_offset

        dataset.id.chunk_iter(place)

    def read(self, rows: np.ndarray, places: np.ndarray, result: np.ndarray) -> None:
        """Read rows of the file into places of the result (n, N) float32."""
        size, pieces = 4 * self._width, self._offsets.shape[1]
        content = result.view(np.uint8)
        # What is beyond a row's last value, and checksums, go where nobody looks.
        beyond = np.empty(4 * (pieces * self._width - self._N) + 4, dtype=np.uint8)
        targets: list[np.ndarray] = []
        start = stop = 0
        for row, place in zip(rows.tolist(), places.tolist(), strict=True):
            for piece, offset in enumerate(self._offsets[row].tolist()):
                if offset != stop or len(targets) > _MOST_TARGETS - 2:
                    self._fill(targets, start)
                    targets, start = [], offset
                last = piece == pieces - 1
                targets.append(content[place, piece * size : (piece + 1) * size])
                targets.append(beyond if last else beyond[:4])
                stop = offset + size + 4
        self._fill(targets, start)

    def _fill(self, targets: list[np.ndarray], offset: int) -> None:
        while targets:
            got = os.preadv(self._descriptor, targets, offset)
            if got == 0:
                raise InputError(
                    f"{self._name}: 'images' cannot be read: the file is damaged (it ends early)"
                )
            offset += got
            while targets and got >= len(targets[0]):
                got -= len(targets[0])
                targets = targets[1:]
            if got:
                targets = [targets[0][got:], *targets[1:]]


class ImageDigest:
    """Identity of the images of a sample, whatever batches they came in.

    It is made of each image's own, so that no process needs all images to know it.

    Parameters
    ----------
    geometry : str
        :func:`geometry_digest` of the images.
    """

    def __init__(self, geometry: str):
        self._state = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._state.update(geometry.encode())

    def update(self, subjects: Sequence[str], images: np.ndarray) -> None:
        """Add some subjects and their images (n, N) over all voxels of the mask."""
        self.add(subjects, image_digests(images))

    def add(self, subjects: Sequence[str], digests: np.ndarray) -> None:
        """Add some subjects and the :func:`image_digests` (n, 16) of their images."""
        for subject, digest in zip(subjects, digests, strict=True):
            self._state.update(subject.encode() + b"\0" + digest.tobytes())

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


def filled(
    images: np.ndarray, voxel_index: np.ndarray | slice, voxel_mean: np.ndarray
) -> np.ndarray:
    """Return the kept voxels (n, N) float32 of images (n, M), missing ones as the voxel's mean.

    With a slice, and nothing missing, they are a view.

    Parameters
    ----------
    images : (n, M)
        Rows of an images file; a missing value is NaN.
    voxel_index : (N,) or slice
        Columns that are kept.
    voxel_mean : (N,)
        What stands for a missing value (``voxel_mean`` of the subjects file).
    """
    kept = images[:, voxel_index]
    missing = ~np.isfinite(kept)
    if missing.any():
        if isinstance(voxel_index, slice):
            kept = kept.copy()
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
