"""The journal file of a sweep: one JSON object a line for every decision, in order.

`platform.tuning.journal.event` lists the kinds of events. Each line is on disk before the sweep continues, so
replaying the file rebuilds the sampler, the scheduler's rungs and the list of unfinished trials after any
kind of crash. Only epochs are synced up to a tenth of a second late: a resumed trial reports the epochs of
its checkpoint that the journal lacks. `Tuner.restore` cannot do this: it loses the rungs, and it counts
iterations instead of epochs. An incomplete last line (the machine crashed) is dropped.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from platform.common.errors import UserError, describe_os_error
from platform.common.steady_clock import wall_time_s
from platform.tracking.events import TrialStatus
from platform.training.records import EpochRecord
from platform.tuning.journal.event import Event, Kind, event_from
from platform.tuning.journal.ledger import Ledger, replay
from platform.tuning.journal.trial import TrialTask

_SYNC_EPOCHS_EVERY_S = 0.1


class Journal:
    """The open journal of a sweep. Only one process can have it open."""

    def __init__(self, fd: int, events: tuple[Event, ...]) -> None:
        self.past = events
        """The events that were in the file when it was opened."""
        self.ledger = replay(events)
        """The state of the sweep, all events written since included."""
        self._fd = fd
        self._is_synced, self._next_sync_s = True, 0.0

    def trial(self, task: TrialTask) -> None:
        """Write that a trial was created."""
        self._append("trial", trial_id=task.trial_id, task=task)

    def epoch(self, trial_id: str, record: EpochRecord) -> None:
        """Write a finished epoch."""
        self._append("epoch", trial_id=trial_id, record=record)

    def ended(self, trial_id: str, status: TrialStatus, error: str | None) -> None:
        """Write the end of a trial. An interrupted trial gets no end, so a resume continues it."""
        self._append("ended", trial_id=trial_id, status=status, error=error)

    def retry(self, trial_id: str, *, accumulate: int, note: str) -> None:
        """Write that a trial that ran out of memory continues with each batch in `accumulate` pieces."""
        self._append("retry", trial_id=trial_id, accumulate=accumulate, note=note)

    def begin(self) -> None:
        """Write that the search starts or resumes."""
        self._append("begin")

    def stopped(self, note: str) -> None:
        """Write that the search creates no more trials, and why."""
        self._append("stopped", note=note)

    def limited(self, limits: dict[str, int], note: str) -> None:
        """Write that a stage has fewer runs than planned, and why."""
        self._append("limited", limits=limits, note=note)

    def extended(self, note: str) -> None:
        """Write that the search gets more trials."""
        self._append("extended", note=note)

    def sync(self, *, now: bool = False) -> None:
        """Sync what was written to disk; unless `now`, at most every `_SYNC_EPOCHS_EVERY_S`."""
        if not self._is_synced and (now or time.monotonic() >= self._next_sync_s):
            os.fsync(self._fd)
            self._is_synced, self._next_sync_s = True, time.monotonic() + _SYNC_EPOCHS_EVERY_S

    def _append(self, kind: Kind, **fields: Any) -> None:
        event = Event(kind=kind, at=round(wall_time_s(), 3), **fields)
        rest = (json.dumps(event.as_dict()) + "\n").encode()
        size = os.fstat(self._fd).st_size
        try:
            while rest:  # a full disk may take part of a line
                rest = rest[os.write(self._fd, rest) :]
            self._is_synced = False
            self.sync(now=kind != "epoch")
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._fd, size)
            raise UserError(
                f"cannot write the sweep's journal: {describe_os_error(error) or error}; no event is lost"
            ) from error
        self.ledger.apply(event)


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
        yield Journal(fd, tuple(_parse(path, whole)))
    finally:
        with suppress(OSError):
            os.fsync(fd)
        os.close(fd)


def refuse_running(path: Path) -> None:
    """Raise an error if a process has the journal at `path` open.

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
    """Return the events of a journal that another process may be writing; none if the file does not exist.

    Raises:
        UserError: the file is damaged before its last line.
    """
    if not path.exists():
        return ()
    return tuple(_parse(path, path.read_bytes().rpartition(b"\n")[0]))


def read_ledger(path: Path) -> Ledger:
    """Return the state of a sweep after the events of its journal (see `read_journal`)."""
    return replay(read_journal(path))


def _parse(path: Path, content: bytes) -> Iterator[Event]:
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            yield event_from(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}, line {number}: not an event of a sweep ({error}); "
                f"the sweep cannot be resumed, its tables remain readable"
            ) from None
