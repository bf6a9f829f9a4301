"""The compute precision of a run: fp32, or bf16 autocast.

bf16 autocast keeps weights and optimizer state in fp32 and computes convolutions in bf16. Without bf16
instructions it is emulated and slower than fp32, so `auto` selects fp32 there.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch

ComputePrecision = Literal["fp32", "bf16"]


def choose_precision(
    requested: Literal["auto", "fp32", "bf16"], device: torch.device
) -> tuple[ComputePrecision, str]:
    """Return the precision to use on `device`, and the reason for display."""
    native = _native_bf16(device)
    if requested == "fp32":
        return "fp32", "requested"
    if requested == "bf16":
        return "bf16", "requested" if native else f"requested; emulated and slow: {_missing_bf16(device)}"
    return ("bf16", native) if native else ("fp32", _missing_bf16(device))


def autocast(precision: ComputePrecision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context for the forward pass."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def reproducible_convolutions() -> AbstractContextManager[None]:
    """Return a context in which cuDNN uses deterministic algorithms and computes fp32 in full precision.

    By default cuDNN uses TF32 for fp32 convolutions: 10 bits of mantissa instead of 23. No effect on a CPU.
    """
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False, allow_tf32=False)


def _native_bf16(device: torch.device) -> str:
    """Return the hardware feature that computes bf16, or an empty string."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"compute capability {major}.{minor}" if major >= 8 else ""
    flags, names = cpu_flags(), {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
    return next((f"the processor has {name}" for flag, name in names.items() if flag in flags), "")


def _missing_bf16(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} has no bf16 tensor cores"
    return "the processor has neither AVX512-BF16 nor AMX"


def cpu_flags() -> frozenset[str]:
    """Return the processor's feature flags from /proc/cpuinfo; empty if it does not exist."""
    # The checks in torch.cpu are private and are renamed between releases.
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(
        next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    )
