"""The Optuna study: starting points, several objectives, and a changed space (see test_sampler_contract)."""

from __future__ import annotations

from typing import Any

import pytest

from platform.common.errors import UserError
from platform.tracking.events import TrialStatus
from platform.tuning.sampling.study import Study
from tests.tuning.execution.examples import sgd, tiny_spec
from tests.tuning.sampling.test_sampler_contract import SIZES, run_trial

NETWORKS: dict[str, Any] = {
    "model.name": {"choice": ["resnet20_cifar", "resnet32_cifar"]},
    **tiny_spec().to_dict()["search"],
}


def test_starting_points_come_first() -> None:
    study = Study(tiny_spec(start_from=[sgd(0.05), sgd(0.02)]))
    assert [run_trial(study, 0), run_trial(study, 1)] == [sgd(0.05), sgd(0.02)]


def test_nsga2_converges_to_small_networks_of_equal_accuracy() -> None:
    """All trials have the same accuracy, so the Pareto front contains only small networks."""
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
