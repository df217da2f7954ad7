from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from featbench.results.store import load_results

# no batch norm learns here, so that two processes and one take the same steps; the last batches are uneven
HEAD = "strategy='linear_head',epochs=3,batch_size=16,ema=0.9"
BASELINES = f"[{{{HEAD},devices=2}},{{strategy='scratch',epochs=1,devices=2}},{{{HEAD},label='alone'}}]"
SETTINGS = (
    "dataset.limit_train=70",
    "dataset.limit_test=20",
    "backbones.0.precision=float32",
    f"baselines={BASELINES}",
)


DIFFERENT = """
import sys, torch
from featbench.baselines.processes import Processes
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
two = Processes(devices=2)
two.check_same_epoch(3, torch.device("cpu"))
two.check_same_epoch(3 * rank, torch.device("cpu"))
"""


@pytest.mark.slow
def test_processes_that_found_different_checkpoints_all_say_so(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", DIFFERENT, str(rank), str(tmp_path / "meeting")] for rank in (0, 1)]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in started:
        _, err = process.communicate(timeout=600)
        assert "ResultsError: one process would go on after epoch 3 and another after epoch 0: all have to see" in err


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    options = [part for setting in SETTINGS for part in ("--set", setting)]
    command = [sys.executable, "-m", "featbench", "baseline", "digits", "--results", str(tmp_path), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1500, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("scratch: 1 to do") == 1  # the process that helps says nothing
    rows = load_results(tmp_path)
    assert rows.method.tolist() == ["linear_head", "scratch", "linear_head:alone"]
    assert json.loads(rows.params[0])["processes"] == {"devices": 2, "distributed": "ddp", "num_nodes": 1}
    names = ("linear_head", "linear_head_alone")
    histories = [next((tmp_path / "history").glob(f"{name}-*")).read_text("utf-8") for name in names]
    figures = [[line.split(",")[:6] for line in text.splitlines()[1:]] for text in histories]
    for two, one in zip(*figures, strict=True):
        assert [float(v) for v in two] == pytest.approx([float(v) for v in one], rel=1e-3)
    files = [next((tmp_path / "models").glob(f"{name}-*.safetensors")) for name in names]
    together, alone = (safetensors.torch.load_file(file) for file in files)
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-3, atol=1e-5)


AGAIN = """
import sys
from dataclasses import replace
from pathlib import Path

import torch

from featbench.baselines.processes import Processes
from tests.trainings import Killed, killed_after, recipe, train
from tests.tiny import Recorder

two, checkpoint, advances = Processes(devices=2), Path(sys.argv[1]), []
noise = {"augment": "flip_crop_erase", "dropout": 0.5, "mixup": 0.2, "ema": 0.9}  # processes draw it apart
chosen = recipe("finetune", epochs=3, **noise)
whole = train(chosen, processes=two)
try:
    train(chosen, processes=two, checkpoint=checkpoint, progress=killed_after(2))
except Killed:
    progress = Recorder(lambda: advances.append(None))
    resumed = train(chosen, processes=two, checkpoint=checkpoint, progress=progress)
if two.is_main():
    one, other = ([replace(epoch, seconds=0) for epoch in each.history] for each in (whole, resumed))
    assert one == other, (one, other)
    assert all(torch.equal(resumed.state[name], tensor) for name, tensor in whole.state.items())
    print(len(one), "epochs,", len(advances), "advances")
"""


@pytest.mark.slow
def test_two_processes_that_go_on_end_with_the_weights_of_two_never_stopped(tmp_path: Path) -> None:
    script = tmp_path / "again.py"  # Lightning starts it a second time
    script.write_text(AGAIN, "utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script), str(tmp_path / "it.ckpt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1500, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3 epochs, 2 advances\n"
