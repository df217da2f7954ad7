"""`featbench list`: what there is."""

from __future__ import annotations

from typing import Annotated

import typer

from featbench.cli.options import (
    Grey,
    ImageSize,
    ResultsFolder,
    examples,
    exit_codes,
    print_columns,
    print_rows,
)

lists = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Print what there is.",
    epilog=examples("featbench list backbones", "featbench list layers resnet18"),
)


def _backbones(incomplete: str) -> list[str]:
    from featbench.backbones.architectures import backbone_names

    return [name for name in backbone_names() if name.startswith(incomplete)]


@lists.command("datasets", epilog=examples("featbench list datasets"))
def list_datasets() -> None:
    """Print the data sets that `dataset.name` may be."""
    with exit_codes():
        from featbench.data.datasets import DATASETS

        print_columns(DATASETS.items())


@lists.command("backbones", epilog=examples("featbench list backbones"))
def list_backbones() -> None:
    """Print the backbones that `backbones.name` may be, with their weights; the default comes first."""
    with exit_codes():
        from featbench.backbones.architectures import SMALL, backbone_names, get_architecture

        for name in backbone_names():
            architecture = get_architecture(name)
            weights = dict.fromkeys([architecture.default_weights or "", *architecture.weights])
            options = ", ".join(SMALL[name].options) if name in SMALL else ""
            print_columns([(name, ", ".join(weights) + (f" (options: {options})" if options else ""))])
        print_columns(
            [
                ("timm:NAME", "a network of timm (pip install featbench[timm]); a tag, random"),
                ("python:MODULE:FACTORY", "what FACTORY() in MODULE.py of the current folder returns; random"),
            ]
        )


@lists.command(
    "layers",
    epilog=examples("featbench list layers resnet18", "featbench list layers resnet18 --pooling avg:2 --image-size 64"),
)
def list_layers(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A backbone.", autocompletion=_backbones)],
    pooling: Annotated[
        str, typer.Option(metavar="POOLING", help="avg, max, avg:K, max:K, flatten, cls, tokens or tokens:N.")
    ] = "avg",
    image_size: ImageSize = None,
    grey: Grey = False,
) -> None:
    """Print the layers of a backbone in the order they run; nothing is downloaded.

    OUTPUT is the shape of one image's output, WIDTH its numbers after pooling (- where that pooling makes no sense),
    COMPUTE the share of the network's multiply-adds that have run when it is there. Layers marked blocks are what
    layers = ["blocks"] stands for.
    """
    with exit_codes():
        from featbench.backbones.describe import describe_backbone

        rows = [("LAYER", "OUTPUT", "WIDTH", "COMPUTE", "")]
        for layer in describe_backbone(name, pooling, image_size, 1 if grey else 3):
            width = "-" if layer.width is None else str(layer.width)
            note = "blocks" if layer.is_block else ""
            rows.append((layer.name, "x".join(map(str, layer.shape)), width, f"{layer.compute:.1%}", note))
        print_rows(rows, left=(0, 1, 4))


@lists.command("classifiers", epilog=examples("featbench list classifiers"))
def list_classifiers() -> None:
    """Print the classifiers that `evaluate.classifiers` may name."""
    with exit_codes():
        from featbench.classifiers.registry import CLASSIFIERS

        print_columns((name, spec.summary) for name, spec in CLASSIFIERS.items())
        print_columns([("python:MODULE:FACTORY", "what FACTORY() in MODULE.py of the current folder returns")])


@lists.command("steps", epilog=examples("featbench list steps"))
def list_steps() -> None:
    """Print the steps before a classifier that `evaluate.steps` may name."""
    with exit_codes():
        from featbench.classifiers.transforms import STEPS

        print_columns((name, spec.summary) for name, spec in STEPS.items())


@lists.command("experiments", epilog=examples("featbench list experiments"))
def list_experiments() -> None:
    """Print the built-in experiments."""
    with exit_codes():
        from featbench.config import builtin_experiments

        print_columns((name, text.partition("\n")[0].lstrip("# ")) for name, text in builtin_experiments().items())


@lists.command("models", epilog=examples("featbench list models results/pets"))
def list_models(
    results: ResultsFolder,
) -> None:
    """Print the models of a results folder, by the names that --model of `predict` and `export` takes.

    VALIDATION is the accuracy that models are chosen by, TEST that on the test images. The one marked best is what
    `predict` takes without --model; one that was not kept cannot be used, and one that never predicts
    a class that the test has is best only where every model does so.
    """
    with exit_codes():
        from featbench.predict.choose import list_models

        rows = [("MODEL", "VALIDATION", "TEST", "FINGERPRINT", "")]
        for model in list_models(results):
            validation = "-" if model.val_accuracy is None else f"{model.val_accuracy:.4f}"
            notes = ["best"] * model.is_best + ["not kept"] * (not model.is_kept)
            notes += ["never predicts a class"] * model.never_predicts
            rows.append((model.name, validation, f"{model.accuracy:.4f}", model.fingerprint, ", ".join(notes)))
        print_rows(rows, left=(0, 3, 4))
