"""Preprocessing: from a decoded image to the input that a backbone was trained on.

It has two halves. `fit` resizes and crops to uint8, photos one by one, arrays in whole batches; `normalise` scales and
standardises a uint8 batch on the device that runs the network. What travels between them is a quarter of the size of
floats.

Photos are decoded by Pillow and resized by torchvision's antialiased resize of bytes, which takes a quarter of the time
of Pillow's. The weights' own `transforms()` use Pillow's for a photo: the two differ by rounding, by at most 1 of 255
(bicubic: 2) in about 1 of 500 values of a photo.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_modes_mapping
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_WHOLE_PIXELS = 2**24  # resized, a line of 1x5000 would have 20 times as many before it is cropped


@dataclass(frozen=True)
class Preprocess:
    """Resize the shorter side to `resize_px`, cut out the centre `crop_px` square, scale to [0, 1], standardise.

    `mean` and `std` are those of an image in [0, 1], a number a channel: with three, grey becomes three equal channels,
    with one, colour becomes grey. `interpolation` is a name of torchvision's InterpolationMode. For the pixels
    themselves there are `native_arrays` (arrays keep one channel and are never enlarged) and an empty `mean` (nothing
    is standardised).
    """

    resize_px: int
    crop_px: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    antialias: bool = True
    native_arrays: bool = False

    @property
    def channels(self) -> int:
        """Channels of fitted images, 1 or 3; of `native_arrays` those that are no arrays."""
        return len(self.mean) or 3

    @property
    def photo_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of a photo after it is fitted."""
        return self.channels, self.crop_px, self.crop_px

    def at_size(self, size_px: int | None) -> Preprocess:
        """Return the same preprocessing for another crop, the resize in proportion; None changes nothing."""
        if size_px is None:
            return self
        content = asdict(self) | {"crop_px": size_px, "resize_px": round(self.resize_px * size_px / self.crop_px)}
        return Preprocess(**content)

    def fit_image(self, image: Image.Image) -> Tensor:
        """Resize and crop one RGB image. Returns (channels, crop_px, crop_px) uint8."""
        if self.channels == 1:
            image = image.convert("L")
        shorter_px, longer_px = sorted(image.size)
        resized_px = int(self.resize_px * longer_px / shorter_px)
        if self.resize_px * resized_px > _WHOLE_PIXELS and resized_px > self.crop_px:
            resized = self._resize_middle(image, resized_px)
        else:
            few = image.width * image.height <= _WHOLE_PIXELS  # more are not copied; Pillow resizes what it has
            resized = F.resize(_pixels(image) if few else image, [self.resize_px], self._mode, antialias=True)
        cropped = F.center_crop(resized, [self.crop_px])
        return cropped if isinstance(cropped, Tensor) else _pixels(cropped)

    def _resize_middle(self, image: Image.Image, resized_px: int) -> Image.Image:
        """Resize to `resized_px` on the longer side, but only what the crop can see: the same but for rounding."""
        start_px = round((resized_px - self.crop_px) / 2)
        source_px = max(image.size) / resized_px
        left, right = start_px * source_px, (start_px + self.crop_px) * source_px
        size: tuple[int, int] = (self.resize_px, self.crop_px)
        seen: tuple[float, float, float, float] = (0, left, image.width, right)
        if image.width > image.height:
            size, seen = (self.crop_px, self.resize_px), (left, 0, right, image.height)
        return image.resize(size, pil_modes_mapping[self._mode], box=seen)

    def fit_batch(self, images: Tensor) -> Tensor:
        """Resize and crop a batch of arrays: (B, C, H, W) uint8. Returns (B, channels, crop_px, crop_px) uint8."""
        shorter_px = min(images.shape[2:])
        if self.native_arrays and shorter_px < self.crop_px:
            native: Tensor = F.center_crop(images, [shorter_px])
            return native
        if not self.native_arrays and images.shape[1] < self.channels:  # small yet, and of the layout resized fastest
            images = images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        resized = F.resize(images, [self.resize_px], self._mode, antialias=self.antialias)
        cropped: Tensor = F.center_crop(resized, [self.crop_px])
        if self.native_arrays or cropped.shape[1] == self.channels:
            return cropped
        grey: Tensor = F.rgb_to_grayscale(cropped)
        return grey

    def normalise(self, images: Tensor) -> Tensor:
        """Scale and standardise a batch.

        Args:
            images: (B, C, h, w) uint8.

        Returns:
            float32 of the same shape, on the same device, channels last in memory.
        """
        inputs = torch.empty(images.shape, device=images.device, memory_format=torch.channels_last)
        rows = inputs.permute(0, 2, 3, 1).flatten(2)  # each has the channels of w pixels, one after the other
        mean, std = (torch.tensor(of, device=images.device).repeat(images.shape[3]) for of in (self.mean, self.std))
        step = 1 if images.device.type == "cpu" else len(images)  # one image stays in a processor's cache
        for start in range(0, len(images), step):
            flat = rows[start : start + step]
            inputs[start : start + step].copy_(images[start : start + step])
            flat.div_(255)
            if self.mean:
                flat.sub_(mean).div_(std)
        return inputs

    @property
    def _mode(self) -> InterpolationMode:
        return InterpolationMode(self.interpolation)

    def content(self) -> dict[str, Any]:
        """Return what belongs in a fingerprint."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}


def _pixels(image: Image.Image) -> Tensor:
    """Return the pixels of a grey or RGB image: (C, H, W) uint8, channels last in memory."""
    return torch.from_numpy(np.array(image).reshape(image.height, image.width, -1)).permute(2, 0, 1)


def from_transforms(transforms: Any) -> Preprocess:
    """Read the preprocessing that torchvision's weights come with (`weights.transforms()`)."""
    return Preprocess(
        resize_px=int(transforms.resize_size[0]),
        crop_px=int(transforms.crop_size[0]),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
        antialias=bool(transforms.antialias),
    )
