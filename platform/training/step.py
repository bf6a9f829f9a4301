"""One optimizer step, and the steps of one epoch: no step's result is waited for inside an epoch.

The host only waits to stay within `MOST_STEPS_AHEAD` steps of the device. Loss, hits and gradient norm of
each step stay on the device and are read once, at the epoch's end. About once a second a copy of them is
asked for, and looked at when it has arrived, for the progress display and to stop a diverged run.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from platform.errors import UserError
from platform.training.acceleration.cuda_graph import WARM_UP_STEPS, Capture, on_side_stream
from platform.training.acceleration.precision import Precision, autocast
from platform.training.config import RunConfig
from platform.training.distributed import World
from platform.training.inputs.augment import Batch, EpochDraw, Place, at_step
from platform.training.inputs.batches import Batches
from platform.training.inputs.budget import Budget
from platform.training.inputs.image_files import PictureDraw
from platform.training.optimizers import lr_of
from platform.training.state import RunState

TICK_S = 1.0
MOST_STEPS_AHEAD = 128
"""Replayed steps take the host microseconds: without a limit it would queue a whole epoch at once, and then
neither report progress nor notice a divergence until the epoch's end."""


@dataclass(frozen=True)
class EpochSums:
    """What the steps of an epoch measured; each tensor float32 [steps], on the device."""

    losses: Tensor
    """Mean loss of each batch; in a worker, its part of that mean."""
    hits: Tensor
    """Images recognized in each batch, in training mode (weighted by their share under mixup)."""
    grad_norms: Tensor
    """Before clipping."""

    @classmethod
    def zeros(cls, steps: int, device: torch.device) -> EpochSums:
        """Return sums for `steps` steps."""
        return cls(*(torch.zeros(steps, device=device) for _ in range(3)))

    def first(self, steps: int) -> EpochSums:
        """Return a view of the first `steps` steps."""
        return EpochSums(self.losses[:steps], self.hits[:steps], self.grad_norms[:steps])

    def first_bad_step(self) -> int | None:
        """Return the first step (from 0) whose loss or gradient is not finite, or None."""
        bad = ~(self.losses.isfinite() & self.grad_norms.isfinite())
        return int(bad.int().argmax()) if bool(bad.any()) else None


@dataclass
class Ticker:
    """Calls back about once a second, by the clock, without waiting for the device."""

    on_tick: Callable[[int, EpochSums], None]
    """Gets a number of steps that the device has finished in the epoch, and the sums of at least those."""
    every_step: Callable[[], None] = lambda: None
    """Called after every step, by the host's count."""
    _next_s: float = field(default_factory=lambda: time.monotonic() + TICK_S)
    _asked: tuple[int, EpochSums, Callable[[], bool]] | None = None

    def step_ended(self, done: int, sums: EpochSums) -> None:
        """Take note that the host is through with so many steps; call back if it is time."""
        self.every_step()
        if self._asked is None:
            if time.monotonic() < self._next_s:
                return
            self._asked = (done, *_read_later(sums))
        done_then, copy, is_there = self._asked
        if is_there():
            self._asked = None
            self.on_tick(done_then, copy)
            self._next_s = time.monotonic() + TICK_S


