"""One trial inside a reused Ray actor: the backend for one worker.

The process stays between trials, and with it the imports, the data tables, and on a GPU the context and
the compiled kernels: 0.02 s from one trial to the next on two cores, against 9 s for a new process.
"""

from __future__ import annotations

import functools
import gc
import os
from pathlib import Path
from typing import Any

from platform.training.records import EpochRecord
from platform.tuning.journal.trial import PROCESS_ENDS, TrialFailed, TrialTask, epoch_line, trial_log


def train_trial(config: dict[str, Any]) -> None:
    """Run one trial; Ray Tune calls this in the trial's actor.

    Args:
        config: `task`, a TrialTask as JSON, and `reported_epochs`, what the sweep knows of it already.

    Raises:
        SystemExit: from within `tune.report`, when Tune stops the trial.
    """
    from ray import tune

    from platform.training.acceleration.cuda_graph import capture_has_failed

    if capture_has_failed():
        tune.report({PROCESS_ENDS: True})
        os._exit(1)  # this trial gets a new process
    task = TrialTask.model_validate_json(config["task"])
    if device_for(task.gpus_per_worker) == "cuda":
        # The trial before this one has left its CUDA graph and its activations.
        _free_memory()
    header = f"{task.trial_id} in process {os.getpid()}: {task.run.model_dump_json()}"
    metrics, sound = dict[str, Any](), True
    try:
        with trial_log(Path(task.log_path), header):
            _train(task, config["reported_epochs"])
    except TrialFailed as failure:
        metrics, sound = failure.as_metrics(), failure.process_is_sound
    if metrics:
        # Only now: the error's frames held the network.
        _free_memory()
        tune.report(metrics)
        if not sound:
            os._exit(1)  # the next trial gets a new process


def _train(task: TrialTask, reported_epochs: int) -> None:
    import torch
    from ray import tune

    from platform.training.checkpoint import read_records
    from platform.training.distributed import single
    from platform.training.loop import fit

    torch.set_num_threads(task.threads)
    folder = Path(task.checkpoint_dir)
    # The sweep died between a checkpoint and its note of the epoch: tell it, in order, before going on.
    for record in read_records(folder)[reported_epochs:]:
        tune.report(record.as_dict())

    def report(record: EpochRecord) -> None:
        print(epoch_line(record))
        tune.report(record.as_dict())

    fit(
        task.run,
        tables(task.data_path, task.run.data.model_dump_json(), final=task.final),
        world=single(device_for(task.gpus_per_worker)),
        checkpoint_dir=folder,
        on_epoch=report,
        provenance=dict(task.provenance),
        accumulate=task.accumulate,
    )


def _free_memory() -> None:
    import torch

    from platform.training.acceleration.cuda_graph import capture_has_failed

    gc.collect()
    if not capture_has_failed():
        torch.cuda.empty_cache()


@functools.lru_cache(maxsize=2)
def tables(data_path: str, data_config: str, *, final: bool) -> Any:
    """Return the training data (`platform.data.training_data.TrainingData`), loaded once per process."""
    from platform.data.cache import open_info
    from platform.data.config import DataConfig
    from platform.data.training_data import load_training_data

    return load_training_data(
        DataConfig.model_validate_json(data_config), open_info(Path(data_path)), final=final
    )


def device_for(gpus: float) -> str:
    """Return torch's name of the device that Ray has given this process."""
    return "cuda" if gpus > 0 else "cpu"
