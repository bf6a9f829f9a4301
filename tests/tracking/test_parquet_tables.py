"""The Parquet tables: written in the background after every event and continued by a resume."""

import logging
import threading
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest

from platform.common.errors import UserError
from platform.tracking import parquet_tables
from platform.tracking.events import SweepOutcome, TrialStatus
from platform.tracking.parquet_tables import TableWriter, read_epochs, read_trials
from platform.tracking.sweep_folder import SweepFolder
from tests.tracking.examples import epoch, past, run_config, sweep, trial


class Clock:
    def __init__(self):
        self.now = datetime(2026, 3, 1, tzinfo=UTC)

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def folder(tmp_path):
    return SweepFolder(tmp_path)


@pytest.fixture
def clock():
    return Clock()


def test_the_tables_exist_and_are_empty_before_the_first_trial(folder):
    TableWriter(folder).sweep_started(sweep(folder.path))
    assert (read_trials(folder), read_epochs(folder)) == ([], {})
    assert pq.read_schema(folder.epochs).names[:3] == ["trial_id", "stage", "epoch"]


def test_a_running_trial_is_on_disk_after_each_epoch(folder, clock):
    writer = TableWriter(folder, now=clock)
    writer.trial_started(trial(0))
    clock.advance(5)
    writer.epoch_finished(trial(0), epoch(1))
    writer.flush()
    (row,) = read_trials(folder)
    assert (row.status, row.epochs_done, row.epochs_planned) == (TrialStatus.RUNNING, 1, 3)
    assert (row.validation_accuracy, row.duration_s, row.ended_at) == (0.2, 5.0, None)
    assert row.started_at == datetime(2026, 3, 1, tzinfo=UTC)
    assert row.run_config() == run_config()
    assert read_epochs(folder) == {"t000": [epoch(1)]}


def test_an_ended_trial_has_its_status_error_and_duration(folder, clock):
    writer = TableWriter(folder, now=clock)
    writer.trial_started(trial(0))
    clock.advance(7)
    writer.trial_ended(trial(0), TrialStatus.FAILED, error="Traceback ... log: /x/y")
    writer.flush()
    (row,) = read_trials(folder)
    assert (row.status, row.error, row.duration_s) == (TrialStatus.FAILED, "Traceback ... log: /x/y", 7.0)
    assert row.ended_at == clock.now


def test_each_setting_is_a_column_also_with_mixed_types(folder):
    writer = TableWriter(folder)
    writer.trial_started(trial(0, params={"batch_size": 128, "optimizer": "sgd", "x": 1, "odd": 3}))
    writer.trial_started(trial(1, params={"optimizer": "adam", "flip": True, "x": 0.5, "odd": "auto"}))
    writer.flush()
    table = pq.read_table(folder.trials).to_pydict()
    assert table["params.batch_size"] == [128, None]
    assert table["params.optimizer"] == ["sgd", "adam"]
    assert table["params.flip"] == [None, True]
    assert table["params.x"] == [1.0, 0.5]
    assert table["params.odd"] == ["3", '"auto"']
    exact = [row.params for row in read_trials(folder)]
    assert exact[0] == {"batch_size": 128, "optimizer": "sgd", "x": 1, "odd": 3}
    assert isinstance(exact[0]["x"], int)


def test_each_cost_is_a_column(folder):
    writer = TableWriter(folder)
    writer.trial_started(trial(0, costs={"parameters": 269_722, "latency_ms": 0.5}))
    writer.trial_started(trial(1))
    writer.flush()
    table = pq.read_table(folder.trials).to_pydict()
    assert table["costs.parameters"] == [269_722.0, None]
    assert table["costs"] == ['{"parameters": 269722, "latency_ms": 0.5}', "{}"]
    assert [row.costs for row in read_trials(folder)] == [{"parameters": 269_722, "latency_ms": 0.5}, {}]


