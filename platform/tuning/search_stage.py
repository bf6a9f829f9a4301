"""The search: drawn by the sampler, stopped by the scheduler, run by Tune, resumed from the journal."""

from __future__ import annotations

from collections.abc import Mapping

from platform.data.dataset import DatasetInfo
from platform.errors import Interrupted
from platform.space.spec import SweepSpec, trial_seed
from platform.tracking.events import SweepObserver, TrialStatus
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.execution.tuner_run import Placement, run_tasks
from platform.tuning.journal.journal import Journal, open_journal
from platform.tuning.journal.trial import TrialOutcome, TrialTask
from platform.tuning.sampling.objectives import costs_wanted, read_architectures
from platform.tuning.sampling.warm_start import read_earlier_trials
from platform.tuning.stop_criteria import Stops


def run_search(
    spec: SweepSpec,
    placement: Placement,
    *,
    folder: SweepFolder,
    info: DatasetInfo,
    observer: SweepObserver,
    provenance: Mapping[str, str] | None = None,
) -> list[TrialOutcome]:
    """Run the search's trials inside a Ray session, or those that an earlier start has left.

    Args:
        spec: the space.
        placement: backend, resources, and how many trials run at once.
        folder: the sweep's; its journal says what has been done already.
        info: the data set in the cache.
        observer: is told what happens.
        provenance: goes into every trained model.

    Returns:
        Every trial of the search in order, the failed ones included.

    Raises:
        Interrupted: a signal came; running trials keep their last checkpoint.
        UserError: too many trials failed, or the journal is of another space.
    """
    with open_journal(folder.journal) as journal:
        return _run(spec, placement, folder, info, observer, dict(provenance or {}), journal)


def _run(
    spec: SweepSpec,
    placement: Placement,
    folder: SweepFolder,
    info: DatasetInfo,
    observer: SweepObserver,
    provenance: dict[str, str],
    journal: Journal,
) -> list[TrialOutcome]:
    from platform.tuning.execution.driver_callback import Ledger
    from platform.tuning.sampling.sampler import planned_trials
    from platform.tuning.sampling.schedulers import Replayed, make_scheduler
    from platform.tuning.sampling.task_queue import Study

    architectures = read_architectures(folder)
    study = Study(spec, earlier=read_earlier_trials(folder), architectures=architectures)
    scheduler, ledger = make_scheduler(spec.scheduler), Ledger()
    stops = Stops(spec.stop, gpus_per_trial=placement.workers * placement.gpus_per_worker)
    stopped: set[str] = set()

    # The past, in the order in which it happened: sampler and rungs come out as they were.
    for event in journal.past:
        if event.task is not None and event.task.stage == "search":
            study.replay(event.trial_id, event.task.params)
            ledger.tasks[event.trial_id] = event.task
        elif event.trial_id and event.trial_id not in ledger.tasks:
            continue
        elif event.record is not None:
            ledger.records.setdefault(event.trial_id, []).append(event.record)
            study.epoch(event.trial_id, event.record)
            if isinstance(scheduler, Replayed) and not scheduler.replay(event.trial_id, event.record):
                stopped.add(event.trial_id)
        elif event.accumulate is not None:
            ledger.retry(event.trial_id, accumulate=event.accumulate)
        elif event.status is not None:
            ledger.ended[event.trial_id] = (event.status, event.error)
            accuracy = ledger.outcome(event.trial_id).validation_accuracy
            study.ended(event.trial_id, event.status, accuracy)
            stops.ended(event.trial_id, event.status, accuracy)
        stops.replay(event)
    # Killed between the epoch after which the scheduler stopped a trial and the note of that.
    for trial_id in sorted(stopped - set(ledger.ended)):
        journal.ended(trial_id, TrialStatus.PRUNED, None)
        ledger.ended[trial_id] = (TrialStatus.PRUNED, None)
        accuracy = ledger.outcome(trial_id).validation_accuracy
        study.ended(trial_id, TrialStatus.PRUNED, accuracy)
        stops.ended(trial_id, TrialStatus.PRUNED, accuracy)
        observer.trial_ended(ledger.tasks[trial_id].info(), TrialStatus.PRUNED)
    planned = planned_trials(spec)

    def is_over() -> bool:
        reason = stops.reached()
        if reason is not None and stops.reason is None:
            stops.reason = reason
            journal.stopped(reason)
        return reason is not None

    def draw() -> TrialTask | None:
        number = len(ledger.tasks)
        if number >= planned or is_over():
            return None
        trial_id = f"t{number:03d}"
        params = study.ask(trial_id)
        run = spec.resolve(params, seed=trial_seed(spec, number))
        task = TrialTask(
            trial_id=trial_id,
            stage="search",
            number=number,
            params=params,
            run=run,
            data_path=str(info.path),
            checkpoint_dir=str(folder.checkpoint_dir(trial_id)),
            log_path=str(folder.logs / f"{trial_id}.log"),
            workers=placement.workers,
            cpus_per_worker=placement.cpus_per_worker,
            gpus_per_worker=placement.gpus_per_worker,
            provenance=provenance,
            costs=architectures.costs(run) if costs_wanted(spec) else {},
        )
        journal.trial(task)
        ledger.tasks[trial_id] = task
        return task

    waiting = [task for trial_id, task in ledger.tasks.items() if trial_id not in ledger.ended]
    if waiting or (len(ledger.tasks) < planned and not is_over()):
        journal.begin()
        stops.begin()
        ended = run_tasks(
            draw,
            waiting=waiting,
            placement=placement,
            ledger=ledger,
            journal=journal,
            observer=observer,
            tune_dir=folder.tune,
            name="search",
            scheduler=scheduler,
            learners=(study, stops),
            stop_running=is_over,
            max_failures=spec.max_failures,
        )
        if not ended:
            raise Interrupted(f"interrupted; go on with: python -m platform.sweep --resume {folder.sweep_id}")
    return [ledger.outcome(trial_id) for trial_id in ledger.tasks]
