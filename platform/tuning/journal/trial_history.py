"""A sweep's journal, read as the past of each of its trials: what observers may have missed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from platform.tracking.events import TrialPast, TrialStatus
from platform.training.records import EpochRecord
from platform.tuning.journal.journal import Event
from platform.tuning.journal.trial import TrialTask


@dataclass
class _Told:
    task: TrialTask
    created_at: float | None
    records: list[EpochRecord] = field(default_factory=list)
    recorded_at: list[float | None] = field(default_factory=list)
    note: str | None = None
    end: tuple[TrialStatus, str | None, float | None] | None = None


def trial_pasts(events: Iterable[Event]) -> tuple[TrialPast, ...]:
    """Return each trial's past: those that have ended in that order, then the others as they were created.

    A confirmation run that failed and is tried again has ended until it reports its next epoch.
    """
    told: dict[str, _Told] = {}
    ended: dict[str, None] = {}
    for event in events:
        trial_id = event.trial_id
        if event.task is not None:
            told.setdefault(trial_id, _Told(event.task, event.at))
        elif trial_id not in told:
            continue
        elif event.record is not None:
            told[trial_id].records.append(event.record)
            told[trial_id].recorded_at.append(event.at)
            told[trial_id].end = None
            ended.pop(trial_id, None)
        elif event.accumulate is not None:
            told[trial_id].note = event.note
        elif event.status is not None:
            told[trial_id].end = (event.status, event.error, event.at)
            ended.pop(trial_id, None)
            ended[trial_id] = None
    order = [*ended, *(trial_id for trial_id in told if trial_id not in ended)]
    return tuple(_past(told[trial_id]) for trial_id in order)


def _past(told: _Told) -> TrialPast:
    status, error, ended_at = told.end or (None, None, None)
    return TrialPast(
        trial=told.task.info(),
        created_at=told.created_at,
        records=tuple(told.records),
        recorded_at=tuple(told.recorded_at),
        status=status,
        error=error,
        note=told.note,
        ended_at=ended_at,
    )
