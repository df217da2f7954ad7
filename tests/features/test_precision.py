"""Features in bfloat16 are as good as those in float32."""

from __future__ import annotations

from pathlib import Path

import pytest

import featbench
from featbench.stats.metrics import wilson_interval


@pytest.mark.parametrize("layer", ["layer1", "layer3"])
def test_accuracies_on_bfloat16_features_lie_within_the_interval_of_those_on_float32(
    tmp_path: Path, layer: str
) -> None:
    accuracies = {}
    for precision in ("float32", "bfloat16"):
        rows = featbench.run(
            "digits",
            results=tmp_path / precision,
            cache=tmp_path / "cache",
            overrides=[
                'backbones=[{name="resnet20_cifar10"}]',
                f"backbones.0.layers=['{layer}']",
                "backbones.0.pooling=avg:4",
                f"backbones.0.precision={precision}",
                "evaluate.classifiers=['linear_svc']",
                "evaluate.grids.linear_svc.C=[1e-4, 1e-3]",
                "baselines=[]",
            ],
            stages=("extract", "evaluate"),
        )
        assert rows.precision.tolist() == [precision]
        accuracies[precision] = rows.accuracy.iloc[0]
        n_test = int(rows.n_test.iloc[0])
    low, high = wilson_interval(round(accuracies["float32"] * n_test), n_test)
    assert low <= accuracies["bfloat16"] <= high
    assert accuracies["float32"] > 0.95
