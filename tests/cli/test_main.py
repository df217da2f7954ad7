from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
import typer
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner, Result

import featbench
from featbench.backbones.architectures import backbone_names
from featbench.classifiers.registry import CLASSIFIERS
from featbench.cli.main import app
from featbench.cli.options import exit_codes
from featbench.config import builtin_experiments
from featbench.data.datasets import DATASETS
from tests.tiny import digits_content, image_folder


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write_experiment(home: Path, **changes: Any) -> Path:
    content = digits_content(
        dataset={"name": "digits", "limit_train": 60, "limit_test": 20, "val_fraction": 0.02},
        backbones=[{"name": "resnet20", "layers": ["layer3"]}],
        evaluate={"classifiers": ["linear_svc"], "grids": {"linear_svc": {"C": [1e-3]}}},
        baselines=[{"strategy": "linear_head", "epochs": 1}],
    )
    path = home / "tiny.toml"
    path.write_text(tomli_w.dumps(content | changes))
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with every cache inside it."""
    monkeypatch.setenv("FEATBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_one_message(result: Result, code: int, *parts: str) -> None:
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    message, _, to_paste = result.stderr.partition("\n\n")  # some have lines for the shell
    assert len(message.splitlines()) == 1, result.stderr
    assert not to_paste or "\n\n" in parts[-1]
    assert result.stderr.startswith("featbench: ")
    for part in parts:
        assert part in result.stderr


def test_run_writes_the_table_to_stdout_and_progress_to_stderr(home: Path) -> None:
    result = invoke("run", write_experiment(home), "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "Traceback" not in result.output
    rows = featbench.load_results(home / "results" / "tiny")
    assert rows.method.tolist() == ["linear_svc", "linear_head"]
    for accuracy in rows.accuracy:
        assert f"{accuracy:.4f}" in result.stdout
    assert "results/tiny" in result.stdout
    assert "to do" not in result.stdout
    assert "resnet20 train: 60 to do" in result.stderr
    assert {path.name for path in (home / "home" / "features" / "digits").iterdir()} == {"resnet20"}


def test_stages_run_one_by_one_and_in_folders_of_choice(home: Path) -> None:
    experiment = write_experiment(home)
    places = ["--results", "r", "--cache", "c", "--device", "cpu"]
    result = invoke("extract", experiment, *places)
    assert (result.exit_code, result.stdout) == (0, "")
    assert list((home / "c").rglob("*.h5"))
    assert not (home / "r" / "results.csv").exists()
    for stage, methods in (("evaluate", ["linear_svc"]), ("baseline", ["linear_svc", "linear_head"])):
        result = invoke(stage, experiment, *places)
        assert result.exit_code == 0, result.output
        assert featbench.load_results("r").method.tolist() == methods
        assert methods[-1] in result.stdout
    assert not (home / "home").exists()
    assert not (home / "results").exists()


def test_a_folder_of_images_is_an_experiment(home: Path) -> None:
    image_folder(home / "my photos")
    settings = ["--set", "backbones.0.name=resnet20", "--set", "evaluate.classifiers=['linear_svc']"]
    epochs = [part for i in range(3) for part in ("--set", f"baselines.{i}.epochs=1")]
    result = invoke("run", "my photos", "--device", "cpu", *settings, *epochs)
    assert result.exit_code == 0, result.output
    rows = featbench.load_results(home / "results" / "my_photos")
    assert set(rows.dataset) == {"my photos"}
    assert rows.method.tolist() == ["linear_svc", "linear_svc", "linear_head", "finetune", "scratch"]


def test_quiet_prints_nothing_when_all_is_well(home: Path) -> None:
    result = invoke("run", write_experiment(home), "--device", "cpu", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert (home / "results" / "tiny" / "results.csv").exists()


def test_a_second_run_says_that_it_reuses(home: Path) -> None:
    experiment = write_experiment(home)
    first, second = (invoke("run", experiment, "--device", "cpu") for _ in range(2))
    assert second.stdout == first.stdout
    assert second.stderr.splitlines() == ["nothing has changed since this run was finished"]
    (home / "results" / "tiny" / "report.html").unlink()
    third = invoke("run", experiment, "--device", "cpu")
    assert third.stdout == first.stdout
    assert third.stderr.count("reused") == 3
    assert third.stderr.count("already in results.csv") == 2


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (["dataset.name=digit"], ["unknown data set 'digit'", "did you mean 'digits'"]),
        (["backbones.0.name=resnet200"], ["unknown backbone 'resnet200'", "did you mean 'resnet20'"]),
        (["backbones.0.weights=CIFAR_10"], ["unknown weights of resnet20", "'CIFAR_10'"]),
        (["backbones.0.layers=['layer33']"], ["unknown layer 'layer33'", "did you mean 'layer3'"]),
        (["backbones.0.pooling=avg4"], ["unknown pooling 'avg4'", "did you mean 'avg"]),
        (["backbones.0.pooling=avg:9"], ["pooling 'avg:9'", "8x8"]),
        (["evaluate.classifiers=['svm_rfb']", "evaluate.grids={}"], ["'svm_rfb'", "did you mean 'svm_rbf'"]),
        (["evaluate.fold=3"], ["unknown key 'evaluate.fold'", "did you mean 'folds'"]),
        (["baselines.0.strategy=fine_tune"], ["baselines.0.strategy = 'fine_tune'", "'finetune'"]),
        (["seed=-1"], ["seed = -1"]),
        (["seed"], ["KEY=VALUE", "'seed'"]),
    ],
)
def test_what_is_wrong_in_an_experiment_exits_with_2_and_one_line(
    home: Path, settings: list[str], parts: list[str]
) -> None:
    options = [part for setting in settings for part in ("--set", setting)]
    result = invoke("run", write_experiment(home), "--device", "cpu", *options)
    assert_one_message(result, 2, *parts)
    assert not list(home.rglob("results.csv"))
    assert not list(home.rglob("*.h5"))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run", "digit"], ["unknown experiment 'digit'", "did you mean 'digits'"]),
        (["run", "my/photos"], ["no experiment file or folder of images 'my/photos'"]),
        (["run", "gone.toml"], ["'gone.toml'"]),
        (["run", "digits", "--device", "gpu"], ["unknown device 'gpu'", "cuda"]),
        (["run", "digits", "--device", "cuda:99"], ["no device 'cuda:99'"]),
        (["list", "layers", "resnet19"], ["unknown backbone 'resnet19'", "did you mean 'resnet1"]),
        (["list", "layers", "python:gone:make"], ["there is no module 'gone' in"]),
    ],
)
def test_a_wrong_name_exits_with_2_and_leaves_nothing_behind(
    home: Path, arguments: list[str], parts: list[str]
) -> None:
    assert_one_message(invoke(*arguments), 2, *parts)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("arguments", [["runn", "digits"], ["run"], ["run", "digits", "--devise", "cpu"]])
def test_a_wrong_command_line_exits_with_2(home: Path, arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr


def test_a_toml_file_that_is_none_exits_with_2(home: Path) -> None:
    (home / "bad.toml").write_text("name = ")
    assert_one_message(invoke("run", "bad.toml"), 2, "bad.toml is not a TOML file")


def test_evaluate_without_features_names_the_command(home: Path) -> None:
    result = invoke("evaluate", write_experiment(home), "--device", "cpu", "--quiet")
    assert_one_message(result, 1, "features of resnet20 (train)", "featbench extract")


def _one_class(home: Path) -> list[str]:
    image_folder(home / "photos", classes=("red",))
    return ["photos"]


def _no_images(home: Path) -> list[str]:
    (home / "photos" / "cats").mkdir(parents=True)
    (home / "photos" / "dogs").mkdir()
    return ["photos"]


def _empty_folder(home: Path) -> list[str]:
    (home / "photos").mkdir()
    return ["photos"]


def _too_few(home: Path) -> list[str]:
    image_folder(home / "photos", per_class=2)
    return ["photos"]


def _fewer_than_folds(home: Path) -> list[str]:
    image_folder(home / "photos" / "train", per_class=4)
    image_folder(home / "photos" / "test", per_class=1)
    return ["photos"]


def _unfitting_weights(home: Path) -> list[str]:
    torch.save({"conv9.weight": torch.zeros(3)}, home / "w.pth")
    return [str(write_experiment(home)), "--set", "backbones.0.weights=w.pth"]


def _missing_weights(home: Path) -> list[str]:
    return [str(write_experiment(home)), "--set", "backbones.0.weights=gone.safetensors"]


def _no_network_for_weights(home: Path) -> list[str]:
    experiment = write_experiment(home, backbones=[{"name": "resnet18"}])
    return [str(experiment), "--offline"]


def _no_network_for_data(home: Path) -> list[str]:
    experiment = write_experiment(home, dataset={"name": "mnist"})
    return [str(experiment), "--offline", "--data", "nowhere"]


def _results_are_a_file(home: Path) -> list[str]:
    (home / "taken").touch()
    return [str(write_experiment(home)), "--results", "taken"]


def _cache_is_a_file(home: Path) -> list[str]:
    (home / "taken").touch()
    return [str(write_experiment(home)), "--cache", "taken"]


def _damaged_results(home: Path) -> list[str]:
    (home / "r").mkdir()
    (home / "r" / "results.csv").write_text("some,other\ntable,here\n")
    return [str(write_experiment(home)), "--results", "r"]


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (_one_class, ["only one class, 'red'"]),
        (_no_images, ["class 'cats' has no image"]),
        (_empty_folder, ["there are no images in", "one folder a class"]),
        (_too_few, ["'blue' has 2, 'green' has 2 and 'red' has 2. A class needs at least 3"]),
        (_fewer_than_folds, ["class 'blue' has 4 images", "folds"]),
        (_unfitting_weights, ["w.pth does not fit ResNet20", "unexpected: conv9.weight"]),
        (_missing_weights, ["there is no weights file", "gone.safetensors"]),
        (_no_network_for_weights, ["--offline", "resnet18-", "torch/hub/checkpoints"]),
        (_no_network_for_data, ["--offline", "nowhere"]),
        (_results_are_a_file, ["cannot write", "taken", "--results"]),
        (_cache_is_a_file, ["taken", "--cache"]),
        (_damaged_results, ["results.csv", "lacks the columns"]),
    ],
)
def test_what_cannot_be_done_exits_with_1_and_one_line(home: Path, make: Any, parts: list[str]) -> None:
    assert_one_message(invoke("run", *make(home), "--device", "cpu", "--quiet"), 1, *parts)


@pytest.mark.parametrize(
    ("setting", "code", "error"),
    [("dataset.name=digit", 2, "UsageError"), ("backbones.0.weights=gone.pth", 1, "WeightsError")],
)
def test_verbose_shows_the_traceback_and_keeps_the_exit_code(home: Path, setting: str, code: int, error: str) -> None:
    result = invoke("run", write_experiment(home), "--verbose", "--set", setting)
    assert result.exit_code == code
    assert "Traceback (most recent call last)" in result.stderr
    assert error in result.stderr
    assert result.stderr.splitlines()[-1].startswith("featbench: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", ""],
        ["run", "digits", "--results", ""],
        ["run", "digits", "--cache", ""],
        ["run", "digits", "--data", ""],
        ["run", "digits", "--set", "dataset.name=folder", "--set", "dataset.root="],
        ["predict", "", "x.jpg"],
        ["predict", "r", "x.jpg", ""],
        ["report", "r", ""],
        ["report", "r", "-o", ""],
        ["list", "models", ""],
        ["export", "r", "--output", ""],
        ["cache", "list", "--cache", ""],
    ],
)
def test_an_empty_path_is_not_the_current_folder(home: Path, arguments: list[str]) -> None:
    image_folder(home)
    before = sorted(home.rglob("*"))
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(r"is empty; .*\.$", result.stderr)
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments", [["list", "models", "a" * 5000], ["run", "digits", "--cache", "a/" * 3000], ["report", "a" * 300]]
)
def test_a_path_that_is_too_long_is_a_wrong_command_line(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith(": the path is longer than this system allows\n")


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("a\nb"), RecursionError(), NotImplementedError("n")])
@pytest.mark.parametrize("verbose", [False, True])
def test_a_fault_is_one_line_that_says_whose_it_is(
    capsys: pytest.CaptureFixture[str], error: Exception, verbose: bool
) -> None:
    with pytest.raises(typer.Exit) as raised, exit_codes(verbose=verbose):
        raise error
    assert raised.value.exit_code == 1
    *before, line = capsys.readouterr().err.splitlines()
    kind = {KeyError: "KeyError: 'x'", ValueError: "ValueError: a", NotImplementedError: "NotImplementedError: n"}
    assert line == (
        f"featbench: this is a fault of featbench's: {kind.get(type(error), 'RecursionError')}; please report it to "
        "its authors, with the command and what --verbose prints"
    )
    assert ("Traceback (most recent call last):" in before) is verbose


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError(), RuntimeError("CUDA\nmore")])
def test_what_the_machine_refuses_is_no_fault(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    with pytest.raises(typer.Exit), exit_codes():
        raise error
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"featbench: {type(error).__name__}")
    assert line.endswith(" (--verbose shows where)")
    assert "fault" not in line


def test_days_without_use_are_finite(home: Path) -> None:
    assert_one_message(invoke("cache", "prune", "--older-than", "inf", "--yes"), 2, "finite number of days")
    assert invoke("cache", "prune", "--older-than", "nan", "--yes").exit_code == 2


def _shell(command: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command line in which `featbench` is the one under test."""
    text = f'featbench() {{ "{sys.executable}" -m featbench "$@"; }}; {command}'
    return subprocess.run(["bash", "-c", text], capture_output=True, check=False, timeout=300)


