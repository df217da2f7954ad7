from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from featbench.errors import ResultsError
from featbench.results.artifacts import artifact_name, load_predictions, write_predictions
from featbench.results.row import Row
from tests.spreadsheets import saved_by_a_spreadsheet

MakeRow = Callable[..., Row]


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


def test_predictions_that_a_spreadsheet_saved_are_the_same(tmp_path: Path, make_row: MakeRow) -> None:
    row = make_row()
    file = predictions(tmp_path, row)
    expected = load_predictions(tmp_path, row.fingerprint)
    saved_by_a_spreadsheet(file)
    assert ";" in file.read_text("utf-8-sig")
    pd.testing.assert_frame_equal(load_predictions(tmp_path, row.fingerprint), expected)
