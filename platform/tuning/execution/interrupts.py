"""Ctrl-C and SIGTERM: the first signal requests a clean end, the second exits immediately.

    with interrupts.catch_signals() as signals:
        while working:
            signals.check()

Outside such a block SIGTERM acts like Ctrl-C (`sigterm_as_sigint`), so `kill`, systemd and job schedulers end
a sweep as cleanly as a user at the terminal.
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
    """Ends Ray Tune's loop between two steps.

    Not an `Exception`, because Tune would handle that with its own clean-up, which waits for running epochs.
    """


class Interrupts:
    """Whether a signal has arrived."""

    def __init__(self) -> None:
        self.requested = False

    def check(self) -> None:
        """Raise `StopRequested` if a signal has arrived."""
        if self.requested:
            raise StopRequested


@contextmanager
def catch_signals(
    *, before_exit: Callable[[], object] = lambda: None, announce: Callable[[], bool] = lambda: False
) -> Iterator[Interrupts]:
    """Turn the first SIGINT or SIGTERM into `Interrupts.requested`; the second one exits with status 130.

    Args:
        before_exit: called before the immediate exit, for at most five seconds (it ends the Ray session).
        announce: called in the handler of the first signal; returns whether it tells the user that the work
            is stopping. Otherwise a message is printed to stderr.
    """
    interrupts = Interrupts()

    def handle(_signal: int, _frame: FrameType | None) -> None:
        if interrupts.requested:
            _exit_now(before_exit)
        interrupts.requested = True
        if announce():
            return
        # A handler must not print to a buffered stream, which the interrupted code may be writing to.
        os.write(
            sys.__stderr__.fileno() if sys.__stderr__ else 2, b"\nstopping; repeat to stop immediately\n"
        )

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
    # Only the main thread can set handlers. In other threads (of a notebook) signals keep their handlers.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_now(before_exit: Callable[[], object]) -> None:
    # In a thread, because the interrupted main thread may hold locks that Ray's shutdown needs.
    thread = threading.Thread(target=before_exit, daemon=True)
    thread.start()
    thread.join(_HARD_EXIT_S)
    os._exit(130)
