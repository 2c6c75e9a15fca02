"""``rvga export``: the GWAS of a voxel, a region's mean or a component, for other programs."""

from __future__ import annotations

import argparse
import datetime
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rvga import cli
from rvga.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from rvga.dataset import MinimalDataset

FORMATS = ("gwas-ssf", "ldsc", "heig", "pheweb")
_WHAT = {
    "voxel": "I",
    "point": "X Y Z",
    "voxels": "I,J,…",
    "region": "LABELS N",
    "component": "K",
    "components": "",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``rvga export``."""
    add = parser.add_argument
    add("dataset", type=Path, help="minimal dataset (*.rvga.h5)")
    add(
        "--what",
        nargs="+",
        required=True,
        metavar="WORD",
        help="voxel I (from 0); point X Y Z (the voxel nearest, in mm); voxels I,J,… (their mean); "
        "region LABELS N (mean over label N of an image of labels); component K (from 0); "
        "components (all of them, for heig)",
    )
    add("--format", choices=FORMATS, required=True, help="form of the table")
    add(
        "--out",
        type=Path,
        required=True,
        help="*.tsv[.gz]; ldsc: *.sumstats.gz; heig: stem of .sumstats and .snpinfo",
    )
    add("--region", help="only variants of this stretch, chromosome:start-end")
    add("--trait", help="gwas-ssf: trait_description of the metadata")
    add(
        "--date",
        default=datetime.date.today().isoformat(),
        help="gwas-ssf: date_metadata_last_modified, year-month-day",
    )


def run(args: argparse.Namespace) -> None:
    """Write the table.

    Raises
    ------
    InputError
        The dataset, what is asked for, or a file name is wrong.
    """
    kind = args.what[0]
    if kind not in _WHAT:
        raise InputError(f"--what '{kind}' is none of {', '.join(_WHAT)}")
    if len(args.what) - 1 != len(_WHAT[kind].split()):
        raise InputError(f"--what {' '.join(args.what)}: write '{kind} {_WHAT[kind]}'".rstrip())
    if kind == "components" and args.format != "heig":
        raise InputError("--what components is for --format heig; give one component: component K")
    try:
        args.date = datetime.date.fromisoformat(args.date).isoformat()
    except ValueError as error:
        raise InputError(f"--date '{args.date}' is no date; write year-month-day") from error
    _check_name(args)
    from rvga.dataset import MinimalDataset

    with MinimalDataset.open(args.dataset) as dataset:
        first, stop = variant_range(dataset, args.region)
        _write(args, dataset, first, stop)


def _check_name(args: argparse.Namespace) -> None:
    suffixes = {
        "gwas-ssf": (".tsv", ".tsv.gz"),
        "pheweb": (".tsv", ".tsv.gz"),
        "ldsc": (".sumstats.gz",),
    }.get(args.format)
    if suffixes and not args.out.name.endswith(suffixes):
        raise InputError(f"{args.out}: the name of --out must end in {', '.join(suffixes)}")


def variant_range(dataset: MinimalDataset, region: str | None) -> tuple[int, int]:
    """Return the first variant of ``chromosome:start-end`` and the one after its last."""
    if region is None:
        return 0, dataset.m
    from rvga.dataset import stretch

    view = dataset.region(*stretch(region))
    if not len(view):
        raise InputError(f"{dataset.path}: holds no variant in {region}")
    return view.first, view.stop


def chosen_weights(dataset: MinimalDataset, what: list[str]) -> tuple[np.ndarray, str]:
    """Return the weights (r,) of the components in what was asked for, and its description."""
    kind, words = what[0], what[1:]
    if kind == "voxel":
        voxel = _number(words[0], "voxel")
        weights = dataset.mean_weights([voxel])
        return weights, f"image value at voxel {voxel} ({_place(dataset, voxel)})"
    if kind == "point":
        try:
            voxel = dataset.nearest_voxel([float(word) for word in words])
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"--what {' '.join(what)}: coordinates are numbers") from error
        weights = dataset.mean_weights([voxel])
        return weights, f"image value at voxel {voxel} ({_place(dataset, voxel)})"
    if kind == "voxels":
        voxels = [_number(word, "voxel") for word in words[0].split(",")]
        return dataset.mean_weights(voxels), f"mean image value over {len(voxels)} voxels"
    if kind == "region":
        from rvga.regions import read_labels

        path, label = Path(words[0]), _number(words[1], "label")
        labels = read_labels(path, dataset.geometry)
        weights = dataset.region_weights(labels, label)
        size = int((labels == label).sum())
        return weights, f"mean image value over region {label} of {path.name} ({size} voxels)"
    component = _number(words[0], "component")
    return dataset.component_weights(component), f"component {component} of the image"


def _write(args: argparse.Namespace, dataset: MinimalDataset, first: int, stop: int) -> None:
    if args.format == "heig":
        written, left_out = _heig(args, dataset, first, stop)
        _report(args.out, written, left_out)
        return
    weights, description = chosen_weights(dataset, args.what)
    if args.format == "gwas-ssf":
        from rvga.gwas_ssf import metadata_of, write_gwas_ssf

        if not dataset.attributes["genome_build"]:
            cli.report("WARNING: the dataset does not say its genome build; the metadata say NR")
        metadata = metadata_of(
            dataset.attributes, trait_description=args.trait or description, date=args.date
        )
        left = write_gwas_ssf(
            lambda: (
                block.assign(n=dataset.n) for block in dataset.gwas_blocks(weights, first, stop)
            ),
            args.out,
            metadata,
        )
        cli.report(
            f"{args.out}: {stop - first - left} variants; left out: {left} without estimate or "
            "with alleles other than ACGT"
        )
        return
    from rvga import exports

    blocks = dataset.gwas_blocks(weights, first, stop)
    if args.format == "ldsc":
        repeated = exports.repeated_ids(dataset.id_blocks(first, stop))
        written, left_out = exports.write_ldsc(blocks, args.out, dataset.n, repeated)
    else:
        written, left_out = exports.write_pheweb(blocks, args.out)
    _report(args.out, written, left_out)


def _heig(
    args: argparse.Namespace, dataset: MinimalDataset, first: int, stop: int
) -> tuple[int, Counter]:
    from rvga import exports
    from rvga.reconstruction import standard_error_from_beta

    repeated = exports.repeated_ids(dataset.id_blocks(first, stop))
    if args.what[0] != "components":
        weights, _ = chosen_weights(dataset, args.what)
        one = (
            (block, *_never_zero(block[["z"]].to_numpy(), block[["standard_error"]].to_numpy()))
            for block in dataset.gwas_blocks(weights, first, stop)
        )
        return exports.write_heig(one, args.out, dataset.n, 1, repeated)
    if len(dataset.A) > 1:
        raise InputError(
            f"{dataset.path}: has {len(dataset.A)} residual cross-products (offsets by "
            "chromosome), for which HEIG has no place; export a voxel, a region or a component"
        )

    def components() -> Iterator[tuple[pd.DataFrame, np.ndarray, np.ndarray]]:
        for start, end, values in dataset.blocks(_rows(dataset), first, stop):
            error = standard_error_from_beta(
                values.beta, values.a, np.diag(dataset.A[0]), dataset.nu
            )
            yield dataset.variant_block(start, end), *_never_zero(values.z, error)

    result = exports.write_heig(components(), args.out, dataset.n, dataset.r, repeated)
    exports.write_heig_bases(args.out, dataset.bases, dataset.A[0] / dataset.n)
    return result


def _never_zero(z: np.ndarray, standard_error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return beta and z, with z = 1e-5 for z = 0: HEIG divides beta by z to get the error."""
    z = np.where(z == 0, 1e-5, z)
    return z * standard_error, z


def _rows(dataset: MinimalDataset) -> int:
    return max(1, min(8192, (1 << 23) // dataset.r))


def _number(word: str, what: str) -> int:
    try:
        return int(word)
    except ValueError as error:
        raise InputError(f"{what} '{word}' is not a whole number") from error


def _place(dataset: MinimalDataset, voxel: int) -> str:
    return ", ".join(f"{value:g}" for value in dataset.coordinates[voxel]) + " mm"


def _report(path: Path, written: int, left_out: Counter) -> None:
    reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.items() if number)
    cli.report(f"{path}: {written} variants; left out: {reasons or 'none'}")
