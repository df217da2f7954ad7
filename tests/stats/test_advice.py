from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from featbench.results.store import load_results
from featbench.stats.advice import advise
from featbench.stats.comparisons import COMPARISON_COLUMNS
from tests.rows import write_rows

Load = Callable[..., pd.DataFrame]
BASELINE: dict[str, Any] = {"kind": "baseline", "layer": None, "pooling": None, "feature_dim": None, "extract_s": None}
BEST = {"accuracy": 0.9, "val_accuracy": 0.95, "extract_s": 10.0, "fit_s": 5.0, "predict_s": 1.0}
CHEAP = {"layer": "layer1", "accuracy": 0.88, "val_accuracy": 0.9, "extract_s": 2.0, "fit_s": 1.0, "predict_s": 0.5}
TUNED = {**BASELINE, "method": "finetune", "accuracy": 0.94, "val_accuracy": 0.99, "fit_s": 158.0, "predict_s": 2.0}
TIED, WORSE, BETTER, OPEN = (
    {"difference": 0.02, "difference_low": -0.01, "difference_high": 0.05, "p_holm": 0.4},
    {"difference": 0.20, "difference_low": 0.10, "difference_high": 0.30, "p_holm": 0.001},
    {"difference": -0.04, "difference_low": -0.07, "difference_high": -0.02, "p_holm": 0.003},
    {"difference": 0.06, "difference_low": 0.01, "difference_high": 0.11, "p_holm": 0.2},
)


@pytest.fixture
def table_of(tmp_path: Path, make_row: Callable[..., Any]) -> Load:
    def load(*changes: dict[str, Any]) -> pd.DataFrame:
        write_rows(tmp_path, [make_row(**({"fingerprint": f"f{i}"} | change)) for i, change in enumerate(changes)])
        return load_results(tmp_path)

    return load


def pairs(*found: tuple[int, int, dict[str, float]]) -> pd.DataFrame:
    """Make comparisons of models by number: the difference is the accuracy of the first minus that of the second."""
    lines = [{"a_fingerprint": f"f{a}", "b_fingerprint": f"f{b}", **numbers} for a, b, numbers in found]
    return pd.DataFrame(lines, columns=list(COMPARISON_COLUMNS))


def on_curve(size: int, seed: int, accuracy: float) -> dict[str, Any]:
    return {
        "images_per_class": size,
        "seed": seed,
        "accuracy": accuracy,
        "n_train": 3 * size,
        "val_accuracy": 0.5 + size / 1000,
    }


def test_the_best_by_validation_is_recommended_whatever_the_test_says(table_of: Load) -> None:
    rows = table_of({"layer": "layer1", "accuracy": 0.99, "val_accuracy": 0.8}, BEST)
    assert advise(rows, pairs((0, 1, BETTER)))[0] == (
        "For folder use linear_svc/resnet18/layer3: validation accuracy 0.9500, the highest of 2; "
        "on the 50 test images it has 0.9000 (95% interval 0.1000 to 0.5000)."
    )


def test_test_accuracies_do_not_change_the_choice(table_of: Load) -> None:
    rows = table_of(BEST, CHEAP, TUNED)
    other = rows.assign(accuracy=[0.1, 0.99, 0.5])
    first, second = (advise(table, pairs())[0] for table in (rows, other))
    assert first.partition(";")[0] == second.partition(";")[0]


def test_a_tie_in_validation_is_said(table_of: Load) -> None:
    rows = table_of(BEST, {"layer": "layer1", "val_accuracy": 0.95}, {"layer": "layer2", "val_accuracy": 0.3})
    assert "0.9500, the first of 2 that share the highest of 3;" in advise(rows, pairs())[0]


def test_one_model_alone_is_all_there_is_to_say(table_of: Load) -> None:
    (sentence,) = advise(table_of(BEST | {"converged": False}), pairs())
    assert "the only candidate" in sentence
    assert sentence.endswith("; its solver did not converge.")


@pytest.mark.parametrize("flipped", [False, True])
def test_the_cheapest_of_the_tied_is_named(table_of: Load, flipped: bool) -> None:
    rows = table_of(BEST, CHEAP, {"layer": "layer2", "val_accuracy": 0.5, "fit_s": 5.0})
    turned = {"difference": -0.02, "difference_low": -0.05, "difference_high": 0.01, "p_holm": 0.4}
    found = (1, 0, turned) if flipped else (0, 1, TIED)
    assert advise(rows, pairs(found, (0, 2, TIED)))[1] == (
        "As far as 50 test images tell, 2 of 2 others are tied with it (McNemar's exact test, Holm-corrected "
        "p >= 0.05, and an interval of the difference that holds 0); the cheapest of the tied is "
        "linear_svc/resnet18/layer1, with 3.5 s for features, fit and test against 16 s (the test alone 0.5 s against "
        "1 s) and a test accuracy of 0.8800 (difference -0.0200, 95% interval -0.0500 to +0.0100, p 0.4)."
    )


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (WORSE, r"As far as 50 test images tell, none of 1 other is tied .*; 1 is worse\."),
        (BETTER, r".* none of 1 other is tied .*; 1 is better, which only new images could confirm\."),
        (OPEN, r".* none of 1 other is tied .*; 1 may differ, but not after the correction\."),
    ],
    ids=["worse", "better", "open"],
)
def test_what_is_not_tied_is_not_offered(table_of: Load, numbers: dict[str, float], expected: str) -> None:
    sentence = advise(table_of(BEST, CHEAP), pairs((0, 1, numbers)))[1]
    assert re.fullmatch(expected, sentence)
    assert "cheapest" not in sentence


