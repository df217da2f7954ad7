from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from featbench.backbones.fitting import Loaded, load_file
from featbench.backbones.layers import feature_network
from featbench.backbones.own import ResNet20
from featbench.backbones.tracing import Traced, trace
from featbench.errors import WeightsError

State = dict[str, Tensor]


@pytest.fixture
def state() -> State:
    """The weights of another ResNet20 than `traced`."""
    torch.manual_seed(7)
    network = ResNet20()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
    return dict(network.state_dict())


@pytest.fixture
def traced() -> Traced:
    torch.manual_seed(1)
    return trace(ResNet20())


def assert_equal_states(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def named(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def body(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "lightning": lambda state: {"epoch": 3, "state_dict": named("model.", state), "callbacks": {"x": {"best": 1.0}}},
    "data parallel": lambda state: named("module.", state),
    "net": lambda state: {"net": named("module.", state), "acc": 91},
    "training": lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "groups": []}},
    "names of nobody's": lambda state: {"a": {"b": named("c.d.e.f.", state)}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_weights_are_found_by_the_networks_names(wrapping: str, state: State, traced: Traced, tmp_path: Path) -> None:
    torch.save(WRAPPINGS[wrapping](state), tmp_path / "own.ckpt")
    assert load_file(traced, tmp_path / "own.ckpt").has_head
    assert_equal_states(dict(traced.network.state_dict()), state)


def test_half_precision_becomes_float32(state: State, traced: Traced, tmp_path: Path) -> None:
    torch.save({name: tensor.half() for name, tensor in state.items()}, tmp_path / "half.pth")
    load_file(traced, tmp_path / "half.pth")
    loaded = traced.network.state_dict()
    assert loaded["conv1.weight"].dtype == torch.float32
    assert torch.equal(loaded["conv1.weight"], state["conv1.weight"].half().float())


def test_what_lies_outside_the_prefix_is_said(state: State, traced: Traced, tmp_path: Path) -> None:
    content = named("backbone.", body(state)) | {"projector.0.weight": torch.ones(2, 2), "queue": torch.ones(3)}
    torch.save(content, tmp_path / "simclr.pth")
    loaded = load_file(traced, tmp_path / "simclr.pth")
    assert loaded == Loaded(
        has_head=False,
        notes=(
            f"{tmp_path}/simclr.pth: of its tensors those under 'backbone' are used, and 2 others (projector, queue) "
            "not",
        ),
    )
    got = traced.network.state_dict()
    assert_equal_states({name: got[name] for name in body(state)}, body(state))


def test_of_two_networks_that_fit_one_is_to_be_named(state: State, traced: Traced, tmp_path: Path) -> None:
    path = tmp_path / "dino.pth"
    other = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"student": named("module.", other), "teacher": named("module.", state)}, path)
    with pytest.raises(
        WeightsError,
        match=r"holds 2 networks that fit ResNet20, under 'student.module', 'teacher.module'; name one, as in "
        r'weights = "dino.pth#teacher.module"',
    ):
        load_file(traced, path)
    load_file(traced, path, "teacher")
    assert_equal_states(dict(traced.network.state_dict()), state)
    load_file(traced, path, "student.module")
    assert_equal_states(dict(traced.network.state_dict()), other)
    with pytest.raises(WeightsError, match="has nothing under 'techer'; it has student, teacher"):
        load_file(traced, path, "techer")


def test_of_two_networks_the_one_of_the_right_shapes_is_taken(state: State, traced: Traced, tmp_path: Path) -> None:
    wide = {name: torch.ones(7, *tensor.shape) for name, tensor in state.items()}
    torch.save({"teacher": wide, "student": state}, tmp_path / "distilled.pth")
    load_file(traced, tmp_path / "distilled.pth")
    assert_equal_states(dict(traced.network.state_dict()), state)


@pytest.mark.parametrize("name", ["head", "classifier.1", "fc.1"])
@pytest.mark.parametrize("n_classes", [10, 7])
def test_a_head_under_another_name(name: str, n_classes: int, state: State, traced: Traced, tmp_path: Path) -> None:
    weight, bias = torch.randn(n_classes, 64), torch.randn(n_classes)
    torch.save(body(state) | {f"{name}.weight": weight, f"{name}.bias": bias}, tmp_path / "own.pth")
    loaded = load_file(traced, tmp_path / "own.pth")
    assert loaded.has_head == (n_classes == 10)
    if loaded.has_head:
        assert torch.equal(traced.network.fc.weight, weight)
        assert torch.equal(traced.network.fc.bias, bias)
        assert loaded.notes == (f"{tmp_path}/own.pth: its head {name!r} is taken for 'fc'",)
    else:
        assert loaded.notes == (f"{tmp_path}/own.pth: {name} is ignored, as a head for other classes",)


def test_two_heads_that_fit_are_both_left_out(state: State, traced: Traced, tmp_path: Path) -> None:
    heads = {"head.weight": torch.ones(10, 64), "head.bias": torch.ones(10)}
    heads |= {name.replace("head", "head_dist"): tensor for name, tensor in heads.items()}
    torch.save(body(state) | heads, tmp_path / "own.pth")
    loaded = load_file(traced, tmp_path / "own.pth")
    assert loaded == Loaded(False, (f"{tmp_path}/own.pth: the heads head, head_dist are ignored",))


