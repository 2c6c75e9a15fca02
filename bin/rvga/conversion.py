"""BGEN, VCF and BCF files to PLINK 2 files, by one run of plink2."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvga.chromosomes import pseudoautosomal
from rvga.errors import InputError
from rvga.genotype_samples import SampleTable
from rvga.genotype_sources import Source
from rvga.vcf_split import split_multiallelic

# plink2 refuses a smaller workspace.
LEAST_MEMORY = 640
ENDS = (".psam", ".pvar", ".pgen")
_ALL_CHROMOSOMES = "1-22,X,Y,XY,MT,PAR1,PAR2"
_X_CHROMOSOMES = "X,XY,PAR1,PAR2"
_NO_SPACE = re.compile(r"No space left on device|write failure", re.IGNORECASE)
_NO_VARIANT = re.compile(r"No variants|All \d+ variants.*skipped")
_NO_MEMORY = re.compile(r"Out of memory|Failed to allocate", re.IGNORECASE)


@dataclass
class Conversion:
    """What a conversion did.

    Attributes
    ----------
    n_variants, n_samples : int
        Size of the files that were made.
    n_left_out : int
        Variants of other chromosomes than were asked for, contigs without a number among them.
    n_multiallelic_split, n_multiallelic_dropped : int
        Variants with several ALT alleles: made several variants, or left out.
    n_need_sex : int
        Variants on Y, and on X outside the pseudo-autosomal regions (without a build, on all X).
    field : str
        What was read: ``DS``, ``GT`` or ``probabilities``.
    plink2 : str
        Version of plink2.
    """

    n_variants: int = 0
    n_samples: int = 0
    n_left_out: int = 0
    n_multiallelic_split: int = 0
    n_multiallelic_dropped: int = 0
    n_need_sex: int = 0
    field: str = ""
    plink2: str = ""


@dataclass(frozen=True)
class _Run:
    """One run of plink2: what it made, or its message where it failed."""

    failure: str = ""
    pvar: _Pvar | None = None


@dataclass(frozen=True)
class _Pvar:
    """A .pvar file counted."""

    n_variants: int
    n_multiallelic: int
    x_positions: np.ndarray
    n_y: int


def plink2_version() -> str:
    """Return plink2's version.

    Raises
    ------
    InputError
        It is not on PATH.
    """
    if shutil.which("plink2") is None:
        raise InputError(
            "plink2 is not on PATH; it converts BGEN, VCF and BCF files: install it (the "
            "container and the conda environment have it), or give PLINK 2 or PLINK 1 files"
        )
    done = subprocess.run(["plink2", "--version"], capture_output=True, text=True, check=False)
    words = done.stdout.split()
    return words[1] if len(words) > 1 else "unknown"


def convert(
    source: Source,
    people: SampleTable,
    out: Path,
    *,
    chromosome: str = "all",
    genome_build: str = "",
    need_sex: bool = True,
    threads: int = 1,
    memory: int = LEAST_MEMORY,
) -> Conversion:
    """Write ``out``.pgen, .pvar and .psam; they appear only when all three are complete.

    The effect allele (ALT) is that of a VCF file and the second allele of a BGEN file. Dosages
    are read from DS where the header declares it, else calls from GT; half calls are missing.

    Parameters
    ----------
    source : Source
        The file to convert.
    people : SampleTable
        Its people in its order; they make the .psam file.
    out : Path
        Stem of the files to write.
    chromosome : str
        The chromosome to take, or ``all``.
    genome_build : {"", "GRCh37", "GRCh38"}
        Build of the positions, where X is there without anybody's sex.
    need_sex : bool
        Whether to refuse variants on X and Y where nobody's sex is known.
    threads, memory : int
        Processors and MiB for plink2.

    Raises
    ------
    InputError
        plink2 is absent or refuses the file, no variant is left, or sexes are missing.
    OSError
        The disk is full.
    MemoryError
        plink2 has not enough memory, or was killed.
    """
    result = Conversion(plink2=plink2_version(), n_samples=len(people), field=_field(source))
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".part.") as name:
        folder = Path(name)
        options = [
            *_input_options(source, people, folder, chromosome),
            *("--threads", str(threads), "--memory", str(max(memory, LEAST_MEMORY))),
        ]
        run = _import(source, source.path, options, folder, result)
        if run.failure:
            raise _failure(source, run.failure, chromosome)
        pvar = run.pvar
        result.n_variants = pvar.n_variants
        if source.n_variants is not None:
            result.n_left_out = (
                source.n_variants - result.n_variants - result.n_multiallelic_dropped
            )
        result.n_need_sex = _count_x(pvar.x_positions, genome_build) + pvar.n_y
        if need_sex:
            _require_sex(source, people, result.n_need_sex)
        (folder / "made.psam").write_text(people.psam())
        # The main file comes last: without it there is no set.
        for end in ENDS:
            os.replace(folder / f"made{end}", out.with_name(out.name + end))
    return result


def _field(source: Source) -> str:
    if source.format == "bgen":
        return "probabilities"
    return "DS" if "DS" in source.fields else "GT"


def _input_options(source: Source, people: SampleTable, folder: Path, chromosome: str) -> list[str]:
    """Return the options that tell plink2 how to read; its sample file is written by us."""
    options = ["--lax-chrx-import"]
    if source.format == "bgen":
        rows = zip(people.sex, range(1, len(people) + 1), strict=True)
        lines = [f"0 {row} 0 {sex}" for sex, row in rows]
        (folder / "people.sample").write_text(
            "\n".join(["ID_1 ID_2 missing sex", "0 0 0 D", *lines]) + "\n"
        )
        options += ["--sample", str(folder / "people.sample")]
    else:
        rows = zip(source.ids or (), people.sex, strict=True)
        (folder / "people.psam").write_text(
            "#IID\tSEX\n" + "".join(f"{name}\t{sex}\n" for name, sex in rows)
        )
        options += ["--psam", str(folder / "people.psam"), "--vcf-half-call", "missing"]
    if source.format == "bgen" and not _named(source.first_chromosome):
        if chromosome == "all":
            raise InputError(
                f"{source.path}: names no chromosome inside ('{source.first_chromosome}'); name "
                "it in the column 'chromosome' of the samplesheet instead of 'all'"
            )
        return [*options, "--oxford-single-chr", chromosome]
    names = {"all": _ALL_CHROMOSOMES, "X": _X_CHROMOSOMES}.get(chromosome, chromosome)
    return [*options, "--allow-extra-chr", "--chr", names]


def _named(chromosome: str) -> bool:
    """Return whether a BGEN file names its chromosomes."""
    return chromosome.strip().upper() not in ("", "0", "NA", ".")


def _import(
    source: Source, path: Path, options: list[str], folder: Path, result: Conversion
) -> _Run:
    """Run plink2, once more on a split copy where a VCF file has several ALT alleles."""
    run = _plink2(source, path, options, folder, result)
    several = run.pvar.n_multiallelic if run.pvar else "multiallelic" in run.failure
    if not several:
        return run
    if source.format == "vcf" and path == source.path:
        copy = folder / "split.vcf.gz"
        result.n_multiallelic_split = split_multiallelic(path, copy)
        return _import(source, copy, options, folder, result)
    if run.failure:
        return _Run(
            "it has variants of several ALT alleles with dosages, which plink2 cannot import; "
            "split them first with 'bcftools norm -m -any'",
        )
    result.n_multiallelic_dropped = int(run.pvar.n_multiallelic)
    return _plink2(source, path, [*options, "--max-alleles", "2"], folder, result)


def _plink2(
    source: Source, path: Path, options: list[str], folder: Path, result: Conversion
) -> _Run:
    """Run plink2 in the folder and count what it made and left out."""
    made = folder / "made"
    main = {
        "bgen": ["--bgen", str(path), "ref-first"],
        "vcf": ["--vcf", str(path)],
        "bcf": ["--bcf", str(path)],
    }[source.format]
    if result.field == "DS":
        main.append("dosage=DS")
    command = ["plink2", *main, *options, "--make-pgen", "erase-phase", "--out", str(made)]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    output = done.stdout.decode(errors="replace").replace("\b", "")
    complete = all(made.with_name(f"made{end}").is_file() for end in ENDS)
    if done.returncode != 0 or not complete:
        message = _error_text(output) or f"it ended with status {done.returncode}"
        if _NO_SPACE.search(message):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(made))
        if done.returncode < 0 or _NO_MEMORY.search(message):
            raise MemoryError(f"plink2 converting {path.name}: {message}")
        return _Run(message)
    skipped = re.search(r"variants? scanned \((\d+) skipped\)", output)
    result.n_left_out = int(skipped[1]) if skipped else 0
    skipped = re.search(r"(\d+) multiallelic variants? skipped", output)
    if skipped:
        result.n_multiallelic_dropped = int(skipped[1])
    return _Run(pvar=_count_pvar(made.with_suffix(".pvar")))


def _error_text(output: str) -> str:
    """Return plink2's last error, which it folds over several lines."""
    found = ""
    for part in re.split(r"\n(?=Error:)", "\n" + output):
        if part.startswith("Error:"):
            lines = part.removeprefix("Error:").splitlines()
            kept = []
            for line in lines:
                if kept and (not line.strip() or line.startswith(("End time", "For more info"))):
                    break
                kept.append(line.strip())
            found = " ".join(kept).strip().rstrip(".")
    return found


