"""When a search ends before its last trial, and that it stays ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from platform.space.settings import Stop
from platform.tracking.events import TrialStatus
from platform.training.records import EpochRecord
from platform.tuning.journal.journal import Event, Kind
from platform.tuning.stop_criteria import Stops

RECORD = EpochRecord(
    epoch=1,
    epochs=2,
    step=1,
    lr=0.1,
    train_loss=1.0,
    train_accuracy=0.5,
    validation_loss=1.0,
    validation_accuracy=0.5,
    grad_norm=1.0,
    epoch_s=1500.0,
    evaluation_s=300.0,
    images_per_s=1.0,
)


def event(kind: Kind, at: float, **fields: object) -> Event:
    return Event(kind=kind, trial_id="t000" if kind in ("trial", "epoch", "ended") else "", at=at, **fields)


def stops(now: float = 0.0, *, gpus: float = 1, **limits: float) -> Stops:
    return Stops(Stop(**limits), gpus_per_trial=gpus, clock=lambda: now)


def test_without_limits_nothing_stops() -> None:
    search = stops(now=1e9)
    search.replay(event("begin", 0.0))
    search.ended("t000", TrialStatus.FINISHED, 1.0)
    assert search.reached() is None


@pytest.mark.parametrize(("last", "over"), [(1799.0, False), (1801.0, True)])
def test_wall_time_counts_the_lives_and_not_the_pauses(last: float, over: bool) -> None:
    search = stops(now=100_000 + last, wall_hours=1)
    # Half an hour, then a long pause, then what this life has taken.
    for past in (event("begin", 0.0), event("epoch", 900.0, record=RECORD), event("ended", 1800.0)):
        search.replay(past)
    assert search.wall_s == 1800
    search._clock = lambda: 100_000.0
    search.begin()
    search._clock = lambda: 100_000.0 + last
    assert search.wall_s == 1800 + last
    reason = search.reached()
    assert (reason is not None) is over
    if over:
        assert "stop.wall_hours: the search has taken 1.00 h of 1 h" in str(reason)


def test_gpu_hours_are_those_of_all_workers() -> None:
    search = stops(gpus=2, gpu_hours=2)
    search.epoch("t000", RECORD)
    assert search.reached() is None
    search.epoch("t001", RECORD)
    assert search.reached() == "stop.gpu_hours: the search has used 2.00 GPU hours of 2"


def test_a_target_is_reached_by_whole_runs_only() -> None:
    search = stops(target_accuracy=0.9)
    search.epoch("t000", replace(RECORD, validation_accuracy=0.99))
    search.ended("t000", TrialStatus.PRUNED, 0.99)
    search.ended("t001", TrialStatus.FINISHED, None)
    assert search.reached() is None
    search.ended("t002", TrialStatus.FINISHED, 0.95)
    search.ended("t003", TrialStatus.FINISHED, 0.91)
    assert search.reached() == (
        "stop.target_accuracy: t002 reached 95.00 % on validation, 90 % were asked for"
    )


def test_a_stopped_search_stays_stopped_until_it_is_extended() -> None:
    search = stops(target_accuracy=0.9)
    search.ended("t000", TrialStatus.FINISHED, 0.95)
    search.replay(event("stopped", 10.0, note="as it was told then"))
    assert search.reached() == "as it was told then"
    search.replay(event("extended", 20.0))
    assert search.reached() is None
    assert search.wall_s == 0
