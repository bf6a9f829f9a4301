"""What ails the trials of a sweep: the diagnoses of single runs, gathered by phenomenon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from platform.tracking.results import SweepResults
from platform.training.diagnostics.diagnose import diagnose
from platform.training.diagnostics.findings import Finding


@dataclass(frozen=True, kw_only=True)
class Ailment:
    """One phenomenon, and the finished trials that show it."""

    name: str
    trials: tuple[str, ...]
    """In the order of the sweep, but the run whose model ships comes first."""
    finding: Finding
    """Of the first of them."""


def ailments(results: SweepResults) -> list[Ailment]:
    """Return what the finished trials show, most pressing first; nothing under `--quick`.

    A trial that was stopped early is left out: it is known to be behind, and its curve is not over.
    """
    classes = _classes(results.export) or _classes(results.test)
    if classes is None or results.quick:
        return []
    whole = sorted((row for row in results.trials if row.whole), key=lambda row: row.stage != "final")
    found: dict[str, list[tuple[str, Finding]]] = {}
    for row in whole:
        for finding in diagnose(results.epochs.get(row.trial_id, ()), classes=classes):
            found.setdefault(finding.name, []).append((row.trial_id, finding))
    return [
        Ailment(name=name, trials=tuple(trial_id for trial_id, _ in pairs), finding=pairs[0][1])
        for name, pairs in found.items()
    ]


def by_trial(found: Sequence[Ailment]) -> dict[str, list[str]]:
    """Return the names of what each trial shows, for the trials that show something."""
    names: dict[str, list[str]] = {}
    for ailment in found:
        for trial_id in ailment.trials:
            names.setdefault(trial_id, []).append(ailment.name)
    return names


def _classes(file: Mapping[str, Any] | None) -> int | None:
    """Return the number of classes that model.json or test.json tells."""
    names = ((file or {}).get("output") or {}).get("classes") or (file or {}).get("class_names")
    return len(names) if isinstance(names, list) else None
