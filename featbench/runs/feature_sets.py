"""The feature sets that classifiers are trained on: every layer of every backbone, and fusions of several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featbench.backbones.identity import Identity
from featbench.classifiers.rows import LabelledFeatures
from featbench.errors import DataError, UsageError
from featbench.features.cache import CacheInfo, CacheKey, read_blocks, read_labels, read_layer
from featbench.features.extraction import Extraction
from featbench.fingerprint import fingerprint


@dataclass(frozen=True)
class CachedNetwork:
    """One `[[backbones]]` entry with the cache files of its splits, all complete.

    Attributes:
        identity: Of the network.
        extraction: How its features were computed.
        keys: Split -> cache file.
        infos: Split -> what that file holds.
    """

    identity: Identity
    extraction: Extraction
    keys: Mapping[str, CacheKey]
    infos: Mapping[str, CacheInfo]


@dataclass(frozen=True)
class FeatureSet:
    """Features side by side in the order named: (cache files, layer) each; one for a plain layer.

    In the columns of results.csv the parts of a fusion are joined by +, as in `layer3+penultimate`; what all parts
    have in common stands once.
    """

    parts: tuple[tuple[CachedNetwork, str], ...]

    @property
    def splits(self) -> list[str]:
        """The names of the splits."""
        return list(self.parts[0][0].keys)

    @property
    def backbone(self) -> str:
        """Value of results.csv's `backbone`."""
        return _joined([cached.identity.name for cached, _ in self.parts])

    @property
    def weights(self) -> str:
        """Value of results.csv's `weights`."""
        return _joined([cached.identity.weights for cached, _ in self.parts])

    @property
    def layer(self) -> str:
        """Value of results.csv's `layer`."""
        return "+".join(layer for _, layer in self.parts)

    @property
    def pooling(self) -> str | None:
        """Value of results.csv's `pooling`."""
        poolings = [cached.extraction.pooling_of(layer) for cached, layer in self.parts]
        return None if poolings == [None] * len(poolings) else _joined([pooling or "none" for pooling in poolings])

    @property
    def precision(self) -> str:
        """Value of results.csv's `precision`."""
        return _joined([cached.extraction.precision for cached, _ in self.parts])

    @property
    def extract_s(self) -> float:
        """Seconds of extraction; layers of one backbone that came out of one pass count once."""
        passes = {
            (key.fingerprint, cached.infos[name].extract_s[layer])
            for cached, layer in self.parts
            for name, key in cached.keys.items()
        }
        return sum(seconds for _, seconds in sorted(passes))

    def content(self) -> dict[str, Any]:
        """Return what a row's fingerprint covers."""
        contents = [
            {"features": {name: key.fingerprint for name, key in cached.keys.items()}, "layer": layer}
            for cached, layer in self.parts
        ]
        return contents[0] if len(contents) == 1 else {"fusion": contents}

    def fingerprint(self, split: str) -> str:
        """Return what tells the features of a split from all others: of a plain layer, its cache file's fingerprint."""
        parts = [(cached.keys[split].fingerprint, layer) for cached, layer in self.parts]
        return parts[0][0] if len(parts) == 1 else fingerprint({"fusion": parts})

    def card(self) -> dict[str, Any]:
        """Return the fields of a `Card` that say what features a model is made of."""
        first, *others = (_part(cached, layer) for cached, layer in self.parts)
        return first | {"fused_with": others}

    @property
    def width(self) -> int:
        """The number of features."""
        return sum(cached.infos[self.splits[0]].widths[layer] for cached, layer in self.parts)

    def n_rows(self, split: str) -> int:
        """Return the number of images of a split."""
        return self.parts[0][0].infos[split].n_rows

    def labels(self, split: str) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Read the labels (N,) and the ids of a split.

        Raises:
            DataError: The parts of a fusion hold different images.
        """
        y, ids = read_labels(self.parts[0][0].keys[split].path)
        for cached, _ in self.parts[1:]:
            if read_labels(cached.keys[split].path)[1] != ids:
                raise DataError(
                    f"the features of {self.backbone} cannot be put side by side: an image of {split} was left out "
                    'by one backbone and not by the other; set dataset.on_bad_image = "error" to find it'
                )
        return y, ids

    def load(self, split: str) -> LabelledFeatures:
        """Read the features of a split.

        Raises:
            DataError: The parts of a fusion hold different images.
        """
        y, ids = self.labels(split)
        columns = [read_layer(cached.keys[split].path, layer)[0] for cached, layer in self.parts]
        return LabelledFeatures(columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1), y, tuple(ids))

    def blocks(self, split: str, block_rows: int) -> Iterator[npt.NDArray[Any]]:
        """Read the features of a split in blocks of rows, so that no more than one is held."""
        parts = [read_blocks(cached.keys[split].path, layer, block_rows) for cached, layer in self.parts]
        for columns in zip(*parts, strict=True):
            yield columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)


def feature_sets(cached: Sequence[CachedNetwork], fusions: Sequence[Sequence[str]]) -> list[FeatureSet]:
    """List the feature sets of an experiment.

    Args:
        cached: Its backbones.
        fusions: Lists of BACKBONE/LAYER.

    Raises:
        UsageError: A fusion names a layer that is not extracted.
    """
    single = [FeatureSet(((entry, layer),)) for entry in cached for layer in entry.extraction.layers]
    by_name = {f"{source.backbone}/{source.layer}": source.parts[0] for source in single}
    fused = []
    for fusion in fusions:
        missing = [part for part in fusion if part not in by_name]
        if missing:
            raise UsageError(
                f"evaluate.fusions names {missing[0]!r}, which is not extracted; add the layer to [[backbones]]. "
                f"There are: {', '.join(by_name)}."
            )
        fused.append(FeatureSet(tuple(by_name[part] for part in fusion)))
    return single + fused


def _part(cached: CachedNetwork, layer: str) -> dict[str, Any]:
    return {
        "backbone": cached.identity.name,
        "weights": cached.identity.source,
        "weights_hash": cached.identity.weights_hash,
        "preprocess": cached.identity.preprocess.content(),
        "layer": layer,
        "pooling": cached.extraction.pooling_of(layer),
        "precision": cached.extraction.precision,
        "store": cached.extraction.store,
    }


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(set(names)) == 1 else "+".join(names)
