"""The contract of every scheduler: replay, grace period, last epoch, promotion of better trials."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from ray.tune.schedulers import TrialScheduler

from platform.space.settings import Scheduler
from platform.tuning.sampling.schedulers import EpochAsha, EpochMedian, make_scheduler
from tests.tuning.journal.examples import a_record

EPOCHS = 9
GRACE_EPOCHS = {
    "asha-1-2": 1,
    "asha-2-3": 2,
    "asha-1-1.5": 1,
    "median-1-1": 1,
    "median-3-2": 3,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "asha-1-2": {"name": "asha", "grace_epochs": 1, "reduction_factor": 2},
    "asha-2-3": {"name": "asha", "grace_epochs": 2, "reduction_factor": 3},
    "asha-1-1.5": {"name": "asha", "grace_epochs": 1, "reduction_factor": 1.5},
    "median-1-1": {"name": "median", "grace_epochs": 1, "min_trials": 1},
    "median-3-2": {"name": "median", "grace_epochs": 3, "min_trials": 2},
}
every_scheduler = pytest.mark.parametrize("name", SETTINGS)
patient = settings(deadline=None, max_examples=25)

accuracies = st.floats(0.0, 1.0, allow_nan=False).map(lambda value: round(value, 2))
curves = st.lists(st.lists(accuracies, min_size=EPOCHS, max_size=EPOCHS), min_size=2, max_size=7)
"""Validation accuracies by trial and epoch."""
Epoch = tuple[int, int, float]
"""Number of the trial, epoch from 1, validation accuracy."""


def scheduler_of(name: str) -> EpochAsha | EpochMedian:
    scheduler = make_scheduler(TypeAdapter(Scheduler).validate_python(SETTINGS[name]))
    assert scheduler is not None
    return scheduler


def tune_trial(number: int) -> SimpleNamespace:
    """Return a trial as Tune passes it: Tune's own id differs in every run."""
    return SimpleNamespace(trial_id=f"ray-{id(object())}", config={"trial_id": f"t{number:03d}"})


class LiveScheduler:
    """Calls a scheduler like Tune does, and returns its decision for each epoch."""

    def __init__(self, scheduler: EpochAsha | EpochMedian) -> None:
        self.scheduler = scheduler
        self.trials: dict[int, SimpleNamespace] = {}

    def continues(self, number: int, epoch: int, accuracy: float) -> bool:
        if number not in self.trials:
            self.trials[number] = tune_trial(number)
            self.scheduler.on_trial_add(None, self.trials[number])
        result = a_record(epoch, accuracy, epochs=EPOCHS).as_dict()
        decision = self.scheduler.on_trial_result(None, self.trials[number], result)
        return bool(decision == TrialScheduler.CONTINUE)

    def run(self, curves: list[list[float]], *, concurrent: int) -> list[tuple[Epoch, bool]]:
        """Run trials, `concurrent` at a time and epoch by epoch; return all epochs and decisions in order."""
        history: list[tuple[Epoch, bool]] = []
        waiting, running = list(range(len(curves))), dict[int, int]()
        while waiting or running:
            while waiting and len(running) < concurrent:
                running[waiting.pop(0)] = 0
            for number in list(running):
                running[number] += 1
                epoch = (number, running[number], curves[number][running[number] - 1])
                decision = self.continues(*epoch)
                history.append((epoch, decision))
                if not decision or running[number] == EPOCHS:
                    del running[number]
                    self.scheduler.on_trial_complete(None, self.trials[number], {})
        return history


def replay(scheduler: EpochAsha | EpochMedian, epochs: list[Epoch]) -> list[bool]:
    return [
        scheduler.replay(f"t{number:03d}", a_record(epoch, accuracy, epochs=EPOCHS))
        for number, epoch, accuracy in epochs
    ]


@every_scheduler
@patient
@given(curves, st.integers(1, 3))
def test_replayed_decisions_equal_the_live_ones(
    name: str, curves: list[list[float]], concurrent: int
) -> None:
    history = LiveScheduler(scheduler_of(name)).run(curves, concurrent=concurrent)
    assert replay(scheduler_of(name), [epoch for epoch, _ in history]) == [
        decision for _, decision in history
    ]


@every_scheduler
@patient
@given(curves, st.integers(1, 3), st.data())
def test_after_a_resume_decisions_are_those_of_an_uninterrupted_run(
    name: str, curves: list[list[float]], concurrent: int, data: st.DataObject
) -> None:
    history = LiveScheduler(scheduler_of(name)).run(curves, concurrent=concurrent)
    cut = data.draw(st.integers(0, len(history)))
    resumed = scheduler_of(name)
    replay(resumed, [epoch for epoch, _ in history[:cut]])
    live = LiveScheduler(resumed)
    assert [live.continues(*epoch) for epoch, _ in history[cut:]] == [
        decision for _, decision in history[cut:]
    ]


@every_scheduler
@patient
@given(curves, st.integers(1, 3))
def test_no_trial_stops_before_the_grace_period_or_at_its_last_epoch(
    name: str, curves: list[list[float]], concurrent: int
) -> None:
    for (_, epoch, _), decision in LiveScheduler(scheduler_of(name)).run(curves, concurrent=concurrent):
        if epoch < GRACE_EPOCHS[name] or epoch == EPOCHS:
            assert decision


@every_scheduler
@patient
@given(
    curves, st.integers(1, 3), st.lists(st.tuples(accuracies, accuracies), min_size=EPOCHS, max_size=EPOCHS)
)
def test_a_better_trial_is_promoted_wherever_a_worse_one_is(
    name: str, curves: list[list[float]], concurrent: int, pairs: list[tuple[float, float]]
) -> None:
    """Two trials, one at least as accurate at every epoch, arrive in turn after the same history."""
    history = LiveScheduler(scheduler_of(name)).run(curves, concurrent=concurrent)
    promoted: list[list[bool]] = []
    for curve in ([min(pair) for pair in pairs], [max(pair) for pair in pairs]):
        scheduler = scheduler_of(name)
        replay(scheduler, [epoch for epoch, _ in history])
        live = LiveScheduler(scheduler)
        promoted.append(
            [live.continues(len(curves), epoch, accuracy) for epoch, accuracy in enumerate(curve, start=1)]
        )
    worse, better = promoted
    assert all(better[epoch] for epoch in range(EPOCHS) if worse[epoch])


@every_scheduler
def test_a_clearly_worse_trial_is_stopped(name: str) -> None:
    """Guards the other tests: they would also pass for schedulers that stop nothing."""
    curves = [[0.5 + 0.05 * number] * EPOCHS for number in range(4)] + [[0.1] * EPOCHS]
    history = LiveScheduler(scheduler_of(name)).run(curves, concurrent=1)
    stopped = {number for (number, _, _), decision in history if not decision}
    assert stopped == {4}
