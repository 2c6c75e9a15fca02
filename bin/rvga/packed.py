"""Genotypes as densely as genotype files hold them, and compiled loops over them.

Hard calls take two bits a person (0, 1, 2 copies of the effect allele, 3 missing; 16 people a
little-endian 32-bit word, the first in the lowest bits), dosages 16 bits (copies times 16,384;
65,535 missing): the codes of PLINK 2's file format. Rows are filled with 0 to a multiple of 64
people. A block of variants is read, counted and multiplied in this form, so that memory traffic is
a sixteenth or half of that of single precision.

The loops over words are written in vectors of the compiler's own language, where loops over single
people would not become vector instructions; any processor runs them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from rvga.machine_code import compiled

CALLS_A_WORD = 16
DOSAGES_A_WORD = 32
PEOPLE_A_ROW_STEP = 64
DOSAGE_ONE = 16384
MISSING_DOSAGE = 65535
# A dosage this near to a whole number is a hard call (PLINK's default).
_CALL_DISTANCE = DOSAGE_ONE // 10
_ROWS_AHEAD = 4
# Bytes ahead that are asked for while dosages are read and written.
_BYTES_AHEAD = 4096
# Sums of the 16 pairs of so many rows of 32 dosages, each below 2^16, stay below 2^32.
_ROWS_PER_SUM = 1 << 11

_I1, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 16, 32, 64))
_BYTE, _F32 = ir.IntType(8), ir.FloatType()


def width(n: int) -> int:
    """Return the places of a row of n people, a multiple of 64."""
    return -(-n // PEOPLE_A_ROW_STEP) * PEOPLE_A_ROW_STEP


def words_of_calls(n: int) -> int:
    """Return the 32-bit words of a row of hard calls."""
    return width(n) // CALLS_A_WORD


@dataclass(frozen=True)
class Counts:
    """Sums over people of each variant of a block.

    Attributes
    ----------
    called : (m,) int64
        People with a genotype.
    total, squares : (m,) float64
        Sum of the dosages and of their squares, exact.
    """

    called: np.ndarray
    total: np.ndarray
    squares: np.ndarray


@dataclass(frozen=True)
class Packed:
    """Genotypes of a block of variants.

    Attributes
    ----------
    n : int
        People.
    codes : (m, words) uint32 or (m, width) uint16
        Hard calls or dosages, as the module says.
    counts : Counts, optional
        Sums over people, where the reader took them.
    """

    n: int
    codes: np.ndarray
    counts: Counts | None = None

    @property
    def is_calls(self) -> bool:
        """Whether these are hard calls."""
        return self.codes.dtype == np.uint32

    def __len__(self) -> int:
        return len(self.codes)

    def dosage(self, row: int) -> np.ndarray:
        """Return the copies of the effect allele of one variant, (n,) float64, NaN missing."""
        if self.is_calls:
            shifts = 2 * np.arange(CALLS_A_WORD, dtype=np.uint32)
            codes = ((self.codes[row][:, None] >> shifts) & 3).reshape(-1)[: self.n]
            return np.where(codes == 3, np.nan, codes.astype(np.float64))
        codes = self.codes[row, : self.n]
        return np.where(codes == MISSING_DOSAGE, np.nan, codes / float(DOSAGE_ONE))


def pack_calls(calls: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return the codes of int8 calls (m, n), any negative number missing."""
    m, n = calls.shape
    if out is None:
        out = np.empty((m, words_of_calls(n)), dtype=np.uint32)
    _pack_calls(calls, out)
    return out


