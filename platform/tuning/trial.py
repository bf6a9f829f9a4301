"""One trial as it travels: to the process that runs it, back as epochs, and out as an outcome."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from platform.schema import Frozen
from platform.tracking.events import Stage, TrialInfo, TrialStatus
from platform.training.config import RunConfig
from platform.training.records import EpochRecord


class TrialTask(Frozen):
    """Everything the process that runs a trial has to know; JSON both ways, every path absolute."""

    trial_id: str
    stage: Stage
    number: NonNegativeInt
    params: Mapping[str, str | int | float | bool]
    candidate: str | None = None
    run: RunConfig
    data_path: str
    """The data set's folder in the cache."""
    checkpoint_dir: str
    log_path: str
    final: bool = False
    """Train on training and validation images together."""
    workers: PositiveInt = 1
    cpus_per_worker: PositiveFloat = 1
    gpus_per_worker: NonNegativeFloat = 0
    provenance: Mapping[str, str] = {}

    def info(self) -> TrialInfo:
        """Return the trial as observers know it."""
        return TrialInfo(
            trial_id=self.trial_id,
            stage=self.stage,
            number=self.number,
            config=self.run,
            params=dict(self.params),
            candidate=self.candidate,
        )

    @property
    def threads(self) -> int:
        """CPU threads of each worker."""
        return max(1, int(self.cpus_per_worker))


@dataclass(frozen=True, kw_only=True)
class TrialOutcome:
    """A trial that has ended."""

    info: TrialInfo
    status: TrialStatus
    records: tuple[EpochRecord, ...]
    """All epochs in order, those before a resume included."""
    model_path: Path | None
    """The trained model of a finished trial (`platform.models.trained`)."""
    error: str | None = None
    """Traceback and log path of a failed trial."""

    @property
    def validation_accuracy(self) -> float | None:
        """0..1, of the last epoch, or of the best one where the configuration says `report: best`."""
        known = [record.validation_accuracy for record in self.records]
        accuracies = [accuracy for accuracy in known if accuracy is not None]
        if not accuracies:
            return None
        return max(accuracies) if self.info.config.report == "best" else accuracies[-1]


_RECORD_FIELDS = tuple(field.name for field in fields(EpochRecord))


def record_from(metrics: Mapping[str, Any]) -> EpochRecord | None:
    """Return the epoch among the metrics that a trial reported to Tune; None where there is none."""
    if any(name not in metrics for name in _RECORD_FIELDS):
        return None
    return EpochRecord(**{name: metrics[name] for name in _RECORD_FIELDS})


class TrialError(Exception):
    """A trial's own code failed; the text crosses processes whole, whatever the original error was."""


_BEGIN, _END = "---8<--- the trial's error", "--->8---"


def error_text(raw: str) -> tuple[str, bool]:
    """Return (what to show of an error that Ray hands over, whether the trial's own code raised it).

    Anything else is the death of its process (out of memory, a lost machine), worth another try.
    """
    # A worker group hands over one error per worker; the first is the cause, the others follow from it.
    _, begin, rest = raw.partition(f"{_BEGIN}\n")
    text, end, _ = rest.partition(f"\n{_END}")
    return (text, True) if begin and end else (raw.strip(), False)


@contextmanager
def trial_log(path: Path, header: str) -> Iterator[None]:
    """Send this process's prints to the trial's log, and an error's traceback both there and on.

    The log is opened for appending: a resumed trial continues it.

    Raises:
        TrialError: the block failed; its text is for `error_text`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", buffering=1, encoding="utf-8", errors="replace") as log:
        print(f"--- {datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {header}", file=log)
        try:
            with redirect_stdout(log), redirect_stderr(log):
                yield
        except SystemExit:
            print("--- stopped early", file=log)
            raise
        except Exception:  # noqa: BLE001 - whatever it was, its text goes on
            text = traceback.format_exc().strip()
            print(text, file=log)
            raise TrialError(f"{_BEGIN}\n{text}\nlog: {path}\n{_END}") from None
