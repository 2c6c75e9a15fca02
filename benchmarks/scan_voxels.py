#!/usr/bin/env python3
"""Measure the scan of all voxels against matrix multiplication of the same shapes.

Prints one line of JSON. Three rates, in variants a second, each on all threads given:

- ``sgemm``: the bare single-precision product of a block of variants and all voxels, written to
  memory, and ``sgemm_in_cache``: the same product tile by tile, nothing kept;
- ``scan``: product and fused pass, that is counts, lead voxels and totals by voxel;
- ``stage``: the whole of SCAN_VOXELS, from the dataset on disk to its tables; ``stage_variants``
  is the same without what a task costs however few its variants are.

``*_cpu_over_sgemm`` are ratios of processor time, which other programs on the machine disturb
less; they are lower bounds where the threads wait for each other.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import threadpoolctl
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))
import rvga_image_tail
import rvga_scan_voxels
from rvga import formats, scan
from rvga.coding import encode_z
from rvga.geometry import Geometry, add_geometry
from rvga.parallel import ordered_map

BLOCK = 1024
NU = 50_000 - 17
CRITICAL_T = 6.5


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxels", type=int, default=50_000)
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--variants", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    geometry, bases = smooth_bases(args.voxels, args.components, rng)
    root = np.diag(np.linspace(3.0, 0.5, args.components))
    root = root + rng.normal(size=root.shape) / 20
    A = (root @ root.T * NU)[None]
    a = rng.uniform(2_000, 25_000, args.variants)
    # Under the null, and one variant in a hundred strongly associated.
    x = rng.normal(size=(args.variants, args.components))
    x[::100] *= 3.0
    beta = x @ root.T / np.sqrt(a)[:, None]
    result = {name: getattr(args, name) for name in vars(args)}
    with threadpoolctl.threadpool_limits(1):
        scanner = scan.prepare(bases, A, NU, CRITICAL_T)
        rates = {
            "sgemm": sgemm_rate(scanner, args, rng),
            "sgemm_in_cache": tiles_rate(scanner, args, rng),
            "scan": scan_rate(scanner, beta, a, args),
            "scan_with_every_pair": scan_rate(scanner, beta, a, args, hits=True),
        }
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder) / "study.rvga.h5", geometry, bases, A, beta, a)
        parts = max(args.variants // 64, 1)
        few = args.variants // parts
        rates["stage"] = stage_rate(Path(folder), 1, args.variants, args)
        of_few = stage_rate(Path(folder), parts, few, args)
        rates["stage_variants"] = tuple(
            (args.variants - few) / (args.variants / whole - few / part)
            for whole, part in zip(rates["stage"], of_few, strict=True)
        )
    for name, (wall, processor) in rates.items():
        result[f"{name}_variants_per_second"] = wall
        if name != "sgemm":
            result[f"{name}_over_sgemm"] = wall / rates["sgemm"][0]
            result[f"{name}_cpu_over_sgemm"] = processor / rates["sgemm"][1]
    print(json.dumps(result, sort_keys=True))


def smooth_bases(N: int, r: int, rng: np.random.Generator) -> tuple[Geometry, np.ndarray]:
    """Return a grid of N voxels and r orthonormal smooth images on it."""
    side = int(np.ceil(N ** (1 / 3)))
    index = np.argwhere(np.ones((side, side, side)))[:N].astype(np.int32)
    images = np.empty((N, r))
    for j in range(r):
        field = ndimage.gaussian_filter(rng.normal(size=(side, side, side)), 2.0, mode="wrap")
        images[:, j] = field[tuple(index.T)]
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    return Geometry(affine, (side, side, side), index), np.linalg.qr(images)[0]


def timed(work, variants: int, repeats: int, threads: int) -> tuple[float, float]:
    """Return the best variants a second by wall time, and by processor time of all threads."""
    wall, processor = [], []
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - cpu)
    return variants / min(wall), variants * threads / min(processor)


def sgemm_rate(scanner, args, rng) -> tuple[float, float]:
    """Return the rate of one product of a block and all voxels, on all threads of BLAS."""
    rows = rng.normal(size=(BLOCK, args.components)).astype(np.float32)
    out = np.empty((BLOCK, args.voxels), dtype=np.float32)
    with threadpoolctl.threadpool_limits(args.threads):
        return timed(
            lambda: np.matmul(rows, scanner.unit[0], out=out), BLOCK, 3 * args.repeats, args.threads
        )


def tiles_rate(scanner, args, rng) -> tuple[float, float]:
    """Return the rate of the scan's tiles without the pass over them."""
    rows = rng.normal(size=(scan.TILE_VARIANTS, args.components)).astype(np.float32)

    def work(_: int) -> None:
        tile = np.empty((scan.TILE_VARIANTS, scan.TILE_VOXELS), dtype=np.float32)
        for first in range(0, args.voxels, scan.TILE_VOXELS):
            some = scanner.unit[0][:, first : first + scan.TILE_VOXELS]
            np.matmul(rows, some, out=tile[:, : some.shape[1]])

    with ThreadPoolExecutor(args.threads) as pool:
        return timed(
            lambda: list(pool.map(work, range(args.threads))),
            scan.TILE_VARIANTS * args.threads,
            3 * args.repeats,
            args.threads,
        )