def pack_dosages(dosages: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return the codes of float32 dosages (m, n), any negative number missing."""
    m, n = dosages.shape
    if out is None:
        out = np.zeros((m, width(n)), dtype=np.uint16)
    out[:, :n] = np.where(dosages < 0, MISSING_DOSAGE, np.rint(dosages * DOSAGE_ONE))
    out[:, n:] = 0
    return out


def pack(raw: np.ndarray) -> Packed:
    """Return int8 calls or float32 dosages (m, n), negative missing, as a block."""
    pack_rows = pack_calls if raw.dtype == np.int8 else pack_dosages
    return Packed(raw.shape[1], pack_rows(raw))


def mask_of(people: np.ndarray) -> np.ndarray:
    """Return which people (n,) bool as the codes' words: both bits of a person set or not."""
    bits = np.zeros((words_of_calls(len(people)), CALLS_A_WORD), dtype=np.uint32)
    bits.reshape(-1)[: len(people)] = np.where(people, 3, 0)
    shifts = 2 * np.arange(CALLS_A_WORD, dtype=np.uint32)
    return np.bitwise_or.reduce(bits << shifts, axis=1)


def call_counts(block: Packed, mask: np.ndarray | None = None) -> np.ndarray:
    """Return how many people have 0, 1, 2 copies and no call, (m, 4) int64.

    Dosages within a tenth of a whole number count as calls, others as none.

    Parameters
    ----------
    mask : (words,) uint32, optional
        From :func:`mask_of`; count these people only.
    """
    out = np.empty((len(block), 4), dtype=np.int64)
    if mask is None:
        mask = mask_of(np.ones(block.n, dtype=bool))
    if block.is_calls:
        _call_counts(block.codes, mask, out)
    else:
        _call_counts_of_dosages(block.codes, block.n, mask, out)
    return out


def counts(block: Packed, mask: np.ndarray | None = None) -> Counts:
    """Return the sums over people of each variant; ``mask`` as in :func:`call_counts`."""
    if block.is_calls:
        number = call_counts(block, mask)
        total = number[:, 1] + 2 * number[:, 2]
        squares = number[:, 1] + 4 * number[:, 2]
        return Counts(number[:, :3].sum(axis=1), total.astype(float), squares.astype(float))
    sums = np.empty((len(block), 3), dtype=np.uint64)
    if mask is None:
        _dosage_sums(block.codes, block.n, sums)
    else:
        _dosage_sums_masked(block.codes, block.n, mask, sums)
    return counts_of_sums(sums)


def counts_of_sums(sums: np.ndarray) -> Counts:
    """Return what :func:`sums_of_dosages` wrote, (m, 3), in units of alleles."""
    return Counts(
        sums[:, 2].astype(np.int64),
        sums[:, 0].astype(np.float64) / DOSAGE_ONE,
        sums[:, 1].astype(np.float64) / float(DOSAGE_ONE) ** 2,
    )


def dosage_range(block: Packed, rows: np.ndarray) -> np.ndarray:
    """Return the least and the largest number of copies of some variants, (k, 2) float64.

    Parameters
    ----------
    rows : (k,) int
        Variants of the block, each with somebody called.
    """
    if block.is_calls:
        seen = call_counts(Packed(block.n, block.codes[rows]))[:, :3] > 0
        least, largest = seen.argmax(axis=1), 2 - seen[:, ::-1].argmax(axis=1)
        return np.column_stack([least, largest]).astype(float)
    out = np.empty((len(rows), 2), dtype=np.uint16)
    _dosage_range(block.codes, block.n, rows, out)
    return out / float(DOSAGE_ONE)


def clear_single_copies(block: Packed, mask: np.ndarray, out: np.ndarray) -> None:
    """Make genotypes of exactly one copy missing for the people of a mask, and count them.

    Parameters
    ----------
    out : (m,) int64
        Gains the number by variant.
    """
    if block.is_calls:
        _clear_single_calls(block.codes, mask, out)
    else:
        _clear_dosages(block.codes, block.n, mask, True, out)


def clear_people(block: Packed, mask: np.ndarray) -> None:
    """Make the genotypes of the people of a mask missing."""
    if block.is_calls:
        block.codes[...] |= mask
    else:
        unused = np.zeros(len(block), dtype=np.int64)
        _clear_dosages(block.codes, block.n, mask, False, unused)


# ---- vectors -----------------------------------------------------------------------------------


def _splat(builder, value, length):
    """Return a vector of equal elements."""
    vector = ir.VectorType(value.type, length)
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, length), [0] * length)
    return builder.shuffle_vector(first, undefined, zeros)


