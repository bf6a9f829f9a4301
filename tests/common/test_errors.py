"""How commands end: messages for users, exit codes."""

import errno
import os

import pytest

from platform.common.command_line import parse_command_line
from platform.common.errors import UsageError, run_command


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("trials must be positive"), 2, "error: trials must be positive"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a/plan.json"),
            1,
            "error: runs/a/plan.json: No space left on device; free some disk space, or use another folder",
        ),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/a"),
            1,
            "error: /data/a: Permission denied; check the permissions, or use another folder",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_an_error_of_the_user_or_the_system_is_one_line(error, code, message, capsys):
    with pytest.raises(SystemExit) as caught:
        run_command(raising(error))
    assert caught.value.code == code
    assert capsys.readouterr().err == f"{message}\n"


def test_a_defect_keeps_its_traceback():
    with pytest.raises(FileNotFoundError):
        run_command(raising(FileNotFoundError(errno.ENOENT, "No such file or directory", "a")))


def test_a_deleted_working_directory_is_one_message(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: 0)
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: the working directory was deleted; change to another one (cd)\n"


def test_an_argument_that_is_not_utf8_is_refused():
    with pytest.raises(UsageError, match=r"must be UTF-8 text, got 'a\\udcff.yaml'; rename"):
        parse_command_line(print, prog="x", words=[os.fsdecode(b"a\xff.yaml")])
