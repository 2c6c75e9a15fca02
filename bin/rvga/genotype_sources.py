"""What the heads of BGEN, VCF and BCF files say: who is in them, and what they hold."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rvga.errors import InputError

FORMATS = ("bgen", "vcf", "bcf")
# Where each format's name may be told from the file's.
SUFFIXES = {".bgen": "bgen", ".vcf": "vcf", ".vcf.gz": "vcf", ".bcf": "bcf"}
# The empty block that ends every complete BGZF file (SAM specification, section 4.1.2).
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_FIXED_COLUMNS = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
_LONGEST_HEADER = 1 << 28
_ANONYMOUS = re.compile(r"\(?anonymous_sample_\d+\)?")


@dataclass(frozen=True)
class Source:
    """The head of a genotype file.

    Attributes
    ----------
    path : Path
        The file.
    format : {"bgen", "vcf", "bcf"}
        What it is.
    n_samples : int
        Number of people.
    ids : tuple of str, or None
        Their ids as the file writes them; None where it has none.
    n_variants : int or None
        Number of variants (BGEN); the other formats do not say it beforehand.
    fields : frozenset of str
        FORMAT fields that the header declares (VCF and BCF).
    first_chromosome : str
        Chromosome of the first variant as written (BGEN), which may be empty.
    """

    path: Path
    format: str
    n_samples: int
    ids: tuple[str, ...] | None
    n_variants: int | None = None
    fields: frozenset[str] = frozenset()
    first_chromosome: str = ""


def source_format(path: Path, given: str = "") -> str:
    """Return a file's format: the one given, else by the end of its name.

    Raises
    ------
    InputError
        The name ends in none of the known ways.
    """
    if given:
        return given
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return SUFFIXES[suffix]
    raise InputError(
        f"{path}: the name ends in none of {', '.join(SUFFIXES)}; state its format "
        f"({', '.join(FORMATS)})"
    )


def source_stem(path: Path) -> str:
    """Return the file's name without its suffix (``.vcf.gz`` is one)."""
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def read_source(path: Path, form: str) -> Source:
    """Read the head of a BGEN, VCF or BCF file.

    Raises
    ------
    InputError
        The file is absent, empty, of another format or version, cut short, without people, or
        has an id twice or with a space in it.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file (genotypes)")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (genotypes); copy or make it again")
    source = {"bgen": _read_bgen, "vcf": _read_vcf, "bcf": _read_bcf}[form](path)
    if source.n_samples == 0:
        raise InputError(f"{path}: holds no sample, only variants; give a file with genotypes")
    seen: dict[str, int] = {}
    for number, name in enumerate(source.ids or (), start=1):
        if name in seen:
            raise InputError(
                f"{path}: sample '{name}' is there twice (samples {seen[name]} and {number}); "
                "remove or rename one of them"
            )
        seen[name] = number
    return source


# -------------------------------------------------------------------------------------------
# BGEN
# -------------------------------------------------------------------------------------------


def _read_bgen(path: Path) -> Source:
    with path.open("rb") as handle:
        try:
            offset, length, m, n = struct.unpack("<4I", _exactly(handle, 16))
            magic = _exactly(handle, 4)
            if magic not in (b"bgen", bytes(4)) or not 20 <= length <= offset:
                raise InputError(f"{path}: not a BGEN file (its head is that of another format)")
            handle.seek(length)
            (flags,) = struct.unpack("<I", _exactly(handle, 4))
            layout, has_ids = (flags >> 2) & 15, bool(flags >> 31)
            if layout not in (1, 2):
                raise InputError(
                    f"{path}: BGEN layout {layout} is unknown; give BGEN 1.1, 1.2 or 1.3"
                )
            ids = _bgen_ids(handle, path, n) if has_ids else None
            handle.seek(offset + 4)
            chromosome = _bgen_chromosome(handle, layout) if m else ""
        except (EOFError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path}: the file is cut short or damaged within its head; copy or make it again"
            ) from error
    if m == 0:
        raise InputError(f"{path}: holds no variant")
    if ids is not None and all(_ANONYMOUS.fullmatch(name) for name in ids):
        ids = None
    return Source(path, "bgen", n, ids, n_variants=m, first_chromosome=chromosome)


def _bgen_ids(handle: BinaryIO, path: Path, n: int) -> tuple[str, ...]:
    _, number = struct.unpack("<II", _exactly(handle, 8))
    if number != n:
        raise InputError(f"{path}: holds {n} people but {number} sample ids; the file is damaged")
    return tuple(_bgen_text(handle) for _ in range(n))


def _bgen_text(handle: BinaryIO) -> str:
    (length,) = struct.unpack("<H", _exactly(handle, 2))
    return _exactly(handle, length).decode()


def _bgen_chromosome(handle: BinaryIO, layout: int) -> str:
    """Return the chromosome of the variant at which the file stands."""
    if layout == 1:
        _exactly(handle, 4)
    _bgen_text(handle)
    _bgen_text(handle)
    return _bgen_text(handle)


def _exactly(handle: BinaryIO, size: int) -> bytes:
    content = handle.read(size)
    if len(content) != size:
        raise EOFError
    return content


# -------------------------------------------------------------------------------------------
# VCF and BCF
# -------------------------------------------------------------------------------------------


@contextmanager
def open_text(path: Path) -> Iterator[BinaryIO]:
    """Open a file that may be compressed by gzip, for reading bytes."""
    with path.open("rb") as plain:
        compressed = plain.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if compressed else path.open("rb") as handle:
        yield handle


def _read_vcf(path: Path) -> Source:
    _refuse_cut_bgzf(path)
    header: list[bytes] = []
    try:
        with open_text(path) as handle:
            if not handle.peek(16).startswith(b"##fileformat=VCF"):
                raise InputError(
                    f"{path}: not a VCF file (it does not begin with '##fileformat=VCF')"
                )
            for line in handle:
                header.append(line)
                if not line.startswith(b"##"):
                    break
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path) from error
    return _from_header(path, "vcf", b"".join(header))


def _read_bcf(path: Path) -> Source:
    _refuse_cut_bgzf(path)
    try:
        with open_text(path) as handle:
            if handle.read(3) != b"BCF" or handle.read(2)[:1] != b"\x02":
                raise InputError(f"{path}: not a BCF file of version 2")
            (length,) = struct.unpack("<I", _exactly(handle, 4))
            if length > _LONGEST_HEADER:
                raise InputError(f"{path}: a header of {length} bytes; the file is damaged")
            header = _exactly(handle, length)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path) from error
    return _from_header(path, "bcf", header.rstrip(b"\0"))


def _from_header(path: Path, form: str, header: bytes) -> Source:
    """Return what the text of a VCF header says."""
    try:
        lines = header.decode().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the header is no UTF-8 text") from error
    columns = lines[-1].split("\t") if lines else []
    if columns[:8] != _FIXED_COLUMNS[:8]:
        raise InputError(
            f"{path}: line {len(lines)} should be the header line '#CHROM POS ID …' with tabs "
            "between; the file is cut short, or no VCF"
        )
    ids = tuple(columns[9:])
    for name in ids:
        if not name or any(letter.isspace() for letter in name):
            raise InputError(
                f"{path}: sample '{name}' has a space in its id, or none; rename it, e.g. with "
                "'bcftools reheader'"
            )
    found = (re.match(r"##FORMAT=<ID=([^,>]+)", line) for line in lines)
    fields = frozenset(match[1] for match in found if match)
    return Source(path, form, len(ids), ids, fields=fields)


def _refuse_cut_bgzf(path: Path) -> None:
    """Refuse a block-compressed file without its end, which other readers take for complete."""
    with path.open("rb") as handle:
        head = handle.read(18)
        if head[:4] != b"\x1f\x8b\x08\x04" or head[12:14] != b"BC":
            return
        handle.seek(max(0, path.stat().st_size - len(_BGZF_END)))
        if handle.read() != _BGZF_END:
            raise InputError(
                f"{path}: the file is cut short (its last block is missing); copy or make it again"
            )


def _damaged(path: Path) -> InputError:
    return InputError(f"{path}: cannot be decompressed; the file is cut short or damaged")
