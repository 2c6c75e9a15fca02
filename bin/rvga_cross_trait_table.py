#!/usr/bin/env python3
"""Join the regions of all external traits into one table with one false-discovery rate."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rvga import cli
from rvga.errors import InputError
from rvga.false_discovery import false_discovery_rate
from rvga.tables import read_table, write_table

KIND = "cross_trait_regions"


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = cli.make_parser(__doc__)
    add = parser.add_argument
    add("--tables", type=Path, nargs="+", required=True, help="<trait>.regions.tsv of each trait")
    add("--out", type=Path, required=True, help="cross_trait_regions.tsv")
    return parser


def joined(paths: Sequence[Path]) -> pd.DataFrame:
    """Return the rows of all traits, by trait and in the order of the regions."""
    tables = {}
    for path in paths:
        table = read_table(path, KIND)
        names = table["trait"].unique()
        if len(names) != 1:
            raise InputError(f"{path}: holds {len(names)} traits where one is due")
        if names[0] in tables:
            raise InputError(f"{path}: trait '{names[0]}' is in another table too; give each once")
        tables[names[0]] = table
    first = next(iter(tables.values()))["region"].tolist()
    for trait, table in tables.items():
        if table["region"].tolist() != first:
            raise InputError(
                f"trait '{trait}' has other regions than '{next(iter(tables))}': the tables are of "
                "different runs; give those of one run"
            )
    table = pd.concat([tables[trait] for trait in sorted(tables)], ignore_index=True)
    rate = false_discovery_rate(table["neg_log_10_p_value"].to_numpy(dtype=float))
    return table.assign(false_discovery_rate=rate)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    args = parser().parse_args(argv)
    cli.state_memory(f"{len(args.tables)} tables", 150e6)
    table = joined(args.tables)
    write_table(table, args.out, KIND)
    numbers = {
        "n_traits": int(table["trait"].nunique()), "n_regions": int(table["region"].nunique()),
        "n_pairs": len(table), "n_pairs_shown": int(table["genetic_correlation"].notna().sum()),
        "n_significant_pairs_fdr_5_percent": int((table["false_discovery_rate"] <= 0.05).sum()),
    }  # fmt: skip
    cli.write_summary(args.summary, "cross_trait_table", numbers, [])


if __name__ == "__main__":
    cli.run(main)
