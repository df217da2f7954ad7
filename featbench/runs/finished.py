"""What a finished run depended on, so that the same command has nothing left to do and says so at once.

A run that did everything records in its results folder the arguments, the libraries, and the state (size, times and
inode) of every file that it read or wrote. While all of that is the same, nothing is imported, hashed or drawn again.
Where anything differs, the run takes its usual way, which looks at the content. Experiments with code of the user's own
(`python:`) or networks of timm's, whose files are not known here, are never recorded.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import featbench
from featbench.data.hashes import SETTLED_NS
from featbench.data.walk import walk
from featbench.fingerprint import fingerprint

RECORD = ".finished.json"
_PACKAGES = ("torch", "torchvision", "scikit-learn", "pandas", "numpy", "pillow", "h5py")
_ENVIRONMENT = ("TORCH_HOME", "XDG_CACHE_HOME", "CUDA_VISIBLE_DEVICES", "FEATBENCH_HOME")


class Finished(NamedTuple):
    """A finished run: the fingerprints of its rows, and the warnings that the user has seen."""

    rows: Sequence[str]
    warnings: Sequence[str]


def find_finished(results_dir: Path, arguments: Mapping[str, Any]) -> Finished | None:
    """Return a run that has nothing left to do; None where there may be something.

    Args:
        results_dir: The results folder.
        arguments: Everything that decides what the run does, JSON-like.
    """
    try:
        record = json.loads((results_dir / RECORD).read_text("utf-8"))
        inputs, files = record["inputs"], record["files"]
        finished = Finished([str(row) for row in record["rows"]], [str(text) for text in record["warnings"]])
        same = (
            record["arguments"] == _key(arguments)
            and record["results"] == _state(_own_files(results_dir))
            and all(_state([path]) == state for path, state in files.items())
            and all(_state(_input_files(folder)) == state for folder, state in inputs.items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return finished if same else None


def record_finished(
    results_dir: Path,
    arguments: Mapping[str, Any],
    finished: Finished,
    *,
    inputs: Iterable[Path],
    files: Iterable[Path],
) -> None:
    """Record that a run has nothing left to do. Nothing is recorded where files changed a moment ago.

    Args:
        results_dir: The results folder.
        arguments: As `find_finished` will be given.
        finished: What to record.
        inputs: Folders of images.
        files: Single files that it read: weights, caches.
    """
    with suppress(OSError):
        before_ns = time.time_ns() - SETTLED_NS
        found = [path for folder in inputs for path in _input_files(folder)]
        if any(_changed_ns(path) > before_ns for path in found):
            return
        content = {
            "arguments": _key(arguments),
            "rows": list(finished.rows),
            "warnings": list(finished.warnings),
            "inputs": {str(folder): _state(_input_files(folder)) for folder in inputs},
            "files": {str(path): _state([path]) for path in files},
            "results": _state(_own_files(results_dir)),
        }
        temporary = results_dir / f"{RECORD}.tmp"
        try:
            temporary.write_text(json.dumps(content), "utf-8")
            temporary.replace(results_dir / RECORD)
        finally:
            temporary.unlink(missing_ok=True)


def _key(arguments: Mapping[str, Any]) -> str:
    """Hash the arguments, the machine, and the versions of the libraries and of featbench."""
    package = Path(featbench.__file__).parent
    return fingerprint(
        {
            "arguments": arguments,
            "machine": [platform.node(), platform.machine(), sys.version, os.cpu_count()],
            "gpus": sorted(path.name for path in Path("/dev").glob("nvidia*")),
            "environment": {name: os.environ.get(name) for name in _ENVIRONMENT},
            "versions": {name: metadata.version(name) for name in _PACKAGES},
            "featbench": [featbench.__version__, _state(map(str, sorted(package.rglob("*.py"))))],
        }
    )


def _input_files(folder: str | Path) -> list[str]:
    return [found.path for found in walk(Path(folder))]


def _own_files(results_dir: Path) -> list[str]:
    """List what the run wrote, without this record and the locks."""
    paths = (path for path in sorted(results_dir.rglob("*")) if path.is_file())
    return [str(path) for path in paths if path.suffix != ".lock" and not path.name.startswith(RECORD)]


def _state(paths: Iterable[str | Path]) -> str:
    """Hash the names, sizes, times and inodes of files."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116  # a Path of each file takes longer than this
            state: Any = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
        except OSError as error:
            state = error.errno
        digest.update(f"{path!s}\0{state}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _changed_ns(path: str) -> int:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return 0
    return max(status.st_mtime_ns, status.st_ctime_ns)
