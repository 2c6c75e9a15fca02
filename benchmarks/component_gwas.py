#!/usr/bin/env python3
"""Measure the component GWAS against matrix multiplication of the same shapes, and PLINK 2.

Prints one line of JSON a case: hard calls; hard calls with missing ones; dosages with missing ones;
hard calls with missing ones of 90 % of the people in the file, in another order.

- ``engine_over_sgemm``: variants a second from the file to coded z, over those of one
  single-precision product of the same shapes in the same process with the same threads (the best
  of several before and after);
- ``engine_over_plink``: over those of ``plink2 --glm`` on the first variants of the same file, with
  the same threads, phenotypes and covariates; PLINK's time without variants is taken off, and its
  rate is of ``plink_variants`` variants only;
- ``peak_memory_mib``: of the stage's own process on the whole file, ``stage_seconds`` its time from
  start to end, reading, compiling and writing included.

    python benchmarks/component_gwas.py
    python benchmarks/component_gwas.py --subjects 5000 --variants 2000 --cases dosages
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pgenlib
import threadpoolctl

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))
from support import names, peak_memory

from rvga import formats
from rvga.coding import encode_z
from rvga.component_gwas import BLOCK_VARIANTS, Workspace, associate_block, null_model
from rvga.genotypes import open_genotypes
from rvga.parallel import ordered_map
from rvga.pgen import PackedReader
from rvga.samples import sample_hash
from rvga.tile_products import available

BIN = Path(__file__).resolve().parents[1] / "bin"
# Dosages, missing genotypes, and the share of the file's people that is in the sample, in another
# order than the file's.
CASES = {
    "hard_calls": (False, False, 1.0),
    "missing": (False, True, 1.0),
    "dosages": (True, True, 1.0),
    "part_of_people": (False, True, 0.9),
}


@dataclass(frozen=True)
class Model:
    """People of the sample, their covariates' basis and components without covariates."""

    subjects: list[str]
    Q: np.ndarray
    residual: np.ndarray


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", type=int, default=50_000)
    parser.add_argument("--variants", type=int, default=20_000)
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--covariates", type=int, default=15, help="with the intercept")
    parser.add_argument("--missing", type=float, default=0.01, help="share of missing genotypes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--single-precision",
        action="store_true",
        help="measure the products of processors without tiles (the engine's rate only)",
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument(
        "--plink-variants",
        type=int,
        default=700,
        help="variants that PLINK is timed with, a twentieth of it with missing ones; 0: none",
    )
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    n, p = args.subjects, args.covariates
    C = np.column_stack([np.ones(n), rng.normal(size=(n, p - 1))])
    S = rng.normal(size=(n, args.components))
    Q = np.linalg.qr(C)[0]
    residual = S - Q @ (Q.T @ S)
    sizes = {name: getattr(args, name) for name in ("subjects", "variants", "components")}
    sizes |= {"covariates": p, "threads": args.threads}
    for case in args.cases:
        dosages, missing, part = CASES[case]
        share = args.missing if missing else 0.0
        n_file = round(n / part)
        people = names(n_file)
        if n_file > n:
            rng.shuffle(people)
        model = Model(sorted(people[:n]), Q, residual)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            main_file = write_genotypes(folder, people, args.variants, share, dosages)
            result = {"benchmark": "component_gwas", "case": case, **sizes, "missing": share}
            result |= {"people_in_file": n_file, "load": round(os.getloadavg()[0], 2)}
            tiles = available() and not args.single_precision
            result["products"] = "whole numbers" if tiles else "single precision"
            result |= engine_and_sgemm(main_file, model, args.threads, tiles)
            write_null(folder / "null.h5", model)
            result |= stage(folder, main_file, args.threads)
            if args.plink_variants and shutil.which("plink2"):
                number = args.plink_variants // 20 if missing else args.plink_variants
                number = min(max(number, 2), args.variants)
                rate = plink_rate(folder, number, args.threads, model.subjects, C, S)
                result["plink_variants"] = number
                result["plink_variants_per_second"] = round(rate, 2)
                result["engine_over_plink"] = round(result["engine_variants_per_second"] / rate, 1)
        print(json.dumps(result), flush=True)


def write_genotypes(folder: Path, people: list[str], m: int, missing: float, dosages: bool) -> Path:
    """Write a PLINK 2 set of independent variants; return the main file."""
    n, rng = len(people), np.random.default_rng(2)
    path = folder / "g.pgen"
    with pgenlib.PgenWriter(
        str(path).encode(), n, variant_ct=m, nonref_flags=False, dosage_present=dosages
    ) as writer:
        for _ in range(m):
            frequency = rng.uniform(0.05, 0.5)
            chance = rng.random(n, dtype=np.float32)
            calls = (chance < 1 - (1 - frequency) ** 2).astype(np.int8)
            calls += chance < frequency**2
            if missing:
                calls[rng.integers(0, n, rng.binomial(n, missing))] = -9
            if dosages:
                noise = rng.standard_normal(n, dtype=np.float32) * np.float32(0.1)
                noisy = np.clip(calls + noise, 0, 2)
                writer.append_dosages(np.where(calls < 0, np.float32(-9), noisy))
            else:
                writer.append_biallelic(calls)
    lines = [f"1\t{row + 1}\tv{row}\tA\tG\n" for row in range(m)]
    (folder / "g.pvar").write_text("#CHROM\tPOS\tID\tREF\tALT\n" + "".join(lines))
    (folder / "g.psam").write_text("#IID\tSEX\n" + "".join(f"{name}\t2\n" for name in people))
    return path


def engine_and_sgemm(main_file: Path, model: Model, threads: int, tiles: bool) -> dict[str, float]:
    """Return the rates of the bare product and of the engine, in variants a second."""
    shape = len(model.subjects), model.Q.shape[1] + model.residual.shape[1]
    before = sgemm_rate(*shape, threads)
    with threadpoolctl.threadpool_limits(1), open_genotypes(main_file) as genotypes:
        m, rows = genotypes.n_variants, genotypes.subject_index(model.subjects)
        order = np.argsort(rows)
        rows, null = rows[order], null_model(model.Q, model.residual, order, tiles=tiles)
        free: queue.SimpleQueue = queue.SimpleQueue()
        for _ in range(threads):
            reader = PackedReader(genotypes, rows, 0, m, BLOCK_VARIANTS)
            free.put((reader, Workspace(null.right.columns)))

        def one(first: int) -> int:
            reader, workspace = free.get()
            block = reader.read(first, min(first + BLOCK_VARIANTS, m))
            result = associate_block(block, null, workspace, first=first)
            encode_z(result.z)
            free.put((reader, workspace))
            return len(result.status)

        one(0)  # compiles
        start = time.perf_counter()
        done = sum(ordered_map(one, range(0, m, BLOCK_VARIANTS), threads))
        rate = done / (time.perf_counter() - start)
        for _ in range(threads):
            free.get()[0].close()
    sgemm = max(before, sgemm_rate(*shape, threads))
    return {
        "sgemm_variants_per_second": round(sgemm, 1),
        "engine_variants_per_second": round(rate, 1),
        "engine_over_sgemm": round(rate / sgemm, 3),
    }


def sgemm_rate(n: int, columns: int, threads: int) -> float:
    """Return variants a second of the bare product, the best of five."""
    rng = np.random.default_rng(3)
    g = rng.standard_normal((BLOCK_VARIANTS, n), dtype=np.float32)
    right = rng.standard_normal((n, columns), dtype=np.float32)
    seconds = []
    with threadpoolctl.threadpool_limits(threads):
        for _ in range(5):
            start = time.perf_counter()
            g @ right
            seconds.append(time.perf_counter() - start)
    return BLOCK_VARIANTS / min(seconds)


def write_null(path: Path, model: Model) -> None:
    """Write the null model that the stage reads."""
    A = model.residual.T @ model.residual
    attributes = {"sample_hash": sample_hash(model.subjects), "covariates": []}
    with formats.create(path, "null", attributes) as writer:
        writer.add("Q", model.Q)
        writer.add("residual_ldrs", model.residual[None])
        writer.add("A", A[None])
        writer.add("A_chromosome", [0])
        writer.add("Sigma", A / len(model.Q))
        writer.add("subject", model.subjects)


def stage(folder: Path, main_file: Path, threads: int) -> dict[str, float]:
    """Return time and peak memory of the stage's own process."""
    command = [sys.executable, BIN / "rvga_component_gwas.py", "--genotypes", main_file]
    command += ["--null", folder / "null.h5", "--out", folder / "gwas.h5", "--threads", threads]
    start = time.perf_counter()
    peak = peak_memory(command)
    seconds = time.perf_counter() - start
    return {"stage_seconds": round(seconds, 2), "peak_memory_mib": round(peak, 1)}


def plink_rate(
    folder: Path, number: int, threads: int, subjects: list[str], C: np.ndarray, S: np.ndarray
) -> float:
    """Return variants a second of ``plink2 --glm`` on the first variants of the same file."""
    for name, matrix in (("covar", C[:, 1:]), ("pheno", S)):
        if (folder / name).exists():
            continue
        header = "#IID\t" + "\t".join(f"{name}{column}" for column in range(matrix.shape[1]))
        with (folder / name).open("w") as handle:
            handle.write(header + "\n")
            for person, values in zip(subjects, matrix, strict=True):
                numbers = "\t".join(f"{value:.9g}" for value in values)
                handle.write(f"{person}\t{numbers}\n")
    seconds = []
    # The time without variants (reading the tables) is taken off.
    for last in (1, number):
        start = time.perf_counter()
        subprocess.run(
            ["plink2", "--pfile", "g", "--from", "v0", "--to", f"v{last - 1}", "--pheno", "pheno"]
            + ["--covar", "covar", "--glm", "hide-covar", "omit-ref", "--out", "o"]
            + ["--threads", str(threads)],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        seconds.append(time.perf_counter() - start)
    return (number - 1) / max(seconds[1] - seconds[0], 1e-9)


if __name__ == "__main__":
    main()
