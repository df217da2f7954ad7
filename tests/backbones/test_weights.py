from __future__ import annotations

from featbench.backbones.own import ResNet20
from featbench.backbones.weights import hash_weights


def test_the_hash_covers_every_tensor() -> None:
    network = ResNet20()
    before = hash_weights(network)
    assert hash_weights(network) == before
    for name, tensor in network.state_dict().items():
        original = tensor.clone()
        tensor.view(-1)[0] += 1
        assert hash_weights(network) != before, name
        tensor.copy_(original)
    assert hash_weights(network) == before
