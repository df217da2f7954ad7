from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from featbench.data.preprocess import Preprocess, from_transforms

RNG = np.random.default_rng(0)
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def distinct_weights() -> list[Any]:
    """One of torchvision's classification weights for each preprocessing that there is."""
    found = {}
    for name in models.list_models(module=models):
        for weights in models.get_model_weights(name):
            t = weights.transforms()
            key = (*t.resize_size, *t.crop_size, t.interpolation, *t.mean, *t.std, t.antialias)
            found.setdefault(key, weights)
    return list(found.values())


WEIGHTS = distinct_weights()


def test_torchvision_has_several_preprocessings() -> None:
    assert len(WEIGHTS) > 10


@pytest.fixture(scope="module")
def noise() -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (300, 430, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def photo(shared_dir: Path) -> Image.Image:
    return Image.open(shared_dir / "data/hymenoptera/train/bees/1092977343_cb42b38d62.jpg").convert("RGB")


def levels_apart(preprocess: Preprocess, image: Image.Image, transforms: Any) -> torch.Tensor:
    """By how many of 255 levels each value differs from that of torchvision's transforms, which resize with Pillow."""
    got = preprocess.normalise(preprocess.fit_image(image)[None])[0]
    return ((got - transforms(image)) * torch.tensor(transforms.std).view(-1, 1, 1) * 255).abs()


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("picture", ["noise", "photo"])
def test_photos_go_through_the_weights_own_transforms(
    weights: Any, picture: str, request: pytest.FixtureRequest
) -> None:
    image = request.getfixturevalue(picture)
    preprocess = from_transforms(weights.transforms())
    assert preprocess.fit_image(image).dtype == torch.uint8
    apart = levels_apart(preprocess, image, weights.transforms())
    assert apart.max() < (1.001 if preprocess.interpolation == "bilinear" else 2.001)
    assert (apart > 0.001).float().mean() < 0.01


@pytest.mark.parametrize("size", [(40, 30), (64, 64), (90, 200)])
def test_images_smaller_than_the_crop_are_as_in_torchvision(size: tuple[int, int]) -> None:
    transforms = models.ResNet18_Weights.DEFAULT.transforms()
    image = Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    apart = levels_apart(from_transforms(transforms), image, transforms)
    assert apart.max() < 1.001
    assert (apart > 0.001).float().mean() < 0.01


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (250, 1), (3, 700), (2000, 10), (15_000, 500)])
def test_narrow_images_are_as_in_torchvision(size: tuple[int, int]) -> None:
    transforms = models.ResNet18_Weights.DEFAULT.transforms()
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    apart = levels_apart(from_transforms(transforms), image, transforms)
    assert apart.max() < 2.001  # noise, in one direction nearly as it was: both round between the directions
    assert (apart > 0.001).float().mean() < 0.2


def test_photos_beyond_what_is_copied_are_those_of_pillow() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (4200, 4000, 3), dtype=np.uint8))
    transforms = models.ResNet18_Weights.DEFAULT.transforms()
    assert levels_apart(from_transforms(transforms), image, transforms).max() < 0.001


@pytest.mark.parametrize("interpolation", RESAMPLING)
@pytest.mark.parametrize("size", [(1, 700), (700, 1), (3, 1999), (2003, 7)])
def test_the_middle_of_very_narrow_images_is_that_of_the_whole(size: tuple[int, int], interpolation: str) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    preprocess = Preprocess(256, 224, interpolation=interpolation)
    whole_px = 256 * max(size) // min(size)
    whole = image.resize((256, whole_px) if size[0] < size[1] else (whole_px, 256), RESAMPLING[interpolation])
    left, top = (round((side - 224) / 2) for side in whole.size)
    expected = np.asarray(whole.crop((left, top, left + 224, top + 224))).transpose(2, 0, 1)
    difference = np.abs(preprocess.fit_image(image).numpy().astype(int) - expected)
    # Pillow rounds, and bicubic clips, between the two directions, whose order follows the size
    assert difference.max() <= (1 if interpolation == "bilinear" else 8)
    assert difference.mean() < 0.5


@pytest.mark.parametrize("size", [(1, 5000), (65_000, 2)])
def test_lines_of_pixels_take_little_memory(size: tuple[int, int]) -> None:
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert Preprocess(256, 224).fit_image(Image.new("RGB", size)).shape == (3, 224, 224)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 200_000


