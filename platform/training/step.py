"""One optimiser step, and the steps of one epoch: nothing here waits for the device inside an epoch.

Loss, hits and gradient norm of each step stay on the device and are read once, at the epoch's end; a look
at the clock about once a second may read them earlier, for the progress display and to stop a diverged run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from platform.training.augment import Batch, EpochDraw
from platform.training.budget import Budget
from platform.training.config import RunConfig
from platform.training.distributed import World
from platform.training.optimisers import set_lr
from platform.training.pictures import PictureDraw
from platform.training.precision import Precision, autocast
from platform.training.state import RunState
from platform.training.tables import Batches

TICK_S = 1.0


@dataclass(frozen=True)
class EpochSums:
    """What the steps of an epoch measured; each tensor float32 [steps], on the device."""

    losses: Tensor
    """Mean loss of each batch; in a worker, its part of that mean."""
    hits: Tensor
    """Images recognised in each batch, in training mode (weighted by their share under mixup)."""
    grad_norms: Tensor
    """Before clipping."""

    @classmethod
    def zeros(cls, steps: int, device: torch.device) -> EpochSums:
        """Return sums for `steps` steps."""
        return cls(*(torch.zeros(steps, device=device) for _ in range(3)))

    def first_bad_step(self) -> int | None:
        """Return the first step (from 0) whose loss or gradient is not finite, or None."""
        bad = ~(self.losses.isfinite() & self.grad_norms.isfinite())
        return int(bad.int().argmax()) if bool(bad.any()) else None


@dataclass
class Ticker:
    """Calls back about once a second, by the clock."""

    on_tick: Callable[[int, EpochSums], None]
    """Gets the steps finished in the epoch and the sums so far."""
    _next_s: float = field(default_factory=lambda: time.monotonic() + TICK_S)

    def step_ended(self, done: int, sums: EpochSums) -> None:
        """Call back if it is time."""
        if time.monotonic() >= self._next_s:
            self.on_tick(done, sums)
            self._next_s = time.monotonic() + TICK_S


def train_epoch(
    state: RunState,
    table: Batches,
    draw: EpochDraw | PictureDraw,
    *,
    config: RunConfig,
    budget: Budget,
    steps: int,
    precision: Precision,
    world: World,
    ticker: Ticker,
    accumulate: int = 1,
) -> EpochSums:
    """Run `steps` optimiser steps from the state's step on; returns the sums over all workers.

    With `accumulate` above 1, each worker's part of a batch passes the network in so many pieces, whose
    gradients add up to one step.
    """
    sums = EpochSums.zeros(steps, world.device)
    state.network.train()
    for step in range(steps):
        rows = budget.batch(step)
        count = rows.stop - rows.start
        part, weight = _part_of(world, count)
        batch = table.batch(draw, step, rows, part)
        set_lr(state.optimiser, state.lr.at(state.step))
        loss, hits, grad_norm = _train_step(
            state,
            batch,
            config=config,
            scale=weight / count,
            workers=world.size,
            precision=precision,
            # Every worker cuts alike, so that all of them meet in each exchange within the network.
            pieces=max(1, min(accumulate, count // world.size)),
        )
        sums.losses[step] = loss
        sums.hits[step] = hits * weight
        sums.grad_norms[step] = grad_norm
        if state.ema is not None:
            state.ema.update_parameters(state.network)
        state.step += 1
        ticker.step_ended(step + 1, sums)
    world.sum_(sums.losses)
    world.sum_(sums.hits)
    return sums


def _train_step(
    state: RunState,
    batch: Batch,
    *,
    config: RunConfig,
    scale: float,
    workers: int,
    precision: Precision,
    pieces: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Take one step; returns loss (this worker's part of the batch's mean), hits and gradient norm, each [].

    Workers may hold unequal parts of the last batch, and a batch may be cut into unequal pieces, so each
    weighs its sum by the whole batch's size instead of taking its own mean.
    """
    loss, hits = torch.zeros(2, device=batch.labels.device)
    images = len(batch.labels)
    for piece in range(pieces):
        rows = slice(piece * images // pieces, (piece + 1) * images // pieces)
        with _without_exchange(state) if piece + 1 < pieces else nullcontext():
            piece_loss, piece_hits = _add_gradients(
                state, batch.rows(rows), config=config, scale=scale, workers=workers, precision=precision
            )
        loss, hits = loss + piece_loss, hits + piece_hits
    parameters = [parameter for parameter in state.network.parameters() if parameter.grad is not None]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    grad_norm = torch.nn.utils.get_total_norm(gradients)
    if config.clip_grad_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, config.clip_grad_norm, grad_norm)
    state.optimiser.step()
    state.optimiser.zero_grad(set_to_none=True)
    return loss, hits, grad_norm


def _add_gradients(
    state: RunState, batch: Batch, *, config: RunConfig, scale: float, workers: int, precision: Precision
) -> tuple[Tensor, Tensor]:
    """Add the gradients of `batch` to those there; returns its part of the loss and its hits, each []."""
    with autocast(precision, batch.images.device):
        logits = state.parallel(batch.images)
    logits = logits.float()
    predicted = logits.detach().argmax(dim=1)
    loss = _summed_loss(logits, batch.labels, config) * (scale * batch.share)
    hits = (predicted == batch.labels).sum() * batch.share
    if batch.share != 1:
        loss = loss + _summed_loss(logits, batch.other_labels, config) * (scale * (1 - batch.share))
        hits = hits + (predicted == batch.other_labels).sum() * (1 - batch.share)
    # DistributedDataParallel averages the gradients over the workers; this makes it a sum.
    (loss * workers).backward()  # type: ignore[no-untyped-call]
    return loss.detach(), hits


def _without_exchange(state: RunState) -> AbstractContextManager[None]:
    """Return the context in which gradients stay with their worker, to be exchanged with the last piece's."""
    if isinstance(state.parallel, nn.parallel.DistributedDataParallel):
        return state.parallel.no_sync()
    return nullcontext()


def _summed_loss(logits: Tensor, labels: Tensor, config: RunConfig) -> Tensor:
    return cross_entropy(logits, labels, reduction="sum", label_smoothing=config.label_smoothing)


def _part_of(world: World, count: int) -> tuple[slice, float]:
    """Return this worker's images within a batch of `count`, and their weight.

    A last batch with fewer images than workers leaves some without: they take part with weight 0, since
    every worker must join the exchange of gradients.
    """
    part = world.slice_of(count)
    return (part, 1.0) if part.stop > part.start else (slice(0, 1), 0.0)
