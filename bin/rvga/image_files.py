"""Files that hold one image: volumes, values of a surface's vertices, CIFTI; told by content."""

from __future__ import annotations

import gzip
import io
import struct
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

import numpy as np

from rvga.errors import InputError
from rvga.geometry import runs_of

GZIP_MAGIC = b"\x1f\x8b"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
PARQUET_MAGIC = b"PAR1"
TABLE_KINDS = ("hdf5", "parquet", "text")
VOLUME_KINDS = ("nifti", "analyze", "mgh")
_CURV_MAGIC = b"\xff\xff\xff"
_TRIANGLE_MAGIC = b"\xff\xff\xfe"
_HEAD_BYTES = 1 << 16
_LABELS = "NIFTI_INTENT_LABEL"
# Codes of metres and micrometres in a NIfTI header.
_MILLIMETRES = {1: 1000.0, 3: 0.001}
# The parser lets many kinds through: of XML, of base64, of zlib, of numbers.
_GIFTI_ERRORS = (
    ExpatError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    EOFError,
    zlib.error,
)
_KIND_NAMES = {
    "nifti": "NIfTI",
    "analyze": "Analyze",
    "mgh": "MGH",
    "cifti": "CIFTI",
    "gifti": "GIFTI",
    "curv": "FreeSurfer curv",
    "surface": "a FreeSurfer surface",
    "hdf5": "HDF5",
    "parquet": "parquet",
    "text": "text",
    "": "of an unknown kind",
}


def kind_name(kind: str) -> str:
    """Return what a kind is called in messages."""
    return _KIND_NAMES[kind]


def content_of(path: str | Path, what: str = "image") -> bytes:
    """Return a file's content, without the compression by gzip.

    Raises
    ------
    InputError
        The file is absent, empty, or its compression is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file ({what})")
    content = path.read_bytes()
    if not content:
        raise InputError(f"{path}: the file is empty ({what})")
    if content[:2] == GZIP_MAGIC:
        try:
            content = gzip.decompress(content)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(
                f"{path}: the compressed file is cut short or damaged ({error}); copy it again"
            ) from error
    return content


def is_compressed(path: str | Path) -> bool:
    """Return whether a file is compressed by gzip."""
    with Path(path).open("rb") as file:
        return file.read(2) == GZIP_MAGIC


def head_of(path: str | Path, what: str = "image") -> bytes:
    """Return the first bytes of a file, without the compression by gzip.

    Raises
    ------
    InputError
        As :func:`content_of`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file ({what})")
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise InputError(f"{path}: the file is empty ({what})")
    if head[:2] == GZIP_MAGIC:
        try:
            # A decompressor gives what there is of a file that is cut short here on purpose.
            head = zlib.decompressobj(wbits=31).decompress(head, _HEAD_BYTES)
        except zlib.error as error:
            raise InputError(
                f"{path}: the compressed file is cut short or damaged ({error}); copy it again"
            ) from error
    return head


