"""What is said of images that are read, but may not be what the user takes them for: counts, by kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

TWELVE_BITS, CONSTANT = "twelve_bits", "constant"
NOTES = {
    TWELVE_BITS: "16-bit grey with no value above 4,095, as 12-bit cameras save it: at most 16 of 256 grey levels are "
    "left; multiply the values by 16",
    CONSTANT: "of one colour, or nearly, once decoded; look at one of them",
}

Notes = Mapping[str, tuple[int, str]]
"""Kind -> the number of images, and the id of the first."""

_NEARLY = 3  # of 255
_FEW_PX = 16  # a side of the grid that tells most images from plain ones at once


def add_notes(*each: Notes) -> Notes:
    """Add up the notes of parts; the first part with an example gives it."""
    total: dict[str, tuple[int, str]] = {}
    for notes in each:
        for kind, (count, example) in notes.items():
            before, first = total.get(kind, (0, example))
            total[kind] = (before + count, first)
    return total


def count_notes(found: Iterable[tuple[str, str]]) -> Notes:
    """Count (kind, id) pairs."""
    return add_notes(*({kind: (1, image)} for kind, image in found))


def nearly_constant(images: Tensor) -> list[int]:
    """Find images whose values hardly differ within any channel: (B, C, h, w) uint8. Returns their numbers."""
    if not images.numel():
        return []
    steps = [max(1, side // _FEW_PX) for side in images.shape[2:]]
    doubtful = torch.nonzero(_plain(images[:, :, :: steps[0], :: steps[1]])).flatten()
    return [int(number) for number in doubtful if _plain(images[number : number + 1]).item()]


def _plain(images: Tensor) -> Tensor:
    difference = images.amax((2, 3)) - images.amin((2, 3))
    return (difference <= _NEARLY).all(1)
