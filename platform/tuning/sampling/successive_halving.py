"""The rungs of successive halving, and the epochs that a search with it is expected to train."""

from __future__ import annotations

import math
from typing import NamedTuple

from platform.space.settings import Asha


class StoppingRisk(NamedTuple):
    """The measured risk of early stopping with some rungs."""

    grace_share: float
    """First rung as a share of a run."""
    reduction_factor: float
    lost_the_best: float
    """Share of the searches in which the best recipe was stopped."""
    regret: float
    """Mean accuracy lost to the best recipe by stopping alone, in units of the noise of a run."""


_RISKS = (
    StoppingRisk(0.2, 2, 0.32, 0.17),
    StoppingRisk(0.4, 2, 0.02, 0.01),
    StoppingRisk(0.6, 2, 0.00, 0.00),
    StoppingRisk(0.2, 3, 0.36, 0.19),
    StoppingRisk(0.4, 3, 0.01, 0.01),
    StoppingRisk(0.6, 3, 0.00, 0.00),
    StoppingRisk(0.2, 4, 0.44, 0.24),
    StoppingRisk(0.4, 4, 0.02, 0.01),
    StoppingRisk(0.6, 4, 0.00, 0.00),
)
"""300 replays of recorded runs of five epochs (docs/results.md#early-stopping-and-the-best-recipe)."""


def rungs(asha: Asha, epochs: int) -> tuple[int, ...]:
    """Return the epochs after which trials of `epochs` can be stopped; the last epoch is not a rung."""
    found = []
    rung = float(asha.grace_epochs)
    while math.ceil(rung) < epochs:
        found.append(math.ceil(rung))
        rung *= asha.reduction_factor
    return tuple(dict.fromkeys(found))


def expected_epochs(trials: int, asha: Asha, epochs: int) -> float:
    """Return the epochs that a search with `trials` of `epochs` is expected to train.

    The estimate assumes that trials arrive at a rung in random order, and that their ranks at different rungs
    are independent. In a real search ranks are correlated, and an adaptive sampler proposes better trials
    later, so more trials are promoted and the search trains somewhat more epochs.
    """
    alive, done, total = float(trials), 0, 0.0
    for mark in (*rungs(asha, epochs), epochs):
        total += alive * (mark - done)
        done = mark
        alive = _expected_promotions(alive, asha.reduction_factor)
    return total


def _expected_promotions(arriving: float, reduction_factor: float) -> float:
    """Return how many of `arriving` trials Ray Tune's ASHA is expected to promote at a rung.

    A trial is promoted if it is not below the (1 - 1/factor) quantile (linear interpolation) of the earlier
    trials at this rung. The first trial always is. So more than one in `factor` trials are promoted.
    """
    whole = int(arriving)
    passed = sum(_promotion_probability(before, reduction_factor) for before in range(whole))
    return passed + (arriving - whole) * _promotion_probability(whole, reduction_factor)


def _promotion_probability(before: int, reduction_factor: float) -> float:
    """Return the probability that a trial is promoted after `before` trials of equal expected quality."""
    if before == 0:
        return 1.0
    # The trial's rank is uniform over before + 1 places. The cutoff is at `position` (from 0, fractional) in
    # the sorted accuracies of the earlier trials.
    position = (before - 1) * (1 - 1 / reduction_factor)
    return (before - position) / (before + 1)


def stopping_risk(asha: Asha, epochs: int) -> StoppingRisk:
    """Return the measured risk of the most similar rungs."""

    def distance(risk: StoppingRisk) -> float:
        share = math.log(risk.grace_share * epochs / asha.grace_epochs)
        return math.hypot(share, math.log(risk.reduction_factor / asha.reduction_factor))

    return min(_RISKS, key=distance)
