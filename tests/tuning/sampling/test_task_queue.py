from __future__ import annotations

from typing import Any

import pytest
from ray.tune.search import Searcher

from platform.errors import UserError
from platform.models.config import ModelConfig
from platform.tracking.events import TrialStatus
from platform.tuning.journal.trial import TrialTask
from platform.tuning.sampling.objectives import Architecture, Architectures
from platform.tuning.sampling.task_queue import Study, TaskQueue
from tests.tuning.execution.examples import sgd, tiny_spec
from tests.tuning.journal.examples import a_record, a_task

SAMPLERS: list[dict[str, Any]] = [
    {"name": "tpe", "startup_trials": 3},
    {"name": "random"},
    {"name": "qmc"},
    {"name": "nsga2", "population_size": 2},
]


def live(study: Study, number: int) -> dict[str, Any]:
    """Ask for a trial and let it end: finished, stopped early, or failed, in turn."""
    name = f"t{number:03d}"
    params = study.ask(name)
    learn(study, number)
    return params


def learn(study: Study, number: int) -> None:
    name, accuracy = f"t{number:03d}", 0.5 + 0.04 * (number % 7)
    study.epoch(name, a_record(1, accuracy))
    status = [TrialStatus.FINISHED, TrialStatus.PRUNED, TrialStatus.FAILED][number % 3]
    study.ended(name, status, accuracy)


def test_known_points_come_first() -> None:
    study = Study(tiny_spec(start_from=[sgd(0.05), sgd(0.02)]))
    assert [live(study, 0), live(study, 1)] == [sgd(0.05), sgd(0.02)]


NETWORKS: dict[str, Any] = {
    "model.name": {"choice": ["resnet20_cifar", "resnet32_cifar"]},
    **tiny_spec().to_dict()["search"],
}
FLAT: dict[str, Any] = {"optimizer.lr": {"log_uniform": [1e-3, 1e-1]}}
SIZES = Architectures(
    architectures=tuple(
        Architecture(model=ModelConfig(name=name), costs={"parameters": size})
        for name, size in (("resnet20_cifar", 270_000), ("resnet32_cifar", 464_000))
    )
)


@pytest.mark.parametrize("several", [False, True], ids=["accuracy", "accuracy and size"])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler["name"])
def test_a_replayed_study_asks_as_the_lived_one(sampler: dict[str, Any], several: bool) -> None:
    inside = FLAT if sampler["name"] == "qmc" else tiny_spec().to_dict()["search"]
    start = {"optimizer.lr": 0.05} if sampler["name"] == "qmc" else sgd(0.05)
    spec = tiny_spec(start_from=[start], sampler=sampler, search=inside, trials=20)
    if several:
        spec = tiny_spec(
            sampler=sampler,
            trials=20,
            search={"model.name": NETWORKS["model.name"], **inside},
            objectives=["validation_accuracy", "parameters"],
        )
    lived, replayed = (Study(spec, architectures=SIZES) for _ in range(2))
    past = [live(lived, number) for number in range(8)]
    assert len({str(params) for params in past}) > 4, "the sampler repeats itself"
    for number, params in enumerate(past):
        replayed.replay(f"t{number:03d}", params)
        learn(replayed, number)
    assert [live(replayed, number) for number in range(8, 12)] == [
        live(lived, number) for number in range(8, 12)
    ]


def test_the_genetic_sampler_breeds_small_and_accurate_networks() -> None:
    """Small networks learn as well here, so that all of the front is small."""
    spec = tiny_spec(
        sampler={"name": "nsga2", "population_size": 4},
        trials=60,
        search=NETWORKS,
        objectives=["validation_accuracy", "parameters"],
    )
    study, names = Study(spec, architectures=SIZES), []
    for number in range(40):
        trial_id = f"t{number:03d}"
        params = study.ask(trial_id)
        names.append(params["model.name"])
        study.ended(trial_id, TrialStatus.FINISHED, 0.5)
    assert names[:8].count("resnet32_cifar") > 0
    assert names[-20:].count("resnet20_cifar") > 14


def test_a_point_outside_the_space_is_refused_on_replay() -> None:
    study = Study(tiny_spec(start_from=[sgd(0.05)]))
    with pytest.raises(UserError, match="resumes with the space it began with"):
        study.replay("t000", sgd(0.06))


def queue_of(*names: str, waiting: tuple[TrialTask, ...] = (), concurrent: int = 1) -> TaskQueue:
    tasks = iter([a_task(name) for name in names])
    return TaskQueue(
        lambda: next(tasks, None), waiting=waiting, concurrent=concurrent, epochs_known={"t000": 2}.get
    )  # type: ignore[arg-type]


def test_no_more_trials_than_slots() -> None:
    queue = queue_of("t000", "t001", concurrent=1)
    first = queue.suggest("ray-1")
    assert (first["trial_id"], first["reported_epochs"]) == ("t000", 2)
    assert TrialTask.model_validate_json(first["task"]) == a_task("t000")
    assert queue.suggest("ray-2") is None
    queue.on_trial_complete("ray-1")
    assert queue.suggest("ray-3")["trial_id"] == "t001"


def test_interrupted_trials_first_and_the_end_only_when_none_can_come_back() -> None:
    queue = queue_of("t001", waiting=(a_task("t000"),), concurrent=2)
    assert [queue.suggest("a")["trial_id"], queue.suggest("b")["trial_id"]] == ["t000", "t001"]
    queue.on_trial_complete("a", error=True)
    assert queue.suggest("c") is None, "t001 still runs, and may have to be repeated"
    queue.put_back(a_task("t000"))
    assert queue.suggest("d")["trial_id"] == "t000"
    queue.on_trial_complete("b")
    queue.on_trial_complete("d")
    assert queue.suggest("e") == Searcher.FINISHED
