"""Trials that run out of memory: one is retried, others fail, and the sweep continues."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ray.util.queue import Empty

from platform.common.errors import UserError
from platform.data.dataset import DatasetInfo
from platform.tracking.events import Observers, TrialStatus
from platform.tracking.parquet_tables import TableWriter, read_trials
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.execution import inproc
from platform.tuning.execution.ddp import _forward_reports
from platform.tuning.execution.placement_groups import active_groups
from platform.tuning.journal.journal import read_journal
from platform.tuning.journal.ledger import replay
from platform.tuning.journal.trial import FAILURE, TrialFailed, TrialTask, trial_log
from platform.tuning.journal.trial_model import find_task
from tests.tuning.execution.examples import (
    DIVERGES,
    TWO_WORKERS,
    RecordingObserver,
    run_group_with_little_memory,
    search,
    sgd,
    tiny_spec,
    train_with_little_memory,
    unfinished,
)

SPEC = tiny_spec(
    start_from=[*(sgd(lr) for lr in (0.05, 0.04, 0.03, 0.02)), DIVERGES],
    trials=5,
    scheduler={"name": "none"},
    max_failures=2,
)


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("ray_session")
def test_out_of_memory_is_retried_once_and_too_many_failures_end_the_sweep(
    folder: Path, info: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.tuning.execution.inproc.train_trial", train_with_little_memory)
    recorder = RecordingObserver()
    tables = TableWriter(SweepFolder(folder))
    observers = Observers([recorder, tables])
    survived = r"a sweep survives 2 failed trials \(max_failures\), and 3 failed: t001, t002, t004\."
    last = r"The last one: .*TrainingDiverged.*\nlog: .*t004\.log$"
    with pytest.raises(UserError, match=f"{survived} {last}"):
        search(SPEC, folder, info, observer=observers)
    tables.flush()
    first, second, third, fourth, _ = search(SPEC, folder, info)  # all trials have ended, so none runs

    assert first.status is TrialStatus.FINISHED, "finished after the retry in pieces"
    assert first.records[-1].step == 3 * 64 // 32, "the same batches and steps"
    lines = [line for line in recorder.lines if line.startswith("t000")]
    assert lines[0] == lines[2] == "t000 started"
    note = lines[1].removeprefix("t000 note: ")
    assert note.startswith("out of GPU memory at batch size 32; tried again with each batch in 2 pieces")
    assert {row.trial_id: row.note is not None for row in read_trials(SweepFolder(folder))} == {
        "t000": True, "t001": True, "t002": False, "t003": False, "t004": False,
    }  # fmt: skip

    assert second.status is TrialStatus.FAILED, "a trial is retried once"
    assert sum(line.startswith("t001 note") for line in recorder.lines) == 1
    assert "OutOfMemoryError: CUDA out of memory" in second.error
    assert third.status is TrialStatus.FAILED
    assert third.error.startswith("Traceback")
    assert third.error.splitlines()[-2:] == ["MemoryError", f"log: {folder}/logs/t002.log"]
    assert "MemoryError" in (folder / "logs" / "t002.log").read_text()
    assert not any(line.startswith("t002 note") for line in recorder.lines)
    assert fourth.status is TrialStatus.FINISHED, "the sweep continues"
    logs = "".join(log.read_text() for log in (folder / "logs").glob("*.log"))
    assert len(set(re.findall(r"in process (\d+)", logs))) == 1, "all trials ran in one process"

    # The journal holds the retry, for a resume, for a repeated trial and for observers.
    assert [find_task(SweepFolder(folder), name).accumulate for name in ("t000", "t003")] == [2, 1]
    trials = replay(read_journal(folder / "journal.jsonl")).trials
    assert (trials["t000"].note, trials["t003"].note) == (note, None)
    assert unfinished(folder) == []
    assert active_groups() == []


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("ray_session")
def test_a_worker_group_that_runs_out_of_memory_is_retried(
    folder: Path, info: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.tuning.execution.ddp.run_worker_group", run_group_with_little_memory)
    spec = tiny_spec(workers_per_trial=2, start_from=[sgd(0.05)], trials=1, scheduler={"name": "none"})
    recorder = RecordingObserver()
    [outcome] = search(spec, folder, info, observer=recorder, placement=TWO_WORKERS)
    assert outcome.status is TrialStatus.FINISHED, outcome.error
    assert outcome.records[-1].step == 3 * 64 // 32, "the same batches and steps"
    notes = [line for line in recorder.lines if line.startswith("t000 note: ")]
    assert len(notes) == 1
    assert "out of GPU memory at batch size 32; tried again with each batch in 2 pieces" in notes[0]
    assert "OutOfMemoryError" in (folder / "logs" / "t000.rank1.log").read_text()
    assert find_task(SweepFolder(folder), "t000").accumulate == 2
    assert active_groups() == []


def test_a_worker_group_reports_its_first_failure(tmp_path: Path) -> None:
    import torch

    with pytest.raises(TrialFailed) as caught, trial_log(tmp_path / "t000.log", "t000"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    reports = [(FAILURE, caught.value.as_metrics()), (FAILURE, {FAILURE: "the connection was closed"})]

    class Reports:
        def get(self, timeout: float) -> object:
            if not reports:
                raise Empty
            return reports.pop(0)

    class Done:
        def is_set(self) -> bool:
            return True

    failure = _forward_reports(Reports(), Done(), [])
    assert failure is not None
    assert failure["out_of_gpu_memory"] is True
    assert "OutOfMemoryError" in failure[FAILURE]


@pytest.mark.parametrize(("gpus", "expected"), [(0.5, ["freed", "trained"]), (0, ["trained"])])
def test_gpu_memory_is_freed_before_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: float, expected: list[str]
) -> None:
    done: list[str] = []
    monkeypatch.setattr(inproc, "_free_memory", lambda: done.append("freed"))
    monkeypatch.setattr(inproc, "train_task", lambda *_, **__: done.append("trained"))
    task = TrialTask(
        trial_id="t000",
        stage="search",
        number=0,
        params={},
        run=SPEC.base,
        data_path="/nowhere",
        checkpoint_dir=str(tmp_path),
        log_path=str(tmp_path / "t000.log"),
        gpus_per_worker=gpus,
    )
    inproc.train_trial({"task": task.model_dump_json(), "reported_epochs": 0, "file_server": None})
    assert done == expected
