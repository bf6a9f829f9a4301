"""Everything a sweep has left in its folder so far, read back for the summary and the report.

Nothing here is required: an interrupted sweep has a part of it, and a reader says what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platform.errors import UserError
from platform.tracking.events import Stage, TrialStatus
from platform.tracking.parquet_tables import TrialRow, read_epochs, read_trials
from platform.tracking.sweep_folder import State, SweepFolder
from platform.training.records import EpochRecord


@dataclass(frozen=True, kw_only=True)
class SweepResults:
    """A sweep's files, parsed; None or empty where they do not exist (yet)."""

    folder: SweepFolder
    state: State
    plan: Mapping[str, Any] | None
    trials: Sequence[TrialRow]
    epochs: Mapping[str, Sequence[EpochRecord]]
    selection: Mapping[str, Any] | None
    champion: Mapping[str, Any] | None
    test: Mapping[str, Any] | None
    export: Mapping[str, Any] | None
    """`export/model.json`."""
    lower_precisions: Sequence[Mapping[str, Any]]
    """`export-int8/model.json`, ..."""
    benchmark: Mapping[str, Any] | None

    def of_stage(self, stage: Stage) -> list[TrialRow]:
        """Return the trials of one stage in order."""
        return [row for row in self.trials if row.stage == stage]

    def leaderboard(self) -> list[TrialRow]:
        """Return the search trials that have an accuracy and did not fail, the best first.

        Whole runs come before those that were stopped early or are not over.
        """
        ranked = [
            row
            for row in self.of_stage("search")
            if row.validation_accuracy is not None and row.status is not TrialStatus.FAILED
        ]
        return sorted(
            ranked,
            key=lambda row: (not row.whole, -(row.validation_accuracy or 0.0), row.number),
        )

    def champion_candidate(self) -> Mapping[str, Any] | None:
        """Return the champion's entry among the confirmed candidates."""
        if self.selection is None:
            return None
        wanted = self.selection.get("champion")
        found = [entry for entry in self.selection.get("candidates", []) if entry.get("trial_id") == wanted]
        return found[0] if found else None

    def provenance(self) -> Mapping[str, Any]:
        """Return the plan's provenance; empty where there is none."""
        found = (self.plan or {}).get("provenance")
        return found if isinstance(found, Mapping) else {}

    def data_label(self) -> str | None:
        """Return what the sweep was trained on, as people say it: `cifar10`, `generated`, ..."""
        places = [
            (self.plan or {}).get("data_label"),
            self.provenance().get("data_label"),
            ((self.plan or {}).get("data") or {}).get("label")
            if isinstance((self.plan or {}).get("data"), Mapping)
            else None,
            ((self.export or {}).get("source") or {}).get("data"),
        ]
        return next((str(place) for place in places if place), None)

    @property
    def quick(self) -> bool:
        """Whether the accuracies mean nothing."""
        return bool((self.plan or {}).get("quick"))

    @property
    def generated(self) -> bool:
        """Whether the pictures were drawn by us."""
        named = [row.config.get("data", {}).get("name") for row in self.trials[:1]]
        return self.data_label() == "generated" or "generated" in named


def read_results(folder: SweepFolder) -> SweepResults:
    """Read what there is.

    Raises:
        UserError: the folder does not exist, or a file in it is damaged.
    """
    if not folder.path.is_dir():
        raise UserError(f"no sweep at {folder.path}")
    return SweepResults(
        folder=folder,
        state=folder.get_state(),
        plan=_read(folder.plan),
        trials=read_trials(folder),
        epochs=read_epochs(folder),
        selection=_read(folder.selection),
        champion=_read(folder.champion),
        test=_read(folder.test),
        export=_read(folder.export / "model.json"),
        lower_precisions=[
            found for path in folder.lower_precisions if (found := _read(path / "model.json")) is not None
        ],
        benchmark=_read(folder.benchmark),
    )


def _read(path: Path) -> Mapping[str, Any] | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}; remove it to go on without it") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object; remove it to go on without it")
    return content
