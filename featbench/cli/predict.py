"""`featbench predict`: the kept models of a results folder on new images."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from featbench.cli.options import (
    Device,
    Offline,
    Quiet,
    ResultsFolder,
    Trust,
    Verbose,
    examples,
    exit_codes,
    model_option,
    not_empty,
)
from featbench.errors import UsageError
from featbench.terminal import print_line

Format = Literal["table", "csv", "json"]
_STDIN = Path("-")
EXAMPLES = examples(
    "featbench predict results/pets cat.jpg dog.jpg",
    "featbench predict results/pets holiday/ --top 1 --format csv > holiday.csv",
    "find . -name '*.jpg' | featbench predict results/pets - --format json",
    "featbench predict results/pets cat.jpg --model finetune/resnet18",
)


def predict(
    results: ResultsFolder,
    images: Annotated[
        list[Path],
        typer.Argument(
            parser=not_empty, metavar="IMAGE...", help="Files, folders, or - for a list on stdin, a path a line."
        ),
    ],
    model: Annotated[str | None, model_option("the best by validation")] = None,
    top: Annotated[int, typer.Option(metavar="K", min=1, help="Classes to print for each image.")] = 3,
    format_: Annotated[Format, typer.Option("--format", help="How they are printed.")] = "table",
    device: Device = "auto",
    offline: Offline = False,
    trust: Trust = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Predict the classes of new images with a model that a run kept.

    The best by validation is used, or the --model of your choice: a classifier, on the features of one layer or of a
    fusion, or a reference network. Its weights and its preprocessing come from the results folder, and are checked
    against their hashes.

    Numbers are probabilities, where decision values were calibrated on training images; scores, for a model that has
    neither. A folder stands for all images below it.

    Exit code 1 if an image could not be read: it is named on stderr, and the others are predicted.
    """
    with exit_codes(verbose=verbose):
        places = list(_places(images))
        # else torch's threads spin while they wait, on a machine that others use longer than one photo takes
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")

        from featbench.data.given import as_split
        from featbench.predict.images import find_images
        from featbench.predict.model import load_model
        from featbench.predict.output import write_predictions
        from featbench.progress_bars import ProgressBars

        loaded = load_model(results, model, device=device, offline=offline, trust=trust or ())
        files, wrong = find_images(places)
        for path, reason in wrong:
            print_line(f"featbench: {path}: {reason}", err=True)
        on_terminal = sys.stdout is not None and sys.stdout.isatty()
        with ProgressBars(quiet=quiet) as progress:
            progress.say(f"{loaded.name}, {len(files):,} image{'' if len(files) == 1 else 's'}")
            failed = write_predictions(
                loaded,
                as_split(files),
                progress,
                write=lambda text: typer.echo(text.encode(errors="backslashreplace"), nl=False),
                format_=format_,
                top=top,
                columns=shutil.get_terminal_size().columns if on_terminal else None,
            )
        if failed or wrong:
            raise typer.Exit(1)


def _places(given: list[Path]) -> Iterator[Path]:
    for path in given:
        if path == _STDIN:
            if sys.stdin is None:
                raise UsageError("standard input is closed; - reads a list of images from it, a path a line")
            lines = sys.stdin.buffer.read().splitlines()
            yield from (Path(os.fsdecode(line)) for line in lines if line.strip())
        else:
            yield path
