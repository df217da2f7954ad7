"""A GPU for machines without one: tensors that say they are on it, and compute on the CPU.

What a real one refuses fails here, too: tensors of two devices in one operation, and numpy on what is not on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda:0")
_COPIES = ("aten::_to_copy", "aten::copy_")  # what may go from one device to the other


class _OnGpu(torch.Tensor):
    """A tensor that says it is on the GPU; `inner` has its numbers."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> _OnGpu:
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=GPU
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self) -> Any:
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func._schema.name
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, _OnGpu)]
    if there and name not in _COPIES:
        here = [tensor for tensor in tensors if not isinstance(tensor, _OnGpu) and tensor.dim() > 0]
        if name.startswith("aten::index"):  # places may be on the CPU, what is indexed and put there may not
            here = [tensor for tensor in here if any(tensor is each for each in (args[0], *args[2:]))]
        if here:
            raise RuntimeError(f"{name}: tensors on {GPU} and on the CPU, those of shape {[t.shape for t in here]}")
    wanted = kwargs.get("device")
    to_gpu = bool(there) if wanted is None else torch.device(wanted).type == GPU.type
    plain_args, plain = tree_map(lambda value: value.inner if isinstance(value, _OnGpu) else value, (args, kwargs))
    result = func(*plain_args, **plain | ({} if wanted is None else {"device": torch.device("cpu")}))
    if name == "aten::copy_":
        return args[0]
    known = {id(tensor.inner): tensor for tensor in there}  # in place: the tensor that was given

    def wrap(value: Any) -> Any:
        return known.get(id(value), _OnGpu(value)) if isinstance(value, torch.Tensor) else value

    return tree_map(wrap, result) if to_gpu else result


class _Operations(TorchDispatchMode):
    """Catch tensors as they are made; as torch's own fake tensors, without a driver for the GPU."""

    def __init__(self) -> None:
        super().__init__()
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE

    @classmethod
    def is_infra_mode(cls) -> bool:
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Constants(TorchFunctionMode):
    """Catch `torch.tensor`, which otherwise looks for the driver."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.pop("device", None) if func in (torch.tensor, torch.as_tensor) else None
        result = func(*args, **kwargs)
        return result if device is None else result.to(device)


@contextmanager
def pretended_gpu() -> Iterator[str]:
    """Make "cuda" a device of this thread."""
    torch._C._ensureCUDADeviceGuardSet()
    with _Constants(), _Operations():
        yield "cuda"
