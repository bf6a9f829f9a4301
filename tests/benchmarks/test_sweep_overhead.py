"""Where the slot seconds of a search went, on journals written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import sweep_overhead
from benchmarks.sweep_overhead import losses
from platform.errors import UserError
from platform.tracking.events import TrialStatus
from platform.tuning.journal.journal import Event
from tests.benchmarks.test_selection import a_record
from tests.tuning.test_extend_sweep import task

EPOCH_S = 1.1  # a second of training, a tenth of evaluating


def begin(at: float) -> Event:
    return Event(kind="begin", at=at)


def trial(name: str, created: float, epochs: list[float], ended: float) -> list[Event]:
    return [
        Event(kind="trial", trial_id=name, task=task(name, "search"), at=created),
        *(Event(kind="epoch", trial_id=name, record=a_record(1, 0.5), at=at) for at in epochs),
        Event(kind="ended", trial_id=name, status=TrialStatus.FINISHED, at=ended),
    ]


def test_every_slot_second_is_in_one_place() -> None:
    events = [
        begin(100.0),
        *trial("t000", 101.0, [105.0, 107.0], 107.5),
        *trial("t001", 101.5, [104.0], 104.25),
        *trial("t002", 104.5, [106.0], 106.25),
    ]
    found = losses(events, slots=2)
    assert found["wall_s"] == 7.5
    assert found["train_s"] == pytest.approx(4 * EPOCH_S)
    assert found["efficiency"] == pytest.approx(4 * EPOCH_S / 15)
    expected = {
        "begin": 1.0 + 1.5,
        "start": (4 - EPOCH_S) + (2.5 - EPOCH_S) + (1.5 - EPOCH_S),
        "between": 2 - EPOCH_S,
        "end": 0.5 + 0.25 + 0.25,
        "turn": 0.25,
        "idle": 1.25,
    }
    assert found["lost_s"] == pytest.approx(expected)
    assert found["train_s"] + sum(found["lost_s"].values()) == pytest.approx(2 * 7.5)


def test_a_trial_of_two_workers_takes_two_slots() -> None:
    found = losses([begin(0.0), *trial("t000", 1.0, [3.0], 4.0)], slots=2, workers=2)
    assert found["efficiency"] == pytest.approx(EPOCH_S / 4)
    assert found["train_s"] + sum(found["lost_s"].values()) == pytest.approx(2 * 4)
    # A third slot stays empty.
    found = losses([begin(0.0), *trial("t000", 1.0, [3.0], 4.0)], slots=3, workers=2)
    assert found["train_s"] + sum(found["lost_s"].values()) == pytest.approx(3 * 4)
    assert found["lost_s"]["idle"] == 4


def test_a_search_that_did_not_end_is_refused() -> None:
    whole: list[Any] = [begin(0.0), *trial("t000", 1.0, [3.0], 4.0)]
    for events in (whole[:-1], whole[:1], whole[1:]):
        with pytest.raises(UserError, match="all came to their end"):
            losses(events, slots=1)


def test_the_table_has_every_cause() -> None:
    row = {
        "backend": "inproc",
        "ray_start_s": 5.0,
        **losses([begin(0.0), *trial("t000", 1.0, [3.0], 4.0)], slots=1),
    }
    where = {
        "cpu": "CPU",
        "cores": 1,
        "gpus": [],
        "git_commit": None,
        "git_dirty": False,
        "load_average": None,
        "versions": {},
        "started_at": "now",
    }
    lines = sweep_overhead.table(where, {"trials": 1, "trial_s": 20.0, "slots": 1}, [row]).splitlines()
    assert lines[-2].split()[-6:] == list(sweep_overhead.CAUSES)
    assert lines[-1].split() == [
        "inproc",
        "27.5%",
        "4.0",
        "5.0",
        "1.00",
        "0.90",
        "0.00",
        "1.00",
        "0.00",
        "0.00",
    ]
