#!/usr/bin/env python3
"""Is the image-wide p calibrated? The share of null variants below it, over many studies.

Each study has its own people, smooth images on a brain-like grid, components (80 % of the
variance), covariates and independent variants that do nothing. Effects are least squares, and
what follows is the pipeline's own: the tail of method 4b, the scan of every voxel with t
statistics of ν degrees of freedom, and the image-wide p of the largest. Beside it the same share
for the published rule, p of one voxel below level / N_eff.

Prints one line of JSON. ``inside`` tells whether the number of variants lies within the 99 %
interval of the binomial law with the level as its probability.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import threadpoolctl
from scipy import ndimage, stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))
from rvga import scan, significance
from rvga.parallel import ordered_map

LEVELS = (1e-1, 1e-2, 1e-3, 1e-4)
BLOCK = 1024
SHARE = 0.8
COVARIATES = 5


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--variants", type=int, default=60_000, help="in each study")
    parser.add_argument("--subjects", type=int, default=1500)
    parser.add_argument("--side", type=int, default=16, help="grid cells along an axis")
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    start = time.perf_counter()
    beyond = {"image_wide": np.zeros(len(LEVELS), int), "published": np.zeros(len(LEVELS), int)}
    shapes = []
    with threadpoolctl.threadpool_limits(1):
        for seed in np.random.SeedSequence(args.seed).spawn(args.studies):
            counts, shape = study(np.random.default_rng(seed), args)
            shapes.append(shape)
            for rule, number in counts.items():
                beyond[rule] += number
    total = args.studies * args.variants
    voxels, components, n_eff = (np.array(column) for column in zip(*shapes, strict=True))
    result = {name: getattr(args, name) for name in vars(args)}
    result |= {
        "null_variants": total,
        "voxels": int(np.median(voxels)),
        "components": int(np.median(components)),
        "n_eff": float(np.median(n_eff)),
        "seconds": time.perf_counter() - start,
        **{rule: shares(number, total) for rule, number in beyond.items()},
    }
    print(json.dumps(result, sort_keys=True))


def shares(number: np.ndarray, total: int) -> list[dict]:
    """Return the number and share of variants at each level, and the 99 % interval."""
    rows = []
    for level, found in zip(LEVELS, number.tolist(), strict=True):
        low, high = stats.binom.interval(0.99, total, level)
        rows.append(
            {
                "level": level,
                "number": found,
                "share": found / total,
                "share_over_level": found / total / level,
                "interval": [int(low), int(high)],
                "inside": bool(low <= found <= high),
            }
        )
    return rows


def study(rng: np.random.Generator, args) -> tuple[dict[str, np.ndarray], tuple]:
    """Return the variants beyond each level by either rule, and (N, r, N_eff), of one study."""
    images = smooth_images(args.subjects, args.side, rng)
    bases, n_eff = components_of(images)
    C = np.column_stack([np.ones(args.subjects), rng.normal(size=(args.subjects, COVARIATES - 1))])
    Q = np.linalg.qr(C)[0]
    S = images @ bases
    S -= Q @ (Q.T @ S)
    A = S.T @ S
    nu = args.subjects - COVARIATES - 1
    tail = significance.image_wide_tail(
        bases, A / args.subjects, n_eff=n_eff, draws=args.draws, threads=args.threads,
        seed=int(rng.integers(1 << 30)),
    )  # fmt: skip
    critical = significance.normal_to_t(tail.critical_z, nu)
    scanner = scan.prepare(bases, A[None], nu, critical)
    firsts = range(0, args.variants, BLOCK)
    seeds = rng.spawn(len(firsts))

    def work(block: int) -> np.ndarray:
        m = min(BLOCK, args.variants - firsts[block])
        beta, a = least_squares(genotypes(m, args.subjects, seeds[block]), S, Q)
        found = scan.scan_block(scanner, beta, a, np.zeros(m, dtype=np.int64))
        return significance.t_to_normal(found.z, nu)

    z = np.abs(np.concatenate(list(ordered_map(work, range(len(firsts)), args.threads))))
    p = significance.image_wide_neg_log_10_p(z, tail)
    levels = np.array(LEVELS)
    of_voxel = [significance.published_critical_z(n_eff, level) for level in LEVELS]
    counts = {
        "image_wide": (p[:, None] > -np.log10(levels)).sum(axis=0),
        "published": (z[:, None] > of_voxel).sum(axis=0),
    }
    return counts, (len(bases), bases.shape[1], n_eff)


def smooth_images(n: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Return n centred images of smooth fields inside a ball, some of it white noise."""
    place = (np.indices((side, side, side)) - (side - 1) / 2) / (side / 2)
    inside = (place**2).sum(axis=0) < 1.0
    images = np.empty((n, int(inside.sum())))
    for row in range(n):
        white = rng.normal(size=(side, side, side))
        rough = ndimage.gaussian_filter(white, 1.2)[inside]
        smooth = ndimage.gaussian_filter(white[::-1], 2.5)[inside]
        images[row] = rough / rough.std() + 1.5 * smooth / smooth.std()
    images += 0.3 * rng.normal(size=images.shape)
    return images - images.mean(axis=0)


def components_of(images: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the bases that hold 80 % of the variance, and N_eff."""
    gram = images @ images.T if len(images) < images.shape[1] else images.T @ images
    values, vectors = np.linalg.eigh(gram)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    r = int(np.searchsorted(np.cumsum(values), SHARE * values.sum())) + 1
    bases = vectors[:, :r]
    if len(images) < images.shape[1]:
        bases = images.T @ bases / np.sqrt(values[:r])
    return bases, float(values.sum() ** 2 / (values**2).sum())


def genotypes(m: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return centred dosages (m, n) of independent variants of frequency .05 to .5."""
    frequency = rng.uniform(0.05, 0.5, (m, 1)).astype(np.float32)
    dosages = (rng.random((m, n), dtype=np.float32) < frequency).astype(np.float32)
    dosages += rng.random((m, n), dtype=np.float32) < frequency
    return dosages - dosages.mean(axis=1, keepdims=True)


def least_squares(g: np.ndarray, S: np.ndarray, Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return effects (m, r) and gᵀPg (m,) of dosages on LDRs without the covariates."""
    a = np.einsum("mn,mn->m", g, g, dtype=np.float64)
    a -= np.square((g @ Q.astype(np.float32)).astype(np.float64)).sum(axis=1)
    return (g @ S.astype(np.float32)).astype(np.float64) / a[:, None], a


if __name__ == "__main__":
    main()
