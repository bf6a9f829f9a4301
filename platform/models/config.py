"""Which network a run trains."""

from __future__ import annotations

from typing import Literal

from platform.schema import Frozen

ModelName = Literal["resnet18_cifar", "resnet32_cifar"]


class ModelConfig(Frozen):
    """A network by name; the number of classes comes from the data."""

    name: ModelName
    """`resnet18_cifar`: 3x3 stem, no max-pool, 11.2 M parameters; `resnet32_cifar`: He et al. 2016, 0.46 M."""
