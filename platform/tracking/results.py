"""Read the results in a sweep's folder for the summary and the report.

Every file is optional, because an interrupted sweep has written only some of them.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from platform.common.atomic import read_json
from platform.common.errors import UserError
from platform.tracking.events import Stage, TrialStatus
from platform.tracking.parquet_tables import TrialRow, read_epochs, read_trials
from platform.tracking.sweep_folder import State, SweepFolder
from platform.training.records import EpochRecord

_REMEDY = "remove it to continue without it"
TEST_KEYS = (
    "accuracy",
    "images",
    "split_sha256",
    "class_names",
    "per_class",
    "confusion",
    "mistakes",
    "calibration",
)


@dataclass(frozen=True, kw_only=True)
class TestReading:
    """One reading of the test split."""

    by: str
    """`sweep`, `export` or `evaluate command`."""
    purpose: str
    images: int | None
    at: str = "-"
    """UTC, ISO 8601; `-` if unknown."""


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
    registered: Mapping[str, Any] | None = None
    """`registered.json`: the version in MLflow's model registry."""
    openings: Sequence[Mapping[str, Any]] = ()
    """The sweep's readings of the test split, in test_opened.json, oldest first."""
    evaluations: Sequence[Mapping[str, Any]] = ()
    """The readings by `python -m platform.evaluate`, in test_evaluations.jsonl."""

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

    def test_readings(self) -> list[TestReading]:
        """Return every recorded reading of the test split: by the sweep, its exports and `evaluate`."""
        test = self.test or {}
        images, split_images = test.get("images"), test.get("split_images", test.get("images"))
        readings = [
            TestReading(by=by, purpose=f"accuracy of {each['run']}", images=count, at=each["opened_utc"])
            for by, found, count in (
                ("sweep", self.openings, images),
                ("evaluate command", self.evaluations, split_images),
            )
            for each in found
        ]
        parity = (self.export or {}).get("parity")
        if parity and parity.get("data") != "random":
            # Lower precisions are compared on validation images.
            readings.append(
                TestReading(by="export", purpose="agreement of fp32 with PyTorch", images=parity["images"])
            )
        for document in (self.export or {}, *self.lower_precisions):
            if found := (document.get("accuracy") or {}).get("test"):
                purpose = f"accuracy of {document.get('precision', 'fp32')}"
                readings.append(TestReading(by="export", purpose=purpose, images=found["images"]))
        return readings

    def stage_times(self) -> list[tuple[str, float | None, float | None]]:
        """Return (stage, planned seconds, actual seconds), None if unknown.

        The actual time is that from the first start to the last end of a run, without the longest pause of a
        run that an interruption split.
        """
        estimate = (self.plan or {}).get("estimate") or {}
        times = []
        for stage in get_args(Stage):
            rows = self.of_stage(stage)
            ends = [row.ended_at for row in rows if row.ended_at is not None]
            actual = None
            if ends and len(ends) == len(rows):
                actual = (max(ends) - min(row.started_at for row in rows)).total_seconds()
                actual = max(0.0, actual - max(row.paused_s for row in rows))
            planned = (estimate.get(stage) or {}).get("wall_s")
            if rows or planned is not None:
                times.append((str(stage), planned, actual))
        if times and estimate:
            planned = sum(seconds or 0.0 for _, seconds, _ in times)
            used = sum(seconds or 0.0 for _, _, seconds in times)
            finished = self.state == "finished" and self.folder.active_s >= used
            rest = self.folder.active_s - used if finished else None
            times.append(("all else", estimate["wall_s"] - planned, rest))
        return times

    def wall_s(self) -> float:
        """Return the seconds that the sweep has run, without pauses."""
        return self.folder.elapsed_s() or sum(actual or 0.0 for _, _, actual in self.stage_times())

    def overrides(self) -> list[str]:
        """Return the settings given with `--set`, from the recorded command."""
        found: list[str] = []
        given = False
        for word in shlex.split(str(self.provenance().get("command", ""))):
            given = word == "--set" or (given and not word.startswith("-"))
            if given and word != "--set":
                found.append(word)
            elif word.startswith("--set="):
                found.append(word.removeprefix("--set="))
        return found

    def provenance(self) -> Mapping[str, Any]:
        """Return the provenance in plan.json; empty if there is none."""
        found: Mapping[str, Any] = (self.plan or {}).get("provenance") or {}
        return found

    def data_label(self) -> str | None:
        """Return the label of the sweep's dataset: `cifar10`, `generated`, ..."""
        label: str | None = ((self.plan or {}).get("data") or {}).get("label")
        return label

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
        champion=_read(folder.champion, "trial_id", "config"),
        test=_read(folder.test, *TEST_KEYS),
        export=_read(folder.export / "model.json"),
        lower_precisions=[
            found for path in folder.lower_precisions if (found := _read(path / "model.json")) is not None
        ],
        benchmark=_read(folder.benchmark, "context", "results"),
        registered=_read(folder.path / "registered.json"),
        evaluations=_read_lines(folder.path / "test_evaluations.jsonl"),
        openings=(_read(folder.path / "test_opened.json") or {}).get("openings", ()),
    )


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; {_REMEDY}") from None


def _read(path: Path, *keys: str) -> Mapping[str, Any] | None:
    """Return the content of a file, which must have `keys`; None if there is no file."""
    if not path.exists():
        return None
    content = read_json(path, remedy=_REMEDY)
    missing = [key for key in keys if key not in content]
    if missing:
        raise UserError(f"{path} is damaged: {', '.join(missing)} missing; {_REMEDY}")
    return content
