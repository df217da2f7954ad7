from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from featbench.backbones.architectures import get_architecture
from featbench.backbones.describe import outline
from featbench.backbones.expand import expand_layers
from featbench.backbones.tracing import Traced, trace
from featbench.errors import UsageError
from tests.families import FAMILIES

# by hand from the sources of the networks: what their papers and builders call stages, layers or blocks
BLOCKS: dict[str, list[str]] = {
    "alexnet": ["features.2", "features.5", "features.7", "features.9", "features.12", "classifier.3", "classifier.5"],
    "convnext_tiny": ["features.1", "features.3", "features.5", "features.7"],
    "densenet121": [f"features.denseblock{i}" for i in (1, 2, 3, 4)],
    "efficientnet_b0": [f"features.{i}" for i in range(1, 8)],
    "googlenet": [f"inception{name}" for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")],
    "inception_v3": [f"Mixed_{name}" for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")],
    "maxvit_t": ["stem", *(f"blocks.{i}" for i in range(4))],
    "mnasnet0_5": [f"layers.{i}" for i in range(8, 14)],
    "mobilenet_v2": [f"features.{i}" for i in range(1, 18, 2)],  # 17 of them, so every second
    "mobilenet_v3_small": [f"features.{i}" for i in range(1, 12)],
    "regnet_x_400mf": [f"trunk_output.block{i}" for i in (1, 2, 3, 4)],
    "resnet18": ["layer1", "layer2", "layer3", "layer4"],
    "shufflenet_v2_x0_5": ["stage2", "stage3", "stage4"],
    "squeezenet1_0": [f"features.{i}" for i in (3, 4, 5, 7, 8, 9, 10, 12)],
    "swin_t": ["features.1", "features.3", "features.5", "features.7"],
    "swin_v2_t": ["features.1", "features.3", "features.5", "features.7"],
    "vgg11": [f"features.{i}" for i in (2, 5, 7, 10, 12, 15, 17, 20)] + ["classifier.2", "classifier.5"],
    "vgg19_bn": [f"features.{i}" for i in (6, 13, 19, 26, 32, 39, 45, 52)] + ["classifier.5"],  # every second of 18
    "resnet152": ["layer1", "layer2", "layer3", "layer4"],
    "swin_b": ["features.1", "features.3", "features.5", "features.7"],
    "resnet20": ["layer1", "layer2", "layer3"],
    "vit_l_32": [f"encoder.layers.encoder_layer_{i}" for i in range(1, 24, 2)],
    "vit_b_16": [f"encoder.layers.encoder_layer_{i}" for i in range(12)],
}
SQUARE = (3, 224, 224)


def outlined(name: str) -> Traced:
    return outline(get_architecture(name), 224)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_every_family(name: str) -> None:
    assert list(expand_layers(outlined(name), ["blocks"], SQUARE)) == BLOCKS[name]


def test_every_family_is_among_them() -> None:
    assert FAMILIES.keys() <= BLOCKS.keys()


class Two(nn.Module):
    """A network of two residual blocks, too few to be all there is: each layer with weights is a block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.one = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.one(x) + x
        x = torch.relu(self.two(x) + x)
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


def test_blocks_of_a_small_network_are_its_layers_with_what_follows_them() -> None:
    names = expand_layers(trace(Two()), ["blocks"], (3, 8, 8))
    assert names == ("stem", "one.1", "one.3", "two.1", "two.2")


def test_a_network_without_weights_has_no_blocks() -> None:
    with pytest.raises(UsageError, match="Sequential has no layers with weights, so no blocks"):
        expand_layers(trace(nn.Sequential(nn.Flatten())), ["blocks"], (3, 8, 8))


@pytest.fixture(scope="module")
def resnet() -> Traced:
    return outlined("resnet18")


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["layer*"], ["layer1", "layer2", "layer3", "layer4"]),
        (["layer[12]"], ["layer1", "layer2"]),
        (["layer?.1"], ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]),
        (["layer4.*"], ["layer4.0", "layer4.1"]),
        (["layer1.0.*"], [f"layer1.0.{name}" for name in ("conv1", "bn1", "relu", "conv2", "bn2", "add", "relu_1")]),
        (["*"], ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "flatten"]),
        (["blocks"], ["layer1", "layer2", "layer3", "layer4"]),
        # what is named outright stays where it is, and is not repeated under another name
        (["penultimate", "layer[34]", "layer3"], ["penultimate", "layer4", "layer3"]),
        (
            ["*", "penultimate", "layer4.1"],
            ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "avgpool", "penultimate", "layer4.1"],
        ),
        (["layer*", "layer4.*"], ["layer1", "layer2", "layer3", "layer4", "layer4.0"]),
        (["layer*", "blocks"], ["layer1", "layer2", "layer3", "layer4"]),
        (["layer1", "flatten", "penultimate", "layer1.1"], ["layer1", "flatten", "penultimate", "layer1.1"]),
    ],
)
def test_patterns_by_hand(resnet: Traced, layers: list[str], expected: list[str]) -> None:
    assert list(expand_layers(resnet, layers, SQUARE)) == expected


def test_what_gives_no_features_is_left_out() -> None:
    traced = outlined("vit_b_16")
    names = expand_layers(traced, ["*"], SQUARE)
    assert {"getattr", "getitem"} <= {name.rpartition(".")[2] for name in traced.names}
    assert names[0] == "conv_proj"
    assert not any(name.startswith(("getattr", "eq", "_assert", "floordiv")) for name in names)
    assert "heads" not in names


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            "stage*",
            r"no layer matches 'stage\*' \(a \* does not cross a dot\); there are conv1, bn1, .*layer4, avgpool",
        ),
        ("layer1.?.*x", r"no layer matches .*; there are layer1.0.conv1, .*`featbench list layers NAME` prints all"),
        ("Layer*", "no layer matches"),
        ("f[c]", r"'f\[c\]' matches only the head, or what gives no features \(fc\)"),
        ("layer9", "unknown layer 'layer9'; did you mean"),
        ("bloks", "did you mean 'blocks'"),
    ],
)
def test_what_stands_for_nothing_is_refused(resnet: Traced, layer: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        expand_layers(resnet, ["blocks", layer], SQUARE)


def test_names_alone_cost_no_run(resnet: Traced) -> None:
    assert expand_layers(resnet, ["nothing", "layer1"], (0, 0, 0)) == ("nothing", "layer1")  # refused when it is cut
