"""Estimate the time and resource use of a sweep from its plan and a measured speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, harmonic_mean

from platform.tuning.planning.records import Estimate, ImageCounts, Plan, Speed, StageEstimate, StagePlan

# Fitted to searches and sweeps on two idle cores (Ray 2.60; docs/results.md).
RAY_START_S = 6.0
"""Start of the Ray session."""
INPROC_START_S = 6.0
"""Start of a trial's first process."""
DDP_START_S = 14.0
"""Start of a Ray Train worker group."""
SPLIT_EFFICIENCY = 0.85
"""Throughput of a run on several cores or workers relative to the same number of single runs."""
DEPLOY_S = 50.0
"""Export, benchmark, registration and report."""
QUICK_DEPLOY_S = 38.0
"""The same with a single lower precision, not tuned, evaluated on few images."""
QUICK_TEST_S = 10.0
"""Longest evaluation on the test split in a quick sweep (`evaluation.affordable`)."""
PRECISION_PASSES = 2.0
"""Evaluation passes over the validation and test images that comparing the precisions costs."""
LATENCY_MEASUREMENT_S = 5.0
"""Export and latency measurement of one network, where latency is an objective."""


def mean_speed(speeds: Sequence[Speed]) -> Speed:
    """Return the mean speed of a space that searches over networks, each equally likely.

    Seconds per image are averaged, not images per second: one slow network dominates the total time.
    """
    return speeds[0].model_copy(
        update={
            "train_images_per_s": harmonic_mean(speed.train_images_per_s for speed in speeds),
            "evaluation_images_per_s": harmonic_mean(speed.evaluation_images_per_s for speed in speeds),
            "networks": len(speeds),
            "busy": any(speed.busy for speed in speeds),
            "cpu_share": fmean(speed.cpu_share for speed in speeds),
        }
    )


def estimate_sweep(
    plan: Plan, speed: Speed, images: ImageCounts, *, cost_per_hour: float | None = None
) -> Estimate:
    """Return the expected time and resource use of `plan`.

    All batch sizes of the space are assumed to be as fast as the base's. Networks of the space are assumed to
    be sampled, and to win, equally often.
    """
    stages, wall_s = _wall_s(plan, speed, images)
    rates = ("train_images_per_s", "evaluation_images_per_s")
    idle = speed.model_copy(update={name: getattr(speed, name) / speed.cpu_share for name in rates})
    idle_wall_s = _wall_s(plan, idle, images)[1] if speed.busy else None
    search, confirm, final = stages
    worst_case = _estimate_stage(plan.search, speed, images, epochs=plan.search.worst_case_epochs)
    return Estimate(
        speed=speed,
        search=search,
        confirm=confirm,
        final=final,
        hand_over_s=hand_over_s(plan, speed, images),
        wall_s=wall_s,
        idle_wall_s=idle_wall_s,
        core_hours=sum(stage.core_hours for stage in stages),
        gpu_hours=sum(stage.gpu_hours for stage in stages),
        saved_s=max(0.0, worst_case.wall_s - search.wall_s),
        cost=None if cost_per_hour is None else cost_per_hour * wall_s / 3600,
    )


def _wall_s(
    plan: Plan, speed: Speed, images: ImageCounts
) -> tuple[tuple[StageEstimate, StageEstimate, StageEstimate], float]:
    """Return the estimates of search, confirmation and final run, and the seconds of the whole sweep."""
    final_images = images.model_copy(update={"train": images.train + images.validation, "validation": 0})
    stages = (
        _estimate_stage(plan.search, speed, images, epochs=_expected(plan.search), stopping=bool(plan.rungs)),
        _estimate_stage(plan.confirm, speed, images, epochs=_expected(plan.confirm)),
        _estimate_stage(plan.final, speed, final_images, epochs=plan.final.worst_case_epochs),
    )
    wall_s = RAY_START_S + sum(stage.wall_s for stage in stages) + hand_over_s(plan, speed, images)
    if "latency_ms" in plan.objectives:
        wall_s += LATENCY_MEASUREMENT_S * speed.networks
    return stages, wall_s


def hand_over_s(plan: Plan, speed: Speed, images: ImageCounts) -> float:
    """Return the seconds from the end of the training to the end of the sweep."""
    evaluated = images.test / (speed.evaluation_images_per_s * speed.processes)
    if plan.quick:
        return QUICK_DEPLOY_S + min(evaluated, QUICK_TEST_S)
    passes = PRECISION_PASSES * (images.validation + images.test)
    return DEPLOY_S + evaluated + passes / (speed.evaluation_images_per_s * speed.processes)


def _estimate_stage(
    stage: StagePlan, speed: Speed, images: ImageCounts, *, epochs: float, stopping: bool = False
) -> StageEstimate:
    """Return the estimate of a stage whose runs train `epochs` epochs in total, or stop early."""
    split = float(stage.workers)
    if not stage.resources_per_worker.GPU:
        split *= max(1.0, stage.resources_per_worker.CPU / speed.threads)
    epoch_s = (
        images.train / speed.train_images_per_s + images.validation / speed.evaluation_images_per_s
    ) / (split * (SPLIT_EFFICIENCY if split > 1 else 1))
    # Runs of full length proceed in rounds. With early stopping, slots are refilled at once, and the last
    # round takes at least one full run.
    rounds = math.ceil((stage.runs if stopping else epochs / stage.epochs) / stage.concurrency)
    sequential_epochs = rounds * stage.epochs
    if stopping:
        sequential_epochs = min(sequential_epochs, max(stage.epochs, math.ceil(epochs / stage.concurrency)))
    # Processes start, and no run of the stage trains.
    start_s = INPROC_START_S if stage.backend == "inproc" else rounds * DDP_START_S
    worker_hours = epochs * epoch_s * stage.workers / 3600
    return StageEstimate(
        wall_s=sequential_epochs * epoch_s + start_s,
        epoch_s=epoch_s,
        core_hours=worker_hours * stage.resources_per_worker.CPU,
        gpu_hours=worker_hours * stage.resources_per_worker.GPU,
    )


def _expected(stage: StagePlan) -> float:
    return stage.expected_epochs or stage.worst_case_epochs
