"""What the machine could do, and what a training step asks of it.

The compute roof is the fastest matrix product that torch reaches on this machine in the precision of the
run, the memory roof the rate of a large copy: figures of this machine as it is now, not of a data sheet.
A step cannot take less time than its arithmetic at the one, or its traffic at the other.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from platform.models.config import ModelConfig
from platform.models.costs import count_training_flop
from platform.models.networks import build_network

_SIDES = {"cpu": (1024, 2048), "cuda": (8192, 16384)}
_COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 32}


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
            synchronize(device)
            # The first one warms up.
            if repetition:
                rates.append(2 * side**3 / (time.perf_counter() - began_s))
        best = max(best, rates, key=lambda found: sorted(found)[len(found) // 2] if found else 0.0)
    return best


def copy_byte_per_s(device: torch.device, *, repetitions: int = 5) -> list[float]:
    """Return the memory bandwidth of each repetition, in byte/s: read and written by a copy beyond caches."""
    source = torch.ones(_COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    rates = []
    for repetition in range(repetitions + 1):
        synchronize(device)
        began_s = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        # The first one warms up.
        if repetition:
            rates.append(2 * source.numel() / (time.perf_counter() - began_s))
    return rates


def flop_per_image(model: ModelConfig, *, num_classes: int = 10, size: int = 32) -> int:
    """Return the FLOP of one image's forward and backward pass: matrix products and convolutions."""
    return count_training_flop(model, num_classes=num_classes, input_shape=(3, size, size))


def byte_per_image(
    model: ModelConfig, *, precision: str, batch_size: int, num_classes: int = 10, size: int = 32
) -> float:
    """Return the bytes that one image's share of a step's forward and backward pass reads and writes.

    Counted, not measured: the inputs and outputs of every operation that computes, each once, in the
    precision given, as if no two operations were fused and no cache kept anything from one to the next. A
    fused step moves less: up to about 1.6 times for these networks.

    Args:
        model: the network.
        precision: `bf16` or `fp32`, of activations and weights.
        batch_size: images of a step, which share the reading of the weights.
        num_classes: classes it tells apart.
        size: side of an image in pixels.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    with torch.device("meta"):
        network = build_network(model, num_classes=num_classes).to(dtype)
        images = torch.zeros(batch_size, 3, size, size, dtype=dtype)
        labels = torch.zeros(batch_size, dtype=torch.int64)
    traffic = _Traffic()
    with traffic:
        cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
    return traffic.byte / batch_size


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of what operations read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.byte: int = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [part for part in tree_leaves((args, kwargs, out)) if isinstance(part, torch.Tensor)]
            self.byte += sum(tensor.nbytes for tensor in tensors)
        return out


def synchronize(device: torch.device) -> None:
    """Wait until `device` has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
