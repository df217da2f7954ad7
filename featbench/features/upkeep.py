"""Looking after a cache folder: what lies in it, whether it is whole, and what can go.

`featbench cache list`, `verify` and `prune` print what these functions return.
"""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from featbench.data.walk import is_folder, list_folder
from featbench.errors import CacheError
from featbench.features.cache import check_cache, describe_cache
from featbench.features.opening import CacheInUseError, ForeignCacheError, NoCacheError, UnreadableCacheError
from featbench.features.parts import remove_parts
from featbench.locks import file_lock

# Only what is named as featbench names it is ever read or removed: the folder may hold something else.
_FILE = re.compile(r"[a-z]+-[0-9a-f]{16}")
_COMPLETE = re.compile(rf"{_FILE.pattern}\.h5")
_TEMPORARY = re.compile(rf"\.{_FILE.pattern}\.h5\.tmp")
_PARTS = re.compile(rf"\.{_FILE.pattern}-[0-9a-f]{{8}}\.partial")
_DEPTH = 2  # folders above a file: its data set and its backbone
_UNFINISHED = "an interrupted run; the same experiment goes on from here"


@dataclass(frozen=True)
class Entry:
    """A cache file, the parts of an interrupted run, or a folder or link that cannot be searched.

    Attributes:
        path: The file, or the folder of an interrupted run's parts.
        n_bytes: Its size on disk.
        unused_s: Seconds since it was last made or used.
        state: "complete", "unfinished" or "damaged"; "in use", "unreadable" or "foreign" is never removed.
        about: What it belongs to, or what is the matter with it, in one line.
    """

    path: Path
    n_bytes: int
    unused_s: float
    state: str
    about: str

    @property
    def removable(self) -> bool:
        """Whether `prune_cache` may remove it."""
        return self.state in ("complete", "unfinished", "damaged")


def list_cache(cache_dir: Path) -> list[Entry]:
    """List what lies in a cache folder, by data set, backbone and split; nothing is read but the files' headers."""
    entries = [_look(path, problem) for path, problem in _find(cache_dir)]
    return sorted(filter(None, entries), key=lambda entry: str(entry.path.parent / entry.path.name.lstrip(".")))


def verify_cache(cache_dir: Path) -> Iterator[tuple[Path, CacheError | None]]:
    """Read every byte of every complete file against its checksums.

    Yields:
        Each file, and what is wrong with it; None where nothing is. A folder or link that cannot be read is
        yielded like a file.
    """
    for path, problem in _find(cache_dir):
        if problem is None and not _COMPLETE.fullmatch(path.name):
            continue
        try:
            if problem is not None:
                raise problem
            check_cache(path)
        except NoCacheError:
            continue  # it is gone since it was found
        except CacheError as error:
            yield path, error
        else:
            yield path, None


def prune_cache(entries: Sequence[Entry]) -> list[tuple[Entry, CacheError | None]]:
    """Remove entries that no process is at work on, and the folders that are empty then.

    Returns:
        Each entry, and why it was not removed; None where it was.
    """
    outcomes = [(entry, _try_to_remove(entry)) for entry in entries]
    for folder in {entry.path.parent for entry, problem in outcomes if problem is None}:
        with suppress(OSError):  # it is not empty
            folder.rmdir()
            folder.parent.rmdir()
    return outcomes


def _find(folder: Path, depth: int = _DEPTH) -> Iterator[tuple[Path, CacheError | None]]:
    """Yield what has a name of featbench's, and what keeps from going on; no link is followed."""
    try:
        entries = list_folder(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        yield folder, UnreadableCacheError(f"{folder} cannot be listed: {error.strerror}")
        return
    for entry in entries:
        path = folder / entry.name
        named = any(form.fullmatch(entry.name) for form in (_COMPLETE, _TEMPORARY, _PARTS))
        if entry.is_symlink() and (is_folder(entry) if depth else named):
            yield path, ForeignCacheError(f"{path} is a link, and links are not followed")
        elif depth and is_folder(entry):
            yield from _find(path, depth - 1)
        elif not depth and named:
            yield path, None


def _look(path: Path, problem: CacheError | None = None) -> Entry | None:
    """Look at what `_find` found; None where it is gone."""
    try:
        status = path.lstat()
        files = [path.lstat() for path in path.iterdir()] if stat.S_ISDIR(status.st_mode) and problem is None else []
        n_bytes = sum(each.st_size for each in (status, *files))
        unused_s = max(0.0, time.time() - max(each.st_mtime for each in (status, *files)))
        try:
            if problem is not None:
                raise problem
            return Entry(path, n_bytes, unused_s, *_state(path, status.st_mode))
        except UnreadableCacheError as error:
            return Entry(path, n_bytes, unused_s, error.state, str(error).removeprefix(f"{path} "))
    except (FileNotFoundError, NoCacheError):
        return None
    except OSError as error:
        return Entry(path, 0, 0.0, "unreadable", f"cannot be looked at: {error.strerror}")


def _state(path: Path, mode: int) -> tuple[str, str]:
    if _COMPLETE.fullmatch(path.name) and not stat.S_ISLNK(mode):
        info, content = describe_cache(path)
        layers = ", ".join(f"{layer} ({width})" for layer, width in info.widths.items())
        details = [content[key] for key in ("pooling", "precision", "store") if isinstance(content.get(key), str)]
        return "complete", f"{info.n_rows} images; {layers}; {' '.join(details)}"
    if stat.S_ISDIR(mode) if _PARTS.fullmatch(path.name) else stat.S_ISREG(mode):
        return "unfinished", _UNFINISHED
    raise ForeignCacheError(f"{path} has a name of featbench's, and is something else")


def _try_to_remove(entry: Entry) -> CacheError | None:
    try:
        _remove(entry)
    except CacheError as error:
        return error
    except OSError as error:
        return CacheError(f"{entry.path} cannot be removed: {error.strerror}")
    return None


def _remove(entry: Entry) -> None:
    path = entry.path
    if not entry.removable:
        raise CacheError(f"{path} {entry.about}")
    lock = file_lock(path.with_name(f"{_FILE.findall(path.name)[0]}.lock"))
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        raise CacheInUseError(f"{path} is in use by another process") from None
    with held:
        now = _look(path)
        if now is None:
            return
        if now.state != entry.state or now.unused_s < entry.unused_s:
            raise CacheInUseError(f"{path} was used since it was listed")
        if path.is_dir():
            remove_parts(path)
        else:
            path.unlink()
        Path(lock.lock_file).unlink(missing_ok=True)
