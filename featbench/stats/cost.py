"""What models cost, as it was measured: seconds in all, and test images a second."""

from __future__ import annotations

import pandas as pd


def total_seconds(models: pd.DataFrame) -> pd.Series:
    """Return the seconds from images to test predictions: extraction, selection and fit, test.

    A reference network extracts no features. NaN where a part was not measured.
    """
    return _extraction_seconds(models) + models["fit_s"] + models["predict_s"]


def images_per_second(models: pd.DataFrame) -> pd.Series:
    """Return test images a second from image to prediction; NaN where that was not measured.

    An image of a classifier costs its share of the extraction, which ran over training and test images alike.
    """
    n_test = models["n_test"].astype("float64")
    n_extracted = models["n_train"].astype("float64") + n_test
    seconds = _extraction_seconds(models) / n_extracted + models["predict_s"] / n_test
    return 1.0 / seconds.where(seconds > 0)


def _extraction_seconds(models: pd.DataFrame) -> pd.Series:
    return models["extract_s"].mask(models["kind"] == "baseline", 0.0)
