#!/usr/bin/env python3
"""Does peak memory follow the chunk and not the study? Triple the variants and see.

Writes random genotypes of m and of 3 m variants, runs the stages COMPONENT_GWAS (one chunk of
equal size of either), MINIMAL_DATASET, IMAGE_TAIL and SCAN_VOXELS (all variants, blocks of equal
size) as their own processes, and prints one line of JSON: the largest resident memory of each in
MiB at m and at 3 m, and their ratio.

    python benchmarks/memory.py --variants 60000
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))

from support import names, peak_memory, write_plink1

from rvga import formats
from rvga.geometry import Geometry, add_geometry
from rvga.samples import sample_hash

BIN = Path(__file__).resolve().parents[1] / "bin"


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=2000)
    parser.add_argument("--variants", type=int, default=60_000, help="m; 3 m are tried too")
    parser.add_argument("--chunk-variants", type=int, default=10_000)
    parser.add_argument("--components", type=int, default=40)
    parser.add_argument("--voxels", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    sizes = [args.variants, 3 * args.variants]
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder, args)
        for m in sizes:
            peaks.append(measure(folder / str(m), m, args))
    result = {
        "benchmark": "memory",
        **{name: getattr(args, name) for name in vars(args) if name != "variants"},
        "variants": sizes,
        "peak_mib": {stage: [round(peak[stage], 1) for peak in peaks] for stage in peaks[0]},
        "ratio": {stage: round(peaks[1][stage] / peaks[0][stage], 3) for stage in peaks[0]},
    }
    print(json.dumps(result))


def measure(folder: Path, m: int, args: argparse.Namespace) -> dict[str, float]:
    """Return stage → largest peak of its tasks in MiB, for a study of m variants."""
    folder.mkdir()
    shared = folder.parent
    main_file = write_plink1(folder, m, args.subjects)
    size = args.chunk_variants
    chunks, peaks = [], []
    for first in range(0, m, size):
        chunks.append(folder / f"gwas.{first:09d}.h5")
        options = ["--genotypes", main_file, "--null", shared / "null.h5", "--out", chunks[-1]]
        options += ["--first-variant", first, "--n-variants", min(size, m - first)]
        peaks.append(peak("component_gwas", *options, threads=args.threads))
    found = {"COMPONENT_GWAS": max(peaks)}
    dataset, tail = folder / "study.rvga.h5", folder / "tail.h5"
    models = ["--bases", shared / "bases.h5", "--null", shared / "null.h5"]
    found["MINIMAL_DATASET"] = peak(
        "minimal_dataset", "--chunks", *chunks, *models, "--out", dataset, threads=1
    )
    found["IMAGE_TAIL"] = peak(
        "image_tail", "--dataset", dataset, "--draws", 1000, "--out", tail, threads=args.threads
    )
    outputs = ["--out", folder / "hits.tsv.gz", "--out-voxels", folder / "voxels.tsv"]
    found["SCAN_VOXELS"] = peak(
        "scan_voxels", "--dataset", dataset, "--tail", tail, *outputs, threads=args.threads
    )
    return found


def peak(stage: str, *options: object, threads: int) -> float:
    """Run a stage and return its peak resident memory in MiB."""
    command = [sys.executable, BIN / f"rvga_{stage}.py", *options, "--threads", threads]
    return peak_memory(command)


def write_model(folder: Path, args: argparse.Namespace) -> None:
    """Write ``null.h5`` and ``bases.h5`` of random LDRs and bases."""
    rng = np.random.default_rng(1)
    n, r = args.subjects, args.components
    subjects = names(n)
    Q = np.linalg.qr(np.column_stack([np.ones(n), rng.normal(size=(n, 5))]))[0]
    S = rng.normal(size=(n, r)) * np.linspace(3, 1, r)
    residual = S - Q @ (Q.T @ S)
    same = {"subjects": "0" * 64}
    side = int(np.ceil(args.voxels ** (1 / 3)))
    index = np.argwhere(np.ones((side, side, side)))[: args.voxels].astype(np.int32)
    geometry = Geometry(np.diag([2.0, 2, 2, 1]), (side, side, side), index)
    attributes = {
        "geometry_type": "nifti",
        "bandwidth": 0.0,
        "n_eff": 30.0,
        "total_variance": 100.0,
        "n": n,
    }
    with formats.create(folder / "bases.h5", "bases", attributes, inputs=same) as writer:
        bases = np.linalg.qr(rng.normal(size=(args.voxels, r)))[0]
        writer.add("bases", bases.astype(np.float32))
        writer.add("eigenvalues", np.linspace(9, 1, r))
        writer.add("mean", np.zeros(args.voxels))
        writer.add("coordinates", geometry.coordinates)
        writer.add("candidate_bandwidths", np.array([0.0]))
        writer.add("candidate_scores", np.array([0.0]))
        add_geometry(writer, geometry)
    with formats.open_file(folder / "bases.h5", "bases") as made:
        same["bases"] = made.digest
    attributes = {"sample_hash": sample_hash(subjects), "covariates": ["intercept", *"abcde"]}
    with formats.create(folder / "null.h5", "null", attributes, inputs=same) as writer:
        A = residual.T @ residual
        writer.add("Q", Q)
        writer.add("residual_ldrs", residual[None])
        writer.add("A", A[None])
        writer.add("A_chromosome", [0])
        writer.add("Sigma", A / n)
        writer.add("subject", subjects)


if __name__ == "__main__":
    main()
