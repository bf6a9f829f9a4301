"""The task of a trial, its log, and the metrics that its process reports to Tune."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from platform.common.errors import UserError
from platform.common.schema import Frozen
from platform.tracking.events import Stage, TrialInfo
from platform.training.config import RunConfig
from platform.training.records import EpochRecord


class TrialTask(Frozen):
    """The complete input of the process that runs a trial. Serializes to JSON; all paths are absolute."""

    trial_id: str
    stage: Stage
    number: NonNegativeInt
    params: Mapping[str, str | int | float | bool]
    candidate: str | None = None
    run: RunConfig
    data_path: str
    """The dataset's folder in the cache."""
    checkpoint_dir: str
    log_path: str
    final: bool = False
    """Train on training and validation images together."""
    workers: PositiveInt = 1
    cpus_per_worker: NonNegativeFloat = 1
    gpus_per_worker: NonNegativeFloat = 0
    provenance: Mapping[str, str] = {}
    accumulate: PositiveInt = 1
    """Pieces of each worker's part of a batch, processed in sequence; above 1 after it ran out of memory."""
    costs: Mapping[str, float] = {}
    """The costs of its network, by objective; empty if accuracy is the only objective."""

    def info(self) -> TrialInfo:
        """Return the trial's description for observers."""
        return TrialInfo(
            trial_id=self.trial_id,
            stage=self.stage,
            number=self.number,
            config=self.run,
            params=dict(self.params),
            candidate=self.candidate,
            costs=dict(self.costs),
        )

    @property
    def threads(self) -> int:
        """CPU threads of each worker."""
        return max(1, int(self.cpus_per_worker))


FAILURE = "trial_failure"
"""The metric that holds the text of a trial's failure. A failure is reported as data, so an error in Tune
always means that a process died and that the trial is worth another attempt."""

OUT_OF_MEMORY = "out_of_gpu_memory"
"""The metric, reported with `FAILURE`, that says whether the trial ran out of GPU memory."""

NODE_NOTE = "node_note"
"""The metric that holds a message about the node, such as that the images were copied to it."""

PROCESS_ENDS = "process_ends"
"""The metric that a process reports if it cannot run the trial and ends; the trial needs another process."""

_RECORD_FIELDS = tuple(each.name for each in fields(EpochRecord))


def record_from(metrics: Mapping[str, Any]) -> EpochRecord | None:
    """Return the epoch record in the metrics that a trial reported to Tune, or None."""
    if any(name not in metrics for name in _RECORD_FIELDS):
        return None
    return EpochRecord(**{name: metrics[name] for name in _RECORD_FIELDS})


def log_line(record: EpochRecord) -> str:
    """Return the line of a trial's log for an epoch. It is written after the epoch's checkpoint."""
    accuracy = record.validation_accuracy
    validated = "" if accuracy is None else f", validation accuracy {accuracy:.4f}"
    took_s = record.epoch_s + record.evaluation_s
    done = f"epoch {record.epoch}/{record.epochs}: train loss {record.train_loss:.4f}"
    return f"{done}{validated}, {took_s:.1f} s"


class TrialFailed(Exception):  # noqa: N818 - named like the status
    """The code of a trial raised an error. `text` is the traceback and the log's path."""

    def __init__(self, text: str, *, process_is_sound: bool = False, out_of_memory: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.process_is_sound = process_is_sound
        """Whether the process can run another trial: yes after a diverged run, no after a CUDA error."""
        self.out_of_memory = out_of_memory
        """Whether the trial ran out of GPU memory."""

    def as_metrics(self) -> dict[str, Any]:
        """Return the metrics that report the failure to Tune."""
        return {FAILURE: self.text, OUT_OF_MEMORY: self.out_of_memory}


def open_log_file(path: Path) -> TextIO:
    """Open a log to append to it; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a", buffering=1, encoding="utf-8", errors="replace")


@contextmanager
def trial_log(
    path: Path, header: str, *, open_log: Callable[[Path], TextIO] = open_log_file
) -> Iterator[None]:
    """Write this process's output, and the traceback of an error, to the trial's log.

    A resumed trial appends to its log. `header` follows the time in the first line.

    Raises:
        TrialFailed: the block raised an error.
    """
    with open_log(path) as log:
        print(f"--- {datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {header}", file=log)
        try:
            with redirect_stdout(log), redirect_stderr(log):
                yield
        except SystemExit:
            print("--- stopped early", file=log)
            raise
        except Exception as error:
            text = traceback.format_exc().strip()
            print(text, file=log)
            raise TrialFailed(
                f"{text}\nlog: {path}",
                process_is_sound=isinstance(error, UserError | MemoryError) or _is_out_of_memory(error),
                out_of_memory=_is_out_of_memory(error),
            ) from error


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError)
