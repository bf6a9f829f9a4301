"""The progress of one run on stderr: a line per epoch, and between them how fast and how long still."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from platform.training.records import EpochRecord, StepProgress
from platform.training.run_folder import write_metrics

_PLAIN_INTERVAL_S = 30.0


class Progress:
    """Listens to a run: writes metrics.csv after each epoch, and tells a person how it goes.

    On a terminal the line between epochs is rewritten in place; elsewhere it is written every 30 s.
    """

    def __init__(
        self,
        folder: Path,
        *,
        finished: Sequence[EpochRecord] = (),
        quiet: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        """Begin to listen.

        Args:
            folder: where metrics.csv goes.
            finished: the epochs before a resume.
            quiet: do nothing at all (workers other than the first).
            stream: where to write; default stderr.
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
            self._write(f"going on after epoch {finished[-1].epoch} of {finished[-1].epochs}")

    def epoch_finished(self, record: EpochRecord) -> None:
        """Take note of an epoch."""
        self._records.append(record)
        if self._quiet:
            return
        write_metrics(self._folder, self._records)
        self._clear()
        self._write(epoch_line(record) + self._remaining)

    def step_finished(self, progress: StepProgress) -> None:
        """Show how the run stands."""
        if self._quiet:
            return
        self._remaining = f"  {readable_time(progress.remaining_s)} left"
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
        """Leave the cursor on a line of its own."""
        self._clear()

    def _clear(self) -> None:
        if self._line:
            self._stream.write("\r" + " " * len(self._line) + "\r")
            self._stream.flush()
            self._line = ""

    def _write(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


def epoch_line(record: EpochRecord) -> str:
    """Return an epoch in one line."""
    width = len(str(record.epochs))
    held_out = ""
    if record.validation_loss is not None and record.validation_accuracy is not None:
        held_out = f"  validation {record.validation_loss:.3f} {100 * record.validation_accuracy:6.2f} %"
    return (
        f"epoch {record.epoch:{width}}/{record.epochs}  train {record.train_loss:.3f} "
        f"{100 * record.train_accuracy:6.2f} %{held_out}  lr {record.lr:.4g}  "
        f"{record.images_per_s:,.0f} images/s"
    )


def readable_time(seconds: float) -> str:
    """Return a duration with two units at most: `42 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
