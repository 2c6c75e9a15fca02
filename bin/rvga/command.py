"""The ``rvga`` command: what people use outside the pipeline."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rvga import cli
from rvga.version import VERSION

_TASKS = {
    "export": "write the GWAS of a voxel, a region's mean or a component for other programs",
    "query": "look up a variant, a voxel or a region in a minimal dataset",
    "simulate": "make a study with known truth",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 done, 2 bad input."""
    cli.run(dispatch, sys.argv[1:] if argv is None else argv)


def dispatch(argv: Sequence[str] | None) -> None:
    """Parse a command line and run its task; errors are the caller's to report."""
    argv = list(argv or [])
    parser = cli.Parser(
        prog="rvga",
        description="Voxel-level genetic analysis of images.",
        epilog="The pipeline itself is run by Nextflow. 'rvga TASK --help' shows a task's options.",
    )
    parser.add_argument("--version", action="version", version=f"rvga {VERSION}")
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    # Only the task that is asked for is imported, so that help is quick.
    wanted = argv[0] if argv else ""
    for name, what in _TASKS.items():
        task = tasks.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}.",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        if name == wanted:
            module = _module(name)
            module.add_arguments(task)
            task.set_defaults(run=module.run)
            if name == "query":
                argv = module.with_joined_coordinates(argv)
    args = parser.parse_args(argv)
    args.run(args)


def _module(task: str):
    if task == "query":
        from rvga import query

        return query
    if task == "export":
        from rvga import export

        return export
    from rvga import simulate_study

    return simulate_study


if __name__ == "__main__":
    main()
