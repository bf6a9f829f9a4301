"""Build ncnn and the engine in a separate process of the lowest priority, while a sweep trains.

    python -m deploy.engine_build.background_build     # started by a sweep; ends when its stdin is closed

The process writes no messages. If its build fails, the next call of `ensure_engine` repeats the failed step
and raises the error.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from deploy.engine_build.engine import engine_build_status, ensure_engine, is_engine_built

_ROOT = Path(__file__).resolve().parents[2]
_END_S = 10.0
"""Time for the compilers to end. ninja removes their incomplete files."""


@contextmanager
def background_build(
    show: Callable[[Callable[[], str | None]], None], *, needed: bool = True
) -> Iterator[None]:
    """Build the engine in the background during the block, if it is not built; end the build with the block.

    The build also ends if this process is killed: the system then closes the pipe to its stdin.

    Args:
        show: called once with a function that returns the state of the build, or None after its end.
        needed: whether the engine is needed; if not, nothing is built.
    """
    if not needed or is_engine_built():
        yield
        return
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(
        _command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
        # Ctrl-C ends this process first, which then ends the build. A session also has its own autogroup.
        start_new_session=True,
    ) as process:
        show(lambda: engine_build_status() if process.poll() is None else None)
        try:
            yield
        finally:
            try:
                process.communicate(timeout=_END_S)  # closes its stdin
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _command() -> list[str]:
    return [sys.executable, "-m", "deploy.engine_build.background_build"]


def main() -> None:
    """Build the engine until stdin is closed."""
    _lower_priority()
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    ensure_engine(progress=lambda _: None)


def _end(_signal: int, _frame: FrameType | None) -> None:
    # To the whole group, because cmake does not end the processes that it has started.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    sys.exit(128 + signal.SIGTERM)


def _lower_priority() -> None:
    os.nice(19)
    # The rest is Linux. Priorities compare processes of one autogroup only, and Ray's are in another one.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text("19", encoding="ascii")
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    # To the main thread: it reads ninja's output, and only a signal interrupts that.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


if __name__ == "__main__":
    main()
