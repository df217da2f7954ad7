"""A kept reference network as an ONNX file, checked by running it in onnxruntime against torch.

The file takes `images`, (batch, C, h, w) float32 in [0, 1], resized and cropped as its metadata says, and gives
`logits` and `probabilities`, (batch, n_classes) float32. Standardisation is inside. The batch may have any size.
"""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import featbench
from featbench.backbones.tracing import PENULTIMATE
from featbench.data.preprocess import Preprocess
from featbench.errors import ResultsError, UsageError
from featbench.predict.choose import choose_model
from featbench.predict.from_card import card_preprocess, read_head, read_tensors, trained_backbone, trained_network
from featbench.results.cards import Card, read_card
from featbench.results.files import replacing
from featbench.results.store import load_results
from featbench.stats.accuracy import best_by_validation
from featbench.stats.models import main_rows, model_names

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_CHECKED_BATCHES = (1, 3)
RTOL, ATOL = 1e-3, 1e-4  # sums in another order; a wrong operator is far beyond


@dataclass(frozen=True)
class Exported:
    """The file that was written, and how far the two runtimes are apart.

    Attributes:
        path: The file.
        name: The model's name.
        difference: The largest of a logit between onnxruntime and torch.
        logit: What torch gives there.
        share: Of the tolerance, `rtol` x |number| + `atol`, that any logit or probability uses up at most, in [0, 1].
    """

    path: Path
    name: str
    difference: float
    logit: float
    share: float


def export_onnx(
    results: str | Path,
    model: str | None = None,
    output: str | Path | None = None,
    *,
    offline: bool = False,
    trust: Sequence[str] = (),
    rtol: float = RTOL,
    atol: float = ATOL,
) -> Exported:
    """Write a reference network as ONNX; the file appears under its name only when it was checked.

    Args:
        results: The results folder.
        model: A name, as in "finetune/resnet18", or a fingerprint; None takes the reference network with the highest
            validation accuracy.
        output: The file to write; else beside the network in models/.
        offline: Forbid downloads of the backbone's weights, which a `linear_head` needs.
        trust: As `load_model` takes it.
        rtol: How far onnxruntime's numbers may be from torch's: `rtol` x |number| + `atol`.
        atol: See `rtol`.

    Raises:
        UsageError: There is no such network, it is a classifier, it is of code that is not in `trust`, or the extra
            `onnx` is not installed.
        ResultsError: The network or its card is damaged, torch cannot convert it, onnxruntime gives other numbers, or
            the file cannot be written.
        WeightsError: The backbone's weights are missing, or are not those of the training.
    """
    _check_installed()
    folder = Path(results)
    rows = main_rows(load_results(folder))
    networks = rows[rows["kind"] == "baseline"]
    fingerprint, name = choose_model(folder, model or _best_reference(folder, networks))
    card, file = read_card(folder, fingerprint, trust)
    if card.kind != "baseline":
        names = ", ".join(model_names(networks).values()) or "there is none here"
        raise UsageError(f"{name} is a classifier on features; only reference networks are exported: {names}")
    preprocess = card_preprocess(card)
    shape = preprocess.photo_shape
    network = _Deployed(_network(folder, card, file, shape, offline=offline), preprocess).eval()
    path = file.with_suffix(".onnx") if output is None else Path(output)
    try:
        content = _convert(network, shape, _metadata(card, name, preprocess))
    except torch.onnx.OnnxExporterError as error:
        cause = str(error.__cause__ or error).partition("\n")[0]
        raise ResultsError(f"torch cannot convert {name} to ONNX: {cause}") from error
    with replacing(path) as temporary:
        temporary.write_bytes(content)
        apart = _compare(temporary, network, shape, name, rtol, atol)
    return Exported(path, name, *apart)


