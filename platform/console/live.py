"""The live view of a sweep on stderr: an updated table on a terminal, else one line per event.

Stdout is reserved for results.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from platform.common.text_format import (
    approximate_duration,
    duration,
    percent,
    plural,
    settings_text,
)
from platform.console.progress import EndedTrial, SweepProgress
from platform.tracking.events import SweepInfo, SweepObserver, SweepOutcome, TrialInfo, TrialStatus
from platform.training.records import EpochRecord

_TICK_S = 1.0
_BACKGROUND_EVERY_S = 30.0

STATUS_STYLE = {
    TrialStatus.FINISHED: "green",
    TrialStatus.PRUNED: "dim",
    TrialStatus.FAILED: "red",
    TrialStatus.INTERRUPTED: "yellow",
}


def stderr_console(*, quiet: bool = False) -> Console:
    """Return the console for progress: stderr, without color if NO_COLOR is set or it is not a terminal."""
    return Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=not sys.stderr.isatty())


class LiveView(SweepObserver):
    """Shows a running sweep. Used as a context manager, it restores the terminal at the end."""

    def __init__(
        self,
        *,
        console: Console | None = None,
        quiet: bool = False,
        top: int = 8,
        progress: SweepProgress | None = None,
    ) -> None:
        """Create the view; it is empty until the first phase or event.

        Args:
            console: output; stderr by default.
            quiet: show nothing.
            top: rows of the leaderboard.
            progress: state of the sweep; tests pass one with their own clock.
        """
        self.console = console or stderr_console(quiet=quiet)
        self._progress = progress or SweepProgress()
        self._top = top
        self._phase: tuple[str, float] | None = None
        # The refresh thread reads the state that the driver's thread writes.
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._exited = threading.Event()
        self._background: Callable[[], str | None] = lambda: None
        self._background_shown: tuple[str | None, float] = (None, -_BACKGROUND_EVERY_S)

    def __enter__(self) -> Self:
        if not (self._is_terminal or self.console.quiet):
            threading.Thread(target=self._tick_until_exit, name="console", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exited.set()
        self.close()

    def close(self) -> None:
        """Remove the view from the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def set_phase(self, text: str | None) -> None:
        """Show the current activity between trials; None clears it.

        An update of the same phase (`building the engine [120/269]`) replaces the line on a terminal and is
        not printed elsewhere.
        """
        with self._lock:
            previous = self._phase
            same = (
                previous is not None
                and text is not None
                and _without_numbers(previous[0]) == _without_numbers(text)
            )
            started = previous[1] if previous is not None and same else time.monotonic()
            self._phase = (text, started) if text else None
        if text and not self._start_live() and not same:
            self._line(f"[dim]…[/dim] {escape(text)}")

    def set_background(self, status: Callable[[], str | None]) -> None:
        """Show work that runs in the background, such as the build of ncnn.

        Args:
            status: returns its state as text, or None if there is nothing to show. It is called at each
                refresh, from another thread. Without a terminal its text is printed at most every 30 s.
        """
        self._background = status

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Show the current activity while the block runs."""
        self.set_phase(text)
        try:
            yield
        finally:
            self.set_phase(None)

    def sweep_started(self, sweep: SweepInfo) -> None:
        with self._lock:
            self._progress.sweep_started(sweep)
        if not self._start_live():
            self._line(f"[bold]{escape(sweep.sweep_id)}[/bold]  {escape(str(sweep.folder))}")
            for warning in sweep.warnings:
                self._line(f"[bold yellow]{warning}[/bold yellow]")
            before = len(self._progress.ended["search"])
            if before:
                self._line(f"resuming: {before} of {plural(sweep.trials, 'trial')} done")

    def trial_started(self, trial: TrialInfo) -> None:
        with self._lock:
            first = not any(self._progress.running.values())
            new_stage = trial.stage != self._progress.stage
            self._progress.trial_started(trial)
            self._phase = None
        if not self._start_live() and new_stage and first:
            self._line(
                {"confirm": "confirming the best trials over several seeds"}.get(
                    trial.stage, "final training"
                )
            )

    def epoch_finished(self, trial: TrialInfo, record: EpochRecord) -> None:
        with self._lock:
            self._progress.epoch_finished(trial, record)
        # In the search one line per trial is enough; the later stages have few, long runs.
        if not self._start_live() and trial.stage != "search" and _is_milestone(record):
            accuracy = record.validation_accuracy
            where = f"epoch {record.epoch}/{record.epochs}  {record.images_per_s:,.0f} images/s"
            shown = f"  val {percent(accuracy)}" if accuracy is not None else ""
            self._line(f"[dim]{trial.trial_id}  {where}{shown}[/dim]")

    def trial_noted(self, trial: TrialInfo, note: str) -> None:
        self._line(f"{trial.trial_id}  [yellow]{escape(note)}[/yellow]")

    def trial_ended(self, trial: TrialInfo, status: TrialStatus, *, error: str | None = None) -> None:
        with self._lock:
            self._progress.trial_ended(trial, status, error=error)
            ended = self._progress.ended[trial.stage][trial.trial_id]
        if status is TrialStatus.FAILED or not self._start_live():
            self._line(self._ended_line(ended, in_search=trial.stage == "search"))

    def sweep_ended(self, outcome: SweepOutcome) -> None:
        self.close()
        if outcome.message:
            style = "red" if outcome.status == "failed" else "yellow"
            self._line(f"[{style}]{escape(outcome.message)}[/{style}]")

    def render(self) -> RenderableType:
        """Return the current view."""
        with self._lock:
            parts: list[RenderableType] = []
            sweep = self._progress.sweep
            if sweep is not None:
                parts += [Text(warning, style="bold yellow") for warning in sweep.warnings]
                parts.append(self._header(sweep))
                if self._progress.leaderboard():
                    parts.append(self._leaderboard())
                if self._progress.running:
                    parts += [Text(""), self._running()]
            background = self._background()
            if background:
                parts.insert(len(sweep.warnings) + 1 if sweep else 0, Text(background, style="dim"))
            if self._phase is not None:
                text, started = self._phase
                elapsed = duration(time.monotonic() - started)
                parts += [Text("")] * bool(parts)
                parts.append(Spinner("dots", Text(f"{text}  ({elapsed})")))
            return Group(*parts)

    @property
    def _is_terminal(self) -> bool:
        return self.console.is_terminal and not (self.console.quiet or self.console.is_dumb_terminal)

    def _tick_until_exit(self) -> None:
        while not self._exited.wait(_TICK_S):
            self._tick()

    def _tick(self) -> None:
        """Print the state of the background work if it has changed."""
        text, now = self._background(), time.monotonic()
        shown, shown_s = self._background_shown
        if text and text != shown and now - shown_s >= _BACKGROUND_EVERY_S:
            self._background_shown = (text, now)
            self._line(f"[dim]… {escape(text)}[/dim]")

    def _start_live(self) -> bool:
        """Start the updated view if the console is a terminal; return whether it is active."""
        if self._live is None and self._is_terminal and not self._exited.is_set():
            self._live = Live(
                get_renderable=self.render,
                console=self.console,
                refresh_per_second=4,
                transient=True,
                # Redirected output would end up on stderr, but stdout is for results.
                redirect_stdout=False,
            )
            self._live.start()
        return self._live is not None

    def _line(self, markup: str) -> None:
        self.console.print(markup)

    def _header(self, sweep: SweepInfo) -> RenderableType:
        counts = self._progress.counts()
        ended = sum(counts.values())
        line = Text.assemble((sweep.sweep_id, "bold"))
        line.append(f"   {duration(self._progress.elapsed_s())}")
        eta_s = self._progress.search_eta_s()
        if self._progress.stage != "search":
            stage = {"confirm": "confirmation", "final": "final training"}[self._progress.stage]
            line.append(f"   {stage}", "cyan")
        elif eta_s is not None:
            line.append(f"   search: {approximate_duration(eta_s)} left", "cyan")
        best = self._progress.leaderboard()[:1]
        tally = Text(f"{ended}/{sweep.trials} trials")
        running = sum(running.trial.stage == "search" for running in self._progress.running.values())
        for count, word, style in (
            (running, "running", "cyan"),
            (counts[TrialStatus.PRUNED], "pruned", STATUS_STYLE[TrialStatus.PRUNED]),
            (counts[TrialStatus.FAILED], "failed", STATUS_STYLE[TrialStatus.FAILED]),
        ):
            if count:
                tally.append(f"   {count} {word}", style)
        if best:
            tally.append(f"   best {percent(best[0].accuracy)}", "bold green")
            tally.append(f" ({best[0].trial_id})")
        bar = ProgressBar(total=max(1, sweep.trials), completed=ended, width=40)
        return Group(line, tally, bar, Text(""))

    def _leaderboard(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
        table.add_column("best trials", no_wrap=True)
        for name in ("val acc", "epochs", "time"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("settings", overflow="ellipsis", no_wrap=True, ratio=1)
        for ended in self._progress.leaderboard()[: self._top]:
            table.add_row(
                ended.trial_id,
                percent(ended.accuracy),
                str(ended.epochs_done),
                duration(ended.duration_s),
                Text(settings_text(ended.params), no_wrap=True, overflow="ellipsis"),
                style=STATUS_STYLE.get(ended.status, "") if ended.status is TrialStatus.PRUNED else "",
            )
        return table

    def _running(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
        table.add_column("running", no_wrap=True)
        table.add_column("", width=16)
        for name in ("epoch", "val acc", "images/s"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("settings", overflow="ellipsis", no_wrap=True, ratio=1)
        for running in self._progress.running.values():
            last = running.last
            table.add_row(
                running.trial.trial_id,
                ProgressBar(total=1.0, completed=running.fraction(), width=16),
                f"{last.epoch}/{last.epochs}" if last else "starting",
                percent(self._progress.accuracy(running.trial.trial_id)),
                f"{last.images_per_s:,.0f}" if last else "-",
                Text(settings_text(running.trial.params), no_wrap=True, overflow="ellipsis"),
            )
        return table

    def _ended_line(self, ended: EndedTrial, *, in_search: bool) -> str:
        style = STATUS_STYLE.get(ended.status, "")
        parts = [f"{ended.trial_id}  [{style}]{ended.status}[/{style}]"]
        if ended.accuracy is not None:
            parts.append(f"val {percent(ended.accuracy)}")
        parts.append(f"{plural(ended.epochs_done, 'epoch')} in {duration(ended.duration_s)}")
        if ended.params:
            parts.append(escape(settings_text(ended.params)))
        if ended.error:
            parts.append(f"[red]{escape(_last_line(ended.error))}[/red]")
        if in_search and self._progress.sweep is not None:
            done = sum(self._progress.counts().values())
            tail = f"{done}/{self._progress.sweep.trials}"
            best = self._progress.leaderboard()[:1]
            if best:
                tail += f", best {percent(best[0].accuracy)} ({best[0].trial_id})"
            eta_s = self._progress.search_eta_s()
            if eta_s:
                tail += f", {approximate_duration(eta_s)} left"
            parts.append(f"[dim]{tail}[/dim]")
        return "  ".join(parts)


def _without_numbers(phase: str) -> str:
    """Return the text of a phase without its counters: `building the engine`."""
    return re.sub(r"\[.*|[\d.,]+", "", phase).strip()


def _is_milestone(record: EpochRecord) -> bool:
    tenth = max(1, record.epochs // 10)
    return record.epoch % tenth == 0 or record.epoch == record.epochs


def _last_line(error: str) -> str:
    """Return the last line of an error, followed by the line with the log's path if there is one."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    logs = [line for line in lines if line.startswith("log: ")]
    others = [line for line in lines if not line.startswith("log: ")]
    return "; ".join([*others[-1:], *logs[-1:]])