def test_without_a_current_folder_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    done = _shell(f"cd '{tmp_path}/gone' && rmdir '{tmp_path}/gone' && featbench run digits --dry-run")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"featbench: there is no current folder (No such file or directory): it was removed")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("command", ["list datasets", "--help", "--version"])
def test_a_full_disk_for_the_output_is_one_line(command: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = _shell(f"featbench {command} >/dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith(b"featbench: ")
    assert b"No space left on device" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_arguments_that_are_not_utf8_are_shown(tmp_path: Path) -> None:
    for arguments, code in ((r"run $'caf\xe9.toml'", 2), (r"list models $'caf\xe9'", 1), (r"$'--caf\xe9'", 2)):
        done = _shell(f"cd '{tmp_path}'; featbench {arguments}")
        assert done.returncode == code
        assert b"caf" in done.stderr
        assert b"xe9" in done.stderr or b"udce9" in done.stderr
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("datasets", DATASETS),
        ("backbones", [*backbone_names(), "timm:NAME", "python:MODULE:FACTORY"]),
        ("classifiers", [*CLASSIFIERS, "python:MODULE:FACTORY"]),
        ("experiments", builtin_experiments()),
    ],
)
def test_list_prints_a_line_for_each(what: str, names: Any) -> None:
    result = invoke("list", what)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(names)
    assert all(len(line.split()) > 1 for line in lines)


