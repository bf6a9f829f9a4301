"""Every abnormal end of a sweep is one message that says how to resume."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from platform.common.errors import Interrupted, UsageError, UserError
from platform.sweep import _recorded_outcome
from platform.tracking.events import Observers, SweepObserver, SweepOutcome
from platform.tracking.sweep_folder import SweepFolder


class Recorder(SweepObserver):
    def __init__(self) -> None:
        self.outcomes: list[SweepOutcome] = []

    def sweep_ended(self, outcome: SweepOutcome) -> None:
        self.outcomes.append(outcome)


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    path = tmp_path / "tiny-20260101-000000"
    path.mkdir()
    return SweepFolder(path)


def message_of(error: BaseException, folder: SweepFolder, observer: SweepObserver | None = None) -> UserError:
    observers = Observers([observer or SweepObserver()])
    with pytest.raises(UserError) as caught, _recorded_outcome(folder, observers, again=False):
        raise error
    assert (
        f"resume with: python -m platform.sweep --resume {folder.sweep_id} --runs {folder.path.parent}"
        in (" ".join(str(caught.value).replace("Resume", "resume").split()))
    )
    assert caught.value.__suppress_context__, "no traceback"
    return caught.value


def test_an_unexpected_error_keeps_its_traceback_in_a_file(folder: SweepFolder) -> None:
    recorder = Recorder()
    error = message_of(RuntimeError("Caught unexpected exception: X\nand a second line"), folder, recorder)
    log = folder.path / "error.log"
    first, second = str(error).splitlines()
    assert first == f"unexpected RuntimeError: Caught unexpected exception: X; traceback: {log}"
    assert second.startswith("after fixing that, resume with: ")
    assert "and a second line" in log.read_text()
    assert "Traceback (most recent call last)" in log.read_text()
    assert folder.get_state() == "failed"
    assert [outcome.status for outcome in recorder.outcomes] == ["failed"]


def test_the_message_survives_a_full_disk(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SweepFolder, "set_state", full)
    monkeypatch.setattr(Path, "write_text", full)
    assert "No space left on device; free some" in str(
        message_of(OSError(errno.ENOSPC, "No space left on device"), folder)
    )
    assert "ZeroDivisionError" in str(message_of(ZeroDivisionError(), folder))


@pytest.mark.parametrize("kind", [UserError, UsageError])
def test_an_error_for_the_user_keeps_its_exit_code(folder: SweepFolder, kind: type[UserError]) -> None:
    error = message_of(kind("too many trials failed"), folder)
    assert error.exit_code == kind.exit_code
    assert not (folder.path / "error.log").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted("stopped")])
def test_an_interruption_is_not_a_failure(folder: SweepFolder, error: BaseException) -> None:
    assert isinstance(message_of(error, folder), Interrupted)
    assert folder.get_state() == "interrupted"
