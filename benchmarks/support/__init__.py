"""What several benchmarks need: people's names, genotype files, and the memory of a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

# The largest resident memory of a process starts at that of the process that made it, hence a
# small one in between.
_LAUNCHER = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
_VARIANTS_AT_A_TIME = 500


def names(n: int) -> list[str]:
    """Return the ids of n people, sorted."""
    return [f"i{row:07d}" for row in range(n)]


def write_plink1(folder: Path, m: int, n: int, seed: int = 2) -> Path:
    """Write a PLINK 1 set of m independent variants without missing calls; return the main file."""
    rng = np.random.default_rng(seed)
    path = folder / "g.bed"
    # Two bits a person: 00 homozygous, 10 heterozygous, 11 the other homozygous; 01 is missing.
    calls = np.array([0, 2, 2, 3], dtype=np.uint8)
    with path.open("wb") as handle, (folder / "g.bim").open("w") as table:
        handle.write(bytes([0x6C, 0x1B, 1]))
        for first in range(0, m, _VARIANTS_AT_A_TIME):
            size = min(_VARIANTS_AT_A_TIME, m - first)
            codes = calls[rng.integers(0, 4, (size, -(-n // 4) * 4), dtype=np.uint8)]
            codes[:, n:] = 0
            handle.write((codes.reshape(size, -1, 4) << np.array([0, 2, 4, 6])).sum(2).astype("u1"))
            for row in range(first, first + size):
                table.write(f"1\trs{row}\t0\t{row + 1}\tG\tA\n")
    lines = [f"0\t{name}\t0\t0\t2\t-9\n" for name in names(n)]
    (folder / "g.fam").write_text("".join(lines))
    return path


def peak_memory(command: Sequence[object]) -> float:
    """Run a command and return its peak resident memory in MiB; its failure ends the benchmark."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, *map(str, command)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return int(done.stdout) / unit
