"""Decide which recipe gets the next confirmation run, and when the confirmation ends.

The next run goes to the leader, the recipe with the highest expected accuracy, or to its challenger, the one
with the largest expected improvement over the leader, whichever has fewer runs (top-two expected improvement,
Qin et al. 2017, arXiv:1705.10033). The decision depends only on the finished runs and on the number of
running ones, so an interrupted confirmation continues as an undisturbed one.

All arrays have a leading dimension for independent confirmations, because `benchmarks.selection` simulates
thousands of them with this code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from platform.common.text_format import percent, plural, probability_text
from platform.space.settings import Confirm
from platform.tuning.selection.champion import Recipe
from platform.tuning.selection.posterior import DRAWS, Posterior, Runs, posterior, runs_of

LEAST_PROBABILITY = 0.01
"""A recipe that is the best with a lower probability gets no more runs."""
_MAX_FAILURES = 2
"""Failed runs after which a candidate gets no more."""


class State(NamedTuple):
    """The runs of independent confirmations; arrays are [confirmations, recipes]."""

    runs: Runs
    """All finished runs at full budget, those of the search included."""
    confirmed: NDArray[np.int64]
    """Finished confirmation runs."""
    running: NDArray[np.int64]
    """Confirmation runs without a result."""
    used: NDArray[np.int64]
    """Confirmation runs of all recipes, failed and running ones included, [confirmations]."""
    allowed: NDArray[np.bool_]
    """Whether a recipe may get runs."""


class Attempts(NamedTuple):
    """Confirmation runs of a candidate that have no result."""

    running: int
    """Started or waiting."""
    failed: int


class Decision(NamedTuple):
    """The next run of each confirmation, and why it is needed or not."""

    leader: NDArray[np.int64]
    next: NDArray[np.int64]
    """The recipe of the next run; -1 if the confirmation ends."""
    posterior: Posterior
    """Given the finished runs."""


def decide(
    state: State, rule: Confirm, *, draws: int = DRAWS, limits: tuple[float, float] = (-np.inf, np.inf)
) -> Decision:
    """Return the next run of each confirmation.

    Failed and running runs count in `max_runs`. `limits` are the lowest and the highest possible mean.
    """
    row = np.arange(len(state.used))
    found = posterior(state.runs, draws=draws, limits=limits)
    leader = np.where(state.allowed, found.mean, -np.inf).argmax(axis=1)
    probability, loss = found.best_probability, found.expected_loss[row, leader]
    decided = (loss < rule.tolerance) | (probability[row, leader] >= rule.confidence)
    ahead = found if not state.running.any() else _after_running(state, found, draws=draws, limits=limits)
    gain = np.maximum(ahead.draws - ahead.draws[row, :, leader][:, :, None], 0).mean(axis=1)
    contender = state.allowed & (probability >= LEAST_PROBABILITY)
    contender[row, leader] = False
    challenger = np.where(contender, gain, -1.0).argmax(axis=1)
    decided |= ~contender.any(axis=1)
    n = state.runs.n + state.running
    chosen = np.where(decided | (n[row, leader] <= n[row, challenger]), leader, challenger)
    enough = (state.confirmed + np.where(decided[:, None], state.running, 0))[row, leader] >= rule.min_seeds
    over = (decided & enough) | (state.used >= rule.max_runs) | ~state.allowed.any(axis=1)
    return Decision(leader, np.where(over, -1, chosen), found)


def next_candidate(
    recipes: Sequence[Recipe], candidates: Sequence[Attempts], rule: Confirm
) -> tuple[int | None, str]:
    """Return the place of the candidate of the next run, or None and the reason why the confirmation ends.

    `recipes` are the `candidates`, in the same order, then all others with a run at full budget.
    """
    runs = runs_of([recipe.accuracies for recipe in recipes])
    confirmed = np.array([[len(recipe.confirmed) for recipe in recipes]])
    running, allowed = np.zeros_like(confirmed), np.zeros(confirmed.shape, bool)
    running[0, : len(candidates)] = [one.running for one in candidates]
    allowed[0, : len(candidates)] = [one.failed < _MAX_FAILURES for one in candidates]
    used = int(confirmed.sum()) + sum(one.running + one.failed for one in candidates)
    if not allowed.any():
        return None, f"every candidate failed {_MAX_FAILURES} times"
    if used >= rule.max_runs:
        return None, f"all {plural(rule.max_runs, 'run')} are used"
    if runs.n.sum() < 2:  # nothing to estimate the noise from
        started = np.where(allowed, confirmed + running, rule.max_runs)[0]
        return int(started.argmin()), ""
    state = State(
        Runs(*(np.asarray(value)[None] for value in runs)), confirmed, running, np.array([used]), allowed
    )
    decision = decide(state, rule, limits=(0.0, 1.0))
    if decision.next[0] >= 0:
        return int(decision.next[0]), ""
    leader, found = int(decision.leader[0]), decision.posterior
    name, probability = recipes[leader].trial_id, found.best_probability[0, leader]
    if probability >= rule.confidence:
        return None, f"{name} is the best with {probability_text(float(probability))}"
    loss = found.expected_loss[0, leader]
    if loss < rule.tolerance:
        return None, f"the expected loss of {name} is below {100 * rule.tolerance:g} points"
    return None, f"no other candidate is the best with {percent(LEAST_PROBABILITY, 0)} or more"


def _after_running(state: State, found: Posterior, *, draws: int, limits: tuple[float, float]) -> Posterior:
    """Return the posterior if every running run ends with the accuracy that is expected of its recipe."""
    n = state.runs.n + state.running
    mean = (state.runs.n * state.runs.mean + state.running * found.mean) / np.maximum(n, 1)
    return posterior(Runs(n, mean, state.runs.squares), draws=draws, limits=limits)
