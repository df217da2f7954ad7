"""Features of images as a transformer of scikit-learn's.

    extractor = featbench.FeatureExtractor("resnet18", layers=["layer3", "penultimate"])
    model = make_pipeline(extractor, StandardScaler(), LinearSVC())
    cross_val_score(model, paths, labels)

The numbers are those that `featbench extract` writes into its cache, bit by bit in float32, where the same images come
in the same order and in batches of the same size.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from featbench.backbones.device import resolve_device
from featbench.backbones.identity import Layers
from featbench.backbones.load import Backbone, check_backbone, load_backbone
from featbench.config import BackboneConfig, backbone_config
from featbench.data.given import as_rows
from featbench.data.images import ArrayImages
from featbench.data.loader import image_shape
from featbench.data.splits import Split
from featbench.errors import DataError, UsageError, WeightsError
from featbench.features.cache import as_stored
from featbench.features.extraction import check_layers, plan_extraction
from featbench.features.passes import Pass, Passes
from featbench.progress import Silent


class FeatureExtractor(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Computes features of images with a pretrained network: N images to (N, D) float32.

    Images are a list of paths, PIL images, arrays or the bytes of files; or an array (N, H, W) or (N, H, W, 1 or 3), or
    a tensor (N, H, W) or (N, 1 or 3, H, W), of uint8, or of floats from 0 to 1 that are not standardised. Nothing is
    learned from them: `fit` checks the arguments and loads the network, so that a wrong one is an error there. Whoever
    fits many models on one set of images saves time with `Pipeline(memory=...)`, or with features that were computed
    before.

    Args:
        backbone: A name that `featbench list backbones` prints.
        weights: A name, "random", or a file of weights; None is the network's default.
        layers: One name or several, as `featbench list layers NAME` prints them; features stand side by side.
        pooling: How a layer's output becomes a row: "avg", "max", "avg:K" (a KxK grid), "flatten", "cls", "tokens", ...
        image_size: Of the images after they are resized and cropped, in px; None is the weights' own.
        precision: "auto", "float32" or "bfloat16"; "auto" is bfloat16 where the hardware has it.
        batch_size: Images in a forward pass; None chooses by their size.
        device: "auto", "cpu", "cuda" or "cuda:N".
        seed: Draws the weights where they are random.
        offline: Forbid downloads.

    Attributes:
        layers_: The layers, patterns and "blocks" replaced by what they stand for.
        widths_: The number of features of each.
        n_features_out_: D, their sum.
        image_shape_: (channels, height, width) of what the network sees.
        weights_hash_: Of every tensor of the network.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        *,
        weights: str | os.PathLike[str] | None = None,
        layers: str | Sequence[str] = ("penultimate",),
        pooling: str = "avg",
        image_size: int | None = None,
        precision: str = "auto",
        batch_size: int | None = None,
        device: str = "auto",
        seed: int = 0,
        offline: bool = False,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.layers = layers
        self.pooling = pooling
        self.image_size = image_size
        self.precision = precision
        self.batch_size = batch_size
        self.device = device
        self.seed = seed
        self.offline = offline

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the arguments and load the network.

        Args:
            X: Images, of which at least one.
            y: Has no effect.

        Raises:
            UsageError: An argument is wrong, or X is no images.
            WeightsError: Weights are missing, or do not fit the network.
        """
        split = as_rows(X)
        if not len(split):
            raise UsageError("there are no images to fit on; give at least one")
        self._channels = split.images.pixels.shape[3] if isinstance(split.images, ArrayImages) else 3
        backbone = self._load()
        self.weights_hash_ = backbone.weights_hash()
        self.image_shape_ = image_shape(split, backbone.preprocess)
        self._passes = self._prepare(backbone, split)
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Compute the features (N, D) of N images; row i is that of image i.

        Raises:
            UsageError: X is no images.
            DataError: An image cannot be read; the message names it.
            WeightsError: This is a copy from a file, and its weights are missing here, or are not those of `fit`.
            CacheError: A feature is not a finite number.
        """
        check_is_fitted(self)
        split = as_rows(X)
        features = np.empty((len(split), self.n_features_out_), np.float32)
        if not len(split):
            return features
        shape = image_shape(split, self._preprocess)
        if shape != self.image_shape_:
            raise UsageError(
                f"images were {_shown(self.image_shape_)} at fit and are {_shown(shape)} now, and {self.backbone} "
                "takes them as they are; give all in one size"
            )
        self._passes = self._passes or self._prepare(self._load_again(), split)
        for batch, (outputs,) in self._passes.stream(split, Silent()):
            if batch.skipped:
                raise DataError(f"{batch.skipped[0].id} cannot be read: {batch.skipped[0].reason}")
            columns = [as_stored(layer, outputs[layer], "float32") for layer in self.layers_]
            features[batch.rows] = np.concatenate(columns, axis=1)
        return features

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Return the names of the D features, as in `layer3_0`; `input_features` has no effect."""
        check_is_fitted(self)
        pairs = zip(self.layers_, self.widths_, strict=True)
        return np.array([f"{layer}_{number}" for layer, width in pairs for number in range(width)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.no_validation = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return (
            state | {"_passes": None} if "_passes" in state else state
        )  # the network is loaded again where it is used

    def _config(self) -> BackboneConfig:
        name: Any = self.backbone
        if not isinstance(name, str):
            raise UsageError(f"backbone = {name!r}: give a name, as `featbench list backbones` prints them")
        seed: Any = self.seed
        if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
            raise UsageError(f"seed = {seed!r}: give a whole number from 0 to 2**32 - 1")
        keys = ("weights", "layers", "pooling", "image_size", "precision", "batch_size")
        given = {"name": self.backbone, **{key: getattr(self, key) for key in keys}}
        config = backbone_config(given | {"layers": [self.layers] if isinstance(self.layers, str) else self.layers})
        check_backbone(config)
        return config

    def _load(self) -> Backbone:
        config = self._config()
        return load_backbone(config, seed=int(self.seed), offline=bool(self.offline), channels=self._channels)

    def _load_again(self) -> Backbone:
        backbone = self._load()
        if backbone.weights_hash() != self.weights_hash_:
            raise WeightsError(
                f"the weights of {self.backbone} ({backbone.source}) are not those of fit; bring those back, or fit "
                "again"
            )
        return backbone

    def _prepare(self, backbone: Backbone, split: Split) -> Passes:
        config, device = self._config(), resolve_device(self.device)
        extraction = plan_extraction(config, device, "error", Layers.of(backbone, config, self.image_shape_))
        features = check_layers(backbone, extraction, split)
        self.layers_, self.widths_, self.n_features_out_ = features.layers, features.widths, sum(features.widths)
        self._preprocess = backbone.preprocess
        only = Pass(features, backbone.preprocess, extraction.precision, self.image_shape_)
        return Passes([only], device, config.batch_size)


def _shown(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{height}x{width} of {channels} channel{'s' * (channels > 1)}"
