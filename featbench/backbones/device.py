"""Where networks run."""

from __future__ import annotations

import torch

from featbench.errors import UsageError


def resolve_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda" or "cuda:N" into a device.

    Raises:
        UsageError: It is none of these, or there is no such device here.
    """
    count = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or not ((number.isdecimal() and len(number) < 5) or name == "cuda"):
        raise UsageError(f"unknown device {name!r}; it may be auto, cpu, cuda or cuda:N")
    if int(number or 0) >= count:
        raise UsageError(f"there is no device {name!r} here; CUDA devices found: {count}")
    return torch.device(f"cuda:{number or 0}")
