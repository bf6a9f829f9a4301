"""State of a running sweep for the console: counts, ranking, remaining time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from platform.tracking.events import (
    Stage,
    SweepInfo,
    SweepObserver,
    TrialInfo,
    TrialStatus,
    reported_accuracy,
)
from platform.tracking.parquet_tables import read_trials
from platform.tracking.sweep_folder import SweepFolder
from platform.training.records import EpochRecord


@dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """A running trial."""

    trial: TrialInfo
    started_s: float
    """Time on the clock of `SweepProgress`."""
    last: EpochRecord | None = None
    first_epoch: int = 0
    """Number of epochs done before this start of the sweep."""

    def fraction(self) -> float:
        """Return the share of epochs done, 0..1."""
        return self.last.epoch / self.last.epochs if self.last else 0.0


@dataclass(frozen=True, kw_only=True)
class EndedTrial:
    """An ended trial."""

    trial_id: str
    number: int
    status: TrialStatus
    accuracy: float | None
    epochs_done: int
    params: dict[str, str | int | float | bool]
    duration_s: float
    error: str | None = None


class SweepProgress(SweepObserver):
    """Tracks the trials of each stage; for a resumed sweep it starts from the tables in its folder."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.sweep: SweepInfo | None = None
        self.stage: Stage = "search"
        self.started_s = clock()
        self.running: dict[str, RunningTrial] = {}
        self.ended: dict[Stage, dict[str, EndedTrial]] = {"search": {}, "confirm": {}, "final": {}}
        self._accuracy: dict[str, float] = {}
        self._epochs: dict[str, int] = {}
        self._stage_started_s: dict[Stage, float] = {}
        self._ended_before = 0

    def sweep_started(self, sweep: SweepInfo) -> None:
        self.sweep = sweep
        for row in read_trials(SweepFolder(sweep.folder)):
            if row.validation_accuracy is not None:
                self._accuracy[row.trial_id] = row.validation_accuracy
            self._epochs[row.trial_id] = row.epochs_done
            if row.status not in (TrialStatus.RUNNING, TrialStatus.INTERRUPTED):
                self.ended[row.stage][row.trial_id] = EndedTrial(
                    trial_id=row.trial_id,
                    number=row.number,
                    status=row.status,
                    accuracy=row.validation_accuracy,
                    epochs_done=row.epochs_done,
                    params=dict(row.params),
                    duration_s=row.duration_s,
                    error=row.error,
                )
        self._ended_before = len(self.ended["search"])

    def trial_started(self, trial: TrialInfo) -> None:
        now = self._clock()
        self.stage = trial.stage
        self._stage_started_s.setdefault(trial.stage, now)
        self.running[trial.trial_id] = RunningTrial(
            trial=trial, started_s=now, first_epoch=self._epochs.get(trial.trial_id, 0)
        )

    def epoch_finished(self, trial: TrialInfo, record: EpochRecord) -> None:
        known = self.running.get(trial.trial_id)
        if known is None:
            self.trial_started(trial)
            known = self.running[trial.trial_id]
        self.running[trial.trial_id] = RunningTrial(
            trial=trial, started_s=known.started_s, last=record, first_epoch=known.first_epoch
        )
        self._epochs[trial.trial_id] = record.epoch
        accuracy = reported_accuracy(trial, record, self._accuracy.get(trial.trial_id))
        if accuracy is not None:
            self._accuracy[trial.trial_id] = accuracy

    def trial_ended(self, trial: TrialInfo, status: TrialStatus, *, error: str | None = None) -> None:
        now = self._clock()
        known = self.running.pop(trial.trial_id, None)
        self.ended[trial.stage][trial.trial_id] = EndedTrial(
            trial_id=trial.trial_id,
            number=trial.number,
            status=status,
            accuracy=self._accuracy.get(trial.trial_id),
            epochs_done=self._epochs.get(trial.trial_id, 0),
            params=dict(trial.params),
            duration_s=now - known.started_s if known else 0.0,
            error=error,
        )

    def accuracy(self, trial_id: str) -> float | None:
        """Return the current validation accuracy of a trial."""
        return self._accuracy.get(trial_id)

    def counts(self) -> Counter[TrialStatus]:
        """Return the number of ended search trials by status."""
        return Counter(ended.status for ended in self.ended["search"].values())

    def leaderboard(self) -> list[EndedTrial]:
        """Return the ended search trials that have an accuracy and did not fail, best first.

        Completed trials come before pruned ones.
        """
        ranked = [
            ended
            for ended in self.ended["search"].values()
            if ended.accuracy is not None and ended.status is not TrialStatus.FAILED
        ]
        return sorted(
            ranked,
            key=lambda ended: (
                ended.status is not TrialStatus.FINISHED,
                -(ended.accuracy or 0.0),
                ended.number,
            ),
        )

    def elapsed_s(self) -> float:
        """Return the seconds since this start of the sweep."""
        return self._clock() - self.started_s

    def search_eta_s(self) -> float | None:
        """Return the estimated remaining seconds of the search; None while unknown.

        The estimate extrapolates the trials done since this start, where running trials count by their share
        of epochs. It therefore includes the early stopping so far.
        """
        start = self._stage_started_s.get("search")
        if self.sweep is None or start is None or self.stage != "search":
            return None
        done = len(self.ended["search"]) - self._ended_before
        partly_done = sum(
            running.fraction() - _share(running.first_epoch, running.last)
            for running in self.running.values()
        )
        total_done = done + partly_done
        # The estimate is too noisy before a tenth of a trial is done.
        if total_done < 0.1:
            return None
        left = max(0.0, self.sweep.trials - self._ended_before - total_done)
        return (self._clock() - start) / total_done * left


def _share(epochs_done: int, last: EpochRecord | None) -> float:
    return min(1.0, epochs_done / last.epochs) if last else 0.0
