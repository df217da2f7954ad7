from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from featbench.backbones.describe import describe_layers
from featbench.backbones.expand import expand_layers
from featbench.backbones.layers import feature_network
from featbench.backbones.tracing import trace
from featbench.errors import UsageError, WeightsError
from tests.families import FAMILIES, build, features, hooked, images


def test_every_family_of_torchvision_is_in_the_table() -> None:
    def family(name: str) -> str:
        return models.get_model_builder(name).__module__

    assert {family(name) for name in FAMILIES} == {family(name) for name in models.list_models(module=models)}


@pytest.mark.parametrize("name", FAMILIES)
def test_penultimate_is_what_goes_into_the_classifier(name: str) -> None:
    head, size_px = FAMILIES[name]
    network, batch = build(name), images(size_px)
    expected = hooked(network, head, batch, before=True)
    if expected.ndim == 4:  # SqueezeNet's classifier is a convolution
        expected = expected.mean((2, 3))
    buffers = {key: tensor.clone() for key, tensor in network.named_buffers()}

    traced = trace(network)
    found = feature_network(traced, ["penultimate"], "avg", (3, size_px, size_px))
    with torch.inference_mode():
        (got,) = found.module(batch)

    assert traced.head_name == head
    assert expected.std() > 0
    scale = float(expected.abs().max())
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * scale)
    assert not network.training
    for key, tensor in network.named_buffers():
        assert torch.equal(tensor, buffers[key]), key


MAP, CHANNELS_LAST, TOKENS = (2, 3), (1, 2), (1,)


@pytest.mark.parametrize(
    ("name", "layer", "axes"),
    [
        ("resnet18", "layer2", MAP),
        ("resnet18", "layer2.0", MAP),
        ("squeezenet1_1", "features.5", MAP),
        ("densenet121", "features.denseblock1", MAP),
        ("googlenet", "inception4a", MAP),
        ("mobilenet_v3_small", "features.4", MAP),
        ("shufflenet_v2_x0_5", "stage3", MAP),
        ("swin_t", "features.3", CHANNELS_LAST),
        ("vit_b_16", "encoder.layers.encoder_layer_1", TOKENS),
    ],
)
def test_layers_by_module_path_are_the_modules_output(name: str, layer: str, axes: tuple[int, ...]) -> None:
    network, batch = build(name), images(32 if name == "vit_b_16" else 64)
    expected = hooked(network, layer, batch).mean(axes)
    (got,) = features(network, [layer], batch)
    assert expected.std() > 0
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "bn1"),
        ("resnet18", "layer1.0.bn1"),
        ("squeezenet1_1", "features.0"),
        ("mobilenet_v3_small", "features.0.1"),
    ],
)
@pytest.mark.parametrize("pooling", ["avg", "flatten"])
def test_in_place_activations_do_not_change_the_layer_before(name: str, layer: str, pooling: str) -> None:
    network, batch = build(name), images(32)
    separate = copy.deepcopy(network)
    for module in separate.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    output = hooked(separate, layer, batch)
    expected = output.mean((2, 3)) if pooling == "avg" else output.flatten(1)
    assert output.min() < 0  # what the activation would have made zero
    got, _ = features(network, [layer, "penultimate"], batch, pooling)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_several_layers_in_one_pass_are_the_single_ones_in_the_order_asked_for() -> None:
    network, batch = build("resnet18"), images(64)
    layers = ["penultimate", "layer1", "layer3", "bn1"]
    for layer, got in zip(layers, features(network, layers, batch), strict=True):
        assert torch.equal(got, features(network, [layer], batch)[0])


def test_two_names_of_one_layer_are_equal() -> None:
    network, batch = build("resnet18"), images(64)
    one, other = features(network, ["layer4", "layer4.1"], batch)
    assert torch.equal(one, other)


def test_widths_are_those_of_the_features() -> None:
    found = feature_network(trace(build("resnet18")), ["layer1", "layer4"], "avg:2", (3, 64, 64))
    assert (found.layers, found.widths) == (("layer1", "layer4"), (64 * 4, 512 * 4))


def test_modules_behind_the_deepest_layer_never_run() -> None:
    network, batch = build("resnet18"), images(64)
    found = feature_network(trace(network), ["layer1", "layer2"], "avg", (3, 64, 64))
    ran: set[str] = set()

    def note(name: str) -> Callable[..., None]:
        return lambda *_: ran.add(name.split(".")[0])

    for name, module in network.named_modules():
        if not list(module.children()):
            module.register_forward_hook(note(name))
    found.module(batch)
    assert ran == {"conv1", "bn1", "relu", "maxpool", "layer1", "layer2"}
    kept = {key.split(".")[0] for key in found.module.state_dict()}
    assert kept == {"conv1", "bn1", "layer1", "layer2"}


