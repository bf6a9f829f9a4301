"""The turns of a population, without training: who may go on when, and what a replay brings back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from platform.tracking.events import SweepObserver, TrialStatus
from platform.training.config import RunConfig
from platform.tuning.callback import Ledger
from platform.tuning.journal import Journal, open_journal, read_journal
from platform.tuning.population import Population
from platform.tuning.trial import TrialTask
from tests.tuning_ray.examples import tiny_spec
from tests.tuning_ray.test_journal import a_record, a_task

SPEC = tiny_spec(
    base={**tiny_spec().base.model_dump(), "epochs": 6},
    search={"optimizer.lr": {"log_uniform": [1e-3, 1e-1]}},
    trials=3,
    scheduler={"name": "pbt", "every_epochs": 2},
)


class Turns:
    """A population whose epochs are noted by hand."""

    def __init__(self, journal: Journal) -> None:
        self.ledger = Ledger()
        self.journal = journal
        self.population = Population(
            SPEC, SPEC.scheduler, ledger=self.ledger, journal=journal, observer=SweepObserver()
        )

    def draw(self) -> TrialTask | None:
        number = len(self.ledger.tasks)
        name, rate = f"t{number:03d}", 0.01 * (number + 1)
        task = a_task(name).model_copy(update={"number": number, "params": {"optimizer.lr": rate}})
        self.ledger.tasks[name] = task
        return task

    def next(self) -> str | None:
        task = self.population.next_task(self.draw, planned=3)
        return task.trial_id if task is not None else None

    def trained(self, name: str, epochs: int, accuracy: float) -> None:
        self.ledger.records[name] = [
            dataclasses.replace(a_record(epoch + 1, accuracy), epochs=6) for epoch in range(epochs)
        ]


@pytest.fixture
def inherited(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, float]]:
    seen = []

    def inherit(source: Path, target: Path, *, config: RunConfig) -> None:
        seen.append((source.name, target.name, config.optimizer.lr))

    monkeypatch.setattr("platform.training.inheritance.inherit_checkpoint", inherit)
    return seen


def test_nobody_goes_on_before_all_have_come_as_far(tmp_path: Path, inherited: list[Any]) -> None:
    with open_journal(tmp_path / "journal.jsonl") as journal:
        turns = Turns(journal)
        assert [turns.next() for _ in range(4)] == ["t000", "t001", "t002", None]
        turns.trained("t000", 2, 0.5)
        turns.trained("t001", 2, 0.7)
        turns.trained("t002", 1, 0.1)
        assert turns.next() is None
        assert [task.trial_id for task in turns.population.waiting()] == ["t002"]
        turns.trained("t002", 2, 0.2)
        assert inherited == []
        assert turns.next() == "t000"
        [(source, target, rate)] = inherited
        assert (source, target) == ("t001", "t002")
        assert turns.ledger.tasks["t002"].current_run.optimizer.lr == rate
        assert turns.ledger.tasks["t002"].params == {"optimizer.lr": 0.03}
        assert [turns.next() for _ in range(3)] == ["t001", "t002", None]


def test_a_failed_trial_is_not_waited_for(tmp_path: Path, inherited: list[Any]) -> None:
    with open_journal(tmp_path / "journal.jsonl") as journal:
        turns = Turns(journal)
        for number in range(3):
            turns.next()
            turns.trained(f"t{number:03d}", 2 if number else 1, 0.1 * number)
        assert turns.next() is None
        turns.ledger.ended["t000"] = (TrialStatus.FAILED, "NaN")
        assert [turns.next() for _ in range(3)] == ["t001", "t002", None]
        assert [(source, target) for source, target, _ in inherited] == [("t002", "t001")]
        turns.ledger.ended |= dict.fromkeys(("t001", "t002"), (TrialStatus.FINISHED, None))
        assert turns.next() is None


def test_a_trial_in_its_last_epoch_ends_and_is_not_exchanged(tmp_path: Path, inherited: list[Any]) -> None:
    with open_journal(tmp_path / "journal.jsonl") as journal:
        turns = Turns(journal)
        for done in (2, 4):
            for number in range(3):
                turns.next()
                turns.trained(f"t{number:03d}", done, 0.1 * number)
        assert [turns.next() for _ in range(3)] == ["t000", "t001", "t002"]
        for number in range(3):
            turns.trained(f"t{number:03d}", 6, 0.1 * number)
        turns.ledger.ended |= dict.fromkeys(("t000", "t001"), (TrialStatus.FINISHED, None))
        # Its last epoch is noted, its end is not yet.
        assert turns.next() is None
        assert [task.trial_id for task in turns.population.waiting()] == ["t002"]
        assert len(inherited) == 2


def test_a_replayed_exchange_is_as_the_lived_one(tmp_path: Path, inherited: list[Any]) -> None:
    with open_journal(tmp_path / "journal.jsonl") as journal:
        lived, replayed = Turns(journal), Turns(journal)
        for turns in (lived, replayed):
            for number in range(3):
                turns.population.next_task(turns.draw, planned=3)
                turns.trained(f"t{number:03d}", 2, 0.1 * number)
        lived.next()
        [event] = read_journal(tmp_path / "journal.jsonl")
        replayed.population.replay(event)
    assert replayed.ledger.tasks == lived.ledger.tasks
    assert [task.trial_id for task in replayed.population.waiting()] == ["t000", "t001", "t002"]
    assert len(inherited) == 1, "the checkpoints lie in their places"
