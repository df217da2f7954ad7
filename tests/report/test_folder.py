from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from featbench.errors import ResultsError, UsageError
from featbench.results.store import load_results, write_current
from featbench.stats.statistics import TABLES
from tests.report.folders import MODELS, report, results_folder
from tests.report.folders import read as read_results


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = results_folder(tmp_path_factory.mktemp("whole") / "results")
    read_results(folder, pytest.fail)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "results")


def test_statistics_that_are_missing_are_computed(whole: Path) -> None:
    assert all((whole / name).is_file() for name in [*TABLES, "advice.md", "accuracy.csv", "accuracy.tex"])


def test_the_best_by_validation_is_named_and_the_others_are_judged_against_it(whole: Path) -> None:
    models = read_results(whole, pytest.fail).models
    assert models["verdict"].tolist() == ["best", "worse", "tied", "worse", "tied"]
    # 16 s for 100 training and 60 test images, 0.5 s for 60 tests; a network's images are not extracted
    assert models["images_per_s"].tolist()[0] == pytest.approx(1 / (16 / 160 + 0.5 / 60))
    assert models["images_per_s"].tolist()[4] == pytest.approx(60 / 0.5)


def test_statistics_of_other_rows_are_computed_again(folder: Path) -> None:
    lines = (folder / "results.csv").read_text().splitlines(keepends=True)
    (folder / "results.csv").write_text("".join(lines[:-1]))
    read_results(folder, pytest.fail)
    assert pd.read_csv(folder / "metrics.csv")["fingerprint"].nunique() == len(MODELS) - 1


def test_rows_of_earlier_settings_stay_out(folder: Path) -> None:
    write_current(folder, load_results(folder).head(2))
    assert len(read_results(folder, pytest.fail).models) == 2
    assert pd.read_csv(folder / "accuracy.csv")["layer"].tolist() == ["layer3"]


@pytest.mark.parametrize("name", [*TABLES, "maps.csv", "skipped.csv", "notes.csv"])
@pytest.mark.parametrize("content", ["", "fingerprint\nabc\n", "\xff\xfe\x00binary"])
def test_a_damaged_table_is_computed_anew_or_left_out(folder: Path, name: str, content: str) -> None:
    (folder / name).write_bytes(content.encode("latin-1"))
    warned: list[str] = []
    read = read_results(folder, warned.append)
    assert len(read.models) == len(MODELS)
    assert (name in read.problems) == (name not in TABLES)
    if name in TABLES:
        assert warned == []


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("metrics.csv", lambda lines: lines[:-3]),
        ("metrics.csv", lambda lines: [*lines[:2], lines[2].replace("0.9", ""), *lines[3:]]),
        ("confusion.csv", lambda lines: lines[:-1]),
        ("confusion.csv", lambda lines: [*lines[:-1], lines[-1].rpartition(",")[0] + ",inf"]),
        ("confusion.csv", lambda lines: [line.replace(",ant,", ",gnat,") for line in lines]),
        ("comparisons.csv", lambda lines: lines[:-1]),
        ("spread.csv", lambda lines: lines[:-1]),
    ],
    ids=["cut", "empty number", "cut", "infinite", "renamed class", "cut", "cut"],
)
def test_a_table_that_was_cut_or_edited_is_computed_anew(
    folder: Path, whole: Path, name: str, damage: Callable[[list[str]], list[str]]
) -> None:
    lines = (folder / name).read_text().splitlines()
    assert damage(lines) != lines
    (folder / name).write_text("\n".join(damage(lines)) + "\n")
    read_results(folder, pytest.fail)
    assert (folder / name).read_text() == (whole / name).read_text()


def test_a_class_without_scores_is_named(folder: Path) -> None:
    (file,) = (folder / "predictions").glob("random_forest-resnet18-layer3-*")
    file.write_text(file.read_text().replace("score:bee", "score:wasp"))
    (folder / "metrics.csv").unlink()
    warned: list[str] = []
    read_results(folder, warned.append)
    assert warned == [
        "1 model is left out of the statistics: the predictions of random_forest/resnet18/layer3 (0000000000000001) "
        "name the class 'bee', of which they have no scores; run the experiment again"
    ]


