"""How long a sweep will take, and what it will use, from its plan and a measured speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import harmonic_mean
from typing import TYPE_CHECKING

from pydantic import NonNegativeFloat, PositiveFloat

from platform.schema import Frozen

if TYPE_CHECKING:
    from platform.tuning.planning.plan import Plan, StagePlan

# Set to fit searches and sweeps on two quiet cores (Ray 2.60; docs/results.md): the session, a trial's first
# process, a Ray Train worker group.
RAY_START_S = 8.0
INPROC_START_S = 6.0
DDP_START_S = 13.0
DDP_SHARE = 0.85
"""Of their rates added up, what two data-parallel workers train together (ResNet-32, gloo on one machine)."""
HAND_OVER_S = 50.0  # export, benchmark, registry, report
COUNTED = 2.0
"""Passes over validation and test images that judging the precisions costs, at the rate of an evaluation."""
NETWORK_S = 5.0
"""To export a network and to time it, where latency is an objective."""


class Speed(Frozen):
    """What one process trains and evaluates while all slots of the machine are busy."""

    train_images_per_s: PositiveFloat
    evaluation_images_per_s: PositiveFloat
    processes: int = 1
    """Processes that ran at once."""
    threads: int = 1
    """CPU threads of each."""
    networks: int = 1
    """Networks that it is the mean of, over equally many images of each."""
    busy: bool = False
    """The machine had other work while it was measured."""
    gpu_held_bytes: int | None = None
    """Most GPU memory that a process held at once, PyTorch's cache included; None on a CPU."""
    gpu_total_bytes: int | None = None
    """Memory of that GPU."""


def mean_speed(speeds: Sequence[Speed]) -> Speed:
    """Return the speed of a space that chooses among networks, each as often as any other.

    Times of an image add up, not rates: among fast networks a slow one takes nearly all of the time.

    Args:
        speeds: of each network, measured alike.
    """
    return speeds[0].model_copy(
        update={
            "train_images_per_s": harmonic_mean(speed.train_images_per_s for speed in speeds),
            "evaluation_images_per_s": harmonic_mean(speed.evaluation_images_per_s for speed in speeds),
            "networks": len(speeds),
            "busy": any(speed.busy for speed in speeds),
        }
    )


class Sizes(Frozen):
    """Images of each kind that runs pass over."""

    train: int
    validation: int
    test: int


class StageEstimate(Frozen):
    """One stage."""

    wall_s: NonNegativeFloat
    core_hours: NonNegativeFloat
    """Cores that its runs hold, times hours."""
    gpu_hours: NonNegativeFloat


class Estimate(Frozen):
    """The whole sweep."""

    speed: Speed
    search: StageEstimate
    confirm: StageEstimate
    final: StageEstimate
    wall_s: NonNegativeFloat
    """All stages, the start of Ray and the handing over included."""
    core_hours: NonNegativeFloat
    gpu_hours: NonNegativeFloat
    saved_s: NonNegativeFloat
    """Wall seconds that early stopping is expected to save; contained nowhere else."""
    cost: NonNegativeFloat | None = None
    """`cost_per_hour` times the wall time, in the currency of the space file."""


def estimate(plan: Plan, speed: Speed, sizes: Sizes, *, cost_per_hour: float | None = None) -> Estimate:
    """Return what `plan` will take.

    Batch sizes that vary within the space are taken to be as fast as that of the base, networks that vary to
    be drawn, and to win, equally often.
    """
    final_sizes = sizes.model_copy(update={"train": sizes.train + sizes.validation, "validation": 0})
    epochs = plan.search.expected_epochs or plan.search.worst_case_epochs
    search = _stage(plan.search, speed, sizes, epochs=epochs)
    whole = _stage(plan.search, speed, sizes, epochs=plan.search.worst_case_epochs)
    confirm = _stage(plan.confirm, speed, sizes, epochs=plan.confirm.worst_case_epochs)
    final = _stage(plan.final, speed, final_sizes, epochs=plan.final.worst_case_epochs)
    stages = (search, confirm, final)
    wall_s = RAY_START_S + HAND_OVER_S + sizes.test / speed.evaluation_images_per_s
    if not plan.quick:
        counted = COUNTED * (sizes.validation + sizes.test)
        wall_s += counted / (speed.evaluation_images_per_s * speed.processes)
    if "latency_ms" in plan.objectives:
        wall_s += NETWORK_S * speed.networks
    wall_s += sum(stage.wall_s for stage in stages)
    return Estimate(
        speed=speed,
        search=search,
        confirm=confirm,
        final=final,
        wall_s=wall_s,
        core_hours=sum(stage.core_hours for stage in stages),
        gpu_hours=sum(stage.gpu_hours for stage in stages),
        saved_s=max(0.0, whole.wall_s - search.wall_s),
        cost=None if cost_per_hour is None else cost_per_hour * wall_s / 3600,
    )


def _stage(stage: StagePlan, speed: Speed, sizes: Sizes, *, epochs: float) -> StageEstimate:
    """Return one stage of `epochs` epochs in all its runs together."""
    epoch_s = (
        sizes.train / speed.train_images_per_s + sizes.validation / speed.evaluation_images_per_s
    ) / stage.workers
    if stage.workers > 1:
        epoch_s /= DDP_SHARE
    # Runs that all come to their end go in rounds; of those that do not, one goes the whole way last.
    rounds = math.ceil(stage.runs / stage.concurrency) * stage.epochs
    if epochs < stage.worst_case_epochs:
        rounds = min(rounds, max(stage.epochs, math.ceil(epochs / stage.concurrency)))
    starts = 1 if stage.backend == "inproc" else math.ceil(stage.runs / stage.concurrency)
    start_s = INPROC_START_S if stage.backend == "inproc" else DDP_START_S
    held_h = epochs * epoch_s * stage.workers / 3600
    return StageEstimate(
        wall_s=rounds * epoch_s + starts * start_s,
        core_hours=held_h * stage.resources_per_worker.CPU,
        gpu_hours=held_h * stage.resources_per_worker.GPU,
    )
