from __future__ import annotations

import pytest
import torch

from featbench.backbones.device import resolve_device
from featbench.errors import UsageError


def test_auto_is_a_gpu_where_there_is_one() -> None:
    expected = "cuda:0" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto") == torch.device(expected)
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["", "gpu", "CPU", "cpu:0", "cuda:", "cuda:-1", "cuda:x", "mps"])
def test_what_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="auto, cpu, cuda or cuda:N"):
        resolve_device(name)


def test_a_device_that_is_not_there_is_refused_with_the_count() -> None:
    with pytest.raises(UsageError, match=f"CUDA devices found: {torch.cuda.device_count()}"):
        resolve_device(f"cuda:{torch.cuda.device_count()}")
