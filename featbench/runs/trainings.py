"""Which reference networks an experiment asks for, and the rows that each is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import featbench
from featbench.backbones.load import RANDOM, Backbone, load_backbone
from featbench.baselines.processes import Processes
from featbench.baselines.strategies import STRATEGIES, Recipe, make_recipe
from featbench.classifiers.rows import train_subsets
from featbench.config import BackboneConfig, BaselineConfig
from featbench.data.splits import Split, held_out_rows
from featbench.features.forward import Precision, best_precision
from featbench.fingerprint import fingerprint
from featbench.runs.resolve import Job


@dataclass(frozen=True)
class Subset:
    """Training rows of one point of a learning curve: `size` images a class, by their ids."""

    size: int
    ids: frozenset[str]


@dataclass(frozen=True)
class Plan:
    """One network to train.

    Attributes:
        backbone: The network, with the weights that training starts from.
        recipe: How; its rate is replaced where a range test is to find one.
        method: What its row is called.
        precision: Of the training and of the test.
        seed: Of the head, the order and the augmentation.
        weights_hash: Of the backbone before training.
        find_lr: Whether a range test finds the rate.
        tune: Trainings to compare by validation; 0 for one as it is set.
        subset: The training rows; None for all.
        processes: That train it together; the row is the same with more.
        fingerprint: Of all that.
    """

    backbone: Backbone
    recipe: Recipe
    method: str
    precision: Precision
    seed: int
    weights_hash: str
    find_lr: bool
    tune: int
    subset: Subset | None
    processes: Processes
    fingerprint: str

    @property
    def title(self) -> str:
        """What messages call it."""
        size = "" if self.subset is None else f" with {self.subset.size} images a class"
        return f"{self.method} of {self.backbone.name}{size}"


def splits_of(job: Job) -> dict[str, Split]:
    """Return train, val and test; where the data set has no val, one is held out of train."""
    splits = dict(job.dataset.splits)
    if "val" not in splits:
        train = splits["train"]
        kept, held = held_out_rows(train.labels, job.experiment.dataset.val_fraction, job.experiment.seed)
        splits |= {"train": train.subset(kept), "val": train.subset(held, "val")}
    return splits


def plans_of(job: Job, splits: dict[str, Split]) -> Iterator[Plan]:
    """Plan every network: a repeat has a seed of its own and, in a learning curve, its own draw of each size.

    Raises:
        UsageError: A size of the learning curve is larger than the smallest class.
    """
    digests = {name: split.digest() for name, split in splits.items()}
    train, config = splits["train"], job.experiment.evaluate
    for backbone in job.experiment.backbones:
        for asked in job.experiment.baselines:
            if backbone.name == "pixels" or asked.backbone not in (None, backbone.name):
                continue
            repeats = max(asked.repeats, config.repeats) if config.train_sizes else asked.repeats
            draws = train_subsets(train.labels, config.train_sizes, repeats, job.experiment.seed, seeded=True)
            for draw in draws:
                ids = frozenset(train.ids[row] for row in draw.indices)
                subset = None if draw.size is None else Subset(draw.size, ids)
                yield _plan(job, backbone, asked, draw.seed, subset, len(ids), digests)


def _plan(
    job: Job,
    config: BackboneConfig,
    asked: BaselineConfig,
    seed: int,
    subset: Subset | None,
    n_train: int,
    digests: dict[str, str],
) -> Plan:
    if not STRATEGIES[asked.strategy].pretrained:
        config = config.model_copy(update={"weights": RANDOM})
    backbone = load_backbone(config, seed=seed, offline=job.offline, channels=job.dataset.channels)
    job.tell(backbone.notes)
    curve = bool(job.experiment.evaluate.train_sizes)
    recipe = make_recipe(asked, n_train, job.experiment.dataset.name, learning_curve=curve)
    precision = best_precision(job.device) if config.precision == "auto" else config.precision
    find_lr = asked.lr == "auto"
    weights_hash = backbone.weights_hash()
    content = {
        "backbone": backbone.name,
        "weights": weights_hash,
        "preprocess": backbone.preprocess.content(),
        "precision": precision,
        "rows": digests,
        "recipe": asdict(recipe),
        "find_lr": find_lr,
        "tune": asked.tune,
        "subset": None if subset is None else sorted(subset.ids),
        "seed": seed,
        "version": featbench.__version__,
    }
    if asked.label is not None:
        content["label"] = asked.label
    return Plan(
        backbone=backbone,
        recipe=recipe,
        method=asked.method,
        precision=precision,
        seed=seed,
        weights_hash=weights_hash,
        find_lr=find_lr,
        tune=asked.tune,
        subset=subset,
        processes=Processes(asked.devices, asked.num_nodes, asked.distributed),
        fingerprint=fingerprint(content),
    )
