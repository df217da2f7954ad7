from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from featbench.console import TerminalProgress, print_table


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


def test_a_table_of_references_alone_has_no_best(capsys: pytest.CaptureFixture[str]) -> None:
    rows = table()
    print_table(rows[rows.kind == "baseline"], Path("r"))
    out = capsys.readouterr().out
    assert "0.9500" in out
    assert "best by validation" not in out


def test_names_with_brackets_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    rows = pd.concat([table(layer="[bold]a"), table(layer="b")])
    print_table(rows, Path("[red]results"))
    out = capsys.readouterr().out
    assert "[bold]a" in out
    assert "[red]results" in out


def test_a_long_table_is_not_cut_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    rows = pd.concat([table(layer=f"features.denseblock{i}.denselayer{i}.conv2") for i in range(3)])
    print_table(rows, Path("r"))
    out = capsys.readouterr().out
    assert all(f"features.denseblock{i}.denselayer{i}.conv2" in out for i in range(3))


@pytest.mark.parametrize("quiet", [False, True])
def test_progress_goes_to_stderr_and_quiet_keeps_only_warnings(capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
    with TerminalProgress(quiet=quiet, verbose=False) as progress:
        progress.say("reused [cache]")
        progress.warn("3 files were left out")
        with progress.bar("resnet18 train", 10) as advance:
            advance(10, "")
    out, err = capsys.readouterr()
    assert out == ""
    lines = ["reused [cache]", "warning: 3 files were left out", "resnet18 train: 10 to do"]
    assert err.splitlines() == ([lines[1]] if quiet else lines)


def test_a_pipe_gets_a_line_with_rate_and_remaining_time_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 10.0, 40.0, 50.0, 80.0])
    monkeypatch.setattr("featbench.console.time.monotonic", lambda: next(clock))
    with TerminalProgress(quiet=False, verbose=False) as progress, progress.bar("resnet18 train", 400) as advance:
        for steps in (20, 100, 20, 260):
            advance(steps, "")
    assert capsys.readouterr().err.splitlines() == [
        "resnet18 train: 400 to do",
        "resnet18 train: 120 of 400, 3/s, 0:01:33 to go",  # 280 / 3 s
    ]
