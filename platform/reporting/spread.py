"""Plot repeated measurements: the confirmation runs over seeds, and latencies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from platform.common.text_format import percent, plural
from platform.reporting.svg import BOTTOM, RIGHT, TOP, WIDTH, Chart, Scale, padded

ROW_HEIGHT = 34


def confirmation(selection: Mapping[str, Any]) -> Markup | None:
    """Plot each candidate's runs, their mean and its 95 % confidence interval; None without runs.

    Args:
        selection: `selection.json`.
    """
    candidates = [entry for entry in selection.get("candidates", []) if entry.get("accuracies")]
    if not candidates:
        return None
    values = [100 * value for entry in candidates for value in entry["accuracies"]]
    # An interval from two or three runs can be many times wider than the runs, so it is clipped.
    spread = max(values) - min(values) or 0.5
    ends = [
        100 * min(max(end, min(values) / 100 - spread / 100), max(values) / 100 + spread / 100)
        for entry in candidates
        for end in entry.get("interval95") or ()
    ]
    low, high = padded(min(values + ends), max(values + ends), 0.06)
    chart = _strips((low, high), [str(entry["trial_id"]) for entry in candidates], left=70)
    chart_low, chart_high = chart.x.low, chart.x.high
    for index, entry in enumerate(candidates):
        y = len(candidates) - 1 - index
        champion = entry["trial_id"] == selection.get("champion")
        css = "best" if champion else "c1"
        interval = entry.get("interval95")
        if interval:
            left, right = max(100 * interval[0], chart_low), min(100 * interval[1], chart_high)
            chart.bar(left, right, y, f"interval {css}", thickness=12)
        for accuracy in entry["accuracies"]:
            chart.dot(100 * accuracy, y, css, f"{entry['trial_id']}: {percent(accuracy)}")
        mean = chart.x(100 * entry["mean"])
        middle = chart.y(y)
        chart.parts.append(f'<path class="mean {css}" d="M{mean:.1f} {middle - 11:.1f}v22"/>')
    chart.axes(x_label="validation accuracy, %", x_count=6)
    runs = sum(len(entry["accuracies"]) for entry in candidates)
    return chart.svg(f"validation accuracy of {plural(runs, 'confirmation run')}")


def latency(results: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Plot minimum, p50, p90 and p99 of each precision and thread count; None without results.

    Args:
        results: `results` of `benchmark.json`.
    """
    if not results:
        return None
    highest = max(float(entry["latency_ms"]["p99"]) for entry in results)
    names = [
        f"{entry.get('precision', '')} {plural(int(entry['threads']), 'thread')}".strip() for entry in results
    ]
    chart = _strips((0.0, highest * 1.04), names, left=110)
    for index, entry in enumerate(results):
        y = len(results) - 1 - index
        measured = entry["latency_ms"]
        chart.bar(measured.get("min", measured["p50"]), measured["p99"], y, "interval c1", thickness=4)
        chart.bar(measured.get("min", measured["p50"]), measured["p90"], y, "interval c1", thickness=12)
        chart.dot(measured["p50"], y, "c1", f"median {measured['p50']:.3f} ms", radius=5)
    chart.axes(x_label="ms per image: minimum, median, p90 (thick), p99 (thin)", x_count=8)
    return chart.svg("latency by precision and thread count")


def _strips(x: tuple[float, float], names: Sequence[str], *, left: float) -> Chart:
    height = TOP + BOTTOM + ROW_HEIGHT * len(names)
    chart = _StripChart(
        x=Scale(low=x[0], high=x[1], start=left, end=WIDTH - RIGHT),
        y=Scale(low=-0.5, high=len(names) - 0.5, start=height - BOTTOM, end=TOP),
        height=height,
    )
    for index, name in enumerate(names):
        chart.text(left - 10, chart.y(len(names) - 1 - index) + 4, name, "tick end")
    return chart


class _StripChart(Chart):
    """A chart whose rows have names instead of a y scale."""

    def axes(self, *, x_label: str, x_count: int = 6, **_: Any) -> None:
        # The grid is drawn behind the existing marks.
        marks, self.parts = self.parts, []
        for value in self.x.ticks(x_count):
            x = self.x(value)
            self.parts.append(f'<path class="grid" d="M{x:.1f} {self.y.start:.1f}V{self.y.end:.1f}"/>')
            self.text(x, self.y.start + 16, f"{value:g}", "tick middle")
        self.text((self.x.start + self.x.end) / 2, self.y.start + 33, x_label, "label middle")
        self.parts += marks
