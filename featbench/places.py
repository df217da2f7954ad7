"""Paths as users give them, where files are kept that no path is given for, and files that are written whole.

Feature caches and data sets go below $FEATBENCH_HOME, or ~/.cache/featbench. This is the one place that reads that
variable, for the command line and for Python alike, so that both fill the same caches.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featbench.errors import UsageError


def expand_user(path: str | Path) -> Path:
    """Put a home folder in place of a leading `~` or `~NAME`.

    Raises:
        UsageError: There is no such user, or their home folder is unknown.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(
            f"{str(path)!r} begins with {Path(path).parts[0]!r}, which is no user's home folder here; give the whole "
            "path, or one that begins with ./"
        ) from None


def feature_caches(given: str | Path | None = None) -> Path:
    """Return the folder of feature caches: the one that was given, or the default.

    Raises:
        UsageError: It begins with `~NAME` of no user.
    """
    return _home() / "features" if given is None else expand_user(given)


def data_sets(given: str | Path | None = None) -> Path:
    """Return torchvision's root of data sets: the one that was given, or the default.

    Raises:
        UsageError: It begins with `~NAME` of no user.
    """
    return _home() / "data" if given is None else expand_user(given)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it becomes `path` when the block ends, and is removed if it fails.

    Raises:
        OSError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    finally:
        with suppress(OSError):  # it is gone after the rename, and never was where the folder could not be made
            temporary.unlink()


def _home() -> Path:
    return expand_user(os.environ.get("FEATBENCH_HOME") or "~/.cache/featbench")
