"""Which weights and layers a `[[backbones]]` entry has, remembered so that no network is built to look them up.

Weights count as unchanged while their file is (see `featbench.data.hashes`); random weights while the seed and the
libraries are. Networks whose code may change under the same name (`python:`, timm's) are built each time.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import torch

import featbench
from featbench.backbones.architectures import get_architecture
from featbench.backbones.load import Backbone, load_backbone, weights_file
from featbench.config import BackboneConfig
from featbench.data.hashes import SETTLED_NS, file_stamp
from featbench.data.loader import image_shape
from featbench.data.preprocess import Preprocess
from featbench.data.splits import Split
from featbench.fingerprint import fingerprint

Value = TypeVar("Value", bound="Identity | Layers")


@dataclass(frozen=True)
class Identity:
    """Everything about a network that its features depend on; see the fields of `Backbone`, and its weights_hash()."""

    name: str
    weights: str
    source: str
    weights_hash: str
    preprocess: Preprocess
    notes: tuple[str, ...]

    @classmethod
    def of(cls, backbone: Backbone) -> Identity:
        """Identify a network that is built."""
        weights_hash = backbone.weights_hash()
        return cls(backbone.name, backbone.weights, backbone.source, weights_hash, backbone.preprocess, backbone.notes)


@dataclass(frozen=True)
class Layers:
    """The layers of an entry by name, and the poolings that differ from `pooling`; see `Backbone.resolve`."""

    names: tuple[str, ...]
    own_poolings: Mapping[str, str | None]

    @classmethod
    def of(cls, backbone: Backbone, config: BackboneConfig, image_shape: tuple[int, int, int]) -> Layers:
        """Find the layers of an entry in its network, for images of shape (C, h, w).

        Raises:
            UsageError: A layer does not exist, or cannot be pooled so.
        """
        if config.name == "pixels":
            return cls(("pixels",), {})
        names = backbone.expand(config.layers, image_shape)
        return cls(names, backbone.resolve(names, config.pooling, image_shape))


class KnownNetworks:
    """What was found out about networks, kept in a folder of small JSON files and for the time of this process.

    Args:
        folder: One that is damaged, or cannot be written, costs time and nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        """Return what is kept under a key; None where there is nothing."""
        if key not in self._found:
            try:
                self._found[key] = json.loads((self._folder / f"{key}.json").read_text("utf-8"))
            except (OSError, ValueError, RecursionError):
                return None
        return self._found[key]

    def put(self, key: str, value: Any) -> None:
        """Keep a JSON-like value under a key."""
        self._found[key] = value
        path = self._folder / f"{key}.json"
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_text(json.dumps(value), "utf-8")
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)


@dataclass(frozen=True, eq=False)
class Network:
    """One `[[backbones]]` entry on the images of a data set; built when it is needed, and then once.

    Attributes:
        config: The entry.
        train: The training images, whose shape decides which layers there are.
        channels: Of the images, 1 or 3.
        seed: Draws the weights where they are random.
        offline: Forbids downloads.
        known: What was found out about networks before.
    """

    config: BackboneConfig
    train: Split
    channels: int
    seed: int
    offline: bool
    known: KnownNetworks

    @property
    def name(self) -> str:
        """The backbone's name."""
        return self.config.name

    @cached_property
    def backbone(self) -> Backbone:
        """The network itself.

        Raises:
            UsageError: A name is not valid.
            WeightsError: The weights are missing or do not fit.
        """
        return load_backbone(self.config, seed=self.seed, offline=self.offline, channels=self.channels)

    def weights_files(self) -> list[Path] | None:
        """List the files that its weights are read from, one at most; None where featbench does not know them."""
        architecture = get_architecture(self.config.name, self.channels)
        file = weights_file(architecture, self.config)
        return None if architecture.foreign else [] if file is None else [file]

    def release(self) -> None:
        """Let the network's memory go; it is built again where it is needed again."""
        self.__dict__.pop("backbone", None)

    @cached_property
    def identity(self) -> Identity:
        """Its weights and preprocessing; it is built where they are not known."""
        return self._remembered(self._key, _identity_from_json, lambda: Identity.of(self.backbone))

    @cached_property
    def layers(self) -> Layers:
        """Its layers; it is built where they are not known.

        Raises:
            UsageError: A layer does not exist, or cannot be pooled so.
        """
        shape = image_shape(self.train, self.identity.preprocess)
        key = self._key and fingerprint([self._key, self.config.layers, self.config.pooling, shape])
        return self._remembered(
            key,
            lambda content: Layers(tuple(content["names"]), content["own_poolings"]),
            lambda: Layers.of(self.backbone, self.config, shape),
        )

    def _remembered(self, key: str | None, from_json: Callable[[Any], Value], find: Callable[[], Value]) -> Value:
        if key is None:
            return find()
        with suppress(TypeError, KeyError, AttributeError):  # of another version, or damaged
            return from_json(self.known.get(key))
        found = find()
        self.known.put(key, asdict(found))
        return found

    @cached_property
    def _key(self) -> str | None:
        """The key of what is known of it; None where that may change without notice."""
        architecture = get_architecture(self.config.name, self.channels)
        if architecture.foreign:
            return None
        file = weights_file(architecture, self.config)
        stamp = None if file is None else file_stamp(file, time.time_ns() - SETTLED_NS)
        if file is not None and stamp is None:
            return None  # not there yet, or changed a moment ago
        versions = {"featbench": featbench.__version__, "torch": torch.__version__}
        return fingerprint(
            {
                "config": self.config.model_dump(mode="json", include={"name", "weights", "image_size"}),
                "channels": self.channels,
                "seed": self.seed,
                "file": stamp and stamp.hex(),
                "versions": versions | {"torchvision": metadata.version("torchvision")},
            }
        )


def _identity_from_json(content: Any) -> Identity:
    preprocess = content["preprocess"] | {name: tuple(content["preprocess"][name]) for name in ("mean", "std")}
    return Identity(**content | {"preprocess": Preprocess(**preprocess), "notes": tuple(content["notes"])})
