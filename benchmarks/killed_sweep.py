"""Run a sweep that is killed at random moments and resumed, and compare it with an undisturbed one.

`benchmarks.random_kills` is the command line; the tests use a short version.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from platform.common import nested
from platform.common.errors import UserError
from platform.tracking.sweep_folder import SweepFolder, all_sweeps
from platform.tuning.journal.event import Event
from platform.tuning.journal.journal import read_journal

KINDS = ("driver", "actor", "worker", "raylet", "machine")
"""The driver with its process group; a trial's actor in the search; a Ray Train worker; the raylet; all
processes at once."""

_MARK = "RANDOM_KILLS_MARK"
_POLL_S = 0.2
_TIMEOUT_S = 1200.0
_CLOCKS = ("epoch_s", "evaluation_s", "images_per_s", "mfu", "overhead_s")
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill and its consequences."""

    kind: str
    moment: str
    """The last event of the sweep's journal before the kill."""
    after_s: float
    """Seconds since the start of the command."""
    resumed: bool
    """Whether the driver died and `--resume` was required; otherwise the sweep continued on its own."""
    left: tuple[str, ...]
    """Processes that were still alive one minute after the driver's death."""


@dataclass
class KilledSweep:
    """A sweep in its own folder, with its runs and its MLflow store."""

    path: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Environment value that identifies every process of the sweep."""

    @property
    def folder(self) -> SweepFolder | None:
        """The sweep's folder; None before it exists."""
        sweeps = all_sweeps(self.path / "runs")
        return sweeps[-1] if sweeps else None

    @property
    def finished(self) -> bool:
        """Whether the sweep has finished."""
        folder = self.folder
        return folder is not None and folder.get_state() == "finished"

    def events(self) -> tuple[Event, ...]:
        """Return the events of its journal."""
        folder = self.folder
        return read_journal(folder.journal) if folder else ()

    @contextmanager
    def running(self, space: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Start or resume the sweep; all of its processes are killed when the context exits."""
        begun = self.folder is not None and (self.folder.path / "spec.yaml").exists()
        words = ["--resume"] if begun else [str(space.absolute())]
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "output.txt").open("ab") as output:
            output.write(f"--- {' '.join(words)}\n".encode())
            output.flush()
            process = subprocess.Popen(
                [sys.executable, "-m", "platform.sweep", *words],
                cwd=self.path,
                env={**os.environ, "PYTHONPATH": str(_ROOT), _MARK: self.mark, "COLUMNS": "160"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                yield process
            finally:
                for left in self.processes():
                    with suppress(psutil.Error):
                        left.kill()
                process.wait()

    def run(self, space: Path) -> int:
        """Start or resume the sweep, wait for its end, and return the exit code."""
        with self.running(space) as process:
            return process.wait(timeout=_TIMEOUT_S)

    def processes(self) -> list[psutil.Process]:
        """Return the live processes of the sweep."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(_MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def killable(self) -> tuple[str, ...]:
        """Return the kinds that can still be killed: there are no trial actors after the search."""
        searched = any(event.task is not None and event.task.stage != "search" for event in self.events())
        return tuple(kind for kind in KINDS if not (searched and kind == "actor"))

    def kill(
        self,
        process: subprocess.Popen[bytes],
        kind: str,
        rng: random.Random,
        *,
        events: tuple[int, int] = (0, 6),
    ) -> Kill | None:
        """Kill a part of the sweep at a random moment; return None if the sweep ended first.

        The moment is a random number of journal events from now, within the range `events`, plus a random
        delay of up to 2 s, or 12 s at zero events. A trial's process is killed once it exists.
        """
        began_s, seen = time.monotonic(), self._lines()
        wanted = seen + (rng.randint(*events) if kind not in ("actor", "worker") else 0)
        delay_s = rng.uniform(0.0, 12.0 if wanted == seen and kind in ("driver", "machine") else 2.0)
        while process.poll() is None:
            time.sleep(_POLL_S)
            if time.monotonic() - began_s > _TIMEOUT_S:
                raise UserError(f"{self.path}: no progress for {_TIMEOUT_S:.0f} s; see output.txt there")
            if self._lines() < wanted or not self._victims(kind, process, rng):
                continue
            time.sleep(delay_s)
            victims = self._victims(kind, process, rng)
            if not victims or process.poll() is not None:
                delay_s = rng.uniform(0.0, 1.0)
                continue
            moment, after_s = self._moment(), time.monotonic() - began_s
            for victim in victims:
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            return self._after(process, kind, moment, after_s)
        return None

    def _after(self, process: subprocess.Popen[bytes], kind: str, moment: str, after_s: float) -> Kill:
        fatal = kind not in ("actor", "worker")
        left: list[str] = []
        if fatal:
            # The driver must detect the loss of its raylet on its own.
            process.wait(timeout=_TIMEOUT_S)
            end_s = time.monotonic() + 60
            while (alive := self.processes()) and time.monotonic() < end_s:
                time.sleep(0.2)
            for one in alive:
                with suppress(psutil.Error):
                    left.append(" ".join(one.cmdline())[:120])
        return Kill(kind=kind, moment=moment, after_s=round(after_s, 1), resumed=fatal, left=tuple(left))

    def _victims(self, kind: str, process: subprocess.Popen[bytes], rng: random.Random) -> list[int]:
        if kind == "driver":
            return [one.pid for one in self.processes() if _group(one.pid) == process.pid]
        if kind == "machine":
            return [one.pid for one in self.processes()]
        if kind == "raylet":
            return [one.pid for one in self.processes() if _name(one) == "raylet"]
        folder = self.folder
        pattern = "t*.log" if kind == "actor" else "[cf]*.log"
        logs = list(folder.logs.glob(pattern)) if folder else []
        alive = {one.pid for one in self.processes()}
        ended = {event.trial_id for event in self.events() if event.status is not None}
        running = [
            int(found[-1])
            for log in logs
            if log.name.split(".")[0] not in ended
            and (found := re.findall(r"in process (\d+)", log.read_text(errors="replace")))
        ]
        running = [pid for pid in running if pid in alive]
        return [rng.choice(running)] if running else []

    def _moment(self) -> str:
        events = self.events()
        if not events:
            return "before the first event"
        last = events[-1]
        number = f" {last.record.epoch}" if last.record is not None else ""
        status = f" {last.status}" if last.status is not None else ""
        return f"{last.trial_id} {last.kind}{number}{status}".strip()

    def _existing_folder(self) -> SweepFolder:
        folder = self.folder
        if folder is None:
            raise UserError(f"no sweep was started in {self.path}; see output.txt there")
        return folder

    def _lines(self) -> int:
        """Return the number of journal lines, without parsing them."""
        folder = self.folder
        if folder is None or not folder.journal.exists():
            return 0
        return folder.journal.read_bytes().count(b"\n")

    def outcome(self) -> dict[str, Any]:
        """Return the results that must be equal for two sweeps of one seed: all except times and paths."""
        from platform.tracking.parquet_tables import read_epochs, read_trials

        folder = self._existing_folder()
        trials = {
            row.trial_id: {
                "stage": row.stage,
                "number": row.number,
                "candidate": row.candidate,
                "status": str(row.status),
                "validation_accuracy": row.validation_accuracy,
                "validation_loss": row.validation_loss,
                "epochs_done": row.epochs_done,
                "params": dict(row.params),
                "config": dict(row.config),
            }
            for row in read_trials(folder)
        }
        epochs = {name: list(map(_without_times, records)) for name, records in read_epochs(folder).items()}
        return {
            "trials": trials,
            "epochs": epochs,
            "selection": _json(folder.selection),
            "champion": _json(folder.champion),
            "test_accuracy": _json(folder.test)["accuracy"],
            "openings": len(_json(folder.path / "test_opened.json")["openings"]),
            "mlflow": self._mlflow(folder),
        }

    def _mlflow(self, folder: SweepFolder) -> dict[str, Any]:
        """Return status and metric of each run in the sweep's MLflow store."""
        from platform.tracking.mlflow_store import open_store

        client = open_store(f"sqlite:///{self.path}/mlflow.db")
        experiment = client.get_experiment_by_name(folder.space)
        found: dict[str, Any] = {}
        for run in client.search_runs([experiment.experiment_id]) if experiment else ():
            tags, run_id = run.data.tags, run.info.run_id
            name = tags.get("trial_id", "sweep")
            key = "train/loss" if name != "sweep" else "best/val_accuracy"
            points = sorted((point.step, point.value) for point in client.get_metric_history(run_id, key))
            found.setdefault(name, []).append([tags["status"], run.info.status, points])
        return found

    def repeated(self) -> list[str]:
        """Return the epochs that were completed more than once, according to the logs and the journal."""
        folder = self._existing_folder()
        trained = Counter(
            f"{log.name.split('.')[0]} epoch {epoch}"
            for log in folder.logs.glob("*.log")
            for epoch in re.findall(r"^epoch (\d+)/", log.read_text(errors="replace"), re.MULTILINE)
            if ".rank" not in log.name
        )
        journaled = Counter(
            f"{event.trial_id} epoch {event.record.epoch}, journaled"
            for event in self.events()
            if event.record
        )
        return [name for name, count in (trained + journaled).items() if count > 1]


def differences(one: Any, other: Any) -> list[str]:
    """Return `path: A, B` for each difference between two outcomes, sorted."""
    return sorted(f"{path}: {a!r}, {b!r}" for path, a, b in nested.differences(one, other))


def _without_times(record: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(record).items() if name not in _CLOCKS}


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _group(pid: int) -> int:
    with suppress(ProcessLookupError):
        return os.getpgid(pid)
    return -1


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return str(process.name())
    return ""
