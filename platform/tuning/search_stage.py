"""The search: the sampler draws trials, the scheduler stops them, Ray Tune runs them."""

from __future__ import annotations

from typing import Any

from platform.space.spec import SweepSpec, trial_seed
from platform.tracking.events import TrialInfo, TrialStatus
from platform.tracking.trial_findings import ENDED_EARLY
from platform.training.diagnostics.findings import TrainingDiverged
from platform.training.records import EpochRecord
from platform.tuning.execution.stage_context import StageContext
from platform.tuning.execution.tuner_run import TunerJob, run_trials
from platform.tuning.journal.journal import Journal, open_journal
from platform.tuning.journal.ledger import JournaledTrial
from platform.tuning.journal.trial import TrialTask, record_from
from platform.tuning.sampling.objectives import cost_objectives, read_architectures
from platform.tuning.sampling.warm_start import read_earlier_trials
from platform.tuning.stop_criteria import StopCriteria, hopeless
from platform.tuning.time_limits import TimeLimits


def run_search(
    spec: SweepSpec, context: StageContext, *, time_limits: TimeLimits | None = None
) -> list[JournaledTrial]:
    """Run the trials of a search inside a Ray session, or continue them after an interruption.

    Args:
        spec: the space.
        context: the stage.
        time_limits: ends the search before its last trial if the time runs short.

    Returns:
        Every trial of the search in order, failed ones included.

    Raises:
        Interrupted: a signal arrived; running trials keep their last checkpoint.
        UserError: too many trials failed, or the journal was written with another space.
    """
    with open_journal(context.folder.journal) as journal:
        search = _Search(spec, context, journal, time_limits)
        search.replay()
        search.run()
        return journal.ledger.stage("search")


