"""A dataset, and a small task, record and trial for tests of the journal and of its readers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from platform.data.dataset import DatasetInfo
from platform.tracking.events import TrialStatus
from platform.training.records import EpochRecord
from platform.tuning.journal.ledger import JournaledTrial
from platform.tuning.journal.trial import TrialTask
from tests.tuning.execution.examples import tiny_spec

INFO = DatasetInfo(
    name="cifar10",
    label="cifar10",
    sha256="",
    class_names=tuple("0123456789"),
    train_images=0,
    test_images=0,
    image_shape=(3, 32, 32),
    path=Path(),
)
RUN = tiny_spec().base


def a_task(trial_id: str = "t000") -> TrialTask:
    return TrialTask(
        trial_id=trial_id,
        stage="search",
        number=0,
        params={"optimizer": "sgd", "optimizer.sgd.lr": 0.1},
        run=RUN,
        data_path="/cache/generated",
        checkpoint_dir=f"/runs/tiny/checkpoints/{trial_id}",
        log_path=f"/runs/tiny/logs/{trial_id}.log",
    )


def a_record(epoch: int = 1, accuracy: float | None = 0.5, *, epochs: int = 3) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        epochs=epochs,
        step=epoch,
        lr=0.1,
        train_loss=1.0,
        train_accuracy=0.5,
        validation_loss=1.0,
        validation_accuracy=accuracy,
        grad_norm=1.0,
        epoch_s=1.0,
        evaluation_s=0.1,
        images_per_s=64.0,
    )


def a_trial(
    number: int,
    accuracy: float | None,
    *,
    status: TrialStatus = TrialStatus.FINISHED,
    epoch: int = 9,
    loss: float | None = 1.0,
    **changes: Any,
) -> JournaledTrial:
    """Return a search trial that ended after an epoch of 9; by default its parameters are its own.

    Args:
        number: its number in the search.
        accuracy: validation accuracy, 0..1.
        status: its status at the end.
        epoch: its last epoch.
        loss: validation loss.
        changes: other fields of its task, such as `params`, `run` and `costs`.
    """
    fields = {"number": number, "params": {"batch_size": 64 + number}, **changes}
    task = a_task(f"t{number:03d}").model_copy(update=fields)
    record = replace(a_record(epoch, accuracy, epochs=9), validation_loss=loss)
    return JournaledTrial(trial=task.info(), task=task, created_at=0, records=[record], status=status)
