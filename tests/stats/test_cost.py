from __future__ import annotations

import numpy as np
import pandas as pd

from featbench.stats.cost import images_per_second, total_seconds

NAN = float("nan")
MODELS = pd.DataFrame(
    [
        ("classifier", 40.0, 5.0, 1.0, 300, 100),
        ("classifier", NAN, 5.0, 1.0, 300, 100),
        ("classifier", 40.0, NAN, 1.0, 300, 100),
        ("classifier", 40.0, 5.0, NAN, 300, 100),
        ("classifier", 0.0, 5.0, 0.0, 300, 100),
        ("baseline", NAN, 50.0, 2.0, 300, 100),
        ("baseline", 40.0, 50.0, 2.0, 300, 100),
    ],
    columns=["kind", "extract_s", "fit_s", "predict_s", "n_train", "n_test"],
)


def test_seconds_in_all() -> None:
    expected = [46.0, NAN, NAN, NAN, 5.0, 52.0, 52.0]
    assert np.array_equal(total_seconds(MODELS), expected, equal_nan=True)


def test_images_a_second() -> None:
    # 40 s for 400 images are 0.1 s each, and 1 s for 100 test images is 0.01 s each
    expected = [1 / 0.11, NAN, 1 / 0.11, NAN, NAN, 50.0, 50.0]
    assert np.allclose(images_per_second(MODELS), expected, equal_nan=True)
