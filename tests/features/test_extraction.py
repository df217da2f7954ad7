from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from featbench.backbones.identity import Identity
from featbench.backbones.load import Backbone, load_backbone
from featbench.config import BackboneConfig, DatasetConfig
from featbench.data.datasets import load_dataset
from featbench.data.splits import Dataset
from featbench.errors import CacheError, DataError, UsageError
from featbench.features.extraction import cache_keys, plan_extraction
from featbench.features.load import load_features
from tests.features.extracting import CPU, content, folder_dataset, run, small_network
from tests.tiny import Recorder, image_folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("data") / "photos", per_class=5)


def hooked(network: nn.Module, layers: Sequence[str], images: torch.Tensor) -> dict[str, np.ndarray]:
    """Run a network and average each layer's maps over space."""
    found: dict[str, np.ndarray] = {}
    for layer in layers:
        network.get_submodule(layer).register_forward_hook(
            lambda _, __, output, name=layer: found.__setitem__(name, output.mean((2, 3)).numpy().copy())
        )
    with torch.no_grad():
        network.eval()(images)
    return found


def test_features_are_those_of_a_loop_by_hand(photos: Path, tmp_path: Path) -> None:
    layers = ("layer1.0.bn1", "layer3", "avgpool")  # the ReLU behind the first works in place
    config = BackboneConfig(name="resnet18", weights="random", layers=layers, precision="float32")
    info = run(folder_dataset(photos), config, tmp_path, split="test")

    torch.manual_seed(0)  # the weights that seed 0 draws
    network = resnet18()
    paths = [photos / name for name in load_features(info.path, "layer3")[2]]
    transform = ResNet18_Weights.DEFAULT.transforms()
    expected = hooked(network, layers, torch.stack([transform(Image.open(path)) for path in paths]))
    for layer in layers:  # Pillow, which torchvision's transforms resize with, rounds otherwise in a few pixels
        np.testing.assert_allclose(load_features(info.path, layer)[0], expected[layer], rtol=1e-3, atol=1e-3)


def test_features_of_arrays_are_those_of_a_loop_by_hand(tmp_path: Path) -> None:
    config = small_network()
    dataset = load_dataset(DatasetConfig(name="digits", limit_train=20), tmp_path, seed=0)
    backbone = load_backbone(config, seed=0)
    X, y, ids = load_features(run(dataset, config, tmp_path, backbone=backbone).path, "layer3")

    rows = [int(name.removeprefix("digits/")) for name in ids]
    bunch = load_digits()
    assert y.tolist() == bunch.target[rows].tolist()
    grey = torch.from_numpy(np.rint(bunch.images[rows] * 255 / 16).astype(np.uint8))[:, None].expand(-1, 3, -1, -1)
    images = F.resize(grey, [32], InterpolationMode.BILINEAR, antialias=True).float() / 255
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    expected = hooked(backbone.network, ["layer3"], (images - mean[:, None, None]) / std[:, None, None])["layer3"]
    np.testing.assert_allclose(X, expected, rtol=1e-4, atol=1e-5)


def test_pixels_are_the_pixels(tmp_path: Path) -> None:
    dataset = load_dataset(DatasetConfig(name="digits", limit_train=20), tmp_path, seed=0)
    info = run(dataset, BackboneConfig(name="pixels"), tmp_path)
    X, _, ids = load_features(info.path, "pixels")
    rows = [int(name.removeprefix("digits/")) for name in ids]
    np.testing.assert_allclose(X, load_digits().data[rows] / 16, atol=0.5 / 255)


def test_rows_labels_and_ids_stay_together_and_in_order(photos: Path, tmp_path: Path) -> None:
    split = folder_dataset(photos).splits["train"]
    X, y, ids = load_features(run(folder_dataset(photos), BackboneConfig(name="pixels"), tmp_path).path, "pixels")
    assert ids == list(split.ids) == sorted(ids)
    assert [("blue", "green", "red")[label] for label in y] == [name.split("/")[0] for name in ids]
    brightest = X.reshape(len(X), 3, -1).mean(2).argmax(1)
    assert [("red", "green", "blue")[channel] for channel in brightest] == [name.split("/")[0] for name in ids]


