"""Where the voxels of a row of numbers lie, and how a map of them is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvga.atomic import replacing
from rvga.formats import Envelope, Writer


@dataclass(frozen=True)
class Geometry:
    """Grid geometry of N voxels: affine (4, 4), grid shape (3,), grid index (N, 3)."""

    affine: np.ndarray
    shape: tuple[int, int, int]
    index: np.ndarray
    type: str = "nifti"

    @property
    def coordinates(self) -> np.ndarray:
        """Voxel coordinates in millimetres, (N, 3)."""
        return self.index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def subset(self, voxel_index: np.ndarray) -> Geometry:
        """Return the geometry of some of the voxels."""
        return Geometry(self.affine, self.shape, self.index[voxel_index], self.type)


def geometry_of(envelope: Envelope) -> Geometry:
    """Return the geometry stored in an open file."""
    return Geometry(
        affine=envelope["geometry/affine"][...],
        shape=tuple(int(size) for size in envelope["geometry/shape"][...]),
        index=envelope["geometry/index"][...],
        type=str(envelope.attributes.get("geometry_type", "nifti")),
    )


def add_geometry(writer: Writer, geometry: Geometry) -> None:
    """Store a geometry; the caller gives ``geometry_type=geometry.type`` as attribute."""
    writer.add("geometry/affine", geometry.affine)
    writer.add("geometry/shape", np.asarray(geometry.shape))
    writer.add("geometry/index", geometry.index)


def volume_of(values: np.ndarray, geometry: Geometry, fill: float = np.nan) -> np.ndarray:
    """Return a float32 volume with ``values`` (N,) at the voxels and ``fill`` elsewhere."""
    volume = np.full(geometry.shape, fill, dtype=np.float32)
    volume[tuple(geometry.index.T)] = values
    return volume


def write_map(path: str | Path, values: np.ndarray, geometry: Geometry) -> None:
    """Write a NIfTI map (``.nii.gz`` or ``.nii``) of one value a voxel, NaN outside."""
    import gzip

    import nibabel

    image = nibabel.Nifti1Image(volume_of(values, geometry), geometry.affine)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    if str(path).endswith(".gz"):
        # A fixed time stamp keeps equal maps equal byte for byte.
        content = gzip.compress(content, compresslevel=5, mtime=0)
    with replacing(path) as temporary:
        Path(temporary).write_bytes(content)
