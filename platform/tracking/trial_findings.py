"""Group the diagnostics findings of a sweep's trials by kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from platform.tracking.results import SweepResults
from platform.training.diagnostics.diagnose import diagnose
from platform.training.diagnostics.findings import Finding


@dataclass(frozen=True, kw_only=True)
class FindingGroup:
    """A kind of finding, and the finished trials that have it."""

    name: str
    trials: tuple[str, ...]
    """In the order of the sweep, except that the final run comes first."""
    finding: Finding
    """The finding of the first trial."""


def grouped_findings(results: SweepResults) -> list[FindingGroup]:
    """Return the findings of the completed trials, most severe first; none for a quick sweep.

    Pruned trials are left out because their learning curves are incomplete.
    """
    classes = _classes(results.export) or _classes(results.test)
    if classes is None or results.quick:
        return []
    completed = sorted((row for row in results.trials if row.completed), key=lambda row: row.stage != "final")
    found: dict[str, list[tuple[str, Finding]]] = {}
    for row in completed:
        for finding in diagnose(results.epochs.get(row.trial_id, ()), classes=classes):
            found.setdefault(finding.name, []).append((row.trial_id, finding))
    return [
        FindingGroup(name=name, trials=tuple(trial_id for trial_id, _ in pairs), finding=pairs[0][1])
        for name, pairs in found.items()
    ]


def findings_by_trial(found: Sequence[FindingGroup]) -> dict[str, list[str]]:
    """Return the names of the findings of each trial that has any."""
    names: dict[str, list[str]] = {}
    for group in found:
        for trial_id in group.trials:
            names.setdefault(trial_id, []).append(group.name)
    return names


def _classes(file: Mapping[str, Any] | None) -> int | None:
    """Return the number of classes in the contents of model.json or test.json."""
    names = ((file or {}).get("output") or {}).get("classes") or (file or {}).get("class_names")
    return len(names) if isinstance(names, list) else None
