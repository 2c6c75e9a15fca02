#!/usr/bin/env python3
"""Simulate a study whose truth is known: genotypes, images, covariates, LD panels, a trait."""

from __future__ import annotations

from collections.abc import Sequence

from rvga import cli, simulate_study


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the options and write the study."""
    parser = cli.make_parser(__doc__)
    simulate_study.add_arguments(parser)
    simulate_study.run(parser.parse_args(argv))


if __name__ == "__main__":
    cli.run(main)
