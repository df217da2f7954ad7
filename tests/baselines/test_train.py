from __future__ import annotations

import gc
import math
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from featbench.backbones.own import ResNet20
from featbench.baselines.learner import Images
from featbench.baselines.network import with_new_head
from featbench.baselines.train import TrainedNetwork
from featbench.errors import ResultsError
from tests.disks import largest_file
from tests.tiny import Recorder
from tests.trainings import (
    N_CLASSES,
    SGD,
    TEST,
    TRAIN,
    VAL,
    Killed,
    backbone,
    coloured,
    killed_after,
    recipe,
    train,
)


def shuffled_labels(data: Images) -> Images:
    return replace(data, labels=data.labels[torch.randperm(len(data.labels), generator=torch.Generator())])


def penultimate(network: nn.Module, images: Tensor) -> Tensor:
    """Return what stands before the head of a ResNet20, by a hook."""
    found: list[Tensor] = []
    hook = network.get_submodule("avgpool").register_forward_hook(lambda _, __, output: found.append(output.flatten(1)))
    with torch.no_grad():
        network.eval()(normalised(images))
    hook.remove()
    return found[0]


def normalised(images: Tensor) -> Tensor:
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    return (images.float() / 255 - mean[:, None, None]) / std[:, None, None]


def logits_by_hand(trained: TrainedNetwork, images: Tensor) -> Tensor:
    network = ResNet20()
    network.fc = nn.Linear(64, N_CLASSES)
    network.load_state_dict(trained.state)
    with torch.no_grad():
        return network.eval()(normalised(images))


@pytest.mark.parametrize(
    ("strategy", "settings", "body_lr"),
    [
        ("finetune", {"lr": 0.1, "backbone_lr_factor": 0.25}, 0.025),
        ("scratch", {"lr": 0.1}, 0.1),
        ("finetune", {"lr": 0.1, "backbone_lr_factor": 1.0, "weight_decay": 0.5}, 0.1),
        ("finetune", {"lr": 0.1, "backbone_lr_factor": 1.0, "l1": 0.5}, 0.1),
    ],
)
def test_one_step_is_the_step_by_hand(strategy: str, settings: dict[str, Any], body_lr: float) -> None:
    trained = train(recipe(strategy, **(SGD | {"epochs": 1, "batch_size": 24} | settings)))

    network = with_new_head(backbone().traced, N_CLASSES, dropout=0.0, seed=0, freeze_until=None).network.train()
    loss = F.cross_entropy(network(normalised(TRAIN.images)), TRAIN.labels)
    loss = loss + settings.get("l1", 0.0) * sum(p.abs().sum() for p in network.parameters())
    loss.backward()
    for name, parameter in network.named_parameters():
        step = parameter.grad + settings.get("weight_decay", 0.0) * parameter
        expected = -(0.1 if name.startswith("fc") else body_lr) * step
        wrong = trained.state[name] - parameter - expected  # rounding: batch norm of a random network enlarges it
        assert wrong.norm() <= 0.02 * expected.norm() + 1e-6, name


def test_a_linear_head_leaves_the_body_as_it_was() -> None:
    network = backbone()
    before = {name: tensor.clone() for name, tensor in network.network.state_dict().items()}
    train(recipe("linear_head"), network)
    for name, tensor in network.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_linear_head_works_on_the_features_as_they_are() -> None:
    trained = train(recipe("linear_head"))
    assert {name: tuple(tensor.shape) for name, tensor in trained.state.items()} == {"weight": (3, 64), "bias": (3,)}
    features = penultimate(backbone().network, TEST.images)
    logits = features @ trained.state["weight"].T + trained.state["bias"]
    np.testing.assert_allclose(trained.probabilities, logits.softmax(1).numpy(), rtol=1e-4, atol=1e-5)


