"""The row of results.csv of a trained model, whichever stage trained it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

import featbench
from featbench.data.splits import Dataset
from featbench.results.row import Row, params_json, utc_now
from featbench.stats.metrics import classification_metrics, wilson_interval


def make_row(
    experiment: str,
    dataset: Dataset,
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    *,
    params: Mapping[str, Any],
    images_per_class: int | None,
    **columns: Any,
) -> Row:
    """Make the row of a model that was tested just now: its metrics follow from its predictions.

    Args:
        experiment: Name of the experiment.
        dataset: The data set.
        labels: True classes of the test images, (N,) int64.
        predicted: What the model predicted, (N,) int64.
        params: Every parameter that was used. The size of a learning curve's subset is put beside them, where
            programs that were written before it had a column look for it.
        images_per_class: Size of a learning curve's subset; None where all training images were used.
        columns: The other columns of `Row`.

    Raises:
        DataError: There are no test images.
        ValueError: A parameter is NaN or infinite.
    """
    size = {} if images_per_class is None else {"images_per_class": images_per_class}
    low, high = wilson_interval(int((labels == predicted).sum()), len(labels))
    return Row(
        experiment=experiment,
        dataset=dataset.name,
        n_classes=len(dataset.classes),
        params=params_json({**params, **size}),
        n_test=len(labels),
        **asdict(classification_metrics(labels, predicted, len(dataset.classes))),
        accuracy_low=low,
        accuracy_high=high,
        featbench_version=featbench.__version__,
        created_at=utc_now(),
        images_per_class=images_per_class,
        **columns,
    )
