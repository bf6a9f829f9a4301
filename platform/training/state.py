"""All that a run carries from step to step, and its form in a checkpoint.

No random generator is among it: an epoch's randomness comes from (seed, epoch), and initialization from
the seed, so that the step is the whole of a run's memory of its luck.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from platform.training.acceleration.global_batch_norm import over_all_workers
from platform.training.acceleration.torch_compile import compiled, forward_uncompiled
from platform.training.config import RunConfig
from platform.training.distributed import World
from platform.training.inputs.budget import Budget
from platform.training.optimizers import build_optimizer, load_optimizer
from platform.training.records import EpochRecord
from platform.training.schedules import LearningRate

# torch 2.13 renamed the option that lets workers keep their own buffers.
_DDP_OPTIONS = inspect.signature(nn.parallel.DistributedDataParallel).parameters
_OWN_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _DDP_OPTIONS else "broadcast_buffers": False
}


@dataclass(frozen=True, kw_only=True)
class Best:
    """The epoch with the highest validation accuracy so far; the earliest of equals."""

    epoch: int
    accuracy: float
    loss: float
    weights: dict[str, Tensor]
    """State dict, on the CPU."""


@dataclass
class RunState:
    """A run between two steps."""

    network: nn.Module
    parallel: nn.Module
    """`network`, or what stands for it in the training step: compiled, its gradients averaged over the
    workers, or both."""
    optimizer: torch.optim.Optimizer
    lr: LearningRate
    ema: AveragedModel | None
    step: int = 0
    """Optimizer steps finished."""
    records: list[EpochRecord] = field(default_factory=list)
    best: Best | None = None
    compiled_images: int | None = None
    """Images of a batch that `parallel` was compiled for; None: not compiled."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [n, classes] of training images [n, C, H, W]."""
        if self.compiled_images in (None, len(images)):
            return cast("Tensor", self.parallel(images))
        return forward_uncompiled(self.parallel, images)

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and kept: the moving average where there is one."""
        return self.ema.module if self.ema is not None else self.network

    def average_buffers(self, world: World) -> None:
        """Average the batch statistics over the workers, each of which has seen its own images only."""
        if world.size == 1:
            return
        # In an order that is the same in every worker, as a set's would not be: each sum meets its like.
        for network in (self.network, self.ema.module) if self.ema is not None else (self.network,):
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    world.sum_(buffer).div_(world.size)

    @torch.no_grad()
    def update_average(self) -> None:
        """Let the moving average follow a step; the first one sets it.

        As `AveragedModel.update_parameters`, which asks the device at every call whether it is the first. Its
        counters are set once an epoch (`epoch_ended`): averaged here, each would take four kernels a step.
        """
        if self.ema is None:
            return
        averages, values = _floating(self.ema.module), _floating(self.network)
        if self.step == 0:
            for average, value in zip(averages, values, strict=True):
                average.copy_(value)
        elif self.ema.multi_avg_fn is not None:
            self.ema.multi_avg_fn(averages, values, self.ema.n_averaged)

    @contextmanager
    def counting_batches(self, passes: int) -> Iterator[None]:
        """Count the `passes` through the network in this block at its end, for every batch normalization.

        Each would count its own in a kernel per pass. A network that was compiled keeps counting for itself:
        compiled code depends on the counters being there.
        """
        norms = [
            module
            for module in self.network.modules()
            if type(module) is nn.BatchNorm2d and module.momentum is not None and self.compiled_images is None
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

    @torch.no_grad()
    def epoch_ended(self) -> None:
        """Bring the moving average's counters up to the network's."""
        if self.ema is None:
            return
        self.ema.n_averaged.fill_(self.step)
        for average, value in zip(self.ema.module.buffers(), self.network.buffers(), strict=True):
            if not value.is_floating_point():
                average.copy_(value)

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
        """Go on from what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.lr.load_state_dict(state["lr"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.step = state["step"]
        self.records = [EpochRecord(**record) for record in state["records"]]
        self.best = Best(**state["best"]) if state["best"] is not None else None


def begin(
    config: RunConfig,
    network: nn.Module,
    *,
    budget: Budget,
    world: World,
    compile_network: bool = False,
) -> RunState:
    """Return the state before the first step; `network` is moved to the world's device.

    With `compile_network` it is compiled when it is first called (`acceleration.torch_compile`).
    """
    if config.sync_batch_norm and world.size > 1:
        network = over_all_workers(network, world.device)
    network.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    parallel = compiled(network) if compile_network else network
    if world.size > 1:
        # Workers keep their own batch statistics within an epoch; `average_buffers` joins them at its end.
        parallel = nn.parallel.DistributedDataParallel(
            parallel,
            device_ids=[world.device] if world.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            **_OWN_BUFFERS,
        )
    return RunState(
        network=network,
        parallel=parallel,
        optimizer=build_optimizer(config.optimizer, network.parameters()),
        lr=LearningRate(config.schedule, peak=config.optimizer.lr, budget=budget),
        ema=_average_of(network, config.ema_decay) if config.ema_decay else None,
    )


def _floating(network: nn.Module) -> list[Tensor]:
    """Return a network's parameters and buffers, but for its counters."""
    values = [*network.parameters(), *network.buffers()]
    return [value.detach() for value in values if value.is_floating_point()]


def _average_of(network: nn.Module, decay: float) -> AveragedModel:
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=average, use_buffers=True)
