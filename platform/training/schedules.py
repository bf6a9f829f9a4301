"""Learning-rate schedules, evaluated per step.

A run of T steps evaluates the curve at 0..T-1, so a curve that ends at zero never trains a step with learning
rate zero. A warm-up rises linearly and reaches the peak at its last step. Cosine and linear schedules span
the steps after the warm-up; milestones count from the beginning of the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

from platform.training.config import Annealing, OneCycle, Plateau, Schedule, Step, Triangular
from platform.training.inputs.budget import Budget


class LearningRate:
    """The learning rate of each step, lowered on plateaus of the loss if the schedule is `plateau`."""

    def __init__(self, schedule: Schedule, *, peak: float, budget: Budget) -> None:
        self._peak = peak
        self._plateau = schedule if isinstance(schedule, Plateau) else None
        self._curve = curve(schedule, budget)
        # Plateaus multiply `scale`; `bad_epochs` counts the epochs since `best_loss` last fell.
        self._state: dict[str, float] = {"scale": 1.0, "best_loss": math.inf, "bad_epochs": 0}

    def at(self, step: int) -> float:
        """Return the learning rate of `step`, counted from 0 over the whole run."""
        return self._peak * self._curve(step) * self._state["scale"]

    def epoch_ended(self, loss: float) -> None:
        """Update a plateau schedule with an epoch's validation loss (training loss without validation)."""
        if self._plateau is None:
            return
        state = self._state
        if loss < state["best_loss"] * (1 - self._plateau.threshold):
            state["best_loss"] = loss
            state["bad_epochs"] = 0
            return
        state["bad_epochs"] += 1
        if state["bad_epochs"] >= self._plateau.patience_epochs:
            floor = min(1.0, self._plateau.min_lr / self._peak)
            state["scale"] = max(state["scale"] * self._plateau.factor, floor)
            state["bad_epochs"] = 0

    def state_dict(self) -> dict[str, float]:
        return self._state.copy()

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self._state = dict(state)


def curve(schedule: Schedule, budget: Budget) -> Callable[[int], float]:
    """Return the fraction of the peak learning rate at each step (from 0), before any plateau."""
    total = budget.total_steps
    warmup = min(total, round(getattr(schedule, "warmup_epochs", 0.0) * budget.steps_per_epoch))
    drops = _milestone_steps(schedule, budget) if isinstance(schedule, Step) else []
    points, shape = [(0.0, 1.0), (1.0, 1.0)], _linear
    if isinstance(schedule, Triangular):
        points = [(0.0, schedule.start_fraction), (schedule.peak_at, 1.0), (1.0, schedule.final_fraction)]
    elif isinstance(schedule, OneCycle):
        start, shape = 1 / schedule.start_divisor, _half_cosine
        points = [(0.0, start), (schedule.peak_at, 1.0), (1.0, start / schedule.final_divisor)]
    elif isinstance(schedule, Annealing):
        points = [(0.0, 1.0), (1.0, schedule.final_fraction)]
        shape = _half_cosine if schedule.name == "cosine" else _linear

    def at(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if isinstance(schedule, Step):
            return schedule.factor ** sum(step >= drop for drop in drops)
        return _piecewise(points, (step - warmup) / (total - warmup), shape)

    return at


def _milestone_steps(schedule: Step, budget: Budget) -> list[int]:
    """Return the first step of each lowered learning rate."""
    if all(milestone < 1 for milestone in schedule.milestones):
        unit = budget.total_steps
    else:
        unit = budget.steps_per_epoch if schedule.unit == "epochs" else 1
    return [round(milestone * unit) for milestone in schedule.milestones]


def _linear(x: float) -> float:
    return x


def _half_cosine(x: float) -> float:
    return (1 - math.cos(math.pi * x)) / 2


def _piecewise(points: list[tuple[float, float]], x: float, shape: Callable[[float], float]) -> float:
    """Interpolate `points` (x ascending) at `x`; `shape` maps 0..1 to 0..1 within each segment."""
    for (left, low), (right, high) in pairwise(points):
        if x <= right:
            return low + (high - low) * shape((x - left) / (right - left))
    return points[-1][1]
