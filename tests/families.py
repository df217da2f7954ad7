"""A small member of every family of torchvision's networks, and what it computes with random weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import swin_transformer

from featbench.backbones.layers import feature_network
from featbench.backbones.tracing import trace

# one small member of every family: the module of its classifier, as its source has it, and an image size it can take
FAMILIES: dict[str, tuple[str, int]] = {
    "alexnet": ("classifier.6", 64),
    "convnext_tiny": ("classifier.2", 64),
    "densenet121": ("classifier", 64),
    "efficientnet_b0": ("classifier.1", 64),
    "googlenet": ("fc", 64),
    "inception_v3": ("fc", 80),
    "maxvit_t": ("classifier.5", 64),
    "mnasnet0_5": ("classifier.1", 64),
    "mobilenet_v2": ("classifier.1", 64),
    "mobilenet_v3_small": ("classifier.3", 64),
    "regnet_x_400mf": ("fc", 64),
    "resnet18": ("fc", 64),
    "shufflenet_v2_x0_5": ("fc", 64),
    "squeezenet1_0": ("classifier.1", 64),
    "swin_t": ("head", 64),
    "swin_v2_t": ("head", 64),
    "vgg11": ("classifier.6", 32),
    "vit_b_16": ("heads.head", 32),
}
# the classes of some families with fewer and narrower layers, and without their own slow way to draw weights
SMALLER: dict[str, Callable[[], nn.Module]] = {
    "googlenet": lambda: models.googlenet(num_classes=5, init_weights=False),
    "inception_v3": lambda: models.inception_v3(num_classes=5, init_weights=False),
    "maxvit_t": lambda: models.MaxVit(
        (64, 64),
        stem_channels=16,
        partition_size=4,
        block_channels=[24, 32],
        block_layers=[1, 1],
        head_dim=8,
        stochastic_depth_prob=0.2,
        num_classes=5,
    ),
    "swin_t": lambda: models.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [7, 7], num_classes=5),
    "swin_v2_t": lambda: models.SwinTransformer(
        [4, 4],
        24,
        [2, 2],
        [2, 4],
        [8, 8],
        num_classes=5,
        block=swin_transformer.SwinTransformerBlockV2,
        downsample_layer=swin_transformer.PatchMergingV2,
    ),
    "vgg11": lambda: models.vgg11(num_classes=5, init_weights=False),
    "vit_b_16": lambda: models.VisionTransformer(32, 16, 3, 2, 32, 64, num_classes=5),
}


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = SMALLER[name]() if name in SMALLER else models.get_model(name, num_classes=5)
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if it had seen images: what is normalised is not zero and one
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def images(size_px: int) -> Tensor:
    return torch.randn(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))


def hooked(network: nn.Module, module: str, batch: Tensor, *, before: bool = False) -> Tensor:
    """The output of a module, or with `before` its input, by a hook on the whole network."""
    seen: list[Tensor] = []
    owner = network.get_submodule(module)
    if before:
        handle = owner.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    else:
        handle = owner.register_forward_hook(lambda _, __, output: seen.append(output.clone()))
    with torch.inference_mode():
        network(batch)
    handle.remove()
    return seen[0]


def features(network: nn.Module, layers: list[str], batch: Tensor, pooling: str = "avg") -> tuple[Tensor, ...]:
    found = feature_network(trace(network), layers, pooling, tuple(batch.shape[1:]))
    with torch.inference_mode():
        return found.module(batch)
