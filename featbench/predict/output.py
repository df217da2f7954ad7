"""Predictions as text: a table, CSV or JSON, written batch by batch."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from itertools import chain, repeat
from typing import Literal

from rich.cells import cell_len, set_cell_size

from featbench.data.splits import Split
from featbench.predict.model import Model
from featbench.progress import Progress
from featbench.terminal import one_line, visible_json

Top = Sequence[tuple[str, float]]
_NARROWEST = 16  # terminal cells for the name of an image or a class
_GAP = "  "


def write_predictions(
    model: Model,
    images: Split,
    progress: Progress,
    *,
    write: Callable[[str], None],
    format_: Literal["table", "csv", "json"],
    top: int,
    columns: int | None,
) -> int:
    """Score images and write the top classes of each; those that cannot be read are warned of.

    Args:
        model: Scores them.
        images: As `as_split` makes it.
        progress: Takes the warnings.
        write: Takes text, a batch at a time.
        format_: "table"; "csv", a line for each image and class; or "json", an array with an object for each image.
        top: Classes of each image.
        columns: Width of the terminal that a table has to fit; None where this goes into a file or a pipe: a table is
            as wide as it comes, and CSV holds every name as it is, where a terminal would obey it.

    Returns:
        How many images could not be read.
    """
    value = "score" if model.gives == "score" else "probability"
    lines: Callable[[str, Top], str]
    if format_ == "csv":
        write(_csv([("image", "rank", "class", value)]))
        shown = str if columns is None else one_line

        def lines(image: str, best: Top) -> str:
            return _csv(
                (shown(image), rank, shown(name), f"{number:.6g}") for rank, (name, number) in enumerate(best, start=1)
            )

    elif format_ == "json":
        write("[")
        separators = chain(["\n"], repeat(",\n"))

        def lines(image: str, best: Top) -> str:
            classes = [{"class": name, value: float(f"{number:.6g}")} for name, number in best]
            content = json.dumps({"image": image, "top": classes}, ensure_ascii=False)
            return next(separators) + visible_json(content)

    else:
        lines = _Table(images.ids, model.classes, top, columns).lines
    failed = 0
    # on a terminal the lines themselves show how far it is
    with progress.bar("predict", len(images)) if columns is None else nullcontext(lambda steps, note: None) as advance:
        for batch in model.stream(images, progress):
            values = model.probabilities(batch.scores)
            order = (-values).argsort(axis=1, kind="stable")[:, :top]
            best = [
                [(model.classes[i], float(of[i])) for i in ranked] for of, ranked in zip(values, order, strict=True)
            ]
            write("".join(map(lines, (images.ids[row] for row in batch.rows), best)))
            for image in batch.skipped:
                failed += 1
                progress.warn(f"{image.id} cannot be read: {image.reason}")
            advance(len(batch.rows) + len(batch.skipped), "")
    if format_ == "json":
        write("\n]\n")
    return failed


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


class _Table:
    """A line an image; where the terminal is too narrow for all its classes, they go on below."""

    def __init__(self, images: Sequence[str], classes: Sequence[str], top: int, columns: int | None) -> None:
        self.class_cells = max(cell_len(one_line(name)) for name in classes)
        self.image_cells = max((cell_len(one_line(name)) for name in images), default=0)
        self.per_line = top
        if columns is not None:
            self.class_cells = min(self.class_cells, max(_NARROWEST, columns // 3))
            entry = len(_GAP) + self.class_cells + 1 + 7
            self.image_cells = min(self.image_cells, max(_NARROWEST, columns - entry))
            self.per_line = max(1, min(top, (columns - self.image_cells) // entry))

    def lines(self, image: str, top: Top) -> str:
        text, first = "", _fit_end(one_line(image), self.image_cells)
        for start in range(0, len(top), self.per_line):
            entries = [
                f"{_fit(one_line(name), self.class_cells)} {value:7.4f}"
                for name, value in top[start : start + self.per_line]
            ]
            text += _GAP.join([first, *entries]) + "\n"
            first = " " * self.image_cells
        return text


def _fit(text: str, cells: int) -> str:
    """Cut or fill text to so many terminal cells."""
    return set_cell_size(text, cells) if cell_len(text) <= cells else set_cell_size(text, cells - 1) + "…"


def _fit_end(text: str, cells: int) -> str:
    """As `_fit`, but keep the end, the more telling part of a path."""
    if cell_len(text) <= cells:
        return set_cell_size(text, cells)
    while cell_len(text) > cells - 1:
        text = text[1:]
    return set_cell_size("…" + text, cells)
