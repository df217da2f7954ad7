"""The models that statistics are about: which rows take part, what they are called, what they said about test rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from featbench.errors import ResultsError
from featbench.results.store import load_predictions

# what repeats have in common
CELL = ("dataset", "backbone", "weights", "layer", "pooling", "feature_dim", "steps", "method")
_NAME = ("method", "backbone", "layer", "steps")
_SCORE = "score:"


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model said about its test rows.

    Attributes:
        fingerprint: Of its row in results.csv.
        name: See `model_names`.
        dataset: Name of the data set.
        classes: K names.
        ids: (N,) object, strings in ascending order.
        labels: True classes, (N,) int64 in [0, K).
        predicted: Predicted classes, (N,) int64 in [0, K).
        scores: (N, K) float64; probabilities or decision values, -inf for a class that was not trained.
    """

    fingerprint: str
    name: str
    dataset: str
    classes: tuple[str, ...]
    ids: npt.NDArray[np.object_]
    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]


def main_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are compared: of each (`CELL`), the smallest seed, and of that the largest training set.

    That is the first repeat, which is trained on all training rows, and the largest size of a learning curve. Rows
    that differ in nothing but settings, as two recipes of `finetune` do, all take part.

    Args:
        rows: What `load_results` returns.
    """
    first = rows[rows["seed"] == _by_cell(rows)["seed"].transform("min")]
    largest = first["n_train"] == _by_cell(first)["n_train"].transform("max")
    return pd.DataFrame(first[largest])


def model_names(rows: pd.DataFrame) -> dict[str, str]:
    """Name models `method/backbone/layer/steps`; weights, then the fingerprint are added where that is not unique.

    Returns:
        fingerprint -> name, in the order of the rows.
    """
    records = rows.to_dict("records")
    names = ["/".join(r[part] for part in _NAME if isinstance(r[part], str)) for r in records]
    for detail in ("weights", "fingerprint"):
        count = Counter(names)
        names = [f"{n} ({r[detail]})" if count[n] > 1 else n for n, r in zip(names, records, strict=True)]
    return {str(r["fingerprint"]): name for r, name in zip(records, names, strict=True)}


def load_answers(folder: Path, rows: pd.DataFrame, warn: Callable[[str], None]) -> list[Answers]:
    """Read the predictions of these rows; a model without usable ones is left out with a warning.

    Args:
        folder: The results folder.
        rows: What `main_rows` returns.
        warn: Takes the warning.
    """
    answers: list[Answers] = []
    problems: list[str] = []
    names = model_names(rows)
    for record in rows.to_dict("records"):
        try:
            model = _load(folder, record, names[record["fingerprint"]])
            _check_classes(model, answers)
            answers.append(model)
        except ResultsError as error:
            problems.append(str(error))
    if problems:
        left_out = "1 model is" if len(problems) == 1 else f"{len(problems)} models are"
        warn(f"{left_out} left out of the statistics: {problems[0]}")
    return answers


def _load(folder: Path, record: dict[Any, Any], name: str) -> Answers:
    fingerprint = str(record["fingerprint"])
    table = load_predictions(folder, fingerprint)
    columns = [column for column in table.columns if column.startswith(_SCORE)]
    if not {"id", "label", "predicted"} <= set(table.columns):
        raise ResultsError(f"the predictions of {name} ({fingerprint}) lack columns; run the experiment again")
    table = table.sort_values("id", kind="stable")
    classes = pd.Index([column.removeprefix(_SCORE) for column in columns])
    labels, predicted = (classes.get_indexer(pd.Index(table[c])).astype(np.int64) for c in ("label", "predicted"))
    unknown = sorted({*table["label"], *table["predicted"]} - set(classes))
    if unknown:
        raise ResultsError(
            f"the predictions of {name} ({fingerprint}) name the class {unknown[0]!r}, of which they have no scores; "
            "run the experiment again"
        )
    accuracy = float((labels == predicted).mean()) if len(table) else float("nan")
    if len(table) != record["n_test"] or not np.isclose(accuracy, record["accuracy"], atol=1e-9):
        raise ResultsError(
            f"the predictions of {name} ({fingerprint}) are not those of its row: {len(table)} test rows and accuracy "
            f"{accuracy:.4f} against {record['n_test']} and {record['accuracy']:.4f}; run the experiment again"
        )
    return Answers(
        fingerprint=fingerprint,
        name=name,
        dataset=str(record["dataset"]),
        classes=tuple(classes),
        ids=table["id"].to_numpy(dtype=object),
        labels=labels,
        predicted=predicted,
        scores=table[columns].to_numpy(dtype=np.float64),
    )


def _check_classes(model: Answers, others: Sequence[Answers]) -> None:
    """Refuse a model whose classes have other names than those of another on the same test images."""
    for other in others:
        if other.dataset == model.dataset and np.array_equal(other.ids, model.ids):
            differing = sorted({*model.classes} ^ {*other.classes})
            if differing:
                raise ResultsError(
                    f"the predictions of {model.name} ({model.fingerprint}) and {other.name} ({other.fingerprint}) "
                    f"are of the same images but not of the same classes: {differing[0]!r} is in one alone; "
                    "run the experiment again"
                )
            return


def _by_cell(rows: pd.DataFrame) -> Any:
    columns = [column for column in CELL if column in rows.columns]
    return rows.groupby(columns, dropna=False, sort=False)