def test_list_layers_prints_a_table_in_the_order_they_run() -> None:
    result = invoke("list", "layers", "resnet18")
    assert (result.exit_code, result.stderr) == (0, "")
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["LAYER", "OUTPUT", "WIDTH", "COMPUTE"]
    table = {line.split()[0]: line.split()[1:] for line in lines}
    order = list(table)
    assert table["layer2"] == ["128x28x28", "128", "54.7%", "blocks"]
    assert table["layer4"] == ["512x7x7", "512", "100.0%", "blocks"]
    assert table["penultimate"] == ["512", "512", "100.0%"]
    assert table["fc"] == ["1000", "1000", "100.0%"]
    assert [name for name, cells in table.items() if "blocks" in cells] == ["layer1", "layer2", "layer3", "layer4"]
    assert order.index("layer1") < order.index("layer4") < order.index("penultimate") < order.index("fc")
    assert len({line.index("%") for line in lines}) == 1  # columns are aligned


def test_list_layers_takes_a_pooling_and_a_size() -> None:
    result = invoke("list", "layers", "resnet20", "--pooling", "avg:2", "--image-size", "64")
    table = {line.split()[0]: line.split()[1:3] for line in result.stdout.splitlines()}
    assert table["layer1"] == ["16x64x64", "64"]
    assert table["penultimate"] == ["64", "64"]  # a vector stays as it is
    assert table["fc"] == ["10", "-"]
    assert_one_message(invoke("list", "layers", "resnet20", "--pooling", "agv"), 2, "did you mean 'avg'")


