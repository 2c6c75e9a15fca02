"""Images ↔ arrays: NIfTI files in, batches of rows out; no statistics."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rvga import formats
from rvga.errors import InputError
from rvga.geometry import Geometry, geometry_of

# Two images are on one grid when no corner of the grid differs by more than this.
AFFINE_TOLERANCE_MM = 1e-3
_BLOCK_VALUES = 1 << 24
_GZIP_MAGIC = b"\x1f\x8b"


def read_nifti(path: str | Path, what: str = "image") -> tuple[np.ndarray, np.ndarray]:
    """Return the volume (x, y, z) and the affine (4, 4) of a NIfTI-1 or NIfTI-2 file.

    The format is told by content, compressed by gzip or not. A fourth dimension of one volume
    is accepted. Scaling (slope and intercept) is applied.

    Raises
    ------
    InputError
        The file is absent, empty, cut short, not NIfTI, or not one real-valued 3-D volume.
    """
    import nibabel

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file ({what})")
    content = path.read_bytes()
    if not content:
        raise InputError(f"{path}: the file is empty ({what})")
    if content[:2] == _GZIP_MAGIC:
        try:
            content = gzip.decompress(content)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(
                f"{path}: the compressed file is cut short or damaged ({error}); copy it again"
            ) from error
    size = {int.from_bytes(content[:4], order) for order in ("little", "big")}
    image_class = None
    if 348 in size and content[344:348] in (b"n+1\0", b"ni1\0"):
        image_class = nibabel.Nifti1Image
    elif 540 in size and content[4:7] in (b"n+2", b"ni2"):
        image_class = nibabel.Nifti2Image
    if image_class is None:
        raise InputError(f"{path}: not a NIfTI file ({what}); convert it to .nii or .nii.gz")
    if content[344:347] == b"ni1" or content[4:7] == b"ni2":
        raise InputError(
            f"{path}: a NIfTI header whose data are in another file; convert the pair to one .nii"
        )
    if len(content) < image_class.header_class.sizeof_hdr + 4:
        raise InputError(f"{path}: cut short within its header; copy it again")
    try:
        image = image_class.from_bytes(content)
        shape, dtype = image.header.get_data_shape(), image.header.get_data_dtype()
        # The image's own header no longer has the offset that the file announces.
        due = int(image.dataobj.offset) + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if not shape or min(shape) < 1:
            raise ValueError(f"shape {shape}")
    except (
        nibabel.spatialimages.HeaderDataError,
        nibabel.filebasedimages.ImageFileError,
        ValueError,
        OverflowError,
        struct.error,
    ) as error:
        raise InputError(f"{path}: the NIfTI header is damaged ({error}); copy it again") from error
    if len(content) < due:
        raise InputError(
            f"{path}: cut short: its header announces {due} bytes, there are {len(content)}; "
            "copy it again"
        )
    if dtype.fields is not None or dtype.kind not in "iuf":
        raise InputError(f"{path}: voxels are of type {dtype}, but real numbers are due ({what})")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise InputError(
            f"{path}: has shape {_by(shape)}, but one 3-D volume is due ({what}); "
            "split 4-D files into one file a subject"
        )
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise InputError(f"{path}: its affine is not invertible ({_affine_text(affine)})")
    return np.asarray(image.dataobj).reshape(shape), affine


def read_mask(path: str | Path) -> Geometry:
    """Return the geometry of the voxels above 0 in a mask file, in C order of the grid.

    Raises
    ------
    InputError
        As :func:`read_nifti`, or fewer than 2 voxels are above 0.
    """
    volume, affine = read_nifti(path, "mask")
    with np.errstate(invalid="ignore"):
        index = np.argwhere(np.isfinite(volume) & (volume > 0)).astype(np.int32)
    if len(index) < 2:
        raise InputError(f"{path}: the mask has {len(index)} voxels above 0; at least 2 are needed")
    return Geometry(affine=affine, shape=tuple(int(size) for size in volume.shape), index=index)


def read_image(path: str | Path, geometry: Geometry, mask_name: str) -> np.ndarray:
    """Return the values (N,) float32 of one image at the mask's voxels, NaN where not finite.

    Raises
    ------
    InputError
        As :func:`read_nifti`; the grid is another one than the mask's; or no value is finite.
    """
    volume, affine = read_nifti(path)
    if volume.shape != geometry.shape:
        raise InputError(
            f"{path}: has shape {_by(volume.shape)}, but the mask {mask_name} has "
            f"{_by(geometry.shape)}; resample the image to the mask's grid"
        )
    apart = grid_distance(affine, geometry.affine, geometry.shape)
    if apart > AFFINE_TOLERANCE_MM:
        raise InputError(
            f"{path}: its affine ({_affine_text(affine)}) is another one than that of the mask "
            f"{mask_name} ({_affine_text(geometry.affine)}): the corners of the grids are up to "
            f"{apart:.4g} mm apart ({AFFINE_TOLERANCE_MM:g} mm are allowed); "
            "resample the image to the mask's grid"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        values = volume[tuple(geometry.index.T)].astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        raise InputError(f"{path}: no voxel inside the mask has a finite value")
    values[~finite] = np.nan
    return values


def grid_distance(affine: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    """Return how far (mm) the corners of a grid lie apart under two affines, at most."""
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape], indexing="ij"))
    corners = np.vstack([corners.reshape(3, -1), np.ones(8)])
    return float(np.linalg.norm(((affine - other) @ corners)[:3], axis=0).max())


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
                if not _same_voxels(geometry, self.geometry):
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
        return len(self.geometry.index)

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
        self._state.update(np.ascontiguousarray(geometry.affine).data)
        self._state.update(np.asarray(geometry.shape, dtype="i8").data)
        self._state.update(np.ascontiguousarray(geometry.index).data)

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


def require_finite(images: np.ndarray, subjects: Sequence[str]) -> None:
    """Refuse images (n, N) with missing values.

    Raises
    ------
    InputError
        Names up to three of the subjects.
    """
    bad = np.flatnonzero(~np.isfinite(images).all(axis=1))
    if len(bad):
        named = ", ".join(subjects[row] for row in bad[:3])
        raise InputError(
            f"images: {len(bad)} subjects have missing values at voxels that are kept ({named}); "
            "select the subjects and voxels again"
        )


def _same_voxels(one: Geometry, other: Geometry) -> bool:
    return (
        one.shape == other.shape
        and np.array_equal(one.index, other.index)
        and np.array_equal(one.affine, other.affine)
    )


def _by(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape)


def _affine_text(affine: np.ndarray) -> str:
    rows = ("[" + " ".join(f"{value:.6g}" for value in row) + "]" for row in affine[:3])
    return " ".join(rows)
