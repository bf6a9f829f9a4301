"""`torch.compile` of a run's network, by choice, and what it costs.

On a CPU that can take minutes; docs/results.md has what it gained there.
One size of input is compiled, that of a whole batch (or of one of its pieces); what is smaller, once an
epoch, and every evaluation run uncompiled, because each further size would be compiled anew.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from platform.errors import UserError
from platform.training.acceleration.precision import Precision, autocast

if TYPE_CHECKING:
    from platform.training.state import RunState


def compile_ahead(
    state: RunState, *, images: int, shape: tuple[int, int, int], precision: Precision, device: torch.device
) -> float:
    """Compile the forward and backward pass of `state` on zeros; returns the wall seconds it took.

    The state is left as it was: weights, gradients and batch statistics.

    Args:
        state: of a run begun with `compiled`.
        images: size of the batches that will be trained on.
        shape: channels, height, width of an image.
        precision: what the run computes in.
        device: where it runs.

    Raises:
        UserError: this machine cannot compile.
    """
    state.compiled_images = images
    began_s = time.monotonic()
    buffers = {name: buffer.clone() for name, buffer in state.network.named_buffers()}
    state.network.train()
    zeros = torch.zeros(images, *shape, device=device).contiguous(memory_format=torch.channels_last)
    try:
        with autocast(precision, device):
            logits = state.forward(zeros)
        logits.float().sum().backward()  # type: ignore[no-untyped-call]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"torch.compile needs a compiler that works here, and failed: {reason}; leave out --compile"
        ) from error
    state.optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, buffer in state.network.named_buffers():
            buffer.copy_(buffers[name])
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - began_s


def compiled(network: nn.Module) -> nn.Module:
    """Return what compiles `network` when it is first called; its weights are `network`'s own."""
    return cast("nn.Module", torch.compile(network, dynamic=False))


def forward_uncompiled(network: nn.Module, images: Tensor) -> Tensor:
    """Call a network that may hold a compiled one as if it were not compiled."""
    with torch.compiler.set_stance("force_eager"):
        return cast("Tensor", network(images))
