"""Keeping fitted classifiers: skops files, which are safe to load from people one does not know."""

from __future__ import annotations

import itertools
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE
from sklearn.pipeline import Pipeline

from featbench.errors import ResultsError
from featbench.factories import PREFIX
from featbench.results.cards import MODELS
from featbench.results.files import replacing
from featbench.results.row import Row
from featbench.results.store import artifact_path, find_artifact

# What the classifiers of the table and the steps hold beyond the types that skops itself trusts. Trees are numbers;
# scikit-learn checks those of a forest when it takes them back, and `_check_trees` those of boosting.
_PREDICTOR = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
_TRUSTED = (
    "sklearn.tree._tree.Tree",
    _PREDICTOR,
    "featbench.classifiers.neighbours.NearestNeighbours",
    "featbench.classifiers.steps.SignedSquareRoot",
)


class NotKeptError(Exception):
    """A classifier of the user's own cannot be kept; the message says why."""


def save_model(folder: Path, row: Row, model: Pipeline) -> Path:
    """Write a fitted classifier to models/, named as its row's other files.

    Raises:
        NotKeptError: It is the user's own, and skops cannot write it or would not read it.
        ResultsError: The file cannot be written.
    """
    path = artifact_path(folder, MODELS, row, ".skops")
    with replacing(path) as temporary:
        try:
            # Level 1 shrinks a forest sixfold in a tenth of a second; higher levels cost more than they save.
            skops.io.dump(model, temporary, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
        except OSError:
            raise
        except Exception as error:
            if not row.method.startswith(PREFIX):
                raise
            raise NotKeptError(f"skops cannot write it ({type(error).__name__}: {error})") from error
        foreign = _foreign(temporary)
        if foreign:
            raise NotKeptError(f"it holds {', '.join(foreign)}, which is not loaded from files, as it may be anything")
    return path


def load_model(folder: str | Path, fingerprint: str) -> Pipeline:
    """Read the classifier of the row with this fingerprint.

    Raises:
        ResultsError: There is none, it is damaged, or it holds types that no classifier of featbench does.
    """
    path = find_artifact(Path(folder), MODELS, fingerprint, ".skops")
    try:
        foreign = _foreign(path)
        if foreign:
            raise ResultsError(
                f"{path} holds {', '.join(foreign)}, which no classifier of featbench does; it is not loaded. "
                "Run the experiment again to make the model yourself."
            )
        model = skops.io.load(path, trusted=list(_TRUSTED))
        if isinstance(model, Pipeline):
            _check_trees(model[-1])
    except (zipfile.BadZipFile, json.JSONDecodeError, KeyError, ValueError, OSError) as error:
        raise ResultsError(f"{path} is damaged or of another version: {error}; run the experiment again") from error
    if not isinstance(model, Pipeline):
        raise ResultsError(
            f"{path} holds a {type(model).__name__}, not a classifier of featbench; run the experiment again"
        )
    return model


def _foreign(path: Path) -> list[str]:
    return sorted(set(skops.io.get_untrusted_types(file=path)) - set(_TRUSTED))


def _check_trees(model: Any) -> None:
    """Refuse trees of boosting that would be followed out of their own memory, or for ever.

    Raises:
        ValueError: A node has a child before itself or beyond the last, or asks for a feature that there is not.
    """
    for tree in itertools.chain.from_iterable(getattr(model, "_predictors", ())):
        nodes = tree.nodes
        if nodes.dtype != PREDICTOR_RECORD_DTYPE or nodes.ndim != 1 or not len(nodes):
            raise ValueError("a tree's nodes are not scikit-learn's")
        inner = nodes[nodes["is_leaf"] == 0]
        own = np.flatnonzero(nodes["is_leaf"] == 0)
        for side in ("left", "right"):
            if ((inner[side] <= own) | (inner[side] >= len(nodes))).any():
                raise ValueError("a tree's node has a child that is not after it")
        if ((inner["feature_idx"] < 0) | (inner["feature_idx"] >= model.n_features_in_)).any():
            raise ValueError("a tree asks for a feature that there is not")
        if inner["is_categorical"].any():
            raise ValueError("a tree asks for categories, which features of images are not")
