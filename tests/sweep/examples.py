"""A sweep that takes seconds, and the command as a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from platform.tracking.sweep_folder import SweepFolder, all_sweeps

ROOT = Path(__file__).parents[2]

TINY = """\
about: A sweep of seconds, to test every stage.
base:
  model: {name: resnet20_cifar}
  data: {name: generated, train_limit: 256, validation_size: 64}
  epochs: 1
  batch_size: 64
  optimizer: {name: sgd, lr: 0.05}
  schedule: {name: constant}
search:
  optimizer.lr: {log_uniform: [0.01, 0.1]}
trials: 2
concurrent_trials: 1
sampler: {name: random}
scheduler: {name: none}
confirm: {candidates: 2, min_seeds: 1, max_runs: 1, workers_per_run: 1}
final: {workers_per_run: 1}
"""

# Far longer than a sweep takes on a busy machine: the limit ends a hang.
_TIMEOUT_S = 1800.0
_MARK = "SWEEP_OF_THIS_TEST"


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Kill the process at the end of the block; Ray's processes end with their driver."""
    try:
        yield
    finally:
        process.kill()


@dataclass
class Place:
    """A working directory for sweeps, with a space file, runs and an MLflow store."""

    path: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Environment variable value that identifies the processes of the sweeps in this place."""

    def __post_init__(self) -> None:
        (self.path / "tiny.yaml").write_text(TINY)

    @property
    def sweeps(self) -> list[SweepFolder]:
        """Return the sweeps, oldest first."""
        return all_sweeps(self.path / "runs")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `python -m platform.sweep ARGUMENTS` as the leader of a new process group."""
        command = [sys.executable, "-m", "platform.sweep", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), _MARK: self.mark, "COLUMNS": "160"}
        return subprocess.Popen(
            command,
            cwd=self.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def sweep(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command and wait until it ends."""
        with self.start(*arguments) as process, _ended(process):
            out, err = process.communicate(timeout=_TIMEOUT_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def interrupt(self, *arguments: str, when: Callable[[], bool], signals: str) -> tuple[int, str, str]:
        """Start the command, interrupt it once `when` is true, and return its exit code, stdout and stderr.

        Args:
            arguments: arguments of the command.
            when: polled condition.
            signals: `ctrl-c` (SIGINT to the group, as a terminal does) or `kill` (SIGTERM to the driver).
        """
        with self.start(*arguments) as process, _ended(process):
            end = time.monotonic() + _TIMEOUT_S
            while not when() and process.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            assert process.poll() is None, process.communicate()
            if signals == "ctrl-c":
                os.killpg(process.pid, signal.SIGINT)
            else:
                process.terminate()
            out, err = process.communicate(timeout=_TIMEOUT_S)
        return process.returncode, out, err

    def processes(self) -> list[str]:
        """Return the command lines of processes that still run 30 s after the end of the sweeps."""
        end = time.monotonic() + 30
        while (left := self._alive()) and time.monotonic() < end:
            time.sleep(0.2)
        return left

    def _alive(self) -> list[str]:
        left = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    left.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return left
