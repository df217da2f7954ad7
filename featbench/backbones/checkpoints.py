"""Weights files: the named tensors in one, whose kind is found from its bytes, not from its ending.

Nothing in a file is executed: an object that only code could make, such as a Namespace, becomes an empty stand-in.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from featbench.errors import WeightsError, first_line

# torch raises any of these on a damaged file
DAMAGE = (
    SafetensorError,
    pickle.UnpicklingError,
    RuntimeError,
    AssertionError,
    EOFError,
    OSError,
    TypeError,
    AttributeError,
    ValueError,
    LookupError,
    struct.error,
)
_DEPTH = 4  # of mappings in mappings: a dict may hold itself
_SAVE = "save its state dict where it was made: torch.save(network.state_dict(), 'weights.pth')"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read every named tensor of a safetensors file, or of one that `torch.save` wrote, whatever it is called.

    A tensor in a mapping in the file has the names of both, as in "state_dict.conv1.weight". Other values (the
    epoch, settings) are ignored.

    Raises:
        WeightsError: The file is missing or damaged, or has no named tensors.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}")
    inert: dict[str, type[_Inert]] = {}
    try:
        if _is_safetensors(path):
            content: Any = safetensors.torch.load_file(path)
        else:
            if _is_torchscript(path):
                raise WeightsError(
                    f"{path} is a TorchScript archive, which holds code and is not loaded; if you trust it, save its "
                    f"tensors: torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pth')"
                )
            inert = _stand_ins(path)
            allowed = torch.serialization.safe_globals([(stand_in, name) for name, stand_in in inert.items()])
            with allowed, path.open("rb") as file:  # given a path, torch goes by its ending
                content = torch.load(file, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        # other errors' texts do not help, or advise to execute what is in the file
        is_useful = isinstance(error, SafetensorError | OSError)
        reason = f" ({first_line(error)})" if is_useful else ""
        raise WeightsError(
            f"{path} is damaged, or neither safetensors nor a file of torch.save, or holds what only code could make, "
            f"and is not loaded{reason}"
        ) from error
    if isinstance(content, _Inert):
        raise WeightsError(f"{path} holds a whole {content.name}, which only executing code would open; {_SAVE}")
    tensors = dict(_named_tensors(content)) if isinstance(content, Mapping) else {}
    if not tensors:
        objects = f", but objects ({', '.join(sorted(inert)[:3])})" if inert else ""
        raise WeightsError(f"{path} holds no named tensors{objects}; {_SAVE}")
    return tensors


class _Inert:
    """Stands in for an object that is not created."""

    name = ""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _stand_ins(path: Path) -> dict[str, type[_Inert]]:
    """Make a stand-in for every class and function that a file names and torch does not know as safe."""
    if not zipfile.is_zipfile(path):  # torch lists those of its newer format only
        return {}
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return {name: type("_Inert", (_Inert,), {"name": name}) for name in names}


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _named_tensors(content: Mapping[Any, Any], prefix: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Tensor]]:
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping) and depth:
            yield from _named_tensors(value, f"{prefix}{key}.", depth - 1)
