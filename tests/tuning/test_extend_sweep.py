"""Extending a sweep: run ids, kept results, and the condition for a further test-set reading."""

from __future__ import annotations

from pathlib import Path

import pytest

from platform.common.errors import UsageError, UserError
from platform.space.settings import Stop
from platform.space.space_files import load_spec
from platform.tracking.sweep_folder import SweepFolder
from platform.training.config import RunConfig
from platform.tuning.extend_sweep import (
    candidate_numbers,
    check_test_set_unread,
    extend,
    extended_spec,
    final_runs,
    prepare_final_run,
)
from platform.tuning.journal.event import Event
from platform.tuning.journal.journal import open_journal, read_ledger
from platform.tuning.journal.ledger import replay
from platform.tuning.journal.trial import TrialTask
from platform.tuning.selection.test_set_record import record_test_set_reading
from tests.space.examples import spec

RUN = spec().base
OTHER = RUN.changed(seed=7)


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path / "plain-20260101-000000")


def task(trial_id: str, stage: str, *, candidate: str | None = None, run: RunConfig = RUN) -> TrialTask:
    return TrialTask(
        trial_id=trial_id,
        stage=stage,
        number=0,
        params={"batch_size": 128},
        candidate=candidate,
        run=run,
        data_path="/data",
        checkpoint_dir="/checkpoint",
        log_path="/log",
    )


def write_journal(folder: SweepFolder, *tasks: TrialTask) -> None:
    with open_journal(folder.journal) as journal:
        for one in tasks:
            journal.trial(one)


def test_an_extended_spec_differs_only_in_its_trials() -> None:
    larger = extended_spec(spec(trials=5), 3)
    assert larger == spec(trials=8)
    with pytest.raises(UsageError, match="at least 1 trial; got 0"):
        extended_spec(spec(), 0)


def test_a_grid_is_extended_up_to_its_last_point() -> None:
    grid = spec(search={"batch_size": {"choice": [64, 128]}}, sampler={"name": "grid"}, trials=1)
    assert extended_spec(grid, 5).trials == 6
    with pytest.raises(UsageError, match="all 2 points of the grid are already planned"):
        extended_spec(extended_spec(grid, 5), 1)


def test_extending_writes_the_spec_and_clears_the_stop_reason(folder: SweepFolder) -> None:
    with open_journal(folder.journal) as journal:
        journal.stopped("target reached")
    assert read_ledger(folder.journal).stop_reason == "target reached"
    extend(folder, spec(trials=8))
    assert load_spec(folder.path) == spec(trials=8)
    assert read_ledger(folder.journal).stop_reason is None


def test_a_running_sweep_cannot_be_extended(folder: SweepFolder) -> None:
    with open_journal(folder.journal), pytest.raises(UserError, match="one process runs a sweep"):
        extend(folder, spec(trials=8))
    assert not folder.spec.exists()


def test_candidates_are_numbered_by_their_confirmation_runs() -> None:
    past = [
        Event(at=0, kind="trial", trial_id=one.trial_id, task=one)
        for one in (
            task("t004", "search"),
            task("c1-s0", "confirm", candidate="t004"),
            task("c1-s1", "confirm", candidate="t004"),
            task("c2-s0", "confirm", candidate="t001"),
            task("final", "final", candidate="t004"),
        )
    ]
    assert candidate_numbers(replay(past)) == {"t004": 1, "t001": 2}


def test_the_same_champion_keeps_its_final_run_id(folder: SweepFolder) -> None:
    assert final_runs(folder) == []
    assert prepare_final_run(folder, RUN) == "final"
    write_journal(folder, task("final", "final", candidate="t004"))
    (folder.checkpoint_dir("final")).mkdir(parents=True)
    assert prepare_final_run(folder, RUN) == "final"
    assert [run.candidate for run in final_runs(folder)] == ["t004"]
    assert folder.checkpoint_dir("final").is_dir()


def test_the_results_of_a_superseded_final_model_are_kept(folder: SweepFolder) -> None:
    write_journal(folder, task("final", "final", candidate="t004"))
    folder.checkpoint_dir("final").mkdir(parents=True)
    (folder.checkpoint_dir("final") / "model.pt").write_text("old")
    folder.test.write_text("{}")
    # Calling it again after a crash returns the same id.
    assert [prepare_final_run(folder, OTHER) for _ in range(2)] == ["final-2", "final-2"]
    assert (folder.path / "superseded" / "1" / "final" / "model.pt").read_text() == "old"
    assert (folder.path / "superseded" / "1" / "test.json").exists()
    assert not folder.test.exists()
    write_journal(folder, task("final-2", "final", candidate="t009", run=OTHER))
    assert [(run.trial_id, run.candidate) for run in final_runs(folder)] == [
        ("final", "t004"),
        ("final-2", "t009"),
    ]
    assert folder.checkpoint_dir("final-2") == folder.checkpoint_dir("final")


def test_extending_after_a_test_set_reading_requires_again(folder: SweepFolder) -> None:
    check_test_set_unread(folder, again=False)
    folder.path.mkdir(parents=True)
    record_test_set_reading(folder.path, split_sha256="abc", run="final")
    with pytest.raises(UsageError, match="Add --again"):
        check_test_set_unread(folder, again=False)
    check_test_set_unread(folder, again=True)
    # The old model's test.json has moved, but the new model's reading is still a further one.
    with pytest.raises(UserError, match="reads the test set once"):
        record_test_set_reading(folder.path, split_sha256="abc", run="final-2")
    record = record_test_set_reading(folder.path, split_sha256="abc", run="final-2", again=True)
    assert [reading.run for reading in record.openings] == ["final", "final-2"]


def test_stop_settings_are_validated() -> None:
    assert Stop() == spec().stop
    with pytest.raises(UsageError, match=r"stop\.target_accuracy"):
        spec(stop={"target_accuracy": 93})
    with pytest.raises(UsageError, match=r"stop: .*unknown key|stop\.wall_hour: unknown key"):
        spec(stop={"wall_hour": 1})