def test_networks_are_put_in_eval_mode_and_batch_norm_learns_nothing() -> None:
    network = build("mobilenet_v2").train()
    before = copy.deepcopy(network.state_dict())
    features(network, ["penultimate"], images(64) * 10 + 3)
    assert not any(module.training for module in network.modules())
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[key]), key


@pytest.fixture(scope="module")
def squeezenet() -> nn.Module:
    return build("squeezenet1_1")


def test_a_layer_without_its_head_is_refused_and_others_are_not(squeezenet: nn.Module) -> None:
    traced = trace(squeezenet)
    with pytest.raises(WeightsError, match=r"layers features\.5, classifier need the head 'classifier\.1'"):
        feature_network(traced, ["features.5", "classifier"], "avg", (3, 64, 64), has_head=False)
    feature_network(traced, ["features.5", "penultimate"], "avg", (3, 64, 64), has_head=False)


@pytest.mark.parametrize(
    ("layer", "close"), [("feature.5", "features.5"), ("penultimat", "penultimate"), ("Features.5", "features.5")]
)
def test_unknown_layers_name_the_nearest(squeezenet: nn.Module, layer: str, close: str) -> None:
    with pytest.raises(UsageError, match=f"unknown layer '{layer}'; did you mean '{close}'.*featbench list layers"):
        features(squeezenet, [layer], images(64))


def test_the_image_is_no_layer(squeezenet: nn.Module) -> None:
    with pytest.raises(UsageError, match="unknown layer 'x'"):
        features(squeezenet, ["x"], images(64))


def test_a_node_without_features_is_refused() -> None:
    with pytest.raises(UsageError, match="layer 'getattr' does not give one tensor an image"):
        features(build("vit_b_16"), ["getattr"], images(32))


@pytest.mark.parametrize(("name", "size_px"), [("squeezenet1_1", 8), ("vit_b_16", 48)])
def test_images_that_a_network_cannot_take_are_refused(name: str, size_px: int) -> None:
    with pytest.raises(UsageError, match=f"cannot take images of {size_px}x{size_px} px"):
        features(build(name), ["penultimate"], images(size_px))


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Flatten()),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten()),
        models.resnet18(norm_layer=nn.Identity),
    ],
)
def test_the_penultimate_layer_of_a_network_without_a_head_is_its_output(network: nn.Module) -> None:
    if isinstance(network, models.ResNet):
        network.fc = nn.Identity()  # its last linear layer is a convolution in a residual block
    assert trace(network).head is None
    with torch.inference_mode():
        expected = network.eval()(images(32))
    assert torch.equal(features(network, ["penultimate"], images(32))[0], expected)


class Views(nn.Module):
    """Reshapes by sizes that are computed, before and behind its head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4 * 6 * 6, 5)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        x = self.conv(x).relu()
        out: Tensor = self.fc(x.view(x.size(0), -1)).view(batch, -1).log_softmax(1)
        return out


def test_sizes_are_no_second_input_of_the_head() -> None:
    traced = trace(Views())
    assert traced.head_name == "fc"
    assert torch.equal(
        features(traced.network, ["penultimate"], images(8))[0], traced.network.conv(images(8)).relu().flatten(1)
    )


class Writes(nn.Module):
    """Changes its activations in place and leaves alone what that returns."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        self.relu(x)
        x.mul_(2)
        nn.functional.relu6(x, inplace=True)
        y = x.mean((2, 3))
        out: Tensor = self.fc(y)
        return out


def test_in_place_operations_whose_result_is_not_used_are_run() -> None:
    network, batch = Writes().eval(), images(8)
    expected = hooked(network, "fc", batch, before=True)
    conv, penultimate = features(network, ["conv", "penultimate"], batch, "flatten")
    torch.testing.assert_close(penultimate, expected)
    torch.testing.assert_close(conv, network.conv(batch).flatten(1))
    assert conv.min() < 0


IN_PLACE = ["alexnet", "densenet121", "efficientnet_b0", "mobilenet_v3_small", "resnet18", "squeezenet1_0"]


