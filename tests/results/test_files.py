from __future__ import annotations

import os
from pathlib import Path

import pytest

from featbench.errors import ResultsError
from featbench.results.files import replacing, write_csv, write_text


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail_midway() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        fail_midway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_of_the_old_file_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with path.open() as reader:
        write_text(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    write_text(tmp_path / "a.txt", "x")
    assert os.stat(tmp_path / "a.txt").st_mode == usual.stat().st_mode  # noqa: PTH116


def test_cells_are_quoted_where_they_must_be(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ("a", "b"), [('x,"y"', None), ("é", 0.1)])
    assert (tmp_path / "a.csv").read_bytes() == 'a,b\n"x,""y""",\né,0.1\n'.encode()


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match=r"cannot write .*a\.txt: .*--results"):
        write_text(tmp_path / "file" / "a.txt", "x")
