"""What breaks on purpose: the run tries again or says what to do, and nothing is lost.

Most cases start from the minimal dataset of an undisturbed run and stop with its loci: the
shortest run that has tasks of every kind of trouble.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from system.conftest import REPOSITORY, need, results, run_environment

OPTIONS = ("--scan_parts", "2", "--tail_draws", "2000", "--outdir", "results/test")


@pytest.fixture(scope="module")
def dataset(local_run) -> Path:
    """Return the minimal dataset of the undisturbed run."""
    return local_run.folder / "results/test/test.rvga.h5"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, nextflow, dataset) -> dict[str, str]:
    """Return the digests of the results that every case must end with."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run = nextflow(folder, "--minimal", dataset, *OPTIONS)
    assert run.returncode == 0, run.text
    return results(folder)


def configured(folder: Path, text: str) -> Path:
    """Return a configuration file with this text."""
    path = folder / "fault.config"
    path.write_text(f"process {{ withName: 'SCAN_VOXELS' {{\n{text}\n}} }}\n")
    return path


def attempts(folder: Path) -> list[tuple[str, str, int]]:
    """Return (status, exit, attempt) of every attempt of SCAN_VOXELS."""
    lines = (folder / "results/test/pipeline_info/trace.tsv").read_text().splitlines()
    header = lines[0].split("\t")
    rows = [dict(zip(header, line.split("\t"), strict=True)) for line in lines[1:]]
    return sorted(
        (row["status"], row["exit"], int(row["attempt"]))
        for row in rows
        if "SCAN_VOXELS" in row["name"]
    )


def test_a_killed_task_is_tried_again(tmp_path, nextflow, dataset, undisturbed):
    fault = configured(
        tmp_path, "beforeScript = { task.attempt == 1 ? '( sleep 0.3; kill -9 $$ ) &' : '' }"
    )
    run = nextflow(tmp_path, "--minimal", dataset, "-c", fault, *OPTIONS)
    assert run.returncode == 0, run.text
    assert ("FAILED", "137", 1) in attempts(tmp_path)
    assert {row for row in attempts(tmp_path) if row[0] == "COMPLETED"} == {("COMPLETED", "0", 2)}
    assert results(tmp_path) == undisturbed


def test_a_task_over_its_time_is_tried_again_with_more(tmp_path, nextflow, dataset, undisturbed):
    fault = configured(tmp_path, "time = { task.attempt == 1 ? 100.ms : 1.h }")
    run = nextflow(tmp_path, "--minimal", dataset, "-c", fault, *OPTIONS)
    assert run.returncode == 0, run.text
    assert any(status in ("FAILED", "ABORTED") for status, _, n in attempts(tmp_path) if n == 1)
    assert {row for row in attempts(tmp_path) if row[0] == "COMPLETED"} == {("COMPLETED", "0", 2)}
    assert results(tmp_path) == undisturbed


def test_a_task_out_of_memory_is_tried_again_with_more(
    tmp_path, nextflow, cluster, dataset, undisturbed
):
    fault = configured(tmp_path, "memory = { task.attempt == 1 ? 40.MB : 2.GB }")
    run = nextflow(
        tmp_path, "-profile", "slurm", "-c", cluster.site, "-c", fault, "--minimal", dataset,
        *OPTIONS, environment=cluster.environment,
    )  # fmt: skip
    assert run.returncode == 0, run.text
    assert any(status == "FAILED" for status, _, n in attempts(tmp_path) if n == 1)
    assert {row for row in attempts(tmp_path) if row[0] == "COMPLETED"} == {("COMPLETED", "0", 2)}
    assert results(tmp_path) == undisturbed


def test_a_file_that_may_not_be_read_is_named(tmp_path, dataset):
    need("setpriv")
    closed = tmp_path / "closed.rvga.h5"
    closed.write_bytes(dataset.read_bytes())
    closed.chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o011)
    task = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", sys.executable,
         REPOSITORY / "bin/rvga_image_tail.py", "--dataset", closed, "--out", "tail.h5"],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert task.returncode == 74, task.stderr
    assert str(closed) in task.stderr
    assert "Traceback" not in task.stderr


def test_a_killed_head_job_is_resumed(tmp_path, engine, nextflow, local_run):
    started = subprocess.Popen(
        [engine, "run", REPOSITORY / "main.nf", "-profile", "test"],
        cwd=tmp_path,
        env=run_environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    log = tmp_path / ".nextflow.log"
    end = time.monotonic() + 300
    while not (log.is_file() and "COMPONENT_GWAS" in submitted(log)):
        assert started.poll() is None
        assert time.monotonic() < end
        time.sleep(0.2)
    # The engine and every task that it runs: what is half written stays half written.
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    assert not (tmp_path / "results/test/report.html").exists()
    run = nextflow(tmp_path, "-profile", "test", "-resume")
    assert run.returncode == 0, run.text
    trace = (tmp_path / "results/test/pipeline_info/trace.tsv").read_text()
    assert "\tCACHED\t" in trace
    assert results(tmp_path) == results(local_run.folder)


def submitted(log: Path) -> str:
    """Return the lines of the engine's log that tell which tasks were started."""
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(line for line in lines if "Submitted process" in line)


def test_a_second_run_into_one_folder_is_refused(tmp_path, engine, nextflow, dataset, undisturbed):
    fault = configured(tmp_path, "beforeScript = 'sleep 20'")
    arguments = [
        "run", REPOSITORY / "main.nf", "-c", fault, "--minimal", dataset, *OPTIONS
    ]  # fmt: skip
    first = subprocess.Popen(
        [engine, *map(str, arguments)],
        cwd=tmp_path,
        env=run_environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log = tmp_path / ".nextflow.log"
    end = time.monotonic() + 120
    while not (log.is_file() and "SCAN_VOXELS" in submitted(log)):
        assert time.monotonic() < end
        time.sleep(0.2)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    outdir = tmp_path / "results/test"
    second = nextflow(elsewhere, "--minimal", dataset, *OPTIONS[:-1], outdir)
    said, _ = first.communicate(timeout=300)
    assert second.returncode == 2, second.text
    assert "another run is writing" in second.text
    assert str(outdir) in second.text
    assert first.returncode == 0, said
    assert results(tmp_path) == undisturbed
