"""The stages of a sweep that train: search, confirmation, final run. Each leaves its file in the folder.

Each can be called again after an interruption: what the journal holds is not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from platform.data.dataset import DatasetInfo
from platform.errors import UserError
from platform.tracking.atomic import write_json
from platform.tracking.events import SweepObserver, TrialInfo, TrialStatus
from platform.tracking.folder import SweepFolder
from platform.tuning import selection
from platform.tuning.confirm import run_fixed
from platform.tuning.plan import Plan, StagePlan
from platform.tuning.running import Placement
from platform.tuning.search import run_search
from platform.tuning.spec import SweepSpec, trial_seed
from platform.tuning.trial import TrialOutcome


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What every stage needs to know."""

    spec: SweepSpec
    plan: Plan
    folder: SweepFolder
    info: DatasetInfo
    observer: SweepObserver
    provenance: Mapping[str, str]


def search(sweep: Sweep) -> list[TrialOutcome]:
    """Draw, train and stop trials until their number is reached; return all of them."""
    return run_search(
        sweep.spec,
        placement(sweep.plan.search),
        folder=sweep.folder,
        info=sweep.info,
        observer=sweep.observer,
        provenance=sweep.provenance,
    )


def confirm(sweep: Sweep, trials: Sequence[TrialOutcome]) -> selection.Champion:
    """Repeat the best trials over several seeds at the full budget; write selection.json, champion.json.

    The same seeds for every candidate: a lucky split of the order of images helps all or none.

    Raises:
        UserError: no trial of the search, or no run of any candidate, finished.
    """
    candidates = selection.top_candidates(map(_searched, trials), sweep.spec.confirm.candidates)
    infos = [
        TrialInfo(
            trial_id=f"c{rank}-s{seed}",
            stage="confirm",
            number=(rank - 1) * sweep.spec.confirm.seeds + seed,
            config=sweep.spec.resolve(candidate.params, seed=trial_seed(sweep.spec, seed, stage="confirm")),
            params=candidate.params,
            candidate=candidate.trial_id,
        )
        for rank, candidate in enumerate(candidates, start=1)
        for seed in range(sweep.spec.confirm.seeds)
    ]
    outcomes = run_fixed(
        infos,
        placement(sweep.plan.confirm),
        folder=sweep.folder,
        info=sweep.info,
        observer=sweep.observer,
        provenance=sweep.provenance,
    )
    summaries = []
    for candidate in candidates:
        accuracies = [
            outcome.validation_accuracy
            for outcome in outcomes
            if outcome.info.candidate == candidate.trial_id
            and outcome.status is TrialStatus.FINISHED
            and outcome.validation_accuracy is not None
        ]
        if accuracies:
            summaries.append(selection.summarise(candidate.trial_id, accuracies))
    if not summaries:
        raise UserError(f"no confirmation run finished; their logs are in {sweep.folder.logs}")
    champion = selection.choose_champion(summaries)
    params = {candidate.trial_id: dict(candidate.params) for candidate in candidates}
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
    return champion


def train_final(sweep: Sweep, champion: selection.Champion, trials: Sequence[TrialOutcome]) -> Path:
    """Train the champion's configuration once more, by default on the validation images too.

    Returns:
        The trained model: what ships.

    Raises:
        UserError: the run failed.
    """
    [chosen] = [trial for trial in trials if trial.info.trial_id == champion.candidate]
    info = TrialInfo(
        trial_id="final",
        stage="final",
        number=0,
        config=sweep.spec.resolve(chosen.info.params, seed=trial_seed(sweep.spec, 0, stage="final")),
        params=chosen.info.params,
        candidate=champion.candidate,
    )
    [outcome] = run_fixed(
        [info],
        placement(sweep.plan.final),
        folder=sweep.folder,
        info=sweep.info,
        observer=sweep.observer,
        include_validation=sweep.spec.final.include_validation,
        provenance=sweep.provenance,
    )
    if outcome.model_path is None:
        raise UserError(f"the final training failed: {outcome.error}")
    return outcome.model_path


def placement(stage: StagePlan) -> Placement:
    """Return where a stage's runs go, as planned."""
    return Placement(
        backend=stage.backend,
        workers=stage.workers,
        cpus_per_worker=stage.resources_per_worker.CPU,
        gpus_per_worker=stage.resources_per_worker.GPU,
        concurrent=stage.concurrency,
    )


def _searched(trial: TrialOutcome) -> selection.TrialOutcome:
    last = trial.records[-1] if trial.records else None
    return selection.TrialOutcome(
        trial_id=trial.info.trial_id,
        number=trial.info.number,
        status=trial.status,
        epoch=last.epoch if last else 0,
        epochs=last.epochs if last else 0,
        validation_accuracy=trial.validation_accuracy,
        validation_loss=last.validation_loss if last else None,
        params=trial.info.params,
    )
