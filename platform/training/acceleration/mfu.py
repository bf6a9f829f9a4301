"""Model FLOP utilization (MFU): the share of a GPU's peak arithmetic that the model's FLOP use.

MFU is the model's FLOP per second (forward and backward, without recomputation and padding) divided by the
GPU's published peak for dense bf16 matrix products, as in the PaLM paper (Chowdhery et al. 2022, appendix B).
A small network on a large GPU is bound by memory, not by arithmetic: ResNet-32 reaches at most about a fifth
(`python -m benchmarks.training` prints both roofs). No peak is published for CPUs, so they have no MFU.
"""

from __future__ import annotations

import torch

from platform.data.dataset import DatasetInfo
from platform.models.config import ModelConfig
from platform.models.costs import count_training_flop
from platform.training.acceleration.precision import ComputePrecision
from platform.training.distributed import World

# Dense bf16 tensor-core peaks from NVIDIA's data sheets, in FLOP/s; the first matching name applies.
_BF16_FLOP_PER_S = (
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L4", 121e12),
    ("A10", 125e12),
)


def mfu_per_image_per_s(
    model: ModelConfig, info: DatasetInfo, world: World, precision: ComputePrecision
) -> float | None:
    """Return the MFU per image per second of all workers together.

    None if the peak of the device is unknown, and for fp32, because the peaks are for bf16.
    """
    if world.device.type != "cuda" or precision != "bf16":
        return None
    peak = published_bf16_flop_per_s(torch.cuda.get_device_name(world.device))
    if peak is None:
        return None
    flop = count_training_flop(model, num_classes=len(info.class_names), input_shape=info.image_shape)
    return flop / (peak * world.size)


def published_bf16_flop_per_s(name: str) -> float | None:
    """Return the published peak of a GPU, given the name reported by its driver; None if not listed."""
    words = name.split()
    return next((rate for listed, rate in _BF16_FLOP_PER_S if _matches(listed.split(), words)), None)


def _matches(listed: list[str], words: list[str]) -> bool:
    """Return whether each listed word is a word of the driver's name, or its start: `A100-SXM4-80GB`."""
    return all(any(word == part or word.startswith(f"{part}-") for word in words) for part in listed)
