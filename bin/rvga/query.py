"""``rvga query``: maps and tables from a minimal dataset."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rvga import cli
from rvga.chromosomes import RANK
from rvga.errors import InputError

if TYPE_CHECKING:
    from rvga.dataset import MinimalDataset

STATISTICS = ("z", "beta", "standard_error", "neg_log_10_p_value")
_MAPS = (".nii", ".nii.gz", ".gii", ".dscalar.nii", ".mgh", ".mgz", ".curv", ".map.tsv")
_TABLES = (".tsv", ".tsv.gz")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``rvga query``."""
    parser.add_argument("dataset", type=Path, help="minimal dataset (*.rvga.h5)")
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")

    info = what.add_parser("info", help="what the dataset holds")
    info.set_defaults(answer=_info)

    check = what.add_parser("check", help="read the whole file and compare it with its digest")
    check.set_defaults(answer=_check)

    variant = what.add_parser("variant", help="one variant over the image: a map or a table")
    variant.add_argument("variant", help="its id, or chromosome:position:allele:allele")
    variant.add_argument(
        "--statistic", choices=STATISTICS, default="z", help="what a map shows (default: z)"
    )
    variant.add_argument(
        "--out",
        type=Path,
        required=True,
        help="a map in the format of the images (*.nii.gz, *.func.gii, *.dscalar.nii, *.mgh, "
        "*.curv, *.map.tsv), or *.tsv[.gz]",
    )
    variant.set_defaults(answer=_variant)

    voxel = what.add_parser("voxel", help="the GWAS of one voxel, as GWAS-SSF")
    voxel.add_argument("voxel", type=int, nargs="?", help="its number, from 0")
    voxel.add_argument("--mm", metavar="X,Y,Z", help="or the voxel nearest to this point")
    voxel.add_argument("--out", type=Path, required=True, help="*.tsv[.gz]")
    voxel.add_argument("--trait", help="trait_description of the metadata")
    voxel.add_argument(
        "--date",
        default=datetime.date.today().isoformat(),
        help="date_metadata_last_modified, year-month-day (default: today)",
    )
    voxel.set_defaults(answer=_voxel)

    region = what.add_parser("region", help="a stretch of the genome: lead voxels, or one voxel")
    region.add_argument("region", help="chromosome:start-end")
    region.add_argument("--voxel", type=int, help="this voxel instead of each variant's lead voxel")
    region.add_argument("--mm", metavar="X,Y,Z", help="or the voxel nearest to this point")
    region.add_argument("--out", type=Path, required=True, help="*.tsv[.gz]")
    region.set_defaults(answer=_region)


def with_joined_coordinates(argv: Sequence[str]) -> list[str]:
    """Return the arguments with ``--mm -1,2,3`` as one word, which argparse needs."""
    joined: list[str] = []
    words = iter(argv)
    for word in words:
        follower = next(words, None) if word == "--mm" else None
        joined.append(word if follower is None else f"--mm={follower}")
    return joined


def run(args: argparse.Namespace) -> None:
    """Answer the question.

    Raises
    ------
    InputError
        The dataset, the variant, the voxel, the region or a file name is wrong.
    """
    # Names are checked before anything is read.
    if args.what == "variant":
        _require_suffix(args.out, (*_MAPS, *_TABLES))
    elif args.what in ("voxel", "region"):
        _require_suffix(args.out, _TABLES)
        if args.voxel is not None and args.mm is not None:
            raise InputError("a voxel's number and --mm are given; give one of them")
    if args.what == "voxel":
        if args.voxel is None and args.mm is None:
            raise InputError("which voxel? give its number, or --mm x,y,z")
        try:
            args.date = datetime.date.fromisoformat(args.date).isoformat()
        except ValueError as error:
            raise InputError(f"--date '{args.date}' is no date; write year-month-day") from error
    from rvga.dataset import MinimalDataset

    with MinimalDataset.open(args.dataset) as dataset:
        args.answer(args, dataset)


def _info(args: argparse.Namespace, dataset: MinimalDataset) -> None:
    counts = json.loads(dataset.attributes["counts"])
    extent = [f"{low:g} to {high:g}" for low, high in _extent(dataset)]
    rows = [
        ("subjects", dataset.n),
        ("covariates_with_intercept", dataset.p),
        ("components", dataset.r),
        ("voxels", dataset.N),
        ("variants", dataset.m),
        ("degrees_of_freedom", dataset.nu),
        ("n_eff", f"{dataset.attributes['n_eff']:.6g}"),
        ("genome_build", dataset.attributes["genome_build"] or "NA"),
        *zip(("x_mm", "y_mm", "z_mm"), extent, strict=False),
        ("coding", dataset.attributes["coding"]),
        ("minor_allele_count", f"{dataset.attributes['minor_allele_count']:g}"),
        ("sample_hash", dataset.attributes["sample_hash"]),
        ("digest", dataset.digest),
        *dataset.size().items(),
        *(
            (f"chromosome_{name}", f"{counts[name]['written']} of {counts[name]['read']}")
            for name in sorted(counts, key=RANK.__getitem__)
        ),
    ]
    for name, value in rows:
        sys.stdout.write(f"{name}\t{value}\n")


