"""The findings of a sweep's trials, grouped by kind."""

import dataclasses
import math

import pytest

from platform.tracking.events import TrialStatus
from platform.tracking.parquet_tables import TableWriter, read_epochs, read_trials
from platform.tracking.results import SweepResults
from platform.tracking.sweep_folder import SweepFolder
from platform.tracking.trial_findings import findings_by_trial, grouped_findings
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
    writer.flush()
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


def test_findings_are_grouped_by_kind_and_the_final_run_comes_first(results):
    found = {group.name: group for group in grouped_findings(results)}
    assert found["divergence"].trials == ("final", "t001")
    assert found["underfitting"].trials == ("t000",)
    names = findings_by_trial(grouped_findings(results))
    assert names["t000"] == ["underfitting"]
    assert names["final"] == names["t001"] == ["divergence"]
    assert "ended at 2.500, after 0.900" in found["divergence"].finding.evidence
    assert f"a uniform guess has {math.log(10):.3f}" in found["underfitting"].finding.evidence


def test_the_region_of_the_space_that_diverges_is_found(results):
    """Trials above a learning rate of 0.2 diverged: some failed, some were stopped, one ran to its end."""
    rows, epochs = [], {}
    template = next(row for row in results.trials if row.trial_id == "t000")
    for number in range(16):
        lr = 0.02 * (number + 1)
        bad = lr > 0.2
        status = TrialStatus.FINISHED
        error = None
        if bad and number % 2:
            status, error = TrialStatus.FAILED, "...divergence.TrainingDiverged: the training loss must ..."
        elif bad and number != 10:
            status = TrialStatus.PRUNED
        trial_id = f"t{number:03d}"
        params = {"optimizer.sgd.lr": lr, "batch_size": 32 * (1 + number % 3)}
        rows.append(
            dataclasses.replace(
                template, trial_id=trial_id, number=number, status=status, error=error, params=params
            )
        )
        losses = LEAP if bad else [1.2, 1.19, 1.18]
        epochs[trial_id] = [
            epoch(index, train_loss=loss, validation_loss=loss) for index, loss in enumerate(losses, start=1)
        ]
    [group] = grouped_findings(dataclasses.replace(results, trials=rows, epochs=epochs))
    assert group.name == "divergence"
    assert group.trials == tuple(f"t{number:03d}" for number in range(10, 16))
    assert group.region == "optimizer.sgd.lr >= 0.22: 6 of 6 trials, and 0 of the 10 others"


def test_a_trial_that_the_search_ended_early_is_undertrained(results):
    ended = "ended early: no better than a guess after 5 epochs"
    rows = [dataclasses.replace(row, note=ended) if row.trial_id == "t002" else row for row in results.trials]
    found = {group.name: group for group in grouped_findings(dataclasses.replace(results, trials=rows))}
    assert found["underfitting"].trials == ("t000", "t002")
    [group] = grouped_findings(dataclasses.replace(results, trials=[rows[2]]))
    assert group.finding.evidence == "no better than a guess after 5 epochs"


def test_findings_that_are_spread_over_the_space_have_no_region(results):
    assert [group.region for group in grouped_findings(results)] == ["", ""]


def test_a_quick_sweep_or_an_unknown_number_of_classes_has_no_findings(results):
    assert grouped_findings(dataclasses.replace(results, plan={"quick": True})) == []
    assert grouped_findings(dataclasses.replace(results, test=None)) == []
