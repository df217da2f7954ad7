"""File locks, also on disks where the system has none."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def file_lock(path: Path) -> BaseFileLock:
    """Make the lock of a file in a folder that exists.

    On disks without locks, as some network drives, it is a file that exists while the lock is held. One of a killed
    process stays, and filelock removes it where it sees that the process is gone.

    Raises:
        OSError: The folder cannot be written.
    """
    return FileLock(path) if _has_locks(path.parent) else SoftFileLock(path.with_name(f"{path.name}-held"))


def wait_for(path: Path, say: Callable[[str], None]) -> BaseFileLock:
    """Acquire the lock of a file; report first if another process holds it.

    Raises:
        OSError: The folder cannot be written.
    """
    lock = file_lock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"waits for another process, which holds {lock.lock_file}")
        lock.acquire()
    return lock


def _has_locks(folder: Path) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    with TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return False
            raise
    return True
