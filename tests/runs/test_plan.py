from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import featbench
from featbench.cli.main import app
from featbench.errors import UsageError
from featbench.runs.plan import describe_plan
from featbench.runs.resolve import resolve
from tests.tiny import digits_experiment, image_folder


def test_a_plan_tells_images_classes_and_what_will_run_and_leaves_nothing_behind(tmp_path: Path) -> None:
    experiment = digits_experiment(baselines=[{"strategy": "linear_head"}, {"strategy": "finetune", "epochs": 7}])
    job = resolve(experiment, results=tmp_path / "r", cache=tmp_path / "c", device="cpu")
    lines = {line.split()[0]: line for line in describe_plan(job, ("extract", "evaluate", "baseline"), measure=True)}
    assert "120 train, 72 val, 50 test" in lines["images"]
    assert lines["classes"].split(None, 1)[1] == "10: 0, 1, 2, 3, 4, 5, 6, 7 and 2 more"
    assert "resnet20" in lines["features"]
    assert "layer1, layer3" in lines["features"]
    assert "resnet20 was never trained, and results call its weights random" in lines["weights"]
    assert "linear_svc, svm_rbf, random_forest" in lines["classifiers"]
    assert "finetune" in lines["reference"]
    assert "7 epochs, and again with the validation images" in lines["reference"]
    assert "features less than 1 min, reference networks" in lines["time"]
    assert list(tmp_path.iterdir()) == []


def test_a_plan_of_what_cannot_run_is_the_error_of_the_run(tmp_path: Path) -> None:
    job = resolve(digits_experiment(), results=tmp_path / "r", device="cpu", cache=tmp_path)
    wrong = digits_experiment(backbones=[{"name": "resnet2"}])
    with pytest.raises(UsageError, match="unknown backbone 'resnet2'"):
        describe_plan(resolve(wrong, results=job.results_dir, device="cpu"), ("extract",))


def test_the_run_goes_on_with_the_data_set_that_its_plan_read(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "photos", per_class=10)
    experiment = digits_experiment(dataset={"name": "folder", "root": str(root)})
    job = resolve(experiment, results=tmp_path / "r", cache=tmp_path / "c", device="cpu")
    describe_plan(job, ("extract",))
    shutil.rmtree(root)
    assert sum(map(len, job.dataset.splits.values())) == 30


def test_data_that_is_not_here_is_not_downloaded_for_a_plan(tmp_path: Path) -> None:
    job = resolve("mnist", results=tmp_path / "r", data=tmp_path / "data", device="cpu")
    (*_, last) = describe_plan(job, ("extract",), measure=True)
    assert "mnist, which is not complete here" in last
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_config_runs_with_what_is_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FEATBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    image_folder(tmp_path / "photos", per_class=10)
    dry = CliRunner().invoke(app, ["run", "photos", "--dry-run", "--device", "cpu"])
    assert dry.exit_code == 0, dry.output
    assert "backbone     resnet20_cifar10: no pretrained weights are here" in dry.stderr
    assert "features     resnet20_cifar10, weights CIFAR10: layer2, layer3" in dry.stdout
    assert "blue, green, red" in dry.stdout
    assert not (tmp_path / "results").exists()

    short = ["--set", "baselines=[]", "--set", 'evaluate.classifiers=["linear_svc"]']
    done = CliRunner().invoke(app, ["run", "photos", "--device", "cpu", *short])
    assert done.exit_code == 0, done.output
    assert "classes      3: blue, green, red" in done.stderr
    rows = featbench.load_results("results/photos")
    assert set(rows.backbone) == {"resnet20_cifar10", "pixels"}
    assert set(rows.layer) == {"layer2", "layer3", "pixels"}
