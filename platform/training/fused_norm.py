"""Batch normalization fused with what follows it in a ResNet, for training on CPUs.

The kernels (`batch_norm_relu.cpp`) give what PyTorch's operations give one after another, with fewer
roundings on the way; results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import relu

from platform.models.networks import RectifyingBatchNorm2d
from platform.training import native

_PLAIN, _RECTIFIED, _ADDED_AND_RECTIFIED = range(3)
_SUFFIXES = {torch.float32: "f32", torch.bfloat16: "bf16"}
_CHANNELS = 16
"""What the number of channels must be a multiple of."""


def fuse(network: nn.Module) -> str | None:
    """Replace the batch normalizations in `network`; names, weights and statistics stay.

    Returns:
        None, or why nothing was replaced.
    """
    if (reason := native.lack()) is not None:
        return reason
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d and _fits(child):
                setattr(parent, name, FusedBatchNorm2d(child))
    return None


def _fits(norm: nn.BatchNorm2d) -> bool:
    return (
        norm.num_features % _CHANNELS == 0
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
    )


class FusedBatchNorm2d(RectifyingBatchNorm2d):
    """`nn.BatchNorm2d` whose training runs in the kernels, alone or with shortcut and rectifier."""

    def __init__(self, plain: nn.BatchNorm2d) -> None:
        super().__init__(plain.num_features, eps=plain.eps, momentum=plain.momentum)
        # The same tensors, not copies: an optimizer may know them already.
        self._parameters, self._buffers, self.training = plain._parameters, plain._buffers, plain.training

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalize [N, C, H, W]."""
        return self._run(_PLAIN, input) if self._in_kernels(input) else super().forward(input)

    def rectified(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Return relu(self(x) + shortcut)."""
        if not self._in_kernels(x):
            out = self(x)
            return relu(out if shortcut is None else out + shortcut)
        if shortcut is None:
            return self._run(_RECTIFIED, x)
        return self._run(_ADDED_AND_RECTIFIED, x, shortcut.to(x.dtype))

    def _in_kernels(self, x: Tensor) -> bool:
        return (
            self.training
            and x.device.type == "cpu"
            and x.dtype in _SUFFIXES
            and self.weight.dtype == torch.float32
            and x.numel() > self.num_features  # else torch has a message
        )

    def _run(self, kind: int, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        out = _Fused.apply(  # type: ignore[no-untyped-call]
            kind,
            x,
            shortcut,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.eps,
            self.momentum,
        )
        return cast("Tensor", out)


class _Fused(torch.autograd.Function):
    """The kernels and their gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        kind: int,
        x: Tensor,
        shortcut: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        eps: float,
        momentum: float,
    ) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        shortcut = shortcut if shortcut is None else shortcut.contiguous(memory_format=torch.channels_last)
        out = torch.empty_like(x)
        saved = torch.empty(4, x.shape[1])
        rows, channels, scratch = _sizes(x)
        run = getattr(native.load(), f"batch_norm_forward_{_SUFFIXES[x.dtype]}")
        run(
            rows,
            channels,
            kind,
            x.data_ptr(),
            _pointer(shortcut),
            out.data_ptr(),
            weight.data_ptr(),
            bias.data_ptr(),
            eps,
            running_mean.data_ptr(),
            running_var.data_ptr(),
            momentum,
            saved.data_ptr(),
            scratch.data_ptr(),
            torch.get_num_threads(),
        )
        ctx.kind = kind
        ctx.save_for_backward(x, out if kind == _ADDED_AND_RECTIFIED else None, saved)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, out, saved = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x, of_shortcut = torch.empty_like(x), None if out is None else torch.empty_like(x)
        rows, channels, scratch = _sizes(x)
        of_weight, of_bias = torch.empty(channels), torch.empty(channels)
        run = getattr(native.load(), f"batch_norm_backward_{_SUFFIXES[x.dtype]}")
        run(
            rows,
            channels,
            ctx.kind,
            x.data_ptr(),
            _pointer(out),
            gradient.data_ptr(),
            of_x.data_ptr(),
            _pointer(of_shortcut),
            saved.data_ptr(),
            of_weight.data_ptr(),
            of_bias.data_ptr(),
            scratch.data_ptr(),
            torch.get_num_threads(),
        )
        return None, of_x, of_shortcut, of_weight, of_bias, None, None, None, None


def _sizes(x: Tensor) -> tuple[int, int, Tensor]:
    """Return pixels, channels, and the memory the kernels work in."""
    channels = x.shape[1]
    rows = x.numel() // channels
    return rows, channels, torch.empty(native.load().batch_norm_scratch(rows, channels))


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
