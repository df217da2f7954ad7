from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from featbench.baselines.augment import augment


def images(count: int, size: int = 16) -> Tensor:
    """Images with no two equal pixels in one of them, none black."""
    pixels = torch.stack([torch.randperm(254, generator=torch.Generator().manual_seed(i)) + 1 for i in range(count)])
    return pixels[:, : size * size // 2].repeat(1, 2).view(count, 1, size, size).expand(-1, 3, -1, -1).to(torch.uint8)


def draw(batch: Tensor, preset: str, seed: int = 0) -> Tensor:
    return augment(batch, preset, torch.Generator().manual_seed(seed))


def shifts(image: Tensor) -> list[Tensor]:
    """List the image moved by up to an eighth of its size in each direction, black where nothing is."""
    reach = image.shape[-1] // 8
    padded = F.pad(image, (reach,) * 4)
    size = image.shape[-1]
    places = range(2 * reach + 1)
    return [padded[:, top : top + size, left : left + size] for top in places for left in places]


def is_one_of(image: Tensor, candidates: list[Tensor]) -> bool:
    return any(torch.equal(image, candidate) for candidate in candidates)


def test_none_changes_nothing() -> None:
    assert torch.equal(draw(images(8), "none"), images(8))


def test_a_flip_mirrors_about_half_of_the_images() -> None:
    batch = images(200)
    flipped = draw(batch, "flip")
    mirrored = [torch.equal(new, old.flip(2)) for new, old in zip(flipped, batch, strict=True)]
    kept = [torch.equal(new, old) for new, old in zip(flipped, batch, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 70 < sum(mirrored) < 130


def test_a_crop_shifts_each_image_by_itself() -> None:
    batch = images(1).expand(60, -1, -1, -1)
    shifted = draw(batch, "crop")
    assert all(is_one_of(new, shifts(batch[0])) for new in shifted)
    assert len({new.numpy().tobytes() for new in shifted}) > 10


def test_flip_crop_does_both() -> None:
    batch = images(60)
    straight = mirrored = 0
    for new, old in zip(draw(batch, "flip_crop"), batch, strict=True):
        straight += is_one_of(new, shifts(old))
        mirrored += is_one_of(new, shifts(old.flip(2)))
    assert straight + mirrored == 60
    assert min(straight, mirrored) > 10


def test_erase_puts_noise_into_a_rectangle_of_about_half_of_the_images() -> None:
    grey = torch.full((400, 3, 32, 32), 128, dtype=torch.uint8)
    # flips and crops leave grey grey, and put black at the edges
    changed = ((draw(grey, "flip_crop_erase") != 128) & (draw(grey, "flip_crop") == 128)).any(1)
    erased = changed[changed.flatten(1).sum(1) > 0]
    assert 150 < len(erased) < 250
    shares = erased.float().mean((1, 2))
    assert shares.max() <= 0.42
    assert shares.std() > 0.05
    for mask in erased:
        inside = mask[mask.any(1)][:, mask.any(0)]
        assert inside.float().mean() > 0.9  # noise can be 128 by chance; black edges are not counted


@pytest.mark.parametrize("preset", ["none", "flip", "crop", "flip_crop", "flip_crop_erase", "flip_resized_crop"])
def test_shape_type_and_input_are_kept(preset: str) -> None:
    batch = torch.randint(0, 256, (5, 1, 8, 12), dtype=torch.uint8)
    before = batch.clone()
    new = draw(batch, preset)
    assert (new.shape, new.dtype) == (batch.shape, torch.uint8)
    assert torch.equal(batch, before)


@pytest.mark.parametrize("preset", ["flip", "crop", "flip_crop", "flip_crop_erase"])
def test_the_seed_decides(preset: str) -> None:
    assert torch.equal(draw(images(20), preset, 3), draw(images(20), preset, 3))
    assert not torch.equal(draw(images(20), preset, 3), draw(images(20), preset, 4))


def flip_and_resized_crop() -> nn.Module:
    return v2.Compose([v2.RandomHorizontalFlip(0.5), v2.RandomResizedCrop((16, 16), scale=(0.08, 1.0))])


@pytest.mark.parametrize(
    ("preset", "transform"),
    [
        ("flip_resized_crop", flip_and_resized_crop),
        ("trivial_augment", v2.TrivialAugmentWide),
        ("rand_augment", v2.RandAugment),
    ],
)
def test_policies_are_those_of_torchvision_image_by_image(preset: str, transform: Callable[[], nn.Module]) -> None:
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    changed = augment(images, preset, torch.Generator().manual_seed(5))
    assert torch.equal(torch.get_rng_state(), state)
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(5)))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        expected = torch.stack([transform()(image) for image in images])
    assert torch.equal(changed, expected)
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, images)
