"""A search on the `inproc` backend: uninterrupted, killed, and resumed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from platform.common.errors import UserError
from platform.data.dataset import DatasetInfo
from platform.models.trained import load_trained_model
from platform.tracking.events import TrialInfo, TrialStatus
from platform.tracking.sweep_folder import SweepFolder
from platform.training.records import EpochRecord
from platform.tuning.execution.fixed_runs import run_configurations
from platform.tuning.execution.placement_groups import active_groups
from platform.tuning.mirror import mirrored, restore
from tests.tuning.execution.examples import (
    DIVERGES,
    RecordingObserver,
    context,
    search,
    sgd,
    table,
    tiny_spec,
    train_with_a_failed_capture,
    unfinished,
)

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(1800)]

SPEC = tiny_spec(start_from=[sgd(0.05), DIVERGES])


@pytest.fixture(scope="module")
def finished(
    ray_session: None, info: DatasetInfo, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, RecordingObserver, list]:  # type: ignore[type-arg]
    folder, observer = tmp_path_factory.mktemp("sweep") / "tiny-20260101-000000", RecordingObserver()
    return folder, observer, search(SPEC, folder, info, observer=observer)


def test_all_trials_run_in_one_process(finished) -> None:  # type: ignore[no-untyped-def]
    folder, observer, outcomes = finished
    assert [outcome.task.trial_id for outcome in outcomes] == ["t000", "t001", "t002", "t003"]
    assert outcomes[0].task.params == sgd(0.05)
    assert observer.lines[:5] == [
        "t000 started", "t000 epoch 1", "t000 epoch 2", "t000 epoch 3", "t000 finished"
    ]  # fmt: skip
    model = load_trained_model(folder / "checkpoints" / "t000" / "model.pt")
    assert model.metrics["validation_accuracy"] == pytest.approx(outcomes[0].accuracy)
    processes = {
        re.search(r"in process (\d+)", (folder / "logs" / f"{name}.log").read_text()).group(1)
        for name in ("t000", "t001", "t002", "t003")
    }
    assert len(processes) == 1
    assert active_groups() == []
    assert unfinished(folder) == []


def test_a_failed_trial_is_reported_with_its_traceback_and_log(finished) -> None:  # type: ignore[no-untyped-def]
    folder, observer, outcomes = finished
    failed = outcomes[1]
    assert failed.status is TrialStatus.FAILED
    assert not (folder / "checkpoints" / "t001" / "model.pt").exists()
    assert failed.error.startswith("Traceback")
    assert "TrainingDiverged" in failed.error
    log = failed.error.splitlines()[-1].removeprefix("log: ")
    assert "TrainingDiverged" in Path(log).read_text()
    assert "t002 started" in observer.lines


def test_a_killed_search_resumes_exactly(finished, folder: Path, info: DatasetInfo) -> None:  # type: ignore[no-untyped-def]
    whole, _, outcomes = finished
    cut = 3
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    # Killed while writing a line, with one checkpoint that is not in the journal.
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:cut]) + lines[cut][:20])
    known = {name for name in ("t000", "t001", "t002", "t003") if name in b"".join(lines[:cut]).decode()}
    for trial_id in known:
        if (whole / "checkpoints" / trial_id).exists():
            shutil.copytree(whole / "checkpoints" / trial_id, folder / "checkpoints" / trial_id)
    observer = RecordingObserver()
    again = search(SPEC, folder, info, observer=observer)
    assert table(again) == table(outcomes)
    assert len(observer.lines) == len(set(observer.lines)), "an event was reported twice"


def test_a_search_restored_from_its_mirror_resumes_exactly_in_another_folder(
    finished, folder: Path, info: DatasetInfo, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    whole, _, outcomes = finished
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:4]))
    shutil.copytree(whole / "checkpoints" / "t000", folder / "checkpoints" / "t000")
    with mirrored(SweepFolder(folder), str(tmp_path / "mirror"), warn=pytest.fail):
        pass
    shutil.rmtree(folder)
    restored = restore(str(tmp_path / "mirror"), tmp_path / "runs", progress=lambda _: None).path
    again = search(SPEC, restored, info)
    assert table(again) == table(outcomes)
    for outcome in again:
        if outcome.status is TrialStatus.FINISHED:
            load_trained_model(restored / "checkpoints" / outcome.task.trial_id / "model.pt")
        assert (restored / "logs" / f"{outcome.task.trial_id}.log").exists()


def test_a_scheduler_decision_without_a_journaled_end_is_kept(
    finished, folder: Path, info: DatasetInfo
) -> None:  # type: ignore[no-untyped-def]
    whole, _, outcomes = finished
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    cut = next(number for number, line in enumerate(lines) if b'"pruned"' in line)
    trial_id = json.loads(lines[cut])["trial"]
    # Killed between the last epoch of a trial that the scheduler stopped and its journaled end.
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:cut]))
    shutil.copytree(whole / "checkpoints", folder / "checkpoints")
    observer = RecordingObserver()
    assert table(search(SPEC, folder, info, observer=observer)) == table(outcomes)
    assert [line for line in observer.lines if trial_id in line] == [f"{trial_id} pruned"]


def test_resuming_a_finished_search_runs_nothing(finished, info: DatasetInfo) -> None:  # type: ignore[no-untyped-def]
    folder, _, outcomes = finished
    observer = RecordingObserver()
    assert table(search(SPEC, folder, info, observer=observer)) == table(outcomes)
    assert observer.lines == []


def test_a_resume_with_another_space_is_refused(finished, info: DatasetInfo) -> None:  # type: ignore[no-untyped-def]
    folder, _, _ = finished
    with pytest.raises(UserError, match="resumes with the space it began with"):
        search(tiny_spec(start_from=[sgd(0.06)]), folder, info)


def test_a_killed_process_is_replaced_and_an_observers_error_is_raised(
    folder: Path, info: DatasetInfo
) -> None:
    class Killer(RecordingObserver):
        def epoch_finished(self, trial: TrialInfo, record: EpochRecord) -> None:
            super().epoch_finished(trial, record)
            if record.epoch == 1:
                log = (folder / "logs" / f"{trial.trial_id}.log").read_text()
                os.kill(int(re.findall(r"in process (\d+)", log)[-1]), signal.SIGKILL)

        def trial_ended(self, trial: TrialInfo, status: TrialStatus, *, error: str | None = None) -> None:
            raise UserError("the disk is full")

    spec, observer = tiny_spec(start_from=[sgd(0.05)], trials=1), Killer()
    with pytest.raises(UserError, match="the disk is full"):
        search(spec, folder, info, observer=observer)
    assert observer.lines.count("t000 started") == 2
    assert active_groups() == []
    assert unfinished(folder) == []
    [outcome] = search(spec, folder, info)  # the journal was written before the observer was called
    assert outcome.status is TrialStatus.FINISHED
    assert [record.epoch for record in outcome.records] == [1, 2, 3]


def test_after_a_failed_capture_the_next_trial_runs_in_a_new_process(
    folder: Path, info: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.tuning.execution.inproc.train_trial", train_with_a_failed_capture)
    monkeypatch.setattr("platform.tuning.execution.driver_callback._MAX_ATTEMPTS", 1)
    starts, observer = [sgd(0.05), sgd(0.04), sgd(0.03)], RecordingObserver()
    spec = tiny_spec(start_from=starts, trials=3, scheduler={"name": "none"})
    outcomes = search(spec, folder, info, observer=observer)
    assert [outcome.status for outcome in outcomes] == [TrialStatus.FINISHED] * 3
    logs = [(folder / "logs" / f"{name}.log").read_text() for name in ("t000", "t001", "t002")]
    first, second, third = (re.findall(r"in process (\d+)", log) for log in logs)
    assert first != second == third
    assert [line for line in observer.lines if "started" in line] == [
        "t000 started",
        "t001 started",
        "t002 started",
    ]


def test_the_final_run_also_trains_on_validation_images(folder: Path, info: DatasetInfo) -> None:
    config = tiny_spec().base
    trial = TrialInfo(trial_id="final", stage="final", number=0, config=config, params={})
    observer = RecordingObserver()
    for _ in range(2):  # the second call runs nothing
        [outcome] = run_configurations(
            [trial], context(folder, info, observer=observer), stage="final", include_validation=True
        )
    assert outcome.status is TrialStatus.FINISHED
    assert outcome.accuracy is None
    assert outcome.records[-1].step == 3 * -(-(64 + 32) // 32)
    assert observer.lines.count("final started") == 1