def _failure(source: Source, message: str, chromosome: str) -> InputError:
    if _NO_VARIANT.search(message):
        what = "1-22, X, Y or MT" if chromosome == "all" else chromosome
        return InputError(
            f"{source.path}: holds no variant of chromosome {what} with two alleles; correct the "
            f"'chromosome' column of the samplesheet (plink2: {message})"
        )
    return InputError(f"{source.path}: plink2 cannot convert the file: {message}")


def _count_pvar(path: Path) -> _Pvar:
    """Count the variants of a .pvar file that plink2 wrote."""
    n = several = n_y = 0
    on_x: list[int] = []
    names = {"X", "XY", "PAR1", "PAR2"}
    with path.open() as lines:
        for line in lines:
            if line.startswith("#"):
                continue
            chromosome, position, _, _, alternatives = line.rstrip("\n").split("\t", 5)[:5]
            n += 1
            several += "," in alternatives
            if chromosome in names:
                on_x.append(int(position))
            n_y += chromosome == "Y"
    return _Pvar(n, several, np.array(on_x, dtype=np.int64), n_y)


def _count_x(positions: np.ndarray, genome_build: str) -> int:
    """Return how many variants of X are outside the pseudo-autosomal regions, as far as known."""
    if not genome_build:
        return len(positions)
    return int((~pseudoautosomal(positions, genome_build)).sum())


def _require_sex(source: Source, people: SampleTable, number: int) -> None:
    """Refuse variants on X and Y where nobody's sex is known."""
    if number and not people.knows_sex():
        raise InputError(
            f"{source.path}: has {number} variants on chromosome X or Y, where men have one copy, "
            "but nobody's sex is known; name a .psam, .fam or .sample file with sexes in the "
            "column 'samples' of the samplesheet, or leave X and Y out"
        )