class _Search:
    """A search in progress: sampler, scheduler and limits, in the state that the journal describes."""

    def __init__(
        self, spec: SweepSpec, context: StageContext, journal: Journal, time_limits: TimeLimits | None
    ) -> None:
        from platform.tuning.sampling.sampler import planned_trials
        from platform.tuning.sampling.schedulers import make_scheduler
        from platform.tuning.sampling.study import Study

        placement, folder = context.placement, context.folder
        self._spec, self._context, self._journal = spec, context, journal
        self._architectures = read_architectures(folder)
        self._study = Study(
            spec,
            earlier=read_earlier_trials(folder),
            architectures=self._architectures,
            dashboard=folder.path / "optuna.log",
        )
        self._scheduler = make_scheduler(spec.scheduler)
        self._stops = StopCriteria(spec.stop, gpus_per_trial=placement.workers * placement.gpus_per_worker)
        self._planned = min(planned_trials(spec), journal.ledger.limits.get("trials", spec.trials))
        self._time_limits = time_limits

    def replay(self) -> None:
        """Restore sampler, scheduler and limits from the journal's events, in their order."""
        ledger, scheduler = self._journal.ledger, self._scheduler
        stopped: set[str] = set()
        for event in self._journal.past:
            trial_id = event.trial_id
            if trial_id and (trial_id not in ledger.trials or ledger.trials[trial_id].task.stage != "search"):
                continue
            if event.task is not None:
                self._study.replay(trial_id, event.task.params)
            elif event.record is not None:
                self._study.epoch(trial_id, event.record)
                # A hopeless trial was stopped after its last epoch, which Tune's scheduler does not see.
                is_last = event.record is ledger.trials[trial_id].records[-1]
                if (is_last and self._hopeless(trial_id, event.record) is not None) or (
                    scheduler is not None and not scheduler.replay(trial_id, event.record)
                ):
                    stopped.add(trial_id)
            elif event.status is not None:
                self._report_end(trial_id, event.status)
            self._stops.replay(event)
        # The sweep died between the last epoch of a trial that the scheduler stopped and its journaled end.
        for trial_id in sorted(stopped):
            if ledger.trials[trial_id].status is None:
                self._journal.ended(trial_id, TrialStatus.PRUNED, None)
                self._report_end(trial_id, TrialStatus.PRUNED)
                self._context.observer.trial_ended(ledger.trials[trial_id].task.info(), TrialStatus.PRUNED)

    def _report_end(self, trial_id: str, status: TrialStatus) -> None:
        accuracy = self._journal.ledger.trials[trial_id].accuracy
        self.ended(trial_id, status, accuracy)
        self._stops.ended(trial_id, status, accuracy)

    def epoch(self, trial_id: str, record: EpochRecord) -> None:
        """Report an epoch to the sampler."""
        self._study.epoch(trial_id, record)

    def ended(self, trial_id: str, status: TrialStatus, value: float | None) -> None:
        """Report the end of a trial to the sampler.

        A trial whose loss became NaN counts as pruned, because Optuna's samplers ignore failed trials and
        would draw from the diverging region again.
        """
        error = self._journal.ledger.trials[trial_id].error or ""
        if status is TrialStatus.FAILED and TrainingDiverged.__name__ in error:
            status = TrialStatus.PRUNED
        self._study.ended(trial_id, status, value)

    def run(self) -> None:
        """Run the unfinished trials and the new ones, until the plan or a limit ends the search."""
        trials = self._journal.ledger.stage("search")
        waiting = [self._context.relocated(trial.task) for trial in trials if trial.status is None]
        if not waiting and (len(trials) >= self._planned or self._is_over()):
            return
        self._journal.begin()
        self._stops.begin()
        job = TunerJob(
            stage="search",
            waiting=waiting,
            next_task=self._next_task,
            scheduler=self._scheduler,
            listeners=(self, self._stops),
            stop_running=self._stops_after,
            max_failures=self._spec.max_failures,
        )
        run_trials(job, self._context, self._journal)

    def _stops_after(self, result: dict[str, Any]) -> bool:
        """Return whether a trial ends after an epoch, given Tune's result of it."""
        record, trial_id = record_from(result), result["config"]["trial_id"]
        reason = None if record is None else self._hopeless(trial_id, record)
        if reason is not None:
            info = self._journal.ledger.trials[trial_id].task.info()
            self._context.observer.trial_noted(info, f"{ENDED_EARLY}: {reason}")
        return reason is not None or self._is_over()

    def _hopeless(self, trial_id: str, record: EpochRecord) -> str | None:
        """Return why a trial should end after an epoch, or None."""
        if not self._spec.stop.hopeless_trials or record.epoch >= record.epochs:
            return None
        before = self._journal.ledger.trials[trial_id].records[: record.epoch - 1]
        return hopeless([*before, record], classes=len(self._context.info.class_names))

    def _is_over(self) -> bool:
        """Return whether a limit of the search is reached; journal the reason the first time."""
        if self._journal.ledger.stop_reason is None and (reason := self._stops.reached()) is not None:
            self._journal.stopped(reason)
            self._context.observer.sweep_noted(f"the search stops early: {reason}")
        return self._journal.ledger.stop_reason is not None

    def _is_late(self, created: int) -> bool:
        """Return whether there is no time for another trial; journal the reason the first time."""
        if self._time_limits is None:
            return False
        trials = self._journal.ledger.stage("search")
        records = [record for trial in trials for record in trial.records]
        reason = self._time_limits.trial_limit(created, records)
        if reason is not None:
            self._planned = created
            self._journal.limited({"trials": created}, reason)
            self._context.observer.sweep_noted(reason)
        return reason is not None

    def _next_task(self) -> TrialTask | None:
        """Draw and journal the next trial; return None after the last one."""
        number = len(self._journal.ledger.stage("search"))
        if number >= self._planned or self._is_over() or self._is_late(number):
            return None
        trial_id = f"t{number:03d}"
        params = self._study.ask(trial_id)
        config = self._spec.resolve(params, seed=trial_seed(self._spec, number))
        costs = self._architectures.costs(config) if cost_objectives(self._spec) else {}
        trial = TrialInfo(
            trial_id=trial_id, stage="search", number=number, config=config, params=params, costs=costs
        )
        task = self._context.task(trial)
        self._journal.trial(task)
        return task
