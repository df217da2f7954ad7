"""Healthy cache files that cannot be read now: in use, without locks, closed, on a disk that cannot be written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from filelock import FileLock
from typer.testing import CliRunner

import featbench
from featbench.cli.main import app
from featbench.errors import CacheError
from featbench.features.cache import read_info
from featbench.features.opening import CacheInUseError, UnreadableCacheError
from featbench.features.upkeep import list_cache, prune_cache
from tests.disks import closed, python, read_only, without_locks
from tests.features.cache_files import features, make_key, write
from tests.features.extracting import folder_dataset, run, small_network
from tests.tiny import Recorder, image_folder

HOLD = """
import sys, h5py
file = h5py.File(sys.argv[1], "a")
print("open", flush=True)
sys.stdin.read()
"""


@contextmanager
def notebook(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Open a file for writing in another process, as a notebook does."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process


def prune_all(cache: Path) -> str:
    command = ["cache", "prune", "--older-than", "0", "--yes", "--cache", str(cache)]
    return CliRunner().invoke(app, command).output


@pytest.mark.parametrize("locks", ["TRUE", "FALSE"])
def test_a_file_that_another_program_writes_to_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: str
) -> None:
    path = write(make_key(tmp_path), {"layer3": features(7)})
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", locks)
    with notebook(path):
        for read in (read_info, lambda path: featbench.load_features(path, "layer3")):
            with pytest.raises(CacheInUseError, match=rf"{path.name} is open for writing in another program.*close it"):
                read(path)
        (entry,) = list_cache(tmp_path)
        assert (entry.state, entry.removable) == ("in use", False)
        assert f"{path} stays" in prune_all(tmp_path)
    assert np.array_equal(featbench.load_features(path, "layer3")[0], features(7))


def test_a_file_that_a_killed_program_did_not_close_is_left_alone(tmp_path: Path) -> None:
    path = write(make_key(tmp_path), {"layer3": features(7)})
    with notebook(path) as process:
        process.send_signal(signal.SIGKILL)
    with pytest.raises(CacheInUseError, match="open for writing in another program, or was when that was killed"):
        read_info(path)
    prune_all(tmp_path)
    assert path.exists()


def test_what_comes_into_use_after_it_was_listed_is_left_alone(tmp_path: Path) -> None:
    path = write(make_key(tmp_path), {"layer3": features(7)})
    entries = list_cache(tmp_path)
    with notebook(path):
        ((_, problem),) = prune_cache(entries)
    assert isinstance(problem, CacheInUseError)
    assert path.exists()


def test_a_reader_in_another_program_keeps_nobody_from_reading(tmp_path: Path) -> None:
    path = write(make_key(tmp_path), {"layer3": features(7)})
    command = [sys.executable, "-c", HOLD.replace('"a"', '"r"'), str(path)]
    readers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
    assert np.array_equal(featbench.load_features(path, "layer3")[0], features(7))
    for reader in readers:
        reader.communicate()


@pytest.mark.parametrize("locking", [False, True])
def test_a_file_that_this_process_has_open_in_another_way_is_read(tmp_path: Path, locking: bool) -> None:
    path = write(make_key(tmp_path), {"layer3": features(7)})
    with h5py.File(path, "r", locking=locking):
        assert np.array_equal(featbench.load_features(path, "layer3")[0], features(7))


WITHOUT_LOCKS = """
import sys
from pathlib import Path
import h5py
from featbench.features.upkeep import list_cache, prune_cache, verify_cache
from featbench.results.store import ResultsTable, load_results
from tests.features.extracting import folder_dataset, run, small_network
from featbench.results.row import Row
from tests.rows import DEFAULTS

photos, cache, results = map(Path, sys.argv[1:])
dataset = folder_dataset(photos)
for layers in (("layer1",), ("layer1", "layer3"), ("layer1", "layer3")):
    info = run(dataset, small_network(layers=layers), cache)
    print(*info.widths)
try:
    h5py.File(info.path)
