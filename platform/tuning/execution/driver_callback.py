"""The Ray Tune callback of the driver: it writes the journal, feeds the sampler and notifies the observer."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ray.tune import Callback
from typing_extensions import override

from platform.tracking.events import SweepObserver, TrialStatus
from platform.training.records import EpochRecord
from platform.tuning.execution import placement_groups
from platform.tuning.execution.cluster_nodes import NodeWatch, address_of, is_answering
from platform.tuning.execution.cluster_session import check_ray_processes
from platform.tuning.execution.interrupts import Interrupts, StopRequested
from platform.tuning.journal.journal import Journal
from platform.tuning.journal.trial import (
    FAILURE,
    NODE_NOTE,
    OUT_OF_MEMORY,
    PROCESS_ENDS,
    TrialTask,
    record_from,
)
from platform.tuning.sampling.task_queue import TaskQueue

_MAX_ATTEMPTS = 3  # a trial fails when three processes die in one epoch
_CLEANUP_FOR_S, _CLEANUP_EVERY_S = 60.0, 1.0
_CALL_EVERY_S = 15.0
_RETRY_PIECES = 2  # pieces of a batch after a trial ran out of GPU memory


class TrialListener(Protocol):
    """Receives the results of trials: the sampler's study, the limits of the search."""

    def epoch(self, trial_id: str, record: EpochRecord) -> None:
        """Receive an epoch."""

    def ended(self, trial_id: str, status: TrialStatus, value: float | None) -> None:
        """Receive the end of a trial; `value` is its validation accuracy, 0..1."""


