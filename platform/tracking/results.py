"""Read the results in a sweep's folder for the summary and the report.

Every file is optional, because an interrupted sweep has written only some of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platform.common.atomic import read_json
from platform.common.errors import UserError
from platform.tracking.events import Stage, TrialStatus
from platform.tracking.parquet_tables import TrialRow, read_epochs, read_trials
from platform.tracking.sweep_folder import State, SweepFolder
from platform.training.records import EpochRecord


@dataclass(frozen=True, kw_only=True)
class SweepResults:
    """The parsed files of a sweep; None or empty for files that do not exist."""

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
        """Return the search trials that have an accuracy and did not fail, best first.

        Completed trials come before pruned and running ones.
        """
        ranked = [
            row
            for row in self.of_stage("search")
            if row.validation_accuracy is not None and row.status is not TrialStatus.FAILED
        ]
        return sorted(
            ranked,
            key=lambda row: (not row.completed, -(row.validation_accuracy or 0.0), row.number),
        )

    def champion_candidate(self) -> Mapping[str, Any] | None:
        """Return the entry of the champion in selection.json."""
        if self.selection is None:
            return None
        wanted = self.selection.get("champion")
        found = [entry for entry in self.selection.get("candidates", []) if entry.get("trial_id") == wanted]
        return found[0] if found else None

    def provenance(self) -> Mapping[str, Any]:
        """Return the provenance in plan.json; empty if there is none."""
        found = (self.plan or {}).get("provenance")
        return found if isinstance(found, Mapping) else {}

    def data_label(self) -> str | None:
        """Return the label of the sweep's dataset: `cifar10`, `generated`, ..."""
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
        """Whether this is a quick sweep, with short runs on few images."""
        return bool((self.plan or {}).get("quick"))

    @property
    def generated(self) -> bool:
        """Whether the images are synthetic."""
        named = [row.config.get("data", {}).get("name") for row in self.trials[:1]]
        return self.data_label() == "generated" or "generated" in named


def read_results(folder: SweepFolder) -> SweepResults:
    """Read all files that exist.

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
    return read_json(path, remedy="remove it to continue without it") if path.exists() else None
