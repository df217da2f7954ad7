from __future__ import annotations

from pathlib import Path

import pytest
from torchvision import models

from featbench.backbones.weights import available_backbone


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def put(hub: Path, name: str) -> Path:
    path = hub / models.get_model_weights(name).DEFAULT.url.rpartition("/")[2]
    path.touch()
    return path


def test_weights_that_are_here_are_taken_first(hub: Path, no_network: None) -> None:
    path = put(hub, "squeezenet1_1")
    assert available_backbone(offline=False) == ("squeezenet1_1", f"its weights are here ({path})")
    path = put(hub, "resnet18")
    assert available_backbone(offline=True) == ("resnet18", f"its weights are here ({path})")


def test_without_a_network_it_is_the_bundled_one_and_says_what_to_do(hub: Path, no_network: None) -> None:
    for offline, reason in ((True, "--offline forbids a download"), (False, "cannot be reached")):
        name, why = available_backbone(offline=offline)
        assert name == "resnet20_cifar10"
        assert reason in why
        assert str(hub / "resnet18-") in why


@pytest.mark.network
def test_with_a_network_resnet18_will_be_downloaded(hub: Path) -> None:
    name, why = available_backbone(offline=False)
    assert (name, list(hub.iterdir())) == ("resnet18", [])
    assert "will be downloaded" in why
