"""The lock of a build, with the progress of its holder for the processes that wait."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

import psutil

from platform.common.atomic import write_json
from platform.common.errors import UserError

Progress = Callable[[str], None]

_POLL_S = 0.5
_REPORT_EVERY_S = 4.0
_CHECK_EVERY_S = 10.0
_STARVED_CORES = 0.25


@contextmanager
def locked(path: Path, *, progress: Progress) -> Iterator[Progress]:
    """Hold an exclusive lock on `path`; the system releases it if the process is killed.

    Args:
        path: the lock file.
        progress: called with progress messages; while another process holds the lock, with its messages.

    Yields:
        the function to report the build's progress with: it calls `progress`, and shows each message to the
        processes that wait for the lock.

    Raises:
        UserError: the folder of `path` cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("w")
    except OSError as error:
        raise UserError(
            f"cannot write the build folder {path.parent}: {error.strerror}; make it writable, or, for a "
            "folder under ~/.cache, set XDG_CACHE_HOME to another one"
        ) from None
    with opened as handle:
        _acquire(handle, path, progress)
        _status_file(path).unlink(missing_ok=True)  # of a holder that was killed
        since = time.time()

        def report(message: str) -> None:
            # A full disk fails the build itself, with a better message.
            with suppress(OSError):
                write_json(
                    _status_file(path),
                    {"pid": os.getpid(), "parent": os.getppid(), "since": since, "message": message},
                )
            progress(message)

        try:
            yield report
        finally:
            _status_file(path).unlink(missing_ok=True)


def build_status(path: Path) -> str | None:
    """Return the last progress message of another process that builds under the lock `path`, and its id.

    Returns:
        None before its first message, and if no other process builds.
    """
    status = _read_status(path)
    if status is None or status.pid == os.getpid():
        return None
    if status.in_background:
        # Its time left is meaningless: the build gets only the time that the training leaves.
        return f"{re.sub(', [^,]* left$', '', status.message)} (in the background)"
    return f"{status.message} (in process {status.pid} since {status.since})"


@dataclass(frozen=True)
class _Status:
    pid: int
    in_background: bool
    """Whether it is a child of this process."""
    since: str
    message: str


def _status_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_status(path: Path) -> _Status | None:
    try:
        record = json.loads(_status_file(path).read_text(encoding="utf-8"))
        return _Status(
            pid=int(record["pid"]),
            in_background=record["parent"] == os.getpid(),
            since=f"{datetime.fromtimestamp(record['since']).astimezone():%H:%M}",
            message=str(record["message"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _acquire(handle: IO[str], path: Path, progress: Progress) -> None:
    last, reported_s = "", 0.0
    checked: tuple[float, float] | None = None
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting = "waiting for another process that runs the same build"
            message, now = build_status(path) or last or waiting, time.monotonic()
            if message != last or now - reported_s >= _REPORT_EVERY_S:
                progress(message)
                last, reported_s = message, now
            checked = _end_if_starved(path, checked, progress)
            time.sleep(_POLL_S)
        else:
            return


def _end_if_starved(
    path: Path, checked: tuple[float, float] | None, progress: Progress
) -> tuple[float, float] | None:
    """End this process's own background build if other processes leave it no processor.

    It has the lowest priority, which only a privileged process may raise again. The waiting process then
    continues the build itself.

    Args:
        path: the lock.
        checked: the last result.
        progress: called with a message before the build ends.

    Returns:
        the time and the processor time of the build at the start of the period to check.
    """
    status, now = _read_status(path), time.monotonic()
    if status is None or not status.in_background:
        return None
    try:
        build = psutil.Process(status.pid)
        cpu_s = sum(sum(each.cpu_times()[:4]) for each in (build, *build.children(recursive=True)))
        if checked is None:
            return now, cpu_s
        if now - checked[0] < _CHECK_EVERY_S:
            return checked
        if cpu_s - checked[1] < _STARVED_CORES * (now - checked[0]):
            progress("other processes use the processor: continuing the build with normal priority")
            build.terminate()
    except psutil.Error:
        return None
    return now, cpu_s
