from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from featbench.errors import ResultsError
from featbench.locks import file_lock
from featbench.results.artifacts import load_predictions
from featbench.results.row import COLUMNS, Row
from featbench.results.store import ResultsTable, load_current, load_results, prepare_folder
from tests.rows import write_rows
from tests.spreadsheets import saved_by_a_spreadsheet

MakeRow = Callable[..., Row]


def cells_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_prepare_makes_the_folder_and_leaves_it_empty(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_prepare_refuses_a_place_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match="cannot write"):
        prepare_folder(tmp_path / "file" / "results")


def test_the_file_holds_the_columns_in_order_and_empty_cells(tmp_path: Path, make_row: MakeRow) -> None:
    write_rows(tmp_path, [make_row(layer=None, converged=None, n_val=None)])
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    (cells,) = cells_of(tmp_path)
    assert (cells["layer"], cells["converged"], cells["n_val"]) == ("", "", "")
    assert (cells["accuracy"], cells["seed"], cells["params"]) == ("0.30000000000000004", "0", '{"C": 0.01}')


def test_the_same_fingerprint_is_replaced_in_place(tmp_path: Path, make_row: MakeRow) -> None:
    write_rows(tmp_path, [make_row(fingerprint="a", seed=1), make_row(fingerprint="b", seed=2)])
    write_rows(tmp_path, [make_row(fingerprint="c", seed=3), make_row(fingerprint="a", seed=4)])
    assert [(c["fingerprint"], c["seed"]) for c in cells_of(tmp_path)] == [("a", "4"), ("b", "2"), ("c", "3")]


def test_columns_of_a_newer_version_are_kept_at_the_end(tmp_path: Path, make_row: MakeRow) -> None:
    write_rows(tmp_path, [make_row(fingerprint="a"), make_row(fingerprint="b")])
    table = pd.read_csv(tmp_path / "results.csv", dtype=str, keep_default_na=False)
    table.insert(0, "energy_j", ["7.10", "8.20"])
    table.to_csv(tmp_path / "results.csv", index=False)
    write_rows(tmp_path, [make_row(fingerprint="b", seed=9), make_row(fingerprint="c")])
    assert (tmp_path / "results.csv").read_text().splitlines()[0] == ",".join([*COLUMNS, "energy_j"])
    assert [(c["fingerprint"], c["energy_j"]) for c in cells_of(tmp_path)] == [("a", "7.10"), ("b", "8.20"), ("c", "")]
    assert load_results(tmp_path)["energy_j"].notna().tolist() == [True, True, False]


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2,3\n", b"\xff\xfe\x00"], ids=["empty", "ragged", "binary"])
def test_a_damaged_file_is_not_written_over(tmp_path: Path, make_row: MakeRow, content: bytes) -> None:
    (tmp_path / "results.csv").write_bytes(content)
    with pytest.raises(ResultsError, match=r"results\.csv is not a readable CSV file.*; restore the file"):
        write_rows(tmp_path, [make_row()])
    assert (tmp_path / "results.csv").read_bytes() == content


def test_a_file_that_ends_within_a_row_is_not_written_over(tmp_path: Path, make_row: MakeRow) -> None:
    write_rows(tmp_path, [make_row(fingerprint="a"), make_row(fingerprint="b")])
    content = (tmp_path / "results.csv").read_bytes()[:-60]
    (tmp_path / "results.csv").write_bytes(content)
    with pytest.raises(ResultsError, match="holds nothing in row 2; it may not be empty"):
        write_rows(tmp_path, [make_row()])
    assert (tmp_path / "results.csv").read_bytes() == content


def test_a_foreign_file_is_not_written_over(tmp_path: Path, make_row: MakeRow) -> None:
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ResultsError, match=r"lacks the columns experiment, dataset, .* another version or program"):
        write_rows(tmp_path, [make_row()])
    assert (tmp_path / "results.csv").read_text() == "a,b\n1,2\n"


