#!/usr/bin/env python3
"""Measure images to LDRs against scikit-learn's IncrementalPCA.

Images are simulated on the grey-matter mask of the MNI template. By default they are written as
READ_IMAGES writes them and the stages measured are FIT_BASES, PROJECT_IMAGES and MAKE_LDRS. With
``--from-files`` they are written as 4-D NIfTI (float32, the box about the voxels, some subjects a
file), and READ_IMAGES and SELECT_SUBJECTS are measured too: ``stages`` names what is in the sums.
Reading and projecting then are a task a file, as many at a time as there are threads, as the
pipeline runs them; their peak memory is that of all that run at a time.

Prints lines of JSON as results come: one for each stage and each batch size of IncrementalPCA,
one for each size, then how time grows with the sizes, then how exact both answers are at a small
size. Interrupted, it prints growth over the sizes that are done.

IncrementalPCA runs on the same images files with every ``--batch``, over ``--batches`` of its
batches; the rest is extrapolated linearly. With ``--full-incremental`` it runs in full with those
batch sizes, and the angle (radians) of its components to those of FIT_BASES is given (FIT_BASES
states its own error as ``subspace_angle``). It neither smooths nor chooses a bandwidth, so ratios
are to the stages without smoothing: to FIT_BASES, PROJECT_IMAGES and MAKE_LDRS alone
(``over_representation``), and to all that are in the sums (``over_stages``). Its own default of
five times as many images a batch as there are voxels is all images at once: the memory for that
is stated, and it runs at the largest size of the same proportions that ``--memory-limit`` holds.

How many passes FIT_BASES makes depends on the spectrum, which is printed: ``waves`` is of 400
waves of falling variance and white noise, with a drop after the 400th; ``power`` of 2,000 waves
whose variance falls by the same power, and little noise, without any drop.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))
from rvga import formats
from rvga.geometry import Geometry, add_geometry
from rvga.images import ImageSet, image_chunk, image_digests

BIN = Path(__file__).resolve().parents[1] / "bin"
WAVES = {"waves": (400, 1.0), "power": (2000, 0.3)}
SPECTRUM_AT = (1, 2, 5, 10, 20, 50, 100, 200)
SMALL = (1500, 3000, 20)
BLOCK = 250
ALL_STAGES = ("read_images", "select_subjects", "fit_bases", "project_images", "make_ldrs")
REPRESENTATION = ALL_STAGES[2:]


@dataclass(frozen=True)
class Cost:
    """Time and processor time (s), and peak resident memory (MiB) of all that ran at a time."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory: float = 0.0

    def then(self, other: Cost) -> Cost:
        """Return the cost of both, one after the other."""
        return Cost(
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.memory, other.memory),
        )


def main() -> None:
    """Run the measurement."""
    args = parser().parse_args()
    n, N = max(args.subjects), max(args.voxels)
    sizes = [(size, N) for size in sorted(args.subjects)]
    sizes += [(n, size) for size in sorted(args.voxels) if size != N]
    results: dict[tuple[int, int], dict] = {}
    _launcher()  # while this process is small
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        try:
            for size in sizes:
                results[size] = measure(Path(folder), *size, args)
                tell(results[size])
            if args.batches:
                tell(whole_file_batch(Path(folder), n, N, args))
                tell(exactness(Path(folder), args))
        except KeyboardInterrupt:
            tell({"interrupted": True})
        finally:
            if results:
                tell(growth(results))


