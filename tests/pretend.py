"""A GPU for machines without one: tensors that say they are on it, and compute on the CPU.

What a real one refuses fails here, too: tensors of two devices in one operation, and numpy on what is not on the CPU.
It sees every call of torch through `TorchFunctionMode`, and leans on nothing of torch that is not documented.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

GPU = torch.device("cuda:0")
_PLACES: dict[Any, Callable[[bool], Any]] = {
    Tensor.device.__get__: lambda there: GPU if there else torch.device("cpu"),
    Tensor.is_cuda.__get__: lambda there: there,
    Tensor.is_cpu.__get__: lambda there: not there,
}
_INDEXING = (Tensor.__getitem__, Tensor.__setitem__, Tensor.index_put_, Tensor.index_put)
_NUMPY = (Tensor.numpy, Tensor.__array__)


class _OnGpu(Tensor):
    """A tensor that says it is on the GPU; `inner` has its numbers, in the same memory."""

    inner: Tensor


class _PretendedGpu(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)
        given = [value for value in _leaves((args, kwargs)) if isinstance(value, Tensor)]
        there = [value for value in given if isinstance(value, _OnGpu)]
        if func in _PLACES:
            return _PLACES[func](bool(there))
        if func in _NUMPY and there:
            raise TypeError(f"a tensor on {GPU} cannot become an array; copy it to the CPU first")
        moves = func in (Tensor.to, Tensor.cpu, Tensor.cuda)
        if there and not moves and func is not Tensor.copy_:
            _check_one_device(func, args, given)
        wanted = _wanted_device(func, args, kwargs)
        to_gpu = bool(there) if wanted is None else wanted.type == GPU.type
        if moves and wanted is not None and to_gpu != bool(there):
            kwargs = kwargs | {"copy": True}  # the two devices share no memory
        plain_args, plain = _replaced((args, kwargs))
        if func in (Tensor.cpu, Tensor.cuda):
            func, plain_args = Tensor.to, (plain_args[0], torch.device("cpu"))
        result = func(*plain_args, **plain)
        if func is Tensor.copy_:
            return args[0]
        known = {id(value.inner): value for value in there}  # in place: the tensor that was given
        return _wrapped(result, known) if to_gpu else result


def _check_one_device(func: Any, args: Any, given: list[Tensor]) -> None:
    """Refuse tensors on the CPU beside those on the GPU; numbers may be, and so may places to index."""
    checked = [args[0], *args[2:]] if func in _INDEXING else given
    here = [value for value in checked if isinstance(value, Tensor) and not isinstance(value, _OnGpu) and value.dim()]
    if here:
        shapes = [tuple(value.shape) for value in here]
        raise RuntimeError(f"{func.__name__}: tensors on {GPU} and on the CPU, those of shape {shapes}")


def _wanted_device(func: Any, args: Any, kwargs: Any) -> torch.device | None:
    """Return the device that a call names, if any."""
    if func is Tensor.cpu:
        return torch.device("cpu")
    if func is Tensor.cuda:
        return GPU
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"])
    if func is Tensor.to and len(args) > 1:
        if isinstance(args[1], Tensor):
            return GPU if isinstance(args[1], _OnGpu) else torch.device("cpu")
        return torch.device(args[1]) if isinstance(args[1], str | torch.device) else None
    return None


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _replaced(value: Any) -> Any:
    """Put the CPU in place of every GPU, and plain tensors in place of those on it."""
    if isinstance(value, dict):
        return {
            name: torch.device("cpu") if name == "device" and item is not None else _replaced(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(map(_replaced, value)) if type(value) in (list, tuple) else value
    if isinstance(value, torch.device) or (isinstance(value, str) and value.startswith("cuda")):
        return torch.device("cpu")
    return value.inner if isinstance(value, _OnGpu) else value


def _wrapped(value: Any, known: dict[int, _OnGpu]) -> Any:
    if isinstance(value, Tensor):
        if id(value) in known:
            return known[id(value)]
        made = value.as_subclass(_OnGpu)
        made.inner = value
        return made
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # as what torch.linalg returns
        return type(value)._make(_wrapped(item, known) for item in value)  # type: ignore[attr-defined]
    if isinstance(value, tuple) and type(value).__module__ == "torch.return_types":
        return type(value)([_wrapped(item, known) for item in value])
    return type(value)(_wrapped(item, known) for item in value) if type(value) in (list, tuple) else value


@contextmanager
def pretended_gpu() -> Iterator[str]:
    """Make "cuda" a device of this thread."""
    with _PretendedGpu():
        yield "cuda"
