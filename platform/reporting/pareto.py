"""Accuracy against what a network costs: the trials beaten by none, as a picture and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from platform.reporting.svg import framed, number, padded
from platform.space.pareto import non_dominated
from platform.text_format import percent, settings_cells, settings_text
from platform.tracking.parquet_tables import TrialRow
from platform.tracking.results import SweepResults

_WORDS = {
    "parameters": "parameters",
    "multiply_accumulates": "multiply-accumulates of one image",
    "latency_ms": "latency of one image, ms",
}
_LOG_FROM = 8  # a cost that varies by more than this factor is drawn on a log scale


@dataclass(frozen=True, kw_only=True)
class ParetoView:
    """What the report shows of a search with several objectives."""

    costs: tuple[str, ...]
    """The columns beside the accuracy, in words."""
    columns: tuple[str, ...]
    """The searched settings."""
    rows: tuple[tuple[TrialRow, tuple[str, ...], tuple[str, ...]], ...]
    """Each trial of the front, the most accurate first: its row, its costs, its settings."""
    charts: tuple[tuple[str, Markup], ...]
    """One chart per cost, with its title."""
    whole: int
    """Trials that ran to their end, which the front was chosen from."""
    measured_untrained: bool
    """Whether a latency is among the costs."""


def pareto_view(results: SweepResults) -> ParetoView | None:
    """Return the front of a sweep's whole runs; None where accuracy was the only objective."""
    rows = [row for row in results.leaderboard() if row.costs]
    names = list(dict.fromkeys(name for row in rows for name in row.costs))
    whole = {row.trial_id: row for row in rows if row.whole}
    if not whole:
        return None
    points = {
        name: {**row.costs, "validation_accuracy": row.validation_accuracy or 0.0}
        for name, row in whole.items()
    }
    best = [whole[name] for name in non_dominated(points, ("validation_accuracy", *names))]  # type: ignore[arg-type]
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
        whole=len(whole),
        measured_untrained="latency_ms" in names,
    )


def _chart(name: str, rows: Sequence[TrialRow], best: Sequence[TrialRow], chosen: str | None) -> Markup:
    costs = [row.costs[name] for row in rows]
    log = min(costs) > 0 and max(costs) / min(costs) > _LOG_FROM
    # Trials stopped early lie far below: the front is what the frame is for.
    accuracies = [100 * (row.validation_accuracy or 0.0) for row in rows if row.whole]
    low = min(100 * (row.validation_accuracy or 0.0) for row in best)
    ends = padded(low, max(accuracies), 0.1)
    chart = framed(
        padded(min(costs), max(costs), 0.06, log=log), (max(0.0, ends[0]), min(100.0, ends[1])), x_log=log
    )
    label = _WORDS.get(name, name) + (" (log scale)" if log else "")
    # A million needs no seven digits.
    ticks = [(value, _short(value)) for value in chart.x.ticks(6)]
    chart.axes(x_label=label, y_label="validation accuracy, %", x_ticks=ticks)
    line = _staircase([(row.costs[name], 100 * (row.validation_accuracy or 0.0)) for row in best])
    chart.line(line, "c1")
    names = {row.trial_id for row in best}
    for row in sorted(rows, key=lambda row: (row.trial_id in names, row.whole)):
        on_front = row.trial_id in names
        css = "best" if row.trial_id == chosen else "c1" if on_front else "whole" if row.whole else "pruned"
        title = (
            f"{row.trial_id}: {percent(row.validation_accuracy)}, {_amount(name, row.costs[name])} "
            f"{_WORDS.get(name, name)}\n{settings_text(row.params)}"
        )
        chart.dot(
            row.costs[name],
            100 * (row.validation_accuracy or 0.0),
            css,
            title,
            radius=5.5 if on_front else 3.5,
        )
    return chart.svg(f"validation accuracy over {label} of {len(rows)} trials")


def _staircase(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the line above which nothing was found for this cost alone."""
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
