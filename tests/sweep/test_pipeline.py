"""A complete sweep, from a space file to the report, and its output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from platform.tracking.events import TrialStatus
from platform.tracking.parquet_tables import read_epochs, read_trials
from platform.tracking.sweep_folder import SweepFolder
from tests.sweep.examples import Place

# Takes minutes on two cores: Ray starts once, Ray Train twice.
pytestmark = pytest.mark.timeout(3600)


@pytest.fixture
def folder(swept: Place) -> SweepFolder:
    [folder] = swept.sweeps
    return folder


def test_stdout_is_the_path_of_the_folder(swept: Place, folder: SweepFolder) -> None:
    assert (swept.path / "stdout.txt").read_text() == f"{folder.path}\n"
    assert "Traceback" not in (swept.path / "stderr.txt").read_text()


def test_the_folder_has_all_files(folder: SweepFolder) -> None:
    assert folder.get_state() == "finished"
    names = (
        "spec.yaml plan.json state.json trials.parquet epochs.parquet selection.json champion.json test.json "
        "benchmark.json report.html journal.jsonl export/model.json export/model.param export/model.bin"
    )
    assert [name for name in names.split() if not (folder.path / name).is_file()] == []


def test_every_stage_ran_once(folder: SweepFolder) -> None:
    rows = {row.trial_id: row for row in read_trials(folder)}
    assert list(rows) == ["t000", "t001", "c1-s0", "final"]
    assert {row.status for row in rows.values()} == {TrialStatus.FINISHED}
    assert {trial_id: len(records) for trial_id, records in read_epochs(folder).items()} == dict.fromkeys(
        rows, 1
    )
    champion = _json(folder.champion)
    assert champion["trial_id"] in ("t000", "t001")

    def rank(trial_id: str) -> tuple[float, float]:
        """Return the sort key of a trial: accuracy, then the lower loss."""
        row = rows[trial_id]
        assert row.validation_accuracy is not None
        assert row.validation_loss is not None
        return row.validation_accuracy, -row.validation_loss

    assert champion["trial_id"] == max(("t000", "t001"), key=rank)
    assert rows["final"].params == champion["params"]


def test_the_exported_model_is_the_evaluated_one(folder: SweepFolder) -> None:
    accuracy = _json(folder.test)["accuracy"]
    assert _json(folder.export / "model.json")["source"]["test_accuracy"] == accuracy
    assert _json(folder.benchmark)["models"][0]["test_accuracy"] == pytest.approx(accuracy)
    assert len(_json(folder.path / "test_opened.json")["openings"]) == 1


def _json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))
