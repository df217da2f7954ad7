"""Which pretrained network to use where no experiment file names one."""

from __future__ import annotations

import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from torchvision import models

from featbench.backbones.weights import downloaded_file

DEFAULT = "resnet18"
BUNDLED = "resnet20_cifar10"
_CACHED = (DEFAULT, "resnet34", "resnet50", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny", "squeezenet1_1")
_TIMEOUT_S = 5.0


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
