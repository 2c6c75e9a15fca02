#!/usr/bin/env python3
"""Time and bytes of the whole chain against a GWAS voxel by voxel.

Runs COMPONENT_GWAS, MINIMAL_DATASET, IMAGE_TAIL and SCAN_VOXELS as the pipeline does, each on m and
on m / 10 variants, so that what a variant costs is told from what a task costs. Beside them:

- ``passes``: the same engine over N voxels, r at a time, at its measured rate for r phenotypes;
- ``wide_pass``: the same engine on many phenotypes in one product, at its rate a phenotype;
- ``plink2``: Debian's PLINK 2 ``--glm`` on a slice of the same file, by variant and phenotype.

Prints one line of JSON. Everything at the ``full`` size is a measured rate times the number of
variants, voxels or tasks, as ``extrapolated`` says. Hours are core-hours: seconds times threads.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))
from support import names, write_plink1

from rvga import formats
from rvga.geometry import Geometry, add_geometry
from rvga.samples import sample_hash

BIN = Path(__file__).resolve().parents[1] / "bin"
STAGES = ("component_gwas", "minimal_dataset", "image_tail", "scan_voxels")
STATISTICS_BYTES = 8  # effect and standard error in single precision


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=50_000)
    parser.add_argument("--variants", type=int, default=20_000)
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--covariates", type=int, default=15)
    parser.add_argument("--voxels", type=int, default=50_000)
    parser.add_argument("--wide-columns", type=int, default=1000)
    parser.add_argument("--plink-variants", type=int, default=256, help="0: without PLINK")
    parser.add_argument("--full-variants", type=int, default=9_000_000)
    parser.add_argument("--full-voxels", type=int, default=100_000)
    parser.add_argument("--chunk-variants", type=int, default=20_000)
    parser.add_argument("--scan-parts", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        main_file = write_plink1(folder, args.variants, args.subjects)
        C, S = write_model(folder, args, rng)
        few, many = args.variants // 10, args.variants
        seconds, sizes = {}, {}
        for m in (few, many):
            seconds[m], sizes[m] = run_chain(folder / str(m), main_file, m, args)
        cost = {
            stage: line(few, many, seconds[few][stage], seconds[many][stage]) for stage in STAGES
        }
        # The tail's work does not depend on the variants.
        cost["image_tail"] = (0.0, min(of["image_tail"] for of in seconds.values()))
        size = line(few, many, sizes[few], sizes[many])
        wide = wide_pass(folder / "wide", main_file, C, args, rng)
        plink = plink_slice(folder, args, C, S) if args.plink_variants else None
    result = {name: getattr(args, name) for name in vars(args)}
    result |= report(args, cost, size, wide, plink)
    print(json.dumps(result, sort_keys=True))


def report(args, cost, size, wide, plink) -> dict:
    """Return rates and what they come to at the full size."""
    m, N, r = args.full_variants, args.full_voxels, args.components
    tasks = {
        "component_gwas": -(-m // args.chunk_variants),
        "minimal_dataset": 1,
        "image_tail": 1,
        "scan_voxels": args.scan_parts,
    }
    hours = {}
    for stage, (each, fixed) in cost.items():
        voxels = N / args.voxels if stage in ("scan_voxels", "image_tail") else 1.0
        hours[stage] = voxels * (m * each + tasks[stage] * fixed) * args.threads / 3600
    gwas = hours["component_gwas"] + hours["minimal_dataset"]
    chain = sum(hours.values())
    engine = hours["component_gwas"]
    passes = engine * N / r
    one_wide = m * N * wide * args.threads / 3600
    # The fixed part is bases, coordinates and geometry, by voxel.
    variant_bytes, fixed_bytes = size
    dataset = m * variant_bytes + fixed_bytes * N / args.voxels
    statistics = float(m) * N * STATISTICS_BYTES
    found = {
        "seconds_per_variant": {stage: each for stage, (each, _) in cost.items()},
        "seconds_per_task": {stage: fixed for stage, (_, fixed) in cost.items()},
        "seconds_per_variant_and_phenotype_wide": wide,
        "dataset_bytes_per_variant": variant_bytes,
        "dataset_bytes_per_variant_and_component": variant_bytes / r,
        "dataset_fixed_bytes": fixed_bytes,
        "full_core_hours": hours,
        "full_core_hours_gwas": gwas,
        "full_core_hours_chain": chain,
        "full_core_hours_passes": passes,
        "full_core_hours_wide_pass": one_wide,
        "full_dataset_bytes": dataset,
        "full_statistics_bytes": statistics,
        "passes_over_gwas": passes / gwas,
        "passes_over_chain": passes / chain,
        "wide_pass_over_gwas": one_wide / gwas,
        "wide_pass_over_chain": one_wide / chain,
        "statistics_over_dataset_bytes": statistics / dataset,
        "extrapolated": "full_*: measured seconds and bytes a variant times full_variants plus "
        "measured seconds a task times tasks; scan, tail and fixed bytes in proportion to voxels; "
        "passes: component GWAS times full_voxels / components; wide pass and PLINK 2: measured "
        "seconds (bytes) a variant and phenotype times full_variants times full_voxels",
    }
    if plink is not None:
        each, plink_bytes = plink
        plink_hours = m * float(N) * each * args.threads / 3600
        found |= {
            "plink2_seconds_per_variant_and_phenotype": each,
            "plink2_bytes_per_variant_and_phenotype": plink_bytes,
            "full_core_hours_plink2": plink_hours,
            "plink2_over_chain": plink_hours / chain,
            "plink2_over_chain_bytes": m * float(N) * plink_bytes / dataset,
        }
    return found


def line(few: int, many: int, at_few: float, at_many: float) -> tuple[float, float]:
    """Return the slope and the intercept (not below 0) of a line through two points."""
    slope = (at_many - at_few) / (many - few)
    return slope, max(at_many - slope * many, 0.0)


def run_chain(folder: Path, main_file: Path, m: int, args) -> tuple[dict[str, float], int]:
    """Return the seconds of each stage on the first m variants, and the dataset's bytes."""
    folder.mkdir()
    model = folder.parent
    chunk, dataset, tail = folder / "gwas.h5", folder / "study.rvga.h5", folder / "tail.h5"
    null, bases = model / "null.h5", model / "bases.h5"
    commands = {
        "component_gwas": [
            "--genotypes", main_file, "--null", null, "--n-variants", m, "--out", chunk,
        ],
        "minimal_dataset": ["--chunks", chunk, "--bases", bases, "--null", null, "--out", dataset],
        "image_tail": ["--dataset", dataset, "--out", tail],
        "scan_voxels": [
            "--dataset", dataset, "--tail", tail, "--out", folder / "hits.tsv.gz",
            "--out-voxels", folder / "voxels.tsv",
        ],
    }  # fmt: skip
    seconds = {}
    for stage, options in commands.items():
        seconds[stage] = run_stage(stage, *options, threads=args.threads)
    return seconds, dataset.stat().st_size


