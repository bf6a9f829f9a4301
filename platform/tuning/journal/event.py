"""The events of a sweep's journal, and their form as JSON objects.

    {"event": "trial", "task": {...}}                    a trial was created (its complete TrialTask)
    {"event": "epoch", "trial": "t007", "record": {...}}
    {"event": "ended", "trial": "t007", "status": "pruned", "error": null}
    {"event": "retry", "trial": "t007", "accumulate": 2, "note": "..."}  retried with batches in pieces
    {"event": "begin"}                                   the search started or resumed
    {"event": "stopped", "note": "..."}                  the search ended before its last trial, and why
    {"event": "limited", "limits": {"trials": 3}, "note": "..."}  fewer runs than planned, to end in time
    {"event": "extended", "note": "..."}                 the user requested more trials

Every object also has `at`, the time at which it was written, in seconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from platform.tracking.events import TrialStatus
from platform.training.records import EpochRecord
from platform.tuning.journal.trial import TrialTask

Kind = Literal["trial", "epoch", "ended", "retry", "begin", "stopped", "limited", "extended"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of the journal. Fields that do not belong to the event's kind are None."""

    kind: Kind
    trial_id: str = ""
    """Empty for events of the whole search."""
    task: TrialTask | None = None
    record: EpochRecord | None = None
    status: TrialStatus | None = None
    error: str | None = None
    accumulate: int | None = None
    """Pieces of a batch from here on."""
    note: str | None = None
    limits: dict[str, int] | None = None
    """Upper limits of a time budget: `trials`, or `runs` of the confirmation."""
    at: float
    """Seconds since 1970."""

    def as_dict(self) -> dict[str, Any]:
        """Return the event as a JSON object."""
        line: dict[str, Any] = {"event": self.kind}
        if self.task is not None:
            line["task"] = self.task.model_dump(mode="json")
        elif self.trial_id:
            line["trial"] = self.trial_id
        if self.record is not None:
            line["record"] = self.record.as_dict()
        if self.status is not None:
            line |= {"status": str(self.status), "error": self.error}
        if self.accumulate is not None:
            line["accumulate"] = self.accumulate
        if self.note is not None:
            line["note"] = self.note
        if self.limits is not None:
            line["limits"] = self.limits
        return line | {"at": self.at}


def event_from(line: dict[str, Any]) -> Event:
    """Return the event that a JSON object describes.

    Raises:
        KeyError, TypeError, ValueError: the object is not an event.
    """
    kind, at = line["event"], line["at"]
    if kind == "trial":
        task = TrialTask.model_validate(line["task"])
        return Event(kind=kind, trial_id=task.trial_id, task=task, at=at)
    if kind == "epoch":
        return Event(kind=kind, trial_id=line["trial"], record=EpochRecord(**line["record"]), at=at)
    if kind == "ended":
        status = TrialStatus(line["status"])
        return Event(kind=kind, trial_id=line["trial"], status=status, error=line["error"], at=at)
    if kind == "retry":
        pieces, note = line["accumulate"], line["note"]
        return Event(kind=kind, trial_id=line["trial"], accumulate=pieces, note=note, at=at)
    if kind in ("begin", "stopped", "limited", "extended"):
        return Event(kind=kind, note=line.get("note"), limits=line.get("limits"), at=at)
    raise ValueError(f"unknown event {kind!r}")
