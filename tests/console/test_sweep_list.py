"""The list of sweeps, and what is said of their time, from folders alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from platform.console.estimate_text import took
from platform.console.sweep_list import sweep_list
from platform.tracking.conclusions import sentences
from platform.tracking.events import TrialStatus
from platform.tracking.results import read_results
from platform.tracking.sweep_folder import SweepFolder
from tests.space.examples import spec
from tests.tuning.sampling.test_warm_start import finished_sweep

BEGAN = datetime(2026, 1, 1, 12, tzinfo=UTC)


def a_sweep(root: Path, name: str, state: str, **plan: object) -> Path:
    rates = {0.1: TrialStatus.FINISHED, 0.2: TrialStatus.FINISHED, 0.3: TrialStatus.PRUNED}
    folder = finished_sweep(root / name, spec(), rates)
    folder.state.write_text(
        json.dumps({"state": state, "started_at": BEGAN.isoformat(), "active_s": 192.0, "pid": 0})
    )
    folder.plan.write_text(json.dumps({"quick": False, "search": {"runs": 4}, **plan}))
    return folder.path


def test_one_line_for_each_and_what_is_damaged_is_said(tmp_path: Path) -> None:
    a_sweep(tmp_path, "plain-20260101-120000", "interrupted")
    confirmed = a_sweep(tmp_path, "plain-20260101-130000", "finished", quick=True)
    entry = {"trial_id": "t001", "mean": 0.205, "std": 0.001, "n": 3}
    (confirmed / "selection.json").write_text(json.dumps({"champion": "t001", "candidates": [entry]}))
    (confirmed / "test.json").write_text(json.dumps({"accuracy": 0.19}))
    (a_sweep(tmp_path, "plain-20260101-140000", "running") / "trials.parquet").write_text("nothing")
    lines = sweep_list(tmp_path, now=BEGAN + timedelta(hours=3)).splitlines()
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "plain-20260101-120000 interrupted 3/4 t001 20.00 % - 3 min 12 s 3 h 00 min",
        "plain-20260101-130000 * finished 3/4 t001 20.50 % ± 0.10 19.00 % 3 min 12 s 3 h 00 min",
        "plain-20260101-140000 damaged - - - 3 min 12 s 3 h 00 min",
    ]


def test_the_time_taken_stands_beside_the_estimate(tmp_path: Path) -> None:
    path = a_sweep(tmp_path, "plain-20260101-120000", "finished", estimate={"wall_s": 240.0})
    folder = SweepFolder(path)
    assert took(folder) == "took 3 min 12 s; the plan expected about 4 min"
    (path / "plan.json").write_text("{}")
    assert took(folder) == "took 3 min 12 s"


def test_an_early_end_of_the_search_is_told(tmp_path: Path) -> None:
    path = a_sweep(tmp_path, "plain-20260101-120000", "finished")
    (path / "selection.json").write_text(json.dumps({"search_stopped": "stop.wall_hours: ..."}))
    told = sentences(read_results(SweepFolder(path)))
    assert "The search ended before its last trial (stop.wall_hours: ...)." in told
