"""The list of sweeps and their times."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from platform.console.sweep_list import sweep_list
from platform.tracking.events import TrialStatus
from platform.tracking.results import TEST_KEYS, read_results
from platform.tracking.summary_sentences import summary_sentences
from platform.tracking.sweep_folder import SweepFolder
from tests.space.examples import spec
from tests.tuning.sampling.test_warm_start import finished_sweep

STARTED = datetime(2026, 1, 1, 12, tzinfo=UTC)


def write_sweep(root: Path, name: str, state: str, **plan: object) -> Path:
    rates = {0.1: TrialStatus.FINISHED, 0.2: TrialStatus.FINISHED, 0.3: TrialStatus.PRUNED}
    folder = finished_sweep(root / name, spec(), rates)
    folder.state.write_text(
        json.dumps({"state": state, "started_at": STARTED.isoformat(), "active_s": 192.0, "pid": 0})
    )
    folder.plan.write_text(json.dumps({"quick": False, "search": {"runs": 4}, **plan}))
    return folder.path


def test_each_sweep_has_one_line_and_damaged_ones_are_marked(tmp_path: Path) -> None:
    write_sweep(tmp_path, "plain-20260101-120000", "interrupted")
    confirmed = write_sweep(tmp_path, "plain-20260101-130000", "finished", quick=True)
    estimate = {"mean": 0.205, "interval95": [0.204, 0.206]}
    entry = {"trial_id": "t001", "mean": 0.21, "n": 3, "estimate": estimate}
    (confirmed / "selection.json").write_text(json.dumps({"champion": "t001", "candidates": [entry]}))
    (confirmed / "test.json").write_text(json.dumps({**dict.fromkeys(TEST_KEYS), "accuracy": 0.19}))
    (write_sweep(tmp_path, "plain-20260101-140000", "running") / "trials.parquet").write_text("nothing")
    lines = sweep_list(tmp_path, now=STARTED + timedelta(hours=3)).splitlines()
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "plain-20260101-120000 interrupted 3/4 t001 20.00 % - 3 min 12 s 3 h 00 min",
        "plain-20260101-130000 * finished 3/4 t001 20.50 % ± 0.10 19.00 % 3 min 12 s 3 h 00 min",
        "plain-20260101-140000 damaged - - - 3 min 12 s 3 h 00 min",
    ]


def test_a_sweep_from_before_the_clock_was_set_back_has_no_negative_age(tmp_path: Path) -> None:
    write_sweep(tmp_path, "plain-20260101-120000", "finished")
    assert sweep_list(tmp_path, now=STARTED - timedelta(hours=1)).endswith("  0.0 s")


@pytest.mark.parametrize(("alive", "expected"), [(True, "3 min 32 s"), (False, "3 min 17 s")])
def test_a_running_sweep_counts_up_to_now_and_a_killed_one_to_its_last_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: bool, expected: str
) -> None:
    path = write_sweep(tmp_path, "plain-20260101-120000", "running")
    folder = SweepFolder(path)
    now = datetime.now(UTC)
    record = json.loads(folder.state.read_text()) | {
        "running_since": (now - timedelta(seconds=20)).isoformat()
    }
    folder.state.write_text(json.dumps(record))
    folder.journal.touch()
    for file in (folder.state, folder.journal):
        os.utime(file, ((now - timedelta(seconds=15)).timestamp(),) * 2)
    monkeypatch.setattr("psutil.pid_exists", lambda _: alive)
    [_, line] = sweep_list(tmp_path, now=now).splitlines()
    assert expected in line
    # A resumed sweep keeps the time of the start that was killed.
    if not alive:
        folder.set_state("running")
        assert json.loads(folder.state.read_text())["active_s"] == pytest.approx(197, abs=0.2)


def test_the_summary_has_the_reason_of_an_early_stop(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, "plain-20260101-120000", "finished")
    (path / "selection.json").write_text(json.dumps({"search_stopped": "stop.wall_hours: ..."}))
    sentences = summary_sentences(read_results(SweepFolder(path)))
    assert "Runs: fewer than planned: stop.wall_hours: ...." in sentences