def parser() -> argparse.ArgumentParser:
    """Return the option parser."""
    result = argparse.ArgumentParser(description=__doc__)
    add = result.add_argument
    add("--subjects", type=int, nargs="+", default=[5_000, 10_000, 20_000])
    add("--voxels", type=int, nargs="+", default=[12_500, 25_000, 50_000])
    add("--components", type=int, default=100)
    add("--threads", type=int, default=2)
    add("--spectrum", choices=sorted(WAVES), default="waves")
    add("--from-files", action="store_true", help="with READ_IMAGES and SELECT_SUBJECTS")
    add("--file-subjects", type=int, default=500, help="subjects a 4-D NIfTI file")
    add("--compressed", action="store_true", help=".nii.gz in place of .nii")
    add("--batch", type=int, nargs="+", default=[200, 500, 1000, 2000],
        help="images a batch of IncrementalPCA")  # fmt: skip
    add("--batches", type=int, default=4, help="of IncrementalPCA; 0: without")
    add("--full-incremental", type=int, nargs="*", default=[], metavar="BATCH",
        help="batch sizes with which IncrementalPCA runs in full, at the largest size")  # fmt: skip
    add("--memory-limit", type=float, default=1.0, metavar="GIB",
        help="for IncrementalPCA with its default batch")  # fmt: skip
    add("--smoothing", action="store_true", help="with bandwidth auto, too")
    add("--folder", type=Path, help="for the images; default a temporary one")
    return result


def tell(record: dict) -> None:
    """Print a line of JSON."""
    print(json.dumps(record, sort_keys=True), flush=True)


def growth(results: dict) -> dict:
    """Return the powers of n and N that times grow with, over the sizes that are done."""
    n, N = max(size[0] for size in results), max(size[1] for size in results)
    series = {
        "subjects": sorted(size for size in results if size[1] == N),
        "voxels": sorted(size for size in results if size[0] == n),
    }
    names = [
        f"{part}{kind}" for part in ("", "representation_") for kind in ("seconds", "cpu_seconds")
    ]
    names += [f"{stage}_cpu_seconds" for stage in ALL_STAGES]
    names += ["fit_bases_cpu_seconds_a_pass"]
    names += [f"smoothed_{name}" for name in ("seconds", "cpu_seconds", "fit_bases_cpu_seconds")]
    names = [name for name in names if all(name in of for of in results.values())]
    found: dict[str, float] = {}
    for what, sizes in series.items():
        if len(sizes) < 2:
            continue
        at = np.log([size[what == "voxels"] for size in sizes])
        for name in names:
            times = np.log([results[size][name] for size in sizes])
            found[f"growth_of_{name}_with_{what}"] = float(np.polyfit(at, times, 1)[0])
    return found


# -------------------------------------------------------------------------------------------
# Simulated images
# -------------------------------------------------------------------------------------------


