"""The division of images into batches and epochs."""

from collections.abc import Callable

import pytest

from platform.common.errors import UserError
from platform.training.config import RunConfig
from platform.training.inputs.budget import Budget, budget_of

ConfigOf = Callable[..., RunConfig]


def batches_of(budget: Budget) -> list[tuple[int, int]]:
    rows = [budget.batch(step) for step in range(budget.steps_per_epoch)]
    return [(row.start, row.stop) for row in rows]


def test_the_remainder_forms_a_smaller_last_batch(config_of: ConfigOf) -> None:
    budget = budget_of(config_of(batch_size=32), images=72)
    assert batches_of(budget) == [(0, 32), (32, 64), (64, 72)]


def test_a_remainder_below_a_quarter_batch_is_dropped(config_of: ConfigOf) -> None:
    budget = budget_of(config_of(batch_size=32), images=71)
    assert batches_of(budget) == [(0, 32), (32, 64)]
    assert budget.images_in(0) == 64


def test_fewer_images_than_the_batch_size_form_one_batch(config_of: ConfigOf) -> None:
    budget = budget_of(config_of(batch_size=512), images=10)
    assert batches_of(budget) == [(0, 10)]


def test_cifar_with_45000_images_takes_352_steps_an_epoch_like_he_2016(config_of: ConfigOf) -> None:
    budget = budget_of(config_of(batch_size=128, iterations=64_000), images=45_000)
    assert (budget.steps_per_epoch, budget.total_steps, budget.epochs) == (352, 64_000, 182)
    assert (budget.steps_in(0), budget.steps_in(181)) == (352, 64_000 - 181 * 352)


def test_an_indivisible_batch_size_is_rejected_with_a_divisible_one(config_of: ConfigOf) -> None:
    with pytest.raises(UserError, match=r"batch_size .* divisible .* got 32 for 3 workers; 33 would work"):
        budget_of(config_of(batch_size=32), images=72, workers=3)


def test_the_budget_does_not_depend_on_the_number_of_workers(config_of: ConfigOf) -> None:
    assert budget_of(config_of(), images=72, workers=4) == budget_of(config_of(), images=72)