def test_one_step_of_a_linear_head_is_the_step_by_hand_on_standardised_features() -> None:
    trained = train(recipe("linear_head", **SGD, epochs=1, batch_size=24, lr=0.5))
    features = penultimate(backbone().network, TRAIN.images)
    mean, std = features.mean(0), features.std(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = nn.Linear(64, N_CLASSES)
    F.cross_entropy(head((features - mean) / std), TRAIN.labels).backward()
    with torch.no_grad():
        weight, bias = (p - 0.5 * p.grad for p in (head.weight, head.bias))
        expected = (penultimate(backbone().network, TEST.images) - mean) / std @ weight.T + bias
    np.testing.assert_allclose(trained.probabilities, expected.softmax(1).numpy(), rtol=1e-3, atol=1e-4)


def test_a_linear_head_learns_a_separable_set() -> None:
    trained = train(recipe("linear_head", epochs=20))
    assert (trained.probabilities.argmax(1) == TEST.labels.numpy()).all()
    assert trained.best.val_accuracy == 1.0


def test_a_linear_head_is_about_as_good_as_logistic_regression() -> None:
    parts = [coloured(count, seed, brighter=24) for seed, count in enumerate((120, 60, 150))]
    trained = train(recipe("linear_head", epochs=30, batch_size=16), train=parts[0], val=parts[1], test=parts[2])
    ours = (trained.probabilities.argmax(1) == parts[2].labels.numpy()).mean()

    features = [penultimate(backbone().network, part.images).numpy() for part in parts]
    scaler = StandardScaler().fit(features[0])
    theirs = LogisticRegression(C=0.1, max_iter=1000).fit(scaler.transform(features[0]), parts[0].labels)
    expected = theirs.score(scaler.transform(features[2]), parts[2].labels)
    assert 0.5 < expected < 0.99
    assert ours == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("strategy", ["finetune", "scratch", "partial"])
def test_a_network_learns_a_separable_set(strategy: str) -> None:
    trained = train(recipe(strategy, epochs=8, lr=0.01))
    assert (trained.probabilities.argmax(1) == TEST.labels.numpy()).mean() > 0.9
    assert trained.history[-1].train_loss < trained.history[0].train_loss
    assert trained.finite


def test_partial_changes_only_what_stands_behind_the_frozen_layer() -> None:
    before = {name: tensor.clone() for name, tensor in backbone().network.state_dict().items()}
    after = train(recipe("partial", weight_decay=0.1)).state
    for name in before.keys() - {"fc.weight", "fc.bias"}:
        frozen = name.split(".")[0] in ("conv1", "bn1", "layer1", "layer2")
        assert torch.equal(before[name], after[name]) is frozen, name


def test_the_weights_are_those_of_the_best_epoch() -> None:
    val = shuffled_labels(VAL)  # nothing to learn for, so that the best epoch may be any
    trained = train(recipe(epochs=5, lr=0.02, schedule="constant"), val=val)
    best = max(trained.history, key=lambda epoch: (epoch.val_accuracy, -epoch.val_loss))
    assert [epoch.epoch for epoch in trained.history] == [1, 2, 3, 4, 5]
    assert trained.best == best
    assert trained.params["best_epoch"] == best.epoch
    logits = logits_by_hand(trained, val.images)
    assert (logits.argmax(1) == val.labels).float().mean().item() == pytest.approx(best.val_accuracy)
    assert F.cross_entropy(logits, val.labels).item() == pytest.approx(best.val_loss, rel=1e-3)


@pytest.mark.parametrize("strategy", ["finetune", "partial", "scratch"])
def test_a_refit_is_the_training_on_train_and_val_together(strategy: str) -> None:
    both = Images(torch.cat([TRAIN.images, VAL.images]), torch.cat([TRAIN.labels, VAL.labels]))
    alone = train(recipe(strategy, epochs=1, dropout=0.3), train=both, val=TEST)
    trained = train(recipe(strategy, epochs=1, dropout=0.3, refit=True))
    for name, tensor in alone.state.items():
        torch.testing.assert_close(trained.state[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
    np.testing.assert_allclose(trained.probabilities, alone.probabilities, rtol=1e-3, atol=1e-5)


def test_what_a_refit_reports_of_validation_is_of_the_training_without_those_rows() -> None:
    settings = {"epochs": 4, "lr": 0.02, "schedule": "constant"}
    val = shuffled_labels(VAL)
    without, progress = train(recipe(**settings), val=val), Recorder()
    trained = train(recipe(**settings, refit=True), val=val, progress=progress)
    assert [replace(epoch, seconds=0) for epoch in trained.history] == [
        replace(epoch, seconds=0) for epoch in without.history
    ]
    assert trained.best == trained.history[-1]  # the best of several by few rows would be so by luck
    assert without.best != without.history[-1]
    assert (trained.params["best_epoch"], trained.params["refit"]) == (4, True)
    assert progress.bars == ["finetune", "finetune on train and val"]


def test_a_refitted_linear_head_learns_from_the_validation_rows() -> None:
    unseen = TRAIN.labels != 2
    train_rows = Images(TRAIN.images[unseen], TRAIN.labels[unseen])
    alone, refitted = (
        train(recipe("linear_head", epochs=60, refit=refit), train=train_rows).probabilities[TEST.labels.numpy() == 2]
        for refit in (False, True)
    )
    assert refitted[:, 2].min() > 0.5 > alone[:, 2].max()


def test_a_search_is_refitted_once() -> None:
    progress = Recorder()
    trained = train(recipe("linear_head", refit=True), tune=2, progress=progress)
    assert progress.bars == ["linear_head 1 of 2", "linear_head 2 of 2", "linear_head on train and val"]
    assert len(trained.params["tuned"]["lr_epochs_val_accuracy"]) == 2


def test_probabilities_are_those_of_a_forward_pass_by_hand() -> None:
    trained = train(recipe())
    expected = logits_by_hand(trained, TEST.images).softmax(1).numpy()
    assert trained.probabilities.dtype == np.float32
    np.testing.assert_allclose(trained.probabilities, expected, rtol=1e-4, atol=1e-5)


def test_labels_of_test_rows_have_no_say() -> None:
    one, other = train(recipe()), train(recipe(), test=shuffled_labels(TEST))
    assert np.array_equal(one.probabilities, other.probabilities)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", (0.01, 0.01, 0.01)),
        ("step", (0.01, 0.001, 0.0001)),
        ("plateau", (0.01, 0.01, 0.01)),
        ("cosine", tuple(0.01 * (1 + math.cos(math.pi * step / 9)) / 2 for step in (2, 5, 8))),
        ("one_cycle", (0.01, None, 0.01 / 25 / 1e4)),  # the peak after 0.3 of the steps, then down to almost nothing
    ],
)
def test_schedules_give_the_rates_that_their_formulas_say(
    optimizer: Any, schedule: Any, rates: tuple[float | None, ...]
) -> None:
    trained = train(recipe("linear_head", epochs=3, lr=0.01, optimizer=optimizer, schedule=schedule))  # 9 steps
    for epoch, rate in zip(trained.history, rates, strict=True):
        assert rate is None or epoch.lr == pytest.approx(rate, rel=0.05 if schedule == "one_cycle" else 1e-6)


def test_training_stops_when_nothing_gets_better() -> None:
    trained = train(recipe("linear_head", epochs=20, lr=1e-30, schedule="constant", early_stopping=2))
    assert [epoch.epoch for epoch in trained.history] == [1, 2, 3]
    assert trained.best.epoch == 1


@pytest.mark.parametrize("strategy", ["linear_head", "finetune", "scratch", "partial"])
def test_the_seed_decides_every_weight(strategy: str) -> None:
    chosen = recipe(strategy, dropout=0.2, augment="none" if strategy == "linear_head" else "flip_crop")
    one, again, other = (train(chosen, seed=seed) for seed in (3, 3, 4))
    assert one.state.keys() == again.state.keys()
    for name, tensor in one.state.items():
        assert torch.equal(tensor, again.state[name]), name
    assert any(not torch.equal(tensor, other.state[name]) for name, tensor in one.state.items())


def test_training_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(recipe("linear_head"))
    assert torch.equal(torch.get_rng_state(), before)


def test_ctrl_c_is_a_keyboard_interrupt_and_ctrl_c_still_works_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(epochs=50), progress=Recorder(lambda: signal.raise_signal(signal.SIGINT)))
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("strategy", ["finetune", "linear_head"])
def test_a_last_batch_of_one_image_breaks_nothing(strategy: str) -> None:
    nine = Images(TRAIN.images[:9, :, :4, :4], TRAIN.labels[:9])
    network = backbone(image_size=4)  # its last maps are 1x1, where batch norm cannot train on one image
    small = [Images(part.images[:, :, :4, :4], part.labels) for part in (VAL, TEST)]
    trained = train(recipe(strategy, batch_size=4), network, train=nine, val=small[0], test=small[1])
    assert len(trained.history) == 2