def _calls_of_word(builder, word):
    """Return the 16 calls of a word as a vector of i32."""
    vector = ir.VectorType(_I32, CALLS_A_WORD)
    shifts = ir.Constant(vector, [2 * call for call in range(CALLS_A_WORD)])
    shifted = builder.lshr(_splat(builder, word, CALLS_A_WORD), shifts)
    return builder.and_(shifted, ir.Constant(vector, [3] * CALLS_A_WORD))


def store(builder, vector, address, align):
    builder.store(vector, builder.inttoptr(address, vector.type.as_pointer())).align = align


def _ask_for(builder, pointer, ahead, to_write):
    """Ask for the cache line some bytes after a place, which will be read or written soon."""
    byte = _BYTE.as_pointer()
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32]),
        "llvm.prefetch.p0",
    )
    place = builder.gep(builder.bitcast(pointer, byte), [ir.Constant(_I64, ahead)])
    keep, data = 3, 1
    builder.call(function, [place, *(ir.Constant(_I32, x) for x in (int(to_write), keep, data))])


def require_columns(memory: int, columns: int) -> None:
    """Refuse memory that was made for another number of columns.

    Raises
    ------
    ValueError
    """
    if memory != columns:
        raise ValueError(f"memory for {memory} columns, but {columns} are multiplied")


def constant(vector, value):
    return ir.Constant(vector, [value] * vector.count)


def load(builder, address, vector, align):
    loaded = builder.load(builder.inttoptr(address, vector.as_pointer()))
    loaded.align = align
    return loaded


def _bytes(builder, codes):
    """Return the 64 pairs of bits of a vector of 16 bytes as 64 bytes, four by four."""
    wide = ir.VectorType(_I32, CALLS_A_WORD)
    codes = builder.zext(codes, wide)
    codes = builder.or_(codes, builder.shl(codes, constant(wide, 6)))
    codes = builder.or_(codes, builder.shl(codes, constant(wide, 12)))
    return builder.and_(codes, constant(wide, 0x03030303))


@intrinsic
def bytes_of_calls(typing, source, missing, target):
    """Store 64 calls as bytes, or with ``missing`` 1 for those of them without a call, else 0."""

    def generate(context, builder, signature, arguments):
        source, missing, target = arguments
        codes = load(builder, source, ir.VectorType(_BYTE, CALLS_A_WORD), 4)
        absent = builder.and_(codes, builder.lshr(codes, constant(codes.type, 1)))
        absent = builder.and_(absent, constant(codes.type, 0x55))
        store(builder, _bytes(builder, builder.select(missing, absent, codes)), target, 1)
        return context.get_dummy_value()

    return types.void(types.uintp, types.boolean, types.uintp), generate


@intrinsic
def gather_calls(typing, source, mask, target):
    """Store those of 64 calls whose bit is set one after another, as bytes."""

    def generate(context, builder, signature, arguments):
        source, mask, target = arguments
        vector, bits = ir.VectorType(_BYTE, 64), ir.VectorType(_I1, 64)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [vector, _BYTE.as_pointer(), bits]),
            "llvm.masked.compressstore.v64i8",
        )
        codes = load(builder, source, ir.VectorType(_BYTE, CALLS_A_WORD), 4)
        calls = builder.bitcast(_bytes(builder, codes), vector)
        target = builder.inttoptr(target, _BYTE.as_pointer())
        builder.call(function, [calls, target, builder.bitcast(mask, bits)])
        return context.get_dummy_value()

    return types.void(types.uintp, types.uint64, types.uintp), generate


@intrinsic
def pack_bytes(typing, source, target):
    """Store 64 bytes from 0 to 3 as 64 calls."""

    def generate(context, builder, signature, arguments):
        source, target = arguments
        wide = ir.VectorType(_I32, CALLS_A_WORD)
        calls = load(builder, source, wide, 1)
        calls = builder.or_(calls, builder.lshr(calls, constant(wide, 6)))
        calls = builder.or_(calls, builder.lshr(calls, constant(wide, 12)))
        store(builder, builder.trunc(calls, ir.VectorType(_BYTE, CALLS_A_WORD)), target, 4)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp), generate


