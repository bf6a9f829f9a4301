"""A sweep that is stopped in every stage, and comes to its end all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from platform.tracking.events import TrialStatus
from platform.tracking.folder import SweepFolder
from platform.tracking.tables import read_trials
from platform.tuning.journal import Event, read_journal
from platform.tuning.search import journal_path
from tests.sweep.examples import Place

# Ray starts three times.
pytestmark = pytest.mark.timeout(3600)


def past(place: Place) -> list[Event]:
    return [event for folder in place.sweeps for event in read_journal(journal_path(folder))]


def trial_exists(place: Place, trial_id: str) -> Callable[[], bool]:
    return lambda: any(event.trial_id == trial_id for event in past(place))


def stopped(place: Place, arguments: list[str], when: Callable[[], bool], signals: str) -> SweepFolder:
    """Start or resume, stop, and check what a person sees and what is left."""
    code, out, err = place.interrupt(*arguments, when=when, signals=signals)
    [folder] = place.sweeps
    assert code == 130, err
    assert out == ""
    assert "Traceback" not in err
    go_on = f"python -m platform.sweep --resume {folder.sweep_id}"
    assert err.endswith(f"stopped; everything so far is kept. Go on with:\n  {go_on}\n")
    assert place.processes() == []
    assert folder.get_state() == "interrupted"
    return folder


def test_ctrl_c_and_sigterm_in_every_stage(place: Place) -> None:
    folder = stopped(place, ["tiny.yaml"], trial_exists(place, "t000"), "ctrl-c")
    stopped(place, ["--resume"], trial_exists(place, "c1-s0"), "kill")
    done = {row.trial_id: row.status for row in read_trials(folder)}
    assert (done["t000"], done["t001"]) == (TrialStatus.FINISHED, TrialStatus.FINISHED)
    stopped(place, ["--resume", folder.sweep_id], folder.test.exists, "ctrl-c")
    assert not folder.report.exists()

    finished = place.sweep("--resume")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == f"{folder.path}\n"
    assert folder.get_state() == "finished"
    assert folder.report.exists()
    rows = read_trials(folder)
    assert [row.trial_id for row in rows] == ["t000", "t001", "c1-s0", "final"]
    assert {row.status for row in rows} == {TrialStatus.FINISHED}
    ended = [event.trial_id for event in past(place) if event.kind == "ended"]
    assert ended == ["t000", "t001", "c1-s0", "final"] or ended == ["t001", "t000", "c1-s0", "final"]

    again = place.sweep("--resume")
    assert again.returncode == 1
    assert "there is no unfinished sweep" in again.stderr


def test_sigterm_before_anything_has_begun(place: Place) -> None:
    with place.start("tiny.yaml") as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.terminate()
        out, err = process.communicate(timeout=1800)
    assert (process.returncode, out) == (130, ""), line + err
    assert "Traceback" not in err
    assert place.processes() == []
