from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from featbench.config import (
    BackboneConfig,
    BaselineConfig,
    DatasetConfig,
    EvaluateConfig,
    Experiment,
    builtin_experiments,
    load_experiment,
)
from featbench.errors import UsageError

L2 = {"strategy": "scratch", "label": "l2"}
PARTIAL = {"strategy": "partial", "freeze_until": "layer2"}


def content(**tables: Any) -> dict[str, Any]:
    return {"name": "trial", "dataset": {"name": "digits"}, "backbones": [{"name": "resnet18"}], **tables}


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return str(path)


MINIMAL = 'name = "trial"\n[dataset]\nname = "digits"\n[[backbones]]\nname = "resnet18"\n'


def test_defaults_are_those_of_the_design() -> None:
    experiment = Experiment.model_validate(content(baselines=[{"strategy": "finetune"}]))
    assert experiment.seed == 0
    assert (experiment.dataset.val_fraction, experiment.dataset.test_fraction) == (0.15, 0.15)
    assert experiment.dataset.on_bad_image == "skip"
    backbone = experiment.backbones[0]
    assert (backbone.layers, backbone.pooling, backbone.precision) == (("penultimate",), "avg", "auto")
    assert experiment.evaluate.selection == "auto"
    assert experiment.baselines[0].repeats == 1