def run_stage(stage: str, *options: object, threads: int) -> float:
    """Run a stage as its own process and return its seconds."""
    command = [sys.executable, BIN / f"rvga_{stage}.py", *options, "--threads", threads]
    start = time.perf_counter()
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - start


def wide_pass(folder: Path, main_file: Path, C: np.ndarray, args, rng) -> float:
    """Return the seconds a variant and phenotype of the engine on many phenotypes at once."""
    folder.mkdir()
    width = args.wide_columns
    Q = np.linalg.qr(C)[0]
    S = rng.standard_normal((args.subjects, width))
    write_null(folder / "null.h5", Q, S, {"subjects": "0" * 64})
    del S
    many = min(args.variants, 4000)
    seconds = []
    for m in (many // 10, many):
        seconds.append(
            run_stage(
                "component_gwas", "--genotypes", main_file, "--null", folder / "null.h5",
                "--n-variants", m, "--out", folder / f"{m}.h5", threads=args.threads,
            )
        )  # fmt: skip
    return line(many // 10, many, *seconds)[0] / width


def plink_slice(folder: Path, args, C: np.ndarray, S: np.ndarray) -> tuple[float, float] | None:
    """Return seconds and bytes a variant and phenotype of ``plink2 --glm`` on a slice."""
    if shutil.which("plink2") is None:
        return None
    for name, matrix in (("covar", C[:, 1:]), ("pheno", S)):
        header = "#IID\t" + "\t".join(f"{name}{column}" for column in range(matrix.shape[1]))
        with (folder / name).open("w") as handle:
            handle.write(header + "\n")
            for name, values in zip(names(len(matrix)), matrix, strict=True):
                handle.write(name + "\t" + "\t".join(f"{x:.6g}" for x in values) + "\n")
    seconds, written = [], []
    last = min(args.plink_variants, args.variants)
    # The time with one variant (reading the tables) is taken off.
    for variants in (1, last):
        start = time.perf_counter()
        subprocess.run(
            ["plink2", "--bfile", "g", "--from", "rs0", "--to", f"rs{variants - 1}"]
            + ["--pheno", "pheno", "--covar", "covar", "--glm", "hide-covar", "omit-ref"]
            + ["--covar-variance-standardize", "--out", f"o{variants}"]
            + ["--threads", str(args.threads)],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        seconds.append(time.perf_counter() - start)
        written.append(sum(path.stat().st_size for path in folder.glob(f"o{variants}.*.linear")))
    cells = (last - 1) * args.components
    return (seconds[1] - seconds[0]) / cells, (written[1] - written[0]) / cells


def write_model(folder: Path, args, rng) -> tuple[np.ndarray, np.ndarray]:
    """Write ``null.h5`` and ``bases.h5``; return covariates with the intercept, and LDRs."""
    n, r, N = args.subjects, args.components, args.voxels
    C = np.column_stack([np.ones(n), rng.normal(size=(n, args.covariates - 1))])
    Q = np.linalg.qr(C)[0]
    S = rng.normal(size=(n, r)) * np.linspace(3, 1, r)
    same = {"subjects": "0" * 64}
    side = int(np.ceil(N ** (1 / 3)))
    index = np.argwhere(np.ones((side, side, side)))[:N].astype(np.int32)
    geometry = Geometry(np.diag([2.0, 2, 2, 1]), (side, side, side), index)
    attributes = {
        "geometry_type": "nifti", "bandwidth": 0.0, "n_eff": float(r), "total_variance": 100.0,
        "n": n,
    }  # fmt: skip
    with formats.create(folder / "bases.h5", "bases", attributes, inputs=same) as writer:
        bases = np.linalg.qr(rng.normal(size=(N, r)))[0]
        writer.add("bases", bases.astype(np.float32))
        writer.add("eigenvalues", np.linspace(9, 1, r))
        writer.add("mean", np.zeros(N))
        writer.add("coordinates", geometry.coordinates)
        writer.add("candidate_bandwidths", np.array([0.0]))
        writer.add("candidate_scores", np.array([0.0]))
        add_geometry(writer, geometry)
    with formats.open_file(folder / "bases.h5", "bases") as made:
        same["bases"] = made.digest
    write_null(folder / "null.h5", Q, S, same)
    return C, S


def write_null(path: Path, Q: np.ndarray, S: np.ndarray, inputs: dict[str, str]) -> None:
    """Write the null model of covariates and LDRs."""
    n, p = Q.shape
    subjects = names(n)
    attributes = {
        "sample_hash": sample_hash(subjects),
        "covariates": ["intercept", *(f"c{k}" for k in range(1, p))],
    }
    residual = S - Q @ (Q.T @ S)
    A = residual.T @ residual
    with formats.create(path, "null", attributes, inputs=inputs) as writer:
        writer.add("Q", Q)
        writer.add("residual_ldrs", residual[None])
        writer.add("A", A[None])
        writer.add("A_chromosome", [0])
        writer.add("Sigma", A / n)
        writer.add("subject", subjects)


if __name__ == "__main__":
    main()
