"""The one listener in the sweep's driver: Tune's events become journal lines, lessons and sweep events."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ray.tune import Callback
from typing_extensions import override

from platform.tracking.events import SweepObserver, TrialStatus
from platform.training.records import EpochRecord
from platform.tuning.execution import placement_groups
from platform.tuning.execution.cluster_session import refuse_dead_node
from platform.tuning.execution.interrupts import Interrupts, StopRequested
from platform.tuning.journal.journal import Journal
from platform.tuning.journal.trial import (
    FAILURE,
    OUT_OF_MEMORY,
    PROCESS_ENDS,
    TrialOutcome,
    TrialTask,
    record_from,
)
from platform.tuning.sampling.task_queue import TaskQueue

_LIVES = 3  # a trial whose process died twice is given up
_LOOK_FOR_S, _LOOK_EVERY_S = 60.0, 1.0
_PIECES = 2  # of a batch, for a trial that ran out of GPU memory; once


@dataclass
class Ledger:
    """What the driver knows of each trial of a stage, by trial id."""

    tasks: dict[str, TrialTask] = field(default_factory=dict)
    records: dict[str, list[EpochRecord]] = field(default_factory=dict)
    ended: dict[str, tuple[TrialStatus, str | None]] = field(default_factory=dict)

    def retry(self, trial_id: str, *, accumulate: int) -> TrialTask:
        """Let a trial go on with smaller pieces; return what it does now."""
        task = self.tasks[trial_id].model_copy(update={"accumulate": accumulate})
        self.tasks[trial_id] = task
        return task

    def epochs_known(self, trial_id: str) -> int:
        """Return how many epochs of the trial have been noted."""
        return len(self.records.get(trial_id, ()))

    def failures(self) -> list[str]:
        """Return the ids of the failed trials, in order of their failing."""
        return [trial_id for trial_id, (status, _) in self.ended.items() if status is TrialStatus.FAILED]

    def outcome(self, trial_id: str) -> TrialOutcome:
        """Return a trial as it stands; one that has not ended was interrupted."""
        task = self.tasks[trial_id]
        status, error = self.ended.get(trial_id, (TrialStatus.INTERRUPTED, None))
        model = Path(task.checkpoint_dir) / "model.pt"
        return TrialOutcome(
            info=task.info(),
            status=status,
            records=tuple(self.records.get(trial_id, ())),
            model_path=model if status is TrialStatus.FINISHED else None,
            error=error,
        )


class Learner(Protocol):
    """Takes decisions from what happens: the sampler's study, the search's stops."""

    def epoch(self, trial_id: str, record: EpochRecord) -> None:
        """Learn an epoch."""

    def ended(self, trial_id: str, status: TrialStatus, value: float | None) -> None:
        """Learn how a trial ended; `value` is its validation accuracy, 0..1."""


class DriverCallback(Callback):
    """Writes the journal first, then teaches the learners, then tells the observer.

    An error in any of them ends Tune's loop at its next step and is kept in `error`: an exception thrown
    inside Tune would come out as text.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        journal: Journal,
        observer: SweepObserver,
        interrupts: Interrupts,
        learners: Sequence[Learner],
        queue: TaskQueue,
        max_failures: int,
    ) -> None:
        self._ledger, self._journal, self._observer = ledger, journal, observer
        self._interrupts, self._learners, self._queue = interrupts, learners, queue
        self._max_failures = max_failures
        self._lives: dict[str, int] = {}
        self._failures: dict[str, str] = {}
        self._short_of_memory: set[str] = set()
        self._not_begun: set[str] = set()
        self._actors: Sequence[Any] = ()
        self._next_look_s = self._look_until_s = 0.0
        self.error: Exception | None = None
        self.running: set[str] = set()
        self.too_many_failures = False

    def live_actors(self) -> list[Any]:
        """Return the handles of the actors whose trials run."""
        actors = (trial.temporary_state.ray_actor for trial in self._actors)
        return [actor for actor in actors if actor is not None]

    @override
    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Leave Tune's loop if there is a reason to; between two steps nothing is half done."""
        self._actors = trials
        self._interrupts.check()
        self._guard(refuse_dead_node)
        self._guard(self._free_slots_of_the_dead)
        if self.error is not None or self.too_many_failures:
            raise StopRequested

    @override
    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tell that a trial has its slot."""
        task = _task(trial)
        self.running.add(task.trial_id)
        self._guard(lambda: self._observer.trial_started(task.info()))

    @override
    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Note an epoch."""
        task, record = _task(trial), record_from(result)
        if FAILURE in result:
            self._failures[task.trial_id] = result[FAILURE]
            if result.get(OUT_OF_MEMORY) and _can_be_cut(task):
                self._short_of_memory.add(task.trial_id)
        if PROCESS_ENDS in result:
            self._not_begun.add(task.trial_id)
        known = self._ledger.records.setdefault(task.trial_id, [])
        # A trial whose process died after its report repeats nothing: its checkpoint is that far.
        if record is None or record.epoch <= len(known):
            return

        def note() -> None:
            self._journal.epoch(task.trial_id, record)
            known.append(record)
            for learner in self._learners:
                learner.epoch(task.trial_id, record)
            self._observer.epoch_finished(task.info(), record)

        self._guard(note)

    @override
    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note a trial that failed, came to its end, or was stopped by the scheduler."""
        task = _task(trial)
        records = self._ledger.records.get(task.trial_id, [])
        if task.trial_id in self._short_of_memory:
            self._retry_in_pieces(task)
        elif task.trial_id in self._failures:
            self._end(task, TrialStatus.FAILED, self._failures[task.trial_id])
        elif records and records[-1].epoch >= records[-1].epochs:
            self._end(task, TrialStatus.FINISHED, None)
        else:
            self._end(task, TrialStatus.PRUNED, None)

    @override
    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Give a trial whose process died another life, or note its failure."""
        task = _task(trial)
        lives = self._lives.setdefault(task.trial_id, 1)
        if task.trial_id in self._short_of_memory:
            self._retry_in_pieces(task)
        elif task.trial_id in self._failures:
            self._end(task, TrialStatus.FAILED, self._failures[task.trial_id])
        elif task.trial_id in self._not_begun:
            self._not_begun.discard(task.trial_id)
            self.running.discard(task.trial_id)
            self._queue.put_back(task)
        elif lives < _LIVES:
            self._lives[task.trial_id] = lives + 1
            self.running.discard(task.trial_id)
            self._queue.put_back(task)
            self._look_until_s = time.monotonic() + _LOOK_FOR_S
        else:
            reason = f"its process died {lives} times; the last time: {_reason(trial)}"
            self._end(task, TrialStatus.FAILED, f"{reason}\nlog: {task.log_path}")

    def _free_slots_of_the_dead(self) -> None:
        """After a process died, free what it held for its workers; Ray learns of the death by and by."""
        now_s = time.monotonic()
        if self._next_look_s <= now_s < self._look_until_s:
            placement_groups.free_of_dead_trials()
            self._next_look_s = now_s + _LOOK_EVERY_S

    def _retry_in_pieces(self, task: TrialTask) -> None:
        """Put a trial back that was too large for its GPU: the same batches, the half of one at a time."""
        self._short_of_memory.discard(task.trial_id)
        del self._failures[task.trial_id]
        said = (
            f"out of GPU memory at batch size {task.run.batch_size}; tried again with each batch in "
            f"{_PIECES} pieces whose gradients add up (batch normalization sees the pieces); "
            f"log: {task.log_path}"
        )

        def note() -> None:
            self._journal.retry(task.trial_id, accumulate=_PIECES, note=said)
            smaller = self._ledger.retry(task.trial_id, accumulate=_PIECES)
            self._observer.trial_noted(task.info(), said)
            self._queue.put_back(smaller)

        self.running.discard(task.trial_id)
        self._guard(note)

    def _end(self, task: TrialTask, status: TrialStatus, error: str | None) -> None:
        def note() -> None:
            self._journal.ended(task.trial_id, status, error)
            self._ledger.ended[task.trial_id] = (status, error)
            accuracy = self._ledger.outcome(task.trial_id).validation_accuracy
            for learner in self._learners:
                learner.ended(task.trial_id, status, accuracy)
            self._observer.trial_ended(task.info(), status, error=error)

        self.running.discard(task.trial_id)
        self._guard(note)
        if len(self._ledger.failures()) > self._max_failures:
            self.too_many_failures = True

    def _guard(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - raised again by whoever runs Tune's loop
            self.error = self.error or error

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its configuration for a `Tuner.restore` that is not used here.
        return {}


def _task(trial: Any) -> TrialTask:
    return TrialTask.model_validate_json(trial.config["task"])


def _can_be_cut(task: TrialTask) -> bool:
    return task.accumulate == 1 and task.run.batch_size // task.workers >= _PIECES


def _reason(trial: Any) -> str:
    path = trial.error_file
    return Path(path).read_text(encoding="utf-8").strip() if path else "no error was given"
