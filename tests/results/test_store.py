from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from featbench.errors import ResultsError
from featbench.results.row import COLUMNS, Row
from featbench.results.store import (
    artifact_name,
    load_predictions,
    load_results,
    prepare_folder,
    write_notes,
    write_predictions,
    write_rows,
    write_skipped,
)

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


@pytest.mark.parametrize("content", [b"", b"a,b\n1\n", b"\xff\xfe\x00"], ids=["empty", "ragged", "binary"])
def test_a_damaged_file_is_not_written_over(tmp_path: Path, make_row: MakeRow, content: bytes) -> None:
    (tmp_path / "results.csv").write_bytes(content)
    with pytest.raises(ResultsError, match=r"results\.csv is damaged"):
        write_rows(tmp_path, [make_row()])
    assert (tmp_path / "results.csv").read_bytes() == content


def test_a_foreign_file_is_not_written_over(tmp_path: Path, make_row: MakeRow) -> None:
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ResultsError, match="no column fingerprint"):
        write_rows(tmp_path, [make_row()])


WRITER = """
import sys
from pathlib import Path
from featbench.results.row import Row
from featbench.results.store import write_rows
folder, name, defaults = Path(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for i in range(15):
    write_rows(folder, [Row(**(defaults | {"fingerprint": f"{name}{i}"}))])
"""


def test_two_processes_lose_no_rows(tmp_path: Path, make_row: MakeRow) -> None:
    defaults = repr(vars(make_row()))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), name, defaults],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    assert {c["fingerprint"] for c in cells_of(tmp_path)} == {f"{name}{i}" for name in "ab" for i in range(15)}


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
    ("column", "value", "kind"),
    [
        ("seed", "1.5", "int"),
        ("accuracy", "high", "float"),
        ("converged", "yes", "bool"),
        ("created_at", "x", "datetime"),
    ],
)
def test_load_names_the_column_with_a_wrong_cell(
    tmp_path: Path, make_row: MakeRow, column: str, value: str, kind: str
) -> None:
    write_rows(tmp_path, [make_row(**{column: value})])
    with pytest.raises(ResultsError, match=f"column {column} holds something that is no {kind}"):
        load_results(tmp_path)


def test_artifact_names_are_readable_and_safe(make_row: MakeRow) -> None:
    row = make_row(backbone="timm:vit/../x", layer="blocks.3", fingerprint="f0")
    assert artifact_name(row) == "linear_svc-timm_vit_.._x-blocks.3-f0"
    assert artifact_name(make_row(layer=None, fingerprint="f0")) == "linear_svc-resnet18-f0"
    assert len(artifact_name(make_row(backbone="x" * 500, layer="y" * 500, method="z" * 500))) < 230


def predictions(folder: Path, row: Row, **changes: Any) -> Path:
    content = {
        "ids": ["007", "NA", "a,b"],
        "labels": np.array([0, 1, 2]),
        "predicted": np.array([0, 2, 2]),
        "scores": np.array([[0.5, -1.25, -np.inf], [1 / 3, 0, 1], [1e-9, 2, 3]]),
        "classes": ["cat", "NA", "a|b"],
    }
    return write_predictions(folder, row, **(content | changes))


def test_predictions_are_written_by_name(tmp_path: Path, make_row: MakeRow) -> None:
    path = predictions(tmp_path, make_row(fingerprint="f0"))
    assert path == tmp_path / "predictions" / "linear_svc-resnet18-layer3-f0.csv"
    assert path.read_text().splitlines() == [
        "id,label,predicted,score:cat,score:NA,score:a|b",
        "007,cat,cat,0.5,-1.25,-inf",
        "NA,NA,a|b,0.333333,0,1",
        '"a,b",a|b,a|b,1e-09,2,3',
    ]


def test_predictions_come_back(tmp_path: Path, make_row: MakeRow) -> None:
    predictions(tmp_path, make_row(fingerprint="xf0"), ids=["x", "y", "z"])
    predictions(tmp_path, make_row(fingerprint="f0"))
    table = load_predictions(tmp_path, "f0")
    assert table["id"].tolist() == ["007", "NA", "a,b"]
    assert table["label"].tolist() == ["cat", "NA", "a|b"]
    assert table["predicted"].tolist() == ["cat", "a|b", "a|b"]
    assert table["score:a|b"].tolist() == [-np.inf, 1.0, 3.0]


def test_predictions_of_a_diverged_network_come_back(tmp_path: Path, make_row: MakeRow) -> None:
    predictions(tmp_path, make_row(fingerprint="f0"), scores=np.full((3, 3), np.nan))
    table = load_predictions(tmp_path, "f0")
    assert table["id"].tolist() == ["007", "NA", "a,b"]
    assert table.filter(like="score:").isna().all(axis=None)


def test_missing_predictions_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"row f0 .*found: none"):
        load_predictions(tmp_path, "f0")


def test_two_files_of_one_row_are_an_error(tmp_path: Path, make_row: MakeRow) -> None:
    predictions(tmp_path, make_row(fingerprint="f0"))
    predictions(tmp_path, make_row(fingerprint="f0", layer="layer4"))
    with pytest.raises(ResultsError, match=r"found: .*layer3-f0\.csv, .*layer4-f0\.csv"):
        load_predictions(tmp_path, "f0")


def test_notes(tmp_path: Path) -> None:
    write_notes(tmp_path, [("train", "plain, or nearly", 3, "a/b.png")])
    assert (tmp_path / "notes.csv").read_text() == 'split,note,images,example\ntrain,"plain, or nearly",3,a/b.png\n'


def test_skipped_images(tmp_path: Path) -> None:
    write_skipped(tmp_path, [("train", "a/b.png", "cut, at byte 7")])
    assert (tmp_path / "skipped.csv").read_text() == 'split,id,reason\ntrain,a/b.png,"cut, at byte 7"\n'
