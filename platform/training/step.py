"""The optimizer step, and the steps of one epoch.

No step waits for its own result: loss, correct predictions and gradient norm of each step stay on the device
and are read once, at the end of the epoch. About once a second they are also copied to the host
asynchronously and evaluated when the copy has arrived, to report progress and to stop a diverged run.
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

from platform.common.errors import UserError
from platform.training.acceleration.cuda_graph import WARM_UP_STEPS, Capture, on_side_stream
from platform.training.acceleration.precision import ComputePrecision, autocast
from platform.training.config import RunConfig
from platform.training.distributed import World
from platform.training.inputs.augment import Batch, BatchPosition, EpochRandomness, index_on_device
from platform.training.inputs.batches import TrainingSet
from platform.training.inputs.budget import Budget
from platform.training.inputs.image_files import FileEpochRandomness
from platform.training.optimizers import lr_tensor
from platform.training.state import RunState

REPORT_INTERVAL_S = 1.0
MAX_STEPS_AHEAD = 128
"""Replaying a step takes the host microseconds. Without a limit it would queue a whole epoch, and neither
progress nor a divergence would be reported until the epoch's end."""


@dataclass(frozen=True)
class StepMetrics:
    """Measurements of each step of an epoch: float32 [steps] tensors on the device."""

    losses: Tensor
    """Mean loss of each batch; within one worker, its summand of that mean."""
    correct: Tensor
    """Correct predictions of each batch, in training mode (weighted by the label weights under mixup)."""
    grad_norms: Tensor
    """Before clipping."""

    @classmethod
    def zeros(cls, steps: int, device: torch.device) -> StepMetrics:
        return cls(*(torch.zeros(steps, device=device) for _ in range(3)))

    def first(self, steps: int) -> StepMetrics:
        return StepMetrics(self.losses[:steps], self.correct[:steps], self.grad_norms[:steps])

    def first_nonfinite_step(self) -> int | None:
        """Return the first step (from 0) whose loss or gradient norm is NaN or infinite, or None."""
        bad = ~(self.losses.isfinite() & self.grad_norms.isfinite())
        return int(bad.int().argmax()) if bool(bad.any()) else None

    def copy_to_host(self) -> tuple[StepMetrics, Callable[[], bool]]:
        """Start an asynchronous copy to the host; return it and a function that tests for its completion."""
        if self.losses.device.type != "cuda":
            return self, lambda: True
        copies = [
            torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
            for values in (self.losses, self.correct, self.grad_norms)
        ]
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        return StepMetrics(*copies), copied.query


@dataclass
class ProgressReporter:
    """Reports the metrics of an epoch about once a second, without waiting for the device."""

    report: Callable[[int, StepMetrics], None]
    """Receives the number n of steps that the device has finished in this epoch, and the metrics of at least
    the first n steps, on the host."""
    after_step: Callable[[], None] = lambda: None
    """Called whenever the host has issued a step."""
    _next_s: float = field(default_factory=lambda: time.monotonic() + REPORT_INTERVAL_S)
    _pending: tuple[int, StepMetrics, Callable[[], bool]] | None = None

    def step_ended(self, done: int, metrics: StepMetrics) -> None:
        """Start or finish a report after the host has issued `done` steps of the epoch."""
        self.after_step()
        if self._pending is None:
            if time.monotonic() < self._next_s:
                return
            self._pending = (done, *metrics.copy_to_host())
        done_at_copy, copy, has_arrived = self._pending
        if has_arrived():
            self._pending = None
            self.report(done_at_copy, copy)
            self._next_s = time.monotonic() + REPORT_INTERVAL_S