def kind_of(head: bytes) -> str:
    """Return the kind of a file by its first bytes (uncompressed), or the empty string.

    ``nifti``, ``analyze``, ``mgh``, ``cifti``, ``gifti``, ``curv``, ``surface`` (of FreeSurfer),
    ``hdf5``, ``parquet`` or ``text``.
    """
    if head[:8] == HDF5_MAGIC:
        return "hdf5"
    if head[:4] == PARQUET_MAGIC:
        return "parquet"
    if head[:3] == _CURV_MAGIC:
        return "curv"
    if head[:3] == _TRIANGLE_MAGIC:
        return "surface"
    sizes = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    if 540 in sizes and head[4:7] in (b"n+2", b"ni2"):
        intents = {int.from_bytes(head[504:508], order) for order in ("little", "big")}
        return "cifti" if any(3000 <= intent < 3100 for intent in intents) else "nifti"
    if 348 in sizes:
        return "nifti" if head[344:348] in (b"n+1\0", b"ni1\0") else "analyze"
    if head[:4] == b"\0\0\0\1" and len(head) >= 28 and min(struct.unpack(">5i", head[4:24])) >= 0:
        return "mgh"
    start = head[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith((b"<?xml", b"<GIFTI", b"<!DOCTYPE GIFTI")):
        return "gifti" if b"GIFTI" in head[:4096] else ""
    return "text" if _is_text(head) else ""


def _is_text(head: bytes) -> bool:
    try:
        head[: len(head) - 3].decode("utf-8")
    except UnicodeDecodeError as error:
        # A letter of several bytes may be cut at the end of what was read.
        if error.start < len(head) - 8:
            return False
    return b"\0" not in head


# -------------------------------------------------------------------------------------------
# Volumes
# -------------------------------------------------------------------------------------------


def read_volume(
    path: str | Path,
    what: str = "image",
    data: str | Path | None = None,
    matrix: str | Path | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the volume (x, y, z) and the affine (4, 4) of a NIfTI, Analyze or MGH file.

    The format is told by content, compressed by gzip or not. A fourth dimension of one volume
    is accepted. Scaling (slope and intercept) is applied, that of SPM's Analyze files too. An
    Analyze header has no affine: it is that of SPM's ``.mat`` file, or else is made of the voxel
    sizes, with the origin that SPM wrote, or else in the middle, and the first axis pointing left
    (LAS), as other programs read such files. The affine is in millimetres, whichever unit the
    header says.

    Parameters
    ----------
    path : path
        The file, or the header of a pair.
    what : str
        What it is, for messages.
    data : path, optional
        The file of values (``.img``) that belongs to a header.
    matrix : path, optional
        SPM's ``.mat`` file of an Analyze image; one of its name beside it where not given.

    Raises
    ------
    InputError
        The file is absent, empty, cut short, of another kind, or not one real-valued 3-D volume.
    """
    path = Path(path)
    content = content_of(path, what)
    kind = kind_of(content[:_HEAD_BYTES])
    if kind == "cifti":
        raise InputError(
            f"{path}: is a CIFTI file, where a volume is due ({what}); give all of a study's "
            "images in one format"
        )
    if kind not in VOLUME_KINDS:
        raise InputError(
            f"{path}: not a NIfTI, Analyze or MGH file ({what}; it is {kind_name(kind)}); "
            "convert it to .nii or .nii.gz"
        )
    volume, affine = _parse_volume(path, content, kind, what, data, matrix)
    shape = volume.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        advice = (
            "give a file of several volumes with a list of its subjects (column subjects of the "
            "samplesheet, or --image_subjects)"
        )
        if what != "image":
            advice = "give a file of one volume"
        raise InputError(
            f"{path}: has shape {by(shape)}, but one 3-D volume is due ({what}); {advice}"
        )
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise InputError(f"{path}: its affine is not invertible ({affine_text(affine)})")
    return np.asarray(volume).reshape(shape), affine


def is_pair(head: bytes) -> bool:
    """Return whether a file is a header whose values are in another file (Analyze, NIfTI pair)."""
    kind = kind_of(head)
    return kind == "analyze" or (
        kind == "nifti" and (head[344:347] == b"ni1" or head[4:7] == b"ni2")
    )


def _parse_volume(
    path: Path,
    content: bytes,
    kind: str,
    what: str,
    data: str | Path | None = None,
    matrix: str | Path | None = None,
):
    """Return the array proxy or array of all volumes, and the affine."""
    import nibabel

    if kind == "mgh":
        return _parse_mgh(path, content)
    pair = is_pair(content[:544])
    nifti_2 = content[4:7] in (b"n+2", b"ni2")
    if kind == "analyze":
        # Where SPM wrote no scale and no origin, this is a plain Analyze header.
        image_class = nibabel.Spm2AnalyzeImage
    elif pair:
        image_class = nibabel.Nifti2Pair if nifti_2 else nibabel.Nifti1Pair
    else:
        image_class = nibabel.Nifti2Image if nifti_2 else nibabel.Nifti1Image
    needed = image_class.header_class.sizeof_hdr + (0 if pair else 4)
    if len(content) < needed:
        raise InputError(f"{path}: cut short within its header; copy it again")
    values, values_path = content, path
    if pair:
        values_path = _data_file(path, what) if data is None else Path(data)
        values = content_of(values_path, "the values of a header")
    try:
        if pair:
            header = image_class.header_class(content[: image_class.header_class.sizeof_hdr])
            dtype, shape = header.get_data_dtype(), header.get_data_shape()
            offset = int(header.get_data_offset())
        else:
            image = image_class.from_bytes(content)
            header = image.header
            dtype, shape = header.get_data_dtype(), header.get_data_shape()
            # The image's own header no longer has the offset that the file announces.
            offset = int(image.dataobj.offset)
        due = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if not shape or min(shape) < 1:
            raise ValueError(f"shape {shape}")
    except (
        nibabel.spatialimages.HeaderDataError,
        nibabel.filebasedimages.ImageFileError,
        ValueError,
        OverflowError,
        struct.error,
    ) as error:
        raise InputError(f"{path}: the header is damaged ({error}); copy it again") from error
    if len(values) < due:
        raise InputError(
            f"{values_path}: cut short: its header announces {due} bytes, there are "
            f"{len(values)}; copy it again"
        )
    if dtype.fields is not None or dtype.kind not in "iuf":
        raise InputError(f"{path}: voxels are of type {dtype}, but real numbers are due ({what})")
    if not pair:
        return image.dataobj, in_millimetres(image.affine, header)
    array = np.frombuffer(values, dtype=dtype, count=int(np.prod(shape)), offset=offset)
    array = array.reshape(shape, order="F")
    slope, intercept = header.get_slope_inter() if kind == "nifti" else _spm_scaling(header)
    if slope not in (None, 1.0) or intercept not in (None, 0.0):
        array = array * (1.0 if slope is None else slope) + (intercept or 0.0)
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    if kind == "nifti":
        return array, in_millimetres(affine, header)
    beside = path.with_name(_stem(path) + ".mat")
    if matrix is None and beside.is_file():
        matrix = beside
    return array, affine if matrix is None else _spm_matrix(Path(matrix))


def in_millimetres(affine: np.ndarray, header: Any) -> np.ndarray:
    """Return a NIfTI affine (4, 4) in millimetres, by the unit that the header says.

    An unknown unit is taken for millimetres.
    """
    affine = np.array(affine, dtype=np.float64)
    affine[:3] *= _MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    return affine


def _spm_scaling(header: Any) -> tuple[float | None, float | None]:
    """Return the slope and the intercept that SPM wrote in an Analyze header.

    Where there is no slope, ranges for display say nothing of the values.
    """
    slope = float(header["scl_slope"])
    if slope == 0 or not np.isfinite(slope):
        return None, None
    intercept = float(header["scl_inter"])
    return slope, intercept if np.isfinite(intercept) else None


def _spm_matrix(path: Path) -> np.ndarray:
    """Return the affine (4, 4) that SPM wrote beside an Analyze image.

    SPM counts voxels from 1. Its variable ``mat`` is the affine; the older ``M`` leaves out that
    the first axis of Analyze images points left.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    content = content_of(path, "SPM's .mat file")
    try:
        found = loadmat(io.BytesIO(content), variable_names=["mat", "M"])
    # The parser lets many kinds through.
    except (
        MatReadError,
        NotImplementedError,
        ValueError,
        TypeError,
        LookupError,
        OverflowError,
        OSError,
        EOFError,
        zlib.error,
    ) as error:
        raise InputError(
            f"{path}: stands beside an Analyze image and would say where its voxels lie, but is "
            "no MATLAB file of SPM that can be read; remove it if it is something else, or "
            "convert the images to NIfTI"
        ) from error
    flip = "mat" not in found
    affine = np.asarray(found.get("M" if flip else "mat", np.empty(0)))
    if affine.ndim == 3 and affine.shape[2] == 1:
        affine = affine[:, :, 0]
    if affine.shape != (4, 4) or affine.dtype.kind not in "iuf" or not np.isfinite(affine).all():
        raise InputError(
            f"{path}: stands beside an Analyze image, but has no 4 x 4 matrix 'mat' or 'M' to say "
            "where its voxels lie; remove it if it is something else, or convert the images to "
            "NIfTI"
        )
    from_zero = np.eye(4)
    from_zero[:3, 3] = 1.0
    affine = affine.astype(np.float64) @ from_zero
    return np.diag([-1.0, 1.0, 1.0, 1.0]) @ affine if flip else affine


def _stem(path: Path) -> str:
    """Return the name of a header without its ending."""
    return path.name.removesuffix(".gz").removesuffix(".hdr")


def _data_file(path: Path, what: str) -> Path:
    """Return the file beside a header that has its values."""
    stem = _stem(path)
    for name in (f"{stem}.img", f"{stem}.img.gz"):
        if path.with_name(name).is_file():
            return path.with_name(name)
    raise InputError(
        f"{path}: is a header whose values are in another file ({what}), but there is no "
        f"{stem}.img beside it; give both, or convert the pair to one .nii"
    )


def _parse_mgh(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    import nibabel

    try:
        image = nibabel.MGHImage.from_bytes(content)
        shape, dtype = image.shape, image.header.get_data_dtype()
        due = 284 + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if min(shape) < 1:
            raise ValueError(f"shape {shape}")
    except (
        nibabel.spatialimages.HeaderDataError,
        nibabel.filebasedimages.ImageFileError,
        nibabel.freesurfer.mghformat.MGHError,
        ValueError,
        KeyError,
        IndexError,
        OverflowError,
        EOFError,
        struct.error,
    ) as error:
        raise InputError(f"{path}: the MGH header is damaged ({error}); copy it again") from error
    if len(content) < due:
        raise InputError(
            f"{path}: cut short: its header announces {due} bytes, there are {len(content)}; "
            "copy it again"
        )
    return np.asarray(image.dataobj), np.asarray(image.affine, dtype=np.float64)


# -------------------------------------------------------------------------------------------
# Values of vertices, surfaces
# -------------------------------------------------------------------------------------------


def read_vertices(path: str | Path, what: str = "image", structure: str = "") -> np.ndarray:
    """Return the values (v,) float64 that a file has for the vertices of a surface.

    FreeSurfer curv, GIFTI with one data array, MGH or NIfTI with one row, or plain text with one
    number for every vertex. ``NaN`` and ``NA`` in text are missing.

    Parameters
    ----------
    path : path
    what : str
        What it is, for messages.
    structure : str
        Structure of the surface (``CortexLeft``), empty where not known.

    Raises
    ------
    InputError
        The file is absent, damaged or of another kind, holds several maps, or says that it is of
        another structure.
    """
    path = Path(path)
    content = content_of(path, what)
    kind = kind_of(content[:_HEAD_BYTES])
    if kind == "curv":
        return _parse_curv(path, content)
    if kind == "gifti":
        return _only_map(path, _parse_metric(path, content, what, structure), what)
    if kind == "text":
        return _parse_numbers(path, content)
    if kind in ("mgh", "nifti"):
        volume, _affine = _parse_volume(path, content, kind, what)
        lengths = [size for size in volume.shape if size > 1]
        if len(lengths) > 1:
            raise InputError(
                f"{path}: has shape {by(volume.shape)}, but one value a vertex is due ({what}); "
                "without --surface it is read as a volume, which needs --mask"
            )
        return np.asarray(volume, dtype=np.float64).reshape(-1)
    raise InputError(
        f"{path}: is {kind_name(kind)}, but values of a surface's vertices are due ({what}); use "
        "GIFTI, FreeSurfer curv, MGH or text"
    )


def _parse_curv(path: Path, content: bytes) -> np.ndarray:
    if len(content) < 15:
        raise InputError(f"{path}: cut short within its header; copy it again")
    vertices, _faces, per_vertex = struct.unpack(">3i", content[3:15])
    if per_vertex != 1 or vertices < 1:
        raise InputError(
            f"{path}: announces {per_vertex} values for each of {vertices} vertices, but one is "
            "due; write it again"
        )
    if len(content) < 15 + 4 * vertices:
        raise InputError(
            f"{path}: cut short: its header announces {15 + 4 * vertices} bytes, there are "
            f"{len(content)}; copy it again"
        )
    return np.frombuffer(content, dtype=">f4", count=vertices, offset=15).astype(np.float64)


def _gifti(path: Path, content: bytes):
    import nibabel

    if b"ExternalFileBinary" in content:
        raise InputError(
            f"{path}: its values are in another file; write it again with the values inside"
        )
    try:
        image = nibabel.gifti.GiftiImage.from_bytes(content)
    except _GIFTI_ERRORS as error:
        raise InputError(
            f"{path}: not a readable GIFTI file, cut short or damaged "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); copy it again"
        ) from error
    if not image.darrays or any(array.data is None for array in image.darrays):
        raise InputError(f"{path}: holds no values, or is cut short; copy it again")
    return image


@dataclass(frozen=True)
class Metric:
    """Values of vertices in a GIFTI file.

    Values (maps, v) float64, names of the maps, the structure or '', and the names of labels.
    """

    values: np.ndarray
    maps: list[str]
    structure: str
    labels: dict[int, str]


def read_metric(path: str | Path, what: str = "image", structure: str = "") -> Metric:
    """Return all maps of a GIFTI file of values of vertices.

    Raises
    ------
    InputError
        As :func:`read_vertices`, or the maps are of different sizes.
    """
    path = Path(path)
    content = content_of(path, what)
    kind = kind_of(content[:_HEAD_BYTES])
    if kind != "gifti":
        raise InputError(
            f"{path}: is {kind_name(kind)}, where GIFTI is due ({what}); give all of a study's "
            "images in one format"
        )
    return _parse_metric(path, content, what, structure)


def read_gifti_labels(
    path: str | Path, what: str, structure: str = ""
) -> tuple[np.ndarray, dict[int, str] | None]:
    """Return the one map (v,) of a GIFTI file and the names of its labels, None without a table.

    Raises
    ------
    InputError
        As :func:`read_vertices`.
    """
    path = Path(path)
    metric = _parse_metric(path, content_of(path, what), what, structure)
    return _only_map(path, metric, what), metric.labels or None


def _only_map(path: Path, metric: Metric, what: str) -> np.ndarray:
    if len(metric.maps) != 1:
        raise InputError(
            f"{path}: holds {len(metric.maps)} maps, but one is due ({what}); write one file a map"
        )
    return metric.values[0]


def _parse_metric(path: Path, content: bytes, what: str, structure: str) -> Metric:
    image = _gifti(path, content)
    geometric = ("NIFTI_INTENT_POINTSET", "NIFTI_INTENT_TRIANGLE")
    if any(_intent(array) in geometric for array in image.darrays):
        raise InputError(
            f"{path}: is a surface (points and triangles), but values of its vertices are due "
            f"({what}); give it as --surface"
        )
    if what == "image" and any(_intent(array) == _LABELS for array in image.darrays):
        raise InputError(
            f"{path}: holds labels of vertices, but values are due ({what}); give .func.gii or "
            ".shape.gii"
        )
    theirs = next(filter(None, map(_structure, (image, *image.darrays))), "")
    if theirs and structure and theirs.lower() != structure.lower():
        raise InputError(
            f"{path}: says that it is of {theirs}, but the surface is of {structure} ({what}); "
            "give each hemisphere as a part of its own, with its surface"
        )
    values = []
    for array in image.darrays:
        data = np.asarray(array.data)
        if data.dtype.kind not in "iuf" or data.size != max(data.shape, default=0):
            raise InputError(
                f"{path}: has values of shape {by(data.shape)} and type {data.dtype}, but one "
                f"number a vertex is due ({what})"
            )
        values.append(data.reshape(-1).astype(np.float64))
    sizes = sorted({len(of) for of in values})
    if len(sizes) > 1:
        raise InputError(
            f"{path}: its maps have different numbers of vertices ({', '.join(map(str, sizes))}); "
            "give one surface a file"
        )
    names = [str(dict(array.meta).get("Name", "")).strip() for array in image.darrays]
    labels = {int(one.key): str(one.label or "").strip() for one in image.labeltable.labels}
    return Metric(np.stack(values), names, theirs, labels)


def _structure(of) -> str:
    """Return the structure that the metadata of a GIFTI file or array say, or ''."""
    return str(dict(of.meta).get("AnatomicalStructurePrimary", "")).strip()


def _intent(array) -> str:
    import nibabel

    return str(nibabel.nifti1.intent_codes.niistring[array.intent])


def _parse_numbers(path: Path, content: bytes) -> np.ndarray:
    words = content.decode("utf-8-sig", errors="replace").replace(",", " ").split()
    try:
        if b"_" in content:
            raise ValueError("digits with an underscore between them are no number here")
        return np.array([_MISSING_WORDS.get(word, word) for word in words], dtype=np.float64)
    except ValueError:
        for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), 1):
            for word in line.replace(",", " ").split():
                if not _is_number(_MISSING_WORDS.get(word, word)):
                    raise InputError(
                        f"{path}, line {number}: '{word}' is no number; one number for every "
                        "vertex is due (a table of subjects is given as --images itself)"
                    ) from None
        raise


