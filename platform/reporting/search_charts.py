"""Charts of the search; most are drawn by optuna.visualization."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna import visualization
from plotly.colors import sample_colorscale

from platform.common.text_format import percent, settings_text, short_name
from platform.reporting.boundaries import boundary_warning
from platform.reporting.charts import BLUE, COLORS, GRAY, ORANGE, PINK, RED, SCALE, TEAL, Chart, chart
from platform.reporting.search_study import search_study, searched_dimensions
from platform.tracking.events import TrialStatus
from platform.tracking.parquet_tables import TrialRow
from platform.tracking.results import SweepResults
from platform.training.records import EpochRecord

ACCURACY = "validation accuracy, %"
LEAST_TRIALS = 10
"""Completed trials below which an importance would be noise."""

_RESAMPLES = 30
_LOG_FROM = 8  # costs that vary by more than this factor are drawn on a log scale
_STATES = {
    "COMPLETE": ("completed", BLUE),
    "PRUNED": ("stopped early", ORANGE),
    "FAIL": ("failed", RED),
    "RUNNING": ("running", TEAL),
}


def search_charts(results: SweepResults) -> list[Chart]:
    """Return the charts that compare the settings of the search trials; empty without a completed trial."""
    rows = results.of_stage("search")
    if not any(row.completed and row.validation_accuracy is not None for row in rows):
        return []
    study = search_study(results, rows)
    charts = [_history(study, rows)]
    if any(trial.params for trial in study.trials):
        charts.insert(0, _parallel_coordinates(results, rows))
        if _completed(study) >= LEAST_TRIALS:
            charts.append(_importances(study))
    return charts


def slice_charts(results: SweepResults) -> list[Chart]:
    """Return accuracy against each setting of the completed trials, with warnings about boundaries."""
    rows = results.of_stage("search")
    study = search_study(results, rows)
    best = next((row for row in results.leaderboard() if row.completed), None)
    if best is None:
        return []
    used = {name for row in rows if row.completed for name in row.params}
    dimensions = [each for each in searched_dimensions(results) if each.name in used]
    return [
        _slice(study, rows, short_name(each.name), best, boundary_warning(each, best)) for each in dimensions
    ]


def learning_curves(results: SweepResults) -> list[Chart]:
    """Return validation accuracy and training loss by epoch of every search trial that did not fail.

    Only the champion and the best completed trials have a trace each: 1,000 traces would take plotly and the
    browser many seconds.
    """
    rows = [row for row in results.of_stage("search") if row.status is not TrialStatus.FAILED]
    champion = (results.champion or {}).get("trial_id")
    completed = (row.trial_id for row in results.leaderboard() if row.completed)
    best = sorted(completed, key=lambda name: name != champion)[: len(COLORS)]
    charts = []
    for title, y, curve in (
        ("Validation accuracy by epoch", ACCURACY, _validation_percent),
        ("Training loss by epoch, on augmented images", "training loss", _loss),
    ):
        curves = {row.trial_id: _points(results, row, curve) for row in rows}
        points = [point for each in curves.values() for point in each]
        if not points:
            continue
        figure = go.Figure()
        if others := {name: each for name, each in curves.items() if each and name not in best}:
            _draw_others(figure, others)
        for name, color in zip(best, COLORS, strict=False):
            figure.add_scatter(
                x=[epoch for epoch, _ in curves[name]],
                y=[value for _, value in curves[name]],
                mode="lines+markers",
                name=f"{name} (champion)" if name == champion else name,
                line={"color": color, "width": 3.5 if name == champion else 2},
                marker={"color": color, "size": 5, "maxdisplayed": 10},
                hovertemplate=f"{name}, epoch %{{x}}: %{{y:.4g}}<extra></extra>",
            )
        figure.update_layout(showlegend=True)
        last = max(epoch for epoch, _ in points)
        figure.update_xaxes(tickformat="d", dtick=1 if last <= 10 else None)
        note = ""
        if curve is _loss:
            figure.update_yaxes(type="log")
        else:
            # Without the first tenth of the epochs, where accuracy rises from chance level.
            late = [accuracy for epoch, accuracy in points if epoch > last / 10]
            room = (max(late) - min(late)) * 0.05 or 0.5
            figure.update_yaxes(range=[min(late) - room, max(late) + room])
            note = _draw_rungs(figure, results.of_stage("search"), (results.plan or {}).get("rungs") or ())
        charts.append(chart(figure, title, x="epoch", y=y, height=380, note=note))
    return charts


def timeline(results: SweepResults) -> Chart | None:
    """Return when each run occupied which slot; None without a run."""
    rows = results.trials
    if not rows:
        return None
    figure = visualization.plot_timeline(search_study(results, rows))
    slots = _slots(rows)
    for trace in figure.data:
        name, color = _STATES[trace.name]
        own = [rows[number] for number in trace.y]
        trace.update(
            name=name,
            y=[slots[row.trial_id] + 1 for row in own],
            text=[f"{row.trial_id}, {row.stage}, {_hover(row)}" for row in own],
            marker={"color": color, "line": {"width": 1, "color": "#888"}},
            hovertemplate="%{text}<extra></extra>",
        )
    figure.update_yaxes(dtick=1, autorange="reversed", tickformat="d")
    figure.update_layout(barmode="overlay")
    height = 130 + 30 * (max(slots.values()) + 1)
    return chart(figure, "Runs by time and slot", y="slot", height=height, wide=True)


def pareto_charts(study: optuna.Study, costs: dict[str, str]) -> list[Chart]:
    """Return accuracy against each cost; `costs` are the labels of the study's other objectives."""
    charts = []
    for index, label in enumerate(costs.values(), start=1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # the argument `targets`
            figure = visualization.plot_pareto_front(
                study,
                target_names=[label, ACCURACY],
                targets=lambda trial: (trial.values[index], trial.values[0]),  # noqa: B023 - called at once
            )
        for trace, css, size in zip(figure.data, (GRAY, BLUE), (7, 10), strict=False):
            kind = "dominated" if css == GRAY else "Pareto front"
            trace.update(marker={"color": css, "size": size}, name=kind, showlegend=True, overwrite=True)
        values = [trial.values[index] for trial in study.trials]
        if min(values) > 0 and max(values) / min(values) > _LOG_FROM:
            figure.update_xaxes(type="log")
            _set_log_ticks(figure, values)
        charts.append(chart(figure, f"Validation accuracy by {label}", x=label, y=ACCURACY, height=360))
    return charts


def _parallel_coordinates(results: SweepResults, rows: Sequence[TrialRow]) -> Chart:
    study = search_study(results, rows, merged=True)
    figure = visualization.plot_parallel_coordinate(study, target_name="accuracy, %")
    *lines, colorbar = figure.data
    lines.sort(key=lambda trace: trace.y[0])
    for trace in lines:
        trace.line.color = sample_colorscale(SCALE, [trace.y[0]])[0]
        trace.opacity = 0.35 + 0.6 * trace.y[0]
    lines[-1].line.width = 3
    colorbar.marker.colorscale = SCALE
    figure.data = [*lines, colorbar]
    figure.update_annotations(font={"size": 11, "color": None}, overwrite=True)
    return chart(
        figure,
        "Settings of the completed trials (parallel coordinates)",
        height=420,
        note="One line per completed trial, colored by accuracy; thick: the best. None: the trial does not "
        "have the setting. Learning rates have a log axis.",
        wide=True,
    )


def _history(study: optuna.Study, rows: Sequence[TrialRow]) -> Chart:
    figure = visualization.plot_optimization_history(study, target_name=ACCURACY)
    points, best = figure.data[0], figure.data[1]
    points.update(name="trial", marker={"color": BLUE, "size": 7}, text=[_hover(rows[n]) for n in points.x])
    points.hovertemplate = "t%{x:03d}, %{text}<extra></extra>"
    best.update(name="best so far", line={"color": PINK, "shape": "hv"})
    figure.update_xaxes(tickprefix="t", tickformat="03d", dtick=1 if len(rows) <= 10 else None)
    return chart(figure, "Optimization history: completed trials", x="trial", y=ACCURACY)


def _importances(study: optuna.Study) -> Chart:
    figure = visualization.plot_param_importances(study)
    (bars,) = figure.data
    low, high = importance_interval(study, bars.y)
    bars.update(
        marker={"color": BLUE},
        textposition="none",
        error_x={
            "array": np.maximum(high - bars.x, 0).tolist(),
            "arrayminus": np.maximum(bars.x - low, 0).tolist(),
            "color": GRAY,
        },
        hovertemplate="%{y}: %{x:.2f}<extra></extra>",
    )
    return chart(
        figure,
        "Importance of the settings",
        x="importance (PED-ANOVA)",
        height=120 + 34 * len(bars.y),
        note=f"From {_completed(study)} completed trials. Line: 90 % interval over {_RESAMPLES} bootstrap "
        "resamples of the trials.",
    )


def importance_interval(study: optuna.Study, names: Sequence[str]) -> tuple[Any, Any]:
    """Return the 5 % and the 95 % quantile of each importance over resamples of the completed trials."""
    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    generator = np.random.default_rng(0)
    found = []
    for _ in range(_RESAMPLES):
        resampled = optuna.create_study(direction="maximize")
        resampled.add_trials([trials[index] for index in generator.integers(len(trials), size=len(trials))])
        importances = optuna.importance.get_param_importances(resampled)
        found.append([importances.get(name, 0.0) for name in names])
    return tuple(np.quantile(found, (0.05, 0.95), axis=0))


def _slice(study: optuna.Study, rows: Sequence[TrialRow], name: str, best: TrialRow, warning: str) -> Chart:
    figure = visualization.plot_slice(study, params=[name], target_name=ACCURACY)
    (points,) = figure.data
    own = [rows[number] for number in points.marker.color]
    if isinstance(points.x[0], str):
        points.x = [label.strip("'") for label in points.x]
        figure.layout.xaxis.categoryarray = [label.strip("'") for label in figure.layout.xaxis.categoryarray]
    if figure.layout.xaxis.type == "log":
        _set_log_ticks(figure, points.x)
    points.marker = {
        "color": [PINK if row is best else BLUE for row in own],
        "size": [11 if row is best else 7 for row in own],
        "opacity": 0.8,
    }
    points.text = [f"{row.trial_id}, {_hover(row)}" for row in own]
    points.hovertemplate = "%{text}<extra></extra>"
    return chart(figure, name, x=name, y=ACCURACY, height=260, warning=warning)


def _draw_others(figure: Any, curves: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """Draw the curves of many trials as one gray line with gaps, and where each trial ended."""
    gap = ((None, None),)
    points = [(*point, name) for name, curve in curves.items() for point in (*curve, *gap)]
    x, y, text = zip(*points, strict=True)
    figure.add_scatter(
        x=x, y=y, text=text, mode="lines", name="other trials", opacity=0.6, line={"color": GRAY, "width": 1},
        hovertemplate="%{text}, epoch %{x}: %{y:.4g}<extra></extra>",
    )  # fmt: skip
    x, y = zip(*(curve[-1] for curve in curves.values()), strict=True)
    figure.add_scatter(
        x=x, y=y, mode="markers", marker={"color": GRAY, "size": 4}, showlegend=False, hoverinfo="skip"
    )


def _draw_rungs(figure: Any, rows: Sequence[TrialRow], rungs: Sequence[int]) -> str:
    """Draw the rungs and return how many trials reached and survived each."""
    survival = []
    for rung in rungs:
        reached = sum(row.epochs_done >= rung for row in rows)
        continued = sum(row.epochs_done > rung for row in rows)
        figure.add_vline(x=rung, line={"dash": "dash", "width": 1, "color": GRAY})
        survival.append(f"epoch {rung}: {reached} reached, {continued} continued")
    return f"Dashed: rungs of the early stopping. {'; '.join(survival)}." if survival else ""


def _set_log_ticks(figure: Any, values: Sequence[float]) -> None:
    """Set four ticks: plotly's own have no full number in a range of less than a decade."""
    low, high = min(values), max(values)
    digits = 1 if high > 10 * low else 2
    ticks = sorted({float(f"{value:.{digits}g}") for value in np.geomspace(low, high, 4)})
    figure.update_xaxes(tickvals=ticks, tickformat=".2~s" if high > 1000 else ".2~g")


def _slots(rows: Sequence[TrialRow]) -> dict[str, int]:
    """Return a slot for each run, the first one that is free at its start."""
    free_at: list[Any] = []
    slots = {}
    for row in sorted(rows, key=lambda row: row.started_at):
        slot = next((index for index, end in enumerate(free_at) if end <= row.started_at), len(free_at))
        free_at[slot : slot + 1] = [row.ended_at or datetime.max.replace(tzinfo=UTC)]
        slots[row.trial_id] = slot
    return slots


def _completed(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))


def _points(
    results: SweepResults, row: TrialRow, curve: Callable[[EpochRecord], float | None]
) -> list[tuple[int, float]]:
    records = results.epochs.get(row.trial_id, ())
    return [(record.epoch, value) for record in records if (value := curve(record)) is not None]


def _validation_percent(record: EpochRecord) -> float | None:
    return None if record.validation_accuracy is None else round(100 * record.validation_accuracy, 3)


def _loss(record: EpochRecord) -> float | None:
    loss = record.train_loss
    return float(f"{loss:.4g}") if math.isfinite(loss) and loss > 0 else None


def _hover(row: TrialRow) -> str:
    early = "" if row.status is TrialStatus.FINISHED else f", {row.status}"
    return f"{percent(row.validation_accuracy)}{early}<br>{settings_text(row.params)}"