@pytest.mark.parametrize("name", IN_PLACE)
def test_every_layer_is_the_same_without_in_place_activations(name: str) -> None:
    network, batch = build(name), images(64 if name == "alexnet" else 32)
    separate = copy.deepcopy(network)
    for module in separate.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    assert any(getattr(module, "inplace", False) for module in network.modules())
    names = [layer.name for layer in describe_layers(trace(network), tuple(batch.shape[1:]), "flatten")]
    got = features(network, names, batch, "flatten")
    for layer, one, other in zip(names, got, features(separate, names, batch, "flatten"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, msg=lambda text, layer=layer: f"{layer}: {text}")


def test_the_class_token_behind_the_last_norm_feeds_the_head() -> None:
    network, batch = build("vit_b_16"), images(32)
    cls, tokens, mean = (features(network, ["encoder.ln"], batch, pooling)[0] for pooling in ("cls", "tokens", "avg"))
    output = hooked(network, "encoder.ln", batch)
    assert torch.equal(cls, hooked(network, "heads.head", batch, before=True))
    torch.testing.assert_close(tokens, output[:, 1:].mean(1))
    torch.testing.assert_close(mean, output.mean(1))
    with pytest.raises(UsageError, match=r"'avg:2' makes no sense for layer 'encoder.ln', whose output is a token seq"):
        features(network, ["encoder.ln"], batch, "avg:2")


@pytest.mark.parametrize("name", ["swin_t", "maxvit_t"])
@pytest.mark.parametrize("pooling", ["avg", "max", "avg:2"])
def test_the_blocks_of_swin_and_maxvit_by_hand(name: str, pooling: str) -> None:
    network, batch = build(name), images(64)
    names = [name for name in expand_layers(trace(network), ["blocks"], (3, 64, 64)) if name != "features.7"]
    for layer, got in zip(names, features(network, names, batch, pooling), strict=True):
        output = hooked(network, layer, batch)
        maps = output.permute(0, 3, 1, 2) if name == "swin_t" else output
        assert maps.shape[2] == maps.shape[3] != maps.shape[1], layer
        half = maps.shape[2] // 2
        quarters = [maps[:, :, i : i + half, j : j + half].mean((2, 3)) for i in (0, half) for j in (0, half)]
        expected = {"avg": maps.mean((2, 3)), "max": maps.amax((2, 3)), "avg:2": torch.stack(quarters, 2).flatten(1)}
        torch.testing.assert_close(got, expected[pooling], rtol=1e-4, atol=1e-5)


def cube(last: bool, grows: bool = True) -> nn.Module:
    """A network whose layer `body` has 8 rows, 8 columns and 8 channels at 16x16 pixels."""

    class Cube(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 8, 2, stride=2)
            self.fc = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            if not grows:
                torch._assert(x.shape[2] == 16, "only 16")
            x = self.body(x)
            x = x.permute(0, 2, 3, 1).mul(1) if last else x
            out: Tensor = self.fc(x.mean((1, 2)) if last else x.mean((2, 3)))
            return out

    return Cube()


@pytest.mark.parametrize("last", [True, False])
def test_as_many_channels_as_rows_and_columns(last: bool) -> None:
    network, batch = cube(last), images(16)
    layer = "mul" if last else "body"
    output = network.body(batch)
    assert output.shape == (2, 8, 8, 8)
    torch.testing.assert_close(features(network, [layer], batch)[0], output.mean((2, 3)))
    torch.testing.assert_close(features(network, [layer], batch, "max")[0], output.amax((2, 3)))


def test_channels_that_cannot_be_told_are_refused() -> None:
    network = cube(last=True, grows=False)
    with pytest.raises(UsageError, match=r"layer 'mul' has as many channels as rows and columns \(8\).* use pooling"):
        features(network, ["mul"], images(16))
    assert features(network, ["mul"], images(16), "flatten")[0].shape == (2, 512)


def test_a_network_that_decides_by_values_is_refused() -> None:
    class Decides(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.mean() > 0 else -x

    with pytest.raises(UsageError, match=r"torch\.fx cannot trace Decides \(.*control flow.*\), and layers are"):
        trace(Decides())


class Masked(nn.Module):
    """A network with a second argument that is None, as timm's Hiera."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.body(x.flatten(1)[:, :4])
        if mask is not None:
            return y * mask.view(1, -1)
        return self.fc(y)


def test_an_argument_that_is_none_is_none_while_tracing() -> None:
    network = Masked()
    traced = trace(network)
    assert traced.head_name == "fc"
    batch = torch.randn(2, 3, 4, 4)
    (got,) = features(network, ["penultimate"], batch)
    torch.testing.assert_close(got, hooked(network, "fc", batch, before=True))
