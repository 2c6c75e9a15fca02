#!/usr/bin/env python3
"""Find functional principal components of the smoothed images."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rvga import cli, formats, fpca, smoothing
from rvga.geometry import add_geometry
from rvga.images import ImageSet, block_rows, require_finite, require_same_images

IN_MEMORY_BYTES = 1 << 30


def bandwidth(text: str) -> str | float:
    """Parse ``auto``, ``published``, ``none`` or a number above 0."""
    if text in ("auto", "published", "none"):
        return text
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < np.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is neither auto, none nor a number above 0")
    return value


def natural_number(text: str) -> int:
    """Parse an integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is less than 0")
    return value


def parser():
    """Return the option parser."""
    result = cli.make_parser(__doc__)
    add = result.add_argument
    add("--images", type=Path, nargs="+", required=True, help="images files, all batches")
    add("--subjects", type=Path, required=True, help="subjects file")
    add("--bandwidth", type=bandwidth, default="auto", help="auto, none, or millimetres")
    add("--bandwidth-subjects", type=cli.positive_integer, default=500,
        help="images (at most) that the bandwidth is chosen with")  # fmt: skip
    add("--components", type=natural_number, default=0, help="number; 0 is by variance")
    add("--components-variance", type=cli.number_between(0, 1, open_low=True), default=0.8,
        help="share of variance that the components hold")  # fmt: skip
    add("--seed", type=natural_number, default=1, help="seed of the images drawn for the bandwidth")
    add("--out", type=Path, required=True, help="bases file to write")
    return result


def choose(args, images: ImageSet, subjects: list[str], voxel_index, coordinates):
    """Return the choice of a bandwidth as the options say."""
    if args.bandwidth == "none":
        return smoothing.Choice(0.0, [])
    if not isinstance(args.bandwidth, str):
        return smoothing.Choice(args.bandwidth, [])
    drawn = np.random.default_rng(args.seed).permutation(len(subjects))[: args.bandwidth_subjects]
    chosen = [subjects[row] for row in np.sort(drawn)]
    raw = images.rows(chosen)[:, voxel_index]
    require_finite(raw, chosen)

    def blocks():
        size = block_rows(images.n_voxels)
        for first in range(0, len(raw), size):
            yield raw[first : first + size]

    def tell(candidate: smoothing.Candidate) -> None:
        outcome = candidate.skipped or f"score {candidate.score:.6g}"
        cli.report(f"bandwidth {candidate.bandwidth:.4g} mm: {outcome}")

    return smoothing.choose_bandwidth(
        coordinates,
        blocks,
        published=args.bandwidth == "published",
        workers=args.threads,
        progress=tell,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    warnings: list[str] = []
    with (
        # Linear algebra in one thread and tiles in several: sums do not depend on the threads.
        cli.threads(1),
        formats.open_file(args.subjects, "subjects") as selected,
        ImageSet(args.images) as images,
        tempfile.TemporaryFile(dir=args.out.resolve().parent) as scratch,
    ):
        subjects = list(selected.array("subject"))
        voxel_index = selected["voxel_index"][...]
        geometry = images.geometry.subset(voxel_index)
        coordinates = geometry.coordinates
        n, N = len(subjects), len(voxel_index)
        size = block_rows(images.n_voxels)
        n_blocks = -(-n // size)
        on_disk = 4 * n * N > IN_MEMORY_BYTES
        drawn = min(n, args.bandwidth_subjects) if args.bandwidth in ("auto", "published") else 0
        cli.state_memory(
            f"{n} images of {N} voxels" + (" (smoothed images on disk)" if on_disk else ""),
            fpca.gram_bytes(n, N)
            + (0 if on_disk else 4 * n * N)
            + 4 * drawn * N
            + 24 * size * N
            + smoothing.weight_bytes(N, args.threads),
        )

        mean_raw = np.zeros(N)
        digest = images.new_digest()
        for first, stop, block in cli.progress(images.blocks(subjects), n_blocks, "mean: block"):
            digest.update(subjects[first:stop], block)
            kept = block[:, voxel_index]
            require_finite(kept, subjects[first:stop])
            mean_raw += kept.sum(axis=0, dtype=np.float64)
        require_same_images(digest, selected)
        mean_raw /= n

        choice = choose(args, images, subjects, voxel_index, coordinates)
        for message in choice.warnings:
            cli.warn(message, warnings)
        weights = None
        if choice.bandwidth > 0.0:
            weights = smoothing.smoothing_weights(
                coordinates, choice.bandwidth, workers=args.threads
            )

        if on_disk:
            smoothed = np.memmap(scratch, dtype=np.float32, mode="w+", shape=(n, N))
        else:
            smoothed = np.empty((n, N), dtype=np.float32)
        for first, stop, block in cli.progress(images.blocks(subjects), n_blocks, "smooth: block"):
            # Smoothing is linear, so centring first loses nothing and saves digits in float32.
            centred = block[:, voxel_index] - mean_raw
            smoothed[first:stop] = smoothing.smooth(centred, weights, workers=args.threads)
        mean = smoothing.smooth(mean_raw[None], weights)[0]

        found = fpca.principal_components(
            smoothed,
            number=args.components,
            share=args.components_variance,
            workers=args.threads,
        )
        del smoothed
        r = found.bases.shape[1]
        attributes = {
            "geometry_type": geometry.type,
            "bandwidth": float(choice.bandwidth),
            "n_eff": found.n_eff,
            "total_variance": found.total_variance,
            "n": n,
        }
        parameters = {
            "bandwidth": args.bandwidth,
            "bandwidth_subjects": args.bandwidth_subjects,
            "components": args.components,
            "components_variance": args.components_variance,
            "seed": args.seed,
        }
        with formats.create(
            args.out,
            "bases",
            attributes,
            inputs={"subjects": selected.digest},
            parameters=parameters,
            code=args.code,
        ) as writer:
            writer.add("bases", found.bases)
            writer.add("eigenvalues", found.eigenvalues)
            writer.add("mean", mean)
            writer.add("coordinates", coordinates)
            candidates = choice.candidates
            writer.add("candidate_bandwidths", [item.bandwidth for item in candidates])
            writer.add("candidate_scores", [item.score for item in candidates])
            add_geometry(writer, geometry)
    cumulated = np.cumsum(found.eigenvalues) / found.total_variance
    numbers = {
        "n": n,
        "n_voxels": N,
        "bandwidth": float(choice.bandwidth),
        "bandwidth_option": args.bandwidth,
        "bandwidth_subjects": drawn,
        "candidates": [
            {
                "bandwidth": item.bandwidth,
                "score": None if item.skipped else item.score,
                "neighbours": item.neighbours if np.isfinite(item.neighbours) else None,
                "skipped": item.skipped,
            }
            for item in candidates
        ],
        "weights_per_voxel": 1.0 if weights is None else weights.nnz / N,
        "r": r,
        "share_of_variance": found.share,
        "total_variance": found.total_variance,
        "n_eff": found.n_eff,
        "n_eigenvalues": len(found.eigenvalues),
        "eigenvalues_head": found.eigenvalues[: max(r, 50)][:200],
        "cumulated_share_head": cumulated[: max(r, 50)][:200],
    }
    cli.report(
        f"{r} components hold {found.share:.1%} of the variance; N_eff = {found.n_eff:.1f}, "
        f"bandwidth {choice.bandwidth:.4g} mm"
    )
    cli.write_summary(args.summary, "fit_bases", numbers, warnings)


if __name__ == "__main__":
    cli.run(main)
