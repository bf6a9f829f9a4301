"""Ctrl-C and SIGTERM: the first asks for a clean end, the second ends at once.

    with interrupts.caught() as interrupts:
        while working:
            interrupts.check()

Outside such a block SIGTERM behaves like Ctrl-C (`sigterm_as_sigint`), so that `kill`, systemd and job
schedulers get the same clean end as a person at the keyboard.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_HARD_EXIT_S = 5.0


class StopRequested(BaseException):
    """Leaves Ray Tune's loop between two of its steps.

    Not an `Exception`: Tune would answer one with its own clean-up, which waits for running epochs.
    """


class Interrupts:
    """What has been asked for so far."""

    def __init__(self) -> None:
        self.requested = False

    def check(self) -> None:
        """Raise `StopRequested` once a signal has come."""
        if self.requested:
            raise StopRequested


@contextmanager
def caught(*, last_wish: Callable[[], object] = lambda: None) -> Iterator[Interrupts]:
    """Turn the first SIGINT or SIGTERM into `Interrupts.requested`; the second one exits with status 130.

    Args:
        last_wish: called, for five seconds at most, before the hard exit (end the Ray session).
    """
    interrupts = Interrupts()

    def handle(_signal: int, _frame: FrameType | None) -> None:
        if interrupts.requested:
            _exit_now(last_wish)
        interrupts.requested = True
        # Nobody may print from inside a handler through buffered streams that were being written to.
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"\nstopping; once more to stop at once\n")

    with _handlers({signal.SIGINT: handle, signal.SIGTERM: handle}):
        yield interrupts


@contextmanager
def sigterm_as_sigint() -> Iterator[None]:
    """Let SIGTERM raise `KeyboardInterrupt` in the main thread, as Ctrl-C does."""

    def handle(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handlers({signal.SIGTERM: handle}):
        yield


@contextmanager
def _handlers(handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    # Only the main thread may set handlers; elsewhere (a notebook's worker thread) signals stay as they are.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_now(last_wish: Callable[[], object]) -> None:
    # In a thread: the interrupted main thread may hold the very locks that Ray's shutdown needs.
    thread = threading.Thread(target=last_wish, daemon=True)
    thread.start()
    thread.join(_HARD_EXIT_S)
    os._exit(130)
