"""torchvision's weights by name, and a hash of a network's weights."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import models

from featbench.backbones.checkpoints import DAMAGE
from featbench.errors import WeightsError, first_line
from featbench.fingerprint import hash_arrays


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
    return hash_arrays({name: _as_numpy(tensor) for name, tensor in network.state_dict().items()})


def _as_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = tensor.detach().cpu().contiguous().numpy()
    return array
