from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from featbench.backbones.architectures import SMALL, get_architecture
from featbench.backbones.describe import describe_backbone
from featbench.backbones.expand import find_blocks
from featbench.backbones.own import alexnet_227, convnet, mlp, small_cnn
from featbench.backbones.shapes import output_shapes
from featbench.backbones.tracing import trace
from featbench.baselines.network import with_new_head
from featbench.errors import UsageError
from tests.families import features

MNIST = (28, 1)
NAMES = list(SMALL)
DEPTH = {"mlp": 1, "convnet": 3, "small_cnn": 5, "alexnet_227": 7}


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def dense(*widths: int) -> int:
    return sum(n_in * n_out + n_out for n_in, n_out in pairwise(widths))


@pytest.mark.parametrize(
    ("make", "published", "by_arithmetic"),
    [
        (lambda: mlp(*MNIST, activation="sigmoid"), 101_770, dense(784, 128, 10)),
        (lambda: mlp(*MNIST, widths=(512, 128)), 468_874, dense(784, 512, 128, 10)),
        (lambda: mlp(*MNIST, batch_norm=True, dropout=0.5), 102_026, dense(784, 128, 10) + 2 * 128),
        (lambda: mlp(32, 3, widths=(5,)), 15_425, dense(3 * 32 * 32, 5, 10)),
        (lambda: convnet(*MNIST), 421_642, 9 * 32 + 32 + 9 * 32 * 64 + 64 + dense(64 * 7 * 7, 128, 10)),
        (
            lambda: small_cnn(128, 3, n_classes=2),
            553_698,
            27 * 32 + 32 + 3 * (9 * 32 * 32 + 32) + dense(32 * 8 * 8, 256, 2),
        ),
        # the ungrouped AlexNet, as in the literature
        (
            lambda: alexnet_227(227, 3, n_classes=1000),
            62_378_344,
            (3 * 11 * 11 + 1) * 96
            + (96 * 25 + 1) * 256
            + (256 * 9 + 1) * 384
            + (384 * 9 + 1) * 384
            + (384 * 9 + 1) * 256
            + dense(256 * 6 * 6, 4096, 4096, 1000),
        ),
    ],
    ids=["mlp", "mlp 512-128", "mlp with norm", "mlp on colour", "convnet", "small_cnn", "alexnet_227"],
)
def test_parameters(make: Callable[[], nn.Module], published: int, by_arithmetic: int) -> None:
    assert by_arithmetic == published
    with torch.device("meta"):  # no numbers are drawn
        assert count(make()) == published


def test_mlp_computes_what_is_written_by_hand() -> None:
    torch.manual_seed(0)
    network = mlp(4, 1, widths=(5, 3), activation="tanh").eval()
    images = torch.randn(6, 1, 4, 4)
    x = images.reshape(6, 16)
    for name in ("layer1.linear", "layer2.linear"):
        x = torch.tanh(x @ network.get_parameter(f"{name}.weight").T + network.get_parameter(f"{name}.bias"))
    x = x @ network.get_parameter("fc.weight").T + network.get_parameter("fc.bias")
    torch.testing.assert_close(network(images), x)


def test_alexnet_maps_are_those_of_the_paper() -> None:
    shapes = {layer.name: layer.shape for layer in describe_backbone("alexnet_227", "avg")}
    assert shapes["layer1.conv"] == (96, 55, 55)
    assert [shapes[f"layer{n}"] for n in range(1, 8)] == [
        (96, 27, 27),
        (256, 13, 13),
        (384, 13, 13),
        (384, 13, 13),
        (256, 6, 6),
        (4096,),
        (4096,),
    ]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_layers_blocks_and_penultimate(name: str, channels: int) -> None:
    architecture = get_architecture(name, channels)
    size_px = max(8, SMALL[name].min_px)
    torch.manual_seed(0)
    traced = trace(architecture.make(size_px))
    shape = (channels, size_px, size_px)
    layers = [f"layer{number}" for number in range(1, DEPTH[name] + 1)]
    assert find_blocks(traced, output_shapes(traced, shape)) == layers
    assert traced.head_name == "fc"
    images = torch.randn(2, *shape)
    seen: list[torch.Tensor] = []
    traced.network.fc.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    traced.network(images)
    last, penultimate = features(traced.network, [layers[-1], "penultimate"], images, "flatten")
    torch.testing.assert_close(penultimate, seen[0])
    torch.testing.assert_close(last, seen[0])
    assert {layer.name for layer in describe_backbone(name, "avg", size_px, channels)} > {*layers, "penultimate"}


