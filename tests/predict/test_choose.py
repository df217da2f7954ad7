from __future__ import annotations

from pathlib import Path

import pytest

from featbench.errors import ResultsError, UsageError
from featbench.predict.choose import choose_model, list_models
from tests.predict.conftest import Kept


def test_the_best_by_validation_is_the_default(digits: Kept) -> None:
    classifiers = digits.rows[digits.rows.kind == "classifier"]
    fingerprint, name = choose_model(digits.folder, None)
    row = classifiers.loc[classifiers.val_accuracy.idxmax()]
    assert (fingerprint, name) == (row.fingerprint, f"{row.method}/{row.backbone}/{row.layer}")


@pytest.mark.parametrize("all_classifiers", [False, True])
def test_a_model_that_never_predicts_a_class_is_not_the_default(
    digits: Kept, tmp_path: Path, all_classifiers: bool
) -> None:
    rows = digits.rows.assign(never_predicted=0)
    classifiers = rows[rows.kind == "classifier"]
    best = classifiers.val_accuracy.idxmax()
    marked = classifiers.index if all_classifiers else [best]
    rows.loc[marked, "never_predicted"] = 1
    rows.to_csv(tmp_path / "results.csv", index=False)
    others = (rows[rows.kind == "baseline"] if all_classifiers else classifiers.drop(best)).val_accuracy
    fingerprint, _ = choose_model(tmp_path, None)
    assert fingerprint == rows.fingerprint[others.idxmax()]
    listed = list_models(tmp_path)
    assert [model.fingerprint for model in listed if model.is_best] == [fingerprint]
    assert [model.never_predicts for model in listed] == rows.never_predicted.eq(1).tolist()


def test_a_model_goes_by_its_name_or_its_fingerprint(digits: Kept) -> None:
    for row in digits.rows.itertuples():
        name = "/".join(part for part in (row.method, row.backbone, row.layer) if isinstance(part, str))
        for wanted in (name, row.fingerprint, row.fingerprint[:6]):
            assert choose_model(digits.folder, wanted) == (row.fingerprint, name)


@pytest.mark.parametrize("wanted", ["linear_svm/resnet20/layer3", "linear_svc/resnet20/layer33"])
def test_another_name_is_refused_with_the_nearest(digits: Kept, wanted: str) -> None:
    with pytest.raises(
        UsageError, match=f"unknown --model '{wanted}'; did you mean 'linear_svc/resnet20/layer3'"
    ) as raised:
        choose_model(digits.folder, wanted)
    assert f"`featbench list models {digits.folder}` prints the valid names" in str(raised.value)


def test_the_models_are_listed_by_the_names_that_choose_them(digits: Kept, tmp_path: Path) -> None:
    listed = list_models(digits.folder)
    assert [choose_model(digits.folder, model.name)[0] for model in listed] == digits.rows.fingerprint.tolist()
    assert [model.fingerprint for model in listed if model.is_best] == [choose_model(digits.folder, None)[0]]
    assert [model.accuracy for model in listed] == digits.rows.accuracy.tolist()
    assert all(model.is_kept for model in listed)
    folder = digits.copy(tmp_path)
    next((folder / "models").glob(f"*-{listed[1].fingerprint}.json")).unlink()
    assert [model.is_kept for model in list_models(folder)] == [n != 1 for n in range(len(listed))]


def test_an_empty_name_names_no_fingerprint(digits: Kept) -> None:
    with pytest.raises(UsageError, match="unknown --model ''"):
        choose_model(digits.folder, "")


def test_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"no results\.csv at .*featbench run"):
        choose_model(tmp_path, None)


def _of_many_sets(text: str) -> str:
    header, *lines = text.splitlines()
    place = header.split(",").index("dataset")
    return "\n".join(
        [
            header,
            *(
                ",".join([*line.split(",")[:place], f"set{n}", *line.split(",")[place + 1 :]])
                for n, line in enumerate(lines)
            ),
        ]
    )


def test_several_data_sets_have_no_best_model(digits: Kept, tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(_of_many_sets((digits.folder / "results.csv").read_text()))
    with pytest.raises(
        UsageError, match=r"best of several data sets \(set0, .*name one with --model \(`featbench list models "
    ):
        choose_model(tmp_path, None)
    assert not any(model.is_best for model in list_models(tmp_path))
