"""What runs next, as Ray Tune asks for it.

`Study` is the search's memory (Optuna's ask and tell); `TaskQueue` hands its trials, or those of a fixed
list, to Tune one free slot at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import optuna
from ray.tune.search import Searcher
from typing_extensions import override

from platform.errors import UserError
from platform.space.distributions import Scalar
from platform.space.pareto import HIGHER_IS_BETTER
from platform.space.settings import Nsga2, Random, Tpe
from platform.space.spec import SweepSpec, trial_seed
from platform.tracking.events import TrialStatus
from platform.training.records import EpochRecord
from platform.tuning.journal.trial import TrialTask
from platform.tuning.sampling.objectives import ACCURACY, Architectures
from platform.tuning.sampling.sampler import initial_points, make_sampler, suggest
from platform.tuning.sampling.warm_start import EarlierTrial


class Study:
    """An Optuna study fed in the order of the journal: the same calls give the same next point.

    The sampler is made anew for each question, seeded by the sweep's seed and the trial's number, so that
    a resumed sweep asks on exactly as an uninterrupted one would.
    """

    def __init__(
        self,
        spec: SweepSpec,
        *,
        earlier: Sequence[EarlierTrial] = (),
        architectures: Architectures | None = None,
    ) -> None:
        """Begin with what is known.

        Args:
            spec: the space.
            earlier: finished trials of another sweep, which the sampler learns from first.
            architectures: the costs of the space's networks; needed where costs are objectives.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._spec = spec
        self._architectures = architectures or Architectures(architectures=())
        self._study = optuna.create_study(
            directions=["maximize" if name in HIGHER_IS_BETTER else "minimize" for name in spec.objectives],
            sampler=make_sampler(spec),
        )
        self._params: dict[str, dict[str, Scalar]] = {}
        for known in earlier:
            fixed = optuna.trial.FixedTrial(dict(known.params))
            suggest(fixed, spec)  # type: ignore[arg-type]  # what it asks for is all that is used here
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
        self._study.sampler = _sampler_for(self._spec, len(self._asked)) or self._study.sampler
        trial = self._study.ask()
        # Optuna draws lazily: without this, a trial whose settings are known (a starting point, a replayed
        # one) would not count in the sequence of `qmc`, nor belong to a generation of `nsga2`.
        _ = trial.relative_params
        self._asked[trial_id] = trial
        self._params[trial_id] = suggest(trial, self._spec)
        return self._params[trial_id]

    def replay(self, trial_id: str, params: Mapping[str, Any]) -> None:
        """Ask as before the interruption, for a trial whose parameters are known.

        Raises:
            UserError: the search space is not the one that the trial was drawn from.
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
        """Learn an intermediate value; of several objectives Optuna takes none."""
        if record.validation_accuracy is not None and len(self._spec.objectives) == 1:
            self._asked[trial_id].report(record.validation_accuracy, step=record.epoch)

    def ended(self, trial_id: str, status: TrialStatus, value: float | None) -> None:
        """Learn how a trial ended; `value` is its accuracy, 0..1."""
        state = {
            TrialStatus.FINISHED: optuna.trial.TrialState.COMPLETE,
            TrialStatus.PRUNED: optuna.trial.TrialState.PRUNED,
        }.get(status, optuna.trial.TrialState.FAIL)
        if state is optuna.trial.TrialState.COMPLETE and value is None:
            state = optuna.trial.TrialState.FAIL
        complete = state is optuna.trial.TrialState.COMPLETE
        values = self._values(self._params[trial_id], value) if complete and value is not None else None
        self._study.tell(self._asked[trial_id], values, state=state)

    def _values(self, params: Mapping[str, Scalar], accuracy: float) -> list[float]:
        """Return what a trial is worth in each objective."""
        if len(self._spec.objectives) == 1:
            return [accuracy]
        known = {ACCURACY: accuracy, **self._architectures.costs(self._spec.resolve(params))}
        return [known[name] for name in self._spec.objectives]


def _sampler_for(spec: SweepSpec, number: int) -> optuna.samplers.BaseSampler | None:
    """Return a sampler whose luck is the trial's number's alone; None where it has no luck of its own."""
    settings = spec.sampler
    if not isinstance(settings, Tpe | Random | Nsga2):
        return None
    seeded = spec if settings.seed is None else spec.model_copy(update={"seed": settings.seed})
    own = settings.model_copy(update={"seed": trial_seed(seeded, number, stage="sampler")})
    return make_sampler(spec.model_copy(update={"sampler": own}))


class TaskQueue(Searcher):
    """Gives Tune the trials to run: those put back first, then new ones, never more than fit at once."""

    def __init__(
        self,
        next_task: Callable[[], TrialTask | None],
        *,
        waiting: Iterable[TrialTask],
        concurrent: int,
        epochs_known: Callable[[str], int],
    ) -> None:
        """Create the queue.

        Args:
            next_task: makes the next new trial; None when there are no more.
            waiting: trials to run before any new one.
            concurrent: trials that may run at once.
            epochs_known: how many epochs of a trial the sweep has noted, by trial id.
        """
        super().__init__(metric=None, mode=None)
        self._next_task = next_task
        self._waiting = deque(waiting)
        self._running: set[str] = set()
        self._concurrent = concurrent
        self._epochs_known = epochs_known

    def put_back(self, task: TrialTask) -> None:
        """Run a trial again: its process died, not its code."""
        self._waiting.append(task)

    @override
    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return Tune's configuration of the next trial, None for "not now", or that none will follow."""
        if len(self._running) >= self._concurrent:
            return None
        task = self._waiting.popleft() if self._waiting else self._next_task()
        if task is None:
            # A running trial may still be put back.
            finished: Any = Searcher.FINISHED
            return None if self._running else finished
        self._running.add(trial_id)
        # As text: Tune copies, resolves and prints whatever structure it finds in a configuration.
        return {
            "trial_id": task.trial_id,
            "task": task.model_dump_json(),
            "reported_epochs": self._epochs_known(task.trial_id),
        }

    @override
    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Free the trial's slot; what it taught is learned by the driver's callback."""
        self._running.discard(trial_id)

    @override
    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Keep nothing: the journal remembers."""

    @override
    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the journal remembers."""

    @override
    def restore(self, checkpoint_path: str) -> None:
        """Never called: a resumed sweep builds a new queue from the journal."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its configuration for a `Tuner.restore` that is not used here.
        return {}
