"""The accuracy table: a row a (dataset, backbone, layer), a column a classifier, then the reference columns.

The best model is chosen by validation accuracy, with one exception: a model that never predicts a class that has test
images (`Row.never_predicted`) is passed over while there is one that predicts them all. That uses which classes the
test has and what was predicted, not which predictions are right; it can only rule a model out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import pandas as pd

from featbench.stats.models import main_rows, strategy_of

KEYS = ("dataset", "backbone", "weights", "layer", "pooling", "feature_dim", "steps")
REFERENCES = ("linear_head", "partial", "finetune", "scratch")
NEVER = "!"
NEVER_NOTE = f"{NEVER} never predicts a class that the test has; chosen only where every model does so"
_BOLD_NOTE = "**bold**: chosen by validation accuracy, not by test"

Record = Mapping[Hashable, Any]
Key = tuple[str, ...]


def accuracy_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Arrange test accuracies: the columns `KEYS`, then the classifiers, then the reference columns that occur.

    A cell is the mean over seeds of the rows with the largest n_train; of two rows with one seed the newer counts.
    A reference network is repeated on each layer (see `is_on_line`); where its backbone has no classifiers, it gets a
    row with an empty layer.

    Returns:
        Key columns as strings, empty where they do not apply; accuracies as float64 in [0, 1], NaN for an empty cell.
    """

    def mean_over_seeds(records: list[Record]) -> float:
        accuracies = [float(record["accuracy"]) for record in _by_seed(records).values()]
        return sum(accuracies) / len(accuracies) if accuracies else float("nan")

    table = _arranged(rows, mean_over_seeds)
    return table.astype(dict.fromkeys(table.columns[len(KEYS) :], "float64"))


def never_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Say in the shape of `accuracy_table` which cells' first repeat never predicts a class that the test has; bool."""

    def first_repeat_never_predicts(records: list[Record]) -> bool:
        by_seed = _by_seed(records)
        return bool(by_seed) and never_predicts(by_seed[min(by_seed)])

    table = _arranged(rows, first_repeat_never_predicts)
    return table.assign(**dict.fromkeys(KEYS, False)).astype(bool)


def _arranged(rows: pd.DataFrame, cell_of: Callable[[list[Record]], float | bool]) -> pd.DataFrame:
    records = rows.to_dict("records")
    classifiers = [record for record in records if record["kind"] == "classifier"]
    baselines = [record for record in records if record["kind"] == "baseline"]
    order = dict(zip(REFERENCES, range(len(REFERENCES)), strict=True))  # those of a newer version come last
    references = sorted((r["method"] for r in baselines), key=lambda m: order.get(strategy_of(m), len(order)))
    columns = [*dict.fromkeys([*(r["method"] for r in classifiers), *references])]

    lines = {_key(record): None for record in classifiers}
    # scratch last: it joins any line of its backbone, so the lines of the others have to be there first
    for record in sorted(baselines, key=_is_scratch):
        if not any(is_on_line(record, key) for key in lines):
            lines[_key(record)] = None

    cells = []
    for key in lines:
        mine = [record for record in records if is_on_line(record, key)]
        cells.append([*key, *(cell_of([r for r in mine if r["method"] == name]) for name in columns)])
    return pd.DataFrame(cells, columns=[*KEYS, *columns])


def is_on_line(model: Record, key: Key) -> bool:
    """Say whether a model stands on the line of the accuracy table with these values of `KEYS`.

    A classifier stands on its own line, a reference network on each layer of its backbone and weights, and `scratch`,
    which has no weights of its own, on each of its backbone.
    """
    own = _key(model)
    if model["kind"] == "classifier":
        return own == key
    return own[:2] == key[:2] and (_is_scratch(model) or own[2] == key[2])


def is_reference(column: str) -> bool:
    """Say whether a column of the accuracy table is that of a reference network."""
    return strategy_of(column) in REFERENCES


def best_by_validation(rows: pd.DataFrame) -> pd.Series | None:
    """Return the row that has the highest validation accuracy of the `candidates`, the first of equals; None of none.

    Repeats and the smaller sizes of a learning curve are no candidates; see `main_rows`.
    """
    models = candidates(main_rows(rows))
    return None if models.empty else models.iloc[int(models["val_accuracy"].to_numpy().argmax())]