def test_a_single_validation_image_is_enough() -> None:
    trained = train(recipe("linear_head"), val=Images(VAL.images[:1], VAL.labels[:1]))
    assert trained.best.val_accuracy in (0.0, 1.0)


def test_training_that_diverges_says_so() -> None:
    trained = train(recipe(**SGD, lr=1e6, epochs=3))
    assert not trained.finite
    assert trained.probabilities.shape == (12, 3)


def test_bfloat16_learns_too() -> None:
    trained = train(recipe(epochs=8, lr=0.01), precision="bfloat16")
    assert (trained.probabilities.argmax(1) == TEST.labels.numpy()).mean() > 0.9
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in trained.state.values())


def test_the_recipe_is_recorded_with_the_number_of_parameters_that_learned() -> None:
    params = train(recipe("partial")).params
    network = ResNet20()
    network.fc = nn.Linear(64, N_CLASSES)
    learned = sum(p.numel() for part in (network.layer3, network.fc) for p in part.parameters())
    assert params["trained_parameters"] == learned
    assert (params["strategy"], params["freeze_until"], params["epochs"]) == ("partial", "layer2", 2)


def test_history_counts_by_hand() -> None:
    trained = train(recipe("linear_head", epochs=1, lr=1e-30, schedule="constant"))
    features = penultimate(backbone().network, TRAIN.images)
    logits = features @ trained.state["weight"].T + trained.state["bias"]
    epoch = trained.history[0]
    assert epoch.train_loss == pytest.approx(F.cross_entropy(logits, TRAIN.labels).item(), rel=1e-3)
    assert epoch.train_accuracy == pytest.approx((logits.argmax(1) == TRAIN.labels).float().mean().item())
    assert epoch.seconds > 0


