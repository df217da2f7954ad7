"""Stage 2: train a classifier on cached features and test it once.

    featbench evaluate digits

The protocol:

1. Training rows fit scalers, choose hyper-parameters and train; `select` says how they are chosen.
2. The chosen hyper-parameters are fitted again on all training rows, and on the val split's where there is one. A
   learning curve (`train_sizes`) is fitted on the training rows it is about and nothing else.
3. Test rows are used once, after everything is fitted, for the numbers of the row.
4. Every parameter that was used, and whether the solver converged, is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import SVC

from featbench.classifiers.calibrate import calibrate
from featbench.classifiers.params import used_params
from featbench.classifiers.rows import How, LabelledFeatures, check_rows, final_rows
from featbench.classifiers.select import Selection, convergence_recorded, fit, select
from featbench.classifiers.spec import ClassifierSpec, Rows
from featbench.classifiers.transforms import fit_steps, transform_rows
from featbench.config import EvaluateConfig
from featbench.errors import DataError, UsageError
from featbench.solvers.rbf_pairs import decision_values
from featbench.solvers.streamed import FeatureRows, StreamedRows, blocks, concatenated, read_rows


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted classifier and its test; most fields are columns of results.csv.

    Attributes:
        model: The pipeline, fitted on `n_train` rows.
        params: Every parameter that was used, the chosen ones among them.
        selection: `cv`, `oob`, `holdout` or `none`.
        val_accuracy: Of the chosen hyper-parameters on rows they were not fitted on; None without a selection.
        n_tried: Candidates of the selection.
        n_not_converged: Candidates of the selection that did not converge.
        converged: Whether the final fit converged; None where the method has no such notion.
        n_train: Rows that `model` was fitted on.
        n_val: Rows that `val_accuracy` was measured on.
        predicted: (N,) int64 in [0, n_classes), of the test rows.
        scores: (N, n_classes) float64; see `class_scores`.
        engine: What searched and fitted: `featbench`, `scikit-learn` or `scikit-learn-intelex`.
        temperature: Of decision values, see `calibrate`; None where there are probabilities, or nothing was held out.
        fit_s: Seconds of selection and final fit, wall-clock; not those of the temperature, which no metric needs.
        predict_s: Seconds of scoring the test rows, wall-clock.
    """

    model: Pipeline
    params: dict[str, Any]
    selection: How
    val_accuracy: float | None
    n_tried: int
    n_not_converged: int
    converged: bool | None
    n_train: int
    n_val: int
    predicted: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    engine: str
    temperature: float | None
    fit_s: float
    predict_s: float


def fit_and_test(
    spec: ClassifierSpec,
    train: LabelledFeatures,
    val: LabelledFeatures | None,
    test: LabelledFeatures,
    config: EvaluateConfig,
    seed: int,
    n_classes: int,
    steps: Sequence[str] = (),
    device: str = "cpu",
) -> Fitted:
    """Choose hyper-parameters, fit, and test once.

    Args:
        spec: The classifier, of `get_classifier`.
        train: Training rows.
        val: The val split; None where the data set has none.
        test: Test rows.
        config: The `[evaluate]` table.
        seed: For the folds or the held-out rows, and a seeded method.
        n_classes: Number of classes; some may be missing from the training rows.
        steps: Transforms before the classifier.
        device: Where a solver that can use a GPU computes.

    Raises:
        DataError: A class has too few training rows, features are not finite, or a split has no rows.
        UsageError: scikit-learn refuses a parameter.
    """
    X, y = _labelled_rows(train, val)
    X_test = _ready(test, "test")  # a test split that cannot be used is refused before the work, not after
    check_rows(spec, y, len(train.y), [str(label) for label in range(n_classes)], config)
    n_final = final_rows(len(train.y), len(y) - len(train.y), config)

    started = perf_counter()
    chosen = select(spec, X, y, len(train.y), config, seed, steps, device)
    fit_on = partial(_fit_whole, spec, chosen, steps, seed, device)
    model = fit_on(X[:n_final], y[:n_final])
    params = used_params(spec, chosen.params, model)
    if steps:
        params |= {
            "steps": list(steps),
            "width_after_steps": model[: len(steps)].transform(read_rows(X, slice(1))).shape[1],
        }
    fitted = perf_counter()

    scores = _score(model, X_test, n_classes)
    predicted = scores.argmax(axis=1)
    predicted_at = perf_counter()

    def score_split(rows: Rows, held_out: Rows) -> npt.NDArray[np.float64]:
        return _score(fit_on(X[rows], y[rows]), X[held_out], n_classes)

    has_probabilities = hasattr(model[-1], "predict_proba")
    temperature = None if has_probabilities else calibrate(score_split, y, chosen.splits)

    return Fitted(
        model=model,
        params=params,
        selection=chosen.how,
        val_accuracy=chosen.val_accuracy,
        n_tried=chosen.n_tried,
        n_not_converged=chosen.n_not_converged,
        converged=spec.converged(model[-1]),
        n_train=n_final,
        n_val=chosen.n_val,
        predicted=predicted,
        scores=scores,
        engine=chosen.engine,
        temperature=temperature,
        fit_s=fitted - started,
        predict_s=predicted_at - fitted,
    )


