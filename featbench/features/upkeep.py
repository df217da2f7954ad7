"""Looking after a cache folder: what lies in it, whether it is whole, and what can go.

`featbench cache list`, `verify` and `prune` print what these functions return.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from featbench.errors import CacheError
from featbench.features.cache import check_cache, describe_cache, writing_to

# Only files that are named as cache files are ever read or removed: the folder may hold something else.
_FILE = re.compile(r"[a-z]+-[0-9a-f]{16}")
_COMPLETE = re.compile(rf"{_FILE.pattern}\.h5")
_UNFINISHED = re.compile(rf"\.{_FILE.pattern}(\.h5\.tmp|-[0-9a-f]{{8}}\.partial)")


@dataclass(frozen=True)
class Entry:
    """A cache file, or what an interrupted run left.

    Attributes:
        path: The file, or the folder of an interrupted run's parts.
        n_bytes: Its size on disk.
        unused_s: Seconds since it was last made or used.
        state: "complete", "unfinished" or "damaged".
        about: What it belongs to, in one line.
    """

    path: Path
    n_bytes: int
    unused_s: float
    state: str
    about: str


def list_cache(cache_dir: Path) -> list[Entry]:
    """List what lies in a cache folder, by data set, backbone and split; nothing is read but the files' headers."""
    return sorted(_entries(cache_dir), key=lambda entry: str(entry.path.parent / entry.path.name.lstrip(".")))


def verify_cache(cache_dir: Path) -> Iterator[tuple[Path, str | None]]:
    """Read every byte of every complete file against its checksums.

    Yields:
        Each file, and what is wrong with it; None where nothing is.
    """
    for path in sorted(path for path in cache_dir.glob("*/*/*.h5") if _COMPLETE.fullmatch(path.name)):
        try:
            check_cache(path)
        except CacheError as error:
            yield path, str(error)
        else:
            yield path, None


def prune_cache(entries: Sequence[Entry]) -> list[Entry]:
    """Remove entries that no process is at work on, and return those that were removed.

    Raises:
        CacheError: One cannot be removed.
    """
    removed = []
    for entry in entries:
        lock = FileLock(entry.path.with_name(f"{_FILE.findall(entry.path.name)[0]}.lock"))
        with suppress(Timeout), lock.acquire(timeout=0), writing_to(entry.path):
            if entry.path.is_dir():
                shutil.rmtree(entry.path)
            else:
                entry.path.unlink(missing_ok=True)
            Path(lock.lock_file).unlink(missing_ok=True)
            removed.append(entry)
    for folder in {entry.path.parent for entry in removed}:
        with suppress(OSError):  # there is something left in it
            folder.rmdir()
            folder.parent.rmdir()
    return removed


def _entries(cache_dir: Path) -> Iterator[Entry]:
    for path in cache_dir.glob("*/*/*"):
        if _UNFINISHED.fullmatch(path.name):
            yield _entry(path, "unfinished", "an interrupted run; the same experiment goes on from here")
        elif _COMPLETE.fullmatch(path.name):
            try:
                yield _entry(path, "complete", _about(path))
            except CacheError:
                yield _entry(path, "damaged", "delete it and run `featbench extract` again")


def _entry(path: Path, state: str, about: str) -> Entry:
    files = [path, *(path.iterdir() if path.is_dir() else ())]
    stats = [file.stat() for file in files]
    last = max(stat.st_mtime for stat in stats)
    return Entry(path, sum(stat.st_size for stat in stats), time.time() - last, state, about)


def _about(path: Path) -> str:
    info, content = describe_cache(path)
    layers = ", ".join(f"{layer} ({width})" for layer, width in info.widths.items())
    details = [str(content[key]) for key in ("pooling", "precision", "store") if content.get(key)]
    return f"{info.n_rows} images; {layers}; {' '.join(details)}"
