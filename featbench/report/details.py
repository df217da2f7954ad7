"""What the page shows of each model: its facts, its measures by class, its confusion matrix."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from featbench.report.folder import Folder
from featbench.report.series import Series, by_validation, plain
from featbench.stats.measures import CLASS_MEASURES

DETAIL_BYTES = 1_500_000


def model_details(folder: Folder, points: list[Series], max_bytes: int) -> tuple[dict[str, dict[str, Any]], int]:
    """Describe as many models as fit the page, the recommended one first, then by validation accuracy.

    Returns:
        fingerprint -> `name`; `facts`, pairs of texts; `classes`, lists of class, test images, recall,
        precision and F1, each with its interval; `confusion`, (label, predicted, count) by number of the class.
        And how many models did not fit.
    """
    metrics = dict(list(folder.tables["metrics.csv"].groupby("fingerprint", sort=False)))
    confusions = dict(list(folder.tables["confusion.csv"].groupby("fingerprint", sort=False)))
    order = sorted(by_validation(points), key=lambda point: point["verdict"] != "best")
    details: dict[str, dict[str, Any]] = {}
    n_left_out = 0
    for point in order:
        fingerprint = point["fingerprint"]
        if fingerprint not in metrics or fingerprint not in confusions:
            continue
        if max_bytes <= 0:
            n_left_out += 1
            continue
        detail = _detail(point, metrics[fingerprint], confusions[fingerprint])
        max_bytes -= len(json.dumps(detail))
        details[fingerprint] = detail
    return details, n_left_out


def _detail(point: Series, metrics: pd.DataFrame, confusion: pd.DataFrame) -> dict[str, Any]:
    overall = metrics[metrics["class"] == ""]
    classes = _class_lines(metrics[metrics["class"] != ""])
    number_of = {line[0]: number for number, line in enumerate(classes)}
    cells = zip(confusion["label"], confusion["predicted"], confusion["count"], strict=True)
    return {
        "name": point["name"],
        "facts": [*_facts(point), *(_measure(line) for line in overall.to_dict("records"))],
        "classes": classes,
        "confusion": [[number_of[a], number_of[b], int(n)] for a, b, n in cells if a in number_of and b in number_of],
    }


def _facts(point: Series) -> list[tuple[str, str]]:
    texts = {
        "validation accuracy": _written(point["val_accuracy"], "{:.4f}"),
        "selection": point["selection"],
        "features": " ".join(str(point[key]) for key in ("layer", "pooling", "feature_dim") if point[key] is not None),
        "steps before the classifier": point["steps"],
        "weights": point["weights"],
        "training images": point["n_train"],
        "never predicted": point["never"],
        "solver converged": {True: "yes", False: "no"}.get(point["converged"]),
        "extraction": _written(point["extract_s"], "{:.3g} s"),
        "selection and fit": _written(point["fit_s"], "{:.3g} s"),
        "test": _written(point["predict_s"], "{:.3g} s"),
        "engine": point["engine"],
        "device, precision": ", ".join(str(point[key]) for key in ("device", "precision") if point[key] is not None),
        "parameters": _parameters(point["params"]),
        "row": point["fingerprint"],
    }
    return [(term, str(text)) for term, text in texts.items() if text not in (None, "")]


def _measure(line: dict[Any, Any]) -> tuple[str, str]:
    interval = "" if pd.isna(line["low"]) else f" ({line['low']:.3f} to {line['high']:.3f})"
    return str(line["metric"]).replace("_", " "), f"{line['value']:.4f}{interval}"


def _class_lines(metrics: pd.DataFrame) -> list[list[Any]]:
    lines: dict[str, dict[str, tuple[Any, Any, Any]]] = {}
    for record in metrics.to_dict("records"):
        values = tuple(plain(record[column]) for column in ("value", "low", "high"))
        lines.setdefault(record["class"], {})[record["metric"]] = values
    none = (None, None, None)
    table = []
    for name, measures in lines.items():
        recall, precision, f1, support = (measures.get(measure, none) for measure in CLASS_MEASURES)
        table.append([name, int(support[0] or 0), *recall, *precision, *f1])
    return table


def _parameters(text: str | None) -> str | None:
    """Write the parameters as text, without those that are None."""
    try:
        content = json.loads(text or "")
    except ValueError:
        return text
    if not isinstance(content, dict):
        return text
    return ", ".join(f"{key} {value}" for key, value in content.items() if value is not None)


def _written(value: float | None, form: str) -> str | None:
    return None if value is None else form.format(value)