def scan_rate(scanner, beta, a, args, hits: bool = False) -> tuple[float, float]:
    """Return the rate of the scan itself."""
    index = np.zeros(len(a), dtype=np.int64)
    blocks = [slice(first, first + BLOCK) for first in range(0, len(a), BLOCK)]

    def work() -> None:
        totals = scan.Totals(scanner)
        for found in ordered_map(
            lambda rows: scan.scan_block(scanner, beta[rows], a[rows], index[rows], hits),
            blocks,
            args.threads,
        ):
            totals.add(found)

    scan.scan_block(scanner, beta[:8], a[:8], index[:8], hits)  # compiles
    return timed(work, len(a), args.repeats, args.threads)


def stage_rate(folder: Path, parts: int, variants: int, args) -> tuple[float, float]:
    """Return the rate of the whole stage on its first part, from file to files."""
    dataset, tail = folder / "study.rvga.h5", folder / "tail.h5"
    out = ["--out", str(folder / "hits.tsv.gz"), "--out-voxels", str(folder / "voxels.tsv")]
    common = ["--dataset", str(dataset), "--threads", str(args.threads)]
    with contextlib.redirect_stderr(io.StringIO()):
        rvga_image_tail.main([*common, "--draws", "200", "--out", str(tail)])
        return timed(
            lambda: rvga_scan_voxels.main(
                [*common, "--tail", str(tail), "--parts", str(parts), *out]
            ),
            variants,
            2,
            args.threads,
        )


def write_dataset(path, geometry, bases, A, beta, a) -> None:
    """Write a minimal dataset of these statistics."""
    m, r = beta.shape
    variance = np.diag(A[0])
    z = beta / np.sqrt((variance - a[:, None] * beta**2) / (NU * a[:, None]))
    codes, scale = encode_z(z)
    attributes = {
        "n": NU + 17, "p": 16, "coding": "int16", "n_eff": float(r), "genome_build": "GRCh38",
        "sample_hash": "0" * 16, "minor_allele_count": 20, "geometry_type": "nifti",
        "counts": {"1": {"read": m, "written": m, "dropped": {}, "missing": {}}},
    }  # fmt: skip
    with formats.create(path, "minimal", attributes, inputs={"bases": "0" * 64}) as writer:
        for name, values in {
            "z": codes, "scale": scale, "a": a, "A": A, "A_index": np.zeros(m),
            "Sigma": A[0] / NU, "bases": bases, "eigenvalues": np.linspace(9, 1, r),
            "coordinates": geometry.coordinates, "variants/chromosome": np.ones(m),
            "variants/base_pair_location": np.arange(1, m + 1) * 100,
            "variants/variant_id": [f"rs{100 * k}" for k in range(1, m + 1)],
            "variants/effect_allele": ["A"] * m, "variants/other_allele": ["G"] * m,
            "variants/effect_allele_frequency": np.full(m, 0.3),
            "variants/missing_rate": np.zeros(m),
        }.items():  # fmt: skip
            writer.add(name, values)
        add_geometry(writer, geometry)


if __name__ == "__main__":
    main()
