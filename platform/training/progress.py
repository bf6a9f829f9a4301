"""Progress of one run on stderr: a line per epoch, and speed and remaining time in between."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from platform.common.text_format import duration, percent
from platform.training.records import EpochRecord, StepProgress
from platform.training.run_folder import write_metrics

_PLAIN_INTERVAL_S = 30.0


class Progress:
    """Callbacks of a run that write metrics.csv after each epoch and print its progress.

    On a terminal the progress line is rewritten in place; elsewhere it is printed every 30 s.
    """

    def __init__(
        self,
        folder: Path,
        *,
        finished: Sequence[EpochRecord] = (),
        quiet: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        """Start with the epochs that are already finished.

        Args:
            folder: the folder of metrics.csv.
            finished: the epochs before a resume.
            quiet: write nothing (workers other than the first).
            stream: where to print; default stderr.
        """
        self._folder = folder
        self._records = list(finished)
        self._quiet = quiet
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._line = ""
        self._next_s = time.monotonic() + _PLAIN_INTERVAL_S
        self._remaining = ""
        if finished and not quiet:
            self._write(f"resuming after epoch {finished[-1].epoch} of {finished[-1].epochs}")

    def epoch_finished(self, record: EpochRecord) -> None:
        """Write metrics.csv and print the epoch."""
        self._records.append(record)
        if self._quiet:
            return
        write_metrics(self._folder, self._records)
        self._clear()
        self._write(format_epoch(record) + self._remaining)

    def step_finished(self, progress: StepProgress) -> None:
        """Show the current progress."""
        if self._quiet:
            return
        self._remaining = f"  {duration(progress.remaining_s)} left"
        text = (
            f"epoch {progress.epoch}/{progress.epochs}  step {progress.step:,}/{progress.steps:,}  "
            f"train loss {progress.train_loss:.3f}  {progress.images_per_s:,.0f} images/s{self._remaining}"
        )
        if self._live:
            self._clear()
            self._line = text[:110]
            self._stream.write(self._line)
            self._stream.flush()
        elif time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _PLAIN_INTERVAL_S
            self._write(text)

    def close(self) -> None:
        """Clear the progress line."""
        self._clear()

    def _clear(self) -> None:
        if self._line:
            self._stream.write("\r" + " " * len(self._line) + "\r")
            self._stream.flush()
            self._line = ""

    def _write(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


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
