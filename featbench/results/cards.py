"""The card beside each kept model: all that is needed to use it on new images, as JSON.

The card has a hash of itself, and one of the model's file. They show damage and changes by hand; they are no signature,
since whoever can write the folder can write both. So every field of a card is checked before it is used, and no card
leads to an import: one whose network is somebody's own code (`python:module:factory`) is refused until the caller
allows by `trust` that this code runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from featbench.errors import ResultsError, UsageError
from featbench.factories import PREFIX
from featbench.fingerprint import fingerprint, hash_file
from featbench.results.artifacts import artifact_path, find_artifact, has_artifact
from featbench.results.files import read_limited, write_text
from featbench.results.row import Row

MODELS = "models"
SUFFIXES = {"classifier": ".skops", "baseline": ".safetensors"}
_OWN_HASH = "card_hash"
_ROW_FIELDS = ("fingerprint", "kind", "method", "backbone", "layer", "pooling", "precision")
_MAX_BYTES = 2**24  # a card takes a kilobyte, and some bytes for each class
RUN_AGAIN = "run the experiment again with another --results folder (features are reused)"


def _printable(text: str) -> str:
    """Refuse control characters, which no name of a network, a layer or a file has."""
    if any(ord(character) < 32 for character in text):
        raise ValueError("it holds control characters")
    return text


def _local_path(text: str) -> str:
    """Refuse a path on another machine: Windows logs in there just to look whether it exists."""
    if text.startswith(("\\\\", "//")):
        raise ValueError("it names another machine")
    return text


Name = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_printable)]
ClassName = Annotated[str, Field(max_length=10_000)]
Hash = Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{1,64}$")]
Place = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_printable), AfterValidator(_local_path)]
SizePx = Annotated[int, Field(ge=1, le=4096)]
_CONFIG = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Preprocessing(BaseModel):
    """How images are preprocessed, as `Preprocess.content` gives it."""

    model_config = _CONFIG

    resize_px: Annotated[int, Field(ge=1)]
    crop_px: SizePx
    mean: tuple[Annotated[float, Field(ge=-1e4, le=1e4)], ...]
    std: tuple[Annotated[float, Field(ge=1e-6, le=1e6)], ...]
    interpolation: Literal["bilinear", "bicubic"]
    antialias: bool
    native_arrays: bool

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.mean) not in (0, 1, 3) or len(self.std) != len(self.mean):
            raise ValueError("mean and std have a number for each of 1 or 3 channels, or none")
        if self.resize_px > 2 * self.crop_px:
            raise ValueError("resize_px is more than twice crop_px")
        return self


class Part(BaseModel):
    """Where features come from: a layer of a backbone. A reference network has no layer.

    Attributes:
        backbone: Name of the network.
        weights: What the backbone started from: a name, "random", "none", or the path of a file.
        weights_hash: Of the backbone's tensors, see `Backbone.weights_hash`; None where the model's file has them all.
        preprocess: How its images are preprocessed.
        layer: Name of the layer.
        pooling: How its output becomes a row; None for pixels.
        precision: Of the forward pass.
        store: Type that features are rounded to before the classifier sees them.
    """

    model_config = _CONFIG

    backbone: Name
    weights: Place
    weights_hash: Hash | None
    preprocess: Preprocessing
    layer: Name | None = None
    pooling: Name | None = None
    precision: Literal["float32", "bfloat16"]
    store: Literal["float32", "float16"] = "float32"

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if self.backbone == "pixels" and self.weights != "none":
            raise ValueError("pixels have no weights")
        return self


class Card(Part):
    """What a kept model was made of; of a fusion, the fields of `Part` are those of its first layer.

    Attributes:
        format: Of the card.
        fingerprint: Of its row in results.csv.
        kind: Of its row; so is `method`.
        classes: Names, in the order of its scores.
        seed: Draws the backbone's weights where they are random.
        array_shape: (height, width, channels) of the training images where all had one; None where they were files.
        fused_with: The other layers of a fusion, in the order of their features.
        temperature: The softmax of decision values divided by it gives probabilities; None for a model that gives
            probabilities itself, or none.
        recipe: How a network was trained.
        sha256: Of the bytes of the model's file.
    """

    format: Literal[1] = 1
    fingerprint: Hash
    kind: Literal["classifier", "baseline"]
    method: Name
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    array_shape: tuple[SizePx, SizePx, Literal[1, 3]] | None
    fused_with: Annotated[tuple[Part, ...], Field(max_length=1000)] = ()
    temperature: Annotated[float, Field(ge=1e-30, le=1e30)] | None = None
    recipe: dict[str, Any] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @property
    def parts(self) -> tuple[Card, ...]:
        """A card for each layer by itself; only a fusion has several."""
        alone = self.model_copy(update={"fused_with": ()})
        return (alone, *(alone.model_copy(update=dict(part)) for part in self.fused_with))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("two classes have one name")
        if self.kind == "classifier" and any(each.layer is None or each.weights_hash is None for each in self.parts):
            raise ValueError("a classifier is of a layer of weights that are known by their hash")
        if self.kind == "baseline" and self.fused_with:
            raise ValueError("a network is of one backbone")
        return self


def write_card(folder: Path, row: Row, **content: Any) -> Path:
    """Write the card of a row's model, which is in models/ already; `content` are the fields that no row has.

    Raises:
        ResultsError: The card cannot be written.
    """
    row_fields = {name: getattr(row, name) for name in _ROW_FIELDS}
    sha256 = hash_file(artifact_path(folder, MODELS, row, SUFFIXES[row.kind]))
    card = Card.model_validate({**row_fields, **content, "sha256": sha256}).model_dump(mode="json")
    path = artifact_path(folder, MODELS, row, ".json")
    card |= {_OWN_HASH: fingerprint(card)}
    write_text(path, json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return path


def read_card(folder: Path, fingerprint_: str, trust: Sequence[str] = ()) -> tuple[Card, Path]:
    """Read the card of the row with this fingerprint, and check it and the model's file against their hashes.

    Args:
        folder: The results folder.
        fingerprint_: Of the row.
        trust: Names of networks, as in "python:my_networks:make", whose code may be imported and run.

    Returns:
        The card, and the model's file.

    Raises:
        UsageError: The card names code that is not in `trust`, or `trust` holds something else than such names.
        ResultsError: The card or the file is missing, was changed since it was written, or is of another version.
    """
    _check_trust(trust)
    if not has_artifact(folder, MODELS, fingerprint_, ".json"):
        raise ResultsError(
            f"the model {fingerprint_} has no card in {folder / MODELS}: an older version made it, files were removed, "
            f"or it could not be kept; take another with --model (`featbench list models {folder}` prints those that "
            f"can be used), or {RUN_AGAIN}"
        )
    path = find_artifact(folder, MODELS, fingerprint_, ".json")
    try:
        content = _parse(read_limited(path, _MAX_BYTES))
        own_hash = content.pop(_OWN_HASH)
        real_hash = fingerprint(content)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError, OSError) as error:
        raise ResultsError(f"{path} is damaged, or an older version wrote it; {RUN_AGAIN}") from error
    if real_hash != own_hash:
        raise ResultsError(f"{path} was changed after it was written, and is not used; restore it, or {RUN_AGAIN}")
    try:
        card = Card.model_validate(content)
    except (ValidationError, RecursionError) as error:
        why = _first_problem(error) if isinstance(error, ValidationError) else "it is nested too deep"
        raise ResultsError(
            f"{path} is of another version of featbench ({why}); use that one, or {RUN_AGAIN}"
        ) from error
    if card.fingerprint != fingerprint_:
        raise ResultsError(f"{path} is the card of {card.fingerprint} by what is in it; restore it, or {RUN_AGAIN}")
    _check_code(card, path, trust)
    file = find_artifact(folder, MODELS, card.fingerprint, SUFFIXES[card.kind])
    if hash_file(file) != card.sha256:
        raise ResultsError(f"{file} was changed after it was written, and is not loaded; restore it, or {RUN_AGAIN}")
    return card, file


def _check_trust(trust: Sequence[str]) -> None:
    wrong = trust if isinstance(trust, str) else next((name for name in trust if not name.startswith(PREFIX)), None)
    if wrong is not None:
        raise UsageError(
            f"trust is for code of somebody's own, as in --trust {PREFIX}my_networks:make, or in Python "
            f'trust=["{PREFIX}my_networks:make"]; it got {wrong!r}'
        )


def _check_code(card: Card, path: Path, trust: Sequence[str]) -> None:
    """Refuse a network whose code would be imported, unless the caller trusts it.

    Raises:
        UsageError: There is one that is not in `trust`.
    """
    for part in card.parts:
        if part.backbone.startswith(PREFIX) and part.backbone not in trust:
            raise UsageError(
                f"{path} names the network {part.backbone!r}, which is code that would be imported, from the current "
                "folder first, and run; if you know that code and trust it, say so with "
                f"--trust {part.backbone} (in Python trust=[{part.backbone!r}])"
            )


def _parse(text: bytes) -> dict[str, Any]:
    """Parse JSON; a key that is there twice, NaN and infinity are refused."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key is there twice")
        return dict(pairs)

    content: dict[str, Any] = json.loads(text.decode("utf-8"), object_pairs_hook=once, parse_constant=refuse)
    return content


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))[:80]
    return f"{place}: {first['msg']}" if place else first["msg"]
