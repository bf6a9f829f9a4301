from __future__ import annotations

from pathlib import Path

import pytest

from platform.errors import UserError
from platform.tracking.events import TrialStatus
from platform.training.records import EpochRecord
from platform.tuning.journal.journal import open_journal, read_journal, refuse_running
from platform.tuning.journal.trial import TrialTask
from platform.tuning.journal.trial_history import trial_pasts
from tests.tuning.execution.examples import tiny_spec


def a_task(trial_id: str = "t000") -> TrialTask:
    return TrialTask(
        trial_id=trial_id,
        stage="search",
        number=0,
        params={"optimizer": "sgd", "optimizer.sgd.lr": 0.1},
        run=tiny_spec().base,
        data_path="/cache/generated",
        checkpoint_dir=f"/runs/tiny/checkpoints/{trial_id}",
        log_path=f"/runs/tiny/logs/{trial_id}.log",
    )


def a_record(epoch: int = 1, accuracy: float | None = 0.5) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        epochs=3,
        step=epoch,
        lr=0.1,
        train_loss=1.0,
        train_accuracy=0.5,
        validation_loss=1.0,
        validation_accuracy=accuracy,
        grad_norm=1.0,
        epoch_s=1.0,
        evaluation_s=0.1,
        images_per_s=64.0,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "sweep" / "journal.jsonl"
    with open_journal(path) as journal:
        journal.trial(a_task())
        journal.epoch("t000", a_record())
        journal.ended("t000", TrialStatus.FAILED, "Traceback ...")
    return path


def test_events_come_back_in_order_and_equal(path: Path) -> None:
    task, epoch, ended = read_journal(path)
    assert task.task == a_task()
    assert epoch.record == a_record()
    assert (ended.trial_id, ended.status, ended.error) == ("t000", TrialStatus.FAILED, "Traceback ...")
    with open_journal(path) as journal:
        assert journal.past == (task, epoch, ended)


def test_a_torn_last_line_is_dropped_and_overwritten(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"event": "epoch", "trial": "t0')
    assert len(read_journal(path)) == 3
    with open_journal(path) as journal:
        journal.epoch("t000", a_record(epoch=2))
    assert [event.kind for event in read_journal(path)] == ["trial", "epoch", "ended", "epoch"]


def test_damage_before_the_end_is_named_by_its_line(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"rubbish\n" + lines[2])
    with pytest.raises(UserError, match="line 2: not an event of a sweep"):
        read_journal(path)


def test_a_second_process_is_refused(path: Path) -> None:
    with open_journal(path):
        with pytest.raises(UserError, match="another one runs sweep"), open_journal(path):
            pass
        with pytest.raises(UserError, match="another one runs sweep"):
            refuse_running(path)
    refuse_running(path)
    refuse_running(path.with_name("none.jsonl"))


def test_no_journal_is_an_empty_past(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "journal.jsonl") == ()


def test_the_past_of_each_trial_in_the_order_of_their_ends(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with open_journal(path) as journal:
        for trial_id in ("t000", "t001", "t002"):
            journal.trial(a_task(trial_id))
        journal.epoch("t000", a_record())
        journal.epoch("t001", a_record())
        journal.ended("t001", TrialStatus.PRUNED, None)
        journal.ended("t000", TrialStatus.FAILED, "Traceback ...")
    pasts = trial_pasts(read_journal(path))
    assert [(past.trial, past.status, past.error) for past in pasts] == [
        (a_task("t001").info(), TrialStatus.PRUNED, None),
        (a_task("t000").info(), TrialStatus.FAILED, "Traceback ..."),
        (a_task("t002").info(), None, None),
    ]
    times = [event.at for event in read_journal(path)]
    assert (pasts[1].records, pasts[1].recorded_at) == ((a_record(),), (times[3],))
    assert (pasts[1].created_at, pasts[1].ended_at) == (times[0], times[6])

    with open_journal(path) as journal:  # a run of the confirmation that is tried again
        journal.epoch("t000", a_record(epoch=2))
    *_, last = trial_pasts(read_journal(path))
    assert (last.trial.trial_id, last.status, len(last.records)) == ("t002", None, 0)
    assert [past.trial.trial_id for past in trial_pasts(read_journal(path))] == ["t001", "t000", "t002"]
