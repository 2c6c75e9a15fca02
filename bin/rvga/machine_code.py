"""Compiled loops, whose machine code later processes load instead of compiling again.

Machine code is kept where the environment variable ``NUMBA_CACHE_DIR`` names a folder that exists
or can be made within one that does; elsewhere every process compiles for itself. The files lie in
a folder of its own for each version of the package's source, of Python and of the compiler, so
that changed source never meets old machine code, and each file is one function for one kind of
arguments on one kind of processor, complete under its name from the start, so that tasks may read
and write at once. (The compiler's own cache looks at the function's source file alone, and two
processes that write kinds of arguments of one function can leave it with the wrong code.)
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import stat
import sys
from functools import cache
from pathlib import Path

import llvmlite
import numba
import numpy as np
from numba.core import compiler
from numba.core.caching import _Cache
from numba.core.serialize import dumps

_HASH_BYTES = 32


def compiled(function):
    """Compile a function that runs without the interpreter's lock."""
    dispatcher = numba.njit(nogil=True)(function)
    if _folder() is not None and function.__closure__ is None:
        # What the dispatcher asks before it compiles; by itself it would take numba's own.
        dispatcher._cache = _Kept(function, _folder())
    return dispatcher


@cache
def _folder() -> Path | None:
    """Return the folder of this version's machine code, made if need be, or None."""
    name = os.environ.get("NUMBA_CACHE_DIR", "")
    if not name:
        return None
    base = Path(name).absolute()
    folder = base / f"rvga-{_version()}"
    try:
        base.mkdir(exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    # Loading runs what is in the files: they must be nobody else's.
    mine = found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return folder if stat.S_ISDIR(found.st_mode) and mine else None


def _version() -> str:
    """Return a fingerprint of all that machine code depends on but the processor."""
    digest = hashlib.sha256()
    switches = sorted(
        item for item in os.environ.items()
        if item[0].startswith("NUMBA_") and item[0] != "NUMBA_CACHE_DIR"
    )  # fmt: skip
    versions = sys.version, numba.__version__, llvmlite.__version__, np.__version__
    digest.update(repr((versions, switches)).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(hashlib.sha256(path.read_bytes()).digest() + path.name.encode())
    return digest.hexdigest()[:16]


class _Kept(_Cache):
    """Machine code of one function; what a dispatcher of numba asks for and gives."""

    def __init__(self, function, folder: Path):
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._folder = folder

    @property
    def cache_path(self) -> str:
        return str(self._folder)

    def load_overload(self, sig, target_context):
        """Return the compiled function for a signature; None where there is none that is whole."""
        target_context.refresh()
        try:
            content = self._path(sig, target_context.codegen()).read_bytes()
        except OSError:
            return None
        digest, payload = content[:_HASH_BYTES], content[_HASH_BYTES:]
        if hashlib.sha256(payload).digest() != digest:
            return None
        return compiler.CompileResult._rebuild(target_context, *pickle.loads(payload))

    def save_overload(self, sig, data):
        """Keep a compiled function; where the disk does not take it, later processes compile."""
        if data.lifted or data.library.has_dynamic_globals:
            return
        payload = dumps(data._reduce())
        path = self._path(sig, data.codegen)
        part = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
        with contextlib.suppress(OSError):
            try:
                part.write_bytes(hashlib.sha256(payload).digest() + payload)
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)

    def _path(self, sig, codegen) -> Path:
        key = hashlib.sha256(repr((sig, codegen.magic_tuple())).encode()).hexdigest()[:16]
        return self._folder / f"{self._name}-{key}"

    def enable(self):
        """Do nothing: always enabled."""

    def disable(self):
        """Do nothing: always enabled."""

    def flush(self):
        """Do nothing: every version has its own folder."""
