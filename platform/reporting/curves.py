"""Plot the learning curves of all trials and the best accuracy so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from platform.common.text_format import percent, settings_text
from platform.reporting.svg import focused, framed, padded
from platform.tracking.events import TrialStatus
from platform.tracking.parquet_tables import TrialRow
from platform.tracking.results import SweepResults
from platform.training.records import EpochRecord

COLORED = 5
"""Number of curves with their own colors; more would be hard to distinguish."""

Legend = list[tuple[str, str]]
"""(css class, text)."""


def learning_curves(results: SweepResults, *, loss: bool = False) -> tuple[Markup, Legend] | None:
    """Plot validation accuracy, or training loss on a log scale, per epoch for every search trial.

    The best trials are colored, the champion has a thicker line, pruned and failed trials are gray.

    Returns:
        The chart and its legend; None if no trial finished an epoch.
    """
    value: Callable[[EpochRecord], float | None] = (
        (lambda record: record.train_loss) if loss else _validation_percent
    )
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in results.of_stage("search"):
        points = [(float(record.epoch), value(record)) for record in results.epochs.get(row.trial_id, ())]
        known = [(x, y) for x, y in points if y is not None and math.isfinite(y) and (y > 0 or not loss)]
        if known:
            curves[row.trial_id] = known
    if not curves:
        return None
    values = [y for points in curves.values() for _, y in points]
    last = max(epoch for points in curves.values() for epoch, _ in points)
    if loss:
        ends = padded(min(values), max(values), log=True)
    else:
        # Without the first tenth of the epochs, where accuracy rises from chance level.
        later = [y for points in curves.values() for epoch, y in points if epoch > last / 10] or values
        ends = padded(min(later), max(later))
        ends = (max(0.0, ends[0]), min(100.0, ends[1]))
    chart = framed((0, last), ends, y_log=loss, width=530, height=330)
    chart.axes(x_label="epoch", y_label="training loss" if loss else "validation accuracy, %")
    ranked = [row for row in results.leaderboard() if row.trial_id in curves]
    colored = [row for row in ranked if row.completed][:COLORED]
    chosen = (results.champion or {}).get("trial_id")
    styles = {row.trial_id: f"c{index}" for index, row in enumerate(colored, start=1)}
    rows = {row.trial_id: row for row in results.of_stage("search")}
    # Gray curves are drawn first, colored ones on top, the champion last.
    for trial_id in sorted(curves, key=lambda name: (name in styles, name == chosen)):
        row = rows[trial_id]
        css = styles.get(trial_id, _gray(row)) + (" strong" if trial_id == chosen else "")
        chart.line(curves[trial_id], css, _title(row))
    legend: Legend = [
        (styles[row.trial_id], row.trial_id + (" (champion)" if row.trial_id == chosen else ""))
        for row in colored
    ]
    others = {_gray(rows[trial_id]) for trial_id in curves if trial_id not in styles}
    labels = {"completed": "other completed trials", "pruned": "pruned", "failed": "failed"}
    legend += [(css, text) for css, text in labels.items() if css in others]
    metric = "training loss" if loss else "validation accuracy"
    return chart.svg(f"{metric} per epoch of {len(curves)} trials"), legend


def best_so_far(results: SweepResults) -> Markup | None:
    """Plot the accuracy of each search trial in order, and the best so far; None without an accuracy."""
    rows = sorted(results.leaderboard(), key=lambda row: row.number)
    if not rows:
        return None
    accuracies = [row.validation_percent for row in rows]
    count = max(row.number for row in rows) + 1
    ends = focused(accuracies, [row.validation_percent for row in rows if row.completed])
    chart = framed((0, count + 1), ends, height=260)
    chart.axes(x_label="trial", y_label="validation accuracy, %")
    chart.line(_steps(rows, count), "c1")
    for row, accuracy in zip(rows, accuracies, strict=True):
        css = "c1" if row.completed else "pruned"
        chart.dot(row.number + 1, accuracy, css, _title(row))
    return chart.svg("validation accuracy of each trial in order, and the best so far")


def _steps(rows: Sequence[TrialRow], count: int) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    best = None
    for row in rows:
        # Only completed trials count for the best accuracy.
        if not row.completed:
            continue
        accuracy = row.validation_percent
        if best is None or accuracy > best:
            if best is not None:
                points.append((row.number + 1, best))
            best = accuracy
            points.append((row.number + 1, best))
    if best is not None:
        points.append((count + 0.5, best))
    return points


def _validation_percent(record: EpochRecord) -> float | None:
    return None if record.validation_accuracy is None else 100 * record.validation_accuracy


def _gray(row: TrialRow) -> str:
    return {TrialStatus.PRUNED: "pruned", TrialStatus.FAILED: "failed"}.get(row.status, "completed")


def _title(row: TrialRow) -> str:
    accuracy = percent(row.validation_accuracy)
    return f"{row.trial_id}: {accuracy}, {row.epochs_done} epochs, {row.status}\n{settings_text(row.params)}"
