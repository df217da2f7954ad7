from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from featbench.classifiers.saved_models import load_model
from featbench.classifiers.skops_file import Limits
from featbench.config import Experiment
from featbench.errors import CacheError, UsageError
from featbench.features.load import load_features
from featbench.results.artifacts import load_predictions
from featbench.results.cards import read_card
from featbench.results.store import load_results
from featbench.runs.classify import classify
from featbench.runs.extract import extract
from featbench.runs.resolve import Run
from featbench.stats.models import main_rows, model_names
from featbench.stats.spread import curve_table
from tests.tiny import Recorder, digits_content


def make_job(home: Path, **evaluate_table: Any) -> Run:
    content = digits_content(
        dataset={"name": "digits", "limit_train": 120, "limit_test": 50, "val_fraction": 0.04},
        backbones=[{"name": "pixels"}],
        evaluate={"classifiers": ["linear_svc"], "grids": {"linear_svc": {"C": [1e-3, 1e-2]}}} | evaluate_table,
    )
    places = (home / "results", home / "cache", home / "data")
    return Run(Experiment.model_validate(content), *places, torch.device("cpu"), progress=Recorder())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    extract(make_job(tmp_path))
    return tmp_path


def test_the_fingerprints_returned_are_those_of_the_rows(home: Path) -> None:
    job = make_job(home)
    assert classify(job) == load_results(job.results_dir).fingerprint.tolist()
    assert classify(job) == load_results(job.results_dir).fingerprint.tolist()


@pytest.mark.parametrize("selection", ["cv", "holdout", "none"])
def test_the_row_says_how_parameters_were_chosen(home: Path, selection: str) -> None:
    job = make_job(home, selection=selection, **({"grids": {}} if selection == "none" else {}))
    classify(job)
    row = load_results(job.results_dir).iloc[0]
    params = json.loads(row.params)
    assert row.selection == selection
    assert params["C"] in ([1.0] if selection == "none" else [1e-3, 1e-2])  # 1 is scikit-learn's own
    assert params["candidates_not_converged"] == 0
    assert params["scaler"] == "StandardScaler"


def test_the_seconds_of_extraction_are_those_of_all_splits(home: Path) -> None:
    job = make_job(home)
    classify(job)
    (cached,) = extract(job)
    expected = sum(info.extract_s["pixels"] for info in cached.infos.values())
    assert load_results(job.results_dir).extract_s[0] == pytest.approx(expected)


def test_a_learning_curve_is_a_row_a_size(home: Path) -> None:
    job = make_job(home, train_sizes=[2, 5], repeats=2)
    classify(job)
    rows = load_results(job.results_dir)
    assert rows.n_train.tolist() == [20, 50, 20, 50]
    assert rows.seed.tolist() == [0, 0, 1, 1]
    assert rows.images_per_class.tolist() == [2, 5, 2, 5]
    assert curve_table(rows)[["images_per_class", "n_repeats"]].to_numpy().tolist() == [[2, 2], [5, 2]]
    assert main_rows(rows).n_train.tolist() == [50]
    tables = [load_predictions(job.results_dir, name) for name in rows.fingerprint]
    assert len({tuple(table.id) for table in tables}) == 1


def test_linear_svc_alone_is_fitted_on_the_gpu_of_the_networks(home: Path, gpu: str) -> None:
    job = replace(make_job(home, classifiers=["linear_svc", "ridge"]), device=torch.device(gpu, 0))
    classify(job)
    rows = load_results(job.results_dir).set_index("method")
    assert rows.device.to_dict() == {"linear_svc": f"{gpu}:0", "ridge": "cpu"}
    assert rows.converged["linear_svc"]


def test_rows_too_many_for_the_gpu_are_fitted_on_the_cpu_and_it_is_said(
    home: Path, gpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**10, 2**10))
    job = replace(make_job(home), device=torch.device(gpu, 0))
    classify(job)
    assert load_results(job.results_dir).device.tolist() == ["cpu"]
    said = "linear_svc on pixels pixels is fitted on the CPU: its rows do not fit the GPU"
    assert said in job.progress.said  # type: ignore[attr-defined]


def test_a_size_beyond_the_smallest_class_is_refused(home: Path) -> None:
    with pytest.raises(UsageError, match="train_sizes asks for 100 images a class"):
        classify(make_job(home, train_sizes=[100]))


def test_without_classifiers_nothing_is_done_and_no_cache_is_needed(tmp_path: Path) -> None:
    assert classify(make_job(tmp_path, classifiers=[], grids={})) == []
    with pytest.raises(CacheError):
        classify(make_job(tmp_path))


