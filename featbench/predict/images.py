"""Files to predict, and what they go through where a model was trained on arrays."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from featbench.data.names import url_of
from featbench.data.preprocess import Preprocess
from featbench.data.walk import ENDINGS, walk

_LONGEST = 200  # characters of a path in a message


@dataclass(frozen=True)
class ArrayPreprocess(Preprocess):
    """The preprocessing of a model whose training images were arrays of one shape (height, width, channels).

    An image is first brought to that shape: to grey where it has one channel, then, where its size is another,
    resized and cropped to the centre. From there on it is treated as a training image.
    """

    array_shape: tuple[int, int, int] = (1, 1, 3)

    @property
    def photo_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of every image after it is fitted."""
        channels, height, width = self.fit_image(Image.new("RGB", (8, 8))).shape
        return channels, height, width

    def fit_image(self, image: Image.Image) -> Tensor:
        """Fit one RGB image; see `Preprocess.fit_batch`. Returns (C, h, w) uint8."""
        height, width, channels = self.array_shape
        image = image.convert("L") if channels == 1 else image
        if image.size != (width, height):
            image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image).reshape(self.array_shape))
        return self.fit_batch(pixels.permute(2, 0, 1)[None])[0]


def find_images(places: Iterable[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """List image files: a folder stands for all images below it, sorted by path.

    Returns:
        The files, of which those that were named need not exist or be images; and folders of no use and what cannot be
        the path of a file, with the reason.
    """
    files: list[Path] = []
    wrong: list[tuple[Path, str]] = []
    for place in places:
        if not os.path.isdir(place):  # noqa: PTH112  # where a path is too long or has a NUL, Path's own raises
            reason = _no_path(place)
            path = str(place)
            files += [] if reason else [place]
            wrong += [(Path(path if len(path) <= _LONGEST else f"{path[:_LONGEST]}..."), reason)] if reason else []
            continue
        found = list(walk(place))
        images = [Path(each.path) for each in found if not each.reason]
        wrong += [(Path(each.path), each.reason) for each in found if each.lost]
        if not images:
            wrong.append((place, f"no file in this folder ends in {' '.join(ENDINGS)}"))
        files += images
    return files, wrong


def _no_path(place: Path) -> str:
    """Say why no file can have this path; "" where one can."""
    url = url_of(place)
    if url:
        return f"{url} is a URL, and URLs are not fetched; download it"
    try:
        place.stat()
    except OSError as error:
        return "its path is longer than this system allows" if error.errno == errno.ENAMETOOLONG else ""
    except ValueError:
        return "no path has a NUL character; give a path a line, as find -print does, not -print0"
    return ""
