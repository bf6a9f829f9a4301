"""Warm start: a sampler that starts with the finished trials of another sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from platform.common.atomic import write_text
from platform.common.errors import UsageError
from platform.space.settings import Grid, Tpe
from platform.space.spec import SweepSpec
from platform.tracking.events import TrialInfo, TrialStatus
from platform.tracking.parquet_tables import TableWriter
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.sampling.warm_start import earlier_trials, read_earlier_trials, write_earlier_trials
from tests.space.examples import spec
from tests.tuning.journal.examples import a_record

TPE = Tpe(name="tpe", startup_trials=0)


def finished_sweep(path: Path, space: SweepSpec, rates: dict[float, TrialStatus]) -> SweepFolder:
    """Write the folder of a finished sweep; the accuracy of a trial is its learning rate."""
    folder = SweepFolder(path)
    write_text(folder.spec, space.to_yaml())
    writer = TableWriter(folder)
    for number, (rate, status) in enumerate(rates.items()):
        params = {"batch_size": 128, "optimizer.lr": rate}
        trial = TrialInfo(
            trial_id=f"t{number:03d}",
            stage="search",
            number=number,
            config=space.resolve(params),
            params=params,
        )
        writer.trial_started(trial)
        writer.epoch_finished(trial, a_record(1, rate))
        writer.trial_ended(trial, status)
    writer.flush()
    return folder


def test_finished_trials_are_copied_and_read_back(tmp_path: Path) -> None:
    rates = {0.1: TrialStatus.FINISHED, 0.2: TrialStatus.PRUNED, 0.3: TrialStatus.FINISHED}
    before = finished_sweep(tmp_path / "before-20260101-000000", spec(), rates)
    known = earlier_trials(before, spec(sampler=TPE.model_dump()))
    assert known.sweep == "before-20260101-000000"
    assert [(trial.trial_id, trial.accuracy) for trial in known.trials] == [("t000", 0.1), ("t002", 0.3)]
    after = SweepFolder(tmp_path / "after")
    assert read_earlier_trials(after) == ()
    write_earlier_trials(after, known)
    assert read_earlier_trials(after) == known.trials


def test_the_sampler_uses_earlier_trials(tmp_path: Path) -> None:
    from platform.tuning.sampling.study import Study

    rates = {0.0101 * 1.2**step: TrialStatus.FINISHED for step in range(20)}
    before = finished_sweep(tmp_path / "before-20260101-000000", spec(), rates)
    space = spec(sampler=TPE.model_dump())
    known = earlier_trials(before, space).trials

    def mean_rate(study: Study) -> float:
        drawn = []
        for number in range(10):
            drawn.append(float(study.ask(f"t{number:03d}")["optimizer.lr"]))
            study.ended(f"t{number:03d}", TrialStatus.FAILED, None)
        return sum(drawn) / len(drawn)

    informed, uninformed = mean_rate(Study(space, earlier=known)), mean_rate(Study(space))
    assert informed > 1.5 * uninformed, "earlier trials with higher rates had better accuracies"
    assert informed == mean_rate(Study(space, earlier=known)), "a resumed search draws the same points"


def test_trials_outside_the_new_space_are_left_out(tmp_path: Path) -> None:
    rates = {0.05: TrialStatus.FINISHED, 0.4: TrialStatus.FINISHED}
    before = finished_sweep(tmp_path / "before-20260101-000000", spec(), rates)
    narrow = {"batch_size": {"choice": [128]}, "optimizer.lr": {"log_uniform": [0.01, 0.1]}}
    known = earlier_trials(before, spec(search=narrow))
    assert [trial.trial_id for trial in known.trials] == ["t000"]
    elsewhere = {"batch_size": {"choice": [128]}, "optimizer.lr": {"log_uniform": [0.001, 0.002]}}
    with pytest.raises(UsageError, match="none of the 2 finished trials"):
        earlier_trials(before, spec(search=elsewhere))


def test_sweeps_of_other_lengths_and_samplers_without_history_are_refused(tmp_path: Path) -> None:
    before = finished_sweep(tmp_path / "before-20260101-000000", spec(), {0.1: TrialStatus.FINISHED})
    longer = spec(base={**spec().base.model_dump(), "epochs": 90})
    with pytest.raises(UsageError, match=r"differs in base\.epochs"):
        earlier_trials(before, longer)
    grid = Grid(name="grid").model_dump()
    with pytest.raises(UsageError, match="uses earlier trials, and 'grid' does not"):
        earlier_trials(before, spec(sampler=grid))
