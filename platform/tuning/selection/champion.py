"""Rank the trials of a search, and choose the champion from all runs at full budget.

The search ranks single runs, but the test accuracy of a CIFAR-10 run has a standard deviation over seeds of
about 0.12 percentage points (Jordan 2023, arXiv 2304.01910). The best configurations of the search are
therefore repeated with several seeds, and the highest expected accuracy wins. Only validation accuracy is
used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist, fmean
from typing import Any

from platform.common.errors import UserError
from platform.common.schema import Frozen
from platform.common.text_format import percent, plural, probability_text
from platform.space.distributions import Scalar
from platform.space.pareto import non_dominated
from platform.space.settings import Objective
from platform.tracking.events import TrialStatus
from platform.tuning.selection.posterior import Posterior, posterior, runs_of

_TAILS = (0.025, 0.975)


@dataclass(frozen=True, kw_only=True)
class RankedTrial:
    """A search trial, as input of the ranking."""

    trial_id: str
    number: int
    status: TrialStatus
    epoch: int
    """Number of trained epochs."""
    epochs: int
    """Epochs of the full budget."""
    validation_accuracy: float | None
    validation_loss: float | None
    params: Mapping[str, Scalar] = field(default_factory=dict)
    """Trials with equal parameters are one candidate."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Costs of the network by objective name."""


def top_candidates(
    trials: Iterable[RankedTrial], k: int, objectives: Sequence[Objective] = ("validation_accuracy",)
) -> list[RankedTrial]:
    """Return up to `k` distinct configurations, best first.

    Finished trials come first, by validation accuracy; ties go to the lower validation loss, then to the
    earlier trial. If there are fewer than `k`, trials stopped early follow, those with more epochs first.
    Failed trials and trials without an accuracy are excluded. With several objectives the ranking is
    restricted to the Pareto front, if it is not empty.

    Raises:
        UserError: no trial qualifies.
    """
    trials = list(trials)
    if len(objectives) > 1:
        trials = pareto_front(trials, objectives) or trials
    qualified = [
        trial
        for trial in trials
        if trial.status in (TrialStatus.FINISHED, TrialStatus.PRUNED)
        and trial.validation_accuracy is not None
        and math.isfinite(trial.validation_accuracy)
    ]
    if not qualified:
        raise UserError("no trial of the search has a validation accuracy; see the logs folder")
    distinct: dict[object, RankedTrial] = {}
    for trial in sorted(qualified, key=_rank):
        configuration = tuple(sorted(trial.params.items())) if trial.params else trial.trial_id
        distinct.setdefault(configuration, trial)
    return list(distinct.values())[:k]


def pareto_front(trials: Iterable[RankedTrial], objectives: Sequence[Objective]) -> list[RankedTrial]:
    """Return the finished trials that no other one dominates, the most accurate first.

    Trials stopped early are excluded, because their accuracies are not comparable.

    Args:
        trials: the trials of the search.
        objectives: validation accuracy and costs.
    """
    finished = {
        trial.trial_id: trial
        for trial in trials
        if trial.status is TrialStatus.FINISHED
        and trial.validation_accuracy is not None
        and math.isfinite(trial.validation_accuracy)
    }
    points = {
        name: {**trial.costs, "validation_accuracy": trial.validation_accuracy or 0.0}
        for name, trial in finished.items()
    }
    return sorted((finished[name] for name in non_dominated(points, objectives)), key=_rank)


