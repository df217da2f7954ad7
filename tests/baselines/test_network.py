from __future__ import annotations

import pytest
import torch
from torch import nn

from featbench.backbones.architectures import get_architecture
from featbench.backbones.tracing import Traced, trace
from featbench.baselines.network import with_new_head
from featbench.errors import UsageError


def traced(name: str) -> Traced:
    return trace(get_architecture(name).make(224))


@pytest.mark.parametrize(
    ("name", "head", "kind", "width", "size_px"),
    [
        ("resnet20", "fc", nn.Linear, 64, 32),
        ("squeezenet1_1", "classifier.1", nn.Conv2d, 512, 64),
        ("googlenet", "fc", nn.Linear, 1024, 64),
        ("vit_b_32", "heads.head", nn.Linear, 768, 224),
    ],
)
def test_a_new_head_for_other_classes(name: str, head: str, kind: type, width: int, size_px: int) -> None:
    trainable = with_new_head(traced(name), 3, dropout=0.0, seed=0, freeze_until=None)
    new = trainable.network.get_submodule(head)
    assert trainable.head == head
    assert isinstance(new, kind)
    assert new.weight.shape[:2] == (3, width)
    assert not any(part.startswith("aux") for part, _ in trainable.network.named_modules())
    assert all(parameter.requires_grad for parameter in trainable.network.parameters())
    learning = len(trainable.head_parameters()) + len(trainable.body_parameters())
    assert learning == len(list(trainable.network.parameters()))
    for training in (True, False):
        logits = trainable.network.train(training)(torch.rand(2, 3, size_px, size_px))
        assert logits.shape == (2, 3)


def test_the_seed_draws_the_head_and_nothing_else() -> None:
    network = traced("resnet20")
    state = torch.get_rng_state()
    one = with_new_head(network, 3, dropout=0.0, seed=1, freeze_until=None).network.get_parameter("fc.weight")
    assert torch.equal(torch.get_rng_state(), state)
    again = with_new_head(network, 3, dropout=0.0, seed=1, freeze_until=None).network.get_parameter("fc.weight")
    other = with_new_head(network, 3, dropout=0.0, seed=2, freeze_until=None).network.get_parameter("fc.weight")
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_dropout_stands_before_the_head() -> None:
    network = with_new_head(traced("resnet20"), 3, dropout=0.25, seed=0, freeze_until=None).network
    head = network.get_submodule("fc")
    nn.init.ones_(network.get_parameter("fc.weight"))
    nn.init.zeros_(network.get_parameter("fc.bias"))
    sums = head.train()(torch.ones(100, 64)).detach()
    kept = sums * 0.75  # dropout scales what it keeps
    torch.testing.assert_close(kept, kept.round())
    assert 44 < kept.mean() < 52  # 48 of 64 on average, with a deviation of 3.5 a row
    assert kept.unique().numel() > 3
    assert torch.equal(head.eval()(torch.ones(2, 64)), torch.full((2, 3), 64.0))


def test_dropout_leaves_the_names_of_the_tensors_alone() -> None:
    names = with_new_head(traced("resnet20"), 3, dropout=0.5, seed=0, freeze_until=None).network.state_dict().keys()
    assert names == get_architecture("resnet20").make(32).state_dict().keys()


def test_everything_until_a_layer_is_frozen() -> None:
    trainable = with_new_head(traced("resnet20"), 3, dropout=0.0, seed=0, freeze_until="layer2")
    learning = {name.split(".")[0] for name, p in trainable.network.named_parameters() if p.requires_grad}
    still = {name.split(".")[0] for name, p in trainable.network.named_parameters() if not p.requires_grad}
    assert learning == {"layer3", "fc"}
    assert still == {"conv1", "bn1", "layer1", "layer2"}
    assert {name.split(".")[0] for name in trainable.frozen} >= still


def test_tokens_and_position_embedding_are_frozen_with_the_encoder_of_a_vit() -> None:
    trainable = with_new_head(
        traced("vit_b_32"), 3, dropout=0.0, seed=0, freeze_until="encoder.layers.encoder_layer_10"
    )
    learning = {name for name, p in trainable.network.named_parameters() if p.requires_grad}
    assert {"class_token", "encoder.pos_embedding", "conv_proj.weight"}.isdisjoint(learning)
    assert {name.rsplit(".", 1)[0].split(".")[0] for name in learning} == {"encoder", "heads"}
    assert any("encoder_layer_11" in name for name in learning)
    assert not any("encoder_layer_10" in name for name in learning)


def test_an_unknown_layer_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'layer2'"):
        with_new_head(traced("resnet20"), 3, dropout=0.0, seed=0, freeze_until="layr2")


def test_freezing_the_head_too_is_refused() -> None:
    with pytest.raises(UsageError, match="freezes the head 'fc' too"):
        with_new_head(traced("resnet20"), 3, dropout=0.0, seed=0, freeze_until="fc")


def test_a_network_without_a_linear_layer_is_refused() -> None:
    class Sums(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.sum((2, 3))

    with pytest.raises(UsageError, match="does not end with a linear layer"):
        with_new_head(trace(Sums()), 3, dropout=0.0, seed=0, freeze_until=None)
