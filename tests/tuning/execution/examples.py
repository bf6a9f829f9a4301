"""A small space, its dataset, and a recording observer for tests that run trials."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from platform.data.dataset import DatasetInfo
from platform.space.spec import SweepSpec
from platform.tracking.events import SweepObserver, TrialInfo, TrialStatus
from platform.tracking.sweep_folder import SweepFolder
from platform.training.records import EpochRecord
from platform.tuning.execution.stage_context import Placement, StageContext
from platform.tuning.journal.ledger import JournaledTrial
from platform.tuning.journal.trial import TrialTask
from platform.tuning.search_stage import run_search

ONE_SLOT = Placement(backend="inproc", workers=1, cpus_per_worker=1, gpus_per_worker=0, concurrent=1)
TWO_WORKERS = Placement(backend="ddp", workers=2, cpus_per_worker=1, gpus_per_worker=0, concurrent=1)


def tiny_spec(**changes: Any) -> SweepSpec:
    """Return a space of short trials: three epochs on 64 generated images. One optimizer diverges."""
    values: dict[str, Any] = {
        "name": "tiny",
        "base": {
            "model": {"name": "resnet32_cifar"},
            "data": {"name": "generated", "train_limit": 64, "validation_size": 40},
            "epochs": 3,
            "batch_size": 32,
            "optimizer": {"name": "sgd", "lr": 0.1},
            "schedule": {"name": "constant"},
        },
        "search": {
            "optimizer": [
                {"name": "sgd", "lr": {"log_uniform": [1e-3, 1e-1]}, "momentum": 0.9},
                {"name": "adam", "lr": {"log_uniform": [1e-4, 1e-2]}},
                {"name": "adamw", "lr": 1e30},
            ]
        },
        "trials": 4,
        "sampler": {"name": "tpe", "startup_trials": 1},
        "scheduler": {"name": "asha", "grace_epochs": 1, "reduction_factor": 2},
    }
    return SweepSpec.model_validate(values | changes)


def sgd(lr: float) -> dict[str, Any]:
    """Return a starting point."""
    return {"optimizer": "sgd", "optimizer.sgd.lr": lr}


DIVERGES = {"optimizer": "adamw"}


class RecordingObserver(SweepObserver):
    """Records every event as text, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def trial_started(self, trial: TrialInfo) -> None:
        self.lines.append(f"{trial.trial_id} started")

    def epoch_finished(self, trial: TrialInfo, record: EpochRecord) -> None:
        self.lines.append(f"{trial.trial_id} epoch {record.epoch}")

    def trial_noted(self, trial: TrialInfo, note: str) -> None:
        self.lines.append(f"{trial.trial_id} note: {note}")

    def trial_ended(self, trial: TrialInfo, status: TrialStatus, *, error: str | None = None) -> None:
        self.lines.append(f"{trial.trial_id} {status}")


def context(
    folder: Path,
    info: DatasetInfo,
    *,
    observer: SweepObserver | None = None,
    placement: Placement = ONE_SLOT,
) -> StageContext:
    """Return the context of a stage in `folder`."""
    return StageContext(
        placement=placement, folder=SweepFolder(folder), info=info, observer=observer or SweepObserver()
    )


def search(
    spec: SweepSpec,
    folder: Path,
    info: DatasetInfo,
    *,
    observer: SweepObserver | None = None,
    placement: Placement = ONE_SLOT,
) -> list[JournaledTrial]:
    """Run (or resume) a search in `folder`."""
    return run_search(spec, context(folder, info, observer=observer, placement=placement))


def unfinished(folder: Path) -> list[str]:
    """Return the temporary files that are left in a sweep's folder."""
    return [path.name for path in folder.rglob(".*") if path.name.endswith(".tmp")]


def table(trials: list[JournaledTrial]) -> list[tuple[Any, ...]]:
    """Return the fields that must be equal in an interrupted and an uninterrupted sweep: all but times."""
    return [
        (
            trial.task.trial_id,
            trial.task.params,
            trial.task.run.seed,
            trial.status,
            [(record.epoch, record.train_loss, record.validation_accuracy) for record in trial.records],
        )
        for trial in trials
    ]


def run_group_with_little_memory(config: dict[str, Any]) -> None:
    """Run a trial whose second worker runs out of GPU memory, unless each batch is split into pieces."""
    from unittest import mock

    from platform.tuning.execution import ddp

    with mock.patch.object(ddp, "train_worker", train_worker_with_little_memory):
        ddp.run_worker_group(config)


def train_worker_with_little_memory(config: dict[str, Any]) -> None:
    """Train as one worker; the second worker runs out of memory with whole batches."""
    from unittest import mock

    import ray.train
    import torch

    from platform.tuning.execution.ddp import train_worker

    whole = TrialTask.model_validate_json(config["task"]).accumulate == 1
    if whole and ray.train.get_context().get_world_rank() == 1:
        error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        with mock.patch("torch.Tensor.backward", side_effect=error):
            train_worker(config)
    else:
        train_worker(config)


def train_with_a_failed_capture(config: dict[str, Any]) -> None:
    """Run a trial; after t000, mark the process as one in which a CUDA-graph capture has failed."""
    from platform.training.acceleration import cuda_graph
    from platform.tuning.execution.inproc import train_trial

    train_trial(config)
    if TrialTask.model_validate_json(config["task"]).trial_id == "t000":
        cuda_graph._failed.set()


def train_with_little_memory(config: dict[str, Any]) -> None:
    """Run a trial: t000 fits only in pieces, t001 never fits, and t002 runs out of main memory."""
    from unittest import mock

    import torch

    from platform.tuning.execution.inproc import train_trial

    task = TrialTask.model_validate_json(config["task"])
    error: Exception | None = None
    if task.trial_id == "t001" or (task.trial_id == "t000" and task.accumulate == 1):
        error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    elif task.trial_id == "t002":
        error = MemoryError()
    with mock.patch("torch.Tensor.backward", side_effect=error) if error else nullcontext():
        train_trial(config)
