"""A sweep that is killed and interrupted still completes with the same results.

`python -m benchmarks.random_kills` is the long version with many kills of all processes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from benchmarks.killed_sweep import KilledSweep, differences
from platform.tracking.events import TrialStatus
from platform.tracking.parquet_tables import read_trials
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.journal.event import Event
from platform.tuning.journal.journal import read_journal
from tests.sweep.examples import Place

# Ray starts three times.
pytestmark = pytest.mark.timeout(3600)


def journal_events(place: Place) -> list[Event]:
    return [event for folder in place.sweeps for event in read_journal(folder.journal)]


def interrupt(place: Place, arguments: list[str], when: Callable[[], bool], signals: str) -> SweepFolder:
    """Start or resume a sweep, interrupt it, and check the messages and the remaining processes."""
    code, out, err = place.interrupt(*arguments, when=when, signals=signals)
    [folder] = place.sweeps
    assert code == 130, err
    assert out == ""
    assert "Traceback" not in err
    resume_command = f"python -m platform.sweep --resume {folder.sweep_id}"
    assert err.endswith(f"interrupted; all results are saved. Resume with:\n  {resume_command}\n")
    assert place.processes() == []
    assert folder.get_state() == "interrupted"
    return folder


def test_a_killed_and_interrupted_sweep_completes(place: Place, swept: Place) -> None:
    killed, rng = KilledSweep(place.path), random.Random(1)  # noqa: S311 - moments, not secrets
    for kind in ("machine", "driver"):
        with killed.running(place.path / "tiny.yaml") as process:
            kill = killed.kill(process, kind, rng, events=(1, 3))
            assert kill is not None, (place.path / "output.txt").read_text()
            assert kill.left == ()
    [folder] = place.sweeps
    assert folder.get_state() == "interrupted"

    interrupt(place, ["--resume", folder.sweep_id], folder.test.exists, "kill")
    assert {row.status for row in read_trials(folder)} == {TrialStatus.FINISHED}
    assert not folder.report.exists()

    finished = place.sweep("--resume")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == f"{folder.path}\n"
    assert folder.get_state() == "finished"
    assert folder.report.exists()
    ended = [event.trial_id for event in journal_events(place) if event.kind == "ended"]
    assert ended == ["t000", "t001", "c1-s0", "final"]
    assert differences(KilledSweep(swept.path).outcome(), killed.outcome()) == []
    assert killed.repeated() == [], "no epoch is completed twice"

    again = place.sweep("--resume")
    assert again.returncode == 1
    assert "no unfinished sweep" in again.stderr


def test_sigterm_during_the_start(place: Place) -> None:
    with place.start("tiny.yaml") as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.terminate()
        out, err = process.communicate(timeout=1800)
    assert (process.returncode, out) == (130, ""), line + err
    assert "Traceback" not in err
    assert place.processes() == []


def test_a_resumed_sweep_keeps_its_time_budget(place: Place) -> None:
    def has_ended_trial() -> bool:
        return any(event.kind == "ended" for event in journal_events(place))

    larger = ["--set", "trials=6", "confirm.max_runs=4"]
    folder = interrupt(place, ["tiny.yaml", "--within", "1h", *larger], has_ended_trial, "ctrl-c")
    plan = json.loads(folder.plan.read_text())
    assert (plan["within"]["budget_s"], plan["within"]["choices"], plan["search"]["runs"]) == (3600, [], 6)
    # As if the hour was over.
    plan["within"]["used_before_s"] = 4200
    folder.plan.write_text(json.dumps(plan))

    refused = place.sweep("--resume", folder.sweep_id, "--within", "2h")
    assert refused.returncode == 2
    assert refused.stderr.endswith("--within is for new sweeps: a resumed sweep keeps its time budget\n")

    interrupt(place, ["--resume", folder.sweep_id], folder.champion.exists, "kill")
    trials = {row.trial_id: row.status for row in read_trials(folder)}
    assert [trial_id for trial_id in trials if trial_id.startswith("c")] == ["c1-s0"]
    searched = [trial_id for trial_id in trials if trial_id.startswith("t")]
    assert 2 <= len(searched) < 6
    limits = [event.limits for event in journal_events(place) if event.kind == "limited"]
    assert limits == [{"trials": len(searched)}, {"runs": 1}]
