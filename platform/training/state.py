"""The state of a run between two steps, and its form in a checkpoint.

Random generators are not part of it: augmentation is seeded from (seed, epoch) and initialization from the
seed, so that the step number determines all remaining randomness.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from platform.common.errors import UserError
from platform.training.acceleration.global_batch_norm import use_global_batch_norm
from platform.training.acceleration.precision import ComputePrecision, autocast
from platform.training.config import RunConfig
from platform.training.distributed import World
from platform.training.inputs.budget import Budget
from platform.training.optimizers import build_optimizer, load_optimizer
from platform.training.records import EpochRecord
from platform.training.schedules import LearningRate

# torch 2.13 renamed the option that disables the broadcast of buffers from rank 0.
_DDP_OPTIONS = inspect.signature(nn.parallel.DistributedDataParallel).parameters
_LOCAL_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _DDP_OPTIONS else "broadcast_buffers": False
}


@dataclass(frozen=True, kw_only=True)
class BestEpoch:
    """The epoch with the highest validation accuracy so far; the earliest on ties."""

    epoch: int
    accuracy: float
    loss: float
    weights: dict[str, Tensor]
    """State dict, on the CPU."""


@dataclass
class RunState:
    """A run between two steps."""

    network: nn.Module
    training_network: nn.Module
    """`network` as the training step calls it: compiled, wrapped in DistributedDataParallel, or both."""
    optimizer: torch.optim.Optimizer
    lr: LearningRate
    ema: AveragedModel | None
    """Exponential moving average of the weights."""
    step: int = 0
    """Optimizer steps finished."""
    records: list[EpochRecord] = field(default_factory=list)
    best: BestEpoch | None = None
    compiled_batch_size: int | None = None
    """The only batch size that runs compiled, that of a full (micro-)batch; None: no compilation. The last
    batch of an epoch and evaluations run uncompiled: compiling each size can take minutes on a CPU."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [n, classes] of training images [n, C, H, W]."""
        if self.compiled_batch_size in (None, len(images)):
            return cast("Tensor", self.training_network(images))
        with torch.compiler.set_stance("force_eager"):
            return cast("Tensor", self.training_network(images))

    def compile_ahead(self, image_shape: tuple[int, int, int], precision: ComputePrecision) -> float:
        """Compile the forward and backward pass on a batch of zeros; return the wall seconds it took.

        Weights, gradients and batch statistics stay unchanged.

        Raises:
            UserError: this machine cannot compile.
        """
        began_s, device = time.monotonic(), next(self.network.parameters()).device
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        self.network.train()
        zeros = torch.zeros(self.compiled_batch_size or 1, *image_shape, device=device)
        try:
            with autocast(precision, device):
                logits = self.forward(zeros.contiguous(memory_format=torch.channels_last))
            logits.float().sum().backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                f"torch.compile needs a working compiler, and failed: {reason}; leave out --compile"
            ) from error
        self.network.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in self.network.named_buffers():
                buffer.copy_(buffers[name])
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.monotonic() - began_s

    @property
    def evaluated_network(self) -> nn.Module:
        """The network that is evaluated and saved: the moving average if there is one."""
        return self.ema.module if self.ema is not None else self.network

    def average_buffers(self, world: World) -> None:
        """Average the running statistics over the workers; each worker updated its own from its images."""
        if world.size == 1:
            return
        # Every worker must reduce the buffers in the same order, which a set would not guarantee.
        for network in (self.network, self.ema.module) if self.ema is not None else (self.network,):
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    world.sum_(buffer).div_(world.size)

    @torch.no_grad()
    def update_ema(self) -> None:
        """Update the moving average after a step; the first step copies the weights.

        Equivalent to `AveragedModel.update_parameters`, which synchronizes with the device at every call to
        test for the first one. Integer buffers are copied once an epoch (`copy_counters_to_ema`): updating
        them here would launch four kernels each per step.
        """
        if self.ema is None:
            return
        averages, values = _floating_point_tensors(self.ema.module), _floating_point_tensors(self.network)
        if self.step == 0:
            for average, value in zip(averages, values, strict=True):
                average.copy_(value)
        elif self.ema.multi_avg_fn is not None:
            self.ema.multi_avg_fn(averages, values, self.ema.n_averaged)

    @torch.no_grad()
    def copy_counters_to_ema(self) -> None:
        """Copy the network's integer buffers to the moving average, and count its updates."""
        if self.ema is None:
            return
        self.ema.n_averaged.fill_(self.step)
        for average, value in zip(self.ema.module.buffers(), self.network.buffers(), strict=True):
            if not value.is_floating_point():
                average.copy_(value)

    @contextmanager
    def deferred_batch_counts(self, passes: int) -> Iterator[None]:
        """Add `passes` to every `num_batches_tracked` at the end of this block, instead of 1 per pass.

        This saves one kernel per batch normalization and forward pass. A compiled network keeps its own
        counting, because compiled code requires the counters.
        """
        norms = [
            module
            for module in self.network.modules()
            if type(module) is nn.BatchNorm2d
            and module.momentum is not None
            and self.compiled_batch_size is None
        ]
        counters = [module.num_batches_tracked for module in norms]
        for module in norms:
            module.num_batches_tracked = None
        try:
            yield
        finally:
            for module, counter in zip(norms, counters, strict=True):
                module.num_batches_tracked = counter
        for counter in counters:
            if counter is not None:
                counter.add_(passes)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and primitives only."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr": self.lr.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "step": self.step,
            "records": [record.as_dict() for record in self.records],
            "best": dict(vars(self.best)) if self.best is not None else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.lr.load_state_dict(state["lr"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.step = state["step"]
        self.records = [EpochRecord(**record) for record in state["records"]]
        self.best = BestEpoch(**state["best"]) if state["best"] is not None else None


def initial_state(
    config: RunConfig,
    network: nn.Module,
    *,
    budget: Budget,
    world: World,
    compiled_batch_size: int | None = None,
) -> RunState:
    """Return the state before the first step; the initialized `network` is moved to the world's device.

    With `compiled_batch_size`, the network is compiled for this batch size at its first call.
    """
    if config.sync_batch_norm and world.size > 1:
        network = use_global_batch_norm(network, world.device)
    network.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    training_network = network
    if compiled_batch_size is not None:
        training_network = cast("nn.Module", torch.compile(network, dynamic=False))
    if world.size > 1:
        # Running statistics stay local within an epoch; `average_buffers` averages them at its end.
        training_network = nn.parallel.DistributedDataParallel(
            training_network,
            device_ids=[world.device] if world.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            **_LOCAL_BUFFERS,
        )
    return RunState(
        network=network,
        training_network=training_network,
        optimizer=build_optimizer(config.optimizer, network.parameters()),
        lr=LearningRate(config.schedule, peak=config.optimizer.lr, budget=budget),
        ema=_build_ema(network, config.ema_decay) if config.ema_decay else None,
        compiled_batch_size=compiled_batch_size,
    )


def _floating_point_tensors(network: nn.Module) -> list[Tensor]:
    """Return a network's parameters and floating-point buffers."""
    values = [*network.parameters(), *network.buffers()]
    return [value.detach() for value in values if value.is_floating_point()]


def _build_ema(network: nn.Module, decay: float) -> AveragedModel:
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=average, use_buffers=True)
