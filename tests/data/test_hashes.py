from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from featbench.data import hashes as hashes_
from featbench.data.hashes import NO_BYTES, hash_files

OLD_S = 1_600_000_000.0


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files of just now count as settled: the time of their last change cannot be set back."""
    monkeypatch.setattr(hashes_, "_SETTLED_NS", -(10**18))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    names: list[str] = []
    hash_file = hashes_.hash_file

    def noted(path: Path) -> str:
        names.append(path.name)
        return hash_file(path)

    monkeypatch.setattr(hashes_, "hash_file", noted)
    return names


def make(folder: Path, count: int = 3) -> list[Path]:
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


def expected(paths: list[Path]) -> tuple[str, ...]:
    return tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)


def test_without_a_memo_every_file_is_read(tmp_path: Path) -> None:
    paths = make(tmp_path, 200)  # more than one thread takes at once
    assert hash_files(paths) == expected(paths)


@pytest.mark.usefixtures("settled")
def test_unchanged_files_are_not_read_again(tmp_path: Path, read: list[str]) -> None:
    paths, memo = make(tmp_path), tmp_path / "memo" / "of-these"
    assert hash_files(paths, memo) == expected(paths)
    assert sorted(read) == ["0.jpg", "1.jpg", "2.jpg"]
    read.clear()
    assert hash_files(paths, memo) == expected(paths)
    assert read == []
    assert [file.name for file in memo.parent.iterdir()] == ["of-these"]


@pytest.mark.usefixtures("settled")
def test_a_change_of_one_byte_is_seen_although_size_and_date_stay(tmp_path: Path, read: list[str]) -> None:
    paths, memo = make(tmp_path), tmp_path / "memo"
    for path in paths:
        os.utime(path, (OLD_S, OLD_S))
    hash_files(paths, memo)
    read.clear()
    paths[1].write_bytes(b"1.jpq")
    os.utime(paths[1], (OLD_S, OLD_S))
    assert hash_files(paths, memo) == expected(paths)
    assert read == ["1.jpg"]


@pytest.mark.usefixtures("settled")
def test_a_file_that_takes_the_place_of_another_is_read(tmp_path: Path) -> None:
    paths, memo = make(tmp_path), tmp_path / "memo"
    hash_files(paths, memo)
    paths[0].rename(tmp_path / "away")
    paths[1].rename(paths[0])
    (tmp_path / "away").rename(paths[1])
    assert hash_files(paths, memo) == expected(paths)


def test_what_changed_a_moment_ago_is_not_remembered(tmp_path: Path, read: list[str]) -> None:
    paths, memo = make(tmp_path), tmp_path / "memo"
    assert max(path.stat().st_ctime for path in paths) > time.time() - 1
    hash_files(paths, memo)
    read.clear()
    assert hash_files(paths, memo) == expected(paths)
    assert len(read) == 3


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("content", [b"", b"half a row", bytes(48 * 3)])
def test_a_damaged_memo_costs_time_only(tmp_path: Path, content: bytes) -> None:
    paths, memo = make(tmp_path), tmp_path / "memo"
    memo.write_bytes(content)
    assert hash_files(paths, memo) == expected(paths)
    assert hash_files(paths, memo) == expected(paths)


@pytest.mark.usefixtures("settled")
def test_a_memo_that_cannot_be_written_is_passed_over(tmp_path: Path) -> None:
    paths = make(tmp_path)
    assert hash_files(paths, paths[0] / "memo") == expected(paths)


@pytest.mark.usefixtures("settled")
def test_files_that_cannot_be_read_are_tried_again(tmp_path: Path) -> None:
    paths, memo = make(tmp_path), tmp_path / "memo"
    content = paths[2].read_bytes()
    paths[2].unlink()
    assert hash_files(paths, memo)[2] == f"{NO_BYTES}No such file or directory"
    paths[2].write_bytes(content)
    assert hash_files(paths, memo) == expected(paths)
