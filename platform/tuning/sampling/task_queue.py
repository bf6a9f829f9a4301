"""The queue of trials that Ray Tune draws from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ray.tune.search import Searcher
from typing_extensions import override

from platform.tuning.journal.trial import TrialTask


class TaskQueue(Searcher):
    """A Tune searcher that returns waiting trials first, then new ones, and limits how many run at once."""

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
            next_task: creates the next new trial; returns None when there are no more.
            waiting: trials to run before any new one.
            concurrent: trials that may run at the same time; `self.concurrent` may change while they run.
            epochs_known: returns the number of journaled epochs of a trial id.
        """
        super().__init__(metric=None, mode=None)
        self._next_task = next_task
        self._waiting = deque(waiting)
        self._running: set[str] = set()
        self.concurrent = concurrent
        self._epochs_known = epochs_known

    def requeue(self, task: TrialTask) -> None:
        """Run a trial again, for example because its process died."""
        self._waiting.append(task)

    @override
    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next trial's Tune configuration, None for "not now", or FINISHED for no more trials."""
        if len(self._running) >= self.concurrent:
            return None
        task = self._waiting.popleft() if self._waiting else self._next_task()
        if task is None:
            # A running trial may still be requeued.
            finished: Any = Searcher.FINISHED
            return None if self._running else finished
        self._running.add(trial_id)
        # JSON text, because Tune copies, resolves and prints any structure it finds in a configuration.
        return {
            "trial_id": task.trial_id,
            "task": task.model_dump_json(),
            "reported_epochs": self._epochs_known(task.trial_id),
        }

    @override
    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Free the trial's slot. The driver's callback handles its result."""
        self._running.discard(trial_id)

    @override
    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Save nothing: a resumed sweep builds a new queue from the journal."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its configuration for `Tuner.restore`, which this project does not use.
        return {}
