"""`featbench summary` and `featbench export`: what a network is made of, and a trained one as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from featbench.cli.options import (
    Grey,
    ImageSize,
    Offline,
    Quiet,
    ResultsFolder,
    Trust,
    Verbose,
    examples,
    exit_codes,
    model_option,
    place,
    print_rows,
)
from featbench.terminal import print_line

SUMMARIES = examples(
    "featbench summary resnet18 --classes 10",
    "featbench summary convnet --grey --image-size 28 --classes 10",
    "featbench summary alexnet --freeze-until features",
)
EXPORTS = examples(
    "featbench export results/pets", "featbench export results/pets --model finetune/resnet18 --output pets.onnx"
)


def summary(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A backbone, as `featbench list backbones` prints them.")],
    classes: Annotated[
        int | None,
        typer.Option(metavar="N", min=2, max=1_000_000, help="Outputs of the head.", show_default="the network's own"),
    ] = None,
    image_size: ImageSize = None,
    grey: Grey = False,
    freeze_until: Annotated[
        str | None, typer.Option(metavar="LAYER", help="Count what `partial` trains when it freezes up to here.")
    ] = None,
    depth: Annotated[int, typer.Option(metavar="N", min=1, help="How far to look into modules.")] = 2,
) -> None:
    """Print a network's modules, shapes, parameters and multiply-adds, and what each strategy trains.

    Nothing is downloaded. OUTPUT is the shape of one image's output; PARAMETERS and MULTIPLY-ADDS (of matrix products
    and convolutions, for one image) hold those of all modules inside.
    """
    with exit_codes():
        from featbench.baselines.summary import summarise

        found = summarise(
            name, n_classes=classes, image_size=image_size, channels=1 if grey else 3, freeze_until=freeze_until
        )
        rows = [("MODULE", "TYPE", "OUTPUT", "PARAMETERS", "MULTIPLY-ADDS")]
        for module in found.modules:
            if module.depth <= depth:
                title = module.path or "(whole)"
                shape = "x".join(map(str, module.shape)) or "-"
                rows.append((title, module.kind, shape, f"{module.parameters:,}", f"{module.multiply_adds:,}"))
        print_rows(rows, left=(0, 1, 2))
        size = "x".join(map(str, found.image_shape))
        print_line()
        print_line(f"Images of {size}; {found.modules[0].parameters * 4 / 2**20:,.1f} MiB of weights in float32.")
        if not found.trained:
            print_line("It ends without a linear layer, so there is no head to train.")
            return
        print_line()
        print_rows(
            [
                ("STRATEGY", f"TRAINED PARAMETERS ({found.n_classes} classes)"),
                *((strategy, f"{count:,}") for strategy, count in found.trained.items()),
            ],
            left=(0,),
        )
        if freeze_until is None:
            print_line("partial: --freeze-until LAYER counts them")


def export(
    results: ResultsFolder,
    model: Annotated[str | None, model_option("the best network by validation")] = None,
    output: Annotated[
        Path | None,
        typer.Option(parser=place, metavar="FILE", help="Where to.", show_default="beside the network in models/"),
    ] = None,
    offline: Offline = False,
    trust: Trust = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a reference network of a run as ONNX, checked in onnxruntime against torch.

    The file takes `images`, (batch, channels, height, width) float32 in [0, 1], resized and cropped as its metadata
    says, and gives `logits` and `probabilities`; standardisation is inside. Needs pip install featbench[onnx].
    """
    with exit_codes(verbose=verbose):
        from featbench.predict.export import ATOL, RTOL, export_onnx

        done = export_onnx(results, model, output, offline=offline, trust=trust or ())
        if not quiet:
            print_line(
                f"{done.path}: {done.name}; its numbers use at most {done.share:.1%} of the tolerance of {RTOL:g} x "
                f"|number| + {ATOL:g}; the largest difference from torch's is {done.difference:.1g}, of a logit of "
                f"{done.logit:.3g}"
            )