def test_experiments_are_frozen() -> None:
    experiment = Experiment.model_validate(content())
    with pytest.raises(ValidationError, match="frozen"):
        experiment.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("tables", "key", "close"),
    [
        ({"dataset": {"name": "digits", "rooot": "x"}}, "dataset.rooot", "root"),
        ({"backbones": [{"name": "resnet18", "layer": ["x"]}]}, "backbones.0.layer", "layers"),
        ({"evaluate": {"clasifiers": ["knn"]}}, "evaluate.clasifiers", "classifiers"),
        ({"baselines": [{"strategy": "scratch", "epoch": 3}]}, "baselines.0.epoch", "epochs"),
        ({"baseline": []}, "baseline", "baselines"),
    ],
)
def test_unknown_keys_name_the_nearest_valid_one(tables: dict[str, Any], key: str, close: str) -> None:
    with pytest.raises(UsageError, match=f"unknown key '{key}'; did you mean '{close}'"):
        Experiment.model_validate(content(**tables))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"dataset": {"name": "digits", "root": "x"}}, "root has no effect unless name"),
        ({"backbones": [{"name": "pixels", "weights": "random"}]}, "weights has no effect on pixels"),
        ({"backbones": [{"name": "pixels", "layers": ["layer1"]}]}, "layers has no effect on pixels"),
        ({"backbones": [{"name": "pixels", "pooling": "max"}]}, "pooling has no effect on pixels"),
        ({"evaluate": {"selection": "holdout", "folds": 3}}, 'folds has no effect with selection = "holdout"'),
        ({"evaluate": {"selection": "none", "folds": 3}}, 'folds has no effect with selection = "none"'),
        ({"evaluate": {"classifiers": [], "memory_gb": 3}}, "memory_gb has no effect without classifiers"),
        ({"evaluate": {"grids": {"knn": {"k": [1]}}}}, "grids.knn has no effect: knn is not among the classifiers"),
        (
            {"evaluate": {"selection": "none", "grids": {"linear_svc": {"C": [1]}}}},
            'grids.linear_svc has no effect with selection = "none"',
        ),
        ({"baselines": [{"strategy": "scratch", "backbone_lr_factor": 0.5}]}, "backbone_lr_factor has no effect"),
        ({"baselines": [{"strategy": "finetune", "freeze_until": "layer2"}]}, "freeze_until has no effect"),
        ({"baselines": [{"strategy": "linear_head", "layer_decay": 0.5}]}, "layer_decay has no effect"),
        ({"baselines": [{"strategy": "finetune", "warmup_epochs": 1}]}, "warmup_epochs has no effect"),
        ({"baselines": [{"strategy": "finetune", "step_size": 1}]}, "step_size has no effect"),
        ({"baselines": [{"strategy": "finetune", "schedule": "cosine", "gamma": 0.5}]}, "gamma has no effect"),
        (
            {"baselines": [{"strategy": "finetune", "schedule": "step", "epochs": 5, "step_size": 5}]},
            "step_size = 5 has no effect in 5 epochs",
        ),
        ({"baselines": [{"strategy": "finetune", "plateau_patience": 1}]}, "plateau_patience has no effect"),
        (
            {"baselines": [{"strategy": "scratch", "distributed": "ddp_find_unused_parameters_true"}]},
            "distributed has no effect with one process",
        ),
        (
            {"baselines": [{"strategy": "finetune", "optimizer": "adam", "momentum": 0.5}]},
            'momentum has no effect with optimizer = "adam"',
        ),
        (
            {"baselines": [{"strategy": "finetune", "optimizer": "adamw", "momentum": 0.5}]},
            'momentum has no effect with optimizer = "adamw"',
        ),
    ],
)
def test_settings_without_effect_are_refused(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Experiment.model_validate(content(**tables))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"name": "../up"}, "name = '../up'"),
        ({"seed": -1}, "seed = -1"),
        ({"dataset": {"name": "folder"}}, "root is missing"),
        ({"dataset": {}}, "dataset.name is missing"),
        ({"dataset": {"name": "digits", "val_fraction": 0}}, "dataset.val_fraction = 0"),
        ({"dataset": {"name": "digits", "val_fraction": 0.5, "test_fraction": 0.5}}, "nothing to train on"),
        ({"dataset": {"name": "digits", "limit_train": 0}}, "dataset.limit_train = 0"),
        ({"dataset": {"name": "digits", "on_bad_image": "ignore"}}, "'skip' or 'error'"),
        ({"backbones": []}, "backbones"),
        ({"backbones": [{"name": "resnet18", "layers": []}]}, "layers is empty"),
        ({"backbones": [{"name": "resnet18", "layers": ["fc", "fc"]}]}, "names a layer twice"),
        ({"evaluate": {"classifiers": ["knn", "knn"]}}, "names one twice"),
        ({"evaluate": {"folds": 1}}, "evaluate.folds = 1"),
        ({"evaluate": {"grids": {"linear_svc": {"C": []}}}}, "grids.linear_svc.C is empty"),
        ({"baselines": [{"strategy": "scrach"}]}, "baselines.0.strategy = 'scrach'"),
        ({"baselines": [{"strategy": "partial"}]}, "freeze_until is missing"),
        ({"baselines": [{"strategy": "scratch", "tune": 1}]}, "tune = 1 compares nothing"),
        (
            {"baselines": [{"strategy": "scratch", "refit": True, "early_stopping": 3}]},
            "refit = true trains on the validation rows",
        ),
        (
            {"baselines": [{"strategy": "scratch", "refit": True, "schedule": "plateau"}]},
            "refit = true trains on the validation rows",
        ),
        ({"baselines": [{"strategy": "scratch", "lr": "automatic"}]}, "lr"),
        ({"baselines": [{"strategy": "scratch", "lr": "auto", "devices": 2}]}, "is found by one process"),
        ({"baselines": [{"strategy": "scratch", "batch_size": 6, "num_nodes": 4}]}, "batch_size = 6 is less than two"),
        (
            {"baselines": [{"strategy": "scratch", "schedule": "cosine", "epochs": 2, "warmup_epochs": 2}]},
            "leaves none of the 2 epochs",
        ),
        ({"baselines": [{"strategy": "scratch", "label": "a:b"}]}, "baselines.0.label = 'a:b'"),
        (
            {"baselines": [{"strategy": "scratch"}, {"strategy": "scratch", "l1": 1}]},
            'two baselines are scratch.*label = "l2"',
        ),
        ({"baselines": [L2, L2 | {"backbone": "resnet18"}]}, "two baselines are scratch:l2"),
        ({"baselines": [{"strategy": "scratch", "backbone": "resnet81"}]}, "did you mean 'resnet18'"),
        ({"backbones": [{"name": "pixels"}], "baselines": [{"strategy": "scratch"}]}, "pixels is none"),
    ],
)
def test_wrong_values_are_refused_by_name(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Experiment.model_validate(content(**tables))


@pytest.mark.parametrize(
    "tables",
    [
        {"evaluate": {"grids": {"linear_svc": {"C": [0.1, 1]}}}},
        {"baselines": [PARTIAL | {"backbone_lr_factor": 0.5}]},
        {"baselines": [{"strategy": "finetune", "optimizer": "sgd", "momentum": 0.5}]},
        {"backbones": [{"name": "pixels", "image_size": 16}]},
        {"baselines": [{"strategy": "scratch"}, L2, L2 | {"strategy": "finetune"}]},
        {
            "backbones": [{"name": "resnet18"}, {"name": "resnet34"}],
            "baselines": [{"strategy": "scratch", "backbone": name} for name in ("resnet18", "resnet34")],
        },
    ],
)
def test_settings_with_effect_are_taken(tables: dict[str, Any]) -> None:
    Experiment.model_validate(content(**tables))


def test_two_mistakes_are_told_at_once() -> None:
    with pytest.raises(UsageError, match=r"seed = -1.*unknown key 'dataset\.rooot'"):
        Experiment.model_validate(content(seed=-1, dataset={"name": "digits", "rooot": "x"}))


@pytest.mark.parametrize("name", ["digits", "folder"])
def test_there_are_the_built_in_experiments_that_the_readme_names(name: str) -> None:
    assert name in builtin_experiments()


def test_a_folder_does_not_hide_a_builtin_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_experiment("digits").dataset.name == "digits"
    assert load_experiment("./digits").dataset.root == tmp_path / "digits"


def test_a_toml_file_is_an_experiment(tmp_path: Path) -> None:
    experiment = load_experiment(write(tmp_path / "trial.toml", MINIMAL))
    assert (experiment.name, experiment.dataset.name, experiment.backbones[0].name) == ("trial", "digits", "resnet18")


@pytest.mark.parametrize(("folder", "name"), [("photos", "photos"), ("my photos!", "my_photos_"), ("_x", "x")])
def test_a_folder_is_an_experiment_named_after_it(tmp_path: Path, folder: str, name: str) -> None:
    (tmp_path / folder).mkdir()
    experiment = load_experiment(str(tmp_path / folder))
    assert experiment.name == name
    assert (experiment.dataset.name, experiment.dataset.root) == ("folder", tmp_path / folder)


def test_relative_paths_in_a_file_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(
        tmp_path / "sub" / "trial.toml",
        'name = "trial"\n[dataset]\nname = "folder"\nroot = "photos"\n'
        '[[backbones]]\nname = "resnet18"\nweights = "own.safetensors"\n'
        '[[backbones]]\nname = "resnet34"\nweights = "/nets/own.pth"\n'
        '[[backbones]]\nname = "resnet34"\nweights = "own.tar#teacher"\n'
        '[[backbones]]\nname = "resnet34"\nweights = "./own"\n'
        '[[backbones]]\nname = "resnet50"\nweights = "IMAGENET1K_V1"\n',
    )
    for source in (file, "sub/trial.toml"):
        experiment = load_experiment(source)
        assert experiment.dataset.root == tmp_path / "sub" / "photos"
        weights = [backbone.weights for backbone in experiment.backbones]
        sub = tmp_path / "sub"
        assert weights == [
            str(sub / "own.safetensors"),
            "/nets/own.pth",
            str(sub / "own.tar#teacher"),
            str(sub / "own"),
            "IMAGENET1K_V1",
        ]


def test_relative_paths_of_set_start_where_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "sub" / "trial.toml", MINIMAL)
    overrides = ["dataset.name=folder", "dataset.root=photos", "backbones.0.weights=own.pth"]
    experiment = load_experiment(file, overrides)
    assert experiment.dataset.root == tmp_path / "photos"
    assert experiment.backbones[0].weights == str(tmp_path / "own.pth")


