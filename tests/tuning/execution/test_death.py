"""A sweep's process is stopped or killed: its messages, and the end of all its processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import platform
from platform.data.dataset import DatasetInfo
from platform.tracking.events import TrialStatus
from platform.tuning.journal.journal import read_journal

ROOT = Path(platform.__path__[0]).parent


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("cause", "status"),
    [
        ("Ctrl-C", 130),
        ("SIGTERM to all", 130),
        ("SIGKILL", -signal.SIGKILL),
        ("raylet killed", 1),
        ("gcs_server killed", 1),
    ],
)
def test_no_process_outlives_a_stopped_or_killed_sweep(
    folder: Path, info: DatasetInfo, cause: str, status: int
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.tuning.execution.sweep_program", str(folder), str(info.path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "t000 epoch 1\n", process.communicate()[1]
        # Ray's two agents check for a dead parent rarely; on a busy machine they outlive it by minutes.
        descendants = psutil.Process(process.pid).children(recursive=True)
        processes = [child for child in descendants if "Agent" not in child.name()]
        if cause == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)  # as at a terminal, Ray's processes get it too
        elif cause == "SIGTERM to all":  # as systemd and Slurm do
            for each in (process, *descendants):
                each.terminate()
        elif cause == "SIGKILL":
            process.kill()
        else:
            [killed] = [child for child in processes if child.name() == cause.removesuffix(" killed")]
            killed.kill()
        out, err = process.communicate(timeout=60)
    assert process.returncode == status
    if status == 1:
        name = cause.removesuffix(" killed")
        assert err.splitlines()[-1].startswith(f"error: Ray's process {name} on this machine has died"), err
    if status == 130:
        assert out.splitlines()[-1] == "t000 interrupted"
        assert err.splitlines()[-1].startswith(
            "interrupted; resume with: python -m platform.sweep --resume tiny-"
        )
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert [child for child in alive if not _is_zombie(child)] == []

    *events, last = read_journal(folder / "journal.jsonl")
    assert any(event.task is not None for event in events)
    assert last.kind == "epoch", "an interrupted trial has no end in the journal"
    assert all(event.status is not TrialStatus.FINISHED for event in events)
    assert (folder / "checkpoints" / "t000" / "last.pt").exists()


@pytest.mark.timeout(1800)
def test_a_trial_killed_by_rays_memory_monitor_fails_like_any_dead_process(
    folder: Path, info: DatasetInfo
) -> None:
    memory = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.tuning.execution.sweep_program", str(folder), str(info.path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **memory},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "t000 failed"
    assert "Traceback" not in done.stderr
    *_, last = read_journal(folder / "journal.jsonl")
    assert last.error is not None
    assert last.error.startswith("its process died 3 times in one epoch; the last time: ")
    assert "memory" in last.error


def _is_zombie(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True
