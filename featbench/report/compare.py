"""Several results folders on one page: several data sets, or one on several machines."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from featbench.errors import UsageError
from featbench.report.folder import Folder
from featbench.report.page import render, script_json
from featbench.report.series import COSTS, by_validation, model_points, plain
from featbench.report.table import AccuracyTable, page_table
from featbench.stats.ranks import RankSummary, rank_methods

_FOREST_MODELS = 12


@dataclass(frozen=True)
class Ranks:
    """Ranks of the methods, or why there are none."""

    table: list[dict[str, Any]]
    summary: RankSummary | None
    why_not: str


def write_comparison(folders: Sequence[Folder], path: Path) -> None:
    """Write the page that compares folders.

    Raises:
        ResultsError: The file cannot be written.
    """
    labels = folder_labels(folders)
    points = [
        point
        | {"fingerprint": f"{number}-{point['fingerprint']}", "folder": label, "name": f"{label}: {point['name']}"}
        for number, (folder, label) in enumerate(zip(folders, labels, strict=True))
        for point in model_points(folder)
    ]
    forest = [
        point["fingerprint"]
        for label in labels
        for point in by_validation([point for point in points if point["folder"] == label])[:_FOREST_MODELS]
    ]
    costs = {axis: text for axis, text in COSTS.items() if any(point.get(axis) for point in points)}
    ranks = rank_all(folders)
    data = {
        "models": points,
        "group_by": "folder",
        "forest": forest,
        "costs": costs,
        "ranks": ranks.table,
        "critical_difference": ranks.summary.critical_difference if ranks.summary else None,
        "details": {},
    }
    content = {
        "title": f"{len(folders)} results folders",
        "facts": labels,
        "sections": [
            ("advice", "Advice"),
            ("summary", "Summary"),
            ("accuracy", "Accuracy"),
            ("ranks", "Ranks"),
            ("cost", "Cost"),
            ("made", "How they were made"),
        ],
        "source": f"{len(folders)} results folders",
        "advice": [(label, folder.advice) for folder, label in zip(folders, labels, strict=True)],
        "forest_height": 110 + 27 * len(forest),
        "summary": [
            _summary(folder, label, d) for folder, label in zip(folders, labels, strict=True) for d in folder.datasets
        ],
        "table": combined_table(folders, labels),
        "never": any(point["never"] for point in points),
        "ranks": ranks,
        "costs": list(costs.items()),
        "environments": _environments(folders, labels),
        "data": script_json(data),
    }
    render("compare.html.j2", content, path)


def folder_labels(folders: Sequence[Folder]) -> list[str]:
    """Name folders by their experiment; by their path where that is not unique."""
    names = [folder.name for folder in folders]
    return [
        name if names.count(name) == 1 else f"{name} ({folder.path})"
        for name, folder in zip(names, folders, strict=True)
    ]


def rank_all(folders: Sequence[Folder]) -> Ranks:
    """Rank the methods that all data sets have in common; a row that is in two folders counts once."""
    rows = pd.concat([folder.rows for folder in folders], ignore_index=True).drop_duplicates("fingerprint")
    common = rows.groupby("method")["dataset"].nunique() == rows["dataset"].nunique()
    rows = rows[rows["method"].isin(common.index[common])]
    try:
        table, summary = rank_methods(rows)
    except UsageError as error:
        return Ranks([], None, str(error))
    return Ranks([{str(k): plain(v) for k, v in line.items()} for line in table.to_dict("records")], summary, "")


def combined_table(folders: Sequence[Folder], labels: Sequence[str]) -> AccuracyTable:
    """Put the accuracy tables below each other, with the folder as the first column."""
    tables = [page_table(folder, ("dataset", "backbone", "weights", "layer", "steps")) for folder in folders]
    classifiers = dict.fromkeys(m for table in tables for m in table.methods[: len(table.methods) - table.n_references])
    references = dict.fromkeys(m for table in tables for m in table.methods[len(table.methods) - table.n_references :])
    methods = (*classifiers, *references)
    lines = []
    for table, label in zip(tables, labels, strict=True):
        for line in table.lines:
            cells = dict(zip(table.methods, line.cells, strict=True))
            lines.append(replace(line, keys=(label, *line.keys), cells=tuple(cells.get(m, ()) for m in methods)))
    columns = ("folder", *tables[0].key_columns)
    if all(line.keys[0] == line.keys[1] for line in lines):  # folders are named by their data sets
        columns = columns[1:]
        lines = [replace(line, keys=line.keys[1:]) for line in lines]
    return AccuracyTable(columns, methods, len(references), tuple(lines)).without_equal_keys()


def _summary(folder: Folder, label: str, dataset: str) -> dict[str, Any]:
    rows = folder.rows[folder.rows["dataset"] == dataset]
    best = folder.best(dataset)
    return {
        "label": label,
        "dataset": dataset,
        "n_classes": rows["n_classes"].iloc[0],
        "n_train": rows["n_train"].max(),
        "n_test": rows["n_test"].iloc[0],
        "n_models": int((folder.models["dataset"] == dataset).sum()),
        "best": best,
        "total_s": None if best is None else plain(best["total_s"]),
    }


def _environments(folders: Sequence[Folder], labels: Sequence[str]) -> list[dict[str, str]]:
    lines = []
    for folder, label in zip(folders, labels, strict=True):
        known = folder.environment
        versions = known.get("versions")
        version = versions.get("featbench") if isinstance(versions, dict) else None
        names = ("platform", "device", "cpu_threads", "python", "git_commit")
        cells = {name: "not known" if known.get(name) is None else str(known[name]) for name in names}
        command = f"featbench run {shlex.quote(str(folder.path / 'experiment.toml'))}"
        lines.append({"label": label, "featbench": str(version or "not known"), **cells, "command": command})
    return lines
