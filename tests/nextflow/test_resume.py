"""What runs again after a change, and what does not (``-stub-run``)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("nextflow-stub")

STAGES = sorted(
    path.parent.name for path in (Path(__file__).parents[2] / "modules").glob("*/main.nf")
)
# What the simulated study has no input for.
OTHER_INPUTS = {"convert_genotypes", "import_ldrs", "import_sumstats"}
REACHED = {stage.upper() for stage in STAGES if stage not in OTHER_INPUTS}
AFTER_FIT_BASES = {
    "FIT_BASES",
    "PROJECT_IMAGES",
    "MAKE_LDRS",
    "FIT_NULL",
    "COMPONENT_GWAS",
    "MINIMAL_DATASET",
    "IMAGE_TAIL",
    "SCAN_VOXELS",
    "FIND_LOCI",
    "HERITABILITY",
    "CROSS_TRAIT",
    "CROSS_TRAIT_TABLE",
    "REPORT",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, nextflow, pipeline_copy):
    """Return the launch folder of a finished stub run."""
    folder = tmp_path_factory.mktemp("stub")
    run = nextflow(folder, "-profile", "test", "-stub-run", pipeline=pipeline_copy / "main.nf")
    assert run.returncode == 0, run.text
    assert run.processes("COMPLETED") == REACHED
    return folder


@pytest.fixture
def again(folder, nextflow, pipeline_copy):
    """Return a function that runs once more with ``-resume`` and tells what was not cached."""

    def resume(*arguments):
        run = nextflow(
            folder,
            "-profile",
            "test",
            "-stub-run",
            "-resume",
            *arguments,
            pipeline=pipeline_copy / "main.nf",
        )
        assert run.returncode == 0, run.text
        assert run.processes("CACHED") | run.processes("COMPLETED") == REACHED
        return run.processes("COMPLETED")

    return resume


@pytest.fixture
def edited(pipeline_copy):
    """Return a function that changes a module's code; the change is taken back afterwards."""
    before = {}

    def edit(name):
        path = pipeline_copy / "bin/rvga" / name
        before[path] = path.read_text()
        path.write_text(before[path] + "\nCHANGED = True\n")

    yield edit
    for path, text in before.items():
        path.write_text(text)


def test_nothing_runs_again_without_a_change(again):
    assert again("--publish_dir_mode", "symlink") == set()


def test_a_late_option_runs_late_stages_only(again):
    assert again("--clump_r2", "0.2") == {"FIND_LOCI", "REPORT"}


def test_code_of_the_report_runs_the_report_again(again, edited):
    edited("report.py")
    assert again() == {"REPORT"}


def test_code_of_the_representation_runs_what_follows_again(again, edited):
    edited("fpca.py")
    ran = again()
    assert ran >= AFTER_FIT_BASES
    assert not ran & {"READ_IMAGES", "PLAN_CHUNKS", "LD_BLOCKS", "LD_REFERENCE"}


def test_fingerprint_covers_every_module_that_a_stage_imports(tmp_path, nextflow, pipeline_copy):
    script = pipeline_copy / "fingerprint.nf"
    script.write_text(
        "include { importedSources } from './subworkflows/parameters/main'\n"
        "workflow {\n"
        f"    {STAGES!r}.each {{ stage ->\n"
        '        def start = file("${projectDir}/bin/rvga_${stage}.py")\n'
        "        def names = importedSources([start], []).collect { source -> source.name }\n"
        "        println(\"STAGE ${stage} ${names.sort().join(' ')}\")\n"
        "    }\n"
        "}\n"
    )
    run = nextflow(tmp_path, pipeline=script)
    assert run.returncode == 0, run.text
    found = {
        stage: set(names.split())
        for stage, names in re.findall(r"^STAGE (\S+) (.*)$", run.text, re.MULTILINE)
    }
    assert set(found) == set(STAGES)
    for stage in STAGES:
        entrypoint = pipeline_copy / f"bin/rvga_{stage}.py"
        expected = {path.name for path in imported(entrypoint, pipeline_copy / "bin/rvga")}
        assert expected <= found[stage], stage
        extra = found[stage] - expected
        assert all(not name.endswith(".py") for name in extra), (stage, extra)
    templates = {path.name for path in (pipeline_copy / "bin/rvga/templates").iterdir()}
    assert templates
    assert templates <= found["report"]


def imported(source: Path, package: Path) -> set[Path]:
    """Return a source and all files of the package that it imports, by the syntax tree."""
    seen: set[Path] = set()
    waiting = [source]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                module = ".".join(filter(None, ["rvga" if node.level else "", node.module]))
                names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
            for name in names:
                parts = name.split(".")
                if parts[0] != "rvga":
                    continue
                file = package.joinpath(*parts[1:]).with_suffix(".py")
                own = [package / "__init__.py"] + ([file] if len(parts) > 1 else [])
                waiting += [candidate for candidate in own if candidate.is_file()]
    return seen
