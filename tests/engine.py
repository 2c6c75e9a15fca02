"""Runs of the pipeline on the engine: how it is found and started, and how tests share a run."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
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

    def trace(self, outdir: str = "results/test") -> list[dict[str, str]]:
        """Return the rows of the trace: one for every attempt of every task."""
        with (self.folder / outdir / "pipeline_info/trace.tsv").open() as lines:
            return list(csv.DictReader(lines, delimiter="\t"))

    def tasks(self, outdir: str = "results/test") -> dict[str, set[str]]:
        """Return the tasks' names by status (``COMPLETED``, ``CACHED`` …) from the trace."""
        found: dict[str, set[str]] = {}
        for row in self.trace(outdir):
            found.setdefault(row["status"], set()).add(row["name"].split(":")[-1])
        return found

    def processes(self, status: str, outdir: str = "results/test") -> set[str]:
        """Return the names of processes that have a task of this status."""
        return {name.split(" ")[0] for name in self.tasks(outdir).get(status, ())}


def find_engine() -> str:
    """Return the Nextflow executable: from PATH, else the one that the Makefile fetched."""
    if shutil.which("java") is None:
        pytest.skip("Java is not installed")
    own = REPOSITORY / ".engine/bin/nextflow"
    found = shutil.which("nextflow") or (str(own) if own.is_file() else None)
    if found is None:
        pytest.skip("Nextflow is neither on PATH nor in .engine (make setup fetches it)")
    return found


def run_environment(folder: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a run: the engine's own files inside ``folder``."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NXF_OFFLINE": "true",
        "NXF_ANSI_LOG": "false",
        "NXF_HOME": os.environ.get("NXF_HOME", str(folder / ".home")),
        "USER": os.environ.get("USER", "root"),
        **(extra or {}),
    }


def command(engine: str, *arguments: object, pipeline: Path = REPOSITORY / "main.nf") -> list[str]:
    """Return the words of ``nextflow run``."""
    return [engine, "run", str(pipeline), *map(str, arguments)]


def runner(engine: str) -> Callable[..., Run]:
    """Return a function that runs ``nextflow run <pipeline> <arguments>`` in a folder."""

    def run(
        folder: Path,
        *arguments: object,
        pipeline: Path = REPOSITORY / "main.nf",
        environment: Mapping[str, str] | None = None,
    ) -> Run:
        done = subprocess.run(
            command(engine, *arguments, pipeline=pipeline),
            cwd=folder,
            env=run_environment(folder, environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        return Run(done.returncode, done.stdout, folder)

    return run


def copy_pipeline(copy: Path) -> Path:
    """Copy the pipeline, for tests that change its code or add a script to it."""
    for name in PIPELINE:
        source = REPOSITORY / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "tests")
            shutil.copytree(source, copy / name, ignore=ignored)
        else:
            shutil.copy2(source, copy / name)
    return copy


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Run]) -> Run:
    """Return the run that ``make(folder)`` does, done by one of the test processes for all."""
    root = factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder, said = root / name, root / f"{name}.txt"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            run = make(folder)
            assert run.returncode == 0, run.text
            said.write_text(run.text)
    return Run(0, said.read_text(), folder)


def results(folder: Path, outdir: str = "results/test") -> dict[str, str]:
    """Return the digest of every published file but logs of the run, by relative path."""
    root = folder / outdir
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not name.startswith("pipeline_info/") and "execution" not in name:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def submitted(folder: Path) -> str:
    """Return the lines of the engine's log that tell which tasks were started."""
    log = folder / ".nextflow.log"
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return "\n".join(line for line in lines if "Submitted process" in line)


# ----------------------------------------------------------------------------------------------
# Many studies in one start of the engine
# ----------------------------------------------------------------------------------------------

# What a task's hash is made from, as the engine tells it: (process, task) → input → value.
Hashes = dict[tuple[str, str], dict[str, str]]


class Case(NamedTuple):
    """One study of several in a run of stubs: what its tasks are made from, what was said."""

    hashes: Hashes
    not_run: list[str]

    def processes(self) -> set[str]:
        """Return the processes that have a task."""
        return {process for process, _ in self.hashes}


