#!/usr/bin/env python3
"""Join the projected batches: low-dimensional representations of the sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rvga import cli, formats, projection, samples, tables
from rvga.atomic import replacing
from rvga.errors import InputError
from rvga.genotype_samples import read_sample_table
from rvga.images import ImageDigest, require_same_images
from rvga.projection import Scores


def parser():
    """Return the option parser."""
    result = cli.make_parser(__doc__)
    add = result.add_argument
    add("--scores", type=Path, nargs="+", required=True, help="scores files, all batches")
    add("--subjects", type=Path, required=True, help="subjects file")
    add("--bases", type=Path, required=True, help="bases file, of this sample or another")
    add("--samples", type=Path, help=".psam or .fam file, for the family ids of --phenotypes")
    add("--subject-id", choices=samples.SUBJECT_IDS, default="IID", help="what names a subject")
    add("--out", type=Path, required=True, help="LDRs file to write")
    add("--table", type=Path, required=True, help="the same as a table (TSV)")
    add("--phenotypes", type=Path, help="the same as phenotypes for PLINK and REGENIE")
    add("--outliers", type=Path, help="table of subjects far from all others (TSV)")
    return result


@dataclass(frozen=True)
class Joined:
    """The scores of all batches, in the order of the sample.

    Attributes
    ----------
    scores : Scores
        Of everybody.
    n_absent, n_unfit, n_unused : int
        Voxels of the bases that the images lack, that they have but the sample drops, and of
        the sample that the bases lack.
    """

    scores: Scores
    n_absent: int
    n_unfit: int
    n_unused: int


def joined(paths: Sequence[Path], selected: formats.Envelope, based: formats.Envelope) -> Joined:
    """Return the scores of all batches, in the order of the sample.

    Raises
    ------
    InputError
        A file was made from another sample, other bases or other voxels; or a subject of the
        sample is there twice or never; or the images are not those of the sample.
    """
    subjects = list(selected.array("subject"))
    place = {subject: row for row, subject in enumerate(subjects)}
    n, r = len(subjects), based["bases"].shape[1]
    source: list[Path | None] = [None] * n
    ldrs, image_sum, image_squares = np.empty((n, r)), np.empty(n), np.empty(n)
    image_times_mean = np.empty(n)
    digests = np.empty((n, 16), dtype="u1")
    common: dict[str, object] = {}
    for path in paths:
        with formats.open_file(path, "scores") as batch:
            batch.require_made_from("subjects", selected)
            batch.require_made_from("bases", based)
            common = common or batch.attributes
            if batch.attributes != common:
                raise InputError(
                    f"{path}: is of images on other voxels than {paths[0]}; "
                    "read all batches under the same mask"
                )
            found = list(batch.array("subject"))
            for subject in found:
                if subject not in place:
                    raise InputError(
                        f"{path}: subject '{subject}' is not in {selected.path.name}; "
                        "project the images again"
                    )
                earlier = source[place[subject]]
                if earlier is not None:
                    raise InputError(
                        f"{path}: subject '{subject}' is there twice (also in {earlier}); "
                        "give each batch once"
                    )
                source[place[subject]] = path
            rows = np.array([place[subject] for subject in found], dtype=np.int64)
            ldrs[rows] = batch["ldrs"][...]
            image_sum[rows] = batch["image_sum"][...]
            image_squares[rows] = batch["image_sum_of_squares"][...]
            image_times_mean[rows] = batch["image_times_mean"][...]
            digests[rows] = batch["image_digest"][...]
    if None in source:
        raise InputError(
            f"subject '{subjects[source.index(None)]}' of the sample is in none of the scores "
            "files; give those of all batches of the same run"
        )
    digest = ImageDigest(str(common["geometry_digest"]))
    digest.add(subjects, digests)
    require_same_images(digest, selected)
    return Joined(
        Scores(ldrs, image_sum, image_squares, image_times_mean),
        int(common["n_voxels_absent"]),
        int(common["n_voxels_unfit"]),
        int(common["n_voxels_unused"]),
    )


def mean_correlation(
    scores: Scores, bases: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean correlation (q,) of image and reconstruction, and in how many it is defined.

    ``numbers`` (q,) are the numbers of components.
    """
    correlation = projection.reconstruction_correlation(
        scores.ldrs, bases, scores.image_sum, scores.image_sum_of_squares, numbers
    )
    defined = np.isfinite(correlation).sum(axis=1)
    mean = np.full(len(defined), np.nan)
    mean[defined > 0] = np.nanmean(correlation[defined > 0], axis=1)
    return mean, defined


