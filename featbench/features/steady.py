"""A file that HDF5 can close on a full disk."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class SteadyFile(io.RawIOBase):
    """A file for HDF5 that stores its first error, for `check` to raise.

    HDF5 cannot close a file that it cannot write: on a full disk it would leave handles that crash the process later.
    """

    def __init__(self, path: Path) -> None:
        self._file = io.FileIO(path, "w+")
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the error that was kept, if there is one."""
        if self._error is not None:
            raise self._error

    def sync(self) -> None:
        """Write the content to disk, before the file gets its name: a power cut leaves no empty file."""
        self.check()
        os.fsync(self._file.fileno())

    def write(self, data: Any) -> int:
        """Write all, or keep the error."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        with self._keep_error():
            while rest and self._error is None:
                rest = rest[self._file.write(rest) :]
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the size, or keep the error."""
        wanted = self._file.tell() if size is None else size
        with self._keep_error():
            self._file.truncate(wanted)
        return wanted

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move."""
        return self._file.seek(offset, whence)

    def close(self) -> None:
        """Close."""
        self._file.close()
        super().close()

    @contextmanager
    def _keep_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._error = self._error or error
