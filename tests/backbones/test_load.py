from __future__ import annotations

import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings

from featbench.backbones.architectures import get_architecture
from featbench.backbones.load import Backbone, check_backbone, load_backbone, weights_name
from featbench.config import BackboneConfig
from featbench.errors import UsageError, WeightsError

CONFIG = BackboneConfig(name="squeezenet1_1")
MEMBER = models.SqueezeNet1_1_Weights.IMAGENET1K_V1


def random_backbone(name: str, seed: int = 0) -> Backbone:
    return load_backbone(BackboneConfig(name=name, weights="random"), seed=seed, offline=True)


@pytest.mark.parametrize("name", ["resnet20", "squeezenet1_1", "mobilenet_v3_small"])
def test_random_weights_depend_on_the_seed_only(name: str) -> None:
    torch.manual_seed(1)
    one = random_backbone(name, seed=3)
    torch.manual_seed(2)
    again = random_backbone(name, seed=3)
    assert one.weights_hash() == again.weights_hash()
    assert one.weights_hash() != random_backbone(name, seed=4).weights_hash()


def test_loading_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    random_backbone("resnet20", seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_backbone_is_frozen_and_in_eval_mode() -> None:
    backbone = random_backbone("resnet20")
    assert (backbone.name, backbone.weights, backbone.has_head) == ("resnet20", "random", True)
    assert not any(module.training for module in backbone.network.modules())
    assert not any(parameter.requires_grad for parameter in backbone.network.parameters())


def test_the_image_size_is_the_crop() -> None:
    config = BackboneConfig(name="squeezenet1_1", weights="random", image_size=112)
    preprocess = load_backbone(config, seed=0).preprocess
    assert (preprocess.crop_px, preprocess.resize_px) == (112, 128)  # 224 and 256, halved


def test_pixels_are_a_backbone() -> None:
    backbone = load_backbone(BackboneConfig(name="pixels"), seed=0)
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(backbone.features(["pixels"], "flatten", (1, 8, 8)).module(images)[0], images.flatten(1))


def test_features_are_as_wide_as_the_layer() -> None:
    assert random_backbone("resnet20").features(["layer1", "layer3"], "max:2").widths == (16 * 4, 64 * 4)


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("resnet50", None, "IMAGENET1K_V2"),  # torchvision's own default
        ("resnet50", "DEFAULT", "IMAGENET1K_V2"),
        ("resnet50", "IMAGENET1K_V1", "IMAGENET1K_V1"),
        ("resnet50", "random", "random"),
        ("resnet50", "own.pth", "own.pth"),
        ("resnet20", None, "random"),
        ("resnet20_cifar10", None, "CIFAR10"),
        ("pixels", None, "none"),
    ],
)
def test_which_weights_an_entry_means(name: str, weights: str | None, expected: str) -> None:
    assert weights_name(get_architecture(name), BackboneConfig(name=name, weights=weights)) == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "resnet81"}, "unknown backbone 'resnet81'; did you mean 'resnet18'"),
        (
            {"name": "resnet18", "weights": "IMAGENET1K_V3"},
            "unknown weights of resnet18 'IMAGENET1K_V3'; did you mean 'IMAGENET1K_V1'.* Valid: .*random",
        ),
        ({"name": "resnet18", "weights": "rnadom"}, "did you mean 'random'"),
        ({"name": "resnet18", "pooling": "agv"}, "unknown pooling 'agv'; did you mean 'avg'"),
    ],
)
def test_wrong_names_are_refused_before_anything_is_loaded(config: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_backbone(BackboneConfig(**config))


def test_a_weights_file_is_loaded_and_named(tmp_path: Path) -> None:
    other = random_backbone("resnet20", seed=9)
    torch.save(other.network.state_dict(), tmp_path / "own.pth")
    loaded = load_backbone(BackboneConfig(name="resnet20", weights=str(tmp_path / "own.pth")), seed=0)
    assert (loaded.weights, loaded.has_head) == ("own.pth", True)
    assert loaded.weights_hash() == other.weights_hash()


@pytest.fixture
def hub_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torchvision keeps the default weights of squeezenet1_1, below an empty TORCH_HOME."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)  # what an earlier set_dir left
    path = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    path.parent.mkdir(parents=True)
    return path


def test_a_file_in_torchvisions_own_place_is_used_by_name(hub_file: Path) -> None:
    other = random_backbone("squeezenet1_1", seed=9)
    torch.save(other.network.state_dict(), hub_file)
    loaded = load_backbone(CONFIG, seed=0, offline=True)
    assert (loaded.weights, loaded.has_head) == ("IMAGENET1K_V1", True)
    assert loaded.weights_hash() == other.weights_hash()
    assert loaded.preprocess.crop_px == 224


def test_offline_missing_weights_name_the_url_and_the_place(hub_file: Path) -> None:
    with pytest.raises(
        WeightsError, match=f"--offline forbids a download; download {MEMBER.url} and put it at {hub_file}"
    ):
        load_backbone(CONFIG, seed=0, offline=True)


@pytest.mark.usefixtures("no_network")
def test_without_a_network_missing_weights_name_the_url_and_the_place(hub_file: Path) -> None:
    with pytest.raises(WeightsError, match=f"cannot be downloaded .*; download {MEMBER.url} and put it at {hub_file}"):
        load_backbone(CONFIG, seed=0)
    assert not hub_file.exists()


@pytest.mark.parametrize("content", [b"", b"<html>404</html>" * 9, "truncated", "another network's"])
def test_a_file_in_torchvisions_place_that_is_no_good_is_to_be_deleted(content: bytes | str, hub_file: Path) -> None:
    if isinstance(content, bytes):
        hub_file.write_bytes(content)
    else:
        network = "squeezenet1_0" if content == "another network's" else "squeezenet1_1"
        torch.save(random_backbone(network).network.state_dict(), hub_file)
        if content == "truncated":
            hub_file.write_bytes(hub_file.read_bytes()[:9999])
    with pytest.raises(WeightsError, match=f"{hub_file} .*delete it, and download {MEMBER.url}"):
        load_backbone(CONFIG, seed=0, offline=True)


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> object:
        return (Path.touch, (self.target,))


def test_code_in_torchvisions_place_is_not_executed(hub_file: Path, tmp_path: Path) -> None:
    torch.save({"features.0.weight": Hostile(tmp_path / "executed")}, hub_file)
    with pytest.raises(WeightsError, match="holds more than tensors and is not loaded; delete it"):
        load_backbone(CONFIG, seed=0, offline=True)
    assert not (tmp_path / "executed").exists()


def test_real_weights_give_the_features_of_torchvisions_own_forward(shared_dir: Path) -> None:
    path = shared_dir / "weights" / "squeezenet1_1-imagenet-features.safetensors"
    backbone = load_backbone(BackboneConfig(name="squeezenet1_1", weights=str(path)), seed=0, offline=True)
    assert (backbone.weights, backbone.has_head) == (path.name, False)

    network = models.squeezenet1_1().eval()
    network.load_state_dict(safetensors.torch.load_file(path), strict=False)
    photos = [sorted((shared_dir / "data/hymenoptera/val" / name).glob("*.jpg"))[0] for name in ("ants", "bees")]
    images = [Image.open(photo).convert("RGB") for photo in photos]
    with torch.inference_mode():
        by_pillow = network.features(torch.stack([MEMBER.transforms()(image) for image in images])).mean((2, 3))
        inputs = backbone.preprocess.normalise(torch.stack([backbone.preprocess.fit_image(image) for image in images]))
        expected = network.features(inputs).mean((2, 3))
        (got,) = backbone.features(["penultimate"], "avg").module(inputs)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert torch.cosine_similarity(got, by_pillow).min() > 0.9999

    with pytest.raises(WeightsError, match=r"need the head 'classifier\.1'"):
        backbone.features(["classifier"], "avg")


def test_a_vision_transformer_of_another_size_is_resized_as_torchvision_does(tmp_path: Path) -> None:
    torch.manual_seed(3)
    small = models.vit_b_16(image_size=32)
    torch.save(small.state_dict(), tmp_path / "vit.pth")
    config = BackboneConfig(name="vit_b_16", weights=str(tmp_path / "vit.pth"), image_size=48)
    backbone = load_backbone(config, seed=0)
    expected = interpolate_embeddings(48, 16, dict(small.state_dict()))
    assert backbone.network.encoder.pos_embedding.shape == (1, 9 + 1, 768)  # 48 / 16 squared, and the class token
    for name, tensor in backbone.network.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert backbone.notes == (f"{tmp_path}/vit.pth: encoder.pos_embedding resized for the size of the images",)


def test_torchvisions_weights_of_a_vision_transformer_are_resized_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    member = models.ViT_B_32_Weights.DEFAULT
    path = tmp_path / "hub" / "checkpoints" / Path(member.url).name
    path.parent.mkdir(parents=True)
    state = models.vit_b_32().state_dict()
    torch.save(state, path)
    network = load_backbone(BackboneConfig(name="vit_b_32", image_size=64), seed=0, offline=True).network
    expected = interpolate_embeddings(64, 32, dict(state))
    assert torch.equal(network.state_dict()["encoder.pos_embedding"], expected["encoder.pos_embedding"])


def test_a_missing_weights_file_is_named_before_anything_is_loaded() -> None:
    with pytest.raises(WeightsError, match=r"there is no weights file nowhere/own\.pth"):
        check_backbone(BackboneConfig(name="resnet18", weights="nowhere/own.pth"))


@pytest.mark.parametrize(
    ("name", "weights", "notes"),
    [
        (
            "resnet20",
            None,
            'resnet20 was never trained, and results call its weights random; set weights to .* "random"',
        ),
        ("convnet", None, "convnet was never trained"),
        ("resnet20", "random", ""),
        ("resnet20_cifar10", None, ""),
        ("pixels", None, ""),
    ],
)
def test_random_weights_that_nobody_asked_for_are_said(name: str, weights: str | None, notes: str) -> None:
    backbone = load_backbone(BackboneConfig(name=name, weights=weights), seed=0)
    assert re.match(notes, " ".join(backbone.notes))
    assert bool(backbone.notes) == bool(notes)


def test_every_network_of_torchvisions_has_weights_of_its_own_by_default() -> None:
    for name in models.list_models(module=models):
        config = BackboneConfig(name=name)
        assert weights_name(get_architecture(name), config) == models.get_model_weights(name).DEFAULT.name


def test_a_part_of_a_file_is_named_in_the_row(tmp_path: Path) -> None:
    state = random_backbone("resnet20", seed=9).network.state_dict()
    torch.save({"student": random_backbone("resnet20").network.state_dict(), "teacher": state}, tmp_path / "dino.pth")
    source = f"{tmp_path}/dino.pth#teacher"
    backbone = load_backbone(BackboneConfig(name="resnet20", weights=source), seed=0)
    assert (backbone.weights, backbone.source) == ("dino.pth#teacher", source)
    assert backbone.weights_hash() == random_backbone("resnet20", seed=9).weights_hash()
