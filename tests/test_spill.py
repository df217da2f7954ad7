from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from featbench.spill import make_room, spill


def test_rows_come_back_as_they_were_and_no_file_is_left(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(10, 3, 4)).astype(np.float32)
    mapped = spill(iter([X[:4], X[4:8].swapaxes(1, 2).copy().swapaxes(1, 2), X[8:]]), tmp_path)
    assert not list(tmp_path.iterdir())
    assert mapped.dtype == np.float32
    np.testing.assert_array_equal(mapped[[9, 0, 5]], X[[9, 0, 5]])
    mapped[1] = 0
    np.testing.assert_array_equal(mapped, np.concatenate([X[:1], np.zeros((1, 3, 4)), X[2:]]))


def test_no_file_is_left_by_an_error(tmp_path: Path) -> None:
    def blocks() -> Iterator[npt.NDArray[Any]]:
        yield np.ones((2, 2))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spill(blocks(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_room_is_made_where_there_is_some(tmp_path: Path) -> None:
    make_room(tmp_path / "new" / "folder", 1000)
    assert (tmp_path / "new" / "folder").is_dir()
    with pytest.raises(OSError, match="No space left"):
        make_room(tmp_path, 10**18)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        make_room(tmp_path / "file" / "folder", 1000)
