"""Choose the size of a sweep for a given time: `--within 5min`.

The choice uses the same plan and estimate as every other sweep (`make_plan`, `estimate_sweep`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from platform.common.errors import UsageError
from platform.common.text_format import duration
from platform.space.short_runs import PlannedChoice, SweepSize, resized
from platform.space.spec import SweepSpec
from platform.tuning.planning.capacity import NodeResources
from platform.tuning.planning.estimate import estimate_sweep
from platform.tuning.planning.plan import longest_run, make_plan
from platform.tuning.planning.records import ImageCounts, Speed, TimeBudget

MIN_EPOCHS = 3
"""Fewer epochs show no learning curve."""
_MIN_VALIDATION = 1000
_ANY_BUDGET = TimeBudget(budget_s=1, used_before_s=0, choices=(), full_digest="")
"""Marks the plan as one with a time budget, whose export is short if it is quick."""


class TooLittleTimeError(UsageError):
    """The smallest useful sweep takes longer than the given time."""

    def __init__(self, message: str, *, least_s: float) -> None:
        super().__init__(message)
        self.least_s = least_s
        """Seconds that the smallest useful sweep takes."""


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """Numbers of runs, and the shortest run for which they are worth their time."""

    trials: int
    candidates: int
    seeds: int
    passes: int
    """Images that one run trains on, counted once per epoch."""


_SHAPES = (
    _Shape(trials=4, candidates=2, seeds=1, passes=2_000),
    _Shape(trials=6, candidates=2, seeds=2, passes=60_000),
    _Shape(trials=8, candidates=2, seeds=3, passes=250_000),
    _Shape(trials=12, candidates=3, seeds=3, passes=600_000),
    _Shape(trials=20, candidates=3, seeds=3, passes=1_000_000),
)
"""In increasing order. Short runs gain more from their length than from their number: the differences between
recipes grow with the length, and the noise of the seed shrinks."""


def fit_to_time(
    spec: SweepSpec, nodes: Sequence[NodeResources], speed: Speed, images: ImageCounts, *, available_s: float
) -> tuple[SweepSpec, tuple[PlannedChoice, ...]]:
    """Return the largest useful sweep that is expected to end in time, and its choices with reasons.

    `images` are those of a run of `spec`, without `train_limit` of shorter runs.

    Raises:
        TooLittleTimeError: even the smallest useful sweep takes longer; the message has its time.
    """
    full_epochs = longest_run(spec, images.train)
    full_passes = full_epochs * images.train

    def size(shape: _Shape, passes: float) -> SweepSize:
        return _size(spec, shape, min(passes, full_passes), full_epochs=full_epochs, images=images)

    def sweep(size: SweepSize) -> tuple[SweepSpec, tuple[PlannedChoice, ...]]:
        return resized(spec, size, full_epochs=full_epochs, full_images=images.train)

    def wall_s(size: SweepSize) -> float:
        shorter, _ = sweep(size)
        plan = make_plan(shorter, nodes, within=_ANY_BUDGET, train_images=size.train_images)
        counts = images.model_copy(update={"train": size.train_images, "validation": size.validation_images})
        return estimate_sweep(plan, speed, counts).wall_s

    whole = _Shape(
        trials=spec.trials,
        candidates=spec.confirm.candidates,
        seeds=spec.confirm.seeds or max(2, math.ceil(spec.confirm.max_runs / spec.confirm.candidates)),
        passes=full_passes,
    )
    for shape in (whole, *reversed(_SHAPES)):
        smallest = size(shape, shape.passes)
        if wall_s(smallest) <= available_s:
            break
    else:
        least_s = math.ceil(wall_s(smallest) / 30) * 30
        raise TooLittleTimeError(
            f"{spec.name} cannot be swept in {duration(available_s)} on this hardware: {smallest.trials} "
            f"trials of {smallest.passes:,} image passes, their confirmation and the export take about "
            f"{duration(least_s)}; give --within {math.ceil(least_s / 60)}min or more",
            least_s=least_s,
        )
    longest = size(shape, full_passes)
    if wall_s(longest) <= available_s:
        return sweep(longest)
    # The time is monotone in the length of a run: bisect in its logarithm.
    low, high = math.log(smallest.passes), math.log(full_passes)
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (middle, high) if wall_s(size(shape, math.exp(middle))) <= available_s else (low, middle)
    return sweep(size(shape, math.exp(low)))


def _size(
    spec: SweepSpec, shape: _Shape, passes: float, *, full_epochs: int, images: ImageCounts
) -> SweepSize:
    """Divide `passes` into epochs: as few as possible, since new images teach more than repeated ones."""
    epochs = min(full_epochs, max(MIN_EPOCHS, math.ceil(passes / images.train)))
    train = min(images.train, int(passes / epochs))
    if train < images.train and train > 200:
        train -= train % 100
    short = epochs * train < full_epochs * images.train
    return SweepSize(
        trials=min(spec.trials, shape.trials),
        candidates=min(spec.confirm.candidates, shape.candidates),
        seeds=shape.seeds,
        epochs=epochs,
        train_images=max(1, train),
        validation_images=min(images.validation, max(_MIN_VALIDATION, train // 4), train // 2)
        if short
        else images.validation,
    )