def test_empty_cells_that_a_spreadsheet_left_out_at_the_end_of_a_line(tmp_path: Path, make_row: MakeRow) -> None:
    write_rows(tmp_path, [make_row(fingerprint="a", steps=None, never_predicted=None)])
    expected = load_results(tmp_path)
    file = tmp_path / "results.csv"
    file.write_text(file.read_text().rstrip(",\n") + "\n\n")
    pd.testing.assert_frame_equal(load_results(tmp_path), expected)
    write_rows(tmp_path, [make_row(fingerprint="b")])
    assert load_results(tmp_path)["fingerprint"].tolist() == ["a", "b"]


def test_a_table_knows_the_rows_of_the_file_and_those_it_added(tmp_path: Path, make_row: MakeRow) -> None:
    table = ResultsTable(tmp_path / "new")
    assert not table.has("a")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ResultsError, match=r"no results\.csv at .*new"):
        table.load()
    table.add(make_row(fingerprint="a", seed=1))
    table.add(make_row(fingerprint="b", seed=2), make_row(fingerprint="a", seed=3))
    assert [table.has(name) for name in "abc"] == [True, True, False]
    assert table.load()["seed"].tolist() == [3, 2]
    pd.testing.assert_frame_equal(table.load(), load_results(tmp_path / "new"))
    assert ResultsTable(tmp_path / "new").has("b")


