"""Inline SVG charts: scales, ticks, axes and marks. Colors come from the style sheet of the page.

Written by hand, so that the charts follow the page's light, dark and print colors, their text stays text,
and the page needs no library.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from markupsafe import Markup

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 40

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Maps values from `low`..`high` to pixels from `start`..`end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start + self.fraction(value) * (self.end - self.start)

    def fraction(self, value: float) -> float:
        """Return the position of a value between `low` and `high`, 0..1."""
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def ticks(self, count: int = 5) -> list[float]:
        """Return about `count` round values within the scale."""
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high, count)


def linear_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / max(1, count)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = min((factor * magnitude for factor in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / rough)))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return the powers of ten from `low` to `high`, with multiples if there are few decades."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    span = math.log10(high / low)
    factors: tuple[int, ...] = (1,) if span > 3 else (1, 3) if span > 1.3 else (1, 2, 5)
    values = [factor * 10.0**decade for decade in decades for factor in factors]
    return [value for value in values if low * 0.999 <= value <= high * 1.001]


def padded(low: float, high: float, share: float = 0.05, *, log: bool = False) -> tuple[float, float]:
    """Return the limits widened by a share of their distance, so that no mark touches the frame."""
    if log:
        ends = padded(math.log(low), math.log(high), share)
        return math.exp(ends[0]), math.exp(ends[1])
    if high <= low:
        room = abs(low) * 0.05 or 0.5
        return low - room, high + room
    return low - share * (high - low), high + share * (high - low)


def focused(values: Sequence[float], completed: Sequence[float]) -> tuple[float, float]:
    """Return axis limits for the better half of the completed trials; lower values are drawn at the edge.

    Limits that include pruned trials would compress the differences between the best trials.

    Args:
        values: values of all trials, in percent.
        completed: values of the completed trials, in percent.
    """
    high, low = max(values), min(values)
    if len(completed) >= 2:
        room = max(high - statistics.median(completed), 0.5)
        low = max(low, high - 3.5 * room)
    ends = padded(low, high, 0.07)
    return max(0.0, ends[0]), min(100.0, ends[1])


def number(value: float) -> str:
    """Return the label of a tick: `0.001`, `50`, `20k`."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}" if abs(value) >= 1e-4 else f"{value:.0e}"


@dataclass
class Chart:
    """A chart: two scales, and SVG elements in drawing order."""

    x: Scale
    y: Scale
    width: float = WIDTH
    height: float = HEIGHT
    parts: list[str] = field(default_factory=list)

    def axes(
        self,
        *,
        x_label: str,
        y_label: str = "",
        x_ticks: Sequence[tuple[float, str]] | None = None,
        y_format: Callable[[float], str] = number,
        x_count: int = 6,
    ) -> None:
        """Draw horizontal grid lines, tick labels and axis labels."""
        for value in self.y.ticks():
            y = self.y(value)
            self.parts.append(f'<path class="grid" d="M{self.x.start:.1f} {y:.1f}H{self.x.end:.1f}"/>')
            self.text(self.x.start - 6, y + 4, y_format(value), "tick end")
        for value, label in x_ticks or [(value, number(value)) for value in self.x.ticks(x_count)]:
            x = self.x(value)
            bottom = self.y.start
            self.parts.append(f'<path class="axis" d="M{x:.1f} {bottom:.1f}v4"/>')
            self.text(x, bottom + 16, label, "tick middle")
        self.parts.append(f'<path class="axis" d="M{self.x.start:.1f} {self.y.start:.1f}H{self.x.end:.1f}"/>')
        self.text((self.x.start + self.x.end) / 2, self.y.start + 33, x_label, "label middle")
        if y_label:
            middle = (self.y.start + self.y.end) / 2
            self.parts.append(
                f'<text class="label middle" transform="translate(12 {middle:.1f}) rotate(-90)">'
                f"{escape(y_label)}</text>"
            )

    def line(self, points: Iterable[Point], css: str, title: str = "") -> None:
        """Draw a polyline, clipped at the frame and interrupted at NaN and infinity."""
        pieces: list[str] = []
        pen = "M"
        for x, y in points:
            if not (math.isfinite(x) and math.isfinite(y)):
                pen = "M"
                continue
            pieces.append(f"{pen}{self.x(x):.1f} {self.y(y):.1f}")
            pen = "L"
        if pieces:
            # A nested svg element clips without an id, which would have to be unique on the page.
            left, top = self.x.start, self.y.end - 2
            box = f"{left:.1f} {top:.1f} {self.x.end - left:.1f} {self.y.start - top:.1f}"
            x_at, y_at, width, height = box.split()
            self.parts.append(
                f'<svg x="{x_at}" y="{y_at}" width="{width}" height="{height}" viewBox="{box}">'
                f'<path class="line {css}" d="{"".join(pieces)}">{_title(title)}</path></svg>'
            )

    def dot(self, x: float, y: float, css: str, title: str = "", *, radius: float = 4) -> None:
        """Draw a dot; a value below the frame is drawn as a hollow dot at the edge."""
        below = y < self.y.low
        center = self.y.start if below else self.y(y)
        shape = f"{css} below" if below else css
        self.parts.append(
            f'<circle class="dot {shape}" cx="{self.x(x):.1f}" cy="{center:.1f}" r="{radius:g}">'
            f"{_title(title)}</circle>"
        )

    def bar(self, x_from: float, x_to: float, y: float, css: str, *, thickness: float = 8) -> None:
        """Draw a horizontal bar from `x_from` to `x_to`."""
        left, right = sorted((self.x(x_from), self.x(x_to)))
        self.parts.append(
            f'<rect class="{css}" x="{left:.1f}" y="{self.y(y) - thickness / 2:.1f}" '
            f'width="{max(right - left, 1):.1f}" height="{thickness:g}" rx="{thickness / 2:g}"/>'
        )

    def text(self, x: float, y: float, text: str, css: str) -> None:
        """Draw text at a pixel position."""
        self.parts.append(f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>')

    def svg(self, description: str) -> Markup:
        """Return the SVG element; `description` is its text for screen readers."""
        label = escape(description, quote=True)
        # All text in `parts` is already escaped.
        return Markup(  # noqa: S704
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" aria-label="{label}">'
            f"{''.join(self.parts)}</svg>"
        )


def framed(
    x: tuple[float, float],
    y: tuple[float, float],
    *,
    x_log: bool = False,
    y_log: bool = False,
    width: float = WIDTH,
    height: float = HEIGHT,
    left: float = LEFT,
) -> Chart:
    """Return an empty chart with the limits `x` and `y` and margins for the axes."""
    return Chart(
        x=Scale(low=x[0], high=x[1], start=left, end=width - RIGHT, log=x_log),
        y=Scale(low=y[0], high=y[1], start=height - BOTTOM, end=TOP, log=y_log),
        width=width,
        height=height,
    )


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""