def test_broken_toml_names_the_file_and_the_line(tmp_path: Path) -> None:
    file = write(tmp_path / "trial.toml", 'name = "trial"\nseed = = 1\n')
    with pytest.raises(UsageError, match=r"trial\.toml is not a TOML file: .*line 2"):
        load_experiment(file)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trial.toml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UsageError, match=r"trial\.toml is not a TOML file"):
        load_experiment(str(tmp_path / "trial.toml"))


@pytest.mark.parametrize("source", ["missing.toml", "no/such/folder"])
def test_a_missing_file_or_folder_is_named(source: str) -> None:
    with pytest.raises(UsageError, match=f"no experiment file or folder of images '{source}'"):
        load_experiment(source)


def test_an_unknown_built_in_name_gives_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown experiment 'digit'; did you mean 'digits'"):
        load_experiment("digit")


@pytest.mark.parametrize(
    ("override", "place", "value"),
    [
        ("seed=7", ("seed",), 7),
        ("dataset.val_fraction=0.2", ("dataset", "val_fraction"), 0.2),
        ("name=other", ("name",), "other"),
        ('name="quoted"', ("name",), "quoted"),
        ("backbones.0.name=resnet50", ("backbones", 0, "name"), "resnet50"),
        ('backbones.0.layers=["layer1", "layer2"]', ("backbones", 0, "layers"), ("layer1", "layer2")),
        ("backbones.1.name=pixels", ("backbones", 1, "name"), "pixels"),  # appended
        ("baselines.0.strategy=scratch", ("baselines", 0, "strategy"), "scratch"),  # the first of a new list
        ("evaluate.grids.linear_svc.C=[0.1, 1]", ("evaluate", "grids", "linear_svc", "C"), (0.1, 1)),
    ],
)
def test_set_replaces_and_appends(tmp_path: Path, override: str, place: tuple[str | int, ...], value: Any) -> None:
    found: Any = load_experiment(write(tmp_path / "trial.toml", MINIMAL), [override])
    for part in place:
        found = getattr(found, part) if isinstance(part, str) and hasattr(found, part) else found[part]
    assert found == value


