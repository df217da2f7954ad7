from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from featbench.results.row import Row
from featbench.results.store import load_results
from featbench.stats.accuracy import (
    accuracy_table,
    best_by_validation,
    chosen_cells,
    never_table,
    table_cells,
    to_latex,
    to_markdown,
)
from tests.rows import write_rows

MakeRow = Callable[..., Row]
BASELINE: dict[str, Any] = {"kind": "baseline", "layer": None, "pooling": None, "feature_dim": None}


@pytest.fixture
def table_of(tmp_path: Path, make_row: MakeRow) -> Callable[..., pd.DataFrame]:
    def load(*changes: dict[str, Any]) -> pd.DataFrame:
        write_rows(tmp_path, [make_row(**({"fingerprint": str(i)} | change)) for i, change in enumerate(changes)])
        return load_results(tmp_path)

    return load


Load = Callable[..., pd.DataFrame]


def texts(rows: pd.DataFrame) -> tuple[list[list[str]], str, str]:
    """Return the lines of accuracy.csv, accuracy.md and accuracy.tex."""
    table, never = accuracy_table(rows), never_table(rows)
    return table_cells(table), to_markdown(table, never, chosen_cells(rows, table)), to_latex(table, never)


FULL: tuple[dict[str, Any], ...] = (
    {"layer": "layer4", "method": "svm_rbf", "accuracy": 0.81, "val_accuracy": 0.9},
    {"layer": "layer4", "method": "linear_svc", "accuracy": 0.95, "val_accuracy": 0.8},
    {"layer": "layer1", "method": "svm_rbf", "accuracy": 0.61, "val_accuracy": 0.7, "feature_dim": 64},
    {"backbone": "pixels", "weights": None, "layer": "pixels", "pooling": None, "accuracy": 0.4, "val_accuracy": None},
    {"weights": "random", "layer": "layer4", "method": "svm_rbf", "accuracy": 0.5, "val_accuracy": 0.5},
    {**BASELINE, "method": "scratch", "weights": "random", "accuracy": 0.7},
    {**BASELINE, "method": "finetune", "accuracy": 0.97},
    {**BASELINE, "method": "linear_head", "accuracy": 0.88},
)


def test_the_whole_table(table_of: Load) -> None:
    table = accuracy_table(table_of(*FULL))
    assert list(table.columns) == [
        *("dataset", "backbone", "weights", "layer", "pooling", "feature_dim", "steps"),
        *("svm_rbf", "linear_svc", "linear_head", "finetune", "scratch"),
    ]
    nan = math.nan
    expected = [
        ("folder", "resnet18", "IMAGENET1K_V1", "layer4", "avg", "256", 0.81, 0.95, 0.88, 0.97, 0.7),
        ("folder", "resnet18", "IMAGENET1K_V1", "layer1", "avg", "64", 0.61, nan, 0.88, 0.97, 0.7),
        ("folder", "pixels", "", "pixels", "", "256", nan, 0.4, nan, nan, nan),
        ("folder", "resnet18", "random", "layer4", "avg", "256", 0.5, nan, nan, nan, 0.7),
    ]
    assert [line[:6] for line in table.itertuples(index=False, name=None)] == [line[:6] for line in expected]
    pd.testing.assert_frame_equal(
        table.iloc[:, 7:], pd.DataFrame([line[6:] for line in expected], columns=table.columns[7:])
    )


def test_baselines_with_a_label_have_a_column_each(table_of: Load) -> None:
    plain, l2, tuned = ({**BASELINE, "method": method} for method in ("scratch", "scratch:l2", "finetune:short"))
    rows = table_of(
        {"method": "linear_svc", "accuracy": 0.9},
        plain | {"weights": "random", "accuracy": 0.7},
        tuned | {"accuracy": 0.6},
        l2 | {"weights": "random", "accuracy": 0.8},
    )
    table = accuracy_table(rows)
    assert table.iloc[:, 7:].to_dict("records") == [
        {"linear_svc": 0.9, "finetune:short": 0.6, "scratch": 0.7, "scratch:l2": 0.8}
    ]
    assert list(table.columns[7:]) == ["linear_svc", "finetune:short", "scratch", "scratch:l2"]
    assert "scratch:l2 (reference)" in to_markdown(table, never_table(rows), chosen_cells(rows, table))


