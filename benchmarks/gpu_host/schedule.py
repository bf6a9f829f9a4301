"""Which steps there are, in order of importance, and which of them fit into the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """One measurement, run as a process of its own."""

    name: str
    entry: str
    """`module:function`; the function takes a `benchmarks.gpu_host.facts.Call`."""
    expected_s: float
    """Usual seconds. With less time left the step is skipped, and later ones get their turn."""
    limit_s: float
    """Seconds after which it is killed."""
    environment: Mapping[str, str] = field(default_factory=dict)


# By priority. The seconds are estimates for one H100 or H200; no run has confirmed them yet.
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
"""Of the whole he2016_resnet32."""
_IMAGES_PER_EPOCH, _BATCH_SIZE = 50_000, 128


def limit_of(step: Step, left_s: float) -> float | None:
    """Return the seconds that `step` may take when `left_s` are left in all, None if it does not fit."""
    return min(step.limit_s, left_s) if step.expected_s <= left_s else None


def plan(steps: Sequence[Step], budget_s: float) -> list[Step]:
    """Return the steps that run if each takes its usual time: the most important first, then what still fits.

    The command decides anew before each step, by the time that is really left.
    """
    chosen = []
    for step in steps:
        if limit_of(step, budget_s) is not None:
            chosen.append(step)
            budget_s -= step.expected_s
    return chosen


def iterations_that_fit(images_per_s: float | None, left_s: float) -> int:
    """Return the iterations of he2016_resnet32 that fit: all, or a tenth.

    Args:
        images_per_s: measured training rate of ResNet-32 at batch 128; None: not known, hence a tenth.
        left_s: seconds the run may take.
    """
    if not images_per_s:
        return ITERATIONS // 10
    # Start and end of the process, and each epoch's evaluation and records: estimates on the high side.
    epochs = ITERATIONS * _BATCH_SIZE / _IMAGES_PER_EPOCH
    needed_s = 20 + ITERATIONS * _BATCH_SIZE / images_per_s + 0.2 * epochs
    return ITERATIONS if needed_s <= left_s else ITERATIONS // 10