def test_later_overrides_win(tmp_path: Path) -> None:
    assert load_experiment(write(tmp_path / "trial.toml", MINIMAL), ["seed=1", "seed=2"]).seed == 2


def test_an_item_of_a_list_of_values_is_replaced_by_its_number(tmp_path: Path) -> None:
    file = write(tmp_path / "trial.toml", MINIMAL + 'layers = ["layer1", "layer2"]\n')
    assert load_experiment(file, ["backbones.0.layers.1=layer3"]).backbones[0].layers == ("layer1", "layer3")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "--set takes KEY=VALUE"),
        ("=1", "--set takes KEY=VALUE"),
        ("backbones.2.name=resnet50", "'2' is not the number of an item; there are 1, from 0"),
        ("backbones.first.name=resnet50", "'first' is not the number of an item"),
        ("name.x=1", "name is a value and has no keys"),
        ("name.x.y=1", "name is a value and has no keys"),
        ("dataset.rooot=x", r"unknown key 'dataset\.rooot'; did you mean 'root'"),
        ("dataset.val_fraction=two", "dataset.val_fraction = 'two'"),
    ],
)
def test_set_refuses_what_makes_no_sense(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_experiment(write(tmp_path / "trial.toml", MINIMAL), [override])


MARK = b"\xef\xbb\xbf"


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "trial.toml").write_bytes(MARK + MINIMAL.replace("\n", "\r\n").encode())
    assert load_experiment(str(tmp_path / "trial.toml")).name == "trial"


def _nested(text: str) -> bytes:
    return f"{MINIMAL}x = {text}\n".encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (MINIMAL.encode("utf-16"), "it is UTF-16, or no text; save it as UTF-8"),
        (MINIMAL.encode("utf-16-le"), "it is UTF-16, or no text; save it as UTF-8"),
        (MINIMAL.encode() + b"# caf\xe9\n", "line 6 is not UTF-8; save it as UTF-8"),
        (_nested(r'"C:\photos"'), r"in double quotes a backslash .* a Windows path in 'single quotes', or with /"),
        (_nested(r'"C:\Users"'), r"in double quotes a backslash .* a Windows path in 'single quotes', or with /"),
        (_nested("[" * 3000), "nested too deep"),
        (_nested("[" * 3000 + "]" * 3000), "nested too deep"),
        (_nested("{a=" * 3000 + "1" + "}" * 3000), "nested too deep"),
        (_nested("9" * 6000), "a number has too many digits"),
        (MINIMAL.encode() + b"a." * 20_000 + b"b = 1\n", "more than 16 dots"),
        (MINIMAL.encode() + b"[" + b"'a' . " * 20_000 + b"b]\n", "more than 16 dots"),
        (_nested("{" + '"a".' * 20_000 + "b = 1}"), "more than 16 dots"),
        (b"#" * 1_000_001, "more than 1,000,000 bytes"),
    ],
)
def test_a_file_that_is_no_toml_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "trial.toml").write_bytes(content)
    with pytest.raises(UsageError, match=rf"trial\.toml is not .*{message}") as raised:
        load_experiment(str(tmp_path / "trial.toml"))
    assert len(str(raised.value)) < 500