def test_a_cell_is_the_mean_over_seeds_of_the_largest_training_set(table_of: Load) -> None:
    rows = table_of(
        {"seed": 0, "accuracy": 0.5},
        {"seed": 1, "accuracy": 0.7},
        {"seed": 2, "accuracy": 0.1, "n_train": 90},
        # An older run with another grid: its fingerprint differs, its seed does not.
        {"seed": 0, "accuracy": 0.2, "created_at": "2025-01-01T00:00:00+00:00"},
    )
    assert accuracy_table(rows)["linear_svc"].tolist() == [pytest.approx(0.6)]


def test_baselines_alone_give_a_row_a_backbone(table_of: Load) -> None:
    rows = table_of(
        {**BASELINE, "method": "scratch", "weights": "random", "accuracy": 0.7},
        {**BASELINE, "method": "finetune", "accuracy": 0.9},
        {**BASELINE, "method": "scratch", "weights": "random", "backbone": "vgg11", "accuracy": 0.6},
    )
    table = accuracy_table(rows)
    assert table[["backbone", "weights", "layer"]].to_numpy().tolist() == [
        ["resnet18", "IMAGENET1K_V1", ""],
        ["vgg11", "random", ""],
    ]
    assert table["scratch"].tolist() == [0.7, 0.6]
    assert table["finetune"][0] == 0.9
    assert math.isnan(table["finetune"][1])


def test_no_rows_give_an_empty_table(table_of: Load) -> None:
    rows = table_of()
    assert len(accuracy_table(rows)) == 0
    assert list(accuracy_table(rows).columns) == [
        "dataset",
        "backbone",
        "weights",
        "layer",
        "pooling",
        "feature_dim",
        "steps",
    ]
    assert texts(rows)[0] == []


def test_best_is_chosen_by_validation_not_by_test(table_of: Load) -> None:
    best = best_by_validation(table_of(*FULL))
    assert best is not None
    assert (best["method"], best["layer"], best["accuracy"]) == ("svm_rbf", "layer4", 0.81)


def test_of_equals_the_first_is_best(table_of: Load) -> None:
    best = best_by_validation(table_of({"layer": "a", "val_accuracy": None}, {"layer": "b"}, {"layer": "c"}))
    assert best is not None
    assert best["layer"] == "b"


def test_without_validation_there_is_no_best(table_of: Load) -> None:
    rows = table_of({"val_accuracy": None}, {**BASELINE, "method": "finetune", "val_accuracy": None})
    assert best_by_validation(rows) is None
    table = accuracy_table(rows)
    assert "**" not in to_markdown(table, never_table(rows), chosen_cells(rows, table))


def test_a_network_is_best_where_no_classifier_has_a_validation_accuracy(table_of: Load) -> None:
    tuned = {**BASELINE, "method": "finetune", "val_accuracy": 0.6, "accuracy": 0.7}
    rows = table_of({"val_accuracy": None}, {"val_accuracy": None, "layer": "layer4"}, tuned)
    best = best_by_validation(rows)
    assert best is not None
    assert best["method"] == "finetune"
    assert texts(rows)[1].count("**0.7000**") == 2  # it is repeated on each layer


def test_each_data_set_has_its_own_best(table_of: Load) -> None:
    pets = [{"accuracy": 0.9, "val_accuracy": 0.9}, {"layer": "layer4", "accuracy": 0.8, "val_accuracy": 0.8}]
    cars = [model | {"dataset": "cars", "accuracy": 0.1 + n / 10, "val_accuracy": n} for n, model in enumerate(pets)]
    _, text, _ = texts(table_of(*pets, *cars))
    assert [part for part in text.split() if part.startswith("**0.")] == ["**0.9000**", "**0.2000**"]


SVC, FOREST, TUNED = (
    {"method": "linear_svc", "val_accuracy": 0.9},
    {"method": "random_forest", "val_accuracy": 0.8},
    {**BASELINE, "method": "finetune", "val_accuracy": 0.7},
)


@pytest.mark.parametrize(
    ("never", "expected"),
    [
        ((0, 0, 0), "linear_svc"),
        ((1, 0, 0), "random_forest"),
        ((2, 1, 0), "finetune"),
        ((0, 1, 0), "linear_svc"),
        ((1, 1, 1), "linear_svc"),  # validation alone, as none predicts every class
        ((None, 1, 1), "linear_svc"),  # of an older version: not known, which turns nothing away
        ((1, None, 0), "random_forest"),
    ],
)
def test_a_model_that_never_predicts_a_class_is_best_only_where_all_are_such(
    table_of: Load, never: tuple[int | None, ...], expected: str
) -> None:
    models = [model | {"never_predicted": count} for model, count in zip((SVC, FOREST, TUNED), never, strict=True)]
    best = best_by_validation(table_of(*models))
    assert best is not None
    assert best["method"] == expected


