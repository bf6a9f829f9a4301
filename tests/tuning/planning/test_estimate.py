"""Time estimates compared with values calculated by hand."""

from __future__ import annotations

import pytest

from platform.console.plan_table import plan_details
from platform.tuning.planning.estimate import (
    DDP_START_S,
    DEPLOY_S,
    INPROC_START_S,
    LATENCY_MEASUREMENT_S,
    PRECISION_PASSES,
    QUICK_DEPLOY_S,
    QUICK_TEST_S,
    RAY_START_S,
    SPLIT_EFFICIENCY,
    estimate_sweep,
    mean_speed,
)
from platform.tuning.planning.plan import make_plan
from platform.tuning.planning.records import ImageCounts, Speed
from tests.space.examples import spec

SPEED = Speed(train_images_per_s=100, evaluation_images_per_s=500)
IMAGES = ImageCounts(train=1000, validation=500, test=1000)
EPOCH_S = 11.0  # 1000 images at 100, 500 at 500


def sweep(**changes):
    return spec(**({"trials": 5, "confirm": {"candidates": 2, "seeds": 2, "workers_per_run": 2}} | changes))


def test_the_estimate_adds_up_all_stages() -> None:
    plan = make_plan(sweep(), [{"CPU": 2, "GPU": 0}])
    found = estimate_sweep(plan, SPEED, IMAGES)
    # Five trials of nine epochs, two concurrent: three rounds.
    assert found.search.wall_s == pytest.approx(3 * 9 * EPOCH_S + INPROC_START_S)
    assert found.search.core_hours == pytest.approx(5 * 9 * EPOCH_S / 3600)
    # Four sequential runs, each on both slots, with the synchronization overhead of DDP.
    assert found.confirm.wall_s == pytest.approx(4 * (9 * EPOCH_S / 2 / SPLIT_EFFICIENCY + DDP_START_S))
    assert found.confirm.core_hours == pytest.approx(4 * 9 * EPOCH_S / SPLIT_EFFICIENCY / 3600)
    # Trains on 1,500 images with two threads.
    assert found.final.wall_s == pytest.approx(9 * 15 / 2 / SPLIT_EFFICIENCY + DDP_START_S)
    assert found.final.core_hours == pytest.approx(9 * 15 / SPLIT_EFFICIENCY / 3600)
    stages = found.search.wall_s + found.confirm.wall_s + found.final.wall_s
    # One pass over the test images by PyTorch, then the passes that compare the precisions.
    deploy_s = DEPLOY_S + 1000 / 500 + PRECISION_PASSES * (500 + 1000) / 500
    assert found.wall_s == pytest.approx(stages + RAY_START_S + deploy_s)
    assert found.hand_over_s == pytest.approx(deploy_s)
    faster = estimate_sweep(plan, SPEED.model_copy(update={"processes": 2}), IMAGES)
    assert faster.hand_over_s == pytest.approx((deploy_s + DEPLOY_S) / 2), "two cores evaluate"
    quick = estimate_sweep(plan.model_copy(update={"quick": True}), SPEED, IMAGES)
    assert quick.hand_over_s == pytest.approx(QUICK_DEPLOY_S + 1000 / 500)
    slow = SPEED.model_copy(update={"evaluation_images_per_s": 50})
    partly = estimate_sweep(plan.model_copy(update={"quick": True}), slow, IMAGES)
    assert partly.hand_over_s == pytest.approx(QUICK_DEPLOY_S + QUICK_TEST_S), "only a part is evaluated"
    costly = plan.model_copy(update={"objectives": ("validation_accuracy", "latency_ms")})
    three = SPEED.model_copy(update={"networks": 3})
    assert estimate_sweep(costly, three, IMAGES).wall_s - found.wall_s == pytest.approx(
        3 * LATENCY_MEASUREMENT_S
    )
    assert (found.gpu_hours, found.saved_s, found.cost) == (0, 0, None)


def test_a_busy_machine_has_an_estimate_for_the_idle_one() -> None:
    plan = make_plan(sweep(), [{"CPU": 2, "GPU": 0}])
    busy = SPEED.model_copy(update={"busy": True, "cpu_share": 0.25})
    idle = SPEED.model_copy(update={"train_images_per_s": 400, "evaluation_images_per_s": 2000})
    assert estimate_sweep(plan, busy, IMAGES).idle_wall_s == pytest.approx(
        estimate_sweep(plan, idle, IMAGES).wall_s
    )
    assert estimate_sweep(plan, SPEED, IMAGES).idle_wall_s is None