def test_lightning_prints_nothing_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    progress = Recorder()
    train(recipe("linear_head"), progress=progress)
    assert capfd.readouterr() == ("", "")
    assert list(Path().iterdir()) == []
    assert progress.bars == ["linear_head"]


@pytest.mark.parametrize(
    ("strategy", "settings", "epochs"),
    [
        ("finetune", {"augment": "flip_crop_erase", "dropout": 0.5}, 1),
        ("finetune", {"augment": "flip_crop_erase", "dropout": 0.5}, 4),
        ("scratch", {"optimizer": "sgd", "schedule": "step"}, 2),
        ("linear_head", {"dropout": 0.2, "schedule": "cosine"}, 2),
        ("finetune", {"early_stopping": 2, "lr": 1e-9}, 4),
        ("partial", {"schedule": "plateau", "plateau_patience": 1, "lr": 0.05, "warmup_epochs": 1}, 3),
        ("scratch", {"augment": "trivial_augment", "mixup": 0.2, "ema": 0.9, "clip_norm": 1.0}, 2),
        ("linear_head", {"augment": "rand_augment", "optimizer": "adam", "label_smoothing": 0.1}, 1),
        ("finetune", {"refit": True, "augment": "flip_crop", "dropout": 0.5}, 5),  # between the two trainings
        ("partial", {"refit": True, "dropout": 0.5}, 7),
    ],
)
def test_a_training_that_goes_on_ends_with_the_weights_of_one_that_was_never_stopped(
    tmp_path: Path, strategy: str, settings: dict[str, Any], epochs: int
) -> None:
    chosen = recipe(strategy, epochs=5, **settings)
    whole = train(chosen)
    progress = killed_after(min(epochs, len(whole.history) * (2 if chosen.refit else 1)))
    with pytest.raises(Killed):
        train(chosen, progress=progress, checkpoint=tmp_path / "it.ckpt")
    torch.rand(7)  # another process's random numbers stand elsewhere
    resumed = train(chosen, checkpoint=tmp_path / "it.ckpt")
    assert resumed.state.keys() == whole.state.keys()
    assert all(torch.equal(resumed.state[name], whole.state[name]) for name in whole.state)
    assert np.array_equal(resumed.probabilities, whole.probabilities)
    untimed = [[replace(epoch, seconds=0) for epoch in trained.history] for trained in (whole, resumed)]
    assert untimed[0] == untimed[1]
    assert resumed.fit_s > sum(epoch.seconds for epoch in resumed.history)


def test_a_damaged_checkpoint_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "it.ckpt"
    file.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ResultsError, match=r"it\.ckpt is damaged; remove it"):
        train(recipe(), checkpoint=file)


def test_a_checkpoint_that_would_execute_something_is_not_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"state_dict": Evil()}, tmp_path / "it.ckpt")
    with pytest.raises(ResultsError, match="is damaged"):
        train(recipe(), checkpoint=tmp_path / "it.ckpt")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("settings", [{}, {"optimizer": "sgd", "schedule": "cosine", "dropout": 0.3, "l1": 1e-4}])
