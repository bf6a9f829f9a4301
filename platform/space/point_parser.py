"""Points of a search space: written by people, nested or flat; kept flat and complete."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from platform.errors import did_you_mean
from platform.space.distributions import (
    Alternatives,
    Choice,
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
    """A point does not lie in the space; `path` is the setting that does not."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


def read_point(point: Mapping[str, Any], tree: SearchTree, base: RunConfig) -> dict[str, Scalar]:
    """Return the flat parameters of `point`, complete, in the tree's order.

    A point may be flat (`optimizer: sgd`, `optimizer.sgd.lr: 0.1`), nested as a RunConfig is
    (`optimizer: {name: sgd, lr: 0.1}`), or a mixture. What it leaves out is taken from the base
    where the base lies in the space. What the space does not vary may be given, with the space's value.

    Raises:
        OutsideSpaceError: with the setting that is missing, unknown, or outside.
    """
    given = _flatten(point)
    borrowed = _base_values(tree, given, base)
    given |= borrowed

    def choose(dimension: Dimension) -> Scalar:
        node = dimension.node
        if isinstance(node, Alternatives):
            return _choose_option(dimension, node, given, base)
        for key in (dimension.name, dimension.path):
            if key in given:
                try:
                    value = given[key]
                    return node.label(value) if isinstance(node, Choice) else node.snap(value)
                except ValueError as error:
                    missing = "is missing, and the base's value will not do: " if key in borrowed else ""
                    raise OutsideSpaceError(dimension.name, f"{missing}{error}") from None
        raise OutsideSpaceError(dimension.name, f"is missing; give one of {node.text()}")

    drawn = walk_tree(tree, choose)
    try:
        resolved = RunConfig.model_validate(apply_settings(base.model_dump(), drawn.settings)).model_dump()
    except ValidationError as error:
        raise OutsideSpaceError("", str(error.errors()[0]["msg"])) from None
    _check_other_values(given, drawn.params, resolved, tree)
    return drawn.params


def _base_values(tree: SearchTree, given: Mapping[str, Any], base: RunConfig) -> dict[str, Any]:
    """Return the base's values for those entries of the tree that a point does not mention."""
    values = base.model_dump()
    borrowed: dict[str, Any] = {}
    for entry in tree.entries:
        if not any(key == entry.path or key.startswith(f"{entry.path}.") for key in given):
            try:
                borrowed |= _flatten({entry.path: value_at(values, entry.path)})
            except KeyError:
                continue
    return borrowed


def _choose_option(
    dimension: Dimension, node: Alternatives, given: Mapping[str, Any], base: RunConfig
) -> str:
    """Choose the alternative that a point means: by its label, by its `name`, by what fits."""
    label = given.get(dimension.name, given.get(dimension.path))
    if label is not None:
        try:
            return node.option(label).label
        except ValueError as error:
            raise OutsideSpaceError(dimension.name, str(error)) from None
    section = f"{dimension.path}."
    inside = {key: value for key, value in given.items() if key.startswith(section)}
    if not inside:
        raise OutsideSpaceError(dimension.name, f"is missing; give one of {node.text()}")
    name = inside.get(f"{section}name")
    options = [
        option for option in node.options if name is None or Entry("name", Constant(name)) in option.entries
    ]
    if not options:
        raise OutsideSpaceError(dimension.name, f"{name!r} is not one of {node.text()}")
    if len(node.options) == 1 or (name is not None and len(options) == 1):
        return options[0].label
    for option in options:
        # Several alternatives may be meant: the first that holds all of the values is.
        alone = SearchTree((Entry(dimension.path, Alternatives((option,))),))
        try:
            read_point(inside, alone, base)
        except OutsideSpaceError:
            continue
        return option.label
    raise OutsideSpaceError(dimension.name, f"fits none of the alternatives {node.text()}")


def _check_other_values(
    given: Mapping[str, Any], params: Mapping[str, Scalar], resolved: dict[str, Any], tree: SearchTree
) -> None:
    """Refuse what a point says beyond its parameters, unless the resolved run says the same."""
    names = {dimension.name for dimension in dimensions(tree)}
    for key, value in given.items():
        if key in params:
            continue
        try:
            kept = value_at(resolved, key)
        except KeyError:
            if key in names:
                raise OutsideSpaceError(
                    key, "belongs to an alternative that the point does not choose"
                ) from None
            raise OutsideSpaceError(key, f"unknown setting{did_you_mean(key, names)}") from None
        if isinstance(kept, dict):
            kept = kept.get("name")
        if not _same(kept, tuples_to_lists(value)):
            raise OutsideSpaceError(key, f"{value!r} lies outside the space, which fixes it at {kept!r}")


def _same(kept: Any, given: Any) -> bool:
    if isinstance(kept, float) and isinstance(given, int | float):
        return math.isclose(kept, given, rel_tol=1e-9)
    return bool(kept == given)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested (or partly dotted) mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