_MISSING_WORDS = {"NA": "nan", "": "nan", "N/A": "nan"}


def begins_with_number(head: bytes) -> bool:
    """Return whether a text begins with a number, as values of vertices do and no table does."""
    words = head[:1024].decode("utf-8-sig", errors="replace").replace(",", " ").split()
    return bool(words) and _is_number(_MISSING_WORDS.get(words[0], words[0]))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    # Python takes 1_01 for 101.
    return "_" not in word


@dataclass(frozen=True)
class Surface:
    """A surface: points (v, 3) in millimetres, triangles (f, 3), the structure it is of."""

    points: np.ndarray
    triangles: np.ndarray
    structure: str
    name: str


def read_surface(path: str | Path) -> Surface:
    """Return a surface from a GIFTI or FreeSurfer file.

    The structure is what the file says, or else what its name says (``lh.``, ``hemi-R``, ``.L.``).

    Raises
    ------
    InputError
        The file is absent, damaged or no surface, or a triangle has a vertex that is not there.
    """
    import nibabel

    path = Path(path)
    content = content_of(path, "surface")
    kind = kind_of(content[:_HEAD_BYTES])
    structure = ""
    if kind == "surface":
        try:
            if is_compressed(path):
                with tempfile.NamedTemporaryFile(suffix=".surface") as file:
                    file.write(content)
                    file.flush()
                    points, triangles = nibabel.freesurfer.read_geometry(file.name)
            else:
                points, triangles = nibabel.freesurfer.read_geometry(path)
        except (ValueError, IndexError, OSError, EOFError, MemoryError) as error:
            raise InputError(
                f"{path}: cut short or damaged (FreeSurfer surface); copy it again"
            ) from error
    elif kind == "gifti":
        image = _gifti(path, content)
        found = {_intent(array): array for array in image.darrays}
        if not {"NIFTI_INTENT_POINTSET", "NIFTI_INTENT_TRIANGLE"} <= set(found):
            raise InputError(
                f"{path}: is no surface, it lacks points or triangles; give a .surf.gii file"
            )
        points = found["NIFTI_INTENT_POINTSET"].data
        triangles = found["NIFTI_INTENT_TRIANGLE"].data
        for array in (image, found["NIFTI_INTENT_POINTSET"]):
            structure = structure or _structure(array)
    else:
        raise InputError(
            f"{path}: is {kind_name(kind)}, but a surface is due; give a .surf.gii or FreeSurfer "
            "surface"
        )
    points = np.asarray(points, dtype=np.float64)
    triangles = np.asarray(triangles, dtype=np.int64)
    sound = points.ndim == 2 and points.shape[1:] == (3,) and triangles.shape[1:] == (3,)
    if not sound or not len(points) or not np.isfinite(points).all():
        raise InputError(f"{path}: its points or triangles are damaged; copy it again")
    if np.any((triangles < 0) | (triangles >= len(points))):
        raise InputError(
            f"{path}: a triangle has a vertex beyond the {len(points)} that are there; copy it "
            "again"
        )
    if not structure:
        structure = {"L": "CortexLeft", "R": "CortexRight"}.get(hemisphere(path.name), "")
    return Surface(points, triangles.astype(np.int32), structure, path.name)


