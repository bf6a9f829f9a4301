"""Train one trial in the current process, as its only worker or as one of a group."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform.training.records import EpochRecord
from platform.tuning.execution.node_files import TrialFiles
from platform.tuning.journal.trial import TrialTask, log_line

if TYPE_CHECKING:
    from platform.training.distributed import World


def train_task(
    task: TrialTask,
    *,
    reported_epochs: int,
    world: World,
    files: TrialFiles,
    report: Callable[[EpochRecord], None],
    note: Callable[[str], None],
) -> None:
    """Train or continue a trial.

    An epoch is reported when its checkpoint is in the sweep's folder, so the trial can continue after it on
    every node.

    Args:
        task: the trial.
        reported_epochs: epochs that the sweep has journaled.
        world: this worker.
        files: the trial's files on this node.
        report: receives every epoch after those, on every worker.
        note: receives a message about this node, on the worker that copied the images to it.
    """
    import torch

    from platform.training.checkpoint import read_records
    from platform.training.loop import fit

    torch.set_num_threads(task.threads)
    data_path, copied = files.place_images()
    if copied is not None:
        note(copied)
    if world.is_first:
        files.fetch_checkpoint()

    def report_with_bytes(record: EpochRecord) -> None:
        report(replace(record, moved_bytes=files.take_moved_bytes()))

    # If the sweep died between a checkpoint and the journal's line of the epoch, report the epoch again.
    unreported = read_records(files.checkpoint_dir)[reported_epochs:] if world.is_first else None
    for record in world.broadcast_from_first(unreported):
        report_with_bytes(record)

    def on_epoch(record: EpochRecord) -> None:
        sys.stdout.write(f"{log_line(record)}\n")  # Ray Train replaces `print` by one that prints twice
        report_with_bytes(record)

    fit(
        task.run,
        load_tables(str(data_path), task.run.data.model_dump_json(), final=task.final),
        world=world,
        checkpoint_dir=files.checkpoint_dir,
        on_saved=files.save,
        on_epoch=on_epoch,
        provenance=dict(task.provenance),
        accumulate=task.accumulate,
    )


@functools.lru_cache(maxsize=2)
def load_tables(data_path: str, data_config: str, *, final: bool) -> Any:
    """Return the training data (`platform.data.training_data.TrainingData`), loaded once per process."""
    from platform.data.cache import open_info
    from platform.data.config import DataConfig
    from platform.data.training_data import load_training_data

    return load_training_data(
        DataConfig.model_validate_json(data_config), open_info(Path(data_path)), final=final
    )


def device_for(gpus: float) -> str:
    """Return torch's name of the device type that Ray assigned to this process."""
    return "cuda" if gpus > 0 else "cpu"
