"""Which reference networks an experiment asks for, and the rows that each is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import featbench
from featbench.backbones.identity import Network
from featbench.backbones.load import RANDOM
from featbench.baselines.processes import Processes
from featbench.baselines.strategies import STRATEGIES, Recipe, make_recipe
from featbench.classifiers.rows import train_subsets
from featbench.config import BackboneConfig, BaselineConfig
from featbench.data.splits import Split, held_out_rows
from featbench.features.forward import Precision, best_precision
from featbench.fingerprint import fingerprint
from featbench.runs.resolve import Run


@dataclass(frozen=True)
class Subset:
    """Training rows of one point of a learning curve: `size` images a class, by their ids."""

    size: int
    ids: frozenset[str]


@dataclass(frozen=True)
class Training:
    """One reference network to train.

    Attributes:
        network: With the weights that training starts from; training changes it in place.
        recipe: How; `find_lr` replaces its rate.
        method: What its row is called.
        precision: Of the training and of the test.
        seed: Of the head, the order and the augmentation.
        find_lr: Whether a range test finds the learning rate.
        tune: Trainings to compare by validation; 0 for one as it is set.
        subset: The training rows; None for all.
        processes: How many train it together; the row is the same with more.
        fingerprint: Of its row: it covers all of the above but `processes`.
    """

    network: Network
    recipe: Recipe
    method: str
    precision: Precision
    seed: int
    find_lr: bool
    tune: int
    subset: Subset | None
    processes: Processes
    fingerprint: str

    @property
    def title(self) -> str:
        """What messages call it."""
        size = "" if self.subset is None else f" with {self.subset.size} images a class"
        return f"{self.method} of {self.network.name}{size}"


def splits_of(run: Run) -> dict[str, Split]:
    """Return train, val and test; where the data set has no val, one is held out of train."""
    splits = dict(run.dataset.splits)
    if "val" not in splits:
        train = splits["train"]
        kept, held = held_out_rows(train.labels, run.experiment.dataset.val_fraction, run.experiment.seed)
        splits |= {"train": train.subset(kept), "val": train.subset(held, "val")}
    return splits


def trainings_of(run: Run, splits: dict[str, Split]) -> Iterator[Training]:
    """List every network to train: a repeat has a seed of its own and, in a learning curve, its own draw of each size.

    Raises:
        UsageError: A size of the learning curve is larger than the smallest class.
    """
    digests = {name: split.digest() for name, split in splits.items()}
    train, config = splits["train"], run.experiment.evaluate
    for backbone in run.experiment.backbones:
        for baseline in run.experiment.baselines:
            if backbone.name == "pixels" or baseline.backbone not in (None, backbone.name):
                continue
            repeats = max(baseline.repeats, config.repeats) if config.train_sizes else baseline.repeats
            draws = train_subsets(train.labels, config.train_sizes, repeats, run.experiment.seed, seeded=True)
            for draw in draws:
                ids = frozenset(train.ids[row] for row in draw.indices)
                subset = None if draw.size is None else Subset(draw.size, ids)
                yield _training(run, backbone, baseline, draw.seed, subset, len(ids), digests)


def _training(
    run: Run,
    config: BackboneConfig,
    baseline: BaselineConfig,
    seed: int,
    subset: Subset | None,
    n_train: int,
    digests: dict[str, str],
) -> Training:
    if not STRATEGIES[baseline.strategy].pretrained:
        config = config.model_copy(update={"weights": RANDOM})
    network = run.network(config, seed)
    identity = network.identity
    for note in identity.notes:
        run.progress.say(note)
    curve = bool(run.experiment.evaluate.train_sizes)
    recipe = make_recipe(baseline, n_train, run.experiment.dataset.name, learning_curve=curve)
    precision = best_precision(run.device) if config.precision == "auto" else config.precision
    find_lr = baseline.lr == "auto"
    content = {
        "backbone": identity.name,
        "weights": identity.weights_hash,
        "preprocess": identity.preprocess.content(),
        "precision": precision,
        "rows": digests,
        "recipe": asdict(recipe),
        "find_lr": find_lr,
        "tune": baseline.tune,
        "subset": None if subset is None else sorted(subset.ids),
        "seed": seed,
        "version": featbench.__version__,
    }
    if baseline.label is not None:
        content["label"] = baseline.label
    return Training(
        network=network,
        recipe=recipe,
        method=baseline.method,
        precision=precision,
        seed=seed,
        find_lr=find_lr,
        tune=baseline.tune,
        subset=subset,
        processes=Processes(baseline.devices, baseline.num_nodes, baseline.distributed),
        fingerprint=fingerprint(content),
    )
