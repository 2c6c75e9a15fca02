"""Machine code is kept for later processes, and never outlives its source."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "bin" / "rvga" / "machine_code.py"
KERNEL = """
import numpy as np
from rvga.constants import FACTOR
from rvga.machine_code import compiled

@compiled
def inner(x):
    return x * FACTOR

@compiled
def outer(x):
    return inner(x) + 1
"""
CALL = """
import sys
import numpy as np
from rvga.kernels import outer
values = {"int": 10, "float": 10.5, "complex": 1j}
for name in sys.argv[1:]:
    print(outer(values[name]), end=" ")
print(len(outer.stats.cache_hits), end="")
"""


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "rvga"
    folder.mkdir()
    shutil.copy(SOURCE, folder)
    (folder / "__init__.py").touch()
    (folder / "constants.py").write_text("FACTOR = 2\n")
    (folder / "kernels.py").write_text(KERNEL)
    return folder


def start(package: Path, folder: Path | str, *kinds: str) -> subprocess.Popen:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": str(package.parent)}
    return subprocess.Popen(
        [sys.executable, "-c", CALL, *kinds],
        cwd=package.parent, env=environment, text=True, stdout=subprocess.PIPE,
    )  # fmt: skip


def answer(process: subprocess.Popen) -> list[str]:
    out, _ = process.communicate()
    assert process.returncode == 0
    return out.split()


def call(package: Path, folder: Path | str, *kinds: str) -> list[str]:
    return answer(start(package, folder, *kinds))


def test_a_later_process_loads_what_the_first_compiled(package, tmp_path):
    folder = tmp_path / "kept"
    assert call(package, folder, "int", "float") == ["21", "22.0", "0"]
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert len(files) == 4  # two functions, two kinds of arguments
    assert call(package, folder, "int", "float") == ["21", "22.0", "2"]
    assert files == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_changed_source_is_compiled_even_where_stamps_say_nothing(package, tmp_path):
    folder = tmp_path / "kept"
    call(package, folder, "int")
    # A number of another module, of the same length and with the same time.
    constants = package / "constants.py"
    stamp = constants.stat()
    constants.write_text("FACTOR = 3\n")
    os.utime(constants, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    shutil.rmtree(package / "__pycache__", ignore_errors=True)
    assert call(package, folder, "int") == ["31", "0"]


def test_a_copy_elsewhere_with_other_times_loads_it(package, tmp_path):
    folder = tmp_path / "kept"
    call(package, folder, "int")
    copy = tmp_path / "elsewhere" / "rvga"
    shutil.copytree(package, copy, copy_function=shutil.copyfile)
    assert call(copy, folder, "int") == ["21", "1"]


def test_processes_that_start_at_once_do_not_mix_kinds_of_arguments(package, tmp_path):
    folder = tmp_path / "kept"
    kinds = {"int": "21", "float": "22.0", "complex": "(1+2j)"}
    started = [(kind, start(package, folder, kind)) for kind in [*kinds] * 2]
    assert all(answer(process)[0] == kinds[kind] for kind, process in started)
    assert call(package, folder, *kinds) == [*kinds.values(), "3"]
    assert not list(folder.rglob("*.part"))


def test_damaged_files_are_compiled_anew(package, tmp_path):
    folder = tmp_path / "kept"
    call(package, folder, "int")
    for path in folder.rglob("rvga.*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-100])
    assert call(package, folder, "int") == ["21", "0"]
    assert call(package, folder, "int") == ["21", "1"]


def test_without_a_folder_everything_is_compiled(package, tmp_path):
    (tmp_path / "file").touch()
    for folder in ("", tmp_path / "absent" / "kept", tmp_path / "file"):
        assert call(package, folder, "int") == ["21", "0"]
    assert not (tmp_path / "absent").exists()


def test_a_folder_that_others_may_write_is_not_trusted(package, tmp_path):
    folder = tmp_path / "kept"
    call(package, folder, "int")
    (own,) = folder.iterdir()
    own.chmod(0o777)
    assert call(package, folder, "int") == ["21", "0"]
