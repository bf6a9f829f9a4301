"""A hierarchical normal model of the runs at full budget: how good is each recipe, and which one is the best?

    accuracy of a run ~ Normal(mean of its recipe, sigma^2)      the noise of the seed, equal for all recipes
    mean of a recipe  ~ Normal(common mean, tau^2)

The common mean has a flat prior, sigma the scale-free prior 1 / sigma, and tau / sigma is uniform in its
logarithm on a grid (`_RATIOS`). Given tau / sigma the posterior is a multivariate t distribution in closed
form (Gelman et al., Bayesian Data Analysis, sections 3.2 and 5.4), so only the ratio needs quadrature.

The run that the search selected a recipe by is data like the others: the model shrinks it toward the common
mean, so the selection does not bias the estimates. Trials that were stopped early are left out. The random
numbers of the draws are fixed, so the result is a function of the runs, whatever the order of their arrival.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DRAWS = 4096
_RATIOS = np.geomspace(0.25, 8, 21)
"""Values of tau / sigma. In the recorded curves (benchmarks/data) it is 1.4 and 2.8."""
_LEAST_SQUARES = 1e-12
"""Sum of squared deviations of runs that do not differ: below the resolution of an accuracy."""

_OUTLIER = 3.0
"""Distance below the median, relative to the distance of the best recipe above it, of recipes whose
accuracies are left out of the fit of the three parameters."""


class Runs(NamedTuple):
    """Sufficient statistics of the runs, with any leading batch dimensions."""

    n: Floats
    """Runs of each recipe, [..., recipes]; 0 for a recipe without one."""
    mean: Floats
    """Mean accuracy of each recipe, [..., recipes]; any number without a run."""
    squares: Floats
    """Sum over all recipes of the squared deviations from their means, [...]."""


def runs_of(accuracies: Sequence[Sequence[float]]) -> Runs:
    """Return the statistics of the runs of each recipe, independent of the order of a recipe's runs."""
    means = [math.fsum(values) / len(values) if values else 0.0 for values in accuracies]
    squares = math.fsum(
        (value - mean) ** 2 for values, mean in zip(accuracies, means, strict=True) for value in values
    )
    return Runs(
        np.array([len(values) for values in accuracies], float), np.array(means), np.array(squares, float)
    )


@dataclass(frozen=True)
class Posterior:
    """Posterior of the recipes' true means."""

    mean: Floats
    """[..., recipes]."""
    draws: Floats
    """Draws of all recipes' means together, [..., draws, recipes]."""

    @property
    def best_probability(self) -> Floats:
        """Probability of each recipe to be the best, [..., recipes]; tied recipes share it."""
        best = self.draws >= self.draws.max(axis=-1, keepdims=True)
        return cast("Floats", (best / best.sum(axis=-1, keepdims=True)).mean(axis=-2))

    @property
    def expected_loss(self) -> Floats:
        """Expected accuracy that choosing a recipe gives away to the best one, [..., recipes]."""
        return cast("Floats", self.losses.mean(axis=-2))

    @property
    def losses(self) -> Floats:
        """Accuracy that choosing a recipe gives away, by draw, [..., draws, recipes]."""
        return cast("Floats", self.draws.max(axis=-1, keepdims=True) - self.draws)


def posterior(
    runs: Runs, *, draws: int = DRAWS, limits: tuple[float, float] = (-math.inf, math.inf)
) -> Posterior:
    """Return the posterior of the recipes' means, given at least two runs in total.

    The mean is exact, not an average of the `draws`. `limits` are the lowest and highest possible mean.
    """
    n, mean = runs.n[..., None, :], runs.mean[..., None, :]  # [..., ratios or draws, recipes]
    outlier = _is_outlier(runs)[..., None, :]
    fitted = np.where(outlier, 0, n)
    squared = _RATIOS[:, None] ** 2
    weight = fitted / (1 + fitted * squared)
    total = weight.sum(-1)
    common = (weight * mean).sum(-1) / total
    squares = (weight * (mean - common[..., None]) ** 2).sum(-1) + runs.squares[..., None] + _LEAST_SQUARES
    freedom = fitted.sum(-1) - 1
    log_density = -0.5 * (np.log1p(fitted * squared).sum(-1) + np.log(total) + freedom * np.log(squares))
    density = np.exp(log_density - log_density.max(-1, keepdims=True))
    density /= density.sum(-1, keepdims=True)
    weight = 1 / (1 + n * np.where(outlier, _RATIOS[-1] ** 2, squared))
    shrunken = mean + weight * (common[..., None] - mean)
    expected = (density[..., None] * shrunken).sum(-2)

    random = _random_numbers(draws, runs.n.shape[-1])
    place = (density.cumsum(-1)[..., None, :] < random.ratio[:, None]).sum(-1).clip(max=len(_RATIOS) - 1)
    drawn = np.where(outlier, _RATIOS[-1] ** 2, _RATIOS[place][..., None] ** 2)
    variance = np.take_along_axis(squares, place, -1) / _chi_squared(random.scale, freedom)
    center = np.take_along_axis(common, place, -1)
    center += random.common * np.sqrt(variance / np.take_along_axis(total, place, -1))
    weight = 1 / (1 + n * drawn)
    means = mean + weight * (center[..., None] - mean)
    means += random.recipes * np.sqrt(variance[..., None] * drawn * weight)
    return Posterior(expected.clip(*limits), means.clip(*limits))


def _is_outlier(runs: Runs) -> NDArray[np.bool_]:
    """Return which recipes are so bad that they do not tell how much good recipes differ, [..., recipes].

    A diverged run at 10 % among recipes around 93 % is no draw from the same normal distribution.
    """
    known = np.where(runs.n > 0, runs.mean, np.nan)
    median = np.nanmedian(known, axis=-1, keepdims=True)
    spread = np.nanmax(known, axis=-1, keepdims=True) - median
    return cast("NDArray[np.bool_]", known < median - _OUTLIER * spread)


class _RandomNumbers(NamedTuple):
    ratio: Floats
    """Uniform and stratified, [draws]; as `scale`."""
    scale: Floats
    common: Floats
    """Standard normal, [draws]."""
    recipes: Floats
    """Standard normal, [draws, recipes]."""


@lru_cache(maxsize=8)
def _random_numbers(draws: int, recipes: int) -> _RandomNumbers:
    random = np.random.default_rng(0)
    ratio, scale = ((random.permutation(draws) + 0.5) / draws for _ in range(2))
    return _RandomNumbers(
        ratio, scale, random.standard_normal(draws), random.standard_normal((draws, recipes))
    )


def _chi_squared(quantiles: Floats, freedom: Floats) -> Floats:
    """Return the quantiles [draws] of chi-squared distributions, [..., draws] for `freedom` [..., 1]."""
    from scipy import stats  # imported here: it takes most of a second

    known, place = np.unique(freedom, return_inverse=True)
    table = np.stack([stats.chi2.ppf(quantiles, one) for one in known])
    return cast("Floats", table[place.reshape(freedom.shape[:-1])])
