"""End the search before its last trial once a limit is reached, and a trial before its last epoch.

The state of the limits is restored from the journal's events. A resumed search therefore continues with the
time it has already used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from platform.common.steady_clock import wall_time_s
from platform.common.text_format import percent
from platform.space.settings import Stop
from platform.tracking.events import TrialStatus
from platform.training.diagnostics.loss_rules import divergence
from platform.training.diagnostics.thresholds import Thresholds
from platform.training.records import EpochRecord
from platform.tuning.journal.event import Event

_HOUR_S = 3600.0
_PATIENCE_EPOCHS, _PATIENCE_SHARE = 4, 0.2
"""Epochs after which a trial must be better than a guess: a minimum, and a share of the run."""
_GUESS = 0.98


class StopCriteria:
    """The limits of a search, and the time and accuracy reached so far."""

    def __init__(
        self, settings: Stop, *, gpus_per_trial: float, clock: Callable[[], float] = wall_time_s
    ) -> None:
        """Start with no time used; `clock` returns seconds since 1970, as in the journal."""
        self._settings, self._gpus, self._clock = settings, gpus_per_trial, clock
        self._reset()

    def _reset(self) -> None:
        self._earlier_s, self._gpu_s = 0.0, 0.0
        self._began: float | None = None
        self._last: float | None = None
        """Time of the last event of a replayed session; None in the running one."""
        self._best: tuple[str, float] | None = None

    def replay(self, event: Event) -> None:
        """Apply one journaled event; the results of trials are passed to `ended`."""
        if event.kind == "extended":
            self._reset()
        elif event.kind == "begin":
            self._earlier_s += self._session_s()
            self._began = self._last = event.at
        else:
            self._last = event.at if self._began is not None else None
            if event.kind == "epoch" and event.record is not None:
                self.epoch(event.trial_id, event.record)

    def begin(self) -> None:
        """Start the clock of this session."""
        self._earlier_s += self._session_s()
        self._began, self._last = self._clock(), None

    def epoch(self, trial_id: str, record: EpochRecord) -> None:  # noqa: ARG002 - a TrialListener's signature
        """Add the GPU time of an epoch of any trial."""
        self._gpu_s += self._gpus * (record.epoch_s + record.evaluation_s)

    def ended(self, trial_id: str, status: TrialStatus, value: float | None) -> None:
        """Update the best result; `value` is the trial's validation accuracy, 0..1."""
        if status is not TrialStatus.FINISHED or value is None:
            return
        if self._best is None or value > self._best[1]:
            self._best = (trial_id, value)

    def reached(self) -> str | None:
        """Return which limit is reached, as text, or None."""
        limits, wall_h, gpu_h = self._settings, self.wall_s / _HOUR_S, self._gpu_s / _HOUR_S
        if limits.wall_hours is not None and wall_h >= limits.wall_hours:
            return f"stop.wall_hours: the search has taken {wall_h:.2f} h of {limits.wall_hours:g} h"
        if limits.gpu_hours is not None and gpu_h >= limits.gpu_hours:
            return f"stop.gpu_hours: the search has used {gpu_h:.2f} of {limits.gpu_hours:g} GPU hours"
        target = limits.target_accuracy
        if target is not None and self._best is not None and self._best[1] >= target:
            name, accuracy = self._best
            return (
                f"stop.target_accuracy: {name} reached {percent(accuracy)} on validation "
                f"(target: {100 * target:g} %)"
            )
        return None

    @property
    def wall_s(self) -> float:
        """Wall seconds of the search over all sessions; pauses between sessions do not count."""
        return self._earlier_s + self._session_s()

    def _session_s(self) -> float:
        if self._began is None:
            return 0.0
        end = self._last if self._last is not None else self._clock()
        return max(0.0, end - self._began)


def hopeless(records: Sequence[EpochRecord], *, classes: int) -> str | None:
    """Return why a running trial should end now, or None.

    A trial is hopeless if its loss has diverged and stayed there for a second epoch, since a spike recovers,
    or if it has not become better than a guess in a fifth of its epochs after the learning rate's peak.
    `python -m benchmarks.diagnostics` measures how many good runs this would end.
    """
    if not records:
        return None
    now, before = (divergence(part, classes, Thresholds()) for part in (records, records[:-1]))
    if now is not None and before is not None:
        return f"{now.name}: {now.evidence}"
    peak = max(range(len(records)), key=lambda number: records[number].lr)
    since = records[peak:]
    guess = _GUESS * math.log(classes)
    if len(since) <= max(_PATIENCE_EPOCHS, _PATIENCE_SHARE * records[-1].epochs):
        return None
    if all(min(record.train_loss, record.validation_loss or math.inf) >= guess for record in records):
        return (
            f"no better than a guess after {records[-1].epoch} epochs: training loss "
            f"{records[-1].train_loss:.3f}, a uniform guess has {math.log(classes):.3f}"
        )
    return None
