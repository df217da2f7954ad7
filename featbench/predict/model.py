"""A kept model, ready for new images.

    model = featbench.load_model("results/pets")
    model.predict(["cat.jpg", "dog.jpg"])      # ["cat", "dog"]
    model.predict_proba("cat.jpg")             # (1, n_classes) float64

The networks, the layers, the preprocessing and the precision are those of the training, from the model's card.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import softmax
from sklearn.pipeline import Pipeline

from featbench.backbones.device import resolve_device
from featbench.backbones.tracing import PENULTIMATE
from featbench.classifiers.fit_and_test import class_scores
from featbench.classifiers.registry import n_trees
from featbench.classifiers.saved_models import load_model as load_classifier
from featbench.classifiers.skops_file import Limits
from featbench.data.given import ImageLike, as_split
from featbench.data.splits import Skipped, Split
from featbench.errors import DataError, ResultsError, UsageError, unknown
from featbench.features.cache import as_stored
from featbench.features.forward import Outputs
from featbench.features.passes import Pass, Passes
from featbench.predict.choose import choose_model
from featbench.predict.from_card import (
    card_preprocess,
    logits_network,
    make_passes,
    read_head,
    read_tensors,
    trained_backbone,
    trained_network,
)
from featbench.progress import Progress, Silent
from featbench.results.cards import RUN_AGAIN, Card, read_card
from featbench.results.store import load_results

Scores = npt.NDArray[np.float64]
Images = ImageLike | Iterable[ImageLike]
Gives = Literal["probability", "calibrated probability", "score"]


@dataclass(frozen=True, eq=False)
class Scored:
    """A batch of scored images: `rows` (B,) int64 of those given, ascending; `scores` (B, K); skipped images."""

    rows: npt.NDArray[np.int64]
    scores: Scores
    skipped: tuple[Skipped, ...]


class Model:
    """A kept model.

    Images are paths (str or Path), the bytes of a file, files open in binary mode (read from where they stand), PIL
    images, uint8 arrays (H, W), (H, W, 1) or (H, W, 3), or uint8 tensors (1, H, W) or (3, H, W), alone or in a
    sequence, or many of one size as an array (N, H, W, 1 or 3) or a tensor (N, 1 or 3, H, W), or an array of paths
    (N,). Instead of uint8, uint16, of which the upper 8 bits are taken as of files, or floats from 0 to 1 as
    torchvision's `ToTensor` gives them, not standardised. Every method takes one image or many, and returns as many
    rows.

    Attributes:
        name: `method/backbone/layer`.
        classes: K names, in the order of the columns.
        classes_: The same as an array (K,) of str, as scikit-learn's classifiers have it.
        gives: What `probabilities` returns: the method's own, calibrated ones, or scores.
        card: What it was made of.
    """

    def __init__(
        self,
        name: str,
        card: Card,
        passes: Passes,
        score_outputs: Callable[[Sequence[Outputs]], Scores],
        *,
        gives: Gives,
    ) -> None:
        self.name = name
        self.card = card
        self.classes = card.classes
        self.classes_ = np.array(card.classes)
        self.gives: Gives = gives
        self._passes = passes
        self._score_outputs = score_outputs

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self.classes)} classes>"

    def predict(self, images: Images) -> list[str]:
        """Return the class of each image.

        Raises:
            UsageError: Something is no image, or has a wrong shape, dtype or range.
            DataError: A file cannot be read.
        """
        return [self.classes[index] for index in self.scores(images).argmax(axis=1)]

    def score(self, images: Images, labels: Sequence[object]) -> float:
        """Return the accuracy on labelled images, in [0, 1].

        Args:
            images: N images.
            labels: N names of classes.

        Raises:
            UsageError: As `predict`; or there are no images, another number of labels, or a label is none of `classes`.
            DataError: A file cannot be read.
        """
        predicted = self.predict(images)
        names = [str(label) for label in ([labels] if isinstance(labels, str) else labels)]
        if len(names) != len(predicted) or not names:
            raise UsageError(f"there are {len(predicted)} images and {len(names)} labels; give as many, one at least")
        for name in dict.fromkeys(names):
            if name not in self.classes:
                raise unknown("class", name, self.classes)
        return float(np.mean([name == found for name, found in zip(names, predicted, strict=True)]))

    def predict_proba(self, images: Images) -> Scores:
        """Return the probabilities of the classes, (N, K) float64; the highest is the class that `predict` returns.

        Raises:
            UsageError: As `predict`, or the model gives no probabilities.
            DataError: A file cannot be read.
        """
        if self.gives == "score":
            raise UsageError(f"{self.name} gives no probabilities, only scores: use `scores`, or another model")
        return self.probabilities(self.scores(images))

    def scores(self, images: Images) -> Scores:
        """Return probabilities or decision values, (N, K) float64, as predictions/ has them of the test images.

        A class that was not trained has probability 0, or -inf.

        Raises:
            UsageError: Something is no image, or has a wrong shape, dtype or range.
            DataError: A file cannot be read.
        """
        parts = [np.empty((0, len(self.classes)))]
        for batch in self.stream(as_split(images)):
            if batch.skipped:
                raise DataError(f"{batch.skipped[0].id} cannot be read: {batch.skipped[0].reason}")
            parts.append(batch.scores)
        return np.concatenate(parts)

    def probabilities(self, scores: Scores) -> Scores:
        """Turn (N, K) scores into probabilities where the model has any, else return them as they are."""
        return scores if self.card.temperature is None else softmax(scores / self.card.temperature, axis=1)

    def stream(self, images: Split, progress: Progress | None = None) -> Iterator[Scored]:
        """Score images batch by batch; what was scored is not kept.

        Args:
            images: As `as_split` makes it; its labels are of no meaning.
            progress: Takes messages.

        Raises:
            ResultsError: The model gives no numbers.
        """
        if not len(images):
            return
        for batch, outputs in self._passes.stream(images, progress or Silent()):
            scores = self._score_outputs(outputs) if len(batch.rows) else np.empty((0, len(self.classes)))
            if np.isnan(scores).any():
                raise ResultsError(
                    f"{self.name} gives no numbers for {images.ids[batch.rows[0]]}: its training diverged, or its file "
                    f"is not one that featbench wrote; {RUN_AGAIN}"
                )
            yield Scored(batch.rows, scores, batch.skipped)


def load_model(
    results: str | Path,
    model: str | None = None,
    *,
    device: str = "auto",
    offline: bool = False,
    trust: Sequence[str] = (),
) -> Model:
    """Load a kept model of a results folder: hashes and numbers are checked, and no code that it names is executed.

    Args:
        results: The results folder.
        model: A name, as in "linear_svc/resnet18/layer3", or a fingerprint of results.csv; None takes the classifier
            with the highest validation accuracy, which the accuracy table marks. `featbench list models RESULTS`
            prints the names.
        device: "auto", "cpu", "cuda" or "cuda:N".
        offline: Forbid downloads of the backbone's weights.
        trust: Names of the user's own networks or classifiers, as in "python:my_networks:make", that the folder may
            name: the module is imported, from the current folder first, and run.

    Raises:
        UsageError: There is no such model or device, or the model is of code that is not in `trust`.
        ResultsError: The model, its card or results.csv is missing, damaged, or was changed.
        WeightsError: The backbone's weights are missing, or are not those of the training.
    """
    folder, where = Path(results), resolve_device(device)
    fingerprint, name = choose_model(folder, model)
    card, file = read_card(folder, fingerprint, trust)
    n_classes = len(card.classes)
    gives: Gives = "probability"
    if card.kind == "classifier":
        passes, places = make_passes(folder, card, offline=offline)
        results_csv = load_results(folder)
        row = results_csv[results_csv["fingerprint"] == fingerprint].iloc[0]
        n_features = sum(sum(each.features.widths) for each in passes)
        limit = n_trees(card.method, json.loads(row["params"]), n_classes)
        limits = Limits(n_features, n_classes, int(row["n_train"]), limit)
        classifier = load_classifier(file, card, limits, trust)
        if not hasattr(classifier, "predict_proba"):
            gives = "score" if card.temperature is None else "calibrated probability"

        def score(outputs: Sequence[Outputs]) -> Scores:
            layers = [
                as_stored(str(part.layer), outputs[place][str(part.layer)], part.store).astype(np.float32, copy=False)
                for part, place in zip(card.parts, places, strict=True)
            ]
            return _class_scores(
                classifier, layers[0] if len(layers) == 1 else np.concatenate(layers, axis=1), card, file
            )

        return Model(name, card, Passes(passes, where), score, gives=gives)

    preprocess = card_preprocess(card)
    if card.weights_hash is not None:  # a head alone, on the backbone as it was
        backbone = trained_backbone(folder, card, offline=offline)
        features = backbone.features([PENULTIMATE], "avg", preprocess.photo_shape)
        head = read_head(file, n_classes, features.widths[0])
        weight, bias = (tensor.double().numpy() for tensor in head)

        def score(outputs: Sequence[Outputs]) -> Scores:
            (rows,) = outputs[0].values()
            return np.asarray(softmax(rows @ weight.T + bias, axis=1))

    else:
        features = logits_network(trained_network(card, read_tensors(file), file), n_classes)

        def score(outputs: Sequence[Outputs]) -> Scores:
            (rows,) = outputs[0].values()
            return np.asarray(softmax(rows.astype(np.float64), axis=1))

    only = Pass(features, preprocess, card.precision, preprocess.photo_shape)
    return Model(name, card, Passes([only], where), score, gives=gives)


def _class_scores(classifier: Pipeline, rows: npt.NDArray[np.float32], card: Card, file: Path) -> Scores:
    """Score rows with a classifier from a file that may not be trustworthy.

    Raises:
        ResultsError: They are too large or too small to compute with, or a classifier of the user's own does not fit
            the features.
    """
    try:
        with np.errstate(all="ignore"):
            return class_scores(classifier, rows, len(card.classes))
    except (ValueError, IndexError) as error:  # scikit-learn's, of infinite values between two steps
        raise ResultsError(f"{file} does not fit the features that its card names: {error}; {RUN_AGAIN}") from error
