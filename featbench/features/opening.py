"""Opening a cache file to read it, with an error of its own for each thing that can go wrong.

A file is called damaged, and may be deleted, only where its bytes were read and are wrong. One that is in use, or
that cannot be read by this user or from this disk, may be fine.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  # HDF5 finds its filters by this import

from featbench.errors import CacheError
from featbench.features.structure import ForeignFileError, check_structure
from featbench.locks import NO_LOCKS

_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)  # of a lock, once the file itself could be opened


class NoCacheError(CacheError):
    """There is no such file."""


class UnreadableCacheError(CacheError):
    """The file is there and cannot be used."""

    state = "unreadable"


class DamagedCacheError(UnreadableCacheError):
    """Its bytes are not those that were written."""

    state = "damaged"


class CacheInUseError(UnreadableCacheError):
    """Another program writes to the file."""

    state = "in use"


class ForeignCacheError(UnreadableCacheError):
    """It is none of this version's files."""

    state = "foreign"


@contextmanager
def open_cache(path: Path) -> Iterator[h5py.File]:
    """Open a cache file whose structure is right; errors while it is read become these, too.

    Raises:
        NoCacheError: There is no such file.
        CacheInUseError: Another program has it open for writing.
        ForeignCacheError: It is none of this version's cache files.
        DamagedCacheError: It is not as it was written.
        UnreadableCacheError: The system does not let it be read.
    """
    try:
        _check_readable(path)
        with _open(path) as file:
            check_structure(file, path.stat().st_size)
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise NoCacheError(f"there is no cache file {path}; `featbench extract` makes it") from None
    except ForeignFileError as error:
        raise ForeignCacheError(f"{path} {error}; move it away, or use another --cache") from None
    except MemoryError as error:
        raise UnreadableCacheError(f"{path} cannot be read: there is too little memory") from error
    except OSError as error:
        raise _explained(path, error) from error
    except (
        KeyError,
        ValueError,
        TypeError,
        RuntimeError,
        RecursionError,
    ) as error:  # h5py raises any of these on damaged files
        raise _damaged(path, error) from error


def _check_readable(path: Path) -> None:
    """Raise what the system has against reading a file, before HDF5 wraps it; a pipe would never end."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ForeignFileError("is no file")
        with path.open("rb"):
            return
    except PermissionError as error:
        raise UnreadableCacheError(
            f"{path} cannot be read: {error.strerror}; ask whoever owns it to let you read it, or use another --cache"
        ) from error
    except ValueError as error:  # a name that no file can have
        raise FileNotFoundError from error


def _open(path: Path) -> h5py.File:
    # Without HDF5's lock where the disk has none: featbench never changes a file under its final name, so a reader
    # needs none, and one that another program opened for writing is marked so inside. Files that this process has
    # opened in another way open only in that way.
    for locking in (None, False):
        try:
            return h5py.File(path, "r", locking=locking)
        except OSError as error:
            if error.errno not in NO_LOCKS and "flag values don't match" not in str(error):
                raise
    return h5py.File(path, "r", locking=True)


def _explained(path: Path, error: OSError) -> CacheError:
    if error.errno in _HELD:
        return CacheInUseError(
            f"{path} is open for writing in another program, such as a notebook; close it there and try again"
        )
    if "file is already open" in str(error):  # HDF5's own words
        return CacheInUseError(
            f"{path} is open for writing in another program, or was when that was killed; close it there, or move the "
            "file away"
        )
    if error.errno in NO_LOCKS:
        return UnreadableCacheError(
            f"{path} cannot be read: its disk has no file locks and HDF5_USE_FILE_LOCKING asks for them; set that "
            "variable to FALSE"
        )
    if error.errno is not None:
        return UnreadableCacheError(f"{path} cannot be read: {error.strerror}; try again, or use another --cache")
    return _damaged(path, error)


def _damaged(path: Path, error: Exception) -> CacheError:
    return DamagedCacheError(f"{path} is damaged ({error}); delete it and run `featbench extract` again")
