"""Events of a sweep, and the interface of the observers that record or display them.

Only the driver process of the sweep calls observers, so MLflow, the tables and the console each have one
writer. An observer whose store fails during a sweep keeps the data and writes it later; it does not raise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from platform.common.text_format import sweep_warnings
from platform.training.config import RunConfig
from platform.training.records import EpochRecord

Stage = Literal["search", "confirm", "final"]


class TrialStatus(StrEnum):
    """State of a trial."""

    RUNNING = "running"
    FINISHED = "finished"
    PRUNED = "pruned"
    """Stopped early by the scheduler."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """The user stopped the sweep; `--resume` continues the trial."""


@dataclass(frozen=True, kw_only=True)
class TrialInfo:
    """One training run of a sweep."""

    trial_id: str
    """Unchanged by a resume: `t007` (search), `c1-s0` (confirmation of candidate 1, seed 0), `final`."""
    stage: Stage
    number: int
    """Order of creation, from 0, within its stage."""
    config: RunConfig
    params: Mapping[str, str | int | float | bool]
    """The searched settings, flat: `optimizer`, `optimizer.sgd.lr`, ..."""
    candidate: str | None = None
    """In the confirmation: the search trial that is retrained."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Cost of the network by objective (`parameters`, `latency_ms`, ...); empty for accuracy alone."""


def reported_accuracy(trial: TrialInfo, record: EpochRecord, previous: float | None) -> float | None:
    """Return the validation accuracy of a trial after an epoch: of this epoch, or of the best one so far.

    Args:
        trial: its configuration selects the epoch (`report: last` or `best`).
        record: the epoch.
        previous: the result after the epoch before.
    """
    accuracy = record.validation_accuracy
    if accuracy is None:
        return previous
    return max(accuracy, previous or 0.0) if trial.config.report == "best" else accuracy


@dataclass(kw_only=True)
class TrialHistory:
    """The journal's record of a trial. When its sweep is resumed, observers add the events they missed."""

    trial: TrialInfo
    created_at: float
    """Seconds since 1970, like all times here."""
    records: list[EpochRecord] = field(default_factory=list)
    """Its epochs, in order."""
    recorded_at: list[float] = field(default_factory=list)
    """The time of each epoch's journal entry."""
    status: TrialStatus | None = None
    """Status at the trial's end; None while it runs or waits."""
    error: str | None = None
    note: str | None = None
    """The last note from `trial_noted`."""
    ended_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class SweepInfo:
    """A sweep that starts or resumes."""

    sweep_id: str
    """`<space>-<yyyymmdd-hhmmss>`, the name of the sweep's folder under runs/."""
    space: str
    folder: Path
    command: str
    """The command line that repeats it."""
    plan: Mapping[str, Any]
    """The resolved plan, as in plan.json."""
    tags: Mapping[str, str]
    """Provenance: git commit, versions, hardware, data label and hash, `quick`, `generated_data`."""
    trials: int
    """Number of planned search trials."""
    history: Sequence[TrialHistory] = ()
    """For a resumed sweep: the ended trials in the order of their ends, then the others.

    The earlier process may have died between writing an event to the journal and calling the observers.
    """

    @property
    def warnings(self) -> list[str]:
        """Warnings that apply to the accuracies of the sweep."""
        quick, generated = (self.tags.get(tag) == "true" for tag in ("quick", "generated_data"))
        return sweep_warnings(quick=quick, generated=generated)


@dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    """Outcome of a sweep."""

    status: Literal["finished", "failed", "interrupted"]
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Final metrics: `test/accuracy`, `champion/validation_accuracy_mean`, `ncnn/int8_test_accuracy`, ..."""
    message: str = ""


class SweepObserver:
    """Interface of an observer; by default every method does nothing."""

    def sweep_started(self, sweep: SweepInfo) -> None:
        """Called before the first trial, and again after a resume."""

    def trial_started(self, trial: TrialInfo) -> None:
        """Called when a trial starts, and again when it continues after a resume."""

    def epoch_finished(self, trial: TrialInfo, record: EpochRecord) -> None:
        """Called for each epoch of each trial, in order within a trial."""

    def trial_noted(self, trial: TrialInfo, note: str) -> None:
        """Called with a note about a running trial, for example that it ran out of GPU memory."""

    def sweep_noted(self, note: str) -> None:
        """Called with a note about the sweep, for example that a node has left or the search ends early."""

    def trial_ended(self, trial: TrialInfo, status: TrialStatus, *, error: str | None = None) -> None:
        """Called once per trial; `error` is the traceback and the log path of a failed trial."""

    def trials_diagnosed(self, findings: Mapping[str, Sequence[str]]) -> None:
        """Called after all runs with the names of the diagnostics findings of each trial."""

    def artifact_written(self, path: Path) -> None:
        """Called when a file has been written that belongs to the sweep's results, such as the report."""

    def stop_requested(self) -> bool:
        """Called in the handler of the first Ctrl-C, so it may only set a flag.

        Returns:
            Whether this observer shows that the sweep is stopping.
        """
        return False

    def sweep_ended(self, outcome: SweepOutcome) -> None:
        """Called at the end of the sweep, also after a failure or an interruption."""


class Observers(SweepObserver):
    """Forwards each event to several observers."""

    def __init__(self, observers: Sequence[SweepObserver]) -> None:
        self._observers = tuple(observers)


def _forward(event: str) -> Callable[..., bool]:
    def forward(self: Observers, *arguments: Any, **options: Any) -> bool:
        answers = [getattr(observer, event)(*arguments, **options) for observer in self._observers]
        return any(answers)

    return forward


for _event in [name for name in vars(SweepObserver) if not name.startswith("_")]:
    setattr(Observers, _event, _forward(_event))
