"""A search ends trials that cannot become useful, and its sampler learns of it."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from platform.data.dataset import DatasetInfo
from platform.tracking.events import TrialStatus
from tests.tuning.execution.examples import DIVERGES, RecordingObserver, search, tiny_spec

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(1800)]


def test_a_trial_without_progress_is_pruned_and_so_is_a_diverged_one_for_the_sampler(
    info: DatasetInfo, tmp_path: Path
) -> None:
    base = tiny_spec().base.model_dump() | {"epochs": 7}
    optimizers = [
        {"name": "sgd", "lr": {"log_uniform": [1e-13, 1e-12]}, "momentum": 0.9},
        {"name": "adamw", "lr": 1e30},
    ]
    spec = tiny_spec(
        base=base,
        search={"optimizer": optimizers},
        trials=2,
        scheduler={"name": "none"},
        start_from=[{"optimizer": "sgd", "optimizer.sgd.lr": 1e-12}, DIVERGES],
    )
    observer = RecordingObserver()
    folder = tmp_path / "tiny-20260101-000000"
    still, diverged = search(spec, folder, info, observer=observer)
    assert (still.status, len(still.records)) == (TrialStatus.PRUNED, 5)
    assert diverged.status is TrialStatus.FAILED
    notes = [line for line in observer.lines if "note" in line]
    assert len(notes) == 1
    assert notes[0].startswith("t000 note: ended early: no better than a guess after 5 epochs: training loss")

    def states() -> list[TrialState]:
        storage = JournalStorage(JournalFileBackend(str(folder / "optuna.log")))
        return [trial.state for trial in optuna.load_study(study_name=spec.name, storage=storage).trials]

    assert states() == [TrialState.PRUNED, TrialState.PRUNED]
    # A resumed search restores the same decisions from the journal.
    again = search(spec, folder, info)
    assert [(one.status, len(one.records)) for one in again] == [
        (TrialStatus.PRUNED, 5),
        (TrialStatus.FAILED, 0),
    ]
    assert states() == [TrialState.PRUNED, TrialState.PRUNED]