@pytest.mark.parametrize("interpolation", RESAMPLING)
@pytest.mark.parametrize(("from_px", "to_px"), [(32, 224), (8, 32), (224, 32), (100, 64), (64, 64)])
def test_arrays_are_resized_like_pillow_does(interpolation: str, from_px: int, to_px: int) -> None:
    pixels = RNG.integers(0, 256, (2, from_px, from_px, 3), dtype=np.uint8)
    expected = [
        np.asarray(Image.fromarray(image).resize((to_px, to_px), RESAMPLING[interpolation])) for image in pixels
    ]
    preprocess = Preprocess(to_px, to_px, interpolation=interpolation)
    fitted = preprocess.fit_batch(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert fitted.dtype == torch.uint8
    difference = np.abs(fitted.permute(0, 2, 3, 1).numpy().astype(int) - np.stack(expected))
    assert difference.max() <= 1


def test_arrays_are_cropped_in_the_middle() -> None:
    pixels = torch.arange(36, dtype=torch.uint8).reshape(1, 1, 6, 6)
    fitted = Preprocess(6, 2).fit_batch(pixels)
    assert fitted[0, 0].tolist() == [[14, 15], [20, 21]]


def test_grey_arrays_become_three_equal_channels() -> None:
    grey = torch.from_numpy(RNG.integers(0, 256, (2, 1, 8, 8), dtype=np.uint8))
    fitted = Preprocess(8, 8).fit_batch(grey)
    assert fitted.shape == (2, 3, 8, 8)
    assert torch.equal(fitted, grey.expand(2, 3, 8, 8))


def test_normalise_by_hand() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    got = Preprocess(1, 1, mean=(0.5, 0.1, 0.25), std=(0.5, 0.2, 0.25)).normalise(pixels)
    torch.testing.assert_close(got.flatten(), torch.tensor([-1.0, 0.5, 3.0]))
    assert pixels.flatten().tolist() == [0, 51, 255]  # left as they were


def test_pixels_are_only_scaled() -> None:
    got = Preprocess(1, 1, mean=(), std=()).normalise(torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8))
    torch.testing.assert_close(got.flatten(), torch.tensor([0.0, 0.2, 1.0]))


@pytest.mark.parametrize("channels", [1, 3])
def test_small_arrays_stay_native_for_pixels(channels: int) -> None:
    pixels = torch.from_numpy(RNG.integers(0, 256, (4, channels, 8, 8), dtype=np.uint8))
    assert torch.equal(Preprocess(32, 32, native_arrays=True).fit_batch(pixels), pixels)


def test_large_arrays_are_reduced_for_pixels() -> None:
    pixels = torch.zeros(1, 1, 96, 96, dtype=torch.uint8)
    assert Preprocess(32, 32, native_arrays=True).fit_batch(pixels).shape == (1, 1, 32, 32)


def test_another_size_keeps_the_proportion() -> None:
    preprocess = Preprocess(256, 224)
    assert preprocess.at_size(None) == preprocess
    other = preprocess.at_size(112)
    assert (other.resize_px, other.crop_px) == (128, 112)
    assert (other.mean, other.std, other.interpolation) == (preprocess.mean, preprocess.std, preprocess.interpolation)


@pytest.mark.parametrize(
    "other",
    [
        Preprocess(256, 200),
        Preprocess(232, 224),
        Preprocess(256, 224, mean=(0.5, 0.5, 0.5)),
        Preprocess(256, 224, std=(0.5, 0.5, 0.5)),
        Preprocess(256, 224, interpolation="bicubic"),
        Preprocess(256, 224, antialias=False),
        Preprocess(256, 224, native_arrays=True),
    ],
)
def test_every_setting_is_in_the_fingerprint(other: Preprocess) -> None:
    assert other.content() != Preprocess(256, 224).content()


def test_with_one_mean_colour_becomes_grey_and_grey_stays() -> None:
    preprocess = Preprocess(8, 8, mean=(0.5,), std=(0.5,))
    colours = RNG.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in colours])[:, None]
    batch = torch.from_numpy(colours).permute(0, 3, 1, 2)
    assert preprocess.channels == 1
    np.testing.assert_array_equal(torch.stack([preprocess.fit_image(Image.fromarray(i)) for i in colours]), expected)
    np.testing.assert_allclose(preprocess.fit_batch(batch).int(), expected, atol=1)  # torchvision rounds down
    grey = torch.from_numpy(expected)
    assert torch.equal(preprocess.fit_batch(grey), grey)
