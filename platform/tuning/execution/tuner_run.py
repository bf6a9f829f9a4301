"""One Tuner run: tasks in, outcomes out, on either backend.

Tune schedules the trials and its schedulers stop them; what it knows is thrown away afterwards, since the
journal holds every decision.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from platform.errors import UserError
from platform.tracking.events import SweepObserver, TrialStatus
from platform.tuning.execution import interrupts
from platform.tuning.journal.journal import Journal
from platform.tuning.journal.trial import TrialTask

Backend = Literal["inproc", "ddp"]

_DRIVER_RESOURCES = {"node:__internal_head__": 0.001}  # a trial that only waits for its workers takes no CPU


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a stage's trials run."""

    backend: Backend
    workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    concurrent: int
    """Trials at once."""


def run_tasks(
    next_task: Callable[[], TrialTask | None],
    *,
    waiting: Iterable[TrialTask],
    placement: Placement,
    ledger: Any,
    journal: Journal,
    observer: SweepObserver,
    tune_dir: Path,
    name: str,
    scheduler: Any = None,
    learners: Sequence[Any] = (),
    stop_running: Callable[[], bool] | None = None,
    max_failures: int = 0,
) -> bool:
    """Run trials until there are no more; every event is noted as it happens.

    Args:
        next_task: makes the next new trial, None when there are no more.
        waiting: trials to run first: those that an interruption cut short.
        placement: backend and resources.
        ledger: receives what happens (`platform.tuning.execution.driver_callback.Ledger`).
        journal: receives what happens, on disk.
        observer: is told what happens.
        tune_dir: where Tune keeps its own records.
        name: of the Tune run, below `tune_dir`.
        scheduler: Tune's scheduler; None to stop no trial early.
        learners: learn what happens, in order (`platform.tuning.execution.driver_callback.Learner`).
        stop_running: asked after each epoch; True stops the trial, unless that epoch was its last.
        max_failures: failed trials to survive; one more ends the run.

    Returns:
        Whether all trials ended; False after an interruption.

    Raises:
        UserError: more than `max_failures` trials failed.
    """
    import ray
    from ray import tune

    from platform.tuning.execution.ddp import drive_trial
    from platform.tuning.execution.driver_callback import DriverCallback
    from platform.tuning.execution.inproc import train_trial
    from platform.tuning.sampling.task_queue import TaskQueue

    # Tune asks for so many actors at a time; one by one they would start one after another.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(placement.concurrent)
    queue = TaskQueue(
        next_task, waiting=waiting, concurrent=placement.concurrent, epochs_known=ledger.epochs_known
    )
    with interrupts.caught(last_wish=ray.shutdown) as caught:
        callback = DriverCallback(
            ledger,
            journal=journal,
            observer=observer,
            interrupts=caught,
            learners=learners,
            queue=queue,
            max_failures=max_failures,
        )
        inproc = placement.backend == "inproc"
        trainable = train_trial if inproc else drive_trial
        tuner = tune.Tuner(
            tune.with_resources(trainable, _resources(placement)),
            param_space=None if inproc else {"train_dir": str(tune_dir / f"{name}-train")},
            tune_config=tune.TuneConfig(
                search_alg=queue,
                scheduler=scheduler,
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_trial_id,
                trial_dirname_creator=_trial_id,
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=str(tune_dir),
                callbacks=[callback],
                stop=_stopper(stop_running),
                verbose=0,
            ),
        )
        ended = True
        try:
            tuner.fit()
        except interrupts.StopRequested:
            ended = False
            _kill(callback.live_actors())
        for trial_id in sorted(callback.running):
            observer.trial_ended(ledger.tasks[trial_id].info(), TrialStatus.INTERRUPTED)
    if callback.error is not None:
        raise callback.error
    if callback.too_many_failures:
        failed = ledger.failures()
        last = "\n".join((ledger.ended[failed[-1]][1] or "").splitlines()[-2:])  # error and log, no traceback
        raise UserError(
            f"a sweep survives {max_failures} failed trials (max_failures), and {len(failed)} failed: "
            f"{', '.join(failed)}. The last one: {last}"
        )
    return ended


def _resources(placement: Placement) -> dict[str, float]:
    if placement.backend == "ddp":
        return _DRIVER_RESOURCES
    wanted = {"CPU": placement.cpus_per_worker, "GPU": placement.gpus_per_worker}
    return {name: amount for name, amount in wanted.items() if amount}


def _stopper(stop_running: Callable[[], bool] | None) -> Any:
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
    placement_groups.free_own_job()
