"""The ``slurm`` profile on a real scheduler, and what breaks on a cluster."""

from __future__ import annotations

import subprocess
import threading
import time

import pytest

from engine import command, results, run_environment
from system.conftest import attempts, from_dataset, need, scan_config

pytestmark = pytest.mark.xdist_group("slurm")


def test_results_equal_those_of_a_local_run(tmp_path, cluster, nextflow, local_run):
    seen: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            seen.update(cluster.call("squeue", "--noheader", "--format=%j").split())
            time.sleep(0.3)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run = nextflow(
            tmp_path, "-profile", "test,slurm", "-c", cluster.site, environment=cluster.environment
        )
    finally:
        ended.set()
        watcher.join()
    assert run.returncode == 0, run.text
    jobs = {name.split("_(")[0] for name in seen if name.startswith("nf-RVGA_")}
    assert {"nf-RVGA_REPRESENT_FIT_BASES", "nf-RVGA_WRITE_REPORT_REPORT"} <= jobs, seen
    assert results(tmp_path) == results(local_run.folder)


def test_a_task_out_of_memory_is_tried_again_with_more(
    tmp_path, nextflow, cluster, dataset, undisturbed
):
    # The scheduler looks once a second, when a scan may be over: memory is held until it has.
    holding = tmp_path / "holding.py"
    holding.write_text("import time\nheld = b'x' * (200 << 20)\ntime.sleep(30)\n")
    fault = scan_config(
        tmp_path,
        "memory = { task.attempt == 1 ? 40.MB : 2.GB }\n"
        f"beforeScript = {{ task.attempt == 1 ? 'python3 {holding}' : '' }}",
    )
    options = [*cluster.options(), "-c", fault, *from_dataset(dataset)]
    run = nextflow(tmp_path, *options, environment=cluster.environment)
    assert run.returncode == 0, run.text
    assert {row[0] for row in attempts(run) if row[2] == 1} == {"FAILED"}
    assert {row for row in attempts(run) if row[0] == "COMPLETED"} == {("COMPLETED", "0", 2)}
    assert results(tmp_path) == results(undisturbed.folder)


def test_a_lost_node_is_made_up_for(tmp_path, engine, cluster, dataset, undisturbed):
    """The node goes while it scans, without a word to the scheduler; the scan is done again."""
    # The first task to come waits to be lost.
    wait = f"if mkdir {tmp_path}/waits 2> /dev/null; then sleep 600; fi"
    fault = scan_config(tmp_path, f"beforeScript = '{wait}'")
    options = [*cluster.options(), "-c", fault, *from_dataset(dataset)]
    started = subprocess.Popen(
        command(engine, *options),
        cwd=tmp_path,
        env=run_environment(tmp_path, cluster.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        cluster.wait_for(
            lambda: "SCAN_VOXELS" in cluster.call("squeue", "--noheader", "--format=%j", "-t", "R"),
            seconds=240,
        )
        cluster.wait_for((tmp_path / "waits").is_dir)
        cluster.lose_node(tmp_path / "work")
        cluster.start_node()
        said, _ = started.communicate(timeout=240)
    finally:
        started.kill()
    assert started.returncode == 0, said
    run = undisturbed._replace(folder=tmp_path)
    assert sorted((status, n) for status, _, n in attempts(run)) == [
        ("COMPLETED", 1),
        ("COMPLETED", 2),
        ("FAILED", 1),
    ]
    assert results(tmp_path) == results(undisturbed.folder)


def test_a_file_that_one_node_does_not_see_is_named(
    tmp_path, nextflow, cluster, dataset, undisturbed
):
    """The folder of the dataset is not mounted on the node; mounted again, the run goes on."""
    need("unshare")
    probe = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", tmp_path],
        capture_output=True,
        check=False,
    )
    if probe.returncode:
        pytest.skip("this machine may not mount, so that a node cannot lose sight of a folder")
    shared = tmp_path / "shared"
    shared.mkdir()
    copy = shared / dataset.name
    copy.write_bytes(dataset.read_bytes())
    options = [*cluster.options(), *from_dataset(copy)]
    cluster.stop_node()
    cluster.start_node(hidden=shared)
    try:
        run = nextflow(tmp_path, *options, environment=cluster.environment)
    finally:
        cluster.stop_node()
        cluster.start_node()
    assert run.returncode != 0
    last = [line for line in run.text.splitlines() if line.startswith("ERROR ~")][-1]
    assert dataset.name in last, run.text
    assert "no such file" in last.lower(), run.text
    assert "Traceback" not in run.text
    assert not (tmp_path / "results/test/report.html").exists()
    again = nextflow(tmp_path, *options, "-resume", environment=cluster.environment)
    assert again.returncode == 0, again.text
    # The report tells the dataset's path.
    report, other = (path / "results/test/report.html" for path in (tmp_path, undisturbed.folder))
    assert report.read_text().replace(str(copy), str(dataset)) == other.read_text()
    expected = {**results(undisturbed.folder), "report.html": results(tmp_path)["report.html"]}
    assert results(tmp_path) == expected