class DriverCallback(Callback):
    """Handles each event of Tune in this order: journal, listeners, observer.

    If one of them raises an error, Tune's loop ends at its next step and the error is kept in `error`. Tune
    would convert an exception raised inside it to text.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        observer: SweepObserver,
        interrupts: Interrupts,
        listeners: Sequence[TrialListener],
        queue: TaskQueue,
        nodes: NodeWatch,
        max_failures: int | None,
    ) -> None:
        self._journal, self._observer, self._interrupts = journal, observer, interrupts
        self._listeners, self._queue, self._nodes = listeners, queue, nodes
        self._max_failures = max_failures
        self._attempts: dict[str, int] = {}
        """Processes of a trial since its last epoch."""
        self._deaths: dict[str, str] = {}
        """Why the last process of a waiting trial died."""
        self._failures: dict[str, str] = {}
        self._out_of_memory: set[str] = set()
        self._refused: set[str] = set()
        """Trials that a process refused to run and that wait for another process."""
        self._actors: Sequence[Any] = ()
        self._next_cleanup_s = self._cleanup_until_s = 0.0
        self._next_call_s = 0.0 if os.environ.get("RAY_ADDRESS") else math.inf
        self.error: Exception | None = None
        self.running: set[str] = set()
        self.too_many_failures = False

    def live_actors(self) -> list[Any]:
        """Return the handles of the actors whose trials are running."""
        actors = (trial.temporary_state.ray_actor for trial in self._actors)
        return [actor for actor in actors if actor is not None]

    @override
    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Leave Tune's loop after a signal or an error. Between two steps no event is half handled."""
        self._actors = trials
        self._interrupts.check()
        self._guard(check_ray_processes)
        self._guard(self._journal.sync)
        self._guard(self._follow_nodes)
        self._guard(self._call_trials)
        self._guard(self._remove_orphaned_groups)
        if self.error is not None or self.too_many_failures:
            raise StopRequested

    @override
    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Report that a trial has started."""
        task = _task(trial)
        self.running.add(task.trial_id)
        if task.trial_id in self._refused:
            self._refused.discard(task.trial_id)  # its first start was reported
        else:
            self._guard(lambda: self._observer.trial_started(task.info()))
        if task.trial_id in self._deaths:
            self._guard(lambda: self._report_restart(task, trial.temporary_state.ray_actor))

    @override
    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Journal and report an epoch."""
        task, record = _task(trial), record_from(result)
        if FAILURE in result:
            self._failures[task.trial_id] = result[FAILURE]
            if result.get(OUT_OF_MEMORY) and _can_accumulate(task):
                self._out_of_memory.add(task.trial_id)
        if PROCESS_ENDS in result:
            self._refused.add(task.trial_id)
        if NODE_NOTE in result:
            self._guard(lambda: self._observer.sweep_noted(f"{task.trial_id}: {result[NODE_NOTE]}"))
        # A trial continues from its checkpoint, so an epoch that is already journaled is not trained again.
        if record is None or record.epoch <= self._journal.ledger.epochs_known(task.trial_id):
            return

        def handle() -> None:
            self._journal.epoch(task.trial_id, record)
            self._attempts.pop(task.trial_id, None)
            for listener in self._listeners:
                listener.epoch(task.trial_id, record)
            self._observer.epoch_finished(task.info(), record)

        self._guard(handle)

    @override
    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Handle a trial that failed, finished, or was stopped by the scheduler."""
        task = _task(trial)
        records = self._journal.ledger.trials[task.trial_id].records
        if self._handle_failure(task):
            return
        is_whole = bool(records) and records[-1].epoch >= records[-1].epochs
        self._end(task, TrialStatus.FINISHED if is_whole else TrialStatus.PRUNED, None)

    @override
    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Run a trial whose process died again, or end it as failed."""
        task = _task(trial)
        if self._handle_failure(task):
            return
        attempts = self._attempts.setdefault(task.trial_id, 1)
        if task.trial_id in self._refused:
            self.running.discard(task.trial_id)
            self._queue.requeue(task)
        elif attempts < _MAX_ATTEMPTS:
            self._attempts[task.trial_id] = attempts + 1
            killed = "usage threshold" in _reason(trial)
            self._deaths[task.trial_id] = (
                "Ray's memory monitor ended its process" if killed else "its process or its node was lost"
            )
            self.running.discard(task.trial_id)
            self._queue.requeue(task)
            self._cleanup_until_s = time.monotonic() + _CLEANUP_FOR_S
        else:
            reason = f"its process died {attempts} times in one epoch; the last time: {_reason(trial)}"
            self._end(task, TrialStatus.FAILED, f"{reason}\nlog: {task.log_path}")

    def _follow_nodes(self) -> None:
        for change in self._nodes.poll():
            self._observer.sweep_noted(change)
        self._queue.concurrent = self._nodes.concurrent

    def _call_trials(self) -> None:
        """Reveal connections to trials that were lost on their side only (see `file_server.get_result`)."""
        if time.monotonic() >= self._next_call_s:
            self._next_call_s = time.monotonic() + _CALL_EVERY_S
            for actor in self.live_actors():
                actor.__ray_ready__.remote()

    def _report_restart(self, task: TrialTask, actor: Any) -> None:
        # The driver of a worker group runs on the head; its workers are placed later.
        node = address_of(actor) if task.workers == 1 else None
        epoch = self._journal.ledger.epochs_known(task.trial_id)
        start = f"continues after epoch {epoch}" if epoch else "starts again"
        self._observer.sweep_noted(
            f"{task.trial_id} {start}{f' on {node}' if node else ''}: {self._deaths.pop(task.trial_id)}"
        )

    def _remove_orphaned_groups(self) -> None:
        """After a process died, free the resources of its workers; Ray notices the death with a delay."""
        now_s = time.monotonic()
        if self._next_cleanup_s <= now_s < self._cleanup_until_s and is_answering():
            placement_groups.remove_groups_of_dead_trials()
            self._next_cleanup_s = now_s + _CLEANUP_EVERY_S

    def _handle_failure(self, task: TrialTask) -> bool:
        """Retry or end a trial that reported a failure; return whether it did."""
        if task.trial_id in self._out_of_memory:
            self._retry_in_pieces(task)
        elif task.trial_id in self._failures:
            self._end(task, TrialStatus.FAILED, self._failures[task.trial_id])
        else:
            return False
        return True

    def _retry_in_pieces(self, task: TrialTask) -> None:
        """Run a trial that ran out of GPU memory again, with each batch in `_RETRY_PIECES` pieces."""
        self._out_of_memory.discard(task.trial_id)
        del self._failures[task.trial_id]
        message = (
            f"out of GPU memory at batch size {task.run.batch_size}; tried again with each batch in "
            f"{_RETRY_PIECES} pieces whose gradients add up (batch normalization sees the pieces); "
            f"log: {task.log_path}"
        )

        def handle() -> None:
            self._journal.retry(task.trial_id, accumulate=_RETRY_PIECES, note=message)
            self._observer.trial_noted(task.info(), message)
            self._queue.requeue(task.model_copy(update={"accumulate": _RETRY_PIECES}))

        self.running.discard(task.trial_id)
        self._guard(handle)

    def _end(self, task: TrialTask, status: TrialStatus, error: str | None) -> None:
        ledger = self._journal.ledger

        def handle() -> None:
            self._journal.ended(task.trial_id, status, error)
            accuracy = ledger.trials[task.trial_id].accuracy
            for listener in self._listeners:
                listener.ended(task.trial_id, status, accuracy)
            self._observer.trial_ended(task.info(), status, error=error)

        self.running.discard(task.trial_id)
        self._guard(handle)
        if self._max_failures is not None and len(ledger.failures(task.stage)) > self._max_failures:
            self.too_many_failures = True

    def _guard(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - raised again after Tune's loop has ended
            self.error = self.error or error

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its configuration for `Tuner.restore`, which this project does not use.
        return {}


def _task(trial: Any) -> TrialTask:
    return TrialTask.model_validate_json(trial.config["task"])


def _can_accumulate(task: TrialTask) -> bool:
    return task.accumulate == 1 and task.run.batch_size // task.workers >= _RETRY_PIECES


def _reason(trial: Any) -> str:
    """Return Ray's reason for the death of a trial's process on one line."""
    if not trial.error_file:
        return "no error was given"
    *_, last = Path(trial.error_file).read_text(encoding="utf-8").split("Failure # ")
    _, _, text = last.partition("\n")
    return " ".join(text.split())
