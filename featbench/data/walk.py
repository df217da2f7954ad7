"""Finding image files below a folder: links are followed, loops end, and skipped files have a reason.

Results folders and caches that featbench wrote there are skipped.

Paths are strings here: to make a `Path` of each would be most of the time of a walk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# torchvision's ImageFolder's, and two more that people have
ENDINGS = (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

# files that macOS, Windows, Linux and network drives create
_SYSTEM_FOLDERS = ("__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found", "@eaDir")

_RESULTS, _CACHE = {"experiment.toml", "environment.json"}, {".hashes"}  # what is in all that featbench writes

HIDDEN = "it is hidden, or in a hidden or system folder"
NO_ENDING = f"its ending is not one of {' '.join(ENDINGS)}"
_LOOP = "the link leads to a folder that holds it, or that is read already"


@dataclass(frozen=True)
class Found:
    """A file with the ending of an image, or, where there is a `reason`, something that is skipped.

    `lost`: whether images may be missing because of it, as of a folder that cannot be listed.
    """

    path: str
    reason: str = ""
    lost: bool = False


def is_hidden(name: str) -> bool:
    """Say whether a file or folder of this name is none of the user's own."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """List what lies directly in a folder, sorted by name.

    Raises:
        OSError: It cannot be listed.
    """
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Say whether this is a folder, or a link to one; a loop of links is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def leads_back(entry: os.DirEntry[str]) -> bool:
    """Say whether this is a link to the folder that it lies in, or to one above."""
    return entry.is_symlink() and Path(entry.path).parent.resolve().is_relative_to(Path(entry.path).resolve())


def is_image(entry: os.DirEntry[str]) -> bool:
    """Say whether this is a file that is read: its name has the ending of an image, and is not hidden."""
    return _is_image(entry.name) and not is_hidden(entry.name) and not is_folder(entry)


def is_own(folder: str | Path, levels: int = 4) -> bool:
    """Say whether featbench wrote this folder, or all that is in it: `results/` holds results folders only."""
    try:
        entries = list_folder(Path(folder))
    except OSError:
        return False
    names = {entry.name for entry in entries}
    if names >= _RESULTS or names >= _CACHE:
        return True
    visible = [entry for entry in entries if not is_hidden(entry.name)]
    if not visible or not levels:
        return False
    return all(entry.is_dir(follow_symlinks=False) and is_own(entry.path, levels - 1) for entry in visible)


def walk(folder: Path) -> Iterator[Found]:
    """Find every file below a folder, in the order of the parts of their paths.

    A link to a folder elsewhere is followed, once; one to a folder inside, or above, is skipped.
    """
    yield from _walk(folder, within_hidden=False)


def _walk(folder: Path, *, within_hidden: bool) -> Iterator[Found]:
    top = folder.resolve()
    seen = {_identity(place) for place in (top, *top.parents)}
    waiting: list[Path | os.DirEntry[str]] = [folder]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, os.DirEntry) and not is_folder(entry):
            yield _file(entry)
            continue
        path = Path(entry)
        if isinstance(entry, os.DirEntry):
            if is_hidden(entry.name) and not within_hidden:
                yield from _hidden(path, follow=not entry.is_symlink())
                continue
            if entry.is_symlink() and (within_hidden or path.resolve().is_relative_to(top)):
                yield Found(entry.path, _LOOP)
                continue
            try:
                identity = _identity(path)
            except OSError as error:  # it was removed since it was listed
                yield Found(entry.path, f"the folder cannot be listed: {error.strerror}", lost=True)
                continue
            if identity in seen:
                yield Found(entry.path, _LOOP)
                continue
            seen.add(identity)
            if not within_hidden and is_own(path):
                continue
        try:
            waiting += reversed(list_folder(path))
        except OSError as error:
            yield Found(str(path), f"the folder cannot be listed: {error.strerror}", lost=True)


def _file(entry: os.DirEntry[str]) -> Found:
    if is_hidden(entry.name):
        return Found(entry.path, HIDDEN)
    return Found(entry.path, "" if _is_image(entry.name) else NO_ENDING)


def _is_image(path: str) -> bool:
    return path.lower().endswith(ENDINGS)


def _hidden(folder: Path, *, follow: bool) -> Iterator[Found]:
    """Name the images in a hidden folder or, where there are none, the folder: git's has thousands of other files."""
    files = [found.path for found in _walk(folder, within_hidden=True)] if follow else []
    for path in list(filter(_is_image, files)) or [str(folder)]:
        yield Found(path, HIDDEN)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
