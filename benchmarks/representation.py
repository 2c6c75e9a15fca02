#!/usr/bin/env python3
"""Measure images to LDRs against scikit-learn's IncrementalPCA.

The stages are FIT_BASES, PROJECT_IMAGES (on one batch) and MAKE_LDRS.
Images are simulated on the grey-matter mask of the MNI template and written as the pipeline
writes them. Prints lines of JSON: one for each size, then the ratios. IncrementalPCA runs on the
same file, over ``--batches`` of its batches; the rest is extrapolated linearly. It neither smooths
nor chooses a bandwidth, so the ratio is to the stages without smoothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))
from rvga import formats
from rvga.geometry import Geometry, add_geometry
from rvga.images import ImageSet, image_chunk

BIN = Path(__file__).resolve().parents[1] / "bin"
WAVES = 400
BLOCK = 250


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, nargs="+", default=[5_000, 10_000, 20_000])
    parser.add_argument("--voxels", type=int, nargs="+", default=[12_500, 25_000, 50_000])
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=500, help="images a batch of IncrementalPCA")
    parser.add_argument("--batches", type=int, default=4, help="of IncrementalPCA; 0: without")
    parser.add_argument("--smoothing", action="store_true", help="with bandwidth auto, too")
    parser.add_argument("--folder", type=Path, help="for the images; default a temporary one")
    args = parser.parse_args()
    n, N = max(args.subjects), max(args.voxels)
    sizes = [(size, N) for size in sorted(args.subjects)]
    sizes += [(n, size) for size in sorted(args.voxels) if size != N]
    results = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for size in sizes:
            result = measure(Path(folder), *size, args)
            results[size] = result["seconds"]
            print(json.dumps(result, sort_keys=True), flush=True)
    growth = {
        "growth_of_time_with_subjects": exponent(results, sorted(args.subjects), lambda k: (k, N)),
        "growth_of_time_with_voxels": exponent(results, sorted(args.voxels), lambda k: (n, k)),
    }
    print(json.dumps(growth, sort_keys=True))


def exponent(results: dict, sizes: list[int], key) -> float | None:
    """Return the power of the size that the time grows with (1 is linear)."""
    if len(sizes) < 2:
        return None
    seconds = [results[key(size)] for size in sizes]
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def measure(folder: Path, n: int, N: int, args: argparse.Namespace) -> dict:
    """Return the measurements of one size."""
    images, subjects = folder / "images.h5", folder / "subjects.h5"
    write_study(images, subjects, n, N)
    result: dict = {"n": n, "voxels": N, "components": args.components, "threads": args.threads}
    result["image_bytes"] = 4 * n * N
    for bandwidth in ["none"] + (["auto"] if args.smoothing else []):
        stages = stage_seconds(folder, images, subjects, bandwidth, args)
        prefix = "" if bandwidth == "none" else "smoothed_"
        result |= {prefix + name: value for name, value in stages.items()}
    if args.batches and (n, N) == (max(args.subjects), max(args.voxels)):
        result |= incremental(images, n, args)
        result["incremental_over_stages"] = result["incremental_seconds"] / result["seconds"]
    images.unlink()
    subjects.unlink()
    return result


def write_study(images: Path, subjects: Path, n: int, N: int) -> None:
    """Write smooth random images of people with noise, and the sample of all of them."""
    from nilearn.datasets import load_mni152_gm_mask

    mask = load_mni152_gm_mask(resolution=2 if N > 20_000 else 3)
    index = np.argwhere(mask.get_fdata() > 0)
    if len(index) < N:
        raise SystemExit(f"the mask has {len(index)} voxels only")
    affine = np.asarray(mask.affine, dtype=float)
    places = index @ affine[:3, :3].T + affine[:3, 3]
    nearest = np.argsort(np.linalg.norm(places, axis=1), kind="stable")[:N]
    geometry = Geometry(affine, mask.shape, index[np.sort(nearest)].astype(np.int32))
    rng = np.random.default_rng(1)
    # Waves of falling variance and length make a spectrum that falls like that of real images.
    order = np.arange(1, WAVES + 1)
    lengths = 60.0 * order**-0.3
    phase = geometry.coordinates @ (rng.normal(size=(3, WAVES)) / lengths)
    waves = np.cos(phase + rng.uniform(0, 2 * np.pi, WAVES)) * order**-0.6
    waves = np.ascontiguousarray(waves.T, dtype=np.float32)
    ids = [f"s{row:06d}" for row in range(n)]
    with formats.create(images, "images", {"geometry_type": "nifti"}) as writer:
        dataset = writer.reserve("images", (n, N), chunks=image_chunk(N))
        total, squares = np.zeros(N), np.zeros(N)
        for first in range(0, n, BLOCK):
            count = min(BLOCK, n - first)
            block = rng.standard_normal((count, WAVES), dtype=np.float32) @ waves
            block += rng.standard_normal((count, N), dtype=np.float32)
            block += 10
            dataset[first : first + count] = block
            total += block.sum(axis=0, dtype=np.float64)
            squares += np.einsum("nv,nv->v", block, block, dtype=np.float64)
        writer.add("subject", ids)
        writer.add("coordinates", geometry.coordinates)
        writer.add("voxel_count", np.full(N, n))
        writer.add("voxel_sum", total)
        writer.add("voxel_sum_of_squares", squares)
        add_geometry(writer, geometry)
    with ImageSet([images]) as opened:
        digest = opened.new_digest()
        for first, stop, block in opened.blocks(ids):
            digest.update(ids[first:stop], block)
    with formats.create(
        subjects,
        "subjects",
        {"sample_hash": "", "flow": []},
        inputs={"images": digest.hexdigest()},
    ) as writer:
        writer.add("subject", ids)
        writer.add("voxel_index", np.arange(N))
        writer.add("voxel_mean", total / n)


def stage_seconds(folder: Path, images: Path, subjects: Path, bandwidth: str, args) -> dict:
    """Return the time (s) and peak memory of the stages, and how exact the bases are."""
    bases, summary = folder / "bases.h5", folder / "fit_bases.json"
    common = ["--images", images, "--subjects", subjects, "--threads", args.threads]
    fit, fit_cpu, fit_memory = run(
        "fit_bases",
        *common,
        *("--bandwidth", bandwidth, "--components", args.components),
        *("--out", bases, "--summary", summary),
    )
    scores = folder / "scores.h5"
    project, project_cpu, project_memory = run(
        "project_images", *common, *("--bases", bases, "--out", scores)
    )
    make, make_cpu, make_memory = run(
        "make_ldrs",
        *("--scores", scores, "--subjects", subjects, "--threads", args.threads),
        *("--bases", bases, "--out", folder / "ldrs.h5", "--table", folder / "ldrs.tsv"),
    )
    numbers = json.loads(summary.read_text())["numbers"]
    names = ("passes", "subspace_angle", "largest_relative_residual", "n_eff")
    return {
        "fit_bases_seconds": fit,
        "project_images_seconds": project,
        "make_ldrs_seconds": make,
        "seconds": fit + project + make,
        "cpu_seconds": fit_cpu + project_cpu + make_cpu,
        "peak_memory_mib": max(fit_memory, project_memory, make_memory),
        "bandwidth": numbers["bandwidth"],
        "n_eff_standard_error": numbers["n_eff_standard_error"],
        **{name: numbers[name] for name in names},
    }


def run(stage: str, *words: object) -> tuple[float, float, float]:
    """Run a stage; return its time and processor time (s) and peak resident memory (MiB)."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, BIN / f"rvga_{stage}.py", *map(str, words)], stderr=subprocess.PIPE
    )
    log = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{stage} failed:\n{log}")
    seconds = time.perf_counter() - start
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def incremental(images: Path, n: int, args: argparse.Namespace) -> dict:
    """Return the time (s) of IncrementalPCA and its projection, from some of its batches."""
    import threadpoolctl
    from sklearn.decomposition import IncrementalPCA

    before = time.process_time()
    model = IncrementalPCA(n_components=args.components, batch_size=args.batch, copy=False)
    n_batches = -(-n // args.batch)
    measured = min(args.batches, n_batches)
    fitting, projecting = [], []
    with formats.open_file(images, "images") as file, threadpoolctl.threadpool_limits(args.threads):
        for number in range(measured):
            rows = slice(number * args.batch, (number + 1) * args.batch)
            start = time.perf_counter()
            model.partial_fit(file["images"][rows])
            fitting.append(time.perf_counter() - start)
        for number in range(measured):
            rows = slice(number * args.batch, (number + 1) * args.batch)
            start = time.perf_counter()
            model.transform(file["images"][rows])
            projecting.append(time.perf_counter() - start)
    cpu = time.process_time() - before
    # The first batch has no components to be joined with.
    later = fitting[1:] or fitting
    seconds = fitting[0] + (n_batches - 1) * float(np.mean(later))
    seconds += n_batches * float(np.mean(projecting))
    return {
        "incremental_seconds": seconds,
        "incremental_cpu_seconds_measured": cpu,
        "incremental_batch": args.batch,
        "incremental_batches_measured": measured,
        "incremental_batches": n_batches,
    }


if __name__ == "__main__":
    main()
