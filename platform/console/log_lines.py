"""Lines about a running sweep for a file or a pipe: few, but never silent for long."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from platform.common.text_format import different_settings, duration, percent, plural
from platform.console.frame import (
    STAGE_NAME,
    STATUS_STYLE,
    best_text,
    elapsed_text,
    run_text,
    stage_text,
    time_text,
)
from platform.console.progress import EndedTrial, SweepProgress
from platform.console.remaining_time import HAND_OVER
from platform.tracking.events import SweepInfo, TrialInfo
from platform.training.records import EpochRecord

_PHASE_EVERY_S = 10.0
_BACKGROUND_EVERY_S = 30.0
_EPOCHS_EVERY_S = 60.0
_SILENT_PHASE_S = 60.0
_SILENT_TRAINING_S = 300.0


class LogLines:
    """Prints one line per ended trial and per phase, and in between one per epoch or minute.

    The caller serializes the calls.
    """

    def __init__(self, console: Console, progress: SweepProgress) -> None:
        """Print to `console`, with the state and the clock of `progress`."""
        self._console, self._progress = console, progress
        self._background: tuple[str | None, float] = (None, -_BACKGROUND_EVERY_S)
        self._printed_s = progress.clock()

    def phase(self, text: str, *, new: bool) -> None:
        """Print a phase when it begins, and its counters (`building the engine [120/269]`) every 10 s."""
        if not new and self._progress.clock() - self._printed_s < _PHASE_EVERY_S:
            return
        # Without the time left on each of many short phases.
        shown = text if new and text not in HAND_OVER else self._with_time_left(text)
        self.line(f"[dim]…[/dim] {escape(shown)}")

    def tick(self, background: str | None, phase: tuple[str, float] | None) -> None:
        """Print background work that has changed, and a line if there was none for long.

        `phase` is the current phase and the time at which it began.
        """
        now, (shown, shown_s) = self._progress.clock(), self._background
        if background and background != shown and now - shown_s >= _BACKGROUND_EVERY_S:
            self._background = (background, now)
            self.line(f"[dim]… {escape(background)}[/dim]")
        elif phase is not None and now - self._printed_s >= _SILENT_PHASE_S:
            name, started = phase
            self.line(f"[dim]… {escape(self._with_time_left(f'{name}  ({duration(now - started)})'))}[/dim]")
        elif self._progress.running and now - self._printed_s >= _SILENT_TRAINING_S:
            self._status_line(plural(len(self._progress.running), "run"))

    def sweep_started(self, sweep: SweepInfo) -> None:
        """Print the sweep and its warnings."""
        self.line(f"[bold]{escape(sweep.sweep_id)}[/bold]  {escape(str(sweep.folder))}")
        for warning in sweep.warnings:
            self.line(f"[bold yellow]{warning}[/bold yellow]")

    def stage_started(self, trial: TrialInfo) -> None:
        """Print the stage that `trial` begins, with its runs."""
        runs = self._progress.plan_of(trial.stage).get("runs")
        text = STAGE_NAME[trial.stage] + (f": {plural(runs, 'run')}" if runs else "")
        self.line(escape(self._with_time_left(text)))

    def epoch_finished(self, trial: TrialInfo, record: EpochRecord) -> None:
        """Print an epoch, unless a line was printed less than a minute ago or the run's line follows."""
        if record.epoch == record.epochs or self._progress.clock() - self._printed_s < _EPOCHS_EVERY_S:
            return
        accuracy = self._progress.accuracy(trial.trial_id)
        shown = f" val {percent(accuracy)}" if accuracy is not None else ""
        role = f" ({run_text(trial)})" if trial.candidate and len(self._progress.running) > 1 else ""
        self._status_line(f"{trial.trial_id}{role} epoch {record.epoch}/{record.epochs}{shown}")

    def trial_ended(self, trial: TrialInfo, ended: EndedTrial) -> None:
        """Print the result of a run."""
        style = STATUS_STYLE.get(ended.status, "")
        parts = [f"{ended.trial_id}  [{style}]{ended.status}[/{style}]"]
        if ended.accuracy is not None:
            parts.append(f"val {percent(ended.accuracy)}")
        parts.append(f"{plural(ended.epochs_done, 'epoch')} in {duration(ended.duration_s)}")
        what = run_text(trial) or different_settings([ended.params])[0]
        if what:
            parts.append(escape(what))
        if ended.error:
            parts.append(f"[red]{escape(_last_line(ended.error))}[/red]")
        runs = self._progress.runs_of(trial.stage)
        tail = [f"{len(self._progress.ended[trial.stage])}/{runs}" if runs else ""]
        tail += [best_text(self._progress), time_text(self._progress)]
        parts.append(f"[dim]{', '.join(text for text in tail if text)}[/dim]")
        self.line("  ".join(parts))

    def line(self, markup: str) -> None:
        """Print a line."""
        self._printed_s = self._progress.clock()
        self._console.print(markup)

    def _status_line(self, what: str) -> None:
        progress = self._progress
        words = (elapsed_text(progress), stage_text(progress), what, best_text(progress), time_text(progress))
        self.line(f"[dim]{escape('  '.join(word for word in words if word))}[/dim]")

    def _with_time_left(self, text: str) -> str:
        left = time_text(self._progress, whole="sweep: ")
        return f"{text}  ({left})" if left else text


def _last_line(error: str) -> str:
    """Return the last line of an error, followed by the line with the log's path if there is one."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    logs = [line for line in lines if line.startswith("log: ")]
    others = [line for line in lines if not line.startswith("log: ")]
    return "; ".join([*others[-1:], *logs[-1:]])
