"""A small task and a small record for tests of the journal and of its readers."""

from __future__ import annotations

from platform.training.records import EpochRecord
from platform.tuning.journal.trial import TrialTask
from tests.tuning.execution.examples import tiny_spec


def a_task(trial_id: str = "t000") -> TrialTask:
    return TrialTask(
        trial_id=trial_id,
        stage="search",
        number=0,
        params={"optimizer": "sgd", "optimizer.sgd.lr": 0.1},
        run=tiny_spec().base,
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
