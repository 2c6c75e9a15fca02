"""What breaks on one machine: the run tries again or says what to do, and nothing is lost.

A full disk and a file cut short are in ``tests/nextflow/test_faults.py``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from engine import REPOSITORY, command, results, run_environment, submitted
from system.conftest import attempts, from_dataset, need, scan_config

pytestmark = pytest.mark.xdist_group("local")


def test_killed_and_too_slow_tasks_are_tried_again(tmp_path, nextflow, dataset, undisturbed):
    """The first attempt is killed in one task, as by a machine without memory; the second has no
    time; the third is left alone."""
    fault = scan_config(
        tmp_path,
        "beforeScript = { task.attempt == 1 ? '( sleep 0.3; kill -9 $$ ) &' : '' }\n"
        "time = { task.attempt == 2 ? 100.ms : 1.h }",
    )
    run = nextflow(tmp_path, "-c", fault, *from_dataset(dataset))
    assert run.returncode == 0, run.text
    tried = attempts(run)
    assert {row for row in tried if row[2] == 1} == {("FAILED", "137", 1)}
    assert {row[0] for row in tried if row[2] == 2} <= {"FAILED", "ABORTED"}
    assert {row for row in tried if row[2] == 3} == {("COMPLETED", "0", 3)}
    assert results(tmp_path) == results(undisturbed.folder)


def test_a_task_killed_in_every_attempt_ends_with_what_to_do(tmp_path, nextflow, dataset):
    fault = scan_config(tmp_path, "beforeScript = '( sleep 0.3; kill -9 $$ ) &'\nmaxRetries = 1")
    run = nextflow(tmp_path, "-c", fault, *from_dataset(dataset))
    assert run.returncode != 0
    assert {row[2] for row in attempts(run)} == {1, 2}
    last = [line for line in run.text.splitlines() if line.startswith("ERROR ~")][-1]
    assert "SCAN_VOXELS" in last
    assert "killed or out of memory in every attempt: give it more" in last
    assert not (tmp_path / "results/test/report.html").exists()


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


def start(engine, folder, *options) -> subprocess.Popen:
    """Start a run and return when it has started to scan."""
    started = subprocess.Popen(
        command(engine, *options),
        cwd=folder,
        env=run_environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 300
    while "SCAN_VOXELS" not in submitted(folder):
        assert started.poll() is None, started.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.2)
    return started


def test_a_second_run_is_refused_and_a_killed_one_resumed(
    tmp_path, engine, nextflow, dataset, undisturbed
):
    """While one run scans, another may not write there; then the first is killed, and resumed."""
    fault = scan_config(tmp_path, "beforeScript = 'sleep 600'")
    options = from_dataset(dataset)
    first = start(engine, tmp_path, "-c", fault, *options)
    try:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        outdir = tmp_path / "results/test"
        second = nextflow(elsewhere, *options[:-1], outdir)
        assert first.poll() is None
    finally:
        # The engine and every task that it runs: what is half written stays half written.
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        first.stdout.close()
    assert second.returncode == 2, second.text
    assert "another run is writing" in second.text
    assert str(outdir) in second.text
    assert "Submitted process" not in second.text
    assert not (outdir / "report.html").exists()
    run = nextflow(tmp_path, *options, "-resume")
    assert run.returncode == 0, run.text
    assert run.processes("CACHED") == {"IMAGE_TAIL"}
    assert run.processes("COMPLETED") == {"SCAN_VOXELS", "FIND_LOCI", "REPORT"}
    assert results(tmp_path) == results(undisturbed.folder)
