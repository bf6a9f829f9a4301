"""Which configuration wins, and whether it truly does.

The search ranks single runs, and a single CIFAR-10 run differs from its repetition by about 0.12
percentage points (standard deviation over seeds, Jordan 2023, arXiv 2304.01910). So the best few are
repeated over several seeds, and the winner is the best mean. Everything here looks at validation only.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from platform.errors import UserError
from platform.schema import Frozen
from platform.space.distributions import Scalar
from platform.space.pareto import non_dominated
from platform.space.settings import Objective
from platform.tracking.events import TrialStatus

_LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class RankedTrial:
    """What the selection needs to know of a search trial."""

    trial_id: str
    number: int
    status: TrialStatus
    epoch: int
    """Epochs it trained."""
    epochs: int
    """Epochs of its full budget."""
    validation_accuracy: float | None
    validation_loss: float | None
    params: Mapping[str, Scalar] = field(default_factory=dict)
    """Trials of equal parameters count as one candidate."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """What its network costs, by objective."""


def top_candidates(
    trials: Iterable[RankedTrial], k: int, objectives: Sequence[Objective] = ("validation_accuracy",)
) -> list[RankedTrial]:
    """Return the best `k` distinct configurations, best first; fewer if there are not so many.

    With several objectives they are the most accurate of the Pareto front, where there is one.

    Trials that finished their budget come first, by validation accuracy; ties go to the lower
    validation loss, then to the earlier trial. Stopped ones follow only where finished ones do not
    suffice: those that came farther first. Failed ones, and those without an accuracy, never.

    Raises:
        UserError: no trial can be a candidate.
    """
    trials = list(trials)
    if len(objectives) > 1:
        trials = pareto_front(trials, objectives) or trials
    able = [
        trial
        for trial in trials
        if trial.status in (TrialStatus.FINISHED, TrialStatus.PRUNED)
        and trial.validation_accuracy is not None
        and math.isfinite(trial.validation_accuracy)
    ]
    if not able:
        raise UserError(
            "no trial of the search finished, so there is nothing to choose from; see the logs folder"
        )
    distinct: dict[object, RankedTrial] = {}
    for trial in sorted(able, key=_rank):
        same = tuple(sorted(trial.params.items())) if trial.params else trial.trial_id
        distinct.setdefault(same, trial)
    return list(distinct.values())[:k]


def pareto_front(trials: Iterable[RankedTrial], objectives: Sequence[Objective]) -> list[RankedTrial]:
    """Return the whole runs that no other one beats in every objective, the most accurate first.

    Trials that were stopped early are not among them: their accuracy does not compare.

    Args:
        trials: of the search.
        objectives: accuracy, and the costs that count.
    """
    whole = {
        trial.trial_id: trial
        for trial in trials
        if trial.status is TrialStatus.FINISHED
        and trial.validation_accuracy is not None
        and math.isfinite(trial.validation_accuracy)
    }
    points = {
        name: {**trial.costs, "validation_accuracy": trial.validation_accuracy or 0.0}
        for name, trial in whole.items()
    }
    return sorted((whole[name] for name in non_dominated(points, objectives)), key=_rank)


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
    """A configuration's validation accuracy (0..1) over seeds."""

    candidate: str
    """The search trial whose configuration was repeated."""
    accuracies: tuple[float, ...]
    """One per finished run, in order of the seeds."""
    n: int
    mean: float
    std: float | None
    """Sample standard deviation (n - 1); None for a single run."""
    interval95: tuple[float, float] | None
    """95 % interval of the mean by Student's t, cut at 0 and 1; None for a single run."""


def summarize(candidate: str, accuracies: Sequence[float]) -> CandidateSummary:
    """Return mean, spread and interval of a candidate's runs; UserError if none finished."""
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
    """The configuration that won, and how surely."""

    candidate: str
    summary: CandidateSummary
    second: CandidateSummary | None
    """The next best; None if there was one candidate only."""
    difference: float | None
    """Mean of the champion less mean of the second."""
    difference_interval95: tuple[float, float] | None
    """95 % interval of the difference by Welch's t; None where a single run has no spread."""
    separated: bool | None
    """Whether the interval excludes zero; None where nothing can be said."""
    verdict: str
    """The same in words, with n and spread."""


def choose_champion(summaries: Sequence[CandidateSummary]) -> Champion:
    """Return the candidate of the best mean; ties go to the one listed first (the better in the search).

    Raises:
        UserError: there are no candidates.
    """
    if not summaries:
        raise UserError("no candidate was confirmed, so there is no champion; see the logs folder")
    first, *others = sorted(summaries, key=lambda summary: -summary.mean)
    second = others[0] if others else None
    difference = first.mean - second.mean if second else None
    interval = welch_interval(first, second) if second else None
    separated = None if interval is None else interval[0] > 0
    return Champion(
        candidate=first.candidate,
        summary=first,
        second=second,
        difference=difference,
        difference_interval95=interval,
        separated=separated,
        verdict=_verdict(first, second, interval),
    )


def welch_interval(first: CandidateSummary, second: CandidateSummary) -> tuple[float, float] | None:
    """Return the 95 % interval of the difference of two means (Welch 1947); None if one has no spread."""
    if first.std is None or second.std is None:
        return None
    difference = first.mean - second.mean
    parts = (first.std**2 / first.n, second.std**2 / second.n)
    variance = sum(parts)
    if variance == 0:
        return (difference, difference)
    freedom = variance**2 / (parts[0] ** 2 / (first.n - 1) + parts[1] ** 2 / (second.n - 1))
    half = _t_quantile(freedom) * math.sqrt(variance)
    return (difference - half, difference + half)


def _t_quantile(freedom: float) -> float:
    """Return the quantile of Student's t that bounds a two-sided interval of `_LEVEL`."""
    from scipy import stats  # imported here: it takes most of a second

    return float(stats.t.ppf((1 + _LEVEL) / 2, freedom))


def _verdict(
    first: CandidateSummary, second: CandidateSummary | None, interval: tuple[float, float] | None
) -> str:
    winner = f"{first.candidate} reached {_figures(first)} on validation"
    if second is None:
        return f"{winner}. It was the only candidate, so it was compared with none."
    runner_up = f"{second.candidate} {_figures(second)}"
    points = f"{100 * (first.mean - second.mean):.2f} percentage points"
    if interval is None:
        return (
            f"{winner}, ahead of {runner_up} by {points}. With a single run of one of them there is no "
            "spread to compare with: nothing can be said about which is better."
        )
    between = f"(95 % interval {100 * interval[0]:+.2f} to {100 * interval[1]:+.2f}, Welch's t)"
    if interval[0] > 0:
        return f"{winner}, ahead of {runner_up} by {points} {between}: the two are separated."
    return (
        f"{winner}, ahead of {runner_up} by {points} {between}: the two are not separated, "
        "and a repetition could reverse them."
    )


def _figures(summary: CandidateSummary) -> str:
    mean = f"{100 * summary.mean:.2f} %"
    if summary.std is None:
        return f"{mean} (n = 1)"
    return f"{mean} +- {100 * summary.std:.2f} (standard deviation, n = {summary.n})"
