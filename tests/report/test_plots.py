from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featbench.report.plots import write_plots
from tests.report.folders import HOSTILE, MODELS, results_folder
from tests.report.folders import read as read_results

NAMES = {"models", "cost", "layers", "history", "confusion", "mistakes", "map"}


@pytest.mark.parametrize("classes", [("ant", "bee", "cat"), HOSTILE, [f"class {n}" for n in range(200)]], ids=len)
def test_every_figure_is_a_picture_with_something_on_it(tmp_path: Path, classes: list[str]) -> None:
    folder = results_folder(tmp_path, classes=classes, n_test=400)
    written = write_plots(read_results(folder, pytest.fail))
    assert {path.stem for path in written} == NAMES  # there are no learning curves
    for path in written:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L"))
        assert min(pixels.shape) > 200, path
        assert pixels.std() > 5, path


def test_figures_without_data_are_not_left_from_earlier(tmp_path: Path) -> None:
    folder = results_folder(tmp_path, models=MODELS[:1])
    old = folder / "plots" / "history.png"
    old.parent.mkdir()
    old.write_bytes(b"of an earlier run")
    assert "history" not in {path.stem for path in write_plots(read_results(folder, pytest.fail))}
    assert not old.exists()
