#!/usr/bin/env python3
"""Compare the power of raw voxelwise statistics with that of reconstructed ones.

Both ways test a variant at every voxel by least squares. Power is the share of planted variants
whose largest |z| within the planted region exceeds the critical value, which every way has of
its own, so that the false-positive rate over the image is the same.

The design, fixed before any of its seeds was used:

- *Images*: 1,500 people; 32 x 32 voxels 2 mm apart; a random field of variance 1 plus white noise
  of variance .25, 1 or 4. The field has Gaussian correlations at two scales (SD 12 mm with weight
  .6, 5 mm with weight .4: ``smooth``), or exponential ones (exp(-distance / 8 mm): ``rough``),
  whose spectrum falls slowly.
- *Representation*: as the pipeline makes it: the bandwidth by generalized cross-validation,
  components of the smoothed images that hold .8, .9, .95 or .99 of their variance, raw images
  projected on them. Statistics of the smoothed images by voxel stand beside, to tell what the
  components add to smoothing.
- *Effects*: Gaussian bumps with SD 4, 8 or 12 mm at a random voxel, of either sign; the region is
  what lies within two SD. Each variant is planted alone in the images (its least-squares
  statistics with the effect follow exactly from those without), so that one variant's effect has
  no part in the components, as it has next to none in a study. 400 variants a width.
- *Two error rates*. ``image``: 5 % over the image for one variant, the critical value being the
  .95 quantile of the largest |z| of 2,000 null variants, checked with 2,000 others; the effect
  explains 1.5 % of the field's variance at its peak. ``genome``: image-wide p of 5e-8 by method 4b
  from each way's own covariance; the effect explains 5 %.
- *Replicates*: 16 draws of everything, seeds 101 to 116. (Seed 1 was used while this was written.)
- *What is reported*: for each cell the mean over the draws of each way's power, and of its gain
  over raw in the same draw, with its standard error (SD of the 16 differences / 4). A cell is a
  gain or a loss where the mean is beyond 3 standard errors, else it is even.

Prints one line of JSON for each draw, field and noise, then the table. ``--read`` makes the table
of lines printed before.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))
from rvga import fpca, significance, smoothing

SUBJECTS = 1_500
SIDE = 32
VOXEL_MM = 2.0
NOISE_VARIANCE = (0.25, 1.0, 4.0)
WIDTHS = (4.0, 8.0, 12.0)
SHARES = (0.8, 0.9, 0.95, 0.99)
NULL_VARIANTS = 2_000
PLANTED_VARIANTS = 400
EXPLAINED = {"image": 0.015, "genome": 0.05}
IMAGE_LEVEL, GENOME_LEVEL = 0.05, 5e-8
TAIL_DRAWS = 4_000
WAYS = ("smoothed", *(f"{share:g}" for share in SHARES))
SEEDS = tuple(range(101, 117))
LIMIT = 3.0
BLOCK = 500


def main() -> None:
    """Run the comparison, or make the table of an earlier run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--read", type=Path, help="lines printed before")
    args = parser.parse_args()
    lines = []
    if args.read:
        text = args.read.read_text().splitlines()
        lines = [json.loads(line) for line in text if line.startswith("{")]
    else:
        with threadpool_limits(1):
            for seed in args.seeds:
                for field in ("smooth", "rough"):
                    for noise in NOISE_VARIANCE:
                        lines.append(compare(field, noise, seed))
                        print(json.dumps(lines[-1], sort_keys=True), flush=True)
    print(table(lines))


def compare(field: str, noise: float, seed: int) -> dict:
    """Return the power of every way, width and error rate in one draw."""
    rng = np.random.default_rng([seed, ("smooth", "rough").index(field), round(100 * noise)])
    places = np.indices((SIDE, SIDE)).reshape(2, -1).T * VOXEL_MM
    N, n = len(places), SUBJECTS
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    values, vectors = np.linalg.eigh(covariance_of(field, apart))
    root = vectors * np.sqrt(np.maximum(values, 0))
    images = rng.normal(size=(n, N)) @ root.T + np.sqrt(noise) * rng.normal(size=(n, N))
    images -= images.mean(axis=0)

    bandwidth = smoothing.choose_bandwidth(places, lambda: iter([images])).bandwidth
    weights = smoothing.smoothing_weights(places, bandwidth) if bandwidth else None
    smoothed = smoothing.smooth(images, weights)
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "raw": lambda rows: rows,
        "smoothed": lambda rows: smoothing.smooth(rows, weights),
    }
    components = {}
    for share in SHARES:
        found = fpca.principal_components(smoothed, share=share)
        ways[f"{share:g}"] = partial(reconstructed, bases=found.bases)
        components[f"{share:g}"] = found.bases.shape[1]

    null = [genotypes(rng, NULL_VARIANTS) for _ in range(2)]
    planted = {}
    for width in WIDTHS:
        centres = rng.integers(0, N, PLANTED_VARIANTS)
        bump = np.exp(-0.5 * (apart[centres] / width) ** 2)
        signed = bump * rng.choice([-1.0, 1.0], PLANTED_VARIANTS)[:, None]
        planted[width] = (genotypes(rng, PLANTED_VARIANTS), signed, apart[centres] <= 2 * width)

    result = {
        "seed": seed, "field": field, "noise_variance": noise, "bandwidth_mm": bandwidth,
        "components": components, "critical_t": {}, "false_positive_rate": {}, "power": {},
    }  # fmt: skip
    for name, way in ways.items():
        Y = way(images)
        norms = np.linalg.norm(Y, axis=0)
        largest = [largest_z(G, Y / norms, n) for G in null]
        # The voxels themselves as components: the covariance may be of low rank.
        values, vectors = np.linalg.eigh(Y.T @ Y / n)
        kept = values > 1e-12 * values[-1]
        tail = significance.image_wide_tail(
            vectors[:, kept], np.diag(values[kept]), n_eff=1.0,
            significance_level=GENOME_LEVEL, draws=TAIL_DRAWS, seed=seed,
        )  # fmt: skip
        critical = {
            "image": float(np.quantile(largest[0], 1 - IMAGE_LEVEL)),
            "genome": significance.normal_to_t(tail.critical_z_image_wide, n - 2),
        }
        result["critical_t"][name] = critical
        result["false_positive_rate"][name] = float((largest[1] > critical["image"]).mean())
        for width, (G, bump, region) in planted.items():
            seen = way(bump)
            for rate, explained in EXPLAINED.items():
                z = planted_z(G.T @ Y, norms, np.sqrt(n * explained) * seen, n)
                found = np.where(region, np.abs(z), 0).max(axis=1) > critical[rate]
                result["power"][f"{name}/{rate}/{width:g}"] = float(found.mean())
    return result


