"""Keep a running sweep within its time budget: fewer trials or confirmation runs rather than an overrun.

The final run is never omitted, and at least one candidate is confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from platform.common.text_format import duration, plural
from platform.training.records import EpochRecord
from platform.tuning.planning.records import Estimate, Plan

_TOLERANCE = 1.15
"""Projected time relative to the budget from which runs are omitted. On a busy machine the epochs of a short
sweep take up to 1.2 times the planned time; half of the trials is too high a price for that."""
_MIN_TRIALS = 2


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
        epochs = (planned.expected_epochs or planned.worst_case_epochs) / planned.runs
        trial_s = slower * epochs * self.estimate.search.epoch_s
        total_s = self.elapsed_s() + trial_s + self._after_search_s(slower)
        if total_s <= _TOLERANCE * self.budget_s:
            return None
        return (
            f"the search ends after {plural(created, 'trial')} instead of {planned.runs}: with another one "
            f"the sweep would take {duration(total_s)} of {duration(self.budget_s)}{_slower_text(slower)}"
        )

    def confirmation_limit(self, created: int, records: Iterable[EpochRecord]) -> str | None:
        """Return why there is no time for another confirmation run; None if there is.

        Args:
            created: number of confirmation runs so far.
            records: all epochs of the search.
        """
        if created == 0:
            return None
        planned, slower = self.plan.confirm, self._slowdown(records)
        run_s = slower * planned.epochs * self.estimate.confirm.epoch_s
        total_s = self.elapsed_s() + run_s + self._final_s(slower)
        if total_s <= _TOLERANCE * self.budget_s:
            return None
        return (
            f"the confirmation ends after {plural(created, 'run')}: with another one the sweep would take "
            f"{duration(total_s)} of {duration(self.budget_s)}{_slower_text(slower)}"
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
