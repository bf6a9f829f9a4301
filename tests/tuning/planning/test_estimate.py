"""Time and hours from a plan and a speed, worked out by hand."""

from __future__ import annotations

import pytest

from platform.console.estimate_text import plan_details
from platform.tuning.planning.estimate import (
    COUNTED,
    DDP_SHARE,
    DDP_START_S,
    HAND_OVER_S,
    INPROC_START_S,
    NETWORK_S,
    RAY_START_S,
    Sizes,
    Speed,
    estimate,
    mean_speed,
)
from platform.tuning.planning.plan import make_plan
from tests.space.examples import spec

SPEED = Speed(train_images_per_s=100, evaluation_images_per_s=500)
SIZES = Sizes(train=1000, validation=500, test=1000)
EPOCH_S = 11.0  # 1000 images at 100, 500 at 500


def planned(**changes):
    return spec(**({"trials": 5, "confirm": {"candidates": 2, "seeds": 2, "workers_per_run": 2}} | changes))


def test_every_stage_is_counted() -> None:
    plan = make_plan(planned(), {"CPU": 2, "GPU": 0})
    found = estimate(plan, SPEED, SIZES)
    # Five trials of nine epochs, two at a time: three rounds.
    assert found.search.wall_s == pytest.approx(3 * 9 * EPOCH_S + INPROC_START_S)
    assert found.search.core_hours == pytest.approx(5 * 9 * EPOCH_S / 3600)
    # Four runs one after another, each on both slots, whose workers wait for each other.
    assert found.confirm.wall_s == pytest.approx(4 * (9 * EPOCH_S / 2 / DDP_SHARE + DDP_START_S))
    assert found.confirm.core_hours == pytest.approx(4 * 9 * EPOCH_S / DDP_SHARE / 3600)
    # 1,500 images on two workers.
    assert found.final.wall_s == pytest.approx(9 * 15 / 2 / DDP_SHARE + DDP_START_S)
    stages = found.search.wall_s + found.confirm.wall_s + found.final.wall_s
    # The test images once by PyTorch; then they and the validation images, to judge the precisions.
    hand_over = HAND_OVER_S + 1000 / 500 + COUNTED * (500 + 1000) / 500
    assert found.wall_s == pytest.approx(stages + RAY_START_S + hand_over)
    faster = estimate(plan, SPEED.model_copy(update={"processes": 2}), SIZES)
    assert found.wall_s - faster.wall_s == pytest.approx(COUNTED * 1500 / 500 / 2), "two cores count"
    quick = estimate(plan.model_copy(update={"quick": True}), SPEED, SIZES)
    assert found.wall_s - quick.wall_s == pytest.approx(COUNTED * 1500 / 500)
    costly = plan.model_copy(update={"objectives": ("validation_accuracy", "latency_ms")})
    three = SPEED.model_copy(update={"networks": 3})
    assert estimate(costly, three, SIZES).wall_s - found.wall_s == pytest.approx(3 * NETWORK_S)
    assert (found.gpu_hours, found.saved_s, found.cost) == (0, 0, None)


def test_early_stopping_saves() -> None:
    asha = {"name": "asha", "grace_epochs": 1, "reduction_factor": 3}
    plan = make_plan(planned(trials=20, scheduler=asha), {"CPU": 2, "GPU": 0})
    found = estimate(plan, SPEED, SIZES)
    whole = 10 * 9 * EPOCH_S + INPROC_START_S
    assert plan.search.expected_epochs is not None
    assert found.search.wall_s < whole
    assert found.search.wall_s + found.saved_s == pytest.approx(whole)
    assert found.search.core_hours == pytest.approx(plan.search.expected_epochs * EPOCH_S / 3600)
    assert "early stopping saves" in plan_details(plan.model_copy(update={"estimate": found}))["of which"]


def test_one_trial_that_goes_all_the_way_is_the_least() -> None:
    asha = {"name": "asha", "grace_epochs": 1, "reduction_factor": 3}
    plan = make_plan(planned(trials=16, scheduler=asha), {"CPU": 16, "GPU": 0})
    assert estimate(plan, SPEED, SIZES).search.wall_s == pytest.approx(9 * EPOCH_S + INPROC_START_S)


def test_hours_on_gpus_and_money() -> None:
    alone = {"candidates": 2, "seeds": 2, "workers_per_run": 1}
    shared = planned(resources_per_worker={"CPU": 2, "GPU": 0.5}, confirm=alone)
    plan = make_plan(shared, {"CPU": 8, "GPU": 1})
    found = estimate(plan, SPEED, SIZES, cost_per_hour=3.6)
    assert found.search.gpu_hours == pytest.approx(0.5 * 5 * 9 * EPOCH_S / 3600)
    assert found.search.core_hours == pytest.approx(4 * found.search.gpu_hours)
    assert found.cost == pytest.approx(found.wall_s / 1000)
    details = plan_details(plan.model_copy(update={"estimate": found}))
    assert details["cost"].startswith(f"about {found.wall_s / 1000:.2f}")
    assert "GPU-hours" in details["uses"]


def test_stops_are_told() -> None:
    plan = make_plan(planned(stop={"wall_hours": 2, "target_accuracy": 0.93, "gpu_hours": 1}), {"CPU": 2})
    assert (
        plan_details(plan)["the search ends early"]
        == "after 2 h, or after 1 GPU hours, or at 93 % on validation"
    )
    assert "stop.gpu_hours has no effect: trials use no GPU" in plan.notes


def test_a_slow_network_takes_most_of_the_time() -> None:
    slow = SPEED.model_copy(update={"train_images_per_s": 10, "evaluation_images_per_s": 50, "busy": True})
    found = mean_speed([SPEED, slow])
    # 0.01 s and 0.1 s an image.
    assert found.train_images_per_s == pytest.approx(2 / 0.11)
    assert found.evaluation_images_per_s == pytest.approx(2 / 0.022)
    assert (found.networks, found.busy) == (2, True)
    assert mean_speed([SPEED]) == SPEED
    plan = make_plan(planned(), {"CPU": 2, "GPU": 0})
    told = plan_details(plan.model_copy(update={"estimate": estimate(plan, found, SIZES)}))["measured"]
    assert told == "18 training images/s in one process, the mean over 2 networks"
