"""Every stage has all its partners, and the text passes the strict syntax."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from dataflow import STAGES
from engine import REPOSITORY

ENTRYPOINTS = sorted(path.stem.removeprefix("rvga_") for path in REPOSITORY.glob("bin/rvga_*.py"))


def test_entrypoints_and_modules_have_the_same_names():
    assert ENTRYPOINTS == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_stage_has_every_partner(stage):
    text = (REPOSITORY / f"modules/{stage}/main.nf").read_text()
    assert re.findall(r"^process (\w+)", text, re.MULTILINE) == [stage.upper()]
    entrypoint = REPOSITORY / f"bin/rvga_{stage}.py"
    assert entrypoint.is_file()
    assert os.access(entrypoint, os.X_OK), "the entrypoint is not executable"
    assert f"rvga_{stage}.py \\\\\n" in text
    assert (REPOSITORY / f"tests/cli/test_{stage}.py").is_file()
    assert (REPOSITORY / f"modules/{stage}/tests/main.nf.test").is_file()
    headings = re.findall(r"^#+ +`?(\w+)`?", _read("docs/output.md"), re.MULTILINE)
    assert stage.upper() in headings, "docs/output.md has no heading for the stage"


@pytest.mark.parametrize("stage", STAGES)
def test_module_has_the_common_form(stage):
    text = (REPOSITORY / f"modules/{stage}/main.nf").read_text()
    sections = ["label '", "input:", "output:", "script:", "stub:"]
    places = [text.find(section) for section in sections]
    assert places == sorted(places)
    assert -1 not in places
    inputs = text[text.index("input:") : text.index("output:")].strip().splitlines()
    assert inputs[-1].strip() == "val code"
    assert "--code ${code} \\\\\n" in text
    assert "--threads ${task.cpus} \\\\\n" in text
    assert ", emit: summary" in text
    assert not re.search(r"\bparams\.(?!json)", text)
    assert "task.ext" not in text
    commands = text[text.index("script:") :]
    assert not re.search(r"(?<![\w.])rvga(?![\w.])", commands), "the bare word rvga is a command"


@pytest.mark.parametrize("stage", STAGES)
def test_the_test_of_a_module_gives_every_input(stage):
    """For machines without nf-test, which would say so."""
    text = _read(f"modules/{stage}/main.nf")
    declared = text[text.index("input:") : text.index("output:")].strip().splitlines()[1:]
    n_inputs = len([line for line in declared if line.strip() and "//" not in line.split()[0]])
    tests = re.split(r"\n    test\(", _read(f"modules/{stage}/tests/main.nf.test"))[1:]
    assert tests
    for test in tests:
        given = test[test.index("when {") : test.index("then {")]
        numbers = {int(number) for number in re.findall(r"input\[(\d+)\]", given)}
        assert numbers == set(range(n_inputs))


def test_nothing_but_the_entry_workflow_reads_params():
    for path in [*REPOSITORY.glob("workflows/*.nf"), *REPOSITORY.glob("subworkflows/*/main.nf")]:
        # The file params.json is no parameter.
        assert not re.search(r"\bparams\.(?!json)", path.read_text()), path


def test_version_is_the_same_everywhere():
    version = re.search(r'VERSION = "(.+)"', _read("bin/rvga/version.py")).group(1)
    config = _read("nextflow.config")
    assert re.search(r"version +=? '(.+)'", config).group(1) == version
    assert f"'rvga:{version}'" in config


@pytest.mark.xdist_group("nextflow-parameters")
def test_strict_syntax_has_no_error(tmp_path):
    linter = REPOSITORY / ".engine/lint/bin/nextflow"
    if not linter.is_file():
        pytest.skip("the strict linter is not in .engine/lint (make lint fetches it)")
    names = ["main.nf", "nextflow.config", "workflows", "subworkflows", "modules", "conf"]
    done = subprocess.run(
        [str(linter), "lint", *(str(REPOSITORY / name) for name in names)],
        cwd=tmp_path,
        env={
            **os.environ,
            "NXF_SYNTAX_PARSER": "v2",
            "NXF_OFFLINE": "true",
            "NXF_ANSI_LOG": "false",
            "NXF_HOME": str(tmp_path / "home"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "had no errors" in done.stdout
    assert not re.search(r"\d+ files? had \d+ error", done.stdout), done.stdout


def _read(name: str) -> str:
    path = REPOSITORY / name
    assert path.is_file(), f"{name} is missing"
    return path.read_text()