def _rank(trial: RankedTrial) -> tuple[float, ...]:
    finished = trial.status is TrialStatus.FINISHED and trial.epoch >= trial.epochs
    loss = trial.validation_loss
    return (
        not finished,
        0 if finished else -trial.epoch / max(1, trial.epochs),
        -(trial.validation_accuracy or 0.0),
        loss if loss is not None and math.isfinite(loss) else math.inf,
        trial.number,
    )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A configuration with its runs at full budget; accuracies are fractions of 1."""

    trial_id: str
    """Of its search trial."""
    searched: float | None
    """Validation accuracy of the search trial; None if that was stopped early."""
    confirmed: tuple[float, ...] = ()
    """Validation accuracies of its finished confirmation runs."""
    costs: tuple[tuple[str, float], ...] = ()
    """Costs of a run, the most important first; recipes are compared if the names are equal."""

    @property
    def accuracies(self) -> tuple[float, ...]:
        """All runs at full budget."""
        return self.confirmed if self.searched is None else (self.searched, *self.confirmed)


class Estimate(Frozen):
    """Conclusions from all runs of the sweep about one recipe; accuracies are fractions of 1."""

    mean: float
    """Expected accuracy of a run, shrunken toward the common mean of the recipes."""
    error: float
    """Standard deviation of that mean."""
    interval95: tuple[float, float]
    """Contains the true mean with 95 % probability."""
    best_probability: float
    """Probability to be the best recipe of the sweep."""
    expected_loss: float
    """Accuracy that choosing this recipe is expected to give away to the best one."""
    loss_bound95: float
    """Accuracy that choosing it gives away at most, with 95 % probability."""


class Champion(Frozen):
    """The chosen recipe."""

    candidate: str
    """Id of its search trial."""
    estimates: dict[str, Estimate]
    """By recipe; empty if there is a single run, which tells nothing about the noise."""
    equal: tuple[str, ...] = ()
    """Other confirmed recipes whose expected loss is below the tolerance."""
    cheaper_than: str | None = None
    """The recipe with the highest expected accuracy, if the champion was preferred for its cost."""
    cheaper_by: str | None = None
    """Name of that cost."""
    verdict: str
    """The certainty of the choice in one or two sentences."""

    @property
    def estimate(self) -> Estimate | None:
        """The estimate of the champion."""
        return self.estimates.get(self.candidate)


def choose_champion(recipes: Sequence[Recipe], *, tolerance: float) -> Champion:
    """Return the confirmed recipe with the highest expected accuracy, or a cheaper one that is as good.

    Args:
        recipes: all recipes of the sweep with a run at full budget, the better search trials first; the first
            one of equal ones wins.
        tolerance: recipes with a lower expected loss are equally good.

    Raises:
        UserError: no recipe is confirmed.
    """
    confirmed = [recipe for recipe in recipes if recipe.confirmed]
    if not confirmed:
        raise UserError("no candidate was confirmed, so there is no champion; see the logs folder")
    estimates = estimate(recipes)
    if not estimates:
        [only] = confirmed
        verdict = f"{only.trial_id} reached {percent(only.confirmed[0])} in the only run at full budget."
        return Champion(candidate=only.trial_id, estimates={}, verdict=verdict)
    best = max(confirmed, key=lambda recipe: estimates[recipe.trial_id].mean)
    equal = [one for one in confirmed if one is best or estimates[one.trial_id].expected_loss < tolerance]
    champion = best
    for recipe in equal:
        if _cheaper_by(recipe, champion):
            champion = recipe
    others = tuple(recipe.trial_id for recipe in equal if recipe is not champion)
    saving = _cheaper_by(champion, best)
    return Champion(
        candidate=champion.trial_id,
        estimates=estimates,
        equal=others,
        cheaper_than=best.trial_id if saving else None,
        cheaper_by=saving,
        verdict=_verdict(champion.trial_id, estimates, others, best.trial_id, saving, tolerance),
    )


def estimate(recipes: Sequence[Recipe]) -> dict[str, Estimate]:
    """Return the estimate of each recipe from all runs together; none from fewer than two runs."""
    if sum(len(recipe.accuracies) for recipe in recipes) < 2:
        return {}
    import numpy as np

    found: Posterior = posterior(runs_of([recipe.accuracies for recipe in recipes]), limits=(0.0, 1.0))
    low, high = np.quantile(found.draws, _TAILS, axis=0)
    values = zip(
        found.mean,
        found.draws.std(axis=0),
        low,
        high,
        found.best_probability,
        found.expected_loss,
        np.quantile(found.losses, 0.95, axis=0),
        strict=True,
    )
    return {
        recipe.trial_id: Estimate(
            mean=mean,
            error=error,
            interval95=(low, high),
            best_probability=probability,
            expected_loss=loss,
            loss_bound95=bound,
        )
        for recipe, row in zip(recipes, values, strict=True)
        for mean, error, low, high, probability, loss, bound in (map(float, row),)
    }


def selection_document(
    champion: Champion, recipes: Sequence[Recipe], params: Mapping[str, Mapping[str, Scalar]]
) -> dict[str, Any]:
    """Return the content of selection.json about the recipes.

    Args:
        champion: the chosen recipe.
        recipes: all recipes with a run at full budget.
        params: the parameters of each search trial.
    """
    estimates = {name: one.model_dump(mode="json") for name, one in champion.estimates.items()}
    searched = [(recipe.searched, recipe) for recipe in recipes if recipe.searched is not None]
    accuracy, single = max(searched, key=lambda found: found[0], default=(0.0, None))
    return {
        "candidates": [
            {
                "trial_id": recipe.trial_id,
                "params": dict(params[recipe.trial_id]),
                "n": len(recipe.confirmed),
                "mean": fmean(recipe.confirmed),
                "accuracies": recipe.confirmed,
                "searched": recipe.searched,
                "estimate": estimates.get(recipe.trial_id),
            }
            for recipe in recipes
            if recipe.confirmed
        ],
        "recipes": len(recipes),
        "champion": champion.candidate,
        "equal": champion.equal,
        "cheaper_than": champion.cheaper_than,
        "verdict": champion.verdict,
        "best_single_run": single
        and {
            "trial_id": single.trial_id,
            "accuracy": accuracy,
            "estimate": estimates.get(single.trial_id),
        },
    }


def better_probability(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return the probability that the first of two normal estimates (mean, standard deviation) is higher."""
    difference, error = one[0] - other[0], math.hypot(one[1], other[1])
    if error == 0:
        return 0.5 if difference == 0 else float(difference > 0)
    return NormalDist().cdf(difference / error)


def _cheaper_by(one: Recipe, other: Recipe) -> str | None:
    """Return the first cost that differs, if `one` is cheaper in it; else, or without equal names, None."""
    if [name for name, _ in one.costs] != [name for name, _ in other.costs]:
        return None
    for (name, cost), (_, limit) in zip(one.costs, other.costs, strict=True):
        if cost != limit:
            return name if cost < limit else None
    return None


def _verdict(
    champion: str,
    estimates: Mapping[str, Estimate],
    equal: Sequence[str],
    best: str,
    saving: str | None,
    tolerance: float,
) -> str:
    own = estimates[champion]
    if len(estimates) == 1:
        return f"{champion} is the only recipe with a run at full budget."
    text = (
        f"{champion} is the best of {plural(len(estimates), 'recipe')} with "
        f"{probability_text(own.best_probability)}; choosing it costs "
        f"{100 * own.expected_loss:.2f} points in expectation, at most "
        f"{100 * own.loss_bound95:.2f} with 95 %."
    )
    if equal:
        text += f" {', '.join((champion, *equal))} are equally good within {100 * tolerance:g} points"
        text += f"; {champion} was preferred to {best} for its cost: {saving}." if saving else "."
    return text
