"""The confirmation: the best recipes of the search run again with other seeds, where that helps most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from platform.space.spec import SweepSpec, trial_seed
from platform.tracking.events import TrialInfo, TrialStatus
from platform.tuning.execution.fixed_runs import run_configurations
from platform.tuning.execution.stage_context import StageContext
from platform.tuning.extend_sweep import candidate_numbers
from platform.tuning.journal.journal import Journal, read_journal
from platform.tuning.journal.ledger import JournaledTrial, Ledger, replay
from platform.tuning.journal.trial import TrialOutcome
from platform.tuning.selection.allocation import Attempts, StopRule, next_candidate
from platform.tuning.selection.champion import RankedTrial, Recipe, top_candidates
from platform.tuning.time_limits import TimeLimits


class Confirmation:
    """The candidates of a sweep and their runs, in the state that the journal describes.

    Candidate 1 has the runs `c1-s0`, `c1-s1` and so on. The n-th runs of all candidates have the same seed,
    so differences in initialization and data order do not favor one.
    """

    def __init__(
        self,
        spec: SweepSpec,
        trials: Sequence[TrialOutcome],
        context: StageContext,
        *,
        time_limits: TimeLimits | None = None,
    ) -> None:
        """Choose the candidates.

        Args:
            spec: the sweep.
            trials: all trials of its search.
            context: the stage.
            time_limits: ends the confirmation if the time runs short, after its first run at the earliest.

        Raises:
            UserError: no trial of the search has an accuracy.
        """
        self._spec, self._context, self._time_limits = spec, context, time_limits
        self._trials = {trial.info.trial_id: trial for trial in trials}
        ledger = replay(read_journal(context.folder.journal))
        ranked = [_ranked(trial) for trial in trials]
        self._candidates = _number_candidates(spec, ranked, candidate_numbers(ledger))
        self._others = _other_recipes(ranked, self._candidates.values())
        self._epochs = [record for trial in trials for record in trial.records]
        self._decided: tuple[object, str | None] = (None, None)

    def run(self) -> None:
        """Run the confirmation inside a Ray session, or continue it after an interruption."""
        ledger = replay(read_journal(self._context.folder.journal))
        known = [trial for trial in self._own(ledger) if self._is_needed(trial, ledger)]
        trials = [self._info(trial.task.trial_id, trial.task.number) for trial in known]
        run_configurations(trials, self._context, stage="confirm", next_trial=self._next_trial)

    def recipes(self, ledger: Ledger | None = None) -> list[Recipe]:
        """Return all recipes with a run at full budget, the candidates first."""
        ledger = ledger or replay(read_journal(self._context.folder.journal))
        found = [self._recipe(candidate) for candidate in (*self._candidates.values(), *self._others)]
        accuracies: dict[str | None, list[float]] = {}
        for trial in self._own(ledger):
            if trial.status is TrialStatus.FINISHED and trial.accuracy is not None:
                accuracies.setdefault(trial.task.candidate, []).append(trial.accuracy)
        return [replace(one, confirmed=tuple(accuracies.get(one.trial_id, ()))) for one in found]

    def why_ended(self) -> str:
        """Return why there are no more runs."""
        ledger = replay(read_journal(self._context.folder.journal))
        return self._next(ledger)[1]

    def _own(self, ledger: Ledger) -> list[JournaledTrial]:
        """Return the journaled runs of the candidates."""
        ids = {candidate.trial_id for candidate in self._candidates.values()}
        return [trial for trial in ledger.stage("confirm") if trial.task.candidate in ids]

    def _is_needed(self, trial: JournaledTrial, ledger: Ledger) -> bool:
        """Return whether a journaled run has to run again: others decide without a failed one."""
        seeds = self._spec.confirm.seeds
        if seeds is not None:
            return int(trial.task.trial_id.rpartition("-s")[2]) < seeds
        if trial.status in (None, TrialStatus.FINISHED):
            return True
        return not any(one.status is TrialStatus.FINISHED for one in self._own(ledger))

    def _next_trial(self, journal: Journal) -> TrialInfo | None:
        """Return the next new run; None if the confirmation ends, or has to wait for running ones."""
        ledger = journal.ledger
        runs = [trial.status for trial in self._own(ledger)]
        if self._decided[0] != runs:  # Tune asks several times a second
            self._decided = (runs, self._next(ledger)[0])
        trial_id = self._decided[1]
        if trial_id is None:
            return None
        if self._time_limits is not None:
            reason = self._time_limits.confirmation_limit(len(runs), self._epochs)
            if reason is not None:
                journal.limited({"runs": len(runs)}, reason)
                self._decided = (runs, None)
                return None
        return self._info(
            trial_id, 1 + max((trial.task.number for trial in ledger.stage("confirm")), default=-1)
        )

    def _next(self, ledger: Ledger) -> tuple[str | None, str]:
        """Return the id of the next run, or None and the reason; a function of the journal alone."""
        runs = self._own(ledger)
        if len(runs) >= ledger.limits.get("runs", len(runs) + 1):
            return None, "no time was left"
        started = Counter(trial.task.candidate for trial in runs)
        numbers = list(self._candidates)
        settings = self._spec.confirm
        if settings.seeds is not None:
            waiting = [
                (started[candidate.trial_id], number)
                for number, candidate in self._candidates.items()
                if started[candidate.trial_id] < settings.seeds
            ]
            if not waiting:
                return None, f"{settings.text()} were planned"
            seed, number = min(waiting)
            return f"c{number}-s{seed}", ""
        rule = StopRule(
            min_seeds=settings.min_seeds,
            max_runs=ledger.confirmed_before + settings.max_runs,
            tolerance=settings.tolerance,
            confidence=settings.confidence,
        )
        attempts = [
            Attempts(
                running=sum(trial.status is None for trial in mine),
                failed=sum(trial.status not in (None, TrialStatus.FINISHED) for trial in mine),
            )
            for candidate in self._candidates.values()
            for mine in ([trial for trial in runs if trial.task.candidate == candidate.trial_id],)
        ]
        place, reason = next_candidate(self.recipes(ledger), attempts, rule)
        if place is None:
            return None, reason
        number = numbers[place]
        return f"c{number}-s{started[self._candidates[number].trial_id]}", ""

    def _info(self, trial_id: str, number: int) -> TrialInfo:
        """Return the run with an id."""
        candidate, seed = (int(part[1:]) for part in trial_id.split("-"))
        chosen = self._candidates[candidate]
        return TrialInfo(
            trial_id=trial_id,
            stage="confirm",
            number=number,
            config=self._spec.resolve(chosen.params, seed=trial_seed(self._spec, seed, stage="confirm")),
            params=chosen.params,
            candidate=chosen.trial_id,
        )

    def _recipe(self, ranked: RankedTrial) -> Recipe:
        """Return a recipe without its confirmation runs."""
        info = self._trials[ranked.trial_id].info
        costs = [(name.replace("_", " "), cost) for name, cost in sorted(info.costs.items())]
        name = info.config.model.name if not costs else "network"
        return Recipe(
            trial_id=ranked.trial_id,
            searched=ranked.validation_accuracy if _is_complete(ranked) else None,
            costs=(
                *costs,
                (f"epochs of {name}", ranked.epochs),
                ("images per batch (larger is faster)", -info.config.batch_size),
            ),
        )


def _number_candidates(
    spec: SweepSpec, trials: Sequence[RankedTrial], known: dict[str, int]
) -> dict[int, RankedTrial]:
    """Return the candidates by the number in the ids of their runs.

    After an extension, earlier candidates stay candidates, because their runs over several seeds are stronger
    evidence than one better run of a new trial. New candidates get the next numbers, in order of their rank.
    Without a fixed number of seeds, trials that were stopped early are candidates only if there is at most
    one complete trial.
    """
    searched = {trial.trial_id: trial for trial in trials}
    earlier = {number: searched[trial_id] for trial_id, number in known.items() if trial_id in searched}
    same = [dict(candidate.params) for candidate in earlier.values()]
    ranked = top_candidates(trials, spec.confirm.candidates, spec.objectives)
    complete = [candidate for candidate in ranked if _is_complete(candidate)]
    if spec.confirm.seeds is None and len(complete) > 1:
        ranked = complete
    new = [candidate for candidate in ranked if dict(candidate.params) not in same]
    return earlier | dict(enumerate(new, start=max(known.values(), default=0) + 1))


def _other_recipes(trials: Sequence[RankedTrial], candidates: Collection[RankedTrial]) -> list[RankedTrial]:
    """Return the distinct configurations with a complete trial that are no candidates."""
    known = [dict(candidate.params) for candidate in candidates]
    complete = [trial for trial in trials if _is_complete(trial)]
    ranked = top_candidates(complete, len(complete)) if complete else []
    return [trial for trial in ranked if dict(trial.params) not in known]


def _is_complete(trial: RankedTrial) -> bool:
    return trial.status is TrialStatus.FINISHED and trial.validation_accuracy is not None


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
