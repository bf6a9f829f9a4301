"""Parse the `search` section of a space file into a search tree, and report all problems at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from platform.common.errors import did_you_mean
from platform.space.distributions import (
    Alternatives,
    Choice,
    Constant,
    Entry,
    Option,
    Range,
    RangeKind,
    SearchTree,
    lists_to_tuples,
)

Problem = tuple[str, str]
"""(dotted path within the section, message)."""

_RANGES: tuple[RangeKind, ...] = get_args(RangeKind)
_DISTRIBUTIONS = ("choice", *_RANGES)
_MAX_VALUES = 1000
"""Each value is tried in a complete configuration, which takes about 0.2 ms."""
_MAX_STEPS = 1e15
"""A float64 has 15 exact digits."""
_SYNTAX = (
    "expected {choice: [a, b]}, {uniform: [low, high]}, {log_uniform: [low, high]}, "
    "{int: [low, high]}, {log_int: [low, high]}, {quantized: [low, high, step]}, "
    "or a list of alternatives"
)


def parse_search(raw: Any) -> tuple[SearchTree, list[Problem]]:
    """Return the tree of all valid entries, and the problems of the others.

    This checks the syntax only; `tree_checks.check_tree` checks the settings and their values.
    """
    found: list[Problem] = []
    if not isinstance(raw, Mapping) or not raw:
        return SearchTree(()), [("", f"must be a section of settings, got {raw!r}; for each, {_SYNTAX}")]
    values = _count_values(raw)
    if values > _MAX_VALUES:
        text = f"may list at most {_MAX_VALUES:,} values in choices and alternatives, got {values:,}; "
        return SearchTree(()), [("", text + "use int, quantized or uniform for a range of numbers")]
    entries = _entries(raw, "", found, fixed_allowed=False)
    found += _overlaps(entries)
    return SearchTree(tuple(entries)), found


def _count_values(raw: Any) -> int:
    """Return the number of values in all choices and lists of alternatives of a search section."""
    if isinstance(raw, Mapping):
        return sum(_count_values(value) for key, value in raw.items() if key not in _RANGES)
    if not isinstance(raw, list | tuple):
        return 0
    return len(raw) + sum(_count_values(item) for item in raw if isinstance(item, Mapping))


def _entries(
    raw: Mapping[Any, Any], where: str, found: list[Problem], *, fixed_allowed: bool, prefix: str = ""
) -> list[Entry]:
    """Parse a section; settings of nested sections get dotted paths in the same list."""
    entries: list[Entry] = []
    for key, value in raw.items():
        path = f"{prefix}{key}"
        here = f"{where}{path}"
        if isinstance(value, Mapping) and not _is_distribution(value):
            if not value:
                found.append((here, f"is empty; {_SYNTAX}"))
            entries += _entries(value, where, found, fixed_allowed=fixed_allowed, prefix=f"{path}.")
        elif isinstance(value, Mapping):
            try:
                entries.append(Entry(path, _distribution(value)))
            except ValueError as error:
                found.append((here, str(error)))
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            entries.append(Entry(path, _alternatives(value, here, found)))
        elif fixed_allowed:
            entries.append(Entry(path, Constant(lists_to_tuples(value))))
        else:
            found.append((here, f"fixed values belong in 'base', got {value!r}; {_SYNTAX}"))
    return entries


def _is_distribution(value: Mapping[Any, Any]) -> bool:
    """Return whether a mapping is a distribution, possibly misspelled, and not a section."""
    keys = [str(key) for key in value]
    if any(key in _DISTRIBUTIONS for key in keys):
        return True
    return len(keys) == 1 and bool(did_you_mean(keys[0], _DISTRIBUTIONS))


def _distribution(raw: Mapping[Any, Any]) -> Choice | Range:
    """Return a distribution; ValueError if it is invalid."""
    kind = next((str(key) for key in raw if str(key) in _DISTRIBUTIONS), None)
    if kind is None:
        got = str(next(iter(raw)))
        raise ValueError(f"unknown distribution {got!r}{did_you_mean(got, _DISTRIBUTIONS)}; {_SYNTAX}")
    if len(raw) > 1:
        others = ", ".join(repr(str(key)) for key in raw if key != kind)
        raise ValueError(f"{kind!r} must be the only key, got also {others}")
    if kind == "choice":
        return _choice(raw[kind])
    return _range(kind, raw[kind])  # type: ignore[arg-type] # one of _RANGES, checked above


def _choice(values: Any) -> Choice:
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"choice needs a non-empty list of values, got {values!r}")
    if any(isinstance(value, Mapping) for value in values):
        raise ValueError("choice values must not be sections; use a list of alternatives instead")
    if nan := [value for value in values if isinstance(value, float) and not math.isfinite(value)]:
        raise ValueError(f"choice needs finite numbers, got {nan[0]}")
    choice = Choice(tuple(lists_to_tuples(value) for value in values))
    repeated = [str(label) for label, count in Counter(map(repr, choice.labels)).items() if count > 1]
    if repeated:
        raise ValueError(f"choice has duplicate values: {', '.join(repeated)}")
    return choice


def _range(kind: RangeKind, ends: Any) -> Range:
    wanted = 3 if kind == "quantized" else 2
    form = "[low, high, step]" if wanted == 3 else "[low, high]"
    numbers = (
        isinstance(ends, list | tuple)
        and len(ends) == wanted
        and all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends)
        and all(math.isfinite(end) for end in ends)
    )
    if not numbers:
        raise ValueError(f"{kind} needs {wanted} finite numbers, {form}; got {ends!r}")
    low, high = ends[0], ends[1]
    if low >= high:
        raise ValueError(f"{kind} needs low < high, got {list(ends)!r}")
    if kind in ("log_uniform", "log_int") and low <= 0:
        raise ValueError(f"{kind} needs low > 0, got {list(ends)!r}")
    if kind in ("int", "log_int") and not all(end == int(end) for end in ends):
        raise ValueError(f"{kind} needs integers, got {list(ends)!r}")
    if kind in ("int", "log_int"):
        return Range(kind, int(low), int(high))
    if wanted == 2:
        return Range(kind, float(low), float(high))
    if not 0 < ends[2] <= high - low:
        raise ValueError(f"quantized needs 0 < step <= high - low, got {list(ends)!r}")
    if (high - low) / ends[2] > _MAX_STEPS:
        raise ValueError(f"quantized allows at most {_MAX_STEPS:.0e} steps, got {list(ends)!r}; use uniform")
    whole = all(isinstance(end, int) for end in ends)
    values = tuple(ends) if whole else tuple(float(end) for end in ends)
    # The range ends at its last step, which may be below `high`, so that tables show the actual end.
    range_ = Range(kind, *values)
    return replace(range_, high=range_.at(range_.steps() - 1))


def _alternatives(raw: list[Any] | tuple[Any, ...], where: str, found: list[Problem]) -> Alternatives:
    options: list[Option] = []
    named: Counter[str] = Counter()
    for position, item in enumerate(raw, start=1):
        if not isinstance(item, Mapping):
            found.append(
                (f"{where}.{position}", f"an alternative must be a section of settings, got {item!r}")
            )
            continue
        # The label is the `name`, else the position; a repeated name gets the position as suffix.
        name = item.get("name")
        label = name if isinstance(name, str) else str(position)
        named[label] += 1
        if named[label] > 1:
            label = f"{label}_{position}"
        entries = _entries(item, f"{where}.{label}.", found, fixed_allowed=True)
        found += [(f"{where}.{label}.{path}", text) for path, text in _overlaps(entries)]
        options.append(Option(label, tuple(entries)))
    if len(raw) == 1:
        found.append((where, "a list of alternatives needs at least two; set a single one in 'base'"))
    return Alternatives(tuple(options))


def _overlaps(entries: list[Entry]) -> list[Problem]:
    """Return the problems of settings given twice, or both inside and outside of a list of alternatives."""
    found: list[Problem] = []
    for index, entry in enumerate(entries):
        for earlier in entries[:index]:
            if entry.path == earlier.path:
                found.append((entry.path, "duplicate setting"))
            elif entry.path.startswith(f"{earlier.path}.") or earlier.path.startswith(f"{entry.path}."):
                inner, outer = sorted((entry.path, earlier.path), key=len, reverse=True)
                found.append((inner, f"overlaps with {outer!r}; set it inside each alternative of {outer!r}"))
    return found
