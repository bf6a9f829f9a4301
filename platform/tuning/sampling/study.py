"""The Optuna study of a search: ask for the next point, report results, replay a journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection

from platform.common.errors import UserError
from platform.space.distributions import Scalar
from platform.space.settings import Tpe
from platform.space.spec import SweepSpec
from platform.tracking.events import TrialStatus
from platform.training.records import EpochRecord
from platform.tuning.sampling.objectives import ACCURACY, Architectures
from platform.tuning.sampling.sampler import initial_points, make_sampler, suggest
from platform.tuning.sampling.warm_start import EarlierTrial


class Study:
    """A deterministic Optuna study: the same calls in the same order give the same next point.

    Each trial gets a new sampler (`make_sampler`), so a resumed sweep draws the same points as an
    uninterrupted one.
    """

    def __init__(
        self,
        spec: SweepSpec,
        *,
        earlier: Sequence[EarlierTrial] = (),
        architectures: Architectures | None = None,
        dashboard: Path | None = None,
    ) -> None:
        """Create a study with the finished trials of another sweep, which are added before the first trial.

        `architectures` is required if costs are objectives. `dashboard` is a new file for the ended trials,
        which `optuna-dashboard` opens.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._spec = spec
        self._architectures = architectures or Architectures(architectures=())
        directions = [
            StudyDirection.MAXIMIZE if name == ACCURACY else StudyDirection.MINIMIZE
            for name in spec.objectives
        ]
        self._study = optuna.create_study(directions=directions)
        self._dashboard: optuna.Study | None = None
        if dashboard is not None:
            dashboard.unlink(missing_ok=True)
            storage = JournalStorage(JournalFileBackend(str(dashboard)))
            self._dashboard = optuna.create_study(
                storage=storage, study_name=spec.name, directions=directions
            )
        self._params: dict[str, dict[str, Scalar]] = {}
        for known in earlier:
            fixed = optuna.trial.FixedTrial(dict(known.params))
            suggest(fixed, spec)  # type: ignore[arg-type]  # `suggest` uses only methods that it has
            self._study.add_trial(
                optuna.trial.create_trial(
                    params=fixed.params,
                    distributions=fixed.distributions,
                    values=self._values(known.params, known.accuracy),
                )
            )
        self._asked: dict[str, optuna.Trial] = {}
        self._first_points = initial_points(spec)
        for point in self._first_points:
            self._study.enqueue_trial(dict(point))

    def ask(self, trial_id: str) -> dict[str, Scalar]:
        """Return the flat parameters of the next trial."""
        self._study.sampler = make_sampler(self._spec, len(self._asked))
        trial = self._study.ask()
        # Optuna draws lazily. Without this access, a trial with known parameters (a starting point or a
        # replayed one) would not count in the sequence of `qmc` and would belong to no generation of `nsga2`.
        # TPE has no such state, and its draw takes 30 ms after 1,000 trials.
        if not isinstance(self._spec.sampler, Tpe):
            _ = trial.relative_params
        self._asked[trial_id] = trial
        self._params[trial_id] = suggest(trial, self._spec)
        return self._params[trial_id]

    def replay(self, trial_id: str, params: Mapping[str, Any]) -> None:
        """Repeat `ask` for a journaled trial.

        Raises:
            UserError: the trial was drawn from another search space.
        """
        if len(self._asked) >= len(self._first_points):
            self._study.enqueue_trial(dict(params))
        got = self.ask(trial_id)
        if got != dict(params):
            raise UserError(
                f"a sweep resumes with the space it began with: trial {trial_id} had {dict(params)}, "
                f"and this space gives {got}; restore the space file, or start a new sweep"
            )

    def epoch(self, trial_id: str, record: EpochRecord) -> None:
        """Report an epoch's accuracy. Optuna accepts no intermediate values with several objectives."""
        if record.validation_accuracy is not None and len(self._spec.objectives) == 1:
            self._asked[trial_id].report(record.validation_accuracy, step=record.epoch)

    def ended(self, trial_id: str, status: TrialStatus, value: float | None) -> None:
        """Report the end of a trial; `value` is its validation accuracy, 0..1."""
        state, values = optuna.trial.TrialState.FAIL, list[float]()
        if status is TrialStatus.PRUNED:
            state = optuna.trial.TrialState.PRUNED
        elif status is TrialStatus.FINISHED and value is not None:
            state, values = optuna.trial.TrialState.COMPLETE, self._values(self._params[trial_id], value)
        trial = self._study.tell(self._asked[trial_id], values or None, state=state)
        if self._dashboard is not None:
            self._dashboard.add_trial(trial)

    def _values(self, params: Mapping[str, Scalar], accuracy: float) -> list[float]:
        """Return a trial's value in each objective."""
        if len(self._spec.objectives) == 1:
            return [accuracy]
        known = {ACCURACY: accuracy, **self._architectures.costs(self._spec.resolve(params))}
        return [known[name] for name in self._spec.objectives]
