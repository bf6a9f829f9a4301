"""Score the diagnosis of recorded runs: recall per fault, false alarms, confusion; and fit its thresholds.

Runs are split by recipe, so that no recipe is in both halves: thresholds are fitted on one half and judged on
the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

from benchmarks.diagnostics.gallery import HEALTHY
from benchmarks.diagnostics.recording import RecordedRun
from platform.training.diagnostics.diagnose import diagnose
from platform.training.diagnostics.findings import DESCRIPTIONS
from platform.training.diagnostics.thresholds import Thresholds
from platform.tuning.stop_criteria import hopeless

CLASSES = 10
NOTHING = "nothing"
Half = Literal["fitted", "unseen"]
TARGETS = {
    "loss spikes": 0.9,
    "divergence": 0.9,
    "overfitting": 0.9,
    "underfitting": 0.9,
    "vanishing gradients": 0.9,
    "exploding gradients": 0.9,
    "dead units": 0.9,
}
"""Recall that a fault should reach; 0.8 for the others."""
OTHER_TARGET = 0.8
FALSE_ALARMS_TARGET = 1 / 50
_FACTORS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5)


@dataclass(frozen=True, kw_only=True)
class Score:
    """The diagnosis of all runs with one fault."""

    fault: str
    runs: int
    found: int
    """Runs in which the fault is among the findings."""
    alone: int
    """Runs in which it is the only finding; for healthy runs, those without a finding."""
    named: Mapping[str, int]
    """Number of runs with each finding; a run can have several."""

    @property
    def recall(self) -> float:
        """Part of the runs in which the fault was found."""
        return self.found / self.runs if self.runs else float("nan")


def half_of(runs: Sequence[RecordedRun], half: Half) -> list[RecordedRun]:
    """Return the runs of every second recipe of each fault, in the order of the recipes' names."""
    recipes: dict[str, list[str]] = {}
    for run in runs:
        known = recipes.setdefault(run.fault, [])
        if run.recipe not in known:
            known.append(run.recipe)
    parity = {"fitted": 0, "unseen": 1}[half]
    return [run for run in runs if sorted(recipes[run.fault]).index(run.recipe) % 2 == parity]


def scores(runs: Sequence[RecordedRun], thresholds: Thresholds = Thresholds()) -> list[Score]:  # noqa: B008
    """Return one score per fault, healthy runs first."""
    order = [HEALTHY, *DESCRIPTIONS]
    found: dict[str, list[list[str]]] = {fault: [] for fault in order}
    for run in runs:
        found[run.fault].append(_names(run, thresholds))
    return [
        Score(
            fault=fault,
            runs=len(names),
            found=sum((fault in each) if fault != HEALTHY else not each for each in names),
            alone=sum(each == ([fault] if fault != HEALTHY else []) for each in names),
            named=Counter(name for each in names for name in each or [NOTHING]),
        )
        for fault, names in found.items()
    ]


def _names(run: RecordedRun, thresholds: Thresholds) -> list[str]:
    findings = diagnose(run.epochs, classes=CLASSES, stopped=run.stopped, thresholds=thresholds)
    return [finding.name for finding in findings]


def fit_thresholds(runs: Sequence[RecordedRun]) -> Iterator[tuple[str, float, float, float]]:
    """Fit one threshold after the other, and yield (name, value, lower and upper end of equal quality).

    A threshold in the range of the best quality stays, because most come from publications. Otherwise it
    becomes the geometric middle of that range, which keeps a distance from the runs on both sides.
    """
    limits = Thresholds()
    for each in fields(Thresholds):
        start = getattr(limits, each.name)
        values = [start * factor for factor in _FACTORS]
        quality = [_quality(runs, replace(limits, **{each.name: value})) for value in values]
        best = [value for value, got in zip(values, quality, strict=True) if got >= max(quality) - 1e-9]
        middle = start if start in best else float(f"{(best[0] * best[-1]) ** 0.5:.2g}")
        if _quality(runs, replace(limits, **{each.name: middle})) < max(quality) - 1e-9:
            middle = best[len(best) // 2]
        limits = replace(limits, **{each.name: middle})
        yield each.name, middle, best[0], best[-1]


def _quality(runs: Sequence[RecordedRun], thresholds: Thresholds) -> float:
    """Return the mean recall plus the mean share of exact diagnoses, less the weighted false alarms."""
    healthy, *faults = scores(runs, thresholds)
    recorded = [score for score in faults if score.runs]
    right = sum(score.found / score.runs + score.alone / score.runs for score in recorded) / len(recorded)
    return right - 10 * (1 - healthy.recall)


@dataclass(frozen=True, kw_only=True)
class EarlyStops:
    """The runs with one fault that a sweep would have ended early."""

    fault: str
    runs: int
    """Runs that the trainer itself did not end."""
    ended: int
    saved: float
    """Part of the epochs of all runs that were not needed, 0..1."""


def early_stops(runs: Sequence[RecordedRun]) -> list[EarlyStops]:
    """Return which runs a sweep would have ended early, one entry per fault in the order of the runs."""
    faults = list(dict.fromkeys(run.fault for run in runs))
    return [
        _of_fault(fault, [run for run in runs if run.fault == fault and not run.stopped]) for fault in faults
    ]


def _of_fault(fault: str, runs: Sequence[RecordedRun]) -> EarlyStops:
    last = [_last_epoch(run) for run in runs]
    planned = sum(len(run.epochs) for run in runs)
    return EarlyStops(
        fault=fault,
        runs=len(runs),
        ended=sum(epoch < len(run.epochs) for epoch, run in zip(last, runs, strict=True)),
        saved=1 - sum(last) / planned if planned else 0.0,
    )


def _last_epoch(run: RecordedRun) -> int:
    """Return the epoch after which a sweep would end the run."""
    for count in range(1, len(run.epochs)):
        if hopeless(run.epochs[:count], classes=CLASSES) is not None:
            return count
    return len(run.epochs)
