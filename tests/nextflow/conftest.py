"""Fixtures for runs of the pipeline on the engine."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PIPELINE = (
    "main.nf",
    "nextflow.config",
    "nextflow_schema.json",
    "workflows",
    "subworkflows",
    "modules",
    "conf",
    "assets",
    "bin",
)


class Run(NamedTuple):
    """How a run ended: exit status, everything it printed, and the folder it ran in."""

    returncode: int
    text: str
    folder: Path

    def tasks(self, outdir: str = "results/test") -> dict[str, set[str]]:
        """Return the tasks' names by status (``COMPLETED``, ``CACHED`` …) from the trace."""
        found: dict[str, set[str]] = {}
        with (self.folder / outdir / "pipeline_info/trace.tsv").open() as lines:
            for row in csv.DictReader(lines, delimiter="\t"):
                name = row["name"].split(":")[-1]
                found.setdefault(row["status"], set()).add(name)
        return found

    def processes(self, status: str, outdir: str = "results/test") -> set[str]:
        """Return the names of processes that have a task of this status."""
        return {name.split(" ")[0] for name in self.tasks(outdir).get(status, ())}


@pytest.fixture(scope="session")
def engine() -> str:
    """Return the Nextflow executable: from PATH, else the one that the Makefile fetched."""
    if shutil.which("java") is None:
        pytest.skip("Java is not installed")
    own = REPOSITORY / ".engine/bin/nextflow"
    found = shutil.which("nextflow") or (str(own) if own.is_file() else None)
    if found is None:
        pytest.skip("Nextflow is neither on PATH nor in .engine (make setup fetches it)")
    return found


@pytest.fixture(scope="session")
def nextflow(engine: str) -> Callable[..., Run]:
    """Return a function that runs ``nextflow run <pipeline> <arguments>`` in a folder."""

    def run(folder: Path, *arguments: object, pipeline: Path = REPOSITORY / "main.nf") -> Run:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "NXF_OFFLINE": "true",
            "NXF_ANSI_LOG": "false",
            "NXF_HOME": os.environ.get("NXF_HOME", str(folder / ".home")),
        }
        done = subprocess.run(
            [engine, "run", str(pipeline), *map(str, arguments)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        return Run(done.returncode, done.stdout, folder)

    return run


@pytest.fixture(scope="session")
def pipeline_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the pipeline whose code a test may change."""
    copy = tmp_path_factory.mktemp("pipeline")
    for name in PIPELINE:
        source = REPOSITORY / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "tests")
            shutil.copytree(source, copy / name, ignore=ignored)
        else:
            shutil.copy2(source, copy / name)
    return copy
