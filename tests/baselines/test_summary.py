from __future__ import annotations

import pytest
from torchvision import models

from featbench.baselines.summary import summarise
from featbench.errors import UsageError


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "swin_t", "vit_b_16", "squeezenet1_1"])
def test_parameters_and_multiply_adds_are_those_that_torchvision_publishes(name: str) -> None:
    summary = summarise(name)
    whole = summary.modules[0]
    meta = models.get_model_weights(name).DEFAULT.meta
    assert whole.path == ""
    assert whole.parameters == summary.trained["finetune"] == summary.trained["scratch"] == meta["num_params"]
    assert whole.multiply_adds / 1e9 == pytest.approx(meta["_ops"], rel=2e-3)
    children = [module for module in summary.modules if module.depth == 1]
    assert sum(module.multiply_adds for module in children) == pytest.approx(whole.multiply_adds, rel=1e-2)


def test_a_network_by_arithmetic() -> None:
    summary = summarise("convnet", channels=1, freeze_until="layer2")
    described = {m.path: (m.shape, m.parameters, m.multiply_adds) for m in summary.modules if m.depth < 2}
    hidden = 64 * 7 * 7 * 128
    second = 14 * 14 * 9 * 32 * 64
    first = 28 * 28 * 9 * 32
    assert described == {
        "": ((10,), 421_642, first + second + hidden + 1280),
        "layer1": ((32, 14, 14), 320, first),
        "layer2": ((64, 7, 7), 18_496, second),
        "layer3": ((128,), hidden + 128, hidden),
        "fc": ((10,), 1290, 1280),
    }
    assert summary.trained == {
        "linear_head": 1290,
        "partial": 1290 + hidden + 128,
        "finetune": 421_642,
        "scratch": 421_642,
    }
    assert [m.path for m in summary.modules if m.path.startswith("layer1")][1:] == [
        f"layer1.{part}" for part in ("conv", "activation", "pool")
    ]


def test_the_head_of_alexnet_for_ten_classes_is_that_of_the_lesson() -> None:
    assert summarise("alexnet", n_classes=10).trained["linear_head"] == 40_970


def test_a_network_without_a_head_has_nothing_to_train() -> None:
    assert summarise("pixels").trained == {}
    with pytest.raises(UsageError, match="has no head"):
        summarise("pixels", n_classes=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze_until": "layr2"}, "did you mean 'layer2'"),
        ({"image_size": 3}, "at least 4 px"),
    ],
)
def test_bad_input(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        summarise("convnet", **options)  # type: ignore[arg-type]