@pytest.mark.parametrize("changes", [{"fit_s": 900.0}, {"extract_s": None}, {"predict_s": None}])
def test_a_tied_model_that_is_not_known_to_be_cheaper_is_not_offered(table_of: Load, changes: dict[str, Any]) -> None:
    sentence = advise(table_of(BEST, CHEAP | changes), pairs((0, 1, TIED)))[1]
    assert sentence.endswith("; none of the tied is known to be cheaper.")


def test_without_comparisons_nothing_is_said_of_ties(table_of: Load) -> None:
    sentences = advise(table_of(BEST, CHEAP, TUNED), pairs())
    assert sentences[1:] == [
        "It is compared with no other model: predictions are missing, or are of other test images."
    ]


@pytest.mark.parametrize(
    ("draws", "expected"),
    [
        (
            [(0.7, 0.8), (0.6, 0.8), (0.65, 0.7)],
            "0.6500 to 0.7667 (higher in 3 of 3 draws): it still rose",
        ),
        ([(0.7, 0.8), (0.8, 0.8), (0.6, 0.7)], "(higher in 2 of 3 draws): this does not show that more images would"),
        ([(0.7, 0.8), (0.7, 0.8)], "(higher in 2 of 2 draws): fewer than 3 draws cannot say"),
        ([(0.7, 0.8)], "(higher in 1 of 1 draw): fewer than 3 draws cannot say"),
    ],
)
def test_the_learning_curve_tells_what_more_images_would_bring(
    table_of: Load, draws: list[tuple[float, float]], expected: str
) -> None:
    rows = table_of(
        *(on_curve(20, seed, low) for seed, (low, _) in enumerate(draws)),
        *(on_curve(40, seed, high) for seed, (_, high) in enumerate(draws)),
        on_curve(10, 0, 0.1),
    )
    sentence = advise(rows, pairs())[-1]
    assert sentence.startswith("From 20 to 40 training images a class its test accuracy went from ")
    assert expected in sentence


def test_one_size_is_no_curve(table_of: Load) -> None:
    assert len(advise(table_of(on_curve(20, 0, 0.7), on_curve(20, 1, 0.8)), pairs())) == 1


@pytest.mark.parametrize(
    ("numbers", "verdict"),
    [(BETTER, "bought accuracy"), (WORSE, "was not worth its cost"), (TIED, "was not shown to be worth its cost")],
    ids=["better", "worse", "tied"],
)
def test_fine_tuning_is_judged_by_what_it_bought(table_of: Load, numbers: dict[str, float], verdict: str) -> None:
    sentence = advise(table_of(BEST, TUNED), pairs((0, 1, numbers)))[-1]
    low, high = -numbers["difference_high"], -numbers["difference_low"]
    assert sentence == (
        f"Fine-tuning as set up here {verdict}: finetune/resnet18 has a test accuracy of 0.9400 (difference "
        f"{-numbers['difference']:+.4f}, 95% interval {low:+.4f} to {high:+.4f}, p {numbers['p_holm']:.2g}), "
        "for 10 times the seconds (160 against 16)."
    )


def test_without_seconds_fine_tuning_is_judged_without_its_cost(table_of: Load) -> None:
    sentence = advise(table_of(BEST | {"fit_s": None}, TUNED), pairs((0, 1, TIED)))[-1]
    assert sentence.endswith("p 0.4).")


def test_other_references_are_not_fine_tuning(table_of: Load) -> None:
    sentences = advise(table_of(BEST, TUNED | {"method": "scratch"}), pairs((0, 1, TIED)))
    assert not any("Fine-tuning" in sentence for sentence in sentences)


def test_reference_networks_alone_are_chosen_among_themselves(table_of: Load) -> None:
    sentences = advise(table_of(TUNED, TUNED | {"method": "linear_head", "val_accuracy": 0.7}), pairs((0, 1, WORSE)))
    assert sentences[0].startswith("For folder use finetune/resnet18: validation accuracy 0.9900, the highest of 2;")
    assert len(sentences) == 2


def test_without_validation_nothing_is_recommended(table_of: Load) -> None:
    (sentence,) = advise(table_of(BEST | {"val_accuracy": None}), pairs())
    assert sentence.startswith("No model can be recommended for folder: none has a validation accuracy")


