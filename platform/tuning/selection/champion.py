"""Rank the trials of a search, and choose the champion from all runs at full budget.

The search ranks single runs, but the test accuracy of a CIFAR-10 run has a standard deviation over seeds of
about 0.12 percentage points (Jordan 2023, arXiv 2304.01910). The best configurations of the search are
therefore repeated with several seeds, and the highest expected accuracy wins. Only validation accuracy is
used.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Any

from platform.common.errors import UserError
from platform.common.schema import Frozen
from platform.common.text_format import percent, plural, probability_text
from platform.space.distributions import Scalar
from platform.space.settings import Objective
from platform.tracking.events import TrialStatus
from platform.tuning.journal.ledger import JournaledTrial
from platform.tuning.selection.posterior import posterior, runs_of


def top_candidates(
    trials: Sequence[JournaledTrial], k: int, objectives: Sequence[Objective] = ("validation_accuracy",)
) -> list[JournaledTrial]:
    """Return up to `k` distinct configurations, best first.

    Finished trials come first, by validation accuracy; ties go to the lower validation loss, then to the
    earlier trial. If there are fewer than `k`, trials stopped early follow, those with more epochs first.
    Failed trials and trials without an accuracy are excluded. With several objectives the ranking is
    restricted to the Pareto front, if it is not empty.

    Raises:
        UserError: no trial qualifies.
    """
    if len(objectives) > 1:
        trials = pareto_front(trials, objectives) or trials
    qualified = [
        trial
        for trial in trials
        if trial.status in (TrialStatus.FINISHED, TrialStatus.PRUNED) and trial.accuracy is not None
    ]
    if not qualified:
        raise UserError("no trial of the search has a validation accuracy; see the logs folder")
    distinct: dict[object, JournaledTrial] = {}
    for trial in sorted(qualified, key=_rank):
        distinct.setdefault(tuple(sorted(trial.task.params.items())), trial)
    return list(distinct.values())[:k]


def pareto_front(trials: Sequence[JournaledTrial], objectives: Sequence[Objective]) -> list[JournaledTrial]:
    """Return the completed trials that no other one dominates, the most accurate first.

    A trial dominates another if it is at least as good in every objective and better in one. Trials stopped
    early are excluded, because their accuracies are not comparable.
    """

    def losses(trial: JournaledTrial) -> list[float]:
        values = {**trial.task.costs, "validation_accuracy": -(trial.accuracy or 0.0)}
        return [values[name] for name in objectives]

    complete = [(trial, losses(trial)) for trial in trials if trial.completed]
    front = [
        trial
        for trial, own in complete
        if not any(other != own and all(map(operator.le, other, own)) for _, other in complete)
    ]
    return sorted(front, key=_rank)


def _rank(trial: JournaledTrial) -> tuple[float, ...]:
    last = trial.records[-1]
    loss = last.validation_loss
    return (
        not trial.completed,
        0 if trial.completed else -last.epoch / last.epochs,
        -(trial.accuracy or 0.0),
        loss if loss is not None and math.isfinite(loss) else math.inf,
        trial.task.number,
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
    verdict: str
    """The certainty of the choice in one or two sentences."""

    @property
    def estimate(self) -> Estimate | None:
        """The estimate of the champion."""
        return self.estimates.get(self.candidate)


def choose_champion(recipes: Sequence[Recipe], *, tolerance: float) -> Champion:
    """Return the confirmed recipe with the highest expected accuracy, or a cheaper one that is as good.

    `recipes` are all recipes with a run at full budget, the better search trials first; the first one of
    equal ones wins. Recipes whose expected loss is below `tolerance` are equally good.

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
        verdict=_verdict(champion.trial_id, estimates, others, best.trial_id, saving, tolerance),
    )


def estimate(recipes: Sequence[Recipe]) -> dict[str, Estimate]:
    """Return the estimate of each recipe from all runs together; none from fewer than two runs."""
    if sum(len(recipe.accuracies) for recipe in recipes) < 2:
        return {}
    import numpy as np

    found = posterior(runs_of([recipe.accuracies for recipe in recipes]), limits=(0.0, 1.0))
    intervals: Any = np.quantile(found.draws, (0.025, 0.975), axis=0).T.tolist()
    figures = {
        "mean": found.mean,
        "error": found.draws.std(axis=0),
        "best_probability": found.best_probability,
        "expected_loss": found.expected_loss,
        "loss_bound95": np.quantile(found.losses, 0.95, axis=0),
    }
    return {
        recipe.trial_id: Estimate(
            interval95=intervals[place], **{name: float(values[place]) for name, values in figures.items()}
        )
        for place, recipe in enumerate(recipes)
    }


def selection_document(
    champion: Champion, recipes: Sequence[Recipe], params: Mapping[str, Mapping[str, Scalar]]
) -> dict[str, Any]:
    """Return the content of selection.json about the recipes, given the parameters of each search trial."""
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
        and {"trial_id": single.trial_id, "accuracy": accuracy, "estimate": estimates.get(single.trial_id)},
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
