from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from featbench.cli.final_table import print_table


def table(**changes: object) -> pd.DataFrame:
    """Two classifiers and a reference on one layer; the second is best by validation, the first on test."""
    common = {
        "dataset": "pets",
        "backbone": "resnet18",
        "weights": "IMAGENET1K_V1",
        "layer": "layer3",
        "pooling": "avg",
        "feature_dim": 256,
        "steps": None,
        "never_predicted": 0,
        "seed": 0,
        "n_train": 100,
        "n_test": 50,
        "accuracy_low": 0.71,
        "accuracy_high": 0.93,
        "created_at": pd.Timestamp("2026-01-01", tz="UTC"),
        **changes,
    }
    rows = [
        {"method": "linear_svc", "kind": "classifier", "val_accuracy": 0.8, "accuracy": 0.9},
        {"method": "svm_rbf", "kind": "classifier", "val_accuracy": 0.85, "accuracy": 0.84},
        {"method": "finetune", "kind": "baseline", "val_accuracy": 0.99, "accuracy": 0.95},
    ]
    return pd.DataFrame([common | row for row in rows])


def test_the_table_marks_the_best_by_validation(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(table(), Path("results/pets"))
    out, err = capsys.readouterr()
    assert err == ""
    assert "*0.8400" in out
    assert out.count("*0.") == 1
    assert "0.9000" in out
    assert "best by validation: svm_rbf on resnet18 layer3, 0.8400 (95% interval 0.7100 to 0.9300, 50 test" in out
    assert "(reference)" in out
    assert out.rstrip().endswith("results/pets")


def test_the_advice_of_the_folder_is_printed_before_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "advice.md").write_text("- For pets use [b]svm[/b].\n- Fine-tuning was not worth its cost.\n")
    print_table(table(), tmp_path)
    *_, first, second, last = capsys.readouterr().out.splitlines()
    assert [first, second] == ["- For pets use [b]svm[/b].", "- Fine-tuning was not worth its cost."]
    assert last.endswith(str(tmp_path))


def test_of_references_alone_the_best_is_one_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    rows = table(layer=None)
    print_table(rows[rows.kind == "baseline"], Path("r"))
    out = capsys.readouterr().out
    assert "*0.9500" in out
    assert "best by validation: finetune on resnet18, 0.9500 (95% interval" in out


def test_without_validation_there_is_no_best(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(table().assign(val_accuracy=float("nan")), Path("r"))
    out = capsys.readouterr().out
    assert "0.9500" in out
    assert "*" not in out


def test_a_model_that_never_predicts_a_class_is_marked_and_not_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    rows = table().assign(never_predicted=[0, 1, 2])
    print_table(rows, Path("r"))
    out = capsys.readouterr().out
    assert [out.count(text) for text in ("*0.9000", "!0.8400", "!0.9500", "!0.", "*0.")] == [1, 1, 1, 2, 1]
    assert "best by validation: linear_svc on" in out
    assert "! never predicts a class that the test has; chosen only where every model does so\n" in out


def test_a_network_that_predicts_every_class_is_chosen_before_classifiers_that_do_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = pd.concat([table(), table(layer="layer4")]).assign(never_predicted=[1, 1, 0, 1, 1, 0])
    print_table(rows, Path("r"))
    out = capsys.readouterr().out
    assert out.count("*0.9500") == 2  # the network stands on each layer of its backbone
    assert out.count("*0.") == 2
    assert "best by validation: finetune on resnet18" in out


def test_where_every_model_never_predicts_a_class_validation_chooses(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(table().assign(never_predicted=[1, 1, 2]), Path("r"))
    out = capsys.readouterr().out
    assert [out.count(text) for text in ("!0.9000", "*!0.8400", "!0.9500")] == [1, 1, 1]


def test_what_older_versions_did_not_count_is_not_marked(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(table(never_predicted=pd.NA), Path("r"))
    out = capsys.readouterr().out
    assert "*0.8400" in out
    assert "!" not in out


def test_names_with_brackets_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    rows = pd.concat([table(layer="[bold]a"), table(layer="b")])
    print_table(rows, Path("[red]results"))
    out = capsys.readouterr().out
    assert "[bold]a" in out
    assert "[red]results" in out


def test_names_of_a_folder_that_was_sent_do_not_reach_the_terminal_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "advice.md").write_text("- For \x1b[31mpets\n- use \u202eit.\n")
    rows = table(layer="layer\x9b3").assign(method="svm\x1b[31m\nrbf")
    print_table(rows.iloc[:1], tmp_path / "a\nb")
    print_table(rows.iloc[:1], tmp_path)
    out = capsys.readouterr().out
    assert not set(out) & set("\x1b\x9b\u202e")
    assert r"best by validation: svm\x1b[31m\x0arbf on resnet18 layer\x9b3" in out
    assert out.count(r"svm\x1b[31m\x0arbf") == 4
    assert r"a\x0ab" in out
    assert "- For \\x1b[31mpets\n- use \\u202eit.\n" in out


def test_a_long_table_is_not_cut_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    rows = pd.concat([table(layer=f"features.denseblock{i}.denselayer{i}.conv2") for i in range(3)])
    print_table(rows, Path("r"))
    out = capsys.readouterr().out
    assert all(f"features.denseblock{i}.denselayer{i}.conv2" in out for i in range(3))


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes standard output a terminal of so many columns."""

    def set_width(columns: int) -> None:
        for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": str(columns)}.items():
            monkeypatch.setenv(name, value)

    return set_width


ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("columns", [120, 100, 80, 70, 60, 50, 40, 30])
def test_the_table_fits_the_terminal_and_no_number_is_broken(
    wide: Callable[[int], None], capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    wide(columns)
    rows = pd.concat([table(), table(layer="layer4", feature_dim=512, val_accuracy=0.1)])
    print_table(rows, Path("r"))
    lines = ESCAPES.sub("", capsys.readouterr().out).splitlines()
    end = next(number for number, line in enumerate(lines) if line.startswith("Test accuracy."))
    assert max(map(len, lines[:end])) <= columns
    words = " ".join(lines[:end]).split()
    assert [words.count(accuracy) for accuracy in ("0.9000", "*0.8400", "0.8400", "0.9500")] == [2, 1, 1, 2]
    assert {"layer3", "layer4"} <= set(words)


def test_what_is_left_out_does_not_tell_rows_apart_and_is_named(
    wide: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    wide(52)
    rows = [table(), table(layer="layer4", feature_dim=512), table(layer="layer4", feature_dim=512, pooling="max")]
    print_table(pd.concat(rows), Path("r"))
    header, note = (
        line for line in ESCAPES.sub("", capsys.readouterr().out).splitlines() if "pooling" in line or "_dim" in line
    )
    assert "feature" not in header
    assert note.strip() == "feature_dim: in accuracy.csv"


def test_without_colour_there_is_none(wide: Callable[[int], None], capsys: pytest.CaptureFixture[str]) -> None:
    wide(80)
    print_table(table(), Path("r"))
    codes = {code for found in ESCAPES.findall(capsys.readouterr().out) for code in found[2:-1].split(";")}
    assert codes <= {"0", "1", "2", "3"}  # plain, bold, dim and italic
