"""Trials as Ray Train worker groups: finished, stopped early, and failed, with nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from platform.data.dataset import DatasetInfo
from platform.models.trained import load_trained_model
from platform.tracking.events import TrialStatus
from platform.tuning.reaper import left_over
from tests.tuning_ray.examples import DIVERGES, TWO_WORKERS, Diary, search, sgd, tiny_spec

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(1800)]


def test_two_workers_finish_are_stopped_and_fail(folder: Path, info: DatasetInfo) -> None:
    # A learning rate of 1e-9 learns nothing, so the first rung stops it: both start from one seed's accuracy.
    spec = tiny_spec(
        search={
            "optimizer": [
                {"name": "sgd", "lr": {"log_uniform": [1e-9, 1e-1]}, "momentum": 0.9},
                {"name": "adamw", "lr": 1e30},
            ]
        },
        workers_per_trial=2,
        start_from=[sgd(0.05), sgd(1e-9), DIVERGES],
        trials=3,
        seed=1,
    )
    diary = Diary()
    outcomes = search(spec, folder, info, observer=diary, placement=TWO_WORKERS)

    assert outcomes[0].status is TrialStatus.FINISHED, outcomes[0].error
    assert [record.epoch for record in outcomes[0].records] == [1, 2, 3]
    model = load_trained_model(outcomes[0].model_path)
    assert model.metrics["validation_accuracy"] == pytest.approx(outcomes[0].validation_accuracy)
    assert "worker 1 of 2" in (folder / "logs" / "t000.rank1.log").read_text()

    assert outcomes[1].status in (TrialStatus.PRUNED, TrialStatus.FINISHED)
    assert outcomes[2].status is TrialStatus.FAILED
    assert "TrainingDiverged" in outcomes[2].error
    assert left_over() == []
    assert ray.available_resources()["CPU"] == 2
