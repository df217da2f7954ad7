"""Paths as users give them, and where files are kept that no path is given for.

Feature caches and data sets go below $FEATBENCH_HOME, or ~/.cache/featbench. This is the one place that reads that
variable, for the command line and for Python alike, so that both fill the same caches.
"""

from __future__ import annotations

import os
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


def _home() -> Path:
    return expand_user(os.environ.get("FEATBENCH_HOME") or "~/.cache/featbench")
