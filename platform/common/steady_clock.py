"""Wall time that does not jump when the system's clock is set while the process runs."""

from __future__ import annotations

import time
from datetime import UTC, datetime

_OFFSET_S = time.time() - time.monotonic()


def wall_time_s() -> float:
    """Return the seconds since 1970, as the system's clock had them when this process started.

    Durations and the order of events stay correct when the clock is set during a sweep.
    """
    return _OFFSET_S + time.monotonic()


def wall_time() -> datetime:
    """Return `wall_time_s()` as a time in UTC."""
    return datetime.fromtimestamp(wall_time_s(), UTC)
