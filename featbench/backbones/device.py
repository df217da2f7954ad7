"""Where networks run, and how their weights lie in memory there."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format

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


def with_channels_last(network: nn.Module) -> nn.Module:
    """Lay out the weights of a network's convolutions for images with channels last, in place, and return it.

    `network.to(memory_format=...)` converts every other tensor, too, and fails on the attention masks of timm's Swin,
    which have five dimensions.
    """
    return convert_conv2d_weight_memory_format(network, torch.channels_last)
