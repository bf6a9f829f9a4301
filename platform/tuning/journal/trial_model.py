"""The task and the model of one trial of a sweep, finished or not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platform.common.errors import UserError, did_you_mean
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.journal.journal import read_ledger
from platform.tuning.journal.trial import TrialTask


def find_task(folder: SweepFolder, trial_id: str) -> TrialTask:
    """Return the task of a trial.

    Raises:
        UserError: the sweep has no such trial; the message lists the trials it has.
    """
    trials = read_ledger(folder.journal).trials
    if trial_id not in trials:
        some = ", ".join([*trials][:8]) + (", ..." if len(trials) > 8 else "")
        raise UserError(
            f"{folder.sweep_id} has no trial {trial_id!r}{did_you_mean(trial_id, trials)}; "
            f"it has: {some or 'none yet'}"
        )
    return trials[trial_id].task


@contextmanager
def trial_model(folder: SweepFolder, task: TrialTask) -> Iterator[Path]:
    """Yield the path of a trial's trained model. For a stopped trial this is the model of its last epoch.

    Raises:
        UserError: the trial has no checkpoint, or its data set is not in the cache.
    """
    checkpoints = folder.checkpoint_dir(task.trial_id)
    if (checkpoints / "model.pt").exists():
        yield checkpoints / "model.pt"
        return
    if not (checkpoints / "last.pt").exists():
        raise UserError(
            f"trial {task.trial_id} of {folder.sweep_id} has neither model.pt nor last.pt in {checkpoints}: "
            "it has not finished an epoch, or its checkpoints were removed"
        )
    from platform.data.cache import open_info
    from platform.data.training_data import load_training_data
    from platform.training.run_result import write_model_from_checkpoint

    data = load_training_data(task.run.data, open_info(Path(task.data_path)), final=task.final)
    with tempfile.TemporaryDirectory(prefix="model-") as scratch:
        yield write_model_from_checkpoint(
            task.run, data, checkpoint_dir=checkpoints, out_dir=Path(scratch), provenance=task.provenance
        )
