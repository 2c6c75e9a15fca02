#!/usr/bin/env python3
"""Measure heritability and genetic correlation at the size of a genome; one line of JSON each.

Blocks are of the size that 1.1 million variants in 1,700 blocks have; a slice of them is made and
measured (every block the same numbers, which the time does not depend on), and seconds are given
for the slice and for all of them.

- ``pass``: the pass over the two open files, which gives all sums that the estimate and its errors
  are made of, against a plain read of the same bytes of the same files (of M, of the products that
  are stored with it, and of the effects; where variants are missing, of the correlations too), both
  from disk (nothing of them in memory) and from memory, for each share of variants that the study
  lacks;
- ``jackknife``: the estimate and h² of every voxel with delete-a-block errors, over the same with
  closed forms;
- ``matrix``: genetic correlation of every voxel with every voxel and its error, written to a file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import threadpoolctl

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))
import rvga_heritability
from rvga import formats, genetic_covariance, ld
from rvga.dataset import MinimalDataset
from rvga.genetic_covariance import GeneticCovariance
from rvga.geometry import Geometry, add_geometry
from rvga.heritability import correlation_in_range
from rvga.ld_products import block_products
from rvga.ld_reference import BlockWriter, LdReference

ALL_VARIANTS, ALL_BLOCKS = 1_100_000, 1_700
PEOPLE = 1_500


def main() -> None:
    """Run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=200)
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--voxels", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=2_048, help="rows of the matrix that are made")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--missing", type=float, nargs="+", default=[0.0, 0.02, 0.1])
    args = parser.parse_args()
    size = ALL_VARIANTS // ALL_BLOCKS
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name, threadpoolctl.threadpool_limits(1):
        folder = Path(name)
        rank = write_reference(folder / "panel.ld.h5", size, args.blocks, rng)
        write_dataset(folder / "study.rvga.h5", size * args.blocks, args, rng)
        common = {
            "blocks": args.blocks, "variants_in_block": size, "columns_of_M": rank,
            "components": args.components, "voxels": args.voxels, "threads": args.threads,
        }  # fmt: skip
        make_covariance(folder, args)
        for missing in args.missing:
            found = measure_pass(folder, args, missing)
            print(json.dumps({"measure": "pass", **common, **found}, sort_keys=True), flush=True)
        found = measure_jackknife(folder, args)
        print(json.dumps({"measure": "jackknife", **common, **found}, sort_keys=True), flush=True)
        found = measure_matrix(folder, args)
        print(json.dumps({"measure": "matrix", **common, **found}, sort_keys=True), flush=True)


def write_reference(path: Path, size: int, blocks: int, rng: np.random.Generator) -> int:
    """Write a reference of equal blocks made from panels; return the columns of M of each."""
    latent = rng.normal(size=(3, size, PEOPLE))
    decay = rng.uniform(0.85, 0.995, size)
    for k in range(1, size):
        latent[:, k] = decay[k] * latent[:, k - 1] + np.sqrt(1 - decay[k] ** 2) * latent[:, k]
    panels = [ld.standardise(one) for one in latent]
    K = np.zeros((panels[0].shape[1], panels[1].shape[1]))
    ld.accumulate_kinship(K, panels[0], panels[1])
    G_1 = ld.standardise(np.concatenate(latent[:2], axis=1))
    block = ld.make_block(*panels, K, 0.98, G_1)
    m = size * blocks
    attributes = {"n_a": PEOPLE, "n_b": PEOPLE, "n_2": PEOPLE, "ld_share": 0.98, "counts": {}}
    with formats.create(path, "ld", attributes) as writer:
        target = BlockWriter(writer)
        products = block_products(block, PEOPLE, PEOPLE)
        for _ in range(blocks):
            target.add(block, *products, 1)
        target.finish()
        writer.add("error_traces", np.ones((1, 4)))
        for name, values in variants(m).items():
            writer.add(f"variants/{name}", values)
    return block.M.shape[1]


def variants(m: int) -> dict[str, object]:
    """Return the columns of a table of ``m`` variants of one chromosome."""
    return {
        "chromosome": np.ones(m), "base_pair_location": np.arange(1, m + 1) * 200,
        "variant_id": [f"rs{k}" for k in range(m)], "effect_allele": ["A"] * m,
        "other_allele": ["G"] * m, "effect_allele_frequency": np.full(m, 0.3),
    }  # fmt: skip


