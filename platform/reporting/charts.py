"""The frame of every chart: a plotly figure as JSON with a title, in the page's colors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

BLUE, ORANGE, GREEN, PURPLE, TEAL = "#3b82c4", "#e0702a", "#2f9e58", "#9b5de5", "#1597a5"
PINK, GRAY, RED = "#d6336c", "#98a4b0", "#d1453b"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, TEAL)
"""Readable on a white and on a dark page."""
SCALE = [[0, "#98a4b0"], [0.5, BLUE], [1, PINK]]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure of the page."""

    title: str
    figure: Markup
    """JSON for `Plotly.newPlot`, safe inside a script element."""
    height: int
    """Pixels."""
    note: str = ""
    warning: str = ""
    wide: bool = False
    """Whether the chart takes the full width of the page, and scrolls on a phone."""


def chart(
    figure: Any,
    title: str,
    *,
    x: str | None = None,
    y: str | None = None,
    height: int = 320,
    note: str = "",
    warning: str = "",
    wide: bool = False,
) -> Chart:
    """Return a figure with axis titles `x` and `y`, without plotly's own title and colors.

    The page sets the colors of text and grid, which depend on its color scheme.
    """
    legend = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "title": None}
    figure.update_layout(
        template=None, title=None, width=None, height=height, plot_bgcolor=None, legend=legend,
        margin={"l": 8, "r": 12, "t": 24, "b": 8},
    )  # fmt: skip
    figure.update_xaxes(title_text=x, automargin=True)
    figure.update_yaxes(title_text=y, automargin=True)
    return Chart(
        title=title,
        figure=Markup(figure.to_json().replace("<", "\\u003c")),  # noqa: S704 - no "<" is left
        height=height,
        note=note,
        warning=warning,
        wide=wide,
    )
