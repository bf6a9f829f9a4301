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
class Progress:
    """The progress of a sweep."""

    stages: Mapping[Stage, StageProgress]
    stage: Stage = "search"
    """The current stage; earlier ones are over."""
    hand_over: str | None = None
    """The current phase of `HAND_OVER`; None before the first one."""
    hand_over_s: float = 0.0
    """Seconds since that phase began."""


@dataclass(frozen=True, kw_only=True)
class RemainingTime:
    """An estimated remaining time."""

    seconds: float
    whole: bool
    """Whether it is that of the whole sweep; otherwise that of the current stage only."""


def remaining_time(estimate: Mapping[str, Any] | None, progress: Progress) -> RemainingTime | None:
    """Return the remaining time of a sweep; None while it is unknown.

    Each stage contributes the remaining part of its estimate, scaled by the measured time per epoch relative
    to the planned one. Without an estimate, the progress of the current stage is extrapolated.

    Args:
        estimate: `estimate` of plan.json, or None.
        progress: the progress so far.
    """
    if estimate is None:
        return _extrapolated(progress)
    after_s = max(0.0, estimate["wall_s"] - sum(estimate[stage]["wall_s"] for stage in STAGES))
    # A machine that trains slower than planned, because it is busy, is also slower after the training.
    after_s *= max(1.0, _slowdown(progress.stages[progress.stage], progress.stages))
    if progress.hand_over is not None:
        phases = list(HAND_OVER)
        position = phases.index(progress.hand_over)
        later = sum(HAND_OVER[phase] for phase in phases[position + 1 :])
        now_s = max(0.0, after_s * HAND_OVER[progress.hand_over] - progress.hand_over_s)
        return RemainingTime(seconds=after_s * later + now_s, whole=True)
    left_s = after_s
    for stage in STAGES[STAGES.index(progress.stage) :]:
        state = progress.stages[stage]
        left_s += estimate[stage]["wall_s"] * _share_left(state) * _slowdown(state, progress.stages)
    return RemainingTime(seconds=left_s, whole=True)


def _extrapolated(progress: Progress) -> RemainingTime | None:
    """Return the remaining time of the current stage at its speed so far."""
    state = progress.stages[progress.stage]
    done = sum(state.done) - state.done_before
    # The extrapolation is too noisy before a tenth of a run is done.
    if done < 0.1 or progress.hand_over is not None:
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
