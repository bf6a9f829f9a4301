"""The state replayed from a journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from platform.tracking.events import Stage, TrialStatus
from platform.tuning.journal.event import Event
from platform.tuning.journal.journal import Journal, open_journal, read_journal
from platform.tuning.journal.ledger import Ledger, replay
from tests.tuning.journal.examples import RUN, a_record, a_task


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def write_sweep(journal: Journal) -> None:
    """Write every kind of event."""
    journal.begin()
    for trial_id in ("t000", "t001", "t002"):
        journal.trial(a_task(trial_id))
    journal.epoch("t000", a_record())
    journal.epoch("t001", a_record(accuracy=None))
    journal.ended("t001", TrialStatus.PRUNED, None)
    journal.retry("t002", accumulate=2, note="out of GPU memory")
    journal.stopped("stop.wall_hours")
    journal.ended("t000", TrialStatus.FAILED, "Traceback ...")


def state(ledger: Ledger) -> tuple[object, ...]:
    return (ledger.trials, ledger.stop_reason, ledger.histories(), ledger.failures("search"))


def test_a_running_sweep_has_the_state_that_a_replay_gives(path: Path) -> None:
    with open_journal(path) as journal:
        write_sweep(journal)
        assert state(journal.ledger) == state(replay(read_journal(path)))
        assert len(journal.ledger.trials) == 3
    with open_journal(path) as journal:
        assert state(journal.ledger) == state(replay(read_journal(path)))


def test_histories_list_ended_trials_first_in_the_order_of_their_ends(path: Path) -> None:
    with open_journal(path) as journal:
        write_sweep(journal)
    events = read_journal(path)
    pruned, failed, waiting = replay(events).histories()
    assert (pruned.trial, pruned.status, pruned.error) == (a_task("t001").info(), TrialStatus.PRUNED, None)
    assert (failed.trial.trial_id, failed.status, failed.error) == (
        "t000",
        TrialStatus.FAILED,
        "Traceback ...",
    )
    assert (waiting.trial.trial_id, waiting.status, waiting.note) == ("t002", None, "out of GPU memory")
    times = [event.at for event in events]
    assert (failed.records, failed.recorded_at) == ([a_record()], [times[4]])
    assert (failed.created_at, failed.ended_at) == (times[1], times[-1])


def test_a_failed_run_that_is_tried_again_is_running_from_its_next_epoch(path: Path) -> None:
    with open_journal(path) as journal:
        write_sweep(journal)
        assert [trial.task.trial_id for trial in journal.ledger.failures("search")] == ["t000"]
        journal.epoch("t000", a_record(epoch=2))
        assert journal.ledger.failures("search") == []
        histories = journal.ledger.histories()
    assert [history.trial.trial_id for history in histories] == ["t001", "t000", "t002"]
    assert (histories[1].status, histories[1].error, len(histories[1].records)) == (None, None, 2)


def test_a_retry_changes_the_task(path: Path) -> None:
    with open_journal(path) as journal:
        write_sweep(journal)
        trials = journal.ledger.trials
    assert [trial.task.accumulate for trial in trials.values()] == [1, 1, 2]


def test_an_extension_removes_the_stop_reason(path: Path) -> None:
    with open_journal(path) as journal:
        write_sweep(journal)
        assert journal.ledger.stop_reason == "stop.wall_hours"
        journal.extended("8 trials")
        assert journal.ledger.stop_reason is None


def test_stages_are_kept_apart() -> None:
    def task(trial_id: str, stage: Stage) -> Event:
        return Event(
            at=0, kind="trial", trial_id=trial_id, task=a_task(trial_id).model_copy(update={"stage": stage})
        )

    failed = Event(at=0, kind="ended", trial_id="c1-s0", status=TrialStatus.FAILED)
    ledger = replay([task("t000", "search"), task("c1-s0", "confirm"), failed])
    assert [trial.task.trial_id for trial in ledger.stage("search")] == ["t000"]
    assert ledger.failures("search") == []
    assert [trial.task.trial_id for trial in ledger.failures("confirm")] == ["c1-s0"]


@pytest.mark.parametrize(("report", "accuracy"), [("last", 0.7), ("best", 0.8)])
def test_a_trial_is_completed_at_its_end_with_an_accuracy(report: str, accuracy: float) -> None:
    task = a_task().model_copy(update={"run": RUN.changed(report=report)})
    events = [
        Event(at=0, kind="epoch", trial_id="t000", record=a_record(number, accuracy=reached))
        for number, reached in enumerate((0.8, 0.7, None), start=1)
    ]
    ledger = replay([Event(at=0, kind="trial", trial_id="t000", task=task), *events])
    trial = ledger.trials["t000"]
    assert (trial.status, trial.completed, trial.accuracy) == (None, False, accuracy)
    assert (ledger.epochs_known("t000"), ledger.epochs_known("t001")) == (3, 0)
    ledger.apply(Event(at=0, kind="ended", trial_id="t000", status=TrialStatus.FINISHED))
    assert trial.completed
    trial.records.clear()
    assert (trial.completed, trial.accuracy) == (False, None)


def test_events_of_unknown_trials_are_ignored() -> None:
    ledger = replay([Event(at=0, kind="epoch", trial_id="t009", record=a_record())])
    assert ledger.trials == {}