@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_the_batch_size_changes_neither_features_nor_name(photos: Path, tmp_path: Path, batch_size: int) -> None:
    dataset = folder_dataset(photos)
    reference = run(dataset, small_network(), tmp_path / "one")
    other = run(dataset, small_network(batch_size=batch_size), tmp_path / "two")
    assert other.path.name == reference.path.name
    for layer in ("layer1", "layer3"):
        expected = load_features(reference.path, layer)[0]
        np.testing.assert_allclose(load_features(other.path, layer)[0], expected, rtol=1e-5, atol=1e-5)


def test_the_number_of_threads_does_not_change_features(photos: Path, tmp_path: Path) -> None:
    dataset, threads = folder_dataset(photos), torch.get_num_threads()
    expected = load_features(run(dataset, small_network(), tmp_path / "all").path, "layer3")[0]
    torch.set_num_threads(1)
    try:
        X = load_features(run(dataset, small_network(), tmp_path / "one").path, "layer3")[0]
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(X, expected, rtol=1e-5, atol=1e-5)


def test_a_second_run_reuses_the_file(photos: Path, tmp_path: Path) -> None:
    dataset, progress = folder_dataset(photos), Recorder()
    path = run(dataset, small_network(), tmp_path).path
    before = (path.stat().st_ino, path.read_bytes())
    run(dataset, small_network(), tmp_path, progress=progress)
    assert (path.stat().st_ino, path.read_bytes()) == before
    assert progress.said == [f"resnet20 train: reused {path}"]
    assert progress.bars == []


def test_only_the_missing_layer_is_computed(photos: Path, tmp_path: Path) -> None:
    dataset = folder_dataset(photos)
    first = run(dataset, small_network(layers=("layer1",)), tmp_path)
    earlier = load_features(first.path, "layer1")[0]
    backbone = load_backbone(small_network(), seed=0)
    passes: list[str] = []
    backbone.network.get_submodule("layer1.0.conv1").register_forward_hook(lambda *_: passes.append("pass"))
    both = run(dataset, small_network(layers=("layer1", "layer2")), tmp_path, backbone=backbone)
    assert passes  # layer2 stands on layer1, so the network ran ...
    assert both.path == first.path
    assert both.extract_s["layer1"] == first.extract_s["layer1"]  # ... but layer1 was not written anew
    assert np.array_equal(load_features(both.path, "layer1")[0], earlier)
    np.testing.assert_allclose(
        load_features(both.path, "layer2")[0],
        load_features(run(dataset, small_network(layers=("layer2",)), tmp_path / "alone").path, "layer2")[0],
        rtol=1e-5,
        atol=1e-6,
    )


def test_a_damaged_cache_is_not_used(photos: Path, tmp_path: Path) -> None:
    dataset = folder_dataset(photos)
    path = run(dataset, small_network(), tmp_path).path
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CacheError, match=f"{path.name} is damaged"):
        run(dataset, small_network(), tmp_path)


def _change_one_pixel(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
    red, green, blue = image.getpixel((3, 3))
    image.putpixel((3, 3), (red ^ 64, green, blue))
    image.save(path)


def test_one_pixel_of_one_file_changes_the_name(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "dogs").mkdir()
    for number in range(8):
        for name in ("cats", "dogs"):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / name / f"{number}.png")
    names = []
    for _ in range(2):
        dataset = folder_dataset(tmp_path)
        key = _key(dataset, small_network())
        names.append(key)
        _change_one_pixel(tmp_path / dataset.splits["train"].ids[5])
    assert names[0] != names[1]


def _key(
    dataset: Dataset,
    config: BackboneConfig,
    *,
    seed: int = 0,
    change: Callable[[Backbone], Backbone] = lambda backbone: backbone,
) -> str:
    backbone = change(load_backbone(config, seed=seed))
    return cache_keys(dataset, Identity.of(backbone), plan_extraction(config, CPU, "skip"), Path())["train"].fingerprint