class Simulated:
    """Smooth random images of people with noise: waves of falling variance and length.

    Attributes
    ----------
    geometry : Geometry
        Of N voxels, within the box about them.
    ids : list of str
        Subjects.
    """

    def __init__(self, n: int, N: int, spectrum: str):
        self.n, self.N, self.geometry = n, N, geometry_of(N)
        self.ids = [f"s{row:06d}" for row in range(n)]
        self._rng = np.random.default_rng(1)
        # They make a spectrum that falls like a power.
        number, self._noise = WAVES[spectrum]
        order = np.arange(1, number + 1)
        lengths = 60.0 * order**-0.3
        phase = self.geometry.coordinates @ (self._rng.normal(size=(3, number)) / lengths)
        waves = np.cos(phase + self._rng.uniform(0, 2 * np.pi, number)) * order**-0.6
        self._waves = np.ascontiguousarray(waves.T, dtype=np.float32)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield ``(first, images)``; once only."""
        number = len(self._waves)
        for first in range(0, self.n, BLOCK):
            count = min(BLOCK, self.n - first)
            block = self._rng.standard_normal((count, number), dtype=np.float32) @ self._waves
            noise = self._rng.standard_normal((count, self.N), dtype=np.float32)
            block += np.float32(self._noise) * noise
            block += 10
            yield first, block


def geometry_of(N: int) -> Geometry:
    """Return the N voxels of grey matter nearest to the origin, in the box about them."""
    from nilearn.datasets import load_mni152_gm_mask

    mask = load_mni152_gm_mask(resolution=2 if N > 20_000 else 3)
    index = np.argwhere(mask.get_fdata() > 0)
    if len(index) < N:
        raise SystemExit(f"the mask has {len(index)} voxels only")
    affine = np.array(mask.affine, dtype=float)
    places = index @ affine[:3, :3].T + affine[:3, 3]
    nearest = np.argsort(np.linalg.norm(places, axis=1), kind="stable")[:N]
    index = index[np.sort(nearest)]
    low = index.min(axis=0)
    affine[:3, 3] += affine[:3, :3] @ low
    shape = tuple(int(size) for size in index.max(axis=0) - low + 1)
    return Geometry(affine, shape, (index - low).astype(np.int32))


def write_study(images: Path, subjects: Path, n: int, N: int, spectrum: str = "waves") -> None:
    """Write simulated images as READ_IMAGES does, and the sample of all of them."""
    simulated = Simulated(n, N, spectrum)
    ids, geometry = simulated.ids, simulated.geometry
    with formats.create(images, "images", {"geometry_type": "nifti"}) as writer:
        dataset = writer.reserve("images", (n, N), chunks=image_chunk(N))
        digests = np.empty((n, 16), dtype="u1")
        total, squares = np.zeros(N), np.zeros(N)
        for first, block in simulated.blocks():
            dataset[first : first + len(block)] = block
            digests[first : first + len(block)] = image_digests(block)
            total += block.sum(axis=0, dtype=np.float64)
            squares += np.einsum("nv,nv->v", block, block, dtype=np.float64)
        writer.add("subject", ids)
        writer.add("image_digest", digests)
        writer.add("coordinates", geometry.coordinates)
        writer.add("voxel_count", np.full(N, n))
        writer.add("voxel_sum", total)
        writer.add("voxel_sum_of_squares", squares)
        add_geometry(writer, geometry)
    with ImageSet([images]) as opened:
        digest = opened.digest(ids).hexdigest()
    with formats.create(
        subjects, "subjects", {"sample_hash": "", "flow": []}, inputs={"images": digest}
    ) as writer:
        writer.add("subject", ids)
        writer.add("voxel_index", np.arange(N))
        writer.add("voxel_mean", total / n)


def write_volumes(path: Path, rows: Iterator[np.ndarray], count: int, geometry: Geometry) -> None:
    """Write some images (N,) as a 4-D NIfTI file of float32, volume by volume."""
    volume = np.zeros(int(np.prod(geometry.shape)), dtype=np.float32)
    cells = np.ravel_multi_index(tuple(geometry.index.T), geometry.shape, order="F")
    packed = path.suffix == ".gz"
    with gzip.open(path, "wb", compresslevel=1) if packed else path.open("wb") as file:
        file.write(nifti_header((*geometry.shape, count), geometry.affine))
        for _ in range(count):
            volume[cells] = next(rows)
            file.write(volume.data)


def nifti_header(shape: Sequence[int], affine: np.ndarray) -> bytes:
    """Return the bytes before the values of a NIfTI-1 file of float32."""
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.float32)
    header.set_sform(affine, 1)
    header.set_xyzt_units("mm")
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return header.binaryblock + bytes(4)


# -------------------------------------------------------------------------------------------
# The stages
# -------------------------------------------------------------------------------------------


def measure(folder: Path, n: int, N: int, args: argparse.Namespace) -> dict:
    """Return the measurements of one size."""
    result: dict = {"n": n, "voxels": N, "components": args.components, "threads": args.threads}
    result |= {"image_bytes": 4 * n * N, "simulated_spectrum": args.spectrum}
    subjects = folder / "subjects.h5"
    if args.from_files:
        images, costs = read_files(folder, subjects, n, N, args)
        result |= {"subjects_a_file": args.file_subjects, "compressed": args.compressed}
    else:
        images, costs = [folder / "images.h5"], {}
        write_study(images[0], subjects, n, N, args.spectrum)
    for bandwidth in ["none"] + (["auto"] if args.smoothing else []):
        prefix = "" if bandwidth == "none" else "smoothed_"
        found, facts = represent(folder, images, subjects, bandwidth, args)
        here = summed(costs | found) | facts
        if facts["passes"]:
            # How many there are follows from the spectrum, which is another at each size.
            here["fit_bases_cpu_seconds_a_pass"] = here["fit_bases_cpu_seconds"] / facts["passes"]
        result |= {prefix + name: value for name, value in here.items()}
    if args.batches and (n, N) == (max(args.subjects), max(args.voxels)):
        result["incremental"] = incremental_runs(folder, images, n, result, args)
        for name in ("seconds_over_representation", "cpu_over_representation"):
            result[f"fastest_incremental_{name}"] = min(of[name] for of in result["incremental"])
    for path in (*images, subjects):
        path.unlink()
    return result


def summed(costs: dict[str, Cost]) -> dict:
    """Return the costs of stages by name, and their sums."""
    result: dict = {"stages": [stage for stage in ALL_STAGES if stage in costs]}
    for stage in result["stages"]:
        result[f"{stage}_seconds"] = costs[stage].seconds
        result[f"{stage}_cpu_seconds"] = costs[stage].cpu_seconds
        result[f"{stage}_memory_mib"] = costs[stage].memory
    for prefix, stages in (("", result["stages"]), ("representation_", REPRESENTATION)):
        result[f"{prefix}seconds"] = sum(costs[stage].seconds for stage in stages)
        result[f"{prefix}cpu_seconds"] = sum(costs[stage].cpu_seconds for stage in stages)
    result["peak_memory_mib"] = max(cost.memory for cost in costs.values())
    return result


def read_files(
    folder: Path, subjects: Path, n: int, N: int, args: argparse.Namespace
) -> tuple[list[Path], dict[str, Cost]]:
    """Write NIfTI files, a few at a time, and read each; then select the sample of all."""
    import nibabel

    simulated = Simulated(n, N, args.spectrum)
    geometry, ids = simulated.geometry, simulated.ids
    mask, covariates = folder / "mask.nii", folder / "covariates.tsv"
    inside = np.zeros(geometry.shape, dtype=np.uint8)
    inside[tuple(geometry.index.T)] = 1
    nibabel.save(nibabel.Nifti1Image(inside, geometry.affine), mask)
    ages = np.random.default_rng(2).normal(60, 8, n)
    rows = (f"{subject}\t{age:.3f}\n" for subject, age in zip(ids, ages, strict=True))
    covariates.write_text("subject\tage\n" + "".join(rows))

    rows_of = (row for _, block in simulated.blocks() for row in block)
    suffix = ".nii.gz" if args.compressed else ".nii"
    images: list[Path] = []
    waiting: list[tuple[Path, Path, Path]] = []
    cost = Cost()
    for first in range(0, n, args.file_subjects):
        here = ids[first : first + args.file_subjects]
        number = len(images)
        path, listed = folder / f"volumes{number:04d}{suffix}", folder / f"ids{number:04d}.txt"
        listed.write_text("".join(f"{subject}\n" for subject in here))
        write_volumes(path, rows_of, len(here), geometry)
        images.append(folder / f"images{number:04d}.h5")
        waiting.append((path, listed, images[-1]))
        # The files are there only as long as they are read: the box holds more than the mask.
        if len(waiting) == args.threads or first + len(here) == n:
            commands = [
                ["--images", path, "--subjects", listed, "--share", "1/1", "--mask", mask]
                + ["--out", out, "--threads", 1]
                for path, listed, out in waiting
            ]
            cost = cost.then(run_together("read_images", commands))
            for path, listed, _ in waiting:
                path.unlink()
                listed.unlink()
            waiting = []
    costs = {"read_images": cost}
    tell({"stage": "read_images", "n": n, "voxels": N} | vars(cost))
    costs["select_subjects"] = run(
        "select_subjects",
        *("--images", *images, "--covariates", covariates, "--out", subjects),
        *("--threads", args.threads),
    )
    tell({"stage": "select_subjects", "n": n, "voxels": N} | vars(costs["select_subjects"]))
    return images, costs


def represent(
    folder: Path, images: list[Path], subjects: Path, bandwidth: str, args: argparse.Namespace
) -> tuple[dict[str, Cost], dict]:
    """Return the costs of FIT_BASES, PROJECT_IMAGES and MAKE_LDRS, and how exact the bases are."""
    bases, summary = folder / "bases.h5", folder / "fit_bases.json"
    costs = {}
    costs["fit_bases"] = run(
        "fit_bases",
        *("--images", *images, "--subjects", subjects, "--threads", args.threads),
        *("--bandwidth", bandwidth, "--components", args.components),
        *("--out", bases, "--summary", summary),
    )
    scores = [path.with_name(f"scores_{path.name}") for path in images]
    threads = args.threads if len(images) == 1 else 1
    commands = [
        ["--images", path, "--subjects", subjects, "--bases", bases, "--out", out]
        + ["--threads", threads]
        for path, out in zip(images, scores, strict=True)
    ]
    cost = Cost()
    for first in range(0, len(commands), args.threads):
        cost = cost.then(run_together("project_images", commands[first : first + args.threads]))
    costs["project_images"] = cost
    costs["make_ldrs"] = run(
        "make_ldrs",
        *("--scores", *scores, "--subjects", subjects, "--threads", args.threads),
        *("--bases", bases, "--out", folder / "ldrs.h5", "--table", folder / "ldrs.tsv"),
    )
    for path in scores:
        path.unlink()
    for stage, of in costs.items():
        tell({"stage": stage, "bandwidth": bandwidth} | vars(of))
    numbers = json.loads(summary.read_text())["numbers"]
    names = ("decomposition", "passes", "subspace_angle", "largest_relative_residual", "n_eff")
    with formats.open_file(bases, "bases") as found:
        eigenvalues = found["eigenvalues"][...]
    r = args.components
    last = eigenvalues[r - 1]
    at = [k for k in SPECTRUM_AT if k <= len(eigenvalues)]
    return costs, {
        "bandwidth": numbers["bandwidth"],
        "share_of_variance": numbers["share_of_variance"],
        "eigenvalues_over_the_last_component": {k: float(eigenvalues[k - 1] / last) for k in at},
        "relative_gap_before_the_last_component": float(eigenvalues[r - 2] / last - 1),
        "n_eff_standard_error": numbers["n_eff_standard_error"],
        **{name: numbers[name] for name in names},
    }


def run(stage: str, *words: object) -> Cost:
    """Run a stage; return its cost."""
    return run_together(stage, [words])


def run_together(stage: str, commands: Sequence[Sequence[object]]) -> Cost:
    """Run several tasks of a stage at a time; return their cost, memory and all."""
    program = [sys.executable, str(BIN / f"rvga_{stage}.py")]
    return _launcher().run([[*program, *map(str, words)] for words in commands])


class Launcher:
    """A small process that starts others: peak memory of a process is at least its parent's."""

    PROGRAM = """
import json, os, subprocess, sys, time
for line in sys.stdin:
    start = time.perf_counter()
    processes = [subprocess.Popen(words, stderr=sys.stderr) for words in json.loads(line)]
    cpu = memory = failed = 0
    for process in processes:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        failed |= process.returncode != 0
        cpu += usage.ru_utime + usage.ru_stime
        memory += usage.ru_maxrss / 1024
    print(json.dumps([failed, time.perf_counter() - start, cpu, memory]), flush=True)
"""

    def __init__(self):
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", self.PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def run(self, commands: Sequence[Sequence[str]]) -> Cost:
        """Run commands at a time; return what they cost."""
        self._log.seek(0)
        self._log.truncate()
        self._process.stdin.write(json.dumps(commands) + "\n")
        self._process.stdin.flush()
        failed, *cost = json.loads(self._process.stdout.readline())
        if failed:
            self._log.seek(0)
            raise SystemExit(f"{commands[0][1]} failed:\n{self._log.read()}")
        return Cost(*cost)


