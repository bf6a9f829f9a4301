"""The lock of a build: waiting processes report who builds, and how far it is."""

import re
import threading
from pathlib import Path

import pytest

from deploy.engine_build import build_lock
from deploy.engine_build.build_lock import build_status, locked
from platform.common.errors import UserError


@pytest.fixture(autouse=True)
def _threads_as_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_lock.os, "getpid", threading.get_ident)


def test_a_waiting_process_reports_the_builder_and_its_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_lock, "_POLL_S", 0.01)
    path = tmp_path / "engine.lock"
    order: list[str] = []
    waiting, building = threading.Event(), threading.Event()

    def wait_for_the_lock() -> None:
        def report(message: str) -> None:
            order.append(message)
            (building if "60 %" in message else waiting).set()

        with locked(path, progress=report):
            order.append("locked")

    with locked(path, progress=order.append) as report:
        other = threading.Thread(target=wait_for_the_lock)
        other.start()
        assert waiting.wait(30)
        report("building ncnn: 60 %, 12 s left")
        assert building.wait(30)
    other.join(30)
    assert re.sub(r"\d\d:\d\d", "17:03", "|".join(order)).split("|") == [
        "waiting for another process that runs the same build",
        "building ncnn: 60 %, 12 s left",
        f"building ncnn: 60 %, 12 s left (in process {threading.get_ident()} since 17:03)",
        "locked",
    ]
    assert build_status(path) is None


def test_progress_is_reported_again_every_few_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_lock, "_POLL_S", 0.01)
    monkeypatch.setattr(build_lock, "_REPORT_EVERY_S", 0.03)
    path = tmp_path / "engine.lock"
    messages: list[str] = []
    thrice = threading.Event()

    def wait_for_the_lock() -> None:
        def report(message: str) -> None:
            messages.append(message)
            if len(messages) == 3:
                thrice.set()

        with locked(path, progress=report):
            pass

    with locked(path, progress=lambda _: None) as report:
        report("building ncnn")
        other = threading.Thread(target=wait_for_the_lock)
        other.start()
        assert thrice.wait(30)
    other.join(30)
    assert len(set(messages)) == 1


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"cannot write the build folder .*XDG_CACHE_HOME"),
        locked(tmp_path / "file" / "cache" / "ncnn.lock", progress=lambda _: None),
    ):
        pass
