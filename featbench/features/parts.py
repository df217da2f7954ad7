"""Features on their way to a cache file: what is computed survives the process that computed it.

    .<split>-<fingerprint>-<layers>.partial/<first row>-<row after the last>.npz

Rows collect in memory and go to disk as one part every few seconds. A part is written under another name and takes
its own when it is whole, so a process can be killed at any moment and loses no more than the rows since the last part.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from featbench.data.notes import Notes, add_notes
from featbench.errors import CacheError
from featbench.features.cache import CacheKey, writing_to
from featbench.features.rows import Features
from featbench.fingerprint import fingerprint

_PART = re.compile(r"\d{9,}-\d{9,}\.(npz|tmp)")
_PART_BYTES = 1 << 26
PART_S = 10.0
_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RuntimeError,
    MemoryError,
    zlib.error,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class Part:
    """The outcome of extracting the images `start` to `stop` of a split.

    Attributes:
        start: The first image.
        stop: The one after the last.
        rows: (B,) int64, the images that were read, ascending.
        features: (B, D) of each layer, in the type they are stored as.
        skipped: The images that cannot be read: (id, reason).
        seconds: Wall-clock time of the work.
        notes: Notes on the images.
    """

    start: int
    stop: int
    rows: npt.NDArray[np.int64]
    features: Mapping[str, Features]
    skipped: Sequence[tuple[str, str]]
    seconds: float
    notes: Notes = field(default_factory=dict)


class Parts:
    """The parts of one cache file that is being made; a context that writes what is still in memory if it fails.

    Args:
        key: The cache file.
        layers: The layers that are computed.
        part_bytes: With more than this in memory a part is written ...
        part_s: ... and after so many seconds.

    Raises:
        CacheError: A part cannot be written.
    """

    def __init__(
        self, key: CacheKey, layers: Sequence[str], *, part_bytes: int = _PART_BYTES, part_s: float = PART_S
    ) -> None:
        suffix = f"-{fingerprint(list(layers))[:8]}.partial"
        self.folder = key.path.with_name(f".{key.path.stem}{suffix}")
        self.layers = tuple(layers)
        self._part_bytes, self._part_s = part_bytes, part_s
        self._files: list[Path] = []
        self._pending: list[Part] = []
        self._pending_bytes = 0
        self._written_s = time.monotonic()
        self.next_row = 0
        for path in sorted(self.folder.glob("*.npz")):
            with suppress(*_DAMAGE):  # a part that is half on disk after a power cut is computed again
                part = self._read(path)
                if part.start == self.next_row:
                    self._files.append(path)
                    self.next_row = part.stop

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with suppress(CacheError):  # the user sees the error that ended the work
                self._write()

    def add(self, part: Part) -> None:
        """Add the rows that follow those it has."""
        assert part.start == self.next_row
        self.next_row = part.stop
        self._pending.append(part)
        self._pending_bytes += sum(rows.nbytes for rows in part.features.values())
        if self._pending_bytes > self._part_bytes or time.monotonic() - self._written_s > self._part_s:
            self._write()

    def read(self) -> Iterator[Part]:
        """Yield all rows in order."""
        for path in self._files:
            yield self._read(path)
        yield from self._pending

    def remove(self) -> None:
        """Remove the rows from memory and disk."""
        self._files, self._pending = [], []
        with suppress(CacheError, OSError):  # the cache file is whole, and the next run tries again
            remove_parts(self.folder)

    def _write(self) -> None:
        if not self._pending:
            return
        part = _join(self._pending)
        path = self.folder / f"{part.start:09d}-{part.stop:09d}.npz"
        temporary = path.with_suffix(".tmp")
        arrays: dict[str, Any] = {f"layer{number}": part.features[name] for number, name in enumerate(self.layers)}
        arrays["rows"] = part.rows
        arrays["rest"] = json.dumps([part.start, part.stop, part.skipped, part.seconds, self.layers, part.notes])
        try:
            with writing_to(path):
                self.folder.mkdir(parents=True, exist_ok=True)
                with temporary.open("wb") as file:
                    np.savez(file, **arrays)
                temporary.replace(path)
        finally:
            with suppress(OSError):  # it was renamed, or the disk is full
                temporary.unlink()
        self._files.append(path)
        self._pending, self._pending_bytes, self._written_s = [], 0, time.monotonic()

    def _read(self, path: Path) -> Part:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            # NumPy does not reach the checksum of an array that it takes for a smaller one
            if file.zip.testzip() is not None:
                raise zipfile.BadZipFile
            start, stop, skipped, seconds, _, *rest = json.loads(str(file["rest"]))
            features = {layer: file[f"layer{number}"] for number, layer in enumerate(self.layers)}
            left_out = [(image, why) for image, why in skipped]
            notes = add_notes(*rest)  # parts of earlier versions have none
            return Part(start, stop, file["rows"], features, left_out, seconds, notes)


def remove_finished(key: CacheKey, layers: Collection[str]) -> None:
    """Remove the parts of layers that the cache file has: their process was killed before it could."""
    for folder in key.path.parent.glob(f".{key.path.stem}-*.partial"):
        with suppress(CacheError, *_DAMAGE):
            if all(_layers(path) <= set(layers) for path in folder.glob("*.npz")):
                remove_parts(folder)


def remove_parts(folder: Path) -> None:
    """Remove a folder of parts, but nothing that is not named as a part.

    Raises:
        CacheError: There is something else in it, which is kept.
        OSError: It is a link, or cannot be removed.
    """
    if folder.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    others = []
    for path in sorted(folder.iterdir()):
        if _PART.fullmatch(path.name) and not path.is_dir():
            path.unlink()
        else:
            others.append(path.name)
    if others:
        raise CacheError(f"{folder} holds files that are not featbench's, which are kept: {', '.join(others)}")
    folder.rmdir()


def _layers(path: Path) -> set[str]:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        _, _, _, _, layers, *_ = json.loads(str(file["rest"]))  # older versions wrote no layers
        return set(layers)


def _join(parts: Sequence[Part]) -> Part:
    return Part(
        start=parts[0].start,
        stop=parts[-1].stop,
        rows=np.concatenate([part.rows for part in parts]),
        features={layer: np.concatenate([part.features[layer] for part in parts]) for layer in parts[0].features},
        skipped=[skipped for part in parts for skipped in part.skipped],
        seconds=sum(part.seconds for part in parts),
        notes=add_notes(*(part.notes for part in parts)),
    )
