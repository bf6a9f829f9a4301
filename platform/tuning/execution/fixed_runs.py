"""Runs whose configuration is settled: the candidates over several seeds, and the champion once more.

No sampler, no scheduler; otherwise they run as trials do, through Ray Train wherever there are two slots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from platform.data.dataset import DatasetInfo
from platform.errors import Interrupted, UserError
from platform.tracking.events import SweepObserver, TrialInfo, TrialStatus
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.execution.tuner_run import Placement, run_tasks
from platform.tuning.journal.journal import open_journal
from platform.tuning.journal.trial import TrialOutcome, TrialTask


def run_fixed(
    trials: Sequence[TrialInfo],
    placement: Placement,
    *,
    folder: SweepFolder,
    info: DatasetInfo,
    observer: SweepObserver,
    include_validation: bool = False,
    provenance: Mapping[str, str] | None = None,
) -> list[TrialOutcome]:
    """Run settled trials inside a Ray session, or those that an earlier start has left.

    Args:
        trials: what to run; ids are unique within the sweep (`c1-s0`, `final`).
        placement: backend, resources, and how many trials run at once.
        folder: the sweep's; its journal says what has been done already.
        info: the data set in the cache.
        observer: is told what happens.
        include_validation: train on training and validation images together.
        provenance: goes into every trained model.

    Returns:
        One outcome per trial, in order, the failed ones included; a later start tries those again.

    Raises:
        Interrupted: a signal came; running trials keep their last checkpoint.
        UserError: the journal holds another trial of that id.
    """
    from platform.tuning.execution.driver_callback import Ledger

    ledger = Ledger()
    wanted = {
        trial.trial_id: _task(trial, placement, folder, info, include_validation, provenance)
        for trial in trials
    }
    with open_journal(folder.journal) as journal:
        for event in journal.past:
            if event.trial_id not in wanted:
                continue
            if event.task is not None:
                _refuse_other(event.task, wanted[event.trial_id])
                ledger.tasks[event.trial_id] = wanted[event.trial_id]
            elif event.record is not None:
                ledger.records.setdefault(event.trial_id, []).append(event.record)
            elif event.accumulate is not None:
                ledger.retry(event.trial_id, accumulate=event.accumulate)
            elif event.status is TrialStatus.FINISHED:
                ledger.ended[event.trial_id] = (event.status, event.error)
        waiting = [task for trial_id, task in ledger.tasks.items() if trial_id not in ledger.ended]
        new = iter([task for trial_id, task in wanted.items() if trial_id not in ledger.tasks])

        def next_task() -> TrialTask | None:
            task = next(new, None)
            if task is not None:
                journal.trial(task)
                ledger.tasks[task.trial_id] = task
            return task

        if waiting or len(ledger.tasks) < len(wanted):
            ended = run_tasks(
                next_task,
                waiting=waiting,
                placement=placement,
                ledger=ledger,
                journal=journal,
                observer=observer,
                tune_dir=folder.tune,
                name=trials[0].stage,
                max_failures=len(trials),
            )
            if not ended:
                raise Interrupted(
                    f"interrupted; go on with: python -m platform.sweep --resume {folder.sweep_id}"
                )
    return [ledger.outcome(trial.trial_id) for trial in trials]


def _task(
    trial: TrialInfo,
    placement: Placement,
    folder: SweepFolder,
    info: DatasetInfo,
    include_validation: bool,
    provenance: Mapping[str, str] | None,
) -> TrialTask:
    return TrialTask(
        trial_id=trial.trial_id,
        stage=trial.stage,
        number=trial.number,
        params=dict(trial.params),
        candidate=trial.candidate,
        run=trial.config,
        data_path=str(info.path),
        checkpoint_dir=str(folder.checkpoint_dir(trial.trial_id)),
        log_path=str(folder.logs / f"{trial.trial_id}.log"),
        final=include_validation,
        workers=placement.workers,
        cpus_per_worker=placement.cpus_per_worker,
        gpus_per_worker=placement.gpus_per_worker,
        provenance=dict(provenance or {}),
    )


def _refuse_other(before: TrialTask, now: TrialTask) -> None:
    if before.run != now.run or before.final != now.final:
        raise UserError(
            f"trial {now.trial_id} was begun with another configuration: {before.run.digest()}, "
            f"now {now.run.digest()}; remove its folder {now.checkpoint_dir} and its lines in the journal, "
            f"or start a new sweep"
        )
