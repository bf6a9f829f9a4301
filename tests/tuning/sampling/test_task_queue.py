"""The queue of trials that Ray Tune draws from."""

from __future__ import annotations

from ray.tune.search import Searcher

from platform.tuning.journal.trial import TrialTask
from platform.tuning.sampling.task_queue import TaskQueue
from tests.tuning.journal.examples import a_task


def queue_of(*names: str, waiting: tuple[TrialTask, ...] = (), concurrent: int = 1) -> TaskQueue:
    tasks = iter([a_task(name) for name in names])
    return TaskQueue(
        lambda: next(tasks, None), waiting=waiting, concurrent=concurrent, epochs_known={"t000": 2}.get
    )  # type: ignore[arg-type]


def test_no_more_trials_run_than_slots() -> None:
    queue = queue_of("t000", "t001", concurrent=1)
    first = queue.suggest("ray-1")
    assert (first["trial_id"], first["reported_epochs"]) == ("t000", 2)
    assert TrialTask.model_validate_json(first["task"]) == a_task("t000")
    assert queue.suggest("ray-2") is None
    queue.on_trial_complete("ray-1")
    assert queue.suggest("ray-3")["trial_id"] == "t001"


def test_the_number_of_running_trials_follows_the_limit() -> None:
    queue = queue_of("t000", "t001", "t002", concurrent=1)
    assert queue.suggest("a") is not None
    queue.concurrent = 3
    assert [queue.suggest("b")["trial_id"], queue.suggest("c")["trial_id"]] == ["t001", "t002"]
    queue.concurrent = 1
    queue.requeue(a_task("t000"))
    for trial in "ab":
        queue.on_trial_complete(trial)
        assert queue.suggest("d") is None, "more trials run than the remaining nodes have slots"
    queue.on_trial_complete("c")
    assert queue.suggest("d")["trial_id"] == "t000"


def test_waiting_trials_come_first_and_the_queue_finishes_after_the_last_running_trial() -> None:
    queue = queue_of("t001", waiting=(a_task("t000"),), concurrent=2)
    assert [queue.suggest("a")["trial_id"], queue.suggest("b")["trial_id"]] == ["t000", "t001"]
    queue.on_trial_complete("a", error=True)
    assert queue.suggest("c") is None, "t001 is running and may be requeued"
    queue.requeue(a_task("t000"))
    assert queue.suggest("d")["trial_id"] == "t000"
    queue.on_trial_complete("b")
    queue.on_trial_complete("d")
    assert queue.suggest("e") == Searcher.FINISHED
