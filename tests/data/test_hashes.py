from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from featbench.data.hashes import NO_BYTES, hash_files

OLD_S = 1_600_000_000.0


class Reader:
    """Hashes files whose last change may be of just now, since that time cannot be set back; `read` are their names."""

    def __init__(self, settled_ns: int = -(10**18)) -> None:
        self.read: list[str] = []
        self._settled_ns = settled_ns

    def hash(self, paths: list[Path], memo: Path) -> tuple[str, ...]:
        self.read.clear()
        return hash_files(paths, memo, settled_ns=self._settled_ns, hash_one=self._hash_one)

    def _hash_one(self, path: Path) -> str:
        self.read.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()


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


def test_unchanged_files_are_not_read_again(tmp_path: Path) -> None:
    reader = Reader()
    paths, memo = make(tmp_path), tmp_path / "memo" / "of-these"
    assert reader.hash(paths, memo) == expected(paths)
    assert sorted(reader.read) == ["0.jpg", "1.jpg", "2.jpg"]
    assert reader.hash(paths, memo) == expected(paths)
    assert reader.read == []
    assert [file.name for file in memo.parent.iterdir()] == ["of-these"]


def test_a_change_of_one_byte_is_seen_although_size_and_date_stay(tmp_path: Path) -> None:
    reader = Reader()
    paths, memo = make(tmp_path), tmp_path / "memo"
    for path in paths:
        os.utime(path, (OLD_S, OLD_S))
    reader.hash(paths, memo)
    paths[1].write_bytes(b"1.jpq")
    os.utime(paths[1], (OLD_S, OLD_S))
    assert reader.hash(paths, memo) == expected(paths)
    assert reader.read == ["1.jpg"]


def test_a_file_that_takes_the_place_of_another_is_read(tmp_path: Path) -> None:
    reader = Reader()
    paths, memo = make(tmp_path), tmp_path / "memo"
    reader.hash(paths, memo)
    paths[0].rename(tmp_path / "away")
    paths[1].rename(paths[0])
    (tmp_path / "away").rename(paths[1])
    assert reader.hash(paths, memo) == expected(paths)


def test_what_changed_a_moment_ago_is_not_remembered(tmp_path: Path) -> None:
    reader = Reader(2 * 10**9)
    paths, memo = make(tmp_path), tmp_path / "memo"
    assert max(path.stat().st_ctime for path in paths) > time.time() - 1
    reader.hash(paths, memo)
    assert reader.hash(paths, memo) == expected(paths)
    assert len(reader.read) == 3


@pytest.mark.parametrize("content", [b"", b"half a row", bytes(48 * 3)])
def test_a_damaged_memo_costs_time_only(tmp_path: Path, content: bytes) -> None:
    reader = Reader()
    paths, memo = make(tmp_path), tmp_path / "memo"
    memo.write_bytes(content)
    assert reader.hash(paths, memo) == expected(paths)
    assert reader.hash(paths, memo) == expected(paths)


def test_a_memo_that_cannot_be_written_is_passed_over(tmp_path: Path) -> None:
    reader = Reader()
    paths = make(tmp_path)
    assert reader.hash(paths, paths[0] / "memo") == expected(paths)


def test_files_that_cannot_be_read_are_tried_again(tmp_path: Path) -> None:
    reader = Reader()
    paths, memo = make(tmp_path), tmp_path / "memo"
    content = paths[2].read_bytes()
    paths[2].unlink()
    assert reader.hash(paths, memo)[2] == f"{NO_BYTES}No such file or directory"
    paths[2].write_bytes(content)
    assert reader.hash(paths, memo) == expected(paths)
