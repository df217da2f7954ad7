"""Every family of networks through the forward that extraction uses, against the plain network with a hook."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from featbench.backbones.architectures import OWN, SMALL
from featbench.backbones.load import Backbone, load_backbone
from featbench.config import BackboneConfig
from featbench.features.forward import Forward, Precision
from tests.families import FAMILIES
from tests.tiny import Recorder


@dataclass(frozen=True)
class Family:
    """A small member.

    Attributes:
        size_px: Of the images; None is its own.
        last: Whether its maps are (H, W, C).
        head: The module before which the penultimate layer is, as the source of the network has it.
    """

    size_px: int | None
    head: str
    last: bool = False


TORCHVISION = {
    name: Family(224 if name == "maxvit_t" else size_px, head, last=name.startswith("swin"))
    for name, (head, size_px) in FAMILIES.items()
}
OURS = {
    "resnet20": Family(32, "fc"),
    "resnet20_cifar10": Family(32, "fc"),
    "mlp": Family(28, "fc"),
    "convnet": Family(28, "fc"),
    "small_cnn": Family(48, "fc"),
    "alexnet_227": Family(227, "fc"),
}
TIMM = {
    "beit_base_patch16_224": Family(32, "head"),
    "cait_xxs24_224": Family(64, "head"),
    "convnext_atto": Family(64, "head.fc"),
    "davit_tiny": Family(64, "head.fc"),
    "deit3_small_patch16_224": Family(64, "head"),
    "deit_tiny_patch16_224": Family(64, "head"),
    "efficientnet_b0": Family(64, "classifier"),
    "eva02_tiny_patch14_224": Family(56, "head"),
    "fastvit_t8": Family(64, "head.fc"),
    "hiera_tiny_224": Family(224, "head.fc"),
    "hrnet_w18_small": Family(64, "classifier"),
    "levit_128s": Family(224, ""),
    "maxvit_pico_rw_256": Family(256, "head.fc"),
    "mixer_s32_224": Family(224, "head"),
    "mobilenetv4_conv_small": Family(64, "classifier"),
    "nfnet_l0": Family(64, "head.fc"),
    "pvt_v2_b0": Family(64, "head"),
    "regnetx_002": Family(64, "head.fc"),
    "res2net50_26w_4s": Family(64, "fc"),
    "swin_tiny_patch4_window7_224": Family(224, "head.fc", last=True),
    "swinv2_tiny_window8_256": Family(256, "head.fc", last=True),
    "vit_base_patch16_siglip_224": Family(32, "head"),
    "vit_small_patch14_reg4_dinov2": Family(56, ""),
    "vit_tiny_patch16_224": Family(64, "head"),
    "volo_d1_224": Family(224, "", last=True),
    "xcit_nano_12_p16_224": Family(224, "head"),
}
ALL = TORCHVISION | OURS | {f"timm:{name}": family for name, family in TIMM.items()}


def test_every_family_is_here() -> None:
    modules = {models.get_model_builder(name).__module__ for name in models.list_models(module=models)}
    assert modules == {models.get_model_builder(name).__module__ for name in TORCHVISION}
    assert set(OURS) == {*OWN, *SMALL} - {"pixels"}
    assert len(TIMM) >= 20


def make(name: str) -> tuple[Backbone, nn.Module]:
    """The backbone, and a copy of its network; batch norms have seen images, so that none is zero and one."""
    backbone = load_backbone(BackboneConfig(name=name, weights="random", image_size=ALL[name].size_px), seed=0)
    torch.manual_seed(1)
    for module in backbone.network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return backbone, deepcopy(backbone.network)


def some_layers(name: str, backbone: Backbone) -> list[str]:
    blocks = [layer for layer in backbone.expand(["blocks"]) if layer != "patch_embed"]  # which has shapes of its own
    chosen = [blocks[0], blocks[len(blocks) // 2], blocks[-1]]
    return [*dict.fromkeys(chosen), *(["penultimate"] if ALL[name].head else [])]


def images(backbone: Backbone) -> Tensor:
    shape = backbone.preprocess.channels, backbone.preprocess.crop_px, backbone.preprocess.crop_px
    return torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def outputs(name: str, network: nn.Module, backbone: Backbone, layers: list[str]) -> dict[str, Tensor]:
    """What modules return, or the head is given, in the plain network; of a list of maps, the last."""
    seen: dict[str, Tensor] = {}

    def keep(layer: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: Any, output: Any = None) -> None:
            value = inputs[0] if output is None else output
            seen[layer] = (value[-1] if isinstance(value, list | tuple) else value).clone()

        return hook

    for layer in layers:
        if layer == "penultimate":
            network.get_submodule(ALL[name].head).register_forward_pre_hook(keep(layer))
            continue
        module = network.get_submodule(layer)
        while isinstance(module, nn.ModuleList | nn.Sequential):  # which may not be called itself
            module = module[-1]
        module.register_forward_hook(keep(layer))
    mean = torch.tensor(backbone.preprocess.mean).view(-1, 1, 1)
    std = torch.tensor(backbone.preprocess.std).view(-1, 1, 1)
    with torch.no_grad():
        network((images(backbone).float() / 255 - mean) / std)
    return seen


def pooled(output: Tensor, pooling: str, *, last: bool) -> Tensor:
    if pooling == "flatten" or output.ndim == 2:
        return output.flatten(1)
    if output.ndim == 3:
        reduced = {"avg": output.mean(1), "max": output.max(1).values, "cls": output[:, 0]}
        return reduced[pooling]
    maps = output.permute(0, 3, 1, 2) if last else output
    kind, _, cells = pooling.partition(":")
    pool = {"avg": F.adaptive_avg_pool2d, "max": F.adaptive_max_pool2d}[kind]
    return pool(maps, int(cells or 1)).flatten(1)


def run(backbone: Backbone, layers: list[str], pooling: str, precision: Precision) -> dict[str, Any]:
    batch = images(backbone)
    shape = tuple(batch.shape[1:])
    forward = Forward(
        backbone.features(layers, pooling, shape),
        backbone.preprocess,
        device=torch.device("cpu"),
        precision=precision,
        batch_size=len(batch),
        image_shape=shape,
        n_images=len(batch),
        progress=(progress := Recorder()),
        compiled_from_flops=1,
    )
    assert forward.compiled == (precision == "bfloat16")
    assert progress.warned == []
    return forward.start(batch)()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torchvision's, about how it will draw weights
@pytest.mark.parametrize("name", ALL)
def test_features_are_those_of_the_plain_network(name: str) -> None:
    backbone, network = make(name)
    layers = some_layers(name, backbone)
    expected = outputs(name, network, backbone, layers)
    assert expected.keys() == set(layers)
    kinds = {2: ["avg", "max", "flatten"], 3: ["avg", "max", "flatten"], 4: ["avg", "max", "avg:2", "max:2", "flatten"]}
    for ndim in sorted({output.ndim for output in expected.values()}):
        those = [layer for layer in layers if expected[layer].ndim == ndim]
        for pooling in kinds[ndim]:
            fine = [layer for layer in those if ":" not in pooling or min(expected[layer].shape[1:]) > 1]
            for layer, got in (run(backbone, fine, pooling, "float32") if fine else {}).items():
                wanted = pooled(expected[layer], pooling, last=ALL[name].last).numpy()
                assert got.shape == wanted.shape, (layer, pooling)
                assert wanted.std() > 0
                np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's, while it compiles
@pytest.mark.parametrize("name", ALL)
def test_compiled_features_are_close(name: str) -> None:
    backbone, network = make(name)
    layers = some_layers(name, backbone)
    expected = outputs(name, network, backbone, layers)
    for layer, got in run(backbone, layers, "avg", "bfloat16").items():
        wanted = pooled(expected[layer], "avg", last=ALL[name].last).numpy()
        assert np.linalg.norm(got - wanted) < 0.1 * np.linalg.norm(wanted), layer  # 0.06 uncompiled, for MaxViT
