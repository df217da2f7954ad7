"""report.html: one self-contained page, from a results folder alone.

Every text from data goes through jinja2's escaping, or through `script_json` into a block that is no script; a
content-security policy in the page forbids every request.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

import featbench
from featbench.report.details import DETAIL_BYTES, model_details
from featbench.report.folder import Folder
from featbench.report.series import (
    COSTS,
    Series,
    by_validation,
    curve_series,
    history_series,
    is_of_model,
    layer_series,
    map_classes,
    map_series,
    model_points,
    plain,
)
from featbench.report.table import page_table
from featbench.results.files import write_text
from featbench.terminal import visible

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
_MAP_BYTES = 1_000_000
_FOREST_MODELS = 30
_SKIPPED_SHOWN = 200
_SECTIONS = {
    "advice": "Advice",
    "accuracy": "Accuracy",
    "cost": "Cost",
    "layers": "Layers",
    "curves": "Learning curves",
    "history": "Training",
    "model": "One model",
    "mistakes": "Mistakes",
    "map": "Map",
    "notes": "To look at",
    "skipped": "Left out",
    "made": "How it was made",
}


def write_page(folder: Folder, path: Path, *, map_bytes: int = _MAP_BYTES, detail_bytes: int = DETAIL_BYTES) -> None:
    """Write the page of one results folder.

    Args:
        folder: What it shows.
        path: The page.
        map_bytes: Size of the maps in the page; maps that do not fit are left out, the first one never.
        detail_bytes: Size of what is shown of single models; models that do not fit are counted.

    Raises:
        ResultsError: The file cannot be written.
    """
    points = model_points(folder)
    details, n_not_shown = model_details(folder, points, detail_bytes)
    series = {"layers": layer_series(folder), "curves": curve_series(folder), "history": history_series(folder)}
    maps = _fitting(map_series(folder), map_bytes)
    forest = by_validation(points)[:_FOREST_MODELS]
    costs = {axis: text for axis, text in COSTS.items() if any(point.get(axis) for point in points)}
    backbones = list(dict.fromkeys(line["backbone"] for line in series["layers"]))
    names = {point["fingerprint"]: point["name"] for point in points}
    data = {
        "models": points,
        "forest": [point["fingerprint"] for point in forest],
        "costs": costs,
        "layer_backbones": backbones,
        "details": details,
        "maps": maps,
        "map_classes": map_classes(maps),
        **series,
    }
    mistakes = _mistakes(folder)
    wrong = dict.fromkeys(fingerprint for image in mistakes for fingerprint in image["wrong"])
    notes = folder.tables["notes.csv"].to_dict("records")
    content = {
        "title": folder.name,
        "facts": _facts(folder),
        "sections": [(name, text) for name, text in _SECTIONS.items() if {**series, "notes": notes}.get(name, True)],
        "source": "results.csv and the files beside it",
        "advice": folder.advice,
        "problems": folder.problems,
        "cards": [card for dataset in folder.datasets if (card := _cards(folder, dataset))],
        "forest_height": 110 + 27 * len(forest),
        "table": page_table(folder).without_equal_keys(),
        "chosen": set(details),
        "never": any(point["never"] for point in points),
        "costs": list(costs.items()),
        "has": {name: bool(lines) for name, lines in series.items()},
        "n_backbones": len(backbones),
        "backbones": [("", "all"), *((name, name) for name in backbones)],
        "curve_choices": _curve_choices(folder, series["curves"]),
        "shown": next(iter(details.values()), None),
        "model_choices": [(fingerprint, detail["name"]) for fingerprint, detail in details.items()],
        "n_not_shown": n_not_shown,
        "mistakes": mistakes,
        "mistake_models": [(fingerprint, names.get(fingerprint, fingerprint)) for fingerprint in wrong],
        "maps": [(number, one["name"]) for number, one in enumerate(maps)],
        "map_classes": [(name, name) for name in map_classes(maps)],
        "skipped": folder.tables["skipped.csv"].head(_SKIPPED_SHOWN).to_dict("records"),
        "notes": notes,
        "n_skipped": len(folder.tables["skipped.csv"]),
        "environment": _environment(folder.environment),
        "experiment": folder.experiment,
        "command": f"featbench run {shlex.quote(str(folder.path / 'experiment.toml'))} --results results/again",
        "data": script_json(data),
    }
    render("report.html.j2", content, path)


def render(template: str, content: Mapping[str, Any], path: Path) -> None:
    """Fill in a template with the style and the scripts of this folder, and write the page."""
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("featbench.report"),
        autoescape=True,
        finalize=_safe,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    page = environment.get_template(template).render(
        **content,
        policy=_POLICY,
        version=featbench.__version__,
        style=Markup(_template("style.css")),  # files of this package
        script=Markup(_template("page.js")),
        plotly=Markup(get_plotlyjs()),
    )
    write_text(path, page)


def breakable(name: str) -> Markup:
    """Allow line breaks in a name after underscores, colons, dots, dashes and slashes."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[_:./-])", visible(name)))


