from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from featbench.backbones.architectures import get_architecture
from featbench.backbones.describe import describe_backbone
from featbench.backbones.load import Backbone, check_backbone, load_backbone, weights_name
from featbench.config import BackboneConfig
from featbench.data.preprocess import Preprocess
from featbench.errors import UsageError, WeightsError

PHOTO_SIZES = [(300, 200), (200, 300), (64, 64), (257, 400), (31, 47)]


def load(name: str, **settings: Any) -> Backbone:
    settings = {"weights": "random"} | settings
    return load_backbone(BackboneConfig(name=f"timm:{name}", **settings), seed=0, offline=True)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",  # bicubic, crop 0.95
        "resnet18.fb_swsl_ig1b_ft_in1k",  # bilinear, crop 0.875
        "convnext_atto",
        "mobilenetv3_small_050",  # a subclass of Linear
        "vit_tiny_patch16_224",  # mean and deviation 0.5, crop 0.9
        "efficientnet_b0.ra4_e3600_r224_in1k",
        "test_vit",
    ],
)
def test_preprocessing_is_timms_own(name: str) -> None:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in PHOTO_SIZES]
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    preprocess = get_architecture(f"timm:{name}").preprocess
    for image in images:
        got = preprocess.normalise(preprocess.fit_image(image)[None])[0]
        apart = (got - transform(image)).abs() * min(preprocess.std) * 255
        assert apart.max() < 2.001  # of 255: Pillow rounds otherwise
        assert (apart > 0.001).float().mean() < 0.05


def test_preprocessing_by_hand() -> None:
    assert get_architecture("timm:vit_tiny_patch16_224").preprocess == Preprocess(
        248, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic"
    )  # 224 / 0.9 is 248.9, and timm rounds down


@pytest.mark.parametrize(
    ("name", "head", "size_px"),
    [
        ("convnext_atto", "head.fc", 64),
        ("efficientnet_b0", "classifier", 64),
        ("mixer_s32_224", "head", None),
        ("mobilenetv3_small_050", "classifier", 64),
        ("regnetx_002", "head.fc", 64),
        ("resnet18", "fc", 64),
        ("resnetv2_50", "head.fc", 64),
        ("swin_tiny_patch4_window7_224", "head.fc", 112),
        ("vit_tiny_patch16_224", "head", 64),
        ("vit_small_patch14_dinov2", None, 56),  # without a head
    ],
)
def test_the_penultimate_layer_is_what_timm_calls_pre_logits(name: str, head: str | None, size_px: int | None) -> None:
    backbone = load(name, image_size=size_px)
    network, size_px = backbone.network, backbone.preprocess.crop_px
    images = torch.randn(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network.forward_head(network.forward_features(images), pre_logits=True).flatten(1)
        (got,) = backbone.features(["penultimate"], "flatten").module(images)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0
    assert (backbone.traced.head_name if backbone.traced.head else None) == head


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("resnet18", ["layer1", "layer2", "layer3", "layer4"]),
        ("vit_tiny_patch16_224", [f"blocks.{i}" for i in range(12)]),
        ("convnext_atto", [f"stages.{i}" for i in range(4)]),
        ("efficientnet_b0", [f"blocks.{i}" for i in range(7)]),
        ("fastvit_t8", ["stem", *(f"stages.{i}" for i in range(4)), "final_conv"]),
    ],
)
def test_blocks(name: str, blocks: list[str]) -> None:
    assert [layer.name for layer in describe_backbone(f"timm:{name}", "avg") if layer.is_block] == blocks


def test_a_network_with_two_heads_has_no_penultimate_layer_but_others() -> None:
    backbone = load("deit_tiny_distilled_patch16_224")
    with pytest.raises(
        UsageError, match="VisionTransformerDistilled has no one penultimate layer; name layers instead"
    ):
        backbone.features(["penultimate"], "avg")
    assert backbone.features(["blocks.3"], "cls").widths == (192,)
    assert "penultimate" not in {layer.name for layer in describe_backbone(backbone.name, "avg")}


