"""mistakes.csv: the test images that models get wrong most often, or most confidently, and what each model predicts.

Scores of different models have no common scale (margins of an SVM, votes of a forest), so confidence is a rank:
`certainty` is the share of the model's own test images on which the gap between its two highest scores is not larger.
0.98 means that it was as sure as on its 2% surest images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from featbench.stats.models import Predictions

MISTAKE_COLUMNS = ("dataset", "id", "label", "model", "fingerprint", "predicted", "certainty")
MISTAKES = "mistakes.csv"
N_EACH = 24  # images, most often wrong and most confidently wrong

Floats = npt.NDArray[np.float64]


def mistake_table(models: Sequence[Predictions], n_each: int = N_EACH) -> pd.DataFrame:
    """Choose images of each data set, and list what every model predicts of them.

    Args:
        models: The models, of any data sets.
        n_each: How many images to choose by the share of models that are wrong (of equals by the higher certainty of
            a wrong model), and how many by that certainty.

    Returns:
        A row an image and model, right predictions included: the columns `MISTAKE_COLUMNS`, the images most often wrong
        first. `certainty` is in (0, 1], NaN for a model without finite scores.
    """
    columns = list(MISTAKE_COLUMNS)
    tables = []
    for dataset in dict.fromkeys(model.dataset for model in models):
        mine = pd.concat([_predictions_of(model) for model in models if model.dataset == dataset], ignore_index=True)
        chosen = _choose(mine, n_each)
        if chosen:
            place = pd.Index(chosen).get_indexer(pd.Index(mine["id"]))
            kept = mine.assign(place=place)[place >= 0].sort_values("place", kind="stable")
            tables.append(kept.assign(dataset=dataset)[columns])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def certainties(scores: Floats) -> Floats:
    """Rank the gaps between the two highest scores of each row: (N, K) to (N,) in (0, 1], NaN where one is NaN."""
    if scores.shape[1] < 2 or np.isnan(scores).any():
        return np.full(len(scores), np.nan)
    two = np.partition(scores, -2, axis=1)[:, -2:]
    return np.asarray(rankdata(two[:, 1] - two[:, 0], method="max") / len(scores), dtype=np.float64)


def _predictions_of(model: Predictions) -> pd.DataFrame:
    names = np.asarray(model.classes, dtype=object)
    return pd.DataFrame(
        {
            "id": model.ids,
            "label": names[model.labels],
            "model": model.name,
            "fingerprint": model.fingerprint,
            "predicted": names[model.predicted],
            "certainty": certainties(model.scores),
            "wrong": model.labels != model.predicted,
        }
    )


def _choose(predictions: pd.DataFrame, n_each: int) -> list[str]:
    share = predictions.groupby("id", sort=True)["wrong"].mean()
    surest = predictions[predictions["wrong"]].groupby("id", sort=True)["certainty"].max()
    images = pd.DataFrame({"share": share, "surest": surest.reindex(share.index).fillna(0.0)})
    images = images[images["share"] > 0]
    often = images.sort_values(["share", "surest"], ascending=False, kind="stable")
    sure = images[images["surest"] > 0].sort_values(["surest", "share"], ascending=False, kind="stable")
    kept = {*often.index[:n_each], *sure.index[:n_each]}
    return [str(image) for image in often.index if image in kept]
