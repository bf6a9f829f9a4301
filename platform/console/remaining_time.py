"""Estimate the remaining time of a running sweep from its plan and its measured speed."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from platform.tracking.events import Stage

STAGES: tuple[Stage, ...] = get_args(Stage)

HAND_OVER = {
    "evaluating on the test split": 0.2,
    "exporting to ncnn": 0.4,
    "benchmarking on this machine": 0.3,
    "registering the champion in MLflow": 0.05,
    "writing the report": 0.05,
}
"""The phases after the training, and their shares of its estimated time."""


@dataclass(frozen=True, kw_only=True)
class StageProgress:
    """The progress of one stage since this start of the sweep."""

    runs: int
    """Planned runs."""
    slots: int
    """Concurrent runs."""
    done: Sequence[float] = ()
    """Share of its epochs that each started run has finished, 0..1; 1 for an ended run."""
    done_before: float = 0.0
    """Sum of those shares at this start of the sweep."""
    elapsed_s: float = 0.0
    """Seconds since the first run of this start."""
    measured_s: float = 0.0
    """Seconds that the epochs of this start took, over all runs."""
    planned_s: float = 0.0
    """Seconds that the plan's speed predicts for those epochs."""
    epoch_s: float = 0.0
    """Planned seconds of one epoch; 0 without an estimate."""


@dataclass(frozen=True, kw_only=True)
class RemainingTime:
    """An estimated remaining time."""

    seconds: float
    whole: bool
    """Whether it is that of the whole sweep; otherwise that of the current stage only."""


def remaining_time(
    estimate: Mapping[str, Any] | None,
    stages: Mapping[Stage, StageProgress],
    *,
    stage: Stage = "search",
    hand_over: str | None = None,
    hand_over_s: float = 0.0,
) -> RemainingTime | None:
    """Return the remaining time of a sweep; None while it is unknown.

    Each stage contributes the remaining part of its estimate, scaled by the measured time per epoch relative
    to the planned one. Without an estimate, the progress of the current stage is extrapolated.

    Args:
        estimate: `estimate` of plan.json, or None.
        stages: the progress of each stage.
        stage: the current stage; earlier ones are over.
        hand_over: the current phase of `HAND_OVER`; None before the first one.
        hand_over_s: seconds since that phase began.
    """
    if estimate is None:
        return _extrapolated(stages[stage]) if hand_over is None else None
    after_s = max(0.0, estimate["wall_s"] - sum(estimate[each]["wall_s"] for each in STAGES))
    # A machine that trains slower than planned, because it is busy, is also slower after the training.
    after_s *= max(1.0, _slowdown(stages[stage], stages))
    if hand_over is not None:
        phases = list(HAND_OVER)
        later = sum(HAND_OVER[phase] for phase in phases[phases.index(hand_over) + 1 :])
        now_s = max(0.0, after_s * HAND_OVER[hand_over] - hand_over_s)
        return RemainingTime(seconds=after_s * later + now_s, whole=True)
    left_s = after_s
    for each in STAGES[STAGES.index(stage) :]:
        state = stages[each]
        left_s += estimate[each]["wall_s"] * _share_left(state) * _slowdown(state, stages)
    return RemainingTime(seconds=left_s, whole=True)


def _extrapolated(state: StageProgress) -> RemainingTime | None:
    """Return the remaining time of a stage at its speed so far."""
    done = sum(state.done) - state.done_before
    # The extrapolation is too noisy before a tenth of a run is done.
    if done < 0.1:
        return None
    left = max(0.0, state.runs - sum(state.done))
    return RemainingTime(seconds=state.elapsed_s / done * left, whole=False)


def _share_left(state: StageProgress) -> float:
    """Return the remaining share of a stage's time, 0..1."""
    lengths = [1 - share for share in state.done if share < 1] + [1.0] * (state.runs - len(state.done))
    whole = _makespan([1.0] * state.runs, state.slots)
    return min(1.0, _makespan(lengths, state.slots) / whole) if whole else 0.0


def _makespan(lengths: Sequence[float], slots: int) -> float:
    """Return the time that runs of these lengths take, if a free slot takes the next run."""
    busy_until = [0.0] * max(1, slots)
    for length in lengths:
        heapq.heappush(busy_until, heapq.heappop(busy_until) + length)
    return max(busy_until)


def _slowdown(state: StageProgress, stages: Mapping[Stage, StageProgress]) -> float:
    """Return the measured time per epoch relative to the planned one.

    One planned epoch of prior weight keeps the first, slow epoch of a sweep from dominating; a stage with few
    epochs of its own takes the value of all stages.
    """
    prior_s = state.epoch_s
    if not prior_s:
        return 1.0
    measured_s = sum(other.measured_s for other in stages.values())
    planned_s = sum(other.planned_s for other in stages.values())
    overall = (measured_s + prior_s) / (planned_s + prior_s)
    return (state.measured_s + overall * prior_s) / (state.planned_s + prior_s)
