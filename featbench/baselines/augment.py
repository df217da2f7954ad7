"""Augmentation of whole uint8 batches, on the device that trains, from an explicit generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

_ERASED_SHARE = (0.02, 0.4)  # of the image's area
_ERASED_ASPECT = 1 / 0.3  # height to width, or width to height, at most


def augment(images: Tensor, preset: str, generator: torch.Generator) -> Tensor:
    """Change each image at random, as a preset says.

    "flip" flips with probability 1/2, "crop" shifts by up to an eighth of the size, "erase" erases a part.
    "flip_resized_crop", "trivial_augment" and "rand_augment" are torchvision's RandomResizedCrop (after a flip),
    TrivialAugmentWide and RandAugment with their defaults.

    Args:
        images: (B, C, h, w) uint8.
        preset: One of `Augmentations`.
        generator: Draws what happens to each image; on the CPU.

    Returns:
        A batch of the same shape and dtype. The shift fills with black, as He et al. 2016 do for CIFAR-10; "erase" puts
        noise into a rectangle of half of the images, with the shares and shapes of Zhong et al. 2017, "Random Erasing".
    """
    if (transform := _torchvisions(preset, images.shape[2:])) is not None:
        return _by_image(images, transform, generator)
    if "flip" in preset:
        flipped = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(flipped.to(images.device).view(-1, 1, 1, 1), images.flip(3), images)
    if "crop" in preset:
        images = _random_shift(images, generator)
    if "erase" in preset:
        images = _random_erase(images, generator)
    return images


def _torchvisions(preset: str, size: Sequence[int]) -> nn.Module | None:
    """Return torchvision's transform of a preset; None for one of our own."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "flip_resized_crop": lambda: v2.Compose([v2.RandomHorizontalFlip(), v2.RandomResizedCrop(size)]),
        "trivial_augment": v2.TrivialAugmentWide,
        "rand_augment": v2.RandAugment,
    }
    return makers[preset]() if preset in makers else None


def _by_image(images: Tensor, transform: nn.Module, generator: torch.Generator) -> Tensor:
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):  # torchvision's own draw from the global generator
        torch.default_generator.manual_seed(seed)
        return torch.stack([transform(image) for image in images])


def _random_shift(images: Tensor, generator: torch.Generator) -> Tensor:
    batch, _, height, width = images.shape
    pad = max(1, height // 8)
    padded = F.pad(images, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    top, left = torch.randint(0, 2 * pad + 1, (2, batch), generator=generator).to(images.device)
    device = images.device
    rows = (top[:, None] + torch.arange(height, device=device))[:, :, None]
    columns = (left[:, None] + torch.arange(width, device=device))[:, None, :]
    return padded[torch.arange(batch, device=device)[:, None, None], rows, columns].permute(0, 3, 1, 2)


def _random_erase(images: Tensor, generator: torch.Generator) -> Tensor:
    batch, _, height, width = images.shape
    chosen, share, shape, top, left = torch.rand(5, batch, generator=generator)
    aspect = _ERASED_ASPECT ** (2 * shape - 1)
    share = _ERASED_SHARE[0] + share * (_ERASED_SHARE[1] - _ERASED_SHARE[0])
    tall = (share * aspect).sqrt().clamp(max=1) * height
    wide = (share / aspect).sqrt().clamp(max=1) * width
    rows = _between(torch.arange(height), top * (height - tall), tall)
    columns = _between(torch.arange(width), left * (width - wide), wide)
    erased = (chosen < 0.5)[:, None, None] & rows[:, :, None] & columns[:, None, :]
    noise = torch.randint(0, 256, images.shape, generator=generator, dtype=torch.uint8).to(images.device)
    return torch.where(erased[:, None].to(images.device), noise, images)


def _between(places: Tensor, start: Tensor, length: Tensor) -> Tensor:
    return (places >= start[:, None]) & (places < (start + length)[:, None])