def test_models_with_other_names_for_the_classes_of_the_same_images_are_left_out(folder: Path) -> None:
    (file,) = (folder / "predictions").glob("random_forest-resnet18-layer3-*")
    file.write_text(file.read_text().replace("bee,", "wasp,").replace("score:bee", "score:wasp"))
    (folder / "metrics.csv").unlink()
    warned: list[str] = []
    page = report(folder, warned.append).read_text("utf-8")
    (warning,) = warned
    assert "are of the same images but not of the same classes: 'bee' is in one alone" in warning
    assert "wasp" not in page


@pytest.mark.parametrize("content", [b"", b"hello", b"cut", b"bomb"])
def test_a_thumbnail_that_no_run_wrote_is_no_picture(folder: Path, content: bytes) -> None:
    good = next((folder / "thumbnails").iterdir()).read_bytes()
    height_and_width = good.index(b"\xff\xc0") + 5
    bomb = good[:height_and_width] + b"\xff\xdc" * 2 + good[height_and_width + 4 :]  # 65,500 pixels a side
    for file in (folder / "thumbnails").iterdir():
        file.write_bytes({b"cut": good[: len(good) // 2], b"bomb": bomb}.get(content, content))
    page = report(folder, pytest.fail).read_text("utf-8")
    assert page.count("no picture") > 1
    assert "data:image/jpeg" not in page
    assert not (folder / "plots" / "mistakes.png").exists()


def test_pipes_in_place_of_pictures_are_not_waited_for(folder: Path) -> None:
    for file in (folder / "thumbnails").iterdir():
        file.unlink()
        os.mkfifo(file)
    assert "no picture" in report(folder, pytest.fail).read_text("utf-8")


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (["1", "abc"], "is not a readable CSV file: .*'abc'"),
        (["", "0.5"], "is damaged: epoch is empty in row 1"),
        (["inf", "0.5"], "is damaged: epoch is infinite in row 1"),
    ],
)
def test_a_history_of_wrong_types_is_left_out(folder: Path, cells: list[str], problem: str) -> None:
    (file,) = (folder / "history").iterdir()
    header, _, *lines = file.read_text().splitlines()
    file.write_text("\n".join([header, ",".join([*cells, "1", "1", "1", "1", "1"]), *lines, ""]))
    warned: list[str] = []
    read = read_results(folder, warned.append)
    assert read.histories == {}
    (warning,) = warned
    assert re.search(problem, warning)


def test_the_history_of_a_network_that_diverged_is_shown(folder: Path) -> None:
    (file,) = (folder / "history").iterdir()
    header, first, *_ = file.read_text().splitlines()
    file.write_text("\n".join([header, first, "2,inf,nan,nan,nan,0.01,2.0", ""]))  # as a run writes them
    page = report(folder, pytest.fail).read_text("utf-8")
    assert '"val_accuracy":[0.5,null]' in page


def test_a_file_is_no_results_folder(folder: Path) -> None:
    with pytest.raises(
        ResultsError, match=r"results\.csv is a file; give the results folder that results\.csv lies in"
    ):
        report(folder / "results.csv", pytest.fail)


@pytest.mark.parametrize("output", [Path(), Path("/")])
def test_a_folder_is_no_name_for_the_page(folder: Path, output: Path) -> None:
    with pytest.raises(UsageError, match="is a folder; give --output the name of a file in it"):
        report(folder, pytest.fail, output)


def test_a_folder_without_known_costs_has_a_page(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "costs", models=[{**MODELS[4], "fit_s": None, "predict_s": None}])
    report(folder, pytest.fail)
    assert not (folder / "plots" / "cost.png").exists()


def test_an_interval_beside_its_accuracy_is_drawn(tmp_path: Path) -> None:
    models = [{**MODELS[0], "accuracy_low": 0.95, "accuracy_high": 0.99}]
    assert report(results_folder(tmp_path / "beside", models=models), pytest.fail).is_file()


def test_rows_of_two_data_sets_have_a_best_each(tmp_path: Path) -> None:
    models = [
        {**model, "dataset": d, "fingerprint": f"{d}{n}"} for d in ("pets", "cars") for n, model in enumerate(MODELS)
    ]
    folder = results_folder(tmp_path / "two", models=models)
    page = report(folder, pytest.fail).read_text("utf-8")
    assert "For pets use " in page
    assert "For cars use " in page
    assert re.search(r"2 data sets</bdi></span><span><bdi>10 models", page)
    assert (folder / "accuracy.md").read_text().count("**0.9000**") == 2


def test_without_predictions_the_page_says_why(folder: Path) -> None:
    shutil.rmtree(folder / "predictions")
    for name in TABLES:
        (folder / name).unlink()
    warned: list[str] = []
    page = report(folder, warned.append).read_text("utf-8")
    assert any("5 models are left out of the statistics" in text for text in warned)
    assert "No model can be looked into: the predictions of all models are missing" in page


@pytest.mark.parametrize("name", ["experiment.toml", "environment.json", "skipped.csv", "history", "maps.csv"])
def test_a_missing_file_leaves_the_rest(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    page = report(folder, lambda text: None).read_text("utf-8")
    assert "linear_svc/resnet18/layer3" in page
    if name != "history":
        assert f"there is no {folder / name}" in page or f"{folder / name}&#39;" in page


def test_notes_are_shown(folder: Path) -> None:
    page = report(folder, pytest.fail).read_text("utf-8")
    assert '<a href="#notes">To look at</a>' in page
    assert "1,200 of train: of &lt;b&gt;one&lt;/b&gt; colour (<bdi>train/" in page


def test_a_folder_of_an_earlier_version_has_no_notes(folder: Path) -> None:
    (folder / "notes.csv").unlink()
    assert 'id="notes"' not in report(folder, pytest.fail).read_text("utf-8")


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"there is no results\.csv at"):
        read_results(tmp_path, pytest.fail)


def test_results_without_rows_are_an_error(folder: Path) -> None:
    header = (folder / "results.csv").read_text().splitlines()[0]
    (folder / "results.csv").write_text(header + "\n")
    (folder / "current.csv").unlink(missing_ok=True)
    with pytest.raises(ResultsError, match=r"has no row yet; `featbench run` trains the models"):
        read_results(folder, pytest.fail)


def test_results_of_an_older_version_are_an_error(folder: Path) -> None:
    load_results(folder).drop(columns=["predict_s", "engine"]).to_csv(folder / "results.csv", index=False)
    with pytest.raises(ResultsError, match="lacks the columns engine, predict_s: another version"):
        read_results(folder, pytest.fail)


def test_one_row_is_enough(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "one", models=MODELS[:1])
    page = report(folder, pytest.fail).read_text("utf-8")
    assert "the only candidate" in page
    assert "1 model<" in page


def test_unknown_validation_accuracies_recommend_nothing(tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "none", models=[{**MODELS[0], "val_accuracy": None}])
    read = read_results(folder, pytest.fail)
    assert read.best("pets") is None
    assert "No model can be recommended" in report(folder, pytest.fail).read_text("utf-8")


def test_seconds_that_are_not_known_are_nan(tmp_path: Path) -> None:
    folder = results_folder(
        tmp_path / "slow", models=[{**MODELS[0], "predict_s": None}, {**MODELS[1], "extract_s": 0.0, "predict_s": 0.0}]
    )
    assert np.isnan(read_results(folder, pytest.fail).models["images_per_s"]).all()
    assert report(folder, pytest.fail).is_file()


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
    page = report(folder, lambda message: None)
    assert "the secret of another folder" not in page.read_text("utf-8")


def test_an_environment_that_is_nested_deep_is_left_out(folder: Path) -> None:
    (folder / "environment.json").write_text("[" * 100_000)
    warned: list[str] = []
    assert "nested too deep" in read_results(folder, warned.append).problems["environment.json"]
    assert [text.startswith("the page goes without environment.json: ") for text in warned] == [True]
