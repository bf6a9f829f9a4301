"""Format the list of sweeps in a folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from platform.common.errors import UserError
from platform.common.text_format import duration, percent
from platform.tracking.events import TrialStatus
from platform.tracking.results import SweepResults, read_results
from platform.tracking.sweep_folder import SweepFolder, all_sweeps

_HEADER = ("sweep", "state", "trials", "best validation", "test", "time", "age")


def sweep_list(root: Path, *, now: datetime | None = None) -> str:
    """Return a table of the sweeps under `root`, newest last.

    `best validation` is the champion's mean over seeds, or the accuracy of the best trial so far. An asterisk
    marks a quick sweep, whose runs are too short for final accuracies.
    """
    sweeps = all_sweeps(root)
    if not sweeps:
        return f"no sweeps in {root.absolute()}"
    now = now or datetime.now(UTC)
    rows = [_HEADER, *(_row(folder, now) for folder in sweeps)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(folder: SweepFolder, now: datetime) -> tuple[str, ...]:
    started = folder.started_at
    age = duration(max(0.0, (now - started).total_seconds())) if started else "-"
    wall_time = duration(folder.elapsed_s() or None)
    try:
        results = read_results(folder)
    except UserError:
        return (folder.sweep_id, "damaged", "-", "-", "-", wall_time, age)
    done = [row for row in results.of_stage("search") if row.status is not TrialStatus.RUNNING]
    planned = ((results.plan or {}).get("search") or {}).get("runs")
    test = percent(results.test["accuracy"]) if results.test else "-"
    return (
        folder.sweep_id + (" *" if results.quick else ""),
        results.state,
        f"{len(done)}" + (f"/{planned}" if planned else ""),
        _best(results),
        test,
        wall_time,
        age,
    )


def _best(results: SweepResults) -> str:
    entry = results.champion_candidate()
    if entry is not None:
        estimate = entry.get("estimate")
        spread = f" ± {50 * (estimate['interval95'][1] - estimate['interval95'][0]):.2f}" if estimate else ""
        return f"{entry['trial_id']} {percent(estimate['mean'] if estimate else entry['mean'])}{spread}"
    ranked = results.leaderboard()
    return f"{ranked[0].trial_id} {percent(ranked[0].validation_accuracy)}" if ranked else "-"
