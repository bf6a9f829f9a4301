"""Choose the best configuration from repeated runs and test whether its lead is significant.

The search ranks single runs, but the test accuracy of a CIFAR-10 run has a standard deviation over seeds of
about 0.12 percentage points (Jordan 2023, arXiv 2304.01910). The best configurations of the search are
therefore repeated with several seeds, and the highest mean wins. Only validation accuracy is used.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from platform.common.errors import UserError
from platform.common.schema import Frozen
from platform.common.text_format import percent
from platform.space.distributions import Scalar
from platform.space.pareto import non_dominated
from platform.space.settings import Objective
from platform.tracking.events import TrialStatus

_CONFIDENCE = 0.95


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


class CandidateSummary(Frozen):
    """A configuration's validation accuracy over seeds, as fractions of 1."""

    candidate: str
    """Id of the search trial whose configuration was repeated."""
    accuracies: tuple[float, ...]
    """One per finished run, in seed order."""
    n: int
    mean: float
    std: float | None
    """Sample standard deviation (n - 1); None for a single run."""
    interval95: tuple[float, float] | None
    """95 % confidence interval of the mean (Student's t), clipped to 0..1; None for a single run."""


def summarize(candidate: str, accuracies: Sequence[float]) -> CandidateSummary:
    """Return the mean, standard deviation and confidence interval of a candidate's runs.

    Raises:
        UserError: `accuracies` is empty.
    """
    if not accuracies:
        raise UserError(f"no confirmation run of candidate {candidate} finished; see the logs folder")
    n, mean = len(accuracies), statistics.fmean(accuracies)
    std = statistics.stdev(accuracies) if n > 1 else None
    interval = None
    if std is not None:
        half = _t_quantile(n - 1) * std / math.sqrt(n)
        interval = (max(0.0, mean - half), min(1.0, mean + half))
    return CandidateSummary(
        candidate=candidate, accuracies=tuple(accuracies), n=n, mean=mean, std=std, interval95=interval
    )


class Champion(Frozen):
    """The configuration with the highest mean, compared with the runner-up."""

    candidate: str
    summary: CandidateSummary
    runner_up: CandidateSummary | None
    """None if there was only one candidate."""
    difference: float | None
    """Mean of the champion minus mean of the runner-up."""
    difference_interval95: tuple[float, float] | None
    """95 % confidence interval of the difference (Welch's t-test); None if either has a single run."""
    separated: bool | None
    """Whether the difference is significant (the interval excludes zero); None without an interval."""
    verdict: str
    """The comparison as a sentence, with n and standard deviations."""


def choose_champion(summaries: Sequence[CandidateSummary]) -> Champion:
    """Return the candidate with the highest mean; ties go to the one listed first (better in the search).

    Raises:
        UserError: there are no candidates.
    """
    if not summaries:
        raise UserError("no candidate was confirmed, so there is no champion; see the logs folder")
    best, *others = sorted(summaries, key=lambda summary: -summary.mean)
    runner_up = others[0] if others else None
    interval = welch_interval(best, runner_up) if runner_up else None
    return Champion(
        candidate=best.candidate,
        summary=best,
        runner_up=runner_up,
        difference=best.mean - runner_up.mean if runner_up else None,
        difference_interval95=interval,
        separated=None if interval is None else interval[0] > 0,
        verdict=_verdict(best, runner_up, interval),
    )


def welch_interval(first: CandidateSummary, second: CandidateSummary) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of `first.mean - second.mean` (Welch 1947).

    Returns:
        The interval, or None if either candidate has a single run.
    """
    if first.std is None or second.std is None:
        return None
    difference = first.mean - second.mean
    variances = (first.std**2 / first.n, second.std**2 / second.n)
    variance = sum(variances)
    if variance == 0:
        return (difference, difference)
    freedom = variance**2 / (variances[0] ** 2 / (first.n - 1) + variances[1] ** 2 / (second.n - 1))
    half = _t_quantile(freedom) * math.sqrt(variance)
    return (difference - half, difference + half)


def _t_quantile(freedom: float) -> float:
    """Return the quantile of Student's t that bounds a two-sided interval of `_CONFIDENCE`."""
    from scipy import stats  # imported here: it takes most of a second

    return float(stats.t.ppf((1 + _CONFIDENCE) / 2, freedom))


def _verdict(
    best: CandidateSummary, runner_up: CandidateSummary | None, interval: tuple[float, float] | None
) -> str:
    reached = f"{best.candidate} reached {_accuracy(best)} (n = {best.n}) on validation"
    if runner_up is None:
        return f"{reached}; it was the only candidate."
    lead = (
        f"{100 * (best.mean - runner_up.mean):.2f} points above {runner_up.candidate} "
        f"({_accuracy(runner_up)}, n = {runner_up.n})"
    )
    if interval is None:
        return (
            f"{reached}, {lead}; the difference cannot be tested, because a single run has no standard "
            "deviation."
        )
    significant = "significant" if interval[0] > 0 else "not significant"
    low, high = (100 * bound for bound in interval)
    return (
        f"{reached}, {lead}; the difference is {significant} "
        f"(95 % CI {low:+.2f} to {high:+.2f}, Welch's t-test; ± is the standard deviation)."
    )


def _accuracy(summary: CandidateSummary) -> str:
    mean = percent(summary.mean)
    return mean if summary.std is None else f"{mean} ± {100 * summary.std:.2f}"
