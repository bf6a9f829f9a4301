"""The stages of a sweep that train: search, confirmation, final run.

Each writes its results to the sweep's folder. Each can be called again after an interruption; finished trials
are not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from platform.common.atomic import write_json
from platform.common.errors import UserError
from platform.data.dataset import DatasetInfo
from platform.space.spec import SweepSpec, trial_seed
from platform.tracking.events import SweepObserver, TrialInfo, TrialStatus
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.confirm_stage import Confirmation
from platform.tuning.execution.fixed_runs import run_configurations
from platform.tuning.execution.stage_context import Placement, StageContext
from platform.tuning.extend_sweep import prepare_final_run
from platform.tuning.journal.journal import read_ledger
from platform.tuning.journal.ledger import JournaledTrial
from platform.tuning.planning.capacity import NodeResources, worker_slots
from platform.tuning.planning.records import Plan, StagePlan
from platform.tuning.sampling.sampler import planned_trials
from platform.tuning.search_stage import run_search
from platform.tuning.selection.champion import Champion, choose_champion, selection_document
from platform.tuning.time_limits import TimeLimits


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep and its plan: the input of every stage."""

    spec: SweepSpec
    plan: Plan
    folder: SweepFolder
    info: DatasetInfo
    observer: SweepObserver
    provenance: Mapping[str, str]

    def time_limits(self) -> TimeLimits | None:
        """Return the limits of the sweep's time budget; None without one, or after `--extend`."""
        plan, folder = self.plan, self.folder
        if plan.within is None or plan.within.lifted or plan.estimate is None:
            return None
        before_s = plan.within.used_before_s
        return TimeLimits(
            plan=plan,
            estimate=plan.estimate,
            budget_s=plan.within.budget_s,
            elapsed_s=lambda: before_s + folder.elapsed_s(),
        )

    def context(self, stage: StagePlan, *, most_concurrent: int | None = None) -> StageContext:
        """Return the context of a stage's trials, placed as planned.

        However many nodes join, at most `most_concurrent` trials run at the same time; None: one per run.
        """
        most = most_concurrent or stage.runs

        def concurrent_on(nodes: Sequence[NodeResources]) -> int:
            fitting = worker_slots(stage.resources_per_worker, nodes) // stage.workers
            return max(1, min(most, fitting))  # one trial can wait for a node

        placement = Placement(
            backend=stage.backend,
            workers=stage.workers,
            cpus_per_worker=stage.resources_per_worker.CPU,
            gpus_per_worker=stage.resources_per_worker.GPU,
            concurrent=stage.concurrency,
            concurrent_on=concurrent_on,
        )
        return StageContext(
            placement=placement,
            folder=self.folder,
            info=self.info,
            observer=self.observer,
            provenance=self.provenance,
        )


def search(sweep: Sweep) -> list[JournaledTrial]:
    """Run the search to its end; return all of its trials."""
    context = sweep.context(sweep.plan.search, most_concurrent=sweep.spec.concurrent_trials)
    return run_search(sweep.spec, context, time_limits=sweep.time_limits())


def why_shortened(sweep: Sweep) -> list[str]:
    """Return why the sweep has fewer runs than planned: limits of the space file and of the time budget."""
    ledger = read_ledger(sweep.folder.journal)
    stopped = [f"the search stopped early: {ledger.stop_reason}"] if ledger.stop_reason else []
    return stopped + ledger.limit_notes


def confirm(sweep: Sweep, trials: Sequence[JournaledTrial]) -> Champion:
    """Repeat the best trials over several seeds at the full budget; write selection.json, champion.json.

    Raises:
        UserError: no trial of the search finished, or no confirmation run.
    """
    context = sweep.context(sweep.plan.confirm)
    recipes, ended = Confirmation(sweep.spec, trials, context, time_limits=sweep.time_limits()).run()
    if not any(recipe.confirmed for recipe in recipes):
        raise UserError(f"no confirmation run finished; their logs are in {sweep.folder.logs}")
    champion = choose_champion(recipes, tolerance=sweep.spec.confirm.tolerance)
    params = {trial.task.trial_id: dict(trial.task.params) for trial in trials}
    write_json(
        sweep.folder.selection,
        {
            **selection_document(champion, recipes, params),
            "planned_trials": planned_trials(sweep.spec),
            "search_stopped": "; ".join(why_shortened(sweep)) or None,
            "confirmation_ended": ended,
        },
    )
    estimate = champion.estimate
    write_json(
        sweep.folder.champion,
        {
            "trial_id": champion.candidate,
            "params": params[champion.candidate],
            "config": sweep.spec.resolve(params[champion.candidate]).model_dump(mode="json"),
            "estimate": None if estimate is None else estimate.model_dump(mode="json"),
            "verdict": champion.verdict,
        },
    )
    return champion


def train_final(sweep: Sweep, champion: Champion, trials: Sequence[JournaledTrial]) -> None:
    """Train the champion's configuration once more, by default on the validation images too.

    Raises:
        UserError: the run failed.
    """
    [chosen] = [trial.task for trial in trials if trial.task.trial_id == champion.candidate]
    config = sweep.spec.resolve(chosen.params, seed=trial_seed(sweep.spec, 0, stage="final"))
    info = TrialInfo(
        trial_id=prepare_final_run(sweep.folder, config),
        stage="final",
        number=0,
        config=config,
        params=chosen.params,
        candidate=champion.candidate,
    )
    [final] = run_configurations(
        [info],
        sweep.context(sweep.plan.final),
        stage="final",
        include_validation=sweep.spec.final.include_validation,
    )
    if final.status is not TrialStatus.FINISHED:
        raise UserError(f"the final training failed: {final.error}")
