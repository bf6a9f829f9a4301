"""The search tree: the searched settings, their distributions and their conditions.

A tree is immutable data. `walk_tree` visits it once with a chooser, which samples a value for each
dimension or looks one up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from platform.common.errors import not_one_of

Scalar = str | int | float | bool
"""A parameter value that samplers, tables and MLflow support."""

RangeKind = Literal["uniform", "log_uniform", "int", "log_int", "quantized"]


def label_of(value: Any) -> Scalar:
    """Return `value` itself if it is a scalar, else its JSON text (`null`, `[0.5, 0.75]`)."""
    return value if isinstance(value, str | int | float) else json.dumps(value)


@dataclass(frozen=True)
class Constant:
    """A fixed value in an alternative."""

    value: Any

    def raw(self) -> Any:
        """Return the node as written in a space file."""
        return tuples_to_lists(self.value)


@dataclass(frozen=True)
class Choice:
    """A choice between values; the label of a value that is not a scalar is its JSON text."""

    values: tuple[Any, ...]

    @cached_property
    def labels(self) -> tuple[Scalar, ...]:
        """The labels of the values, in order."""
        return tuple(label_of(tuples_to_lists(value)) for value in self.values)

    def value(self, label: Scalar) -> Any:
        """Return the value with this label; ValueError if there is none."""
        return tuples_to_lists(self.values[self._index(label)])

    def parameter(self, value: Any) -> Scalar:
        """Return the label of `value`, a value or a label; ValueError if it is not one of the choices."""
        return self.labels[self._index(label_of(tuples_to_lists(value)))]

    def _index(self, label: Scalar) -> int:
        for index, known in enumerate(self.labels):
            if known == label and isinstance(known, bool) == isinstance(label, bool):
                return index
        raise ValueError(not_one_of(label, self.labels))

    def values_to_check(self) -> tuple[Any, ...]:
        """Return the values that a run must accept: all of them."""
        return tuple(tuples_to_lists(value) for value in self.values)

    def text(self) -> str:
        """Return the labels for tables and messages."""
        return ", ".join(str(label) for label in self.labels)

    def raw(self) -> Any:
        """Return the node as written in a space file."""
        return {"choice": [tuples_to_lists(value) for value in self.values]}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, inclusive; with kind `quantized`, in steps of `step` from `low`."""

    kind: RangeKind
    low: float
    high: float
    step: float | None = None

    @property
    def integral(self) -> bool:
        """Whether all values are integers."""
        return self.kind in ("int", "log_int") or (
            self.kind == "quantized" and isinstance(self.low, int) and isinstance(self.step, int)
        )

    @property
    def log(self) -> bool:
        """Whether values are uniform on a logarithmic scale."""
        return self.kind in ("log_uniform", "log_int")

    def steps(self) -> int:
        """Return the number of values of a quantized range; ValueError for other kinds."""
        if self.step is None:
            raise ValueError(f"{self.kind} has no steps")
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def at(self, index: int) -> float:
        """Return the value of a quantized range at a step, from 0."""
        value = self.low + index * (self.step or 0)
        # 0.1 + 2 * 0.1 is 0.30000000000000004: twelve digits remove the rounding error.
        return int(value) if self.integral else float(f"{value:.12g}")

    def parameter(self, value: Any) -> float:
        """Return `value`, rounded to the nearest step if it differs by rounding error only.

        Raises:
            ValueError: the value is no number, outside the range, or not on a step.
        """
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"must be a number in the range {self.text()}; got {value!r}")  # noqa: TRY004
        if not self.low <= value <= self.high:
            raise ValueError(f"must be in the range {self.text()}; got {value!r}")
        if self.integral and value != int(value):
            raise ValueError(f"must be in the range {self.text()}; got {value!r}")
        if self.step is not None:
            snapped = self.at(round((value - self.low) / self.step))
            if not math.isclose(snapped, value, rel_tol=1e-9, abs_tol=abs(self.step) * 1e-9):
                raise ValueError(f"must be in the range {self.text()}; got {value!r}")
            return snapped
        return int(value) if self.integral else float(value)

    def values_to_check(self) -> tuple[float, ...]:
        """Return values that a run must accept: both ends and, unless integral, one in between."""
        if self.step is not None:
            steps = self.steps()
            return tuple(dict.fromkeys(self.at(index) for index in (0, steps - 1, steps // 2)))
        if self.integral:
            return tuple(dict.fromkeys((int(self.low), int(self.high))))
        between = self.low + (self.high - self.low) * 0.381966
        return (float(self.low), float(self.high), between)

    def text(self) -> str:
        """Return the range for tables and messages."""
        ends = f"{self.low:g} to {self.high:g}"
        if self.step is not None:
            return f"{ends} in steps of {self.step:g}"
        return f"{ends}{', integer' if self.integral else ''}{', log scale' if self.log else ''}"

    def raw(self) -> Any:
        """Return the node as written in a space file."""
        ends = [self.low, self.high] if self.step is None else [self.low, self.high, self.step]
        return {self.kind: ends}


@dataclass(frozen=True)
class Option:
    """One alternative: its fixed and searched settings, with paths relative to its section."""

    label: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Alternatives:
    """Alternatives of a section; the chosen one replaces the base's whole section."""

    options: tuple[Option, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the options."""
        return tuple(option.label for option in self.options)

    def option(self, label: Any) -> Option:
        """Return the option with this label; ValueError if there is none."""
        for option in self.options:
            if option.label == label:
                return option
        raise ValueError(not_one_of(label, self.labels))

    def parameter(self, value: Any) -> str:
        """Return `value` if it is the label of an option, else raise ValueError."""
        return self.option(value).label

    def text(self) -> str:
        """Return the labels for tables and messages."""
        return ", ".join(self.labels)

    def raw(self) -> Any:
        """Return the node as written in a space file."""
        return [{entry.path: entry.node.raw() for entry in option.entries} for option in self.options]


Node = Constant | Choice | Range | Alternatives
Varied = Choice | Range | Alternatives


@dataclass(frozen=True)
class Entry:
    """A setting's dotted path and its distribution."""

    path: str
    node: Node


@dataclass(frozen=True)
class SearchTree:
    """All searched settings; paths refer to a `RunConfig`."""

    entries: tuple[Entry, ...]

    def raw(self) -> dict[str, Any]:
        """Return the search section as written in a space file."""
        return {entry.path: entry.node.raw() for entry in self.entries}


Conditions = tuple[tuple[str, str], ...]
"""(flat name, label) of each alternative that must be chosen for a dimension to exist."""


@dataclass(frozen=True)
class Dimension:
    """One searched setting: its path, its distribution, and the alternatives that it depends on."""

    name: str
    """The flat name: `optimizer.sgd.lr`."""
    path: str
    """The setting in a RunConfig: `optimizer.lr`."""
    node: Varied
    conditions: Conditions

    def inside(self, label: str) -> tuple[str, str, Conditions]:
        """Return the prefixes of paths and of flat names inside an alternative, and their conditions."""
        return f"{self.path}.", f"{self.name}.{label}.", (*self.conditions, (self.name, label))


Chooser = Callable[[Dimension], Any]
"""Returns a label for a choice or alternatives, a number for a range."""


@dataclass(frozen=True)
class ChosenSettings:
    """The result of `walk_tree`: flat parameters, and the settings to apply to the base, in order."""

    params: dict[str, Scalar]
    settings: tuple[tuple[str, Any], ...]
    sections: tuple[tuple[str, str], ...]
    """(path of a section in a RunConfig, its flat name), outermost first: (`optimizer`, `optimizer.sgd`)."""


def walk_tree(tree: SearchTree, choose: Chooser) -> ChosenSettings:
    """Choose a value for every dimension that exists under the earlier choices, in file order."""
    params: dict[str, Scalar] = {}
    settings: list[tuple[str, Any]] = []
    sections: list[tuple[str, str]] = []

    def visit(
        entries: tuple[Entry, ...], path_prefix: str = "", name_prefix: str = "", conditions: Conditions = ()
    ) -> None:
        for entry in entries:
            path, name, node = path_prefix + entry.path, name_prefix + entry.path, entry.node
            if isinstance(node, Constant):
                settings.append((path, tuples_to_lists(node.value)))
                continue
            dimension = Dimension(name, path, node, conditions)
            params[name] = chosen = choose(dimension)
            if isinstance(node, Alternatives):
                settings.append((path, {}))
                sections.append((path, f"{name}.{chosen}"))
                visit(node.option(chosen).entries, *dimension.inside(chosen))
            elif isinstance(node, Choice):
                settings.append((path, node.value(chosen)))
            else:
                settings.append((path, chosen))

    visit(tree.entries)
    return ChosenSettings(params, tuple(settings), tuple(sections))


def dimensions(tree: SearchTree) -> Iterator[Dimension]:
    """Yield every dimension of the tree, including those of all alternatives, in file order."""

    def visit(
        entries: tuple[Entry, ...], path_prefix: str = "", name_prefix: str = "", conditions: Conditions = ()
    ) -> Iterator[Dimension]:
        for entry in entries:
            if isinstance(entry.node, Constant):
                continue
            dimension = Dimension(name_prefix + entry.path, path_prefix + entry.path, entry.node, conditions)
            yield dimension
            if isinstance(entry.node, Alternatives):
                for option in entry.node.options:
                    yield from visit(option.entries, *dimension.inside(option.label))

    return visit(tree.entries)


def apply_settings(values: dict[str, Any], settings: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """Return a deep copy of nested `values` with each dotted setting assigned."""
    changed: dict[str, Any] = tuples_to_lists(values)
    for path, value in settings:
        *parents, last = path.split(".")
        section = changed
        for part in parents:
            if not isinstance(section.get(part), dict):
                section[part] = {}
            section = section[part]
        section[last] = value
    return changed


def lists_to_tuples(value: Any) -> Any:
    """Return `value` with lists as tuples, so that it is hashable."""
    return tuple(lists_to_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def tuples_to_lists(value: Any) -> Any:
    """Return a deep copy of `value` with tuples as lists."""
    if isinstance(value, dict):
        return {key: tuples_to_lists(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [tuples_to_lists(item) for item in value]
    return value
