"""The row of results.csv: one trained model, what it was trained on and how well it did."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trained model. The fields are the columns of results.csv in their order; new ones go at the end.

    None is an empty cell: the column does not apply to this model.

    Attributes:
        method: A classifier's name; of a reference network its strategy, and its label behind a colon.
        params: Every parameter that was used, as JSON; see `params_json`.
        seed: Of the folds, of the training subset, and of the method where it has one.
        n_train: Rows the final model was fitted on.
        n_val: Rows that `val_accuracy` was measured on.
        accuracy_low: Lower end of the 95% interval of `accuracy` for the test sample; `accuracy_high` the upper.
        converged: Whether the solver of the final model converged; None for methods without an iterative solver.
        extract_s: Wall-clock seconds of the feature extraction; `fit_s` of selection and fit, `predict_s` of the test.
        fingerprint: Of everything that went into the model; a row with the same one replaces this one.
        created_at: UTC, ISO 8601; see `utc_now`.
        steps: Transforms of the features before the classifier, as in `power+l2`.
        never_predicted: Classes with at least 5 test images that were predicted for none of the test images; None in
            rows of versions that did not count them.
        images_per_class: Training images of each class, of a point of a learning curve; None where all were used.
    """

    experiment: str
    dataset: str
    n_classes: int
    backbone: str
    weights: str | None = None
    layer: str | None = None
    pooling: str | None = None
    feature_dim: int | None = None
    method: str
    kind: Literal["classifier", "baseline"]
    params: str
    selection: str | None = None
    seed: int
    n_train: int
    n_val: int | None = None
    n_test: int
    val_accuracy: float | None = None
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    balanced_accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    converged: bool | None = None
    engine: str | None = None
    device: str | None = None
    precision: str | None = None
    extract_s: float | None = None
    fit_s: float | None = None
    predict_s: float | None = None
    fingerprint: str
    featbench_version: str
    created_at: str
    steps: str | None = None
    never_predicted: int | None = None
    images_per_class: int | None = None


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Row))


def params_json(params: Mapping[str, Any]) -> str:
    """Write parameters as the JSON of the `params` column: keys sorted, NaN refused.

    Raises:
        TypeError: A value is not a JSON type.
        ValueError: A value is NaN or infinite.
    """
    return json.dumps(params, sort_keys=True, allow_nan=False)


def utc_now() -> str:
    """Return the present moment as the `created_at` column writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
