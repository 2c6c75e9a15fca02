"""HDF5 files from strangers: what is checked before memory is taken, and errors that name the file.

A file of this software holds plain numbers and text of fixed length, in chunks that HDF5's own
checksum covers. Whatever else HDF5 can do (links and data in other files, references, text of
variable length, filters of plug-ins) is refused, and every size is held against what the file
stores before anything is read.
"""

from __future__ import annotations

import json
import math
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5z

from rvga.errors import InputError

LARGEST_CHUNK_BYTES = 1 << 26
# Deflate cannot shrink by more than 1,032; what claims more is made to exhaust memory.
LARGEST_COMPRESSION = 1100
# Below, no proportion between what is claimed and stored is asked for.
SMALL_BYTES = 1 << 20
LONGEST_TEXT_BYTES = 1 << 24
MOST_MEMBERS = 256
MOST_ATTRIBUTES = 128
LARGEST_ATTRIBUTE_BYTES = 1 << 24
DEEPEST_JSON = 32
_FILTERS = {h5z.FILTER_DEFLATE: "gzip", h5z.FILTER_SHUFFLE: "shuffle", h5z.FILTER_FLETCHER32: ""}
# What h5py raises where the bytes of a file make no sense.
READ_ERRORS = (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError)


class CheckedDataset(h5py.Dataset):
    """A dataset whose unreadable bytes are a message that names the file and the dataset."""

    def __getitem__(self, args: Any, new_dtype: Any = None) -> Any:
        try:
            return super().__getitem__(args, new_dtype=new_dtype)
        except OSError as error:
            raise self._damaged() from error

    def read_direct(self, dest: np.ndarray, source_sel: Any = None, dest_sel: Any = None) -> None:
        """Read into an array; as h5py's."""
        try:
            super().read_direct(dest, source_sel, dest_sel)
        except OSError as error:
            raise self._damaged() from error

    def _damaged(self) -> InputError:
        return InputError(
            f"{self.file.filename}: '{self.name.lstrip('/')}' cannot be read: the file is damaged "
            "(a checksum does not agree, or bytes are missing); copy or make it again"
        )


def text_of(name: str, path: object, values: np.ndarray) -> np.ndarray:
    """Return bytes (m,) as an array of ``str`` objects; what is no UTF-8 is refused."""
    try:
        return np.array([bytes(value).decode() for value in values], dtype=object)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: '{name}' holds text that is not UTF-8: it is damaged") from error


def chunk_shape(shape: tuple[int, ...], itemsize: int, limit: int = 1 << 20) -> tuple[int, ...]:
    """Return the shape of chunks of at most about ``limit`` bytes, of whole rows where possible.

    The chunks share the rows evenly, so that the last one, which is stored in full, is not padded
    by more than one row for each chunk.
    """
    chunk = list(shape)
    for axis, size in enumerate(shape):
        inner = itemsize * math.prod(shape[axis + 1 :])
        most = max(1, limit // inner)
        chunk[axis] = -(-size // -(-size // most))
        if inner <= limit:
            break
    return tuple(chunk)


def attributes_problem(handle: h5py.File) -> str | None:
    """Return what is wrong with the root attributes' number, types or sizes, or None."""
    count = h5a.get_num_attrs(handle.id)
    if count > MOST_ATTRIBUTES:
        return f"has {count} attributes"
    for key in handle.attrs:
        attribute = h5a.open(handle.id, name=key.encode())
        if attribute.shape != ():
            return f"attribute '{key}' is not a single value"
        text = h5py.check_string_dtype(attribute.dtype)
        if text is None and attribute.dtype.kind not in "iufb":
            return f"attribute '{key}' is neither a number nor text"
        if text is not None and text.length is None:
            return f"attribute '{key}' is text of variable length"
        if attribute.dtype.itemsize > LARGEST_ATTRIBUTE_BYTES:
            return f"attribute '{key}' claims {attribute.dtype.itemsize} bytes"
    return None


def attribute_value(handle: h5py.File, key: str) -> Any:
    """Return a root attribute as a Python value."""
    value = handle.attrs[key]
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def json_value(text: Any) -> Any:
    """Return what JSON text says; ValueError where it is none, or nested deeper than any of ours.

    Python's own reader gives up on deep nesting by an error that is not meant to be caught.
    """
    text = str(text)
    depth = deepest = 0
    quoted = escaped = False
    for letter in text:
        if quoted:
            quoted = escaped or letter != '"'
            escaped = letter == "\\" and not escaped
        elif letter == '"':
            quoted = True
        elif letter in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in "]}":
            depth -= 1
    if deepest > DEEPEST_JSON:
        raise ValueError(f"JSON is nested {deepest} deep")
    return json.loads(text)


def members_problem(handle: h5py.File, known: set[str]) -> str | None:
    """Return a name in the file that is not declared, or None."""
    groups = {name.rsplit("/", 1)[0] for name in known if "/" in name}
    for group in ("", *sorted(groups)):
        if group and group not in handle:
            continue
        if group and not isinstance(handle.get(group, getlink=True), h5py.HardLink):
            return f"'{group}' takes its values from elsewhere, which is refused"
        place = handle[group] if group else handle
        if not isinstance(place, h5py.Group):
            return f"'{group}' is not a group"
        if len(place) > MOST_MEMBERS:
            return f"'{group or '/'}' has {len(place)} members"
        for name in place:
            full = f"{group}/{name}" if group else name
            if full not in known and full not in groups:
                return f"'{full[:80]}' is not part of such a file"
    return None


def dataset_problem(dataset: h5py.Dataset, name: str) -> str | None:
    """Return why a dataset is refused before any of it is read, or None."""
    if dataset.is_virtual or dataset.external:
        return f"'{name}' takes its values from other files, which is refused"
    text = h5py.check_string_dtype(dataset.dtype)
    if text is not None and text.length is None:
        return f"'{name}' has text of variable length, which is refused"
    if text is not None and dataset.dtype.itemsize > LONGEST_TEXT_BYTES:
        return f"'{name}' has texts of impossible length"
    layout = dataset.id.get_create_plist()
    used = [layout.get_filter(place)[0] for place in range(layout.get_nfilters())]
    foreign = [number for number in used if number not in _FILTERS]
    if foreign:
        return f"'{name}' is packed by HDF5 filter {foreign[0]}, which is refused"
    if len(set(used)) != len(used):
        return f"'{name}' is packed more than once, which is refused"
    claimed = math.prod(int(size) for size in dataset.shape) * dataset.dtype.itemsize
    if claimed >= 1 << 62:
        return f"'{name}' claims an impossible size"
    if layout.get_layout() == h5d.CHUNKED:
        chunk = math.prod(layout.get_chunk()) * dataset.dtype.itemsize
        if chunk > LARGEST_CHUNK_BYTES:
            return f"'{name}' has chunks of {chunk} bytes"
    stored = dataset.id.get_storage_size()
    packed = h5z.FILTER_DEFLATE in used
    # What is not packed is stored in full; a chunk that was never written stores nothing.
    if claimed > SMALL_BYTES and claimed > stored * (LARGEST_COMPRESSION if packed else 1):
        return f"'{name}' claims {claimed} bytes but stores {stored}"
    return None


def stored_bytes(dataset: h5py.Dataset) -> int:
    """Return the bytes that a dataset's values take in the file."""
    return int(dataset.id.get_storage_size())
