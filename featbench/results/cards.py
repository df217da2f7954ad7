"""The card beside each kept model: all that is needed to use it on new images, as JSON.

The card has a hash of itself, and one of the model's file. They tell of damage and of changes by hand; they are no
signature, since whoever can write the folder can write both. Loading is safe all the same: it executes no code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from featbench.errors import ResultsError
from featbench.fingerprint import fingerprint, hash_file
from featbench.results.files import write_text
from featbench.results.row import Row
from featbench.results.store import artifact_path, find_artifact

MODELS = "models"
SUFFIXES = {"classifier": ".skops", "baseline": ".safetensors"}
_OWN_HASH = "card_hash"
_OF_THE_ROW = ("fingerprint", "kind", "method", "backbone", "layer", "pooling", "precision")
AGAIN = "run the experiment again with another --results folder (features are reused)"


class Part(BaseModel):
    """What features come from: a layer of a backbone. A network that was trained has no layer.

    Attributes:
        backbone: Name of the network.
        weights: Those that the backbone started from: a name, "random", "none", or the path of a file.
        weights_hash: Of the backbone's tensors, see `Backbone.weights_hash`; None where the model's file has them all.
        preprocess: What images go through, as `Preprocess.content` gives it.
        layer: Name of the layer.
        pooling: How its output becomes a row; None for pixels.
        precision: Of the forward pass.
        store: What features are rounded to before the classifier sees them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str
    weights: str
    weights_hash: str | None
    preprocess: dict[str, Any]
    layer: str | None = None
    pooling: str | None = None
    precision: Literal["float32", "bfloat16"]
    store: Literal["float32", "float16"] = "float32"


class Card(Part):
    """What a kept model was made of; of a fusion, `backbone` and what is like it are those of its first layer.

    Attributes:
        format: Of the card.
        fingerprint: Of its row in results.csv.
        kind: Of its row, as `method`.
        classes: Names, in the order of its scores.
        seed: Draws the backbone's weights where they are random.
        array_shape: (height, width, channels) of the training images where all had one; None where they were files.
        fused_with: The other layers of a fusion, in the order of their features.
        temperature: Decision values divided by it become probabilities by a softmax; None where nothing is divided.
        recipe: How a network was trained.
        sha256: Of the bytes of the model's file.
    """

    format: Literal[1] = 1
    fingerprint: str
    kind: Literal["classifier", "baseline"]
    method: str
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    seed: int
    array_shape: tuple[int, int, int] | None
    fused_with: tuple[Part, ...] = ()
    temperature: Annotated[float, Field(gt=0)] | None = None
    recipe: dict[str, Any] | None = None
    sha256: str

    @property
    def parts(self) -> tuple[Card, ...]:
        """A card for each layer, as if it were alone; only a fusion has several."""
        alone = self.model_copy(update={"fused_with": ()})
        return (alone, *(alone.model_copy(update=dict(part)) for part in self.fused_with))


def write_card(folder: Path, row: Row, **content: Any) -> Path:
    """Write the card of a row's model, which is in models/ already.

    Args:
        folder: The results folder.
        row: The model's row.
        content: The fields of `Card` that neither the row nor the file says; what it says of the row's, counts.

    Raises:
        ResultsError: The card cannot be written.
    """
    of_the_row = {name: getattr(row, name) for name in _OF_THE_ROW}
    sha256 = hash_file(artifact_path(folder, MODELS, row, SUFFIXES[row.kind]))
    card = Card.model_validate({**of_the_row, **content, "sha256": sha256}).model_dump(mode="json")
    path = artifact_path(folder, MODELS, row, ".json")
    card |= {_OWN_HASH: fingerprint(card)}
    write_text(path, json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return path


def read_card(folder: Path, fingerprint_: str) -> tuple[Card, Path]:
    """Read the card of the row with this fingerprint, and check it and the model's file against their hashes.

    Returns:
        The card, and the model's file.

    Raises:
        ResultsError: One is missing, was changed since it was written, or is of another version.
    """
    if not list((folder / MODELS).glob(f"*-{fingerprint_}.json")):
        raise ResultsError(
            f"the model {fingerprint_} has no card in {folder / MODELS}: an older version made it, files were removed, "
            f"or it could not be kept; take another with --model (`featbench list models {folder}` prints those that "
            f"can be used), or {AGAIN}"
        )
    path = find_artifact(folder, MODELS, fingerprint_, ".json")
    try:
        content = json.loads(path.read_text("utf-8"))
        own_hash = content.pop(_OWN_HASH)
    except (ValueError, KeyError, AttributeError, TypeError, OSError) as error:
        raise ResultsError(f"{path} is damaged, or an older version wrote it; {AGAIN}") from error
    if fingerprint(content) != own_hash:
        raise ResultsError(f"{path} was changed after it was written, and is not used; restore it, or {AGAIN}")
    try:
        card = Card.model_validate(content)
    except ValidationError as error:
        raise ResultsError(f"{path} is of another version of featbench; use that one, or {AGAIN}") from error
    file = find_artifact(folder, MODELS, card.fingerprint, SUFFIXES[card.kind])
    if hash_file(file) != card.sha256:
        raise ResultsError(f"{file} was changed after it was written, and is not loaded; restore it, or {AGAIN}")
    return card, file
