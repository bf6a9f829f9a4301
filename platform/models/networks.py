"""The ResNets of He et al. 2016 ("Deep Residual Learning", arXiv:1512.03385), built by name.

The CIFAR networks are one class. The networks for larger images are torchvision's own modules, so that their
state dicts are interchangeable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, pad, relu

from platform.models.config import ModelConfig, ModelName

Shortcut = Literal["A", "B"]


_WIDE = (64, 128, 256, 512)
_NARROW = (16, 32, 64)
_SHAPES: dict[ModelName, tuple[tuple[int, ...], tuple[int, ...], Shortcut]] = {
    "resnet18_cifar": (_WIDE, (2, 2, 2, 2), "B"),
    "resnet34_cifar": (_WIDE, (3, 4, 6, 3), "B"),
    "resnet20_cifar": (_NARROW, (3, 3, 3), "A"),
    "resnet32_cifar": (_NARROW, (5, 5, 5), "A"),
    "resnet44_cifar": (_NARROW, (7, 7, 7), "A"),
    "resnet56_cifar": (_NARROW, (9, 9, 9), "A"),
}
"""Channels per stage, blocks per stage, and usual shortcut of the CIFAR networks."""


def build_network(config: ModelConfig, *, num_classes: int) -> nn.Module:
    """Return the network of `config`, initialized from torch's global generator.

    The network maps float32 images [N, 3, H, W] to logits [N, num_classes]. torchvision's networks keep
    torchvision's initialization, which uses fan_out.
    """
    if config.name in ("resnet18", "resnet34"):
        from torchvision.models import get_model

        options = {"num_classes": num_classes, "zero_init_residual": config.zero_init_residual}
        return cast("nn.Module", get_model(config.name, **options))
    widths, blocks, shortcut = _SHAPES[config.name]
    network = CifarResNet(widths, blocks, config.shortcut or shortcut, num_classes)
    initialize(network, zero_init_residual=config.zero_init_residual)
    return network


def initialize(network: nn.Module, *, zero_init_residual: bool = False) -> None:
    """Initialize as in He et al. 2015 (arXiv:1502.01852, section 2.2), which He et al. 2016 use.

    Convolutions: normal with variance 2/fan_in, where fan_in = k^2 * input channels (equation 10, the forward
    case, and the default of Caffe's MSRA filler). The paper finds either fan sufficient; torchvision uses
    fan_out. Classifier: variance 1/fan_in, because no ReLU follows it, and bias zero.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
            nn.init.zeros_(module.bias)
    if zero_init_residual:
        for module in network.modules():
            if isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)


class PadShortcut(nn.Module):
    """Option A: take every second pixel and append zero channels; no parameters.

    Average pooling of 1x1 with stride 2 equals `x[:, :, ::2, ::2]`, which pnnx cannot convert to ncnn.
    """

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C + new_channels, ceil(H/stride), ceil(W/stride)]."""
        return pad(avg_pool2d(x, 1, self.stride), (0, 0, 0, 0, 0, self.new_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each with batch normalization before its ReLU, and a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(channels_in, channels, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels_in, H, W] to [N, channels, ceil(H/stride), ceil(W/stride)]."""
        out = relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return relu(out + self.downsample(x))


def _shortcut(channels_in: int, channels: int, stride: int, kind: Shortcut) -> nn.Module:
    if stride == 1 and channels_in == channels:
        return nn.Identity()
    if kind == "A":
        return PadShortcut(channels - channels_in, stride)
    return nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


class CifarResNet(nn.Module):
    """A ResNet for small images: 3x3 stem, no max-pool; every stage after the first halves the resolution."""

    def __init__(
        self, widths: Sequence[int], blocks: Sequence[int], shortcut: Shortcut, num_classes: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        channels = widths[0]
        stages = []
        for number, (width, depth) in enumerate(zip(widths, blocks, strict=True)):
            stage = []
            for index in range(depth):
                stride = 2 if number > 0 and index == 0 else 1
                stage.append(BasicBlock(channels, width, stride, shortcut))
                channels = width
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, 3, H, W] to logits [N, num_classes]."""
        x = relu(self.bn1(self.conv1(x)))
        x = self.stages(x)
        x = torch.flatten(adaptive_avg_pool2d(x, 1), 1)
        return cast("Tensor", self.fc(x))
