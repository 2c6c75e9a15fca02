"""What all entrypoints share: options, exit status, threads, provenance, summaries."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rvga.atomic import replacing
from rvga.errors import InputError

EXIT_INPUT = 2
EXIT_IO = 74
EXIT_MEMORY = 137
# A dataset is meant to be shared: with fewer carriers, beta tells of single people.
LEAST_MINOR_ALLELE_COUNT = 5


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every stage takes.

    ``--code`` is the fingerprint of the stage's code, ``--threads`` the processors that the
    stage may use, ``--summary`` a JSON file for the numbers that the report shows.
    """
    parser = Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--code", default="", help="fingerprint of the stage's code")
    parser.add_argument(
        "--threads", type=positive_integer, default=os.cpu_count() or 1, help="processors to use"
    )
    parser.add_argument("--summary", type=Path, help="write counts and numbers to this JSON file")
    return parser


class Parser(argparse.ArgumentParser):
    """A parser whose refusals are mistakes of the user like any other: one sentence."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (--help lists the options)")


def positive_integer(text: str) -> int:
    """Parse an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def number_between(
    low: float, high: float, *, open_low: bool = False, open_high: bool = False
) -> Callable[[str], float]:
    """Return a parser of numbers within bounds, for ``type=``."""

    def parse(text: str) -> float:
        value = float(text)
        below = value <= low if open_low else value < low
        above = value >= high if open_high else value > high
        if below or above or value != value:
            left, right = "(" if open_low else "[", ")" if open_high else "]"
            raise argparse.ArgumentTypeError(f"{text} is outside {left}{low:g}, {high:g}{right}")
        return value

    parse.__name__ = "number"
    return parse


def add_dataset_options(arguments: argparse.ArgumentParser) -> None:
    """Add the options of every stage that writes chunks of a minimal dataset."""
    add = arguments.add_argument
    add(
        "--minor-allele-frequency",
        type=number_between(0, 0.5),
        default=0.0,
        help="leave out variants below",
    )
    add(
        "--minor-allele-count",
        type=float,
        default=20,
        help=f"leave out variants below; at least {LEAST_MINOR_ALLELE_COUNT}",
    )
    add("--dataset-coding", choices=("int16", "float32"), default="int16", help="coding of z")
    add("--genome-build", choices=("", "GRCh37", "GRCh38"), default="", help="build of positions")


def add_clump_options(arguments: argparse.ArgumentParser) -> None:
    """Add the options of the stages that clump variants, which must be the same in all."""
    add = arguments.add_argument
    add("--clump-r2", type=number_between(0, 1), default=0.1, help="least LD within a clump")
    add(
        "--clump-kb",
        type=number_between(0, 1e6),
        default=250.0,
        help="kilobases on either side of a lead variant",
    )


def check_minor_allele_count(number: float) -> None:
    """Refuse to write a dataset that would show single people's images.

    Raises
    ------
    InputError
        The least number of minor alleles is below ``LEAST_MINOR_ALLELE_COUNT``.
    """
    if not number >= LEAST_MINOR_ALLELE_COUNT:
        raise InputError(
            f"--minor-allele-count {number:g} is below {LEAST_MINOR_ALLELE_COUNT}: rarer variants "
            "would show single people's images"
        )


def names(text: str) -> list[str]:
    """Parse a comma-separated list of names; empty text is an empty list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def run(
    main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None
) -> None:
    """Run an entrypoint and exit: 0 done, 2 bad input, 74 I/O, 137 out of memory.

    Errors of the program itself keep their traceback and end with status 1.
    """
    try:
        sys.exit(main(argv) or 0)
    except InputError as error:
        _say(f"ERROR: {error}")
        sys.exit(EXIT_INPUT)
    except MemoryError as error:
        _say(f"ERROR: out of memory ({error}); give the task more memory or smaller chunks")
        sys.exit(EXIT_MEMORY)
    except OSError as error:
        _say(f"ERROR: {error.filename or 'input/output'}: {error.strerror or error}")
        sys.exit(EXIT_IO)


@contextlib.contextmanager
def threads(number: int):
    """Limit the threads of BLAS, OpenMP and numba within the block."""
    import threadpoolctl

    with threadpoolctl.threadpool_limits(limits=number):
        yield


def require_file(path: Path, what: str) -> Path:
    """Return the path of a file that exists and is not empty.

    Raises
    ------
    InputError
        It is absent or has no content.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file ({what})")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty ({what})")
    return path


def report(message: str) -> None:
    """Write one line of progress to standard error."""
    _say(message)


def warn(message: str, warnings: list[str]) -> None:
    """Write a warning to standard error and keep it for the summary."""
    warnings.append(message)
    _say(f"WARNING: {message}")


def state_memory(what: str, number_of_bytes: float) -> None:
    """Say beforehand how much memory a stage will take."""
    _say(f"memory: about {number_of_bytes / 2**20:,.0f} MiB for {what}")


def progress(items: Iterable, total: int, what: str, every_seconds: float = 15.0):
    """Yield the items and write ``what i of N`` now and then."""
    last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last > every_seconds or (done == total and total > 1):
            _say(f"{what} {done} of {total}")
            last = now


def write_summary(
    path: Path | None, stage: str, numbers: Mapping[str, Any], warnings: Sequence[str] = ()
) -> None:
    """Write a stage's counts, numbers and warnings as JSON (nothing if ``path`` is None).

    The file holds no time and no path, so equal runs give equal bytes.
    """
    if path is None:
        return
    content = {"stage": stage, "numbers": dict(numbers), "warnings": list(warnings)}
    with replacing(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=1, sort_keys=True, default=_json_value) + "\n"
        )


def _json_value(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