def reconstructed(rows: np.ndarray, bases: np.ndarray) -> np.ndarray:
    """Return images projected on the components."""
    return (rows @ bases) @ bases.T


def covariance_of(field: str, apart: np.ndarray) -> np.ndarray:
    """Return the covariance of the field by distance, of variance 1."""
    if field == "rough":
        return np.exp(-apart / 8)
    return 0.6 * np.exp(-0.5 * (apart / 12) ** 2) + 0.4 * np.exp(-0.5 * (apart / 5) ** 2)


def genotypes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return centred dosages (n, count) of length 1."""
    dosage = rng.binomial(2, rng.uniform(0.1, 0.5, count), (SUBJECTS, count)).astype(float)
    dosage -= dosage.mean(axis=0)
    return dosage / np.linalg.norm(dosage, axis=0)


def largest_z(G: np.ndarray, Y: np.ndarray, n: int) -> np.ndarray:
    """Return the largest |t| over the image of each variant, columns of length 1."""
    found = []
    for first in range(0, G.shape[1], BLOCK):
        correlation = G[:, first : first + BLOCK].T @ Y
        found.append(np.abs(t_of(correlation, n)).max(axis=1))
    return np.concatenate(found)


def planted_z(products: np.ndarray, norms: np.ndarray, effects: np.ndarray, n: int) -> np.ndarray:
    """Return t (m, N) of least squares on images to which variant j's effect alone is added.

    With g of length 1, y + g e has the product g'y + e with g, and the squared length
    |y|^2 + 2 e g'y + e^2.
    """
    length = np.sqrt(norms**2 + 2 * effects * products + effects**2)
    return t_of((products + effects) / length, n)


def t_of(correlation: np.ndarray, n: int) -> np.ndarray:
    """Return t statistics of least squares with an intercept."""
    return correlation * np.sqrt((n - 2) / (1 - correlation**2))


def table(lines: list[dict]) -> str:
    """Return the means over draws as a table in Markdown."""
    heads = ["smoothed", *(f"at {share:g}" for share in SHARES)]
    rows = [
        "| rate | field | width | noise | raw | " + " | ".join(heads) + " |",
        "|" + "---|" * (5 + len(heads)),
    ]
    cells = [(rate, field, width) for rate in EXPLAINED for field in ("smooth", "rough")
             for width in WIDTHS]  # fmt: skip
    verdicts: dict[str, list[int]] = {}
    for rate, field, width in cells:
        for noise in NOISE_VARIANCE:
            of = [
                line for line in lines if (line["field"], line["noise_variance"]) == (field, noise)
            ]
            raw = np.array([line["power"][f"raw/{rate}/{width:g}"] for line in of])
            shown = [f"{rate}", field, f"{width:g} mm", f"{noise:g}", f"{raw.mean():.2f}"]
            for way in WAYS:
                key = f"{way}/{rate}/{width:g}"
                gain = np.array([line["power"][key] for line in of]) - raw
                error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
                shown.append(f"{gain.mean():+.3f} ({error:.3f})")
                sign = int(np.sign(gain.mean())) if abs(gain.mean()) > LIMIT * error else 0
                verdicts.setdefault(f"{rate}, {way}", []).append(sign)
            rows.append("| " + " | ".join(shown) + " |")
    rows.append("")
    for name, signs in verdicts.items():
        counts = [signs.count(sign) for sign in (1, 0, -1)]
        rows.append(f"{name}: gain in {counts[0]}, even in {counts[1]}, loss in {counts[2]}")
    rows.append("")
    for field in ("smooth", "rough"):
        for noise in NOISE_VARIANCE:
            of = [
                line for line in lines if (line["field"], line["noise_variance"]) == (field, noise)
            ]
            means = {
                f"{share:g}": np.mean([line["components"][f"{share:g}"] for line in of])
                for share in SHARES
            }
            critical = {
                rate: {way: round(float(np.mean([line["critical_t"][way][rate] for line in of])), 2)
                       for way in of[0]["critical_t"]}
                for rate in EXPLAINED
            }  # fmt: skip
            rate = {way: round(float(np.mean([line["false_positive_rate"][way] for line in of])), 3)
                    for way in of[0]["critical_t"]}  # fmt: skip
            widths = np.mean([line["bandwidth_mm"] or 0 for line in of])
            rows.append(
                f"{field}, noise {noise:g}: bandwidth {widths:.2f} mm, components "
                f"{ {k: round(float(v), 1) for k, v in means.items()} }, critical t {critical}, "
                f"false-positive rate {rate}"
            )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