def test_a_resume_continues_the_rows(folder, clock):
    first = TableWriter(folder, now=clock)
    for number in (0, 1):
        first.trial_started(trial(number))
        clock.advance(2)
        first.epoch_finished(trial(number), epoch(1))
    first.trial_ended(trial(0), TrialStatus.FINISHED)
    clock.advance(1)
    first.epoch_finished(trial(1), epoch(2, train_loss=9.0))
    first.flush()
    # Killed here; an hour later the second start resumes from the checkpoint after epoch 1.
    clock.advance(3600)
    second = TableWriter(folder, now=clock)
    second.sweep_started(sweep(folder.path))
    second.trial_started(trial(1))
    clock.advance(4)
    second.epoch_finished(trial(1), epoch(2))
    second.trial_ended(trial(1), TrialStatus.FINISHED)
    second.flush()
    rows = {row.trial_id: row for row in read_trials(folder)}
    assert list(rows) == ["t000", "t001"]
    assert (rows["t000"].starts, rows["t001"].starts) == (1, 2)
    assert rows["t001"].duration_s == 3 + 4
    assert rows["t001"].status is TrialStatus.FINISHED
    assert read_epochs(folder) == {"t000": [epoch(1)], "t001": [epoch(1), epoch(2)]}


def test_a_resume_adds_events_that_are_only_in_the_journal(folder, clock):
    first = TableWriter(folder, now=clock)
    first.trial_started(trial(0))
    first.epoch_finished(trial(0), epoch(1))
    first.trial_started(trial(1))
    first.flush()
    # Killed with one epoch, the ends of two trials and a complete third trial in the journal only.
    histories = (
        past(trial(0), epoch(1), epoch(2), status=TrialStatus.PRUNED),
        past(trial(1), status=TrialStatus.FAILED, error="Traceback ..."),
        past(trial(2), epoch(1)),
        past(trial(3)),
    )
    for _ in range(2):  # the process may die again before any other event
        TableWriter(folder, now=clock).sweep_started(sweep(folder.path, history=histories))
        rows = read_trials(folder)
        assert [(row.trial_id, row.status, row.epochs_done, row.starts) for row in rows] == [
            ("t000", TrialStatus.PRUNED, 2, 1),
            ("t001", TrialStatus.FAILED, 0, 1),
            ("t002", TrialStatus.RUNNING, 1, 1),
        ]
        assert read_epochs(folder) == {"t000": [epoch(1), epoch(2)], "t002": [epoch(1)]}
        assert rows[0].ended_at == datetime.fromtimestamp(1030, UTC)
        assert rows[0].duration_s == epoch(2).epoch_s + epoch(2).evaluation_s
        assert rows[1].error == "Traceback ..."
        assert rows[2].started_at == datetime.fromtimestamp(1000, UTC)


def test_known_events_do_not_change_the_tables(folder, clock):
    first = TableWriter(folder, now=clock)
    clock.advance(3)
    first.epoch_finished(trial(0), epoch(1))
    clock.advance(3)
    first.trial_ended(trial(0), TrialStatus.FINISHED)
    first.flush()
    before = read_trials(folder)
    known = past(trial(0), epoch(1), status=TrialStatus.FINISHED)
    TableWriter(folder, now=clock).sweep_started(sweep(folder.path, history=(known,)))
    assert read_trials(folder) == before


def test_rows_are_sorted_by_trial_number(folder):
    writer = TableWriter(folder)
    for each in (trial(1), trial(0)):
        writer.trial_started(each)
        writer.epoch_finished(each, epoch(1))
    writer.flush()
    assert [row.trial_id for row in read_trials(folder)] == ["t000", "t001"]
    assert list(read_epochs(folder)) == ["t000", "t001"]


def test_a_restarted_trial_drops_its_later_epochs(folder):
    writer = TableWriter(folder)
    for number in (1, 2, 3, 1):
        writer.epoch_finished(trial(0), epoch(number))
    writer.flush()
    assert [record.epoch for record in read_epochs(folder)["t000"]] == [1]
    assert read_trials(folder)[0].epochs_done == 1


