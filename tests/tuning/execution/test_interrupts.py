"""Signals, in this process and in one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from platform.tuning.execution import interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with interrupts.caught() as caught:
        caught.check()
        os.kill(os.getpid(), number)
        with pytest.raises(interrupts.StopRequested):
            caught.check()
    assert signal.getsignal(number) is before


def test_sigterm_is_a_keyboard_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts.sigterm_as_sigint():
        signal.raise_signal(signal.SIGTERM)


_PROGRAM = """
import time
from platform.tuning import interrupts
with interrupts.caught(last_wish=lambda: print("last wish", flush=True)):
    print("ready", flush=True)
    while True:
        time.sleep(0.1)
"""


def test_the_second_signal_exits_with_the_last_wish_granted() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None, "the first one only asks"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "last wish\n", "\nstopping; once more to stop at once\n")
