#!/usr/bin/env python3
"""Join the LD references of the chromosomes to one file."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rvga import cli, formats
from rvga.chromosomes import CHROMOSOMES
from rvga.errors import InputError
from rvga.ld import between_block_factors
from rvga.ld_reference import LdReference, concatenate

WARN_BELOW_PEOPLE = 1000
# Options that all chromosomes share.
OPTIONS = ("seed", "ld_share", "panels")


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = cli.make_parser(__doc__)
    parser.add_argument("--chunks", type=Path, nargs="+", required=True, help="ld.*.h5 files")
    parser.add_argument("--out", type=Path, required=True, help="<panel>.ld.h5")
    return parser


def check_of_one_run(references: Sequence[LdReference]) -> None:
    """Refuse files of different panels, options or versions, or of one chromosome twice.

    Raises
    ------
    InputError
        Which two files do not belong together.
    """
    first = references[0]
    seen: dict[int, LdReference] = {}
    for reference in references:
        for what in ("panel_1", "panel_2"):
            if reference.envelope.inputs.get(what) != first.envelope.inputs.get(what):
                raise InputError(
                    f"{reference.path.name} and {first.path.name} were made from different people "
                    f"of LD {what.replace('_', ' ')}; make all chromosomes from the same panels"
                )
        for what in OPTIONS:
            one = reference.envelope.parameters.get(what)
            other = first.envelope.parameters.get(what)
            if one != other:
                raise InputError(
                    f"{reference.path.name} was made with {what} {one}, {first.path.name} with "
                    f"{other}; make all chromosomes with the same options"
                )
        for chromosome in np.unique(reference.block_chromosome):
            if chromosome in seen:
                raise InputError(
                    f"{reference.path.name} and {seen[chromosome].path.name} both hold chromosome "
                    f"{CHROMOSOMES[chromosome - 1]}; give each chromosome once"
                )
            seen[int(chromosome)] = reference
    # A file without variants has none of the optional datasets.
    full = [reference for reference in references if reference.m]
    without = [reference for reference in full if not reference.has_t_1_ratio]
    if without and len(without) < len(full):
        raise InputError(
            f"{without[0].path.name} lacks the dataset 't_1_ratio' that other chromosomes have: it "
            "was made by an earlier version; make all chromosomes with one version"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    warnings: list[str] = []
    with contextlib.ExitStack() as stack:
        references = [stack.enter_context(LdReference.open(path)) for path in args.chunks]
        check_of_one_run(references)
        full = [reference for reference in references if reference.m]
        if not full:
            raise InputError(
                f"none of the {len(references)} LD files ({args.chunks[0].name}, …) holds a "
                "variant: the two panels have no variant in common on any chromosome"
            )
        full.sort(key=lambda reference: int(reference.block_chromosome[0]))
        cli.state_memory(
            f"{sum(r.m for r in full)} variants", 500 * sum(r.m for r in full) + (1 << 27)
        )
        counts: dict[str, int] = {}
        for reference in references:
            for reason, number in _counts(reference).items():
                counts[reason] = counts.get(reason, 0) + number
        first = full[0]
        attributes = {
            "n_a": first.n_a, "n_b": first.n_b, "n_2": first.n_2, "ld_share": first.ld_share,
            "counts": counts,
        }  # fmt: skip
        with formats.create(
            args.out,
            "ld",
            attributes,
            inputs=first.envelope.inputs,
            parameters={name: first.envelope.parameters.get(name) for name in OPTIONS},
            code=args.code,
        ) as writer:
            concatenate(full, writer)
        for panel, size in ((1, first.n_a + first.n_b), (2, first.n_2)):
            if size < WARN_BELOW_PEOPLE:
                cli.warn(
                    f"LD panel {panel} has {size} people: below {WARN_BELOW_PEOPLE:,} the errors "
                    "of heritability grow and its interval becomes less certain",
                    warnings,
                )
        n_panels, seed = (first.envelope.parameters.get(name) for name in ("panels", "seed"))
        if n_panels == 1:
            cli.warn(
                f"one LD panel was given: its {first.n_a + first.n_b + first.n_2} people were "
                f"split at random (seed {seed}) into {first.n_a + first.n_b} for the traces and "
                f"{first.n_2} for the inverse; a second panel would lessen the errors",
                warnings,
            )
        factors = between_block_factors(
            np.concatenate([r.envelope["error_traces"][...] for r in full])
        )
        names = [CHROMOSOMES[int(r.block_chromosome[0]) - 1] for r in full]
        numbers = {
            "n_a": first.n_a, "n_b": first.n_b, "n_2": first.n_2, "ld_share": first.ld_share,
            "n_variants": sum(r.m for r in full), "n_blocks": sum(r.n_blocks for r in full),
            "largest_block": max(int(np.diff(r.block_start).max()) for r in full),
            "chromosomes": names, "counts": counts,
            "t_4_factor": factors[0], "s_factor": factors[1], "n_panels": n_panels, "seed": seed,
        }  # fmt: skip
    cli.write_summary(args.summary, "ld_reference", numbers, warnings)


def _counts(reference: LdReference) -> dict[str, int]:
    return json.loads(reference.envelope.attributes["counts"])


if __name__ == "__main__":
    cli.run(main)
