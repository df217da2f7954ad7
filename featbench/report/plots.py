"""plots/: the figures of the page as PNG files, for papers and slides."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from PIL import Image

from featbench.report.folder import Folder
from featbench.report.series import (
    COSTS,
    by_validation,
    curve_series,
    history_series,
    layer_series,
    map_classes,
    map_series,
    model_points,
)
from featbench.results.files import replacing

PLOTS = "plots"
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8a8f98", "#c9b800")  # Okabe and Ito
MARKERS = ("o", "s", "D", "^", "P", "X", "*", "p")
DASHES = ("-", "--", ":", "-.")
_VERDICTS = {"best": 0, "tied": 2, "open": 1, "worse": 3, "better": 4, "": 6}
_MODELS = 30
_NAMED_CLASSES = 24
_MISTAKES = 24
_NAME_LENGTH = 44


def write_plots(folder: Folder) -> list[Path]:
    """Write the figures that the folder has data for; older files of the others are removed.

    Returns:
        The PNG files.

    Raises:
        ResultsError: A file cannot be written.
    """
    written = []
    for name, make in _FIGURES.items():
        path = folder.path / PLOTS / f"{name}.png"
        figure = make(folder)
        if figure is None:
            path.unlink(missing_ok=True)
            continue
        with replacing(path) as temporary, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # letters that the font lacks are drawn as boxes
            warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
            FigureCanvasAgg(figure)
            figure.savefig(temporary, dpi=150, format="png")
        written.append(path)
    return written


def _models(folder: Folder) -> Figure:
    points = by_validation(model_points(folder))[:_MODELS][::-1]
    figure, (axes,) = _figure(8, 1.4 + 0.27 * len(points))
    for row, point in enumerate(points):
        index = _VERDICTS[point["verdict"]]
        accuracy, low, high = (point[name] for name in ("accuracy", "accuracy_low", "accuracy_high"))
        ends = [[max(0.0, accuracy - low)], [max(0.0, high - accuracy)]]
        style: dict[str, Any] = {"color": COLOURS[index], "marker": "*" if point["verdict"] == "best" else "o"}
        style["markersize"] = 11 if point["verdict"] == "best" else 6
        label = point["verdict"] or "not compared"
        axes.errorbar(point["accuracy"], row, xerr=ends, capsize=2, label=label, linestyle="none", **style)
    axes.set_yticks(range(len(points)), [_text(point["name"]) for point in points])
    axes.set_xlabel("test accuracy, 95% interval")
    _legend(axes, ncols=4)
    return figure


def _cost(folder: Folder) -> Figure | None:
    points = model_points(folder)
    methods = list(dict.fromkeys(point["method"] for point in points))
    shown = [axis for axis in COSTS if any((point.get(axis) or 0) > 0 for point in points)]
    if not shown:
        return None
    figure, every = _figure(4.2 * len(shown), 3.8, len(shown), sharey=True)
    for axes, axis in zip(every, shown, strict=True):
        for index, method in enumerate(methods):
            mine = [point for point in points if point["method"] == method and (point.get(axis) or 0) > 0]
            x, y = [point[axis] for point in mine], [point["accuracy"] for point in mine]
            axes.plot(x, y, linestyle="none", label=_text(method), **_style(index))
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(COSTS[axis])
    figure.axes[0].set_ylabel("test accuracy")
    _legend(figure.axes[0])
    return figure


def _layers(folder: Folder) -> Figure | None:
    lines = layer_series(folder)
    if not lines:
        return None
    figure, (axes,) = _figure(8, 4.5)
    layers = list(dict.fromkeys(layer for line in lines for layer in line["layers"]))
    for index, line in enumerate(lines):
        x = [layers.index(layer) for layer in line["layers"]]
        axes.plot(x, line["accuracy"], label=_text(line["name"]), linestyle=_dash(index), **_style(index))
        axes.fill_between(x, line["accuracy_low"], line["accuracy_high"], color=COLOURS[index % 8], alpha=0.1, lw=0)
    axes.set_xticks(range(len(layers)), [_text(layer, 20) for layer in layers], rotation=30 if len(layers) > 5 else 0)
    axes.set_ylabel("test accuracy, 95% band")
    _legend(axes)
    return figure


def _curves(folder: Folder) -> Figure | None:
    lines = curve_series(folder)
    if not lines:
        return None
    figure, (axes,) = _figure(8, 4.5)
    for index, line in enumerate(lines):
        mean, low, high = (np.array(line[f"accuracy_{name}"]) for name in ("mean", "min", "max"))
        style = _style(index) | {"linestyle": _dash(index), "label": _text(line["name"]), "capsize": 2}
        axes.errorbar(line["images_per_class"], mean, yerr=np.maximum(0.0, [mean - low, high - mean]), **style)
    sizes = sorted({size for line in lines for size in line["images_per_class"]})
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("training images a class")
    axes.set_ylabel("test accuracy: mean, lowest and highest draw")
    _legend(axes)
    return figure


def _history(folder: Folder) -> Figure | None:
    lines = history_series(folder)
    if not lines:
        return None
    figure, both = _figure(10, 4, 2)
    for axes, metric in zip(both, ("accuracy", "loss"), strict=True):
        for index, line in enumerate(lines):
            colour = COLOURS[index % 8]
            for part, dash, label in (("val", "-", _text(line["name"])), ("train", ":", None)):
                y = [np.nan if value is None else value for value in line[f"{part}_{metric}"]]
                axes.plot(line["epoch"], y, color=colour, linestyle=dash, label=label)
            if line["best_epoch"] is not None:
                axes.axvline(line["best_epoch"], color=colour, linestyle="--", lw=1)
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{metric}: validation solid, training dotted")
    _legend(figure.axes[0])
    return figure


def _confusion(folder: Folder) -> Figure | None:
    best = folder.best(folder.datasets[0])
    table = folder.tables["confusion.csv"]
    mine = table[table["fingerprint"] == best["fingerprint"]] if best else table.head(0)
    if best is None or mine.empty:
        return None
    metrics = folder.tables["metrics.csv"]
    names = metrics.loc[(metrics["fingerprint"] == best["fingerprint"]) & (metrics["class"] != ""), "class"].unique()
    place = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(place), len(place)))
    for label, predicted, count in zip(mine["label"], mine["predicted"], mine["count"], strict=True):
        counts[place[label], place[predicted]] = count
    side = min(14.0, 2.8 + 0.34 * len(place))
    figure, (axes,) = _figure(side, side)
    axes.grid(visible=False)
    axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    if len(place) <= _NAMED_CLASSES:
        for label, predicted in np.argwhere(counts).tolist():
            dark = counts[label, predicted] > counts[label].sum() / 2
            text = f"{counts[label, predicted]:.0f}"
            axes.text(predicted, label, text, ha="center", va="center", size=8, color="white" if dark else "black")
    ticks = range(0, len(place), max(1, len(place) // 40))
    labels = [_text(str(names[tick]), 16) for tick in ticks]
    axes.set_xticks(ticks, labels, rotation=90 if len(place) > 4 else 0, size=8)
    axes.set_yticks(ticks, labels, size=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(_text(best["name"], int(13 * side)), size=9)
    return figure


def _mistakes(folder: Folder) -> Figure | None:
    table = folder.tables["mistakes.csv"]
    images = [
        (jpeg, rows)
        for (dataset, image_id), rows in table.groupby(["dataset", "id"], sort=False)
        if (jpeg := folder.thumbnail(str(dataset), str(image_id))) is not None
    ][:_MISTAKES]
    if not images:
        return None
    n_columns = min(6, len(images))
    n_rows = -(-len(images) // n_columns)
    figure = Figure(figsize=(1.7 * n_columns, 2.2 * n_rows))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))  # one for all: two dozen take a second to lay out
    for place, (jpeg, rows) in enumerate(images):
        row, column = divmod(place, n_columns)
        with Image.open(BytesIO(jpeg)) as image:
            pixels = np.asarray(image.convert("RGB"))
        height, width = np.array(pixels.shape[:2]) / max(pixels.shape[:2]) * 1.5  # inches
        bottom = 2.2 * (n_rows - row) - 0.55 - height
        axes.imshow(pixels, extent=(1.7 * column + 0.1, 1.7 * column + 0.1 + width, bottom, bottom + height))
        label = str(rows["label"].iloc[0])
        wrong = rows[rows["predicted"] != rows["label"]]
        often = ", ".join(wrong["predicted"].mode().head(1))  # an edited file may have none
        text = f"{_text(label, 16)}, called\n{_text(often, 16)}\nwrong: {len(wrong)} of {len(rows)}"
        axes.text(1.7 * column + 0.1, bottom + height + 0.04, text, size=7, va="bottom")
    axes.set(xlim=(0, 1.7 * n_columns), ylim=(0, 2.2 * n_rows))
    axes.axis("off")
    return figure


def _map(folder: Folder) -> Figure | None:
    maps = map_series(folder)
    if not maps:
        return None
    shown = maps[0]
    figure, (axes,) = _figure(7.5, 5.5)
    x, y = np.array(shown["tsne"] or shown["pca"], dtype=float)
    classes = map_classes(maps)
    labels = np.array(shown["labels"], dtype=object)
    for index, name in enumerate(classes):
        mine = labels == name
        style = _style(index) | {"linestyle": "none", "label": _text(name, 24), "markersize": 4}
        axes.plot(x[mine], y[mine], **style)
    axes.set_title(f"{_text(shown['name'], 60)}: {'t-SNE' if shown['tsne'] else 'PCA'} of test images", size=9)
    if shown["tsne"]:
        axes.set_xticks([])
        axes.set_yticks([])
    if len(classes) <= _NAMED_CLASSES:
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


_FIGURES: dict[str, Callable[[Folder], Figure | None]] = {
    "models": _models,
    "cost": _cost,
    "layers": _layers,
    "curves": _curves,
    "history": _history,
    "confusion": _confusion,
    "mistakes": _mistakes,
    "map": _map,
}


def _figure(width: float, height: float, n_axes: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    every = list(figure.subplots(1, n_axes, squeeze=False, **options)[0])
    for axes in every:
        axes.grid(visible=True, color="#dce1e7", lw=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, every


def _style(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % 8], "marker": MARKERS[(index + index // 8) % 8], "markersize": 6}


def _dash(index: int) -> str:
    return DASHES[index // 8 % 4]


def _legend(axes: Axes, **options: Any) -> None:
    """Show each name once, above the axes."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    columns = {"ncols": 2 if len(once) > 3 else 1} | options
    axes.legend(
        once.values(), once.keys(), fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), frameon=False, **columns
    )


def _text(text: str, length: int = _NAME_LENGTH) -> str:
    """Shorten a name in the middle, and keep matplotlib from reading mathematics into it."""
    if len(text) > length:
        tail = length // 3
        text = f"{text[: length - tail - 1]}…{text[-tail:]}"
    return " ".join(text.replace("$", r"\$").split()) or " "
