"""Format numbers, durations and settings for the console, the logs and the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

QUICK = "QUICK SWEEP: short runs on few images; a full sweep is far more accurate"
GENERATED = "GENERATED DATA: synthetic images; the accuracies say nothing about CIFAR-10"

_SHORT_NAMES = {"batch_size": "bs", "weight_decay": "wd", "label_smoothing": "ls"}


def sweep_warnings(*, quick: bool, generated: bool) -> list[str]:
    """Return the warnings that apply to the accuracies of a sweep."""
    return [QUICK] * quick + [GENERATED] * generated


def duration(seconds: float | None) -> str:
    """Return `3.2 s`, `48 s`, `3 min 12 s`, `2 h 05 min` or `3 d 4 h`; `-` for None."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def clock(seconds: float) -> str:
    """Return a time as `4:12` or `1:04:12`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def approximate_duration(seconds: float) -> str:
    """Return an estimated time, rounded: `under a minute`, `about 4 min`, `about 2.5 h`."""
    if seconds < 50:
        return "under a minute"
    if seconds < 90 * 60:
        return f"about {max(1, round(seconds / 60))} min"
    if seconds < 36 * 3600:
        return f"about {seconds / 3600:.1f} h"
    return f"about {seconds / 86400:.1f} days"


def percent(fraction: float | None, digits: int = 2) -> str:
    """Return `93.12 %`; `-` for None."""
    return "-" if fraction is None or not math.isfinite(fraction) else f"{100 * fraction:.{digits}f} %"


def probability_text(probability: float) -> str:
    """Return a probability in percent; one near certainty is `over 99 %`, never 100 %."""
    return "over 99 %" if probability >= 0.995 else percent(probability, 0)


def plural(count: int, noun: str) -> str:
    """Return `1 trial`, `3 trials`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def value_text(value: Any) -> str:
    """Return the value of a setting; floats have three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def settings_cells(params: Mapping[str, Any]) -> dict[str, str]:
    """Return flat settings as table cells; the settings of an alternative are part of its cell.

    `{"optimizer": "sgd(lr=0.1, weight_decay=0.0005)", "batch_size": "128", "cutout.length": "8"}`
    """
    cells: dict[str, str] = {}
    inner: dict[str, list[str]] = {}
    for name, value in params.items():
        owner = _owner(name, params)
        if owner is None:
            cells[name] = value_text(value)
        else:
            rest = name.removeprefix(f"{owner}.{params[owner]}.")
            inner.setdefault(owner, []).append(f"{rest}={value_text(value)}")
    return {
        short_name(name): f"{text}({', '.join(inner[name])})" if name in inner else text
        for name, text in cells.items()
    }


def settings_text(params: Mapping[str, Any]) -> str:
    """Return flat settings on one line: `sgd(lr=0.1, weight_decay=0.0005) batch_size=128 cutout.length=8`."""
    words = {short_name(name): isinstance(value, str) for name, value in params.items()}
    cells = settings_cells(params)
    return " ".join(text if words[name] else f"{name}={text}" for name, text in cells.items())


def different_settings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each of several flat settings what differs between them: `sgd lr=0.1 wd=5e-4 bs=128`.

    Names are short: the last part, abbreviated. A text value stands without its name.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    if len(rows) > 1:
        names = {name: None for name in names if len({row.get(name) for row in rows}) > 1}
    sections = list(dict.fromkeys(name.partition(".")[0] for name in names))
    names = dict.fromkeys(sorted(names, key=lambda name: sections.index(name.partition(".")[0])))
    return [" ".join(_short_setting(name, row[name]) for name in names if name in row) for row in rows]


def _short_setting(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    *_, section, last = ("", *name.split("."))
    last = section if last == "length" else _SHORT_NAMES.get(last, last)
    text = value_text(value)
    if isinstance(value, float) and 0 < abs(value) < 0.001:
        mantissa, exponent = f"{value:.2e}".split("e")
        text = f"{float(mantissa):g}e{int(exponent)}"
    return f"{last}={text}"


def short_name(name: str) -> str:
    """Return a setting's name without its section: `cutout.length` for `augment.cutout.length`.

    `model.name` becomes `model`.
    """
    section, _, rest = name.partition(".")
    return section if rest in ("", "name") else rest


def _owner(name: str, params: Mapping[str, Any]) -> str | None:
    """Return the setting whose chosen alternative contains `name`: `optimizer` for `optimizer.sgd.lr`."""
    prefix = name
    while "." in prefix:
        prefix = prefix.rpartition(".")[0]
        if isinstance(params.get(prefix), str) and name.startswith(f"{prefix}.{params[prefix]}."):
            return prefix
    return None
