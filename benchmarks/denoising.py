#!/usr/bin/env python3
"""Compare the power of raw voxelwise statistics with that of reconstructed ones.

Simulated images: a smooth field with the spectrum of a brain phenotype, planted local effects of
variants, and white noise at three levels. Both ways test every variant at every voxel by least
squares. The critical value of each is its own: the largest |z| over the image exceeds it in
``--level`` of the null variants, so that the false-positive rate over the image is the same.
Power is the share of planted variants whose largest |z| within the planted region exceeds it.
Prints one line of JSON for each width of the effects and noise level.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))
from rvga import fpca, smoothing

NOISE = (0.5, 1.0, 2.0)
SIDE = 24
WIDTHS = (4.0, 8.0)
BLOCK = 250


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=1_500)
    parser.add_argument("--null-variants", type=int, default=3_000)
    parser.add_argument("--planted-variants", type=int, default=200)
    # Share of the field's variance that a variant explains at its peak.
    parser.add_argument("--explained", type=float, default=0.015)
    parser.add_argument("--level", type=float, default=0.05)
    parser.add_argument("--components-variance", type=float, nargs="+", default=[0.8, 0.95])
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for width in WIDTHS:
        for noise in NOISE:
            print(json.dumps(compare(noise, width, args), sort_keys=True), flush=True)


def compare(noise: float, width: float, args: argparse.Namespace) -> dict:
    """Return power and false-positive rates of both ways at one noise level."""
    rng = np.random.default_rng(args.seed)
    places = np.indices((SIDE, SIDE)).reshape(2, -1).T * 2.0
    N = len(places)
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    # Two scales of smoothness, variance one.
    covariance = 0.6 * np.exp(-0.5 * (apart / 12) ** 2) + 0.4 * np.exp(-0.5 * (apart / 5) ** 2)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))

    n = args.subjects
    m = args.planted_variants
    planted = rng.binomial(2, rng.uniform(0.1, 0.5, m), (n, m))
    G = standardized(planted.astype(float))
    centres = rng.integers(0, N, args.planted_variants)
    bump = np.exp(-0.5 * (apart[centres] / width) ** 2)
    effects = np.sqrt(args.explained) * bump * rng.choice([-1, 1], args.planted_variants)[:, None]
    field = rng.normal(size=(n, N)) @ root.T + np.sqrt(n) * (G @ effects)
    images = field + noise * rng.normal(size=(n, N))

    choice = smoothing.choose_bandwidth(places, lambda: iter([images]), workers=2)
    weights = smoothing.smoothing_weights(places, choice.bandwidth, workers=2)
    smoothed = smoothing.smooth(images - images.mean(axis=0), weights)
    ways = {"raw": images}
    result: dict = {
        "effect_width_mm": width,
        "noise_over_signal_variance": noise**2,
        "subjects": n,
        "voxels": N,
        "bandwidth": choice.bandwidth,
        "level": args.level,
        "explained_at_peak": args.explained,
    }
    for share in args.components_variance:
        bases = fpca.principal_components(smoothed, share=share).bases
        ways[f"reconstructed_{share:g}"] = (images @ bases) @ bases.T
        result[f"reconstructed_{share:g}_components"] = bases.shape[1]
    regions = apart[centres] <= 2 * width
    for name, phenotype in ways.items():
        Y = standardized(phenotype)
        largest = []
        # The same null variants for both: half for the critical value, half to check it.
        null_rng = np.random.default_rng(args.seed + 1)
        for first in range(0, args.null_variants, BLOCK):
            count = min(BLOCK, args.null_variants - first)
            frequency = null_rng.uniform(0.1, 0.5, count)
            null = null_rng.binomial(2, frequency, (n, count)).astype(float)
            largest.append(np.abs(z_values(standardized(null), Y)).max(axis=1))
        null_largest = np.concatenate(largest)
        half = len(null_largest) // 2
        critical = float(np.quantile(null_largest[:half], 1 - args.level))
        z = np.abs(z_values(G, Y))
        power = float((np.where(regions, z, 0).max(axis=1) > critical).mean())
        result |= {
            f"{name}_critical_z": critical,
            f"{name}_false_positive_rate": float((null_largest[half:] > critical).mean()),
            f"{name}_power": power,
            f"{name}_power_error": float(np.sqrt(power * (1 - power) / args.planted_variants)),
            f"{name}_mean_peak_z": float(z[np.arange(len(z)), centres].mean()),
        }
    return result


def standardized(columns: np.ndarray) -> np.ndarray:
    """Return centred columns of length 1."""
    centred = columns - columns.mean(axis=0)
    return centred / np.linalg.norm(centred, axis=0)


def z_values(G: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Return t statistics (m, N) of least squares with an intercept, of standardized columns."""
    correlation = G.T @ Y
    return correlation * np.sqrt((len(G) - 2) / (1 - correlation**2))


if __name__ == "__main__":
    main()
