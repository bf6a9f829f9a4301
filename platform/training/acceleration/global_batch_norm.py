"""Batch normalization with the statistics of the whole batch, over all workers.

torch's `SyncBatchNorm` does not support CPUs. The implementation here computes the same on CPUs, so that
several workers train the same network as one worker, on any device.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn


def use_global_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """Return `network` with every batch normalization replaced; names, weights and statistics are kept."""
    if device.type == "cuda":
        return cast("nn.Module", nn.SyncBatchNorm.convert_sync_batchnorm(network))  # type: ignore[no-untyped-call]
    for name, child in network.named_children():
        if type(child) is nn.BatchNorm2d:
            replacement = GlobalBatchNorm2d(child.num_features, eps=child.eps, momentum=child.momentum)
            replacement.load_state_dict(child.state_dict())
            setattr(network, name, replacement)
        else:
            use_global_batch_norm(child, device)
    return network


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that, in training mode, computes the statistics over all workers' images."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalize this worker's images [N, C, H, W]; all workers must make equally many calls."""
        if not self.training:
            return super().forward(input)
        values = input.float()
        pixels = torch.full((1,), values.numel() / values.shape[1], device=values.device)
        sums = _sum_over_workers(torch.cat([values.sum(dim=(0, 2, 3)), pixels]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centered = values - mean[:, None, None]
        # A second pass is more accurate than the mean of squares minus the squared mean.
        variance = _sum_over_workers(centered.square().sum(dim=(0, 2, 3))) / count
        self._update_running_statistics(mean.detach(), variance.detach(), count)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        out = centered * scale[:, None, None] + self.bias[:, None, None]
        return out.to(input.dtype)

    @torch.no_grad()
    def _update_running_statistics(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Update the running mean and the running unbiased variance, as torch does."""
        momentum = 0.1 if self.momentum is None else self.momentum
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), momentum)
        self.num_batches_tracked.add_(1)


def _sum_over_workers(values: Tensor) -> Tensor:
    return cast("Tensor", _SumOverWorkers.apply(values))  # type: ignore[no-untyped-call]


class _SumOverWorkers(torch.autograd.Function):
    """Differentiable all-reduce: the sum over all workers, whose gradient is the sum of all gradients."""

    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total
