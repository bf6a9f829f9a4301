"""The number of trials at a time on clusters of other sizes than planned."""

from __future__ import annotations

from pathlib import Path

from platform.tracking.events import SweepObserver
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.planning.plan import make_plan
from platform.tuning.training_stages import Sweep
from tests.space.examples import spec
from tests.tuning.journal.examples import INFO

NODE = {"CPU": 2.0, "GPU": 0.0}


def concurrent_on(nodes: int, **changes: int) -> int:
    space = spec(trials=7, resources_per_worker={"CPU": 1, "GPU": 0}, **changes)
    plan = make_plan(space, [NODE])
    sweep = Sweep(
        spec=space, plan=plan, folder=SweepFolder(Path("runs/x-20260101-000000")), info=INFO,
        observer=SweepObserver(), provenance={},
    )  # fmt: skip
    placement = sweep.context(plan.search, most_concurrent=space.concurrent_trials).placement
    assert placement.concurrent == min(2 // placement.workers, changes.get("concurrent_trials", 7))
    assert placement.concurrent_on is not None
    return placement.concurrent_on([NODE] * nodes)


def test_trials_at_a_time_follow_the_slots_up_to_the_number_of_trials() -> None:
    assert [concurrent_on(nodes) for nodes in range(6)] == [1, 2, 4, 6, 7, 7]


def test_a_trial_of_several_workers_takes_several_slots() -> None:
    assert [concurrent_on(nodes, workers_per_trial=2) for nodes in range(4)] == [1, 1, 2, 3]


def test_concurrent_trials_is_the_upper_limit() -> None:
    assert [concurrent_on(nodes, concurrent_trials=1) for nodes in (1, 3)] == [1, 1]
