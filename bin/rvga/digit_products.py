"""Products with images and their transpose in whole numbers, by a processor's matrix tiles.

Numbers are rounded to whole multiples of a unit and split into signed digits of base 256, of which
8-bit products are added up in 32 bits without rounding. Products of two digits whose places sum to
less than a level are left out. Three digits of images and of vectors are about as good as single
precision; four of images, which hold single-precision values within 1/128 of the largest of an
image without rounding, and five of vectors are nearly as good as double.

An image has a unit of its own, a power of two. As sums are exact, how images come in blocks matters
for the rounding of ``X v`` and of sums over blocks only.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rvga.machine_code import compiled
from rvga.packed import constant, load, store
from rvga.tile_products import (
    TILE_BYTES,
    aligned,
    available,
    release_tiles,
    set_tiles,
    tile_call,
    tile_shape,
)

# Rows of a tile, images or vectors; and bytes of its rows, voxels or images.
_ROWS, _STEP = 16, 64
# Steps whose bytes of sixteen rows stay in the first-level cache while all columns meet them.
_PIECE = 8
# Steps whose sums of products of digits, at most four of 2^14, stay below 2^31.
_STEPS_PER_SUM = 256
# Digits of images and of vectors.
ROUGH, CLOSE = (3, 3), (4, 5)
# Images held at a time: the more, the less often sums over voxels are brought up.
IMAGES_HELD = 512


@dataclass(frozen=True)
class DigitVectors:
    """Vectors over voxels as digits.

    Attributes
    ----------
    tiles : (steps, column groups, digits, 1024) uint8
        64 voxels, sixteen vectors; a row of a tile has four voxels of each vector side by side.
    unit : (k,) float64
        Value of one.
    """

    tiles: np.ndarray
    unit: np.ndarray


def largest_whole(digits: int) -> int:
    """Return the largest number whose signed digits are within 8 bits."""
    return 127 * sum(256**place for place in range(digits))


def _units(largest: np.ndarray, digits: int) -> np.ndarray:
    """Return the least powers of two that make whole numbers small enough; 1 where all are 0."""
    exponent = np.ceil(np.log2(np.where(largest > 0, largest, 1.0) / largest_whole(digits)))
    unit = np.exp2(exponent)
    return np.where(largest > unit * largest_whole(digits), 2.0 * unit, unit)


def digit_vectors(V: np.ndarray, digits: int) -> DigitVectors:
    """Split vectors V (N, k) into digits, each rounded to D of them."""
    N, k = V.shape
    unit = _units(np.maximum(V.max(axis=0), -V.min(axis=0)).astype(np.float64), digits)
    shape = (-(-N // _STEP), -(-k // _ROWS), digits, TILE_BYTES)
    tiles = aligned(int(np.prod(shape))).reshape(shape)
    _split_vectors(V, 1.0 / unit, tiles)
    return DigitVectors(tiles, unit)


class DigitCovariance:
    """The sum of ``(X - 1 m')' (X - 1 m') V`` over blocks of images X.

    Parameters
    ----------
    vectors : (N, k)
        V.
    mean : (N,) float64
        m.
    units : (n,) float64
        Of all images; 0 where not known yet, which the first product finds.
    digits : (int, int)
        :data:`ROUGH` or :data:`CLOSE`.
    most : int
        Images of a block at most.
    pool, workers
        Threads, which do not matter for the result.

    Raises
    ------
    RuntimeError
        The machine has no tiles: the products would end the process.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        mean: np.ndarray,
        units: np.ndarray,
        digits: tuple[int, int],
        most: int,
        pool: Executor,
        workers: int,
    ):
        if not available():
            raise RuntimeError("this machine has no tiles for 8-bit products")
        self._N, self._k = vectors.shape
        self._pool, self._workers = pool, workers
        high = mean.astype(np.float32)
        self._mean = np.stack([high, (mean - high).astype(np.float32)])
        self._vectors = digit_vectors(vectors, digits[1])
        # Units are kept for as many digits as rough ones have; one more makes them 256 times less.
        self._units, self._finer = units, 256.0 ** (ROUGH[0] - digits[0])
        steps, columns = self._vectors.tiles.shape[:2]
        groups = 4 * -(-max(most, IMAGES_HELD) // _STEP)
        shape = (groups, steps, digits[0], TILE_BYTES)
        self._images = aligned(int(np.prod(shape))).reshape(shape)
        self._unit = np.zeros((groups, _ROWS))
        self._scores = np.zeros((groups * _ROWS, columns * _ROWS))
        self._total = np.zeros((steps, columns, _ROWS, _STEP))
        self._groups = self._seen = 0

    def add(self, block: np.ndarray) -> None:
        """Add a block of images (n_b, N).

        Those that are float32, with the voxels of an image side by side, are not copied.

        Raises
        ------
        ValueError
            They are more than a block may have.
        """
        if block.dtype != np.float32 or block.strides[1] != block.itemsize:
            # The loops go from voxel to voxel by addresses.
            block = np.ascontiguousarray(block, dtype=np.float32)
        n = len(block)
        groups = -(-n // _ROWS)
        if groups > len(self._images):
            raise ValueError(f"a block of {n} images, but {_ROWS * len(self._images)} are the most")
        if self._groups + groups > len(self._images):
            self._multiply()
        unit = np.zeros(groups * _ROWS)
        unit[:n] = self._units[self._seen : self._seen + n]
        most, finer = float(largest_whole(ROUGH[0]) - 1), self._finer
        images = self._images[self._groups : self._groups + groups]
        self._share(
            groups,
            lambda first, stop: _split_images(
                block, self._mean, images, first, stop, unit, most, finer
            ),
        )
        self._units[self._seen : self._seen + n] = unit[:n]
        self._unit[self._groups : self._groups + groups] = unit.reshape(-1, _ROWS) * finer
        self._seen += n
        self._groups += groups

    def total(self) -> np.ndarray:
        """Return the sum over all blocks so far, (N, k) float64."""
        self._multiply()
        by_voxel = self._total.transpose(0, 3, 1, 2)
        return by_voxel.reshape(-1, self._total.shape[1] * _ROWS)[: self._N, : self._k]

    def _share(self, count: int, work: Callable[[int, int], None]) -> None:
        """Do work on ranges of so many things in several threads."""
        bounds = np.linspace(0, count, min(self._workers, count) + 1).astype(int)
        list(self._pool.map(work, bounds[:-1], bounds[1:]))

    def _multiply(self) -> None:
        """Multiply the images held, and hold none."""
        if self._groups == 0:
            return
        # Steps of 64 images must be whole; what is beyond counts nothing.
        filled = 4 * -(-self._groups // 4)
        self._images[self._groups : filled] = 0
        self._unit[self._groups : filled] = 0.0
        tiles, shape, columns = self._vectors.tiles, tile_shape(), self._total.shape[1]
        images, digits = self._images.shape[2], tiles.shape[2]
        levels = _levels(images, digits)

        def multiply(first: int, stop: int) -> None:
            sums = aligned((stop - first) * columns * levels * TILE_BYTES).view(np.int32)
            sums = sums.reshape(stop - first, columns, levels, _ROWS * _ROWS)
            _multiply_images(self._images, tiles, first, stop, sums, self._scores, shape)

        self._share(filled, multiply)
        unit = self._unit[:filled].reshape(-1, 1)
        U = self._scores[: filled * _ROWS, : self._k] * (unit * unit * self._vectors.unit)
        rows, row_unit = digit_rows(U, digits)

        def add(first: int, stop: int) -> None:
            inner = rows.shape[1]
            quarters = aligned(4 * inner * images * TILE_BYTES)
            sums = aligned(levels * TILE_BYTES).view(np.int32).reshape(levels, _ROWS * _ROWS)
            _multiply_transposed(
                self._images, rows, first, stop, row_unit, quarters, sums, self._total, shape
            )

        self._share(len(self._total), add)
        self._groups = 0


def _levels(images: int, vectors: int) -> int:
    """Return over how many sums of places products of digits are kept."""
    return images + vectors - min(images, vectors)


def held_bytes(most: int, N: int, k: int, digits: tuple[int, int]) -> int:
    """Return the bytes that a :class:`DigitCovariance` holds."""
    images, columns = 64 * -(-max(most, IMAGES_HELD) // 64), 16 * -(-k // 16)
    # The sum is copied once when it is asked for.
    return (images * digits[0] + columns * (16 + digits[1])) * 64 * -(-N // 64)


def digit_rows(U: np.ndarray, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the columns of U (n, k) into digits, as rows of tiles; return them and their units."""
    n, k = U.shape
    unit = _units(np.abs(U).max(axis=0), digits)
    shape = (-(-k // _ROWS), -(-n // _STEP), digits, TILE_BYTES)
    tiles = aligned(int(np.prod(shape))).reshape(shape)
    _split_rows(U, 1.0 / unit, tiles)
    return tiles, unit


# ---- vectors and tiles -------------------------------------------------------------------------

_I8, _I16, _I32, _I64, _F32 = (*(ir.IntType(bits) for bits in (8, 16, 32, 64)), ir.FloatType())
_POINTER = _I8.as_pointer()


def _call_vector(builder, name, *arguments):
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(arguments[0].type, [value.type for value in arguments]),
        name,
    )
    return builder.call(function, arguments)


@intrinsic
def _largest_apart(typing, values, high, low, largest):
    """Return the greater of a number and the largest size of 16 values less their mean."""

    def generate(context, builder, signature, arguments):
        values, high, low, largest = arguments
        vector = ir.VectorType(_F32, 16)
        apart = builder.fsub(load(builder, values, vector, 4), load(builder, high, vector, 4))
        apart = builder.fsub(apart, load(builder, low, vector, 4))
        size = _call_vector(builder, "llvm.fabs.v16f32", apart)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_F32, [vector]), "llvm.vector.reduce.fmax.v16f32"
        )
        here = builder.call(function, [size])
        return builder.select(builder.fcmp_ordered(">", here, largest), here, largest)

    return types.float32(types.uintp, types.uintp, types.uintp, types.float32), generate


def _store_digits(digits):
    """Return what stores the digits of 64 values less their mean, 1,024 bytes apart."""

    @intrinsic
    def function(typing, values, high, low, inverse, target):
        def generate(context, builder, signature, arguments):
            values, high, low, inverse, target = arguments
            vector, whole = ir.VectorType(_F32, 16), ir.VectorType(_I32, 16)
            scale = ir.Constant(vector, ir.Undefined)
            for lane in range(16):
                scale = builder.insert_element(scale, inverse, ir.Constant(_I32, lane))

            def nearest(value):
                return builder.fptosi(_call_vector(builder, "llvm.rint.v16f32", value), whole)

            for part in range(4):
                at = ir.Constant(_I64, 64 * part)
                x, h, m = (
                    load(builder, builder.add(place, at), vector, 4)
                    for place in (values, high, low)
                )
                apart = builder.fsub(x, h)
                rest = m
                if digits > ROUGH[0]:
                    # What the difference was rounded by (Knuth's two-sum).
                    back = builder.fsub(apart, x)
                    lost = builder.fsub(x, builder.fsub(apart, back))
                    rest = builder.fsub(m, builder.fsub(lost, builder.fadd(h, back)))
                    number = nearest(builder.fmul(apart, scale))
                    number = builder.sub(number, nearest(builder.fmul(rest, scale)))
                else:
                    number = nearest(builder.fmul(builder.fsub(apart, rest), scale))
                for digit in range(digits):
                    low_byte = builder.trunc(number, ir.VectorType(_I8, 16))
                    place = ir.Constant(_I64, digit * TILE_BYTES + 16 * part)
                    store(builder, low_byte, builder.add(target, place), 16)
                    number = builder.ashr(
                        builder.add(number, constant(whole, 128)), constant(whole, 8)
                    )
            return context.get_dummy_value()

        signature = types.void(types.uintp, types.uintp, types.uintp, types.float32, types.uintp)
        return signature, generate

    return function


def _multiply_digits(row_digits, column_digits):
    """Return what adds products of tiles of rows with those of columns to tiles of sums.

    Sums are by the places' sum, the least kept first. Steps are so many bytes apart; fresh sums
    begin with zero.
    """
    least = min(row_digits, column_digits) - 1
    levels = _levels(row_digits, column_digits)

    @intrinsic
    def function(typing, rows, row_step, columns, column_step, sums, steps, fresh):
        def generate(context, builder, signature, arguments):
            rows, row_step, columns, column_step, sums, steps, fresh = arguments
            line = ir.Constant(_I64, _STEP)

            def place(base, tile):
                return builder.inttoptr(
                    builder.add(base, ir.Constant(_I64, tile * TILE_BYTES)), _POINTER
                )

            with builder.if_else(fresh) as (anew, on):
                with anew:
                    for level in range(levels):
                        tile_call(builder, "tilezero", level)
                with on:
                    for level in range(levels):
                        tile_call(builder, "tileloadd64", level, place(sums, level), line)
            with cgutils.for_range(builder, steps) as loop:
                row = builder.add(rows, builder.mul(loop.index, row_step))
                column = builder.add(columns, builder.mul(loop.index, column_step))
                # Tiles of the rows take turns in those that are left, but for one.
                room, meeting = 7 - levels, 7
                held: dict[int, int] = {}
                for other in range(column_digits - 1, -1, -1):
                    tile_call(builder, "tileloadd64", meeting, place(column, other), line)
                    met = list(range(max(least - other, 0), row_digits))
                    # Those that are held already come first.
                    for digit in sorted(met, key=lambda digit: digit not in held):
                        if digit not in held:
                            tile = levels + digit % room
                            held = {key: at for key, at in held.items() if at != tile}
                            held[digit] = tile
                            tile_call(builder, "tileloadd64", tile, place(row, digit), line)
                        level = digit + other - least
                        tile_call(builder, "tdpbssd", level, held[digit], meeting)
            for level in range(levels):
                tile_call(builder, "tilestored64", level, place(sums, level), line)
            return context.get_dummy_value()

        signature = types.void(
            types.uintp, types.int64, types.uintp, types.int64, types.uintp, types.int64,
            types.boolean,
        )  # fmt: skip
        return signature, generate

    return function


@intrinsic
def _interleave(typing, rows, target, apart):
    """Store four rows of 64 bytes, 64 apart, side by side, sixteen places to each target."""

    def generate(context, builder, signature, arguments):
        rows, target, apart = arguments
        vector = ir.VectorType(_I8, 64)
        r = [
            load(builder, builder.add(rows, ir.Constant(_I64, 64 * row)), vector, 64)
            for row in range(4)
        ]

        def mixed(one, other, start, count, size):
            lanes = [x for i in range(count) for x in (start + i, size + start + i)]
            return builder.shuffle_vector(
                one, other, ir.Constant(ir.VectorType(_I32, 2 * count), lanes)
            )

        for quarter in range(4):
            pairs = ir.VectorType(_I16, 16)
            one = builder.bitcast(mixed(r[0], r[1], 16 * quarter, 16, 64), pairs)
            other = builder.bitcast(mixed(r[2], r[3], 16 * quarter, 16, 64), pairs)
            place = builder.add(target, builder.mul(apart, ir.Constant(_I64, quarter)))
            store(builder, mixed(one, other, 0, 16, 16), place, 64)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.int64), generate


_store_3, _store_4 = _store_digits(3), _store_digits(4)
_multiply_33 = _multiply_digits(3, 3)
_multiply_45, _multiply_54 = _multiply_digits(4, 5), _multiply_digits(5, 4)


# ---- loops -------------------------------------------------------------------------------------


@compiled
def _put_digits(number, tiles, at):
    """Store the signed digits of a whole number, each in its own tile, at one place."""
    for digit in range(tiles.shape[0]):
        tiles[digit, at] = np.uint8(number & 255)
        number = (number + 128) >> 8


@compiled
def _split_images(block, mean, tiles, first, stop, unit, most, finer):
    n, N = block.shape
    steps, D = tiles.shape[1], tiles.shape[2]
    whole = N // 64
    base, line = block.ctypes.data, block.strides[0]
    high, low = mean.ctypes.data, mean.ctypes.data + 4 * N
    for group in range(first, stop):
        for row in range(16):
            image = 16 * group + row
            if image >= n:
                for step in range(steps):
                    for digit in range(D):
                        for at in range(64 * row, 64 * row + 64):
                            tiles[group, step, digit, at] = 0
                continue
            if unit[image] > 0.0:
                continue
            largest = np.float32(0.0)
            for at in range(0, N - 15, 16):
                largest = _largest_apart(
                    types.uintp(base + image * line + 4 * at),
                    types.uintp(high + 4 * at),
                    types.uintp(low + 4 * at),
                    largest,
                )
            for at in range(N - N % 16, N):
                apart = abs(block[image, at] - mean[0, at] - mean[1, at])
                largest = max(largest, apart)
            one = 1.0
            if largest > 0.0:
                one = 2.0 ** np.ceil(np.log2(largest / most))
                if largest > one * most:
                    one *= 2.0
            # Of what is less, the inverse is beyond single precision.
            unit[image] = max(one, 2.0**-118)
        for step in range(whole):
            at = 256 * step
            for row in range(min(16, n - 16 * group)):
                image = 16 * group + row
                inverse = np.float32(1.0 / (unit[image] * finer))
                place = tiles.ctypes.data + ((group * steps + step) * D) * 1024 + 64 * row
                values = types.uintp(base + image * line + at)
                if D == 3:
                    _store_3(
                        values, types.uintp(high + at), types.uintp(low + at), inverse,
                        types.uintp(place),
                    )  # fmt: skip
                else:
                    _store_4(
                        values, types.uintp(high + at), types.uintp(low + at), inverse,
                        types.uintp(place),
                    )  # fmt: skip
        if whole < steps:
            for row in range(min(16, n - 16 * group)):
                image = 16 * group + row
                for lane in range(64):
                    at = 64 * whole + lane
                    number = 0
                    if at < N:
                        apart = np.float64(block[image, at]) - mean[0, at] - mean[1, at]
                        number = np.int64(np.rint(apart / (unit[image] * finer)))
                    _put_digits(number, tiles[group, whole], 64 * row + lane)


@compiled
def _split_vectors(V, inverse, tiles):
    N, k = V.shape
    for voxel in range(N):
        step, at = voxel // 64, voxel % 64
        for column in range(k):
            number = np.int64(np.rint(V[voxel, column] * inverse[column]))
            group, lane = column // 16, column % 16
            _put_digits(number, tiles[step, group], 64 * (at // 4) + 4 * lane + at % 4)


@compiled
def _split_rows(U, inverse, tiles):
    n, k = U.shape
    for image in range(n):
        step, at = image // 64, image % 64
        for column in range(k):
            number = np.int64(np.rint(U[image, column] * inverse[column]))
            group, lane = column // 16, column % 16
            _put_digits(number, tiles[group, step], 64 * lane + at)


@compiled
def _multiply_images(images, vectors, first, stop, sums, out, shape):
    steps, line = images.shape[1], images.shape[2] * 1024
    columns, width = vectors.shape[1], vectors.shape[2] * 1024
    size = sums.shape[2] * 1024
    set_tiles(types.uintp(shape.ctypes.data))
    out[16 * first : 16 * stop] = 0.0
    for begin in range(0, steps, _STEPS_PER_SUM):
        end = min(begin + _STEPS_PER_SUM, steps)
        for piece in range(begin, end, _PIECE):
            count, fresh = min(_PIECE, end - piece), piece == begin
            for group in range(first, stop):
                rows = types.uintp(images.ctypes.data + (group * steps + piece) * line)
                for column in range(columns):
                    met = types.uintp(vectors.ctypes.data + (piece * columns + column) * width)
                    place = types.uintp(
                        sums.ctypes.data + ((group - first) * columns + column) * size
                    )
                    if images.shape[2] == 3:
                        _multiply_33(rows, line, met, columns * width, place, count, fresh)
                    else:
                        _multiply_45(rows, line, met, columns * width, place, count, fresh)
        for group in range(first, stop):
            for column in range(columns):
                for row in range(16):
                    line_ = out[16 * group + row, 16 * column : 16 * column + 16]
                    _add_levels(sums[group - first, column], row, 1.0, line_)
    release_tiles()


@compiled
def _add_levels(levels, row, unit, line):
    """Add the sums of a tile's row, over all places, times a unit."""
    at = 16 * row
    if levels.shape[0] == 3:
        factor = unit * 65536.0
        for lane in range(16):
            line[lane] += factor * np.float64(
                np.int64(levels[0, at + lane])
                + (np.int64(levels[1, at + lane]) << 8)
                + (np.int64(levels[2, at + lane]) << 16)
            )
    else:
        factor = unit * 16777216.0
        for lane in range(16):
            lower = (
                np.int64(levels[0, at + lane])
                + (np.int64(levels[1, at + lane]) << 8)
                + (np.int64(levels[2, at + lane]) << 16)
                + (np.int64(levels[3, at + lane]) << 24)
            )
            upper = 4294967296.0 * np.float64(levels[4, at + lane])
            line[lane] += factor * (np.float64(lower) + upper)


@compiled
def _multiply_transposed(images, rows, first, stop, unit, columns, sums, total, shape):
    steps, D = images.shape[1], images.shape[2]
    groups, K, width = rows.shape[0], rows.shape[1], rows.shape[2] * 1024
    k = unit.shape[0]
    set_tiles(types.uintp(shape.ctypes.data))
    quarter = K * D * 1024
    for step in range(first, stop):
        for inner in range(K):
            for digit in range(D):
                target = columns.ctypes.data + (inner * D + digit) * 1024
                for line in range(16):
                    group = 4 * inner + line // 4
                    source = ((group * steps + step) * D + digit) * 1024 + 256 * (line % 4)
                    _interleave(
                        types.uintp(images.ctypes.data + source),
                        types.uintp(target + 64 * line),
                        quarter,
                    )
        at = types.uintp(sums.ctypes.data)
        for group in range(groups):
            met = types.uintp(rows.ctypes.data + group * K * width)
            for part in range(4):
                place = types.uintp(columns.ctypes.data + part * quarter)
                if D == 3:
                    _multiply_33(met, width, place, D * 1024, at, K, True)
                else:
                    _multiply_54(met, width, place, D * 1024, at, K, True)
                for row in range(min(16, k - 16 * group)):
                    line_ = total[step, group, row, 16 * part : 16 * part + 16]
                    _add_levels(sums, row, unit[16 * group + row], line_)
    release_tiles()