def _nudge_one_weight(backbone: Backbone) -> Backbone:
    with torch.no_grad():
        backbone.network.get_parameter("layer2.0.conv1.weight")[0, 0, 0, 0] += 1e-6
    return backbone


def _nudge_one_buffer(backbone: Backbone) -> Backbone:
    backbone.network.get_buffer("bn1.running_mean")[0] += 1e-6
    return backbone


def _preprocess(**changes: Any) -> Callable[[Backbone], Backbone]:
    return lambda backbone: replace(backbone, preprocess=replace(backbone.preprocess, **changes))


@pytest.mark.parametrize(
    "change",
    [
        _nudge_one_weight,
        _nudge_one_buffer,
        _preprocess(mean=(0.49140001, 0.4822, 0.4465)),
        _preprocess(std=(0.25, 0.2435, 0.2616)),
        _preprocess(resize_px=33),
        _preprocess(crop_px=31),
        _preprocess(interpolation="bicubic"),
        _preprocess(antialias=False),
    ],
)
def test_what_the_network_is_changes_the_name(photos: Path, change: Callable[[Backbone], Backbone]) -> None:
    dataset = folder_dataset(photos)
    assert _key(dataset, small_network()) == _key(dataset, small_network())
    assert _key(dataset, small_network(), change=change) != _key(dataset, small_network())


@pytest.mark.parametrize(
    "settings", [{"pooling": "max"}, {"pooling": "avg:2"}, {"precision": "bfloat16"}, {"store": "float16"}]
)
def test_settings_change_the_name(photos: Path, settings: dict[str, str]) -> None:
    dataset = folder_dataset(photos)
    assert _key(dataset, small_network(**settings)) != _key(dataset, small_network())


def test_random_weights_of_another_seed_change_the_name(photos: Path) -> None:
    dataset = folder_dataset(photos)
    assert _key(dataset, small_network(), seed=1) != _key(dataset, small_network())


@pytest.mark.parametrize("same", [{"batch_size": 3}, {"layers": ("layer2",)}])
def test_settings_that_do_not_bear_on_the_numbers_keep_the_name(photos: Path, same: dict[str, Any]) -> None:
    dataset = folder_dataset(photos)
    assert _key(dataset, small_network(**same)) == _key(dataset, small_network())


@pytest.mark.parametrize(
    ("name", "pooling", "layers", "expected"),
    [
        ("timm:test_vit", "tokens", ("blocks.1",), "tokens"),  # one class token, as ever
        ("timm:test_vit", "cls", ("blocks.1",), "cls"),
        ("timm:mixer_s32_224", "avg", ("blocks.1",), "avg"),
        ("timm:mixer_s32_224", "tokens", ("blocks.1", "penultimate"), "tokens:0"),  # other numbers than before
        ("resnet20", "avg:4", ("layer1", "penultimate"), "avg:4"),
        ("resnet20", "avg:4", ("layer1",), "avg:4"),
    ],
)
def test_the_name_goes_by_what_a_pooling_is_for_the_network(
    name: str, pooling: str, layers: tuple[str, ...], expected: str, photos: Path
) -> None:
    config = BackboneConfig(name=name, weights="random", pooling=pooling, layers=layers)
    backbone = load_backbone(config, seed=0)
    size_px = backbone.preprocess.crop_px
    own = backbone.resolve(layers, pooling, (3, size_px, size_px))
    extraction = replace(plan_extraction(config, CPU, "skip"), own_poolings=own)
    keys = cache_keys(folder_dataset(photos), Identity.of(backbone), extraction, Path())
    assert {key.content["pooling"] for key in keys.values()} == {expected}
    assert extraction.pooling_of(layers[0]) == expected


def test_the_seed_of_the_split_changes_the_name(photos: Path) -> None:
    config = DatasetConfig(name="folder", root=photos)
    one, other = (load_dataset(config, photos, seed=seed) for seed in (0, 1))
    assert one.splits["train"].ids != other.splits["train"].ids
    assert _key(one, small_network()) != _key(other, small_network())


