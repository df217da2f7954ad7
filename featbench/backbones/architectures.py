"""The table of architectures: name -> how to build the network, and which weights there are for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings

from featbench.backbones import own, timm_models
from featbench.backbones.options import Parse, one_of, parse_options, share, switch, widths
from featbench.backbones.spec import Architecture, Pretrained
from featbench.backbones.weights import downloaded_file, load_torchvision
from featbench.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess, from_transforms
from featbench.errors import UsageError, unknown
from featbench.factories import PREFIX, call_factory, find_factory

CIFAR10 = Preprocess(32, 32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
_BUNDLED = Path(str(resources.files("featbench.backbones") / "weights"))

OWN: dict[str, Architecture] = {
    "pixels": Architecture(
        "pixels",
        lambda _: own.Pixels(),
        Preprocess(32, 32, mean=(), std=(), native_arrays=True),
        default_weights="none",
    ),
    "resnet20": Architecture("resnet20", lambda _: own.ResNet20(), CIFAR10),
    "resnet20_cifar10": Architecture(
        "resnet20_cifar10",
        lambda _: own.ResNet20(),
        CIFAR10,
        default_weights="CIFAR10",
        bundled={"CIFAR10": _BUNDLED / "resnet20_cifar10.safetensors"},
    ),
}


@dataclass(frozen=True)
class Small:
    """A network that is made for the images it will see.

    Attributes:
        make: Builds it for images of (size_px, channels), with options.
        size_px: Of its images, where the experiment sets no image_size.
        min_px: The smallest images that do not shrink to nothing before the head.
        options: Options that its name may have behind a colon.
    """

    make: Callable[..., nn.Module]
    size_px: int
    min_px: int
    options: Mapping[str, Parse] = field(default_factory=dict)


SMALL: dict[str, Small] = {
    "mlp": Small(
        own.mlp,
        28,
        1,
        {"widths": widths, "activation": one_of(own.ACTIVATIONS), "dropout": share, "batch_norm": switch},
    ),
    "convnet": Small(own.convnet, 28, 4, {"dropout": share, "batch_norm": switch}),
    "small_cnn": Small(own.small_cnn, 128, 16),
    "alexnet_227": Small(own.alexnet_227, 227, 67),
}


def backbone_names() -> list[str]:
    """Return the name of every backbone: featbench's own, then torchvision's classification models."""
    return [*OWN, *SMALL, *models.list_models(module=models)]


def get_architecture(name: str, channels: int = 3) -> Architecture:
    """Return the architecture of a backbone.

    Args:
        name: Its name, with options where it takes some.
        channels: Of the images, 1 or 3; networks of SMALL are built for as many, all others take 3.

    Raises:
        UsageError: There is none of this name, or an option is wrong.
    """
    if name in OWN:
        return OWN[name]
    if name.partition(":")[0] in SMALL:
        return _small_architecture(name, channels)
    if name.startswith(timm_models.PREFIX):
        return timm_models.timm_architecture(name)
    if name.startswith(PREFIX):
        return _factory_architecture(name)
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
        adapt=_adapt_torchvision,
    )


def _small_architecture(name: str, channels: int) -> Architecture:
    spec = SMALL[name.partition(":")[0]]
    options = parse_options(name, spec.options)

    def make(size_px: int) -> nn.Module:
        if size_px < spec.min_px:
            raise UsageError(f"{name} takes images of at least {spec.min_px} px, and image_size = {size_px}")
        return spec.make(size_px, channels, **options)

    half = (0.5,) * channels  # pixels become [-1, 1]
    return Architecture(name, make, Preprocess(spec.size_px, spec.size_px, mean=half, std=half))


def _pretrained(name: str, member: Any) -> Pretrained:
    def load(size_px: int, offline: bool) -> nn.Module:
        if not name.startswith("vit_") or size_px == member.meta["min_size"][0]:
            return load_torchvision(name, member, offline=offline)
        return load_torchvision(name, member, offline=offline, build=lambda state: _build_vit(name, size_px, state))

    return Pretrained(lambda: from_transforms(member.transforms()), load, lambda: downloaded_file(member.url))


def _build_vit(name: str, size_px: int, state: Mapping[str, Tensor]) -> nn.Module:
    network = _make_torchvision(name, size_px)
    network.load_state_dict(_adapt_torchvision(network, state))
    return network


def _adapt_torchvision(network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Fit the position embeddings of a vision transformer to the size of its images, as torchvision does."""
    if not isinstance(network, models.VisionTransformer) or "encoder.pos_embedding" not in state:
        return state
    resized: Mapping[str, Tensor] = interpolate_embeddings(network.image_size, network.patch_size, OrderedDict(state))
    return resized


def _make_torchvision(name: str, size_px: int) -> nn.Module:
    kwargs: dict[str, Any] = {}
    if name.startswith("vit_"):
        kwargs = {"image_size": size_px}  # it has a position for each patch; other networks take any size
    if name in ("googlenet", "inception_v3"):
        # as their own weights ask for it: these two were trained on [-1, 1], and convert inside the network
        kwargs = {"transform_input": True, "init_weights": True}
    network: nn.Module = models.get_model(name, weights=None, **kwargs)
    return network


def _factory_architecture(name: str) -> Architecture:
    """Find the factory of a `python:module:factory` name; it is not called yet.

    It returns an `nn.Module` with random weights; trained ones belong in a file that `weights` names. Images are
    resized so that their shorter side is `image_size`, cropped to the centre square, scaled to [0, 1] and standardised
    with ImageNet's mean and deviation, or with the module's own `MEAN` and `STD`, three numbers each.

    Raises:
        UsageError: There is no such module or function, or it cannot be used.
    """
    module, factory = find_factory(name, "python:my_networks:make")
    size_px = 224  # replaced: image_size has to be set
    preprocess = Preprocess(
        size_px, size_px, _numbers(name, module, "MEAN", IMAGENET_MEAN), _numbers(name, module, "STD", IMAGENET_STD)
    )

    def make(_: int) -> nn.Module:
        network = call_factory(name, factory)
        if not isinstance(network, nn.Module):
            raise UsageError(f"{name} returns {type(network).__name__}; it has to return a torch.nn.Module")
        return network

    return Architecture(name, make, preprocess, foreign=True, needs_size=True)


def _numbers(name: str, module: ModuleType, constant: str, default: tuple[float, ...]) -> tuple[float, ...]:
    given = getattr(module, constant, default)
    try:
        numbers = tuple(float(number) for number in given)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or (constant == "STD" and min(numbers) <= 0):
        positive = "positive " if constant == "STD" else ""
        raise UsageError(f"{name}: {constant} has to be three {positive}numbers, for red, green and blue: {given!r}")
    return numbers
