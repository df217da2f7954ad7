from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from featbench.results.store import load_results
from tests.tiny import Recorder
from tests.trainings import recipe, train


@contextmanager
def ctrl_c_after(batches: int) -> Iterator[None]:
    """Send Ctrl-C in the last of a number of batches."""
    left = iter(range(batches - 1, -1, -1))

    def stepped(*_: object) -> None:
        if next(left) == 0:
            signal.raise_signal(signal.SIGINT)

    hook = register_optimizer_step_post_hook(stepped)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize(
    ("strategy", "settings", "batches"),
    [
        ("finetune", {"augment": "flip_crop", "dropout": 0.5}, 1),
        ("scratch", {"optimizer": "sgd", "schedule": "plateau", "plateau_patience": 1, "ema": 0.9, "mixup": 0.2}, 5),
        ("linear_head", {"dropout": 0.2, "schedule": "step", "warmup_epochs": 1}, 6),
        ("linear_head", {"dropout": 0.2, "schedule": "constant"}, 9),
    ],
)
def test_a_training_stopped_within_an_epoch_ends_with_the_weights_of_one_never_stopped(
    tmp_path: Path, strategy: str, settings: dict[str, Any], batches: int
) -> None:
    chosen = recipe(strategy, epochs=3, **settings)  # of 3 batches each
    whole = train(chosen)
    progress = Recorder()
    with ctrl_c_after(batches), pytest.raises(KeyboardInterrupt):
        train(chosen, checkpoint=tmp_path / "it.ckpt", progress=progress)
    if batches % 3:
        assert progress.said == [f"stopped after batch {batches % 3} of 3 in epoch {batches // 3 + 1}"]
    torch.rand(7)  # another process's random numbers stand elsewhere
    resumed = train(chosen, checkpoint=tmp_path / "it.ckpt")
    for name, tensor in whole.state.items():
        assert torch.equal(resumed.state[name], tensor), name
    assert np.array_equal(resumed.probabilities, whole.probabilities)
    untimed = [[replace(epoch, seconds=0) for epoch in trained.history] for trained in (whole, resumed)]
    assert untimed[0] == untimed[1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def command(folder: Path, epochs: int) -> list[str]:
    settings = [
        "dataset.limit_train=60",
        "dataset.limit_test=20",
        "backbones.0.precision=float32",
        f"baselines=[{{strategy='partial',freeze_until='layer2',epochs={epochs},batch_size=8,dropout=0.2}}]",
    ]
    options = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "-m", "featbench", "baseline", "digits", "--results", str(folder), *options]


def run_until(folder: Path, epochs: int, number: int) -> subprocess.CompletedProcess[str]:
    """Start a training, and send a signal once it has a checkpoint."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(  # a handler, as _ctrl_c sets it, is not inherited: the process starts as in a terminal
        command(folder, epochs), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    for _ in range(12_000):  # ten minutes, for a machine that is busy
        if list(folder.glob("checkpoints/*.ckpt")) or started.poll() is not None:
            break
        time.sleep(0.05)
    started.send_signal(number)
    out, err = started.communicate(timeout=600)
    return subprocess.CompletedProcess(started.args, started.returncode, out, err)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_process_goes_on_and_ends_as_one_never_stopped(tmp_path: Path, number: int) -> None:
    stopped = run_until(tmp_path / "it", 30, number)
    if number == signal.SIGINT:
        assert stopped.returncode == 130, stopped.stderr
        assert "the same command goes on from there" in stopped.stderr
    else:
        assert stopped.returncode == -signal.SIGKILL
    assert not (tmp_path / "it" / "results.csv").exists()
    assert list((tmp_path / "it").glob("checkpoints/*.ckpt"))
    rows, weights = [], []
    for name in ("it", "whole"):
        done = subprocess.run(command(tmp_path / name, 30), capture_output=True, text=True, check=True)
        assert ("continues from its checkpoint" in done.stderr) == (name == "it")
        rows.append(load_results(tmp_path / name).iloc[0])
        weights.append(next((tmp_path / name).glob("models/*.safetensors")).read_bytes())
    assert rows[0].accuracy == rows[1].accuracy
    assert weights[0] == weights[1]
