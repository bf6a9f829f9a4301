"""Signal handling, in this process and in a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from platform.tuning.execution import interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_requests_a_stop_and_handlers_are_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with interrupts.catch_signals() as signals:
        signals.check()
        os.kill(os.getpid(), number)
        with pytest.raises(interrupts.StopRequested):
            signals.check()
    assert signal.getsignal(number) is before


def test_sigterm_raises_keyboard_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts.sigterm_as_sigint():
        signal.raise_signal(signal.SIGTERM)


_PROGRAM = """
import time
from platform.tuning.execution import interrupts
with interrupts.catch_signals(before_exit=lambda: print("cleanup", flush=True)):
    print("ready", flush=True)
    while True:
        time.sleep(0.1)
"""


def test_the_second_signal_exits_after_the_cleanup() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None, "the first signal does not end the process"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "cleanup\n", "\nstopping; repeat to stop immediately\n")