@dataclass
class RunAheadLimit:
    """Keeps the host at most `MAX_STEPS_AHEAD` steps ahead of the device."""

    record_event: Callable[[], Callable[[], None]]
    """Records the work queued on the device so far; returns a function that waits for its completion."""
    _events: deque[Callable[[], None]] = field(default_factory=deque)
    _steps: int = 0

    def step_ended(self) -> None:
        """Count a step that the host has issued; wait if the device is too far behind."""
        self._steps += 1
        if self._steps % (MAX_STEPS_AHEAD // 2):
            return
        self._events.append(self.record_event())
        if len(self._events) > 1:
            self._events.popleft()()


def _record_event() -> Callable[[], None]:
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event.synchronize


def check_accumulation(accumulate: int, config: RunConfig, world: World) -> None:
    """Check that every micro-batch has at least one image.

    Raises:
        UserError: `accumulate` is below 1 or above the number of images per worker and batch.
    """
    share = config.batch_size // world.size
    if not 1 <= accumulate <= share:
        raise UserError(
            f"accumulate splits the {share} images per worker and batch into micro-batches of at least one "
            f"image: it must lie between 1 and {share}, got {accumulate}"
        )


class StepRunner:
    """Runs the optimizer steps of a run, one epoch per call.

    Everything that differs between two steps of full batches is stored on the device at fixed addresses: the
    epoch's randomness, the step number, the learning rates, the metrics. Therefore the step can be captured
    once as a CUDA graph and replayed (`platform.training.acceleration.cuda_graph`). The same code runs
    uncaptured.

    A smaller last batch of an epoch always runs uncaptured: padded to the full size, its padding would enter
    the statistics of batch normalization, and a second graph would hold a second set of activations to save
    the launches of one step per epoch.
    """

    def __init__(
        self,
        state: RunState,
        training_set: TrainingSet,
        *,
        config: RunConfig,
        budget: Budget,
        precision: ComputePrecision,
        world: World,
        accumulate: int = 1,
        capture: Capture | None = None,
    ) -> None:
        """Prepare the steps that follow `state.step`; each of them updates `state` in place.

        `accumulate` is the number of micro-batches per worker and batch, whose gradients are summed for one
        step. Without a `capture` every step runs uncaptured.
        """
        self._state, self._training_set, self._world = state, training_set, world
        self._config, self._budget, self._precision = config, budget, precision
        self._accumulate, self._capture = accumulate, capture
        self._lr = lr_tensor(state.optimizer)
        self._lrs = self._lr.new_zeros(budget.steps_per_epoch)
        self._step = torch.zeros((), dtype=torch.int64, device=world.device)
        self._offsets = torch.arange(budget.batch_size, device=world.device)
        self._metrics = StepMetrics.zeros(budget.steps_per_epoch, world.device)
        self._randomness: Any = None
        self._replay: Callable[[], None] | None = None
        self._warm_up_steps = WARM_UP_STEPS
        # On a CPU nothing is queued when a step returns.
        self._run_ahead = RunAheadLimit(_record_event) if world.device.type == "cuda" else None

    @property
    def captured(self) -> bool:
        """Whether steps of full batches are replayed from a capture."""
        return self._replay is not None

    def run_epoch(
        self, randomness: EpochRandomness | FileEpochRandomness, *, steps: int, reporter: ProgressReporter
    ) -> StepMetrics:
        """Run the next `steps` steps; return their metrics, summed over all workers.

        The returned tensors are overwritten by the next epoch.
        """
        state, budget = self._state, self._budget
        self._start_epoch(randomness, steps)
        state.network.train()
        metrics = self._metrics.first(steps)
        batches = [budget.batch(step) for step in range(steps)]
        with state.deferred_batch_counts(sum(self._micro_batches(rows) for rows in batches)):
            for step, rows in enumerate(batches):
                if self._capture is None or rows.stop - rows.start < budget.batch_size:
                    self._run_uncaptured(step, rows)
                else:
                    self._run_captured(step, rows)
                state.step += 1
                if self._run_ahead is not None:
                    self._run_ahead.step_ended()
                reporter.step_ended(step + 1, metrics)
        state.copy_counters_to_ema()
        self._world.sum_(metrics.losses)
        self._world.sum_(metrics.correct)
        return metrics

    def _start_epoch(self, randomness: EpochRandomness | FileEpochRandomness, steps: int) -> None:
        """Store the epoch's randomness and learning rates at the addresses that the steps read."""
        if isinstance(self._randomness, EpochRandomness) and isinstance(randomness, EpochRandomness):
            self._randomness.copy_(randomness)
        else:
            self._randomness = randomness
        first = self._state.step
        lrs = [self._state.lr.at(step) for step in range(first, first + steps)]
        self._lrs[:steps].copy_(torch.tensor(lrs, dtype=torch.float64))
        self._step.zero_()

    def _run_captured(self, step: int, rows: slice) -> None:
        """Replay the captured step; before that, warm up and capture it."""
        if self._replay is None and self._warm_up_steps:
            self._warm_up_steps -= 1
            on_side_stream(self._world.device, lambda: self._run_uncaptured(step, rows))
            return
        if self._replay is None and self._capture is not None:
            try:
                self._replay = self._capture(lambda: self._run_uncaptured(step, rows))
            except RuntimeError as error:
                self._capture = None
                self._state.optimizer.zero_grad(set_to_none=True)
                warnings.warn(
                    f"the training step could not be captured as a CUDA graph and runs kernel by kernel, "
                    f"which is slower: {error}",
                    stacklevel=2,
                )
        if self._replay is None:
            self._run_uncaptured(step, rows)
        else:
            self._replay()

    def _run_uncaptured(self, step: int, rows: slice) -> None:
        """Run one step.

        A replay repeats only the device work, so every Python value used here must be the same for all full
        batches.
        """
        state = self._state
        count = rows.stop - rows.start
        device_rows = self._step * self._budget.batch_size + self._offsets[:count]
        share, weight = _worker_share(self._world, count)
        batch = self._training_set.batch(
            self._randomness, BatchPosition(step, rows, self._step, device_rows), share
        )
        self._lr.copy_(index_on_device(self._lrs, self._step))
        loss, correct, grad_norm = self._train_step(batch, weight / count, self._micro_batches(rows))
        index = self._step.reshape(1)
        self._metrics.losses.index_copy_(0, index, loss.reshape(1))
        self._metrics.correct.index_copy_(0, index, (correct * weight).reshape(1))
        self._metrics.grad_norms.index_copy_(0, index, grad_norm.reshape(1))
        state.update_ema()
        self._step.add_(1)

    def _micro_batches(self, rows: slice) -> int:
        """Return the number of micro-batches per worker for a batch.

        It is the same for every worker, so that all of them join each collective operation in the network.
        """
        count: int = rows.stop - rows.start
        return max(1, min(self._accumulate, count // self._world.size))

    def _train_step(self, batch: Batch, scale: float, micro_batches: int) -> tuple[Tensor, Tensor, Tensor]:
        """Run forward, backward and optimizer; return loss, correct predictions and gradient norm, each [].

        The loss is this worker's summand of the batch's mean. Each micro-batch multiplies its sum by `scale`,
        for the size of the whole batch, instead of taking its own mean, because workers and micro-batches may
        be of unequal size.
        """
        state, limit = self._state, self._config.clip_grad_norm
        loss, correct = torch.zeros(2, device=batch.labels.device)
        images = len(batch.labels)
        for index in range(micro_batches):
            rows = slice(index * images // micro_batches, (index + 1) * images // micro_batches)
            with _no_gradient_sync(state) if index + 1 < micro_batches else nullcontext():
                micro_loss, micro_correct = self._accumulate_gradients(batch.rows(rows), scale)
            loss, correct = loss + micro_loss, correct + micro_correct
        parameters = [parameter for parameter in state.network.parameters() if parameter.grad is not None]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        grad_norm = torch.nn.utils.get_total_norm(gradients)
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, grad_norm)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        return loss, correct, grad_norm

    def _accumulate_gradients(self, batch: Batch, scale: float) -> tuple[Tensor, Tensor]:
        """Add the gradients of a micro-batch; return its scaled loss and its correct predictions, each []."""
        with autocast(self._precision, batch.images.device):
            logits = self._state.forward(batch.images)
        logits = logits.float()
        predicted = logits.detach().argmax(dim=1)
        loss = self._summed_loss(logits, batch.labels)
        correct = (predicted == batch.labels).sum().float()
        if batch.label_weight is not None and batch.partner_labels is not None:
            loss = torch.lerp(self._summed_loss(logits, batch.partner_labels), loss, batch.label_weight)
            partner_correct = (predicted == batch.partner_labels).sum().float()
            correct = torch.lerp(partner_correct, correct, batch.label_weight)
        loss = loss * scale
        # DistributedDataParallel averages gradients over the workers; their number makes it a sum.
        (loss * self._world.size).backward()  # type: ignore[no-untyped-call]
        return loss.detach(), correct

    def _summed_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing = self._config.label_smoothing
        return cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)


def _no_gradient_sync(state: RunState) -> AbstractContextManager[None]:
    """Return a context without gradient exchange, for all micro-batches except the last."""
    if isinstance(state.training_network, nn.parallel.DistributedDataParallel):
        return state.training_network.no_sync()
    return nullcontext()


def _worker_share(world: World, count: int) -> tuple[slice, float]:
    """Return this worker's images within a batch of `count`, and their weight.

    If a batch has fewer images than workers, a worker without images takes one with weight 0, because every
    worker must join the gradient exchange.
    """
    share = world.slice_of(count)
    return (share, 1.0) if share.stop > share.start else (slice(0, 1), 0.0)
