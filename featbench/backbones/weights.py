"""torchvision's weights by name, which of them to use where no experiment names any, and a hash of any weights."""

from __future__ import annotations

import pickle
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from featbench.backbones.checkpoints import DAMAGE
from featbench.errors import WeightsError, first_line
from featbench.fingerprint import hash_arrays

DEFAULT = "resnet18"
BUNDLED = "resnet20_cifar10"
_CACHED = (DEFAULT, "resnet34", "resnet50", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny", "squeezenet1_1")
_TIMEOUT_S = 5.0


def downloaded_file(url: str) -> Path:
    """Return where torch's hub keeps the weights that it downloads from an address."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def load_torchvision(
    name: str, member: Any, *, offline: bool, build: Callable[[Mapping[str, Tensor]], nn.Module] | None = None
) -> nn.Module:
    """Build a torchvision model with one of its weights, downloaded by torchvision's code where they are missing.

    Args:
        name: The model.
        member: The weights.
        offline: Forbids a download.
        build: Builds it from the weights, where torchvision's builder cannot.

    Raises:
        WeightsError: They are missing and cannot be downloaded, or the file is damaged.
    """
    path = downloaded_file(member.url)
    where = f"download {member.url} and put it at {path}, or use resnet20_cifar10, whose weights come with featbench"
    if offline and not path.exists():
        raise WeightsError(f"the weights {member} are missing and --offline forbids a download; {where}")
    try:
        # torchvision's builders unpickle freely, so the same file is read without executing pickles first
        state = torch.hub.load_state_dict_from_url(member.url, progress=False, check_hash=True, weights_only=True)
        network: nn.Module = build(state) if build else models.get_model(name, weights=member, progress=False)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path} holds more than tensors and is not loaded; delete it, and {where}") from error
    except DAMAGE as error:
        if path.exists():
            why = first_line(error)
            raise WeightsError(f"{path} is damaged, or another network's ({why}); delete it, and {where}") from error
        raise WeightsError(f"the weights {member} cannot be downloaded ({first_line(error)}); {where}") from error
    return network


def hash_weights(network: nn.Module) -> str:
    """Hash every tensor of a network."""
    return hash_arrays(
        {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in network.state_dict().items()}
    )


def available_backbone(*, offline: bool) -> tuple[str, str]:
    """Choose a pretrained backbone; nothing is downloaded yet.

    Returns:
        Its name, and why it is this one: the first whose weights are in torch's hub cache; else ResNet-18, where its
        weights can be downloaded; else the small network that comes with featbench.
    """
    for name in _CACHED:
        path = _path(name)
        if path.is_file():
            return name, f"its weights are here ({path})"
    if offline:
        why = "no pretrained weights are here, and --offline forbids a download"
    elif _answers(_weights(DEFAULT).url):
        return DEFAULT, f"its weights will be downloaded to {_path(DEFAULT)}"
    else:
        why = f"no pretrained weights are here, and {_weights(DEFAULT).url} cannot be reached"
    return BUNDLED, (
        f"{why}; it is small and sees 32x32 pixels, so for photos rather put {Path(_weights(DEFAULT).url).name} at "
        f"{_path(DEFAULT)}"
    )


def _weights(name: str) -> Any:
    return models.get_model_weights(name).DEFAULT


def _path(name: str) -> Path:
    return downloaded_file(_weights(name).url)


def _answers(url: str) -> bool:
    request = urllib.request.Request(url, method="HEAD")  # an https address of torchvision's
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
            return True
    except (OSError, HTTPException):
        return False
