from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy.stats import binomtest

from featbench.results.store import load_results
from featbench.runs.tables import write_tables
from tests.tiny import Recorder

Save = Callable[..., pd.DataFrame]
FILES = ("comparisons.csv", "metrics.csv", "confusion.csv", "spread.csv", "curves.csv", "mistakes.csv", "advice.md")
MODELS: tuple[dict[str, Any], ...] = (
    {"accuracy": 0.9, "val_accuracy": 0.8},
    {"accuracy": 0.5, "val_accuracy": 0.7, "layer": "layer4"},
    {"accuracy": 0.8, "seed": 1, "n_train": 90},
    {"accuracy": 0.95, "layer": None, "method": "finetune", "kind": "baseline", "val_accuracy": 0.9},
)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def test_everything_is_written_and_can_be_read(tmp_path: Path, save_models: Save) -> None:
    progress = Recorder()
    write_tables(tmp_path, save_models(*MODELS), progress.warn)
    assert progress.warned == []
    pairs = pd.read_csv(tmp_path / "comparisons.csv")
    assert list(zip(pairs.a_fingerprint, pairs.b_fingerprint, strict=True)) == [
        ("f0", "f1"),
        ("f0", "f3"),
        ("f1", "f3"),
    ]
    assert (pairs.only_a_right[0], pairs.only_b_right[0]) == (24, 0)
    assert pairs.p_value[0] == pytest.approx(binomtest(0, 24).pvalue, rel=1e-5)
    measured = pd.read_csv(tmp_path / "metrics.csv")
    assert measured[measured.metric == "accuracy"].value.tolist() == pytest.approx([0.9, 0.5, 0.95])
    counts = pd.read_csv(tmp_path / "confusion.csv")
    assert counts.groupby("fingerprint")["count"].sum().tolist() == [60, 60, 60]
    assert pd.read_csv(tmp_path / "spread.csv").n_repeats.tolist() == [2, 1, 1]
    assert len(pd.read_csv(tmp_path / "curves.csv")) == 0
    advice = (tmp_path / "advice.md").read_text()
    assert advice.startswith("- For folder use linear_svc/resnet18/layer3: ")
    assert "\n- Fine-tuning as set up here was not shown to be worth its cost: finetune/resnet18 " in advice


def test_the_same_files_give_the_same_statistics(tmp_path: Path, save_models: Save) -> None:
    write_tables(tmp_path, save_models(*MODELS), Recorder().warn)
    before = contents(tmp_path)
    for name in FILES:
        (tmp_path / name).unlink()
    write_tables(tmp_path, load_results(tmp_path), Recorder().warn)
    assert contents(tmp_path) == before


def test_without_predictions_what_rows_say_is_still_written(tmp_path: Path, save_models: Save) -> None:
    rows = save_models(*MODELS)
    for file in (tmp_path / "predictions").iterdir():
        file.unlink()
    progress = Recorder()
    write_tables(tmp_path, rows, progress.warn)
    assert len(progress.warned) == 1
    assert progress.warned[0].startswith("3 models are left out of the statistics: ")
    assert len(pd.read_csv(tmp_path / "comparisons.csv")) == 0
    assert len(pd.read_csv(tmp_path / "spread.csv")) == 3
    assert "compared with no other model" in (tmp_path / "advice.md").read_text()


def test_rows_tested_on_other_images_are_not_compared(tmp_path: Path, save_models: Save) -> None:
    save_models({"accuracy": 0.9})
    rows = save_models({"accuracy": 0.9, "layer": "layer4", "fingerprint": "other"}, n_test=30)
    progress = Recorder()
    write_tables(tmp_path, rows, progress.warn)
    assert progress.warned == [
        "the models of folder were tested on 2 different sets of rows; only models tested on the same rows are compared"
    ]
    assert len(pd.read_csv(tmp_path / "comparisons.csv")) == 0
    assert len(pd.read_csv(tmp_path / "metrics.csv").fingerprint.unique()) == 2


def test_no_rows_give_files_with_headers(tmp_path: Path, save_models: Save) -> None:
    rows = save_models({}).iloc[:0]
    write_tables(tmp_path, rows, Recorder().warn)
    assert (tmp_path / "advice.md").read_text() == ""
    for name in FILES[:-1]:
        assert len(pd.read_csv(tmp_path / name)) == 0
