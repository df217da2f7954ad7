"""The accuracy table: a row a (dataset, backbone, layer), a column a classifier, then the reference columns."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from featbench.results.files import write_csv, write_text
from featbench.results.models import main_rows
from featbench.results.row import strategy_of

KEYS = ("dataset", "backbone", "weights", "layer", "pooling", "feature_dim", "steps")
REFERENCES = ("linear_head", "partial", "finetune", "scratch")
_BOLD_NOTE = "**bold**: chosen by validation accuracy, not by test"

Record = Mapping[Hashable, Any]
Key = tuple[str, ...]


def accuracy_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Arrange test accuracies: the columns `KEYS`, then the classifiers, then the reference columns that occur.

    A cell is the mean over seeds of the rows with the largest n_train; of two rows with one seed the newer counts.
    A reference network is repeated on each layer of its backbone and weights; `scratch`, which has no weights of its
    own, on each of its backbone. A network without classifier rows gets a row with an empty layer.

    Args:
        rows: What `load_results` returns.

    Returns:
        Key columns as strings, empty where they do not apply; accuracies as float64 in [0, 1], NaN for an empty cell.
    """
    records = rows.to_dict("records")
    classifiers = [record for record in records if record["kind"] == "classifier"]
    baselines = [record for record in records if record["kind"] == "baseline"]
    references = sorted((r["method"] for r in baselines), key=_place_among_references)
    columns = [*dict.fromkeys([*(r["method"] for r in classifiers), *references])]

    lines = {_key(record): None for record in classifiers}
    # scratch last: it joins any line of its backbone, so those of the other references must stand first
    for record in sorted(baselines, key=_is_scratch):
        if not any(_refers(record, key) for key in lines):
            lines[_key(record)] = None

    cells = []
    for key in lines:
        mine = [r for r in classifiers if _key(r) == key] + [r for r in baselines if _refers(r, key)]
        cells.append([*key, *(_mean_over_seeds([r for r in mine if r["method"] == name]) for name in columns)])
    table = pd.DataFrame(cells, columns=[*KEYS, *columns])
    return table.astype(dict.fromkeys(columns, "float64"))


def _place_among_references(method: str) -> int:
    strategy = strategy_of(method)
    return REFERENCES.index(strategy) if strategy in REFERENCES else len(REFERENCES)  # those of a newer version


def is_reference(column: str) -> bool:
    """Say whether a column of the accuracy table is that of a reference network."""
    return strategy_of(column) in REFERENCES


def best_by_validation(rows: pd.DataFrame) -> pd.Series | None:
    """Return the classifier row with the highest validation accuracy, the first of equals; None where none has one.

    Repeats and the smaller sizes of a learning curve are no candidates; see `main_rows`.
    """
    models = main_rows(rows)
    candidates = models[(models["kind"] == "classifier") & models["val_accuracy"].notna()]
    return None if candidates.empty else candidates.iloc[int(candidates["val_accuracy"].to_numpy().argmax())]


def write_accuracy_tables(folder: Path, rows: pd.DataFrame) -> None:
    """Write accuracy.csv, accuracy.md and accuracy.tex.

    Args:
        folder: The results folder.
        rows: What `load_results` returns.

    Raises:
        ResultsError: A file cannot be written.
    """
    table = accuracy_table(rows)
    write_csv(folder / "accuracy.csv", list(table.columns), _cells(table))
    write_text(folder / "accuracy.md", to_markdown(table, best_by_validation(rows)))
    write_text(folder / "accuracy.tex", to_latex(table))


def to_markdown(table: pd.DataFrame, best: pd.Series | None) -> str:
    """Write an accuracy table as Markdown, the row chosen by validation in bold."""
    table = _without_empty_steps(table)
    lines = _cells(table)
    bold = _place_of(best, table)
    for i, line in enumerate(lines):
        for j, cell in enumerate(line):
            line[j] = f"**{cell}**" if (i, j) == bold else _escape(cell, _MARKDOWN)
    header = [_escape(name, _MARKDOWN) for name in table.columns]
    header = [
        f"{name} (reference)" if is_reference(str(column)) else name for name, column in zip(header, table, strict=True)
    ]
    rule = ["---" if column in KEYS else "---:" for column in table]
    text = "".join(f"| {' | '.join(line)} |\n" for line in [header, rule, *lines])
    return text if bold is None else f"{text}\n{_BOLD_NOTE}\n"


def to_latex(table: pd.DataFrame) -> str:
    r"""Write an accuracy table as a LaTeX tabular; the document needs \usepackage{booktabs}."""
    table = _without_empty_steps(table)
    n_methods = len(table.columns) - len(_keys_of(table))
    lines = [[_escape(cell, _LATEX) for cell in line] for line in _cells(table)]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{'l' * len(_keys_of(table))}{'r' * n_methods}}}",
            r"\toprule",
            " & ".join(_escape(name, _LATEX) for name in table.columns) + r" \\",
            r"\midrule",
            *(" & ".join(line) + r" \\" for line in lines),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _key(record: Record) -> Key:
    return tuple("" if pd.isna(record[name]) else str(record[name]) for name in KEYS)


def _refers(baseline: Record, key: Key) -> bool:
    dataset, backbone, weights, *_ = _key(baseline)
    same_weights = _is_scratch(baseline) or weights == key[2]
    return (dataset, backbone) == key[:2] and same_weights


def _is_scratch(baseline: Record) -> bool:
    return strategy_of(baseline["method"]) == "scratch"


def _mean_over_seeds(records: list[Record]) -> float:
    if not records:
        return float("nan")
    largest = max(record["n_train"] for record in records)
    newest_last = sorted((r for r in records if r["n_train"] == largest), key=lambda r: r["created_at"])
    by_seed = {record["seed"]: float(record["accuracy"]) for record in newest_last}
    return sum(by_seed.values()) / len(by_seed)


def _cells(table: pd.DataFrame) -> list[list[str]]:
    return [[_cell(value) for value in line] for line in table.itertuples(index=False, name=None)]


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.4f}"


def _place_of(best: pd.Series | None, table: pd.DataFrame) -> tuple[int, int] | None:
    if best is None:
        return None
    names = _keys_of(table)
    keys = [tuple(line) for line in table[names].itertuples(index=False, name=None)]
    own = tuple(cell for name, cell in zip(KEYS, _key(best.to_dict()), strict=True) if name in names)
    return keys.index(own), list(table.columns).index(best["method"])


def _without_empty_steps(table: pd.DataFrame) -> pd.DataFrame:
    return table if table["steps"].any() else table.drop(columns="steps")


def _keys_of(table: pd.DataFrame) -> list[str]:
    return [name for name in KEYS if name in table.columns]


_MARKDOWN = {c: f"\\{c}" for c in "\\`*_[]|"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " "}
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\n": " ",
}


def _escape(text: str, replacements: Mapping[str, str]) -> str:
    return "".join(replacements.get(character, character) for character in text)