def write_dataset(path: Path, m: int, args, rng: np.random.Generator) -> None:
    """Write a minimal dataset with scores of noise, some heritability everywhere."""
    r, n = args.components, 30_000
    z = rng.normal(size=(m, r)) + rng.normal(size=(m, 1))
    side = int(np.ceil(args.voxels ** (1 / 3)))
    index = np.argwhere(np.ones((side, side, side)))[: args.voxels].astype(np.int32)
    geometry = Geometry(np.diag([2.0, 2.0, 2.0, 1.0]), (side, side, side), index)
    attributes = {
        "n": n, "p": 16, "coding": "float32", "n_eff": float(r), "genome_build": "GRCh38",
        "sample_hash": "0" * 16, "minor_allele_count": 20, "geometry_type": "nifti",
        "counts": {},
    }  # fmt: skip
    Sigma = np.diag(np.linspace(3, 0.5, r))
    with formats.create(path, "minimal", attributes, inputs={"bases": "0" * 64}) as writer:
        for name, values in {
            "z": z.astype(np.float32), "scale": np.ones(m), "a": np.full(m, 0.42 * n),
            "A": Sigma[None] * n, "A_index": np.zeros(m), "Sigma": Sigma,
            "bases": np.linalg.qr(rng.normal(size=(args.voxels, r)))[0],
            "eigenvalues": np.linspace(9, 1, r), "coordinates": geometry.coordinates,
            "variants/missing_rate": np.zeros(m),
            **{f"variants/{key}": column for key, column in variants(m).items()},
        }.items():  # fmt: skip
            writer.add(name, values)
        add_geometry(writer, geometry)


# Of the reference, what a study with all of its variants needs, and what one without some does.
OF_REFERENCE = (
    "M", "H", "share", "t_1", "t_2", "t_1_ratio", "t_4", "band_t_4", "class_trace", "ld_score",
)  # fmt: skip
OF_MISSING = ("H_difference", "R_a", "R_b", "T")
OF_STUDY = ("z", "scale", "a", "A_index")
Pieces = list[tuple[Path, list[tuple[int, int]]]]


def pieces_of(path: Path, names: tuple[str, ...]) -> list[tuple[int, int]]:
    """Return first byte and length of the stored parts of some datasets, neighbours merged."""
    pieces = []
    with h5py.File(path) as file:
        for name in names:
            stored = file[name].id
            chunks = [stored.get_chunk_info(k) for k in range(stored.get_num_chunks())]
            pieces += [(chunk.byte_offset, chunk.size) for chunk in chunks]
    merged: list[tuple[int, int]] = []
    for first, size in sorted(pieces):
        if merged and sum(merged[-1]) == first:
            merged[-1] = (merged[-1][0], merged[-1][1] + size)
        else:
            merged.append((first, size))
    return merged


def forget(pieces: Pieces) -> None:
    """Take files' bytes out of memory, so that the next reader takes them from disk."""
    for path, _ in pieces:
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_plainly(pieces: Pieces) -> None:
    """Read the parts of the files one after another."""
    memory = memoryview(bytearray(1 << 22))
    for path, parts in pieces:
        with path.open("rb", buffering=0) as handle:
            for first, size in parts:
                handle.seek(first)
                while size > 0:
                    size -= handle.readinto(memory[: min(size, len(memory))])


def best(work, repeats: int, before=lambda: None) -> tuple[float, float]:
    """Return the least wall and processor seconds of some runs."""
    wall, processor = [], []
    for _ in range(repeats):
        before()
        start, cpu = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - cpu)
    return min(wall), min(processor)


def stage_options(folder: Path, args) -> argparse.Namespace:
    """Return the options of the HERITABILITY stage, its defaults but for files and threads."""
    outs = [
        (f"--out{name}", "unused")
        for name in ("", "-map", "-regions", "-intercepts", "-correlation")
    ]
    return rvga_heritability.parser().parse_args(
        [
            "--dataset", str(folder / "study.rvga.h5"),
            "--ld-reference", str(folder / "panel.ld.h5"), "--threads", str(args.threads),
            "--out-covariance", str(folder / "genetic_covariance.h5"), *itertools.chain(*outs),
        ]
    )  # fmt: skip


def make_covariance(folder: Path, args) -> None:
    """Run the stage as far as ``genetic_covariance.h5``, which the other measurements take."""
    options = stage_options(folder, args)
    silent(lambda: rvga_heritability.write_covariance(options, None, {}))


