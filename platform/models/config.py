"""Configuration of a run's network."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from platform.common.schema import Frozen

ModelName = Literal[
    "resnet18_cifar",
    "resnet34_cifar",
    "resnet20_cifar",
    "resnet32_cifar",
    "resnet44_cifar",
    "resnet56_cifar",
    "resnet18",
    "resnet34",
]


class ModelConfig(Frozen):
    """A network by name; the number of classes comes from the data."""

    name: ModelName
    """`resnet18_cifar`, `resnet34_cifar`: 3x3 stem, no max-pool, 64 to 512 channels (11.2 M, 21.3 M
    parameters); `resnet20_cifar` to `resnet56_cifar`: He et al. 2016, section 4.2, 16 to 64 channels
    (0.27 M to 0.85 M); `resnet18`, `resnet34`: torchvision's, for images of about 224x224 pixels (11.7 M,
    21.8 M for 1,000 classes)."""

    shortcut: Literal["A", "B"] | None = None
    """Shortcut of blocks that change the shape (He et al. 2016, section 3.3): `A` takes every second pixel
    and pads the channels with zeros, `B` is a 1x1 convolution with batch normalization; `null`: the network's
    usual one (`B` for 18 and 34, `A` for 20 to 56). torchvision's networks support `B` only."""

    zero_init_residual: bool = False
    """Initialize the weight of each block's last batch normalization to zero, so that every block starts as
    its shortcut (Goyal et al. 2017, section 5.1)."""

    @model_validator(mode="after")
    def _check_shortcut(self) -> Self:
        if self.name in ("resnet18", "resnet34") and self.shortcut == "A":
            raise ValueError(f"{self.name} (torchvision) supports shortcut B only, got A; omit 'shortcut'")
        return self
