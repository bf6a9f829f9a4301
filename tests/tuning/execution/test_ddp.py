"""Trials as Ray Train worker groups: finished, stopped and failed ones, and the cleanup after each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from platform.data.dataset import DatasetInfo
from platform.models.trained import load_trained_model
from platform.tracking.events import TrialInfo, TrialStatus
from platform.training.records import EpochRecord
from platform.tuning.execution.placement_groups import active_groups
from tests.tuning.execution.examples import (
    DIVERGES,
    TWO_WORKERS,
    RecordingObserver,
    search,
    sgd,
    tiny_spec,
    unfinished,
)

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(1800)]


class StopSecond(FIFOScheduler):
    """Stops the second trial after its first epoch."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        second = trial.config["trial_id"] == "t001"
        return TrialScheduler.STOP if second else TrialScheduler.CONTINUE


def test_trials_of_two_workers_finish_stop_and_fail(
    folder: Path, info: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.tuning.sampling.schedulers.make_scheduler", lambda _: StopSecond())
    spec = tiny_spec(workers_per_trial=2, start_from=[sgd(0.05), sgd(0.02), DIVERGES], trials=3)
    outcomes = search(spec, folder, info, observer=RecordingObserver(), placement=TWO_WORKERS)

    assert outcomes[0].status is TrialStatus.FINISHED, outcomes[0].error
    assert [record.epoch for record in outcomes[0].records] == [1, 2, 3]
    model = load_trained_model(folder / "checkpoints" / "t000" / "model.pt")
    assert model.metrics["validation_accuracy"] == pytest.approx(outcomes[0].accuracy)
    assert "worker 1 of 2" in (folder / "logs" / "t000.rank1.log").read_text()

    assert outcomes[1].status is TrialStatus.PRUNED
    assert len(outcomes[1].records) == 1
    assert outcomes[2].status is TrialStatus.FAILED
    assert "TrainingDiverged" in outcomes[2].error
    assert active_groups() == []
    assert unfinished(folder) == []
    assert ray.available_resources()["CPU"] == 2


@pytest.mark.parametrize("victim", ["ImplicitFunc", "TrainController", "RayTrainWorker"])
def test_a_trial_continues_after_its_process_or_its_controller_is_killed(
    folder: Path, info: DatasetInfo, victim: str
) -> None:
    """The placement group of its workers must be removed, because the next attempt needs the slots."""
    killed: list[str] = []

    class Killer(RecordingObserver):
        def epoch_finished(self, trial: TrialInfo, record: EpochRecord) -> None:
            super().epoch_finished(trial, record)
            if record.epoch == 1 and not killed:
                for process in psutil.Process().children(recursive=True):
                    if process.is_running() and f"ray::{victim}" in " ".join(process.cmdline()):
                        process.kill()
                        killed.append(victim)
                        break

    observer = Killer()
    spec = tiny_spec(workers_per_trial=2, start_from=[sgd(0.05)], trials=1, scheduler={"name": "none"})
    [outcome] = search(spec, folder, info, observer=observer, placement=TWO_WORKERS)
    assert killed
    assert outcome.status is TrialStatus.FINISHED, outcome.error
    assert [line for line in observer.lines if "epoch" in line] == [f"t000 epoch {n}" for n in (1, 2, 3)]
    assert active_groups() == []
