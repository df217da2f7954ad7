"""Keeping fitted classifiers: skops files, which are safe to load from people one does not know."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import skops.io
from sklearn.pipeline import Pipeline

from featbench.errors import ResultsError
from featbench.results.cards import MODELS
from featbench.results.files import replacing
from featbench.results.row import Row
from featbench.results.store import artifact_path, find_artifact

# What the classifiers of the table hold beyond the types that skops itself trusts. A tree is numbers; scikit-learn
# checks them when it takes them back.
_TRUSTED = ("sklearn.tree._tree.Tree",)


def save_model(folder: Path, row: Row, model: Pipeline) -> Path:
    """Write a fitted classifier to models/, named as its row's other files.

    Raises:
        ResultsError: The file cannot be written.
    """
    path = artifact_path(folder, MODELS, row, ".skops")
    with replacing(path) as temporary:
        # Level 1 shrinks a forest sixfold in a tenth of a second; higher levels cost more than they save.
        skops.io.dump(model, temporary, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
    return path


def load_model(folder: str | Path, fingerprint: str) -> Pipeline:
    """Read the classifier of the row with this fingerprint.

    Raises:
        ResultsError: There is none, it is damaged, or it holds types that no classifier of featbench does.
    """
    path = find_artifact(Path(folder), MODELS, fingerprint, ".skops")
    try:
        foreign = set(skops.io.get_untrusted_types(file=path)) - set(_TRUSTED)
        if foreign:
            raise ResultsError(
                f"{path} holds {', '.join(sorted(foreign))}, which no classifier of featbench does; it is not loaded. "
                "Run the experiment again to make the model yourself."
            )
        model = skops.io.load(path, trusted=list(_TRUSTED))
    except (zipfile.BadZipFile, json.JSONDecodeError, KeyError, ValueError, OSError) as error:
        raise ResultsError(f"{path} is damaged or of another version: {error}; run the experiment again") from error
    if not isinstance(model, Pipeline):
        raise ResultsError(
            f"{path} holds a {type(model).__name__}, not a classifier of featbench; run the experiment again"
        )
    return model
