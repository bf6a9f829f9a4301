"""Atomic replacement of folders: after errors, after a kill, with foreign files."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.model_files.folder_swap import replacing_folder
from platform.common.errors import UserError

OWN = {"a"}


def content(target: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in target.iterdir()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    target = tmp_path / "export"
    target.mkdir()
    (target / "a").write_text("old")
    return target


def test_folder_is_created_and_replaced(tmp_path):
    target = tmp_path / "deep" / "export"
    for text in ("first", "second"):
        with replacing_folder(target, own_files=OWN) as folder:
            (folder / "a").write_text(text)
        assert content(target) == {"a": text}
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, UserError])
def test_an_error_leaves_the_old_folder(target, error):
    def fail_halfway():
        with replacing_folder(target, own_files=OWN) as folder:
            (folder / "a").write_text("half")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert content(target) == {"a": "old"}
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_move_puts_the_old_folder_back(target, monkeypatch):
    rename = Path.rename

    def refuse(self, new):
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, new)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UserError, match="No space left"), replacing_folder(target, own_files=OWN) as folder:
        (folder / "a").write_text("new")
    assert content(target) == {"a": "old"}


KILLED = """
import os, signal, sys
from pathlib import Path
from deploy.model_files.folder_swap import replacing_folder
rename = Path.rename
def die_between(self, new):
    if self.name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, new)
Path.rename = die_between
with replacing_folder(Path(sys.argv[1]), own_files={"a"}) as folder:
    (folder / "a").write_text("new")
"""


@pytest.mark.parametrize("before_moving", ["export", "new"])
def test_next_export_recovers_after_a_kill(target, before_moving):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, target, before_moving], cwd=Path(__file__).parents[3], check=False
    )
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(UserError), replacing_folder(target, own_files=OWN):
        raise UserError("this one fails too")
    assert content(target) == {"a": "old"}
    assert list(target.parent.iterdir()) == [target]


def test_scratch_of_a_running_export_is_kept(target):
    other = target.with_name(f".export.{os.getppid()}.tmp")
    other.mkdir()
    with replacing_folder(target, own_files=OWN) as folder:
        (folder / "a").write_text("new")
    assert other.is_dir()


def test_folder_with_foreign_files_is_not_replaced(target):
    (target / "thesis.txt").write_text("mine")
    with (
        pytest.raises(UserError, match="contains files that are not part of an export"),
        replacing_folder(target, own_files=OWN),
    ):
        pass
    assert content(target) == {"a": "old", "thesis.txt": "mine"}
    with pytest.raises(UserError, match="is a file"), replacing_folder(target / "a", own_files=OWN):
        pass
