"""Which trials are stopped early: Ray Tune's schedulers, on the clock of reported epochs.

A trial is known to them by the sweep's own id, which survives a resume, and its last epoch is never
judged: whoever gets there ends by itself, with its model written.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from typing_extensions import override

from platform.errors import UsageError
from platform.training.records import EpochRecord
from platform.tuning.settings import Asha, NoStopping, Scheduler

_NO_LAST_RUNG = 10**6  # epochs; a trial's own end is the end of its rungs


def make_scheduler(settings: Scheduler) -> FIFOScheduler:
    """Return Tune's scheduler for a space file's `scheduler` section."""
    if isinstance(settings, NoStopping):
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    if isinstance(settings, Asha):
        return EpochAsha(grace_epochs=settings.grace_epochs, reduction_factor=settings.reduction_factor)
    raise UsageError(f"scheduler.name: {settings.name!r} cannot be run yet; use asha or none")


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

    def replay(self, trial_id: str, record: EpochRecord) -> None:
        """Mark the rungs as the trial's epoch did before the interruption."""
        trial = SimpleNamespace(trial_id=trial_id, config={"trial_id": trial_id})
        if trial_id not in self._trial_info:
            self.on_trial_add(None, trial)
        self.on_trial_result(None, trial, record.as_dict())


def _by_own_id(trial: Any) -> Any:
    return SimpleNamespace(trial_id=trial.config["trial_id"])
