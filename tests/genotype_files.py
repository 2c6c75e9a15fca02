"""BGEN and VCF files of known dosages, written by the formats' definitions."""

from __future__ import annotations

import gzip
import shutil
import struct
import subprocess
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

MISSING = -9
needs_plink2 = pytest.mark.skipif(
    shutil.which("plink2") is None, reason="plink2, which converts BGEN and VCF, is not on PATH"
)


def probabilities_of(dosages: np.ndarray, bits: int = 8) -> np.ndarray:
    """Return whole-numbered P(0 copies) and P(1 copy) of dosages, (m, n, 2), scale 2**bits - 1."""
    top = (1 << bits) - 1
    dosage = np.clip(dosages, 0, 2)
    one = np.where(dosage <= 1, dosage, 2 - dosage)
    two = np.clip(dosage - 1, 0, None)
    one = np.round(one * top).astype(np.int64)
    zero = top - one - np.round(two * top).astype(np.int64)
    return np.stack([np.maximum(zero, 0), one], axis=-1)


def bgen_dosages(dosages: np.ndarray, bits: int = 8) -> np.ndarray:
    """Return the dosages that a BGEN file of so many bits can hold, -9 missing."""
    probabilities = probabilities_of(dosages, bits) / ((1 << bits) - 1)
    held = 2 - 2 * probabilities[..., 0] - probabilities[..., 1]
    return np.where(dosages == MISSING, MISSING, held)


def write_bgen(
    path: Path,
    dosages: np.ndarray,
    *,
    ids: Sequence[str] | None = None,
    chromosome: str = "1",
    start: int = 1000,
    compression: str = "zlib",
    alleles: Sequence[str] = ("A", "G"),
    variants: Sequence[Sequence[str]] = (),
) -> Path:
    """Write a BGEN file of layout 2 with 8 bits a probability (m, n); -9 is missing.

    ``compression`` zlib makes version 1.2, zstd version 1.3. The dosage counts the second
    allele. ``variants`` (chromosome, position, id, first and second allele) may replace the
    made-up ones.
    """
    m, n = dosages.shape
    flags = {"none": 0, "zlib": 1, "zstd": 2}[compression] | 2 << 2 | (ids is not None) << 31
    header = struct.pack("<III4sI", 20, m, n, b"bgen", flags)
    identifiers = b""
    if ids is not None:
        words = [name.encode() for name in ids]
        body = b"".join(struct.pack("<H", len(word)) + word for word in words)
        identifiers = struct.pack("<II", 8 + len(body), n) + body
    content = [struct.pack("<I", len(header) + len(identifiers)), header, identifiers]
    for row, probabilities in enumerate(probabilities_of(dosages)):
        position, identity = start + 10 * row, f"rs{start + 10 * row}"
        if variants:
            chromosome, position, identity, *alleles = variants[row][:5]
        names = [f"snp{row}", identity, chromosome]
        head = b"".join(struct.pack("<H", len(name)) + name.encode() for name in names)
        head += struct.pack("<IH", int(position), len(alleles))
        head += b"".join(struct.pack("<I", len(name)) + name.encode() for name in alleles)
        ploidy = np.where(dosages[row] == MISSING, 0x82, 2).astype(np.uint8)
        probabilities = np.where((dosages[row] == MISSING)[:, None], 0, probabilities)
        if len(alleles) > 2:
            # Everybody has two copies of the first allele.
            probabilities = np.zeros((n, len(alleles) * (len(alleles) + 1) // 2 - 1))
            probabilities[:, 0] = 255
        data = struct.pack("<IHBB", n, len(alleles), 2, 2) + ploidy.tobytes()
        data += bytes([0, 8]) + probabilities.astype(np.uint8).tobytes()
        if compression == "none":
            content += [head, struct.pack("<I", len(data)), data]
            continue
        packed = (
            zlib.compress(data)
            if compression == "zlib"
            else pa.compress(data, codec="zstd", asbytes=True)
        )
        content += [head, struct.pack("<II", len(packed) + 4, len(data)), packed]
    path.write_bytes(b"".join(content))
    return path


def join_bgen(out: Path, first: Path, *others: Path) -> Path:
    """Write the variants of several BGEN files of the same people as one file."""
    contents = [path.read_bytes() for path in (first, *others)]
    bodies = [content[4 + struct.unpack("<I", content[:4])[0] :] for content in contents]
    number = sum(struct.unpack("<I", content[8:12])[0] for content in contents)
    head = contents[0][: len(contents[0]) - len(bodies[0])]
    out.write_bytes(head[:8] + struct.pack("<I", number) + head[12:] + b"".join(bodies))
    return out


def write_sample_file(path: Path, ids: Sequence[tuple[str, str]], sex: Sequence[str] = ()) -> Path:
    """Write an Oxford .sample file of (ID_1, ID_2) pairs."""
    lines = ["ID_1 ID_2 missing sex", "0 0 0 D"] if sex else ["ID_1 ID_2 missing", "0 0 0"]
    for row, (first, second) in enumerate(ids):
        lines.append(f"{first} {second} 0" + (f" {sex[row]}" if sex else ""))
    path.write_text("\n".join(lines) + "\n")
    return path


VCF_HEAD = """##fileformat=VCFv4.2
##contig=<ID=1>
##INFO=<ID=R2,Number=1,Type=Float,Description="Imputation quality">
##INFO=<ID=AF,Number=A,Type=Float,Description="Allele frequency">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
"""
VCF_DOSAGE = '##FORMAT=<ID=DS,Number=A,Type=Float,Description="Dosage of ALT">\n'


def write_vcf_lines(
    path: Path, ids: Sequence[str], lines: Sequence[str], *, dosage: bool = False
) -> Path:
    """Write a VCF file of these lines, compressed where the name ends in .gz."""
    head = VCF_HEAD + (VCF_DOSAGE if dosage else "")
    columns = "\t".join(["#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT", *ids])
    content = (head + "\n".join([columns, *lines]) + "\n").encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def vcf_line(fixed: Sequence[str], values: np.ndarray, info: str = ".") -> str:
    """Return the line of a variant: int8 calls as GT, dosages as GT:DS; -9 is missing (n,)."""
    calls = {0: "0/0", 1: "0/1", 2: "1/1", MISSING: "./."}
    cells = [calls[round(float(value))] for value in values]
    dosage = values.dtype != np.int8
    if dosage:
        cells = [
            f"{call}:{'.' if value == MISSING else f'{value:.6f}'}"
            for call, value in zip(cells, values, strict=True)
        ]
    return "\t".join([*fixed[:5], ".", "PASS", info, "GT:DS" if dosage else "GT", *cells])


def write_vcf(
    path: Path, genotypes: np.ndarray, ids: Sequence[str], chromosome: str = "1", start: int = 1000
) -> Path:
    """Write int8 calls as GT, or dosages as GT:DS with six digits; -9 is missing (m, n)."""
    lines = []
    for row, values in enumerate(genotypes):
        position = str(start + 10 * row)
        fixed = (chromosome, position, f"rs{position}", "A", "G")
        lines.append(vcf_line(fixed, values, f"R2=0.{row % 9 + 1}"))
    return write_vcf_lines(path, ids, lines, dosage=genotypes.dtype != np.int8)


def export(main: Path, out: Path, *words: str) -> Path:
    """Let plink2 export a PLINK 2 set as ``out`` (bgen-1.2, vcf, bcf …); return the file."""
    subprocess.run(
        ["plink2", "--pfile", main.with_suffix(""), "--export", *words, "--threads", "1"]
        + ["--out", out.with_suffix("")],
        check=True,
        capture_output=True,
    )
    return out
