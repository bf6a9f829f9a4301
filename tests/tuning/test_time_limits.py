"""A sweep that runs late has fewer trials and fewer confirmation runs, but never none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from platform.tuning.planning.estimate import estimate_sweep
from platform.tuning.planning.plan import make_plan
from platform.tuning.planning.records import ImageCounts, Speed, TimeBudget
from platform.tuning.time_limits import TimeLimits
from tests.space.examples import PLAIN, spec
from tests.tracking.examples import epoch

SPEED = Speed(train_images_per_s=100, evaluation_images_per_s=500, processes=2)
IMAGES = ImageCounts(train=1000, validation=500, test=1000)


def limits(elapsed_s: float) -> TimeLimits:
    """Return the limits of a sweep of 8 trials whose time budget is its estimate."""
    budget = TimeBudget(budget_s=1, used_before_s=0, choices=(), full_digest="")
    sweep = spec(PLAIN, trials=8, confirm={"candidates": 3, "seeds": 2})
    plan = make_plan(sweep, [{"CPU": 2}], within=budget)
    estimate = estimate_sweep(plan, SPEED, IMAGES)
    return TimeLimits(plan=plan, estimate=estimate, budget_s=estimate.wall_s, elapsed_s=lambda: elapsed_s)


def records(slower: float = 1.0) -> list:
    epoch_s = limits(0).estimate.search.epoch_s
    return [epoch(1, epoch_s=0.8 * slower * epoch_s, evaluation_s=0.2 * slower * epoch_s)] * 5


def test_another_trial_is_expected_to_be_stopped_early() -> None:
    none = limits(0)
    search = none.plan.search.model_copy(update={"expected_epochs": none.plan.search.runs})
    stopping = replace(none, plan=none.plan.model_copy(update={"search": search}))
    budget_s = 0.5 * none.estimate.wall_s
    assert replace(none, budget_s=budget_s).trial_limit(4, []) is not None
    assert replace(stopping, budget_s=budget_s).trial_limit(4, []) is None


def search_s(share: float) -> float:
    return share * limits(0).estimate.search.wall_s


def test_a_sweep_on_schedule_is_not_limited() -> None:
    # The last trials start when about three quarters of the search are done.
    assert limits(search_s(0.75)).trial_limit(7, records()) is None
    assert limits(search_s(1)).confirmation_limit(5, records()) is None


def test_a_late_search_has_fewer_trials() -> None:
    reason = limits(search_s(1.9)).trial_limit(5, records())
    assert reason is not None
    assert reason.startswith(
        "the search ends after 5 trials instead of 8: with another one the sweep would take"
    )
    assert "times the planned time" not in reason


def test_slow_epochs_are_noticed_before_the_time_is_used() -> None:
    late = limits(search_s(0.5))
    assert late.trial_limit(4, records(slower=1.1)) is None
    reason = late.trial_limit(4, records(slower=2))
    assert reason is not None
    assert reason.endswith("(epochs take 2.0 times the planned time)")


@pytest.mark.parametrize("created", [0, 1])
def test_two_trials_start_in_any_case(created: int) -> None:
    assert limits(search_s(100)).trial_limit(created, records()) is None


def test_a_late_confirmation_ends_after_its_first_run_at_the_earliest() -> None:
    late = limits(search_s(100))
    assert late.confirmation_limit(0, records()) is None
    reason = late.confirmation_limit(1, records(slower=3))
    assert reason is not None
    assert reason.startswith("the confirmation ends after 1 run: with another one the sweep would take ")
    assert reason.endswith("(epochs take 3.0 times the planned time)")


def test_without_epochs_the_planned_speed_counts() -> None:
    assert limits(0).trial_limit(4, []) is None
