"""The table of architectures: name -> how to build the network, and which weights there are for it."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from torch import nn
from torchvision import models

from featbench.backbones import factory, timm_models
from featbench.backbones.own import Pixels, ResNet20
from featbench.backbones.spec import Architecture, Pretrained
from featbench.backbones.weights import load_torchvision
from featbench.data.preprocess import Preprocess, from_transforms
from featbench.errors import unknown

CIFAR10 = Preprocess(32, 32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))


_BUNDLED = Path(str(resources.files("featbench.backbones") / "weights"))

OWN: dict[str, Architecture] = {
    "pixels": Architecture(
        "pixels", lambda _: Pixels(), Preprocess(32, 32, mean=(), std=(), native_arrays=True), default_weights="none"
    ),
    "resnet20": Architecture("resnet20", lambda _: ResNet20(), CIFAR10),
    "resnet20_cifar10": Architecture(
        "resnet20_cifar10",
        lambda _: ResNet20(),
        CIFAR10,
        default_weights="CIFAR10",
        bundled={"CIFAR10": _BUNDLED / "resnet20_cifar10.safetensors"},
    ),
}


def backbone_names() -> list[str]:
    """Return the name of every backbone: featbench's own, then torchvision's classification models."""
    return [*OWN, *models.list_models(module=models)]


def get_architecture(name: str) -> Architecture:
    """Look a backbone up.

    Raises:
        UsageError: There is none of this name.
    """
    if name in OWN:
        return OWN[name]
    if name.startswith(timm_models.PREFIX):
        return timm_models.timm_architecture(name)
    if name.startswith(factory.PREFIX):
        return factory.factory_architecture(name)
    names = backbone_names()
    if name not in names:
        raise unknown("backbone", name, names, listed_by="featbench list backbones")
    enum = models.get_model_weights(name)
    return Architecture(
        name,
        lambda size_px: _make_torchvision(name, size_px),
        from_transforms(enum.DEFAULT.transforms()),
        default_weights=enum.DEFAULT.name,
        pretrained={member.name: _pretrained(name, member) for member in enum},
    )


def _pretrained(name: str, member: Any) -> Pretrained:
    return Pretrained(
        lambda: from_transforms(member.transforms()), lambda _, offline: load_torchvision(name, member, offline=offline)
    )


def _make_torchvision(name: str, size_px: int) -> nn.Module:
    kwargs: dict[str, Any] = {}
    if name.startswith("vit_"):
        kwargs = {"image_size": size_px}  # it has a position for each patch; other networks take any size
    if name in ("googlenet", "inception_v3"):
        # as their own weights ask for it: these two were trained on [-1, 1], and convert inside the network
        kwargs = {"transform_input": True, "init_weights": True}
    network: nn.Module = models.get_model(name, weights=None, **kwargs)
    return network
