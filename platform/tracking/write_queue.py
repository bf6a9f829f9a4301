"""Write to a store in the background, in order, with retries while the store is unavailable."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

logger = logging.getLogger(__name__)

Operation = Callable[[], object]


class WriteQueue:
    """A thread that runs operations in order and retries a failed one until it succeeds.

    Operations must be idempotent because a partly completed one is retried. During an outage the queue is
    kept in memory; one warning is logged at its start and one message at its end.
    """

    def __init__(
        self,
        *,
        store: str,
        is_refusal: Callable[[Exception], bool] = lambda error: False,  # noqa: ARG005
        first_pause_s: float = 0.5,
        longest_pause_s: float = 30.0,
        rest_s: float = 1.0,
        busy_share: float = 0.5,
    ) -> None:
        """Start the thread.

        Args:
            store: name of the store, for the messages.
            is_refusal: returns whether an error is permanent; the operation is then dropped with a
                warning, because retrying it would block the queue.
            first_pause_s: pause after the first failure; it doubles after each further failure.
            longest_pause_s: upper limit of the pause.
            rest_s: least pause after the operations that were waiting have run.
            busy_share: largest share of a core that operations may take, 0..1; the pause is longer if needed.
        """
        self._store = store
        self._is_refusal = is_refusal
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._rest_s, self._busy_share = rest_s, busy_share
        self._queue: deque[Operation] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._flushing = 0
        self._thread = threading.Thread(target=self._run, name="write-queue", daemon=True)
        self._thread.start()

    def put(self, operation: Operation) -> None:
        """Append `operation` to the queue."""
        with self._change:
            self._queue.append(operation)
            self._change.notify_all()

    def flush(self, *, timeout_s: float) -> int:
        """Wait until the queue is empty, at most `timeout_s`; return the number of remaining operations."""
        end = time.monotonic() + timeout_s
        with self._change:
            self._flushing += 1
            self._change.notify_all()
            self._change.wait_for(lambda: not self._queue, timeout=max(0.0, end - time.monotonic()))
            self._flushing -= 1
            return len(self._queue)

    def close(self, *, timeout_s: float) -> int:
        """Flush the queue and stop the thread; return the number of dropped operations."""
        left = self.flush(timeout_s=timeout_s)
        with self._change:
            self._closing = True
            self._change.notify_all()
        # The thread is a daemon, so an operation that hangs does not block the exit of the process.
        self._thread.join(timeout=1.0)
        return left

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._queue or self._closing)
                waiting = len(self._queue)
            began_s = time.thread_time()
            for _ in range(waiting):
                if not self._run_first():
                    return
            busy_s = time.thread_time() - began_s
            rest_s = max(self._rest_s, busy_s / self._busy_share - busy_s)
            with self._change:
                self._change.wait_for(lambda: self._flushing or self._closing, timeout=rest_s)
                if self._closing:
                    return

    def _run_first(self) -> bool:
        """Run the first operation until it succeeds; return False if the queue is closed before."""
        failures = 0
        while not self._closing:
            operation = self._queue[0]
            try:
                operation()
            except Exception as error:  # noqa: BLE001 - no error of a store may stop the sweep
                if not self._is_refusal(error):
                    failures += 1
                    self._wait_after(error, failures)
                    continue
                logger.warning("%s rejected a record: %s", self._store, _one_line(error))
            else:
                if failures > 1:
                    logger.warning("%s is available again", self._store)
            with self._change:
                self._queue.popleft()
                self._change.notify_all()
            return True
        return False

    def _wait_after(self, error: Exception, failures: int) -> None:
        # Single failures (a locked database, a lost response) are common and not logged.
        if failures == 2:
            logger.warning(
                "%s is unavailable (%s); keeping records in memory and retrying",
                self._store,
                _one_line(error),
            )
        with self._change:
            self._change.wait(min(self._first_pause_s * 2 ** min(failures - 1, 16), self._longest_pause_s))


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
