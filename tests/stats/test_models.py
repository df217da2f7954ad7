from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from featbench.results.store import load_results
from featbench.runs.tables import load_model_predictions
from featbench.stats.models import main_rows, model_names
from tests.rows import write_rows
from tests.tiny import Recorder

Save = Callable[..., pd.DataFrame]
BASELINE: dict[str, Any] = {"kind": "baseline", "layer": None, "pooling": None, "feature_dim": None}


@pytest.fixture
def table_of(tmp_path: Path, make_row: Callable[..., Any]) -> Save:
    def load(*changes: dict[str, Any]) -> pd.DataFrame:
        write_rows(tmp_path, [make_row(**({"fingerprint": f"f{i}"} | change)) for i, change in enumerate(changes)])
        return load_results(tmp_path)

    return load


def test_the_first_repeat_on_all_training_rows_takes_part(table_of: Save) -> None:
    rows = table_of(
        {"seed": 3, "n_train": 100},
        {"seed": 4, "n_train": 90},  # a repeat of a method without a seed of its own
        {"seed": 3, "n_train": 100, "method": "random_forest"},
        {"seed": 4, "n_train": 100, "method": "random_forest"},
        {"seed": 3, "n_train": 80, "method": "finetune", **BASELINE},
        {"seed": 4, "n_train": 80, "method": "finetune", **BASELINE},
        {"seed": 3, "n_train": 80, "method": "finetune", "params": '{"lr": 1}', **BASELINE},
    )
    assert main_rows(rows)["fingerprint"].tolist() == ["f0", "f2", "f4", "f6"]


def test_of_a_learning_curve_the_largest_size_takes_part(table_of: Save) -> None:
    sizes = ((0, 30), (0, 60), (1, 30), (1, 60))
    rows = table_of(*({"seed": seed, "n_train": n_train} for seed, n_train in sizes))
    assert main_rows(rows)["fingerprint"].tolist() == ["f1"]


def test_layers_weights_and_data_sets_are_models_of_their_own(table_of: Save) -> None:
    rows = table_of({}, {"layer": "layer4"}, {"weights": "random"}, {"dataset": "cars", "seed": 7}, {"pooling": "max"})
    assert len(main_rows(rows)) == 5
    assert len(main_rows(rows.iloc[:0])) == 0


def test_names_say_what_is_needed_and_no_more(table_of: Save) -> None:
    rows = table_of(
        {},
        {"layer": "layer4"},
        {"layer": "layer4", "weights": "random"},
        {"method": "scratch", "weights": None, **BASELINE},
        {"method": "finetune", **BASELINE},
        {"method": "finetune", **BASELINE},
    )
    assert list(model_names(rows).items()) == [
        ("f0", "linear_svc/resnet18/layer3"),
        ("f1", "linear_svc/resnet18/layer4 (IMAGENET1K_V1)"),
        ("f2", "linear_svc/resnet18/layer4 (random)"),
        ("f3", "scratch/resnet18"),
        ("f4", "finetune/resnet18 (IMAGENET1K_V1) (f4)"),
        ("f5", "finetune/resnet18 (IMAGENET1K_V1) (f5)"),
    ]


def test_answers_come_from_the_files_in_the_order_of_ids(tmp_path: Path, save_models: Save) -> None:
    rows = save_models({"accuracy": 0.9}, n_test=10)
    (file,) = (tmp_path / "predictions").iterdir()
    header, *lines = file.read_text().splitlines()
    file.write_text("\n".join([header, *reversed(lines), ""]))
    progress = Recorder()
    (answers,) = load_model_predictions(tmp_path, rows, progress.warn)
    assert progress.warned == []
    assert answers.ids.tolist() == [f"{i:03d}.jpg" for i in range(10)]
    assert answers.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert answers.predicted.tolist() == [1, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert np.array_equal(answers.scores, np.eye(3)[answers.predicted])
    assert (answers.classes, answers.name) == (("ant", "bee", "cat"), "linear_svc/resnet18/layer3")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.unlink(), "found: none"),
        (lambda file: file.write_text("id,label\n1,ant\n"), "lack columns"),
        (lambda file: file.write_text(file.read_text().replace("ant,ant", "ant,bee")), "not those of its row"),
        (
            lambda file: file.write_text(file.read_text().replace("cat,cat", "cat,dog")),
            "name the class .dog., of which they have no scores",
        ),
        (lambda file: file.write_text("\n".join(file.read_text().splitlines()[:-1])), "59 test rows .* against 60"),
        (lambda file: file.write_text(file.read_text().splitlines()[0]), "0 test rows"),
    ],
    ids=["missing", "columns", "other predictions", "unknown class", "cut", "header alone"],
)
def test_a_model_without_its_predictions_is_left_out_with_a_word(
    tmp_path: Path, save_models: Save, spoil: Callable[[Path], None], message: str
) -> None:
    rows = save_models({}, {"layer": "layer4"})
    (file,) = (tmp_path / "predictions").glob("*-f0.csv")
    spoil(file)
    progress = Recorder()
    assert [answers.fingerprint for answers in load_model_predictions(tmp_path, rows, progress.warn)] == ["f1"]
    (warning,) = progress.warned
    assert warning.startswith("1 model is left out of the statistics: ")
    assert re.search(message, warning)
