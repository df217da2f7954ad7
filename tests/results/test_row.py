from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from featbench.results.row import COLUMNS, params_json, utc_now

# From the design's contract, which other programs rely on.
CONTRACT = """experiment, dataset, n_classes, backbone, weights, layer, pooling, feature_dim, method, kind, params,
selection, seed, n_train, n_val, n_test, val_accuracy, accuracy, accuracy_low, accuracy_high, balanced_accuracy,
macro_precision, macro_recall, macro_f1, converged, engine, device, precision, extract_s, fit_s, predict_s, fingerprint,
featbench_version, created_at, steps, never_predicted, images_per_class"""


def test_columns_are_the_contract() -> None:
    assert list(COLUMNS) == [name.strip() for name in CONTRACT.split(",")]


def test_params_are_json_with_sorted_keys() -> None:
    assert params_json({"b": 1, "a": None}) == '{"a": null, "b": 1}'
    assert json.loads(params_json({"gamma": 1 / 64})) == {"gamma": 1 / 64}


def test_params_refuse_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        params_json({"C": float("nan")})


def test_now_is_utc() -> None:
    now = datetime.fromisoformat(utc_now())
    assert now.utcoffset() == timedelta(0)
    assert abs(datetime.now(now.tzinfo) - now) < timedelta(minutes=1)
