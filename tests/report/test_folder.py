from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from featbench.errors import ResultsError
from featbench.report.build import write_report
from featbench.report.folder import TABLES, read_folder
from featbench.results.store import load_results, write_current
from tests.report.folders import MODELS, results_folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = results_folder(tmp_path_factory.mktemp("whole") / "results")
    read_folder(folder, pytest.fail)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "results")


def test_statistics_that_are_missing_are_computed(whole: Path) -> None:
    assert all((whole / name).is_file() for name in [*TABLES, "advice.md", "accuracy.csv", "accuracy.tex"])


def test_the_best_by_validation_is_named_and_the_others_are_judged_against_it(whole: Path) -> None:
    models = read_folder(whole, pytest.fail).models
    assert models["verdict"].tolist() == ["best", "worse", "tied", "worse", "tied"]
    # 16 s for 100 training and 60 test images, 0.5 s for 60 tests; a network's images are not extracted
    assert models["images_per_s"].tolist()[0] == pytest.approx(1 / (16 / 160 + 0.5 / 60))
    assert models["images_per_s"].tolist()[4] == pytest.approx(60 / 0.5)


def test_statistics_of_other_rows_are_computed_again(folder: Path) -> None:
    lines = (folder / "results.csv").read_text().splitlines(keepends=True)
    (folder / "results.csv").write_text("".join(lines[:-1]))
    read_folder(folder, pytest.fail)
    assert pd.read_csv(folder / "metrics.csv")["fingerprint"].nunique() == len(MODELS) - 1


def test_rows_of_earlier_settings_stay_out(folder: Path) -> None:
    write_current(folder, load_results(folder).head(2))
    assert len(read_folder(folder, pytest.fail).models) == 2
    assert pd.read_csv(folder / "accuracy.csv")["layer"].tolist() == ["layer3"]


@pytest.mark.parametrize("name", [*TABLES, "maps.csv", "skipped.csv", "notes.csv"])
@pytest.mark.parametrize("content", ["", "fingerprint\nabc\n", "\xff\xfe\x00binary"])
def test_a_damaged_table_is_computed_anew_or_left_out(folder: Path, name: str, content: str) -> None:
    (folder / name).write_bytes(content.encode("latin-1"))
    warned: list[str] = []
    read = read_folder(folder, warned.append)
    assert len(read.models) == len(MODELS)
    assert (name in read.problems) == (name not in TABLES)
    if name in TABLES:
        assert warned == []


def test_without_predictions_the_page_says_why(folder: Path) -> None:
    shutil.rmtree(folder / "predictions")
    for name in TABLES:
        (folder / name).unlink()
    warned: list[str] = []
    page = write_report(folder, warned.append).read_text("utf-8")
    assert any("5 models are left out of the statistics" in text for text in warned)
    assert "No model can be looked into: the predictions of all models are missing" in page


@pytest.mark.parametrize("name", ["experiment.toml", "environment.json", "skipped.csv", "history", "maps.csv"])
def test_a_missing_file_leaves_the_rest(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    page = write_report(folder, lambda text: None).read_text("utf-8")
    assert "linear_svc/resnet18/layer3" in page
    if name != "history":
        assert f"there is no {folder / name}" in page or f"{folder / name}&#39;" in page


def test_notes_are_shown(folder: Path) -> None:
    page = write_report(folder, pytest.fail).read_text("utf-8")
    assert '<a href="#notes">To look at</a>' in page
    assert "1,200 of train: of &lt;b&gt;one&lt;/b&gt; colour (<bdi>train/" in page


def test_a_folder_of_an_earlier_version_has_no_notes(folder: Path) -> None:
    (folder / "notes.csv").unlink()
    assert 'id="notes"' not in write_report(folder, pytest.fail).read_text("utf-8")


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"there is no results\.csv at"):
        read_folder(tmp_path, pytest.fail)


def test_results_without_rows_are_an_error(folder: Path) -> None:
    header = (folder / "results.csv").read_text().splitlines()[0]
    (folder / "results.csv").write_text(header + "\n")
    (folder / "current.csv").unlink(missing_ok=True)
    with pytest.raises(ResultsError, match=r"has no row yet; `featbench run` trains the models"):
        read_folder(folder, pytest.fail)


def test_results_of_an_older_version_are_an_error(folder: Path) -> None:
    load_results(folder).drop(columns=["predict_s", "engine"]).to_csv(folder / "results.csv", index=False)
    with pytest.raises(ResultsError, match="lacks the columns engine, predict_s: another version"):
        read_folder(folder, pytest.fail)


def test_one_row_is_enough(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "one", models=MODELS[:1])
    page = write_report(folder, pytest.fail).read_text("utf-8")
    assert "the only candidate" in page
    assert "1 model<" in page


def test_unknown_validation_accuracies_recommend_nothing(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "none", models=[{**MODELS[0], "val_accuracy": None}])
    read = read_folder(folder, pytest.fail)
    assert read.best("pets") is None
    assert "No model can be recommended" in write_report(folder, pytest.fail).read_text("utf-8")


def test_seconds_that_are_not_known_are_nan(tmp_path: Path) -> None:
    folder = results_folder(
        tmp_path / "slow", models=[{**MODELS[0], "predict_s": None}, {**MODELS[1], "extract_s": 0.0, "predict_s": 0.0}]
    )
    assert np.isnan(read_folder(folder, pytest.fail).models["images_per_s"]).all()
    assert write_report(folder, pytest.fail).is_file()


@pytest.mark.parametrize("name", ["experiment.toml", "environment.json", "metrics.csv", "advice.md"])
@pytest.mark.parametrize("how", ["pipe", "link"])
def test_the_page_shows_no_file_from_outside_and_waits_for_none(
    folder: Path, tmp_path: Path, name: str, how: str
) -> None:
    (folder / name).unlink(missing_ok=True)
    if how == "pipe":
        os.mkfifo(folder / name)
    else:
        (tmp_path / "secret").write_text("the secret of another folder")
        (folder / name).symlink_to(tmp_path / "secret")
    page = write_report(folder, lambda message: None)
    assert "the secret of another folder" not in page.read_text("utf-8")


def test_an_environment_that_is_nested_deep_is_left_out(folder: Path) -> None:
    (folder / "environment.json").write_text("[" * 100_000)
    assert "nested too deep" in read_folder(folder, pytest.fail).problems["environment.json"]
