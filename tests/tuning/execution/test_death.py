"""A sweep's process is stopped, or killed: what it says, and that nothing lives on."""

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
    ("death", "status"),
    [("stopped", 130), ("killed", -signal.SIGKILL), ("its raylet killed", 1)],
)
def test_nothing_lives_on(folder: Path, info: DatasetInfo, death: str, status: int) -> None:
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
        # Ray's two agents look for their dead parent only now and then, on a busy machine for minutes.
        descendants = psutil.Process(process.pid).children(recursive=True)
        family = [child for child in descendants if "Agent" not in child.name()]
        [raylet] = [child for child in family if child.name() == "raylet"]
        if death == "stopped":
            os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C at a terminal does: Ray's processes get it too
        elif death == "killed":
            process.kill()
        else:
            raylet.kill()
        out, err = process.communicate(timeout=60)
    assert process.returncode == status
    if death == "its raylet killed":
        assert err.splitlines()[-1].startswith("error: Ray's process raylet on this machine has died"), err
    if death == "stopped":
        assert out.splitlines()[-1] == "t000 interrupted"
        assert err.splitlines()[-1].startswith(
            "interrupted; go on with: python -m platform.sweep --resume tiny-"
        )
    _, alive = psutil.wait_procs(family, timeout=60)
    assert [child for child in alive if not _is_zombie(child)] == []

    *events, last = read_journal(folder / "journal.jsonl")
    assert any(event.task is not None for event in events)
    assert last.kind == "epoch", "an interruption is no end"
    assert all(event.status is not TrialStatus.FINISHED for event in events)
    assert (folder / "checkpoints" / "t000" / "last.pt").exists()


def _is_zombie(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True
