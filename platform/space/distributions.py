"""The search tree: which settings vary, over what, and under which alternative.

A tree is data only. `walk_tree` visits it once for a conditions chooser, whoever that is: a sampler that
draws, a reader that looks a point up, a table of values already drawn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

Scalar = str | int | float | bool
"""What a sampler, a table and MLflow can hold."""

RangeKind = Literal["uniform", "log_uniform", "int", "log_int", "quantized"]


def label_of(value: Any) -> Scalar:
    """Return `value` itself if it is a scalar, else its JSON text (`null`, `[0.5, 0.75]`)."""
    return value if isinstance(value, str | int | float) else json.dumps(value)


@dataclass(frozen=True)
class Constant:
    """A value that an alternative fixes."""

    value: Any

    def raw(self) -> Any:
        """Return it as written in a space file."""
        return tuples_to_lists(self.value)


@dataclass(frozen=True)
class Choice:
    """One of some values; those that are not scalars are named by their JSON text."""

    values: tuple[Any, ...]

    @property
    def labels(self) -> tuple[Scalar, ...]:
        """The values as scalars, in order."""
        return tuple(label_of(tuples_to_lists(value)) for value in self.values)

    def value(self, label: Scalar) -> Any:
        """Return the value named by `label`; ValueError if there is none."""
        return tuples_to_lists(self.values[self._index(label)])

    def label(self, value: Any) -> Scalar:
        """Return the label of `value`, itself a value or a label; ValueError if it is no choice."""
        return self.labels[self._index(label_of(tuples_to_lists(value)))]

    def _index(self, label: Scalar) -> int:
        for index, known in enumerate(self.labels):
            if known == label and isinstance(known, bool) == isinstance(label, bool):
                return index
        raise ValueError(f"{label!r} is not one of {self.text()}")

    def values_to_check(self) -> tuple[Any, ...]:
        """Values that must be valid for the choice to be."""
        return tuple(tuples_to_lists(value) for value in self.values)

    def text(self) -> str:
        """Return the values for a table."""
        return ", ".join(str(label) for label in self.labels)

    def raw(self) -> Any:
        """Return it as written in a space file."""
        return {"choice": [tuples_to_lists(value) for value in self.values]}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; `quantized` ones in steps of `step` from `low`."""

    kind: RangeKind
    low: float
    high: float
    step: float | None = None

    @property
    def integral(self) -> bool:
        """Whether only whole numbers are drawn."""
        return self.kind in ("int", "log_int") or (
            self.kind == "quantized" and isinstance(self.low, int) and isinstance(self.step, int)
        )

    @property
    def log(self) -> bool:
        """Whether each factor of ten is as likely as the next."""
        return self.kind in ("log_uniform", "log_int")

    def grid(self) -> tuple[float, ...]:
        """Return all values of a quantized range; ValueError for the others."""
        if self.step is None:
            raise ValueError(f"{self.kind} has no steps")
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        return tuple(self._at(index, self.step) for index in range(count))

    def snap(self, value: Any) -> float:
        """Return `value` (snapped to its step); ValueError if it lies outside."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{value!r} is not a number, and {self.text()} are")  # noqa: TRY004
        if not self.low <= value <= self.high:
            raise ValueError(f"{value!r} lies outside {self.text()}")
        if self.integral and value != int(value):
            raise ValueError(f"{value!r} is not a whole number, and {self.text()} are")
        if self.step is not None:
            snapped = self._at(round((value - self.low) / self.step), self.step)
            if not math.isclose(snapped, value, rel_tol=1e-9, abs_tol=abs(self.step) * 1e-9):
                raise ValueError(f"{value!r} is not a step of {self.text()}")
            return snapped
        return int(value) if self.integral else float(value)

    def _at(self, index: int, step: float) -> float:
        value = self.low + index * step
        # 0.1 + 2 * 0.1 is 0.30000000000000004: twelve digits keep the step and drop the noise.
        return int(value) if self.integral else float(f"{value:.12g}")

    def values_to_check(self) -> tuple[float, ...]:
        """Values that must be valid for the range to be: both ends, and one between them."""
        if self.step is not None:
            values = self.grid()
            return tuple(dict.fromkeys((values[0], values[-1], values[len(values) // 2])))
        if self.integral:
            return tuple(dict.fromkeys((int(self.low), int(self.high))))
        between = self.low + (self.high - self.low) * 0.381966
        return (float(self.low), float(self.high), between)

    def text(self) -> str:
        """Return the range for a table or a message."""
        ends = f"{self.low:g} to {self.high:g}"
        if self.step is not None:
            return f"{ends} in steps of {self.step:g}"
        return f"{ends}{', whole' if self.integral else ''}{', log scale' if self.log else ''}"

    def raw(self) -> Any:
        """Return it as written in a space file."""
        ends = [self.low, self.high] if self.step is None else [self.low, self.high, self.step]
        return {self.kind: ends}


@dataclass(frozen=True)
class Option:
    """One alternative: settings of its own, fixed or varied. `entries` are relative to its section."""

    label: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Alternatives:
    """Exactly one of several settings of a section; each replaces the base's section as a whole."""

    options: tuple[Option, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The options' names."""
        return tuple(option.label for option in self.options)

    def option(self, label: Any) -> Option:
        """Return the option named `label`; ValueError if there is none."""
        for option in self.options:
            if option.label == label:
                return option
        raise ValueError(f"{label!r} is not one of {self.text()}")

    def text(self) -> str:
        """Return the names for a table."""
        return ", ".join(self.labels)

    def raw(self) -> Any:
        """Return it as written in a space file."""
        return [{entry.path: entry.node.raw() for entry in option.entries} for option in self.options]


Node = Constant | Choice | Range | Alternatives
Varied = Choice | Range | Alternatives


@dataclass(frozen=True)
class Entry:
    """A setting by its dotted path, and what it takes."""

    path: str
    node: Node


@dataclass(frozen=True)
class SearchTree:
    """Everything that varies; paths are those of a `RunConfig`."""

    entries: tuple[Entry, ...]

    def raw(self) -> dict[str, Any]:
        """Return it as written in a space file."""
        return {entry.path: entry.node.raw() for entry in self.entries}


@dataclass(frozen=True)
class Dimension:
    """One thing that varies: where, over what, and the alternatives under which it exists."""

    name: str
    """The flat name: `optimizer.sgd.lr`."""
    path: str
    """The setting in a RunConfig: `optimizer.lr`."""
    node: Varied
    conditions: tuple[tuple[str, str], ...]
    """(flat name, label) of each alternative that must be chosen for it to exist."""


Chooser = Callable[[Dimension], Any]
"""Returns a label for a choice or alternatives, a number for a range."""


@dataclass(frozen=True)
class ChosenSettings:
    """One walk_tree's result: flat parameters, and the settings to place into the base, in order."""

    params: dict[str, Scalar]
    settings: tuple[tuple[str, Any], ...]
    sections: tuple[tuple[str, str], ...]
    """(path of a section in a RunConfig, its flat name), outermost first: `optimizer`, `optimizer.sgd`."""


def walk_tree(tree: SearchTree, choose: Chooser) -> ChosenSettings:
    """Visit every dimension that exists under the choices made, in file order."""
    params: dict[str, Scalar] = {}
    settings: list[tuple[str, Any]] = []
    sections: list[tuple[str, str]] = []

    def visit(
        entries: tuple[Entry, ...],
        path_prefix: str,
        name_prefix: str,
        conditions: tuple[tuple[str, str], ...],
    ) -> None:
        for entry in entries:
            path, name = path_prefix + entry.path, name_prefix + entry.path
            node = entry.node
            if isinstance(node, Constant):
                settings.append((path, tuples_to_lists(node.value)))
                continue
            chosen = choose(Dimension(name, path, node, conditions))
            params[name] = chosen
            if isinstance(node, Alternatives):
                option = node.option(chosen)
                settings.append((path, {}))
                sections.append((path, f"{name}.{chosen}"))
                visit(option.entries, f"{path}.", f"{name}.{chosen}.", (*conditions, (name, option.label)))
            elif isinstance(node, Choice):
                settings.append((path, node.value(chosen)))
            else:
                settings.append((path, chosen))

    visit(tree.entries, "", "", ())
    return ChosenSettings(params, tuple(settings), tuple(sections))


def dimensions(tree: SearchTree) -> Iterator[Dimension]:
    """Yield every dimension of the tree, those of all alternatives included, in file order."""

    def visit(
        entries: tuple[Entry, ...],
        path_prefix: str,
        name_prefix: str,
        conditions: tuple[tuple[str, str], ...],
    ) -> Iterator[Dimension]:
        for entry in entries:
            if isinstance(entry.node, Constant):
                continue
            path, name = path_prefix + entry.path, name_prefix + entry.path
            yield Dimension(name, path, entry.node, conditions)
            if isinstance(entry.node, Alternatives):
                for option in entry.node.options:
                    yield from visit(
                        option.entries,
                        f"{path}.",
                        f"{name}.{option.label}.",
                        (*conditions, (name, option.label)),
                    )

    yield from visit(tree.entries, "", "", ())


def apply_settings(values: dict[str, Any], settings: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """Return a deep copy of nested `values` with each dotted setting put in its place."""
    placed: dict[str, Any] = tuples_to_lists(values)
    for path, value in settings:
        *parents, last = path.split(".")
        section = placed
        for part in parents:
            if not isinstance(section.get(part), dict):
                section[part] = {}
            section = section[part]
        section[last] = value
    return placed


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
