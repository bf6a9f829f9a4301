"""The view of a running sweep on stderr: an updated frame on a terminal, else lines.

Stdout is reserved for results.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.control import Control
from rich.live import Live
from rich.markup import escape
from rich.segment import ControlType, Segment

from platform.console.frame import frame
from platform.console.log_lines import LogLines
from platform.console.progress import SweepProgress
from platform.tracking.events import SweepInfo, SweepObserver, SweepOutcome, TrialInfo, TrialStatus
from platform.training.records import EpochRecord

_TICK_S = 1.0
_PIPED_WIDTH = 4096


def stderr_console(*, quiet: bool = False) -> Console:
    """Return the console for progress: stderr, without color if NO_COLOR is set or it is not a terminal."""
    piped = not sys.stderr.isatty()
    # In a file or a pipe nothing is wrapped, so that a line can be searched and a path be copied.
    return Console(
        stderr=True, quiet=quiet, highlight=False, soft_wrap=piped, width=_PIPED_WIDTH if piped else None
    )


class LiveView(SweepObserver):
    """Shows a running sweep. Used as a context manager, it restores the terminal at the end."""

    def __init__(
        self, *, console: Console | None = None, quiet: bool = False, progress: SweepProgress | None = None
    ) -> None:
        """Create the view; it is empty until the first phase or event.

        `progress` may be one with another clock.
        """
        self.console = console or stderr_console(quiet=quiet)
        self._progress = progress or SweepProgress()
        self._log = LogLines(self.console, self._progress)
        self._phase: tuple[str, float] | None = None
        # The refresh thread reads the state that the driver's thread writes.
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._shown: tuple[int, list[int]] | None = None
        self._stopping = False
        self._exited = threading.Event()
        self._background: Callable[[], str | None] = lambda: None

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

        An update of the same phase (`building the engine [120/269]`) replaces the line on a terminal, and is
        printed at most every 10 s elsewhere.
        """
        live = text is not None and self._start_live()
        with self._lock:
            previous, self._phase = self._phase, None
            if text is None:
                return
            same = previous is not None and _without_numbers(previous[0]) == _without_numbers(text)
            self._phase = (text, previous[1] if previous and same else self._progress.clock())
            if not live:
                self._log.phase(text, new=not same)

    def warn(self, text: str) -> None:
        """Print a warning above the view."""
        self.console.print(f"warning: {text}", highlight=False, markup=False)

    def set_background(self, status: Callable[[], str | None]) -> None:
        """Show work that runs in the background, such as the build of ncnn.

        `status` returns its state as text, or None if there is nothing to show. It is called at each refresh,
        from another thread. Without a terminal its text is printed at most every 30 s.
        """
        self._background = status

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Show the current activity while the block runs."""
        with self._lock:
            self._progress.phase_started(text)
        self.set_phase(text)
        try:
            yield
        finally:
            self.set_phase(None)

    def sweep_started(self, sweep: SweepInfo) -> None:
        live = self._start_live()
        with self._lock:
            self._progress.sweep_started(sweep)
            if not live:
                self._log.sweep_started(sweep)

    def trial_started(self, trial: TrialInfo) -> None:
        live = self._start_live()
        with self._lock:
            new_stage = not self._progress.has_started(trial.stage)
            self._progress.trial_started(trial)
            self._phase = None
            if new_stage and not live:
                self._log.stage_started(trial)

    def epoch_finished(self, trial: TrialInfo, record: EpochRecord) -> None:
        live = self._start_live()
        with self._lock:
            self._progress.epoch_finished(trial, record)
            if not live:
                self._log.epoch_finished(trial, record)

    def trial_noted(self, trial: TrialInfo, note: str) -> None:
        self._log.line(f"{trial.trial_id}  [yellow]{escape(note)}[/yellow]")

    def sweep_noted(self, note: str) -> None:
        self._log.line(f"[yellow]{escape(note)}[/yellow]")

    def trial_ended(self, trial: TrialInfo, status: TrialStatus, *, error: str | None = None) -> None:
        live = self._start_live()
        with self._lock:
            self._progress.trial_ended(trial, status, error=error)
            ended = self._progress.ended[trial.stage].get(trial.trial_id)
        if ended is not None and (status is TrialStatus.FAILED or not live):
            self._log.trial_ended(trial, ended)

    def stop_requested(self) -> bool:
        self._stopping = self._live is not None
        return self._stopping

    def sweep_ended(self, outcome: SweepOutcome) -> None:  # noqa: ARG002 - the error has the message
        self.close()

    def render(self) -> RenderableType:
        """Return the current view of a terminal."""
        with self._lock:
            now = self._progress.clock()
            phase = None if self._phase is None else (self._phase[0], now - self._phase[1])
            if self._stopping:
                phase = ("stopping; press Ctrl-C again to stop immediately", 0.0)
            return frame(self._progress, phase=phase, background=self._background(), size=self.console.size)

    def _start_live(self) -> bool:
        """Start the updated view if the console is a terminal; return whether it is active."""
        if self._live is None and self._is_terminal and not self._exited.is_set():
            self._live = Live(
                get_renderable=self._frame_for_live,
                console=self.console,
                refresh_per_second=4,
                transient=True,
                # Redirected output would end up on stderr, but stdout is for results.
                redirect_stdout=False,
            )
            self._live.start()
        return self._live is not None

    def _frame_for_live(self) -> RenderableType:
        """Return the view, after clearing what a narrower terminal has wrapped of the previous one.

        `Live` moves the cursor up by the lines it has printed. A terminal that becomes narrower wraps them
        into more lines.
        """
        view, width = self.render(), self.console.width
        if self._shown is not None and width < self._shown[0]:
            extra = sum(max(0, -(-length // width) - 1) for length in self._shown[1])
            erase_and_up = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
            self.console.control(Control(*erase_and_up * extra))
        lines = self.console.render_lines(view, pad=False)[: self.console.height]
        self._shown = (width, [Segment.get_line_length(line) for line in lines])
        return view

    @property
    def _is_terminal(self) -> bool:
        return self.console.is_terminal and not (self.console.quiet or self.console.is_dumb_terminal)

    def _tick_until_exit(self) -> None:
        while not self._exited.wait(_TICK_S):
            self._tick()

    def _tick(self) -> None:
        with self._lock:
            self._log.tick(self._background(), self._phase)


def _without_numbers(phase: str) -> str:
    """Return the text of a phase without its counters: `building the engine`."""
    return re.sub(r"[\s:(\[]*(?<!\w)\d.*", "", phase)
