"""The contract of every sampler, checked on flat spaces, conditional spaces and several objectives."""

from __future__ import annotations

from typing import Any

import pytest

from platform.models.config import ModelConfig
from platform.space.point_parser import read_point
from platform.space.spec import SweepSpec
from platform.tracking.events import TrialStatus
from platform.tuning.sampling.objectives import Architecture, Architectures
from platform.tuning.sampling.sampler import initial_points
from platform.tuning.sampling.study import Study
from tests.space.examples import EVERY_KIND, PLAIN, spec
from tests.tuning.journal.examples import a_record

TRIALS = 12

FLAT: dict[str, Any] = {
    "batch_size": {"choice": [64, 128, 256]},
    "optimizer.lr": {"log_uniform": [0.01, 0.5]},
    "label_smoothing": {"uniform": [0.0, 0.2]},
    "augment.crop_padding": {"int": [0, 4]},
    "augment.cutout.length": {"quantized": [0, 16, 4]},
    "schedule": [{"name": "cosine"}, {"name": "constant"}],
}
QUANTIZED: dict[str, Any] = {
    "batch_size": {"choice": [64, 128]},
    "optimizer": [
        {"name": "sgd", "lr": {"quantized": [0.1, 0.3, 0.1]}},
        {"name": "adam", "lr": 0.001, "beta1": {"choice": [0.8, 0.9]}},
        {"name": "adamw", "lr": {"quantized": [0.1, 0.4, 0.1]}},
    ],
}
NETWORKS: dict[str, Any] = {"model.name": {"choice": ["resnet20_cifar", "resnet32_cifar"]}, **FLAT}
SIZES = Architectures(
    architectures=tuple(
        Architecture(model=ModelConfig(name=name), costs={"parameters": size})
        for name, size in (("resnet20_cifar", 270_000), ("resnet32_cifar", 464_000))
    )
)
ACCURACY_AND_SIZE = ["validation_accuracy", "parameters"]


def space(sampler: dict[str, Any], search: dict[str, Any] = FLAT, **changes: Any) -> SweepSpec:
    return spec(PLAIN, search=search, sampler=sampler, trials=40, **changes)


TPE = {"name": "tpe", "startup_trials": 3}
NSGA2 = {"name": "nsga2", "population_size": 2}
SPACES: dict[str, SweepSpec] = {
    "tpe": space(TPE),
    "random": space({"name": "random"}),
    "qmc": space({"name": "qmc"}),
    "nsga2": space(NSGA2),
    "grid": space({"name": "grid"}, QUANTIZED),
    "tpe, conditional": space(TPE, EVERY_KIND["search"]),
    "random, conditional": space({"name": "random"}, EVERY_KIND["search"]),
    "nsga2, conditional": space(NSGA2, EVERY_KIND["search"]),
    "tpe, own seed": space({**TPE, "seed": 5}),
    "tpe, two objectives": space(TPE, NETWORKS, objectives=ACCURACY_AND_SIZE),
    "random, two objectives": space({"name": "random"}, NETWORKS, objectives=ACCURACY_AND_SIZE),
    "qmc, two objectives": space({"name": "qmc"}, NETWORKS, objectives=ACCURACY_AND_SIZE),
    "nsga2, two objectives": space(NSGA2, NETWORKS, objectives=ACCURACY_AND_SIZE),
}
every_space = pytest.mark.parametrize("drawn", SPACES.values(), ids=SPACES)


def study_of(drawn: SweepSpec) -> Study:
    return Study(drawn, architectures=SIZES)


def run_trial(study: Study, number: int) -> dict[str, Any]:
    """Draw a trial and end it with the next of the statuses finished, pruned and failed."""
    params = study.ask(f"t{number:03d}")
    end_trial(study, number)
    return params


def end_trial(study: Study, number: int) -> None:
    trial_id, accuracy = f"t{number:03d}", 0.5 + 0.04 * (number % 7)
    study.epoch(trial_id, a_record(1, accuracy))
    status = [TrialStatus.FINISHED, TrialStatus.PRUNED, TrialStatus.FAILED][number % 3]
    study.ended(trial_id, status, accuracy)


def draws(drawn: SweepSpec, trials: int = TRIALS) -> list[dict[str, Any]]:
    study = study_of(drawn)
    return [run_trial(study, number) for number in range(trials)]


@every_space
def test_the_same_seed_draws_the_same_points(drawn: SweepSpec) -> None:
    points = draws(drawn)
    assert points == draws(drawn)
    assert len({str(point) for point in points}) > TRIALS // 2


@every_space
def test_another_seed_draws_other_points(drawn: SweepSpec) -> None:
    other = drawn.model_copy(update={"seed": drawn.seed + 1})
    sampler = drawn.sampler
    depends_on_sweep_seed = sampler.name != "grid" and sampler.seed is None
    assert (draws(drawn) != draws(other)) is depends_on_sweep_seed


@pytest.mark.parametrize("known", [1, 4, 9])
@every_space
def test_a_resumed_study_draws_what_an_uninterrupted_one_draws(drawn: SweepSpec, known: int) -> None:
    uninterrupted, resumed = draws(drawn), study_of(drawn)
    for number, params in enumerate(uninterrupted[:known]):
        resumed.replay(f"t{number:03d}", params)
        end_trial(resumed, number)
    assert [run_trial(resumed, number) for number in range(known, TRIALS)] == uninterrupted[known:]


@every_space
def test_a_study_resumes_with_running_trials(drawn: SweepSpec) -> None:
    """Two trials run at the same time; the sweep is interrupted while both run, and both end after it."""

    def second_half(study: Study) -> list[dict[str, Any]]:
        end_trial(study, 3)
        end_trial(study, 2)
        return [run_trial(study, number) for number in range(4, 8)]

    uninterrupted, resumed = study_of(drawn), study_of(drawn)
    points = [run_trial(uninterrupted, number) for number in range(2)]
    points += [uninterrupted.ask("t002"), uninterrupted.ask("t003")]
    for number, params in enumerate(points):
        resumed.replay(f"t{number:03d}", params)
        if number < 2:
            end_trial(resumed, number)
    assert second_half(resumed) == second_half(uninterrupted)


@every_space
def test_every_drawn_point_is_valid(drawn: SweepSpec) -> None:
    for params in draws(drawn):
        drawn.resolve(params)
        assert read_point(params, drawn.search, drawn.base) == params


@every_space
def test_starting_points_come_first(drawn: SweepSpec) -> None:
    point = draws(drawn)[5]
    document = {**drawn.to_dict(), "start_from": [point]}
    started = spec(document)
    assert draws(started, 1) == [point]
    if started.sampler.name == "grid":
        grid = initial_points(started)
        assert draws(started, len(grid)) == grid


@pytest.mark.parametrize("name", [name for name in SPACES if "conditional" in name])
def test_parameters_exist_only_for_the_chosen_alternative(name: str) -> None:
    points = draws(SPACES[name], 30)
    assert {point["optimizer"] for point in points} == {"sgd", "adam"}
    for point in points:
        assert ("optimizer.sgd.lr" in point) == (point["optimizer"] == "sgd")
        assert ("optimizer.adam.lr" in point) == (point["optimizer"] == "adam")
        assert ("augment.1.cutout.1.length" in point) == (point.get("augment.1.cutout") == "1")
