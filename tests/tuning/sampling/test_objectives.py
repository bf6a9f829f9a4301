"""Several objectives: validation of the space file, costs of networks, Pareto front."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform.common.errors import UsageError, UserError
from platform.models.config import ModelConfig
from platform.models.costs import count_multiply_accumulates, count_parameters
from platform.tracking.events import TrialStatus
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.sampling.objectives import measure_architectures, networks, read_architectures
from platform.tuning.selection.champion import pareto_front, top_candidates
from tests.space.examples import spec
from tests.tuning.journal.examples import INFO, a_trial

MODELS: dict[str, Any] = {
    "model.name": {"choice": ["resnet20_cifar", "resnet32_cifar"]},
    "optimizer.lr": {"log_uniform": [0.01, 0.5]},
}
BOTH = ["validation_accuracy", "parameters"]


@pytest.mark.parametrize(
    ("objectives", "search", "message"),
    [
        (["parameters"], MODELS, "objectives: must contain validation_accuracy"),
        ([*BOTH, "parameters"], MODELS, "objectives: must not contain duplicates"),
        (["validation_accuracy", "speed"], MODELS, "objectives.1: 'speed' is not one of .*latency_ms"),
        (BOTH, {"optimizer.lr": {"log_uniform": [0.01, 0.5]}}, "does not vary the model"),
        (BOTH, {"model.zero_init_residual": {"choice": [True, False]}}, "does not vary the model"),
    ],
)
def test_invalid_or_constant_objectives_are_refused(objectives: Any, search: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        spec(search=search, objectives=objectives)


# Published counts: He et al. 2016, table 6 (0.27 M); kuangliu's ResNet-18, 11.17 M and 0.56 G.
@pytest.mark.parametrize(
    ("name", "parameters", "multiply_accumulates"),
    [("resnet20_cifar", 269_722, 40_551_040), ("resnet18_cifar", 11_173_962, 555_422_720)],
)
def test_costs_equal_published_counts(name: Any, parameters: int, multiply_accumulates: int) -> None:
    model = ModelConfig(name=name)
    assert count_parameters(model, num_classes=10) == parameters
    assert count_multiply_accumulates(model, num_classes=10, input_shape=(3, 32, 32)) == multiply_accumulates


def test_multiply_accumulates_grow_with_the_image_size() -> None:
    model = ModelConfig(name="resnet20_cifar")
    small, large = (
        count_multiply_accumulates(model, num_classes=10, input_shape=(3, side, side)) for side in (32, 64)
    )
    classifier = 64 * 10
    assert large - classifier == 4 * (small - classifier)


def test_networks_lists_each_distinct_network_once() -> None:
    space = spec(
        search={
            "model": [
                {"name": "resnet20_cifar", "shortcut": {"choice": ["A", "B"]}},
                {"name": "resnet32_cifar", "zero_init_residual": {"choice": [True, False]}},
            ],
            "optimizer.lr": {"log_uniform": [0.01, 0.5]},
        },
        objectives=BOTH,
    )
    assert networks(space) == [
        ModelConfig(name="resnet20_cifar", shortcut="A"),
        ModelConfig(name="resnet20_cifar", shortcut="B"),
        ModelConfig(name="resnet32_cifar"),
    ]


def test_each_network_is_measured_once_and_the_results_are_stored(tmp_path: Path) -> None:
    space = spec(search=MODELS, objectives=["validation_accuracy", "latency_ms", "parameters"])
    folder, timed = SweepFolder(tmp_path), []

    def latency_ms(model: ModelConfig) -> float:
        timed.append(model.name)
        return 0.5 * len(timed)

    for _ in range(2):
        measure_architectures(space, folder, INFO, latency_ms=latency_ms)
    assert timed == ["resnet20_cifar", "resnet32_cifar"]
    known = read_architectures(folder)
    assert known.costs(space.resolve({"model.name": "resnet32_cifar", "optimizer.lr": 0.1})) == {
        "latency_ms": 1.0,
        "parameters": 464_154,
    }
    with pytest.raises(UserError, match=r"costs of resnet18_cifar are not in architectures\.json"):
        known.costs(space.base.changed(model={"name": "resnet18_cifar"}))


def test_nothing_is_measured_if_accuracy_is_the_only_objective(tmp_path: Path) -> None:
    measure_architectures(spec(search=MODELS), SweepFolder(tmp_path), INFO, latency_ms=lambda _: 1 / 0)
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_the_front_contains_exactly_the_undominated_points(values: list[tuple[int, int, int]]) -> None:
    trials = [
        a_trial(number, accuracy / 4, costs={"parameters": size, "latency_ms": latency})
        for number, (accuracy, size, latency) in enumerate(values)
    ]
    front = pareto_front(trials, ("validation_accuracy", "parameters", "latency_ms"))

    def better(left: tuple[int, int, int], right: tuple[int, int, int]) -> bool:
        gains = [sign * (one - other) for sign, one, other in zip((1, -1, -1), left, right, strict=True)]
        return min(gains) >= 0 and max(gains) > 0

    assert front, "at least one point is undominated"
    for trial, point in zip(trials, values, strict=True):
        assert (trial not in front) == any(better(other, point) for other in values)


def test_candidates_are_the_most_accurate_trials_of_the_front() -> None:
    trials = [
        a_trial(0, 0.90, costs={"parameters": 300}),
        a_trial(1, 0.80, costs={"parameters": 100}),
        a_trial(2, 0.89, costs={"parameters": 300}),
        a_trial(3, 0.85, costs={"parameters": 200}),
        a_trial(4, 0.99, costs={"parameters": 1}, status=TrialStatus.PRUNED, epoch=3),
    ]
    assert [trial.task.number for trial in pareto_front(trials, BOTH)] == [0, 3, 1]
    assert [trial.task.number for trial in top_candidates(trials, 2, BOTH)] == [0, 3]
    assert [trial.task.number for trial in top_candidates(trials, 2)] == [0, 2]


def test_without_a_finished_trial_the_longest_trained_ones_are_candidates() -> None:
    stopped = [
        a_trial(number, 0.5, costs={"parameters": 1}, status=TrialStatus.PRUNED, epoch=number)
        for number in (1, 2)
    ]
    assert pareto_front(stopped, BOTH) == []
    assert [trial.task.number for trial in top_candidates(stopped, 1, BOTH)] == [2]
