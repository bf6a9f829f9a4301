"""The Pareto front of trials over accuracy and the costs of their networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from platform.space.settings import Objective

HIGHER_IS_BETTER: frozenset[Objective] = frozenset({"validation_accuracy"})


def non_dominated(points: Mapping[str, Mapping[str, float]], objectives: Sequence[Objective]) -> list[str]:
    """Return the names of the non-dominated points, in the given order.

    A point dominates another if it is at least as good in every objective and better in one. Equal points do
    not dominate each other.

    Args:
        points: the value of every objective, by name of the point.
        objectives: the objectives to compare.
    """
    loss = {
        name: tuple(-values[key] if key in HIGHER_IS_BETTER else values[key] for key in objectives)
        for name, values in points.items()
    }
    return [name for name in loss if not any(_dominates(loss[other], loss[name]) for other in loss)]


def _dominates(left: Sequence[float], right: Sequence[float]) -> bool:
    return left != right and all(a <= b for a, b in zip(left, right, strict=True))
