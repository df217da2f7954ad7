from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from featbench.backbones.checkpoints import read_state_dict
from featbench.errors import WeightsError

STATE = {"conv1.weight": torch.arange(6.0).view(2, 3), "fc.bias": torch.ones(2)}


def save_pickled(content: Any, path: Path) -> None:
    torch.save(content, path)


def save_old(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_safetensors(content: Any, path: Path) -> None:
    safetensors.torch.save_file(content, path)


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors", "net.th", "pytorch_model.bin", "net.pth.tar", "net"])
@pytest.mark.parametrize("save", [save_pickled, save_old, save_safetensors])
def test_a_file_is_told_by_its_bytes_whatever_it_is_called(name: str, save: Any, tmp_path: Path) -> None:
    save(STATE, tmp_path / name)
    read = read_state_dict(tmp_path / name)
    assert read.keys() == STATE.keys()
    assert all(torch.equal(read[key], tensor) for key, tensor in STATE.items())


def test_tensors_in_mappings_have_the_names_of_both_and_the_rest_is_passed_over(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "model": STATE, "optimizer": {"state": {0: {"step": torch.ones(())}}}}, tmp_path / "x.ckpt")
    assert set(read_state_dict(tmp_path / "x.ckpt")) == {
        "model.conv1.weight",
        "model.fc.bias",
        "optimizer.state.0.step",
    }


def test_a_mapping_that_holds_itself_ends(tmp_path: Path) -> None:
    content: dict[str, Any] = dict(STATE)
    content["self"] = content
    torch.save(content, tmp_path / "x.pth")
    assert "self.self.conv1.weight" in read_state_dict(tmp_path / "x.pth")


def test_settings_that_only_code_could_make_do_not_keep_tensors_from_being_read(tmp_path: Path) -> None:
    content = {"model": STATE, "args": argparse.Namespace(lr=0.1), "path": Path("x"), "now": NotImplementedError("x")}
    torch.save(content, tmp_path / "mae.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "mae.pth", weights_only=True)
    assert set(read_state_dict(tmp_path / "mae.pth")) == {"model.conv1.weight", "model.fc.bias"}


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("form", ["zip", "old", "plain pickle"])
def test_code_in_a_file_is_not_executed(form: str, tmp_path: Path) -> None:
    trap, path = tmp_path / "executed", tmp_path / "own.pth"
    content = {"conv1.weight": torch.ones(1), "x": Hostile(trap)}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
        pickle.loads(path.read_bytes())["x"].close()  # the trap works ...
        trap.unlink()
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    if form == "zip":
        assert list(read_state_dict(path)) == ["conv1.weight"]
    else:
        with pytest.raises(WeightsError, match=r"or holds what only code could make, and is not loaded$"):
            read_state_dict(path)
    assert not trap.exists()  # ... and was not sprung


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", ["truncated", "text", "empty"])
def test_damaged_files_are_refused(suffix: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / f"own{suffix}"
    (save_pickled if suffix == ".pth" else save_safetensors)(STATE, path)
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"<html>404</html>" * 9, "empty": b""}[content])
    with pytest.raises(WeightsError, match=f"own{suffix} is damaged, or neither safetensors nor a file of torch.save"):
        read_state_dict(path)


@pytest.mark.filterwarnings("ignore")  # what torch thinks of them
@pytest.mark.parametrize("save", [save_pickled, save_old, save_safetensors])
def test_files_cut_anywhere_are_refused_and_nothing_else(save: Any, tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    save({"a": torch.ones(9), "b": torch.ones(2, 2)}, path)
    whole = path.read_bytes()
    for length in range(1, len(whole) - 1, 5):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(3), "holds no named tensors; save its state dict where it was made"),
        ({}, "holds no named tensors"),
        ({"epoch": 3}, "holds no named tensors"),
        (nn.Linear(2, 3), r"holds a whole torch.nn.modules.linear.Linear, .*; save its state dict .*state_dict\(\)"),
        ({"model": nn.Linear(2, 3)}, r"no named tensors, but objects \(torch.nn.modules.linear.Linear\); save its"),
    ],
)
def test_files_that_hold_something_else_say_how_to_save_a_state_dict(
    content: Any, message: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "own.pth")
    with pytest.raises(WeightsError, match=message) as caught:
        read_state_dict(tmp_path / "own.pth")
    assert "weights_only" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # deprecated, of another kind in each version
def test_a_torchscript_archive_is_refused_with_the_way_to_its_tensors(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 3)).save(tmp_path / "net.pt")
    with pytest.raises(
        WeightsError, match=r"a TorchScript archive, .*: torch.save\(torch.jit.load\('net.pt'\)"
    ) as caught:
        read_state_dict(tmp_path / "net.pt")
    assert "weights_only" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no weights file .*own\.pth"):
        read_state_dict(tmp_path / "own.pth")
