"""Small networks of featbench's own, and the pixels themselves as a control."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


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

    def __init__(self, n_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(16, 16, stride=1)
        self.layer2 = _stage(16, 32, stride=2)
        self.layer3 = _stage(32, 64, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 32, 32) -> logits (B, n_classes)."""
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
