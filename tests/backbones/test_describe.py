from __future__ import annotations

import pytest
import torch
from torchvision import models

from featbench.backbones.architectures import get_architecture
from featbench.backbones.describe import Layer, describe_backbone, describe_layers, outline
from featbench.backbones.shapes import count_multiply_adds
from featbench.backbones.tracing import trace
from featbench.errors import UsageError
from tests.families import FAMILIES, features, images


def by_name(layers: list[Layer]) -> dict[str, Layer]:
    return {layer.name: layer for layer in layers}


@pytest.mark.parametrize("name", FAMILIES)
def test_multiply_adds_are_those_that_torchvision_publishes(name: str) -> None:
    weights = models.get_model_weights(name).DEFAULT
    size_px = weights.transforms().crop_size[0]
    counted = count_multiply_adds(outline(get_architecture(name), size_px), (3, size_px, size_px))
    assert sum(counted.values()) / 1e9 == pytest.approx(weights.meta["_ops"], rel=2e-3, abs=1e-3)


def test_layers_of_squeezenet() -> None:
    network = models.squeezenet1_1(num_classes=5).eval()
    layers = describe_layers(trace(network), (3, 64, 64), "avg:2")
    described = by_name(layers)
    assert described["features.0"].shape == (64, 31, 31)
    assert described["features.5"].shape == (128, 7, 7)
    assert described["penultimate"].shape == (512, 3, 3)
    assert described["penultimate"].width == 512 * 4
    assert described["classifier"].shape == (5, 1, 1)
    assert described["classifier"].width is None  # one cell has no 2x2 grid
    names = list(described)
    assert len(names) == len(layers)
    assert names.index("features.0") < names.index("penultimate") < names.index("classifier.1")
    assert [layer.name for layer in layers if layer.is_block] == [f"features.{i}" for i in (3, 4, 6, 7, 9, 10, 11, 12)]
    shares = [layer.compute for layer in layers]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    got = features(network, names, images(64), "flatten")
    for layer, rows in zip(layers, got, strict=True):
        assert rows.shape == (2, torch.Size(layer.shape).numel()), layer.name


def test_the_compute_of_a_small_network_by_arithmetic() -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 64, 10)
    )
    described = by_name(describe_layers(trace(network), (3, 8, 8), "avg"))
    convolution, linear = 64 * 4 * 3 * 9, 4 * 64 * 10
    assert described["0"].compute == described["penultimate"].compute == convolution / (convolution + linear)
    assert described["3"].compute == 1


@pytest.mark.parametrize(("name", "size_px"), [("vit_h_14", 518), ("resnet20", 32), ("regnet_y_400mf", 224)])
def test_backbones_are_described_at_their_own_size(name: str, size_px: int) -> None:
    first = describe_backbone(name, "avg")[0]
    assert first.shape[-1] * {"vit_h_14": 14, "regnet_y_400mf": 2}.get(name, 1) == size_px


def test_another_size_and_another_pooling() -> None:
    described = by_name(describe_backbone("vit_b_16", "cls", 64))
    assert described["encoder.ln"].shape == (17, 768)
    assert described["encoder.ln"].width == 768
    assert described["penultimate"].width == 768  # a vector, which stays as it is
    with pytest.raises(UsageError, match="unknown pooling 'cl'"):
        describe_backbone("vit_b_16", "cl")
    with pytest.raises(UsageError, match="cannot take images of 8x8 px"):
        describe_backbone("squeezenet1_1", "avg", 8)