@pytest.mark.parametrize("name", NAMES)
def test_a_part_can_be_frozen(name: str) -> None:
    traced = trace(get_architecture(name).make(SMALL[name].min_px))
    with_new_head(traced, 4, dropout=0.0, seed=0, freeze_until="layer1")
    learns = {key.partition(".")[0] for key, value in traced.network.named_parameters() if value.requires_grad}
    assert learns == {"fc", *(f"layer{number}" for number in range(2, DEPTH[name] + 1))}


@pytest.mark.parametrize("name", [name for name in NAMES if SMALL[name].min_px > 1])
def test_images_that_leave_nothing_to_the_head_are_refused(name: str) -> None:
    smallest = SMALL[name].min_px
    with pytest.raises(UsageError, match=f"{name} takes images of at least {smallest} px"):
        get_architecture(name).make(smallest - 1)
    assert get_architecture(name).make(smallest)(torch.zeros(1, 3, smallest, smallest)).shape == (1, 10)


def test_options_are_in_the_name() -> None:
    architecture = get_architecture("mlp:widths=512-128,activation=sigmoid,dropout=0.25,batch_norm=true", 1)
    kinds = [type(module).__name__ for module in architecture.make(28).modules() if not list(module.children())]
    hidden = ["Linear", "BatchNorm1d", "Sigmoid", "Dropout"]
    assert kinds == ["Flatten", *hidden, *hidden, "Linear"]
    assert count(architecture.make(28)) == dense(784, 512, 128, 10) + 2 * (512 + 128)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mlp:width=12", "unknown option 'width' in 'mlp:width=12'; did you mean 'widths'"),
        ("mlp:512-128", "unknown option '512-128'.*Valid: widths, activation, dropout, batch_norm"),
        ("mlp:", "unknown option ''"),
        ("mlp:widths=512x128", "widths=512x128 in .*whole numbers above 0, joined by -"),
        ("mlp:widths=0", "whole numbers above 0"),
        ("mlp:widths=", "whole numbers above 0"),
        ("mlp:widths=10000", "of 9,999 at most"),
        ("mlp:widths=" + "-".join(["1"] * 17), "16 of 9,999 at most"),
        ("mlp:widths=" + "9" * 5000, "of 9,999 at most"),
        ("mlp:activation=swish", "activation=swish.*one of relu, sigmoid, tanh, gelu"),
        ("mlp:dropout=1", "a number from 0 to below 1"),
        ("mlp:dropout=nan", "a number from 0 to below 1"),
        ("mlp:batch_norm=yes", "true or false"),
        ("mlp:dropout=0.1,dropout=0.2", "gives dropout twice"),
        ("small_cnn:dropout=0.1", "unknown option 'dropout'.*small_cnn takes none"),
        ("mpl", "unknown backbone 'mpl'; did you mean 'mlp'"),
    ],
)
def test_wrong_names_and_options(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        get_architecture(name)


def test_networks_with_three_channels_of_their_own_do_not_take_one() -> None:
    with pytest.raises(UsageError, match=r"resnet20 always takes three channels.*remove --grey"):
        describe_backbone("resnet20", "avg", channels=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_scaled_to_minus_one_and_one(channels: int) -> None:
    preprocess = get_architecture("mlp", channels).preprocess
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, channels, 1, 2)
    scaled: Any = preprocess.normalise(pixels)
    assert scaled.tolist() == [[[[-1.0, 1.0]]] * channels]
