"""Plot accuracy against each searched setting, with a warning if the best value is at a boundary."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from platform.common.errors import UserError
from platform.common.text_format import percent, settings_text, value_text
from platform.reporting.svg import Chart, Scale, focused, framed, padded
from platform.space.distributions import Choice, Range
from platform.space.space_files import load_spec
from platform.tracking.parquet_tables import TrialRow
from platform.tracking.results import SweepResults

NEAR_END = 0.05
"""Fraction of a range, on its own scale, that counts as its boundary."""

MOST_CATEGORIES = 12


@dataclass(frozen=True, kw_only=True)
class AxisPlot:
    """The plot of one setting."""

    name: str
    svg: Markup
    warning: str
    """Non-empty if the best trial's value is at a boundary of the searched range."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The scale of a setting: numbers from `low` to `high`, or categories."""

    name: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    categories: tuple[str, ...] = ()
    ordered: bool = False
    """Whether the categories are sorted numbers, so that the first and the last are boundaries."""


def axis_plots(results: SweepResults) -> list[AxisPlot]:
    """Return a plot for each setting with at least two different values among the trials with an accuracy."""
    rows = results.leaderboard()
    best = next((row for row in rows if row.completed), None)
    plots = []
    for axis in _axes(results, rows):
        of_axis = [row for row in rows if axis.name in row.params]
        if len({row.params[axis.name] for row in of_axis}) >= 2:
            warning = boundary_warning(axis, best) if best is not None else ""
            plots.append(AxisPlot(name=axis.name, svg=_plot(axis, of_axis, best), warning=warning))
    return plots


def boundary_warning(axis: Axis, best: TrialRow) -> str:
    """Return a warning if the best trial's value is at a boundary of the axis, else an empty string."""
    if axis.name not in best.params:
        return ""
    value = best.params[axis.name]
    if axis.categories:
        # With two values, each is a boundary.
        if not axis.ordered or len(axis.categories) < 3 or value_text(value) not in axis.categories:
            return ""
        position = axis.categories.index(value_text(value)) / (len(axis.categories) - 1)
        span = f"{axis.categories[0]} to {axis.categories[-1]}"
    else:
        position = _scale(axis).fraction(float(value))
        span = f"{value_text(axis.low)} to {value_text(axis.high)}"
    end = "lower" if position <= NEAR_END else "upper" if position >= 1 - NEAR_END else ""
    if not end:
        return ""
    return (
        f"The best value, {value_text(value)}, is at the {end} boundary of the range {span}: "
        f"consider a wider range."
    )


def _axes(results: SweepResults, rows: Sequence[TrialRow]) -> list[Axis]:
    """Return the axes of the search space; if it cannot be read, axes inferred from the trials."""
    try:
        dimensions = load_spec(results.folder.path).dimensions
    except UserError:
        return [_observed(name, rows) for name in dict.fromkeys(name for row in rows for name in row.params)]
    axes = []
    for dimension in dimensions:
        node = dimension.node
        if isinstance(node, Range):
            axes.append(Axis(name=dimension.name, low=node.low, high=node.high, log=node.log))
        else:
            labels = node.labels
            numbers = isinstance(node, Choice) and all(_is_number(label) for label in labels)
            if numbers:
                labels = tuple(sorted(labels, key=float))
            axes.append(Axis(name=dimension.name, categories=tuple(map(value_text, labels)), ordered=numbers))
    return axes


def _observed(name: str, rows: Sequence[TrialRow]) -> Axis:
    values = list(dict.fromkeys(row.params[name] for row in rows if name in row.params))
    numbers = all(_is_number(value) for value in values)
    if numbers and len(values) > MOST_CATEGORIES // 2:
        floats = [float(value) for value in values]
        low, high = min(floats), max(floats)
        return Axis(name=name, low=low, high=high, log=low > 0 and high / low > 30)
    ordered = sorted(values, key=float) if numbers else values
    return Axis(name=name, categories=tuple(map(value_text, ordered)), ordered=numbers)


def _plot(axis: Axis, rows: Sequence[TrialRow], best: TrialRow | None) -> Markup:
    accuracies = [row.validation_percent for row in rows]
    y = focused(accuracies, [row.validation_percent for row in rows if row.completed])
    categories = axis.categories
    if categories:
        chart = framed((-0.5, len(categories) - 0.5), y, width=380, height=230)
        ticks = [(float(index), _short(label)) for index, label in enumerate(categories)]
        chart.axes(x_label=axis.name, x_ticks=ticks)
    else:
        ends = padded(axis.low, axis.high, 0.04, log=axis.log)
        chart = framed(ends, y, x_log=axis.log, width=380, height=230)
        chart.axes(x_label=axis.name + (" (log scale)" if axis.log else ""), x_count=5)
    # Pruned trials are drawn first and the best trial last, on top.
    order = sorted(
        zip(rows, accuracies, strict=True),
        key=lambda item: (item[0] is best, item[0].completed),
    )
    for row, accuracy in order:
        _dot(chart, axis, row, accuracy, is_best=row is best)
    return chart.svg(f"validation accuracy over {axis.name}")


def _dot(chart: Chart, axis: Axis, row: TrialRow, accuracy: float, *, is_best: bool) -> None:
    value = row.params[axis.name]
    if axis.categories:
        label = value_text(value)
        if label not in axis.categories:
            return
        # Jitter from a hash of the trial id, so that every rendering is the same.
        x = axis.categories.index(label) + (zlib.crc32(row.trial_id.encode()) % 100 / 100 - 0.5) * 0.4
    else:
        x = float(value)
    css = "best" if is_best else "c1" if row.completed else "pruned"
    title = f"{row.trial_id}: {percent(row.validation_accuracy)}\n{settings_text(row.params)}"
    chart.dot(x, accuracy, css, title, radius=5.5 if is_best else 4)


def _scale(axis: Axis) -> Scale:
    return Scale(low=axis.low, high=axis.high, start=0, end=1, log=axis.log)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(label: str) -> str:
    return label if len(label) <= 12 else label[:11] + "…"
