"""Small networks of featbench's own, for teaching and for images of one's own, and the pixels as a control.

The layers of the perceptron and the three convolutional networks are called `layer1`, `layer2`, ... and their head
`fc`; a layer holds its weights, norm, activation, pooling and dropout. They take images of one channel (grey) or three,
of one size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}
N_CLASSES = 10


class Pixels(nn.Module):
    """The control: hands the image through. Its one layer, `pixels`, is the resized image, flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = nn.Flatten()

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C*H*W)."""
        flat: Tensor = self.pixels(images)
        return flat


class ResNet20(nn.Module):
    """The 20-layer residual network for 32x32 images of He et al. 2016, section 4.2 (269,722 parameters, 10 classes).

    Shortcuts have no parameters: where the width doubles they take every second pixel and pad the new channels with
    zeros (their option A).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(16, 16, stride=1)
        self.layer2 = _stage(16, 32, stride=2)
        self.layer3 = _stage(32, 64, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, N_CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 32, 32) -> logits (B, 10)."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


class _Block(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.stride = stride
        self.new_channels = width - width_in

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.new_channels:
            before = self.new_channels // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.new_channels - before))
        out: Tensor = self.relu(y + x)
        return out


def _stage(width_in: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Block(width_in, width, stride), _Block(width, width, 1), _Block(width, width, 1))


class Layers(nn.Sequential):
    """Layers one after the other, called `layer1`, `layer2`, ..., then a linear head, `fc`."""

    def __init__(self, layers: list[nn.Module], width: int, n_classes: int = N_CLASSES) -> None:
        named = {f"layer{number}": layer for number, layer in enumerate(layers, start=1)}
        super().__init__(OrderedDict(named, fc=nn.Linear(width, n_classes)))


def mlp(
    size_px: int,
    channels: int,
    *,
    widths: tuple[int, ...] = (128,),
    activation: str = "relu",
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> nn.Module:
    """Make a multi-layer perceptron on the pixels; 784-128-10 has 101,770 parameters.

    `widths` are the units of each hidden layer, `dropout` is the share of its outputs that training drops, and
    `batch_norm` normalises it before its activation, one of ACTIVATIONS.
    """
    inputs = [channels * size_px**2, *widths]
    dense = [
        _dense(n_in, n_out, activation, dropout=dropout, batch_norm=batch_norm, flatten=number == 0)
        for number, (n_in, n_out) in enumerate(zip(inputs[:-1], widths, strict=True))
    ]
    return Layers(dense, widths[-1])


def convnet(size_px: int, channels: int, *, dropout: float = 0.0, batch_norm: bool = False) -> nn.Module:
    """Make two 3x3 convolutions of 32 and 64 channels, each with a 2x2 pooling, and a hidden layer of 128.

    421,642 parameters for 28x28 grey images and 10 classes. `dropout` is that of the hidden layer.
    """
    left_px = size_px // 4
    layers = [
        _convolution(channels, 32, 3, padding=1, pool=2, batch_norm=batch_norm),
        _convolution(32, 64, 3, padding=1, pool=2, batch_norm=batch_norm),
        _dense(64 * left_px**2, 128, "relu", dropout=dropout, batch_norm=batch_norm, flatten=True),
    ]
    return Layers(layers, 128)


def small_cnn(size_px: int, channels: int, *, n_classes: int = N_CLASSES) -> nn.Module:
    """Make four 3x3 convolutions of 32 channels, each with a 2x2 pooling and dropout 0.25, and a hidden layer of 256.

    The hidden layer has dropout 0.5; 553,698 parameters for 128x128 RGB images and 2 classes.
    """
    layers = [_convolution(width, 32, 3, padding=1, pool=2, dropout=0.25) for width in (channels, 32, 32, 32)]
    layers.append(_dense(32 * (size_px // 16) ** 2, 256, "relu", dropout=0.5, flatten=True))
    return Layers(layers, 256, n_classes)


def alexnet_227(size_px: int, channels: int, *, n_classes: int = N_CLASSES) -> nn.Module:
    """Make the network of Krizhevsky et al. 2012 for one device: no groups, no response normalisation.

    11x11 stride 4, 5x5 and three 3x3 convolutions of 96-256-384-384-256 channels, 3x3 poolings of stride 2, hidden
    layers of 4096-4096 with dropout 0.5; 62,378,344 parameters for 227x227 RGB images and 1,000 classes.
    """
    left_px = (size_px - 11) // 4 + 1
    for _ in range(3):  # poolings
        left_px = (left_px - 3) // 2 + 1
    layers = [
        _convolution(channels, 96, 11, stride=4, pool=3),
        _convolution(96, 256, 5, padding=2, pool=3),
        _convolution(256, 384, 3, padding=1),
        _convolution(384, 384, 3, padding=1),
        _convolution(384, 256, 3, padding=1, pool=3),
        _dense(256 * left_px**2, 4096, "relu", dropout=0.5, flatten=True),
        _dense(4096, 4096, "relu", dropout=0.5),
    ]
    return Layers(layers, 4096, n_classes)


def _dense(
    n_in: int,
    n_out: int,
    activation: str,
    *,
    dropout: float = 0.0,
    batch_norm: bool = False,
    flatten: bool = False,
) -> nn.Module:
    return _sequence(
        flatten=nn.Flatten() if flatten else None,
        linear=nn.Linear(n_in, n_out),
        norm=nn.BatchNorm1d(n_out) if batch_norm else None,
        activation=ACTIVATIONS[activation](),
        dropout=nn.Dropout(dropout) if dropout else None,
    )


def _convolution(
    n_in: int,
    n_out: int,
    kernel_px: int,
    *,
    stride: int = 1,
    padding: int = 0,
    pool: int = 0,
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> nn.Module:
    return _sequence(
        conv=nn.Conv2d(n_in, n_out, kernel_px, stride, padding),
        norm=nn.BatchNorm2d(n_out) if batch_norm else None,
        activation=nn.ReLU(),
        pool=nn.MaxPool2d(pool, stride=2) if pool else None,
        dropout=nn.Dropout(dropout) if dropout else None,
    )


def _sequence(**parts: nn.Module | None) -> nn.Module:
    return nn.Sequential(OrderedDict({name: part for name, part in parts.items() if part is not None}))