def commands(command: Any, *names: str) -> Iterator[tuple[str, ...]]:
    """Names of a command and of all below it, as they are typed."""
    yield names
    if isinstance(command, TyperGroup):
        for name, below in command.commands.items():
            yield from commands(below, *names, name)


@pytest.mark.parametrize("names", list(commands(get_command(app))), ids=" ".join)
def test_help_ends_with_examples_that_parse(names: tuple[str, ...]) -> None:
    result = invoke(*names, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout
    examples = re.findall("`(.+?)`", " ".join(result.stdout.partition("Examples:")[2].split()))
    assert examples
    for example in examples:
        words = shlex.split(example.partition(" > ")[0].rpartition(" | ")[2])
        assert words.pop(0) == "featbench"
        assert tuple(words[: len(names)]) == names
        command: Any = get_command(app)
        while isinstance(command, TyperGroup):
            command = command.commands[words.pop(0)]
        command.make_context("example", words)  # an unknown option, or one without its value, is an error


def test_python_m_featbench_is_featbench() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "featbench", "list", "experiments"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0].split()[0] == "cats_dogs_vgg16"


def test_ctrl_c_during_training_exits_with_130_and_keeps_finished_rows(home: Path) -> None:
    experiment = write_experiment(home, baselines=[{"strategy": "scratch", "epochs": 100_000}])
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with subprocess.Popen(
        [sys.executable, "-m", "featbench", "run", str(experiment), "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        signal.signal(signal.SIGINT, handler)
        assert process.stderr is not None
        before = []
        for line in process.stderr:
            before.append(line)
            if line.startswith("scratch: 100000 to do"):
                break
        time.sleep(2)  # into the training itself
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, "".join(before) + stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert re.search(r"stopped after batch \d+ of \d+ in epoch \d+", stderr)
    assert stderr.endswith("interrupted; what was done so far is kept, and the same command goes on from there\n")
    assert featbench.load_results(home / "results" / "tiny").method.tolist() == ["linear_svc"]
    assert not [path for path in (home / "results").rglob("*") if path.name.endswith(".tmp")]


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"featbench {featbench.__version__}\n")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m featbench list backbones | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=120)
    assert (done.stdout.split(), done.stderr) == (["pixels", "none"], "")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("featbench run di", ["digits"]), ("featbench list layers resnet20", ["resnet20", "resnet20_cifar10"])],
)
def test_the_shell_completes_names(typed: str, expected: list[str]) -> None:
    words = {"_FEATBENCH_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    result = CliRunner().invoke(app, [], env=words, prog_name="featbench")
    assert result.stdout.split() == expected


def test_summary_prints_modules_and_what_each_strategy_trains(home: Path) -> None:
    result = invoke("summary", "mlp:activation=sigmoid", "--grey", "--depth", "1")
    assert result.exit_code == 0, result.output
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["MODULE", "TYPE", "OUTPUT", "PARAMETERS", "MULTIPLY-ADDS"],
        ["(whole)", "Layers", "10", "101,770", "101,632"],
        ["layer1", "Sequential", "128", "100,480", "100,352"],
        ["fc", "Linear", "10", "1,290", "1,280"],
        [],
        ["Images", "of", "1x28x28;", "0.4", "MiB", "of", "weights", "in", "float32."],
        [],
        ["STRATEGY", "TRAINED", "PARAMETERS", "(10", "classes)"],
        ["linear_head", "1,290"],
        ["finetune", "101,770"],
        ["scratch", "101,770"],
        ["partial:", "--freeze-until", "LAYER", "counts", "them"],
    ]
    assert "no head to train" in invoke("summary", "pixels").stdout
    assert_one_message(invoke("summary", "mpl"), 2, "did you mean 'mlp'")