def test_steps_are_rows_of_their_own_and_keep_the_fingerprints_of_those_without(home: Path) -> None:
    (plain,) = classify(make_job(home))
    job = make_job(home, steps=[[], ["power", "l2"], ["pca:0.9"]])
    assert classify(job)[0] == plain
    rows = load_results(job.results_dir)
    assert rows.steps.fillna("").tolist() == ["", "power+l2", "pca:0.9"]
    assert rows.feature_dim.tolist() == [64, 64, 64]
    widths = [json.loads(params).get("width_after_steps") for params in rows.params]
    assert widths[:2] == [None, 64]
    assert widths[2] < 64
    assert len(main_rows(rows)) == 3
    assert len(set(model_names(rows).values())) == 3
    assert kept(job, rows.iloc[2])[0].n_components_ == widths[2]


def kept(job: Run, row: pd.Series) -> Pipeline:
    """Load the classifier of a row."""
    card, file = read_card(job.results_dir, row.fingerprint)
    return load_model(file, card, Limits(row.feature_dim, row.n_classes, row.n_train))


FUSION = ["resnet20/layer1", "resnet20/layer3", "pixels/pixels"]


def fused_job(home: Path, fusions: list[list[str]]) -> Run:
    content = digits_content(
        backbones=[{"name": "resnet20", "layers": ["layer1", "layer3"]}, {"name": "pixels"}],
        evaluate={"classifiers": ["linear_svc"], "grids": {"linear_svc": {"C": [1e-2]}}, "fusions": fusions},
    )
    places = (home / "results", home / "cache", home / "data")
    return Run(Experiment.model_validate(content), *places, torch.device("cpu"), progress=Recorder())


def test_a_fusion_is_its_layers_side_by_side(tmp_path: Path) -> None:
    job = fused_job(tmp_path, [FUSION[:2], FUSION])
    cached = extract(job)
    classify(job)
    rows = load_results(job.results_dir)
    assert rows.layer.tolist() == ["layer1", "layer3", "pixels", "layer1+layer3", "layer1+layer3+pixels"]
    assert rows.backbone.tolist()[3:] == ["resnet20", "resnet20+resnet20+pixels"]
    assert rows.feature_dim.tolist() == [16, 64, 64, 80, 144]
    parts = [load_features(cached[0].keys["train"].path, layer)[0] for layer in ("layer1", "layer3")]
    y = load_features(cached[0].keys["train"].path, "layer1")[1]
    val = [load_features(cached[0].keys["val"].path, layer)[0] for layer in ("layer1", "layer3")]
    X = np.concatenate([np.hstack(parts), np.hstack(val)])
    y = np.concatenate([y, load_features(cached[0].keys["val"].path, "layer1")[1]])
    by_hand = make_pipeline(StandardScaler(), LinearSVC(C=1e-2, dual=False)).fit(X, y)
    model = kept(job, rows.iloc[3])
    np.testing.assert_allclose(model[-1].coef_, by_hand[-1].coef_, atol=1e-3)
    single = rows.extract_s[0]
    assert rows.extract_s[3] == pytest.approx(single)  # both layers came out of one pass
    assert rows.extract_s[4] == pytest.approx(single + rows.extract_s[2])


def test_a_fusion_of_a_layer_that_is_not_extracted(tmp_path: Path) -> None:
    job = fused_job(tmp_path, [["resnet20/layer1", "resnet20/layer2"]])
    extract(job)
    with pytest.raises(UsageError, match="names 'resnet20/layer2', which is not extracted; add the layer"):
        classify(job)


def test_a_classifier_of_ones_own_with_the_reason_why_it_is_not_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = home / "own_for_the_stage.py"
    module.write_text(
        "from sklearn.linear_model import RidgeClassifier\n\nclass Mine(RidgeClassifier):\n    pass\n\n"
        "def kept():\n    return RidgeClassifier()\n"
    )
    monkeypatch.chdir(home)
    monkeypatch.syspath_prepend(str(home))
    names = ["python:own_for_the_stage:kept", "python:own_for_the_stage:Mine"]
    table = {"classifiers": names, "grids": {names[0]: {"alpha": [1.0, 10.0]}}}
    job = make_job(home, **table)
    first = classify(job)
    rows = load_results(job.results_dir)
    assert rows.method.tolist() == names
    assert json.loads(rows.params[0])["alpha"] in (1.0, 10.0)
    assert kept(job, rows.iloc[0])[-1].classes_.tolist() == list(range(10))
    assert "own_for_the_stage.Mine" in json.loads(rows.params[1])["model_not_kept"]
    assert "is not kept: it holds own_for_the_stage.Mine" in job.progress.warned[0]  # type: ignore[attr-defined]
    module.write_text(module.read_text() + "# edited\n")
    assert not set(classify(make_job(home, **table))) & set(first)
