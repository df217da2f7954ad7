"""Disks and users that are not this machine's: without locks, read-only, with no right to read."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

_NO_FLOCK = "#include <errno.h>\nint flock(int file, int operation) { errno = ENOLCK; return -1; }\n"
NOBODY = 65534


def without_locks(folder: Path) -> dict[str, str]:
    """Return the environment of a process on a disk that has no locks: `flock` answers ENOLCK, as NFS may."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("there is no C compiler, or no LD_PRELOAD, to take the locks away with")
    source, library = folder / "no_flock.c", folder / "no_flock.so"
    source.write_text(_NO_FLOCK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


def python(program: str, *arguments: object, env: Mapping[str, str] | None = None) -> str:
    """Run a program in a process of its own for two minutes at most, and return what it prints."""
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """Have the system refuse files larger than that, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nothing in a folder be written, by nobody."""
    mount = shutil.which("mount") or "mount"
    steps = [[mount, "--bind", folder, folder], [mount, "-o", "remount,bind,ro", folder]]
    mounted = 0
    try:
        for step in steps:
            if not Path(mount).exists() or subprocess.run(step, capture_output=True, check=False).returncode:
                pytest.skip("this process may not mount a folder read-only")
            mounted = 1
        yield
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True)


@contextmanager
def closed(path: Path) -> Iterator[None]:
    """Close a file or folder to this process, which is nobody's where it was root's."""
    mode = path.stat().st_mode
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(mode)
