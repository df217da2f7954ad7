"""Small networks for teaching and for images of one's own: a perceptron and three convolutional networks.

Their layers are called `layer1`, `layer2`, ... and their head `fc`; a layer holds its weights, norm, activation,
pooling and dropout. They take images of one channel (grey) or three, of one size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}
N_CLASSES = 10


class Layers(nn.Module):
    """Layers one after the other, then a linear head."""

    def __init__(self, layers: list[nn.Module], width: int, n_classes: int) -> None:
        super().__init__()
        self.depth = len(layers)
        for number, layer in enumerate(layers, start=1):
            self.add_module(f"layer{number}", layer)
        self.fc = nn.Linear(width, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, size_px, size_px) -> logits (B, n_classes)."""
        x = images
        for number in range(1, self.depth + 1):
            x = self.get_submodule(f"layer{number}")(x)
        logits: Tensor = self.fc(x)
        return logits


def mlp(
    size_px: int,
    channels: int,
    *,
    widths: tuple[int, ...] = (128,),
    activation: str = "relu",
    dropout: float = 0.0,
    batch_norm: bool = False,
    n_classes: int = N_CLASSES,
) -> nn.Module:
    """Make a multi-layer perceptron on the pixels; 784-128-10 has 101,770 parameters.

    Args:
        size_px: Rows and columns of the images.
        channels: Of the images, 1 or 3.
        widths: Units of each hidden layer.
        activation: One of ACTIVATIONS.
        dropout: Share of each hidden layer's outputs that training drops.
        batch_norm: Whether each hidden layer is normalised before its activation.
        n_classes: Outputs.
    """
    inputs = [channels * size_px**2, *widths]
    dense = [
        _dense(n_in, n_out, activation, dropout=dropout, batch_norm=batch_norm, flatten=number == 0)
        for number, (n_in, n_out) in enumerate(zip(inputs[:-1], widths, strict=True))
    ]
    return Layers(dense, widths[-1], n_classes)


def convnet(
    size_px: int,
    channels: int,
    *,
    dropout: float = 0.0,
    batch_norm: bool = False,
    n_classes: int = N_CLASSES,
) -> nn.Module:
    """Make two 3x3 convolutions of 32 and 64 channels, each with a 2x2 pooling, and a hidden layer of 128.

    421,642 parameters for 28x28 grey images and 10 classes. `dropout` is that of the hidden layer.
    """
    left_px = size_px // 4
    layers = [
        _convolution(channels, 32, 3, padding=1, pool=2, batch_norm=batch_norm),
        _convolution(32, 64, 3, padding=1, pool=2, batch_norm=batch_norm),
        _dense(64 * left_px**2, 128, "relu", dropout=dropout, batch_norm=batch_norm, flatten=True),
    ]
    return Layers(layers, 128, n_classes)


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
    return nn.Sequential(OrderedDict((name, part) for name, part in parts.items() if part is not None))
