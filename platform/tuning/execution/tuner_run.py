"""Run the trials of one stage in a Ray Tune `Tuner`, on either backend.

Tune schedules the trials. Its own records are not read again, because the journal holds every decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from platform.common.errors import Interrupted, UserError
from platform.tracking.events import Stage, TrialStatus
from platform.tuning.execution import interrupts
from platform.tuning.execution.cluster_nodes import NodeWatch, control_address, is_answering
from platform.tuning.execution.node_files import file_server
from platform.tuning.execution.stage_context import Placement, StageContext
from platform.tuning.journal.journal import Journal
from platform.tuning.journal.trial import TrialTask

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

    from platform.tuning.execution.driver_callback import DriverCallback, TrialListener
    from platform.tuning.sampling.task_queue import TaskQueue

_DRIVER_RESOURCES = {"node:__internal_head__": 0.001}  # a trial that only waits for its workers takes no CPU


@dataclass(frozen=True, kw_only=True)
class TunerJob:
    """The trials of a stage, and the rules that end them early."""

    stage: Stage
    """Also the name of the Tune run."""
    waiting: Sequence[TrialTask]
    """Trials to run first: those that an interruption left unfinished."""
    next_task: Callable[[], TrialTask | None]
    """Creates and journals the next new trial; returns None when there are no more."""
    scheduler: TrialScheduler | None = None
    """None to stop no trial early."""
    listeners: Sequence[TrialListener] = ()
    """Receive every epoch and every end of a trial, in order."""
    stop_running: Callable[[dict[str, Any]], bool] | None = None
    """Called with Tune's result of each epoch; True stops the trial, unless that epoch was its last."""
    max_failures: int | None = None
    """Failed trials that the stage tolerates; one more ends it. None for any number."""


def run_trials(job: TunerJob, context: StageContext, journal: Journal) -> None:
    """Run trials until there are no more, and journal every event as it happens.

    Raises:
        Interrupted: a signal arrived; running trials keep their last checkpoint.
        UserError: more than `max_failures` trials failed.
    """
    import ray

    from platform.tuning.execution.driver_callback import DriverCallback
    from platform.tuning.sampling.task_queue import TaskQueue

    ledger, nodes = journal.ledger, NodeWatch(context.placement)
    queue = TaskQueue(
        job.next_task, waiting=job.waiting, concurrent=nodes.concurrent, epochs_known=ledger.epochs_known
    )
    interrupted = False
    with (
        file_server(context.folder, context.info, context.observer) as server,
        interrupts.catch_signals(
            before_exit=ray.shutdown, announce=context.observer.stop_requested
        ) as signals,
    ):
        callback = DriverCallback(
            journal,
            observer=context.observer,
            interrupts=signals,
            listeners=job.listeners,
            queue=queue,
            nodes=nodes,
            max_failures=job.max_failures,
        )
        try:
            with nodes.loss_as_user_error(), _killed_processes_as_dead_actors():
                _tuner(job, context, queue, callback, server).fit()
        except interrupts.StopRequested:
            interrupted = True
            # After a signal a local session ends with the sweep; its processes may have received it, too.
            ends_with_session = signals.requested and control_address() is None
            if not ends_with_session and is_answering():
                _kill(callback.live_actors())
        for trial_id in sorted(callback.running):
            context.observer.trial_ended(ledger.trials[trial_id].task.info(), TrialStatus.INTERRUPTED)
    if callback.error is not None:
        with nodes.loss_as_user_error():
            raise callback.error
    if callback.too_many_failures:
        failed = ledger.failures(job.stage)
        last = "\n".join((failed[-1].error or "").splitlines()[-2:])  # error and log, without the traceback
        raise UserError(
            f"a sweep survives {job.max_failures} failed trials (max_failures), and {len(failed)} failed: "
            f"{', '.join(trial.task.trial_id for trial in failed)}. The last one: {last}"
        )
    if interrupted:
        command = f"python -m platform.sweep --resume {context.folder.sweep_id}"
        raise Interrupted(f"interrupted; resume with: {command}")


@contextmanager
def _killed_processes_as_dead_actors() -> Iterator[None]:
    """Let Tune handle every loss of a trial's process as the death of an actor.

    Tune raises a RuntimeError, which ends the whole run, for a process that Ray's memory monitor has killed.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.exceptions import RayActorError, RayTaskError

    managers: Any = RayActorManager
    original = managers._actor_task_failed

    def task_failed(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
        known = isinstance(exception, RayActorError | RayTaskError)
        original(manager, tracked_actor_task, exception if known else RayActorError(error_msg=str(exception)))

    managers._actor_task_failed = task_failed
    try:
        yield
    finally:
        managers._actor_task_failed = original


def _tuner(
    job: TunerJob, context: StageContext, queue: TaskQueue, callback: DriverCallback, server: str | None
) -> Any:
    from ray import tune

    from platform.tuning.execution.ddp import run_worker_group
    from platform.tuning.execution.inproc import train_trial

    inproc = context.placement.backend == "inproc"
    tune_dir = context.folder.tune
    return tune.Tuner(
        tune.with_resources(train_trial if inproc else run_worker_group, _resources(context.placement)),
        param_space={"file_server": server, "train_dir": str(tune_dir / f"{job.stage}-train")},
        tune_config=tune.TuneConfig(
            search_alg=queue,
            scheduler=job.scheduler,
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=_trial_id,
            trial_dirname_creator=_trial_id,
        ),
        run_config=tune.RunConfig(
            name=job.stage,
            storage_path=str(tune_dir),
            callbacks=[callback],
            stop=_stopper(job.stop_running),
            verbose=0,
        ),
    )


def _resources(placement: Placement) -> dict[str, float]:
    if placement.backend == "ddp":
        return _DRIVER_RESOURCES
    wanted = {"CPU": placement.cpus_per_worker, "GPU": placement.gpus_per_worker}
    return {name: amount for name, amount in wanted.items() if amount}


def _stopper(stop_running: Callable[[dict[str, Any]], bool] | None) -> Any:
    if stop_running is None:
        return None
    from platform.tuning.sampling.schedulers import StopBetweenEpochs

    return StopBetweenEpochs(stop_running)


def _trial_id(trial: Any) -> str:
    return str(trial.config["trial_id"])


def _kill(actors: Iterable[Any]) -> None:
    import ray

    from platform.tuning.execution import placement_groups

    for actor in actors:
        with suppress(ValueError):  # never started
            ray.kill(actor)
    placement_groups.remove_groups_of_this_job()