def candidates(models: pd.DataFrame) -> pd.DataFrame:
    """Return the models to choose from: classifiers, and reference networks only where there is no classifier.

    Those that never predict a class come after all others: a network that predicts every class before such a
    classifier. A model without a validation accuracy is none of them.
    """
    models = models[models["val_accuracy"].notna()]
    whole, classifiers = models["never_predicted"].fillna(0) == 0, models["kind"] == "classifier"
    pools = (models[whole & classifiers], models[whole], models[classifiers])
    return next((pool for pool in pools if not pool.empty), models)


def never_predicts(model: Record | pd.Series) -> bool:
    """Say whether a row is of a model that never predicts a class that the test has; where it is not known it is no."""
    count: Any = model["never_predicted"]
    return bool(not pd.isna(count) and count > 0)


def as_text(table: pd.DataFrame, never: pd.DataFrame) -> pd.DataFrame:
    """Write every accuracy as it is shown: four digits, "" where there is none, `NEVER` before those in `never`."""
    text = table.astype(object).map(_cell)
    return text.mask(never, NEVER + text)


def chosen_cells(rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Say in the shape of `accuracy_table` where the best model of each data set is, a network on each layer; bool."""
    cells = pd.DataFrame(data=False, index=table.index, columns=table.columns)
    keys = list(table[list(KEYS)].itertuples(index=False, name=None))
    for dataset in rows["dataset"].unique():
        best = best_by_validation(rows[rows["dataset"] == dataset])
        if best is not None:
            record = best.to_dict()
            there = [is_on_line(record, key) for key in keys]
            cells[record["method"]] |= pd.Series(there, index=cells.index, dtype=bool)
    return cells


def to_markdown(table: pd.DataFrame, never: pd.DataFrame, bold: pd.DataFrame) -> str:
    """Write an accuracy table as Markdown, the models chosen by validation in bold."""
    text = as_text(table, never)
    escaped = text.map(lambda cell: _escape(cell, _MARKDOWN))
    text = _without_empty_steps(escaped.mask(bold, "**" + text + "**"))
    header = [f"{_escape(name, _MARKDOWN)}{' (reference)' if is_reference(name) else ''}" for name in text.columns]
    rule = ["---" if column in KEYS else "---:" for column in text]
    lines = "".join(f"| {' | '.join(line)} |\n" for line in [header, rule, *text.to_numpy().tolist()])
    notes = [_BOLD_NOTE] * bool(bold.to_numpy().any()) + [NEVER_NOTE] * bool(never.to_numpy().any())
    return "\n".join([lines, *(f"{note}\n" for note in notes)])


def to_latex(table: pd.DataFrame, never: pd.DataFrame) -> str:
    r"""Write an accuracy table as a LaTeX tabular; the document needs \usepackage{booktabs}."""
    text = _without_empty_steps(as_text(table, never)).map(lambda cell: _escape(cell, _LATEX))
    n_keys = sum(column in KEYS for column in text)
    note = rf"\multicolumn{{{len(text.columns)}}}{{l}}{{{NEVER_NOTE}}} \\"
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{'l' * n_keys}{'r' * (len(text.columns) - n_keys)}}}",
            r"\toprule",
            " & ".join(_escape(name, _LATEX) for name in text.columns) + r" \\",
            r"\midrule",
            *(" & ".join(line) + r" \\" for line in text.to_numpy().tolist()),
            r"\bottomrule",
            *[note] * bool(never.to_numpy().any()),
            r"\end{tabular}",
            "",
        ]
    )


def _key(record: Record) -> Key:
    return tuple("" if pd.isna(record[name]) else str(record[name]) for name in KEYS)


def _is_scratch(baseline: Record) -> bool:
    return strategy_of(baseline["method"]) == "scratch"


def _by_seed(records: list[Record]) -> dict[int, Record]:
    """Return of the rows with the largest training set the newest of each seed."""
    largest = max((record["n_train"] for record in records), default=0)
    newest_last = sorted((r for r in records if r["n_train"] == largest), key=lambda r: r["created_at"])
    return {record["seed"]: record for record in newest_last}


def table_cells(table: pd.DataFrame) -> list[list[str]]:
    """Return the lines of accuracy.csv."""
    return [[_cell(value) for value in line] for line in table.itertuples(index=False, name=None)]


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.4f}"


def _without_empty_steps(table: pd.DataFrame) -> pd.DataFrame:
    return table if table["steps"].any() else table.drop(columns="steps")


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