def _safe(value: Any) -> Any:
    """Escape characters that reverse the direction of text, too."""
    return visible(value) if type(value) is str else value


def script_json(data: Any) -> Markup:
    """Write JSON for a `<script type="application/json">` block, which no text in it can end."""
    text = json.dumps(_rounded(data), allow_nan=False, separators=(",", ":"))
    return Markup(re.sub("[<>&]", lambda found: f"\\u{ord(found.group()):04x}", text))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if value - value == 0 else None
    if isinstance(value, Mapping):
        return {visible(str(key)): _rounded(item) for key, item in value.items()}
    if isinstance(value, str):
        return visible(value)
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else plain(value)


def _template(name: str) -> str:
    return (resources.files("featbench.report") / "templates" / name).read_text("utf-8")


def _facts(folder: Folder) -> list[str]:
    first = folder.models.iloc[0]
    datasets = folder.datasets
    where = datasets[0] if len(datasets) == 1 else f"{len(datasets)} data sets"
    trained = folder.models["n_train"].max()
    sizes = [f"{first['n_classes']} classes", f"{trained:,} images to train, {first['n_test']:,} to test"]
    return [
        *([where] if where != folder.name else []),
        *(sizes if len(datasets) == 1 else []),
        f"{len(folder.models)} models" if len(folder.models) != 1 else "1 model",
        f"{folder.rows['created_at'].max():%d %B %Y}",
    ]


def _cards(folder: Folder, dataset: str) -> list[tuple[str, str, str]]:
    """Describe the recommended model in a few figures: (what, figure, note)."""
    best = folder.best(dataset)
    if best is None:
        return []
    cards = [
        ("Recommended" if len(folder.datasets) == 1 else dataset, best["method"], best["name"].partition("/")[2]),
        (
            "Test accuracy",
            f"{best['accuracy']:.4f}",
            f"95% interval {best['accuracy_low']:.3f} to {best['accuracy_high']:.3f}, {best['n_test']} images",
        ),
        ("Validation accuracy", f"{best['val_accuracy']:.4f}", "which it was chosen by"),
    ]
    if not pd.isna(best["total_s"]):
        cards.append(("Seconds in all", f"{best['total_s']:.3g}", "features, fit and test"))
    tied = folder.models[(folder.models["dataset"] == dataset) & (folder.models["verdict"] == "tied")]
    cards.append(("Tied with it", str(len(tied)), f"of {(folder.models['dataset'] == dataset).sum() - 1} other models"))
    return cards


def _curve_choices(folder: Folder, curves: list[Series]) -> list[tuple[str, str]]:
    """List the features that learning curves are of, those of the recommended model first."""
    best = folder.best(folder.datasets[0])
    first = [line["features"] for line in curves if is_of_model(best, line, ("backbone", "weights", "layer"))]
    names = dict.fromkeys([*first, *(line["features"] for line in curves)])
    return [*((name, name) for name in names), ("", "all")]


def _mistakes(folder: Folder) -> list[dict[str, Any]]:
    images = []
    table = folder.tables["mistakes.csv"]
    for (dataset, image_id), rows in table.groupby(["dataset", "id"], sort=False):
        label = rows["label"].iloc[0]
        wrong = rows[rows["predicted"] != rows["label"]]
        surest = wrong["certainty"].max()
        jpeg = folder.thumbnail(str(dataset), str(image_id))
        predictions = [
            {
                "predicted": predicted,
                "right": predicted == label,
                "models": list(zip(group["model"], group["certainty"], strict=True)),
            }
            for predicted, group in rows.groupby("predicted", sort=False)
        ]
        images.append(
            {
                "id": image_id,
                "label": label,
                "n_models": len(rows),
                "wrong": wrong["fingerprint"].tolist(),
                "share": f"{len(wrong) / len(rows):.4f}",
                "sure": "0" if pd.isna(surest) else f"{surest:.4f}",
                "predictions": sorted(predictions, key=lambda one: -len(one["models"])),
                "picture": jpeg and "data:image/jpeg;base64," + base64.b64encode(jpeg).decode(),
            }
        )
    return images


def _fitting(lines: list[Series], n_bytes: int) -> list[Series]:
    """Keep as many of the first lines as fit the page."""
    kept: list[Series] = []
    for line in lines:
        n_bytes -= len(json.dumps(line))
        if n_bytes < 0 and kept:
            break
        kept.append(line)
    return kept


def _environment(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for key, value in environment.items():
        items = value.items() if isinstance(value, Mapping) else [(key.replace("_", " "), value)]
        lines += [(str(name), "not known" if text is None else str(text)) for name, text in items]
    return lines
