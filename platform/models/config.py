"""Which network a run trains."""

from __future__ import annotations

from typing import Literal

from platform.schema import Frozen

ModelName = Literal[
    "resnet18_cifar",
    "resnet34_cifar",
    "resnet20_cifar",
    "resnet32_cifar",
    "resnet44_cifar",
    "resnet56_cifar",
]


class ModelConfig(Frozen):
    """A network by name; the number of classes comes from the data."""

    name: ModelName
    """`resnet18_cifar`, `resnet34_cifar`: 3x3 stem, no max-pool, 64 to 512 channels (11.2 M, 21.3 M
    parameters); `resnet20_cifar` to `resnet56_cifar`: He et al. 2016, section 4.2, 16 to 64 channels
    (0.27 M to 0.85 M)."""

    shortcut: Literal["A", "B"] | None = None
    """Where a block changes shape (He et al. 2016, section 3.3): `A` takes every second pixel and pads the
    channels with zeros, `B` is a 1x1 convolution with batch normalisation; `null`: the one the network is
    known by (`B` for 18 and 34, `A` for 20 to 56)."""

    zero_init_residual: bool = False
    """Start the last normalisation of each block at zero, so that every block begins as its shortcut
    (Goyal et al. 2017, section 5.1)."""
