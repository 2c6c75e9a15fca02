"""As in a cloud: nothing shared with the launch folder, and one task a genotype file."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from engine import copy_pipeline, results

pytestmark = pytest.mark.xdist_group("nextflow-cloud")

# What depends on how the GWAS was divided: the report tells it.
TELLING = {"report.html", "software_versions.tsv"}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, study_arguments, nextflow):
    """Return a finished run as a cloud would do it, and the folder of programs it used.

    Tasks work on copies of their inputs, in a work folder that is reached by another path than
    the launch folder; they have no home, and take programs from an uploaded copy of ``bin``.
    """
    folder: Path = tmp_path_factory.mktemp("launch")
    far = tmp_path_factory.mktemp("far")
    (far / "real").mkdir()
    (far / "work").symlink_to(far / "real")
    uploaded = far / "uploaded/bin"
    shutil.copytree(copy_pipeline(far) / "bin", uploaded)
    python = Path(sys.executable).parent
    # Before a task: no home, and PATH is the uploaded programs, Python's and the system's.
    (folder / "cloud.config").write_text(
        "process.scratch = true\n"
        "process.stageInMode = 'copy'\n"
        "process.beforeScript = '''\n"
        f"export HOME=/nonexistent PATH={uploaded}:{python}:/usr/local/bin:/usr/bin:/bin\n"
        f'[ "$(command -v rvga_report.py)" = {uploaded}/rvga_report.py ]\n'
        "'''\n"
    )
    run = nextflow(
        folder, *study_arguments, "-c", folder / "cloud.config",
        "-work-dir", far / "work", "--split_genotypes", "false",
        pipeline=far / "main.nf",
        environment={"NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR", str(far / "numba"))},
    )  # fmt: skip
    assert run.returncode == 0, run.text
    return run


def test_results_are_those_of_a_run_in_one_place_by_chunks(elsewhere, study_run):
    found, expected = results(elsewhere.folder, "results"), results(study_run.folder, "kept")
    assert set(found) == set(expected)
    different = {name for name in found if found[name] != expected[name]}
    assert different <= TELLING
    assert "study.rvga.h5" in found


def test_each_genotype_file_is_brought_to_one_task_of_the_gwas(elsewhere, study_run):
    tasks = elsewhere.tasks("results")["COMPLETED"]
    assert {name for name in tasks if name.startswith("COMPONENT_GWAS")} == {
        f"COMPONENT_GWAS (0000{file}.00001)" for file in (1, 2, 3)
    }
    chunks = study_run.tasks("kept")["COMPLETED"]
    assert len([name for name in chunks if name.startswith("COMPONENT_GWAS")]) > 3
    plans = elsewhere.folder.parent.glob("far*/real/*/*/chunks.tsv")
    [planned] = {path.resolve() for path in plans}
    staged = (planned.parent / ".command.run").read_text()
    assert ".pvar" in staged
    assert ".pgen" not in staged


def test_genotypes_are_brought_for_ld_by_chromosome_and_where_something_is_significant(elsewhere):
    found = pd.read_csv(
        elsewhere.folder / "results/loci/variants.tsv.gz", sep="\t", dtype={"chromosome": str}
    )
    chromosomes = set(found.loc[found["n_significant_voxels"] > 0, "chromosome"])
    assert chromosomes
    names = {f"CLUMP_VARIANTS (chromosome {name})" for name in chromosomes}
    tasks = elsewhere.tasks("results")["COMPLETED"]
    assert {name for name in tasks if name.startswith("CLUMP_VARIANTS")} == names
    works = {
        path.resolve().parent for path in elsewhere.folder.parent.glob("far*/real/*/*/clumps.*.h5")
    }
    assert len(works) == len(chromosomes)
    for work in works:
        staged = set(re.findall(r"genotypes/\d+/(\S+?\.pgen)", (work / ".command.run").read_text()))
        [chromosome] = re.findall(r"--chromosome (\w+)", (work / ".command.sh").read_text())
        assert staged == {f"chr{chromosome}.pgen"}
    # The task that joins the clumps reads none.
    [joined] = {path.resolve() for path in elsewhere.folder.parent.glob("far*/real/*/*/loci.tsv")}
    assert ".pgen" not in (joined.parent / ".command.run").read_text()


def test_no_script_of_a_task_has_an_absolute_path(elsewhere):
    found = elsewhere.folder.parent.glob("far*/real/*/*/.command.sh")
    scripts = {path.resolve() for path in found}
    assert len(scripts) == len(elsewhere.trace("results"))
    for script in scripts:
        shebang, *lines = script.read_text().splitlines()
        assert shebang.startswith("#!/bin/bash")
        # The report's record of the parameters tells what the user named; no program opens it.
        commands = [line for line in lines if not line.startswith('{"')]
        assert not [line for line in commands if re.search(r"(?:^|[\s='\"])/", line)]