def test_a_table_is_parsed_again_only_when_the_file_has_changed(tmp_path: Path, make_row: MakeRow) -> None:
    table, file = ResultsTable(tmp_path), tmp_path / "results.csv"
    table.add(make_row(fingerprint="a0"))
    assert table.has("a0")
    status = file.stat()
    with file.open("r+b") as opened:  # the same size, time and inode: nobody who parses the file again could miss it
        opened.write(file.read_bytes().replace(b"a0", b"z0"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert table.has("a0")
    assert not table.has("z0")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert table.has("z0")
    assert not table.has("a0")


def test_a_table_sees_the_rows_and_columns_of_others(tmp_path: Path, make_row: MakeRow) -> None:
    mine, theirs = ResultsTable(tmp_path), ResultsTable(tmp_path)
    mine.add(make_row(fingerprint="a"))
    theirs.add(make_row(fingerprint="b"))
    assert mine.has("b")
    cells = pd.read_csv(tmp_path / "results.csv", dtype=str, keep_default_na=False).assign(energy_j="7.10")
    cells.to_csv(tmp_path / "results.csv", index=False)
    mine.add(make_row(fingerprint="c"))
    theirs.add(make_row(fingerprint="a", seed=5))
    assert [(c["fingerprint"], c["seed"], c["energy_j"]) for c in cells_of(tmp_path)] == [
        ("a", "5", "7.10"),
        ("b", "0", "7.10"),
        ("c", "0", ""),
    ]
    (tmp_path / "results.csv").unlink()
    assert not mine.has("a")


def test_a_table_that_cannot_be_written_keeps_what_it_knew(tmp_path: Path, make_row: MakeRow) -> None:
    table = ResultsTable(tmp_path, lock_timeout_s=0.01)
    table.add(make_row(fingerprint="a"))
    with (
        file_lock(tmp_path / ".results.csv.lock"),
        pytest.raises(ResultsError, match=r"another process has held .* for 0 s; let it end, or use another folder"),
    ):
        table.add(make_row(fingerprint="b"))
    assert [table.has(name) for name in "ab"] == [True, False]


WRITER = """
import sys
from pathlib import Path
from featbench.results.row import Row
from featbench.results.store import ResultsTable
folder, name, defaults = Path(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
table = ResultsTable(folder)
for i in range(15):
    table.add(Row(**(defaults | {"fingerprint": f"{name}{i}"})))
    print(i, flush=True)
"""


def writer_of(folder: Path, name: str, row: Row) -> subprocess.Popen[str]:
    """Start a process that waits for a line, then adds 15 rows."""
    command = [sys.executable, "-c", WRITER, str(folder), name, repr(vars(row))]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    return writer


def test_two_processes_lose_no_rows(tmp_path: Path, make_row: MakeRow) -> None:
    writers = [writer_of(tmp_path, name, make_row()) for name in "ab"]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    assert {c["fingerprint"] for c in cells_of(tmp_path)} == {f"{name}{i}" for name in "ab" for i in range(15)}


def test_a_killed_process_leaves_whole_rows(tmp_path: Path, make_row: MakeRow) -> None:
    writer = writer_of(tmp_path, "a", make_row())
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write("go\n")
    writer.stdin.flush()
    for expected in range(3):
        assert writer.stdout.readline() == f"{expected}\n"
    writer.kill()
    writer.communicate(timeout=60)
    names = load_results(tmp_path)["fingerprint"].tolist()
    assert len(names) >= 3
    assert names == [f"a{i}" for i in range(len(names))]
    write_rows(tmp_path, [make_row(fingerprint="b")])  # the lock went with the process
    assert load_results(tmp_path)["fingerprint"].tolist() == [*names, "b"]


@pytest.mark.parametrize("whole_path", [False, True])
def test_load_gives_typed_columns(tmp_path: Path, make_row: MakeRow, whole_path: bool) -> None:
    write_rows(
        tmp_path,
        [
            make_row(fingerprint="0000000000001e10", weights="None", dataset="NA"),
            make_row(fingerprint="b", feature_dim=None, val_accuracy=None, converged=False, layer=None),
            make_row(fingerprint="c", converged=None, seed=2**32 - 1),
        ],
    )
    table = load_results(tmp_path / "results.csv" if whole_path else tmp_path)
    assert list(table.columns) == list(COLUMNS)
    assert table["fingerprint"].tolist() == ["0000000000001e10", "b", "c"]
    assert table["weights"][0] == "None"
    assert table["dataset"][0] == "NA"
    assert table["layer"].isna().tolist() == [False, True, False]
    assert (table["seed"].dtype, table["seed"].tolist()) == ("Int64", [0, 0, 2**32 - 1])
    assert table["feature_dim"].isna().tolist() == [False, True, False]
    assert (table["accuracy"].dtype, table["accuracy"][0]) == (np.float64, 0.1 + 0.2)
    assert np.isnan(table["val_accuracy"][1])
    assert table["converged"].dtype == "boolean"
    assert table["converged"].fillna(True).tolist() == [True, False, True]
    assert table["created_at"][0] == pd.Timestamp("2026-01-02T03:04:05.678", tz="UTC")


def test_a_header_alone_gives_an_empty_typed_table(tmp_path: Path) -> None:
    write_rows(tmp_path, [])
    table = load_results(str(tmp_path))
    assert len(table) == 0
    kinds = {"seed": "Int64", "accuracy": "float64", "converged": "boolean"}
    assert {name: str(table[name].dtype) for name in kinds} == kinds
    assert str(table["created_at"].dtype).startswith("datetime64")


@pytest.mark.parametrize(
    ("params", "size"),
    [
        ('{"C": 1, "images_per_class": 5}', 5),
        ('{"C": 1}', None),
        ('{"images_per_class": null}', None),
        ('{"images_per_class": "5"}', None),
        ('{"images_per_class": 2.5}', None),
        ('{"images_per_class": 0}', None),
    ],
)
def test_sizes_of_learning_curves_that_an_earlier_version_kept_in_the_params(
    tmp_path: Path, make_row: MakeRow, params: str, size: int | None
) -> None:
    write_rows(tmp_path, [make_row(fingerprint="old", params=params), make_row(fingerprint="new", images_per_class=7)])
    sizes = load_results(tmp_path)["images_per_class"]
    assert str(sizes.dtype) == "Int64"
    assert [None if pd.isna(value) else value for value in sizes] == [size, 7]
    table = pd.read_csv(tmp_path / "results.csv", dtype=str).drop(columns="images_per_class").head(1)
    table.to_csv(tmp_path / "results.csv", index=False)
    sizes = load_results(tmp_path)["images_per_class"]
    assert [None if pd.isna(value) else value for value in sizes] == [size]


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_no_results_says_how_to_make_them(tmp_path: Path, name: str) -> None:
    with pytest.raises(ResultsError, match=r"no results\.csv at .*`featbench run EXPERIMENT --results DIR`"):
        load_results(tmp_path / name)


def test_an_older_version_lacks_columns(tmp_path: Path, make_row: MakeRow) -> None:
    write_rows(tmp_path, [make_row()])
    table = pd.read_csv(tmp_path / "results.csv").drop(columns=["engine", "created_at"])
    table.to_csv(tmp_path / "results.csv", index=False)
    with pytest.raises(ResultsError, match="lacks the columns engine, created_at"):
        load_results(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2,3\n4\n", b"\xff\xfe\x00", b'a\n"'], ids=["empty", "ragged", "binary", "cut"]
)
def test_load_refuses_what_is_no_csv(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "results.csv").write_bytes(content)
    with pytest.raises(ResultsError, match=r"results\.csv"):
        load_results(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("seed", "1.5", "'1.5' in row 2; it is a whole number, from 0 up"),
        ("seed", "-1", "'-1' in row 2; it is a whole number"),
        ("n_train", "inf", "'inf' in row 2; it is a whole number, from 1 up"),
        ("n_test", "nan", "'nan' in row 2"),
        ("n_test", "", "nothing in row 2; it may not be empty"),
        ("n_test", "0", "'0' in row 2; it is a whole number, from 1 up"),
        ("n_val", "9" * 400, f"'{'9' * 60}\\.\\.\\.' in row 2; it is a whole number"),
        ("feature_dim", "1e3", "'1e3' in row 2"),
        ("accuracy", "high", "'high' in row 2; it is a number"),
        ("accuracy", "", "nothing in row 2; it may not be empty"),
        ("accuracy_low", "nan", "'nan' in row 2; it is a number from 0 to 1"),
        ("accuracy_high", "", "nothing in row 2; it may not be empty"),
        ("accuracy", "1.5", "'1.5' in row 2; it is a number from 0 to 1"),
        ("val_accuracy", "inf", "'inf' in row 2; it is a number from 0 to 1"),
        ("fit_s", "-1", "'-1' in row 2; it is a number from 0 to"),
        ("fit_s", "1e400", "'1e400' in row 2"),
        ("converged", "yes", "'yes' in row 2; it is True, False or empty"),
        ("created_at", "x", "'x' in row 2; it is a date and time as in 2026"),
        ("created_at", "300000-01-01", "'300000-01-01' in row 2; it is a date"),
        ("created_at", "0001-01-01", "'0001-01-01' in row 2; it is a date .*, from 2000 on"),
        ("method", "", "nothing in row 2; it may not be empty"),
        ("dataset", "", "nothing in row 2"),
        ("kind", "", "nothing in row 2"),
        ("kind", "tree", "'tree' in row 2; it is classifier or baseline"),
        ("fingerprint", "", "nothing in row 2"),
        ("fingerprint", "**", r"'\*\*' in row 2; it is letters, digits and -"),
        ("fingerprint", "../../x", "'../../x' in row 2"),
        ("fingerprint", "00000000000000aa", "'00000000000000aa' in row 2; each row has one of its own"),
        ("params", "no json", "'no json' in row 2; it is a JSON object"),
        ("params", "[1]", ".* in row 2; it is a JSON object"),
        (
            "params",
            '{"a":' * 30 + "1" + "}" * 30,
            ".* in row 2; it is a JSON object of finite numbers, nested at most 20",
        ),
        ("params", "[" * 100_000, ".* in row 2; it is a JSON object"),
        ("params", '{"images_per_class": 1' + "0" * 400 + "}", ".* in row 2; it is a JSON object of finite numbers"),
    ],
)
def test_load_names_the_place_of_a_wrong_cell(
    tmp_path: Path, make_row: MakeRow, column: str, value: str, says: str
) -> None:
    write_rows(tmp_path, [make_row(), make_row(fingerprint="b")])
    table = pd.read_csv(tmp_path / "results.csv", dtype=str, keep_default_na=False)
    table.loc[1, column] = value
    table.to_csv(tmp_path / "results.csv", index=False)
    with pytest.raises(ResultsError, match=f"results.csv: column {column} holds {says}"):
        load_results(tmp_path)


def test_a_network_that_diverged_has_no_validation_accuracy(tmp_path: Path, make_row: MakeRow) -> None:
    write_rows(tmp_path, [make_row(val_accuracy=float("nan"), macro_f1=float("nan"))])
    assert load_results(tmp_path)[["val_accuracy", "macro_f1"]].isna().all(axis=None)


def test_whole_numbers_keep_all_their_digits_and_may_have_gone_through_a_spreadsheet(
    tmp_path: Path, make_row: MakeRow
) -> None:
    write_rows(tmp_path, [make_row(seed="9007199254740993", n_train="100.0")])
    table = load_results(tmp_path)
    assert (table.seed[0], table.n_train[0]) == (9007199254740993, 100)


@pytest.mark.parametrize("name", ["results.csv", "current.csv", "predictions/x-00000000000000aa.csv"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path, make_row: MakeRow, name: str) -> None:
    write_rows(tmp_path, [make_row()])
    (tmp_path / "predictions").mkdir()
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    read = partial(load_predictions, fingerprint="00000000000000aa") if "predictions" in name else load_current
    with pytest.raises(ResultsError, match=r"there is no results|it is no regular file|found: none"):
        read(tmp_path)


@pytest.mark.parametrize(("separator", "comma"), [(";", ","), (";", "."), (",", "."), ("\t", ".")])
def test_results_that_a_spreadsheet_saved_are_the_same(
    tmp_path: Path, make_row: MakeRow, separator: str, comma: str
) -> None:
    rows = [
        make_row(fingerprint="a", converged=True, fit_s=1.5e-7, layer="1,5", params='{"C": 0.5, "x": "a;b"}'),
        make_row(fingerprint="b", converged=None, val_accuracy=None, dataset="größe; 2,5"),
    ]
    write_rows(tmp_path, rows)
    expected = load_results(tmp_path)
    saved_by_a_spreadsheet(tmp_path / "results.csv", separator, comma)
    pd.testing.assert_frame_equal(load_results(tmp_path), expected)
    write_rows(tmp_path, [make_row(fingerprint="c")])
    pd.testing.assert_frame_equal(load_results(tmp_path).iloc[:2], expected)
    assert (tmp_path / "results.csv").read_text("utf-8").splitlines()[0] == ",".join(COLUMNS)


@pytest.mark.parametrize(
    ("new", "column"),
    [("1.234,5", "accuracy"), ("01. Mai", "accuracy"), ("01.05.2026 12:30", "created_at")],
)
def test_what_a_spreadsheet_made_of_a_cell_is_said_with_the_way_out(
    tmp_path: Path, make_row: MakeRow, new: str, column: str
) -> None:
    write_rows(tmp_path, [make_row()])
    saved_by_a_spreadsheet(tmp_path / "results.csv")
    header, line = (tmp_path / "results.csv").read_text("utf-8").splitlines()
    cells = line.split(";")
    cells[header.split(";").index(column)] = new
    (tmp_path / "results.csv").write_text(f"{header}\n{';'.join(cells)}\n", "utf-8")
    with pytest.raises(ResultsError, match=rf"column {column} holds .*restore the file as .*into another folder"):
        load_results(tmp_path)
