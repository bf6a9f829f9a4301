"""Costs of a network architecture: parameters, multiply-accumulates and FLOP per image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from platform.models.config import ModelConfig
from platform.models.networks import build_network

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: ModelConfig, *, num_classes: int) -> int:
    """Return the number of trainable parameters, without the running statistics of batch normalization."""
    with torch.device("meta"):
        network = build_network(model, num_classes=num_classes)
    return sum(parameter.numel() for parameter in network.parameters())


def count_multiply_accumulates(
    model: ModelConfig, *, num_classes: int, input_shape: tuple[int, int, int]
) -> int:
    """Return the multiply-accumulates of convolutions and matrix products for one image [C, H, W]."""
    with torch.device("meta"):
        network = build_network(model, num_classes=num_classes).eval()
        image = torch.zeros(1, *input_shape)
    with torch.no_grad(), _flop_counter() as counter:
        network(image)
    return int(counter.get_total_flops() // 2)


def count_training_flop(model: ModelConfig, *, num_classes: int, input_shape: tuple[int, int, int]) -> int:
    """Return the FLOP of convolutions and matrix products for the forward and backward pass of an image.

    They are below those of three forward passes, because the first layer's input needs no gradient.
    """
    with torch.device("meta"):
        network = build_network(model, num_classes=num_classes)
        images = torch.zeros(2, *input_shape)
        labels = torch.zeros(2, dtype=torch.int64)
    with _flop_counter() as counter:
        cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops() // 2)


def _flop_counter() -> FlopCounterMode:
    # Imported here: the module loads Triton, which takes 0.17 s.
    from torch.utils.flop_counter import FlopCounterMode

    return FlopCounterMode(display=False)
