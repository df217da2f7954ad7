"""featbench: which backbone, which layer, which classifier, or should I fine-tune?

    import featbench

    featbench.run("digits")                                     # the same as `featbench run digits`
    table = featbench.load_results("results/digits")            # results.csv as a DataFrame
    model = featbench.load_model("results/digits")              # the best by validation, for new images
    X, y, ids = featbench.load_features(cache_file, "layer3")   # features of one split

Names load when they are used, so that importing featbench costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["FeatbenchError", "load_features", "load_model", "load_results", "run"]

_HOMES = {
    "FeatbenchError": "featbench.errors",
    "load_features": "featbench.features.cache",
    "load_model": "featbench.predict.model",
    "load_results": "featbench.results.store",
    "run": "featbench.runs.pipeline",
}

if TYPE_CHECKING:
    from featbench.errors import FeatbenchError
    from featbench.features.cache import load_features
    from featbench.predict.model import load_model
    from featbench.results.store import load_results
    from featbench.runs.pipeline import run


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'featbench' has no attribute {name!r}")