@intrinsic
def centre_calls(typing, word, centre, target):
    """Store 16 calls less ``centre`` as float32 at an address, 0 for a missing one."""

    def generate(context, builder, signature, arguments):
        word, centre, target = arguments
        integers = ir.VectorType(_I32, CALLS_A_WORD)
        floats = ir.VectorType(_F32, CALLS_A_WORD)
        calls = _calls_of_word(builder, word)
        centred = builder.fsub(builder.sitofp(calls, floats), _splat(builder, centre, CALLS_A_WORD))
        missing = builder.icmp_unsigned("==", calls, ir.Constant(integers, [3] * CALLS_A_WORD))
        zero = ir.Constant(floats, [0.0] * CALLS_A_WORD)
        store(builder, builder.select(missing, zero, centred), target, 4)
        return context.get_dummy_value()

    return types.void(types.uint32, types.float32, types.uintp), generate


@intrinsic
def fill_dosages(typing, calls, present, words, source, target):
    """Store rows of 32 dosages: the next of a list where a bit is set, elsewhere the calls.

    Parameters
    ----------
    calls : address of words 64-bit words
        Hard calls.
    present : address of words 32-bit words
        Whose dosage is in the list.
    source, target : addresses of uint16
        The list, and where the rows go.
    """

    def generate(context, builder, signature, arguments):
        calls, present, words, source, target = arguments
        dosages = ir.VectorType(_I16, DOSAGES_A_WORD)
        bits = ir.VectorType(_I1, DOSAGES_A_WORD)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(dosages, [_I16.as_pointer(), bits, dosages]),
            f"llvm.masked.expandload.v{DOSAGES_A_WORD}i16",
        )
        calls = builder.inttoptr(calls, ir.IntType(64).as_pointer())
        present = builder.inttoptr(present, _I32.as_pointer())
        target = builder.inttoptr(target, dosages.as_pointer())
        following = cgutils.alloca_once_value(builder, builder.inttoptr(source, _I16.as_pointer()))
        with cgutils.for_range(builder, words) as loop:
            known = _dosages_of_calls(builder, builder.load(builder.gep(calls, [loop.index])))
            mask = builder.load(builder.gep(present, [loop.index]))
            list_place = builder.load(following)
            row_place = builder.gep(target, [loop.index])
            _ask_for(builder, list_place, _BYTES_AHEAD, False)
            _ask_for(builder, row_place, _BYTES_AHEAD, True)
            row = builder.call(function, [list_place, builder.bitcast(mask, bits), known])
            builder.store(row, row_place).align = 2
            builder.store(builder.gep(list_place, [builder.ctpop(mask)]), following)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.intp, types.uintp, types.uintp), generate


