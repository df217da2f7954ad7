from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

from featbench.baselines.learner import Compute, Images, Parts, make_learner
from featbench.baselines.module import ReferenceModule
from featbench.baselines.rate import RATES, RangeTest, find_rate
from featbench.baselines.strategies import candidates
from featbench.progress import Silent
from tests.trainings import CPU, N_CLASSES, TEST, TRAIN, VAL, Killed, backbone, killed_after, recipe, train


def module_and_data(**settings: Any) -> tuple[ReferenceModule, Images]:
    chosen = recipe(**{"strategy": "linear_head"} | settings)
    compute = Compute(CPU, nullcontext)
    learner = make_learner(backbone(), chosen, Parts(TRAIN, VAL, TEST), N_CLASSES, 0, compute, Silent())
    module = ReferenceModule(learner.trainable, learner.prepare, learner.run, chosen, N_CLASSES, 0)
    return module, learner.parts.train


def range_test(module: ReferenceModule, train: Images, **settings: Any) -> RangeTest:
    return find_rate(module, train, seed=0, device=CPU, autocast=nullcontext, **settings)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_training_at_the_rate_that_was_found_learns(optimizer: Any) -> None:
    settings: dict[str, Any] = {"optimizer": optimizer, "schedule": "constant", "batch_size": 12}
    found = range_test(*module_and_data(**settings))
    losses = [epoch.train_loss for epoch in train(recipe("linear_head", epochs=12, lr=found.lr, **settings)).history]
    assert losses[-1] < 0.7 * losses[0]
    assert found.lr == found.rates[int(np.argmin(found.losses))] / 10


def test_the_loss_is_that_of_a_training_by_hand_with_these_rates() -> None:
    settings: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "batch_size": 24}
    module, data = module_and_data(**settings)
    found = range_test(module, data)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = torch.nn.Linear(64, N_CLASSES)
    losses, mean = [], 0.0
    for step, lr in enumerate(found.rates):
        loss = torch.nn.functional.cross_entropy(head(data.images), data.labels)
        gradients = torch.autograd.grad(loss, list(head.parameters()))
        for parameter, gradient in zip(head.parameters(), gradients, strict=True):
            parameter.data -= lr * gradient
        mean = 0.9 * mean + 0.1 * loss.item()
        losses.append(mean / (1 - 0.9 ** (step + 1)))
    np.testing.assert_allclose(found.losses, losses, rtol=1e-3)


@pytest.mark.parametrize("settings", [{"optimizer": "adamw"}, {"strategy": "finetune", "augment": "flip_crop"}])
def test_everything_is_afterwards_as_before(settings: dict[str, Any]) -> None:
    module, data = module_and_data(**settings)
    before = {name: tensor.clone() for name, tensor in module.network.state_dict().items()}
    random = [torch.get_rng_state(), module.generator.get_state(), module.order.get_state()]
    found = range_test(module, data, steps=8)
    for name, tensor in module.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    after = [torch.get_rng_state(), module.generator.get_state(), module.order.get_state()]
    assert all(torch.equal(one, other) for one, other in zip(random, after, strict=True))
    assert not module.sums
    assert found == range_test(module, data, steps=8)
    assert found.rates[0] == RATES["adamw"][0]
    assert len(found.rates) == len(found.losses) <= 8
    ratios = np.diff(np.log(found.rates))
    assert ratios == pytest.approx(ratios[0])


def test_the_best_of_the_trainings_by_validation_is_the_one_that_is_tested() -> None:
    chosen = recipe("linear_head", lr=1e-5, epochs=3)  # too small to learn anything in so few steps
    tuned = train(chosen, tune=7)
    singles = [train(candidate) for candidate in candidates(chosen, 7)]
    best = max(singles, key=lambda one: (one.best.val_accuracy, -one.best.val_loss))
    assert tuned.params["lr"] == best.params["lr"] == 1e-4  # ten times as much, the largest of the seven
    assert tuned.params["tuned"]["lr_epochs_val_accuracy"] == [
        [one.params["lr"], one.params["epochs"], pytest.approx(one.best.val_accuracy, abs=1e-6)] for one in singles
    ]
    assert torch.equal(tuned.state["weight"], best.state["weight"])
    assert np.array_equal(tuned.probabilities, best.probabilities)


def test_candidates_begin_with_the_recipe_and_are_all_different() -> None:
    chosen = recipe(lr=0.002, epochs=5)
    found = candidates(chosen, 10)
    assert found[0] == chosen
    assert len({(one.lr, one.epochs) for one in found}) == 10
    assert candidates(chosen, 0) == [chosen]
    assert candidates(chosen, 3) == found[:3]


def test_a_search_that_was_killed_goes_on(tmp_path: Any) -> None:
    chosen = recipe("linear_head", epochs=2)
    whole = train(chosen, tune=3)
    with pytest.raises(Killed):
        train(chosen, tune=3, checkpoint=tmp_path / "it.ckpt", progress=killed_after(3))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["it.1.ckpt", "it.ckpt"]
    resumed = train(chosen, tune=3, checkpoint=tmp_path / "it.ckpt")
    assert torch.equal(whole.state["weight"], resumed.state["weight"])
    assert whole.params == resumed.params
