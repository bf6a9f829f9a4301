"""When a search ends before its last trial: an allowance is used up, or the target is reached.

The journal is the memory: fed with its events in order, a resumed search has used what it had used, and a
search that was stopped stays stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from platform.space.settings import Stop
from platform.tracking.events import TrialStatus
from platform.training.records import EpochRecord
from platform.tuning.journal.journal import Event

_HOUR_S = 3600.0


def stop_reason(past: Iterable[Event]) -> str | None:
    """Return why a search ended before its last trial, from its journal; None if it did not."""
    reason = None
    for event in past:
        if event.kind == "stopped":
            reason = event.note
        elif event.kind == "extended":
            reason = None
    return reason


class Stops:
    """What a search has used so far, against what it may use."""

    def __init__(
        self, settings: Stop, *, gpus_per_trial: float, clock: Callable[[], float] = time.time
    ) -> None:
        """Begin with nothing used.

        Args:
            settings: the limits.
            gpus_per_trial: GPUs of all workers of one trial.
            clock: seconds since 1970, as in the journal.
        """
        self._settings, self._gpus, self._clock = settings, gpus_per_trial, clock
        self._forget()

    def _forget(self) -> None:
        self._earlier_s, self._gpu_s = 0.0, 0.0
        self._began: float | None = None
        self._last: float | None = None
        self._best: tuple[str, float] | None = None
        self.reason: str | None = None
        """Why the search was stopped; None if it was not."""

    def replay(self, event: Event) -> None:
        """Learn one event of the search's past; how trials ended is told with `ended`."""
        if event.kind == "extended":
            self._forget()
        elif event.kind == "begin":
            self._earlier_s += self._life_s()
            self._began = self._last = event.at
        elif event.kind == "stopped":
            self.reason = event.note or "the search was stopped"
        else:
            self._last = event.at if self._began is not None else None
            if event.kind == "epoch" and event.record is not None:
                self.epoch(event.trial_id, event.record)

    def begin(self) -> None:
        """Start this life's clock."""
        self._earlier_s += self._life_s()
        self._began, self._last = self._clock(), None

    def epoch(self, trial_id: str, record: EpochRecord) -> None:  # noqa: ARG002 - a learner's signature
        """Count an epoch of any trial of the search."""
        self._gpu_s += self._gpus * (record.epoch_s + record.evaluation_s)

    def ended(self, trial_id: str, status: TrialStatus, value: float | None) -> None:
        """Learn how a trial ended; `value` is its validation accuracy, 0..1."""
        if status is not TrialStatus.FINISHED or value is None:
            return
        if self._best is None or value > self._best[1]:
            self._best = (trial_id, value)

    def reached(self) -> str | None:
        """Return why no more trials should be drawn, or None."""
        if self.reason is not None:
            return self.reason
        limits, used_h, gpu_h = self._settings, self.wall_s / _HOUR_S, self._gpu_s / _HOUR_S
        if limits.wall_hours is not None and used_h >= limits.wall_hours:
            return f"stop.wall_hours: the search has taken {used_h:.2f} h of {limits.wall_hours:g} h"
        if limits.gpu_hours is not None and gpu_h >= limits.gpu_hours:
            return f"stop.gpu_hours: the search has used {gpu_h:.2f} GPU hours of {limits.gpu_hours:g}"
        target = limits.target_accuracy
        if target is not None and self._best is not None and self._best[1] >= target:
            name, accuracy = self._best
            return (
                f"stop.target_accuracy: {name} reached {100 * accuracy:.2f} % on validation, "
                f"{100 * target:g} % were asked for"
            )
        return None

    @property
    def wall_s(self) -> float:
        """Wall seconds of the search, those of earlier lives included."""
        return self._earlier_s + self._life_s()

    def _life_s(self) -> float:
        if self._began is None:
            return 0.0
        end = self._last if self._last is not None else self._clock()
        return max(0.0, end - self._began)
