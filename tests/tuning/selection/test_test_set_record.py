"""The record of test-set readings: written before the first one, and required for a further one."""

import errno
import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from platform.common.errors import UserError
from platform.tuning.selection import test_set_record
from platform.tuning.selection.test_set_record import (
    EVALUATIONS_FILE,
    RECORD_FILE,
    RESULT_FILE,
    record_evaluation,
    record_test_set_reading,
)


def saved(folder: Path) -> test_set_record.TestSetRecord:
    return test_set_record.TestSetRecord.model_validate_json((folder / RECORD_FILE).read_text())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_first_reading_is_recorded(tmp_path: Path) -> None:
    record = record_test_set_reading(tmp_path, split_sha256="ab12", run="final")
    assert record == saved(tmp_path)
    (reading,) = record.openings
    assert (reading.split_sha256, reading.run) == ("ab12", "final")
    assert datetime.fromisoformat(reading.opened_utc).utcoffset() is not None
    assert names(tmp_path) == [RECORD_FILE], "no temporary file remains"
    [entry] = json.loads((tmp_path / RECORD_FILE).read_text())["openings"]
    assert entry == {"split_sha256": "ab12", "opened_utc": reading.opened_utc, "run": "final"}


def test_a_full_disk_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            record_test_set_reading(tmp_path, split_sha256="ab12", run="final")
    assert names(tmp_path) == []


def test_a_second_reading_is_refused(tmp_path: Path) -> None:
    record_test_set_reading(tmp_path, split_sha256="ab12", run="final")
    (tmp_path / RESULT_FILE).write_text("{}")
    before = (tmp_path / RECORD_FILE).read_bytes()
    with pytest.raises(UserError, match=r"reads the test set once.*for run final.*use --again"):
        record_test_set_reading(tmp_path, split_sha256="ab12", run="final")
    assert (tmp_path / RECORD_FILE).read_bytes() == before


def test_again_adds_a_reading_to_the_record(tmp_path: Path) -> None:
    record_test_set_reading(tmp_path, split_sha256="ab12", run="final")
    (tmp_path / RESULT_FILE).write_text("{}")
    record_test_set_reading(tmp_path, split_sha256="ab12", run="other", again=True)
    assert [reading.run for reading in saved(tmp_path).openings] == ["final", "other"]
    assert names(tmp_path) == [RESULT_FILE, RECORD_FILE]


def test_a_reading_without_a_result_is_continued(tmp_path: Path) -> None:
    first = record_test_set_reading(tmp_path, split_sha256="ab12", run="final")
    assert record_test_set_reading(tmp_path, split_sha256="ab12", run="final") == first


@pytest.mark.parametrize(("split", "run"), [("ab12", "other"), ("cd34", "final")])
def test_another_run_or_dataset_does_not_continue_a_reading(tmp_path: Path, split: str, run: str) -> None:
    record_test_set_reading(tmp_path, split_sha256="ab12", run="final")
    with pytest.raises(UserError, match="reads the test set once"):
        record_test_set_reading(tmp_path, split_sha256=split, run=run)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("content", ["", "{", '{"openings": []}'])
def test_a_damaged_record_counts_as_read(tmp_path: Path, content: str, again: bool) -> None:
    (tmp_path / RECORD_FILE).write_text(content)
    with pytest.raises(UserError, match="counts as read"):
        record_test_set_reading(tmp_path, split_sha256="ab12", run="final", again=again)
    assert (tmp_path / RECORD_FILE).read_text() == content


def test_evaluations_of_a_sweeps_models_are_recorded_apart_from_its_own(tmp_path: Path) -> None:
    model = tmp_path / "checkpoints" / "t003" / "model.pt"
    model.parent.mkdir(parents=True)
    record_evaluation(model, split_sha256="ab12")
    assert names(tmp_path) == ["checkpoints"], "not in the folder of a sweep"
    (tmp_path / "spec.yaml").touch()
    record_evaluation(model, split_sha256="ab12")
    record_evaluation(model, split_sha256="ab12")
    lines = (tmp_path / EVALUATIONS_FILE).read_text().splitlines()
    assert [json.loads(line)["run"] for line in lines] == ["t003", "t003"]
    assert json.loads(lines[0])["split_sha256"] == "ab12"
    assert len(record_test_set_reading(tmp_path, split_sha256="ab12", run="final").openings) == 1
