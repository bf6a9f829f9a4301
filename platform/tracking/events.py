"""What happens in a sweep, as records, and who may listen.

The sweep's driver is the only process that calls observers: one writer for MLflow, the tables and
the console. An observer never raises for a fault of its own store in the middle of a sweep without
having kept the data somewhere: a lost metric is worse than a late one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from platform.training.config import RunConfig
from platform.training.records import EpochRecord

Stage = Literal["search", "confirm", "final"]


class TrialStatus(StrEnum):
    """How a trial stands."""

    RUNNING = "running"
    FINISHED = "finished"
    PRUNED = "pruned"
    """Stopped early by the scheduler."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """The user stopped the sweep; `--resume` goes on."""


@dataclass(frozen=True, kw_only=True)
class TrialInfo:
    """One training run of a sweep."""

    trial_id: str
    """Stable over resumes: `t007` (search), `c1-s0` (confirmation of candidate 1, seed 0), `final`."""
    stage: Stage
    number: int
    """Order of creation, from 0, within its stage."""
    config: RunConfig
    params: Mapping[str, str | int | float | bool]
    """The searched settings, flat (`optimizer`, `optimizer.sgd.lr`, ...): the axes of every comparison."""
    candidate: str | None = None
    """In the confirmation: the search trial whose configuration is repeated."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """What its network costs, by objective (`parameters`, `latency_ms`, ...); empty where none counts."""


@dataclass(frozen=True, kw_only=True)
class TrialPast:
    """What the journal knows of a trial when its sweep goes on: an observer adds what it has not seen."""

    trial: TrialInfo
    created_at: float | None
    """Seconds since 1970, as all times here; None in journals of before there were times."""
    records: tuple[EpochRecord, ...]
    """Its epochs, in order."""
    recorded_at: tuple[float | None, ...]
    """When each of them was noted."""
    status: TrialStatus | None
    """How it ended; None if it goes on."""
    error: str | None
    note: str | None
    """What `trial_noted` told."""
    ended_at: float | None


@dataclass(frozen=True, kw_only=True)
class SweepInfo:
    """A sweep that starts."""

    sweep_id: str
    """`<space>-<yyyymmdd-hhmmss>`, the name of its folder under runs/."""
    space: str
    folder: Path
    command: str
    """The command line that repeats it."""
    plan: Mapping[str, Any]
    """The resolved plan, as in plan.json."""
    tags: Mapping[str, str]
    """Provenance: git commit, versions, hardware, data label and hash, `quick`, `generated_data`."""
    trials: int
    """Search trials planned."""
    past: Sequence[TrialPast] = ()
    """Of a sweep that goes on: its trials in the order in which they ended, then those that have not. It may
    have died after the journal's line of an event and before the observers were told."""


@dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    """How a sweep ended."""

    status: Literal["finished", "failed", "interrupted"]
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Final scalars: `test/accuracy`, `champion/validation_accuracy_mean`, `ncnn/latency_ms_p50`, ..."""
    message: str = ""


class SweepObserver:
    """A listener; every method does nothing unless overridden (a null object)."""

    def sweep_started(self, sweep: SweepInfo) -> None:
        """Called once, before the first trial, and again after a resume."""

    def trial_started(self, trial: TrialInfo) -> None:
        """Called when a trial gets its slot, and again when it continues after a resume."""

    def epoch_finished(self, trial: TrialInfo, record: EpochRecord) -> None:
        """Called for each epoch of each trial, in order within a trial."""

    def trial_noted(self, trial: TrialInfo, note: str) -> None:
        """Called when something is worth knowing of a trial that goes on: it ran out of GPU memory, say."""

    def trial_ended(self, trial: TrialInfo, status: TrialStatus, *, error: str | None = None) -> None:
        """Called once per trial; `error` is the traceback and the log's path of a failed one."""

    def trials_diagnosed(self, findings: Mapping[str, Sequence[str]]) -> None:
        """Called when all runs have ended: by trial, the names of the phenomena that its curves show."""

    def artifact_written(self, path: Path, *, name: str) -> None:
        """Called when a file or folder worth keeping with the sweep exists (export, benchmark, report)."""

    def sweep_ended(self, outcome: SweepOutcome) -> None:
        """Called last, also after a failure or an interruption."""


class Observers(SweepObserver):
    """Several observers as one."""

    def __init__(self, observers: Sequence[SweepObserver]) -> None:
        self._observers = tuple(observers)

    def sweep_started(self, sweep: SweepInfo) -> None:
        for observer in self._observers:
            observer.sweep_started(sweep)

    def trial_started(self, trial: TrialInfo) -> None:
        for observer in self._observers:
            observer.trial_started(trial)

    def epoch_finished(self, trial: TrialInfo, record: EpochRecord) -> None:
        for observer in self._observers:
            observer.epoch_finished(trial, record)

    def trial_noted(self, trial: TrialInfo, note: str) -> None:
        for observer in self._observers:
            observer.trial_noted(trial, note)

    def trial_ended(self, trial: TrialInfo, status: TrialStatus, *, error: str | None = None) -> None:
        for observer in self._observers:
            observer.trial_ended(trial, status, error=error)

    def trials_diagnosed(self, findings: Mapping[str, Sequence[str]]) -> None:
        for observer in self._observers:
            observer.trials_diagnosed(findings)

    def artifact_written(self, path: Path, *, name: str) -> None:
        for observer in self._observers:
            observer.artifact_written(path, name=name)

    def sweep_ended(self, outcome: SweepOutcome) -> None:
        for observer in self._observers:
            observer.sweep_ended(outcome)
