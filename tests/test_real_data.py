"""What the README promises of real data: the default experiment, and the shared photos and digits where present."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import featbench
from featbench.backbones.load import load_backbone
from featbench.config import BackboneConfig
from featbench.stats.accuracy import best_by_validation


def test_digits_features_beat_the_pixels(tmp_path: Path) -> None:
    only_svc = ['evaluate.classifiers=["linear_svc"]', "baselines=[]"]
    rows = featbench.run("digits", results=tmp_path / "results", cache=tmp_path / "cache", overrides=only_svc)
    best = best_by_validation(rows[rows["backbone"] != "pixels"])
    assert best is not None
    pixels = rows[rows["backbone"] == "pixels"].iloc[0]
    assert best["accuracy"] >= 0.985
    assert best["accuracy"] > pixels["accuracy"]


def test_hymenoptera_tells_pretrained_from_random_weights(shared_dir: Path, tmp_path: Path) -> None:
    weights = shared_dir / "weights" / "squeezenet1_1-imagenet-features.safetensors"
    experiment = tmp_path / "hymenoptera.toml"
    experiment.write_text(
        f"""
        name = "hymenoptera"
        dataset = {{ name = "folder", root = "{shared_dir / "data" / "hymenoptera"}" }}
        [[backbones]]
        name = "squeezenet1_1"
        weights = "{weights}"
        [[backbones]]
        name = "squeezenet1_1"
        weights = "random"
        """
    )
    rows = featbench.run(experiment, results=tmp_path / "results", cache=tmp_path / "cache")
    by_weights = rows.pivot_table("accuracy", "method", "weights")
    assert set(rows["n_train"]) == {245}
    assert set(rows["n_test"]) == {153}
    assert (by_weights[weights.name] >= 0.86).all(), by_weights
    assert (by_weights["random"] < 0.75).all(), by_weights
    skipped = pd.read_csv(tmp_path / "results" / "skipped.csv")
    assert list(skipped["id"]) == []


@pytest.mark.slow
def test_mnist_in_one_command(shared_dir: Path, tmp_path: Path) -> None:
    data = shared_dir / "data" / "torchvision"
    rows = featbench.run("mnist", results=tmp_path / "results", cache=tmp_path / "cache", data=data, offline=True)
    assert set(rows["n_train"]) == {10_000}
    assert set(rows["n_test"]) == {10_000}
    assert set(rows["method"]) == {"linear_svc", "svm_rbf", "random_forest"}
    assert (rows["accuracy"] >= 0.97).all()


def cifar10_test_images(archive: Path, a_class: int) -> tuple[torch.Tensor, np.ndarray]:
    """Read the first test images of each class: (N, 32, 32, 3) uint8, labels by the sorted class names."""
    found: dict[str, list[np.ndarray]] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts
            if member.isfile() and "test" in parts and len(found.setdefault(parts[-2], [])) < a_class:
                file = tar.extractfile(member)
                assert file is not None
                found[parts[-2]].append(np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB")))
    pixels = [image for name in sorted(found) for image in found[name]]
    labels = [label for label, name in enumerate(sorted(found)) for _ in found[name]]
    return torch.from_numpy(np.stack(pixels)), np.asarray(labels)


@pytest.mark.slow
def test_bundled_weights_reach_the_accuracy_of_their_card(shared_dir: Path) -> None:
    pixels, labels = cifar10_test_images(shared_dir / "data" / "cifar10-images.tar.xz", 1_000)
    network = load_backbone(BackboneConfig(name="resnet20_cifar10"), seed=0).network
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    with torch.inference_mode():
        images = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)
        predicted = torch.cat([network(batch).argmax(1) for batch in images.split(500)]).numpy()
    assert len(labels) == 10_000
    assert (predicted == labels).mean() >= 0.90
