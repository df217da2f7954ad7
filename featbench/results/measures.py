"""metrics.csv and confusion.csv: what each model scores on its test rows, with 95% intervals.

| metric | interval |
| --- | --- |
| `accuracy`, `top5_accuracy`, `recall` and `precision` of a class | Wilson; of a precision, given how often the class was predicted |
| `balanced_accuracy`, `macro_precision`, `macro_recall`, `macro_f1` | BCa bootstrap, stratified by class: see `bootstrap_intervals` |
| `f1` and `support` of a class, `log_loss`, `expected_calibration_error` | none |

`top5_accuracy` needs more than five classes; `log_loss` and `expected_calibration_error` need probabilities.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from featbench.results.intervals import bootstrap_intervals
from featbench.results.metrics import confusion_matrix, macro_metrics, ratio, wilson_intervals
from featbench.results.models import Answers
from featbench.results.scores import are_probabilities, expected_calibration_error, log_loss, top_k_hits

METRIC_COLUMNS = ("dataset", "model", "fingerprint", "metric", "class", "value", "low", "high")
CONFUSION_COLUMNS = ("dataset", "model", "fingerprint", "label", "predicted", "count")
TOP = 5

Counts = npt.NDArray[np.int64]
Measure = tuple[str, str | None, float, float | None, float | None]  # metric, class, value, low, high


def metric_table(answers: Sequence[Answers]) -> pd.DataFrame:
    """Measure models: a row a model and metric, then a row a class that occurs among its labels or predictions.

    Returns:
        The columns `METRIC_COLUMNS`; `class`, `low` and `high` are missing where they do not apply.
    """
    lines = [
        (model.dataset, model.name, model.fingerprint, *measure) for model in answers for measure in _measures(model)
    ]
    table = pd.DataFrame(lines, columns=list(METRIC_COLUMNS))
    return table.astype({"value": "float64", "low": "float64", "high": "float64"})


def confusion_table(answers: Sequence[Answers]) -> pd.DataFrame:
    """Count test rows by true and predicted class: a row each pair that occurs; the columns `CONFUSION_COLUMNS`."""
    lines = []
    for model in answers:
        confusion = _confusion(model)
        for label, predicted in np.argwhere(confusion).tolist():
            names = model.classes[label], model.classes[predicted]
            lines.append((model.dataset, model.name, model.fingerprint, *names, int(confusion[label, predicted])))
    return pd.DataFrame(lines, columns=list(CONFUSION_COLUMNS))


def _confusion(model: Answers) -> Counts:
    return confusion_matrix(model.labels, model.predicted, len(model.classes))


def _measures(model: Answers) -> Iterator[Measure]:
    confusion = _confusion(model)
    hits, n_true, n_predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    yield _proportion("accuracy", int(hits.sum()), len(model.labels))
    intervals = bootstrap_intervals(confusion)
    for name, value in macro_metrics(hits, n_true, n_predicted).items():
        yield (name, None, float(value), *intervals[name])
    if len(model.classes) > TOP and not np.isnan(model.scores).any():
        yield _proportion(f"top{TOP}_accuracy", top_k_hits(model.labels, model.scores, TOP), len(model.labels))
    if are_probabilities(model.scores):
        yield "log_loss", None, log_loss(model.labels, model.scores), None, None
        error = expected_calibration_error(model.labels, model.scores)
        yield "expected_calibration_error", None, error, None, None
    yield from _class_measures(model.classes, hits, n_true, n_predicted)


def _class_measures(classes: Sequence[str], hits: Counts, n_true: Counts, n_predicted: Counts) -> Iterator[Measure]:
    values = {"precision": ratio(hits, n_predicted), "recall": ratio(hits, n_true)}
    ends = {"precision": wilson_intervals(hits, n_predicted), "recall": wilson_intervals(hits, n_true)}
    f1 = ratio(2 * hits, n_true + n_predicted)
    for i in np.flatnonzero(n_true + n_predicted).tolist():
        for name, value in values.items():
            low, high = ends[name]
            yield name, classes[i], float(value[i]), float(low[i]), float(high[i])
        yield "f1", classes[i], float(f1[i]), None, None
        yield "support", classes[i], float(n_true[i]), None, None


def _proportion(name: str, count: int, total: int) -> Measure:
    low, high = wilson_intervals(np.array([count]), np.array([total]))
    return name, None, count / total, float(low[0]), float(high[0])
