"""Run a trial as a Ray Train worker group: the backend for several workers.

`TorchTrainer.fit()` runs in a thread of the trial's process. The callbacks of Ray Train's controller put each
epoch, and the placement group of the workers, into a queue. The trial's main thread forwards the epochs to
Tune, and removes the placement group when Tune stops the trial. (Ray itself removes it only if the dashboard
runs.)
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

from ray.train import UserCallback
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.util.queue import Empty, Queue
from typing_extensions import override

from platform.training.records import EpochRecord
from platform.tuning.execution.network_interface import NodeTorchConfig
from platform.tuning.execution.node_files import trial_files
from platform.tuning.execution.train_task import device_for, train_task
from platform.tuning.journal.trial import FAILURE, NODE_NOTE, TrialFailed, TrialTask, trial_log

_POLL_S = 0.2
_EPOCH, _GROUP = "epoch", "group"


def run_worker_group(config: dict[str, Any]) -> None:
    """Run one trial's worker group; Ray Tune calls this in the trial's actor.

    Args:
        config: `task`, a TrialTask as JSON; `reported_epochs`, the number of journaled epochs;
            `file_server`, the name of the sweep's file server, or None; and `train_dir`, the folder of Ray
            Train's own records.

    Raises:
        SystemExit: when Tune stops the trial.
        Exception: Ray's own, when a worker's process died or the group could not start.
    """
    from ray import tune

    task = TrialTask.model_validate_json(config["task"])
    queue = Queue(maxsize=1, actor_options={"num_cpus": 0})
    done, errors = threading.Event(), list[BaseException]()

    def fit() -> None:
        try:
            _trainer(task, config, queue).fit()
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=fit, daemon=True, name=f"train-{task.trial_id}").start()
    groups: list[Any] = []
    try:
        failure = _forward_reports(queue, done, groups)
    finally:
        _remove(groups)
        queue.shutdown(force=True)
    if failure is not None:
        tune.report(failure)
    elif errors:
        raise errors[0]


def train_worker(config: dict[str, Any]) -> None:
    """Train as one worker of the group; Ray Train calls this in each worker."""
    import ray.train
    import ray.train.torch
    import torch
    from ray.train.v2._internal.execution import context as train_context

    from platform.training.distributed import World

    # This logger is named after its file, so `LoggingConfig` does not reach it. It logs every report.
    train_context.logger.setLevel(logging.WARNING)
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    task = TrialTask.model_validate_json(config["task"])
    log = Path(task.log_path)
    if rank:
        log = log.with_name(f"{log.stem}.rank{rank}{log.suffix}")

    def report(record: EpochRecord) -> None:
        # A barrier: every worker must report equally often. Only rank 0's metrics are used.
        ray.train.report(record.as_dict())

    header = f"{task.trial_id}, worker {rank} of {size} in process {os.getpid()}"
    with trial_files(task, config["file_server"]) as files:
        try:
            with trial_log(log, f"{header}: {task.run.model_dump_json()}", open_log=files.open_log):
                on_gpu = device_for(task.gpus_per_worker) == "cuda"
                device = ray.train.torch.get_device() if on_gpu else torch.device("cpu")
                train_task(
                    task,
                    reported_epochs=config["reported_epochs"],
                    world=World(rank=rank, size=size, device=device),
                    files=files,
                    report=report,
                    note=lambda text: config["queue"].put((NODE_NOTE, {NODE_NOTE: text})),
                )
        except TrialFailed as failure:
            # Ray Train reports the death of the lost peer, and the trial is tried again.
            if not _is_lost_peer(failure.__cause__):
                config["queue"].put((FAILURE, files.failure_metrics(failure)))
            raise


def _is_lost_peer(error: BaseException | None) -> bool:
    """Return whether the process group failed because another worker's process or node was lost."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))


class _EpochCallback(UserCallback):
    """Puts rank 0's reports into the queue, in the controller. Blocks while the queue is full."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    @override
    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        moved_bytes = sum(each["moved_bytes"] or 0 for each in metrics) or None
        self._queue.put((_EPOCH, metrics[0] | {"moved_bytes": moved_bytes}))


class _PlacementGroupCallback(WorkerGroupCallback):
    """Puts the placement group of the workers into the queue, in the controller."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    @override
    def after_worker_group_start(self, worker_group: Any) -> None:
        state = worker_group.get_worker_group_state()
        self._queue.put((_GROUP, state.placement_group_handle.placement_group))


def _trainer(task: TrialTask, config: dict[str, Any], queue: Queue) -> Any:
    import ray.train
    from ray.train.torch import TorchTrainer

    train: Any = ray.train  # at run time these are the classes of Train V2; type checkers see those of V1
    resources = {"CPU": task.cpus_per_worker}
    if task.gpus_per_worker:
        resources["GPU"] = task.gpus_per_worker
    return TorchTrainer(
        train_worker,
        train_loop_config={
            "task": config["task"],
            "reported_epochs": config["reported_epochs"],
            "file_server": config["file_server"],
            "queue": queue,
        },
        torch_config=NodeTorchConfig(
            backend="nccl" if device_for(task.gpus_per_worker) == "cuda" else "gloo"
        ),
        scaling_config=train.ScalingConfig(
            num_workers=task.workers,
            use_gpu=task.gpus_per_worker > 0,
            resources_per_worker=resources,
        ),
        run_config=train.RunConfig(
            name=task.trial_id,
            storage_path=config["train_dir"],
            callbacks=[_EpochCallback(queue), _PlacementGroupCallback(queue)],
            failure_config=train.FailureConfig(max_failures=0, controller_failure_limit=1),
            logging_config=train.LoggingConfig(log_level="ERROR"),
        ),
    )


def _forward_reports(queue: Queue, done: threading.Event, groups: list[Any]) -> dict[str, Any] | None:
    """Report epochs to Tune until the run has ended; return the first worker's failure, if any."""
    from ray import tune

    failure: dict[str, Any] | None = None
    while True:
        try:
            kind, value = queue.get(timeout=_POLL_S)
        except Empty:
            if done.is_set():
                return failure
            continue
        if kind == _GROUP:
            groups.append(value)
        elif kind == FAILURE:
            # The first failure is the cause; those of the other workers follow from it.
            failure = failure or value
        else:
            tune.report(value)


def _remove(groups: list[Any]) -> None:
    from ray.util import remove_placement_group

    for group in groups:
        remove_placement_group(group)
