"""Conditions that end a search early, also after a resume."""

from __future__ import annotations

from dataclasses import replace

import pytest

from platform.space.settings import Stop
from platform.tracking.events import TrialStatus
from platform.training.records import EpochRecord
from platform.tuning.journal.event import Event, Kind
from platform.tuning.stop_criteria import StopCriteria, hopeless
from tests.tuning.journal.examples import a_record

RECORD = replace(a_record(epochs=2), epoch_s=1500.0, evaluation_s=300.0)


def event(kind: Kind, at: float, **fields: object) -> Event:
    return Event(kind=kind, trial_id="t000" if kind in ("trial", "epoch", "ended") else "", at=at, **fields)


def criteria(now: float = 0.0, *, gpus: float = 1, **limits: float) -> StopCriteria:
    return StopCriteria(Stop(**limits), gpus_per_trial=gpus, clock=lambda: now)


def test_a_search_without_limits_never_stops() -> None:
    stop = criteria(now=1e9)
    stop.replay(event("begin", 0.0))
    stop.ended("t000", TrialStatus.FINISHED, 1.0)
    assert stop.reached() is None


@pytest.mark.parametrize(("session_s", "over"), [(1799.0, False), (1801.0, True)])
def test_wall_time_excludes_the_pauses_between_sessions(session_s: float, over: bool) -> None:
    stop = criteria(wall_hours=1)
    # A session of half an hour, a long pause, then the current session.
    for past in (event("begin", 0.0), event("epoch", 900.0, record=RECORD), event("ended", 1800.0)):
        stop.replay(past)
    assert stop.wall_s == 1800
    stop._clock = lambda: 100_000.0
    stop.begin()
    stop._clock = lambda: 100_000.0 + session_s
    assert stop.wall_s == 1800 + session_s
    reason = stop.reached()
    assert (reason is not None) is over
    if over:
        assert "stop.wall_hours: the search has taken 1.00 h of 1 h" in str(reason)


def test_a_search_resumed_twice_stays_within_its_wall_time() -> None:
    stop = criteria(now=30_000.0, wall_hours=1)
    for past in (
        event("begin", 0.0),  # killed before its first event
        event("begin", 1_000.0),
        event("ended", 2_200.0),
        event("begin", 10_000.0),
        event("ended", 11_300.0),
        event("begin", 20_000.0),  # killed before its first event
    ):
        stop.replay(past)
    assert stop.wall_s == 1200 + 1300
    stop.begin()
    assert stop.wall_s == 1200 + 1300
    stop._clock = lambda: 30_000.0 + 1099
    assert stop.reached() is None
    stop._clock = lambda: 30_000.0 + 1100
    assert stop.reached() == "stop.wall_hours: the search has taken 1.00 h of 1 h"


def test_a_clock_set_back_does_not_reduce_the_wall_time() -> None:
    stop = criteria(now=500.0, wall_hours=1)
    stop.replay(event("begin", 0.0))
    stop.replay(event("ended", 1800.0))
    stop.begin()
    stop._clock = lambda: 100.0
    assert stop.wall_s == 1800


def test_gpu_hours_add_up_over_all_workers() -> None:
    stop = criteria(gpus=2, gpu_hours=2)
    stop.epoch("t000", RECORD)
    assert stop.reached() is None
    stop.epoch("t001", RECORD)
    assert stop.reached() == "stop.gpu_hours: the search has used 2.00 of 2 GPU hours"


def test_only_finished_trials_reach_the_target() -> None:
    stop = criteria(target_accuracy=0.9)
    stop.epoch("t000", replace(RECORD, validation_accuracy=0.99))
    stop.ended("t000", TrialStatus.PRUNED, 0.99)
    stop.ended("t001", TrialStatus.FINISHED, None)
    assert stop.reached() is None
    stop.ended("t002", TrialStatus.FINISHED, 0.95)
    stop.ended("t003", TrialStatus.FINISHED, 0.91)
    assert stop.reached() == "stop.target_accuracy: t002 reached 95.00 % on validation (target: 90 %)"


def test_an_extension_resets_the_limits() -> None:
    stop = criteria(target_accuracy=0.9, gpu_hours=1, wall_hours=1)
    stop.replay(event("begin", 0.0))
    stop.replay(event("epoch", 3600.0, record=RECORD))
    stop.replay(event("epoch", 7200.0, record=RECORD))
    stop.ended("t000", TrialStatus.FINISHED, 0.95)
    assert stop.reached() == "stop.wall_hours: the search has taken 2.00 h of 1 h"
    stop.replay(event("extended", 9000.0))
    assert stop.reached() is None
    assert stop.wall_s == 0


def losses(*train: float, epochs: int = 20, lr: tuple[float, ...] = ()) -> list[EpochRecord]:
    return [
        replace(RECORD, epoch=number, epochs=epochs, train_loss=loss, validation_loss=loss, lr=rate)
        for number, (loss, rate) in enumerate(zip(train, lr or (0.1,) * len(train), strict=True), start=1)
    ]


def test_a_trial_that_stays_diverged_for_two_epochs_is_hopeless() -> None:
    assert hopeless(losses(2.0, 1.5, 1.2, 3.0), classes=10) is None, "a spike may recover"
    assert hopeless(losses(2.0, 1.5, 1.2, 3.0, 1.3), classes=10) is None
    assert "divergence: training loss ended at 2.900" in str(
        hopeless(losses(2.0, 1.5, 1.2, 3.0, 2.9), classes=10)
    )


def test_a_trial_that_is_no_better_than_a_guess_is_hopeless_after_a_fifth_of_its_epochs() -> None:
    assert hopeless([], classes=10) is None
    assert hopeless(losses(*(2.3,) * 4), classes=10) is None
    assert "a uniform guess has 2.303" in str(hopeless(losses(*(2.3,) * 5), classes=10))
    assert hopeless(losses(*(2.3,) * 15, epochs=100), classes=10) is None
    assert hopeless(losses(*(2.3,) * 5), classes=100) is None, "far better than a guess among 100 classes"
    # Epochs of a warm-up do not count.
    rising = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06)
    assert hopeless(losses(*(2.3,) * 6, lr=rising), classes=10) is None
    assert hopeless(losses(2.3, 2.3, 2.1, 2.3, 2.3, 2.3), classes=10) is None