def test_a_model_that_never_predicts_a_class_is_marked_but_in_the_csv(table_of: Load) -> None:
    rows = table_of(
        {"method": "linear_svc", "accuracy": 0.95, "val_accuracy": 0.9, "never_predicted": 1},
        {"method": "svm_rbf", "accuracy": 0.9, "val_accuracy": 0.8, "never_predicted": 0},
        {"method": "knn", "accuracy": 0.8, "val_accuracy": 0.7},
    )
    cells, markdown, tex = texts(rows)
    assert cells[0][-3:] == ["0.9500", "0.9000", "0.8000"]
    line, *notes = markdown.splitlines()[2:]
    assert line.endswith("| !0.9500 | **0.9000** | 0.8000 |")
    assert notes == [
        "",
        "**bold**: chosen by validation accuracy, not by test",
        "",
        "! never predicts a class that the test has; chosen only where every model does so",
    ]
    assert "& !0.9500 & 0.9000 & 0.8000 \\\\\n" in tex
    assert tex.endswith(
        "\\bottomrule\n"
        "\\multicolumn{9}{l}{! never predicts a class that the test has; chosen only where every model does so} \\\\\n"
        "\\end{tabular}\n"
    )


def test_the_mark_is_that_of_the_first_repeat(table_of: Load) -> None:
    first, again = {"seed": 0, "never_predicted": 0}, {"seed": 1, "never_predicted": 1}
    other = {"layer": "layer4", "seed": 0, "never_predicted": 1}
    assert never_table(table_of(again, first, other))["linear_svc"].tolist() == [False, True]


def test_the_texts(table_of: Load) -> None:
    cells, markdown, tex = texts(table_of(FULL[0], FULL[1], FULL[6]))
    assert [",".join(line) for line in cells] == ["folder,resnet18,IMAGENET1K_V1,layer4,avg,256,,0.8100,0.9500,0.9700"]
    assert markdown == (
        "| dataset | backbone | weights | layer | pooling | feature\\_dim "
        "| svm\\_rbf | linear\\_svc | finetune (reference) |\n"
        "| --- | --- | --- | --- | --- | --- | ---: | ---: | ---: |\n"
        "| folder | resnet18 | IMAGENET1K\\_V1 | layer4 | avg | 256 | **0.8100** | 0.9500 | 0.9700 |\n"
        "\n"
        "**bold**: chosen by validation accuracy, not by test\n"
    )
    assert tex == (
        "\\begin{tabular}{llllllrrr}\n"
        "\\toprule\n"
        "dataset & backbone & weights & layer & pooling & feature\\_dim & svm\\_rbf & linear\\_svc & finetune \\\\\n"
        "\\midrule\n"
        "folder & resnet18 & IMAGENET1K\\_V1 & layer4 & avg & 256 & 0.8100 & 0.9500 & 0.9700 \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def test_markup_in_names_is_escaped(table_of: Load) -> None:
    rows = table_of({"layer": "a|b<i>\\x", "dataset": "50% & #1_{x}~^$"})
    table, never = accuracy_table(rows), never_table(rows)
    line = to_markdown(table, never, chosen_cells(rows, table)).splitlines()[2]
    assert "a\\|b&lt;i&gt;\\\\x" in line
    assert "**0.3000**" in line
    tex = to_latex(table, never)
    assert r"50\% \& \#1\_\{x\}\textasciitilde{}\textasciicircum{}\$" in tex
    assert r"a\textbar{}b\textless{}i\textgreater{}\textbackslash{}x" in tex


def test_steps_are_lines_of_their_own(table_of: Load) -> None:
    rows = table_of({"accuracy": 0.5}, {"accuracy": 0.6, "steps": "power+l2"})
    assert accuracy_table(rows)["steps"].tolist() == ["", "power+l2"]
    _, markdown, tex = texts(rows)
    assert "| pooling | feature\\_dim | steps |" in markdown
    assert "\\begin{tabular}{lllllllr}" in tex
