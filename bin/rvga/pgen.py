"""Blocks of a PLINK 2 or PLINK 1 genotype file in packed form, decoded by compiled loops.

Records are decoded as the PGEN specification describes them (main track in all its forms, phase
skipped, biallelic dosages). What is rarer (fixed-width files, multiallelic records) is read by
pgenlib; both give the same codes.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pgenlib
from numba import types

from rvga.errors import InputError
from rvga.genotypes import Genotypes
from rvga.machine_code import compiled
from rvga.packed import (
    Packed,
    copy_bytes,
    count_bits,
    counts_of_sums,
    fill_dosages,
    gather_calls,
    gather_dosages,
    pack_bytes,
    pack_calls,
    pack_dosages,
    sums_of_dosages,
    width,
    words_of_calls,
)

_BED, _STANDARD = 1, 0x10
_VARIANTS_PER_BLOCK = 1 << 16
# What is mapped or read at once.
_PIECE_BYTES = 1 << 22
_MULTIALLELIC = 8
# Linux: map pages and say when that fails (madvise(2)); Python has no name for it.
_POPULATE_READ = 22


class PackedReader:
    """Reads blocks of variants of chosen people; one a thread, for it holds working memory.

    Parameters
    ----------
    genotypes : Genotypes
        The open file; its head has been checked.
    subject_rows : (n,) array of int
        Rows of the people in the file, ascending.
    first, stop : int
        The variants that will be asked for lie within.
    block_variants : int
        The largest block.
    always_pgenlib : bool
        Decode nothing here, for tests.
    """

    def __init__(
        self,
        genotypes: Genotypes,
        subject_rows: np.ndarray,
        first: int,
        stop: int,
        block_variants: int,
        *,
        always_pgenlib: bool = False,
    ):
        rows = np.asarray(subject_rows)
        if np.any(rows[1:] <= rows[:-1]):
            raise ValueError("the people must be in the file's order")
        self._path = genotypes.path
        self._n = len(rows)
        self._n_file = len(genotypes.subject)
        self._n_variants = genotypes.n_variants
        self._has_dosages = genotypes.has_dosages
        whole = self._n == self._n_file
        self._index = None if always_pgenlib else record_index(
            self._path, self._n_file, first, stop
        )  # fmt: skip
        if self._has_dosages:
            self._codes = np.zeros((block_variants, width(self._n)), dtype=np.uint16)
        else:
            self._codes = np.zeros((block_variants, words_of_calls(self._n)), dtype=np.uint32)
        self._sums = np.zeros((block_variants, 3), dtype=np.uint64)
        self._reader = None
        self._descriptor = -1
        if self._index is None:
            self._reader = pgenlib.PgenReader(
                str(self._path).encode(),
                raw_sample_ct=self._n_file,
                variant_ct=self._n_variants,
                sample_subset=None if whole else rows.astype(np.uint32),
            )
            dtype = np.float32 if self._has_dosages else np.int8
            self._raw = np.empty((min(block_variants, 64), self._n), dtype=dtype)
        else:
            self._descriptor = os.open(self._path, os.O_RDONLY)
            self._mapped = None
            if sys.platform == "linux":
                self._mapped = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
            chosen = np.zeros(width(self._n_file), dtype=bool)
            chosen[rows] = True
            bits = np.packbits(chosen, bitorder="little").view(np.uint32)
            self._chosen = np.empty(0, dtype=np.uint32) if whole else bits
            self._base = np.zeros(words_of_calls(self._n_file), dtype=np.uint32)
            self._calls = np.zeros_like(self._base)
            self._present = np.zeros(width(self._n_file) // 32, dtype=np.uint32)
            self._line = np.zeros(width(self._n_file), dtype=np.uint16)
            self._bytes_of_line = np.zeros(width(self._n_file), dtype=np.uint8)
            self._content = bytearray(0)

    def read(self, first: int, stop: int) -> Packed:
        """Return variants ``first`` to ``stop``; valid until the next call.

        Raises
        ------
        InputError
            The file is damaged.
        """
        if self._reader is not None:
            self._read_by_pgenlib(first, stop)
        else:
            self._read_records(first, stop)
        counts = None
        if self._has_dosages and self._reader is None:
            counts = counts_of_sums(self._sums[: stop - first])
        return Packed(self._n, self._codes[: stop - first], counts)

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._mapped = None

    def _read_by_pgenlib(self, first: int, stop: int) -> None:
        read = self._reader.read_dosages_range if self._has_dosages else self._reader.read_range
        pack = pack_dosages if self._has_dosages else pack_calls
        for low in range(first, stop, len(self._raw)):
            high = min(low + len(self._raw), stop)
            raw = self._raw[: high - low]
            try:
                read(low, high, raw)
            except RuntimeError as error:
                raise self._damaged(low, high) from error
            pack(raw, self._codes[low - first : high - first])

    def _read_records(self, first: int, stop: int) -> None:
        index = self._index
        low = index.base(first)
        while low < stop:
            high = index.piece(low, stop)
            kinds, offsets = index.records(low, high)
            extent = int(offsets[0]), int(offsets[-1] - offsets[0])
            content = self._bytes(*extent, low, high)
            places = (content, offsets - offsets[0], kinds, self._n_file, low - first)
            if self._has_dosages:
                bad = _decode_dosages(
                    *places, self._codes, self._base, self._calls, self._present, self._line,
                    self._chosen, self._sums,
                )  # fmt: skip
            else:
                bad = _decode_calls(
                    *places, self._codes, self._base, self._calls, self._chosen,
                    self._bytes_of_line,
                )  # fmt: skip
            if bad >= 0:
                raise self._damaged(low + bad, low + bad + 1)
            self._release(*extent)
            low = high

    def _bytes(self, offset: int, size: int, low: int, high: int) -> np.ndarray:
        """Return bytes of the file, mapped where the system can, else read."""
        if os.fstat(self._descriptor).st_size < offset + size:
            raise self._damaged(low, high)
        if self._mapped is not None:
            start = offset // mmap.PAGESIZE * mmap.PAGESIZE
            try:
                # An error of the disk is told here; without this it would end the process.
                self._mapped.madvise(_POPULATE_READ, start, offset + size - start)
                return np.frombuffer(self._mapped, dtype=np.uint8, count=size, offset=offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise self._damaged(low, high) from error
                # An older system.
                self._mapped = None
        if len(self._content) < size:
            self._content = bytearray(size)
        view = memoryview(self._content)[:size]
        done = 0
        while done < size:
            got = os.preadv(self._descriptor, [view[done:]], offset + done)
            if got == 0:
                raise self._damaged(low, high)
            done += got
        return np.frombuffer(view, dtype=np.uint8)

    def _release(self, offset: int, size: int) -> None:
        """Let go of what was mapped, so that memory does not follow the file."""
        if self._mapped is not None:
            start = offset // mmap.PAGESIZE * mmap.PAGESIZE
            self._mapped.madvise(mmap.MADV_DONTNEED, start, offset + size - start)

    def _damaged(self, first: int, stop: int) -> InputError:
        return InputError(
            f"{self._path}: variants {first + 1} to {stop} cannot be decoded: the file is damaged "
            "or cut short; copy or make it again"
        )


class RecordIndex:
    """Types and places of the records of a range of variants.

    Attributes
    ----------
    start : int
        The first variant that is known.
    kinds : (k,) uint8
        Record types; 255 is a record of a ``.bed`` file.
    offsets : (k + 1,) int64
        Where each record begins in the file, and where the last one ends.
    """

    def __init__(self, start: int, kinds: np.ndarray, offsets: np.ndarray):
        self.start = start
        self.kinds = kinds
        self.offsets = offsets

    def base(self, variant: int) -> int:
        """Return the variant itself, or that whose calls its record refers to."""
        at = variant - self.start
        while self.kinds[at] != _BED_KIND and self.kinds[at] & 6 == 2 and at > 0:
            at -= 1
        return self.start + at

    def piece(self, first: int, stop: int) -> int:
        """Return where to stop reading from ``first`` on to read some megabytes at a time."""
        at = first - self.start
        limit = self.offsets[at] + _PIECE_BYTES
        most = int(np.searchsorted(self.offsets, limit, side="right")) - 1
        return self.start + min(max(most, at + 1), stop - self.start)

    def records(self, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the types (k,) and offsets (k + 1,) of variants ``first`` to ``stop``."""
        low, high = first - self.start, stop - self.start
        return self.kinds[low:high], self.offsets[low : high + 1]


