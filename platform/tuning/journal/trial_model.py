"""One trial of a sweep, found again: its task, and its model, finished or not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platform.errors import UserError, did_you_mean
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.journal.journal import read_journal
from platform.tuning.journal.trial import TrialTask


def find_task(folder: SweepFolder, trial_id: str) -> TrialTask:
    """Return everything that the process of a trial knew.

    Raises:
        UserError: the sweep has no such trial; names those it has.
    """
    past = read_journal(folder.journal)
    tasks = {event.trial_id: event.task for event in past if event.task is not None}
    for event in past:
        if event.accumulate is not None and event.trial_id in tasks:
            tasks[event.trial_id] = tasks[event.trial_id].model_copy(update={"accumulate": event.accumulate})
    if trial_id not in tasks:
        some = ", ".join([*tasks][:8]) + (", ..." if len(tasks) > 8 else "")
        raise UserError(
            f"{folder.sweep_id} has no trial {trial_id!r}{did_you_mean(trial_id, tasks)}; "
            f"it has: {some or 'none yet'}"
        )
    return tasks[trial_id]


@contextmanager
def trial_model(folder: SweepFolder, task: TrialTask) -> Iterator[Path]:
    """Give the path of a trial's trained model; of one that was stopped, the model of its last epoch.

    Raises:
        UserError: the trial has no checkpoint, or the data it was trained on is not in the cache.
    """
    kept = folder.checkpoint_dir(task.trial_id)
    if (kept / "model.pt").exists():
        yield kept / "model.pt"
        return
    if not (kept / "last.pt").exists():
        raise UserError(
            f"trial {task.trial_id} of {folder.sweep_id} has neither model.pt nor last.pt in {kept}: "
            "it has not finished an epoch, or its checkpoints were removed"
        )
    from platform.data.cache import open_info
    from platform.data.training_data import load_training_data
    from platform.training.loop import write_model_so_far

    data = load_training_data(task.run.data, open_info(Path(task.data_path)), final=task.final)
    with tempfile.TemporaryDirectory(prefix="model-") as scratch:
        yield write_model_so_far(
            task.run, data, checkpoint_dir=kept, out_dir=Path(scratch), provenance=task.provenance
        )