def phenotype_lines(
    subjects: Sequence[str], ldrs: np.ndarray, sample_file: Path | None, subject_id: str
) -> Iterator[str]:
    """Yield the lines of a phenotype file with FID and IID; FID is 0 where none is known."""
    people = {subject: ("0", subject) for subject in subjects}
    if sample_file is not None:
        table = read_sample_table(sample_file)
        for fid, iid in zip(table.fid, table.iid, strict=True):
            people[samples.subject_of(fid, iid, subject_id)] = (fid, iid)
    yield "\t".join(["FID", "IID", *(f"LDR{k}" for k in range(1, ldrs.shape[1] + 1))]) + "\n"
    for subject, row in zip(subjects, ldrs, strict=True):
        fid, iid = people[subject]
        yield "\t".join([fid, iid, *(f"{value:.10g}" for value in row)]) + "\n"


def numbers_or_none(values: np.ndarray) -> list[float | None]:
    """Return numbers as JSON has them."""
    return [float(value) if np.isfinite(value) else None for value in values]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    warnings: list[str] = []
    with (
        cli.threads(1),
        formats.open_file(args.subjects, "subjects") as selected,
        formats.open_file(args.bases, "bases") as based,
    ):
        same_sample = based.inputs.get("subjects") == selected.digest
        subjects = list(selected.array("subject"))
        n, (N, r) = len(subjects), based["bases"].shape
        cli.state_memory(f"{n} x {r} LDRs", 8.0 * (2 * N * r + 6 * n * r))
        together = joined(args.scores, selected, based)
        scores, n_absent, n_unfit = together.scores, together.n_absent, together.n_unfit
        ldrs = scores.ldrs
        bases = based["bases"][...].astype(np.float64)
        numbers_of_components = projection.quality_numbers(r)
        quality, defined = mean_correlation(scores, bases, numbers_of_components)
        undefined = int(n - defined[-1])
        quality_centred, _ = mean_correlation(scores.centred(), bases, numbers_of_components)
        distances = projection.robust_distances(ldrs)
        outlying = distances.outlying
        if not same_sample:
            cli.report(f"{args.bases.name} was made from another sample")
        if n_absent:
            cli.warn(
                f"{n_absent} of the {N} voxels of the bases are not in these images: the mean of "
                "the bases' own sample stands for them in everybody",
                warnings,
            )
        if n_unfit:
            cli.warn(
                f"{n_unfit} of the {N} voxels of the bases are in these images, but constant or "
                "without a value in too many subjects of the sample: the mean of the bases' own "
                "sample stands for them in everybody",
                warnings,
            )
        if undefined:
            cli.warn(f"{undefined} images do not vary and have no reconstruction", warnings)
        if len(outlying):
            cli.warn(
                f"{len(outlying)} of {n} subjects lie far from all others in the space of the "
                "LDRs; they are listed and stay in the analysis",
                warnings,
            )
        with formats.create(
            args.out,
            "ldrs",
            {},
            inputs={"subjects": selected.digest, "bases": based.digest},
            code=args.code,
        ) as writer:
            writer.add("ldrs", ldrs)
            writer.add("subject", subjects)
            writer.add("quality_components", numbers_of_components)
            writer.add("quality_correlation", quality)
            frame = pd.DataFrame(ldrs, columns=[f"LDR{k}" for k in range(1, r + 1)])
            frame.insert(0, "subject", subjects)
            tables.write_table(frame, args.table, "ldrs")
            if args.phenotypes is not None:
                lines = phenotype_lines(subjects, ldrs, args.samples, args.subject_id)
                with replacing(args.phenotypes) as temporary, temporary.open("w") as file:
                    file.writelines(lines)
            if args.outliers is not None:
                listed = pd.DataFrame(
                    {
                        "subject": [subjects[row] for row in outlying],
                        "squared_distance": distances.squared[outlying],
                        "threshold": distances.threshold,
                    }
                )
                tables.write_table(listed, args.outliers, "outliers")
    numbers = {
        "n": n,
        "r": r,
        "quality_components": numbers_of_components,
        "quality_correlation": numbers_or_none(quality),
        "quality_correlation_centred": numbers_or_none(quality_centred),
        "n_images_without_reconstruction": undefined,
        "bases_of_same_sample": same_sample,
        "n_voxels_bases": N,
        "n_voxels_absent": n_absent,
        "n_voxels_unfit": n_unfit,
        "n_voxels_unused": together.n_unused,
        "outliers": {
            "n": len(outlying),
            "threshold": distances.threshold if np.isfinite(distances.threshold) else None,
        },
    }
    cli.report(
        f"mean correlation of image and reconstruction: {quality[-1]:.3f}; less the mean image: "
        f"{quality_centred[-1]:.3f}"
    )
    cli.write_summary(args.summary, "make_ldrs", numbers, warnings)


if __name__ == "__main__":
    cli.run(main)
