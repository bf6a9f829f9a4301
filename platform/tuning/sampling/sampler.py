"""Points of a space, drawn by Optuna or enumerated.

Optuna sees a flat name per dimension (`optimizer`, `optimizer.sgd.lr`), asked for only where it
exists, so its history never mixes the learning rate of one optimizer with that of another.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from platform.errors import UsageError
from platform.space.distributions import Alternatives, Choice, Dimension, Range, Scalar, SearchTree, walk_tree
from platform.space.settings import Grid, Nsga2, Random, Tpe
from platform.space.spec import SweepSpec

if TYPE_CHECKING:
    import optuna


def suggest(trial: optuna.Trial, spec: SweepSpec) -> dict[str, Scalar]:
    """Ask `trial` for every dimension that exists under what it chose before; return flat parameters."""

    def ask(dimension: Dimension) -> Any:
        name, node = dimension.name, dimension.node
        if isinstance(node, Alternatives | Choice):
            return trial.suggest_categorical(name, node.labels)
        if node.integral:
            step = 1 if node.step is None else int(node.step)
            return trial.suggest_int(name, int(node.low), int(node.high), step=step, log=node.log)
        drawn = trial.suggest_float(name, node.low, node.high, step=node.step, log=node.log)
        # Optuna adds up steps in binary; the space's own value (0.3, not 0.30000000000000004) is kept.
        return node.snap(drawn)

    return walk_tree(spec.search, ask).params


def make_sampler(spec: SweepSpec) -> optuna.samplers.BaseSampler:
    """Return the seeded Optuna sampler of a spec (for a grid, the one that fills in beyond it)."""
    import optuna

    sampler = spec.sampler
    seed = spec.seed if isinstance(sampler, Grid) or sampler.seed is None else sampler.seed
    if isinstance(sampler, Tpe):
        return optuna.samplers.TPESampler(n_startup_trials=sampler.startup_trials, seed=seed)
    if isinstance(sampler, Random | Grid):
        return optuna.samplers.RandomSampler(seed=seed)
    if isinstance(sampler, Nsga2):
        return optuna.samplers.NSGAIISampler(population_size=sampler.population_size, seed=seed)
    from platform.tuning.sampling.seeded_draws import NamedDraws

    with warnings.catch_warnings():
        # Experimental since Optuna 3; the version is bounded in pyproject.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.QMCSampler(
            scramble=True,
            seed=seed,
            warn_independent_sampling=False,
            independent_sampler=NamedDraws(seed),  # draws as long as no earlier trial has finished
        )


def initial_points(spec: SweepSpec) -> list[dict[str, Scalar]]:
    """Return the points to try first, distinct and in order: the known good ones, then a grid's."""
    points = [dict(point) for point in spec.start_from]
    if isinstance(spec.sampler, Grid):
        points += grid_points(spec)
    distinct = {tuple(point.items()): point for point in points}
    return list(distinct.values())[: spec.trials]


def planned_trials(spec: SweepSpec) -> int:
    """Return how many trials the search has: a grid may hold fewer than the file allows."""
    return len(initial_points(spec)) if isinstance(spec.sampler, Grid) else spec.trials


def grid_points(spec: SweepSpec) -> list[dict[str, Scalar]]:
    """Return every combination of a space of choices and quantized ranges, in file order.

    Raises:
        UsageError: a range is continuous, or plain whole numbers; names each.
    """
    endless = [
        dimension.name
        for dimension in spec.dimensions
        if isinstance(dimension.node, Range) and dimension.node.step is None
    ]
    if endless:
        raise UsageError(
            f"{spec.name}: sampler 'grid' needs choice or quantized for every setting; "
            f"these are ranges: {', '.join(endless)}"
        )
    return list(combinations(spec.search))


def combinations(tree: SearchTree) -> Iterator[dict[str, Scalar]]:
    """Yield every combination of a tree without continuous ranges.

    It counts as an odometer does, except that the later wheels depend on what the earlier ones show.
    """
    shown: dict[str, int] = {}
    while True:
        wheels: list[tuple[str, int]] = []

        def choose(dimension: Dimension, wheels: list[tuple[str, int]] = wheels) -> Any:
            node = dimension.node
            values = node.grid() if isinstance(node, Range) else node.labels
            wheels.append((dimension.name, len(values)))
            return values[shown.get(dimension.name, 0)]  # noqa: B023 - called before `shown` changes

        yield walk_tree(tree, choose).params
        while wheels and shown.get(wheels[-1][0], 0) == wheels[-1][1] - 1:
            wheels.pop()
        if not wheels:
            return
        turned = wheels[-1][0]
        shown = {name: shown.get(name, 0) for name, _ in wheels}
        shown[turned] += 1
