"""What ails a sweep's trials: gathered by phenomenon, the run that ships first."""

import dataclasses
import math

import pytest

from platform.tracking.events import TrialStatus
from platform.tracking.parquet_tables import TableWriter, read_epochs, read_trials
from platform.tracking.results import SweepResults
from platform.tracking.sweep_folder import SweepFolder
from platform.tracking.trial_findings import ailments, by_trial
from tests.tracking.examples import epoch, trial

STILL = [2.31, 2.30, 2.30]
LEAP = [1.0, 0.9, 2.5]


@pytest.fixture
def results(tmp_path):
    folder = SweepFolder(tmp_path)
    writer = TableWriter(folder)
    runs = [
        (trial(0), STILL, TrialStatus.FINISHED),
        (trial(1), LEAP, TrialStatus.FINISHED),
        (trial(2), STILL[:1], TrialStatus.PRUNED),
        (trial(0, stage="final", trial_id="final"), LEAP, TrialStatus.FINISHED),
    ]
    for one, losses, status in runs:
        writer.trial_started(one)
        for number, loss in enumerate(losses, start=1):
            writer.epoch_finished(one, epoch(number, train_loss=loss, validation_loss=None))
        writer.trial_ended(one, status)
    return SweepResults(
        folder=folder,
        state="finished",
        plan={},
        trials=read_trials(folder),
        epochs=read_epochs(folder),
        selection=None,
        champion=None,
        test={"class_names": list("abcdefghij")},
        export=None,
        lower_precisions=(),
        benchmark=None,
    )


def test_trials_are_gathered_by_phenomenon_and_the_one_that_ships_comes_first(results):
    found = {ailment.name: ailment for ailment in ailments(results)}
    assert found["divergence"].trials == ("final", "t001")
    assert found["underfitting"].trials == ("final", "t000", "t001")
    names = by_trial(ailments(results))
    assert names["t000"] == ["underfitting"]
    assert names["final"] == names["t001"] == ["divergence", "loss spikes", "underfitting"]
    assert "ended at 2.500, after 0.900" in found["divergence"].finding.evidence
    assert f"guessing gives {math.log(10):.3f}" in found["underfitting"].finding.evidence


def test_nothing_is_said_of_a_quick_sweep_or_without_the_number_of_classes(results):
    assert ailments(dataclasses.replace(results, plan={"quick": True})) == []
    assert ailments(dataclasses.replace(results, test=None)) == []
