from __future__ import annotations

import pytest
from torchvision import models

from featbench.backbones.architectures import SMALL, backbone_names, get_architecture
from featbench.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from featbench.errors import UsageError

TORCHVISION = models.list_models(module=models)


def test_backbones_are_torchvisions_classification_models_and_our_own() -> None:
    assert set(backbone_names()) == {*TORCHVISION, *SMALL, "pixels", "resnet20", "resnet20_cifar10"}
    assert len(backbone_names()) == len(set(backbone_names()))


@pytest.mark.parametrize("name", TORCHVISION)
def test_every_torchvision_model_has_its_weights_and_preprocessing(name: str) -> None:
    architecture = get_architecture(name)
    members = models.get_model_weights(name)
    assert architecture.name == name
    assert architecture.weights == [*(member.name for member in members), "random"]
    assert architecture.default_weights == members.DEFAULT.name
    transforms = members.DEFAULT.transforms()
    assert [architecture.preprocess.crop_px] == transforms.crop_size
    assert list(architecture.preprocess.mean) == list(transforms.mean)


def test_preprocessing_of_resnet18_by_hand() -> None:
    assert get_architecture("resnet18").preprocess == Preprocess(256, 224, IMAGENET_MEAN, IMAGENET_STD, "bilinear")


@pytest.mark.parametrize(("name", "weights"), [("resnet20", ["random"]), ("resnet20_cifar10", ["CIFAR10", "random"])])
def test_our_own_networks(name: str, weights: list[str]) -> None:
    architecture = get_architecture(name)
    assert architecture.weights == weights
    assert architecture.preprocess.crop_px == 32
    assert type(architecture.make(32)).__name__ == "ResNet20"


def test_pixels_are_not_standardised() -> None:
    preprocess = get_architecture("pixels").preprocess
    assert preprocess.native_arrays
    assert preprocess.mean == ()


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_trained_on_other_scales_convert_inside(name: str) -> None:
    assert get_architecture(name).make(224).transform_input is True


def test_an_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown backbone 'resnet81'; did you mean 'resnet18'.*list backbones"):
        get_architecture("resnet81")
