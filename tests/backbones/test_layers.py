from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import swin_transformer

from featbench.backbones.layers import describe_layers, feature_network, trace
from featbench.errors import UsageError, WeightsError

# one small member of every family: the module of its classifier, as its source has it, and an image size it can take
FAMILIES: dict[str, tuple[str, int]] = {
    "alexnet": ("classifier.6", 64),
    "convnext_tiny": ("classifier.2", 64),
    "densenet121": ("classifier", 64),
    "efficientnet_b0": ("classifier.1", 64),
    "googlenet": ("fc", 64),
    "inception_v3": ("fc", 80),
    "maxvit_t": ("classifier.5", 64),
    "mnasnet0_5": ("classifier.1", 64),
    "mobilenet_v2": ("classifier.1", 64),
    "mobilenet_v3_small": ("classifier.3", 64),
    "regnet_x_400mf": ("fc", 64),
    "resnet18": ("fc", 64),
    "shufflenet_v2_x0_5": ("fc", 64),
    "squeezenet1_0": ("classifier.1", 64),
    "swin_t": ("head", 64),
    "swin_v2_t": ("head", 64),
    "vgg11": ("classifier.6", 32),
    "vit_b_16": ("heads.head", 32),
}
# the classes of some families with fewer and narrower layers, and without their own slow way to draw weights
SMALLER: dict[str, Callable[[], nn.Module]] = {
    "googlenet": lambda: models.googlenet(num_classes=5, init_weights=False),
    "inception_v3": lambda: models.inception_v3(num_classes=5, init_weights=False),
    "maxvit_t": lambda: models.MaxVit(
        (64, 64),
        stem_channels=16,
        partition_size=4,
        block_channels=[16, 32],
        block_layers=[1, 1],
        head_dim=8,
        stochastic_depth_prob=0.2,
        num_classes=5,
    ),
    "swin_t": lambda: models.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [7, 7], num_classes=5),
    "swin_v2_t": lambda: models.SwinTransformer(
        [4, 4],
        24,
        [2, 2],
        [2, 4],
        [8, 8],
        num_classes=5,
        block=swin_transformer.SwinTransformerBlockV2,
        downsample_layer=swin_transformer.PatchMergingV2,
    ),
    "vgg11": lambda: models.vgg11(num_classes=5, init_weights=False),
    "vit_b_16": lambda: models.VisionTransformer(32, 16, 3, 2, 32, 64, num_classes=5),
}


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = SMALLER[name]() if name in SMALLER else models.get_model(name, num_classes=5)
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if it had seen images: what is normalised is not zero and one
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def images(size_px: int) -> Tensor:
    return torch.randn(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))


def hooked(network: nn.Module, module: str, batch: Tensor, *, before: bool = False) -> Tensor:
    """The output of a module, or with `before` its input, by a hook on the whole network."""
    seen: list[Tensor] = []
    owner = network.get_submodule(module)
    if before:
        handle = owner.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    else:
        handle = owner.register_forward_hook(lambda _, __, output: seen.append(output.clone()))
    with torch.inference_mode():
        network(batch)
    handle.remove()
    return seen[0]


def features(network: nn.Module, layers: list[str], batch: Tensor, pooling: str = "avg") -> tuple[Tensor, ...]:
    found = feature_network(trace(network), layers, pooling, tuple(batch.shape[1:]))
    with torch.inference_mode():
        return found.module(batch)


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


def test_a_network_without_a_linear_layer_has_no_penultimate_one() -> None:
    network = nn.Sequential(nn.Flatten())
    with pytest.raises(UsageError, match="Sequential has no linear layer, so no penultimate one"):
        features(network, ["penultimate"], images(8))
    assert torch.equal(features(network, ["0"], images(8))[0], images(8).flatten(1))


def test_described_layers_can_all_be_asked_for(squeezenet: nn.Module) -> None:
    described = describe_layers(trace(squeezenet), (3, 64, 64))
    assert described["features.0"] == (64, 31, 31)
    assert described["features.5"] == (128, 7, 7)
    assert described["penultimate"] == (512, 3, 3)
    assert described["classifier"] == (5, 1, 1)
    names = list(described)
    assert names.index("features.0") < names.index("features.5") < names.index("classifier.1")
    got = features(squeezenet, names, images(64), "flatten")
    for (name, shape), rows in zip(described.items(), got, strict=True):
        assert rows.shape == (2, torch.Size(shape).numel()), name
