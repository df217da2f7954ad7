from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from featbench.backbones.layers import feature_network
from featbench.backbones.own import ResNet20
from featbench.backbones.tracing import Traced, trace
from featbench.backbones.weights import hash_weights, load_file, read_state_dict
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


FORMS: dict[str, Callable[[State, Path], None]] = {
    "own.safetensors": lambda state, path: safetensors.torch.save_file(state, path),
    "own.pth": torch.save,
    "own.pt": lambda state, path: torch.save({"epoch": 3, "state_dict": state}, path),
    "parallel.pth": lambda state, path: torch.save({f"module.{name}": t for name, t in state.items()}, path),
    "old.pth": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("form", FORMS)
def test_files_of_every_form_are_read(form: str, state: State, traced: Traced, tmp_path: Path) -> None:
    FORMS[form](state, tmp_path / form)
    assert_equal_states(read_state_dict(tmp_path / form), state)
    assert load_file(traced, tmp_path / form) is True
    assert_equal_states(dict(traced.network.state_dict()), state)


@pytest.mark.parametrize("head", [{}, {"fc.weight": torch.ones(100, 64), "fc.bias": torch.ones(100)}])
def test_a_head_may_be_missing_or_made_for_other_classes(
    head: State, state: State, traced: Traced, tmp_path: Path
) -> None:
    body = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    safetensors.torch.save_file(body | head, tmp_path / "body.safetensors")
    assert load_file(traced, tmp_path / "body.safetensors") is False
    loaded = traced.network.state_dict()
    assert_equal_states({name: loaded[name] for name in body}, body)
    feature_network(traced, ["penultimate"], "avg", (3, 32, 32), has_head=False)
    with pytest.raises(WeightsError, match="layers fc need the head 'fc', which the weights file does not have"):
        feature_network(traced, ["fc"], "avg", (3, 32, 32), has_head=False)


def test_half_a_head_is_none(state: State, traced: Traced, tmp_path: Path) -> None:
    del state["fc.bias"]
    safetensors.torch.save_file(state, tmp_path / "half.safetensors")
    assert load_file(traced, tmp_path / "half.safetensors") is False


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
    assert load_file(trace(network), tmp_path / "used.pth") is True
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


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("form", ["zip", "old", "plain pickle"])
def test_code_in_a_file_is_not_executed(form: str, tmp_path: Path) -> None:
    trap, path = tmp_path / "executed", tmp_path / "own.pth"
    content = {"conv1.weight": torch.ones(1), "x": Hostile(trap)}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
        pickle.loads(path.read_bytes())  # the trap works ...
        trap.unlink()
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsError, match=r"own\.pth is damaged, or holds more than tensors, and is not loaded$"):
        read_state_dict(path)
    assert not trap.exists()  # ... and was not sprung


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", ["truncated", "text", "empty"])
def test_damaged_files_are_refused(suffix: str, content: str, state: State, tmp_path: Path) -> None:
    path = tmp_path / f"own{suffix}"
    FORMS[path.name](state, path)
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"<html>404</html>" * 9, "empty": b""}[content])
    with pytest.raises(WeightsError, match=f"own{suffix} is damaged, or holds more than tensors"):
        read_state_dict(path)


@pytest.mark.filterwarnings("ignore")  # what torch thinks of them
@pytest.mark.parametrize("zipped", [True, False])
def test_files_cut_anywhere_are_refused_and_nothing_else(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    torch.save({"a": torch.ones(9), "b": torch.ones(2, 2)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in range(1, len(whole) - 1, 5):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(3), "holds no named tensors; save a state dict"),
        ({}, "holds no named tensors"),
        ({"model": {"a": torch.ones(1)}}, "holds more than named tensors: model; save a state dict"),
        ({"a": torch.ones(1), "epoch": 3}, "holds more than named tensors: epoch"),
        ({0: torch.ones(1)}, "holds more than named tensors: 0"),
    ],
)
def test_files_that_hold_something_else_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "own.pth")
    with pytest.raises(WeightsError, match=message):
        read_state_dict(tmp_path / "own.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no weights file .*own\.pth"):
        read_state_dict(tmp_path / "own.pth")


def test_the_hash_covers_every_tensor(traced: Traced) -> None:
    before = hash_weights(traced.network)
    assert hash_weights(traced.network) == before
    for name, tensor in traced.network.state_dict().items():
        original = tensor.clone()
        tensor.view(-1)[0] += 1
        assert hash_weights(traced.network) != before, name
        tensor.copy_(original)
    assert hash_weights(traced.network) == before