def test_a_second_head_beside_the_networks_own_is_left_out(state: State, traced: Traced, tmp_path: Path) -> None:
    second = {"head_dist.weight": torch.ones(10, 64), "head_dist.bias": torch.ones(10)}
    torch.save(state | second, tmp_path / "own.pth")
    assert load_file(traced, tmp_path / "own.pth").has_head
    assert_equal_states(dict(traced.network.state_dict()), state)


@pytest.mark.parametrize("layer", ["pooler.dense", "layer3.2.conv3"])
def test_a_layer_that_the_network_does_not_have_is_no_head(
    layer: str, state: State, traced: Traced, tmp_path: Path
) -> None:
    torch.save(state | {f"{layer}.weight": torch.ones(64, 64)}, tmp_path / "own.pth")
    with pytest.raises(WeightsError, match=f"1 unexpected: {layer}.weight"):
        load_file(traced, tmp_path / "own.pth")


def test_another_networks_file_is_called_that(traced: Traced, tmp_path: Path) -> None:
    torch.save({"model": {"a.weight": torch.ones(2), "b.weight": torch.ones(2)}}, tmp_path / "own.pth")
    with pytest.raises(
        WeightsError,
        match=r"Only 0 of the network's \d+ names are in the file, which has model.a.weight, .*: is it of another",
    ):
        load_file(traced, tmp_path / "own.pth")


def test_the_prefix_that_was_found_is_in_the_message(state: State, traced: Traced, tmp_path: Path) -> None:
    del state["bn1.weight"]
    torch.save(named("module.encoder_q.", state), tmp_path / "moco.pth")
    with pytest.raises(
        WeightsError, match=r"does not fit ResNet20 under 'module.encoder_q'; tensors 1 missing: bn1.weight$"
    ):
        load_file(traced, tmp_path / "moco.pth")


def test_numbers_of_a_kind_that_a_network_does_not_take_are_refused(
    state: State, traced: Traced, tmp_path: Path
) -> None:
    state["conv1.weight"] = state["conv1.weight"].to("meta")
    torch.save(state, tmp_path / "own.pth")
    with pytest.raises(WeightsError, match="does not fit ResNet20: "):
        load_file(traced, tmp_path / "own.pth")


@pytest.mark.parametrize("head", [{}, {"fc.weight": torch.ones(100, 64), "fc.bias": torch.ones(100)}])
def test_a_head_may_be_missing_or_made_for_other_classes(
    head: State, state: State, traced: Traced, tmp_path: Path
) -> None:
    safetensors.torch.save_file(body(state) | head, tmp_path / "body.safetensors")
    assert load_file(traced, tmp_path / "body.safetensors").has_head is False
    loaded = traced.network.state_dict()
    assert_equal_states({name: loaded[name] for name in body(state)}, body(state))
    feature_network(traced, ["penultimate"], "avg", (3, 32, 32), has_head=False)
    with pytest.raises(WeightsError, match="layers fc need the head 'fc', which the weights file does not have"):
        feature_network(traced, ["fc"], "avg", (3, 32, 32), has_head=False)


def test_half_a_head_is_none(state: State, traced: Traced, tmp_path: Path) -> None:
    del state["fc.bias"]
    safetensors.torch.save_file(state, tmp_path / "half.safetensors")
    assert load_file(traced, tmp_path / "half.safetensors").has_head is False


def test_tensors_of_auxiliary_heads_may_be_missing(tmp_path: Path) -> None:
    class WithAuxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.aux, self.fc = nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Any:
            y = self.body(x)
            return (self.fc(y), self.aux(y)) if self.training else self.fc(y)

    network = WithAuxiliary()
    used = {name: tensor + 1 for name, tensor in network.state_dict().items() if not name.startswith("aux")}
    torch.save(used, tmp_path / "used.pth")
    assert load_file(trace(network), tmp_path / "used.pth").has_head is True
    assert torch.equal(network.state_dict()["body.weight"], used["body.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("conv1.weight"), "1 missing: conv1.weight$"),
        (lambda state: state.update({"conv9.weight": torch.ones(1)}), "1 unexpected: conv9.weight$"),
        (lambda state: state.update({"bn1.bias": torch.ones(17)}), "1 of another shape: bn1.bias$"),
        (
            lambda state: [state.pop(name) for name in list(state) if name.startswith("layer1.")],
            r"30 missing: layer1.0.bn1.bias, .* and 20 more$",  # 6 convolutions and 4 for each of their batch norms
        ),
        (
            lambda state: (state.pop("bn1.weight"), state.update({"x": torch.ones(1)})),
            "1 missing: bn1.weight; 1 unexpected: x$",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_listed(
    change: Callable[[State], object], message: str, state: State, traced: Traced, tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in traced.network.state_dict().items()}
    change(state)
    torch.save(state, tmp_path / "own.pth")
    with pytest.raises(WeightsError, match=f"own.pth does not fit ResNet20; tensors {message}"):
        load_file(traced, tmp_path / "own.pth")
    assert_equal_states(dict(traced.network.state_dict()), before)
