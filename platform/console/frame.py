"""Render the live view of a running sweep: header, bar, best trials, running trials, current phase."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import ConsoleDimensions, Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from platform.common.text_format import approximate_duration, clock, different_settings, duration, percent
from platform.console.progress import Confirmed, EndedTrial, RunningTrial, SweepProgress
from platform.console.remaining_time import HAND_OVER
from platform.console.tables import plain_table
from platform.tracking.events import Stage, SweepInfo, TrialInfo, TrialStatus

STAGE_NAME: dict[Stage, str] = {"search": "search", "confirm": "confirmation", "final": "final training"}

STATUS_STYLE = {
    TrialStatus.FINISHED: "green",
    TrialStatus.PRUNED: "dim",
    TrialStatus.FAILED: "red",
    TrialStatus.INTERRUPTED: "yellow",
}

_BAR_WIDTH = 60
_OTHER_ROWS = 15
"""Rows of the frame besides the leaderboard and the running trials."""


def frame(
    progress: SweepProgress,
    *,
    phase: tuple[str, float] | None,
    background: str | None,
    size: ConsoleDimensions,
) -> RenderableType:
    """Return the current view; `phase` is the activity between trials, and the seconds since it began."""
    parts: list[RenderableType] = []
    sweep = progress.sweep
    if sweep is not None:
        parts += [Text(warning, style="bold yellow") for warning in sweep.warnings]
        parts += _header(sweep, progress)
    if background:
        parts.append(_line(background, "dim"))
    if sweep is not None:
        free = max(2, size.height - _OTHER_ROWS)
        running = list(progress.running.values())[: max(1, free // 2)]
        board = progress.leaderboard()[: max(1, min(8, free - len(running)))]
        # The later stages repeat settings of the leaderboard and show the candidate instead.
        searched = [one.trial.params for one in running if one.trial.stage == "search"]
        settings = different_settings([*(ended.params for ended in board), *searched])
        if board:
            parts += [Text(""), _leaderboard(progress, board, settings[: len(board)])]
        if running:
            parts += [
                Text(""),
                _running(progress, running, settings[len(board) :], bar=6 if size.width < 100 else 16),
            ]
        hidden = len(progress.running) - len(running)
        if hidden:
            parts.append(_line(f"and {hidden} more running", "dim"))
    if phase is not None:
        text, elapsed_s = phase
        line = Table.grid(padding=(0, 1))
        line.add_column()
        line.add_column(no_wrap=True, overflow="ellipsis")
        line.add_row(Spinner("dots"), f"[dim]{duration(elapsed_s):>5}[/dim]  {escape(text)}")
        parts += [Text("")] * bool(parts) + [line]
    # The terminal writes ^C at the cursor: at the end of a full line that would move the frame by a line.
    return Group(*parts, Text(""))


def time_text(progress: SweepProgress, *, whole: str = "") -> str:
    """Return the remaining time: `about 4 min left`; empty while it is unknown.

    `whole` precedes the time of the whole sweep; that of a stage has the stage's name.
    """
    left = progress.remaining_time()
    if left is None:
        return ""
    of = whole if left.whole else f"{STAGE_NAME[progress.stage]}: "
    return f"{of}{approximate_duration(left.seconds)} left"


def elapsed_text(progress: SweepProgress) -> str:
    """Return the elapsed time, with the time budget if there is one: `4:12 elapsed`, `4:12 of 5:00`."""
    budget_s = progress.budget_s()
    elapsed = clock(progress.elapsed_s())
    return f"{elapsed} elapsed" if budget_s is None else f"{elapsed} of {clock(budget_s)}"


def best_text(progress: SweepProgress) -> str:
    """Return the best trial so far, with its interval once it is confirmed; empty without one."""
    ranked = progress.leaderboard()
    if not ranked:
        return ""
    confirmed = progress.confirmed.get(ranked[0].trial_id)
    accuracy = percent(ranked[0].accuracy) if confirmed is None else confirmed_text(confirmed)
    return f"best {ranked[0].trial_id} {accuracy}"


def confirmed_text(confirmed: Confirmed) -> str:
    """Return an expected accuracy: `93.12 ± 0.31 % n=3`; ± is half the width of the 95 % interval."""
    return f"{100 * confirmed.mean:.2f} ± {percent(confirmed.margin)} n={confirmed.n}"


def run_text(trial: TrialInfo) -> str:
    """Return the role of a run after the search: `candidate t004, seed 2`; empty for a trial."""
    if trial.candidate is None:
        return ""
    if trial.stage == "final":
        return f"champion {trial.candidate}"
    return f"candidate {trial.candidate}, seed {int(trial.trial_id.rpartition('-s')[2]) + 1}"


def stage_text(progress: SweepProgress) -> str:
    """Return the stage and its progress: `search, trial 9 of 40`."""
    phases = list(HAND_OVER)
    if progress.hand_over is not None:
        step = phases.index(progress.hand_over) + 1
        return f"hand-over, step {step} of {len(phases)}: {progress.hand_over}"
    stage = progress.stage
    mine = [running for running in progress.running.values() if running.trial.stage == stage]
    started = len(progress.ended[stage]) + len(mine)
    if not started or progress.sweep is None:
        return STAGE_NAME[stage]
    what = run_text(mine[0].trial) if len(mine) == 1 else ""
    if stage == "final":
        return f"{STAGE_NAME[stage]}{f', {what}' if what else ''}"
    kind, runs = "trial" if stage == "search" else "run", progress.runs_of(stage)
    return f"{STAGE_NAME[stage]}, {kind} {started} of {runs}{f': {what}' if what else ''}"


def _header(sweep: SweepInfo, progress: SweepProgress) -> list[RenderableType]:
    """Return the header: time, stage, bar, best trial, rungs."""
    title = _line(sweep.sweep_id, "bold")
    title.append(f"   {elapsed_text(progress)}", "not bold")
    title.append(f"   {time_text(progress)}", "not bold cyan")
    parts: list[RenderableType] = [title, _stage_line(progress), _bar(sweep, progress)]
    best = best_text(progress)
    if best:
        parts.append(_line(best, "bold green"))
    rungs = [f"epoch {one.epoch}: {one.reached} reached, {one.stopped} stopped" for one in progress.rungs()]
    if rungs and progress.stage == "search":
        parts.append(_line(f"rungs   {'   '.join(rungs)}", "dim"))
    return parts


def _stage_line(progress: SweepProgress) -> Text:
    line = _line(stage_text(progress), "cyan")
    counts = progress.counts()
    if progress.stage == "search" and progress.has_started("search"):
        named = ((counts[TrialStatus.PRUNED], "stopped"), (counts[TrialStatus.FAILED], "failed"))
        ended = [f"{count} {word}" for count, word in named if count]
        line.append(f"   {sum(counts.values())} done", "default")
        line.append(f" ({', '.join(ended)})" if ended else "", "default")
    planned = progress.plan_of(progress.stage)
    if planned and progress.running:
        used, workers = len(progress.running), planned["workers"]
        line.append(f"   slots {used * workers} of {planned['concurrency'] * workers}", "default")
    return line


def _bar(sweep: SweepInfo, progress: SweepProgress) -> RenderableType:
    """Return the bar of the whole sweep, or of the search if the remaining time is unknown."""
    left, elapsed_s = progress.remaining_time(), progress.elapsed_s()
    if left is not None and left.whole:
        share, what = elapsed_s / max(1e-9, elapsed_s + left.seconds), ""
    else:
        share, what = len(progress.ended["search"]) / max(1, sweep.trials), " of the search"
    grid = Table.grid(padding=(0, 1))
    grid.add_row(
        ProgressBar(total=1.0, completed=share, width=_BAR_WIDTH), Text(f"{percent(share, 0)}{what}", "dim")
    )
    return grid


def _leaderboard(progress: SweepProgress, board: Sequence[EndedTrial], settings: Sequence[str]) -> Table:
    numbers = ["confirmed"] if progress.confirmed else ["epochs", "time"]
    table = plain_table("best", "val acc", *numbers, expand=True)
    _add_settings_column(table)
    for ended, text in zip(board, settings, strict=True):
        cells = [str(ended.epochs_done), clock(ended.duration_s)]
        if progress.confirmed:
            confirmed = progress.confirmed.get(ended.trial_id)
            cells = [confirmed_text(confirmed) if confirmed else ""]
        table.add_row(
            ended.trial_id,
            percent(ended.accuracy),
            *cells,
            Text(text),
            style="dim" if ended.status is TrialStatus.PRUNED else "",
        )
    return table


def _running(
    progress: SweepProgress, running: Sequence[RunningTrial], settings: Sequence[str], *, bar: int
) -> Table:
    table = plain_table("running", expand=True)
    table.add_column("", width=bar)
    for name in ("epoch", "val acc", "img/s"):
        table.add_column(name, justify="right", no_wrap=True)
    _add_settings_column(table)
    searched = iter(settings)
    for one in running:
        last = one.last
        table.add_row(
            one.trial.trial_id,
            ProgressBar(total=1.0, completed=one.fraction(progress.clock()), width=bar),
            f"{last.epoch}/{last.epochs}" if last else "start",
            percent(progress.accuracy(one.trial.trial_id)),
            f"{last.images_per_s:,.0f}" if last else "-",
            Text(next(searched) if one.trial.stage == "search" else run_text(one.trial)),
        )
    return table


def _add_settings_column(table: Table) -> None:
    table.add_column("settings", overflow="ellipsis", no_wrap=True, ratio=1)


def _line(text: str, style: str = "") -> Text:
    """Return a line that is cut at the edge of the terminal."""
    return Text(text, style, no_wrap=True, overflow="ellipsis")
