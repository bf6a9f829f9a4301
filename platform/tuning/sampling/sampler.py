"""Draw points of a space with Optuna, or enumerate them.

Each dimension has a flat name (`optimizer`, `optimizer.sgd.lr`) and is suggested only if it exists for the
values chosen before. Optuna's history therefore never mixes the learning rates of different optimizers.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from platform.common.errors import UsageError
from platform.space.distributions import (
    Alternatives,
    Choice,
    ChosenSettings,
    Dimension,
    Range,
    Scalar,
    SearchTree,
    walk_tree,
)
from platform.space.settings import Grid, Nsga2, Qmc, Tpe
from platform.space.spec import SweepSpec, trial_seed

if TYPE_CHECKING:
    import optuna


def suggest(trial: optuna.Trial, spec: SweepSpec) -> dict[str, Scalar]:
    """Suggest every dimension that exists for the values chosen before; return flat parameters."""

    def suggest_value(dimension: Dimension) -> Any:
        name, node = dimension.name, dimension.node
        if isinstance(node, Alternatives | Choice):
            return trial.suggest_categorical(name, node.labels)
        if node.integral:
            step = 1 if node.step is None else int(node.step)
            return trial.suggest_int(name, int(node.low), int(node.high), step=step, log=node.log)
        drawn = trial.suggest_float(name, node.low, node.high, step=node.step, log=node.log)
        # Optuna adds steps with rounding errors; return the space's own value (0.3, not 0.30000000000000004).
        return node.parameter(drawn)

    return walk_tree(spec.search, suggest_value).params


def make_sampler(spec: SweepSpec, number: int) -> optuna.samplers.BaseSampler:
    """Return the Optuna sampler that draws trial `number`, seeded from the spec and that number alone.

    A sampler shared by all trials would be in another state after a resume, because replayed trials draw
    nothing.
    """
    import optuna

    settings = spec.sampler
    own = None if isinstance(settings, Grid) else settings.seed
    seeded = spec if own is None else spec.model_copy(update={"seed": own})
    seed = trial_seed(seeded, number, stage="sampler")
    if isinstance(settings, Tpe):
        return optuna.samplers.TPESampler(n_startup_trials=settings.startup_trials, seed=seed)
    if isinstance(settings, Nsga2):
        return optuna.samplers.NSGAIISampler(population_size=settings.population_size, seed=seed)
    random = optuna.samplers.RandomSampler(seed=seed)
    if not isinstance(settings, Qmc):
        return random
    with warnings.catch_warnings():
        # QMCSampler is experimental since Optuna 3; pyproject.toml bounds the version.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.QMCSampler(
            scramble=True,
            seed=seeded.seed,  # of the whole sequence
            warn_independent_sampling=False,
            independent_sampler=random,  # draws until a trial has finished
        )


def initial_points(spec: SweepSpec) -> list[dict[str, Scalar]]:
    """Return the distinct points to try first, at most `trials`: `start_from`, then those of a grid."""
    grid = grid_points(spec) if isinstance(spec.sampler, Grid) else ()
    distinct: dict[tuple[tuple[str, Scalar], ...], dict[str, Scalar]] = {}
    for point in itertools.chain(map(dict, spec.start_from), grid):
        if len(distinct) == spec.trials:
            break
        distinct.setdefault(tuple(point.items()), point)
    return list(distinct.values())


def planned_trials(spec: SweepSpec) -> int:
    """Return the number of trials of the search; a grid may have fewer points than `trials`."""
    return len(initial_points(spec)) if isinstance(spec.sampler, Grid) else spec.trials


def grid_points(spec: SweepSpec) -> Iterator[dict[str, Scalar]]:
    """Return an iterator over every combination of choices and quantized ranges, in file order.

    Raises:
        UsageError: the space has ranges without a step; the message names them.
    """
    unquantized = [
        dimension.name
        for dimension in spec.dimensions
        if isinstance(dimension.node, Range) and dimension.node.step is None
    ]
    if unquantized:
        raise UsageError(
            f"{spec.name}: sampler 'grid' needs choice or quantized for every setting; "
            f"these are ranges: {', '.join(unquantized)}"
        )
    return (chosen.params for chosen in combinations(spec.search))


def combinations(tree: SearchTree) -> Iterator[ChosenSettings]:
    """Yield every combination of a tree without continuous ranges.

    Works like an odometer whose later digits depend on the values of the earlier ones.
    """
    positions: dict[str, int] = {}
    while True:
        digits: list[tuple[str, int]] = []

        def choose(dimension: Dimension, digits: list[tuple[str, int]] = digits) -> Any:
            node = dimension.node
            count = node.steps() if isinstance(node, Range) else len(node.labels)
            digits.append((dimension.name, count))
            position = positions.get(dimension.name, 0)  # noqa: B023 - called before `positions` changes
            return node.at(position) if isinstance(node, Range) else node.labels[position]

        yield walk_tree(tree, choose)
        while digits and positions.get(digits[-1][0], 0) == digits[-1][1] - 1:
            digits.pop()
        if not digits:
            return
        positions = {name: positions.get(name, 0) for name, _ in digits}
        positions[digits[-1][0]] += 1
