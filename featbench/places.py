"""Paths as users give them."""

from __future__ import annotations

from pathlib import Path

from featbench.errors import UsageError


def expand_user(path: str | Path) -> Path:
    """Put a home folder in place of a leading `~` or `~NAME`.

    Raises:
        UsageError: There is no such user, or nothing says where the home folder is.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(
            f"{str(path)!r} begins with {Path(path).parts[0]!r}, which is no user's home folder here; give the whole "
            "path, or one that begins with ./"
        ) from None