CONFUSION = pd.DataFrame(
    [
        *[("f0", "cat", "cat", 30), ("f0", "ant", "cat", 6), ("f0", "bee", "cat", 20), ("f0", "fly", "cat", 4)],
        *[("f1", "cat", "cat", 30), ("f1", "ant", "bee", 6), ("f1", "bee", "ant", 20), ("f1", "fly", "cat", 4)],
    ],
    columns=["fingerprint", "label", "predicted", "count"],
)


def test_a_model_that_never_predicts_a_class_is_not_recommended_while_another_predicts_all(table_of: Load) -> None:
    rows = table_of(BEST | {"never_predicted": 2}, CHEAP | {"never_predicted": 0}, {"layer": "a", "val_accuracy": 0.1})
    first, second = advise(rows, pairs((0, 1, TIED)), CONFUSION)[:2]
    assert first.startswith("For folder use linear_svc/resnet18/layer1: validation accuracy 0.9000, the highest of 2 ")
    assert "the highest of 2 that predict every class;" in first
    assert second == (
        "1 of 3 models is not recommended, since it never predicts a class that the test has: "
        "linear_svc/resnet18/layer3 (validation accuracy 0.9500): bee (20 test images), ant (6 test images)."
    )


def test_the_only_model_that_predicts_every_class_is_called_that(table_of: Load) -> None:
    rows = table_of(BEST | {"never_predicted": 2}, CHEAP | {"never_predicted": 0})
    assert "0.9000, the only candidate that predicts every class;" in advise(rows, pairs(), CONFUSION)[0]


def test_without_predictions_the_classes_are_counted(table_of: Load) -> None:
    rows = table_of(*({"layer": str(n), "val_accuracy": n / 10, "never_predicted": n % 4} for n in range(8)))
    assert advise(rows, pairs())[1] == (
        "6 of 8 models are not recommended, since they never predict a class that the test has: "
        "linear_svc/resnet18/7 (validation accuracy 0.7000): 3 classes that the test has; "
        "linear_svc/resnet18/6 (validation accuracy 0.6000): 2 classes that the test has; "
        "linear_svc/resnet18/5 (validation accuracy 0.5000): 1 class that the test has; and 3 more."
    )


def test_where_every_model_never_predicts_a_class_the_sentence_says_so(table_of: Load) -> None:
    rows = table_of(BEST | {"never_predicted": 2}, CHEAP | {"never_predicted": 1})
    sentence = advise(rows, pairs(), CONFUSION)[0]
    assert sentence.startswith(
        "For folder use linear_svc/resnet18/layer3: validation accuracy 0.9500, the highest of 2"
    )
    assert sentence.endswith(
        "; it never predicts bee (20 test images), ant (6 test images), and no other model predicts every class."
    )
    assert not any("not recommended" in other for other in advise(rows, pairs(), CONFUSION))
    (alone,) = advise(rows.head(1), pairs(), CONFUSION)
    assert alone.endswith("; it never predicts bee (20 test images), ant (6 test images).")


def test_many_classes_are_not_all_named(table_of: Load) -> None:
    confusion = pd.DataFrame([("f0", f"class {n}", "cat", 5 + n) for n in range(10)], columns=CONFUSION.columns)
    (sentence,) = advise(table_of(BEST | {"never_predicted": 10}), pairs(), confusion)
    named = "class 9 (14 test images), class 8 (13 test images), class 7 (12 test images), and 7 more classes"
    assert sentence.endswith(f"; it never predicts {named}.")


def test_a_cheaper_model_that_never_predicts_a_class_is_not_offered(table_of: Load) -> None:
    rows = table_of(BEST | {"never_predicted": 0}, CHEAP | {"never_predicted": 1})
    sentence = advise(rows, pairs((0, 1, TIED)))[2]
    assert "1 of 1 other is tied with it" in sentence
    assert "cheap" not in sentence


def test_fine_tuning_that_never_predicts_a_class_is_told_with_it(table_of: Load) -> None:
    rows = table_of(BEST, TUNED | {"never_predicted": 2})
    found = pairs((0, 1, BETTER))
    assert advise(rows, found, CONFUSION.head(4).assign(fingerprint="f1"))[-1].endswith(
        "(160 against 16); it never predicts bee (20 test images), ant (6 test images)."
    )


def test_each_data_set_has_its_own_advice(table_of: Load) -> None:
    sentences = advise(table_of(BEST, BEST | {"dataset": "cars"}), pairs())
    assert [sentence.split()[1] for sentence in sentences] == ["folder", "cars"]
    assert advise(table_of().iloc[:0], pairs()) == []


def test_validation_accuracies_of_different_kinds_are_told(table_of: Load) -> None:
    rows = table_of(
        {"val_accuracy": 0.9, "selection": "cv"}, {"method": "random_forest", "val_accuracy": 0.8, "selection": "oob"}
    )
    assert "the highest of 2 (of folds and out-of-bag rows, which hold out different rows)" in advise(rows, pairs())[0]
