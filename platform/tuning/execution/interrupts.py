"""Ctrl-C, SIGTERM and SIGHUP: the first signal requests a clean end, the second exits immediately.

    with interrupts.catch_signals() as signals:
        while working:
            signals.check()

Outside such a block SIGTERM and SIGHUP act like Ctrl-C (`end_signals_as_sigint`), so `kill`, systemd, job
schedulers and a lost ssh connection end a sweep as cleanly as a user at the terminal.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_END_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
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
    """Turn the first SIGINT, SIGTERM or SIGHUP into `Interrupts.requested`; the second exits with status 130.

    Args:
        before_exit: called before the immediate exit, for at most five seconds (it ends the Ray session).
        announce: called in the handler of the first signal; returns whether it tells the user that the work
            is stopping. Otherwise a message is printed to stderr.
    """
    interrupts = Interrupts()

    def handle(number: int, _frame: FrameType | None) -> None:
        _replace_lost_terminal()
        if interrupts.requested:
            if number != signal.SIGHUP:  # a shell sends a second one for a lost terminal
                _exit_now(before_exit)
            return
        interrupts.requested = True
        if announce():
            return
        # A handler must not print to a buffered stream, which the interrupted code may be writing to.
        os.write(
            sys.__stderr__.fileno() if sys.__stderr__ else 2, b"\nstopping; repeat to stop immediately\n"
        )

    with _handlers(handle, signal.SIGINT, *_END_SIGNALS):
        yield interrupts


@contextmanager
def end_signals_as_sigint() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `KeyboardInterrupt` in the main thread, as Ctrl-C does."""

    def handle(_signal: int, _frame: FrameType | None) -> None:
        _replace_lost_terminal()
        raise KeyboardInterrupt

    with _handlers(handle, *_END_SIGNALS):
        yield


@contextmanager
def hangup_blocked() -> Iterator[None]:
    """Block SIGHUP, so that processes started inside never receive it; afterwards it arrives here as usual.

    A lost terminal signals all processes of a session. Ray's must live until the driver ends them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def _replace_lost_terminal() -> None:
    """Replace standard streams on a terminal that is gone: writing to them would raise an error."""
    for fd in range(3):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(fd).st_mode) and not os.isatty(fd):
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, fd)
                os.close(null)


@contextmanager
def _handlers(handle: Callable[[int, FrameType | None], None], *numbers: signal.Signals) -> Iterator[None]:
    # Only the main thread can set handlers. In other threads (of a notebook) signals keep their handlers.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # nohup ignores SIGHUP for the processes that it starts.
    caught = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in caught}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _exit_now(before_exit: Callable[[], object]) -> None:
    # In a thread, because the interrupted main thread may hold locks that Ray's shutdown needs.
    thread = threading.Thread(target=before_exit, daemon=True)
    thread.start()
    thread.join(_HARD_EXIT_S)
    os._exit(130)