@functools.cache
def _launcher() -> Launcher:
    return Launcher()


# -------------------------------------------------------------------------------------------
# IncrementalPCA
# -------------------------------------------------------------------------------------------


class Rows:
    """The images of several files as the rows of one matrix."""

    def __init__(self, paths: Sequence[Path]):
        self._files = [formats.open_file(path, "images") for path in paths]
        self._ends = np.cumsum([0, *(file["images"].shape[0] for file in self._files)])

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, stop = rows.start, min(rows.stop, int(self._ends[-1]))
        parts = []
        for file, begin, end in zip(self._files, self._ends, self._ends[1:], strict=False):
            if begin < stop and end > first:
                parts.append(file["images"][max(first - begin, 0) : min(stop, end) - begin])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        """Close all files."""
        for file in self._files:
            file.close()


def incremental_runs(
    folder: Path, images: list[Path], n: int, result: dict, args: argparse.Namespace
) -> list[dict]:
    """Return IncrementalPCA's times with every batch size, in ratio to the stages'."""
    with formats.open_file(folder / "bases.h5", "bases") as found:
        ours = found["bases"][...], found["eigenvalues"][: args.components]
    if args.smoothing:
        # The bases there are smoothed; what IncrementalPCA is held against is not.
        represent(folder, images, folder / "subjects.h5", "none", args)
        with formats.open_file(folder / "bases.h5", "bases") as found:
            ours = found["bases"][...], found["eigenvalues"][: args.components]
    runs = []
    for batch in dict.fromkeys([*args.full_incremental, *args.batch]):
        full = batch in args.full_incremental
        found, answer = incremental(
            images, n, batch, args.batches, args.components, args.threads, full
        )
        for over, prefix in (("stages", ""), ("representation", "representation_")):
            found[f"seconds_over_{over}"] = found["seconds"] / result[f"{prefix}seconds"]
            found[f"cpu_over_{over}"] = found["cpu_seconds"] / result[f"{prefix}cpu_seconds"]
        if found["batches_measured"] == found["batches"]:
            found |= differences(answer, ours)
        tell({"incremental": found})
        runs.append(found)
    return runs


