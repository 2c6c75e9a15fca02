#!/usr/bin/env python3
"""Measure the component GWAS against matrix multiplication of the same shapes, and PLINK 2.

Prints one line of JSON. Every rate is of this run; a rate of PLINK is of its own slice.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pgenlib
import threadpoolctl

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))
from rvga.component_gwas import associate, associate_block, null_model
from rvga.genotypes import open_genotypes

BLOCK = 512


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=20_000)
    parser.add_argument("--variants", type=int, default=8 * BLOCK)
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--covariates", type=int, default=15)
    parser.add_argument("--missing", type=float, default=0.01)
    parser.add_argument("--dosages", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plink-variants", type=int, default=256, help="0: without PLINK")
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    n, p = args.subjects, args.covariates
    C = np.column_stack([np.ones(n), rng.normal(size=(n, p - 1))])
    Q = np.linalg.qr(C)[0]
    S = rng.normal(size=(n, args.components))
    null = null_model(Q, S - Q @ (Q.T @ S))
    result = {name: getattr(args, name) for name in vars(args) if name != "plink_variants"}
    with tempfile.TemporaryDirectory() as folder:
        main_file = write_genotypes(Path(folder), args, rng)
        with threadpoolctl.threadpool_limits(args.threads):
            result["sgemm_variants_per_second"] = sgemm_rate(null, rng)
        with threadpoolctl.threadpool_limits(1), open_genotypes(main_file) as genotypes:
            rows = np.arange(n)
            associate_block(genotypes.raw(0, 2, rows), null)
            start = time.perf_counter()
            blocks = genotypes.raw_blocks(0, args.variants, BLOCK, rows)
            for _ in associate(blocks, null, block_variants=BLOCK, threads=args.threads):
                pass
            result["engine_variants_per_second"] = args.variants / (time.perf_counter() - start)
        result["engine_over_sgemm"] = (
            result["engine_variants_per_second"] / result["sgemm_variants_per_second"]
        )
        result["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if args.plink_variants and shutil.which("plink2"):
            rate = plink_rate(Path(folder), args, C, S)
            result["plink_variants_per_second"] = rate
            result["engine_over_plink"] = result["engine_variants_per_second"] / rate
    print(json.dumps(result, sort_keys=True))


def write_genotypes(folder: Path, args: argparse.Namespace, rng: np.random.Generator) -> Path:
    """Write a PLINK 2 set of independent variants; return the main file."""
    n, m = args.subjects, args.variants
    path = folder / "g.pgen"
    with pgenlib.PgenWriter(
        str(path).encode(), n, variant_ct=m, nonref_flags=False, dosage_present=args.dosages
    ) as writer:
        for _ in range(m):
            calls = rng.binomial(2, rng.uniform(0.05, 0.5), n).astype(np.int8)
            calls[rng.random(n) < args.missing] = -9
            if args.dosages:
                noisy = np.clip(calls + rng.normal(scale=0.1, size=n), 0, 2)
                writer.append_dosages(np.where(calls < 0, -9, noisy).astype(np.float32))
            else:
                writer.append_biallelic(calls)
    lines = [f"1\t{row + 1}\tv{row}\tA\tG\n" for row in range(m)]
    (folder / "g.pvar").write_text("#CHROM\tPOS\tID\tREF\tALT\n" + "".join(lines))
    (folder / "g.psam").write_text("#IID\tSEX\n" + "".join(f"i{row}\t2\n" for row in range(n)))
    return path


def sgemm_rate(null, rng: np.random.Generator) -> float:
    """Return variants a second of the bare product, the best of five."""
    g = rng.normal(size=(BLOCK, null.n)).astype(np.float32)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        g @ null.right
        seconds.append(time.perf_counter() - start)
    return BLOCK / min(seconds)


def plink_rate(folder: Path, args: argparse.Namespace, C: np.ndarray, S: np.ndarray) -> float:
    """Return variants a second of ``plink2 --glm`` on the first variants of the same file."""
    for name, matrix in (("covar", C[:, 1:]), ("pheno", S)):
        header = "#IID\t" + "\t".join(f"{name}{column}" for column in range(matrix.shape[1]))
        with (folder / name).open("w") as handle:
            handle.write(header + "\n")
            for row, values in enumerate(matrix):
                handle.write(f"i{row}\t" + "\t".join(f"{value:.9g}" for value in values) + "\n")
    seconds = []
    # The time without variants (reading the tables) is taken off.
    for last in (1, args.plink_variants):
        start = time.perf_counter()
        subprocess.run(
            ["plink2", "--pfile", "g", "--from", "v0", "--to", f"v{last - 1}", "--pheno", "pheno"]
            + ["--covar", "covar", "--glm", "hide-covar", "omit-ref", "--out", "o"]
            + ["--threads", str(args.threads)],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        seconds.append(time.perf_counter() - start)
    return (args.plink_variants - 1) / max(seconds[1] - seconds[0], 1e-9)


if __name__ == "__main__":
    main()