def test_splits_have_names_of_their_own(photos: Path) -> None:
    dataset = folder_dataset(photos)
    backbone = load_backbone(small_network(), seed=0)
    keys = cache_keys(dataset, Identity.of(backbone), plan_extraction(small_network(), CPU, "skip"), Path("cache"))
    assert keys.keys() == {"train", "val", "test"}
    assert len({key.fingerprint for key in keys.values()}) == 3
    assert all(key.path.parent == Path("cache/photos/resnet20") for key in keys.values())


def test_unreadable_images_are_left_out_and_the_rest_keeps_its_place(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "photos")
    broken = ["blue/00.jpg", "green/03.jpg", "red/11.jpg"]
    whole = load_features(run(_flat(root), BackboneConfig(name="pixels"), tmp_path / "c1").path, "pixels")
    (root / broken[0]).write_bytes(b"")
    (root / broken[1]).write_text("<html>404</html>")
    (root / broken[2]).write_bytes((root / broken[2]).read_bytes()[:400])
    info = run(_flat(root), BackboneConfig(name="pixels", batch_size=4), tmp_path / "c2")
    X, y, ids = load_features(info.path, "pixels")
    kept = [row for row, name in enumerate(whole[2]) if name not in broken]
    assert ids == [whole[2][row] for row in kept]
    assert y.tolist() == whole[1][kept].tolist()
    assert np.array_equal(X, whole[0][kept])
    assert [name for name, _ in info.skipped] == broken
    assert all(reason and str(root) not in reason for _, reason in info.skipped)


def _flat(root: Path) -> Dataset:
    """All images of a folder as one split, so that the test knows where each goes."""
    dataset = folder_dataset(root)
    parts = list(dataset.splits.values())
    ids = sorted(name for part in parts for name in part.ids)
    labels = np.array([dataset.classes.index(name.split("/")[0]) for name in ids])
    images = replace(parts[0].images, items=tuple(root / name for name in ids))
    return replace(dataset, splits={"train": replace(parts[0], images=images, labels=labels, ids=tuple(ids))})


def test_a_whole_batch_of_unreadable_images_is_left_out(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "photos", per_class=8)
    for number in range(8):
        (root / "green" / f"{number:02d}.jpg").write_bytes(b"x")
    info = run(_flat(root), BackboneConfig(name="pixels", batch_size=8), tmp_path)
    assert load_features(info.path, "pixels")[1].tolist() == [0] * 8 + [2] * 8


def test_no_readable_image_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "photos", per_class=8)
    for path in root.rglob("*.jpg"):
        path.write_bytes(b"x")
    with pytest.raises(DataError, match="none of the 24 images of train can be read"):
        run(_flat(root), small_network(), tmp_path)
    assert not list(tmp_path.rglob("*.h5"))