def incremental(
    images: Sequence[Path], n: int, batch: int, batches: int, r: int, threads: int, full: bool
) -> tuple[dict, tuple[np.ndarray, np.ndarray]]:
    """Return the time (s) of IncrementalPCA and its projection, from some of its batches or all.

    With it come its components (N, r) and their variances, which are those of all images only
    where it ran in full.
    """
    import threadpoolctl
    from sklearn.decomposition import IncrementalPCA

    model = IncrementalPCA(n_components=r, batch_size=batch, copy=False)
    # A last batch of fewer images than components cannot be taken: it goes with the one before.
    starts = [first for first in range(0, n, batch) if first == 0 or n - first >= r]
    ends = [*starts[1:], n]
    measured = len(starts) if full else min(batches, len(starts))
    fitting, projecting = [], []
    rows = Rows(images)
    with threadpoolctl.threadpool_limits(threads):
        for kind, method in ((fitting, model.partial_fit), (projecting, model.transform)):
            for first, end in list(zip(starts, ends, strict=True))[:measured]:
                start, cpu = time.perf_counter(), time.process_time()
                method(rows[first:end])
                kind.append((time.perf_counter() - start, time.process_time() - cpu))
    rows.close()
    fitting, projecting = np.array(fitting), np.array(projecting)
    total = fitting.sum(axis=0) + projecting.sum(axis=0)
    if measured < len(starts):
        # The first batch has no components to be joined with.
        later = (fitting[1:] if measured > 1 else fitting).mean(axis=0)
        total = total + (len(starts) - measured) * (later + projecting.mean(axis=0))
    variance = model.explained_variance_ * (model.n_samples_seen_ - 1) / model.n_samples_seen_
    return {
        "batch": batch,
        "batches": len(starts),
        "batches_measured": measured,
        "seconds": float(total[0]),
        "cpu_seconds": float(total[1]),
    }, (model.components_.T, variance)


