"""More trials: which runs keep their names, and what gives way to a new champion."""

from __future__ import annotations

from pathlib import Path

import pytest

from platform.errors import UsageError, UserError
from platform.space.settings import Stop
from platform.space.space_files import load_spec
from platform.tracking.sweep_folder import SweepFolder
from platform.training.config import RunConfig
from platform.tuning.extend_sweep import (
    candidate_numbers,
    champion_of_final,
    extend,
    extended,
    final_run,
    final_run_for,
    refuse_second_opening,
)
from platform.tuning.journal.journal import Event, open_journal, read_journal
from platform.tuning.journal.trial import TrialTask
from platform.tuning.selection.test_set_record import open_test_split
from platform.tuning.stop_criteria import stop_reason
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


def noted(folder: SweepFolder, *tasks: TrialTask) -> None:
    with open_journal(folder.journal) as journal:
        for one in tasks:
            journal.trial(one)


def test_an_extended_spec_differs_in_its_trials_only() -> None:
    larger = extended(spec(trials=5), 3)
    assert larger == spec(trials=8)
    with pytest.raises(UsageError, match="at least 1; got 0"):
        extended(spec(), 0)


def test_a_grid_ends() -> None:
    grid = spec(search={"batch_size": {"choice": [64, 128]}}, sampler={"name": "grid"}, trials=1)
    assert extended(grid, 5).trials == 6
    with pytest.raises(UsageError, match="the grid has 2 points, and all are planned"):
        extended(extended(grid, 5), 1)


def test_the_folder_learns_of_it_and_an_early_end_is_lifted(folder: SweepFolder) -> None:
    with open_journal(folder.journal) as journal:
        journal.stopped("target reached")
    assert stop_reason(read_journal(folder.journal)) == "target reached"
    extend(folder, spec(trials=8))
    assert load_spec(folder.path) == spec(trials=8)
    assert stop_reason(read_journal(folder.journal)) is None


def test_a_running_sweep_is_not_extended(folder: SweepFolder) -> None:
    with open_journal(folder.journal), pytest.raises(UserError, match="one process runs a sweep"):
        extend(folder, spec(trials=8))
    assert not folder.spec.exists()


def test_candidates_keep_their_numbers() -> None:
    past = [
        Event(kind="trial", trial_id=one.trial_id, task=one)
        for one in (
            task("t004", "search"),
            task("c1-s0", "confirm", candidate="t004"),
            task("c1-s1", "confirm", candidate="t004"),
            task("c2-s0", "confirm", candidate="t001"),
            task("final", "final", candidate="t004"),
        )
    ]
    assert candidate_numbers(past) == {"t004": 1, "t001": 2}


def test_the_same_champion_keeps_its_final_run(folder: SweepFolder) -> None:
    assert (final_run(folder), champion_of_final(folder)) == ("final", None)
    assert final_run_for(folder, RUN) == "final"
    noted(folder, task("final", "final", candidate="t004"))
    (folder.checkpoint_dir("final")).mkdir(parents=True)
    assert final_run_for(folder, RUN) == "final"
    assert champion_of_final(folder) == "t004"
    assert folder.checkpoint_dir("final").is_dir()


def test_another_champion_takes_the_place_and_the_old_results_are_kept(folder: SweepFolder) -> None:
    noted(folder, task("final", "final", candidate="t004"))
    folder.checkpoint_dir("final").mkdir(parents=True)
    (folder.checkpoint_dir("final") / "model.pt").write_text("old")
    folder.test.write_text("{}")
    # Killed in between, it comes to the same.
    assert [final_run_for(folder, OTHER) for _ in range(2)] == ["final-2", "final-2"]
    assert (folder.path / "superseded" / "1" / "final" / "model.pt").read_text() == "old"
    assert (folder.path / "superseded" / "1" / "test.json").exists()
    assert not folder.test.exists()
    noted(folder, task("final-2", "final", candidate="t009", run=OTHER))
    assert (final_run(folder), champion_of_final(folder)) == ("final-2", "t009")
    assert folder.checkpoint_dir("final-2") == folder.checkpoint_dir("final")


def test_the_first_figure_is_known_so_the_second_look_is_asked_for(folder: SweepFolder) -> None:
    refuse_second_opening(folder, again=False)
    folder.path.mkdir(parents=True)
    open_test_split(folder.path, split_sha256="abc", run="final")
    with pytest.raises(UsageError, match="Add --again"):
        refuse_second_opening(folder, again=False)
    refuse_second_opening(folder, again=True)
    # Without its test.json, which has moved, the new model's look is a second one.
    with pytest.raises(UserError, match="opened once per sweep"):
        open_test_split(folder.path, split_sha256="abc", run="final-2")
    openings = open_test_split(folder.path, split_sha256="abc", run="final-2", again=True).openings
    assert [opening.run for opening in openings] == ["final", "final-2"]


def test_stops_have_ranges() -> None:
    assert Stop() == spec().stop
    with pytest.raises(UsageError, match=r"stop\.target_accuracy"):
        spec(stop={"target_accuracy": 93})
    with pytest.raises(UsageError, match=r"stop: .*unknown key|stop\.wall_hour: unknown key"):
        spec(stop={"wall_hour": 1})
