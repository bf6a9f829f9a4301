"""Optional `torch.compile` of a run's network, and the time it takes.

Compilation can take minutes on a CPU; docs/results.md has the measured gain there.
Only one input size is compiled: that of a full batch (or micro-batch). The smaller last batch of an epoch and
evaluations run uncompiled, because each further size would be compiled again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from platform.common.errors import UserError
from platform.training.acceleration.precision import ComputePrecision, autocast


def compile_ahead(
    network: nn.Module,
    forward: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    image_shape: tuple[int, int, int],
    precision: ComputePrecision,
    device: torch.device,
) -> float:
    """Compile the forward and backward pass on a batch of zeros; return the wall seconds it took.

    Weights, gradients and batch statistics stay unchanged.

    Args:
        network: the network that `forward` runs.
        forward: maps images [n, C, H, W] to logits through the module from `compile_lazily`.
        batch_size: n of the batches to compile for.
        image_shape: channels, height, width of an image.
        precision: the compute precision of the run.
        device: the device of the run.

    Raises:
        UserError: this machine cannot compile.
    """
    began_s = time.monotonic()
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.train()
    zeros = torch.zeros(batch_size, *image_shape, device=device).contiguous(memory_format=torch.channels_last)
    try:
        with autocast(precision, device):
            logits = forward(zeros)
        logits.float().sum().backward()  # type: ignore[no-untyped-call]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"torch.compile needs a working compiler, and failed: {reason}; leave out --compile"
        ) from error
    network.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name])
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - began_s


def compile_lazily(network: nn.Module) -> nn.Module:
    """Return a module that compiles `network` at its first call; it shares the weights of `network`."""
    return cast("nn.Module", torch.compile(network, dynamic=False))


def forward_uncompiled(network: nn.Module, images: Tensor) -> Tensor:
    """Call a network without its compiled code."""
    with torch.compiler.set_stance("force_eager"):
        return cast("Tensor", network(images))
