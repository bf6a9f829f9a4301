"""Simulate many confirmations at once, with the sweep's own posterior and allocation of runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from platform.space.settings import Confirm
from platform.tuning.selection.allocation import State, decide
from platform.tuning.selection.posterior import Floats, Posterior, Runs, posterior

_CHUNK = 250  # searches at a time, to limit memory
_DRAWS = 1024  # fewer than in a sweep, for speed


@dataclass(frozen=True)
class Searches:
    """Independent searches, [searches, recipes]."""

    truth: Floats
    """Mean accuracy of each recipe over all seeds."""
    searched: Floats
    """Accuracy of its run in the search."""
    noise: Floats
    """Deviations of a run from its recipe's mean, with equal probability."""

    def part(self, rows: slice | NDArray[np.int64]) -> Searches:
        """Return some of the searches."""
        return Searches(self.truth[rows], self.searched[rows], self.noise)


@dataclass(frozen=True, kw_only=True)
class Design:
    """A way to choose among the recipes of a search."""

    name: str
    candidates: int = 1
    """The best recipes of the search that get runs."""
    seeds: int = 0
    """Runs of each candidate; 0 without a confirmation."""
    rule: Confirm | None = None
    """The adaptive confirmation instead."""
    slots: int = 1
    """Runs at a time of the adaptive confirmation."""


@dataclass(frozen=True)
class Outcomes:
    """The results of a design, [searches]."""

    regret: Floats
    """Accuracy that the chosen recipe lacks to the best one of the search."""
    right: NDArray[np.bool_]
    """Whether it is the best one."""
    bias: Floats
    """Promised minus true accuracy of the chosen recipe."""
    runs: NDArray[np.int64]
    """Confirmation runs."""
    probability: Floats
    """Claimed probability that the chosen recipe is the best."""
    loss: Floats
    """Claimed expected regret."""

    @staticmethod
    def joined(parts: list[Outcomes]) -> Outcomes:
        """Return the outcomes of several groups of searches as one."""
        names = tuple(Outcomes.__dataclass_fields__)
        return Outcomes(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def confirm(searches: Searches, design: Design, random: np.random.Generator) -> Outcomes:
    """Return the outcome of a design for each search."""
    parts = [searches.part(slice(start, start + _CHUNK)) for start in range(0, len(searches.truth), _CHUNK)]
    one = _adaptive if design.rule is not None else _fixed
    return Outcomes.joined([one(part, design, random) for part in parts])


def _fixed(searches: Searches, design: Design, random: np.random.Generator) -> Outcomes:
    order = np.argsort(-searches.searched, axis=1)[:, : design.candidates]
    allowed = np.zeros(searches.truth.shape, bool)
    np.put_along_axis(allowed, order, values=True, axis=1)
    runs = _Confirmations(searches, random)
    for _ in range(design.seeds):
        for place in range(order.shape[1]):
            runs.add(np.arange(len(order)), order[:, place])
    found = posterior(runs.statistics(), draws=_DRAWS)
    leader = np.where(allowed, found.mean, -np.inf).argmax(axis=1)
    used = np.full(len(order), order.shape[1] * design.seeds)
    outcomes = _outcomes(searches, found, leader, used)
    if design.seeds:
        return outcomes
    row = np.arange(len(order))
    promised = searches.searched[row, leader] - searches.truth[row, leader]
    return Outcomes(**{**vars(outcomes), "bias": promised})


def _adaptive(searches: Searches, design: Design, random: np.random.Generator) -> Outcomes:
    assert design.rule is not None  # noqa: S101 - the caller checked it
    count = len(searches.truth)
    allowed = np.zeros(searches.truth.shape, bool)
    order = np.argsort(-searches.searched, axis=1)[:, : design.candidates]
    np.put_along_axis(allowed, order, values=True, axis=1)
    runs = _Confirmations(searches, random)
    ended: list[tuple[NDArray[np.int64], Outcomes]] = []
    active = np.arange(count)
    while len(active):
        running = np.zeros_like(runs.confirmed)
        for slot in range(design.slots):
            used = (runs.confirmed + running).sum(axis=1)
            rows = active
            state = State(
                runs.statistics(rows), runs.confirmed[rows], running[rows], used[rows], allowed[rows]
            )
            decision = decide(state, design.rule, draws=_DRAWS)
            starts = decision.next >= 0
            running[rows[starts], decision.next[starts]] += 1
            if slot == 0 and not starts.all():
                over = rows[~starts]
                found = Posterior(*(values[~starts] for values in vars(decision.posterior).values()))
                outcomes = _outcomes(searches.part(over), found, decision.leader[~starts], used[over])
                ended.append((over, outcomes))
                active = rows[starts]
                if not len(active):
                    break
        for row, recipe in np.argwhere(running):
            for _ in range(running[row, recipe]):
                runs.add(np.array([row]), np.array([recipe]))
    order = np.argsort(np.concatenate([rows for rows, _ in ended]))
    joined = Outcomes.joined([outcomes for _, outcomes in ended])
    return Outcomes(*(values[order] for values in vars(joined).values()))


class _Confirmations:
    """The finished runs of searches and their confirmations."""

    def __init__(self, searches: Searches, random: np.random.Generator) -> None:
        self._searches, self._random = searches, random
        self.confirmed = np.zeros(searches.truth.shape, np.int64)
        self._sum, self._squares = searches.searched.copy(), searches.searched**2

    def add(self, rows: NDArray[np.int64], recipes: NDArray[np.int64]) -> None:
        """Run one recipe of each of the given searches."""
        noise = self._random.choice(self._searches.noise, len(rows))
        accuracy = self._searches.truth[rows, recipes] + noise
        self.confirmed[rows, recipes] += 1
        self._sum[rows, recipes] += accuracy
        self._squares[rows, recipes] += accuracy**2

    def statistics(self, rows: NDArray[np.int64] | slice = slice(None)) -> Runs:
        """Return the runs of some searches and their confirmations, for the posterior."""
        n: Floats = np.add(1.0, self.confirmed[rows], dtype=np.float64)
        mean = self._sum[rows] / n
        return Runs(n, mean, np.maximum(0, self._squares[rows] - n * mean**2).sum(axis=1))


def _outcomes(
    searches: Searches, found: Posterior, leader: NDArray[np.int64], runs: NDArray[np.int64]
) -> Outcomes:
    row = np.arange(len(leader))
    truth, best = searches.truth[row, leader], searches.truth.max(axis=1)
    return Outcomes(
        regret=best - truth,
        right=truth >= best,
        bias=found.mean[row, leader] - truth,
        runs=runs,
        probability=found.best_probability[row, leader],
        loss=found.expected_loss[row, leader],
    )
