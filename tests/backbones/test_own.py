from __future__ import annotations

import torch

from featbench.backbones.own import Pixels, ResNet20, _Block


def test_resnet20_has_the_parameters_of_the_paper() -> None:
    """He et al. 2016, table 6: 0.27M; by arithmetic 3x3 convolutions, 2 numbers a batch-norm channel, a linear head."""
    stem = 3 * 16 * 9 + 2 * 16
    stage1 = 6 * (16 * 16 * 9 + 2 * 16)
    stage2 = 16 * 32 * 9 + 5 * 32 * 32 * 9 + 6 * 2 * 32
    stage3 = 32 * 64 * 9 + 5 * 64 * 64 * 9 + 6 * 2 * 64
    head = 64 * 10 + 10
    assert stem + stage1 + stage2 + stage3 + head == 269_722
    assert sum(parameter.numel() for parameter in ResNet20().parameters()) == 269_722


def test_resnet20_has_20_layers_with_weights() -> None:
    weighted = [m for m in ResNet20().modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(weighted) == 20


def test_resnet20_maps_shrink_and_widen() -> None:
    network = ResNet20().eval()
    shapes = {}
    for name in ("layer1", "layer2", "layer3"):
        network.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: shapes.update({name: tuple(out.shape)})
        )
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert shapes == {"layer1": (2, 16, 32, 32), "layer2": (2, 32, 16, 16), "layer3": (2, 64, 8, 8)}


def test_a_widening_shortcut_takes_every_second_pixel_and_pads_with_zeros() -> None:
    block = _Block(2, 4, 2).eval()
    torch.nn.init.zeros_(block.bn2.weight)  # only the shortcut is left
    x = torch.rand(1, 2, 6, 6)
    with torch.no_grad():
        out = block(x)
    assert out.shape == (1, 4, 3, 3)
    assert torch.equal(out[:, 1:3], x[:, :, ::2, ::2])
    assert not out[:, [0, 3]].any()


def test_pixels_hands_the_image_through() -> None:
    images = torch.rand(2, 3, 4, 5)
    assert torch.equal(Pixels()(images), images.reshape(2, 60))
