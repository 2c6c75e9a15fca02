"""Writing to a disk that is full."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from rvga.sink import Sink

BIN = Path(__file__).parents[2] / "bin"
# A limit on the size of a file fails as a full disk does, and needs no disk.
LIMITED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np, pandas as pd
from rvga import cli, formats, tables
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), -1))
def hdf5(path):
    noise = np.random.default_rng(0).normal(size=(300, 300))
    with formats.create(path, "ldrs", {}) as writer:
        target = writer.reserve("ldrs", noise.shape)
        for row in range(0, 300, 100):
            target[row : row + 100] = noise[row : row + 100]
        writer.add("subject", [str(k) for k in range(300)])
        writer.add("quality_components", [1])
        writer.add("quality_correlation", [0.5])
def text(path):
    frame = pd.DataFrame({"software": ["a" * 20] * 20_000, "version": "1"})
    tables.write_table(frame, path, "software_versions")
def streamed(path):
    with tables.table_writer(path, "software_versions") as writer:
        writer.add_lines(b"a\\t1\\n" * 400_000)
cli.run(lambda argv: {"hdf5": hdf5, "text": text, "streamed": streamed}[sys.argv[2]](sys.argv[3]))
"""


@pytest.mark.parametrize(
    ("what", "name"), [("hdf5", "x.h5"), ("text", "x.tsv"), ("streamed", "x.tsv")]
)
@pytest.mark.parametrize("limit", [100, 20_000, 100_000])
def test_a_full_disk_ends_with_the_file_named_and_nothing_left(tmp_path, what, name, limit):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, BIN, what, tmp_path / name, str(limit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 74, done.stderr
    assert done.stderr == f"ERROR: {tmp_path / name}: {os.strerror(errno.EFBIG)}\n"
    assert list(tmp_path.iterdir()) == []


def test_hdf5_files_are_what_the_library_itself_would_read_and_write(tmp_path):
    values = np.random.default_rng(1).normal(size=(400, 30))
    with Sink(tmp_path / "a.h5", tmp_path / "a.h5") as sink:
        with h5py.File(sink, "w") as file:
            file.create_dataset("x", data=values, chunks=(50, 30), compression="gzip")
            file["x"][10:20] = 0.0
            del file["x"]
            target = file.create_dataset("y", shape=values.shape, chunks=(7, 30), dtype="f8")
            target[...] = values
            np.testing.assert_array_equal(target[3:9], values[3:9])
        sink.check()
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file) == ["y"]
        np.testing.assert_array_equal(file["y"][...], values)
