"""The lock of a build, with the progress of its holder for the processes that wait."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from platform.common.atomic import write_json

Progress = Callable[[str], None]

_POLL_S = 0.5
_REPORT_EVERY_S = 4.0


@contextmanager
def locked(path: Path, *, progress: Progress) -> Iterator[Progress]:
    """Hold an exclusive lock on `path`; the system releases it if the process is killed.

    Args:
        path: the lock file.
        progress: called with progress messages; while another process holds the lock, with its messages.

    Yields:
        the function to report the build's progress with: it calls `progress`, and shows each message to the
        processes that wait for the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
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
    """Return the last progress message of the build that holds the lock `path`, and the process it runs in.

    Returns:
        None before its first message, and if no build runs.
    """
    try:
        status = json.loads(_status_file(path).read_text(encoding="utf-8"))
        since = datetime.fromtimestamp(status["since"]).astimezone()
        where = f"in process {status['pid']} since {since:%H:%M}"
        if status["parent"] == os.getpid():
            where = "in the background"
        return f"{status['message']} ({where})"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _status_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _acquire(handle: IO[str], path: Path, progress: Progress) -> None:
    last, reported_s = "", 0.0
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting = "waiting for another process that runs the same build"
            message, now = build_status(path) or last or waiting, time.monotonic()
            if message != last or now - reported_s >= _REPORT_EVERY_S:
                progress(message)
                last, reported_s = message, now
            time.sleep(_POLL_S)
        else:
            return
