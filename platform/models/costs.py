"""What a network costs, whatever it has learned: its parameters, and the work of one image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from platform.models.config import ModelConfig
from platform.models.networks import build_network

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: ModelConfig, *, num_classes: int) -> int:
    """Return the number of learned weights; the statistics of batch normalization are none."""
    with torch.device("meta"):
        network = build_network(model, num_classes=num_classes)
    return sum(parameter.numel() for parameter in network.parameters())


def count_multiply_accumulates(
    model: ModelConfig, *, num_classes: int, input_shape: tuple[int, int, int]
) -> int:
    """Return the multiplications, each with its addition, of one image's convolutions and matrix products.

    Args:
        model: the network.
        num_classes: classes it tells apart.
        input_shape: channels, height, width of an image.
    """
    with torch.device("meta"):
        network = build_network(model, num_classes=num_classes).eval()
        image = torch.zeros(1, *input_shape)
    with torch.no_grad(), _counting() as counter:
        network(image)
    return int(counter.get_total_flops() // 2)


def count_training_flop(model: ModelConfig, *, num_classes: int, input_shape: tuple[int, int, int]) -> int:
    """Return the FLOP of one image's forward and backward pass: matrix products and convolutions.

    Arguments as above; the first layer's input needs no gradient, so it is less than three forward passes.
    """
    with torch.device("meta"):
        network = build_network(model, num_classes=num_classes)
        images = torch.zeros(2, *input_shape)
        labels = torch.zeros(2, dtype=torch.int64)
    with _counting() as counter:
        cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops() // 2)


def _counting() -> FlopCounterMode:
    # Its module loads Triton: a sixth of a second, which no process that only trains should spend.
    from torch.utils.flop_counter import FlopCounterMode

    return FlopCounterMode(display=False)
