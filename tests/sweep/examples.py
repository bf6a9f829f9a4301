"""A sweep of seconds, and the command as a process of its own."""

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
confirm: {candidates: 1, seeds: 1, workers_per_run: 1}
final: {workers_per_run: 1}
"""

# Seconds on a quiet machine; a hang is what this ends, not a slow start beside other work.
_PATIENCE_S = 1800.0
_MARK = "SWEEP_OF_THIS_TEST"


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Whatever fails in a test, the process goes; Ray's own follow their driver."""
    try:
        yield
    finally:
        process.kill()


@dataclass
class Place:
    """A folder to sweep in: its space file, its runs, its MLflow store."""

    path: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Every process that descends from a sweep here has it in its environment."""

    def __post_init__(self) -> None:
        (self.path / "tiny.yaml").write_text(TINY)

    @property
    def sweeps(self) -> list[SweepFolder]:
        """Return the sweeps there are, oldest first."""
        return all_sweeps(self.path / "runs")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `python -m platform.sweep ARGUMENTS` here, as the leader of a process group of its own."""
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
        """Run the command to its end."""
        with self.start(*arguments) as process, _ended(process):
            out, err = process.communicate(timeout=_PATIENCE_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def interrupt(self, *arguments: str, when: Callable[[], bool], signals: str) -> tuple[int, str, str]:
        """Start the command, stop it at a certain moment, and return its exit code, stdout and stderr.

        Args:
            arguments: of the command.
            when: polled; says that the moment has come.
            signals: `ctrl-c` (SIGINT to the group, as a terminal does) or `kill` (SIGTERM to the driver).
        """
        with self.start(*arguments) as process, _ended(process):
            end = time.monotonic() + _PATIENCE_S
            while not when() and process.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            assert process.poll() is None, process.communicate()
            if signals == "ctrl-c":
                os.killpg(process.pid, signal.SIGINT)
            else:
                process.terminate()
            out, err = process.communicate(timeout=_PATIENCE_S)
        return process.returncode, out, err

    def processes(self) -> list[str]:
        """Return the command lines of the processes that sweeps here have left behind, after some grace."""
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
