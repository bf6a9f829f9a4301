"""The Optuna study: starting points, several objectives, and a changed space (see test_sampler_contract)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from platform.common.errors import UserError
from platform.tracking.events import TrialStatus
from platform.tuning.sampling.study import Study
from tests.tuning.execution.examples import sgd, tiny_spec
from tests.tuning.sampling.test_sampler_contract import SIZES, end_trial, run_trial

NETWORKS: dict[str, Any] = {
    "model.name": {"choice": ["resnet20_cifar", "resnet32_cifar"]},
    **tiny_spec().to_dict()["search"],
}


def test_known_points_are_replayed_without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draw of TPE looks at all earlier trials, so a replay that draws takes quadratic time."""
    spec = tiny_spec(sampler={"name": "tpe", "startup_trials": 2})
    study, resumed = Study(spec), Study(spec)
    points = [run_trial(study, number) for number in range(8)]
    with monkeypatch.context() as patch:
        patch.setattr(optuna.samplers.TPESampler, "sample_relative", None)
        patch.setattr(optuna.samplers.TPESampler, "sample_independent", None)
        for number, point in enumerate(points):
            resumed.replay(f"t{number:03d}", point)
            end_trial(resumed, number)
    assert resumed.ask("t008") == study.ask("t008")


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


def test_ended_trials_can_be_opened_in_the_dashboard(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    path.write_text("from an earlier process")
    study = Study(tiny_spec(), dashboard=path)
    run_trial(study, 0)
    study.ask("t001")
    study.ended("t001", TrialStatus.FAILED, None)
    app = optuna_dashboard.wsgi(JournalStorage(JournalFileBackend(str(path))))
    [summary] = get_json(app, "/api/studies")["study_summaries"]
    trials = get_json(app, f"/api/studies/{summary['study_id']}")["trials"]
    assert [trial["state"] for trial in trials] == ["Complete", "Fail"]
    assert {item["name"] for item in trials[0]["params"]} >= {"optimizer"}
    assert trials[0]["intermediate_values"]


def get_json(app: Any, path: str) -> Any:
    environ: dict[str, Any] = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    return json.loads(b"".join(app(environ, lambda *_: None)))
