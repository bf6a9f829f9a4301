"""Which trials are stopped early: Ray Tune's schedulers, on the clock of reported epochs.

A trial is known to them by the sweep's own id, which survives a resume, and its last epoch is never
judged: whoever gets there ends by itself, with its model written.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Protocol, runtime_checkable

from ray.tune import Stopper
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from typing_extensions import override

from platform.space.settings import Asha, Median, Scheduler
from platform.training.records import EpochRecord

_NO_LAST_RUNG = 10**6  # epochs; a trial's own end is the end of its rungs


@runtime_checkable
class Replayed(Protocol):
    """A scheduler with a memory, which the journal gives back to it after an interruption."""

    def replay(self, trial_id: str, record: EpochRecord) -> bool:
        """Learn an epoch as it was learned before the interruption; return whether the trial goes on."""


def make_scheduler(settings: Scheduler) -> FIFOScheduler:
    """Return Tune's scheduler for a space file's `scheduler` section."""
    if isinstance(settings, Asha):
        return EpochAsha(grace_epochs=settings.grace_epochs, reduction_factor=settings.reduction_factor)
    if isinstance(settings, Median):
        return EpochMedian(grace_epochs=settings.grace_epochs, min_trials=settings.min_trials)
    return FIFOScheduler()  # type: ignore[no-untyped-call]


class EpochAsha(AsyncHyperBandScheduler):
    """Asynchronous successive halving (Li et al. 2020) with rungs at grace x factor^k epochs."""

    def __init__(self, *, grace_epochs: int, reduction_factor: float) -> None:
        super().__init__(
            time_attr="epoch",
            metric="validation_accuracy",
            mode="max",
            max_t=_NO_LAST_RUNG,
            grace_period=grace_epochs,
            reduction_factor=reduction_factor,
        )

    @override
    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Note a new or continued trial."""
        super().on_trial_add(tune_controller, _by_own_id(trial))

    @override
    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return whether the trial goes on after this epoch."""
        if result.get("epoch", 0) >= result.get("epochs", _NO_LAST_RUNG):
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, _by_own_id(trial), result))

    @override
    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Forget a trial that has ended; its marks on the rungs stay."""
        self._trial_info.pop(trial.config["trial_id"], None)

    @override
    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Forget a trial that never ran."""
        self._trial_info.pop(trial.config["trial_id"], None)

    def replay(self, trial_id: str, record: EpochRecord) -> bool:
        """Mark the rungs as the trial's epoch did before the interruption; return whether it goes on."""
        trial = SimpleNamespace(trial_id=trial_id, config={"trial_id": trial_id})
        if trial_id not in self._trial_info:
            self.on_trial_add(None, trial)
        return self.on_trial_result(None, trial, record.as_dict()) == TrialScheduler.CONTINUE


class EpochMedian(FIFOScheduler):
    """The median rule of Vizier (Golovin et al. 2017, section 3.2.1), on reported epochs.

    A trial is stopped if its best accuracy so far is below the median of the other trials' running means
    at the same epoch. Ray Tune's own rule compares by the clock, so that its decisions depend on the
    machine's load.
    """

    def __init__(self, *, grace_epochs: int, min_trials: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._grace, self._min_trials = grace_epochs, min_trials
        self._accuracies: dict[str, list[float]] = {}

    @override
    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return whether the trial goes on after this epoch."""
        if "epoch" not in result:
            return str(TrialScheduler.CONTINUE)
        epoch, epochs = result["epoch"], result["epochs"]
        return self._judge(trial.config["trial_id"], epoch, epochs, result["validation_accuracy"])

    def replay(self, trial_id: str, record: EpochRecord) -> bool:
        """Learn an epoch as it was learned before the interruption; return whether the trial goes on."""
        verdict = self._judge(trial_id, record.epoch, record.epochs, record.validation_accuracy)
        return verdict == TrialScheduler.CONTINUE

    def _judge(self, trial_id: str, epoch: int, epochs: int, validation_accuracy: float | None) -> str:
        own = self._accuracies.setdefault(trial_id, [])
        # A trial whose process died repeats epochs.
        del own[epoch - 1 :]
        own.append(validation_accuracy or 0.0)
        others = [
            statistics.fmean(known[:epoch])
            for name, known in self._accuracies.items()
            if name != trial_id and len(known) >= epoch
        ]
        if epoch < self._grace or epoch >= epochs or len(others) < self._min_trials:
            return str(TrialScheduler.CONTINUE)
        behind = max(own) < statistics.median(others)
        return str(TrialScheduler.STOP if behind else TrialScheduler.CONTINUE)


class StopBetweenEpochs(Stopper):
    """Stops every trial after its epoch once the search is over; a trial's last epoch ends it by itself."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over

    @override
    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return result.get("epoch", 0) < result.get("epochs", 0) and self._is_over()

    @override
    def stop_all(self) -> bool:
        return False

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its configuration for a `Tuner.restore` that is not used here.
        return {}


def _by_own_id(trial: Any) -> Any:
    return SimpleNamespace(trial_id=trial.config["trial_id"])
