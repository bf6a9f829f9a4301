"""What a network costs, whatever it has learned: its parameters, and the work of one image."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from platform.models.config import ModelConfig
from platform.models.networks import build


def count_parameters(model: ModelConfig, *, num_classes: int) -> int:
    """Return the number of learned weights; the statistics of batch normalisation are none."""
    with torch.device("meta"):
        network = build(model, num_classes=num_classes)
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
        network = build(model, num_classes=num_classes).eval()
        image = torch.zeros(1, *input_shape)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    return int(counter.get_total_flops() // 2)