@pytest.mark.parametrize("strategy", ["partial", "linear_head"])
def test_a_frozen_part_computed_once_gives_the_training_that_has_it_in_the_loop(
    strategy: str, settings: dict[str, Any]
) -> None:
    chosen = recipe(strategy, epochs=3, **settings)
    once = train(chosen)
    in_the_loop = train(chosen, activation_bytes=0)  # and no folder to put them into
    assert (once.params["frozen_part"], in_the_loop.params["frozen_part"]) == ("computed once", "in the loop")
    for name, tensor in in_the_loop.state.items():
        torch.testing.assert_close(once.state[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    np.testing.assert_allclose(once.probabilities, in_the_loop.probabilities, rtol=1e-3, atol=1e-4)
    for one, other in zip(once.history, in_the_loop.history, strict=True):
        assert (one.val_accuracy, one.lr) == (other.val_accuracy, other.lr)
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_activations_on_disk_give_the_training_of_those_in_memory(tmp_path: Path, precision: str) -> None:
    chosen = recipe("partial", dropout=0.2)
    in_memory = train(chosen, precision=precision)
    on_disk = train(chosen, precision=precision, activation_bytes=0, spill_dir=tmp_path / "cache")
    assert in_memory.params["frozen_part"] == "computed once"
    assert on_disk.params["frozen_part"] == "computed once, on disk"
    assert all(torch.equal(on_disk.state[name], tensor) for name, tensor in in_memory.state.items())
    assert np.array_equal(on_disk.probabilities, in_memory.probabilities)
    untimed = [[replace(epoch, seconds=0) for epoch in trained.history] for trained in (in_memory, on_disk)]
    assert untimed[0] == untimed[1]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what a process has mapped")
def test_activations_on_disk_leave_no_file_and_take_no_space_afterwards(tmp_path: Path) -> None:
    during, maps = [], Path("/proc/self/maps")
    progress = Recorder(lambda: during.append(f"{tmp_path}/" in maps.read_text("utf-8")))
    train(recipe("partial"), activation_bytes=0, spill_dir=tmp_path, progress=progress)
    gc.collect()  # Lightning's circles of references
    assert during == [True, True]  # in both epochs
    assert not list(tmp_path.iterdir())
    assert f"{tmp_path}/" not in maps.read_text("utf-8")


def test_without_room_on_the_disk_the_frozen_part_stays_in_the_loop(tmp_path: Path) -> None:
    chosen, progress = recipe("partial"), Recorder()
    in_the_loop = train(chosen, activation_bytes=0)
    with largest_file(4096):
        trained = train(chosen, activation_bytes=0, spill_dir=tmp_path, progress=progress)
    assert trained.params["frozen_part"] == "in the loop"
    assert all(torch.equal(trained.state[name], tensor) for name, tensor in in_the_loop.state.items())
    (message,) = progress.warned
    assert message.startswith(f"0.00157 GB of activations cannot be put into {tmp_path}: File too large; the frozen")
    assert not list(tmp_path.iterdir())


def test_the_seconds_of_the_test_have_its_frozen_part() -> None:
    slow = backbone()
    slow.network.get_submodule("conv1").register_forward_hook(lambda *_: time.sleep(0.1))
    trained = train(recipe("linear_head"), slow)
    assert trained.predict_s > 0.1
    assert trained.fit_s > 0.2


@pytest.mark.parametrize("settings", [{"augment": "flip"}, {"mixup": 0.2}])
@pytest.mark.parametrize("strategy", ["partial", "linear_head"])
def test_where_images_change_the_frozen_part_is_in_the_loop(strategy: str, settings: dict[str, Any]) -> None:
    before = {name: tensor.clone() for name, tensor in backbone().network.state_dict().items()}
    network = backbone()
    trained = train(recipe(strategy, epochs=8, lr=0.01, **settings), network)
    assert trained.params["frozen_part"] == "in the loop"
    assert (trained.probabilities.argmax(1) == TEST.labels.numpy()).mean() > 0.6  # chance is a third
    for name in ("layer2.0.conv1.weight", "layer2.0.bn1.running_mean"):
        assert torch.equal(network.network.state_dict()[name], before[name])


def one_step(trained: TrainedNetwork) -> dict[str, Tensor]:
    """Return what one step on all of TRAIN subtracted from each weight."""
    start = with_new_head(backbone().traced, N_CLASSES, dropout=0.0, seed=0, freeze_until=None).network
    return {name: tensor.detach() - trained.state[name] for name, tensor in start.named_parameters()}


ONE_STEP: dict[str, Any] = SGD | {"epochs": 1, "batch_size": 24, "backbone_lr_factor": 1.0}


def test_label_smoothing_is_that_of_torch() -> None:
    head = one_step(train(recipe(**ONE_STEP, lr=0.1, label_smoothing=0.3)))["fc.bias"]
    network = with_new_head(backbone().traced, N_CLASSES, dropout=0.0, seed=0, freeze_until=None).network.train()
    F.cross_entropy(network(normalised(TRAIN.images)), TRAIN.labels, label_smoothing=0.3).backward()
    torch.testing.assert_close(head, 0.1 * network.get_parameter("fc.bias").grad, rtol=1e-3, atol=1e-6)


def test_the_gradient_is_cut_down_to_its_norm() -> None:
    free, cut = (one_step(train(recipe(**ONE_STEP, lr=1.0, clip_norm=norm))) for norm in (None, 0.05))
    norm = torch.cat([step.flatten() for step in free.values()]).norm()
    assert norm > 0.05
    for name, step in free.items():
        torch.testing.assert_close(cut[name], step * (0.05 / norm), rtol=1e-2, atol=1e-5, msg=name)


def test_layer_decay_gives_each_block_the_rate_of_the_one_above_times_it() -> None:
    flat, decayed = (one_step(train(recipe(**ONE_STEP, lr=1.0, layer_decay=decay))) for decay in (1.0, 0.5))
    blocks = {"conv1": 3, "bn1": 3, "layer1": 3, "layer2": 2, "layer3": 1, "fc": 0}
    for name, step in flat.items():
        factor = 0.5 ** blocks[name.split(".")[0]]
        torch.testing.assert_close(decayed[name], step * factor, rtol=1e-2, atol=1e-5, msg=name)


def test_mixup_trains_on_mixed_images_with_mixed_labels() -> None:
    trained = train(recipe(**ONE_STEP, lr=0.1, mixup=0.4), seed=3)
    network = with_new_head(backbone().traced, N_CLASSES, dropout=0.0, seed=3, freeze_until=None).network.train()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        share = float(torch.distributions.Beta(0.4, 0.4).sample())
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3))
    images, targets = normalised(TRAIN.images[order]), F.one_hot(TRAIN.labels[order], N_CLASSES).float()
    mixed, mixed_targets = (share * each + (1 - share) * each.roll(1, 0) for each in (images, targets))
    loss = -(mixed_targets * network(mixed).log_softmax(1)).sum(1).mean()
    loss.backward()
    assert 0.01 < share < 0.99
    assert trained.history[0].train_loss == pytest.approx(loss.item(), rel=1e-2)
    step = network.get_parameter("fc.bias").detach() - trained.state["fc.bias"]
    torch.testing.assert_close(step, 0.1 * network.get_parameter("fc.bias").grad, rtol=1e-2, atol=1e-6)


