"""What successive halving will do to a search, before it is run: rungs and expected epochs."""

from __future__ import annotations

import math


def rungs(*, grace_epochs: int, reduction_factor: float, epochs: int) -> tuple[int, ...]:
    """Return the epochs after which trials are judged; the last epoch is not one, as it ends all."""
    found = []
    rung = float(grace_epochs)
    while math.ceil(rung) < epochs:
        found.append(math.ceil(rung))
        rung *= reduction_factor
    return tuple(dict.fromkeys(found))


def expected_epochs(trials: int, *, grace_epochs: int, reduction_factor: float, epochs: int) -> float:
    """Return the epochs that a search is expected to train under asynchronous successive halving.

    The estimate assumes that trials reach a rung in no order of quality, and that their ranks at one rung
    say nothing about their ranks at the next. Good trials stay good, and a sampler that learns sends
    better trials later, which pass more often: a real search trains somewhat more.

    Args:
        trials: runs of the search.
        grace_epochs: the first rung.
        reduction_factor: one in so many goes on.
        epochs: the full length of a trial.
    """
    marks = (*rungs(grace_epochs=grace_epochs, reduction_factor=reduction_factor, epochs=epochs), epochs)
    alive, done, total = float(trials), 0, 0.0
    for mark in marks:
        total += alive * (mark - done)
        done = mark
        alive = _passing(alive, reduction_factor)
    return total


def _passing(arriving: float, reduction_factor: float) -> float:
    """Return how many of `arriving` trials are expected to pass a rung of Ray Tune's ASHA.

    A trial passes if it is not below the (1 - 1/factor) quantile (linear interpolation) of those that came
    before it; the first always passes. Asynchronous halving therefore keeps more than one in `factor`.
    """
    whole = int(arriving)
    passed = sum(_chance(before, reduction_factor) for before in range(whole))
    return passed + (arriving - whole) * _chance(whole, reduction_factor)


def _chance(before: int, reduction_factor: float) -> float:
    """Return the chance that a trial passes when `before` others, equally good on average, came earlier."""
    if before == 0:
        return 1.0
    # Its rank is uniform over before + 1 places, and the cutoff stands at `position` among the earlier
    # ones (counted from 0), between two of them in proportion.
    position = (before - 1) * (1 - 1 / reduction_factor)
    return (before - position) / (before + 1)
