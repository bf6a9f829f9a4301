"""Progress of one run on stderr: a line per epoch, and speed and remaining time in between."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from platform.common.text_format import duration, percent
from platform.training.records import EpochRecord, StepProgress
from platform.training.run_folder import write_metrics

_PLAIN_INTERVAL_S = 30.0


class Progress:
    """Callbacks of a run that write metrics.csv after each epoch and print its progress.

    On a terminal the progress line is rewritten in place; elsewhere it is printed every 30 s.
    """

    def __init__(self, folder: Path, *, finished: Sequence[EpochRecord] = (), quiet: bool = False) -> None:
        """Start after the epochs `finished` before a resume; `quiet` is for workers other than the first."""
        self._folder, self._quiet = folder, quiet
        self._records = list(finished)
        self._line = ""
        self._next_s = time.monotonic() + _PLAIN_INTERVAL_S
        self._remaining = ""
        if finished and not quiet:
            print(f"resuming after epoch {finished[-1].epoch} of {finished[-1].epochs}", file=sys.stderr)

    def epoch_finished(self, record: EpochRecord) -> None:
        """Write metrics.csv and print the epoch."""
        self._records.append(record)
        if self._quiet:
            return
        write_metrics(self._folder, self._records)
        self.clear()
        print(format_epoch(record) + self._remaining, file=sys.stderr)

    def step_finished(self, progress: StepProgress) -> None:
        if self._quiet:
            return
        self._remaining = f"  {duration(progress.remaining_s)} left"
        text = (
            f"epoch {progress.epoch}/{progress.epochs}  step {progress.step:,}/{progress.steps:,}  "
            f"train loss {progress.train_loss:.3f}  {progress.images_per_s:,.0f} images/s{self._remaining}"
        )
        if sys.stderr.isatty():
            self.clear()
            self._line = text[:110]
            print(self._line, end="", file=sys.stderr, flush=True)
        elif time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _PLAIN_INTERVAL_S
            print(text, file=sys.stderr)

    def clear(self) -> None:
        if self._line:
            print("\r" + " " * len(self._line), end="\r", file=sys.stderr, flush=True)
            self._line = ""


def format_epoch(record: EpochRecord) -> str:
    """Return a line that summarizes an epoch."""
    width = len(str(record.epochs))
    held_out = ""
    if record.validation_loss is not None and record.validation_accuracy is not None:
        held_out = f"  validation {record.validation_loss:.3f} {percent(record.validation_accuracy):>8}"
    return (
        f"epoch {record.epoch:{width}}/{record.epochs}  train {record.train_loss:.3f} "
        f"{percent(record.train_accuracy):>8}{held_out}  lr {record.lr:.4g}  "
        f"{record.images_per_s:,.0f} images/s"
    )