def test_dots_in_text_and_comments_are_no_keys(tmp_path: Path) -> None:
    text = f"# {'.' * 5000} {'- ' * 5000}\n{MINIMAL}layers = ['{'.' * 80}', '{' . ' * 80}']\n"
    assert load_experiment(write(tmp_path / "trial.toml", text)).backbones[0].layers[0] == "." * 80


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=" + "9" * 6000, "seed = '9+\\.\\.\\."),
        ("evaluate.classifiers=[linear_svc]", r"is no TOML value: .*'\[\"linear_svc\", \"ridge\"\]'"),
        ("evaluate.classifiers=" + "[" * 3000, "nested too deep"),
        ("evaluate.grids.linear_svc.C=" + "[" * 30 + "]" * 30, "nested too deep"),
        ("a." * 20_000 + "b=1", "no setting lies that deep"),
        ("evaluate={" + "a." * 20_000 + "b=1}", "more than 16 dots"),
        ("backbones." + "9" * 6000 + ".name=x", "is not the number of an item"),
        ("dataset.root=~nouser/x", "'~nouser/x' begins with '~nouser', which is no user's home folder"),
        ("backbones.0.weights=~nouser/x.pth", "begins with '~nouser'"),
        ("dataset.root=", "dataset.root is empty"),
        (r'dataset.root="C:\temp"', "write a Windows path in 'single quotes'"),
        (r'dataset.name="a\u0000b"', "dataset.name holds a NUL character"),
        ("backbones.0.weights=caf\udce9.pth", "backbones.0.weights is not UTF-8"),
        ("name=" + "a" * 101, "name = 'a+': String should have at most 100 characters"),
        ("name=2024-01-01", "name = datetime.date"),
        ("seed=1\nname='x'", "seed = "),
        (
            "evaluate.grids.linear_svc.C=[nan]",
            r"evaluate.grids.linear_svc.C.0 = nan: give 0, or a number between 1e-30 and",
        ),
        ("evaluate.grids.linear_svc.C=[1e400]", r"evaluate.grids.linear_svc.C.0 = inf: give 0, or a number"),
        ("baselines=[{strategy='scratch',mixup=1e-320}]", r"baselines.0.mixup = 1e-320: give 0, or a number"),
        ("evaluate.grids.linear_svc.C=[1e31]", r"evaluate.grids.linear_svc.C.0 = 1e\+31: give 0, or a number"),
        ("evaluate.grids.linear_svc.C=[" + "9" * 400 + "]", "a number of more than 64 bits"),
    ],
)
def test_hostile_settings_are_one_sentence(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        load_experiment(write(tmp_path / "trial.toml", MINIMAL), [override])
    assert len(str(raised.value)) < 1000


NUMBERS = [
    *(f"dataset.{key}" for key in ("val_fraction", "test_fraction", "limit_train", "limit_test")),
    *(f"backbones.0.{key}" for key in ("image_size", "batch_size")),
    *(f"evaluate.{key}" for key in ("folds", "repeats", "train_sizes.0", "memory_gb")),
    *(
        f"baselines.0.{key}"
        for key in (
            *("epochs", "batch_size", "lr", "backbone_lr_factor", "layer_decay", "momentum", "weight_decay", "l1"),
            *("dropout", "clip_norm", "label_smoothing", "mixup", "ema", "warmup_epochs", "step_size", "gamma"),
            *("plateau_patience", "early_stopping", "tune", "repeats", "devices", "num_nodes"),
        )
    ),
    "seed",
]


def test_the_list_of_numbers_is_whole() -> None:
    """Every field that takes a number is in the list above."""
    found = {"seed"}
    tables = {"dataset": DatasetConfig, "backbones.0": BackboneConfig, "baselines.0": BaselineConfig}
    for table, model in (tables | {"evaluate": EvaluateConfig}).items():
        for key, field in model.model_fields.items():
            if re.search(r"\b(int|float)\b", str(field.annotation)):
                found.add(f"{table}.{key}{'.0' * (key == 'train_sizes')}")
    assert found == set(NUMBERS)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "'nan'", "1000000000000", "-1"])
