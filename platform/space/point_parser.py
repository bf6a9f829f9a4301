"""Parse points of a search space, written nested or flat, into complete flat parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from platform.common.errors import did_you_mean, not_one_of
from platform.common.nested import flatten
from platform.space.distributions import (
    Alternatives,
    Constant,
    Dimension,
    Entry,
    Scalar,
    SearchTree,
    apply_settings,
    dimensions,
    tuples_to_lists,
    walk_tree,
)
from platform.space.tree_checks import value_at
from platform.training.config import RunConfig


class OutsideSpaceError(ValueError):
    """A point is outside the search space; `path` is the setting at fault."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


def read_point(point: Mapping[str, Any], tree: SearchTree, base: RunConfig) -> dict[str, Scalar]:
    """Return the complete flat parameters of `point`, in the tree's order.

    A point may be flat (`optimizer: sgd`, `optimizer.sgd.lr: 0.1`), nested like a RunConfig
    (`optimizer: {name: sgd, lr: 0.1}`), or mixed. Missing settings are taken from the base where its values
    are in the space. Settings that are not searched may be given if their value equals that of the resolved
    run.

    Raises:
        OutsideSpaceError: a setting is missing, unknown, or outside the space.
    """
    given = dict(flatten(point))
    from_base = _base_values(tree, given, base)
    given |= from_base

    def choose(dimension: Dimension) -> Scalar:
        node = dimension.node
        if isinstance(node, Alternatives):
            return _choose_option(dimension, node, given, base)
        for key in (dimension.name, dimension.path):
            if key in given:
                try:
                    return node.parameter(given[key])
                except ValueError as error:
                    missing = "missing, and the base is outside the space: " if key in from_base else ""
                    raise OutsideSpaceError(dimension.name, f"{missing}{error}") from None
        raise OutsideSpaceError(dimension.name, f"missing; expected {node.text()}")

    chosen = walk_tree(tree, choose)
    try:
        resolved = RunConfig.model_validate(apply_settings(base.all_values(), chosen.settings)).all_values()
    except ValidationError as error:
        raise OutsideSpaceError("", str(error.errors()[0]["msg"])) from None
    _check_other_values(given, chosen.params, resolved, tree)
    return chosen.params


def _base_values(tree: SearchTree, given: Mapping[str, Any], base: RunConfig) -> dict[str, Any]:
    """Return the base's values of the tree's entries that are missing in a point."""
    values = base.all_values()
    found: dict[str, Any] = {}
    for entry in tree.entries:
        if not any(key == entry.path or key.startswith(f"{entry.path}.") for key in given):
            try:
                found |= flatten({entry.path: value_at(values, entry.path)})
            except KeyError:
                continue
    return found


def _choose_option(
    dimension: Dimension, node: Alternatives, given: Mapping[str, Any], base: RunConfig
) -> str:
    """Return the label of a point's alternative: given as label, by its `name`, or the first that matches."""
    label = given.get(dimension.name, given.get(dimension.path))
    if label is not None:
        try:
            return node.parameter(label)
        except ValueError as error:
            raise OutsideSpaceError(dimension.name, str(error)) from None
    section = f"{dimension.path}."
    inside = {key: value for key, value in given.items() if key.startswith(section)}
    if not inside:
        raise OutsideSpaceError(dimension.name, f"missing; expected one of {node.text()}")
    name = inside.get(f"{section}name")
    options = [
        option for option in node.options if name is None or Entry("name", Constant(name)) in option.entries
    ]
    if not options:
        raise OutsideSpaceError(dimension.name, not_one_of(name, node.labels))
    if len(node.options) == 1 or (name is not None and len(options) == 1):
        return options[0].label
    for option in options:
        # Several alternatives are possible: take the first that contains all values.
        single_option = SearchTree((Entry(dimension.path, Alternatives((option,))),))
        try:
            read_point(inside, single_option, base)
        except OutsideSpaceError:
            continue
        return option.label
    raise OutsideSpaceError(dimension.name, f"the values match no alternative of {node.text()}")


def _check_other_values(
    given: Mapping[str, Any], params: Mapping[str, Scalar], resolved: dict[str, Any], tree: SearchTree
) -> None:
    """Refuse values beyond the parameters, unless they equal those of the resolved run."""
    names = {dimension.name for dimension in dimensions(tree)}
    for key, value in given.items():
        if key in params:
            continue
        try:
            kept = value_at(resolved, key)
        except KeyError:
            if key in names:
                raise OutsideSpaceError(key, "belongs to an alternative that is not chosen") from None
            raise OutsideSpaceError(key, f"unknown setting{did_you_mean(key, names)}") from None
        if isinstance(kept, dict):
            kept = kept.get("name")
        if not _same(kept, tuples_to_lists(value)):
            raise OutsideSpaceError(key, f"the space fixes this setting to {kept!r}; got {value!r}")


def _same(kept: Any, given: Any) -> bool:
    if isinstance(kept, float) and isinstance(given, int | float):
        return math.isclose(kept, given, rel_tol=1e-9)
    return bool(kept == given)
