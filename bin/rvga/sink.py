"""A file that HDF5 writes to, which takes a full disk calmly."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import TracebackType


class Sink(io.RawIOBase):
    """A file for HDF5's file-object driver, whose failed writes are kept in ``error``.

    HDF5 does not survive a failed write: it cannot close the file, and may end the process by a
    segmentation fault. So a write that fails is noted, HDF5 is told that all is well, and whoever
    writes asks :meth:`check` afterwards.

    Attributes
    ----------
    error : OSError or None
        The first failure.
    """

    def __init__(self, temporary: Path, path: Path):
        super().__init__()
        self._path = path
        self.error: OSError | None = None
        self._descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._at = 0
        self._size = 0

    def check(self) -> None:
        """Raise the first failure, with the name of the file, if there was one."""
        if self.error is not None:
            raise OSError(self.error.errno, self.error.strerror, str(self._path)) from self.error

    def readable(self) -> bool:
        """Tell that HDF5 may read back what it wrote."""
        return True

    def writable(self) -> bool:
        """Tell that it may write."""
        return True

    def seekable(self) -> bool:
        """Tell that it may move."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move within the file as HDF5 believes it to be."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        """Return the place in the file."""
        return self._at

    def readinto(self, buffer) -> int:
        """Read from the place on; what could not be written reads as zeros."""
        view = memoryview(buffer).cast("B")
        got = 0
        while got < len(view):
            part = os.preadv(self._descriptor, [view[got:]], self._at + got)
            if part == 0:
                view[got:] = bytes(len(view) - got)
                break
            got += part
        self._at += len(view)
        return len(view)

    def write(self, buffer) -> int:
        """Write at the place, all of it or none that counts."""
        view = memoryview(buffer).cast("B")
        if self.error is None:
            try:
                done = 0
                while done < len(view):
                    done += os.pwrite(self._descriptor, view[done:], self._at + done)
            except OSError as error:
                self.error = error
        self._at += len(view)
        self._size = max(self._size, self._at)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the size of the file."""
        size = self._at if size is None else size
        self._size = size
        if self.error is None:
            try:
                os.ftruncate(self._descriptor, size)
            except OSError as error:
                self.error = error
        return size

    def close(self) -> None:
        """Close the file; some file systems tell only now that it is full."""
        if not self.closed:
            try:
                os.close(self._descriptor)
            except OSError as error:
                self.error = self.error or error
        super().close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