def differences(
    answer: tuple[np.ndarray, np.ndarray], reference: tuple[np.ndarray, np.ndarray]
) -> dict:
    """Return the angles (radians) of components (N, r) to others, and the eigenvalues' error."""
    ours, theirs = (np.linalg.qr(of[0].astype(np.float64))[0] for of in (answer, reference))
    result = {"angle": angle(ours, theirs)}
    for q in (1, 10):
        if q < ours.shape[1]:
            result[f"angle_of_first_{q}"] = angle(ours[:, :q], theirs[:, :q])
    sines = np.linalg.norm(theirs - ours @ (ours.T @ theirs), axis=0)
    result["components_further_than_0.1_from_its_space"] = int((sines > np.sin(0.1)).sum())
    result["eigenvalue_error"] = float(np.abs(answer[1] / reference[1] - 1).max())
    return result


def angle(basis: np.ndarray, other: np.ndarray) -> float:
    """Return the largest angle (radians) between the spaces of two orthonormal bases."""
    sine = np.linalg.norm(basis - other @ (other.T @ basis), 2)
    return float(np.arcsin(min(sine, 1.0)))


def whole_file_bytes(n: int, N: int) -> float:
    """Return the memory that IncrementalPCA needs for n images of N > n voxels in one batch.

    In single precision: the images, LAPACK's copy of them and the right singular vectors
    (n x N each), the left ones (n x n) and four times that to work in.
    """
    return 4.0 * (3 * n * N + 5 * n * n)


