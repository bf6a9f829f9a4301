"""Model FLOP utilization: what share of a GPU's arithmetic a run's mathematics takes.

The model's FLOP (forward and backward, counted, nothing recomputed or padded) by the GPU's published rate
of dense bf16 matrix products, as in the PaLM paper (Chowdhery et al. 2022, appendix B). A small network on
a large GPU is bound by memory, not by arithmetic: ResNet-32 cannot pass about a fifth (both roofs are
printed by `python -m benchmarks.training`). On a CPU no such figure is published, and none is invented.
"""

from __future__ import annotations

import torch

from platform.models.config import ModelConfig
from platform.models.costs import count_training_flop
from platform.training.acceleration.precision import Precision

# Dense bf16 tensor-core rates of NVIDIA's data sheets, in FLOP/s; the first name that fits counts.
_BF16_FLOP_PER_S = (
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L4", 121e12),
    ("A10", 125e12),
)


def mfu_per_rate(
    model: ModelConfig,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int],
    device: torch.device,
    precision: Precision,
    workers: int,
) -> float | None:
    """Return the utilization that one image per second means, all workers together; None where unknown.

    Args:
        model: the network that is trained.
        num_classes: classes it tells apart.
        input_shape: channels, height, width of an image.
        device: each worker's.
        precision: the published rates are for bf16; fp32 has no figure here.
        workers: how many devices share the work.
    """
    if device.type != "cuda" or precision != "bf16":
        return None
    peak = published_bf16_flop_per_s(torch.cuda.get_device_name(device))
    if peak is None:
        return None
    return count_training_flop(model, num_classes=num_classes, input_shape=input_shape) / (peak * workers)


def published_bf16_flop_per_s(name: str) -> float | None:
    """Return a GPU's published rate by the name that its driver gives it; None for one not listed."""
    words = name.split()
    return next((rate for listed, rate in _BF16_FLOP_PER_S if _names(listed.split(), words)), None)


def _names(listed: list[str], words: list[str]) -> bool:
    """Whether each listed word begins a word of the driver's name, as in `NVIDIA A100-SXM4-80GB`."""
    return all(any(word == part or word.startswith(f"{part}-") for word in words) for part in listed)