@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_is_finite_and_bounded(tmp_path: Path, key: str, value: str) -> None:
    file = write(tmp_path / "trial.toml", MINIMAL + "[evaluate]\ntrain_sizes = [10]\n")
    needed = ["baselines.0.strategy=finetune"] if key.startswith("baselines") else []
    with pytest.raises(UsageError, match=re.escape(key.removesuffix(".0"))):
        load_experiment(file, [*needed, f"{key}={value}"])


def test_a_grid_of_too_many_candidates_is_refused() -> None:
    grid = {key: list(range(1, 102)) for key in ("C", "gamma_scale")}
    with pytest.raises(UsageError, match=r"grids\.svm_rbf has 10,201 candidates; more than 10,000 are not tried"):
        Experiment.model_validate(content(evaluate={"grids": {"svm_rbf": grid}}))


def test_a_home_folder_of_nobody_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="'~nouser/photos' begins with '~nouser'"):
        load_experiment("~nouser/photos")


@pytest.mark.parametrize("source", ["a" * 5000, "a/" * 3000, "x\0y/"])
def test_an_experiment_that_no_file_can_be(source: str) -> None:
    with pytest.raises(UsageError, match=r"unknown experiment|there is no experiment file"):
        load_experiment(source)


def test_many_errors_are_cut() -> None:
    with pytest.raises(UsageError, match=r"; and 35 more$"):
        Experiment.model_validate(content(**{f"key{number}": 1 for number in range(40)}))


def test_an_experiment_written_in_python_is_that_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        'name = "trial"\n[dataset]\nname = "folder"\nroot = "photos"\n[[backbones]]\nname = "resnet18"\n'
        'weights = "./net.pth"\n[evaluate]\nclassifiers = ["svm_rbf"]\ngrids = {svm_rbf = {C = [0.1, 1.0, 10.0]}}\n'
    )
    written = {
        "name": "trial",
        "dataset": {"name": "folder", "root": Path("photos")},
        "backbones": ({"name": "resnet18", "weights": Path("net.pth").absolute()},),
        "evaluate": {"classifiers": ["svm_rbf"], "grids": {"svm_rbf": {"C": np.logspace(-1, 1, 3)}}},
    }
    from_file = load_experiment(write(tmp_path / "trial.toml", text))
    assert load_experiment(written) == from_file
    assert load_experiment(from_file) == from_file
    assert from_file.dataset.root == tmp_path / "photos"
    assert isinstance(written["evaluate"]["grids"]["svm_rbf"]["C"], np.ndarray)  # the caller's stays as it is


def test_settings_replace_those_of_an_experiment_that_was_made() -> None:
    made = Experiment.model_validate(content(seed=3))
    assert load_experiment(made, ["seed=4", 'backbones.0.layers=["layer3"]']).backbones[0].layers == ("layer3",)
    with pytest.raises(UsageError, match="unknown key 'sed'; did you mean 'seed'"):
        load_experiment(made, ["sed=4"])


@pytest.mark.parametrize("source", [{"name": "trial", "datasets": {}}, {1: 2}, {}])
def test_a_dict_that_is_no_experiment_has_the_message_of_a_file(source: dict[Any, Any]) -> None:
    with pytest.raises(UsageError, match=r"the experiment is wrong: .*dataset is missing"):
        load_experiment(source)


def test_making_an_experiment_has_the_message_of_a_file() -> None:
    with pytest.raises(UsageError, match=r"unknown key 'dataset\.rooot'; did you mean 'root'"):
        Experiment(name="trial", dataset={"name": "digits", "rooot": "x"}, backbones=[{"name": "resnet18"}])  # type: ignore[arg-type]