def whole_file_batch(folder: Path, n: int, N: int, args: argparse.Namespace) -> dict:
    """Return IncrementalPCA's time with its own default batch, at a size that memory holds."""
    limit = args.memory_limit * 2**30
    scale = min(1.0, np.sqrt(limit / whole_file_bytes(n, N)))
    some, fewer = int(n * scale), int(N * scale)
    images, subjects = folder / "images.h5", folder / "subjects.h5"
    write_study(images, subjects, some, fewer, args.spectrum)
    costs, facts = represent(folder, [images], subjects, "none", args)
    with formats.open_file(folder / "bases.h5", "bases") as found:
        ours = found["bases"][...], found["eigenvalues"][: args.components]
    # A process of its own, so that its peak memory is known.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        given = (images, some, 5 * fewer, args.components, args.threads)
        found, answer, memory = pool.apply(_one_batch, given)
    images.unlink()
    subjects.unlink()
    stages = summed(costs)
    return {
        "incremental_default_batch": found | differences(answer, ours),
        "n": some,
        "voxels": fewer,
        "memory_limit_gib": args.memory_limit,
        "memory_needed_gib": whole_file_bytes(some, fewer) / 2**30,
        "memory_taken_gib": memory / 2**30,
        "memory_needed_gib_at_full_size": whole_file_bytes(n, N) / 2**30,
        "subspace_angle": facts["subspace_angle"],
        "decomposition": facts["decomposition"],
        "representation_seconds": stages["representation_seconds"],
        "representation_cpu_seconds": stages["representation_cpu_seconds"],
        "seconds_over_representation": found["seconds"] / stages["representation_seconds"],
        "cpu_over_representation": found["cpu_seconds"] / stages["representation_cpu_seconds"],
    }


def _one_batch(images: Path, n: int, batch: int, r: int, threads: int):
    """Run IncrementalPCA in full; return its times, its answer and the memory it took (bytes)."""
    before = _memory("VmRSS")
    found, answer = incremental([images], n, batch, 1, r, threads, True)
    return found, answer, _memory("VmHWM") - before


def _memory(name: str) -> int:
    """Return this process's memory (bytes), as the system calls it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


# -------------------------------------------------------------------------------------------
# Exactness
# -------------------------------------------------------------------------------------------


def exactness(folder: Path, args: argparse.Namespace) -> dict:
    """Return how far FIT_BASES and IncrementalPCA are from a dense decomposition, when small."""
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
    reference = centred.T @ U, truth[:r]
    with formats.open_file(bases, "bases") as found:
        answers = {"fit_bases": (found["bases"][...], found["eigenvalues"][:r])}
    for batch in args.batch:
        _, answers[f"incremental_{batch}"] = incremental([images], n, batch, 1, r, 1, True)
    result: dict = {"n": n, "voxels": N, "components": r}
    result["relative_gap"] = float(1 - truth[r] / truth[r - 1])
    for name, answer in answers.items():
        result[name] = differences(answer, reference)
    return result


if __name__ == "__main__":
    main()
