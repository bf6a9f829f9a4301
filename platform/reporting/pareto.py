"""Accuracy against the cost of the network: the Pareto front as charts and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from platform.common.text_format import percent, settings_cells, settings_text
from platform.reporting.svg import framed, number, padded
from platform.space.pareto import non_dominated
from platform.tracking.parquet_tables import TrialRow
from platform.tracking.results import SweepResults

_WORDS = {
    "parameters": "parameters",
    "multiply_accumulates": "multiply-accumulates per image",
    "latency_ms": "latency per image, ms",
}
_UNITS = {"multiply_accumulates": "multiply-accumulates", "latency_ms": "ms"}
_LOG_FROM = 8  # costs that vary by more than this factor are drawn on a log scale


@dataclass(frozen=True, kw_only=True)
class ParetoView:
    """The Pareto front of a search with several objectives."""

    costs: tuple[str, ...]
    """Labels of the cost columns."""
    columns: tuple[str, ...]
    """The searched settings."""
    rows: tuple[tuple[TrialRow, tuple[str, ...], tuple[str, ...]], ...]
    """The trials of the front, most accurate first: row, costs, settings."""
    charts: tuple[tuple[str, Markup], ...]
    """Title and chart for each cost."""
    completed: int
    """Number of completed trials that the front is chosen from."""
    measured_untrained: bool
    """Whether latency is an objective; it is measured on untrained networks."""


def pareto_view(results: SweepResults) -> ParetoView | None:
    """Return the Pareto front of the completed trials; None if accuracy is the only objective."""
    rows = [row for row in results.leaderboard() if row.costs]
    names = list(dict.fromkeys(name for row in rows for name in row.costs))
    completed = {row.trial_id: row for row in rows if row.completed}
    if not completed:
        return None
    points = {
        name: {**row.costs, "validation_accuracy": row.validation_accuracy or 0.0}
        for name, row in completed.items()
    }
    best = [completed[name] for name in non_dominated(points, ("validation_accuracy", *names))]  # type: ignore[arg-type]
    cells = [settings_cells(row.params) for row in best]
    columns = tuple(dict.fromkeys(name for cell in cells for name in cell))
    chosen = (results.champion or {}).get("trial_id")
    return ParetoView(
        costs=tuple(_WORDS.get(name, name) for name in names),
        columns=columns,
        rows=tuple(
            (
                row,
                tuple(_amount(name, row.costs[name]) for name in names),
                tuple(cell.get(column, "") for column in columns),
            )
            for row, cell in zip(best, cells, strict=True)
        ),
        charts=tuple(
            (f"Validation accuracy over {_WORDS.get(name, name)}", _chart(name, rows, best, chosen))
            for name in names
        ),
        completed=len(completed),
        measured_untrained="latency_ms" in names,
    )


def _chart(name: str, rows: Sequence[TrialRow], best: Sequence[TrialRow], chosen: str | None) -> Markup:
    costs = [row.costs[name] for row in rows]
    log = min(costs) > 0 and max(costs) / min(costs) > _LOG_FROM
    # Pruned trials do not extend the axis: they would compress the front.
    accuracies = [row.validation_percent for row in rows if row.completed]
    low = min(row.validation_percent for row in best)
    ends = padded(low, max(accuracies), 0.1)
    chart = framed(
        padded(min(costs), max(costs), 0.06, log=log), (max(0.0, ends[0]), min(100.0, ends[1])), x_log=log
    )
    label = _WORDS.get(name, name) + (" (log scale)" if log else "")
    ticks = [(value, _short(value)) for value in chart.x.ticks(6)]
    chart.axes(x_label=label, y_label="validation accuracy, %", x_ticks=ticks)
    line = _staircase([(row.costs[name], row.validation_percent) for row in best])
    chart.line(line, "c1")
    names = {row.trial_id for row in best}
    for row in sorted(rows, key=lambda row: (row.trial_id in names, row.completed)):
        on_front = row.trial_id in names
        other = "completed" if row.completed else "pruned"
        css = "best" if row.trial_id == chosen else "c1" if on_front else other
        title = (
            f"{row.trial_id}: {percent(row.validation_accuracy)}, {_amount(name, row.costs[name])} "
            f"{_UNITS.get(name, name)}\n{settings_text(row.params)}"
        )
        chart.dot(
            row.costs[name],
            row.validation_percent,
            css,
            title,
            radius=5.5 if on_front else 3.5,
        )
    return chart.svg(f"validation accuracy over {label} of {len(rows)} trials")


def _staircase(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the best accuracy at each cost or below as a step function."""
    steps: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if steps and accuracy <= steps[-1][1]:
            continue
        if steps:
            steps.append((cost, steps[-1][1]))
        steps.append((cost, accuracy))
    return steps


def _amount(name: str, value: float) -> str:
    return f"{value:.3g}" if name == "latency_ms" else f"{value:,.0f}"


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return number(value)
