"""What the machine could do, and what a training step asks of it.

The compute roof is the fastest matrix product that torch reaches on this machine in the precision of the
run: a figure of this machine as it is now, not of a data sheet.
"""

from __future__ import annotations

import time

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from platform.models.config import ModelConfig
from platform.models.networks import build

_SIDES = {"cpu": (1024, 2048), "cuda": (8192, 16384)}


def gemm_flop_per_s(device: torch.device, precision: str, *, repetitions: int = 5) -> list[float]:
    """Return the rate of each repetition, in FLOP/s, of the square matrix product that runs fastest."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    best: list[float] = []
    for side in _SIDES[device.type]:
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        rates = []
        for repetition in range(repetitions + 1):
            began_s = time.perf_counter()
            torch.matmul(left, right)
            synchronise(device)
            # The first one warms up.
            if repetition:
                rates.append(2 * side**3 / (time.perf_counter() - began_s))
        best = max(best, rates, key=lambda found: sorted(found)[len(found) // 2] if found else 0.0)
    return best


def flop_per_image(model: ModelConfig, *, num_classes: int = 10, size: int = 32) -> int:
    """Return the FLOP of one image's forward and backward pass: matrix products and convolutions."""
    with torch.device("meta"):
        network: nn.Module = build(model, num_classes=num_classes)
        images = torch.zeros(2, 3, size, size)
        labels = torch.zeros(2, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops() // 2)


def synchronise(device: torch.device) -> None:
    """Wait until `device` has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
