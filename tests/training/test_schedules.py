"""Learning-rate schedules, compared with values computed by hand, and their range 0..peak."""

import math
from typing import Any

import pytest
from pydantic import TypeAdapter

from platform.training.config import Schedule
from platform.training.inputs.budget import Budget
from platform.training.schedules import LearningRate

SCHEDULE: TypeAdapter[Any] = TypeAdapter(Schedule)


def rates(peak: float = 1.0, *, epochs: int = 5, steps_per_epoch: int = 2, **schedule: Any) -> list[float]:
    lr = learning_rate(peak, epochs=epochs, steps_per_epoch=steps_per_epoch, **schedule)
    return [lr.at(step) for step in range(epochs * steps_per_epoch)]


def learning_rate(peak: float, *, epochs: int, steps_per_epoch: int, **schedule: Any) -> LearningRate:
    budget = Budget(
        images=4 * steps_per_epoch,
        batch_size=4,
        steps_per_epoch=steps_per_epoch,
        total_steps=epochs * steps_per_epoch,
    )
    return LearningRate(SCHEDULE.validate_python(schedule), peak=peak, budget=budget)


def cosine(x: float) -> float:
    return (1 + math.cos(math.pi * x)) / 2


TABLE = [
    # Ten steps, two per epoch, peak 1.
    ({"name": "constant"}, [1.0] * 10),
    ({"name": "constant", "warmup_epochs": 2}, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]),
    ({"name": "step", "milestones": [0.5, 0.8]}, [1] * 5 + [0.1] * 3 + [0.01] * 2),
    ({"name": "step", "milestones": [2, 4], "factor": 0.5}, [1] * 4 + [0.5] * 4 + [0.25] * 2),
    ({"name": "step", "milestones": [3, 6], "unit": "iterations"}, [1] * 3 + [0.1] * 3 + [0.01] * 4),
    (
        {"name": "step", "milestones": [0.5], "warmup_epochs": 1},
        [0.5, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.1],
    ),
    ({"name": "linear"}, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
    (
        {"name": "linear", "final_fraction": 0.5},
        [1, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55],
    ),
    ({"name": "linear", "warmup_epochs": 1}, [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
    ({"name": "cosine"}, [cosine(step / 10) for step in range(10)]),
    ({"name": "cosine", "final_fraction": 0.1}, [0.1 + 0.9 * cosine(step / 10) for step in range(10)]),
    ({"name": "cosine", "warmup_epochs": 1}, [0.5, 1] + [cosine(step / 8) for step in range(8)]),
    (
        {"name": "triangular"},  # 0.2 to 1 over the first two steps, then to 0 over eight
        [0.2, 0.6, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125],
    ),
    (
        {"name": "one_cycle", "peak_at": 0.5, "start_divisor": 10, "final_divisor": 10},
        [0.1 + 0.9 * (1 - cosine(x / 5)) for x in range(5)] + [0.01 + 0.99 * cosine(x / 5) for x in range(5)],
    ),
    ({"name": "plateau"}, [1.0] * 10),
    ({"name": "plateau", "warmup_epochs": 1}, [0.5] + [1.0] * 9),
]


@pytest.mark.parametrize(("schedule", "expected"), TABLE, ids=lambda value: str(value)[:60])
def test_rates_equal_the_hand_computed_ones(schedule: dict[str, Any], expected: list[float]) -> None:
    assert rates(**schedule) == pytest.approx(expected)


def test_cosine_equals_numeric_values() -> None:
    assert rates(epochs=2, name="cosine") == pytest.approx([1, 0.8535534, 0.5, 0.1464466])


def test_rates_scale_with_the_peak() -> None:
    assert rates(0.3, name="triangular") == pytest.approx([0.3 * rate for rate in rates(name="triangular")])


def test_warm_up_longer_than_the_run_only_rises() -> None:
    assert rates(epochs=2, name="cosine", warmup_epochs=9) == pytest.approx([0.25, 0.5, 0.75, 1])


def test_he_2016_drops_at_32k_and_48k_iterations() -> None:
    lr = learning_rate(
        0.1, epochs=182, steps_per_epoch=352, name="step", milestones=[32000, 48000], unit="iterations"
    )
    assert [lr.at(step) for step in (0, 31999, 32000, 47999, 48000)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001]
    )


def test_plateau_lowers_after_exactly_patience_epochs_without_progress() -> None:
    lr = learning_rate(1.0, epochs=20, steps_per_epoch=1, name="plateau", factor=0.5, patience_epochs=2)
    seen = []
    for loss in (5.0, 4.0, 4.0, 4.0, 4.0, 3.0, 3.0, 3.0):
        lr.epoch_ended(loss)
        seen.append(lr.at(0))
    assert seen == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_plateau_does_not_count_a_fall_below_the_threshold_as_progress() -> None:
    lr = learning_rate(1.0, epochs=9, steps_per_epoch=1, name="plateau", patience_epochs=2, threshold=0.1)
    for loss in (1.0, 0.95, 0.91):
        lr.epoch_ended(loss)
    assert lr.at(0) == pytest.approx(0.1)


def test_plateau_stops_at_the_floor() -> None:
    lr = learning_rate(1.0, epochs=9, steps_per_epoch=1, name="plateau", patience_epochs=1, min_lr=0.05)
    for _ in range(9):
        lr.epoch_ended(1.0)
    assert lr.at(0) == pytest.approx(0.05)


def test_plateau_resumes_from_its_saved_state() -> None:
    arguments: dict[str, Any] = {"epochs": 9, "steps_per_epoch": 1, "name": "plateau", "patience_epochs": 3}
    before = learning_rate(1.0, **arguments)
    for loss in (1.0, 2.0, 2.0):
        before.epoch_ended(loss)
    after = learning_rate(1.0, **arguments)
    after.load_state_dict(before.state_dict())
    after.epoch_ended(2.0)
    assert after.at(0) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "triangular", "one_cycle", "plateau"])
def test_every_rate_is_above_zero_and_at_most_the_peak(name: str) -> None:
    assert all(0 < rate <= 1 for rate in rates(epochs=30, steps_per_epoch=7, name=name))