def test_the_average_of_the_weights_is_that_by_hand() -> None:
    settings = {"lr": 0.5, "schedule": "constant", "batch_size": 24}
    plain = [train(recipe("linear_head", epochs=n, **SGD | settings)) for n in (1, 2)]
    assert [trained.best.epoch for trained in plain] == [1, 2]  # so that their weights are those of the last step
    averaged = train(recipe("linear_head", epochs=2, ema=0.15, **SGD | settings))
    assert averaged.best.epoch == 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = nn.Linear(64, N_CLASSES)
    features = penultimate(backbone().network, TRAIN.images)
    std = features.std(0)
    own = [head.weight.detach(), *(trained.state["weight"] * std for trained in plain)]
    average = own[0]
    for step, weights in enumerate(own[1:]):
        decay = min(0.15, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weights
    torch.testing.assert_close(averaged.state["weight"] * std, average, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("optimizer", "in_gradient"), [("adam", True), ("adamw", False)])
def test_weight_decay_is_in_the_gradient_or_decoupled(optimizer: Any, in_gradient: bool) -> None:
    settings = {"optimizer": optimizer, "schedule": "constant", "epochs": 1, "batch_size": 24, "lr": 0.01}
    trained = train(recipe("linear_head", weight_decay=0.5, **settings))
    features = penultimate(backbone().network, TRAIN.images)
    mean, std = features.mean(0), features.std(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = nn.Linear(64, N_CLASSES)
    F.cross_entropy(head((features - mean) / std), TRAIN.labels).backward()
    gradient = head.weight.grad + (0.5 * head.weight.detach() if in_gradient else 0)
    step = gradient / (gradient.abs() + 1e-8)  # Adam's first step, bias-corrected
    expected = head.weight.detach() * (1 if in_gradient else 1 - 0.01 * 0.5) - 0.01 * step
    torch.testing.assert_close(trained.state["weight"] * std, expected, rtol=1e-3, atol=1e-4)