def _check(args: argparse.Namespace, dataset: MinimalDataset) -> None:
    dataset.verify()
    sys.stdout.write(f"{args.dataset}: sound, digest {dataset.digest}\n")


def _variant(args: argparse.Namespace, dataset: MinimalDataset) -> None:
    table = dataset.variant(args.variant)
    number = dataset.variant_row(args.variant)
    row = dataset.variant_block(number, number + 1).iloc[0]
    if args.out.name.endswith(_MAPS):
        from rvga.geometry import require_map_suffix, write_map

        require_map_suffix(args.out, dataset.geometry)
        write_map(args.out, table[args.statistic].to_numpy(), dataset.geometry)
    else:
        from rvga.tables import write_table

        write_table(table, args.out, "variant_query")
    cli.report(
        f"{args.out}: {row['variant_id']}, effect allele {row['effect_allele']}, other allele "
        f"{row['other_allele']}"
    )


def _voxel(args: argparse.Namespace, dataset: MinimalDataset) -> None:
    from rvga.gwas_ssf import metadata_of, write_gwas_ssf

    voxel = _chosen_voxel(args, dataset)
    if voxel is None:
        raise InputError("which voxel? give its number, or --mm x,y,z")
    weights = dataset.mean_weights([voxel])
    place = ", ".join(f"{value:g}" for value in dataset.coordinates[voxel])
    if not dataset.attributes["genome_build"]:
        cli.report("WARNING: the dataset does not say its genome build; the metadata say NR")
    metadata = metadata_of(
        dataset.attributes,
        trait_description=args.trait or f"image value at voxel {voxel} ({place} mm)",
        date=args.date,
    )
    left_out = write_gwas_ssf(
        lambda: (block.assign(n=dataset.n) for block in dataset.gwas_blocks(weights)),
        args.out,
        metadata,
    )
    cli.report(
        f"{args.out}: {dataset.m - left_out} variants; left out: {left_out} without estimate or "
        "with alleles other than ACGT"
    )


def _region(args: argparse.Namespace, dataset: MinimalDataset) -> None:
    from rvga.dataset import stretch
    from rvga.tables import write_table

    view = dataset.region(*stretch(args.region))
    if not len(view):
        raise InputError(f"{args.dataset}: holds no variant in {args.region}")
    voxel = _chosen_voxel(args, dataset)
    if voxel is None:
        write_table(view.lead_voxels(), args.out, "region_query")
    else:
        write_table(view.voxel(voxel), args.out, "region_voxel_query")
    cli.report(f"{args.out}: {len(view)} variants")


def _chosen_voxel(args: argparse.Namespace, dataset: MinimalDataset) -> int | None:
    """Return the voxel that was asked for by number or by coordinates, or None."""
    if args.mm is None:
        return args.voxel
    try:
        point = [float(word) for word in args.mm.split(",")]
    except ValueError as error:
        raise InputError(f"--mm '{args.mm}' is not x,y,z in millimetres") from error
    voxel = dataset.nearest_voxel(point)
    distance = sum((a - b) ** 2 for a, b in zip(point, dataset.coordinates[voxel], strict=True))
    place = ", ".join(f"{value:g}" for value in dataset.coordinates[voxel])
    cli.report(f"voxel {voxel} at {place} mm, {distance**0.5:.3g} mm from the point")
    if any(not low <= a <= high for a, (low, high) in zip(point, _extent(dataset), strict=True)):
        cli.report(f"WARNING: the point {args.mm} lies outside the image")
    return voxel


def _extent(dataset: MinimalDataset) -> list[tuple[float, float]]:
    """Return the least and the largest coordinate of the voxels along each axis."""
    place = dataset.coordinates
    return list(zip(place.min(axis=0).tolist(), place.max(axis=0).tolist(), strict=True))


def _require_suffix(path: Path, suffixes: tuple[str, ...]) -> None:
    if not path.name.endswith(suffixes):
        raise InputError(f"{path}: the name of --out must end in {', '.join(suffixes)}")
