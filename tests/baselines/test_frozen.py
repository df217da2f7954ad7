from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from featbench.backbones.architectures import get_architecture
from featbench.backbones.tracing import Traced, trace
from featbench.baselines.frozen import computes_the_same, split_after
from featbench.baselines.network import with_new_head


def traced(name: str) -> Traced:
    return trace(get_architecture(name).make(224))


@pytest.mark.parametrize(
    ("name", "layer", "size_px"),
    [
        ("resnet20", "conv1", 32),  # the ReLU behind it works in place
        ("resnet20", "layer2", 32),
        ("squeezenet1_1", "features.8", 64),
        ("densenet121", "features.denseblock2", 64),
        ("mobilenet_v3_small", "features.4.block.0", 64),
    ],
)
def test_the_two_parts_do_what_the_network_does(name: str, layer: str, size_px: int) -> None:
    network = traced(name)
    trainable = with_new_head(network, 3, dropout=0.5, seed=0, freeze_until=layer)
    halves = split_after(network, layer)
    assert halves is not None
    trainable.train(True)
    images = torch.rand(2, 3, size_px, size_px)
    outputs = []
    for run in (trainable.network, lambda inputs: halves.rest(halves.frozen(inputs))):
        torch.manual_seed(1)
        outputs.append(run(images.clone()))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)
    outputs[1].sum().backward()
    learned = {name for name, parameter in trainable.network.named_parameters() if parameter.grad is not None}
    assert learned == {name for name, parameter in trainable.network.named_parameters() if parameter.requires_grad}
    assert computes_the_same(halves, trainable.network, images)


class TwoPaths(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        found = self.first(images)
        found = self.norm(found + self.second(found))
        if self.training:
            found = found * 2
        return self.head(found.mean((2, 3)))


def test_a_cut_that_two_tensors_would_have_to_cross_is_none() -> None:
    assert split_after(trace(TwoPaths()), "second") is None


def test_a_forward_that_does_something_else_in_training_is_seen() -> None:
    network = trace(TwoPaths())
    trainable = with_new_head(network, 2, dropout=0.0, seed=0, freeze_until="first")
    halves = split_after(network, "first")
    assert halves is not None
    images, state = torch.rand(4, 3, 5, 5), torch.get_rng_state()
    statistics = trainable.network.get_buffer("norm.running_mean").clone()
    trainable.train(True)
    assert not computes_the_same(halves, trainable.network, images)
    trainable.train(False)
    assert computes_the_same(halves, trainable.network, images)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(trainable.network.get_buffer("norm.running_mean"), statistics)
