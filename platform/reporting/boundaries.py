"""Warn if the best value of a setting is at a boundary of the searched range that could be wider."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from platform.common.text_format import value_text
from platform.space.distributions import Choice, Dimension, Range, apply_settings
from platform.tracking.parquet_tables import TrialRow
from platform.training.config import RunConfig

NEAR_END = 0.05
"""Fraction of a range, on its own scale, that counts as its boundary."""


def boundary_warning(dimension: Dimension, best: TrialRow) -> str:
    """Return a warning if the best trial's value is at a boundary of the dimension, else an empty string.

    A boundary that the setting itself imposes (cutout of 0 pixels) gives no warning.
    """
    value, node = best.params.get(dimension.name), dimension.node
    if isinstance(node, Range):
        low, high, log, margin = node.low, node.high, node.log, NEAR_END
    elif isinstance(node, Choice) and len(node.labels) > 2 and all(map(_is_number, node.labels)):
        # With two values, each is a boundary.
        numbers = [float(label) for label in node.labels]
        low, high, log, margin = min(numbers), max(numbers), False, 0.0
    else:
        return ""
    if not isinstance(value, int | float) or low == high:
        return ""
    scale = math.log if log else float
    position = (scale(value) - scale(low)) / (scale(high) - scale(low))
    if not (position <= margin or position >= 1 - margin):
        return ""
    end, bound, away = ("lower", low, -1) if position <= margin else ("upper", high, 1)
    if isinstance(value, int):
        beyond: float = int(bound) + away
    else:
        beyond = bound * (high / low) ** (away * NEAR_END) if log else bound + away * (high - low) * NEAR_END
    if not _is_valid(best.config, dimension.path, beyond):
        return ""
    return (
        f"The best value, {value_text(value)}, is at the {end} boundary of the range {low:g} to {high:g}: "
        f"consider a wider range."
    )


def _is_valid(config: Mapping[str, Any], path: str, value: float) -> bool:
    """Return whether a run accepts `value` for the setting at `path`."""
    try:
        RunConfig.model_validate(apply_settings(dict(config), ((path, value),)))
    except ValidationError:
        return False
    return True


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
