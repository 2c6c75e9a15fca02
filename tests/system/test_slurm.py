"""The ``slurm`` profile on a real scheduler."""

from __future__ import annotations

import threading
import time

from system.conftest import results


def test_results_equal_those_of_a_local_run(tmp_path, cluster, nextflow, local_run):
    seen: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            seen.update(cluster.call("squeue", "--noheader", "--format=%j").split())
            time.sleep(0.2)

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
    jobs = {name for name in seen if name.startswith("nf-RVGA_")}
    assert {"nf-RVGA_REPRESENT_FIT_BASES", "nf-RVGA_WRITE_REPORT_REPORT"} <= {
        name.split("_(")[0] for name in jobs
    }, seen
    assert results(tmp_path) == results(local_run.folder)