class _Deployed(nn.Module):
    """A network with its standardisation before and its softmax behind it."""

    def __init__(self, network: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.network = network
        self.mean = nn.Buffer(torch.tensor(preprocess.mean).view(-1, 1, 1))
        self.std = nn.Buffer(torch.tensor(preprocess.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network((images - self.mean) / self.std)
        return logits, logits.softmax(1)


class _WithHead(nn.Module):
    """What a `linear_head` is: a head on the frozen body."""

    def __init__(self, body: nn.Module, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.body, self.weight, self.bias = body, nn.Buffer(weight), nn.Buffer(bias)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.linear(self.body(images)[0], self.weight, self.bias)


def _network(folder: Path, card: Card, file: Path, shape: tuple[int, int, int], *, offline: bool) -> nn.Module:
    if card.weights_hash is None:
        return trained_network(card, read_tensors(file), file)
    body = trained_backbone(folder, card, offline=offline).features([PENULTIMATE], "avg", shape)
    return _WithHead(body.module, *read_head(file, len(card.classes), body.widths[0]))


def _best_reference(folder: Path, networks: pd.DataFrame) -> str:
    if networks.empty:
        raise UsageError(f"{folder} has no reference network to export; add [[baselines]] to the experiment and run it")
    best = best_by_validation(networks)
    if best is None:
        raise UsageError(f"no reference network of {folder} has a validation accuracy; name one with --model")
    return str(best["fingerprint"])


def _check_installed() -> None:
    try:
        with _quiet():
            for package in _NEEDED:
                importlib.import_module(package)
    except ImportError as error:
        raise UsageError(f"export needs {error.name}, which is not installed; pip install featbench[onnx]") from error


def _metadata(card: Card, name: str, preprocess: Preprocess) -> dict[str, str]:
    channels = "RGB" if preprocess.channels == 3 else "grey"
    how = (
        f"Resize the shorter side to {preprocess.resize_px} px ({preprocess.interpolation}, antialiased), cut out the "
        f"centre {preprocess.crop_px}x{preprocess.crop_px} px, {channels}, scale to [0, 1]; standardisation is inside"
    )
    return {
        "featbench_version": featbench.__version__,
        "model": name,
        "fingerprint": card.fingerprint,
        "classes": json.dumps(list(card.classes), ensure_ascii=False),
        "preprocessing": how,
        "preprocess": json.dumps(preprocess.content()),
    }


def _convert(network: nn.Module, shape: tuple[int, int, int], metadata: dict[str, str]) -> bytes:
    import onnx

    batch = torch.export.Dim("batch")
    with _quiet():
        program = torch.onnx.export(
            network,
            (torch.zeros(2, *shape),),
            dynamo=True,
            input_names=["images"],
            output_names=["logits", "probabilities"],
            dynamic_shapes={"images": {0: batch}},
            verbose=False,
        )
    assert program is not None  # it is so without a file to write
    proto = program.model_proto
    onnx.helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto, full_check=True)
    content: bytes = proto.SerializeToString()
    return content


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's messages: its output is checked."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _compare(
    file: Path, network: nn.Module, shape: tuple[int, int, int], name: str, rtol: float, atol: float
) -> tuple[float, float, float]:
    """Run the file and the network on the same noise.

    Returns:
        `difference`, `logit` and `share` of `Exported`.

    Raises:
        ResultsError: The file gives other numbers.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    difference, logit, share = 0.0, 0.0, 0.0
    for count in _CHECKED_BATCHES:
        images = torch.rand(count, *shape, generator=generator)
        with torch.inference_mode():
            expected = [output.numpy() for output in network(images)]
        given: list[Any] = session.run(None, {"images": images.numpy()})
        for what, ours, theirs in zip(("logit", "probability"), expected, given, strict=True):
            apart = np.abs(theirs - ours)
            parts = apart / (rtol * np.abs(ours) + atol)
            worst = np.unravel_index(parts.argmax(), parts.shape)
            if not parts[worst] <= 1:  # NaN is not, either
                raise ResultsError(
                    f"onnxruntime gives other numbers than torch for {name}: a {what} of {ours[worst]:.6g} is "
                    f"{theirs[worst]:.6g}, and may differ by {rtol:g} x |{what}| + {atol:g}; nothing was written, and "
                    "another version of onnxruntime or onnxscript may help"
                )
            share = max(share, float(parts[worst]))
            if what == "logit" and apart.max() >= difference:
                difference, logit = float(apart.max()), float(ours[np.unravel_index(apart.argmax(), apart.shape)])
    return difference, logit, share