_BED_KIND = 255


def record_index(path: Path, n_file: int, first: int, stop: int) -> RecordIndex | None:
    """Return where the records of variants ``first`` to ``stop`` are.

    Returns
    -------
    RecordIndex or None
        None where the file has records that :func:`PackedReader` leaves to pgenlib.
    """
    with path.open("rb") as handle:
        mode = handle.read(3)[2]
        if mode == _BED:
            size = -(-n_file // 4)
            kinds = np.full(stop - first, _BED_KIND, dtype=np.uint8)
            return RecordIndex(first, kinds, 3 + size * np.arange(first, stop + 1))
        if mode != _STANDARD:
            return None
        head = handle.read(9)
        n_variants, form = int.from_bytes(head[:4], "little"), head[8]
        if form & 15 > 7:
            return None
        wide, length_bytes, count_bytes = bool(form & 4), (form & 3) + 1, (form >> 4) & 3
        flagged = form >> 6 == 3
        n_blocks = -(-n_variants // _VARIANTS_PER_BLOCK)
        places = np.frombuffer(handle.read(8 * n_blocks), dtype="<u8").astype(np.int64)
        start = first // _VARIANTS_PER_BLOCK * _VARIANTS_PER_BLOCK
        full = _header_bytes(_VARIANTS_PER_BLOCK, wide, length_bytes, count_bytes, flagged)
        kinds, offsets, end = [], [], 0
        for block in range(start // _VARIANTS_PER_BLOCK, -(-stop // _VARIANTS_PER_BLOCK)):
            m = min(_VARIANTS_PER_BLOCK, n_variants - block * _VARIANTS_PER_BLOCK)
            handle.seek(12 + 8 * n_blocks + block * full)
            if wide:
                kind = np.frombuffer(handle.read(m), dtype=np.uint8)
            else:
                pair = np.frombuffer(handle.read(-(-m // 2)), dtype=np.uint8)
                kind = np.stack([pair & 15, pair >> 4], axis=1).reshape(-1)[:m]
            digits = np.frombuffer(handle.read(m * length_bytes), dtype=np.uint8)
            weights = 256 ** np.arange(length_bytes, dtype=np.int64)
            lengths = digits.reshape(m, length_bytes) @ weights
            ends = places[block] + np.cumsum(lengths)
            kinds.append(kind)
            offsets.append(ends - lengths)
            end = int(ends[-1])
    kind = np.concatenate(kinds)
    if np.any(kind & _MULTIALLELIC) or np.any(kind & 7 == 5):
        return None
    return RecordIndex(start, kind, np.concatenate([*offsets, [end]]))


def _header_bytes(m: int, wide: bool, length_bytes: int, count_bytes: int, flagged: bool) -> int:
    """Return the header's bytes for m variants."""
    return (m if wide else -(-m // 2)) + m * (length_bytes + count_bytes) + flagged * -(-m // 8)


# ---- records -----------------------------------------------------------------------------------
# Places in the content are always within [0, end); -1 says that a record is damaged.


@compiled
def _decode_calls(content, offsets, kinds, n, first_row, out, base, calls, chosen, line):
    """Decode records into rows of ``out`` from ``first_row`` (negative: only for later ones).

    Only the people whose bit is set in ``chosen`` are kept; all where it is empty.

    Returns
    -------
    int
        Which record is damaged; -1 for none.
    """
    for record in range(kinds.shape[0]):
        at = _calls_of_record(content, offsets, kinds, record, n, base, calls)
        if at < 0:
            return record
        if first_row + record >= 0:
            if chosen.shape[0] == 0:
                _copy_words(calls, out[first_row + record])
            else:
                _choose_calls(calls, chosen, line, out[first_row + record])
    return -1


@compiled
def _decode_dosages(
    content, offsets, kinds, n, first_row, out, base, calls, present, line, chosen, sums
):
    """As :func:`_decode_calls`, to dosages.

    Sums are taken of each row while it is in cache.
    """
    whole = chosen.shape[0] == 0
    n_out = n if whole else _number_chosen(chosen)
    for record in range(kinds.shape[0]):
        at = _calls_of_record(content, offsets, kinds, record, n, base, calls)
        if at < 0:
            return record
        row = first_row + record
        if row < 0:
            continue
        target = out[row] if whole else line
        at = _dosages(content, at, offsets[record + 1], kinds[record], n, calls, present, target)
        if at < 0:
            return record
        if not whole:
            _choose(line, chosen, out[row])
        # Places beyond the last person stand in products: they must be numbers.
        for place in range(n_out, out.shape[1]):
            out[row, place] = 0
        sums_of_dosages(out[row], n_out, sums[row])
    return -1


@compiled
def _calls_of_record(content, offsets, kinds, record, n, base, calls):
    """Decode the calls of a record; return the place after them, negative if damaged."""
    at, end, kind = offsets[record], offsets[record + 1], kinds[record]
    if kind == _BED_KIND:
        return _bed_calls(content, at, end, n, calls)
    at = _main_track(content, at, end, kind, n, base, calls)
    last = record + 1 == kinds.shape[0]
    if kind & 6 != 2 and (last or kinds[record + 1] & 6 == 2):
        _copy_words(calls, base)
    return at


@compiled
def _copy_words(source, target):
    size = 4 * source.shape[0]
    copy_bytes(types.uintp(target.ctypes.data), types.uintp(source.ctypes.data), size)


@compiled
def _clear_end(calls, n):
    """Set the codes beyond the last person to 0."""
    word = n >> 4
    if word < calls.shape[0] and n & 15:
        calls[word] &= (np.uint32(1) << np.uint32(2 * (n & 15))) - np.uint32(1)
        word += 1
    calls[word:] = np.uint32(0)


@compiled
def _copy_calls(content, at, n, calls):
    source, target = content.ctypes.data, calls.ctypes.data
    copy_bytes(types.uintp(target), types.uintp(source + at), (n + 3) >> 2)


@compiled
def _bed_calls(content, at, end, n, calls):
    size = (n + 3) >> 2
    if end - at < size:
        return -1
    _copy_calls(content, at, n, calls)
    low_bits = np.uint32(0x55555555)
    for word in range(calls.shape[0]):
        code = calls[word]
        low, high = code & low_bits, (code >> np.uint32(1)) & low_bits
        # 0 two copies, 1 missing, 2 one copy, 3 none, as 2, 3, 1, 0.
        calls[word] = (low ^ high) | ((high ^ low_bits) << np.uint32(1))
    _clear_end(calls, n)
    return at + size


@compiled
def _main_track(content, at, end, kind, n, base, calls):
    form = kind & 7
    if form == 0:
        size = (n + 3) >> 2
        if end - at < size:
            return -1
        _copy_calls(content, at, n, calls)
        _clear_end(calls, n)
        return at + size
    if form == 1:
        at = _two_categories(content, at, end, n, calls)
    elif form in (2, 3):
        _copy_words(base, calls)
    elif form == 4:
        calls[:] = np.uint32(0)
    elif form == 6:
        calls[:] = np.uint32(0xAAAAAAAA)
    elif form == 7:
        calls[:] = np.uint32(0xFFFFFFFF)
    else:
        return -1
    if at < 0:
        return -1
    _clear_end(calls, n)
    at = _patch_calls(content, at, end, n, calls)
    if form == 3:
        # None and two copies change places, of the listed people too.
        low_bits = np.uint32(0x55555555)
        for word in range(calls.shape[0]):
            calls[word] ^= (~calls[word] & low_bits) << np.uint32(1)
        _clear_end(calls, n)
    return at


@compiled
def _two_categories(content, at, end, n, calls):
    size = (n + 7) >> 3
    if end - at < 1 + size:
        return -1
    lower = np.uint32(content[at] >> 2)
    step = np.uint32(content[at] & 3)
    if step == 0 or lower + step > 3:
        return -1
    at += 1
    pairs = calls.view(np.uint64)
    bits = np.zeros(pairs.shape[0], dtype=np.uint32)
    copy_bytes(types.uintp(bits.ctypes.data), types.uintp(content.ctypes.data + at), size)
    # Each bit to the lower of two, then times the step; such loops become vector instructions.
    single = np.uint64(0x5555555555555555)
    once = single if step & np.uint32(1) else np.uint64(0)
    twice = single << np.uint64(1) if step & np.uint32(2) else np.uint64(0)
    least = single * np.uint64(lower)
    for word in range(pairs.shape[0]):
        spread = np.uint64(bits[word])
        spread = (spread | (spread << np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
        spread = (spread | (spread << np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
        spread = (spread | (spread << np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        spread = (spread | (spread << np.uint64(2))) & np.uint64(0x3333333333333333)
        spread = (spread | (spread << np.uint64(1))) & single
        pairs[word] = ((spread & once) | ((spread << np.uint64(1)) & twice)) + least
    return at + size


@compiled
def _number(content, at, end):
    """Return a number of variable length and the place after it."""
    value = np.int64(0)
    for shift in range(0, 35, 7):
        if at >= end:
            break
        byte = np.int64(content[at])
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    return np.int64(0), np.int64(-1)


@compiled
def _id_bytes(n):
    # As many as the number of people itself takes: pgenlib, where the specification has n - 1.
    if n < 1 << 8:
        return 1
    if n < 1 << 16:
        return 2
    return 3 if n < 1 << 24 else 4


@compiled
def _group_start(content, at, size):
    person = np.int64(0)
    for byte in range(size):
        person |= np.int64(content[at + byte]) << (8 * byte)
    return person


@compiled
def _list_places(content, at, end, n, with_values):
    """Return length of a list of people, places of group starts, values and steps."""
    length, at = _number(content, at, end)
    if at < 0 or length > n:
        return np.int64(0), np.int64(-1), np.int64(0), np.int64(0)
    if length == 0:
        return length, at, at, at
    groups = (length + 63) >> 6
    values = at + groups * _id_bytes(n) + groups - 1
    steps = values + (((length + 3) >> 2) if with_values else 0)
    if steps > end:
        return np.int64(0), np.int64(-1), np.int64(0), np.int64(0)
    return length, at, values, steps


@compiled
def _patch_calls(content, at, end, n, calls):
    """Apply a list of people and their calls; return the place after it."""
    length, starts, values, at = _list_places(content, at, end, n, True)
    if starts < 0:
        return np.int64(-1)
    size = _id_bytes(n)
    for group in range(0, length, 64):
        person = _group_start(content, starts + (group >> 6) * size, size)
        for item in range(group, min(group + 64, length)):
            if item > group:
                if at >= end:
                    return np.int64(-1)
                # Nearly all steps are one byte. (Unsigned places spare the check for negative
                # ones.)
                step = np.int64(content[np.uint64(at)])
                if step < 128:
                    at += 1
                else:
                    step, at = _number(content, at, end)
                    if at < 0:
                        return np.int64(-1)
                person += step
            if person >= n:
                return np.int64(-1)
            place, of = np.uint64(person), np.uint64(item)
            value = content[np.uint64(values) + (of >> np.uint64(2))]
            value = np.uint32(value >> np.uint32(2 * (item & 3))) & np.uint32(3)
            shift = np.uint32(place & np.uint64(15)) * np.uint32(2)
            word = place >> np.uint64(4)
            calls[word] = (calls[word] & ~(np.uint32(3) << shift)) | (value << shift)
    return at


@compiled
def _skip_phase(content, at, end, calls):
    low_bits = np.uint32(0x55555555)
    single = np.int64(0)
    for word in range(calls.shape[0]):
        code = calls[word]
        single += count_bits(np.uint64(code & ~(code >> np.uint32(1)) & low_bits))
    size = (single + 8) >> 3
    if end - at < size:
        return -1
    if content[at] & 1:
        phased = np.int64(-1)
        for byte in range(size):
            phased += count_bits(np.uint64(content[at + byte]))
        size += (phased + 7) >> 3
    return at + size if end - at >= size else -1


@compiled
def _dosage_at(content, at):
    return np.uint16(content[at]) | (np.uint16(content[at + 1]) << np.uint16(8))


@compiled
def _dosages(content, at, end, kind, n, calls, present, target):
    """Write dosages, those of the calls where there are no others; return the place after."""
    form = 0 if kind == _BED_KIND else (kind >> 5) & 3
    if form and kind & 0x10:
        at = _skip_phase(content, at, end, calls)
        if at < 0:
            return np.int64(-1)
    source = content.ctypes.data
    if form == 2:
        if end - at < 2 * n:
            return np.int64(-1)
        copy_bytes(types.uintp(target.ctypes.data), types.uintp(source + at), 2 * n)
        return at + 2 * n
    if form == 3:
        size = (n + 7) >> 3
        if end - at < size:
            return np.int64(-1)
        present[-2:] = np.uint32(0)
        copy_bytes(types.uintp(present.ctypes.data), types.uintp(source + at), size)
        if n & 31:
            present[n >> 5] &= (np.uint32(1) << np.uint32(n & 31)) - np.uint32(1)
        at += size
        listed = _number_chosen(present)
        if end - at < 2 * listed:
            return np.int64(-1)
    else:
        present[:] = np.uint32(0)
        listed = 0
    fill_dosages(
        types.uintp(calls.ctypes.data), types.uintp(present.ctypes.data), present.shape[0],
        types.uintp(source + at), types.uintp(target.ctypes.data),
    )  # fmt: skip
    if form == 1:
        return _listed_dosages(content, at, end, n, target)
    return at + 2 * listed


@compiled
def _listed_dosages(content, at, end, n, target):
    """Put the dosages of a list of people in their places; return the place after them."""
    length, starts, _, after = _list_places(content, at, end, n, False)
    if starts < 0:
        return np.int64(-1)
    size = _id_bytes(n)
    # The steps come first, the dosages after them.
    at = after
    for item in range(length):
        if item & 63:
            _, at = _number(content, at, end)
            if at < 0:
                return np.int64(-1)
    if end - at < 2 * length:
        return np.int64(-1)
    person = np.int64(0)
    for item in range(length):
        if item & 63 == 0:
            person = _group_start(content, starts + (item >> 6) * size, size)
        else:
            step, after = _number(content, after, end)
            person += step
        if person >= n:
            return np.int64(-1)
        target[person] = _dosage_at(content, at + 2 * item)
    return at + 2 * length


@compiled
def _number_chosen(chosen):
    number = np.int64(0)
    for word in range(chosen.shape[0]):
        number += count_bits(np.uint64(chosen[word]))
    return number


@compiled
def _choose(line, chosen, target):
    source, address = line.ctypes.data, target.ctypes.data
    for word in range(chosen.shape[0]):
        gather_dosages(types.uintp(source + 64 * word), chosen[word], types.uintp(address))
        address += 2 * count_bits(np.uint64(chosen[word]))


@compiled
def _choose_calls(calls, chosen, line, target):
    source, start = calls.ctypes.data, line.ctypes.data
    masks = chosen.view(np.uint64)
    number = 0
    for word in range(masks.shape[0]):
        gather_calls(types.uintp(source + 16 * word), masks[word], types.uintp(start + number))
        number += count_bits(masks[word])
    line[number : 16 * target.shape[0]] = 0
    address = target.ctypes.data
    for word in range(target.shape[0] // 4):
        pack_bytes(types.uintp(start + 64 * word), types.uintp(address + 16 * word))
