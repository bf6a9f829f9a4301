"""Whether every value a search tree can take makes a valid training run, and if not, which does not.

Each end of each range, a value between them, and each choice is tried in a `RunConfig`, and pairs of
neighboring settings together, since one may forbid the other (`nesterov` needs momentum).
"""

from __future__ import annotations

import itertools
from typing import Any

from pydantic import ValidationError

from platform.schema import validation_problems
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
    "seed": "every trial gets its own from the sweep's seed",
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
    """Return (flat name, message) for every value of the tree that no run may take.

    Args:
        tree: the parsed search section.
        base: what the search varies; None if it is itself invalid. Then a stand-in takes its
            place and only the values whose validity does not depend on the base are looked at.
    """
    values = _PLACEHOLDER_BASE if base is None else base.model_dump()
    # The first message of each kind is kept: (flat name, pydantic's text, value) -> the message.
    found: dict[tuple[str, ...], Problem] = {}
    all_dimensions = list(dimensions(tree))
    for dimension in all_dimensions:
        reason = FIXED_BY_THE_SWEEP.get(dimension.path)
        if reason:
            found[dimension.name, reason] = (dimension.name, f"cannot be searched: {reason}")

    def attempt(forced: dict[str, Any]) -> bool:
        drawn, dump, wrong = _try_values(tree, values, forced)
        if base is None:
            wrong = [problem for problem in wrong if _inside(problem[0], drawn)]
        for name, text in wrong:
            value = drawn.params.get(name)
            unknown = text.startswith("unknown key")
            if value is not None and not unknown:
                found.setdefault((name, text, str(value)), (name, f"{text}, got {value!r}"))
                continue
            inside = {key: got for key, got in drawn.params.items() if key.startswith(f"{name}.")}
            given = ", ".join(f"{key.removeprefix(f'{name}.')} {got!r}" for key, got in inside.items())
            found.setdefault((name, text), (name, f"{text} (with {given})" if given else text))
        rewritten = _coerced_values(all_dimensions, drawn, dump) if dump is not None else []
        found.update({problem: problem for problem in rewritten})
        return not wrong and not rewritten

    good: dict[str, list[Any]] = {}
    for dimension in all_dimensions:
        for probe in _values_to_check(dimension.node):
            if attempt({**dict(dimension.conditions), dimension.name: probe}):
                good.setdefault(dimension.name, []).append(probe)
    for first, second in itertools.combinations(all_dimensions, 2):
        neighbors = first.conditions == second.conditions and _parent(first.path) == _parent(second.path)
        if neighbors and base is not None:
            for pair in itertools.product(good.get(first.name, []), good.get(second.name, [])):
                attempt({**dict(first.conditions), first.name: pair[0], second.name: pair[1]})
    names = [dimension.name for dimension in all_dimensions]
    return sorted(found.values(), key=lambda problem: _place_in_file(problem[0], names))


def _place_in_file(name: str, names: list[str]) -> int:
    within = [index for index, known in enumerate(names) if f"{name}.".startswith(f"{known}.")]
    return within[-1] if within else len(names)


def _try_values(
    tree: SearchTree, base: dict[str, Any], forced: dict[str, Any]
) -> tuple[ChosenSettings, dict[str, Any] | None, list[Problem]]:
    """Build the run in which `forced` dimensions have their value and the others their first."""

    def choose(dimension: Dimension) -> Any:
        return forced.get(dimension.name, _values_to_check(dimension.node)[0])

    drawn = walk_tree(tree, choose)
    try:
        config = RunConfig.model_validate(apply_settings(base, drawn.settings))
    except ValidationError as error:
        wrong = [(_flat_name(path, drawn), text) for path, text in validation_problems(error, RunConfig)]
        return drawn, None, wrong
    return drawn, config.model_dump(), []


def _coerced_values(
    all_dimensions: list[Dimension], drawn: ChosenSettings, dump: dict[str, Any]
) -> list[Problem]:
    """Refuse values that pydantic reads as something else ('128' as 128): tables would show the text."""
    found = []
    for dimension in all_dimensions:
        if dimension.name not in drawn.params or isinstance(dimension.node, Alternatives):
            continue
        label = drawn.params[dimension.name]
        given = dimension.node.value(label) if isinstance(dimension.node, Choice) else label
        kept = value_at(dump, dimension.path)
        if kept != given or isinstance(kept, bool) != isinstance(given, bool):
            found.append((dimension.name, f"write {kept!r} instead of {given!r}"))
    return found


def _values_to_check(node: Varied) -> tuple[Any, ...]:
    if isinstance(node, Alternatives | Choice):
        return node.labels
    return node.values_to_check()


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _inside(name: str, drawn: ChosenSettings) -> bool:
    """Whether a problem lies in what the search itself wrote in full."""
    if any(name.startswith(f"{section}.") or name == section for _, section in drawn.sections):
        return True
    return name in drawn.params and "." not in name


def _flat_name(path: str, drawn: ChosenSettings) -> str:
    """Return the flat name of a RunConfig's path: `optimizer.sgd.lr` for `optimizer.lr`."""
    for section, name in reversed(drawn.sections):
        if path == section or path.startswith(f"{section}."):
            return name + path[len(section) :]
    return path


def value_at(values: dict[str, Any], path: str) -> Any:
    """Return the value at a dotted path of nested mappings, lists for tuples; KeyError if there is none."""
    found: Any = values
    for part in path.split("."):
        if not isinstance(found, dict):
            raise KeyError(path)
        found = found[part]
    return tuples_to_lists(found)