def _dosages_of_calls(builder, word):
    """Return the 32 calls of a 64-bit word as a vector of dosage codes."""
    vector = ir.VectorType(_I16, DOSAGES_A_WORD)
    shorts = builder.bitcast(word, ir.VectorType(_I16, 4))
    places = ir.Constant(
        ir.VectorType(_I32, DOSAGES_A_WORD), [place // 8 for place in range(DOSAGES_A_WORD)]
    )
    spread = builder.shuffle_vector(shorts, ir.Constant(shorts.type, ir.Undefined), places)
    # Each call to the highest two bits, where a copy is 16,384.
    shifts = ir.Constant(vector, [14 - 2 * (place % 8) for place in range(DOSAGES_A_WORD)])
    top = ir.Constant(vector, [3 << 14] * DOSAGES_A_WORD)
    copies = builder.and_(builder.shl(spread, shifts), top)
    unknown = ir.Constant(vector, [MISSING_DOSAGE] * DOSAGES_A_WORD)
    return builder.select(builder.icmp_unsigned("==", copies, top), unknown, copies)


@intrinsic
def add_dosages(typing, source, words, sums):
    """Write the sum of rows of 32 dosage codes, that of their squares, and how many are missing.

    Parameters
    ----------
    source : address of uint16
        The codes.
    words : int
        Rows of 32.
    sums : address of three uint64
        Where the sums go.
    """

    def generate(context, builder, signature, arguments):
        source, words, sums = arguments
        half, lanes = DOSAGES_A_WORD // 2, DOSAGES_A_WORD // 4
        dosages = ir.VectorType(_I16, DOSAGES_A_WORD)
        pairs, wide = ir.VectorType(_I32, half), ir.VectorType(_I64, lanes)
        unknown = ir.Constant(dosages, [MISSING_DOSAGE] * DOSAGES_A_WORD)
        none = ir.Constant(dosages, [0] * DOSAGES_A_WORD)
        middle = ir.Constant(dosages, [1 << 15] * DOSAGES_A_WORD)
        sixteen, short = (ir.Constant(pairs, [x] * half) for x in (16, MISSING_DOSAGE))
        thirty_two = ir.Constant(wide, [32] * lanes)
        even, odd = (
            ir.Constant(ir.VectorType(_I32, half), list(range(first, DOSAGES_A_WORD, 2)))
            for first in (0, 1)
        )
        source = builder.inttoptr(source, dosages.as_pointer())
        missing, total = (
            cgutils.alloca_once_value(builder, ir.Constant(_I64, 0)) for _ in range(2)
        )
        by_pair = cgutils.alloca_once(builder, pairs)
        mixed, upper = (
            cgutils.alloca_once_value(builder, ir.Constant(wide, [0] * lanes)) for _ in range(2)
        )

        def add(place, value):
            builder.store(builder.add(builder.load(place), value), place)

        def added_up(vector):
            value = builder.extract_element(vector, ir.Constant(_I32, 0))
            for lane in range(1, vector.type.count):
                element = builder.extract_element(vector, ir.Constant(_I32, lane))
                value = builder.add(value, element)
            return value

        def squared(row, places):
            part = builder.shuffle_vector(row, ir.Constant(dosages, ir.Undefined), places)
            part = builder.sext(part, pairs)
            return builder.mul(part, part)

        step = ir.Constant(words.type, _ROWS_PER_SUM)
        with cgutils.for_range_slice(
            builder, ir.Constant(words.type, 0), words, step, intp=words.type
        ) as (first, _):
            left = builder.sub(words, first)
            many = builder.select(builder.icmp_signed("<", left, step), left, step)
            builder.store(ir.Constant(pairs, [0] * half), by_pair)
            with cgutils.for_range(builder, many) as loop:
                place = builder.add(first, loop.index)
                row = builder.load(builder.gep(source, [place]))
                row.align = 2
                absent = builder.icmp_unsigned("==", row, unknown)
                number = builder.ctpop(builder.bitcast(absent, _I32))
                add(missing, builder.zext(number, _I64))
                row = builder.select(absent, none, row)
                two = builder.bitcast(row, pairs)
                add(by_pair, builder.add(builder.and_(two, short), builder.lshr(two, sixteen)))
                # Squares of the distance to 32,768, so that signed 16-bit products do; the sum of
                # two is at most 2^31. Pairs of sums are added as they are, and their upper
                # halves once more.
                row = builder.xor(row, middle)
                squares = builder.add(squared(row, even), squared(row, odd))
                squares = builder.bitcast(squares, wide)
                add(mixed, squares)
                add(upper, builder.lshr(squares, thirty_two))
            add(total, builder.zext(added_up(builder.load(by_pair)), _I64))
        total = builder.load(total)
        upper = added_up(builder.load(upper))
        lower = builder.sub(
            added_up(builder.load(mixed)), builder.shl(upper, ir.Constant(_I64, 32))
        )
        # The square of the distance is v^2 - 2^16 v + 2^30.
        squares = builder.add(builder.add(lower, upper), builder.shl(total, ir.Constant(_I64, 16)))
        places = builder.mul(words, ir.Constant(words.type, DOSAGES_A_WORD))
        squares = builder.sub(squares, builder.shl(places, ir.Constant(_I64, 30)))
        sums = builder.inttoptr(sums, _I64.as_pointer())
        for place, value in enumerate((total, squares, builder.load(missing))):
            builder.store(value, builder.gep(sums, [ir.Constant(_I32, place)]))
        return context.get_dummy_value()

    return types.void(types.uintp, types.int64, types.uintp), generate


@intrinsic
def gather_dosages(typing, source, mask, target):
    """Store those of 32 dosages whose bit is set one after another."""

    def generate(context, builder, signature, arguments):
        source, mask, target = arguments
        vector = ir.VectorType(_I16, DOSAGES_A_WORD)
        bits = ir.VectorType(_I1, DOSAGES_A_WORD)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [vector, _I16.as_pointer(), bits]),
            f"llvm.masked.compressstore.v{DOSAGES_A_WORD}i16",
        )
        old = builder.load(builder.inttoptr(source, vector.as_pointer()))
        old.align = 2
        builder.call(
            function,
            [old, builder.inttoptr(target, _I16.as_pointer()), builder.bitcast(mask, bits)],
        )
        return context.get_dummy_value()

    return types.void(types.uintp, types.uint32, types.uintp), generate


