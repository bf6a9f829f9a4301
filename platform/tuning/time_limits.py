"""Keep a running sweep within its time budget: fewer trials or confirmation runs rather than an overrun.

The final run is never omitted, and at least one candidate is confirmed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from platform.common.text_format import duration, plural
from platform.training.records import EpochRecord
from platform.tuning.planning.estimate import stage_start_s
from platform.tuning.planning.records import Estimate, Plan

TOLERANCE = 1.1
"""Projected time relative to the budget from which runs are omitted; estimates are not more precise."""
_MIN_TRIALS = 2


class Repetitions(NamedTuple):
    """The size of a confirmation."""

    candidates: int
    seeds: int

    @property
    def runs(self) -> int:
        """Number of confirmation runs."""
        return self.candidates * self.seeds


@dataclass(frozen=True, kw_only=True)
class TimeLimits:
    """The time budget of a sweep and its use so far."""

    plan: Plan
    estimate: Estimate
    """Of the plan."""
    budget_s: float
    elapsed_s: Callable[[], float]
    """Returns the seconds that the sweep has used, without pauses between its sessions."""

    def trial_limit(self, created: int, records: Iterable[EpochRecord]) -> str | None:
        """Return why there is no time for another trial; None if there is.

        Args:
            created: number of trials so far.
            records: all epochs of the search so far.
        """
        if created < _MIN_TRIALS:
            return None
        planned, slower = self.plan.search, self._slowdown(records)
        trial_s = slower * planned.epochs * self.estimate.search.epoch_s
        total_s = self.elapsed_s() + trial_s + self._after_search_s(slower)
        if total_s <= TOLERANCE * self.budget_s:
            return None
        return (
            f"the search ends after {plural(created, 'trial')} instead of {planned.runs}: with another one "
            f"the sweep would take {duration(total_s)} of {duration(self.budget_s)}{_slower_text(slower)}"
        )

    def confirmation_limits(
        self, planned: Repetitions, records: Iterable[EpochRecord]
    ) -> tuple[Repetitions, str | None]:
        """Return the size of the confirmation that there is time for, and the reason if it is smaller.

        Args:
            planned: the planned size.
            records: all epochs of the search.
        """
        stage, slower = self.plan.confirm, self._slowdown(records)
        round_s = slower * stage.epochs * self.estimate.confirm.epoch_s
        left_s = TOLERANCE * self.budget_s - self.elapsed_s() - self._final_s(slower)
        rounds = math.floor((left_s - stage_start_s(stage)) / round_s)
        affordable, size = max(1, rounds * stage.concurrency), planned
        while size.runs > affordable:
            size = (
                size._replace(seeds=size.seeds - 1) if size.seeds > 1 else Repetitions(size.candidates - 1, 1)
            )
        if size == planned:
            return planned, None
        return size, (
            f"the confirmation has {plural(size.candidates, 'candidate')} x {plural(size.seeds, 'seed')} "
            f"instead of {planned.candidates} x {planned.seeds}: {duration(max(0.0, left_s))} are left for it"
            f"{_slower_text(slower)}"
        )

    def _slowdown(self, records: Iterable[EpochRecord]) -> float:
        """Return the measured time of an epoch relative to the plan; 1 before the first epoch."""
        measured = [record.epoch_s + record.evaluation_s for record in records]
        return median(measured) / self.estimate.search.epoch_s if measured else 1.0

    def _after_search_s(self, slower: float) -> float:
        return slower * self.estimate.confirm.wall_s + self._final_s(slower)

    def _final_s(self, slower: float) -> float:
        """Return the seconds of the final run and of everything after it."""
        return slower * self.estimate.final.wall_s + self.estimate.hand_over_s


def _slower_text(slower: float) -> str:
    return f" (epochs take {slower:.1f} times the planned time)" if slower > 1.15 else ""
