"""Runs of fixed configurations: the candidates over several seeds, and the final run of the champion.

They use neither a sampler nor a scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from platform.common.errors import UserError
from platform.tracking.events import Stage, TrialInfo, TrialStatus
from platform.tuning.execution.stage_context import StageContext
from platform.tuning.execution.tuner_run import TunerJob, run_trials
from platform.tuning.journal.journal import Journal, open_journal
from platform.tuning.journal.ledger import JournaledTrial
from platform.tuning.journal.trial import TrialTask


def run_configurations(
    trials: Sequence[TrialInfo],
    context: StageContext,
    *,
    stage: Stage,
    next_trial: Callable[[Journal], TrialInfo | None] = lambda _: None,
    include_validation: bool = False,
) -> list[JournaledTrial]:
    """Run trials of fixed configurations inside a Ray session, or continue them after an interruption.

    Args:
        trials: the known runs. Their ids are unique within the sweep (`c1-s0`, `final`).
        context: the stage.
        stage: its name.
        next_trial: called when a slot is free, returns a further run; None for none at the moment.
        include_validation: train on training and validation images together.

    Returns:
        The trials in order, failed ones included. The next call tries failed ones again.

    Raises:
        Interrupted: a signal arrived; running trials keep their last checkpoint.
        UserError: the journal holds another configuration under one of the ids.
    """
    tasks = {trial.trial_id: context.task(trial, final=include_validation) for trial in trials}
    with open_journal(context.folder.journal) as journal:
        known = {trial_id: trial for trial_id, trial in journal.ledger.trials.items() if trial_id in tasks}
        for trial_id, trial in known.items():
            _refuse_other(trial.task, tasks[trial_id])
            tasks[trial_id] = tasks[trial_id].model_copy(update={"accumulate": trial.task.accumulate})
        waiting = [
            tasks[trial_id] for trial_id, trial in known.items() if trial.status is not TrialStatus.FINISHED
        ]
        new = [task for trial_id, task in tasks.items() if trial_id not in known]
        if waiting or new or next_trial(journal) is not None:
            remaining = iter(new)

            def next_task() -> TrialTask | None:
                task = next(remaining, None)
                if task is None and (further := next_trial(journal)) is not None:
                    task = tasks[further.trial_id] = context.task(further, final=include_validation)
                if task is not None:
                    journal.trial(task)
                return task

            job = TunerJob(stage=stage, waiting=waiting, next_task=next_task)
            run_trials(job, context, journal)
        return [journal.ledger.trials[trial_id] for trial_id in tasks]


def _refuse_other(before: TrialTask, now: TrialTask) -> None:
    if before.run != now.run or before.final != now.final:
        raise UserError(
            f"trial {now.trial_id} was started with another configuration: {before.run.digest()}, "
            f"now {now.run.digest()}; remove its folder {now.checkpoint_dir} and its lines in the journal, "
            f"or start a new sweep"
        )
