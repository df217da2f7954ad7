"""Weights of a network: torchvision's, bundled ones, a file's, or random. Nothing is loaded by executing pickles."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torchvision import models

from featbench.backbones.tracing import Traced
from featbench.errors import WeightsError
from featbench.fingerprint import hash_arrays

_LISTED = 10
# what torch raises depends on where in a damaged file it stumbles
_DAMAGE = (
    SafetensorError,
    pickle.UnpicklingError,
    RuntimeError,
    AssertionError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    struct.error,
)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read named tensors from a `.safetensors` or `.pth` file, without executing pickles.

    A dict inside `{"state_dict": ...}` is unwrapped, and a `module.` before every name (DataParallel's) is taken off.

    Raises:
        WeightsError: The file is missing, damaged, or holds anything but named tensors.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            content: Any = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        # the text of other errors is of no use, or advises to execute what is in the file
        reason = f" ({_first_line(error)})" if isinstance(error, SafetensorError | RuntimeError | OSError) else ""
        raise WeightsError(f"{path} is damaged, or holds more than tensors, and is not loaded{reason}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds no named tensors; save a state dict")
    wrong = [str(name) for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if wrong:
        raise WeightsError(f"{path} holds more than named tensors: {_list(wrong)}; save a state dict")
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return dict(content)


def load_file(traced: Traced, path: Path) -> bool:
    """Load a weights file into a network.

    The head may be missing, or made for other classes: features do not need it. So may tensors that take no part in
    the eval forward, as those of auxiliary heads.

    Returns:
        Whether the head has its weights.

    Raises:
        WeightsError: Any other tensor is missing, unexpected or of the wrong shape; the message lists them.
    """
    given = read_state_dict(path)
    wanted = traced.network.state_dict()
    head = {name for name in wanted if traced.head is not None and name.startswith(f"{traced.head_name}.")}
    misshapen = {name for name in given.keys() & wanted.keys() if given[name].shape != wanted[name].shape}
    has_head = all(name in given and name not in misshapen for name in head)
    missing = [
        name
        for name in wanted.keys() - given.keys()
        if not (name in head or name.endswith("num_batches_tracked") or traced.unused(name))
    ]
    problems = {
        "missing": missing,
        "unexpected": given.keys() - wanted.keys(),
        "of another shape": misshapen - head,
    }
    found = [f"{len(names)} {kind}: {_list(sorted(names))}" for kind, names in problems.items() if names]
    if found:
        raise WeightsError(f"{path} does not fit {type(traced.network).__name__}; tensors {'; '.join(found)}")
    traced.network.load_state_dict({n: t for n, t in given.items() if n not in misshapen}, strict=False)
    return has_head


def load_torchvision(name: str, member: Any, *, offline: bool) -> nn.Module:
    """Build a torchvision model with one of its weights, downloaded by torchvision's code where they are missing.

    Raises:
        WeightsError: They are missing and cannot be downloaded, or the file is damaged.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(member.url).name
    where = f"download {member.url} and put it at {path}, or use resnet20_cifar10, whose weights come with featbench"
    if offline and not path.exists():
        raise WeightsError(f"the weights {member} are missing and --offline forbids a download; {where}")
    try:
        # torchvision's builders unpickle freely, so the same file is read without executing pickles first
        torch.hub.load_state_dict_from_url(member.url, progress=False, check_hash=True, weights_only=True)
        network: nn.Module = models.get_model(name, weights=member, progress=False)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path} holds more than tensors and is not loaded; delete it, and {where}") from error
    except _DAMAGE as error:
        if path.exists():
            why = _first_line(error)
            raise WeightsError(f"{path} is damaged, or another network's ({why}); delete it, and {where}") from error
        raise WeightsError(f"the weights {member} cannot be downloaded ({_first_line(error)}); {where}") from error
    return network


def hash_weights(network: nn.Module) -> str:
    """Hash every tensor of a network."""
    return hash_arrays({name: _as_numpy(tensor) for name, tensor in network.state_dict().items()})


def _as_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = tensor.detach().cpu().contiguous().numpy()
    return array


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _list(names: list[str]) -> str:
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
