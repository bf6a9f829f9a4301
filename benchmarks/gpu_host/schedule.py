"""The steps in order of importance, and the choice of those that fit the time budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """One measurement, run in its own process."""

    name: str
    entry: str
    """`module:function`; the function takes a `benchmarks.gpu_host.facts.StepRequest`."""
    expected_s: float
    """Expected duration in seconds. The step is skipped if less time is left."""
    limit_s: float
    """Time limit in seconds."""
    environment: Mapping[str, str] = field(default_factory=dict)


# By priority. The durations are estimates for one H100 or H200, not confirmed by a run yet.
STEPS = (
    Step("environment", "benchmarks.gpu_host.correctness:environment", 15, 60),
    Step("capture_tests", "benchmarks.gpu_host.correctness:capture_tests", 30, 100),
    Step("equality", "benchmarks.gpu_host.correctness:equality", 30, 90),
    Step("rates", "benchmarks.gpu_host.rates:rates", 45, 90),
    Step("profile", "benchmarks.gpu_host.kernels:profile", 25, 60),
    Step("reference", "benchmarks.gpu_host.accuracy:reference", 40, 75),
    Step("time_to_94", "benchmarks.gpu_host.accuracy:time_to_94", 50, 90),
    Step("he2016_resnet32", "benchmarks.gpu_host.accuracy:he2016_resnet32", 50, 300),
    Step("knobs", "benchmarks.gpu_host.rates:knobs", 30, 60),
    # cuDNN reads the variable once per process.
    Step(
        "heuristic_b",
        "benchmarks.gpu_host.rates:heuristic_b",
        20,
        40,
        {"TORCH_CUDNN_USE_HEURISTIC_MODE_B": "1"},
    ),
    Step("compiled", "benchmarks.gpu_host.rates:compiled", 60, 120),
)

ITERATIONS = 64_000
"""Iterations of the complete he2016_resnet32 recipe."""
_IMAGES_PER_EPOCH, _BATCH_SIZE = 50_000, 128


def limit_of(step: Step, left_s: float) -> float | None:
    """Return the time limit of `step` if `left_s` seconds are left in total, or None if it does not fit."""
    return min(step.limit_s, left_s) if step.expected_s <= left_s else None


def plan(steps: Sequence[Step], budget_s: float) -> list[Step]:
    """Return the steps that fit if each takes its expected time, by priority.

    The command decides again before each step, from the time that is actually left.
    """
    chosen = []
    for step in steps:
        if limit_of(step, budget_s) is not None:
            chosen.append(step)
            budget_s -= step.expected_s
    return chosen


def iterations_that_fit(images_per_s: float | None, left_s: float) -> int:
    """Return the number of iterations of he2016_resnet32: all if they fit, else a tenth.

    Args:
        images_per_s: measured training rate of ResNet-32 at batch size 128; None: unknown, so a tenth.
        left_s: time left in seconds.
    """
    if not images_per_s:
        return ITERATIONS // 10
    # High estimates: 20 s for process start and end, 0.2 s per epoch for evaluation and records.
    epochs = ITERATIONS * _BATCH_SIZE / _IMAGES_PER_EPOCH
    needed_s = 20 + ITERATIONS * _BATCH_SIZE / images_per_s + 0.2 * epochs
    return ITERATIONS if needed_s <= left_s else ITERATIONS // 10
