"""Comparison of outcomes, table and usage errors of random_kills; tests/sweep kills a real sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.killed_sweep import KilledSweep, differences
from benchmarks.random_kills import SPACE, main, table
from platform.common.errors import UsageError
from platform.common.schema import validate
from platform.space.spec import SweepSpec
from platform.space.yaml_text import parse_yaml
from platform.tuning.planning.plan import make_plan
from tests.benchmarks.examples import WHERE

OUTCOME: dict[str, Any] = {
    "trials": {"t000": {"status": "finished"}, "t001": {"status": "pruned"}},
    "epochs": {"t000": [{"train_loss": 2.0}, {"train_loss": 1.5}], "t001": [{"train_loss": 2.1}]},
}


def test_equal_outcomes_have_no_differences() -> None:
    assert differences(OUTCOME, {**OUTCOME}) == []


def test_every_difference_is_reported_with_its_path() -> None:
    other = {
        "trials": {"t000": {"status": "finished"}, "t001": {"status": "finished"}},
        "epochs": {"t000": [{"train_loss": 2.0}, {"train_loss": 1.5000001}], "t001": []},
    }
    assert differences(OUTCOME, other) == [
        "epochs.t000[1].train_loss: 1.5, 1.5000001",
        "epochs.t001: [{'train_loss': 2.1}], []",
        "trials.t001.status: 'pruned', 'finished'",
    ]


def test_epoch_trained_twice_is_detected(tmp_path: Path) -> None:
    logs = tmp_path / "runs" / "killed-20260101-000000" / "logs"
    logs.mkdir(parents=True)
    (logs.parent / "journal.jsonl").touch()
    line = "epoch {}/3: train loss 2.0000, validation accuracy 0.1000, 0.5 s\n"
    (logs / "t000.log").write_text(line.format(1) + "--- again\n" + line.format(2))
    (logs / "c1-s0.log").write_text(line.format(1) + "--- again\n" + line.format(1))
    (logs / "c1-s0.rank1.log").write_text(line.format(1))
    assert KilledSweep(tmp_path).repeated() == ["c1-s0 epoch 1"]


def test_table_counts_kills_and_reports_differences() -> None:
    kill = {"kind": "raylet", "moment": "t000 epoch 1", "after_s": 1.0, "resumed": True, "left": []}
    good = {"sweep": 1, "kills": [kill] * 2, "differences": [], "repeated": [], "epochs": 9, "trials": 4}
    bad = {**good, "sweep": 2, "repeated": ["t000 epoch 1"], "equal": False}
    lines = table(WHERE, [{**good, "equal": True}, bad]).splitlines()
    assert " ".join(lines[5].split()) == "1 4 runs, 9 epochs: equal to the undisturbed sweep"
    assert " ".join(lines[8].split()) == "2 4 runs, 9 epochs: 1 differences: twice: t000 epoch 1"
    assert lines[-1] == "4 kills (4 raylet); 1 of 2 sweeps equal to the undisturbed one"


def test_sweep_has_one_slot_and_two_confirmation_workers() -> None:
    spec = validate(SweepSpec, {"name": "killed", **parse_yaml(SPACE, source="killed")}, source="killed")
    plan = make_plan(spec, [{"CPU": 8.0}])
    assert (plan.search.concurrency, plan.search.backend) == (1, "inproc")
    assert (plan.confirm.workers, plan.confirm.backend, plan.final.workers) == (2, "ddp", 2)


def test_zero_rounds_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="must be a whole number, 1 or more, got '0'"):
        main(["--rounds", "0"])
