"""The confirmation: the best recipes of the search run again with other seeds, where that helps most."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from platform.space.spec import SweepSpec, trial_seed
from platform.tracking.events import TrialInfo, TrialStatus
from platform.tuning.execution.fixed_runs import run_configurations
from platform.tuning.execution.stage_context import StageContext
from platform.tuning.extend_sweep import candidate_numbers
from platform.tuning.journal.journal import Journal, read_ledger
from platform.tuning.journal.ledger import JournaledTrial, Ledger
from platform.tuning.selection.allocation import Attempts, next_candidate
from platform.tuning.selection.champion import Recipe, top_candidates
from platform.tuning.time_limits import TimeLimits


class Confirmation:
    """The candidates of a sweep and their runs, in the state that the journal describes.

    Candidate 1 has the runs `c1-s0`, `c1-s1` and so on. The n-th runs of all candidates have the same seed,
    so differences in initialization and data order do not favor one.
    """

    def __init__(
        self,
        spec: SweepSpec,
        trials: Sequence[JournaledTrial],
        context: StageContext,
        *,
        time_limits: TimeLimits | None = None,
    ) -> None:
        """Choose the candidates from all trials of the search.

        `time_limits` ends the confirmation if the time runs short, after its first run at the earliest.

        Raises:
            UserError: no trial of the search has an accuracy.
        """
        self._spec, self._context, self._time_limits = spec, context, time_limits
        ledger = read_ledger(context.folder.journal)
        self._candidates = _number_candidates(spec, trials, candidate_numbers(ledger))
        self._others = _other_recipes(trials, self._candidates.values())
        self._epochs = [record for trial in trials for record in trial.records]
        self._decided: tuple[object, str | None] = (None, None)

    def run(self) -> tuple[list[Recipe], str]:
        """Run the confirmation inside a Ray session, or continue it after an interruption.

        Returns:
            All recipes with a run at full budget, and why there are no more runs.
        """
        ledger = read_ledger(self._context.folder.journal)
        known = [trial for trial in self._own(ledger) if self._is_needed(trial, ledger)]
        trials = [self._info(trial.task.trial_id, trial.task.number) for trial in known]
        run_configurations(trials, self._context, stage="confirm", next_trial=self._next_trial)
        ledger = read_ledger(self._context.folder.journal)
        return self.recipes(ledger), self._next(ledger)[1]

    def recipes(self, ledger: Ledger) -> list[Recipe]:
        """Return all recipes with a run at full budget, the candidates first."""
        accuracies: dict[str | None, list[float]] = {}
        for run in self._own(ledger):
            if run.status is TrialStatus.FINISHED and run.accuracy is not None:
                accuracies.setdefault(run.task.candidate, []).append(run.accuracy)
        return [
            _recipe(trial, accuracies.get(trial.task.trial_id, ()))
            for trial in (*self._candidates.values(), *self._others)
        ]

    def _own(self, ledger: Ledger) -> list[JournaledTrial]:
        """Return the journaled runs of the candidates."""
        ids = {candidate.task.trial_id for candidate in self._candidates.values()}
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
                self._context.observer.sweep_noted(reason)
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
        settings = self._spec.confirm
        mine = {
            number: [run.status for run in runs if run.task.candidate == candidate.task.trial_id]
            for number, candidate in self._candidates.items()
        }
        if settings.seeds is not None:
            started, number = min((len(statuses), number) for number, statuses in mine.items())
            if started >= settings.seeds:
                return None, f"{settings.text()} were planned"
            return f"c{number}-s{started}", ""
        attempts = [
            Attempts(
                running=statuses.count(None),
                failed=sum(status not in (None, TrialStatus.FINISHED) for status in statuses),
            )
            for statuses in mine.values()
        ]
        rule = settings.model_copy(update={"max_runs": ledger.confirmed_before + settings.max_runs})
        place, reason = next_candidate(self.recipes(ledger), attempts, rule)
        if place is None:
            return None, reason
        number = list(mine)[place]
        return f"c{number}-s{len(mine[number])}", ""

    def _info(self, trial_id: str, number: int) -> TrialInfo:
        """Return the run with an id."""
        candidate, seed = (int(part[1:]) for part in trial_id.split("-"))
        chosen = self._candidates[candidate].task
        return TrialInfo(
            trial_id=trial_id,
            stage="confirm",
            number=number,
            config=self._spec.resolve(chosen.params, seed=trial_seed(self._spec, seed, stage="confirm")),
            params=chosen.params,
            candidate=chosen.trial_id,
        )


def _recipe(trial: JournaledTrial, confirmed: Sequence[float]) -> Recipe:
    """Return a recipe with the accuracies of its confirmation runs."""
    task = trial.task
    costs = [(name.replace("_", " "), cost) for name, cost in sorted(task.costs.items())]
    name = task.run.model.name if not costs else "network"
    return Recipe(
        trial_id=task.trial_id,
        searched=trial.accuracy if trial.completed else None,
        confirmed=tuple(confirmed),
        costs=(
            *costs,
            (f"epochs of {name}", trial.records[-1].epochs),
            ("images per batch (larger is faster)", -task.run.batch_size),
        ),
    )


def _number_candidates(
    spec: SweepSpec, trials: Sequence[JournaledTrial], known: dict[str, int]
) -> dict[int, JournaledTrial]:
    """Return the candidates by the number in the ids of their runs.

    After an extension, earlier candidates stay candidates, because their runs over several seeds are stronger
    evidence than one better run of a new trial. New candidates get the next numbers, in order of their rank.
    Without a fixed number of seeds, trials that were stopped early are candidates only if there is at most
    one complete trial.
    """
    searched = {trial.task.trial_id: trial for trial in trials}
    earlier = {number: searched[trial_id] for trial_id, number in known.items() if trial_id in searched}
    ranked = top_candidates(trials, spec.confirm.candidates, spec.objectives)
    complete = [candidate for candidate in ranked if candidate.completed]
    if spec.confirm.seeds is None and len(complete) > 1:
        ranked = complete
    same = [candidate.task.params for candidate in earlier.values()]
    new = [candidate for candidate in ranked if candidate.task.params not in same]
    return earlier | dict(enumerate(new, start=max(known.values(), default=0) + 1))


def _other_recipes(
    trials: Sequence[JournaledTrial], candidates: Collection[JournaledTrial]
) -> list[JournaledTrial]:
    """Return the distinct configurations with a complete trial that are no candidates."""
    known = [candidate.task.params for candidate in candidates]
    complete = [trial for trial in trials if trial.completed]
    ranked = top_candidates(complete, len(complete)) if complete else []
    return [trial for trial in ranked if trial.task.params not in known]
