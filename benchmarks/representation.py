#!/usr/bin/env python3
"""Measure images to LDRs against scikit-learn's IncrementalPCA.

The stages are FIT_BASES, PROJECT_IMAGES (on one batch) and MAKE_LDRS; READ_IMAGES and
SELECT_SUBJECTS are not measured, nor is what IncrementalPCA would need in their place.
Images are simulated on the grey-matter mask of the MNI template and written as the pipeline
writes them. Prints lines of JSON: one for each size, then how time grows with the sizes, then how
exact both answers are at a small size. IncrementalPCA runs on the same file with every
``--batch``, over ``--batches`` of its batches; the rest is extrapolated linearly. It neither
smooths nor chooses a bandwidth, so the ratios are to the stages without smoothing. Its own
default of five times as many images a batch as there are voxels is all images at once: it would
hold the whole matrix several times over, and is left out.

How many passes FIT_BASES makes depends on the spectrum, which is printed: ``waves`` is of 400
waves of falling variance and white noise, with a drop after the 400th; ``power`` of 2,000 waves
whose variance falls by the same power, and little noise, without any drop.
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
WAVES = {"waves": (400, 1.0), "power": (2000, 0.3)}
SPECTRUM_AT = (1, 2, 5, 10, 20, 50, 100, 200)
SMALL = (1500, 3000, 20)
BLOCK = 250


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, nargs="+", default=[5_000, 10_000, 20_000])
    parser.add_argument("--voxels", type=int, nargs="+", default=[12_500, 25_000, 50_000])
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--spectrum", choices=sorted(WAVES), default="waves")
    parser.add_argument("--batch", type=int, nargs="+", default=[200, 500, 1000, 2000],
                        help="images a batch of IncrementalPCA")  # fmt: skip
    parser.add_argument("--batches", type=int, default=4, help="of IncrementalPCA; 0: without")
    parser.add_argument("--smoothing", action="store_true", help="with bandwidth auto, too")
    parser.add_argument("--folder", type=Path, help="for the images; default a temporary one")
    args = parser.parse_args()
    n, N = max(args.subjects), max(args.voxels)
    sizes = [(size, N) for size in sorted(args.subjects)]
    sizes += [(n, size) for size in sorted(args.voxels) if size != N]
    results, cpu = {}, {}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for size in sizes:
            result = measure(Path(folder), *size, args)
            results[size], cpu[size] = result["seconds"], result["cpu_seconds"]
            print(json.dumps(result, sort_keys=True), flush=True)
        exact = exactness(Path(folder), args) if args.batches else {}
    growth = {
        "growth_of_time_with_subjects": exponent(results, sorted(args.subjects), lambda k: (k, N)),
        "growth_of_time_with_voxels": exponent(results, sorted(args.voxels), lambda k: (n, k)),
    }
    by_subjects, by_voxels = (lambda k: (k, N)), (lambda k: (n, k))
    growth |= {
        "growth_of_cpu_time_with_subjects": exponent(cpu, sorted(args.subjects), by_subjects),
        "growth_of_cpu_time_with_voxels": exponent(cpu, sorted(args.voxels), by_voxels),
    }
    print(json.dumps(growth, sort_keys=True))
    if exact:
        print(json.dumps(exact, sort_keys=True))


def exponent(results: dict, sizes: list[int], key) -> float | None:
    """Return the power of the size that the time grows with (1 is linear)."""
    if len(sizes) < 2:
        return None
    seconds = [results[key(size)] for size in sizes]
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def measure(folder: Path, n: int, N: int, args: argparse.Namespace) -> dict:
    """Return the measurements of one size."""
    images, subjects = folder / "images.h5", folder / "subjects.h5"
    write_study(images, subjects, n, N, args.spectrum)
    result: dict = {"n": n, "voxels": N, "components": args.components, "threads": args.threads}
    result["image_bytes"] = 4 * n * N
    for bandwidth in ["none"] + (["auto"] if args.smoothing else []):
        stages = stage_seconds(folder, images, subjects, bandwidth, args)
        prefix = "" if bandwidth == "none" else "smoothed_"
        result |= {prefix + name: value for name, value in stages.items()}
    result["simulated_spectrum"] = args.spectrum
    if args.batches and (n, N) == (max(args.subjects), max(args.voxels)):
        runs = [incremental(images, n, batch, args) for batch in args.batch]
        for run_ in runs:
            run_["seconds_over_stages"] = run_["seconds"] / result["seconds"]
            run_["cpu_over_stages"] = run_["cpu_seconds"] / result["cpu_seconds"]
        result["incremental"] = runs
        for name in ("seconds_over_stages", "cpu_over_stages"):
            result[f"fastest_incremental_{name}"] = min(run_[name] for run_ in runs)
    images.unlink()
    subjects.unlink()
    return result


def write_study(images: Path, subjects: Path, n: int, N: int, spectrum: str = "waves") -> None:
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
    # Waves of falling variance and length make a spectrum that falls like a power.
    number, noise = WAVES[spectrum]
    order = np.arange(1, number + 1)
    lengths = 60.0 * order**-0.3
    phase = geometry.coordinates @ (rng.normal(size=(3, number)) / lengths)
    waves = np.cos(phase + rng.uniform(0, 2 * np.pi, number)) * order**-0.6
    waves = np.ascontiguousarray(waves.T, dtype=np.float32)
    ids = [f"s{row:06d}" for row in range(n)]
    with formats.create(images, "images", {"geometry_type": "nifti"}) as writer:
        dataset = writer.reserve("images", (n, N), chunks=image_chunk(N))
        total, squares = np.zeros(N), np.zeros(N)
        for first in range(0, n, BLOCK):
            count = min(BLOCK, n - first)
            block = rng.standard_normal((count, number), dtype=np.float32) @ waves
            block += np.float32(noise) * rng.standard_normal((count, N), dtype=np.float32)
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
    names = ("decomposition", "passes", "subspace_angle", "largest_relative_residual", "n_eff")
    with formats.open_file(bases, "bases") as found:
        eigenvalues = found["eigenvalues"][...]
    r = args.components
    last = eigenvalues[r - 1]
    at = [k for k in SPECTRUM_AT if k <= len(eigenvalues)]
    return {
        "fit_bases_seconds": fit,
        "project_images_seconds": project,
        "make_ldrs_seconds": make,
        "seconds": fit + project + make,
        "cpu_seconds": fit_cpu + project_cpu + make_cpu,
        "peak_memory_mib": max(fit_memory, project_memory, make_memory),
        "bandwidth": numbers["bandwidth"],
        "share_of_variance": numbers["share_of_variance"],
        "eigenvalues_over_the_last_component": {k: float(eigenvalues[k - 1] / last) for k in at},
        "relative_gap_before_the_last_component": float(eigenvalues[r - 2] / last - 1),
        "fit_bases_cpu_seconds": fit_cpu,
        "project_images_cpu_seconds": project_cpu,
        "make_ldrs_cpu_seconds": make_cpu,
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


def incremental(images: Path, n: int, batch: int, args: argparse.Namespace) -> dict:
    """Return the time (s) of IncrementalPCA and its projection, from some of its batches."""
    import threadpoolctl
    from sklearn.decomposition import IncrementalPCA

    model = IncrementalPCA(n_components=args.components, batch_size=batch, copy=False)
    n_batches = -(-n // batch)
    measured = min(args.batches, n_batches)
    fitting, projecting = [], []
    with formats.open_file(images, "images") as file, threadpoolctl.threadpool_limits(args.threads):
        for kind, method in ((fitting, model.partial_fit), (projecting, model.transform)):
            for number in range(measured):
                start, cpu = time.perf_counter(), time.process_time()
                method(file["images"][number * batch : (number + 1) * batch])
                kind.append((time.perf_counter() - start, time.process_time() - cpu))
    fitting, projecting = np.array(fitting), np.array(projecting)
    # The first batch has no components to be joined with.
    later = fitting[1:] if measured > 1 else fitting
    total = fitting[0] + (n_batches - 1) * later.mean(axis=0) + n_batches * projecting.mean(axis=0)
    return {
        "batch": batch,
        "batches": n_batches,
        "batches_measured": measured,
        "seconds": float(total[0]),
        "cpu_seconds": float(total[1]),
    }


def exactness(folder: Path, args: argparse.Namespace) -> dict:
    """Return how far FIT_BASES and IncrementalPCA are from a dense decomposition, when small."""
    from sklearn.decomposition import IncrementalPCA

    n, N, r = SMALL
    images, subjects, bases = (folder / f"{name}.h5" for name in ("small", "sample", "found"))
    write_study(images, subjects, n, N, args.spectrum)
    run(
        "fit_bases",
        *("--images", images, "--subjects", subjects, "--threads", args.threads),
        *("--bandwidth", "none", "--components", r, "--out", bases),
    )
    with formats.open_file(images, "images") as file:
        X = file["images"][...].astype(np.float64)
    centred = X - X.mean(axis=0)
    values, vectors = np.linalg.eigh(centred @ centred.T / n)
    truth, U = values[::-1], vectors[:, ::-1][:, :r]
    B = np.linalg.qr(centred.T @ U)[0]
    with formats.open_file(bases, "bases") as found:
        ours = found["bases"][...].astype(np.float64), found["eigenvalues"][:r]
    result = {
        "n": n,
        "voxels": N,
        "components": r,
        "relative_gap": float(1 - truth[r] / truth[r - 1]),
    }
    answers = {"fit_bases": ours}
    for batch in args.batch:
        model = IncrementalPCA(n_components=r, batch_size=batch).fit(X)
        variance = model.explained_variance_ * (n - 1) / n
        answers[f"incremental_{batch}"] = model.components_.T, variance
    for name, (basis, eigenvalues) in answers.items():
        basis = np.linalg.qr(basis)[0]
        sine = min(float(np.linalg.norm(basis - B @ (B.T @ basis), 2)), 1.0)
        result[f"{name}_angle"] = float(np.arcsin(sine))
        result[f"{name}_eigenvalue_error"] = float(np.abs(eigenvalues / truth[:r] - 1).max())
    return result


if __name__ == "__main__":
    main()
