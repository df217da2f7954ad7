"""Fitted classifiers as skops files. Those of the registry are safe to load, whoever made the file.

For these no object is taken from the file: `skops_file` reads arrays, and `restore` makes the classifier from them. A
user's own classifier may be of any of scikit-learn's types. skops loads it, which runs no code from the file but does
not check its numbers, and only if the caller trusts whoever made it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from sklearn.pipeline import Pipeline

from featbench.classifiers.registry import CLASSIFIERS
from featbench.classifiers.restore import TRANSFORMS, ForeignError, restore_pipeline
from featbench.classifiers.skops_file import DamagedError, Limits, SkopsFile
from featbench.classifiers.spec import Restore
from featbench.errors import ResultsError, UsageError
from featbench.factories import PREFIX
from featbench.results.artifacts import artifact_path
from featbench.results.cards import MODELS, Card
from featbench.results.files import replacing
from featbench.results.row import Row

# Parts of scikit-learn's forests and boosting that skops itself does not trust.
_TREES = ("sklearn.tree._tree.Tree", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor")


class NotKeptError(Exception):
    """A user's own classifier cannot be saved; the message says why."""


def save_model(folder: Path, row: Row, model: Pipeline) -> Path:
    """Write a fitted classifier to models/, named as its row's other files.

    Raises:
        NotKeptError: skops cannot write it, or would not read it back.
        ResultsError: The file cannot be written.
    """
    import skops.io  # imports all of scikit-learn, which reading one of featbench's own classifiers does not need

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
            raise NotKeptError(
                f"it holds {', '.join(foreign)}, a type that is not loaded from files, because it could run any code"
            )
    return path


def load_model(path: Path, card: Card, limits: Limits, trust: Sequence[str] = ()) -> Pipeline:
    """Read a classifier.

    Args:
        path: Its file.
        card: Its card.
        limits: What is known of the model, to check its arrays.
        trust: Names of users' own classifiers, as in "python:my_classifiers:make", that skops may load unchecked.

    Raises:
        ResultsError: It is damaged, or holds types of none of featbench's classifiers.
        UsageError: It is a user's own classifier, and not in `trust`.
    """
    try:
        with SkopsFile(path, limits.n_trees) as file:
            return restore_pipeline(file.root, limits, _restored_types())
    except DamagedError as error:
        raise ResultsError(f"{path} is damaged or of another version: {error}; run the experiment again") from error
    except ForeignError as error:
        foreign = str(error)
    if not card.method.startswith(PREFIX):
        raise ResultsError(
            f"{path} holds {foreign}, a type that featbench's classifiers do not have; it is not loaded. "
            "Run the experiment again to make the model yourself."
        )
    if card.method not in trust:
        raise UsageError(
            f"{path} holds {foreign}, whose numbers featbench cannot check, and which can crash this process; if you "
            f"trust whoever made it, say so with --trust {card.method} (in Python trust=[{card.method!r}])"
        )
    return _load_own(path)


def _load_own(path: Path) -> Pipeline:
    import skops.io

    try:
        model = skops.io.load(path, trusted=_trusted())
    except Exception as error:  # a damaged file makes skops and scikit-learn raise anything
        why = str(error) or type(error).__name__
        raise ResultsError(f"{path} is damaged or of another version: {why}; run the experiment again") from error
    if not isinstance(model, Pipeline):
        raise ResultsError(
            f"{path} holds a {type(model).__name__}, not a classifier of featbench; run the experiment again"
        )
    return model


def _foreign(path: Path) -> list[str]:
    import skops.io

    return sorted(set(skops.io.get_untrusted_types(file=path)) - set(_trusted()))


def _restored_types() -> dict[type, Restore]:
    """Return every type that featbench makes again from checked arrays, and how."""
    return TRANSFORMS | {kind: restore for spec in CLASSIFIERS.values() for kind, restore in spec.restore.items()}


def _trusted() -> list[str]:
    return [*_TREES, *(f"{kind.__module__}.{kind.__qualname__}" for kind in _restored_types())]
