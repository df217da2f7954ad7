"""The models that statistics are about: which rows take part, their names, their predictions of the test rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from featbench.errors import ResultsError

# what the repeats of one model, and the sizes of its learning curve, have in common
MODEL_KEYS = ("dataset", "backbone", "weights", "layer", "pooling", "feature_dim", "steps", "method")
_NAME = ("method", "backbone", "layer", "steps")


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of a model on its test rows.

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
    """Return the rows that are compared: of each model (`MODEL_KEYS`) the smallest seed with its largest training set.

    That is the first repeat, which is trained on all training rows, and the largest size of a learning curve. Rows
    that differ in nothing but settings, as two recipes of `finetune` do, all take part.
    """
    keys = [column for column in MODEL_KEYS if column in rows.columns]
    first = rows[rows["seed"] == rows.groupby(keys, dropna=False, sort=False)["seed"].transform("min")]
    largest = first["n_train"] == first.groupby(keys, dropna=False, sort=False)["n_train"].transform("max")
    return pd.DataFrame(first[largest])


def strategy_of(method: str) -> str:
    """Return the strategy in a reference network's method: "scratch" of "scratch:l2"."""
    return method.partition(":")[0]


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


def check_classes(model: Predictions, others: Sequence[Predictions]) -> None:
    """Refuse a model whose classes have other names than those of another on the same test images.

    Raises:
        ResultsError: It is one.
    """
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
