"""An exponential moving average of the weights, scored and kept in place of the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Averaged:
    """The average of a network's state (weights and batch-norm statistics; whole numbers are taken over).

    After step t the average moves by `1 - min(decay, (1 + t) / (10 + t))` of the difference, as TensorFlow's
    ExponentialMovingAverage does: with a constant decay a short training would keep much of its first weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = network
        self.decay = decay
        self.steps = 0
        self.state = _copy(network)

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the weights after a step."""
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, tensor in self.network.state_dict().items():
            if tensor.is_floating_point():
                self.state[name].lerp_(tensor, weight)
            else:
                self.state[name].copy_(tensor)

    def restore(self, state: dict[str, Tensor], steps: int) -> None:
        """Restore the average from a checkpoint."""
        self.steps = steps
        for name, tensor in state.items():
            self.state[name].copy_(tensor)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averaged weights into the network within the context."""
        own = _copy(self.network)
        self.network.load_state_dict(self.state)
        try:
            yield
        finally:
            self.network.load_state_dict(own)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