@intrinsic
def copy_bytes(typing, target, source, size):
    """Copy bytes from one address to another."""

    def generate(context, builder, signature, arguments):
        target, source, size = arguments
        byte = ir.IntType(8).as_pointer()
        cgutils.raw_memcpy(
            builder, builder.inttoptr(target, byte), builder.inttoptr(source, byte), size, 1
        )
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.intp), generate


@intrinsic
def prefetch(typing, address):
    """Ask for the cache line at an address, which will be read soon."""

    def generate(context, builder, signature, arguments):
        _ask_for(builder, builder.inttoptr(arguments[0], _BYTE.as_pointer()), 0, False)
        return context.get_dummy_value()

    return types.void(types.uintp), generate


@intrinsic
def count_bits(typing, word):
    """Return the number of bits of a 64-bit word that are set."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


# ---- loops over people -------------------------------------------------------------------------


@compiled
def _pack_calls(calls, out):
    m, n = calls.shape
    for row in range(m):
        line = calls[row]
        target = out[row]
        for word in range(target.shape[0]):
            packed = np.uint32(0)
            low = 16 * word
            for at in range(min(16, n - low)):
                packed |= (np.uint32(line[low + at]) & np.uint32(3)) << np.uint32(2 * at)
            target[word] = packed


@compiled
def _call_counts(codes, mask, out):
    # Two words at a time.
    pairs, masks = codes.view(np.uint64), mask.view(np.uint64)
    low_bits = np.uint64(0x5555555555555555)
    for row in range(pairs.shape[0]):
        line = pairs[row]
        people, ones, twos, missing = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        for word in range(line.shape[0]):
            chosen = masks[word] & low_bits
            low = line[word]
            high = low >> np.uint64(1)
            people += count_bits(chosen)
            ones += count_bits(low & ~high & chosen)
            twos += count_bits(~low & high & chosen)
            missing += count_bits(low & high & chosen)
        out[row, 0] = people - ones - twos - missing
        out[row, 1] = ones
        out[row, 2] = twos
        out[row, 3] = missing


@compiled
def _chosen(mask, person):
    return (mask[person >> 4] >> np.uint32(2 * (person & 15))) & np.uint32(1)


@compiled
def _call_counts_of_dosages(codes, n, mask, out):
    for row in range(codes.shape[0]):
        line = codes[row, :n]
        for group in range(4):
            out[row, group] = 0
        for person in range(line.shape[0]):
            if _chosen(mask, person):
                value = np.int64(line[person])
                call = (value + DOSAGE_ONE // 2) // DOSAGE_ONE
                if value == MISSING_DOSAGE or abs(value - call * DOSAGE_ONE) > _CALL_DISTANCE:
                    call = 3
                out[row, call] += 1


@compiled
def sums_of_dosages(line, n, out):
    """Write the sum of a row of dosage codes, that of their squares, and how many are called.

    Places beyond the last of the n people are 0.
    """
    source, target = line.ctypes.data, out.ctypes.data
    add_dosages(types.uintp(source), line.shape[0] // 32, types.uintp(target))
    out[2] = np.uint64(n) - out[2]


@compiled
def _dosage_sums(codes, n, out):
    for row in range(codes.shape[0]):
        sums_of_dosages(codes[row], n, out[row])


@compiled
def _dosage_range(codes, n, rows, out):
    for place in range(rows.shape[0]):
        line = codes[rows[place], :n]
        least, largest = np.uint16(65535), np.uint16(0)
        for person in range(line.shape[0]):
            value = line[person]
            # The code of a missing one is the largest there is.
            least = min(least, value)
            largest = max(largest, np.uint16(0) if value == np.uint16(65535) else value)
        out[place, 0] = least
        out[place, 1] = largest


@compiled
def _dosage_sums_masked(codes, n, mask, out):
    for row in range(codes.shape[0]):
        line = codes[row, :n]
        total, squares, called = np.uint64(0), np.uint64(0), np.uint64(0)
        for person in range(line.shape[0]):
            if _chosen(mask, person) and line[person] != np.uint16(65535):
                value = np.uint64(line[person])
                total += value
                squares += value * value
                called += np.uint64(1)
        out[row, 0] = total
        out[row, 1] = squares
        out[row, 2] = called


@compiled
def _clear_single_calls(codes, mask, out):
    for row in range(codes.shape[0]):
        line = codes[row]
        for word in range(line.shape[0]):
            low = line[word]
            single = low & ~(low >> np.uint32(1)) & mask[word] & np.uint32(0x55555555)
            out[row] += count_bits(np.uint64(single))
            line[word] = low | (single << np.uint32(1))


@compiled
def _clear_dosages(codes, n, mask, single_only, out):
    for row in range(codes.shape[0]):
        line = codes[row, :n]
        for person in range(line.shape[0]):
            if _chosen(mask, person) and (not single_only or line[person] == np.uint16(16384)):
                line[person] = np.uint16(65535)
                out[row] += 1


@compiled
def centre_tile(codes, centre, low, high, tile):
    """Write genotypes less their centre, missing ones 0, of places low to high as float32.

    ``low`` and ``high`` are multiples of 16; places beyond the last person get minus the centre.
    """
    # Rows are far apart in memory: ask for those that come.
    size = codes.itemsize * codes.shape[1]
    quarters = 1 if codes.itemsize == 4 else 8  # bytes of four people
    begin, end = low * quarters // 4, high * quarters // 4
    for row in range(codes.shape[0]):
        if row + _ROWS_AHEAD < codes.shape[0]:
            address = codes.ctypes.data + (row + _ROWS_AHEAD) * size
            for byte in range(begin, end, 64):
                prefetch(types.uintp(address + byte))
        _centre_row(codes[row], centre[row], low, high, tile[row])


def _centre_row(codes, centre, low, high, target):
    """Do one row of :func:`centre_tile`; only compiled."""
    raise NotImplementedError


@overload(_centre_row)
def _centre_row_compiled(codes, centre, low, high, target):
    if codes.dtype == types.uint32:

        def calls(codes, centre, low, high, target):
            words = codes[low >> 4 : high >> 4]
            address = target.ctypes.data
            for word in range(words.shape[0]):
                centre_calls(words[word], centre, types.uintp(address + 64 * word))

        return calls

    def dosages(codes, centre, low, high, target):
        source = codes[low:high]
        for person in range(source.shape[0]):
            value = source[person]
            centred = np.float32(np.int32(value)) * np.float32(2.0**-14) - centre
            target[person] = np.float32(0.0) if value == np.uint16(65535) else centred

    return dosages
