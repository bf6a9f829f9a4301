"""Progress messages with the amount done and the time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from platform.common.text_format import duration, percent

_EVERY_S = 2.0
_WINDOW_S = 60.0


class TimeLeft:
    """Reports messages such as `reading the test split: 4,000 of 10,000 images, 6 s left`, every two seconds.

    Work that takes less than two seconds is not reported. The time left is estimated from the speed of the
    last minute, because other processes that start or end change the speed.
    """

    def __init__(
        self,
        what: str,
        total: float,
        progress: Callable[[str], None],
        *,
        unit: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock. Every message begins with `what`; without a plural `unit` it has a percentage."""
        self._what, self._total, self._unit = what, total, unit
        self._progress, self._clock = progress, clock
        self._reported_s = clock()
        self._marks = deque([(self._reported_s, 0.0)])

    def update(self, done: float) -> None:
        """Report the progress if the last message is older than two seconds."""
        now = self._clock()
        self._marks.append((now, done))
        while self._marks[1][0] < now - _WINDOW_S:
            self._marks.popleft()
        then, before = self._marks[0]
        if now - self._reported_s < _EVERY_S or done <= before or done >= self._total:
            return
        self._reported_s = now
        left_s = (now - then) / (done - before) * (self._total - done)
        amount = percent(done / self._total, 0)
        if self._unit is not None:
            amount = f"{done:,.0f} of {self._total:,.0f} {self._unit}"
        self._progress(f"{self._what}: {amount}, {duration(left_s)} left")