def hemisphere(name: str) -> str:
    """Return ``L`` or ``R`` where a file's name tells, or the empty string."""
    words = name.replace("_", ".").replace("-", ".").lower().split(".")
    left, right = {"lh", "l", "left"} & set(words), {"rh", "r", "right"} & set(words)
    return "" if bool(left) == bool(right) else "L" if left else "R"


# -------------------------------------------------------------------------------------------
# CIFTI
# -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cifti:
    """Dense scalars: values (maps, g) float32, names of the maps, brain models as in a layout."""

    values: np.ndarray
    maps: list[str]
    models: list[dict[str, Any]]


def read_cifti(path: str | Path, what: str = "image") -> Cifti:
    """Return the maps of a CIFTI-2 file of dense scalars (``.dscalar.nii``).

    Raises
    ------
    InputError
        The file is absent, damaged, cut short, or no file of dense scalars.
    """
    from nibabel.cifti2 import BrainModelAxis, ScalarAxis

    path = Path(path)
    image, scalars, axis = _parse_cifti(path, what)
    if not isinstance(scalars, ScalarAxis) or not isinstance(axis, BrainModelAxis):
        raise InputError(
            f"{path}: is CIFTI, but not of dense scalars ({what}); convert it to .dscalar.nii"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.asarray(image.dataobj).astype(np.float32)
    return Cifti(values, [str(name) for name in scalars.name], _models(axis))


@dataclass(frozen=True)
class CiftiLabels:
    """The first map of CIFTI labels: values (g,) float64, names of labels, brain models."""

    values: np.ndarray
    names: dict[int, str] | None
    models: list[dict[str, Any]]


def read_cifti_labels(path: str | Path, what: str) -> CiftiLabels:
    """Return the first map of dense labels (``.dlabel.nii``), or of dense scalars without names.

    Raises
    ------
    InputError
        As :func:`read_cifti`.
    """
    from nibabel.cifti2 import BrainModelAxis, LabelAxis, ScalarAxis

    path = Path(path)
    image, maps, axis = _parse_cifti(path, what)
    if not isinstance(maps, LabelAxis | ScalarAxis) or not isinstance(axis, BrainModelAxis):
        raise InputError(
            f"{path}: is CIFTI, but of neither dense labels nor dense scalars ({what}); convert "
            "it to .dlabel.nii"
        )
    names = None
    if isinstance(maps, LabelAxis):
        names = {int(key): str(name).strip() for key, (name, _colour) in maps.label[0].items()}
    return CiftiLabels(np.asarray(image.dataobj[0], dtype=np.float64), names, _models(axis))


def _parse_cifti(path: Path, what: str):
    """Return the image of a CIFTI file and its two axes."""
    import nibabel
    from nibabel.cifti2 import Cifti2Image

    content = content_of(path, what)
    kind = kind_of(content[:_HEAD_BYTES])
    if kind != "cifti":
        raise InputError(
            f"{path}: is {kind_name(kind)}, where CIFTI is due ({what}); give all of a study's "
            "images in one format"
        )
    try:
        image = Cifti2Image.from_bytes(content)
        axes = image.header.get_axis(0), image.header.get_axis(1)
        shape, dtype = image.shape, image.nifti_header.get_data_dtype()
        due = int(image.dataobj.offset)
        due += int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    except (
        nibabel.cifti2.cifti2.Cifti2HeaderError,
        nibabel.spatialimages.HeaderDataError,
        nibabel.filebasedimages.ImageFileError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        EOFError,
        SyntaxError,
        struct.error,
    ) as error:
        raise InputError(
            f"{path}: not a readable CIFTI file, cut short or damaged ({error}); copy it again"
        ) from error
    if len(content) < due:
        raise InputError(
            f"{path}: cut short: its header announces {due} bytes, there are {len(content)}; "
            "copy it again"
        )
    return image, *axes


def _without_rounding(affine: np.ndarray) -> np.ndarray:
    """Return an affine whose entries are multiples of 1e-6.

    Programs write 2 as 1.9999999, and images of one study are to have the same places.
    """
    return np.round(np.asarray(affine, dtype=np.float64), 6) + 0.0


def _models(axis) -> list[dict[str, Any]]:
    models = []
    for name, _slice, part in axis.iter_structures():
        if part.volume_mask.all():
            shape = [int(size) for size in part.volume_shape]
            cells = np.ravel_multi_index(tuple(part.voxel.T), shape, order="F")
            model = {
                "kind": "voxels",
                "size": shape,
                "affine": _without_rounding(part.affine).tolist(),
            }
        else:
            cells = part.vertex
            model = {"kind": "surface", "size": [int(axis.nvertices[name])]}
        models.append({"structure": str(name), "runs": runs_of(cells), **model})
    return models


# -------------------------------------------------------------------------------------------
# Words for messages
# -------------------------------------------------------------------------------------------


def by(shape: Sequence[int]) -> str:
    """Return a shape as text: ``4 x 3 x 2``."""
    return " x ".join(str(size) for size in shape)


def affine_text(affine: np.ndarray) -> str:
    """Return an affine's three rows as text."""
    rows = ("[" + " ".join(f"{value:.6g}" for value in row) + "]" for row in affine[:3])
    return " ".join(rows)


def orientation(affine: np.ndarray) -> str:
    """Return where the axes of a grid point to, such as ``RAS`` or ``LAS``."""
    import nibabel

    return "".join(code or "?" for code in nibabel.aff2axcodes(affine))
