"""Hashes of image files, remembered so that what has not changed is not read again.

A file counts as unchanged by what git's index goes by: its size, inode, device and both times, of which the second
(ctime) cannot be set back by a program. What changed less than two seconds ago is not remembered, for a clock's
tick could hide another change.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path

from joblib import cpu_count

from featbench.data.decode import UnreadableImageError, check_regular
from featbench.fingerprint import hash_file
from featbench.places import replacing

NO_BYTES = "unreadable: "

_FILES_AT_ONCE = 64  # to give a thread one small file takes longer than to hash it
SETTLED_NS = 2_000_000_000  # the coarsest clock of a file system, FAT's, ticks every two seconds
_STAMP_BYTES, _HASH_BYTES = 16, 32


def hash_files(
    paths: Sequence[str | Path],
    memo: Path | None = None,
    *,
    settled_ns: int = SETTLED_NS,
    hash_one: Callable[[Path], str] = hash_file,
) -> tuple[str, ...]:
    """Hash the bytes of each file.

    Args:
        paths: The files.
        memo: A file that keeps the hashes for the next call; it is only ever a way to save time, so one that is
            damaged, or cannot be written, is ignored.
        settled_ns: A file that changed less than so many nanoseconds ago is not remembered.
        hash_one: Hashes the bytes of one file.

    Returns:
        SHA-256 in hex, or `NO_BYTES` and the reason for files that cannot be opened.
    """
    known = _read(memo) if memo else {}
    now_ns = time.time_ns()
    stamps = [file_stamp(path, now_ns - settled_ns) if memo else None for path in paths]
    hashes = [known.get(stamp, "") if stamp else "" for stamp in stamps]
    unknown = [row for row, hashed in enumerate(hashes) if not hashed]
    parts = [unknown[start : start + _FILES_AT_ONCE] for start in range(0, len(unknown), _FILES_AT_ONCE)]
    with ThreadPoolExecutor(cpu_count()) as pool:  # hashing releases the interpreter lock
        found = pool.map(lambda rows: [_hash_or_reason(paths[row], hash_one) for row in rows], parts)
        for row, hashed in zip(unknown, chain.from_iterable(found), strict=True):
            hashes[row] = hashed
    if memo and unknown:
        states = zip(stamps, hashes, strict=True)
        _write(memo, {stamp: hashed for stamp, hashed in states if stamp and not hashed.startswith(NO_BYTES)})
    return tuple(hashes)


def _hash_or_reason(path: str | Path, hash_one: Callable[[Path], str]) -> str:
    try:
        check_regular(Path(path))
        return hash_one(Path(path))
    except UnreadableImageError as error:
        return f"{NO_BYTES}{error}"
    except OSError as error:
        return f"{NO_BYTES}{error.strerror}"


def file_stamp(path: str | Path, before_ns: int) -> bytes | None:
    """Return 16 bytes that change whenever a file does; None where it changed after `before_ns`, or is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116  # a Path of each file takes longer than this
    except OSError:
        return None
    if max(status.st_mtime_ns, status.st_ctime_ns) > before_ns or not status.st_ino:
        return None
    state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
    return hashlib.blake2b(repr(state).encode(), digest_size=_STAMP_BYTES).digest()


def _read(memo: Path) -> dict[bytes, str]:
    try:
        content = memo.read_bytes()
    except OSError:  # there is none yet, as a rule
        return {}
    size = _STAMP_BYTES + _HASH_BYTES
    if len(content) % size:
        return {}
    rows = (content[start : start + size] for start in range(0, len(content), size))
    return {row[:_STAMP_BYTES]: row[_STAMP_BYTES:].hex() for row in rows}


def _write(memo: Path, hashes: Mapping[bytes, str]) -> None:
    with suppress(OSError), replacing(memo) as temporary:
        temporary.write_bytes(b"".join(stamp + bytes.fromhex(hashed) for stamp, hashed in hashes.items()))
