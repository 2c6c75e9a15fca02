#!/usr/bin/env python3
"""Find functional principal components of the smoothed images."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from rvga import cli, digit_products, formats, fpca, projection, smoothing, tile_products
from rvga.covariance import SmoothedCovariance
from rvga.errors import InputError
from rvga.geometry import Geometry, add_geometry
from rvga.images import ImageSet, block_rows, filled, require_same_images
from rvga.parallel import ordered_map, read_ahead
from rvga.surface import Surface

IN_MEMORY_BYTES = 1 << 30
# More components than this are not looked for where the decomposition is not exact.
MOST_COMPONENTS = 2000
FIRST_NUMBER = 32


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
        help="images (at most) that bandwidth and correlation are judged by")  # fmt: skip
    add("--surface-distance", choices=("geodesic", "euclidean"), default="geodesic",
        help="distances between vertices: along the surface, or straight")  # fmt: skip
    add("--components", type=natural_number, default=0, help="number; 0 is by what follows")
    add("--components-correlation", type=cli.number_between(0, 1, open_high=True), default=0.0,
        help="mean correlation of raw image and reconstruction; 0 is by variance")  # fmt: skip
    add("--components-variance", type=cli.number_between(0, 1, open_low=True), default=0.8,
        help="share of variance that the components hold")  # fmt: skip
    add("--seed", type=natural_number, default=1, help="seed of the images and vectors drawn")
    add("--out", type=Path, required=True, help="bases file to write")
    return result


def space_of(geometry: Geometry, surface_distance: str) -> smoothing.Space:
    """Return the voxels as the space that they are smoothed in; parts stay apart."""
    part, coordinates = geometry.part, geometry.coordinates
    if geometry.triangles is None or surface_distance == "euclidean":
        return smoothing.Cloud(coordinates, part)
    members: list[tuple[np.ndarray, smoothing.Cloud | Surface]] = []
    on_surface = geometry.vertex >= 0
    for number in np.unique(part[on_surface]):
        columns = np.flatnonzero(on_surface & (part == number))
        row_of = np.full(len(geometry.vertices), -1)
        row_of[geometry.vertex[columns]] = np.arange(len(columns))
        # The way does not lead over vertices without values: what was left out is a border.
        triangles = row_of[geometry.triangles]
        triangles = triangles[(triangles >= 0).all(axis=1)]
        members.append((columns, Surface(geometry.vertices[geometry.vertex[columns]], triangles)))
    elsewhere = np.flatnonzero(~on_surface)
    if len(elsewhere):
        members.append((elsewhere, smoothing.Cloud(coordinates[elsewhere], part[elsewhere])))
    return smoothing.Joined(members)


class Sample:
    """The raw images of the sample at the voxels kept, in blocks, missing values filled in."""

    def __init__(self, images: ImageSet, selected: formats.Envelope):
        self._images = images
        self.subjects = list(selected.array("subject"))
        self.voxel_index = selected["voxel_index"][...]
        self.n, self.N = len(self.subjects), len(self.voxel_index)
        # Every voxel kept: no copy of the block is needed.
        whole = np.array_equal(self.voxel_index, np.arange(images.n_voxels))
        self._columns = slice(None) if whole else self.voxel_index
        self._voxel_mean = (
            selected["voxel_mean"][...] if "voxel_mean" in selected else np.full(self.N, np.nan)
        )
        self.mean = np.zeros(self.N)
        self.variance = 0.0
        self._complete = self._read = False

    def read_mean(self, selected: formats.Envelope, workers: int) -> None:
        """Take mean and variance (summed over voxels), and make sure of the images.

        Raises
        ------
        InputError
            The images are of another run.
        """
        require_same_images(self._images.digest(self.subjects), selected)
        size = block_rows(self._images.n_voxels)
        # Squares are summed about a value near the mean, so that they keep their digits.
        first_rows = self._filled(self._images.rows(self.subjects[:size]))
        near = first_rows.mean(axis=0, dtype=np.float64)

        def sums(item: tuple[int, int, np.ndarray]):
            _, _, block = item
            total, squares = np.zeros(self.N), 0.0
            complete = bool(np.isfinite(block).all())
            apart = np.empty(self.N)
            for row in block[:, self._columns] if complete else self._filled(block):
                np.subtract(row, near, out=apart)
                total += apart
                squares += float(apart @ apart)
            return complete, total, squares

        complete = True
        done = ordered_map(sums, read_ahead(self._images.blocks(self.subjects), 1), workers)
        for whole, total, squares in cli.progress(done, -(-self.n // size), "mean: block"):
            complete &= whole
            self.mean += total
            self.variance += squares
        apart = self.mean / self.n
        self.mean = near + apart
        self.variance = self.variance / self.n - float(apart @ apart)
        self._complete, self._read = complete, True

    def blocks(self, subjects: list[str] | None = None) -> Iterator[np.ndarray]:
        """Yield the images (n_b, N) of the sample, or of some of its subjects."""
        chosen = self.subjects if subjects is None else subjects
        # Checksums were compared when the mean was taken.
        for _, _, block in self._images.blocks(chosen, checked=not self._read):
            yield self._filled(block)

    def _filled(self, block: np.ndarray) -> np.ndarray:
        # The blocks are read many times, and most studies have no missing values.
        if self._complete:
            whole = isinstance(self._columns, slice)
            # Indexing by columns would lay voxels, not images, side by side.
            return block if whole else np.take(block, self._columns, axis=1)
        return filled(block, self._columns, self._voxel_mean)


def require_window(bandwidth: float, space: smoothing.Space) -> float:
    """Return the mean number of voxels in the window of a bandwidth that is given.

    Raises
    ------
    InputError
        They are more than memory can hold weights for.
    """
    most = smoothing.most_in_window(space.N)
    window = smoothing.sampled_window(space, bandwidth)
    if window <= most:
        return window
    largest = smoothing.largest_bandwidth(space, bandwidth, most)
    remedy = (
        f"give at most {largest:.3g}, or auto" if largest > 0.0 else
        "correct the coordinates, which many voxels share, or give bandwidth none"
    )  # fmt: skip
    raise InputError(
        f"bandwidth: {bandwidth:g} was given, but {window:.0f} voxels on average are within 4 "
        f"bandwidths of a voxel, and memory allows for {most:.0f}; {remedy}"
    )


def choose(args, sample: Sample, drawn: list[str], geometry: Geometry) -> smoothing.Choice:
    """Return the choice of a bandwidth as the options say."""
    if args.bandwidth == "none":
        return smoothing.Choice(0.0, [])
    if not geometry.smoothable:
        if not isinstance(args.bandwidth, str):
            raise InputError(
                f"bandwidth: {args.bandwidth:g} was given, but the images have no coordinates to "
                "smooth by; give a table of coordinates, or bandwidth none"
            )
        return smoothing.Choice(
            0.0, [], ["the images have no coordinates to smooth by: they are not smoothed"]
        )
    if not isinstance(args.bandwidth, str):
        return smoothing.Choice(args.bandwidth, [])

    def tell(candidate: smoothing.Candidate) -> None:
        outcome = candidate.skipped or f"score {candidate.score:.6g}"
        cli.report(f"bandwidth {candidate.bandwidth:.4g} mm: {outcome}")

    return smoothing.choose_bandwidth(
        space_of(geometry, args.surface_distance),
        lambda: sample.blocks(drawn),
        published=args.bandwidth == "published",
        workers=args.threads,
        progress=tell,
    )


def exact_spectrum(
    sample: Sample, covariance: SmoothedCovariance, weights, scratch, workers: int
) -> fpca.ExactSpectrum:
    """Return the whole spectrum, by the smaller Gram matrix."""
    n, N = sample.n, sample.N
    if n > N:
        return fpca.ExactSpectrum(covariance.matrix(), None, workers)
    if 4 * n * N > IN_MEMORY_BYTES:
        smoothed = np.memmap(scratch, dtype=np.float32, mode="w+", shape=(n, N))
    else:
        smoothed = np.empty((n, N), dtype=np.float32)
    first = 0
    total = -(-n // block_rows(N))
    for block in cli.progress(read_ahead(sample.blocks(), 1), total, "smooth: block"):
        # Smoothing is linear, so centring first loses nothing and saves digits in float32.
        stop = first + len(block)
        smoothed[first:stop] = smoothing.smooth(block - sample.mean, weights, workers=workers)
        first = stop
    matrix = fpca.gram(fpca.column_panels(smoothed), n, workers=workers) / n
    return fpca.ExactSpectrum(matrix, smoothed, workers)


def by_correlation(
    target: float,
    explore: Callable[[int], fpca.Components],
    most: int,
    sample: Sample,
    drawn: list[str],
) -> int:
    """Return the fewest components whose reconstructions reach a mean correlation.

    Raises
    ------
    InputError
        They do not reach it.
    """
    number = min(FIRST_NUMBER, most)
    while True:
        found = explore(number)
        column_sum = found.bases.sum(axis=0)
        total, defined, n_drawn = np.zeros(number), np.zeros(number, dtype=np.int64), 0
        for block in sample.blocks(drawn):
            raw = block.astype(np.float64)
            block_total, block_defined = projection.correlation_by_number(
                raw @ found.bases,
                column_sum,
                raw.sum(axis=1),
                np.einsum("nv,nv->n", raw, raw),
                sample.N,
            )
            total += block_total
            defined += block_defined
            n_drawn += len(block)
        if defined[-1] == 0:
            raise InputError(
                f"components_correlation: none of the {n_drawn} images that it is judged by has a "
                "correlation with its reconstruction, because one of the two is constant over "
                "voxels; check the images, or use components or components_variance instead"
            )
        mean = total / np.maximum(defined, 1)
        reached = np.flatnonzero((defined > 0) & (mean >= target))
        if defined[-1] < n_drawn and (len(reached) or number == most):
            cli.report(
                f"{n_drawn - defined[-1]} of {n_drawn} images do not count: they or their "
                "reconstructions are constant over voxels"
            )
        if len(reached):
            return int(reached[0]) + 1
        if number == most:
            raise InputError(
                f"components_correlation: {target:g} asked for, but all {most} components that "
                f"can be found reach {mean[-1]:.3f} (the part of the mean image outside the bases "
                "counts too); use components or components_variance instead"
            )
        cli.report(f"{number} components reach a correlation of {mean[-1]:.3f}")
        number = min(2 * number, most)


def components(args, sample: Sample, weights, scratch, drawn: list[str]) -> fpca.Components:
    """Return the components as the options say."""
    n, N = sample.n, sample.N
    covariance = SmoothedCovariance(sample.blocks, sample.mean, n, weights, workers=args.threads)
    if min(n, N) <= fpca.EXACT_SIDE:
        spectrum = exact_spectrum(sample, covariance, weights, scratch, args.threads)
        most = len(spectrum.eigenvalues)
        explore = find = spectrum.components
        number = args.components
        if number == 0 and args.components_correlation == 0.0:
            number = fpca.number_by_share(
                spectrum.eigenvalues, spectrum.total, args.components_variance
            )
            number = number or most
        fpca.require_rank(number, most, n, N)
    else:
        most = min(min(n - 1, N) // 4, MOST_COMPONENTS)
        total = sample.variance if weights is None else covariance.trace()
        cli.report(f"variance of the smoothed images: {total:.6g}")
        krylov = fpca.KrylovSpectrum(
            covariance.rough_product,
            N,
            total,
            block=fpca.block_size(args.components),
            seed=args.seed,
            dtype=np.float32,
            workers=args.threads,
        )

        def explore(number: int) -> fpca.Components:
            return fpca.krylov_components(
                krylov,
                number=number,
                share=args.components_variance,
                most=most,
                tolerance=fpca.ROUGH_TOLERANCE,
                to_be_corrected=True,
                progress=cli.report,
            )

        def find(number: int) -> fpca.Components:
            r = explore(number).bases.shape[1]
            return fpca.refined_components(krylov, covariance.close_product, r, progress=cli.report)

        number = args.components
    if number == 0 and args.components_correlation > 0.0:
        number = by_correlation(args.components_correlation, explore, most, sample, drawn)
    return find(number)


def krylov_bytes(number: int, N: int) -> int:
    """Return the memory (bytes) that finding a number of components by products takes."""
    vectors = max(fpca.block_size(number) + fpca.PROBES, fpca.refined_size(number))
    return fpca.krylov_bytes(number, N) + digit_products.held_bytes(
        block_rows(N), N, vectors, digit_products.CLOSE
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
        sample = Sample(images, selected)
        n, N = sample.n, sample.N
        geometry = images.geometry.subset(sample.voxel_index)
        exact = min(n, N) <= fpca.EXACT_SIDE
        held = 4 * n * N if exact and n <= N else 0
        on_disk = held > IN_MEMORY_BYTES
        search = args.bandwidth in ("auto", "published") and geometry.smoothable
        window = None
        if not isinstance(args.bandwidth, str) and geometry.smoothable:
            space = space_of(geometry, args.surface_distance)
            window = require_window(args.bandwidth, space)
        cli.state_memory(
            f"{n} images of {N} voxels" + (" (smoothed images on disk)" if on_disk else ""),
            (fpca.gram_bytes(n, N) if exact else krylov_bytes(args.components, N))
            + (0 if on_disk else held)
            + (12 + 4 * args.threads) * block_rows(images.n_voxels) * images.n_voxels
            + smoothing.weight_bytes(N, args.threads, window),
        )
        sample.read_mean(selected, args.threads)
        order = np.random.default_rng(args.seed).permutation(n)[: args.bandwidth_subjects]
        drawn = [sample.subjects[row] for row in np.sort(order)]
        choice = choose(args, sample, drawn, geometry)
        for message in choice.warnings:
            cli.warn(message, warnings)
        weights = None
        if choice.bandwidth > 0.0:
            weights = smoothing.smoothing_weights(
                space_of(geometry, args.surface_distance), choice.bandwidth, workers=args.threads
            )
        mean = smoothing.smooth(sample.mean[None], weights)[0]
        found = components(args, sample, weights, scratch, drawn)
        if not found.converged:
            cli.warn(
                f"the components did not settle within {found.passes} passes over the images: "
                f"relative residuals are up to {found.residual.max():.1e}",
                warnings,
            )
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
            "surface_distance": args.surface_distance,
            "components": args.components,
            "components_correlation": args.components_correlation,
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
            writer.add("residual", found.residual)
            writer.add("mean", mean)
            writer.add("coordinates", geometry.coordinates)
            if any(images.map_orders):
                writer.add("map_order", images.map_orders)
            candidates = choice.candidates
            writer.add("candidate_bandwidths", [item.bandwidth for item in candidates])
            writer.add("candidate_scores", [item.score for item in candidates])
            add_geometry(writer, geometry)
    cumulated = np.cumsum(found.eigenvalues) / found.total_variance
    extrapolated = fpca.extrapolated_n_eff(found.eigenvalues, r, min(n - 1, N))
    numbers = {
        "n": n,
        "n_voxels": N,
        "bandwidth": float(choice.bandwidth),
        "bandwidth_option": args.bandwidth,
        "bandwidth_subjects": len(drawn) if search else 0,
        "surface_distance": args.surface_distance if geometry.triangles is not None else None,
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
        "n_eff_standard_error": found.n_eff_error,
        "n_eff_extrapolated": extrapolated if np.isfinite(extrapolated) else None,
        "decomposition": "exact" if exact else "krylov",
        "arithmetic": "whole" if tile_products.available() and not exact else "floating",
        "passes": found.passes,
        "largest_relative_residual": float(found.residual.max()),
        "subspace_angle": found.angle,
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
