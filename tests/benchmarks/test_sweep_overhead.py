"""Slot seconds of a search by cause, on hand-made journals."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import sweep_overhead
from benchmarks.sweep_overhead import lost_time
from platform.common.errors import UserError
from platform.tracking.events import TrialStatus
from platform.tuning.journal.event import Event
from tests.benchmarks.examples import WHERE, epoch_record
from tests.tuning.test_extend_sweep import task

EPOCH_S = 1.1  # a second of training, a tenth of evaluating


def begin(at: float) -> Event:
    return Event(kind="begin", at=at)


def trial(name: str, created: float, epochs: list[float], ended: float) -> list[Event]:
    return [
        Event(kind="trial", trial_id=name, task=task(name, "search"), at=created),
        *(Event(kind="epoch", trial_id=name, record=epoch_record(1, 0.5), at=at) for at in epochs),
        Event(kind="ended", trial_id=name, status=TrialStatus.FINISHED, at=ended),
    ]


def test_slot_seconds_add_up() -> None:
    events = [
        begin(100.0),
        *trial("t000", 101.0, [105.0, 107.0], 107.5),
        *trial("t001", 101.5, [104.0], 104.25),
        *trial("t002", 104.5, [106.0], 106.25),
    ]
    found = lost_time(events, slots=2)
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


def test_trial_with_two_workers_takes_two_slots() -> None:
    found = lost_time([begin(0.0), *trial("t000", 1.0, [3.0], 4.0)], slots=2, workers=2)
    assert found["efficiency"] == pytest.approx(EPOCH_S / 4)
    assert found["train_s"] + sum(found["lost_s"].values()) == pytest.approx(2 * 4)
    # A third slot stays idle.
    found = lost_time([begin(0.0), *trial("t000", 1.0, [3.0], 4.0)], slots=3, workers=2)
    assert found["train_s"] + sum(found["lost_s"].values()) == pytest.approx(3 * 4)
    assert found["lost_s"]["idle"] == 4


def test_unfinished_search_is_rejected() -> None:
    complete: list[Any] = [begin(0.0), *trial("t000", 1.0, [3.0], 4.0)]
    for events in (complete[:-1], complete[:1], complete[1:]):
        with pytest.raises(UserError, match="trials are all finished"):
            lost_time(events, slots=1)


def test_table_has_every_cause() -> None:
    row = {
        "backend": "inproc",
        "ray_start_s": 5.0,
        **lost_time([begin(0.0), *trial("t000", 1.0, [3.0], 4.0)], slots=1),
    }
    lines = sweep_overhead.table(WHERE, {"trials": 1, "trial_s": 20.0, "slots": 1}, [row]).splitlines()
    assert lines[-2].split()[-6:] == list(sweep_overhead.CAUSES)
    assert " ".join(lines[-1].split()) == "inproc 27.5% 4.0 5.0 1.00 0.90 0.00 1.00 0.00 0.00"
