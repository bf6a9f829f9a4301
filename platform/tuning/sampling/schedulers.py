"""Early stopping: Ray Tune schedulers that count reported epochs.

Schedulers identify a trial by the sweep's trial id, which stays the same after a resume. They never stop a
trial at its last epoch, so it finishes and writes its model.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ray.tune import Stopper
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from typing_extensions import override

from platform.space.settings import Asha, Median, Scheduler
from platform.training.records import EpochRecord

_NO_LAST_RUNG = 10**6  # epochs; more than any trial has


def make_scheduler(settings: Scheduler) -> EpochAsha | EpochMedian | None:
    """Return the Tune scheduler for the `scheduler` section of a space file; None to stop no trial early."""
    if isinstance(settings, Asha):
        return EpochAsha(grace_epochs=settings.grace_epochs, reduction_factor=settings.reduction_factor)
    if isinstance(settings, Median):
        return EpochMedian(grace_epochs=settings.grace_epochs, min_trials=settings.min_trials)
    return None


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
        """Register a new or continued trial."""
        super().on_trial_add(tune_controller, _with_sweep_id(trial))

    @override
    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return Tune's decision for a trial after this epoch."""
        if result.get("epoch", 0) >= result.get("epochs", _NO_LAST_RUNG):
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, _with_sweep_id(trial), result))

    @override
    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Remove a trial that has ended. Its results stay in the rungs."""
        self._trial_info.pop(trial.config["trial_id"], None)

    @override
    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Remove a trial that never ran."""
        self._trial_info.pop(trial.config["trial_id"], None)

    def replay(self, trial_id: str, record: EpochRecord) -> bool:
        """Process a journaled epoch; return whether the trial continues after it."""
        trial = SimpleNamespace(trial_id=trial_id, config={"trial_id": trial_id})
        if trial_id not in self._trial_info:
            self.on_trial_add(None, trial)
        return self.on_trial_result(None, trial, record.as_dict()) == TrialScheduler.CONTINUE


class EpochMedian(FIFOScheduler):
    """The median stopping rule of Vizier (Golovin et al. 2017, section 3.2.1), by epoch.

    A trial is stopped if its best accuracy so far is below the median of the other trials' running means
    at the same epoch. The decisions of Ray Tune's own rule depend on wall time, and so on the machine's load.
    """

    def __init__(self, *, grace_epochs: int, min_trials: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._grace, self._min_trials = grace_epochs, min_trials
        self._accuracies: dict[str, list[float]] = {}
        self._means: dict[int, dict[str, float]] = {}
        """By epoch: the mean accuracy of each trial up to it."""

    @override
    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return Tune's decision for a trial after this epoch."""
        if "epoch" not in result:
            return str(TrialScheduler.CONTINUE)
        epoch, epochs = result["epoch"], result["epochs"]
        return self._decide(trial.config["trial_id"], epoch, epochs, result["validation_accuracy"])

    def replay(self, trial_id: str, record: EpochRecord) -> bool:
        """Process a journaled epoch; return whether the trial continues after it."""
        decision = self._decide(trial_id, record.epoch, record.epochs, record.validation_accuracy)
        return decision == TrialScheduler.CONTINUE

    def _decide(self, trial_id: str, epoch: int, epochs: int, validation_accuracy: float | None) -> str:
        own = self._accuracies.setdefault(trial_id, [])
        # A trial whose process died may report an epoch again.
        for later in range(epoch, len(own) + 1):
            self._means[later].pop(trial_id, None)
        del own[epoch - 1 :]
        own.append(validation_accuracy or 0.0)
        means = self._means.setdefault(epoch, {})
        others = list(means.values())
        means[trial_id] = statistics.fmean(own)
        if epoch < self._grace or epoch >= epochs or len(others) < self._min_trials:
            return str(TrialScheduler.CONTINUE)
        behind = max(own) < statistics.median(others)
        return str(TrialScheduler.STOP if behind else TrialScheduler.CONTINUE)


class StopBetweenEpochs(Stopper):
    """Stops a trial after its current epoch, unless that is its last."""

    def __init__(self, stops_after: Callable[[dict[str, Any]], bool]) -> None:
        """Set the decision.

        Args:
            stops_after: called with Tune's result of each epoch; `config` has the sweep's trial id.
        """
        self._stops_after = stops_after

    @override
    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return result.get("epoch", 0) < result.get("epochs", 0) and self._stops_after(result)

    @override
    def stop_all(self) -> bool:
        return False

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its configuration for `Tuner.restore`, which this project does not use.
        return {}


def _with_sweep_id(trial: Any) -> Any:
    return SimpleNamespace(trial_id=trial.config["trial_id"])
