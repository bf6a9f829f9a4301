"""The build in the background of a sweep: its priority, its status and its end."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deploy.engine_build import background_build, build_lock, engine
from deploy.engine_build.build_lock import build_status, locked
from deploy.engine_build.ncnn_source import ENGINE_DIR

PROGRAM = str(Path(__file__).with_name("background_program.py"))
STEPS = "rule wait\n command = sleep 600\nbuild x0: wait\nbuild x1: wait\n"


@pytest.fixture
def build_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A build that takes too long, as the engine's build."""
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / "build.ninja").write_text(STEPS)
    monkeypatch.setattr(engine, "_build_dir", lambda: folder)
    monkeypatch.setattr(background_build, "is_engine_built", lambda: False)
    command = [sys.executable, PROGRAM, str(folder)]
    monkeypatch.setattr(background_build, "_command", lambda: command)
    return folder


def await_steps(parent: psutil.Process) -> list[psutil.Process]:
    """Return the processes of the build, which `parent` started, once its steps run."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        # Other tests may have left children, such as the resource tracker of multiprocessing.
        builds = [child for child in parent.children() if PROGRAM in child.cmdline()]
        processes = [process for build in builds for process in (build, *build.children(recursive=True))]
        if sum(process.name() == "sleep" for process in processes) == 3:
            return processes
        time.sleep(0.05)
    raise AssertionError("the build did not start")


def test_the_build_has_the_lowest_priority_and_ends_with_the_block(build_dir: Path) -> None:
    shown: list[Callable[[], str | None]] = []
    with background_build.background_build(shown.append):
        processes = await_steps(psutil.Process())
        assert [shown[0]()] == ["building x (in the background)"]
        assert {process.nice() for process in processes} == {19}
        assert {os.sched_getscheduler(process.pid) for process in processes} == {os.SCHED_IDLE}
    assert psutil.wait_procs(processes, timeout=10)[1] == []
    assert shown[0]() is None
    assert build_status(engine._lock_file(build_dir)) is None


def test_a_build_in_the_background_has_no_time_left(tmp_path: Path) -> None:
    path = tmp_path / "engine.lock"
    with subprocess.Popen(["sleep", "60"]) as child:  # the holder of the lock
        status = {"pid": child.pid, "parent": os.getpid(), "since": 0.0}
        message = "building ncnn: 35 %, 2 h 10 min left"
        build_lock._status_file(path).write_text(json.dumps({**status, "message": message}))
        assert build_status(path) == "building ncnn: 35 % (in the background)"
        child.kill()


def test_the_build_ends_with_a_killed_sweep(build_dir: Path) -> None:
    command = [sys.executable, PROGRAM, str(build_dir), "with-driver"]
    environment = {**os.environ, "PYTHONPATH": str(ENGINE_DIR.parent)}
    with subprocess.Popen(command, env=environment) as driver:
        try:
            processes = await_steps(psutil.Process(driver.pid))
        finally:
            driver.kill()
    assert psutil.wait_procs(processes, timeout=30)[1] == []


def test_a_build_without_processor_time_is_continued_in_the_foreground(
    build_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_lock, "_POLL_S", 0.05)
    monkeypatch.setattr(build_lock, "_CHECK_EVERY_S", 0.5)
    messages: list[str] = []
    with background_build.background_build(lambda _: None):
        processes = await_steps(psutil.Process())
        with locked(engine._lock_file(build_dir), progress=messages.append):
            assert psutil.wait_procs(processes, timeout=10)[1] == []
    assert messages == [
        "building x (in the background)",
        "other processes use the processor: continuing the build with normal priority",
    ]


def test_nothing_is_built_without_need(build_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise AssertionError("a build was started")

    with background_build.background_build(fail, needed=False):
        pass
    monkeypatch.setattr(background_build, "is_engine_built", lambda: True)
    with background_build.background_build(fail):
        pass
