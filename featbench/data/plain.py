"""Finding images that are of one colour, or nearly: a wrong bit depth, a covered lens, a damaged disk."""

from __future__ import annotations

import torch
from torch import Tensor

_NEARLY = 3  # of 255
_GRID_PX = 16  # side of a coarse grid; most images differ there already, and need no closer look


def nearly_constant(images: Tensor) -> list[int]:
    """Find images whose values hardly differ within any channel: (B, C, h, w) uint8. Returns their numbers."""
    if not images.numel():
        return []
    steps = [max(1, side // _GRID_PX) for side in images.shape[2:]]
    doubtful = torch.nonzero(_plain(images[:, :, :: steps[0], :: steps[1]])).flatten()
    return [int(number) for number in doubtful if _plain(images[number : number + 1]).item()]


def _plain(images: Tensor) -> Tensor:
    difference = images.amax((2, 3)) - images.amin((2, 3))
    return (difference <= _NEARLY).all(1)
