"""Signal handling, in this process and in a child process."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from platform.tuning.execution import interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_requests_a_stop_and_handlers_are_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with interrupts.catch_signals() as signals:
        signals.check()
        os.kill(os.getpid(), number)
        with pytest.raises(interrupts.StopRequested):
            signals.check()
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_raises_keyboard_interrupt(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), interrupts.end_signals_as_sigint():
        signal.raise_signal(number)


def test_the_message_of_the_first_signal_can_be_shown_elsewhere(capfd: pytest.CaptureFixture[str]) -> None:
    with interrupts.catch_signals(announce=lambda: True):
        signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err == ""
    with interrupts.catch_signals(announce=lambda: False):
        signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err == "\nstopping; repeat to stop immediately\n"


def test_a_hangup_ignored_by_nohup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts.catch_signals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert not signals.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_processes_started_with_a_blocked_hangup_survive_it() -> None:
    with interrupts.hangup_blocked():
        child = subprocess.Popen(
            [sys.executable, "-c", "print('ready', flush=True); input()"], stdin=-1, stdout=-1
        )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGHUP)
        child.communicate(b"\n", timeout=30)
    assert child.returncode == 0
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


_ON_A_TERMINAL = """
import fcntl, os, sys, termios, time
from pathlib import Path
from platform.tuning.execution import interrupts
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
with interrupts.catch_signals() as signals:
    print("ready", flush=True)
    while not signals.requested:
        time.sleep(0.05)
    print("saving", file=sys.stderr, flush=True)
    Path(sys.argv[1]).write_text("saved")
"""


def test_a_lost_terminal_ends_the_work_cleanly(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", _ON_A_TERMINAL, str(tmp_path / "out")],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    with child:
        assert b"ready" in os.read(ours, 100)
        os.close(ours)
        child.wait(timeout=60)
    assert child.returncode == 0
    assert (tmp_path / "out").read_text() == "saved"


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
