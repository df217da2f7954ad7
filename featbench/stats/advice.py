"""The advice: what to use for this data set and why, with the figures behind it.

The rules, each of which gives one sentence or none:

1. **Use** the model that was best by validation accuracy (`best_by_validation`: classifiers; the reference networks
   where there is no classifier with one). Test accuracies are reported and choose nothing. A forest's accuracy on
   out-of-bag rows is compared with the others' over folds: both are of rows that were not fitted on, but not of the
   same fits, and the sentence says so.
   **Not recommended** is a model that never predicts a class with 5 test images or more, while another predicts them
   all; where none does, rule 1 holds and the sentence names the classes. Only this is taken from test rows:
   which classes they have, and what was predicted, not which predictions are right.
2. **Tied and cheaper**: a model is tied with it where McNemar's exact test on the same test rows, corrected by Holm
   over all pairs, has p >= 0.05 and the 95% interval of the difference holds 0: a difference counts only after the
   correction, a tie only where there is none before it either. It says "tied", as far as so many images tell, not
   "equal". Cost is `total_seconds`. The cheapest of the tied is named where it is cheaper than the best, and predicts
   every class if the best does.
3. **More images**: only where the best model has a learning curve of two sizes or more. The sentence is about the last
   step of the curve, draw by draw; it is a rise where the accuracy rose in every one of at least three draws.
4. **Fine-tuning**: only where there is a `finetune` row (of several the best by validation) that was compared with the
   best classifier. It was worth its cost where it is better beyond chance (p_holm < 0.05), which is a finding about
   these test images, stated and not chosen by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from featbench.stats.accuracy import best_by_validation, candidates, never_predicts
from featbench.stats.cost import total_seconds
from featbench.stats.measures import never_predicted_classes
from featbench.stats.models import MODEL_KEYS, main_rows, model_names, strategy_of
from featbench.stats.spread import newest_of_each_seed

LEVEL = 0.05
MIN_DRAWS = 3
_NAMED = 3  # models that never predict a class, and such classes of a model, that a sentence names
_SELECTIONS = {"cv": "folds", "oob": "out-of-bag rows", "holdout": "held-out rows"}

Classes = Mapping[str, list[tuple[str, int]]]  # what `never_predicted_classes` returns


def advise(rows: pd.DataFrame, comparisons: pd.DataFrame, confusion: pd.DataFrame | None = None) -> list[str]:
    """Say what to use, in a few sentences for each data set; the rules are those of the module.

    Args:
        rows: Of any data sets.
        comparisons: What `compare_models` makes of the same rows.
        confusion: What `confusion_table` makes of them; without it classes that are never predicted have no names.
    """
    sentences = []
    classes = {} if confusion is None else never_predicted_classes(confusion)
    for dataset in rows["dataset"].unique():
        mine = rows[rows["dataset"] == dataset]
        sentences += [sentence for sentence in _advise_on(mine, comparisons, classes) if sentence is not None]
    return sentences


def _advise_on(rows: pd.DataFrame, comparisons: pd.DataFrame, classes: Classes) -> list[str | None]:
    models = main_rows(rows)
    models = models.assign(total_s=total_seconds(models))
    best = best_by_validation(models)
    if best is None:
        return [
            f"No model can be recommended for {rows['dataset'].iloc[0]}: none has a validation accuracy, and choosing "
            "by test accuracy would spoil it as an estimate; set evaluate.selection to another value than none."
        ]
    names = model_names(models)
    rivals = against_best(models, comparisons, best)
    return [
        _use(models, best, names, classes),
        _not_recommended(models, best, names, classes),
        _tied(models, best, names, rivals),
        _more_images(rows, best),
        _fine_tuning(best, names, rivals, classes),
    ]


def _use(models: pd.DataFrame, best: pd.Series, names: dict[str, str], classes: Classes) -> str:
    pool = candidates(models)
    n_equal = int((pool["val_accuracy"] == best["val_accuracy"]).sum())
    if len(pool) == 1:
        rank = "the only candidate"
    elif n_equal > 1:
        rank = f"the first of {n_equal} that share the highest of {len(pool)}"
    else:
        rank = f"the highest of {len(pool)}"
    if not _ruled_out(models, best).empty:
        rank += " that predicts every class" if len(pool) == 1 else " that predict every class"
    selections = [_SELECTIONS.get(name, name) for name in sorted(set(pool["selection"].dropna()))]
    if len(selections) > 1:
        rank += f" (of {' and '.join(selections)}, which hold out different rows)"
    warning = "; its solver did not converge" if not pd.isna(best["converged"]) and not best["converged"] else ""
    warning += _never_clause(best, classes)
    if never_predicts(best) and len(models) > 1 and (models["never_predicted"].fillna(0) > 0).all():
        warning += ", and no other model predicts every class"
    return (
        f"For {best['dataset']} use {names[best['fingerprint']]}: "
        f"validation accuracy {best['val_accuracy']:.4f}, {rank}; on the {best['n_test']} test images it has "
        f"{best['accuracy']:.4f} (95% interval {best['accuracy_low']:.4f} to {best['accuracy_high']:.4f}){warning}."
    )


def _not_recommended(models: pd.DataFrame, best: pd.Series, names: dict[str, str], classes: Classes) -> str | None:
    never = _ruled_out(models, best)
    if never.empty:
        return None
    first = never.sort_values("val_accuracy", ascending=False, kind="stable").head(_NAMED)
    named = [
        f"{names[m['fingerprint']]} (validation accuracy {m['val_accuracy']:.4f}): {named_classes(m, classes)}"
        for _, m in first.iterrows()
    ]
    if len(never) > _NAMED:
        named.append(f"and {len(never) - _NAMED} more")
    one = len(never) == 1
    return (
        f"{len(never)} of {len(models)} models {'is' if one else 'are'} not recommended, since "
        f"{'it never predicts' if one else 'they never predict'} a class that the test has: {'; '.join(named)}."
    )


def _ruled_out(models: pd.DataFrame, best: pd.Series) -> pd.DataFrame:
    """Return the models that never predict a class, of those that could be chosen; none where the best is one."""
    never = (models["never_predicted"].fillna(0) > 0) & models["val_accuracy"].notna()
    return models[never & (not never_predicts(best))]


def _never_clause(model: pd.Series, classes: Classes) -> str:
    return f"; it never predicts {named_classes(model, classes)}" if never_predicts(model) else ""


def named_classes(model: pd.Series, classes: Classes) -> str:
    """Name the classes that a model never predicts, those with the most test images first; "" where there are none."""
    if not never_predicts(model):
        return ""
    n_classes, known = int(model["never_predicted"]), classes.get(model["fingerprint"], [])
    if not known:
        return "1 class that the test has" if n_classes == 1 else f"{n_classes} classes that the test has"
    named = [f"{name} ({count} test images)" for name, count in known[:_NAMED]]
    return ", ".join([*named, *([f"and {len(known) - _NAMED} more classes"] if len(known) > _NAMED else [])])


def against_best(models: pd.DataFrame, comparisons: pd.DataFrame, best: pd.Series) -> pd.DataFrame:
    """Compare models with the best one.

    Returns:
        The others that were tested on the same rows, with `gain`, `gain_low`, `gain_high` (accuracy minus that of the
        best), `p_holm` and `verdict`: "tied" by rule 2, "better", "worse", or "open", where the interval of the
        difference does not hold 0 but the difference does not survive the correction.
    """
    own = best["fingerprint"]
    as_a, as_b = (comparisons[comparisons[f"{side}_fingerprint"] == own] for side in "ab")
    gains = [
        (row.b_fingerprint, -row.difference, -row.difference_high, -row.difference_low, row.p_holm)
        for row in as_a.itertuples()
    ] + [
        (row.a_fingerprint, row.difference, row.difference_low, row.difference_high, row.p_holm)
        for row in as_b.itertuples()
    ]
    table = pd.DataFrame(gains, columns=["fingerprint", "gain", "gain_low", "gain_high", "p_holm"])
    table = models.merge(table.astype({"fingerprint": models["fingerprint"].dtype}), on="fingerprint")
    return table.assign(verdict=[_verdict(row) for row in table.to_dict("records")])


def _verdict(rival: dict[Any, Any]) -> str:
    if rival["p_holm"] < LEVEL:
        return "better" if rival["gain"] > 0 else "worse"
    return "tied" if rival["gain_low"] <= 0 <= rival["gain_high"] else "open"


def _tied(models: pd.DataFrame, best: pd.Series, names: dict[str, str], rivals: pd.DataFrame) -> str | None:
    if len(models) == 1:
        return None
    if rivals.empty:
        return "It is compared with no other model: predictions are missing, or are of other test images."
    tied = rivals[rivals["verdict"] == "tied"]
    parts = [_count_of(tied, rivals), *_others(rivals)]
    offered = tied if never_predicts(best) else tied[tied["never_predicted"].fillna(0) == 0]
    if not offered.empty:
        parts.append(_cheapest(offered, best, names))
    return "; ".join(parts) + "."


def _count_of(tied: pd.DataFrame, rivals: pd.DataFrame) -> str:
    count = "none" if tied.empty else str(len(tied))
    others = "1 other" if len(rivals) == 1 else f"{len(rivals)} others"
    return (
        f"As far as {rivals['n_test'].iloc[0]} test images tell, {count} of {others} "
        f"{'is' if len(tied) < 2 else 'are'} tied with it (McNemar's exact test, Holm-corrected p >= {LEVEL}, "
        "and an interval of the difference that holds 0)"
    )


def _others(rivals: pd.DataFrame) -> list[str]:
    worse, better, n_open = (int((rivals["verdict"] == verdict).sum()) for verdict in ("worse", "better", "open"))
    parts = [f"{worse} {'is' if worse == 1 else 'are'} worse"] if worse else []
    if better:
        parts.append(f"{better} {'is' if better == 1 else 'are'} better, which only new images could confirm")
    if n_open:
        parts.append(f"{n_open} may differ, but not after the correction")
    return parts


def _cheapest(tied: pd.DataFrame, best: pd.Series, names: dict[str, str]) -> str:
    cheaper = tied[tied["total_s"] < best["total_s"]]
    if cheaper.empty:
        return "none of the tied is known to be cheaper"
    rival = cheaper.iloc[int(cheaper["total_s"].to_numpy().argmin())]
    return (
        f"the cheapest of the tied is {names[rival['fingerprint']]}, with {rival['total_s']:.3g} s for features, fit "
        f"and test against {best['total_s']:.3g} s (the test alone {rival['predict_s']:.2g} s against "
        f"{best['predict_s']:.2g} s) and a test accuracy of {rival['accuracy']:.4f} ({_gain(rival)})"
    )


def _more_images(rows: pd.DataFrame, best: pd.Series) -> str | None:
    curve = rows[rows["images_per_class"].notna() & _is_same_model(rows, best)]
    by_size = [(size, newest_of_each_seed(group)) for size, group in curve.groupby("images_per_class")]
    if len(by_size) < 2:
        return None
    (before, few), (after, many) = by_size[-2:]
    steps = (many - few).dropna()  # by seed: the larger draw holds the smaller one
    if steps.empty:
        return None
    n_up, draws = int((steps > 0).sum()), "draw" if len(steps) == 1 else "draws"
    if len(steps) < MIN_DRAWS:
        verdict = f"fewer than {MIN_DRAWS} draws cannot say whether that is more than chance"
    elif n_up == len(steps):
        verdict = "it still rose at the last step, which speaks for more images"
    else:
        verdict = "this does not show that more images would help"
    return (
        f"From {before} to {after} training images a class its test accuracy went from "
        f"{few[steps.index].mean():.4f} to {many[steps.index].mean():.4f} "
        f"(higher in {n_up} of {len(steps)} {draws}): {verdict}."
    )


def _fine_tuning(best: pd.Series, names: dict[str, str], rivals: pd.DataFrame, classes: Classes) -> str | None:
    tuned = candidates(rivals[rivals["method"].map(strategy_of) == "finetune"])
    if tuned.empty or best["kind"] != "classifier":
        return None
    network = tuned.iloc[int(tuned["val_accuracy"].to_numpy().argmax())]
    if network["p_holm"] >= LEVEL:
        verdict = "was not shown to be worth its cost"
    elif network["gain"] > 0:
        verdict = "bought accuracy"
    else:
        verdict = "was not worth its cost"
    theirs, own = network["total_s"], best["total_s"]
    cost = f", for {theirs / own:.2g} times the seconds ({theirs:.3g} against {own:.3g})" if own > 0 <= theirs else ""
    return (
        f"Fine-tuning as set up here {verdict}: {names[network['fingerprint']]} has a test accuracy of "
        f"{network['accuracy']:.4f} ({_gain(network)}){cost}{_never_clause(network, classes)}."
    )


def _gain(rival: pd.Series) -> str:
    low, high = rival["gain_low"], rival["gain_high"]
    return f"difference {rival['gain']:+.4f}, 95% interval {low:+.4f} to {high:+.4f}, p {rival['p_holm']:.2g}"


def _is_same_model(rows: pd.DataFrame, model: pd.Series) -> Any:
    same = pd.Series(data=True, index=rows.index)
    for column in MODEL_KEYS:
        same &= rows[column].isna() if pd.isna(model[column]) else rows[column].eq(model[column]).fillna(value=False)
    return same
