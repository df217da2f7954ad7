from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from featbench.backbones.describe import describe_backbone
from featbench.backbones.load import Backbone, check_backbone, load_backbone
from featbench.config import BackboneConfig
from featbench.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from featbench.errors import UsageError

NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))

def make():
    return Net()
"""
COUNTER = itertools.count()
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module into the current folder; returns its name, which no other test uses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def to_file(text: str) -> str:
        name = f"own_network_{next(COUNTER)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    before = set(sys.modules)
    yield to_file
    for name in set(sys.modules) - before:
        if name.startswith("own_network"):
            del sys.modules[name]


def load(name: str, weights: str | None = None, seed: int = 0) -> Backbone:
    return load_backbone(BackboneConfig(name=name, weights=weights, image_size=16), seed=seed, offline=True)


def test_a_network_of_ones_own(write: Write) -> None:
    name = f"python:{write(NETWORK)}:make"
    backbone = load(name)
    assert (backbone.name, backbone.weights, backbone.has_head) == (name, "random", True)
    assert backbone.preprocess == Preprocess(16, 16, IMAGENET_MEAN, IMAGENET_STD)
    images = torch.rand(2, 3, 16, 16)
    (got,) = backbone.features(["penultimate"], "avg").module(images)
    torch.testing.assert_close(got, backbone.network.conv(images).relu().mean((2, 3)))
    assert torch.equal(load(name).network.conv.weight, backbone.network.conv.weight)
    assert not torch.equal(load(name, seed=1).network.conv.weight, backbone.network.conv.weight)
    assert [layer.name for layer in describe_backbone(name, "avg", 16)] == ["conv", "relu", "mean", "penultimate", "fc"]


def test_weights_from_a_file(write: Write, tmp_path: Path) -> None:
    name = f"python:{write(NETWORK)}:make"
    torch.save(load(name, seed=5).network.state_dict(), tmp_path / "own.pth")
    loaded = load(name, str(tmp_path / "own.pth"))
    assert loaded.weights == "own.pth"
    assert loaded.weights_hash() == load(name, seed=5).weights_hash()


def test_a_module_may_have_its_own_mean_and_deviation(write: Write) -> None:
    module = write(NETWORK + "MEAN, STD = (0.5, 0.4, 0.3), [1, 2, 3]\n")
    preprocess = load(f"python:{module}:make").preprocess
    assert (preprocess.mean, preprocess.std) == ((0.5, 0.4, 0.3), (1.0, 2.0, 3.0))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("torch.relu", "torch.sigmoid"),
        ("mean((2, 3))", "amax((2, 3))"),
        ("nn.Conv2d(3, 4, 3)", "nn.Conv2d(3, 4, 3, stride=2)"),
        ("torch.relu(self.conv(x))", "(self.conv(x) * torch.tensor([1.0]))"),
    ],
)
def test_other_code_with_the_same_weights_is_another_network(write: Write, old: str, new: str) -> None:
    one, same, other = (f"python:{write(text)}:make" for text in (NETWORK, NETWORK, NETWORK.replace(old, new)))
    assert load(one).weights_hash() == load(same).weights_hash()
    assert torch.equal(load(one).network.conv.weight, load(other).network.conv.weight)
    assert load(one).weights_hash() != load(other).weights_hash()


def test_other_constants_are_another_network(write: Write) -> None:
    one, other = (NETWORK.replace("self.conv(x)", f"self.conv(x) * torch.tensor([{value}])") for value in (1.0, 2.0))
    assert load(f"python:{write(one)}:make").weights_hash() != load(f"python:{write(other)}:make").weights_hash()


@pytest.mark.parametrize(
    ("text", "function", "message"),
    [
        ("import torch", "make", "unknown function of own_network_[0-9]+ 'make'"),
        (NETWORK, "mkae", r"unknown function .* 'mkae'; did you mean 'make'\? Valid: Net, make"),
        (NETWORK, "make()", r'is not "python:module:factory", as in "python:my_networks:make"'),
        ("make = 3", "make", "make is not a function but int"),
        (
            "def make(width): pass",
            "make",
            r"make has to work without arguments \(missing a required argument: 'width'\)",
        ),
        ("def make(width=3): return width", "make", r"returns int; it has to return a torch\.nn\.Module"),
        ("def make(): return 1 / 0", "make", "the function failed with ZeroDivisionError: division by zero"),
        ("def make(): raise KeyError", "make", "the function failed with KeyError$"),
        ("def make(: pass", "make", "importing own_network_[0-9]+ failed with SyntaxError: invalid syntax"),
        (
            "import no_such_module_anywhere",
            "make",
            "failed with ModuleNotFoundError: No module named 'no_such_module_a",
        ),
        (
            NETWORK + "MEAN = (0.5, 0.5)",
            "make",
            r"MEAN has to be three numbers, for red, green and blue: \(0\.5, 0\.5\)",
        ),
        (NETWORK + "STD = (0.5, 0.5, 0)", "make", "STD has to be three positive numbers"),
        (
            NETWORK.replace("torch.relu(self.conv(x))", "(x if x.sum() > 0 else x)"),
            "make",
            r"torch\.fx cannot trace Net \(.*\), and layers are found by tracing",
        ),
        (NETWORK.replace("Linear(4", "Linear(5"), "make", "Net cannot take images of 16x16 px: .*mat1 and mat2"),
    ],
)
def test_what_is_wrong_with_ones_own_code_is_one_message(write: Write, text: str, function: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load(f"python:{write(text)}:{function}").features(["penultimate"], "avg")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("write")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("python:no_such_network:make", "there is no module 'no_such_network' in /.*, nor where Python looks"),
        ("python:make", 'is not "python:module:factory"'),
        ("python:../up:make", 'is not "python:module:factory"'),
    ],
)
def test_modules_that_are_not_there(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_backbone(BackboneConfig(name=name, image_size=16))


def test_the_size_of_the_images_has_to_be_said(write: Write) -> None:
    name = f"python:{write(NETWORK)}:make"
    with pytest.raises(UsageError, match=f"how large the images of {name} are is not known; set image_size"):
        check_backbone(BackboneConfig(name=name))
    with pytest.raises(UsageError, match="--image-size 224"):
        describe_backbone(name, "avg")
    check_backbone(BackboneConfig(name=name, image_size=16))
