"""Variants with several ALT alleles as several variants, in the text of a VCF file."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

from rvga.errors import InputError
from rvga.genotype_sources import open_text


def split_multiallelic(source: Path, out: Path) -> int:
    """Copy a VCF file with each variant of several ALT alleles as one variant an allele.

    In the line of an ALT allele, calls of the others count as reference, so that its dosage is
    the number of copies of that allele. GT and DS are kept, and INFO fields that have one value
    an ALT allele; the other fields of such a line are left out. Other lines stay as they are.

    Parameters
    ----------
    source : Path
        ``.vcf`` or ``.vcf.gz``.
    out : Path
        ``.vcf.gz`` to write.

    Returns
    -------
    int
        Number of variants that were split.

    Raises
    ------
    InputError
        A line to split is damaged.
    """
    n_split = 0
    by_allele: set[bytes] = set()
    with open_text(source) as lines, gzip.GzipFile(out, "wb", compresslevel=1, mtime=0) as copy:
        for number, line in enumerate(lines, start=1):
            if line.startswith(b"#"):
                found = re.match(rb"##INFO=<ID=([^,>]+),Number=A,", line)
                if found:
                    by_allele.add(found[1])
                copy.write(line)
                continue
            alternatives = line.split(b"\t", 5)[4:5]
            if not alternatives or b"," not in alternatives[0]:
                copy.write(line)
                continue
            try:
                copy.writelines(_split_line(line, by_allele))
            except (IndexError, ValueError) as error:
                raise InputError(
                    f"{source}: line {number} with several ALT alleles cannot be split: it is "
                    "damaged; make the file again"
                ) from error
            n_split += 1
    return n_split


def _split_line(line: bytes, by_allele: set[bytes]) -> list[bytes]:
    """Return the lines of each ALT allele."""
    words = line.rstrip(b"\r\n").split(b"\t")
    fixed, samples = words[:9], [word.split(b":") for word in words[9:]]
    names = fixed[8].split(b":")
    kept = [names.index(name) for name in (b"GT", b"DS") if name in names]
    if not kept:
        raise ValueError("neither GT nor DS")
    result = []
    alternatives = fixed[4].split(b",")
    for place, allele in enumerate(alternatives):
        info = _info(fixed[7], by_allele, place, len(alternatives))
        head = [*fixed[:4], allele, *fixed[5:7], info, b":".join(names[at] for at in kept)]
        cells = [
            b":".join(
                _call(cell[at], place + 1)
                if names[at] == b"GT"
                else _value(cell[at] if at < len(cell) else b".", place)
                for at in kept
            )
            for cell in samples
        ]
        result.append(b"\t".join([*head, *cells]) + b"\n")
    return result


def _info(info: bytes, by_allele: set[bytes], place: int, number: int) -> bytes:
    """Return INFO with the value of one allele where there is one for each."""
    parts = []
    for part in info.split(b";"):
        name, equals, values = part.partition(b"=")
        if equals and name in by_allele:
            each = values.split(b",")
            part = name + b"=" + (each[place] if len(each) == number else b".")
        parts.append(part)
    return b";".join(parts)


def _call(call: bytes, allele: int) -> bytes:
    """Return a call with 1 for this allele and 0 for all others; missing stays."""
    parts = re.split(rb"([/|])", call)
    return b"".join(
        part if part in (b"/", b"|", b".") else (b"1" if int(part) == allele else b"0")
        for part in parts
    )


def _value(values: bytes, place: int) -> bytes:
    """Return the value of one allele from one for each, or the missing value."""
    return b"." if values == b"." else values.split(b",")[place]
