"""Shared helpers of the benchmarks' tests."""

from platform.training.records import EpochRecord

WHERE = {
    "cpu": "a processor",
    "cores": 16,
    "gpus": ["a GPU"],
    "git_commit": None,
    "git_dirty": None,
    "load_average": None,
    "versions": {"torch": "2.11.0"},
    "started_at": "now",
}
"""The context of a record."""


def epoch_record(epoch: int, accuracy: float) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        epochs=2,
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