def test_early_stopping_reduces_the_search_time() -> None:
    asha = {"name": "asha", "grace_epochs": 1, "reduction_factor": 3}
    plan = make_plan(sweep(trials=20, scheduler=asha), [{"CPU": 2, "GPU": 0}])
    found = estimate_sweep(plan, SPEED, IMAGES)
    worst_case = 10 * 9 * EPOCH_S + INPROC_START_S
    assert plan.search.expected_epochs is not None
    assert found.search.wall_s < worst_case
    assert found.search.wall_s + found.saved_s == pytest.approx(worst_case)
    assert found.search.core_hours == pytest.approx(plan.search.expected_epochs * EPOCH_S / 3600)
    assert "early stopping saves" in plan_details(plan.model_copy(update={"estimate": found}))["of which"]


def test_an_adaptive_confirmation_proceeds_in_rounds_of_complete_runs() -> None:
    confirm = {"candidates": 2, "min_seeds": 1, "max_runs": 4}
    plan = make_plan(sweep(confirm=confirm), [{"CPU": 2, "GPU": 0}])
    assert plan.confirm.expected_epochs == 2.5 * 9
    found = estimate_sweep(plan, SPEED, IMAGES).confirm
    assert found.wall_s == pytest.approx(2 * 9 * EPOCH_S + INPROC_START_S), "2.5 runs on two slots"
    assert found.core_hours == pytest.approx(2.5 * 9 * EPOCH_S / 3600)


def test_the_search_takes_at_least_one_full_trial() -> None:
    asha = {"name": "asha", "grace_epochs": 1, "reduction_factor": 3}
    plan = make_plan(sweep(trials=16, scheduler=asha), [{"CPU": 16, "GPU": 0}])
    assert estimate_sweep(plan, SPEED, IMAGES).search.wall_s == pytest.approx(9 * EPOCH_S + INPROC_START_S)


def test_gpu_hours_and_cost_follow_from_the_wall_time() -> None:
    single_worker = {"candidates": 2, "seeds": 2, "workers_per_run": 1}
    shared = sweep(resources_per_worker={"CPU": 2, "GPU": 0.5}, confirm=single_worker)
    plan = make_plan(shared, [{"CPU": 8, "GPU": 1}])
    found = estimate_sweep(plan, SPEED, IMAGES, cost_per_hour=3.6)
    assert found.search.gpu_hours == pytest.approx(0.5 * 5 * 9 * EPOCH_S / 3600)
    assert found.search.core_hours == pytest.approx(4 * found.search.gpu_hours)
    assert found.cost == pytest.approx(found.wall_s / 1000)
    details = plan_details(plan.model_copy(update={"estimate": found}))
    assert details["cost"].startswith(f"about {found.wall_s / 1000:.2f}")
    assert "GPU-hours" in details["uses"]


def test_stop_conditions_are_in_the_plan() -> None:
    plan = make_plan(sweep(stop={"wall_hours": 2, "target_accuracy": 0.93, "gpu_hours": 1}), [{"CPU": 2}])
    assert plan.stops == ("after 2 h", "after 1 GPU hours", "at 93 % validation accuracy")
    assert ", or ".join(plan.stops) in plan_details(plan).values()
    assert "stop.gpu_hours has no effect: trials use no GPU" in plan.notes


def test_the_mean_speed_averages_seconds_per_image() -> None:
    slow = SPEED.model_copy(update={"train_images_per_s": 10, "evaluation_images_per_s": 50, "busy": True})
    found = mean_speed([SPEED, slow])
    # 0.01 s and 0.1 s per image.
    assert found.train_images_per_s == pytest.approx(2 / 0.11)
    assert found.evaluation_images_per_s == pytest.approx(2 / 0.022)
    assert (found.networks, found.busy) == (2, True)
    assert mean_speed([SPEED]) == SPEED
    plan = make_plan(sweep(), [{"CPU": 2, "GPU": 0}])
    measured = plan_details(plan.model_copy(update={"estimate": estimate_sweep(plan, found, IMAGES)}))[
        "measured"
    ]
    assert measured == "18 training images/s per process, mean of 2 networks"