except OSError as error:
    print(error.errno)
print(*[entry.state for entry in list_cache(cache)], *[problem for _, problem in verify_cache(cache)])
ResultsTable(results).add(Row(**DEFAULTS))
print(len(load_results(results)))
print(*[problem for _, problem in prune_cache(list_cache(cache))], len(list(cache.iterdir())))
"""


def test_a_disk_without_locks_is_written_and_read(tmp_path: Path) -> None:
    photos = image_folder(tmp_path / "photos", per_class=5)
    said = python(WITHOUT_LOCKS, photos, tmp_path / "cache", tmp_path / "results", env=without_locks(tmp_path))
    assert said.splitlines() == ["layer1", "layer1 layer3", "layer1 layer3", "37", "complete None", "1", "None 0"]


READ = """
import sys, featbench
try:
    print(featbench.load_features(sys.argv[1], "layer3")[0].shape)
except featbench.FeatbenchError as error:
    print(type(error).__name__, error)
"""


def test_a_disk_without_locks_where_hdf5_is_told_to_use_them_says_what_to_set(tmp_path: Path) -> None:
    path = write(make_key(tmp_path), {"layer3": features(7)})
    env = without_locks(tmp_path)
    assert python(READ, path, env=env) == "(5, 7)\n"
    said = python(READ, path, env=env | {"HDF5_USE_FILE_LOCKING": "TRUE"})
    assert "UnreadableCacheError" in said
    assert "no file locks and HDF5_USE_FILE_LOCKING asks for them; set that variable to FALSE" in said
    with notebook(path):
        assert "CacheInUseError" in python(READ, path, env=env)


def test_a_file_that_is_closed_to_this_user_is_not_damaged(tmp_path: Path) -> None:
    folder = Path("/tmp") / f"featbench-test-{os.getpid()}"  # pytest's own are closed to others
    path = write(make_key(folder), {"layer3": features(7)})
    try:
        with closed(path):
            with pytest.raises(UnreadableCacheError, match=rf"{path.name} cannot be read: Permission denied; ask"):
                featbench.load_features(path, "layer3")
            (entry,) = list_cache(folder)
            assert (entry.state, entry.removable) == ("unreadable", False)
        with closed(path.parent):
            (entry,) = list_cache(folder)
            assert (entry.path, entry.state) == (path.parent, "unreadable")
            assert "cannot be listed: Permission denied" in entry.about
            assert "stays" in prune_all(folder)
            with pytest.raises(UnreadableCacheError, match="Permission denied"):
                read_info(path)
        assert path.exists()
    finally:
        path.unlink()
        path.parent.rmdir()
        path.parent.parent.rmdir()
        folder.rmdir()


def test_a_read_only_disk_is_read(tmp_path: Path) -> None:
    dataset = folder_dataset(image_folder(tmp_path / "photos", per_class=5))
    cache = tmp_path / "cache"
    first = run(dataset, small_network(layers=("layer1",)), cache)
    with read_only(cache):
        progress = Recorder()
        assert run(dataset, small_network(layers=("layer1",)), cache, progress=progress) == first
        assert any("reused" in said for said in progress.said)
        with pytest.raises(CacheError, match=r"cannot be written: Read-only file system; use --cache"):
            run(dataset, small_network(layers=("layer2",)), cache)
        command = ["cache", "prune", "--older-than", "0", "--yes", "--cache", str(cache)]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 1
        assert f"{first.path} cannot be removed: Read-only file system" in result.output
    assert first.path.exists()


def test_what_is_complete_is_read_while_another_process_holds_its_lock(tmp_path: Path) -> None:
    dataset = folder_dataset(image_folder(tmp_path / "photos", per_class=5))
    config = small_network(layers=("layer1",))
    first = run(dataset, config, tmp_path / "cache")
    with FileLock(first.path.with_suffix(".lock")):  # to wait for it would be for ever
        assert run(dataset, config, tmp_path / "cache") == first