@dataclass
class Lead:
    """Keeps the host at most `MOST_STEPS_AHEAD` steps ahead of the device."""

    mark: Callable[[], Callable[[], None]]
    """Marks the device's work so far; returns what waits until the device is through with it."""
    _marks: deque[Callable[[], None]] = field(default_factory=deque)
    _steps: int = 0

    def step_ended(self) -> None:
        """Take note that the host is through with a step; wait if the device is too far behind."""
        self._steps += 1
        if self._steps % (MOST_STEPS_AHEAD // 2):
            return
        self._marks.append(self.mark())
        if len(self._marks) > 1:
            self._marks.popleft()()


def _mark_on(device: torch.device) -> Callable[[], Callable[[], None]]:
    """Return how to mark a device's work; on a CPU there is none left when a step has ended."""
    if device.type != "cuda":
        return lambda: lambda: None

    def mark() -> Callable[[], None]:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return event.synchronize

    return mark


def _read_later(sums: EpochSums) -> tuple[EpochSums, Callable[[], bool]]:
    """Have the sums copied to the host behind what the device has to do; tells when they are there."""
    if sums.losses.device.type != "cuda":
        return sums, lambda: True
    copies = [
        torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
        for values in (sums.losses, sums.hits, sums.grad_norms)
    ]
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()
    return EpochSums(*copies), copied.query


def refuse_empty_pieces(accumulate: int, config: RunConfig, world: World) -> None:
    """Refuse to cut a worker's part of a batch into more pieces than it has images.

    Raises:
        UserError: `accumulate` is not between 1 and those.
    """
    share = config.batch_size // world.size
    if not 1 <= accumulate <= share:
        raise UserError(
            f"accumulate cuts a worker's {share} images of a batch into pieces of at least one: it must lie "
            f"between 1 and {share}, got {accumulate}"
        )


class Steps:
    """The optimizer steps of a run, epoch by epoch.

    All that tells one step of a batch from the next lies on the device, at fixed places: the epoch's draw,
    the number of the step, the learning rates, the sums. So a whole batch's step can be captured once and
    replayed (`platform.training.acceleration.cuda_graph`); what runs uncaptured is the same code.

    The last batch of an epoch, where it is smaller, always runs uncaptured: filled up to the whole size, its
    images would count in the statistics of batch normalization, and a second graph would hold a second set
    of activations to save the launches of one step in hundreds.
    """

    def __init__(
        self,
        state: RunState,
        table: Batches,
        *,
        config: RunConfig,
        budget: Budget,
        precision: Precision,
        world: World,
        accumulate: int = 1,
        capture: Capture | None = None,
    ) -> None:
        """Prepare the steps from the state's on.

        Args:
            state: what the steps change.
            table: the images.
            config: the run.
            budget: its steps.
            precision: what the forward pass computes in.
            world: the workers.
            accumulate: pieces of a worker's part of a batch that pass the network one after another; their
                gradients add up to one step.
            capture: how to capture the step of a whole batch; None: not at all.
        """
        self._state, self._table, self._world = state, table, world
        self._config, self._budget, self._precision = config, budget, precision
        self._accumulate, self._capture = accumulate, capture
        self._lr = lr_of(state.optimizer)
        self._lrs = self._lr.new_zeros(budget.steps_per_epoch)
        self._step = torch.zeros((), dtype=torch.int64, device=world.device)
        self._offsets = torch.arange(budget.batch_size, device=world.device)
        self._sums = EpochSums.zeros(budget.steps_per_epoch, world.device)
        self._draw: Any = None
        self._replay: Callable[[], None] | None = None
        self._warm_ups = WARM_UP_STEPS
        self._lead = Lead(_mark_on(world.device))

    @property
    def captured(self) -> bool:
        """Whether whole batches' steps are replayed from a capture."""
        return self._replay is not None

    def epoch(self, draw: EpochDraw | PictureDraw, *, steps: int, ticker: Ticker) -> EpochSums:
        """Take `steps` steps from the state's on; returns the sums over all workers.

        They are overwritten by the next epoch's.
        """
        state, budget = self._state, self._budget
        self._begin(draw, steps)
        state.network.train()
        sums = self._sums.first(steps)
        batches = [budget.batch(step) for step in range(steps)]
        with state.counting_batches(sum(self._pieces(rows) for rows in batches)):
            for step, rows in enumerate(batches):
                if self._capture is None or rows.stop - rows.start < budget.batch_size:
                    self._take(step, rows)
                else:
                    self._take_or_replay(step, rows)
                state.step += 1
                self._lead.step_ended()
                ticker.step_ended(step + 1, sums)
        state.epoch_ended()
        self._world.sum_(sums.losses)
        self._world.sum_(sums.hits)
        return sums

    def _begin(self, draw: EpochDraw | PictureDraw, steps: int) -> None:
        """Put the epoch's randomness and learning rates where the steps read them."""
        if isinstance(self._draw, EpochDraw) and isinstance(draw, EpochDraw):
            self._draw.copy_(draw)
        else:
            self._draw = draw
        first = self._state.step
        rates = [self._state.lr.at(step) for step in range(first, first + steps)]
        self._lrs[:steps].copy_(torch.tensor(rates, dtype=torch.float64))
        self._step.zero_()

    def _take_or_replay(self, step: int, rows: slice) -> None:
        if self._replay is None and self._warm_ups:
            self._warm_ups -= 1
            on_side_stream(self._world.device, lambda: self._take(step, rows))
            return
        if self._replay is None and self._capture is not None:
            try:
                self._replay = self._capture(lambda: self._take(step, rows))
            except RuntimeError as error:
                self._capture = None
                self._state.optimizer.zero_grad(set_to_none=True)
                warnings.warn(
                    f"the training step could not be captured as a CUDA graph, and runs kernel by kernel, "
                    f"which is slower: {error}",
                    stacklevel=2,
                )
        if self._replay is None:
            self._take(step, rows)
        else:
            self._replay()

    def _take(self, step: int, rows: slice) -> None:
        """Take one step.

        A replay repeats what this did on the device: of the host's numbers only those may matter that are the
        same for every whole batch.
        """
        state, at = self._state, self._step.reshape(1)
        count = rows.stop - rows.start
        place = Place(step, rows, self._step, self._step * self._budget.batch_size + self._offsets[:count])
        part, weight = _part_of(self._world, count)
        batch = self._table.batch(self._draw, place, part)
        self._lr.copy_(at_step(self._lrs, self._step))
        loss, hits, grad_norm = _train_step(
            state,
            batch,
            config=self._config,
            scale=weight / count,
            workers=self._world.size,
            precision=self._precision,
            pieces=self._pieces(rows),
        )
        self._sums.losses.index_copy_(0, at, loss.reshape(1))
        self._sums.hits.index_copy_(0, at, (hits * weight).reshape(1))
        self._sums.grad_norms.index_copy_(0, at, grad_norm.reshape(1))
        state.update_average()
        self._step.add_(1)

    def _pieces(self, rows: slice) -> int:
        """Return into how many pieces a worker's part of a batch is cut.

        Every worker cuts alike, so that all of them meet in each exchange within the network.
        """
        count: int = rows.stop - rows.start
        return max(1, min(self._accumulate, count // self._world.size))


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
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    return loss, hits, grad_norm


def _add_gradients(
    state: RunState, batch: Batch, *, config: RunConfig, scale: float, workers: int, precision: Precision
) -> tuple[Tensor, Tensor]:
    """Add the gradients of `batch` to those there; returns its part of the loss and its hits, each []."""
    with autocast(precision, batch.images.device):
        logits = state.forward(batch.images)
    logits = logits.float()
    predicted = logits.detach().argmax(dim=1)
    loss = _summed_loss(logits, batch.labels, config)
    hits = (predicted == batch.labels).sum().float()
    if batch.share is not None and batch.other_labels is not None:
        loss = torch.lerp(_summed_loss(logits, batch.other_labels, config), loss, batch.share)
        hits = torch.lerp((predicted == batch.other_labels).sum().float(), hits, batch.share)
    loss = loss * scale
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
