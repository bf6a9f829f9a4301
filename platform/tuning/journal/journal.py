"""The sweep's journal: every decision in the order it was taken, one JSON object a line.

    {"event": "trial", "task": {...}}                    a trial was created (its complete TrialTask)
    {"event": "epoch", "trial": "t007", "record": {...}}
    {"event": "ended", "trial": "t007", "status": "pruned", "error": null}
    {"event": "retry", "trial": "t007", "accumulate": 2, "note": "..."}  it goes on with smaller pieces
    {"event": "begin"}                                   the search began, or went on after an interruption
    {"event": "stopped", "note": "..."}                  the search is over before its last trial, and why
    {"event": "extended", "note": "..."}                 the user asked for more trials

Every line also has `at`, the time it was written, in seconds since 1970.

Each line is on disk before the sweep goes on, so replaying the file rebuilds the sampler, the scheduler's
rungs and the list of what is still to do, after any kind of death. `Tuner.restore` cannot: it forgets the
rungs and counts iterations, not epochs. A half-written last line (the machine died) is dropped.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from platform.errors import UserError
from platform.tracking.events import TrialStatus
from platform.training.records import EpochRecord
from platform.tuning.journal.trial import TrialTask

Kind = Literal["trial", "epoch", "ended", "retry", "begin", "stopped", "extended"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line; the fields that its kind does not have are None."""

    kind: Kind
    trial_id: str = ""
    """Empty for what concerns the whole search."""
    task: TrialTask | None = None
    record: EpochRecord | None = None
    status: TrialStatus | None = None
    error: str | None = None
    accumulate: int | None = None
    """Pieces of a batch from here on."""
    note: str | None = None
    at: float | None = None
    """Seconds since 1970; None in journals of before there were times."""


class Journal:
    """The open journal of a sweep; one process holds it at a time."""

    def __init__(self, path: Path, fd: int, events: tuple[Event, ...]) -> None:
        self.path = path
        self.past = events
        """What was in the file when it was opened."""
        self._fd = fd

    def trial(self, task: TrialTask) -> None:
        """Note a new trial."""
        self._append({"event": "trial", "task": task.model_dump(mode="json")})

    def epoch(self, trial_id: str, record: EpochRecord) -> None:
        """Note a finished epoch."""
        self._append({"event": "epoch", "trial": trial_id, "record": record.as_dict()})

    def ended(self, trial_id: str, status: TrialStatus, error: str | None) -> None:
        """Note the end of a trial. An interruption is no end: what has none is continued on resume."""
        self._append({"event": "ended", "trial": trial_id, "status": str(status), "error": error})

    def retry(self, trial_id: str, *, accumulate: int, note: str) -> None:
        """Note that a trial that ran out of memory goes on with each batch in `accumulate` pieces."""
        self._append({"event": "retry", "trial": trial_id, "accumulate": accumulate, "note": note})

    def begin(self) -> None:
        """Note that the search begins, or goes on."""
        self._append({"event": "begin"})

    def stopped(self, note: str) -> None:
        """Note that the search draws no more trials, and why."""
        self._append({"event": "stopped", "note": note})

    def extended(self, note: str) -> None:
        """Note that the search gets more trials."""
        self._append({"event": "extended", "note": note})

    def _append(self, line: dict[str, Any]) -> None:
        line["at"] = round(time.time(), 3)
        os.write(self._fd, (json.dumps(line) + "\n").encode())
        os.fsync(self._fd)


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Open (or create) the journal at `path` for one process.

    Raises:
        UserError: another process runs this sweep, or the file is damaged before its last line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        _lock(fd, path)
        content = path.read_bytes()
        whole, _, torn = content.rpartition(b"\n")
        if torn:
            os.ftruncate(fd, len(content) - len(torn))
        yield Journal(path, fd, tuple(_parse(path, whole)))
    finally:
        os.close(fd)


def refuse_running(path: Path) -> None:
    """Refuse a sweep whose journal is open, before anything of it is touched.

    Raises:
        UserError: another process runs this sweep.
    """
    if path.exists():
        with path.open("rb") as file:
            _lock(file.fileno(), path)


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(
            f"one process runs a sweep at a time, and another one runs {path.parent.name}; "
            f"stop it first, or start a new sweep"
        ) from None


def read_journal(path: Path) -> tuple[Event, ...]:
    """Return the events in a journal that another process may be writing; none where it does not exist.

    Raises:
        UserError: the file is damaged before its last line.
    """
    if not path.exists():
        return ()
    return tuple(_parse(path, path.read_bytes().rpartition(b"\n")[0]))


def _parse(path: Path, content: bytes) -> Iterator[Event]:
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            yield _event(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}, line {number}: not an event of a sweep ({error}); "
                f"the sweep cannot be resumed, its tables remain readable"
            ) from None


def _event(line: dict[str, Any]) -> Event:
    kind, at = line["event"], line.get("at")
    if kind == "trial":
        task = TrialTask.model_validate(line["task"])
        return Event(kind="trial", trial_id=task.trial_id, task=task, at=at)
    if kind == "epoch":
        return Event(kind="epoch", trial_id=line["trial"], record=EpochRecord(**line["record"]), at=at)
    if kind == "ended":
        status = TrialStatus(line["status"])
        return Event(kind="ended", trial_id=line["trial"], status=status, error=line["error"], at=at)
    if kind == "retry":
        return Event(
            kind=kind, trial_id=line["trial"], accumulate=line["accumulate"], note=line["note"], at=at
        )
    if kind in ("begin", "stopped", "extended"):
        return Event(kind=kind, note=line.get("note"), at=at)
    raise ValueError(f"unknown event {kind!r}")
