#!/usr/bin/env python3
"""What a task costs before it does anything: the engine's share and the start of the program.

Runs the stubs of the smallest study (scripts that only touch their outputs) and starts every
entrypoint with ``--help``, which imports all it needs. Prints one line of JSON:

- ``engine_seconds``: median and largest time of a stub's task from its submission to its end;
- ``engine_cpu_seconds``: processor time of the engine's run (its own start included), by task;
- ``start_cpu_seconds``: processor time of each entrypoint's start, the least of three.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def main() -> None:
    """Run the measurement."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    result = engine() | {"start_cpu_seconds": starts()}
    print(json.dumps(result, sort_keys=True))


def engine() -> dict[str, object]:
    """Return times of the tasks of a stub run."""
    with tempfile.TemporaryDirectory() as folder:
        before = children()
        subprocess.run(
            ["nextflow", "run", ROOT / "main.nf", "-profile", "test", "-stub-run"],
            cwd=folder, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        used = children() - before
        with (Path(folder) / "results/test/pipeline_info/trace.tsv").open() as lines:
            durations = [seconds(row["duration"]) for row in csv.DictReader(lines, delimiter="\t")]
    return {
        "tasks": len(durations),
        "engine_seconds": [statistics.median(durations), max(durations)],
        "engine_cpu_seconds": used / len(durations),
    }


def starts() -> dict[str, float]:
    """Return the processor time of each entrypoint's start."""
    found = {}
    for path in sorted((ROOT / "bin").glob("rvga_*.py")):
        times = []
        for _ in range(3):
            before = children()
            subprocess.run(
                [sys.executable, path, "--help"], check=True, stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )  # fmt: skip
            times.append(children() - before)
        found[path.stem.removeprefix("rvga_")] = round(min(times), 2)
    return found


def children() -> float:
    """Return the processor time of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds(text: str) -> float:
    """Return a duration of the trace (``1m 2s``, ``731ms``) in seconds."""
    total = 0.0
    for word in text.split():
        number = word.rstrip("hms")
        total += float(number) * UNITS[word[len(number) :]]
    return total


if __name__ == "__main__":
    main()
