"""Charts of the results for which Optuna has none: confirmation, calibration, latency, time per stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from platform.common.text_format import duration, percent, plural
from platform.reporting.charts import BLUE, GRAY, ORANGE, PINK, Chart, chart


def confirmation(selection: Mapping[str, Any]) -> Chart | None:
    """Plot the runs, the expected accuracy and its 95 % interval of each candidate in `selection.json`.

    Returns None without runs.
    """
    candidates = [entry for entry in selection.get("candidates", []) if entry.get("accuracies")]
    if not candidates:
        return None
    figure = go.Figure()
    for entry in candidates:
        name, searched = str(entry["trial_id"]), entry.get("searched")
        color = PINK if entry["trial_id"] == selection.get("champion") else BLUE
        estimate = entry.get("estimate")
        if estimate:
            ends, mean = [100 * end for end in estimate["interval95"]], 100 * estimate["mean"]
            figure.add_scatter(
                x=ends, y=[name, name], mode="lines", line={"color": color, "width": 12}, opacity=0.3,
                hovertemplate=f"95 % interval: {ends[0]:.2f} to {ends[1]:.2f}<extra>{name}</extra>",
            )  # fmt: skip
            figure.add_scatter(
                x=[mean], y=[name], mode="markers",
                hovertemplate=f"expected: {mean:.2f} %<extra>{name}</extra>",
                marker={"symbol": "line-ns", "size": 26, "line": {"width": 3, "color": color}},
            )  # fmt: skip
        for accuracies, symbol in ((entry["accuracies"], "circle"), ([searched], "circle-open")):
            shown = [100 * accuracy for accuracy in accuracies if accuracy is not None]
            figure.add_scatter(
                x=shown, y=[name] * len(shown), mode="markers",
                marker={"color": color, "size": 8, "symbol": symbol},
                hovertemplate=f"%{{x:.2f}} %<extra>{name}</extra>",
            )  # fmt: skip
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_layout(showlegend=False)
    return chart(
        figure,
        "Validation accuracy of the best candidates, retrained with new seeds",
        x="validation accuracy, %",
        height=100 + 55 * len(candidates),
        note="Dots: runs of the confirmation. Circle: the run of the search. Line and band: expected "
        "accuracy and its 95 % interval, from all complete runs of the sweep together, so they lie closer to "
        "the mean of all recipes than the candidate's own runs. The test split is not used.",
    )


def reliability(calibration: Mapping[str, Any]) -> Chart:
    """Plot accuracy by confidence, given `calibration` of `test.json`."""
    bins = [entry for entry in calibration["bins"] if entry["images"]]
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 100], y=[0, 100], mode="lines", line={"color": GRAY, "dash": "dash"}, name="calibrated"
    )
    figure.add_bar(
        x=[50 * (entry["low"] + entry["high"]) for entry in bins],
        y=[100 * entry["accuracy"] for entry in bins],
        width=[96 * (entry["high"] - entry["low"]) for entry in bins],
        text=[plural(entry["images"], "image") for entry in bins],
        textposition="none",
        marker={"color": BLUE, "opacity": 0.55},
        name="accuracy",
        hovertemplate="%{text}: %{y:.1f} % right<extra></extra>",
    )
    figure.update_xaxes(range=[0, 100])
    figure.update_yaxes(range=[0, 100])
    return chart(
        figure,
        f"Reliability: expected calibration error {percent(calibration['ece'])}",
        x="confidence (largest softmax probability), %",
        y="accuracy, %",
        height=360,
        note=f"Test images in {len(calibration['bins'])} bins of equal width. Below the dashed line the "
        "model is overconfident.",
    )


def latency(results: Sequence[Mapping[str, Any]], device: str) -> Chart | None:
    """Plot median, p90 and p99 of each precision and thread count in `benchmark.json`; None without them."""
    if not results:
        return None
    names = [
        f"{entry.get('precision', '')} {plural(int(entry['threads']), 'thread')}".strip() for entry in results
    ]
    measured = [entry["latency_ms"] for entry in results]
    figure = go.Figure()
    for name, key, color in (("median", "p50", BLUE), ("p90", "p90", ORANGE), ("p99", "p99", GRAY)):
        figure.add_scatter(
            x=[entry[key] for entry in measured],
            y=names,
            mode="markers",
            marker={"color": color, "size": 12},
            name=name,
            hovertemplate="%{y}: %{x:.3f} ms<extra></extra>",
        )
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(autorange="reversed", type="category")
    return chart(figure, f"Latency per image on {device}", x="ms per image", height=110 + 34 * len(results))


def stage_times(stages: Sequence[tuple[str, float | None, float | None]]) -> Chart | None:
    """Plot the stages (name, planned seconds, actual seconds); None if no stage has both times."""
    if not any(None not in times for _, *times in stages):
        return None
    figure = go.Figure()
    longest = max(value or 0.0 for _, *both in stages for value in both)
    unit, seconds = ("hours", 3600) if longest > 2 * 3600 else ("minutes", 60)
    planned, actual = [stage[1] for stage in stages], [stage[2] for stage in stages]
    for name, color, values in (("plan", GRAY, planned), ("actual", BLUE, actual)):
        figure.add_bar(
            x=[None if value is None else value / seconds for value in values],
            y=[stage[0] for stage in stages],
            text=[duration(value) for value in values],
            textposition="auto",
            orientation="h",
            marker={"color": color},
            name=name,
            hovertemplate=f"{name}: %{{text}}<extra>%{{y}}</extra>",
        )
    figure.update_yaxes(autorange="reversed", type="category")
    return chart(figure, "Wall time by stage", x=unit, height=110 + 48 * len(stages))
