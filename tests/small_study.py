"""Small genotype files, null models and bases that tests of the association stages share."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pgenlib

from rvga import formats
from rvga.geometry import Geometry, add_geometry
from rvga.samples import sample_hash

MISSING = -9


def subject_names(n: int) -> list[str]:
    """Return n ids whose order by bytes is not that of their numbers."""
    return [f"s{number}" for number in range(n)]


def hard_calls(m: int, n: int, *, seed: int, missing: float = 0.0) -> np.ndarray:
    """Return int8 counts of the effect allele (m, n), -9 missing, of all frequencies."""
    rng = np.random.default_rng(seed)
    frequency = rng.uniform(0.05, 0.95, (m, 1))
    calls = rng.binomial(2, frequency, (m, n)).astype(np.int8)
    calls[rng.random((m, n)) < missing] = MISSING
    return calls


def dosages_of(calls: np.ndarray, *, seed: int) -> np.ndarray:
    """Return dosages on the grid of PLINK 2 files (1/16384) near the calls; -9 stays."""
    rng = np.random.default_rng(seed)
    noisy = np.clip(calls + rng.normal(scale=0.15, size=calls.shape), 0, 2)
    noisy = np.round(noisy * 16384) / 16384
    return np.where(calls == MISSING, MISSING, noisy).astype(np.float32)


def write_samples(path: Path, subjects: list[str]) -> None:
    """Write a .psam or .fam file."""
    if path.suffix == ".psam":
        path.write_text("#IID\tSEX\n" + "".join(f"{name}\t2\n" for name in subjects))
    else:
        path.write_text("".join(f"f{name}\t{name}\t0\t0\t2\t-9\n" for name in subjects))


def write_variants(path: Path, m: int, chromosome: str = "1", start: int = 1000) -> None:
    """Write a .pvar or .bim file of m variants, 10 bases apart; the effect allele is G."""
    rows = [(chromosome, start + 10 * row, f"rs{start + 10 * row}") for row in range(m)]
    if path.suffix == ".pvar":
        lines = ["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT"]
        lines += [f"{name}\t{position}\t{identity}\tA\tG" for name, position, identity in rows]
    else:
        lines = [f"{name}\t{identity}\t0\t{position}\tG\tA" for name, position, identity in rows]
    path.write_text("\n".join(lines) + "\n")


def write_pgen(
    stem: Path, genotypes: np.ndarray, subjects: list[str], chromosome: str = "1", start: int = 1000
) -> Path:
    """Write a PLINK 2 set of int8 calls or float32 dosages (m, n); return the main file."""
    m, n = genotypes.shape
    dosage = genotypes.dtype != np.int8
    main = stem.with_name(stem.name + ".pgen")
    with pgenlib.PgenWriter(
        str(main).encode(), n, variant_ct=m, nonref_flags=False, dosage_present=dosage
    ) as writer:
        if dosage:
            writer.append_dosages_batch(np.ascontiguousarray(genotypes, dtype=np.float32))
        else:
            writer.append_biallelic_batch(np.ascontiguousarray(genotypes))
    write_variants(stem.with_name(stem.name + ".pvar"), m, chromosome, start)
    write_samples(stem.with_name(stem.name + ".psam"), subjects)
    return main


def write_bed(
    stem: Path, calls: np.ndarray, subjects: list[str], chromosome: str = "1", start: int = 1000
) -> Path:
    """Write a PLINK 1 set by the format's definition: two bits a call, counts of A1."""
    m, n = calls.shape
    bits = np.select([calls == 2, calls == 1, calls == 0], [0b00, 0b10, 0b11], 0b01)
    bits = np.pad(bits, ((0, 0), (0, -n % 4))).reshape(m, -1, 4)
    packed = (bits << np.array([0, 2, 4, 6])).sum(axis=2).astype(np.uint8)
    main = stem.with_name(stem.name + ".bed")
    main.write_bytes(b"\x6c\x1b\x01" + packed.tobytes())
    write_variants(stem.with_name(stem.name + ".bim"), m, chromosome, start)
    write_samples(stem.with_name(stem.name + ".fam"), subjects)
    return main


@dataclass(frozen=True)
class Study:
    """A null model, bases and what they were made from; people in the null file's order."""

    null: Path
    bases: Path
    subjects: list[str]
    covariates: np.ndarray
    ldrs: np.ndarray
    B: np.ndarray


