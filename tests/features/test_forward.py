from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from featbench.backbones.layers import feature_network
from featbench.backbones.load import load_backbone
from featbench.backbones.tracing import trace
from featbench.config import BackboneConfig
from featbench.features.forward import Forward, Outputs, best_precision
from tests.tiny import Recorder

CPU = torch.device("cpu")
SHAPE = (3, 32, 32)
LAYERS = ("layer1", "penultimate")
IMAGES = torch.randint(0, 256, (10, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def make(precision: Any = "float32", progress: Recorder | None = None, **options: Any) -> Forward:
    backbone = load_backbone(BackboneConfig(name="resnet20", weights="random"), seed=0)
    return Forward(
        backbone.features(LAYERS, "avg", SHAPE),
        backbone.preprocess,
        device=CPU,
        precision=precision,
        batch_size=4,
        image_shape=SHAPE,
        n_images=len(IMAGES),
        progress=progress or Recorder(),
        **options,
    )


def run(forward: Forward) -> Outputs:
    batches = [forward.start(images)() for images in torch.split(IMAGES, 4)]
    return {layer: np.concatenate([batch[layer] for batch in batches]) for layer in LAYERS}


def assert_close(rough: Outputs, exact: Outputs) -> None:
    for layer in LAYERS:
        assert rough[layer].dtype == np.float32
        assert rough[layer].shape == exact[layer].shape
        assert not np.array_equal(rough[layer], exact[layer])
        assert np.abs(rough[layer] - exact[layer]).max() < 0.02 * np.abs(exact[layer]).max()


def test_an_empty_batch_gives_no_rows() -> None:
    outputs = make().start(IMAGES[:0])()
    assert {layer: rows.shape for layer, rows in outputs.items()} == {"layer1": (0, 16), "penultimate": (0, 64)}


def test_bfloat16_is_close_to_float32() -> None:
    assert_close(run(make("bfloat16")), run(make()))


def test_a_long_run_in_bfloat16_is_compiled_once_and_gives_the_same() -> None:
    progress = Recorder()
    compiled = make("bfloat16", progress, compiled_from_flops=1)
    assert progress.warned == []
    assert compiled.compiled
    with torch.compiler.set_stance("fail_on_recompile"):
        outputs = run(compiled)  # the last batch is short
        compiled.start(IMAGES[:4].contiguous(memory_format=torch.channels_last))  # as decoded images are
    assert_close(outputs, run(make()))


@pytest.mark.slow
def test_a_second_network_leaves_the_first_compiled() -> None:
    both = [make("bfloat16", compiled_from_flops=1, forget=forget) for forget in (True, False)]
    with torch.compiler.set_stance("fail_on_recompile"):
        for forward in both:
            run(forward)


def test_float32_is_never_compiled() -> None:
    assert not make("float32", compiled_from_flops=1).compiled


def test_a_short_run_is_not_compiled() -> None:
    assert not make("bfloat16").compiled


def test_without_a_compiler_it_goes_on_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        def call(_: Any) -> Any:
            raise RuntimeError("No working C++ compiler found\nand more")

        return call

    monkeypatch.setattr(torch, "compile", fail)
    progress = Recorder()
    forward = make("bfloat16", progress, compiled_from_flops=1)
    assert progress.warned == [
        "going on without torch.compile, which fails here: RuntimeError: No working C++ compiler found"
    ]
    assert_close(run(forward), run(make()))


def test_the_best_precision_is_what_the_processor_has() -> None:
    flags = Path("/proc/cpuinfo").read_text()
    assert best_precision(CPU) == ("bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32")


def test_a_network_with_masks_of_five_dimensions() -> None:
    config = BackboneConfig(name="timm:swin_tiny_patch4_window7_224", weights="random", image_size=112)
    backbone = load_backbone(config, seed=0)
    images = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8)
    with torch.inference_mode():
        expected = backbone.network.forward_features(backbone.preprocess.normalise(images)).mean((1, 2))  # (B, H, W, C)
    forward = Forward(
        backbone.features(("layers.3", "penultimate"), "avg", (3, 112, 112)),
        backbone.preprocess,
        device=CPU,
        precision="float32",
        batch_size=2,
        image_shape=(3, 112, 112),
        n_images=2,
        progress=Recorder(),
    )
    np.testing.assert_allclose(forward.start(images)()["penultimate"], expected.numpy(), rtol=1e-3, atol=1e-4)


class WithEinsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(64, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        y = self.conv(images).float()
        return self.fc(torch.einsum("bchw,bdhw->bcd", y, self.conv(images)).flatten(1))


def test_a_network_with_an_einsum_of_two_precisions_runs_in_bfloat16() -> None:
    torch.manual_seed(0)
    network = WithEinsum().eval()
    preprocess = load_backbone(BackboneConfig(name="resnet20", weights="random"), seed=0).preprocess

    def outputs(precision: Any) -> Any:
        forward = Forward(
            feature_network(trace(network), ["penultimate"], "avg", SHAPE),
            preprocess,
            device=CPU,
            precision=precision,
            batch_size=4,
            image_shape=SHAPE,
            n_images=4,
            progress=Recorder(),
        )
        return forward.start(IMAGES[:4])()["penultimate"]

    rough, exact = outputs("bfloat16"), outputs("float32")
    assert np.linalg.norm(rough - exact) < 0.05 * np.linalg.norm(exact)