def measure_pass(folder: Path, args, missing: float) -> dict[str, float]:
    """Return rates of the pass and of a plain read."""
    method = stage_options(folder, args).heritability_method
    reference_path, study_path = folder / "panel.ld.h5", folder / "study.rvga.h5"
    names = OF_REFERENCE + OF_MISSING * (missing > 0)
    pieces = [
        (reference_path, pieces_of(reference_path, names)),
        (study_path, pieces_of(study_path, OF_STUDY)),
    ]
    number = sum(size for _, parts in pieces for _, size in parts)

    def work() -> None:
        with (
            MinimalDataset.open(study_path) as dataset,
            LdReference.open(reference_path) as reference,
        ):
            match = genetic_covariance.match_dataset(dataset, reference)
            gone = np.random.default_rng(2).permutation(reference.m)
            match.row[gone[: round(missing * reference.m)]] = -1
            if not in_memory:
                forget(pieces)
            start, cpu = time.perf_counter(), time.process_time()
            genetic_covariance.sum_over_blocks(
                dataset, reference, match, method=method, workers=args.threads
            )
            seconds.append((time.perf_counter() - start, time.process_time() - cpu))

    result, cpu = {"missing": missing, "method": method}, []
    for in_memory in (False, True):
        where = "memory" if in_memory else "disk"
        seconds: list[tuple[float, float]] = []
        best(work, args.repeats + in_memory)
        wall, processor = (min(each) for each in zip(*seconds, strict=True))
        cpu.append(processor)
        before = (lambda: None) if in_memory else (lambda: forget(pieces))
        plain, _ = best(lambda: read_plainly(pieces), args.repeats, before)
        result |= {
            f"{where}_megabytes_per_second": number / wall / 1e6,
            f"{where}_plain_megabytes_per_second": number / plain / 1e6,
            f"{where}_over_plain": plain / wall,
            f"{where}_seconds_of_all_blocks": wall * ALL_BLOCKS / args.blocks,
        }
    result["processor_seconds_of_all_blocks"] = min(cpu) * ALL_BLOCKS / args.blocks
    # What is left where nothing else runs and both processors are always at work.
    result["processor_megabytes_per_second"] = number * args.threads / min(cpu) / 1e6
    result["megabytes_of_all_blocks"] = number / 1e6 * ALL_BLOCKS / args.blocks
    of_file = reference_path.stat().st_size / 1e6
    result["megabytes_of_reference"] = of_file * ALL_BLOCKS / args.blocks
    return result


def measure_jackknife(folder: Path, args) -> dict[str, float]:
    """Return what delete-a-block errors of h² of all voxels cost over closed forms."""
    options = stage_options(folder, args)

    def work() -> None:
        with (
            MinimalDataset.open(options.dataset) as dataset,
            LdReference.open(options.ld_reference) as reference,
        ):
            genetic_covariance.estimate_covariance(
                dataset, reference, genetic_covariance.match_dataset(dataset, reference),
                method=options.heritability_method, fixed_intercept=True, workers=args.threads,
            )  # fmt: skip

    estimate = best(work, args.repeats)[1]
    with GeneticCovariance.open(folder / "genetic_covariance.h5") as covariance:
        groups = len(covariance.left_out)
        closed = best(lambda: covariance.heritability(), args.repeats)[1]
        both = best(lambda: covariance.heritability(se_method="jackknife"), args.repeats)[1]
    # A slice makes the estimate cheap, and its groups, of two blocks at least, are fewer.
    all_groups = genetic_covariance.JACKKNIFE_GROUPS
    all_blocks = estimate * ALL_BLOCKS / args.blocks
    more = (both - closed) * all_groups / groups
    return {
        "groups": groups,
        "estimate_processor_seconds": estimate + closed,
        "with_jackknife_processor_seconds": estimate + both,
        "with_jackknife_over_estimate": (estimate + both) / (estimate + closed),
        "groups_of_all_blocks": all_groups,
        "with_jackknife_over_estimate_of_all_blocks": 1 + more / (all_blocks + closed),
    }


def measure_matrix(folder: Path, args) -> dict[str, float]:
    """Return seconds for some rows of the matrix of all voxels, written, and for all rows."""
    block = rvga_heritability.ROWS
    number = max(min(args.rows, args.voxels) // block, 1)

    def work() -> None:
        with (
            GeneticCovariance.open(folder / "genetic_covariance.h5") as covariance,
            h5py.File(folder / "matrix.h5", "w") as file,
        ):
            shape = (number * block, covariance.N)
            targets = [
                file.create_dataset(
                    name, shape, np.float32, chunks=(block, covariance.N), fletcher32=True
                )
                for name in ("genetic_correlation", "standard_error")
            ]
            rows = itertools.islice(covariance.matrix(block, workers=args.threads), number)
            for first, stop, rho, error in rows:
                shown = correlation_in_range(rho, error)
                rho[~shown], error[~shown] = np.nan, np.nan
                targets[0][first:stop], targets[1][first:stop] = rho, error

    wall, processor = best(work, args.repeats)
    share = args.voxels / (number * block)
    return {
        "rows": number * block,
        "seconds_of_all_rows": wall * share,
        "processor_seconds_of_all_rows": processor * share,
        "seconds_of_all_rows_over_2_minutes": wall * share / 120,
    }


def silent(work) -> None:
    """Run without the notes on standard error."""
    with open(os.devnull, "w") as nowhere:
        kept, sys.stderr = sys.stderr, nowhere
        try:
            work()
        finally:
            sys.stderr = kept


if __name__ == "__main__":
    main()
