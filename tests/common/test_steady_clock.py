"""The system's clock is set while a sweep runs: times keep their order, durations stay correct."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from platform.common.steady_clock import wall_time, wall_time_s
from platform.tracking import parquet_tables, sweep_folder
from platform.tracking.events import TrialStatus
from platform.tracking.parquet_tables import TableWriter, read_trials
from platform.tracking.sweep_folder import SweepFolder, new_sweep_folder
from tests.tracking.examples import epoch, trial


class SetBack(datetime):
    """The clock, set back by an hour."""

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) - timedelta(hours=1)


def test_it_is_the_systems_time_until_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert abs(wall_time() - datetime.now(UTC)) < timedelta(minutes=1)
    before = wall_time_s()
    monkeypatch.setattr(time, "time", lambda: before - 3600)
    assert before <= wall_time_s() < before + 60


def test_a_running_sweep_counts_its_time(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_sweep_folder(tmp_path, "s")
    monkeypatch.setattr(sweep_folder, "datetime", SetBack)
    assert folder.elapsed_s() > 0


def test_a_trial_does_not_end_before_its_start(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = TableWriter(SweepFolder(tmp_path))
    writer.trial_started(trial(0))
    monkeypatch.setattr(parquet_tables, "datetime", SetBack)
    writer.epoch_finished(trial(0), epoch(1))
    writer.trial_ended(trial(0), TrialStatus.FINISHED)
    writer.flush()
    (row,) = read_trials(SweepFolder(tmp_path))
    assert row.duration_s > 0
    assert row.ended_at >= row.started_at
