from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from featbench.cli.main import app
from featbench.report.compare import combined_table, folder_labels, rank_all
from featbench.report.folder import Folder
from featbench.runs.report import report_folders
from tests.report.folders import MODELS, results_folder
from tests.report.folders import read as read_results


def models(dataset: str, svc: float, forest: float) -> list[dict[str, Any]]:
    named = {"dataset": dataset, "experiment": dataset, "layer": "layer3"}
    own = f"{len(dataset)}{dataset[0]}"
    return [
        {
            **named,
            "method": "linear_svc",
            "accuracy": svc,
            "val_accuracy": svc,
            "fingerprint": f"{own}-svc",
        },
        {
            **named,
            "method": "random_forest",
            "accuracy": forest,
            "val_accuracy": forest,
            "fingerprint": f"{own}-rf",
        },
    ]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("several")
    accuracies = {"pets": (0.9, 0.8), "cars": (0.7, 0.6), "a<b>": (0.5, 0.55)}
    return [
        results_folder(home / f"{number}", models=models(name, *both), n_test=100)
        for number, (name, both) in enumerate(accuracies.items())
    ]


@pytest.fixture(scope="module")
def folders(paths: list[Path]) -> list[Folder]:
    return [read_results(path, pytest.fail) for path in paths]


def test_methods_are_ranked_over_the_data_sets(folders: list[Folder]) -> None:
    ranks = rank_all(folders)
    assert ranks.summary is not None
    assert ranks.summary.n_datasets == 3
    assert [line["method"] for line in ranks.table] == ["linear_svc", "random_forest"]
    assert [line["average_rank"] for line in ranks.table] == pytest.approx([4 / 3, 5 / 3])


def test_one_data_set_on_two_machines_has_no_ranks_and_says_why(folders: list[Folder]) -> None:
    assert "ranks need two methods or more on two data sets" in rank_all([folders[0], folders[0]]).why_not


def test_the_tables_stand_below_each_other(folders: list[Folder], tmp_path: Path) -> None:
    other = read_results(results_folder(tmp_path / "other", models=MODELS), pytest.fail)
    table = combined_table([folders[0], other], ["one", "two"])
    assert table.methods == ("linear_svc", "random_forest", "finetune")
    assert table.n_references == 1
    assert table.key_columns == ("folder", "layer")
    assert [line.keys for line in table.lines] == [("one", "layer3"), ("two", "layer3"), ("two", "layer4")]
    assert [len(cell) for cell in table.lines[0].cells] == [1, 1, 0]


def test_folders_of_one_name_are_told_apart_by_their_paths(folders: list[Folder], tmp_path: Path) -> None:
    copied = read_results(shutil.copytree(folders[0].path, tmp_path / "again"), pytest.fail)
    assert folder_labels([folders[0], folders[1], copied]) == [
        f"pets ({folders[0].path})",
        "cars",
        f"pets ({tmp_path / 'again'})",
    ]


def test_the_command_writes_one_page(paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["report", *map(str, paths)])
    assert (result.exit_code, result.stdout) == (0, "report.html\n")
    page = Path("report.html").read_text("utf-8")
    assert "a<b>" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "For pets use linear_svc/resnet18/layer3" in page
    assert "Friedman’s test" in page
    assert not (paths[0] / "report.html").exists()


def test_the_command_rebuilds_a_folder_and_an_error_is_one_line(paths: list[Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(paths[0]), "--output", str(tmp_path / "sub" / "page.html")])
    assert result.exit_code == 0
    assert (tmp_path / "sub" / "page.html").stat().st_size > 1_000_000
    assert (paths[0] / "plots" / "models.png").is_file()
    result = CliRunner().invoke(app, ["report", str(tmp_path / "gone")])
    assert result.exit_code == 1
    assert re.fullmatch(r"featbench: there is no results\.csv at .*gone; .*\n", result.stderr)
    result = CliRunner().invoke(app, ["report", str(paths[0]), f"{paths[0]}/../0"])
    assert result.exit_code == 2
    assert "is named twice" in result.stderr


def test_a_folder_whose_models_have_no_validation_accuracy(paths: list[Path], tmp_path: Path) -> None:
    unknown = results_folder(tmp_path / "none", models=[{**MODELS[0], "val_accuracy": None, "dataset": "x"}])
    page = report_folders([paths[0], unknown], lambda text: None, tmp_path / "page.html")
    assert "none has a validation accuracy" in page.read_text("utf-8")