def test_the_configuration_selects_the_reported_accuracy(folder):
    writer = TableWriter(folder)
    for trial_id, report in (("t000", "last"), ("t001", "best")):
        one = trial(int(trial_id[-1]), config=run_config(report=report))
        for number, accuracy in ((1, 0.3), (2, 0.7), (3, 0.6)):
            writer.epoch_finished(one, epoch(number, accuracy=accuracy))
    writer.flush()
    assert [row.validation_accuracy for row in read_trials(folder)] == [0.6, 0.7]
    assert [row.epochs_done for row in read_trials(folder)] == [3, 3]


def test_a_final_run_has_no_validation(folder):
    writer = TableWriter(folder)
    final = trial(0, stage="final", trial_id="final", candidate="t003", params={})
    record = epoch(1, validation_loss=None, validation_accuracy=None)
    writer.epoch_finished(final, record)
    writer.flush()
    (row,) = read_trials(folder)
    assert (row.stage, row.candidate, row.validation_accuracy, row.params) == ("final", "t003", None, {})
    assert read_epochs(folder)["final"] == [record]


def test_a_full_disk_loses_no_rows_and_warns_once(folder, monkeypatch, caplog):
    writer = TableWriter(folder)
    writer.trial_started(trial(0))
    writer.flush()
    real, failures, failed_often = parquet_tables._write, [], threading.Event()

    def full(path, table):
        failures.append(path)
        if len(failures) == 3:
            failed_often.set()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet_tables, "_write", full)
    with caplog.at_level(logging.WARNING):
        writer.epoch_finished(trial(0), epoch(1))
        writer.epoch_finished(trial(0), epoch(2))
        assert failed_often.wait(60)
    assert [record.getMessage().count("No space left") for record in caplog.records] == [1]
    monkeypatch.setattr(parquet_tables, "_write", real)
    writer.sweep_ended(SweepOutcome(status="finished"))
    assert read_epochs(folder) == {"t000": [epoch(1), epoch(2)]}


def test_the_end_of_the_final_run_is_on_disk_at_once(folder):
    writer = TableWriter(folder)
    writer.trial_started(trial(0))
    final = trial(0, stage="final", trial_id="final", params={})
    writer.epoch_finished(final, epoch(1))
    writer.trial_ended(final, TrialStatus.FINISHED)
    assert [row.status for row in read_trials(folder)] == [TrialStatus.RUNNING, TrialStatus.FINISHED]
    assert list(read_epochs(folder)) == ["final"]


@pytest.mark.parametrize("settled", [10, 1000])
def test_events_during_a_write_cause_one_more_write_of_the_new_epochs(folder, monkeypatch, settled):
    writer = TableWriter(folder)
    for number in range(settled):
        writer.epoch_finished(trial(number), epoch(1))
        writer.trial_ended(trial(number), TrialStatus.FINISHED)
    writer.flush()
    begun, released, written, converted = threading.Event(), threading.Event(), [], []
    real_write, real_table = parquet_tables._write, parquet_tables._epochs_table

    def write(path, table):
        begun.set()
        assert released.wait(60)
        written.append(path.name)
        real_write(path, table)

    def table_of(epochs, stages):
        converted.append(len(epochs))
        return real_table(epochs, stages)

    monkeypatch.setattr(parquet_tables, "_write", write)
    monkeypatch.setattr(parquet_tables, "_epochs_table", table_of)
    writer.trial_started(trial(settled))
    assert begun.wait(60)
    for number in range(1, 101):
        writer.epoch_finished(trial(settled), epoch(number))
    released.set()
    writer.flush()
    assert written == ["trials.parquet", "epochs.parquet"] * 2
    assert converted == [0, 100]
    assert len(read_epochs(folder)[f"t{settled:03d}"]) == 100


def test_an_invalid_table_is_a_user_error(folder):
    folder.trials.write_text("not parquet")
    with pytest.raises(UserError, match=r"trials\.parquet is not a valid sweep table"):
        read_trials(folder)