def test_an_unreadable_image_can_be_an_error(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "photos", per_class=8)
    (root / "red" / "02.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"red/02\.jpg cannot be read.*on_bad_image"):
        run(_flat(root), small_network(), tmp_path, on_bad_image="error")
    assert not [file for file in tmp_path.rglob("*") if ".h5" in file.name]


def test_an_unknown_layer_names_the_nearest(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown layer 'layer33'; did you mean 'layer3'"):
        run(folder_dataset(photos), small_network(layers=("layer33",)), tmp_path)


def test_bfloat16_is_close_to_float32(photos: Path, tmp_path: Path) -> None:
    dataset = folder_dataset(photos)
    exact = load_features(run(dataset, small_network(), tmp_path).path, "layer3")[0]
    rough = load_features(run(dataset, small_network(precision="bfloat16"), tmp_path).path, "layer3")[0]
    assert rough.dtype == np.float32
    assert not np.array_equal(rough, exact)
    assert np.abs(rough - exact).max() < 0.03 * np.abs(exact).max()


def test_float16_is_the_nearest_half(photos: Path, tmp_path: Path) -> None:
    dataset = folder_dataset(photos)
    exact = load_features(run(dataset, small_network(), tmp_path).path, "layer3")[0]
    half = load_features(run(dataset, small_network(store="float16"), tmp_path).path, "layer3")[0]
    assert half.dtype == np.float16
    assert np.array_equal(half, exact.astype(np.float16))


def test_extraction_changes_nothing_in_the_network(photos: Path, tmp_path: Path) -> None:
    backbone = load_backbone(small_network(), seed=0)
    before = {name: tensor.clone() for name, tensor in backbone.network.state_dict().items()}
    run(folder_dataset(photos), small_network(), tmp_path, backbone=backbone)
    assert any("running_var" in name for name in before)
    for name, tensor in backbone.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(module.training for module in backbone.network.modules())


def test_an_interrupt_leaves_no_cache_file(photos: Path, tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder_dataset(photos), small_network(batch_size=4), tmp_path, progress=Recorder(interrupt))
    assert not [file for file in tmp_path.rglob("*") if ".h5" in file.name]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_folder_that_is_read_only_is_an_error(photos: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CacheError, match="cannot be written"):
        run(folder_dataset(photos), small_network(), tmp_path)


def test_a_cache_folder_that_is_a_file_is_an_error(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(CacheError, match="cannot be written"):
        run(folder_dataset(photos), small_network(), tmp_path / "cache")


class Killed(BaseException):
    pass


def stop_after(batches: int) -> Recorder:
    left = iter(range(batches, -1, -1))  # the first step tells of what was there before

    def advance() -> None:
        if next(left) == 0:
            raise Killed

    return Recorder(advance)


@pytest.mark.parametrize("batches", [1, 2, 3])
@pytest.mark.parametrize("store", ["float32", "float16"])
def test_an_interrupted_run_goes_on_and_ends_as_one_without(tmp_path: Path, batches: int, store: str) -> None:
    photos = image_folder(tmp_path / "photos", per_class=5)
    (photos / "green" / "02.jpg").write_bytes(b"no image")
    dataset = folder_dataset(photos, val_fraction=0.2, test_fraction=0.2)
    config = small_network(batch_size=2, store=store)
    whole = run(dataset, config, tmp_path / "whole")
    with pytest.raises(Killed):
        run(dataset, config, tmp_path / "cache", progress=stop_after(batches))
    progress = Recorder()
    resumed = run(dataset, config, tmp_path / "cache", progress=progress)
    assert any(re.search(r"goes on from image [2-9] of 9", said) for said in progress.said)
    assert content(resumed.path) == content(whole.path)
    assert [file.suffix for file in resumed.path.parent.iterdir() if file.name.startswith(".")] == []


def test_parts_that_a_finished_run_could_not_remove_are_removed_by_the_next(tmp_path: Path) -> None:
    dataset = folder_dataset(image_folder(tmp_path / "photos", per_class=5))

    def parts() -> list[Path]:
        return sorted(tmp_path.glob("cache/**/*.partial"))

    def extract(layer: str, progress: Recorder | None = None) -> None:
        config = small_network(batch_size=2, layers=(layer,))
        run(dataset, config, tmp_path / "cache", progress=progress, part_s=0.0)

    with pytest.raises(Killed):
        extract("layer1", stop_after(2))
    (finished,) = parts()
    shutil.copytree(finished, tmp_path / "copy")
    extract("layer1")
    assert parts() == []
    shutil.copytree(tmp_path / "copy", finished)  # as if its process had been killed before it removed them
    with pytest.raises(Killed):
        extract("layer2", stop_after(2))
    extract("layer1")
    (unfinished,) = parts()  # layer2 goes on from there
    assert unfinished != finished
    extract("layer2")
    assert parts() == []


def test_a_bad_image_that_an_earlier_run_left_out_is_an_error_where_it_should_be(tmp_path: Path) -> None:
    photos = image_folder(tmp_path / "photos", per_class=5)
    for path in photos.glob("green/*"):
        path.write_bytes(b"no image")
    dataset = folder_dataset(photos)
    run(dataset, small_network(), tmp_path)
    with pytest.raises(DataError, match=r"image green/.* cannot be read"):
        run(dataset, small_network(), tmp_path, on_bad_image="error")
