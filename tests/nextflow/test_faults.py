"""Killed, disk full, a file cut short: what is said, and that ``-resume`` mends it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from engine import REPOSITORY
from nextflow.conftest import study_options

pytestmark = pytest.mark.xdist_group("nextflow-study")

COMPARED = (
    "study.rvga.h5",
    "bases.h5",
    "loci/tail.h5",
    "loci/variants.tsv.gz",
    "loci/pairs.tsv.gz",
    "loci/voxels.tsv",
    "loci/loci.tsv",
    "loci/lead_variants.tsv",
    "report.html",
)
# The first attempt of the first chunk kills itself when the chunk is written and about to get its
# name. Python reads the module ``sitecustomize`` of this folder when it starts.
KILLER = """
if mkdir '{once}' 2>/dev/null; then
  export PYTHONPATH='{once}'
  cat > '{once}/sitecustomize.py' <<'MODULE'
import os, signal
rename = os.replace
def replace(source, target):
    if os.path.basename(target).startswith("gwas."):
        with open("{once}/files", "w") as names:
            names.write("\\n".join(os.listdir()))
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.replace = replace
MODULE
fi
"""
# Cuts a finished chunk to half when the chunks are about to be joined, once.
CUTTER = """
if mkdir '{once}' 2>/dev/null; then
  for file in '{work}'/*/*/gwas.*.h5; do
    [ "$(cat "${file%/*}/.exitcode")" = 0 ] || continue
    truncate -s $(( $(stat -c %s "$file") / 2 )) "$file"
    echo "$file" > '{once}/file'
    break
  done
fi
"""
# Tasks that fail: one says why, beside words in another encoding; those of the others are gone.
FAILING = r"""
process SPEAKS {
    script:
    '''
    printf 'caf\351\nERROR: a.tsv, line 2: is wrong; mend it\n' >&2
    exit 2
    '''
}

process MUTE {
    script:
    '''
    rm .command.err
    mkdir .command.err
    exit 2
    '''
}

process LOST {
    script:
    '''
    rm -r "$PWD"
    exit 2
    '''
}

workflow {
    SPEAKS()
    MUTE()
    LOST()
}
"""


@pytest.fixture(scope="module")
def study(study_run, nextflow):
    """Return the folder of a run, a function that resumes it, and its results.

    It goes on from the run that tests share, with a chunk a chromosome: a file system too small
    for a chunk has then room for what the engine puts beside it.
    """
    folder = study_run.folder
    for path in folder.glob("work/*/*/gwas.*.h5"):
        path.unlink()

    def run(*options):
        return nextflow(folder, *study_options(folder, chunk_variants=20000), "-resume", *options)

    first = run()
    assert first.returncode == 0, first.text
    before = {name: (folder / "results" / name).read_bytes() for name in COMPARED}
    return folder, run, before


def forget_chunks(folder: Path) -> None:
    """Take the chunks and the results away: the next run makes them again."""
    chunks = [path for path in folder.glob("work/*/*/gwas.*.h5") if not path.is_symlink()]
    assert len(chunks) >= 3
    for path in chunks:
        path.unlink()
    shutil.rmtree(folder / "results")


def config(folder: Path, process: str, line: str) -> list:
    """Return the options that add a line to the configuration of a process."""
    path = folder / f"{process.lower()}.config"
    path.write_text(f"process {{ withName: '{process}' {{ {line} }} }}\n")
    return ["-c", path]


def script(folder: Path, name: str, text: str) -> tuple[str, Path]:
    """Return a directive that runs a script before a task, and the folder that it makes once."""
    once = folder / f"{name}.done"
    path = folder / f"{name}.sh"
    path.write_text(text.replace("{once}", str(once)).replace("{work}", str(folder / "work")))
    return f"beforeScript = 'source {path}'", once


def same_as_undisturbed(folder: Path, before: dict[str, bytes]) -> None:
    """Compare the published files."""
    different = [
        n for n, content in before.items() if (folder / "results" / n).read_bytes() != content
    ]
    assert different == []


def test_disk_full_names_the_file_and_is_not_tried_again(study, tmp_path):
    folder, run, _ = study
    chunks = [path for path in folder.glob("work/*/*/gwas.*.h5") if not path.is_symlink()]
    smallest = min(path.stat().st_size for path in chunks)
    small = tmp_path / "small"
    small.mkdir()
    # In pages of 4 kB: less than the smallest chunk.
    size = f"size={smallest // 4096 * 4}k"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no small file system can be mounted here (needs root)")
    forget_chunks(folder)
    try:
        done = run(*config(folder, "COMPONENT_GWAS", f"scratch = '{small}'; maxForks = 1"))
    finally:
        subprocess.run(["umount", "-l", small], check=True)
    assert done.returncode != 0
    assert re.search(r"ERROR: \S*gwas\.\S+\.h5: No space left on device", done.text), done.text
    assert re.search(r"Command exit status:\s+74", done.text), done.text
    assert "COMPONENT_GWAS" not in " ".join(done.processes("COMPLETED", "results"))
    assert not (folder / "results/study.rvga.h5").exists()


def test_killed_in_the_middle_and_a_chunk_cut_short(study):
    """A killed chunk is tried again; a chunk cut short is named; ``-resume`` then mends all."""
    folder, run, before = study
    if any(path for path in folder.glob("work/*/*/gwas.*.h5") if not path.is_symlink()):
        forget_chunks(folder)
    kill, killed = script(folder, "kill", KILLER)
    cut, was_cut = script(folder, "cut", CUTTER)
    options = [*config(folder, "COMPONENT_GWAS", kill), *config(folder, "MINIMAL_DATASET", cut)]
    done = run(*options)
    # Killed when the chunk was whole but for its name.
    files = (killed / "files").read_text().split()
    assert [name for name in files if re.fullmatch(r"gwas\.[0-9.]+\.h5", name)] == []
    assert [name for name in files if "gwas." in name] != []
    attempts = [row for row in done.trace("results") if "COMPONENT_GWAS" in row["name"]]
    assert ("137", "1", "FAILED") in [(r["exit"], r["attempt"], r["status"]) for r in attempts]
    assert [r["status"] for r in attempts if r["attempt"] == "2"] == ["COMPLETED"]
    # The chunk that was cut between the two stages.
    assert done.returncode != 0
    damaged = Path((was_cut / "file").read_text().strip())
    assert re.search(rf"ERROR: \S*{re.escape(damaged.name)}: ", done.text), done.text
    assert "Traceback" not in done.text
    damaged.unlink()
    mended = run()
    assert mended.returncode == 0, mended.text
    same_as_undisturbed(folder, before)
    # The damaged chunk is made again, and no chunk that was never touched. (The engine looks for
    # what a second attempt made where an undisturbed history would have put it.)
    again = {name for name in mended.tasks("results")["COMPLETED"] if "COMPONENT_GWAS" in name}
    touched = {row["name"].split(":")[-1] for row in attempts if row["status"] == "FAILED"}
    cut_chunk = f"COMPONENT_GWAS ({damaged.name.removeprefix('gwas.').removesuffix('.h5')})"
    assert again - touched == {cut_chunk} - touched
    assert cut_chunk in again


def test_what_a_task_said_comes_first_and_its_loss_is_no_fault_of_the_engine(tmp_path, nextflow):
    base = REPOSITORY / "conf/base.config"
    (tmp_path / "failing.nf").write_text(FAILING)
    (tmp_path / "failing.config").write_text(
        f"includeConfig '{base}'\nprocess.resourceLimits = [:]\nexecutor.cpus = 4\n"
    )
    run = nextflow(tmp_path, "-c", tmp_path / "failing.config", pipeline=tmp_path / "failing.nf")
    assert run.returncode != 0
    said = [line for line in run.text.splitlines() if line.startswith("ERROR ~")]
    assert "ERROR ~ SPEAKS: a.tsv, line 2: is wrong; mend it" in said
    assert "Execution aborted due to an unexpected error" not in run.text
