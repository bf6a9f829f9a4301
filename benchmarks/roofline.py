"""Roofline model of a training step on this machine.

The compute roof is the rate of torch's fastest matrix product in the precision of the run, the memory roof
that of a large copy; both are measured, not taken from a data sheet. A step takes at least the time of its
arithmetic at the compute roof, and of its memory traffic at the memory roof.
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
    """Return every repetition's rate, in FLOP/s, of the fastest square matrix product."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    best: list[float] = []
    for side in _SIDES[device.type]:
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        rates = []
        for repetition in range(repetitions + 1):
            began_s = time.perf_counter()
            torch.matmul(left, right)
            synchronize(device)
            # The first repetition is the warm-up.
            if repetition:
                rates.append(2 * side**3 / (time.perf_counter() - began_s))
        best = max(best, rates, key=lambda found: sorted(found)[len(found) // 2] if found else 0.0)
    return best


def copy_byte_per_s(device: torch.device, *, repetitions: int = 5) -> list[float]:
    """Return every repetition's memory bandwidth in byte/s: reads and writes of a copy beyond the caches."""
    source = torch.ones(_COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    rates = []
    for repetition in range(repetitions + 1):
        synchronize(device)
        began_s = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        # The first repetition is the warm-up.
        if repetition:
            rates.append(2 * source.numel() / (time.perf_counter() - began_s))
    return rates


def flop_per_image(model: ModelConfig, *, num_classes: int = 10, size: int = 32) -> int:
    """Return the FLOP of matrix products and convolutions in one image's forward and backward pass."""
    return count_training_flop(model, num_classes=num_classes, input_shape=(3, size, size))


def byte_per_image(
    model: ModelConfig, *, precision: str, batch_size: int, num_classes: int = 10, size: int = 32
) -> float:
    """Return the memory traffic per image of a step's forward and backward pass, in bytes.

    Counted, not measured: the inputs and outputs of every operation that computes, each once, in the given
    precision, without fusion and caches. Fusion reduces the traffic by up to about 1.6 times for these
    networks.

    Args:
        model: the network.
        precision: `bf16` or `fp32`, of activations and weights.
        batch_size: images per step, which share the reads of the weights.
        num_classes: number of classes.
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
    """Sums the bytes of the inputs and outputs of operations; views have no traffic."""

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
    """Wait for all work on `device`."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
