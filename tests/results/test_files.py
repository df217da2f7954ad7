from __future__ import annotations

import os
from pathlib import Path

import pytest

from featbench.errors import ResultsError
from featbench.results.files import read_csv, replacing, write_csv, write_text


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


@pytest.mark.parametrize("text", ["id;x\r\na,b;0,5\r\n1,5;-2,5E-05\r\n", '\ufeffid,x\n"a,b",0.5\n"1,5",-2.5e-05\n'])
def test_a_table_that_a_spreadsheet_saved_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text, "utf-8", newline="")
    table = read_csv(tmp_path / "a.csv", ("id", "x"), ("x",))
    assert table["id"].tolist() == ["a,b", "1,5"]
    assert table["x"].tolist() == [0.5, -2.5e-5]


def test_what_is_no_number_is_said_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id;x\na;01. Mai\n")
    with pytest.raises(ResultsError, match=r"01\. Mai.*restore the file as featbench wrote it"):
        read_csv(tmp_path / "a.csv", ("id", "x"), ("x",))
