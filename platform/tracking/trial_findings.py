"""Group the diagnostics findings of a sweep's trials by kind, and find where in the space they occur."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from platform.common.text_format import value_text
from platform.tracking.events import TrialStatus
from platform.tracking.parquet_tables import TrialRow
from platform.tracking.results import SweepResults
from platform.training.diagnostics.diagnose import diagnose
from platform.training.diagnostics.findings import DESCRIPTIONS, Finding, TrainingDiverged
from platform.training.records import EpochRecord

ENDED_EARLY = "ended early"
"""Beginning of the note of a trial that the search ended because it was hopeless."""
_SIGNIFICANCE = 0.05
_SHARE = 0.7
"""Part of a region's trials that have the finding, and part of the trials with it that lie in the region."""


@dataclass(frozen=True, kw_only=True)
class FindingGroup:
    """A kind of finding, and the trials that have it."""

    name: str
    trials: tuple[str, ...]
    """In the order of the sweep, except that the final run comes first."""
    finding: Finding
    """The finding of the first trial."""
    region: str = ""
    """The settings that the search trials with it have in common; empty if there are none."""


def grouped_findings(results: SweepResults) -> list[FindingGroup]:
    """Return the findings of the trials, most severe first; none for a quick sweep.

    Trials that the scheduler stopped have incomplete curves. Of their findings only divergence counts.
    """
    classes = number_of_classes(results)
    if classes is None or results.quick:
        return []
    rows = sorted(results.trials, key=lambda row: row.stage != "final")
    found: dict[str, list[tuple[TrialRow, Finding]]] = {}
    for row in rows:
        if row.status not in (TrialStatus.FINISHED, TrialStatus.PRUNED) and not has_diverged(row):
            continue
        for finding in _findings(row, results.epochs.get(row.trial_id, ()), classes):
            found.setdefault(finding.name, []).append((row, finding))
    search = [row for row in results.of_stage("search") if row.epochs_done or has_diverged(row)]
    return [
        FindingGroup(
            name=name,
            trials=tuple(row.trial_id for row, _ in found[name]),
            finding=found[name][0][1],
            region=_region(search, {row.trial_id for row, _ in found[name]}),
        )
        for name in DESCRIPTIONS
        if name in found
    ]


def _findings(row: TrialRow, records: Sequence[EpochRecord], classes: int) -> list[Finding]:
    found = diagnose(records, classes=classes, stopped=has_diverged(row))
    if row.completed:
        return list(found)
    note = row.note or ""
    if not note.startswith(ENDED_EARLY):
        return [finding for finding in found if finding.name == "divergence"]
    if found or not records:
        return list(found)
    evidence = note.removeprefix(f"{ENDED_EARLY}: ")
    return [Finding(name="underfitting", epochs=(records[-1].epoch,), evidence=evidence)]


def findings_by_trial(found: Sequence[FindingGroup]) -> dict[str, list[str]]:
    """Return the names of the findings of each trial that has any."""
    names: dict[str, list[str]] = {}
    for group in found:
        for trial_id in group.trials:
            names.setdefault(trial_id, []).append(group.name)
    return names


def has_diverged(row: TrialRow) -> bool:
    """Return whether the trainer ended a trial because a value was not finite."""
    return TrainingDiverged.__name__ in (row.error or "")


def number_of_classes(results: SweepResults) -> int | None:
    """Return the number of classes in a sweep's files; None if no file has it yet."""
    return _classes(results.export) or _classes(results.test)


def _classes(file: Mapping[str, Any] | None) -> int | None:
    """Return the number of classes in the contents of model.json or test.json."""
    names = ((file or {}).get("output") or {}).get("classes") or (file or {}).get("class_names")
    return len(names) if isinstance(names, list) else None


def _region(rows: Sequence[TrialRow], affected: set[str]) -> str:
    """Return the half-line or value of one setting that separates the affected trials best, as text.

    A region is only reported if Fisher's exact test finds the trials inside it affected more often than the
    others, corrected for the number of regions tried.
    """
    regions = [
        (f"{name} {sign} {value_text(value)}", inside, hits)
        for name in dict.fromkeys(name for row in rows for name in row.params)
        for sign, value, inside, hits in _regions(
            [(row.params[name], row.trial_id in affected) for row in rows if name in row.params]
        )
        if 0 < inside < len(rows)
    ]
    best = ""
    lowest = _SIGNIFICANCE / max(1, len(regions))
    total = sum(row.trial_id in affected for row in rows)
    for text, inside, hits in regions:
        if not total or hits < _SHARE * max(inside, total):
            continue
        p = _fisher_p(hits, inside, total, len(rows))
        if p < lowest:
            lowest = p
            outside = f"{total - hits} of the {len(rows) - inside} others"
            best = f"{text}: {hits} of {inside} trials, and {outside}"
    return best


def _regions(trials: Sequence[tuple[Any, bool]]) -> Iterator[tuple[str, Any, int, int]]:
    """Yield (comparison, value, trials inside, affected ones of them) for each value of a setting.

    Args:
        trials: the value of each trial, and whether the trial is affected.
    """
    values = dict.fromkeys(value for value, _ in trials)
    if any(isinstance(value, bool | str) for value in values):
        for value in values:
            hits = [hit for other, hit in trials if other == value]
            yield "=", value, len(hits), sum(hits)
        return
    # Sorted, because every trial may have its own value of a continuous setting.
    trials = sorted(trials)
    numbers = [value for value, _ in trials]
    before = [0, *accumulate(hit for _, hit in trials)]
    for value in values:
        start, end = bisect_left(numbers, value), bisect_right(numbers, value)
        yield ">=", value, len(trials) - start, before[-1] - before[start]
        yield "<=", value, end, before[end]


def _fisher_p(hits: int, inside: int, affected: int, trials: int) -> float:
    """Return the probability of at least `hits` affected trials inside by chance."""
    from scipy.stats import hypergeom

    return float(hypergeom.sf(hits - 1, trials, affected, inside))
