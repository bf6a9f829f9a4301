"""Points of a space: resolved, suggested by Optuna, and enumerated as a grid."""

import warnings
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from platform.common.errors import UsageError
from platform.space.distributions import Alternatives, Choice, Dimension, walk_tree
from platform.space.point_parser import read_point
from platform.space.spec import SweepSpec
from platform.tuning.sampling.sampler import (
    grid_points,
    initial_points,
    make_sampler,
    planned_trials,
    suggest,
)
from tests.space.examples import EVERY_KIND, PLAIN, spec

FULL = spec(EVERY_KIND)

# No deadline, because the machine may be busy.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50)

COUNTABLE: dict[str, Any] = {
    **PLAIN,
    "search": {
        "batch_size": {"choice": [64, 128]},
        "optimizer": [
            {"name": "sgd", "lr": {"quantized": [0.1, 0.3, 0.1]}},
            {"name": "adam", "lr": 0.001, "beta1": {"choice": [0.8, 0.9]}},
        ],
    },
    "sampler": {"name": "grid"},
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def study_of(space: SweepSpec) -> optuna.Study:
    return optuna.create_study(sampler=make_sampler(space, 0))


@st.composite
def drawn_points(draw: st.DrawFn) -> dict[str, Any]:
    """Any point of the full example, ends of ranges included."""

    def choose(dimension: Dimension) -> Any:
        node = dimension.node
        if isinstance(node, Alternatives | Choice):
            return draw(st.sampled_from(node.labels))
        if node.step is not None:
            return draw(st.sampled_from([node.at(index) for index in range(node.steps())]))
        if node.integral:
            return draw(st.integers(int(node.low), int(node.high)))
        return draw(st.floats(node.low, node.high))

    return walk_tree(FULL.search, choose).params


@patient
@given(drawn_points())
def test_every_point_gives_a_valid_run_from_which_it_can_be_read_back(params: dict[str, Any]) -> None:
    run = FULL.resolve(params)
    assert read_point(params, FULL.search, FULL.base) == params
    assert read_point(run.model_dump(), FULL.search, FULL.base) == params
    assert read_point(run.model_dump(mode="json"), FULL.search, FULL.base) == params


@patient
@given(drawn_points())
def test_settings_outside_the_point_have_the_values_of_the_base(params: dict[str, Any]) -> None:
    run, base = FULL.resolve(params, seed=11).model_dump(), FULL.base.model_dump()
    untouched = set(base) - {"batch_size", "optimizer", "schedule", "augment", "clip_grad_norm", "seed"}
    assert {key: run[key] for key in untouched} == {key: base[key] for key in untouched}
    assert run["seed"] == 11


def test_a_sampler_seed_replaces_the_sweep_seed() -> None:
    def first_point(**sampler: Any) -> dict[str, Any]:
        space = spec(EVERY_KIND, sampler={"name": "random", **sampler}, seed=3)
        return suggest(study_of(space).ask(), space)

    assert first_point(seed=4) != first_point()
    assert first_point(seed=3) == first_point()


@patient
@given(drawn_points())
def test_an_enqueued_point_is_drawn_unchanged(params: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        study.enqueue_trial(params)
        assert suggest(study.ask(), FULL) == params


def test_a_grid_contains_every_combination_once_in_order() -> None:
    points = list(grid_points(spec(COUNTABLE)))
    assert [tuple(point.values()) for point in points] == [
        (size, *rest)
        for size in (64, 128)
        for rest in [("sgd", 0.1), ("sgd", 0.2), ("sgd", 0.3), ("adam", 0.8), ("adam", 0.9)]
    ]
    assert points[0] == {"batch_size": 64, "optimizer": "sgd", "optimizer.sgd.lr": 0.1}


def test_a_grid_of_nested_alternatives_contains_each_branch() -> None:
    search = {
        "augment": [
            {"cutout": [{"length": {"choice": [4, 8]}}, {"length": 2, "holes": {"choice": [1, 2, 3]}}]},
            {"mixup": 0.2},
        ],
        "batch_size": {"choice": [64, 128]},
    }
    assert len(list(grid_points(spec(search=search)))) == (2 + 3 + 1) * 2


def test_a_grid_over_ranges_is_refused_with_their_names() -> None:
    with pytest.raises(UsageError, match=r"needs choice or quantized .*: optimizer\.sgd\.lr, .*adam\.lr"):
        grid_points(spec(EVERY_KIND))


def test_a_grid_limits_the_planned_trials() -> None:
    assert planned_trials(spec(COUNTABLE)) == 10
    assert planned_trials(spec(COUNTABLE, trials=4)) == len(initial_points(spec(COUNTABLE, trials=4))) == 4
    assert planned_trials(spec(PLAIN)) == 40


def test_a_grid_beyond_the_trials_is_not_expanded() -> None:
    """2 x 8 ** 7 points; expanding them would exceed the time limit of a test."""
    values = [(index + 1) / 10 for index in range(8)]
    settings = ("lr", "momentum", "weight_decay")
    search: dict[str, Any] = {f"optimizer.{name}": {"choice": values} for name in settings}
    search |= {f"augment.{name}": {"choice": values} for name in ("mixup", "cutmix")}
    search |= {"label_smoothing": {"choice": values}, "ema_decay": {"quantized": [0, 0.9, 1e-9]}}
    large = spec(search=search, sampler={"name": "grid"}, trials=20)
    assert planned_trials(large) == len(initial_points(large)) == 20


def test_starting_points_come_first_without_duplicates() -> None:
    points = [{"batch_size": 128, "optimizer": "adam", "optimizer.adam.beta1": 0.9}] * 2
    first = initial_points(spec(COUNTABLE, start_from=points))
    assert first[0] == points[0]
    assert len(first) == 10
    assert initial_points(spec(start_from=[{"batch_size": 256}])) == [
        {"batch_size": 256, "optimizer.lr": 0.1}
    ]