def test_which_weights_there_are() -> None:
    architecture = get_architecture("timm:resnet18")
    assert architecture.default_weights == "a1_in1k"
    assert {"a1_in1k", "fb_swsl_ig1b_ft_in1k", "random"} <= set(architecture.weights)
    tagged = get_architecture("timm:resnet18.fb_swsl_ig1b_ft_in1k")
    assert tagged.default_weights == "fb_swsl_ig1b_ft_in1k"
    assert tagged.weights == ["fb_swsl_ig1b_ft_in1k", "random"]
    config = BackboneConfig(name="timm:resnet18", weights="a3_in1k")
    assert weights_name(architecture, config) == "a3_in1k"
    assert architecture.preprocess_at(None, "a3_in1k").crop_px == 160


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("timm:resnet81", None, "unknown timm network 'resnet81'; did you mean 'resnet.*timm.list_models"),
        ("timm:resnet18.a1_in2k", None, "unknown weights of timm:resnet18 'a1_in2k'; did you mean 'a1_in1k'"),
        ("timm:resnet18", "b1_in1k", "unknown weights of timm:resnet18 'b1_in1k'; did you mean 'a1_in1k'"),
        (
            "timm:convnext_base.fb_in22k_ft_in1k_384",
            None,
            "wants crop_mode 'squash'; featbench resizes the shorter side",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(name: str, weights: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_backbone(BackboneConfig(name=name, weights=weights))


def test_a_name_of_before_is_the_network_that_timm_makes_of_it(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(timm.models._registry._deprecated_models, "vit_of_before", "test_vit.r160_in1k")
    backbone = load("vit_of_before", weights=None)
    assert (backbone.name, backbone.weights) == ("timm:vit_of_before", "r160_in1k")
    assert backbone.notes == ("timm:vit_of_before is what timm now calls test_vit.r160_in1k",)
    assert backbone.weights_hash() == load("test_vit", weights=str(hub)).weights_hash()


def test_a_name_of_before_has_the_preprocessing_and_weights_of_now() -> None:
    before, now = (get_architecture(f"timm:{name}") for name in ("resnet50_gn", "resnet50_gn.a1h_in1k"))
    assert before.preprocess == now.preprocess
    before = get_architecture("timm:tf_efficientnet_b0_ns")
    assert before.weights == ["ns_jft_in1k", "random"]
    assert before.preprocess.crop_px == 224


@pytest.mark.parametrize("weights", [None, "DEFAULT"])
def test_a_network_without_weights_is_random_only_if_asked(weights: str | None) -> None:
    with pytest.raises(
        UsageError, match=r'timm:efficientnet_b6 has no pretrained weights; set weights to a file, or "random"'
    ):
        check_backbone(BackboneConfig(name="timm:efficientnet_b6", weights=weights))
    check_backbone(BackboneConfig(name="timm:efficientnet_b6", weights="random"))


def weights_by_timm(name: str) -> str | None:
    """The tag that timm's own builder gives a name; None for none, or one that timm does not have (any more)."""
    try:
        with torch.device("meta"):
            config = timm.create_model(name, pretrained=False).pretrained_cfg
    except RuntimeError:  # an old name of a tag that is gone
        return None
    return (config["tag"] or "pretrained") if config.get("hf_hub_id") or config["url"] else None


def weights_here(name: str) -> str:
    try:
        return weights_name(get_architecture(f"timm:{name}"), BackboneConfig(name=f"timm:{name}"))
    except UsageError as error:
        return str(error)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of timm's, that a name is of before
@pytest.mark.parametrize("deprecated", [False, True])
def test_every_name_of_timms_gets_the_weights_that_timm_gives_it(deprecated: bool) -> None:
    names = list(timm.models.get_deprecated_models()) if deprecated else timm.list_models()
    if not deprecated:
        pretrained = {name.partition(".")[0] for name in timm.list_pretrained()}
    n_loaded = 0
    for name in names:
        got = weights_here(name)
        if "; featbench resizes the shorter side" in got:  # preprocessing that is refused
            continue
        if deprecated:
            expected = weights_by_timm(name)
        else:
            expected = (timm.models.get_pretrained_cfg(name).tag or "pretrained") if name in pretrained else None
        if expected is None:
            assert re.search("has no pretrained weights; set weights to|unknown weights of timm:", got), name
        else:
            assert got == expected, name
            n_loaded += 1
    assert n_loaded > len(names) * 0.75 > 150


def test_without_timm_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"timm:resnet18 needs timm, .*; pip install featbench\[timm\]"):
        check_backbone(BackboneConfig(name="timm:resnet18"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub with one file, that of timm/test_vit.r160_in1k; whatever else is asked for is not there."""
    torch.manual_seed(3)
    network = timm.create_model("test_vit", pretrained=False)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)

    def download(repo_id: str, filename: str, *, local_files_only: bool) -> str:
        if (repo_id, filename) != ("timm/test_vit.r160_in1k", "model.safetensors"):
            raise OSError("cannot find the requested files\nin the cache")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return path


def test_weights_of_timm_are_loaded(hub: Path) -> None:
    backbone = load("test_vit", weights=None)
    assert (backbone.weights, backbone.has_head) == ("r160_in1k", True)
    state = safetensors.torch.load_file(hub)
    for name, tensor in backbone.network.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert backbone.weights_hash() == load("test_vit", weights=str(hub)).weights_hash()
    assert backbone.weights_hash() != load("test_vit").weights_hash()


def test_position_embeddings_are_fitted_to_another_size(hub: Path) -> None:
    del hub
    backbone = load("test_vit", weights=None, image_size=64)
    assert backbone.preprocess.crop_px == 64
    assert backbone.network.pos_embed.shape[1] == 16 + 1  # 64 / 16 squared, and the class token
    assert backbone.features(["penultimate"], "avg").widths == (64,)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("offline", "why"), [(True, "--offline forbids a download"), (False, r"cannot be downloaded \(ca")]
)
def test_missing_weights_say_where_to_get_them(offline: bool, why: str) -> None:
    config = BackboneConfig(name="timm:resnet18")
    with pytest.raises(
        WeightsError, match=f"{why}.*download model.safetensors of https://huggingface.co/timm/resnet18"
    ) as e:
        load_backbone(config, seed=0, offline=offline)
    assert "\n" not in str(e.value)


def test_weights_that_are_no_safetensors_are_not_loaded() -> None:
    with pytest.raises(WeightsError, match=r"timm has the weights of timm:legacy_seresnet18 as https.* only, not as"):
        load("legacy_seresnet18", weights=None)


def test_random_weights_depend_on_the_seed_only() -> None:
    one = load("test_vit")
    torch.manual_seed(9)
    assert one.weights_hash() == load("test_vit").weights_hash()


def test_a_file_of_another_size_is_resized_as_timm_does(hub: Path) -> None:
    name = "test_vit"
    backbone = load(name, weights=str(hub), image_size=64)
    expected = timm.create_model(
        name, img_size=64, pretrained=True, pretrained_cfg_overlay={"state_dict": safetensors.torch.load_file(hub)}
    )
    for key, tensor in backbone.network.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[key]), key
    assert backbone.notes == (f"{hub}: pos_embed resized for the size of the images",)


def test_a_file_with_names_of_before_timm_is_renamed_as_timm_does(tmp_path: Path) -> None:
    network = timm.create_model("vit_small_patch14_reg4_dinov2", img_size=28)
    state = {name: tensor + 1 for name, tensor in network.state_dict().items()}
    published = {name.replace("reg_token", "register_tokens"): tensor for name, tensor in state.items()}
    # in the published files there are a token for masks, and a position of the class token, which timm adds to it
    published |= {
        "mask_token": torch.zeros(1, 384),
        "pos_embed": torch.cat([torch.zeros(1, 1, 384), state["pos_embed"]], 1),
    }
    torch.save(published, tmp_path / "dinov2.pth")
    backbone = load("vit_small_patch14_reg4_dinov2", weights=str(tmp_path / "dinov2.pth"), image_size=28)
    for key, tensor in backbone.network.state_dict().items():
        assert torch.equal(tensor, state[key]), key
    assert backbone.notes[0].startswith(f"{tmp_path}/dinov2.pth: its names are changed to those of this network")
