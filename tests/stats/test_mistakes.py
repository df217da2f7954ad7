from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featbench.results.images import thumbnail_path
from featbench.stats.mistakes import MISTAKE_COLUMNS, certainties, mistake_table
from featbench.stats.models import Predictions


def answers(name: str, predicted: list[int], gaps: list[float], dataset: str = "pets") -> Predictions:
    """A model of two classes that is `gaps` apart between them; the truth is always class 0."""
    scores = np.zeros((len(predicted), 2))
    scores[np.arange(len(predicted)), predicted] = gaps
    ids = np.array([f"{number}.jpg" for number in range(len(predicted))], dtype=object)
    labels = np.zeros(len(predicted), dtype=np.int64)
    return Predictions(f"f-{name}", name, dataset, ("ant", "bee"), ids, labels, np.array(predicted), scores)


def test_the_images_most_often_wrong_come_first_with_what_every_model_said() -> None:
    table = mistake_table([answers("a", [0, 1, 1, 0], [4, 3, 2, 1]), answers("b", [0, 0, 1, 0], [1, 2, 3, 4])])
    assert tuple(table.columns) == MISTAKE_COLUMNS
    assert table[["id", "model", "label", "predicted", "certainty"]].to_numpy().tolist() == [
        ["2.jpg", "a", "ant", "bee", 0.5],
        ["2.jpg", "b", "ant", "bee", 0.75],
        ["1.jpg", "a", "ant", "bee", 0.75],
        ["1.jpg", "b", "ant", "ant", 0.5],
    ]


def test_the_most_confident_mistake_is_in_though_few_models_make_it() -> None:
    often = answers("a", [1, 1, 0, 0], [1, 2, 3, 4]), answers("b", [1, 1, 0, 1], [1, 2, 3, 9])
    assert mistake_table(often, n_each=1)["id"].unique().tolist() == ["1.jpg", "3.jpg"]


def test_data_sets_stand_apart() -> None:
    both = [answers("a", [1, 0], [1, 2]), answers("b", [1, 1], [1, 2], dataset="zoo")]
    counts = mistake_table(both).groupby("dataset")["id"].nunique()
    assert counts.to_dict() == {"pets": 1, "zoo": 2}


def test_without_mistakes_there_is_a_header() -> None:
    for models in ([], [answers("a", [0, 0], [1, 2])]):
        table = mistake_table(models)
        assert table.empty
        assert tuple(table.columns) == MISTAKE_COLUMNS


def test_scores_that_are_no_numbers_have_no_certainty() -> None:
    assert np.isnan(certainties(np.array([[0.1, np.nan], [0.2, 0.3]]))).all()
    table = mistake_table([answers("a", [1, 0], [np.nan, 1.0])])
    assert table["id"].tolist() == ["0.jpg"]
    assert table["certainty"].isna().all()


def test_a_class_that_was_not_trained_has_the_lowest_score() -> None:
    scores = np.array([[0.5, 0.4, -np.inf], [0.5, 0.1, -np.inf]])
    assert certainties(scores).tolist() == [0.5, 1.0]


@pytest.mark.parametrize("image_id", ["../../etc/passwd", "a" * 300, "نملة/🐜.jpg", "a\nb"])
def test_a_thumbnail_stays_in_its_folder_whatever_the_id(image_id: str, tmp_path: Path) -> None:
    path = thumbnail_path(tmp_path, "pets", image_id)
    assert path.parent == tmp_path / "thumbnails"
    assert path.name.isascii()
    assert path != thumbnail_path(tmp_path, "zoo", image_id)