def _fit_whole(
    spec: ClassifierSpec,
    chosen: Selection,
    steps: Sequence[str],
    seed: int,
    device: str,
    X: FeatureRows,
    y: npt.NDArray[np.int64],
) -> Pipeline:
    """Fit the steps, then the classifier with the chosen parameters, on the same rows.

    A model that the search fitted on all of them is not fitted again.
    """
    # Rows on disk come without steps that learn from them.
    before = fit_steps(steps, X.read(slice(1)) if isinstance(X, StreamedRows) else X, seed) if steps else None
    with convergence_recorded(spec):
        rows = X if before is None else transform_rows(before, X)
        model = chosen.model or fit(spec, chosen.params, rows, y, seed, chosen.solver, device)
    return model if before is None else make_pipeline(*(part for _, part in [*before.steps, *model.steps]))


def _score(model: Pipeline, X: FeatureRows, n_classes: int) -> npt.NDArray[np.float64]:
    if isinstance(X, StreamedRows):
        return np.concatenate([class_scores(model, X.read(part), n_classes) for part in blocks(*X.shape)])
    return class_scores(model, X, n_classes)


def class_scores(model: Pipeline, X: npt.NDArray[Any], n_classes: int) -> npt.NDArray[np.float64]:
    """Score rows with a fitted model; the class with the highest score is the one the model predicts.

    Args:
        model: A fitted classifier, trained on labels in [0, n_classes).
        X: (N, D) float.
        n_classes: Number of columns wanted.

    Returns:
        (N, n_classes) float64: probabilities where the method has them, else decision values, of which those of a
        two-class problem become the columns -s and s. A class that was not trained has probability 0, or -inf.

    Raises:
        UsageError: A classifier of the user's own does not give one score a class.
    """
    if hasattr(model[-1], "predict_proba"):
        trained, missing = model.predict_proba(X), 0.0
    elif isinstance(model[-1], SVC) and model[-1].kernel == "rbf":
        trained, missing = decision_values(model[-1], model[:-1].transform(X)), -np.inf
    else:
        trained, missing = model.decision_function(X), -np.inf
    if trained.ndim == 1:
        trained = np.stack([-trained, trained], axis=1)
    if trained.shape != (len(X), len(model.classes_)):
        raise UsageError(
            f"{type(model[-1]).__name__} gives scores of shape {trained.shape} for {len(X)} rows and "
            f"{len(model.classes_)} classes; it has to give one a class, as decision_function_shape='ovr' does"
        )
    scores = np.full((len(X), n_classes), missing)
    scores[:, model.classes_] = trained
    return scores


def _labelled_rows(train: LabelledFeatures, val: LabelledFeatures | None) -> tuple[FeatureRows, npt.NDArray[np.int64]]:
    X = _ready(train, "train")
    if val is None:
        return X, train.y
    return concatenated(X, _ready(val, "val")), np.concatenate([train.y, val.y])


def _ready(split: LabelledFeatures, name: str) -> FeatureRows:
    if len(split.X) == 0:
        raise DataError(f"the {name} split has no rows; give it images")
    X = split.X
    if isinstance(X, np.ndarray) and X.dtype == np.float16:
        X = X.astype(np.float32)
    wrong = sum(int((~np.isfinite(read_rows(X, part))).any(axis=1).sum()) for part in blocks(*X.shape))
    if wrong:
        raise DataError(
            f"{wrong} of {len(X)} {name} rows hold features that are not finite; "
            'if they were stored as float16, store = "float32" of [[backbones]] keeps large values'
        )
    return X