SEVERAL = """
include {{ checkParameters; reachedSteps; unreachedMessages }} from './subworkflows/parameters/main'
include {{ {aliases} }} from './workflows/rvga'

workflow {{
    def cases = new groovy.json.JsonSlurper().parseText(file(params.cases).text)
    def defaults = params.findAll {{ name, _value -> name != 'cases' }}
    def options = cases.collect {{ given -> checkParameters(defaults + given) }}
    def steps = options.collect {{ given -> reachedSteps(given) }}
    def said = steps.collect {{ one -> unreachedMessages(one) }}
    file('not_run.json').text = groovy.json.JsonOutput.toJson(said)
{calls}
}}
"""


def run_several(nextflow, pipeline: Path, folder: Path, cases: list[dict]) -> list[Case]:
    """Run the pipeline's stubs on several sets of parameters in one start of the engine.

    Parameters
    ----------
    nextflow
        The function of :func:`runner`.
    pipeline
        A copy of the pipeline, in which a script is written.
    folder
        The launch folder: files named in the parameters are looked for there.
    cases
        The parameters of each.
    """
    numbers = [f"{number:03d}" for number in range(len(cases))]
    # One include of all: the strict parser refuses a script that is included twice.
    aliases = "; ".join(f"RVGA as RVGA_{k}" for k in numbers)
    calls = [f"    RVGA_{k}(options[{int(k)}], steps[{int(k)}], 'engine')" for k in numbers]
    script = pipeline / "several.nf"
    script.write_text(SEVERAL.format(aliases=aliases, calls="\n".join(calls)))
    (folder / "cases.json").write_text(json.dumps(cases))
    config = folder / "several.config"
    config.write_text("process { withName: '.*' { cpus = 1 } }\nexecutor.pollInterval = '50 ms'\n")
    arguments = ("-c", config, "--cases", "cases.json", "-dump-hashes", "json", "-stub-run")
    run = nextflow(folder, *arguments, "--outdir", "out", pipeline=script)
    assert run.returncode == 0, run.text
    not_run = json.loads((folder / "not_run.json").read_text())
    hashes = task_hashes(folder)
    return [
        Case({key[1:]: inputs for key, inputs in hashes.items() if key[0] == k}, said)
        for k, said in zip(numbers, not_run, strict=True)
    ]


SAYING = """
include { checkParameters; studyFiles } from './subworkflows/parameters/main'

def say(given) {
    try {
        studyFiles(checkParameters(params.findAll { name, _value -> name != 'cases' } + given))
        return 'nothing'
    }
    catch (Exception refused) {
        return (refused.cause ?: refused).message
    }
}

workflow {
    def cases = new groovy.json.JsonSlurper().parseText(file(params.cases).text)
    file('said.json').text = groovy.json.JsonOutput.toJson(cases.collect { given -> say(given) })
}
"""


def say_to_each(nextflow, pipeline: Path, folder: Path, cases: list[dict]) -> list[str]:
    """Return what the pipeline says to each set of parameters before it runs a task.

    All are tried in one start of the engine; ``nothing`` is said to those that are right.
    Arguments as in :func:`run_several`.
    """
    script = pipeline / "saying.nf"
    script.write_text(SAYING)
    (folder / "cases.json").write_text(json.dumps(cases))
    run = nextflow(folder, "--cases", "cases.json", pipeline=script)
    assert run.returncode == 0, run.text
    return json.loads((folder / "said.json").read_text())


def task_hashes(folder: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    """Return (number, process, task) → input → value, from the hashes in the engine's log."""
    log = (folder / ".nextflow.log").read_text()
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    pattern = r"\[RVGA_(\d+):([\w:]+)( \(\d+\))?\] cache hash: \w+; mode: \w+; entries: "
    for match in re.finditer(pattern, log):
        entries, _ = json.JSONDecoder().raw_decode(log, match.end())
        # Session, process and script; then every input's name and value, the last one code.
        values = [str(entry["value"]) for entry in entries[3:]]
        inputs = dict(zip(values[0::2], values[1::2], strict=False))
        number, name, task = match.groups()
        end = list(inputs).index("code")
        process = name.split(":")[-1]
        found[number, process, f"{name}{task or ''}"] = dict(list(inputs.items())[: end + 1])
    return found
