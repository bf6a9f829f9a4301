"""Population based training (Jaderberg et al. 2017), in step: who goes on from whose weights, how changed.

All trials train `every_epochs`, wait for each other, and exchange. Waiting costs a part of a turn where the
slots do not divide the population, and makes every decision a function of the seed and of the recorded epochs
alone: it comes out the same on any machine, and after any interruption.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from platform.tracking.events import SweepObserver
from platform.training.config import RunConfig
from platform.tuning.distributions import Choice, Dimension, Range, Scalar, walk
from platform.tuning.journal import Event, Journal
from platform.tuning.settings import Pbt
from platform.tuning.spec import SweepSpec, trial_seed
from platform.tuning.trial import Takeover, TrialTask


def decide(
    spec: SweepSpec,
    settings: Pbt,
    *,
    epoch: int,
    accuracies: Mapping[str, float],
    params: Mapping[str, Mapping[str, Scalar]],
) -> dict[str, tuple[str, dict[str, Scalar]]]:
    """Return who takes over whom, and the settings to go on with: `{trial: (source, params)}`.

    Truncation selection: each of the worst takes over one of the best, drawn at random, if that is better.

    Args:
        spec: the space, whose seed decides all luck.
        settings: how many, and how far settings move.
        epoch: epochs that all have trained.
        accuracies: validation accuracy of each living trial at that epoch.
        params: the settings of each of them.
    """
    ranked = sorted(accuracies, key=lambda name: (-accuracies[name], name))
    count = min(max(1, int(settings.quantile * len(ranked))), len(ranked) // 2)
    best, worst = ranked[:count], ranked[len(ranked) - count :]
    found = {}
    for target in sorted(worst):
        luck = random.Random(f"{spec.seed}:pbt:{epoch}:{target}")  # noqa: S311 - reproducible on purpose
        source = luck.choice(best)
        if accuracies[source] > accuracies[target]:
            found[target] = (source, perturbed(spec, params[source], settings, luck))
    return found


def perturbed(
    spec: SweepSpec, params: Mapping[str, Scalar], settings: Pbt, luck: random.Random
) -> dict[str, Scalar]:
    """Return settings a little beside `params`, within the space; alternatives stay the ones they are."""

    def choose(dimension: Dimension) -> Scalar:
        node, value = dimension.node, params[dimension.name]
        if isinstance(node, Range):
            if luck.random() < settings.resample_probability:
                return _drawn(node, luck)
            factor = settings.factor if luck.random() < 0.5 else 1 / settings.factor
            return _near(node, float(value), factor, luck)
        if isinstance(node, Choice):
            if luck.random() < settings.resample_probability:
                return luck.choice(node.labels)
            place = node.labels.index(node.label(value)) + luck.choice((-1, 1))
            return node.labels[min(max(place, 0), len(node.labels) - 1)]
        return value

    return walk(spec.search, choose).params


def _drawn(node: Range, luck: random.Random) -> Scalar:
    if node.step is not None:
        return luck.choice(node.grid())
    if node.integral:
        return luck.randint(int(node.low), int(node.high))
    if node.log:
        drawn = node.low * math.exp(luck.random() * math.log(node.high / node.low))
        return min(max(drawn, node.low), node.high)
    return luck.uniform(node.low, node.high)


def _near(node: Range, value: float, factor: float, luck: random.Random) -> Scalar:
    """Return `value` times `factor`, kept within the range, on its steps, and never quite the same."""
    if node.step is not None:
        values = node.grid()
        place = values.index(node.contain(value)) + luck.choice((-1, 1))
        return values[min(max(place, 0), len(values) - 1)]
    moved = min(max(value * factor, node.low), node.high)
    if node.integral:
        rounded = round(moved)
        if rounded == value:
            rounded += 1 if factor > 1 else -1
        return int(min(max(rounded, node.low), node.high))
    return moved


class Population:
    """The turns of a population: hands out its trials, and lets them exchange when all have come as far."""

    def __init__(
        self, spec: SweepSpec, settings: Pbt, *, ledger: Any, journal: Journal, observer: SweepObserver
    ) -> None:
        """Begin before the first turn.

        Args:
            spec: the space.
            settings: its scheduler.
            ledger: what the driver knows of each trial (`platform.tuning.callback.Ledger`); changed in place.
            journal: is told each exchange.
            observer: is told what trials took over.
        """
        self._spec, self._settings, self._ledger = spec, settings, ledger
        self._journal, self._observer = journal, observer
        self._mark = settings.every_epochs
        self._turn: deque[str] = deque()
        self._notes: dict[str, str] = {}

    def replay(self, event: Event) -> None:
        """Learn an exchange that happened before an interruption."""
        self._take_over(event.takeovers)
        self._mark = (event.epoch or 0) + self._settings.every_epochs

    def waiting(self) -> list[TrialTask]:
        """Return the trials that have not come to the end of this turn: those to go on with first."""
        return [task for task in self._alive() if not self._waits(task)]

    def next_task(self, draw: Callable[[], TrialTask | None], *, planned: int) -> TrialTask | None:
        """Return the next trial to go on with, None while others still train, or when all have ended.

        Args:
            draw: makes a new trial, of the first turn; None when there are no more.
            planned: size of the population.
        """
        if len(self._ledger.tasks) < planned:
            return draw()
        if not self._turn:
            alive = list(self._alive())
            if not alive or not all(self._waits(task) for task in alive):
                return None
            self._exchange(alive)
            self._turn.extend(task.trial_id for task in alive)
        task: TrialTask = self._ledger.tasks[self._turn.popleft()]
        return task

    def _alive(self) -> Iterator[TrialTask]:
        return (task for name, task in self._ledger.tasks.items() if name not in self._ledger.ended)

    def _waits(self, task: TrialTask) -> bool:
        """Return whether a living trial has come to the end of its turn; in its last one it just ends."""
        records = self._ledger.records.get(task.trial_id, ())
        return len(records) >= self._mark and records[-1].epoch < records[-1].epochs

    def _exchange(self, alive: Sequence[TrialTask]) -> None:
        from platform.training.inheritance import inherit_checkpoint

        records = {task.trial_id: self._ledger.records[task.trial_id][self._mark - 1] for task in alive}
        decided = decide(
            self._spec,
            self._settings,
            epoch=self._mark,
            accuracies={name: record.validation_accuracy or 0.0 for name, record in records.items()},
            params={task.trial_id: task.current_params for task in alive},
        )
        takeovers = []
        for target, (source, params) in decided.items():
            task = self._ledger.tasks[target]
            run = self._run(task, params)
            # Nobody who gives takes, and nobody trains now: dying here, and doing it again, changes nothing.
            inherit_checkpoint(
                Path(self._ledger.tasks[source].checkpoint_dir), Path(task.checkpoint_dir), config=run
            )
            takeovers.append(
                Takeover(trial_id=target, source=source, epoch=self._mark, params=params, run=run)
            )
        self._journal.exchange(self._mark, takeovers)
        self._take_over(takeovers)
        for takeover in takeovers:
            info = self._ledger.tasks[takeover.trial_id].info()
            self._observer.trial_noted(info, self._notes[takeover.trial_id])
        self._mark += self._settings.every_epochs

    def _take_over(self, takeovers: Sequence[Takeover]) -> None:
        for takeover in takeovers:
            name = takeover.trial_id
            task = self._ledger.tasks[name]
            said = takeover.text(task.current_params)
            self._notes[name] = f"{self._notes[name]}\n{said}" if name in self._notes else said
            self._ledger.tasks[name] = takeover.applied_to(task)

    def _run(self, task: TrialTask, params: Mapping[str, Scalar]) -> RunConfig:
        return self._spec.resolve(params, seed=trial_seed(self._spec, task.number))