def make_study(
    folder: Path, n: int, *, n_voxels: int = 40, r: int = 5, p: int = 4, seed: int = 1, extra=None
) -> Study:
    """Write ``null.h5`` and ``bases.h5`` of random images.

    ``extra`` (n, n_voxels) is added to the images, in the order of ``Study.subjects``.
    """
    rng = np.random.default_rng(seed)
    subjects = sorted(subject_names(n), key=str.encode)
    covariates = np.column_stack([np.ones(n), rng.normal(size=(n, p - 1))])
    Q = np.linalg.qr(covariates)[0]
    images = rng.normal(size=(n, n_voxels)) + covariates @ rng.normal(size=(p, n_voxels))
    if extra is not None:
        images = images + extra
    B = np.linalg.qr(rng.normal(size=(n_voxels, r)))[0].astype(np.float32)
    ldrs = images @ B.astype(float)
    residual = ldrs - Q @ (Q.T @ ldrs)
    grid = np.argwhere(np.ones((4, 4, -(-n_voxels // 16))))[:n_voxels].astype(np.int32)
    geometry = Geometry(np.diag([2.0, 2.0, 2.0, 1.0]), (4, 4, -(-n_voxels // 16)), grid)
    null, bases = folder / "null.h5", folder / "bases.h5"
    inputs = {"subjects": f"subjects {seed}"}
    with formats.create(
        bases,
        "bases",
        {"geometry_type": "nifti", "bandwidth": 0.0, "n_eff": 3.5, "total_variance": 1.0, "n": n},
        inputs=inputs,
    ) as writer:
        writer.add("bases", B)
        writer.add("eigenvalues", np.arange(r, 0, -1.0))
        writer.add("mean", np.zeros(n_voxels))
        writer.add("coordinates", geometry.coordinates)
        writer.add("candidate_bandwidths", [1.0])
        writer.add("candidate_scores", [1.0])
        add_geometry(writer, geometry)
    with formats.open_file(bases, "bases") as made:
        inputs["bases"] = made.digest
    with formats.create(
        null,
        "null",
        {"sample_hash": sample_hash(subjects), "covariates": []},
        inputs={**inputs, "ldrs": f"ldrs {seed}"},
    ) as writer:
        writer.add("Q", Q)
        writer.add("residual_ldrs", residual[None])
        writer.add("A", (residual.T @ residual)[None])
        writer.add("A_chromosome", [0])
        writer.add("Sigma", residual.T @ residual / n)
        writer.add("subject", subjects)
    return Study(null, bases, subjects, covariates, ldrs, B)


def mean_imputed(genotypes: np.ndarray) -> np.ndarray:
    """Return genotypes in double precision with missing ones at the variant's mean."""
    g = genotypes.astype(np.float64)
    g[g == MISSING] = np.nan
    return np.where(np.isnan(g), np.nanmean(g, axis=1, keepdims=True), g)


def least_squares(
    g: np.ndarray, covariates: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return beta and SE (m, k) of each variant on each column of y, one fit after another."""
    beta, standard_error = (np.empty((len(g), y.shape[1])) for _ in range(2))
    for row, genotype in enumerate(g):
        design = np.column_stack([covariates, genotype])
        solution = np.linalg.lstsq(design, y, rcond=None)[0]
        residual = y - design @ solution
        variance = (residual**2).sum(axis=0) / (len(y) - design.shape[1])
        beta[row] = solution[-1]
        standard_error[row] = np.sqrt(variance * np.linalg.inv(design.T @ design)[-1, -1])
    return beta, standard_error


class Ended(NamedTuple):
    """How a program ended that was run within this process."""

    returncode: int
    stdout: str
    stderr: str


def run_here(main: Callable, *words: object) -> Ended:
    """Run an entrypoint's ``main`` as its script would, but within this process.

    Saves the start of a process in tests of many mistakes.
    """
    from rvga import cli

    argv: list[str] = []
    for word in words:
        argv.extend(map(str, word) if isinstance(word, (list, tuple)) else [str(word)])
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.run(main, argv)
        except SystemExit as end:
            status = int(end.code or 0)
    return Ended(status, out.getvalue(), err.getvalue())


def run_chunks(folder: Path, study: Study, mains: list[Path], *options: str, chunk=10**9) -> list:
    """Run plan_chunks and component_gwas within this process; return the chunk files."""
    import rvga_component_gwas
    import rvga_plan_chunks
    from rvga.tables import read_table

    folder.mkdir(exist_ok=True)
    files = []
    for main in mains:
        plan = folder / "chunks.tsv"
        rvga_plan_chunks.main(
            ["--genotypes", str(main), "--chunk-variants", str(chunk), "--out", str(plan)]
        )
        for row in read_table(plan, "chunks").itertuples():
            files.append(folder / f"gwas.{len(files):05d}.h5")
            rvga_component_gwas.main(
                ["--genotypes", str(main), "--null", str(study.null), "--out", str(files[-1])]
                + ["--first-variant", str(row.first_variant), "--n-variants", str(row.n_variants)]
                + ["--threads", "1", *options]
            )
    return files


def run_dataset(folder: Path, study: Study, mains: list[Path], *options: str, **more) -> Path:
    """Run the stages from genotypes to the minimal dataset within this process."""
    import rvga_minimal_dataset

    chunks = run_chunks(folder, study, mains, *options, **more)
    out = folder / "study.rvga.h5"
    rvga_minimal_dataset.main(
        ["--chunks", *map(str, chunks), "--null", str(study.null), "--bases", str(study.bases)]
        + ["--out", str(out), "--threads", "1"]
    )
    return out
