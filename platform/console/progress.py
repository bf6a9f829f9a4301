"""State of a running sweep for the console: counts, ranking, rungs, remaining time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from platform.console.remaining_time import (
    HAND_OVER,
    STAGES,
    RemainingTime,
    StageProgress,
    remaining_time,
)
from platform.tracking.events import (
    Stage,
    SweepInfo,
    SweepObserver,
    TrialInfo,
    TrialStatus,
    reported_accuracy,
)
from platform.tracking.parquet_tables import TrialRow, read_trials
from platform.tracking.sweep_folder import SweepFolder
from platform.training.records import EpochRecord


@dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """A running trial."""

    trial: TrialInfo
    started_s: float
    """Time on the clock of `SweepProgress`."""
    last: EpochRecord | None = None
    last_s: float
    """Time of its start or last epoch on the same clock."""
    epochs: int
    """Epochs of the run; 0 while they are unknown."""
    first_epoch: int = 0
    """Number of epochs done before this start of the sweep."""

    def fraction(self, now_s: float, epoch_s: float = 0.0) -> float:
        """Return the share of epochs done, 0..1; `epoch_s` is expected of an epoch until one is measured."""
        epoch = self.last.epoch if self.last else self.first_epoch
        if self.last is not None:
            epoch_s = self.last.epoch_s + self.last.evaluation_s
        part = min(0.95, (now_s - self.last_s) / epoch_s) if epoch_s > 0 else 0.0
        return min(1.0, (epoch + part) / self.epochs) if self.epochs else 0.0


@dataclass(frozen=True, kw_only=True)
class EndedTrial:
    """An ended trial."""

    trial_id: str
    number: int
    candidate: str | None = None
    """In the confirmation: the search trial that is retrained."""
    status: TrialStatus
    accuracy: float | None
    epochs_done: int
    params: dict[str, str | int | float | bool]
    duration_s: float
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rung:
    """An epoch after which the scheduler may stop trials."""

    epoch: int
    reached: int
    """Trials that trained up to it."""
    stopped: int
    """Trials that were stopped at it."""


class Confirmed(NamedTuple):
    """A candidate with finished confirmation runs."""

    n: int
    """Number of those runs."""
    mean: float
    """Expected validation accuracy, 0..1, from all complete runs of the sweep."""
    margin: float
    """Half the width of its 95 % interval."""


class SweepProgress(SweepObserver):
    """Tracks the trials of each stage; for a resumed sweep it starts from the tables in its folder."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.sweep: SweepInfo | None = None
        self._plan: Mapping[str, Any] = {}
        self.stage: Stage = "search"
        self.started_s = clock()
        self.running: dict[str, RunningTrial] = {}
        self.ended: dict[Stage, dict[str, EndedTrial]] = {stage: {} for stage in STAGES}
        self.confirmed: dict[str, Confirmed] = {}
        """The expected accuracies by candidate, from the runs that have finished so far."""
        self._hand_over: tuple[str, float] | None = None
        self._earlier_s = 0.0
        self._accuracy: dict[str, float] = {}
        self._epochs: dict[str, int] = {}
        self._stages: dict[Stage, StageProgress] = {}
        self._stage_started_s: dict[Stage, float] = {}

    def sweep_started(self, sweep: SweepInfo) -> None:
        self.sweep, self._plan = sweep, sweep.plan
        folder = SweepFolder(sweep.folder)
        self._earlier_s = folder.elapsed_s()
        done_before = dict.fromkeys(STAGES, 0.0)
        for row in read_trials(folder):
            ended = row.status not in (TrialStatus.RUNNING, TrialStatus.INTERRUPTED)
            done_before[row.stage] += 1 if ended else row.epochs_done / (row.epochs_planned or 1)
            if row.validation_accuracy is not None:
                self._accuracy[row.trial_id] = row.validation_accuracy
            self._epochs[row.trial_id] = row.epochs_done
            if ended:
                self._add_ended(row, row.status, row.error, duration_s=row.duration_s)
            self.stage = row.stage  # the rows are in the order of the stages
        self._summarize()
        for stage in STAGES:
            planned, estimate = self.plan_of(stage), (self._plan.get("estimate") or {}).get(stage) or {}
            self._stages[stage] = StageProgress(
                runs=sweep.trials if stage == "search" else planned.get("runs", 1),
                slots=planned.get("concurrency", 1),
                done_before=done_before[stage],
                epoch_s=estimate.get("epoch_s", 0.0),
            )

    def trial_started(self, trial: TrialInfo) -> None:
        now = self.clock()
        self.stage = trial.stage
        self._stage_started_s.setdefault(trial.stage, now)
        self.running[trial.trial_id] = RunningTrial(
            trial=trial,
            started_s=now,
            last_s=now,
            first_epoch=self._epochs.get(trial.trial_id, 0),
            epochs=trial.config.epochs or self.plan_of(trial.stage).get("epochs", 0),
        )

    def epoch_finished(self, trial: TrialInfo, record: EpochRecord) -> None:
        known = self.running.get(trial.trial_id)
        if known is None:
            self.trial_started(trial)
            known = self.running[trial.trial_id]
        self.running[trial.trial_id] = replace(known, last=record, last_s=self.clock(), epochs=record.epochs)
        self._epochs[trial.trial_id] = record.epoch
        accuracy = reported_accuracy(trial, record, self._accuracy.get(trial.trial_id))
        if accuracy is not None:
            self._accuracy[trial.trial_id] = accuracy
        state = self._stages.get(trial.stage)
        if state is not None:
            took_s = record.epoch_s + record.evaluation_s + (record.overhead_s or 0.0)
            self._stages[trial.stage] = replace(
                state, measured_s=state.measured_s + took_s, planned_s=state.planned_s + state.epoch_s
            )

    def trial_ended(self, trial: TrialInfo, status: TrialStatus, *, error: str | None = None) -> None:
        now = self.clock()
        known = self.running.pop(trial.trial_id, None)
        if status is TrialStatus.INTERRUPTED:
            return
        self._add_ended(trial, status, error, duration_s=now - known.started_s if known else 0.0)
        if trial.stage == "confirm":
            self._summarize()

    def _add_ended(
        self, trial: TrialInfo | TrialRow, status: TrialStatus, error: str | None, *, duration_s: float
    ) -> None:
        self.ended[trial.stage][trial.trial_id] = EndedTrial(
            trial_id=trial.trial_id,
            number=trial.number,
            candidate=trial.candidate,
            status=status,
            accuracy=self._accuracy.get(trial.trial_id),
            epochs_done=self._epochs.get(trial.trial_id, 0),
            params=dict(trial.params),
            duration_s=duration_s,
            error=error,
        )

    def phase_started(self, text: str) -> None:
        """Note the start of a phase, if it is one of the hand-over."""
        phase = next((phase for phase in HAND_OVER if text.startswith(phase)), None)
        if phase is not None:
            self._hand_over = (phase, self.clock())

    @property
    def hand_over(self) -> str | None:
        """The current or last phase of the hand-over; None before the first one."""
        return self._hand_over[0] if self._hand_over else None

    def has_started(self, stage: Stage) -> bool:
        """Return whether a run of the stage has started since this start of the sweep."""
        return stage in self._stage_started_s

    def runs_of(self, stage: Stage) -> int | None:
        """Return the number of planned runs of a stage; None if it is unknown."""
        return self._stages[stage].runs if stage in self._stages else None

    def plan_of(self, stage: Stage) -> Mapping[str, Any]:
        """Return the plan of a stage; empty if it is unknown."""
        return self._plan.get(stage) or {}

    def accuracy(self, trial_id: str) -> float | None:
        """Return the current validation accuracy of a trial."""
        return self._accuracy.get(trial_id)

    def counts(self) -> Counter[TrialStatus]:
        """Return the number of ended search trials by status."""
        return Counter(ended.status for ended in self.ended["search"].values())

    def leaderboard(self) -> list[EndedTrial]:
        """Return the ended search trials that have an accuracy and did not fail, best first.

        Confirmed trials come before completed ones, and those before pruned ones.
        """
        ranked = [
            ended
            for ended in self.ended["search"].values()
            if ended.accuracy is not None and ended.status is not TrialStatus.FAILED
        ]
        return sorted(
            ranked,
            key=lambda ended: (
                self._confirmed_rank(ended.trial_id),
                ended.status is not TrialStatus.FINISHED,
                -(ended.accuracy or 0.0),
                ended.number,
            ),
        )

    def _confirmed_rank(self, trial_id: str) -> float:
        """Return the rank among the confirmed candidates, which is that of the choice of the champion."""
        return -self.confirmed[trial_id].mean if trial_id in self.confirmed else 0.0

    def rungs(self) -> list[Rung]:
        """Return the rungs that a trial has reached."""
        search = list(self.ended["search"].values())
        trained = [ended.epochs_done for ended in search]
        trained += [
            running.last.epoch
            for running in self.running.values()
            if running.last is not None and running.trial.stage == "search"
        ]
        stopped = Counter(ended.epochs_done for ended in search if ended.status is TrialStatus.PRUNED)
        rungs = [
            Rung(epoch=epoch, reached=sum(done >= epoch for done in trained), stopped=stopped[epoch])
            for epoch in self._plan.get("rungs") or ()
        ]
        return [rung for rung in rungs if rung.reached]

    def elapsed_s(self) -> float:
        """Return the seconds that the sweep has run, over all starts."""
        return self._earlier_s + self.clock() - self.started_s

    def budget_s(self) -> float | None:
        """Return the time budget of the sweep; None without one."""
        within = self._plan.get("within")
        return float(within["budget_s"]) if within and not within.get("lifted") else None

    def remaining_time(self) -> RemainingTime | None:
        """Return the estimated remaining time; None while it is unknown."""
        if not self._stages:
            return None
        now = self.clock()
        phase, phase_s = self._hand_over or (None, now)
        stages = {stage: self._stage_progress(stage, now) for stage in STAGES}
        return remaining_time(
            self._plan.get("estimate"), stages, stage=self.stage, hand_over=phase, hand_over_s=now - phase_s
        )

    def _stage_progress(self, stage: Stage, now: float) -> StageProgress:
        state = self._stages[stage]
        running = [running for running in self.running.values() if running.trial.stage == stage]
        return replace(
            state,
            done=(
                *(1.0 for _ in self.ended[stage]),
                *(trial.fraction(now, state.epoch_s) for trial in running),
            ),
            elapsed_s=now - self._stage_started_s.get(stage, now),
        )

    def _summarize(self) -> None:
        """Update the expected accuracies of the candidates."""
        if not self.ended["confirm"]:
            return
        from platform.tuning.selection.champion import Recipe, estimate

        accuracies: dict[str, list[float]] = {}
        confirmed = Counter[str | None]()
        for run in (*self.ended["search"].values(), *self.ended["confirm"].values()):
            if run.status is TrialStatus.FINISHED and run.accuracy is not None:
                accuracies.setdefault(run.candidate or run.trial_id, []).append(run.accuracy)
                confirmed[run.candidate] += 1
        recipes = [
            Recipe(trial_id=name, searched=None, confirmed=tuple(values))
            for name, values in accuracies.items()
        ]
        for name, found in estimate(recipes).items():
            if confirmed[name]:
                low, high = found.interval95
                self.confirmed[name] = Confirmed(confirmed[name], found.mean, (high - low) / 2)
