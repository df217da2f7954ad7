"""featbench: which backbone, which layer, which classifier, or should I fine-tune?

    import featbench

    featbench.run("digits")                                  # the same as `featbench run digits`
    table = featbench.load_results("results/digits")         # results.csv as a DataFrame
    X, y, ids = featbench.load_features("results/digits", layer="layer3", split="test")
    model = featbench.load_model("results/digits")           # the best by validation, for new images
    extractor = featbench.FeatureExtractor("resnet18")       # a transformer of scikit-learn's, from images to features
    svc = featbench.solvers.PrimalLinearSVC()                # a solver as a scikit-learn estimator

Names load when they are used, so that importing featbench costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Experiment", "FeatbenchError", "FeatureExtractor", "load_features", "load_model", "load_results", "run"]

_MODULES = {
    "Experiment": "featbench.config",
    "FeatbenchError": "featbench.errors",
    "FeatureExtractor": "featbench.features.extractor",
    "load_features": "featbench.features.load",
    "load_model": "featbench.predict.model",
    "load_results": "featbench.results.store",
    "run": "featbench.runs.pipeline",
}

if TYPE_CHECKING:
    from featbench import solvers as solvers
    from featbench.config import Experiment
    from featbench.errors import FeatbenchError
    from featbench.features.extractor import FeatureExtractor
    from featbench.features.load import load_features
    from featbench.predict.model import load_model
    from featbench.results.store import load_results
    from featbench.runs.pipeline import run


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    if name == "solvers":
        return import_module("featbench.solvers")
    raise AttributeError(f"module 'featbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "solvers"])
