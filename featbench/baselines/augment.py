"""Augmentation of whole uint8 batches, on the device that trains, from an explicit generator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def augment(images: Tensor, preset: str, generator: torch.Generator) -> Tensor:
    """Flip each image with probability 1/2, or shift it by up to an eighth of its size, or both.

    Args:
        images: (B, C, h, w) uint8.
        preset: "none", "flip", "crop" or "flip_crop".
        generator: Draws what happens to each image; on the CPU.

    Returns:
        A batch of the same shape and dtype. The shift fills with black, as He et al. 2016 do for CIFAR-10.
    """
    if "flip" in preset:
        flipped = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(flipped.to(images.device).view(-1, 1, 1, 1), images.flip(3), images)
    if "crop" in preset:
        images = _random_shift(images, generator)
    return images


def _random_shift(images: Tensor, generator: torch.Generator) -> Tensor:
    batch, _, height, width = images.shape
    pad = max(1, height // 8)
    padded = F.pad(images, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    top, left = torch.randint(0, 2 * pad + 1, (2, batch), generator=generator).to(images.device)
    device = images.device
    rows = (top[:, None] + torch.arange(height, device=device))[:, :, None]
    columns = (left[:, None] + torch.arange(width, device=device))[:, None, :]
    return padded[torch.arange(batch, device=device)[:, None, None], rows, columns].permute(0, 3, 1, 2)
