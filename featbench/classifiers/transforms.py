"""Steps before a classifier: `[evaluate] steps = ["l2", "pca:128"]`.

They come before the classifier's own standardisation, in the order given, and see training rows only: inside a
cross-validation those of the fold. Several lists are variants, each with its own rows in results.csv:
`steps = [[], ["l2"], ["power", "l2"]]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.utils.validation import validate_data

from featbench.errors import UsageError, unknown
from featbench.solvers.streamed import FeatureRows, StreamedRows


class SignedSquareRoot(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """sign(x) sqrt(|x|), which shortens long tails: the power normalisation of image features.

    Source: F. Perronnin, J. Sanchez and T. Mensink, "Improving the Fisher kernel for large-scale image classification",
    ECCV 2010, with their alpha of 1/2.
    """

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the rows (N, D); there is nothing to learn."""
        validate_data(self, X, dtype=[np.float64, np.float32])
        return self

    def transform(self, X: Any) -> npt.NDArray[Any]:
        """Return (N, D) float of the same precision."""
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return np.asarray(np.sign(X) * np.sqrt(np.abs(X)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


@dataclass(frozen=True)
class StepSpec:
    """A step.

    Attributes:
        summary: What it does, in one line.
        make: Makes the transformer from what follows the colon and a seed.
        argument: Description of what follows the colon; None where nothing does.
        learns: Whether it depends on the rows that it is fitted on.
    """

    summary: str
    make: Callable[[Any, int], Any]
    argument: str | None = None
    learns: bool = False


_COMPONENTS = "the number of components, or the share of the variance to keep, above 0 and below 1"
STEPS: dict[str, StepSpec] = {
    "l2": StepSpec("scales each image's features to length 1", lambda _, seed: Normalizer()),
    "power": StepSpec("signed square root of each feature", lambda _, seed: SignedSquareRoot()),
    "standardize": StepSpec("mean 0 and deviation 1 of each feature", lambda _, seed: StandardScaler(), learns=True),
    "pca": StepSpec(
        "principal components, as in pca:128 or pca:0.95",
        lambda n, seed: PCA(n, random_state=seed),
        argument=_COMPONENTS,
        learns=True,
    ),
    "pca_whiten": StepSpec(
        "principal components, each of variance 1, as in pca_whiten:64",
        lambda n, seed: PCA(n, whiten=True, random_state=seed),
        argument=_COMPONENTS,
        learns=True,
    ),
}


def check_steps(steps: Sequence[str]) -> None:
    """Check the names and arguments of steps.

    Raises:
        UsageError: There is no such step, or its argument is wrong.
    """
    for step in steps:
        _parse(step)


def learns(steps: Sequence[str]) -> bool:
    """Whether any of the steps depends on the rows that it is fitted on."""
    return any(_parse(step)[0].learns for step in steps)


def fit_steps(steps: Sequence[str], X: npt.NDArray[Any], seed: int) -> Pipeline:
    """Fit steps on these rows.

    Args:
        steps: As the experiment names them; at least one.
        X: (N, D) float, finite.
        seed: For large decompositions, which scikit-learn approximates with random numbers.

    Raises:
        UsageError: scikit-learn refuses a step on these rows.
    """
    made = [spec.make(argument, seed) for spec, argument in map(_parse, steps)]
    try:
        return make_pipeline(*made).fit(X)
    except ValueError as error:
        raise UsageError(
            f"steps = {list(steps)} cannot be fitted on {len(X)} rows of {X.shape[1]} features: {error}; take fewer "
            "components, or a share of the variance, as in pca:0.95, which fits every layer"
        ) from error


def transform_rows(steps: Pipeline, X: FeatureRows) -> FeatureRows:
    """Apply fitted steps to rows; to rows on disk whenever they are read."""
    if isinstance(X, StreamedRows):
        return X.transformed(steps.transform)
    transformed: npt.NDArray[Any] = steps.transform(X)
    return transformed


def label(steps: Sequence[str]) -> str | None:
    """Write steps as the `steps` column of results.csv does: `power+l2`; None without steps."""
    return "+".join(steps) or None


def _parse(step: str) -> tuple[StepSpec, Any]:
    name, colon, text = step.partition(":")
    if name not in STEPS:
        raise unknown("step", name, STEPS)
    spec = STEPS[name]
    if spec.argument is None:
        if colon:
            raise UsageError(f"the step {step!r} takes nothing after its name; write {name!r}")
        return spec, None
    try:
        number = int(text) if text.isdecimal() else float(text)
    except ValueError:
        number = 0
    if not (number >= 1 if isinstance(number, int) else 0 < number < 1):
        raise UsageError(f"the step {step!r} needs {spec.argument}, as in {name}:128 or {name}:0.95")
    return spec, number
