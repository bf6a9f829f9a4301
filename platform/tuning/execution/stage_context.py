"""The settings shared by the trials of a stage: placement, folder, dataset, observer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from platform.data.dataset import DatasetInfo
from platform.tracking.events import SweepObserver, TrialInfo
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.journal.trial import TrialTask

Backend = Literal["inproc", "ddp"]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Backend and resources of a stage's trials."""

    backend: Backend
    workers: int
    """Workers of one trial."""
    cpus_per_worker: float
    gpus_per_worker: float
    concurrent: int
    """Trials that run at the same time on the nodes of the plan."""
    concurrent_on: Callable[[Sequence[Mapping[str, float]]], int] | None = None
    """Returns the trials at the same time on other nodes; None if their number does not follow the nodes."""


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """Placement, folder, dataset, observer and provenance of a stage's trials."""

    placement: Placement
    folder: SweepFolder
    """The sweep's folder. Its journal holds the finished part of the stage."""
    info: DatasetInfo
    """The dataset in the cache."""
    observer: SweepObserver
    """Receives the events of all trials."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Stored in every trained model."""

    def task(self, trial: TrialInfo, *, final: bool = False) -> TrialTask:
        """Return the task that runs a trial in this stage.

        Args:
            trial: the trial.
            final: train on training and validation images together.
        """
        return TrialTask(
            trial_id=trial.trial_id,
            stage=trial.stage,
            number=trial.number,
            params=dict(trial.params),
            candidate=trial.candidate,
            run=trial.config,
            **self._paths(trial.trial_id),
            final=final,
            workers=self.placement.workers,
            cpus_per_worker=self.placement.cpus_per_worker,
            gpus_per_worker=self.placement.gpus_per_worker,
            provenance=dict(self.provenance),
            costs=dict(trial.costs),
        )

    def relocated(self, task: TrialTask) -> TrialTask:
        """Return a journaled task with the paths of this computer: the sweep's folder may have moved."""
        return task.model_copy(update=self._paths(task.trial_id))

    def _paths(self, trial_id: str) -> dict[str, str]:
        return {
            "data_path": str(self.info.path),
            "checkpoint_dir": str(self.folder.checkpoint_dir(trial_id)),
            "log_path": str(self.folder.logs / f"{trial_id}.log"),
        }
