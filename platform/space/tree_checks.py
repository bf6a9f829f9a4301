"""Check that all values of a search tree give valid runs.

Both ends of each range, a value in between, and each choice are validated in a `RunConfig`. So are pairs of
values of settings in the same section, because one may exclude the other (`nesterov` needs momentum).
"""

from __future__ import annotations

import itertools
from typing import Any

from pydantic import ValidationError

from platform.common.schema import validation_problems
from platform.space.distributions import (
    Alternatives,
    Choice,
    ChosenSettings,
    Dimension,
    SearchTree,
    Varied,
    apply_settings,
    dimensions,
    tuples_to_lists,
    walk_tree,
)
from platform.space.tree_parser import Problem
from platform.training.config import RunConfig

FIXED_BY_THE_SWEEP = {
    "seed": "every trial's seed is derived from the sweep's seed",
    "data.name": "trials are only comparable on the same data",
    "data.split_seed": "trials are only comparable on the same validation images",
    "data.validation_size": "trials are only comparable on the same validation images",
    "data.train_limit": "trials are only comparable on the same training images",
    "report": "trials are only comparable by the same rule",
}

_PLACEHOLDER_BASE: dict[str, Any] = {
    "model": {"name": "resnet32_cifar"},
    "epochs": 1,
    "optimizer": {"name": "sgd", "lr": 0.1},
    "schedule": {"name": "constant"},
}


def check_tree(tree: SearchTree, base: RunConfig | None) -> list[Problem]:
    """Return (flat name, message) for every invalid value of the tree.

    If the base run is invalid (None), a placeholder replaces it, and only values whose validity does not
    depend on the base are checked.
    """
    values = _PLACEHOLDER_BASE if base is None else base.all_values()
    # (flat name, pydantic's message, value) -> problem: the first problem of each kind is kept.
    found: dict[tuple[str, ...], Problem] = {}
    all_dimensions = list(dimensions(tree))
    by_name = {dimension.name: dimension for dimension in all_dimensions}
    for dimension in all_dimensions:
        reason = FIXED_BY_THE_SWEEP.get(dimension.path)
        if reason:
            found[dimension.name, reason] = (dimension.name, f"cannot be searched: {reason}")

    def is_valid(forced: dict[str, Any]) -> bool:
        chosen, dump, wrong = _try_values(tree, values, forced)
        if base is None:
            wrong = [problem for problem in wrong if _inside_search(problem[0], chosen)]
        for name, text in wrong:
            value = chosen.params.get(name)
            if value is not None and not text.startswith("unknown key"):
                got = "" if text.startswith(repr(value)) else f", got {value!r}"
                found.setdefault((name, text, str(value)), (name, text + got))
                continue
            inside = {key: got for key, got in chosen.params.items() if key.startswith(f"{name}.")}
            given = ", ".join(f"{key.removeprefix(f'{name}.')} {got!r}" for key, got in inside.items())
            found.setdefault((name, text), (name, f"{text} (with {given})" if given else text))
        coerced = _coerced_values(by_name, chosen, dump) if dump is not None else []
        found.update({problem: problem for problem in coerced})
        return not wrong and not coerced

    good: dict[str, list[Any]] = {}
    for dimension in all_dimensions:
        for value in _values_to_check(dimension.node):
            if is_valid({**dict(dimension.conditions), dimension.name: value}):
                good.setdefault(dimension.name, []).append(value)
    sections: dict[Any, list[Dimension]] = {}
    for dimension in all_dimensions if base is not None else ():
        section = dimension.conditions, dimension.path.rpartition(".")[0]
        sections.setdefault(section, []).append(dimension)
    for neighbors in sections.values():
        for first, second in itertools.combinations(neighbors, 2):
            some = (_representatives(good.get(each.name, [])) for each in (first, second))
            for pair in itertools.product(*some):
                is_valid({**dict(first.conditions), first.name: pair[0], second.name: pair[1]})
    names = list(by_name)
    return sorted(found.values(), key=lambda problem: _position_in_file(problem[0], names))


def _representatives(values: list[Any]) -> list[Any]:
    """Return at most 15 of `values`, evenly spaced, and those that turn a setting off."""
    # The number of pairs is quadratic.
    spread = values[:: max(1, len(values) // 8)]
    return [value for value in values if not value or value in spread]


def _position_in_file(name: str, names: list[str]) -> int:
    within = [index for index, known in enumerate(names) if f"{name}.".startswith(f"{known}.")]
    return within[-1] if within else len(names)


def _try_values(
    tree: SearchTree, base: dict[str, Any], forced: dict[str, Any]
) -> tuple[ChosenSettings, dict[str, Any] | None, list[Problem]]:
    """Validate the run with the `forced` values, and the first value of all other dimensions."""

    def choose(dimension: Dimension) -> Any:
        return forced.get(dimension.name, _values_to_check(dimension.node)[0])

    chosen = walk_tree(tree, choose)
    try:
        config = RunConfig.model_validate(apply_settings(base, chosen.settings))
    except ValidationError as error:
        wrong = [(_flat_name(path, chosen), text) for path, text in validation_problems(error, RunConfig)]
        return chosen, None, wrong
    return chosen, config.all_values(), []


def _coerced_values(
    by_name: dict[str, Dimension], chosen: ChosenSettings, dump: dict[str, Any]
) -> list[Problem]:
    """Return the values that pydantic converts ('128' to 128): tables would show the unconverted value."""
    found = []
    for name, label in chosen.params.items():
        dimension = by_name[name]
        if isinstance(dimension.node, Alternatives):
            continue
        given = dimension.node.value(label) if isinstance(dimension.node, Choice) else label
        kept = value_at(dump, dimension.path)
        if kept != given or isinstance(kept, bool) != isinstance(given, bool):
            found.append((dimension.name, f"write {kept!r} instead of {given!r}"))
    return found


def _values_to_check(node: Varied) -> tuple[Any, ...]:
    if isinstance(node, Alternatives | Choice):
        return node.labels
    return node.values_to_check()


def _inside_search(name: str, chosen: ChosenSettings) -> bool:
    """Return whether a problem is in a section or top-level setting that the search alone defines."""
    if any(name.startswith(f"{section}.") or name == section for _, section in chosen.sections):
        return True
    return name in chosen.params and "." not in name


def _flat_name(path: str, chosen: ChosenSettings) -> str:
    """Return the flat name of a path in a RunConfig: `optimizer.sgd.lr` for `optimizer.lr`."""
    for section, name in reversed(chosen.sections):
        if path == section or path.startswith(f"{section}."):
            return name + path[len(section) :]
    return path


def value_at(values: dict[str, Any], path: str) -> Any:
    """Return the value at a dotted path of nested mappings, with tuples as lists; KeyError without one."""
    found: Any = values
    for part in path.split("."):
        if not isinstance(found, dict):
            raise KeyError(path)
        found = found[part]
    return tuples_to_lists(found)
