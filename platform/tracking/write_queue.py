"""Deliver writes, in order, to a store that may be away for a while, without making the sender wait."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

logger = logging.getLogger(__name__)

Operation = Callable[[], object]


class Delivery:
    """One thread that runs operations one after another, and repeats one that fails until it succeeds.

    An operation may be repeated after having half succeeded, so it must bear repetition. During an
    outage everything waits in memory; one warning says so, one line says when it is over.
    """

    def __init__(
        self,
        *,
        store: str,
        is_refusal: Callable[[Exception], bool] = lambda error: False,  # noqa: ARG005
        first_pause_s: float = 0.5,
        longest_pause_s: float = 30.0,
    ) -> None:
        """Start the thread.

        Args:
            store: what is written to, for the messages.
            is_refusal: whether an error is the store's final word on an operation, which is then
                dropped with a warning, as repeating it would hold up everything behind it.
            first_pause_s: pause after the first failure; doubled after each further one.
            longest_pause_s: the longest pause.
        """
        self._store = store
        self._is_refusal = is_refusal
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._queue: deque[Operation] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)
        self._thread.start()

    def put(self, operation: Operation) -> None:
        """Run `operation` later, after all those put before it."""
        with self._change:
            self._queue.append(operation)
            self._change.notify_all()

    def flush(self, *, timeout_s: float) -> int:
        """Wait until everything is delivered, at most `timeout_s`; return how many operations are left."""
        end = time.monotonic() + timeout_s
        with self._change:
            self._change.notify_all()
            self._change.wait_for(lambda: not self._queue, timeout=max(0.0, end - time.monotonic()))
            return len(self._queue)

    def close(self, *, timeout_s: float) -> int:
        """Flush, then end the thread; return how many operations were given up."""
        left = self.flush(timeout_s=timeout_s)
        with self._change:
            self._closing = True
            self._change.notify_all()
        # An operation that hangs in the store is left to the process's end: the thread is a daemon.
        self._thread.join(timeout=1.0)
        return left

    def _run(self) -> None:
        failures = 0
        while True:
            with self._change:
                self._change.wait_for(lambda: self._queue or self._closing)
                if self._closing:
                    return
                operation = self._queue[0]
            try:
                operation()
            except Exception as error:  # noqa: BLE001 - whatever a store raises, the sweep goes on
                if not self._is_refusal(error):
                    failures += 1
                    self._wait_after(error, failures)
                    continue
                logger.warning("%s refused a record: %s", self._store, _one_line(error))
            else:
                if failures > 1:
                    logger.warning("%s answers again", self._store)
                failures = 0
            with self._change:
                self._queue.popleft()
                self._change.notify_all()

    def _wait_after(self, error: Exception, failures: int) -> None:
        # One failure is a hiccup (a locked database, a lost answer) and not worth a line.
        if failures == 2:
            logger.warning(
                "%s does not answer (%s); keeping records, trying again", self._store, _one_line(error)
            )
        with self._change:
            self._change.wait(min(self._first_pause_s * 2 ** min(failures - 1, 16), self._longest_pause_s))


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
