"""The stages of a sweep that train: search, confirmation, final run.

Each writes its results to the sweep's folder. Each can be called again after an interruption; finished trials
are not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from platform.common.atomic import write_json
from platform.common.errors import UserError
from platform.data.dataset import DatasetInfo
from platform.space.distributions import Scalar
from platform.space.spec import SweepSpec, trial_seed
from platform.tracking.events import SweepObserver, TrialInfo, TrialStatus
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.execution.fixed_runs import run_configurations
from platform.tuning.execution.stage_context import Placement, StageContext
from platform.tuning.extend_sweep import candidate_numbers, prepare_final_run
from platform.tuning.journal.journal import open_journal, read_journal
from platform.tuning.journal.ledger import Ledger, replay
from platform.tuning.journal.trial import TrialOutcome
from platform.tuning.planning.capacity import NodeResources, worker_slots
from platform.tuning.planning.records import Plan, StagePlan
from platform.tuning.sampling.sampler import planned_trials
from platform.tuning.search_stage import run_search
from platform.tuning.selection.champion import (
    CandidateSummary,
    Champion,
    RankedTrial,
    choose_champion,
    summarize,
    top_candidates,
)
from platform.tuning.time_limits import Repetitions, TimeLimits


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

        Args:
            stage: the plan of the stage.
            most_concurrent: trials at the same time, however many nodes join; None for one per run.
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


def search(sweep: Sweep) -> list[TrialOutcome]:
    """Run the search to its end; return all of its trials."""
    context = sweep.context(sweep.plan.search, most_concurrent=sweep.spec.concurrent_trials)
    return run_search(sweep.spec, context, time_limits=sweep.time_limits())


def why_shortened(sweep: Sweep) -> list[str]:
    """Return why the sweep has fewer runs than planned: limits of the space file and of the time budget."""
    ledger = replay(read_journal(sweep.folder.journal))
    stopped = [f"the search stopped early: {ledger.stop_reason}"] if ledger.stop_reason else []
    return stopped + ledger.limit_notes


def confirm(sweep: Sweep, trials: Sequence[TrialOutcome]) -> Champion:
    """Repeat the best trials over several seeds at the full budget; write selection.json, champion.json.

    All candidates run with the same seeds, so differences in initialization and data order do not favor one.

    Raises:
        UserError: no trial of the search finished, or no confirmation run.
    """
    ledger = replay(read_journal(sweep.folder.journal))
    size = _confirmation_size(sweep, ledger)
    candidates = _number_candidates(sweep.spec, trials, candidate_numbers(ledger), most=size.candidates)
    runs = _confirmation_runs(sweep, candidates, seeds=size.seeds)
    outcomes = run_configurations(runs, sweep.context(sweep.plan.confirm))
    summaries = []
    for candidate in candidates.values():
        accuracies = [
            outcome.validation_accuracy
            for outcome in outcomes
            if outcome.info.candidate == candidate.trial_id
            and outcome.status is TrialStatus.FINISHED
            and outcome.validation_accuracy is not None
        ]
        if accuracies:
            summaries.append(summarize(candidate.trial_id, accuracies))
    if not summaries:
        raise UserError(f"no confirmation run finished; their logs are in {sweep.folder.logs}")
    champion = choose_champion(summaries)
    params = {candidate.trial_id: dict(candidate.params) for candidate in candidates.values()}
    _write_selection(sweep, champion, summaries, params, stop_reason="; ".join(why_shortened(sweep)) or None)
    return champion


def _confirmation_size(sweep: Sweep, ledger: Ledger) -> Repetitions:
    """Return the planned size of the confirmation, or a journaled smaller one if the time runs short."""
    planned, limits = sweep.spec.confirm, ledger.limits
    size = Repetitions(
        candidates=min(planned.candidates, limits.get("candidates", planned.candidates)),
        seeds=min(planned.seeds, limits.get("seeds", planned.seeds)),
    )
    time_limits = sweep.time_limits()
    if time_limits is not None and not ledger.stage("confirm"):
        records = [record for trial in ledger.stage("search") for record in trial.records]
        size, reason = time_limits.confirmation_limits(size, records)
        if reason is not None:
            with open_journal(sweep.folder.journal) as journal:
                journal.limited(size._asdict(), reason)
    return size


def _confirmation_runs(sweep: Sweep, candidates: Mapping[int, RankedTrial], *, seeds: int) -> list[TrialInfo]:
    """Return one run per candidate and seed."""
    planned = sweep.spec.confirm.seeds
    return [
        TrialInfo(
            trial_id=f"c{number}-s{seed}",
            stage="confirm",
            number=(number - 1) * planned + seed,
            config=sweep.spec.resolve(candidate.params, seed=trial_seed(sweep.spec, seed, stage="confirm")),
            params=candidate.params,
            candidate=candidate.trial_id,
        )
        for number, candidate in candidates.items()
        for seed in range(seeds)
    ]


def _write_selection(
    sweep: Sweep,
    champion: Champion,
    summaries: Sequence[CandidateSummary],
    params: Mapping[str, Mapping[str, Scalar]],
    *,
    stop_reason: str | None,
) -> None:
    """Write selection.json and champion.json; `params` holds the parameters of each candidate."""
    write_json(
        sweep.folder.selection,
        {
            "candidates": [
                {
                    "trial_id": summary.candidate,
                    "params": params[summary.candidate],
                    "n": summary.n,
                    "mean": summary.mean,
                    "std": summary.std,
                    "interval95": summary.interval95,
                    "accuracies": summary.accuracies,
                }
                for summary in summaries
            ],
            "planned_trials": planned_trials(sweep.spec),
            "search_stopped": stop_reason,
            "champion": champion.candidate,
            "separated": champion.separated,
            "difference": champion.difference,
            "difference_interval95": champion.difference_interval95,
            "verdict": champion.verdict,
        },
    )
    write_json(
        sweep.folder.champion,
        {
            "trial_id": champion.candidate,
            "params": params[champion.candidate],
            "config": sweep.spec.resolve(params[champion.candidate]).model_dump(mode="json"),
        },
    )


def train_final(sweep: Sweep, champion: Champion, trials: Sequence[TrialOutcome]) -> Path:
    """Train the champion's configuration once more, by default on the validation images too.

    Returns:
        The path of the trained model.

    Raises:
        UserError: the run failed.
    """
    [chosen] = [trial for trial in trials if trial.info.trial_id == champion.candidate]
    config = sweep.spec.resolve(chosen.info.params, seed=trial_seed(sweep.spec, 0, stage="final"))
    info = TrialInfo(
        trial_id=prepare_final_run(sweep.folder, config),
        stage="final",
        number=0,
        config=config,
        params=chosen.info.params,
        candidate=champion.candidate,
    )
    [outcome] = run_configurations(
        [info],
        sweep.context(sweep.plan.final),
        include_validation=sweep.spec.final.include_validation,
    )
    if outcome.model_path is None:
        raise UserError(f"the final training failed: {outcome.error}")
    return outcome.model_path


def _number_candidates(
    spec: SweepSpec, trials: Sequence[TrialOutcome], known: Mapping[str, int], *, most: int
) -> dict[int, RankedTrial]:
    """Return the candidates by the number in the ids of their runs.

    After an extension, earlier candidates stay candidates, because their runs over several seeds are stronger
    evidence than one better run of a new trial. New candidates get the next numbers, in order of their rank.
    """
    searched = {trial.info.trial_id: _ranked(trial) for trial in trials}
    earlier = {number: searched[trial_id] for trial_id, number in known.items() if trial_id in searched}
    same = [dict(candidate.params) for candidate in earlier.values()]
    ranked = top_candidates(searched.values(), most, spec.objectives)
    new = [candidate for candidate in ranked if dict(candidate.params) not in same]
    return earlier | dict(enumerate(new, start=max(known.values(), default=0) + 1))


def _ranked(trial: TrialOutcome) -> RankedTrial:
    last = trial.records[-1] if trial.records else None
    return RankedTrial(
        trial_id=trial.info.trial_id,
        number=trial.info.number,
        status=trial.status,
        epoch=last.epoch if last else 0,
        epochs=last.epochs if last else 0,
        validation_accuracy=trial.validation_accuracy,
        validation_loss=last.validation_loss if last else None,
        params=trial.info.params,
        costs=trial.info.costs,
    )
