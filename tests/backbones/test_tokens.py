from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from featbench.backbones.describe import describe_backbone
from featbench.backbones.layers import feature_network
from featbench.backbones.load import Backbone, load_backbone
from featbench.backbones.tracing import trace
from featbench.config import BackboneConfig
from featbench.errors import UsageError

# network -> size of its images, a layer, how many tokens stand before those of the patches, as its paper has it
PREFIXES: dict[str, tuple[int, str, int]] = {
    "timm:vit_tiny_patch16_224": (32, "blocks.3", 1),
    "timm:deit_tiny_distilled_patch16_224": (32, "blocks.3", 2),  # of classes and of distillation
    "timm:vit_small_patch14_dinov2": (28, "blocks.3", 1),
    "timm:vit_small_patch14_reg4_dinov2": (28, "blocks.3", 5),  # and four registers
    "timm:vit_little_patch16_reg4_gap_256": (32, "blocks.3", 4),  # registers alone
    "timm:vit_base_patch16_siglip_224": (32, "blocks.3", 0),
    "timm:mixer_s32_224": (224, "blocks.3", 0),
    "timm:cait_xxs24_224": (32, "blocks.3", 0),  # the class token comes behind the blocks
    "timm:xcit_nano_12_p16_224": (32, "blocks.3", 0),
    "timm:eva02_tiny_patch14_224": (28, "blocks.3", 1),
    "vit_b_16": (32, "encoder.layers.encoder_layer_3", 1),
}
WITHOUT_CLASS = [name for name, (_, _, count) in PREFIXES.items() if count in (0, 4)]


def load(name: str) -> Backbone:
    size_px = PREFIXES[name][0]
    return load_backbone(BackboneConfig(name=name, weights="random", image_size=size_px), seed=0)


def hooked(backbone: Backbone, layer: str, images: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = backbone.network.get_submodule(layer).register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.inference_mode():
        backbone.network(images)
    handle.remove()
    return seen[0]


def features(backbone: Backbone, layer: str, pooling: str, images: Tensor, **settings: Any) -> Tensor:
    with torch.inference_mode():
        (got,) = backbone.features([layer], pooling, **settings).module(images)
    return got


@pytest.mark.parametrize("name", PREFIXES)
def test_tokens_are_those_of_the_patches(name: str) -> None:
    size_px, layer, count = PREFIXES[name]
    backbone = load(name)
    images = torch.randn(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))
    output = hooked(backbone, layer, images)
    patch_px = 14 if "patch14" in name else 32 if "s32" in name else 16
    assert output.shape[1] == count + (size_px // patch_px) ** 2
    got = features(backbone, layer, "tokens", images)
    torch.testing.assert_close(got, output[:, count:].mean(1), rtol=1e-4, atol=1e-5)
    # what is told of the row: the setting's own name only where it is what it was before
    resolved = backbone.resolve([layer], "tokens", (3, size_px, size_px))
    assert resolved == ({} if count == 1 else {layer: f"tokens:{count}"})
    # a model trained before goes on with what it was trained on
    before = features(backbone, layer, "tokens", images, as_written=True)
    torch.testing.assert_close(before, output[:, 1:].mean(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PREFIXES)
def test_cls_is_the_class_token_or_refused(name: str) -> None:
    size_px, layer, _ = PREFIXES[name]
    backbone = load(name)
    if name in WITHOUT_CLASS:
        with pytest.raises(UsageError, match=f"'cls' makes no sense for layer '{layer}': .* has no class token there"):
            backbone.features([layer], "cls")
        with pytest.raises(UsageError, match="has no class token there; use avg, max or tokens"):
            backbone.resolve([layer], "cls", (3, size_px, size_px))
        return
    images = torch.randn(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))
    got = features(backbone, layer, "cls", images)
    torch.testing.assert_close(got, hooked(backbone, layer, images)[:, 0], rtol=1e-4, atol=1e-5)


def test_layers_behind_the_class_token_of_cait_have_it() -> None:
    backbone = load("timm:cait_xxs24_224")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = hooked(backbone, "norm", images)  # one class token, and four patches
    assert expected.shape[1] == 5
    torch.testing.assert_close(features(backbone, "norm", "cls", images), expected[:, 0], rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="'tokens' makes no sense for layer 'blocks_token_only', which has 1 tokens"):
        backbone.features(["blocks_token_only"], "tokens")


def test_widths_are_listed_where_a_pooling_makes_sense() -> None:
    widths = {layer.name: layer.width for layer in describe_backbone("timm:mixer_s32_224", "cls")}
    assert widths["blocks.3"] is None
    assert {layer.name: layer.width for layer in describe_backbone("vit_b_16", "cls")}["encoder.ln"] == 768


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.body(images.flatten(1, 2)[:, :6, :5]).mean(1))  # (B, 6, 4) tokens


@pytest.mark.parametrize(("pooling", "first"), [("tokens", 1), ("tokens:1", 1), ("tokens:0", 0), ("tokens:3", 3)])
def test_of_a_network_of_ones_own_the_setting_says_how_many(pooling: str, first: int) -> None:
    network = Own().eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        expected = network.body(images.flatten(1, 2)[:, :6, :5])[:, first:].mean(1)
        (got,) = feature_network(trace(network), ["body"], pooling, (3, 8, 8)).module(images)
    torch.testing.assert_close(got, expected)
    with pytest.raises(UsageError, match="'tokens:6' makes no sense for layer 'body', which has 6 tokens"):
        feature_network(trace(network), ["body"], "tokens:6", (3, 8, 8))


def test_a_network_of_timms_is_known_whoever_makes_it() -> None:
    network = timm.create_model("mixer_s32_224", pretrained=False)
    with pytest.raises(UsageError, match="MlpMixer has no class token there"):
        feature_network(trace(network), ["blocks.3"], "cls", (3, 224, 224))
