from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from featbench.classifiers.memory import (
    check_memory,
    gpu_memory_named,
    has_gpu_solver,
    memory_budget,
    needed_bytes,
)
from featbench.classifiers.registry import CLASSIFIERS
from featbench.config import EvaluateConfig
from featbench.errors import UsageError

LARGE = (1_300_000, 2_048)  # 10.6 GB in float32


def check(name: str, shape: tuple[int, int] = LARGE, *, steps: tuple[str, ...] = (), **table: Any) -> None:
    config = EvaluateConfig(classifiers=(name,), memory_gb=2, **table)
    grid = [{"C": C} for C in config.grids.get(name, {}).get("C", ())]
    check_memory(
        CLASSIFIERS[name], grid, steps, config, features="resnet50 layer4", shape=shape, budget=memory_budget(config)
    )


@pytest.mark.parametrize("name", sorted(set(CLASSIFIERS) - {"linear_svc"}))
def test_those_that_need_features_in_memory_refuse_more_than_there_is(name: str) -> None:
    check(name, (10_000, 512))
    with pytest.raises(UsageError, match=rf"{name} on resnet50 layer4 takes about .* and 2 GB is what evaluate.mem"):
        check(name)


def test_a_linear_svc_takes_them_from_disk() -> None:
    check("linear_svc")
    check("linear_svc", steps=("power", "l2"))


@pytest.mark.parametrize(
    "change",
    [{"engine": "sklearn"}, {"steps": ("pca:64",)}, {"grids": {"linear_svc": {"C": [100.0]}}}],
)
def test_unless_it_is_not_featbenchs_own_solver_or_steps_learn(change: dict[str, Any]) -> None:
    with pytest.raises(
        UsageError, match=r"read from disk only for linear_svc \(C up to 10\), .* and no steps but l2 and power"
    ):
        check("linear_svc", **change)


def test_rows_on_disk_have_their_needs_too() -> None:
    with pytest.raises(UsageError, match=r"takes 2.56 GB of memory for each class even with the features on disk"):
        check("linear_svc", (20_000_000, 100))


def test_by_default_most_of_what_is_free() -> None:
    free_kb = [line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line]
    assert memory_budget(EvaluateConfig()) <= 1.2 * float(free_kb[0]) * 1024
    assert memory_budget(EvaluateConfig()) > needed_bytes(1000, 64)


@pytest.mark.parametrize(
    ("name", "engine", "expected"),
    [("linear_svc", "auto", True), ("linear_svc", "sklearn", False), ("svm_rbf", "auto", False)],
)
def test_what_has_a_solver_for_gpus(name: str, engine: str, expected: bool) -> None:
    assert has_gpu_solver(CLASSIFIERS[name], [{}], EvaluateConfig(engine=engine)) is expected  # type: ignore[arg-type]


def test_a_full_gpu_is_named() -> None:
    with (
        pytest.raises(UsageError, match="linear_svc found no more memory on the GPU; --device cpu"),
        gpu_memory_named("linear_svc"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
