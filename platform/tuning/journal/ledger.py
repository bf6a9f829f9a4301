"""The state of a sweep's trials, replayed from its journal.

`Ledger.apply` is the only code that interprets an event. A running sweep applies each event after writing it
(`platform.tuning.journal.journal.Journal`); `replay` applies the events of a file. Both give the same state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from platform.tracking.events import Stage, TrialHistory, TrialStatus, reported_accuracy
from platform.tuning.journal.event import Event
from platform.tuning.journal.trial import TrialTask


@dataclass(kw_only=True)
class JournaledTrial(TrialHistory):
    """One trial as the journal describes it."""

    task: TrialTask
    """With `accumulate` of the last retry."""

    @property
    def accuracy(self) -> float | None:
        """Validation accuracy so far, 0..1 (see `reported_accuracy`)."""
        accuracy: float | None = None
        for record in self.records:
            accuracy = reported_accuracy(self.trial, record, accuracy)
        return accuracy

    @property
    def completed(self) -> bool:
        """Whether the trial ran all epochs, so that its accuracy is comparable."""
        return self.status is TrialStatus.FINISHED and self.accuracy is not None


class Ledger:
    """All trials of a sweep and the state of its search."""

    def __init__(self) -> None:
        self.trials: dict[str, JournaledTrial] = {}
        """By trial id, in order of creation."""
        self.stop_reason: str | None = None
        """Why the search ended before its last trial; None if it did not."""
        self.limits: dict[str, int] = {}
        """Upper limits that the time budget set: `trials`, and `runs` of the confirmation."""
        self.limit_notes: list[str] = []
        """The reasons of the limits, in order."""
        self.confirmed_before = 0
        """Confirmation runs before the last extension of the sweep."""
        self._ended: dict[str, None] = {}  # an ordered set

    def apply(self, event: Event) -> None:
        """Change the state by one event. Events of unknown trials are ignored."""
        if event.kind == "stopped":
            self.stop_reason = event.note
        elif event.kind == "limited":
            self.limits |= event.limits or {}
            self.limit_notes.append(event.note or "")
        elif event.kind == "extended":
            self.stop_reason, self.limits = None, {}
            self.confirmed_before = len(self.stage("confirm"))
        elif event.task is not None:
            self.trials.setdefault(
                event.trial_id, JournaledTrial(trial=event.task.info(), task=event.task, created_at=event.at)
            )
        elif event.trial_id in self.trials:
            self._apply_to(self.trials[event.trial_id], event)

    def _apply_to(self, trial: JournaledTrial, event: Event) -> None:
        if event.record is not None:
            trial.records.append(event.record)
            trial.recorded_at.append(event.at)
            # A failed confirmation run that is tried again counts as ended until its next epoch.
            self._set_end(trial, None, None, None)
        elif event.accumulate is not None:
            trial.task = trial.task.model_copy(update={"accumulate": event.accumulate})
            trial.note = event.note
        elif event.status is not None:
            self._set_end(trial, event.status, event.error, event.at)

    def _set_end(
        self, trial: JournaledTrial, status: TrialStatus | None, error: str | None, at: float | None
    ) -> None:
        trial.status, trial.error, trial.ended_at = status, error, at
        self._ended.pop(trial.task.trial_id, None)
        if status is not None:
            self._ended[trial.task.trial_id] = None

    def stage(self, stage: Stage) -> list[JournaledTrial]:
        """Return the trials of a stage in order of creation."""
        return [trial for trial in self.trials.values() if trial.task.stage == stage]

    def epochs_known(self, trial_id: str) -> int:
        """Return how many epochs of a trial were journaled."""
        return len(self.trials[trial_id].records) if trial_id in self.trials else 0

    def failures(self, stage: Stage) -> list[JournaledTrial]:
        """Return the failed trials of a stage in the order in which they failed."""
        ended = (self.trials[trial_id] for trial_id in self._ended)
        return [trial for trial in ended if trial.status is TrialStatus.FAILED and trial.task.stage == stage]

    def histories(self) -> tuple[TrialHistory, ...]:
        """Return the history of each trial: ended trials in the order of their ends, then the others."""
        order = [*self._ended, *(trial_id for trial_id in self.trials if trial_id not in self._ended)]
        return tuple(self.trials[trial_id] for trial_id in order)


def replay(events: Iterable[Event]) -> Ledger:
    """Return the state after `events`."""
    ledger = Ledger()
    for event in events:
        ledger.apply(event)
    return ledger
