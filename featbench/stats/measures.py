"""metrics.csv and confusion.csv: what each model scores on its test rows, with 95% intervals.

| metric | interval |
| --- | --- |
| `accuracy`, `top5_accuracy`, `recall` and `precision` of a class | Wilson; of a precision, given how often the class was predicted |
| `balanced_accuracy`, `macro_precision`, `macro_recall`, `macro_f1`, `f1` of a class, `log_loss`, `expected_calibration_error` | BCa bootstrap, stratified by class: see `bootstrap_intervals` |
| `support` of a class, a count | none |

`top5_accuracy` needs more than five classes; `log_loss` and `expected_calibration_error` need probabilities.
A calibration error is a sum of absolute values, above 0 on any sample: on few rows it is biased upwards, and so is its
interval, which then holds the true error in fewer than 95% of samples. That of a well calibrated model has none.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from featbench.stats.intervals import Ends, bootstrap_intervals
from featbench.stats.metrics import confusion_matrix, macro_metrics, never_predicted, ratio, wilson_intervals
from featbench.stats.models import Predictions
from featbench.stats.scores import are_probabilities, expected_calibration_error, log_loss, top_k_hits

METRIC_COLUMNS = ("dataset", "model", "fingerprint", "metric", "class", "value", "low", "high")
CONFUSION_COLUMNS = ("dataset", "model", "fingerprint", "label", "predicted", "count")
CLASS_MEASURES = ("recall", "precision", "f1", "support")  # of each class that occurs
TOP = 5

Counts = npt.NDArray[np.int64]
Measure = tuple[str, str | None, float, float | None, float | None]  # metric, class, value, low, high


def metric_table(models: Sequence[Predictions]) -> pd.DataFrame:
    """Measure models: a row a model and metric, then a row a class that occurs among its labels or predictions.

    Returns:
        The columns `METRIC_COLUMNS`; `class`, `low` and `high` are missing where they do not apply.
    """
    lines = [
        (model.dataset, model.name, model.fingerprint, *measure)
        for model, intervals in zip(models, bootstrap_intervals(models), strict=True)
        for measure in _measures(model, intervals)
    ]
    table = pd.DataFrame(lines, columns=list(METRIC_COLUMNS))
    return table.astype({"value": "float64", "low": "float64", "high": "float64"})


def confusion_table(models: Sequence[Predictions]) -> pd.DataFrame:
    """Count test rows by true and predicted class: a row each pair that occurs; the columns `CONFUSION_COLUMNS`."""
    lines = []
    for model in models:
        confusion = confusion_matrix(model.labels, model.predicted, len(model.classes))
        for label, predicted in np.argwhere(confusion).tolist():
            names = model.classes[label], model.classes[predicted]
            lines.append((model.dataset, model.name, model.fingerprint, *names, int(confusion[label, predicted])))
    return pd.DataFrame(lines, columns=list(CONFUSION_COLUMNS))


def never_predicted_classes(confusion: pd.DataFrame) -> dict[str, list[tuple[str, int]]]:
    """List what each model never predicts, from its confusion matrix: fingerprint -> (class, test images), most first.

    Args:
        confusion: What `confusion_table` returns, or confusion.csv as it is read.
    """
    found: dict[str, list[tuple[str, int]]] = {}
    for fingerprint, mine in confusion.groupby("fingerprint", sort=False):
        n_true = mine.groupby("label", sort=False)["count"].sum().sort_values(ascending=False, kind="stable")
        n_predicted = mine.groupby("predicted", sort=False)["count"].sum().reindex(n_true.index, fill_value=0)
        classes = n_true[never_predicted(n_true.to_numpy(), n_predicted.to_numpy())]
        found[str(fingerprint)] = [(str(name), int(count)) for name, count in classes.items()]
    return found


def _measures(model: Predictions, intervals: Mapping[str, Ends]) -> Iterator[Measure]:
    confusion = confusion_matrix(model.labels, model.predicted, len(model.classes))
    hits, n_true, n_predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    of_all = {name: (float(low[0]), float(high[0])) for name, (low, high) in intervals.items() if name != "f1"}
    yield _proportion("accuracy", int(hits.sum()), len(model.labels))
    for name, value in macro_metrics(hits, n_true, n_predicted).items():
        yield (name, None, float(value), *of_all[name])
    if len(model.classes) > TOP and not np.isnan(model.scores).any():
        yield _proportion(f"top{TOP}_accuracy", top_k_hits(model.labels, model.scores, TOP), len(model.labels))
    if are_probabilities(model.scores):
        yield ("log_loss", None, log_loss(model.labels, model.scores), *of_all["log_loss"])
        error = expected_calibration_error(model.labels, model.scores)
        yield ("expected_calibration_error", None, error, *of_all["expected_calibration_error"])
    yield from _class_measures(model.classes, hits, n_true, n_predicted, intervals["f1"])


def _class_measures(
    classes: Sequence[str], hits: Counts, n_true: Counts, n_predicted: Counts, f1_ends: Ends
) -> Iterator[Measure]:
    measured = {
        "precision": (ratio(hits, n_predicted), *wilson_intervals(hits, n_predicted)),
        "recall": (ratio(hits, n_true), *wilson_intervals(hits, n_true)),
        "f1": (ratio(2 * hits, n_true + n_predicted), *f1_ends),
    }
    for i in np.flatnonzero(n_true + n_predicted).tolist():
        for name, (value, low, high) in measured.items():
            yield name, classes[i], float(value[i]), float(low[i]), float(high[i])
        yield "support", classes[i], float(n_true[i]), None, None


def _proportion(name: str, count: int, total: int) -> Measure:
    low, high = wilson_intervals(np.array([count]), np.array([total]))
    return name, None, count / total, float(low[0]), float(high[0])
