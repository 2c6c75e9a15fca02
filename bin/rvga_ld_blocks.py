#!/usr/bin/env python3
"""Make the LD reference of one chromosome from two panels of different people."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rvga import cli, formats, ld
from rvga.chromosomes import RANK, normalise_chromosome
from rvga.errors import InputError
from rvga.ld_products import block_products
from rvga.ld_reference import (
    BlockWriter,
    Panel,
    add_variants,
    largest_file_bytes,
    people_hash,
    read_block_borders,
    require_disjoint,
    shared_variants,
)
from rvga.parallel import ordered_map

MINOR_ALLELE_FREQUENCY = 0.01
FEWEST_PEOPLE = 50
CHUNK = 512
# Python with its libraries, before any data.
INTERPRETER_BYTES = 150 << 20


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = cli.make_parser(__doc__)
    parser.add_argument("--chromosome", required=True, help="1-22, X, Y or MT")
    for number, least in ((1, "+"), (2, "*")):
        parser.add_argument(
            f"--panel-{number}", type=Path, nargs=least, required=number == 1, default=[],
            help=f"genotype files (.pgen or .bed) of panel {number}"
            + (number == 2) * "; without, panel 1 is split at random",
        )  # fmt: skip
        parser.add_argument(
            f"--panel-{number}-variants", type=Path, nargs="*", default=[],
            help="their .pvar or .bim files, in the same order",
        )  # fmt: skip
        parser.add_argument(
            f"--panel-{number}-samples", type=Path, nargs="*", default=[],
            help="their .psam or .fam files, in the same order",
        )  # fmt: skip
    parser.add_argument(
        "--ld-blocks", type=Path, help="BED file of LD blocks; found from the panels if not given"
    )
    parser.add_argument(
        "--ld-share", type=cli.number_between(0, 1, open_low=True), default=0.98,
        help="share of the trace that the inverse keeps",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, help="seed of the splits of panel 1")
    parser.add_argument("--out", type=Path, required=True, help="ld.<chromosome>.h5")
    return parser


class Matched:
    """The two panels' shared variants as standardised genotypes."""

    def __init__(self, panel_1: Panel, panel_2: Panel, chromosome: str, seed: int):
        self.panel_1, self.panel_2 = panel_1, panel_2
        self.half_a, self.half_b = ld.split_halves(len(panel_1.people), seed)
        self._thirds = ld.split_thirds(len(panel_1.people), seed)
        self.between = ld.TracesBetweenBlocks(tuple(len(third) for third in self._thirds))
        self.rows_1, self.rows_2, self.flipped, self.counts = shared_variants(
            panel_1, panel_2, chromosome
        )

    def read(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return dosages of panel 1 and of panel 2, of panel 1's effect allele."""
        dosages_2 = self.panel_2.dosages(self.rows_2[at])
        flipped = self.flipped[at]
        dosages_2[flipped] = 2.0 - dosages_2[flipped]
        return self.panel_1.dosages(self.rows_1[at]), dosages_2

    def halves(self, dosages_1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each half of panel 1 standardised by itself, as two panels would be."""
        return (
            ld.standardise(dosages_1[:, self.half_a]),
            ld.standardise(dosages_1[:, self.half_b]),
        )

    def thirds(self, dosages_1: np.ndarray) -> list[np.ndarray]:
        """Return each third of panel 1 standardised by itself."""
        return [ld.standardise(dosages_1[:, third]) for third in self._thirds]


def keep_common(matched: Matched, dosages_1, dosages_2, G_a, G_b) -> tuple[np.ndarray, np.ndarray]:
    """Return which variants are common in both panels, and their frequency in panel 1."""
    frequency = ld.allele_frequency(dosages_1)
    common = np.ones(len(frequency), dtype=bool)
    for one in (frequency, ld.allele_frequency(dosages_2)):
        common &= np.minimum(one, 1 - one) >= MINOR_ALLELE_FREQUENCY
    varies = np.any(G_a != 0, axis=1) & np.any(G_b != 0, axis=1)
    rare = int((~common).sum())
    matched.counts["rare_in_a_panel"] = matched.counts.get("rare_in_a_panel", 0) + rare
    constant = int((common & ~varies).sum())
    matched.counts["constant_in_a_half"] = matched.counts.get("constant_in_a_half", 0) + constant
    return common & varies, frequency


def first_pass(
    matched: Matched, outside: np.ndarray, find_blocks: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read all variants once: which are kept, their frequency, K = G_a' G_b, cost of cuts."""
    K = np.zeros((len(matched.half_a), len(matched.half_b)))
    cost = ld.BoundaryCost()
    kept, frequencies = [np.empty(0, dtype=np.int64)], [np.empty(0)]
    use = np.flatnonzero(~outside)
    starts = range(0, len(use), CHUNK)
    for start in cli.progress(starts, len(starts), "reading block"):
        at = use[start : start + CHUNK]
        dosages_1, dosages_2 = matched.read(at)
        G_a, G_b = matched.halves(dosages_1)
        keep, frequency = keep_common(matched, dosages_1, dosages_2, G_a, G_b)
        ld.accumulate_kinship(K, G_a[keep], G_b[keep])
        matched.between.add_variants(matched.thirds(dosages_1[keep]))
        if find_blocks:
            both = [G_a[keep], G_b[keep], ld.standardise(dosages_2[keep])]
            cost.add(np.concatenate(both, axis=1))
        kept.append(at[keep])
        frequencies.append(frequency[keep])
    return np.concatenate(kept), np.concatenate(frequencies), K, cost.result()


def block_inputs(
    matched: Matched, kept: np.ndarray, starts: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the dosages of both panels by LD block."""
    for first, stop in itertools.pairwise(starts):
        yield matched.read(kept[first:stop])


def make_chromosome(args: argparse.Namespace, panel_1: Panel, panel_2: Panel, chromosome: str):
    """Compute and write the reference of a chromosome; return the numbers of the summary."""
    for panel in (panel_1, panel_2):
        if len(panel.people) < FEWEST_PEOPLE:
            raise InputError(
                f"{panel.name} has {len(panel.people)} people; an LD reference needs at least "
                f"{FEWEST_PEOPLE} in each panel"
            )
    require_disjoint(panel_1, panel_2)
    matched = Matched(panel_1, panel_2, chromosome, args.seed)
    n_a, n_b, n_2 = len(matched.half_a), len(matched.half_b), len(panel_2.people)
    largest = ld.LARGEST_BLOCK
    position = panel_1.variants["base_pair_location"].to_numpy()[matched.rows_1]
    block_of = np.zeros(len(position), dtype=np.int64)
    if args.ld_blocks is not None:
        borders = read_block_borders(cli.require_file(args.ld_blocks, "LD blocks"), chromosome)
        block_of = np.searchsorted(borders[:, 0], position, side="left") - 1
        inside = block_of >= 0
        inside[inside] = position[inside] <= borders[block_of[inside], 1]
        block_of = np.where(inside, block_of, -1)
        matched.counts["outside_ld_blocks"] = int((~inside).sum())
        if len(position) and not inside.any():
            raise InputError(
                f"{args.ld_blocks}: none of the {len(position)} shared variants of chromosome "
                f"{chromosome} lies in a block; is the file of the same genome build?"
            )
        largest = int(np.bincount(block_of[inside]).max()) if inside.any() else 0
    people = n_a + n_b + n_2
    cli.state_memory(
        f"chromosome {chromosome}: {len(position)} shared variants, {people} people",
        INTERPRETER_BYTES
        + 8 * n_a * n_b
        + 48 * min(len(panel_1.people) // 3, ld.LARGEST_THIRD) ** 2 * (1 + args.threads)
        + 16 * people * (CHUNK + ld.BAND)
        + args.threads * (24 * people * largest + 64 * largest**2 + 24 * min(n_2, largest) ** 2)
        + 400 * (len(panel_1.variants) + len(panel_2.variants)),
    )
    kept, frequency, K, cost = first_pass(matched, block_of < 0, args.ld_blocks is None)
    if len(position) and len(kept) == 0:
        raise InputError(
            f"{panel_1.name} and {panel_2.name} share {len(position)} variants on chromosome "
            f"{chromosome}, but none has a minor allele frequency of at least "
            f"{MINOR_ALLELE_FREQUENCY} in both"
        )
    if args.ld_blocks is None:
        starts = ld.choose_cuts(cost)
    else:
        change = np.flatnonzero(np.diff(block_of[kept])) + 1
        starts = np.unique(np.concatenate([[0], change, [len(kept)]])).astype(np.int64)
    variants = panel_1.variants.iloc[matched.rows_1[kept]].assign(effect_allele_frequency=frequency)
    matched.counts["kept"] = len(kept)
    size = largest_file_bytes(np.diff(starts), n_2)
    cli.report(
        f"chromosome {chromosome}: {len(kept)} variants in {len(starts) - 1} blocks, at most "
        f"{size / 1e6:,.1f} MB of the LD reference"
    )

    def one(dosages: tuple[np.ndarray, np.ndarray]) -> tuple[ld.LdBlock, tuple, tuple]:
        G_a, G_b = matched.halves(dosages[0])
        G_1, G_2 = ld.standardise(dosages[0]), ld.standardise(dosages[1])
        block = ld.make_block(G_a, G_b, G_2, K, args.ld_share, G_1)
        traces = matched.between.block(block.M, matched.thirds(dosages[0]))
        return block, block_products(block, n_a, n_b), traces

    ranks, sizes = [], np.diff(starts)
    attributes = {
        "n_a": n_a, "n_b": n_b, "n_2": n_2, "ld_share": args.ld_share, "counts": matched.counts,
    }  # fmt: skip
    with formats.create(
        args.out,
        "ld",
        attributes,
        inputs={"panel_1": people_hash(panel_1.people), "panel_2": people_hash(panel_2.people)},
        parameters={
            "chromosome": chromosome,
            "seed": args.seed,
            "ld_share": args.ld_share,
            "panels": 2 if args.panel_2 else 1,
        },
        code=args.code,
    ) as writer:
        blocks = BlockWriter(writer)
        made = ordered_map(one, block_inputs(matched, kept, starts), args.threads)
        for block, products, traces in cli.progress(made, len(sizes), "LD block"):
            blocks.add(block, *products, RANK[chromosome])
            matched.between.add_block(*traces)
            ranks.append(block.M.shape[1])
        blocks.finish()
        between = matched.between.result()[None, :] if len(sizes) else np.empty((0, 4))
        writer.add("error_traces", between)
        add_variants(writer, pd.DataFrame(variants))
    factors = ld.between_block_factors(between)
    numbers = {
        "t_4_factor": factors[0], "s_factor": factors[1],
        "chromosome": chromosome, "n_a": n_a, "n_b": n_b, "n_2": n_2, "n_variants": len(kept),
        "n_blocks": len(sizes), "largest_block": int(sizes.max()) if len(sizes) else 0,
        "columns_of_M": int(np.sum(ranks)), "ld_share": args.ld_share, "counts": matched.counts,
        "n_panels": 2 if args.panel_2 else 1, "seed": args.seed, "bytes_at_most": size,
    }  # fmt: skip
    return numbers


@contextlib.contextmanager
def open_panels(args: argparse.Namespace, chromosome: str) -> Iterator[tuple[Panel, Panel]]:
    """Open both panels, or one and split its people at random into two."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(
            Panel(
                "LD panel 1", args.panel_1, args.panel_1_variants, args.panel_1_samples, chromosome
            )
        )
        if args.panel_2:
            second = Panel(
                "LD panel 2", args.panel_2, args.panel_2_variants, args.panel_2_samples, chromosome
            )
            yield first, stack.enter_context(second)
            return
        if args.panel_2_variants or args.panel_2_samples:
            raise InputError("--panel-2-variants and --panel-2-samples need --panel-2")
        people = len(first.people)
        if people < 2 * FEWEST_PEOPLE:
            raise InputError(
                f"LD panel 1 has {people} people; without a panel 2 it is split in two and needs "
                f"at least {2 * FEWEST_PEOPLE}"
            )
        one, other = ld.split_panel(people, args.seed)
        cli.report(
            f"no LD panel 2: the {people} people of panel 1 are split at random (seed {args.seed}) "
            f"into {len(one)} and {len(other)}"
        )
        yield first.part("LD panel 1", one), first.part("LD panel 2", other)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    chromosome = normalise_chromosome(args.chromosome, "--chromosome")
    with (
        open_panels(args, chromosome) as (panel_1, panel_2),
        # Blocks run side by side, each on one thread, so that the bytes do not depend on threads.
        cli.threads(1),
    ):
        numbers = make_chromosome(args, panel_1, panel_2, chromosome)
    cli.write_summary(args.summary, "ld_blocks", numbers)


if __name__ == "__main__":
    cli.run(main)
